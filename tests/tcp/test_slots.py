"""Slot memory: words, both write ports, and that no slot is ever lost or given twice."""

import random

import pytest
from amaranth.sim import Simulator

from emplace.config import NicConfig
from emplace.tcp.slots import SlotMemory


def config(slots):
    return NicConfig(slots=slots, slot_reserve=1)


def run(dut, test):
    sim = Simulator(dut)
    sim.add_clock(8e-9)
    sim.add_testbench(test)
    sim.run()


@pytest.mark.parametrize("slots", [4, 9, 64])
def test_conservation(slots):
    """Random takers and two who give back, with runs of taking all and of giving all."""
    dut = SlotMemory(config(slots))
    rng = random.Random(slots)

    async def test(ctx):
        owned = []
        for cycle in range(1200):
            greed = (0.9, 0.1, 0.5)[cycle // 100 % 3]
            ctx.set(dut.alloc.ready, rng.random() < greed)
            for port in dut.frees:
                give = bool(owned) and rng.random() > greed
                ctx.set(port.valid, give)
                ctx.set(port.p.slot, owned.pop(rng.randrange(len(owned))) if give else rng.randrange(slots))
            _, _, valid, ready, slot = await ctx.tick().sample(dut.alloc.valid, dut.alloc.ready, dut.alloc.p.slot)
            if valid and ready:
                assert slot not in owned and slot < slots
                owned.append(int(slot))
            assert int(ctx.get(dut.free_count)) == slots - len(owned)
        for port in dut.frees:
            ctx.set(port.valid, 0)
        ctx.set(dut.alloc.ready, 1)
        for _ in range(slots + 2):               # one a cycle, down to the last
            _, _, valid, slot = await ctx.tick().sample(dut.alloc.valid, dut.alloc.p.slot)
            if valid:
                owned.append(int(slot))
        assert sorted(owned) == list(range(slots))

    run(dut, test)


def test_words():
    """A word appended can be read in the next cycle; ip's writes come first; data holds until the next read."""
    dut = SlotMemory(config(4))
    rng = random.Random(7)

    async def test(ctx):
        truth, pending, coming = {}, None, [None, None]
        data = None
        for _ in range(1500):
            write = rng.random() < 0.4
            ctx.set(dut.slot_write.valid, write)
            place = rng.randrange(4), rng.choice([0, 1, 254, 255])
            word = rng.getrandbits(64)
            ctx.set(dut.slot_write.payload, {"slot": place[0], "address": place[1], "data": word})
            if pending is None and rng.random() < 0.5:
                pending = (rng.randrange(4), rng.choice([0, 1, 254, 255])), rng.getrandbits(64)
                ctx.set(dut.slot_append.payload, {"slot": pending[0][0], "address": pending[0][1], "data": pending[1]})
            ctx.set(dut.slot_append.valid, pending is not None)
            written = place if write else pending and pending[0]
            asked = rng.choice([*truth, None]) if truth else None
            asked = None if asked == written else asked
            ctx.set(dut.slot_read.en, asked is not None)
            if asked is not None:
                ctx.set(dut.slot_read.slot, asked[0])
                ctx.set(dut.slot_read.address, asked[1])
            coming.append(None if asked is None else truth[asked])
            _, _, ready = await ctx.tick().sample(dut.slot_append.ready)
            assert bool(ready) != write
            if write:
                truth[place] = word
            elif pending is not None:
                truth[pending[0]] = pending[1]
                pending = None
            # Asked for in the cycle before the one that has just ended: there from now on
            arrived = coming[-2]
            data = data if arrived is None else arrived
            if data is not None:
                assert int(ctx.get(dut.slot_read.data)) == data

    run(dut, test)
