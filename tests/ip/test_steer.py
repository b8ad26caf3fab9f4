"""What becomes of frames that TCP does not get; holds."""

import random
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from tests.ip.bench import CANONICAL, Bench, compare, frame, key, same_fates
from tests.ip.test_ip import fix_ip, good, patched

from emplace.abi import FrameFlags, FrameReason
from emplace.ip.records import HoldOp
from emplace_sim.plain import fate

ETHER = Ether(src="52:54:00:00:00:02", dst="52:54:00:00:00:01")
ADDRESSES = {"src": "10.0.0.2", "dst": "10.0.0.1"}


def udp(payload, *, tagged=False, **fields):
    packet = ETHER / Dot1Q(vlan=7) if tagged else ETHER
    return bytes(packet / IP(**ADDRESSES) / UDP(sport=1, dport=2, **fields) / Raw(payload)).ljust(60, b"\xee")


def mixture(rng):
    """A frame of any kind, good or bad somewhere."""
    options = rng.choice([(), CANONICAL])
    made = rng.choice([
        lambda: frame(rng.randbytes(rng.randrange(200)), options=options, qp=rng.randrange(3)),
        lambda: frame(rng.randbytes(rng.randrange(200)), options=options, vlan=rng.choice([5, 6])),
        lambda: frame(flags=rng.choice(["S", "SA", "FA", "R", "A"]), qp=rng.randrange(3)),
        lambda: frame(raw_options=rng.choice([b"\2\1\1\1", b"\1" * 40, b"\x22\x09\0\0"]), qp=rng.randrange(3)),
        lambda: frame(dataofs=rng.choice([0, 4, 6, 15]), qp=rng.randrange(3)),
        lambda: udp(rng.randbytes(rng.randrange(100)), tagged=rng.random() < 0.5),
        lambda: bytes(ETHER / IP(**ADDRESSES) / ICMP() / Raw(rng.randbytes(56))),
        lambda: bytes(ETHER / IPv6() / UDP() / Raw(rng.randbytes(40))),
        lambda: bytes(ETHER / ARP()).ljust(60, b"\0"),
        lambda: fix_ip(patched(frame(rng.randbytes(30)), 14, rng.choice([b"\x46", b"\x4f"]))),
        lambda: fix_ip(patched(frame(rng.randbytes(30)), rng.choice([14, 16]), rng.choice([b"\x55", b"\x44", b"\x7f"]))),
        lambda: bytes(ETHER / IP(**ADDRESSES, flags="MF") / TCP() / Raw(rng.randbytes(60))),
    ])()
    if rng.random() < 0.3:
        at = rng.randrange(14, len(made))
        made = patched(made, at, bytes([made[at] ^ 1 << rng.randrange(8)]))
        if rng.random() < 0.5 and made[14] & 15 == 5 and made[12:14] == b"\x08\x00":
            made = fix_ip(made)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture(seed):
    rng = random.Random(seed)
    frames = [(mixture(rng), rng.random() < 0.1) for _ in range(150)]
    injected = [n for n in range(len(frames)) if rng.random() < 0.3]
    bench = Bench(installed={key(0): 0, key(1): 1, key(0, 5): 2}, held=[1, 2], injected=injected, seed=seed,
                  idle=(0, 0.3, 0)[seed], gap=lambda n: (2, 2 + n % 3, 2)[seed])
    compare(bench.run(frames), frames)
    assert {FrameReason(d[1]) for d in bench.dispositions if d[0] == 1} == {*FrameReason} - {FrameReason.NONE}


def test_wrecks_between():
    """Pieces of frames, with err or without, right behind one another: still one disposition each, in order."""
    rng = random.Random(5)
    frames = []
    for n in range(80):
        frames.append((frame(bytes([n] * 20), options=CANONICAL, qp=n % 3), False))
        frames += [(rng.randbytes(rng.choice([1, 8, 12, 16])), rng.random() < 0.5) for _ in range(rng.randrange(4))]
    bench = Bench(installed={key(0): 0, key(1): 1}, held=[1], gap=lambda n: 0).run(frames)
    compare(bench, frames)


