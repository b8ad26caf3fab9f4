import random
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from emplace.mac.tx import MacTx
from emplace_sim import words
from emplace_sim.frames import START, from_xgmii, with_fcs


def run(packets, *, gap=lambda n: 0, hole=None, cycles=40):
    """Send ``[(bytes, err)]``; returns the XGMII transfers, good frames counted, the cycle of the first valid.

    ``hole``: (packet, word) before which a word is missing for a cycle.
    """
    dut = MacTx()
    transfers, sent, started = [], [], []

    async def source(ctx):
        for n, (packet, err) in enumerate(packets):
            for _ in range(gap(n)):
                await ctx.tick()
            for k, word in enumerate(words.split(packet, 8, err=err)):
                if hole == (n, k):
                    await ctx.tick()
                ctx.set(dut.i.payload, word)
                ctx.set(dut.i.valid, 1)
                started.append(len(transfers))
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)
        for _ in range(cycles):
            await ctx.tick()

    async def sink(ctx):
        while True:
            transfers.append((ctx.get(dut.xgmii.d), ctx.get(dut.xgmii.c)))
            sent.append(ctx.get(dut.sent))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(source)
    sim.add_testbench(sink, background=True)
    sim.run()
    return transfers, sum(sent), started[0]


def padded(packet):
    return packet.ljust(60, b"\0")


def test_every_length_back_to_back():
    rng = random.Random(1)
    packets = [rng.randbytes(n) for n in range(1, 131)] + [rng.randbytes(1514)] * 2
    transfers, sent, _ = run([(p, False) for p in packets])
    frames = from_xgmii(transfers)
    assert [f for f, *_ in frames] == [with_fcs(padded(p)) for p in packets]
    assert not any(control for _, control, *_ in frames) and sent == len(packets)
    gaps = [b[2] - a[3] for a, b in pairwise(frames)]
    assert min(gaps) >= 9 and max(gaps) <= 15 and abs(sum(gaps) / len(gaps) - 12) < 0.05


def test_deficit_idle_count():
    for length in range(60, 68):
        transfers, _, _ = run([(bytes(length), False)] * 17)
        frames = from_xgmii(transfers)
        assert all(f == with_fcs(bytes(length)) for f, *_ in frames) and len(frames) == 17
        assert frames[16][2] - frames[0][2] == 16 * (8 + length + 4 + 12)      # 60: 10.5 cycles each


def test_gaps_and_starts_of_any_kind():
    rng = random.Random(3)
    packets = [rng.randbytes(rng.randrange(1, 90)) for _ in range(120)]
    transfers, _, _ = run([(p, False) for p in packets], gap=lambda n: rng.randrange(20))
    frames = from_xgmii(transfers)
    assert [f for f, *_ in frames] == [with_fcs(padded(p)) for p in packets]
    assert min(b[2] - a[3] for a, b in pairwise(frames)) >= 9


@pytest.mark.parametrize("length", [1, 20, 59, 60, 61, 62, 63, 64, 65, 68])
def test_error_spoils_the_frame(length):
    transfers, sent, _ = run([(bytes(length), True), (b"x" * 70, False), (bytes(length), True), (b"y" * 70, False)])
    frames = from_xgmii(transfers)
    assert [control for _, control, *_ in frames] == [True, False, True, False] and sent == 2
    assert [f for f, *_ in frames][1::2] == [with_fcs(b"x" * 70), with_fcs(b"y" * 70)]


@pytest.mark.parametrize("word", [1, 6, 7, 8, 9, 10, 12])
def test_underflow_spoils_the_frame_and_drops_the_rest(word):
    packets = [(bytes(100), False), (b"x" * 70, False), (b"y" * 60, False)]
    transfers, sent, _ = run(packets, hole=(0, word))
    frames = from_xgmii(transfers)
    assert [control for _, control, *_ in frames] == [True, False, False] and sent == 2
    assert [f for f, *_ in frames][1:] == [with_fcs(b"x" * 70), with_fcs(b"y" * 60)]


def test_latency():
    transfers, _, first = run([(bytes(60), False)], gap=lambda n: 5)
    start = next(n for n, (d, c) in enumerate(transfers) if c == 1 and d & 0xFF == START)
    assert start - first == 3
