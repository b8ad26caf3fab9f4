"""The packet queue between two clock domains."""

import random

import pytest
from tests.stream.harness import packets, receive, send, simulate

from emplace.stream.clock import AsyncPacketQueue
from emplace_sim import words


def run(items, *, periods, depth=32, drop=False, idle=0.0, stall=0.0, spoil=None, count=None, wait=0):
    dut = AsyncPacketQueue(8, depth, i_domain="a", o_domain="b", drop_when_full=drop)
    found, gaps, told = [], [], []

    async def source(ctx):
        await send(ctx, dut.i, items, random.Random(1), idle, domain="a", spoil=spoil)

    async def sink(ctx):
        for _ in range(wait):
            await ctx.tick("b")
        if count is None:
            found.extend(await receive(ctx, dut.o, len(items), random.Random(2), stall, domain="b", gaps=gaps))
        else:
            for _ in range(count):
                found.extend(await receive(ctx, dut.o, 1, random.Random(2), stall, domain="b", gaps=gaps))

    async def overflow(ctx):
        while True:
            _, _, now = await ctx.tick("a").sample(dut.overflow)
            told.append(now)
    simulate(dut, source, sink, background=[overflow], clocks=(("a", periods[0]), ("b", periods[1])), cycles=8000)
    return found, gaps, sum(told)


@pytest.mark.parametrize("periods", [(8e-9, 8e-9), (8e-9, 3.1e-9), (3.3e-9, 10e-9), (6.4e-9, 8e-9)])
@pytest.mark.parametrize("idle, stall", [(0, 0), (0.4, 0), (0.2, 0.4)])
def test_random(periods, idle, stall):
    """All packets, in order, none with a gap in it."""
    items = packets(random.Random(3), 40, 150)
    spoil = set(range(0, 40, 6))
    found, gaps, lost = run(items, periods=periods, idle=idle, stall=stall, spoil=spoil)
    assert found == [(item, n in spoil) for n, item in enumerate(items)]
    assert gaps == [] and lost == 0


def test_longer_than_the_queue():
    """Gaps, but no standstill."""
    items = [bytes(range(200)), bytes(8), bytes(range(255))]
    found, _, _ = run(items, periods=(8e-9, 5e-9), depth=8, idle=0.3)
    assert found == [(item, False) for item in items]


def test_no_packet_is_taken_for_whole_too_early():
    """A short packet leaves since the queue seems full, before it is counted; the next is not all inside yet."""
    items = [bytes(8), bytes(range(48))]
    dut = AsyncPacketQueue(8, 8, i_domain="a", o_domain="b")
    found, gaps = [], []

    async def source(ctx):
        burst = [word for item in items for word in words.split(item, 8)]
        for n, word in enumerate(burst):
            if n == 6:
                await ctx.tick("a").repeat(300)
            ctx.set(dut.i.payload, word)
            ctx.set(dut.i.valid, 1)
            _, _, ready = await ctx.tick("a").sample(dut.i.ready)
            assert ready
            ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        found.extend(await receive(ctx, dut.o, len(items), random.Random(2), 0, domain="b", gaps=gaps))
    simulate(dut, source, sink, clocks=(("a", 1e-9), ("b", 12e-9)), cycles=8000)
    assert found == [(item, False) for item in items] and gaps == []


def test_drop_when_full():
    """The reader sleeps: what fits comes out whole, what was cut short ends with err, the rest is gone."""
    items = [bytes([n]) * 72 for n in range(6)] + [b"end"]
    found, _, lost = run(items, periods=(8e-9, 8e-9), drop=True, wait=200, count=4)
    assert found[:3] == [(items[n], False) for n in range(3)]
    packet, err = found[3]
    assert err and packet[:24] == items[3][:24] and len(packet) < 72
    assert lost == 4