def test_udp_verdicts():
    base = udp(b"x" * 31)
    cases = [
        (base, True, True), (udp(b"x" * 30, tagged=True), True, True), (udp(b""), True, True),
        (patched(base, 60, b"y"), True, False), (patched(base, 40, b"\1"), True, False), (patched(base, 35, b"\x07"), True,
         False),
        (udp(b"x" * 40, chksum=0), False, False),                    # the sender did not sum
        (udp(b"x" * 40, len=20), False, False),                      # shorter than the packet
        (udp(b"x" * 40, len=49), False, False),
        (fix_ip(patched(patched(base, 16, b"\0\x1b"), 38, b"\0\x07")), False, False),        # too short for a header
    ]
    frames = [f for f, *_ in cases]
    bench = Bench().run(good(frames))
    compare(bench, good(frames))
    for (_, checked, right), d in zip(cases, bench.dispositions, strict=True):
        want = FrameFlags.IP_CHECKED | FrameFlags.IP_GOOD
        want |= FrameFlags.L4_CHECKED if checked else 0
        assert d[:3] == (1, FrameReason.IP_PROTOCOL, want | (FrameFlags.L4_GOOD if right else 0))


def test_of_installed_connections():
    """What is wrong with an installed connection's segment ends in ip; the same of no connection goes to the host."""
    spoil = [lambda f: patched(f, 56, b"\xff\xfe"), lambda f: patched(f, 46, b"\x40"), lambda f: patched(f, 46, b"\xf0")]
    frames = [s(frame(b"x" * 20, qp=qp)) for s in spoil for qp in (0, 1)]
    frames += [frame(raw_options=b"\2\1\1\1", qp=qp) for qp in (0, 1)]
    frames += [frame(b"x" * 2049), frame(flags="S"), frame(flags="R", qp=1)]
    bench = Bench().run(good(frames))
    compare(bench, good(frames))
    assert [d[0] for d in bench.dispositions] == [0, 1] * 4 + [0, 0, 1]


def test_no_slot_is_no_hosts_frame():
    frames = good([frame(b"x" * 20), frame(b"y" * 20), frame(b"z" * 20, qp=1)])
    bench = Bench(slots=1, gap=lambda n: 20)
    bench.take = lambda record: None
    bench.run(frames)
    assert bench.counts == {"rx_segments": 1, "rx_no_slot": 1, "rx_no_connection": 1}
    assert [d[0] for d in bench.dispositions] == [0, 0, 1]


def test_latency():
    """6 cycles behind the last word where all is known, 11 at most."""
    frames = good([frame(b"x" * 20, qp=qp, options=options) for qp in (0, 1) for options in ((), CANONICAL)] * 4
                  + [bytes(ETHER / ARP()).ljust(60, b"\0")] * 4
                  + [frame(raw_options=b"\1" * 40, qp=qp) for qp in (0, 1)])
    bench = Bench(gap=lambda n: 3).run(frames)
    late = [at - last for at, last in zip(bench.disposed_at, bench.last_word, strict=True)]
    assert max(late[16:20]) <= 6 and max(late) <= 11


def test_held_frames_of_any_kind():
    """A held connection's SYN, FIN and RST go to the host, too; what is broken does not; injected ones never do."""
    frames = [frame(flags=f) for f in ("S", "FA", "R", "A", "PA")] + [frame(b"x" * 2049), frame(b"x" * 40, options=CANONICAL)]
    broken = [patched(frame(b"x" * 20), 56, b"\xff"), frame(raw_options=b"\2\1\1\1")]
    every = [*frames, *broken, *frames]
    bench = Bench(held=[0], injected=range(len(frames) + len(broken), len(every)), gap=lambda n: 20).run(good(every))
    compare(bench, good(every))
    assert [d[0] for d in bench.dispositions[1:]] == [1] * 7 + [0] * 9
    assert bench.counts["rx_frames_held"] == 7 and bench.counts["rx_segments"] == 6


