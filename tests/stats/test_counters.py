import random

import pytest
from amaranth.hdl import ResetInserter, Signal
from tests.queues.bench import run

from emplace.stats.counters import MOST, Counters


def delay(dut):
    """Cycles after which a strobe shows, as published."""
    return 8 * dut.groups + 12


@pytest.mark.parametrize("n", [2, 5, 33, 110])
def test_no_strobe_is_lost(n):
    """Some strobe every cycle, others at random, or as often as they may; one never: all exact, read in pairs."""
    often = {0, 3, n - 1}
    dut = Counters(n, often - {1})
    rng = random.Random(n)
    golden, recent = [0] * n, [[] for _ in range(n)]
    rate = [1.0, 0.0, *(rng.choice([1.0, rng.random()]) for _ in range(n - 2))]

    async def user(ctx):
        for cycle in range(600):
            strobes = []
            for index in range(n):
                recent[index] = [at for at in recent[index] if at > cycle - 8]
                strobe = rng.random() < rate[index] and (index in dut.often or len(recent[index]) < MOST)
                if strobe:
                    recent[index].append(cycle)
                strobes.append(int(strobe))
            golden[:] = [a + b for a, b in zip(golden, strobes, strict=True)]
            ctx.set(dut.strobes, sum(bit << index for index, bit in enumerate(strobes)))
            await ctx.tick()
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(delay(dut))
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
    dut = Counters(2, {1})

    async def user(ctx):
        ctx.set(dut.strobes, 0b10)
        await ctx.tick().repeat(16_390)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(delay(dut))
        assert ctx.get(dut.data) >> 32 == 16_390

    run(dut, user, cycles=20_000)


def test_reset_clears():
    """Memory outlives a reset; the counters don't."""
    reset = Signal()
    dut = Counters(16, range(16))

    async def user(ctx):
        ctx.set(dut.pair, 7)                           # the scan comes there last
        ctx.set(dut.strobes, 0xFFFF)
        await ctx.tick().repeat(50)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(delay(dut))
        assert ctx.get(dut.data) == 50 | 50 << 32
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        for _ in range(3 * delay(dut)):
            await ctx.tick()
            assert ctx.get(dut.data) == 0
        ctx.set(dut.strobes, 1 << 14)
        await ctx.tick().repeat(3)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(delay(dut))
        assert ctx.get(dut.data) == 3

    run(ResetInserter(reset)(dut), user)
