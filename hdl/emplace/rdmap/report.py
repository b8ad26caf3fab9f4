"""What is said of a segment: reasons of refusals, completion and event bodies. Combinational."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..abi import EventType, Reason, WcOpcode, WcStatus
from ..protect.records import AccessReply, Outcome, Refusal
from .records import CheckedSegment, RdmapOpcode

__all__ = ["RefusalReason", "Report"]

#: What a refusal of a Write means (T1..T5; else T6), and of an invalidation (stage I; else the right lacks).
WRITE_REASONS = {Refusal.STAG: Reason.STAG, Refusal.PD: Reason.STAG_PD, Refusal.ACCESS: Reason.STAG_ACCESS,
                 Refusal.WRAP: Reason.TO_WRAP, Refusal.BOUNDS: Reason.BOUNDS}
INVALIDATE_REASONS = {Refusal.STAG: Reason.INVALIDATE_STAG, Refusal.PD: Reason.INVALIDATE_PD}


class RefusalReason(wiring.Component):
    """The reason in protect's answer.

    Members
    -------
    reply : ``In(AccessReply())``
    remote_write : ``In(1)``
        The QP may be written. Where it may not, even a granted Write has a reason.
    write, invalidate : ``Out(Reason)``
        What the answer means for a Write (T1..T6), and for an invalidation that isn't granted.
    """

    def __init__(self):
        super().__init__({"reply": In(AccessReply()), "remote_write": In(1), "write": Out(Reason),
                          "invalidate": Out(Reason)})

    def elaborate(self, platform):
        m = Module()
        region = Signal(Reason)                  # what the region alone says
        m.d.comb += [region.eq(Reason.NOT_NOW), self.invalidate.eq(Reason.NOT_NOW)]
        with m.If(self.reply.outcome == Outcome.REFUSED):
            m.d.comb += [region.eq(Reason.PAGE), self.invalidate.eq(Reason.INVALIDATE_ACCESS)]
            for table, target in ((WRITE_REASONS, region), (INVALIDATE_REASONS, self.invalidate)):
                with m.Switch(self.reply.refusal):
                    for refusal, why in table.items():
                        with m.Case(refusal):
                            m.d.comb += target.eq(why)
        # T3: the QP's switch counts like the region's right, behind T1 and T2.
        early = (region == Reason.STAG) | (region == Reason.STAG_PD)
        m.d.comb += self.write.eq(Mux(self.remote_write | early, region, Reason.STAG_ACCESS))
        return m


class Report(wiring.Component):
    """Completion and event of a segment.

    Members
    -------
    now : ``In(CheckedSegment(config))``
    blame : ``In(WcStatus)``
        Status of the CQE.
    wqe_index : ``In(16)``
    octets : ``In(32)``
        Of the message; a CQE that isn't SUCCESS has 0.
    type : ``In(EventType)``
    reason : ``In(Reason)``
        Of the event; its Terminate code comes from abi.TERMINATE.
    cqe : ``Out(abi.CqeBody)``
    event : ``Out(abi.EventBody)``
    """

    def __init__(self, config):
        super().__init__({
            "now": In(CheckedSegment(config)), "blame": In(WcStatus), "wqe_index": In(16), "octets": In(32),
            "type": In(EventType), "reason": In(Reason), "cqe": Out(abi.CqeBody), "event": Out(abi.EventBody),
        })

    def elaborate(self, platform):
        m = Module()
        now, cqe, event = self.now, self.cqe, self.event
        good, invalidated = Signal(), Signal()
        opcode = now.opcode
        m.d.comb += [
            good.eq(self.blame == WcStatus.SUCCESS),
            invalidated.eq(good & ((opcode == RdmapOpcode.SEND_INVALIDATE)
                                   | (opcode == RdmapOpcode.SEND_SE_INVALIDATE))),
            cqe.qpn.eq(now.qpn),
            cqe.opcode.eq(Mux(opcode == RdmapOpcode.READ_RESPONSE, WcOpcode.RDMA_READ, WcOpcode.RECV)),
            cqe.status.eq(self.blame),
            cqe.solicited.eq((opcode == RdmapOpcode.SEND_SE) | (opcode == RdmapOpcode.SEND_SE_INVALIDATE)),
            cqe.with_inv.eq(invalidated),
            cqe.wqe_index.eq(self.wqe_index),
            cqe.byte_len.eq(Mux(good, self.octets, 0)),
            cqe.invalidated.eq(Mux(invalidated, now.stag, 0)),
            event.type.eq(self.type),
            event.reason.eq(self.reason),
            event.qpn.eq(now.qpn),
            event.data.as_value().eq(now.header),
        ]
        with m.Switch(self.reason):
            for why, code in abi.TERMINATE.items():
                if code is not None:
                    with m.Case(why):
                        m.d.comb += event.terminate.eq(code)
        return m
