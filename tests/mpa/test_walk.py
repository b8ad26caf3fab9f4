"""MPA as a whole: octets in segments in slots, ULPDUs out."""

import random

import pytest

from emplace.control.records import RecordKind, TokenOp
from emplace.llp import UlpduStatus
from emplace.tcp.records import StreamEnd
from emplace_sim.fpdu import build_fpdu, split_fpdus

from .bench import Bench, Result, parts
from .test_fpdu import EXAMPLES, ulpdu_of

OK, LENGTH, CRC, LEASE = UlpduStatus.OK, UlpduStatus.LENGTH, UlpduStatus.CRC, UlpduStatus.LEASE


def write(size, rng, **kw):
    return build_fpdu(b"\xc1\x40" + rng.randbytes(12 + size), pad=rng.randbytes(3), **kw)


def send(size, rng, *, mo=0, opcode=3, qn=0, **kw):
    head = bytes([0x41, 0x40 | opcode]) + rng.randbytes(4) + qn.to_bytes(4, "big") + rng.randbytes(4)
    return build_fpdu(head + mo.to_bytes(4, "big") + rng.randbytes(size), pad=rng.randbytes(3), **kw)


def anything(rng):
    size = rng.choice([0, 1, 2, 3, 4, rng.randrange(100), rng.randrange(1430), rng.randrange(2020)])
    if rng.random() < 0.5:
        return write(size, rng)
    return send(size, rng, mo=rng.choice([0, 0, 1428]), opcode=rng.choice([1, 3, 4, 5, 6, 7]), qn=rng.choice([0, 0, 1]))


async def feed_all(bench, qp, stream, sizes):
    at = 0
    for size in sizes:
        got = await bench.feed(qp, stream[at:at + size])
        assert got.consumed == size and not got.failed and not got.parked
        at += size
    assert at == len(stream)


def play(stream, sizes, *, crc=True, **kw):
    """One QP's stream, cut into ``sizes``; returns the bench after all came out right."""
    async def script(bench):
        await bench.install(5, crc)
        await feed_all(bench, 5, stream, sizes)

    bench = Bench(**kw).run(script)
    split = split_fpdus(stream)
    assert bench.ulpdus(5) == [f.ulpdu for f in split.fpdus]
    assert bench.statuses(5) == [OK] * len(split.fpdus)
    assert bench.leaks() == (["mpa5"] if split.rest < len(stream) else [])
    assert bench.counts["rx_fpdus"] == len(split.fpdus)
    return bench


@pytest.mark.parametrize("stall", [0, 0.4])
def test_examples(stall):
    """Each worked example in a segment of its own, at every offset in a word, then all in one."""
    async def script(bench):
        await bench.install(5)
        for n, fpdu in enumerate(EXAMPLES):
            assert await bench.feed(5, fpdu, offset=n % 8 + 8 * n) == Result(len(fpdu), 0, 0, 0)
        assert (await bench.feed(5, b"".join(EXAMPLES))).consumed == sum(map(len, EXAMPLES))

    bench = Bench(stall=stall).run(script)
    assert bench.ulpdus(5) == [ulpdu_of(e) for e in EXAMPLES] * 2
    assert not bench.leaks() and not bench.freed


