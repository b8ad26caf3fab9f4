import random
import zlib

import pytest
from amaranth.sim import Simulator

from emplace.config import PROFILES
from emplace.mac.layer import Mac
from emplace_sim import words
from emplace_sim.frames import ERROR, IDLE, START, with_fcs, xgmii

#: What becomes of frames; the rest is in test_statistics.
NAMES = ("rx_frames", "rx_overflow", "rx_fcs_errors", "rx_undersize", "rx_fragments", "rx_oversize", "rx_jabbers")


def run(transfers, *, ready=lambda cycle: True, limit=2000):
    """What comes out: ``[(frame, err)]``, counts by name, ``[cycle of each valid word]``."""
    dut = Mac(PROFILES["tiny"], limit=limit)
    transfers = list(transfers) + [(IDLE * 0x0101010101010101, 0xFF)] * 12
    got, packet, counts, when = [], [], {}, []

    async def bench(ctx):
        held = None
        for cycle, (d, c) in enumerate(transfers):
            ctx.set(dut.xgmii_rx.d, d)
            ctx.set(dut.xgmii_rx.c, c)
            ctx.set(dut.rx.ready, ready(cycle))
            valid, payload, strobes = ctx.get(dut.rx.valid), ctx.get(dut.rx.payload), ctx.get(dut.count)
            if held is not None:
                assert valid and payload == held           # holds until taken
            held = payload if valid and not ready(cycle) else None
            if valid and ready(cycle):
                when.append(cycle)
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
    return got, counts, when


def test_every_length_and_both_starts_back_to_back():
    rng = random.Random(1)
    sizes = [*range(60, 132), 1514, *(60 + n % 9 for n in range(40))]
    frames = [rng.randbytes(n) for n in sizes]
    got, counts, _ = run(xgmii([(rng.choice([4, 5, 8, 11, 12, 20]), with_fcs(f)) for f in frames]))
    assert got == [(f, False) for f in frames]
    assert counts == {"rx_frames": len(frames)}


def test_short_frames_end_with_err_and_nothing_hangs():
    rng = random.Random(2)
    frames = [rng.randbytes(n) for n in range(1, 60)] + [rng.randbytes(60)]
    got, counts, _ = run(xgmii([(12, with_fcs(f)) for f in frames]))
    assert got == [(f, True) for f in frames[:-1]] + [(frames[-1], False)]
    assert counts == {"rx_undersize": 59, "rx_frames": 1}
    got, counts, _ = run(xgmii([(12, bytes(n)) for n in range(5)] + [(12, with_fcs(frames[-1]))]))
    assert got == [(frames[-1], False)]                    # nothing but (a part of) an FCS: only counted
    assert counts == {"rx_fragments": 4, "rx_undersize": 1, "rx_frames": 1}     # 4 zeros are the FCS of nothing


@pytest.mark.parametrize("length", [60, 61, 64, 65, 67, 71])
def test_any_broken_byte_is_caught(length):
    rng = random.Random(length)
    frame = with_fcs(rng.randbytes(length))
    broken = []
    for n in [0, 3, 7, 8, 30, *range(length - 8, length + 4)]:
        copy = bytearray(frame)
        copy[n] ^= 1 << rng.randrange(8)
        broken.append(bytes(copy))
    got, counts, _ = run(xgmii([(rng.choice([5, 9, 12]), f) for f in broken] + [(12, frame)]))
    assert got == [(f[:-4], True) for f in broken] + [(frame[:-4], False)]
    assert counts == {"rx_fcs_errors": len(broken), "rx_frames": 1}


def test_coding_errors():
    good = with_fcs(bytes(range(100)))
    erroneous = [list(good) for _ in range(12)]
    for n, frame in enumerate(erroneous):
        frame[70 + n] = (ERROR, 1)
    got, counts, _ = run(xgmii([f for e in erroneous for f in ((12, e), (12, good))]))
    assert len(got) == 24 and all(err for _, err in got[::2])
    assert all(f == (good[:-4], False) for f in got[1::2])
    assert counts == {"rx_fcs_errors": 12, "rx_frames": 12}


def test_start_within_a_frame_and_missing_sfd():
    good = with_fcs(bytes(range(90)))
    restart = list(good[:68]) + [(START, 1)] + [0x55] * 6 + [0xD5] + list(good)
    no_sfd = list(xgmii([(8, good)]))
    no_sfd[1] = (no_sfd[1][0] ^ 1 << 60, no_sfd[1][1])
    got, counts, _ = run([*xgmii([(12, restart), (12, good)]), *no_sfd, *xgmii([(8, good)])])
    assert got[0][1] and got[1:] == [(good[:-4], False)] * 2
    assert counts == {"rx_fcs_errors": 2, "rx_frames": 2}


def test_oversize_ends_at_the_limit():
    rng = random.Random(5)
    sizes = [1995, 1996, 1997, 2000, 2010, 5000]           # with FCS: 1999, 2000 are the last that may pass
    frames = [rng.randbytes(n) for n in sizes]
    got, counts, _ = run(xgmii([(12, with_fcs(f)) for f in frames]))
    assert [err for _, err in got] == [n > 1996 for n in sizes]
    assert [f for f, err in got if not err] == frames[:2] and all(len(f) < 2016 for f, _ in got)
    assert counts == {"rx_frames": 2, "rx_oversize": 4}


def test_slow_receiver_costs_frames_not_framing():
    rng = random.Random(6)
    frames = [rng.randbytes(60 + n) for n in range(80)]
    pattern = [rng.random() < 0.93 for _ in range(5000)]
    got, counts, _ = run(xgmii([(12, with_fcs(f)) for f in frames]), ready=lambda cycle: pattern[cycle] or cycle > 900)
    good = [f for f, err in got if not err]
    assert counts["rx_frames"] == len(good) and counts["rx_frames"] + counts["rx_overflow"] == 80
    assert 5 < len(good) < 75 and [f for f in frames if f in good] == good
    blocked, counts, _ = run(xgmii([(12, with_fcs(f)) for f in frames]), ready=lambda cycle: cycle < 30 or cycle > 200)
    assert counts["rx_overflow"] + counts["rx_frames"] == 80
    assert [f for f, err in blocked if not err] == frames[:2] + frames[-counts["rx_frames"] + 2:]


def test_latency_and_rate():
    frame = with_fcs(bytes(60))
    assert zlib.crc32(frame) == 0x2144DF1C                 # the residue, complemented
    _, _, when = run(xgmii([(8, frame)]))                  # idle, preamble, first data word in cycle 2
    assert when[0] - 2 == 4
    assert when[-1] - 9 <= 6
    _, _, when = run(xgmii([(4, frame)]))                  # first whole data word is complete in cycle 2
    assert when[0] - 2 == 4
