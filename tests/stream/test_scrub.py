"""A memory behind a reset."""

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from tests.stream.harness import simulate

from emplace.config import PROFILES
from emplace.ip.lookup import bucket_bits
from emplace.stream.scrub import scrub, scrub_cycles

ROW = data.StructLayout({"valid": 1, "value": 15})


class Table(wiring.Component):
    """Rows of a user who writes every cycle if he is told to."""

    def __init__(self, depth, granularity=None):
        self.depth, self.granularity = depth, granularity
        super().__init__({"en": In(1), "addr": In(range(depth)), "value": In(15), "look": In(range(depth)),
                          "row": Out(16), "scrubbing": Out(1)})

    def elaborate(self, platform):
        m = Module()
        shape = ROW if self.granularity is None else 16
        m.submodules.store = store = memory.Memory(shape=shape, depth=self.depth, init=[])
        write, read = store.write_port(granularity=self.granularity), store.read_port()
        m.d.comb += [write.addr.eq(self.addr), read.addr.eq(self.look), self.row.eq(read.data)]
        with m.FSM():
            with m.State("WRITE"):
                m.d.comb += [write.en.eq(self.en.replicate(len(write.en))),
                             (write.data.as_value() if shape is ROW else write.data).eq(self.value << 1 | 1)]
        m.d.comb += self.scrubbing.eq(scrub(m, write, self.depth))
        return m


@pytest.mark.parametrize("depth, granularity", [(8, None), (5, None), (2, None), (6, 8)])
def test_every_reset_clears_all_rows(depth, granularity):
    reset, dut = Signal(), Table(depth, granularity)

    async def rows(ctx):
        found = []
        for n in range(depth):
            ctx.set(dut.look, n)
            await ctx.tick()
            found.append(ctx.get(dut.row))
        return found

    async def user(ctx):
        for again in range(3):
            # In the reset, right behind it, and in the midst of clearing: what is written now is lost.
            ctx.set(dut.en, 1)
            for n in range(depth):
                assert ctx.get(dut.scrubbing), f"ended after {n} cycles"
                ctx.set(dut.addr, depth - 1 - n)
                ctx.set(dut.value, n + 1)
                await ctx.tick()
            ctx.set(dut.en, 0)
            assert not ctx.get(dut.scrubbing), "goes on"
            assert await rows(ctx) == [0] * depth
            ctx.set(dut.en, 1)
            for n in range(depth):
                ctx.set(dut.addr, n)
                ctx.set(dut.value, 100 * again + n)
                await ctx.tick()
            ctx.set(dut.en, 0)
            assert await rows(ctx) == [(100 * again + n) << 1 | 1 for n in range(depth)]
            ctx.set(dut.en, 1)
            ctx.set(reset, 1)
            await ctx.tick().repeat(1 + again)
            ctx.set(reset, 0)
            if again == 1:               # a second reset before all is clear
                await ctx.tick().repeat(depth // 2)
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)

    simulate(ResetInserter(reset)(dut), user, cycles=2000)


@pytest.mark.parametrize("config", PROFILES.values(), ids=PROFILES.keys())
def test_there_is_time_for_every_table(config):
    assert scrub_cycles(config) > max(config.regions, config.qps, config.cqs, 1 << bucket_bits(config))
