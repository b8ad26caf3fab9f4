"""Streams that have ended: always taken at once, kept until control has time for them."""

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..rdmap.records import Died
from ..stream.flags import FlagSet

__all__ = ["Deaths"]


class Deaths(wiring.Component):
    """Keeps at most one report a QP, with the latest reason, so that nothing can overflow and no reporter waits.

    Throughput: a report every cycle, two reporters taking turns. Latency: 4 cycles and more.

    Members
    -------
    died : ``In(stream.Signature(Died(config))).array(2)``
    empty : ``Out(1)``
        No report is on its way.
    o : ``Out(stream.Signature(Died(config)))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "died":  In(stream.Signature(Died(config))).array(2),
            "empty": Out(1),
            "o":     Out(stream.Signature(Died(config))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.waiting = waiting = FlagSet(self.config.qps)
        m.submodules.reasons = reasons = memory.Memory(shape=8, depth=self.config.qps, init=[])
        write, read = reasons.write_port(), reasons.read_port()

        # One report a cycle: rdmap's first, but not twice running.
        turn = Signal()
        take = Signal(2)
        report, valid = Signal(Died(self.config)), Signal()
        m.d.comb += [
            take[0].eq(self.died[0].valid & (~turn | ~self.died[1].valid)),
            take[1].eq(self.died[1].valid & ~take[0]),
            self.died[0].ready.eq(take[0]),
            self.died[1].ready.eq(take[1]),
        ]
        m.d.sync += [turn.eq(take[0]), valid.eq(take.any())]
        with m.If(take[0]):
            m.d.sync += report.eq(self.died[0].payload)
        with m.Elif(take[1]):
            m.d.sync += report.eq(self.died[1].payload)

        m.d.comb += [
            write.addr.eq(report.qp), write.data.eq(report.reason), write.en.eq(valid),
            waiting.set[0].en.eq(valid), waiting.set[0].index.eq(report.qp),
            self.empty.eq(waiting.empty & ~valid & ~self.o.valid & ~self.died[0].valid & ~self.died[1].valid),
            read.addr.eq(waiting.o.payload),
        ]
        with m.FSM(name="deaths"):
            with m.State("IDLE"):                      # waits for a report
                with m.If(waiting.o.valid):
                    m.next = "READ"
            with m.State("READ"):                      # its reason is there
                m.d.comb += waiting.o.ready.eq(1)
                m.d.sync += [self.o.valid.eq(1), self.o.p.qp.eq(waiting.o.payload), self.o.p.reason.eq(read.data)]
                m.next = "LEAVE"
            with m.State("LEAVE"):                     # waits until it is taken
                with m.If(self.o.ready):
                    m.d.sync += self.o.valid.eq(0)
                    m.next = "IDLE"
        return m
