"""Deadlines of all connections, looked at once a tick."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..stream.scrub import scrub

__all__ = ["Deadlines"]


class Deadlines(wiring.Component):
    """Tells of each armed connection whose deadline is reached, once a tick until it is disarmed or armed anew.

    A deadline lies less than 2**31 ticks ahead. One connection a cycle is looked at; if a tick is shorter than that takes,
    ticks are passed over.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    set : ``In({en, qp, armed, deadline})``
    now : ``In(32)``
        Ticks.
    over : ``Out({en, index})``
        Strobe.
    """

    def __init__(self, config):
        self.config = config
        qp = config.qp_bits
        super().__init__({
            "set":  In(data.StructLayout({"en": 1, "qp": qp, "armed": 1, "deadline": 32})),
            "now":  In(32),
            "over": Out(data.StructLayout({"en": 1, "index": qp})),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        Entry = data.StructLayout({"armed": 1, "deadline": 32})
        m.submodules.store = store = memory.Memory(shape=Entry, depth=config.qps, init=[])
        write, read = store.write_port(), store.read_port()
        at, scanning, seen = Signal(config.qp_bits), Signal(), Signal(32)
        at_2, at_3, valid_2, valid_3, armed = (
            Signal(config.qp_bits), Signal(config.qp_bits), Signal(), Signal(), Signal())
        ahead = Signal(32)               # of `now`
        m.d.comb += [
            write.addr.eq(self.set.qp), write.en.eq(self.set.en), write.data.armed.eq(self.set.armed),
            write.data.deadline.eq(self.set.deadline), read.addr.eq(at),
            self.over.en.eq(valid_3 & armed & ((ahead == 0) | ahead[31])), self.over.index.eq(at_3),
        ]
        m.d.sync += [
            valid_2.eq(scanning), at_2.eq(at), valid_3.eq(valid_2), at_3.eq(at_2), armed.eq(read.data.armed),
            ahead.eq(read.data.deadline - seen),
        ]
        with m.If(scanning):
            m.d.sync += at.eq(at + 1)
            with m.If(at == config.qps - 1):
                m.d.sync += [scanning.eq(0), at.eq(0)]
        with m.Elif(self.now != seen):
            m.d.sync += [scanning.eq(1), seen.eq(self.now)]
        scrub(m, write, config.qps)
        return m
