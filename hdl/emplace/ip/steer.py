"""Where a frame goes that TCP does not get; and who of the connections is held."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..stream.queue import Queue
from .records import Disposition, FrameEntry, HoldOp, HoldRequest

__all__ = ["Steer"]

#: Frames whose disposition may be owed: one-word wrecks of frames can end while a segment is being looked up.
ENTRIES = 16


class Steer(wiring.Component):
    """Gives one disposition for each frame without ``err``, in the order of their ends, and the marks of WATCH and
    HOLD among them.

    Design D1: control asks WATCH, which sends a mark behind every frame judged so far, and notes whether any frame of
    that QP goes to the host from then on. RELEASE, taken in a cycle in which nothing is judged, ends the hold only if
    there was none: so each of the QP's frames is either in front of the mark, or refuses the RELEASE, or goes to TCP.

    Latency: 2 cycles from a frame's last known fact to its disposition.

    Members
    -------
    enter : ``In(1)``, entry : ``In(FrameEntry)``
        Two cycles behind a frame's end: what is known without lookup and option walk.
    judged : ``In(1)``, keep, reason, qp : ``In(...)``
        The fate of the oldest ``open`` entry; before the next one is entered.
    look : ``In(qp_bits)``, held : ``Out(1)``
        Is that QP held?
    hold : ``In(stream.Signature(HoldRequest(config)))``
        Taken once it has been done; a mark has left by then.
    released : ``Out(1)``
        From the cycle behind a RELEASE on: it ended the hold.
    o : ``Out(stream.Signature(Disposition(config)))``
        To be taken within 8 cycles.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "enter": In(1), "entry": In(FrameEntry),
            "judged": In(1), "keep": In(1), "reason": In(4), "qp": In(config.qp_bits),
            "look": In(config.qp_bits), "held": Out(1),
            "hold": In(stream.Signature(HoldRequest(config))),
            "released": Out(1),
            "o": Out(stream.Signature(Disposition(config))),
        })

    def elaborate(self, platform):
        m = Module()
        hold, o = self.hold, self.o
        m.submodules.entries = entries = Queue(FrameEntry, ENTRIES)
        head = entries.o.p

        # Fate of the open entry
        resolved, keep, reason, qp = Signal(), Signal(), Signal(4), Signal(self.config.qp_bits)
        m.d.comb += [
            o.p.mark.eq(head.mark), o.p.fresh.eq(hold.p.op == HoldOp.HOLD), o.p.qpn.eq(hold.p.qpn),
            o.p.keep.eq(~head.open | keep), o.p.reason.eq(Mux(head.open, reason, head.reason)),
            o.p.flags.eq(head.flags), o.p.header.eq(head.header), o.p.qp.eq(Mux(head.mark, hold.p.qp, qp)),
            o.valid.eq(entries.o.valid & (~head.open | resolved)),
            entries.o.ready.eq(o.ready & (~head.open | resolved)),
        ]
        with m.If(o.valid & o.ready & head.open):
            m.d.sync += resolved.eq(0)
        with m.If(self.judged):
            m.d.sync += [resolved.eq(1), keep.eq(self.keep), reason.eq(self.reason), qp.eq(self.qp)]

        # Holds
        holds = Signal(self.config.qps)
        watched, stained = Signal(self.config.qp_bits), Signal()     # a frame of that QP has gone to the host
        marking, marked = Signal(), Signal()
        m.d.comb += [
            self.held.eq(holds.bit_select(self.look, 1)),
            marking.eq(hold.valid & ((hold.p.op == HoldOp.HOLD) | (hold.p.op == HoldOp.WATCH)) & ~marked & ~self.enter),
            entries.i.valid.eq(self.enter | marking),
            entries.i.p.eq(self.entry),
        ]
        with m.If(~self.enter):
            m.d.comb += [entries.i.p.mark.eq(1), entries.i.p.open.eq(0)]
        with m.If(self.judged & self.keep & (self.reason == abi.FrameReason.HELD) & (self.qp == watched)):
            m.d.sync += stained.eq(1)
        with m.If(marking & entries.i.ready):
            m.d.sync += marked.eq(1)
            with m.If(hold.p.op == HoldOp.WATCH):
                m.d.sync += [watched.eq(hold.p.qp), stained.eq(0)]
        with m.If(hold.valid):
            with m.Switch(hold.p.op):
                with m.Case(HoldOp.HOLD, HoldOp.WATCH):
                    m.d.comb += hold.ready.eq(o.valid & o.ready & head.mark)
                    with m.If(hold.ready):
                        m.d.sync += marked.eq(0)
                        with m.If(hold.p.op == HoldOp.HOLD):
                            m.d.sync += holds.bit_select(hold.p.qp, 1).eq(1)
                with m.Case(HoldOp.FREE):
                    m.d.comb += hold.ready.eq(1)
                    m.d.sync += holds.bit_select(hold.p.qp, 1).eq(0)
                with m.Case(HoldOp.RELEASE):             # waits for a cycle without a judgement
                    m.d.comb += hold.ready.eq(~self.judged)
                    with m.If(~self.judged):
                        m.d.sync += self.released.eq(~stained)
                        with m.If(~stained):
                            m.d.sync += holds.bit_select(hold.p.qp, 1).eq(0)
        return m
