"""Everybody gets the replies to his own requests, in order."""

import random

import pytest
from amaranth.sim import Simulator

from emplace.config import PROFILES
from emplace.protect.share import AccessShare

TINY = PROFILES["tiny"]
N = 3


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_share(stall):
    dut = AccessShare(TINY, N)
    rng = random.Random(3)
    asked, order = [], []
    got = [[] for _ in range(N)]
    count = 60

    def client(n):
        async def ask(ctx):
            r = random.Random(n)
            for k in range(count):
                while r.random() < stall:
                    await ctx.tick()
                ctx.set(dut.i[n].payload, {"stag": n << 16 | k, "length": r.randint(1, 3)})
                ctx.set(dut.i[n].valid, 1)
                await ctx.tick().until(dut.i[n].ready)
                ctx.set(dut.i[n].valid, 0)

        async def take(ctx):
            r = random.Random(10 + n)
            while sum(last for _, last in got[n]) < count:
                mine = dut.granted[n]
                ctx.set(mine.ready, r.random() >= stall)
                _, _, valid, ready, p = await ctx.tick().sample(mine.valid, mine.ready, mine.payload)
                if valid and ready:
                    got[n].append((int(p.address), int(p.last)))
        return ask, take

    async def protect_in(ctx):
        while len(asked) < N * count:
            ctx.set(dut.access.ready, rng.random() >= stall)
            _, _, valid, ready, p = await ctx.tick().sample(dut.access.valid, dut.access.ready, dut.access.payload)
            if valid and ready:
                asked.append((int(p.stag), int(p.length)))
                order.append(int(p.stag) >> 16)

    async def protect_out(ctx):
        for k in range(N * count):
            while len(asked) <= k:
                await ctx.tick()
            stag, replies = asked[k]
            for r in range(replies):
                ctx.set(dut.replies.payload, {"address": stag << 8 | r, "last": r == replies - 1})
                ctx.set(dut.replies.valid, 1)
                await ctx.tick().until(dut.replies.ready)
                ctx.set(dut.replies.valid, 0)
    sim = Simulator(dut)
    sim.add_clock(8e-9)
    for n in range(N):
        for bench in client(n):
            sim.add_testbench(bench)
    sim.add_testbench(protect_in)
    sim.add_testbench(protect_out)
    sim.run()
    for n in range(N):
        mine = [(stag, replies) for stag, replies in asked if stag >> 16 == n]
        assert got[n] == [(stag << 8 | r, r == replies - 1) for stag, replies in mine for r in range(replies)]
    # Nobody waits for two of another while all ask.
    if not stall:
        assert order[:30] == sorted(order[:3]) * 10 or len(set(order[:N])) == N
