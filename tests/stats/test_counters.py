import random

import pytest

from emplace.stats.counters import Counters
from tests.queues.bench import run


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
        for _ in range(dut.pairs + 5):                 # as published
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
    """Past 2**16, a strobe every cycle."""
    dut = Counters(2)

    async def user(ctx):
        ctx.set(dut.strobes, 0b10)
        await ctx.tick().repeat(65_540)
        ctx.set(dut.strobes, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.data) >> 32 == 65_540

    run(dut, user, cycles=70_000)