@pytest.mark.parametrize("seed", range(8))
def test_random_cuts(seed):
    """Any stream, any segments, any offsets, with and without stalls: out comes what split_fpdus says."""
    rng = random.Random(seed)
    most, fpdus = ((40, 5), (300, 12), (1448, 25), (2048, 25))[seed % 4]
    stream = b"".join(anything(rng) for _ in range(fpdus))
    play(stream if seed != 3 else stream[:-9], parts(len(stream) - 9 * (seed == 3), rng, most=most),
         stall=(0, 0.3)[seed // 4], seed=seed)


def test_tiny_cuts():
    """Segments of 1 to 9 octets."""
    rng = random.Random(9)
    stream = b"".join([write(0, rng), send(0, rng), write(33, rng), send(70, rng), write(3, rng)])
    bench = play(stream, parts(len(stream), rng, most=9))
    assert bench.counts["rx_appended"] > 10


def test_random_qps():
    """Four QPs, interleaved, two without CRC."""
    rng = random.Random(4)
    streams = {qp: b"".join(anything(rng) for _ in range(12)) for qp in (0, 3, 7, 15)}

    async def script(bench):
        for qp in streams:
            await bench.install(qp, crc=qp in (0, 7))
        todo = {qp: list(parts(len(s), rng)) for qp, s in streams.items()}
        at = dict.fromkeys(streams, 0)
        while any(todo.values()):
            qp = rng.choice([qp for qp in todo if todo[qp]])
            size = todo[qp].pop(0)
            data = bytearray(streams[qp][at[qp]:at[qp] + size])
            assert (await bench.feed(qp, data)).consumed == size
            at[qp] += size

    bench = Bench(stall=0.1, seed=4).run(script)
    for qp, stream in streams.items():
        assert bench.ulpdus(qp) == [f.ulpdu for f in split_fpdus(stream).fpdus]
    assert not bench.leaks()


@pytest.mark.parametrize("start", [3, 6, 1000, 2045, 2047])
def test_append_wraps(start):
    """The longest FPDU, in pieces, from every corner of its slot: its end may share a word with its start."""
    rng = random.Random(start)
    stream = write(2028, rng)
    assert len(stream) == 2048
    cuts = [2048 - start] + [cut for cut in (2039, 2043, 2044, 2047, 2048) if cut > 2048 - start]

    async def script(bench):
        await bench.install(1)
        at = 0
        for cut in cuts:
            got = await bench.feed(1, stream[at:cut], offset=start if not at else rng.randrange(8) if at > 8 else 0)
            assert got == Result(cut - at, not at, 0, 0)
            at = cut

    bench = Bench().run(script)
    assert bench.ulpdus(1) == [stream[2:2044]] and not bench.leaks()
    assert bench.counts["rx_appended"] == len(cuts) - 2


# Cases 1 to 10 of the protocol's list.

@pytest.mark.parametrize("stall", [0, 0.4])
@pytest.mark.parametrize("octets", [1, 2, 3, 4])
def test_case_1_crc_split(octets, stall):
    rng = random.Random(octets)
    stream = write(1428, rng) + write(0, rng)
    size = len(stream) - 20 - octets
    bench = play(stream, [size, octets, 20], stall=stall)
    assert bench.counts["rx_fpdus_split"] == 1 and bench.counts["rx_unfinished"] == 1


@pytest.mark.parametrize("stall", [0, 0.4])
def test_case_2_length_split(stall):
    rng = random.Random(2)
    stream = write(9, rng) + write(9, rng)
    for more in (1, 2, 19):
        play(stream, [33, more, 31 - more], stall=stall)
    play(stream, [33, 31], stall=stall)


def test_case_3_header_split():
    rng = random.Random(3)
    fpdus = (write(9, rng), send(5, rng), EXAMPLES[2])

    async def script(bench):
        await bench.install(5)
        for fpdu in fpdus:
            for cut in range(1, len(fpdu)):
                await feed_all(bench, 5, fpdu, [cut, len(fpdu) - cut])

    bench = Bench().run(script)
    assert bench.ulpdus(5) == [ulpdu_of(fpdu) for fpdu in fpdus for _ in fpdu[1:]] and not bench.leaks()


def test_case_4_three_and_a_piece():
    rng = random.Random(4)
    stream = b"".join(write(n, rng) for n in (100, 201, 302, 403))
    first = sum(f.size for f in split_fpdus(stream).fpdus[:3]) + 5
    play(stream, [first, len(stream) - first])
    play(stream, [first, 40, 1, len(stream) - first - 41], stall=0.3)


def test_case_4_a_piece_of_any_length():
    """The piece begins at octet 0 or 4 of a word, and may end before the header does."""
    rng = random.Random(4)
    first = {size: write(size, rng) for size in (0, 4)}
    behind = (write(6, rng), send(6, rng))

    async def script(bench):
        await bench.install(5)
        for good in first.values():
            for other in behind:
                for piece in range(1, 25):
                    stream = good + other
                    await feed_all(bench, 5, stream, [len(good) + piece, len(other) - piece])

    bench = Bench().run(script)
    assert bench.ulpdus(5) == [ulpdu_of(f) for good in first.values() for other in behind
                               for _ in range(24) for f in (good, other)]
    assert not bench.leaks()


def test_case_5_three_segments_and_too_long():
    rng = random.Random(5)
    stream = write(2000, rng)
    assert play(stream, [700, 700, len(stream) - 1400]).counts["rx_appended"] == 1
    failing([(b"", write(size, rng)[:1448], LENGTH, None, 0) for size in (16384 - 20, 64768 - 14)])


@pytest.mark.parametrize("pad", range(4))
def test_case_6_padding_is_not_zero(pad):
    rng = random.Random(6)
    fpdu = build_fpdu(b"\xc1\x40" + bytes(12 + 4 - pad), pad=b"\xff\xee\xdd")
    assert pad == 0 or fpdu[-5] == b"\xff\xee\xdd"[pad - 1]
    play(fpdu + write(5, rng), [len(fpdu), 28])


def failing(cases, **kw):
    """Streams that fail, one after the other on one QP. A case: good octets, octets that fail, how, the sizes of
    their segments (None: all in one), and what is consumed of the segment in which it fails."""
    expected = []

    async def script(bench):
        rng = random.Random(0)
        await bench.install(6)
        for before, bad, status, pieces, consumed in cases:
            await bench.install(5)
            stream, at = before + bad, 0
            for size in pieces or [len(stream)]:
                got = await bench.feed(5, stream[at:at + size])
                at += size
                if got.failed:
                    break
                assert got.consumed == size
            assert got == Result(consumed, 0, 0, 1), (before, bad[:4], pieces)
            good = split_fpdus(before)
            expected.extend((OK, f.ulpdu) for f in good.fpdus)
            expected.append((status, stream[good.rest:at][:48 if status == CRC else 16]))
            # From here on everything is swallowed, and other streams are none the worse.
            assert await bench.feed(5, write(9, rng)) == Result(0, 0, 0, 1)
            await bench.idle(2)
            assert not bench.leaks()
        assert (await bench.feed(6, write(9, rng))).consumed == 32

    bench = Bench(**kw).run(script)
    got = [r for r in bench.records if r.kind == RecordKind.DATA]
    assert got.pop().qp == 6 and len(got) == len(expected)
    for record, (status, octets) in zip(got, expected, strict=True):
        assert record.status == status and record.qp == 5
        assert record.packet[2:] == octets if status == OK else record.header.startswith(octets)


@pytest.mark.parametrize("stall", [0, 0.4])
def test_case_7_crc_wrong(stall):
    rng = random.Random(7)
    cases = []
    for where in (2, 15, -4, -1):
        good, bad = write(100, rng) + send(7, rng), bytearray(write(rng.choice([200, 204]), rng))
        bad[where] ^= 1 << rng.randrange(8)
        g, b = len(good), len(bad)
        # Alone, behind good ones, between good ones, in pieces.
        bad = bytes(bad) + good
        cases += [(b"", bad[:b], CRC, None, 0), (good, bad[:b], CRC, None, g), (good, bad, CRC, None, g),
                  (good, bad, CRC, [g + 150, b - 150 + g], 0), (good, bad, CRC, [g - 20, 20 + b + g], 20)]
    failing(cases, stall=stall)


def test_case_8_crc_off():
    rng = random.Random(8)
    stream = b"".join(fpdu[:-4] + rng.randbytes(4) for fpdu in (anything(rng) for _ in range(12)))
    play(stream, parts(len(stream), rng), crc=False)


@pytest.mark.parametrize("length, control, stall", [
    (0, 0xc1, 0), (1, 0xc1, 0), (13, 0xc1, 0), (17, 0x41, 0), (17, 0x41, 0.4), (65535, 0xc1, 0.4), (65535, 0x41, 0),
    (13, 0x41, 0.4), (2043, 0xc1, 0), (0, 0x41, 0)])
def test_case_9_length(length, control, stall):
    rng = random.Random(9)
    bad = length.to_bytes(2, "big") + bytes([control, 0x40]) + rng.randbytes(96)
    good = write(50, rng)
    g = len(good)
    # As soon as both octets are there, or the one with the T bit.
    seen = 3 if 14 <= length < 18 else 2
    failing([(b"", bad, LENGTH, None, 0), (good, bad, LENGTH, None, g), (good, bad[:seen], LENGTH, None, g),
             (good, bad[:seen], LENGTH, [g + 1, 1, 1][:seen], 0), (good, bad, LENGTH, [g + 1, 99], 0),
             (good, bad, LENGTH, [g + seen - 1, 90], 0)], stall=stall)


def test_case_9_longest_is_fine():
    rng = random.Random(9)
    play(write(2042 - 14, rng) + write(2042 - 14, rng), [2048, 2048])


def test_case_10_what_lies_behind_is_not_read():
    """Octets past the segment's end are noise (a frame's padding), and look like an FPDU's start."""
    rng = random.Random(10)

    async def script(bench):
        await bench.install(5)
        for cut in (40, 41, 60):
            fpdu = write(44, rng)
            slot = bench.take_slot()
            bench.memory[slot][:64] = fpdu
            got, _ = await bench.walk(5, fpdu[:cut], slot=slot, offset=0)
            assert got == Result(cut, 1, 0, 0)
            assert await bench.feed(5, fpdu[cut:]) == Result(64 - cut, 0, 0, 0)

    assert len(Bench().run(script).ulpdus(5)) == 3


# The gate.

@pytest.mark.parametrize("stall", [0, 0.4])
def test_gate_asks_for_first_segments_of_sends(stall):
    rng = random.Random(1)
    stream, asked = b"", 0
    for opcode in range(8):
        for qn in (0, 1, 2, 1 << 31):
            for mo in (0, 4, 1 << 31):
                stream += send(rng.choice([0, 1, 40]), rng, opcode=opcode, qn=qn, mo=mo)
                asked += opcode in (3, 4, 5, 6) and qn == 0 and mo == 0
    stream += build_fpdu(b"\xc1\x43" + bytes(40))
    bench = play(stream, parts(len(stream), rng, most=700), stall=stall)
    assert bench.gate_asked == [5] * asked == [5] * 4
    claimed = [bool(r.claimed) for r in bench.records if r.kind == RecordKind.DATA]
    assert claimed == [f.ulpdu[0] == 0x41 and f.ulpdu[1] & 15 in (3, 4, 5, 6) and not any(f.ulpdu[6:10] + f.ulpdu[14:18])
                       for f in split_fpdus(stream).fpdus]


@pytest.mark.parametrize("stall", [0, 0.4])
@pytest.mark.parametrize("size", [0, 5, 900])
def test_park_and_resume(size, stall):
    """No WQE here yet: the walk stops in front of the Send, wherever that began, and goes on there later."""
    rng = random.Random(size)
    before, fpdu, behind = write(30, rng), send(size, rng), write(77, rng) + write(1, rng)
    stream = before + fpdu + behind
    answers = []

    async def script(bench):
        bench.gate = lambda qp: answers.pop(0)
        await bench.install(5)
        for first in (0, 1, 30, 52, 52 + 10, 52 + len(fpdu) - 1, 52 + len(fpdu), 52 + len(fpdu) + 7):
            answers[:] = [(0, 0), (0, 0), (1, 1)]
            done = 0
            if first:
                got = await bench.feed(5, stream[:first])
                if first < 52 + len(fpdu):
                    assert got == Result(first, first not in (0, 52), 0, 0)
                    done = first
                else:
                    assert got == Result(52, 0, 1, 0)
                    done = 52
            # Twice in vain, from one slot.
            got, slot = await bench.walk(5, stream[done:], offset=100)
            assert got == Result(max(52 - done, 0), 0, 1, 0)
            done += got.consumed
            offset = 100 + got.consumed
            while answers:
                got, _ = await bench.walk(5, stream[done:], slot=slot, offset=offset)
                assert got in (Result(0, 0, 1, 0), Result(len(stream) - done, 0, 0, 0))
            bench.drop(slot)

    bench = Bench(stall=stall).run(script)
    assert bench.ulpdus(5) == [f.ulpdu for f in split_fpdus(stream).fpdus] * 8 and not bench.leaks()
    assert bench.counts["rx_parked"] == 16
    assert [r.claimed for r in bench.records[1:]] == [0, 1, 0, 0] * 8


def test_gate_without_claim_and_with_bad_crc():
    """Go without a WQE: RDMAP will find the queue empty. A claim is told even where the CRC is wrong."""
    rng = random.Random(5)
    bad = bytearray(send(500, rng))
    bad[100] ^= 4

    async def script(bench):
        bench.gate = lambda qp: (1, len(bench.gate_asked) & 1 ^ 1)
        await bench.install(5)
        await bench.feed(5, send(9, rng))
        assert (await bench.feed(5, bytes(bad))).failed

    bench = Bench().run(script)
    assert [r.claimed for r in bench.records[1:]] == [0, 1] and bench.statuses(5) == [OK, CRC]


# Slots, leases, tokens.

def test_low_free_count():
    """No slot may become unfinished, but who has one goes on, even to another."""
    rng = random.Random(6)

    async def script(bench):
        for qp in (1, 2):
            await bench.install(qp)
        fpdu = write(100, rng)
        assert (await bench.feed(1, fpdu[:40])).kept
        bench.reserved = len(bench.owner) - 2 - bench.config.slot_reserve - 1
        assert (await bench.feed(2, fpdu[:1])).kept       # reserve + 1 are free while it is in hand
        await bench.token(TokenOp.REMOVE, 2)
        await bench.install(2)
        bench.reserved += 1
        assert await bench.feed(2, fpdu[:40]) == Result(0, 0, 0, 0)
        assert await bench.feed(2, fpdu + fpdu[:40]) == Result(len(fpdu), 0, 0, 0)
        assert await bench.feed(1, fpdu[40:60]) == Result(20, 0, 0, 0)
        assert await bench.feed(1, fpdu[60:] + fpdu[:50]) == Result(len(fpdu) - 10, 1, 0, 0)
        assert await bench.feed(1, fpdu[50:]) == Result(len(fpdu) - 50, 0, 0, 0)
        bench.reserved += 1
        assert await bench.feed(1, fpdu[:40]) == Result(0, 0, 0, 0)
        bench.reserved = 0
        assert (await bench.feed(1, fpdu[:40])).kept

    bench = Bench().run(script)
    assert bench.leaks() == ["mpa1"] and len(bench.ulpdus(1)) == 2 and len(bench.ulpdus(2)) == 1


@pytest.mark.parametrize("stall", [0, 0.4])
def test_lease(stall):
    rng = random.Random(7)
    fpdu = write(100, rng)

    async def script(bench):
        lease, start = 50, 0xFFFFFFF0
        bench.ctx.set(bench.dut.lease, lease)
        bench.now = start
        for qp in (3, 9):
            await bench.install(qp)
        assert (await bench.feed(3, fpdu[:50])).kept
        await bench.idle(3)
        bench.now = start + 20 & 0xFFFFFFFF
        assert (await bench.feed(9, fpdu[:50])).kept
        await bench.feed(3, fpdu[50:60])                      # progress does not make it younger
        bench.now = start + lease + 10 & 0xFFFFFFFF
        await bench.idle(300)
        assert bench.owner.count("mpa3") == 1, "no pressure"
        bench.now = start + lease & 0xFFFFFFFF
        await bench.idle(3)
        bench.reserved = len(bench.owner)
        await bench.idle(300)
        assert bench.owner.count("mpa3") == 1, "exactly the lease is not too old"
        bench.now = start + lease + 1 & 0xFFFFFFFF
        # Traffic of another QP does not keep the watch from seeing it.
        bench.reserved = len(bench.owner) - 3
        await bench.install(1)
        for _ in range(40):
            await bench.feed(1, write(20, rng))
        await bench.idle(300)
        assert bench.owner.count("mpa3") == 0 and bench.owner.count("mpa9") == 1
        assert await bench.feed(3, fpdu[60:]) == Result(0, 0, 0, 1)
        assert await bench.feed(9, fpdu[50:]) == Result(len(fpdu) - 50, 0, 0, 0)
        bench.now = start + 1000
        await bench.idle(300)

    bench = Bench(stall=stall).run(script)
    assert bench.statuses(3) == [LEASE] and bench.statuses(9) == [OK] and not bench.leaks()


@pytest.mark.parametrize("stall", [0, 0.4])
def test_how_a_stream_ends(stall):
    """FIN between FPDUs and within one, RESET, and RESET behind FIN: told once each, behind all ULPDUs; slots come back."""
    rng = random.Random(8)
    fpdu = write(100, rng)
    ends = {2: [StreamEnd.FIN], 3: [StreamEnd.FIN], 4: [StreamEnd.RESET], 5: [StreamEnd.FIN, StreamEnd.RESET],
            6: [StreamEnd.FIN]}

    async def script(bench):
        for qp in ends:
            await bench.install(qp)
            assert await bench.feed(qp, fpdu) == Result(len(fpdu), 0, 0, 0)
        for qp in (3, 4):
            assert (await bench.feed(qp, fpdu[:50])).kept
        assert (await bench.feed(6, fpdu[:1])).kept
        for qp, hows in ends.items():
            for how in hows:
                got = await bench.request({"qp": qp, "slot": rng.randrange(20), "length": rng.randrange(9), "end": how})
                assert got == Result(0, 0, 0, 0)
            assert await bench.feed(qp, fpdu) == Result(0, 0, 0, 1)

    bench = Bench(stall=stall).run(script)
    S = UlpduStatus
    assert {qp: bench.statuses(qp) for qp in ends} == {
        2: [OK, S.FIN], 3: [OK, S.FIN_DIRTY], 4: [OK, S.RESET], 5: [OK, S.FIN, S.RESET], 6: [OK, S.FIN_DIRTY]}
    assert not bench.leaks()


def test_lease_runs_out_while_the_rest_is_walked():
    """An FPDU that has become whole is not too old any more."""
    rng = random.Random(7)
    fpdu = write(1428, rng)

    async def script(bench):
        bench.ctx.set(bench.dut.lease, 50)
        await bench.install(3)
        for delay in (2, 60, 120):
            assert (await bench.feed(3, fpdu[:1400])).kept
            bench.reserved = len(bench.owner)
            bench.later = (bench.cycle + delay, bench.now + 1000)
            assert await bench.feed(3, fpdu[1400:]) == Result(len(fpdu) - 1400, 0, 0, 0)
            await bench.idle(150)
            bench.reserved = 0

    assert Bench().run(script).statuses(3) == [OK] * 3


def test_tokens():
    rng = random.Random(8)
    fpdu = write(100, rng)

    async def script(bench):
        upload = bench.dut.upload
        assert await bench.feed(4, fpdu) == Result(0, 0, 0, 1), "not installed"
        await bench.install(4)
        assert (await bench.feed(4, fpdu[:60])).kept
        await bench.token(TokenOp.FENCE, 4)
        await bench.token(TokenOp.UPLOAD, 4)
        assert bench.ctx.get(upload.open_fpdu) == 1
        await bench.token(TokenOp.UPLOAD, 5)
        assert bench.ctx.get(upload.open_fpdu) == 0
        await bench.token(TokenOp.FLUSH, 4)
        assert await bench.feed(4, fpdu[60:]) == Result(len(fpdu) - 60, 0, 0, 0)
        for op in (TokenOp.KILL, TokenOp.REMOVE, TokenOp.INSTALL):
            assert (await bench.feed(4, fpdu[:60])).kept
            await bench.token(op, 4, flags=1)
            await bench.idle(1)
            assert not bench.leaks()
            if op != TokenOp.INSTALL:
                assert await bench.feed(4, fpdu[60:]) == Result(0, 0, 0, 1)
                await bench.install(4)
        # CRC is the installed command's.
        damaged = fpdu[:-1] + bytes([fpdu[-1] ^ 1])
        assert (await bench.feed(4, damaged)).failed
        await bench.install(4, crc=False)
        assert not (await bench.feed(4, damaged)).failed

    bench = Bench().run(script)
    tokens = [(n, r.token) for n, r in enumerate(bench.records) if r.kind == RecordKind.TOKEN]
    assert [op for _, op in tokens] == [
        TokenOp.INSTALL, TokenOp.FENCE, TokenOp.UPLOAD, TokenOp.UPLOAD, TokenOp.FLUSH, TokenOp.KILL, TokenOp.INSTALL,
        TokenOp.REMOVE, TokenOp.INSTALL, TokenOp.INSTALL, TokenOp.INSTALL]
    assert [n for n, r in enumerate(bench.records) if r.kind == RecordKind.DATA] == [5, 11, 13]


def test_token_waits_behind_everything():
    """The bus stands still: the token's record comes out last."""
    rng = random.Random(3)

    async def script(bench):
        await bench.install(2)
        bench.closed_until = bench.cycle + 300
        for _ in range(2):
            await bench.feed(2, write(300, rng))
        await bench.token(TokenOp.FENCE, 2)

    assert [r.kind for r in Bench().run(script).records][-1] == RecordKind.TOKEN


@pytest.mark.parametrize("size", [0, 40, 1428, 2028])
def test_bus_stands_still(size):
    """The walk waits, and nothing is lost."""
    rng = random.Random(size)
    stream = b"".join(write(size, rng) if n % 3 else send(size // 2, rng) for n in range(6 if size > 99 else 12))

    async def script(bench):
        await bench.install(5)
        at = 0
        for piece in parts(len(stream), rng):
            bench.closed_until = bench.cycle + 400
            await feed_all(bench, 5, stream[at:at + piece], [piece])
            at += piece

    bench = Bench().run(script)
    assert bench.ulpdus(5) == [f.ulpdu for f in split_fpdus(stream).fpdus] and not bench.leaks()
