"""Several units ask one protection unit."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.arbiter import StreamArbiter
from ..stream.packet import connect_streams
from ..stream.queue import Queue
from .records import AccessReply, AccessRequest

__all__ = ["AccessShare"]

#: Requests whose last reply has not come.
_ASKED = 8


class AccessShare(wiring.Component):
    """Merges requests, round robin, and hands each one its replies.

    Throughput: a request a cycle, a reply a cycle. Latency: 0 cycles for replies, 0 for a request of who asked last, else 1.
    Who doesn't take his replies holds the others up: everybody takes them at once or as soon as a write can leave.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    n : :class:`int`

    Members
    -------
    i : ``In(stream.Signature(AccessRequest(config))).array(n)``
    granted : ``Out(stream.Signature(AccessReply())).array(n)``
    access, replies
        To and from :class:`~emplace.protect.layer.Protect`.
    """

    def __init__(self, config, n):
        self.config, self.n = config, n
        super().__init__({
            "i":       In(stream.Signature(AccessRequest(config))).array(n),
            "granted": Out(stream.Signature(AccessReply())).array(n),
            "access":  Out(stream.Signature(AccessRequest(config))),
            "replies": In(stream.Signature(AccessReply())),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = StreamArbiter(AccessRequest(self.config), self.n)
        m.submodules.asked = asked = Queue(range(self.n), _ASKED)
        for n in range(self.n):
            connect_streams(m, self.i[n], arbiter.i[n])
            with m.If(arbiter.i[n].ready):
                m.d.comb += asked.i.p.eq(n)
        m.d.comb += [
            self.access.p.eq(arbiter.o.p), self.access.valid.eq(arbiter.o.valid & asked.i.ready),
            arbiter.o.ready.eq(self.access.ready & asked.i.ready),
            asked.i.valid.eq(arbiter.o.valid & self.access.ready),
            asked.o.ready.eq(self.replies.valid & self.replies.ready & self.replies.p.last),
        ]
        for n in range(self.n):
            mine = Signal(name=f"mine_{n}")
            m.d.comb += [
                mine.eq(asked.o.valid & (asked.o.p == n)),
                self.granted[n].p.eq(self.replies.p), self.granted[n].valid.eq(self.replies.valid & mine),
            ]
            with m.If(mine):
                m.d.comb += self.replies.ready.eq(self.granted[n].ready)
        return m
