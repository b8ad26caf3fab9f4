"""Streams that have ended: always taken at once, kept until somebody has time for them."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.arbiter import StreamArbiter
from ..stream.flags import FlagSet
from ..stream.packet import connect_streams
from .records import Died

__all__ = ["Deaths"]


class Deaths(wiring.Component):
    """Keeps at most one report a QP, with the latest reason, so that nothing can overflow and no reporter waits.

    Throughput: a report every cycle, its reporters taking turns. Latency: 4 cycles and more.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    n : :class:`int`
        Reporters.

    Members
    -------
    died : ``In(stream.Signature(Died(config))).array(n)``
    empty : ``Out(1)``
        No report is on its way.
    o : ``Out(stream.Signature(Died(config)))``
    """

    def __init__(self, config, n):
        self.config, self.n = config, n
        super().__init__({
            "died":  In(stream.Signature(Died(config))).array(n),
            "empty": Out(1),
            "o":     Out(stream.Signature(Died(config))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.waiting = waiting = FlagSet(self.config.qps)
        m.submodules.reasons = reasons = memory.Memory(shape=8, depth=self.config.qps, init=[])
        write, read = reasons.write_port(), reasons.read_port()

        m.submodules.merge = merge = StreamArbiter(Died(self.config), len(self.died))
        report, valid = Signal(Died(self.config)), Signal()
        for source, sink in zip(self.died, merge.i, strict=True):
            connect_streams(m, source, sink)
        m.d.comb += merge.o.ready.eq(1)
        m.d.sync += [report.eq(merge.o.p), valid.eq(merge.o.valid)]

        m.d.comb += [
            write.addr.eq(report.qp), write.data.eq(report.reason), write.en.eq(valid),
            waiting.set[0].en.eq(valid), waiting.set[0].index.eq(report.qp),
            self.empty.eq(waiting.empty & ~valid & ~self.o.valid & ~Cat(port.valid for port in self.died).any()),
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