@pytest.mark.parametrize("seed", range(2))
def test_release_is_atomic(seed):
    """WATCH and RELEASE at random times in a stream of frames of two held QPs: each frame is in front of the mark, or
    refuses the release, or is a segment. Hundreds of races."""
    rng = random.Random(seed)
    frames = good([frame(struct.pack(">I", n), qp=n % 2, options=CANONICAL) for n in range(260)])
    bench = Bench(installed={key(0): 0, key(1): 1}, held=[0, 1], gap=lambda n: rng.choice([2, 2, 3, 9]))
    verdicts = []

    async def races(ctx):
        while len(bench.last_word) < len(frames) - 12:
            await bench.hold(ctx, HoldOp.WATCH, 0)
            before = len(bench.dispositions)
            for _ in range(rng.randrange(12)):
                await ctx.tick()
            freed = await bench.hold(ctx, HoldOp.RELEASE, 0)
            at = len(bench.dispositions)
            for _ in range(14):
                await ctx.tick()
            verdicts.append((freed, before, at))
            if freed:
                for _ in range(rng.randrange(30)):
                    await ctx.tick()
                await bench.hold(ctx, HoldOp.HOLD, 0)
    bench.run(frames, also=races)
    dispositions = bench.dispositions
    assert [d for d in dispositions if d[0] != "mark" and d[4] == 1 and not d[0]] == []          # the other QP stays held
    outcomes = [freed for freed, *_ in verdicts]
    assert outcomes.count(True) > 10 and outcomes.count(False) > 10
    marks = [n for n, d in enumerate(dispositions) if d[0] == "mark"]
    assert len(marks) > len(verdicts)
    # Between a watch's mark and the next mark: host's frames of QP 0 only if the release was refused, never behind a
    # segment of it.
    watch = iter(verdicts)
    for at, after in zip(marks, [*marks[1:], len(dispositions)], strict=True):
        if dispositions[at][1]:
            continue                       # fresh: the hold begins
        entry = next(watch, None)
        if entry is None:
            break
        kept = [d[0] for d in dispositions[at + 1:after] if d[4] == 0]
        if entry[0]:
            assert not any(kept), "to the host behind the mark, and released"
        else:
            assert kept and all(kept), "refused without a frame, or a segment while held"
    # Nothing is lost: each frame is the host's or TCP's.
    segments = [s for s in bench.segments if s[0] != "token"]
    assert sum(d[0] == 1 for d in dispositions if d[0] != "mark") + len(segments) == len(frames)


def test_free_and_marks():
    """HOLD and WATCH send their marks, FREE and RELEASE none; a freed QP's frames are segments."""
    frames = good([frame(b"1"), frame(b"2"), frame(b"3")])
    bench = Bench(gap=lambda n: 60)

    async def script(ctx):
        await bench.hold(ctx, HoldOp.HOLD, 0, 0xABCDEF)
        while len(bench.last_word) < 1:
            await ctx.tick()
        for _ in range(15):
            await ctx.tick()
        await bench.hold(ctx, HoldOp.FREE, 0)
        while len(bench.last_word) < 2:
            await ctx.tick()
        for _ in range(15):
            await ctx.tick()
        await bench.hold(ctx, HoldOp.WATCH, 3, 5)
        assert await bench.hold(ctx, HoldOp.RELEASE, 3)
    bench.run(frames, also=script)
    assert bench.dispositions == [("mark", 1, 0, 0xABCDEF), (1, FrameReason.HELD, 15, 54, 0), (0, 0, 15, 54, 0),
                                  ("mark", 0, 3, 5), (0, 0, 15, 54, 0)]


def test_golden_fates():
    """The golden function itself, on frames that are told by hand."""
    installed = {key(): 0}
    assert fate(bytes(ETHER / ARP()).ljust(60, b"\0"), installed).reason is FrameReason.OTHER_ETHERTYPE
    assert fate(frame(), installed).host is False
    one = fate(frame(qp=1, options=CANONICAL), installed)
    assert (one.host, one.reason, one.flags, one.header) == (True, FrameReason.NO_CONNECTION, 15, 66)
    assert fate(frame(), installed, held=[0]).qp == 0
    assert not fate(frame(), installed, held=[0], injected=True).host
    same_fates(type("Nothing", (), {"dispositions": []})(), [])
