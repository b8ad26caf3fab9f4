import random

import pytest
from tests.queues.bench import run

from emplace.stream.flags import FlagSet


@pytest.mark.parametrize("n", [2, 8, 32])
def test_every_set_index_comes_out_and_no_other(n):
    dut = FlagSet(n, setters=2)
    rng = random.Random(n)
    owed = set()           # set, and not handed out since
    late = {}              # how many others came before it
    log = []

    async def setter(ctx):
        for _ in range(400):
            for port in dut.set:
                index = rng.randrange(n)
                en = rng.random() < 0.2
                ctx.set(port, {"en": en, "index": index})
                if en:
                    owed.add(index)
            await ctx.tick()
        for port in dut.set:
            ctx.set(port, {"en": 0, "index": 0})
        for _ in range(4 * n + 20):
            await ctx.tick()
        assert not owed, "an index was lost"
        assert ctx.get(dut.empty)
        quiet = len(log)
        for _ in range(20):
            await ctx.tick()
        assert len(log) == quiet, "came out though not set"

    async def sink(ctx):
        while True:
            ctx.set(dut.o.ready, ready := rng.random() < 0.6)
            # What is set in this cycle must come again: it is owed anew after the hand-over.
            _, _, valid, index, *new = await ctx.tick().sample(dut.o.valid, dut.o.payload, *dut.set)
            if valid and ready:
                log.append(index)
                owed.discard(index)
                for port in new:
                    if port.en:
                        owed.add(port.index)
                for other in owed:
                    late[other] = late.get(other, 0) + 1
                    assert late[other] <= 2 * n, "one index starves"
                late[index] = 0

    run(dut, setter, background=[sink])


def test_one_index_cannot_starve_the_others():
    dut = FlagSet(8)
    got = []

    async def sink(ctx):
        ctx.set(dut.o.ready, 1)
        for index in (*range(8), *[0] * 40):
            ctx.set(dut.set[0], {"en": 1, "index": index})
            _, _, valid, index = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                got.append(index)

    run(dut, sink)
    assert set(range(1, 8)) <= set(got)
