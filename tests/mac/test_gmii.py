"""The GMII receiver and transmitter, at one byte a cycle and slower."""

import random
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from emplace.config import NicConfig
from emplace.mac.layer import Mac
from emplace_sim import words
from emplace_sim.frames import from_gmii, gmii, with_fcs

CONFIG = NicConfig(phy="gmii")
NAMES = ("rx_frames", "rx_overflow", "rx_fcs_errors", "rx_undersize", "rx_fragments", "rx_oversize", "rx_jabbers")


def offer(ctx, dut, byte):
    for name, value in zip(("d", "dv", "er"), byte):
        ctx.set(getattr(dut.gmii_rx, name), value)


def receive(line, *, every=1, ready=lambda cycle: True, limit=2000, junk=None):
    """``[(frame, err)]`` and counts; a byte moves each ``every`` cycles, in between the line holds ``junk``."""
    dut = Mac(CONFIG, limit=limit)
    line = [(0, 0, 0), *line] + [(0, 0, 0)] * 14
    got, packet, counts = [], [], {}

    async def bench(ctx):
        held = None
        for cycle in range(len(line) * every):
            enable = cycle % every == every - 1
            d, dv, er = line[cycle // every] if enable or junk is None else junk
            offer(ctx, dut, (d, dv, er))
            ctx.set(dut.gmii_rx_enable, enable)
            ctx.set(dut.rx.ready, ready(cycle))
            valid, payload, strobes = ctx.get(dut.rx.valid), ctx.get(dut.rx.payload), ctx.get(dut.count)
            if held is not None:
                assert valid and payload == held           # holds until taken
            held = payload if valid and not ready(cycle) else None
            if valid and ready(cycle):
                packet.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
                if payload.last:
                    got.append(words.join(packet, 8))
                    packet.clear()
            for name in NAMES:
                if strobes[name]:
                    counts[name] = counts.get(name, 0) + 1
            await ctx.tick()
        assert not packet

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return got, counts


def transmit(packets, *, every=1, gap=lambda n: 0, hole=None, beats=60):
    """GMII bytes and counts of ``[(bytes, err)]``; ``hole``: (packet, word) that is missing when its time has come."""
    dut = Mac(CONFIG)
    line, counts, done = [], {}, []
    late = 10 * every

    async def source(ctx):
        for n, (packet, err) in enumerate(packets):
            for _ in range(gap(n)):
                await ctx.tick()
            for k, word in enumerate(words.split(packet, 8, err=err)):
                if hole == (n, k):
                    for _ in range(late):
                        await ctx.tick()
                ctx.set(dut.tx.payload, word)
                ctx.set(dut.tx.valid, 1)
                await ctx.tick().until(dut.tx.ready)
                ctx.set(dut.tx.valid, 0)
        done.append(1)

    async def wire(ctx):
        left = beats
        cycle = 0
        while left:
            enable = cycle % every == every - 1
            ctx.set(dut.gmii_tx_enable, enable)
            # The byte that came with the enable before stands until the next one is due.
            if enable:
                line.append((ctx.get(dut.gmii_tx.d), ctx.get(dut.gmii_tx.dv), ctx.get(dut.gmii_tx.er)))
                left -= bool(done)
            strobes = ctx.get(dut.count)
            for name in ("tx_frames", "tx_errors"):
                if strobes[name]:
                    counts[name] = counts.get(name, 0) + 1
            await ctx.tick()
            cycle += 1

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(source)
    sim.add_testbench(wire)
    sim.run()
    return line, counts


@pytest.mark.parametrize("every", [1, 2, 5])
def test_every_length(every):
    rng = random.Random(1)
    sizes = [*range(60, 77), 131, 300, *(60 + n % 9 for n in range(9))]
    frames = [rng.randbytes(n) for n in sizes]
    got, counts = receive(gmii([(rng.choice([1, 5, 12]), with_fcs(f)) for f in frames]), every=every,
                          junk=(0xD5, 1, 1) if every > 1 else None)
    assert got == [(f, False) for f in frames]
    assert counts == {"rx_frames": len(frames)}


@pytest.mark.parametrize("preamble", [0, 1, 6, 9])
def test_preambles_of_any_length(preamble):
    frame = bytes(range(70))
    got, counts = receive(gmii([(3, with_fcs(frame))] * 3, preamble=preamble))
    assert got == [(frame, False)] * 3 and counts == {"rx_frames": 3}


def test_short_frames_end_with_err_and_nothing_hangs():
    rng = random.Random(2)
    frames = [rng.randbytes(n) for n in range(1, 60)] + [rng.randbytes(60)]
    got, counts = receive(gmii([(12, with_fcs(f)) for f in frames]))
    assert got == [(f, True) for f in frames[:-1]] + [(frames[-1], False)]
    assert counts == {"rx_undersize": 59, "rx_frames": 1}
    got, counts = receive(gmii([(12, bytes(n)) for n in range(5)] + [(12, with_fcs(frames[-1]))]))
    assert got == [(frames[-1], False)]
    assert counts == {"rx_fragments": 4, "rx_undersize": 1, "rx_frames": 1}     # 4 zeros are the FCS of nothing


@pytest.mark.parametrize("length", [60, 61, 64, 71])
def test_any_broken_byte_is_caught(length):
    rng = random.Random(length)
    frame = with_fcs(rng.randbytes(length))
    broken = []
    for n in [0, 3, 7, 8, 30, *range(length - 8, length + 4)]:
        copy = bytearray(frame)
        copy[n] ^= 1 << rng.randrange(8)
        broken.append(bytes(copy))
    got, counts = receive(gmii([(rng.choice([5, 9, 12]), f) for f in broken] + [(12, frame)]))
    assert got == [(f[:-4], True) for f in broken] + [(frame[:-4], False)]
    assert counts == {"rx_fcs_errors": len(broken), "rx_frames": 1}


def test_rx_er():
    good = with_fcs(bytes(range(100)))
    spoiled = [list(good) for _ in range(6)]
    for frame, at in zip(spoiled, (0, 5, 50, 99, 100, 103)):
        frame[at] = (frame[at], 1)
    got, counts = receive(gmii([f for e in spoiled for f in ((12, e), (12, good))]))
    assert [err for _, err in got] == [True, False] * 6
    assert counts == {"rx_fcs_errors": 6, "rx_frames": 6}


def test_false_starts():
    good = with_fcs(bytes(range(90)))
    line = [(0x55, 1, 0)] * 4 + [(0x54, 1, 0), (0xD5, 1, 0)] + [(n, 1, 0) for n in good]      # broken preamble
    line += [(0, 0, 0)] + [(0x55, 1, 0)] * 5                                                 # no SFD
    line += [(0, 0, 0)] + [(0x55, 1, 1)] + [(0x55, 1, 0)] * 5 + [(0xD5, 1, 0)] + [(n, 1, 0) for n in good]
    line += [(0, 0, 0), (0x0F, 0, 1), (0x1F, 0, 1), (0, 0, 0)]                               # carrier extension
    got, counts = receive([*line, *gmii([(2, good)])])
    assert got == [(good[:-4], False)] and counts == {"rx_fcs_errors": 3, "rx_frames": 1}


def test_a_line_that_is_busy_behind_a_reset_is_waited_for():
    good = with_fcs(bytes(range(80)))
    dut_line = list(gmii([(0, good)]))[20:]
    got, counts = receive_raw([*dut_line, *gmii([(12, good)])])
    assert got == [(good[:-4], False)] and counts == {"rx_frames": 1}


def receive_raw(line):
    """As :func:`receive`, without idle before."""
    dut = Mac(CONFIG)
    got, packet, counts = [], [], {}

    async def bench(ctx):
        ctx.set(dut.rx.ready, 1)
        ctx.set(dut.gmii_rx_enable, 1)
        for d, dv, er in [*line, *[(0, 0, 0)] * 14]:
            offer(ctx, dut, (d, dv, er))
            if ctx.get(dut.rx.valid):
                payload = ctx.get(dut.rx.payload)
                packet.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
                if payload.last:
                    got.append(words.join(packet, 8))
                    packet.clear()
            strobes = ctx.get(dut.count)
            for name in NAMES:
                if strobes[name]:
                    counts[name] = counts.get(name, 0) + 1
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return got, counts


def test_oversize_and_jabbers():
    rng = random.Random(5)
    sizes = [1995, 1996, 1997, 2000, 2010]
    frames = [rng.randbytes(n) for n in sizes]
    got, counts = receive(gmii([(12, with_fcs(f)) for f in frames] + [(12, rng.randbytes(2300))]))
    assert [err for _, err in got] == [n > 1996 for n in sizes] + [True]
    assert [f for f, err in got if not err] == frames[:2] and all(len(f) < 2016 for f, _ in got)
    assert counts == {"rx_frames": 2, "rx_oversize": 3, "rx_jabbers": 1}


@pytest.mark.parametrize("every", [1, 3])
def test_slow_receiver_costs_frames_not_framing(every):
    rng = random.Random(6)
    frames = [rng.randbytes(60 + n) for n in range(30)]
    pattern = [rng.random() < 0.25 / every for _ in range(40000)]
    got, counts = receive(gmii([(12, with_fcs(f)) for f in frames]), every=every,
                          ready=lambda cycle: pattern[cycle] or cycle > 1500 * every)
    good = [f for f, err in got if not err]
    assert counts["rx_frames"] == len(good) and counts["rx_frames"] + counts["rx_overflow"] == 30
    assert 3 < len(good) < 28 and [f for f in frames if f in good] == good
    blocked, counts = receive(gmii([(12, with_fcs(f)) for f in frames]),
                              ready=lambda cycle: cycle < 200 or cycle > 1500)
    assert counts["rx_overflow"] + counts["rx_frames"] == 30
    assert [f for f, err in blocked if not err] == frames[:2] + frames[-counts["rx_frames"] + 2:]


def padded(packet):
    return packet.ljust(60, b"\0")


@pytest.mark.parametrize("every", [1, 2, 5])
def test_sends_every_length_back_to_back(every):
    rng = random.Random(1)
    sizes = [*range(1, 70, 2), *range(60, 70), 300] if every == 1 else [1, 8, 20, 59, 60, 61, 64, 67, 200]
    packets = [rng.randbytes(n) for n in sizes]
    line, counts = transmit([(p, False) for p in packets], every=every)
    frames = from_gmii(line)
    assert [f for f, *_ in frames] == [with_fcs(padded(p)) for p in packets]
    assert not any(er for _, er, *_ in frames) and counts == {"tx_frames": len(packets)}
    assert {b[2] - a[3] for a, b in pairwise(frames)} == {12}


@pytest.mark.parametrize("length", [1, 20, 59, 60, 61, 64, 68])
def test_error_spoils_the_frame(length):
    line, counts = transmit([(bytes(length), True), (b"x" * 70, False), (bytes(length), True), (b"y" * 70, False)])
    frames = from_gmii(line)
    assert [er for _, er, *_ in frames] == [True, False, True, False] and counts == {"tx_frames": 2, "tx_errors": 2}
    assert [f for f, *_ in frames][1::2] == [with_fcs(b"x" * 70), with_fcs(b"y" * 70)]


@pytest.mark.parametrize("word", [1, 6, 7, 8, 12])
def test_underflow_spoils_the_frame_and_drops_the_rest(word):
    packets = [(bytes(100), False), (b"x" * 70, False), (b"y" * 60, False)]
    line, counts = transmit(packets, hole=(0, word), gap=lambda n: 0)
    frames = from_gmii(line)
    assert [er for _, er, *_ in frames] == [True, False, False] and counts == {"tx_frames": 2, "tx_errors": 1}
    assert [f for f, *_ in frames][1:] == [with_fcs(b"x" * 70), with_fcs(b"y" * 60)]


def test_gaps_of_any_kind():
    rng = random.Random(3)
    packets = [rng.randbytes(rng.randrange(1, 90)) for _ in range(40)]
    line, _ = transmit([(p, False) for p in packets], gap=lambda n: rng.randrange(100))
    frames = from_gmii(line)
    assert [f for f, *_ in frames] == [with_fcs(padded(p)) for p in packets]
    assert min(b[2] - a[3] for a, b in pairwise(frames)) >= 12
