import random

import pytest
from amaranth.hdl import ResetInserter, Signal
from tests.queues.bench import run

from emplace.stats.counters import Counters


@pytest.mark.parametrize("n", [5, 33])
def test_no_strobe_is_lost(n):
    """Counter 0 strobes every cycle, others at random, one never: all exact, read in pairs."""
    dut = Counters(n)
    rng = random.Random(n)
    rate = [1.0, 0.0, *(rng.random() for _ in range(n - 2))]
    golden = [0] * n

    async def user(ctx):
        for _ in range(600):
            strobes = [int(rng.random() < rate[index]) for index in range(n)]
            golden[:] = [a + b for a, b in zip(golden, strobes)]
            ctx.set(dut.strobes, sum(bit << index for index, bit in enumerate(strobes)))
            await ctx.tick()
        ctx.set(dut.strobes, 0)
        for _ in range(dut.pairs + 4):                 # as published
            await ctx.tick()
        got = []
        for pair in range((n + 1) // 2):
            ctx.set(dut.pair, pair)
            await ctx.tick()
            raw = ctx.get(dut.data)
            got += [raw & 0xFFFF_FFFF, raw >> 32]
        assert got[:n] == golden
        assert got[n:] == [0] * (len(got) - n)

    run(dut, user)


def test_carry_into_the_high_half():
    """Round after round, a strobe every cycle."""
    dut = Counters(2)

    async def user(ctx):
        ctx.set(dut.strobes, 0b10)
        await ctx.tick().repeat(16_390)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.data) >> 32 == 16_390

    run(dut, user, cycles=20_000)


def test_reset_clears():
    """Memory outlives a reset; the counters don't."""
    reset = Signal()
    dut = Counters(16)

    async def user(ctx):
        ctx.set(dut.pair, 7)                           # the scan comes there last
        ctx.set(dut.strobes, 0xFFFF)
        await ctx.tick().repeat(50)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.data) == 50 | 50 << 32
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        for _ in range(3 * dut.pairs):
            await ctx.tick()
            assert ctx.get(dut.data) == 0
        ctx.set(dut.strobes, 1 << 14)
        await ctx.tick().repeat(3)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(dut.pairs + 4)
        assert ctx.get(dut.data) == 3

    run(ResetInserter(reset)(dut), user)
