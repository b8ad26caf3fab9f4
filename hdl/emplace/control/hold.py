"""Held connections: from the host's stack to the card without a gap (design D1). And the frames' part of a fence."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..frames.records import Reached
from ..ip.records import HoldOp, HoldRequest
from .ports import HoldAnswer, HoldKind, HoldOrder

__all__ = ["Holder"]


class Holder(wiring.Component):
    """Asks ip and frames in the order that makes ACTIVATE atomic.

    WATCH sends a mark behind all frames that ip has judged; when frames answers it, each of them has its number, or
    never gets one. If the QP's last one is ``index`` or later, the host does not have it yet: again. Else RELEASE, which
    ip refuses if one more has come since WATCH; then a second mark tells its number, and the answer is again.

    A fence is a mark and nothing else.

    Latency: what a mark takes (the frames in front of it must have left frame memory), twice at most.

    Members
    -------
    i : ``In(stream.Signature(HoldOrder(config)))``, o : ``Out(stream.Signature(HoldAnswer))``
        One answer an order.
    hold : ``Out(stream.Signature(HoldRequest(config)))``, released : ``In(1)``
        To :class:`~emplace.ip.steer.Steer`.
    reached : ``In(stream.Signature(Reached))``
        From frames: a mark's answer.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i":        In(stream.Signature(HoldOrder(config))),
            "o":        Out(stream.Signature(HoldAnswer)),
            "hold":     Out(stream.Signature(HoldRequest(config))),
            "released": In(1),
            "reached":  In(stream.Signature(Reached)),
        })

    def elaborate(self, platform):
        m = Module()
        order, op, answer = Signal(HoldOrder(self.config)), Signal(HoldOp), self.o.p
        second = Signal()                # the second mark
        following, ahead = Signal(32), Signal(32)
        late = Signal()                  # the QP's last frame is one that the host has not read
        any_ = Signal()
        m.d.comb += [
            self.hold.p.op.eq(op), self.hold.p.qp.eq(order.qp), self.hold.p.qpn.eq(order.qpn),
            late.eq(any_ & ~ahead[31]),
        ]
        m.d.sync += ahead.eq(following - order.index - 1)

        with m.FSM(name="hold"):
            with m.State("IDLE"):        # waits for an order
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [order.eq(self.i.p), second.eq(0), answer.again.eq(0), op.eq(HoldOp.FREE)]
                with m.If(self.i.valid):
                    m.next = "ASK"
                    with m.If(self.i.p.kind == HoldKind.HOLD):
                        m.d.sync += op.eq(HoldOp.HOLD)
                    with m.If((self.i.p.kind == HoldKind.ACTIVATE) | (self.i.p.kind == HoldKind.FENCE)):
                        m.d.sync += op.eq(HoldOp.WATCH)
            with m.State("ASK"):         # waits until ip has done it
                m.d.comb += self.hold.valid.eq(1)
                with m.If(self.hold.ready):
                    m.next = "MARK"
                    with m.If(op == HoldOp.FREE):
                        m.next = "ANSWER"
                    with m.If(op == HoldOp.RELEASE):
                        m.next = "RELEASED"
            with m.State("MARK"):        # waits for the mark to come out of frames
                m.d.comb += self.reached.ready.eq(1)
                m.d.sync += [any_.eq(self.reached.p.any), following.eq(self.reached.p.index + 1)]
                with m.If(self.reached.valid):
                    m.next = "COMPARE"
                    with m.If(order.kind != HoldKind.ACTIVATE):
                        m.next = "ANSWER"
            with m.State("COMPARE"):     # the difference is being taken
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += [answer.again.eq(1), answer.index.eq(Mux(late, following, order.index))]
                m.next = "ANSWER"
                with m.If(~late & ~second):
                    m.d.sync += op.eq(HoldOp.RELEASE)
                    m.next = "ASK"
            with m.State("RELEASED"):
                m.d.sync += [answer.again.eq(0), second.eq(1), op.eq(HoldOp.WATCH)]
                m.next = "ASK"
                with m.If(self.released):
                    m.next = "ANSWER"
            with m.State("ANSWER"):      # waits for the sequencer
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
