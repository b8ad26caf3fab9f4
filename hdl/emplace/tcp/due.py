"""Who is due for an ACK: at once, or because its delay is over. Ref: RFC 1122 §4.2.3.2, RFC 5681 §4.2."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import QpIndex
from ..stream.queue import Queue
from ..stream.scrub import scrub

__all__ = ["DueList"]

#: Bits of a deadline in ticks, and of the sequence numbers that are compared: no more octets than a window are late.
_TIME = 12
_SEQ = 16


class DueList(wiring.Component):
    """Ready list of QPs, each in it at most once, so that ACKs merge while frames are held up.

    A delayed ACK is owed only as long as RCV.NXT isn't Last.ACK.sent: when another goes first, nothing is to be taken
    back. All QPs are gone through, one every 3 cycles.

    Throughput: an update a cycle. Latency from ``update`` to ``o``: 2 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    update : ``In(1)``
        Strobe: RCV.NXT of ``qp`` is ``rcv_nxt``.
    qp, rcv_nxt : ``In(qp_bits)``, ``In(32)``
    due, late : ``In(1)``
        With ``update``: an ACK is due; it is due in ``delay`` ticks.
    delay, now : ``In(11)``, ``In(32)``
    said, said_qp, said_nxt : ``In(1)``, ``In(qp_bits)``, ``In(32)``
        Strobe: an ACK of ``said_qp`` with ``said_nxt`` is on its way.
    frozen, frozen_qp : ``In(1)``, ``In(qp_bits)``
        This QP comes or goes: no delay of it is over.
    o : ``Out(stream.Signature(QpIndex(config)))``
    overdue : ``Out(1)``
        Strobe: a delay was over.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "update":   In(1),
            "qp":       In(config.qp_bits),
            "rcv_nxt":  In(32),
            "due":      In(1),
            "late":     In(1),
            "delay":    In(11),
            "now":      In(32),
            "said":     In(1),
            "said_qp":  In(config.qp_bits),
            "said_nxt": In(32),
            "frozen":    In(1),
            "frozen_qp": In(config.qp_bits),
            "o":        Out(stream.Signature(QpIndex(config))),
            "overdue":  Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.ready = ready = Queue(QpIndex(config), config.qps)
        deadline_shape = data.StructLayout({"time": _TIME, "armed": 1})
        m.submodules.nexts = nexts = memory.Memory(shape=_SEQ, depth=config.qps, init=[])
        m.submodules.saids = saids = memory.Memory(shape=_SEQ, depth=config.qps, init=[])
        m.submodules.deadlines = deadlines = memory.Memory(shape=deadline_shape, depth=config.qps, init=[])
        ports = [(store.write_port(), store.read_port()) for store in (nexts, saids, deadlines)]
        (next_write, next_read), (said_write, said_read), (deadline_write, deadline_read) = ports
        m.d.comb += [
            next_write.en.eq(self.update), next_write.addr.eq(self.qp), next_write.data.eq(self.rcv_nxt),
            said_write.en.eq(self.said), said_write.addr.eq(self.said_qp), said_write.data.eq(self.said_nxt),
            deadline_write.en.eq(self.update & (self.late | self.due)), deadline_write.addr.eq(self.qp),
            deadline_write.data.time.eq(self.now + self.delay), deadline_write.data.armed.eq(~self.due),
        ]

        at = Signal(config.qp_bits)
        owed, over, touched = Signal(), Signal(signed(_TIME)), Signal()
        m.d.comb += [
            *(read.addr.eq(at) for _, read in ports),
            touched.eq((self.update & (self.qp == at)) | (self.said & (self.said_qp == at))
                       | (self.frozen & (self.frozen_qp == at))),
        ]
        with m.FSM():
            with m.State("READ"):        # for the memories
                with m.If(~touched):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += [owed.eq((next_read.data != said_read.data) & deadline_read.data.armed & ~touched),
                             over.eq(self.now - deadline_read.data.time)]
                m.next = "DECIDE"
            with m.State("DECIDE"):      # next QP; who is overdue waits for its turn at the list
                with m.If(~owed | (over < 0) | touched):
                    m.d.sync += at.eq(at + 1)
                    m.next = "READ"
                with m.Elif(~(self.update & self.due)):
                    m.d.comb += self.overdue.eq(1)
                    m.d.sync += at.eq(at + 1)
                    m.next = "READ"

        # Ready list. One word of it a QP at most, so that it never overflows.
        listed = Signal(config.qps)
        who, new = Signal(config.qp_bits), Signal()
        m.d.comb += [
            who.eq(at), new.eq(self.overdue),
            ready.i.p.qp.eq(who), ready.i.valid.eq(new & ~listed.bit_select(who, 1)),
            self.o.valid.eq(ready.o.valid), self.o.p.eq(ready.o.p), ready.o.ready.eq(self.o.ready),
        ]
        with m.If(self.update & self.due):
            m.d.comb += [who.eq(self.qp), new.eq(1)]
        with m.If(ready.o.valid & ready.o.ready):
            m.d.sync += listed.bit_select(ready.o.p.qp, 1).eq(0)
        with m.If(ready.i.valid):
            m.d.sync += listed.bit_select(who, 1).eq(1)
        scrub(m, next_write, config.qps)
        scrub(m, said_write, config.qps)
        scrub(m, deadline_write, config.qps)
        return m
