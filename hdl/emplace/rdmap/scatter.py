"""Cuts Sends to the scatter/gather elements of receive WQEs.

Ref: RFC 5040 §5.3 (Send), RFC 5041 §5.1 and §7.1 (untagged buffers).
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..abi import Reason
from ..queues.records import Sge, SgeRequest, TakeReply, TakeRequest
from .records import ScatterOp, ScatterRequest, ScatterStep

__all__ = ["Scatter"]


class Scatter(wiring.Component):
    """Takes a receive WQE for each message (U3), bounds each segment by it (U5), and cuts the segment
    at the ends of its SGEs. Between segments, the position is kept per QP.

    A piece holds until it is taken, which says that it has been granted and placed; the next is cut
    then. ``abort`` with a step ends the segment there.

    Latency: from a segment to its first step 6 cycles and an SGE read, and where it is the message's
    first, a WQE more; then 3 and an SGE read a piece.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    request : ``In(stream.Signature(ScatterRequest(config)))``
    step : ``Out(stream.Signature(ScatterStep))``
        For SEGMENT: pieces up to the final one; or an end, if the segment is empty or fails.
    abort : ``In(1)``
        With ``step.ready`` on a piece: no more of this segment, no end.
    take, taken, sge, sge_data
        To and from the queues, as in :class:`~emplace.rdmap.layer.Rdmap`.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "request":  In(stream.Signature(ScatterRequest(config))),
            "step":     Out(stream.Signature(ScatterStep)),
            "abort":    In(1),
            "take":     Out(stream.Signature(TakeRequest(config))),
            "taken":    In(stream.Signature(TakeReply(config))),
            "sge":      Out(stream.Signature(SgeRequest(config))),
            "sge_data": In(stream.Signature(Sge)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        step = self.step

        # `index`, `offset`: the SGE that comes next and the octets that it already has.
        Position = data.StructLayout({"entry": config.rq_prefetch_bits, "wqe_index": 16, "total": 34, "index": 2,
                                      "offset": 32})
        m.submodules.positions = positions = memory.Memory(shape=Position, depth=config.qps, init=[])
        read, write = positions.read_port(), positions.write_port()

        job = Signal(ScatterRequest(config))
        at = Signal(Position)
        octets = Signal(33)              # of the message, this segment included
        remaining = Signal(16)           # of the segment
        sge_now = Signal(Sge)
        left = Signal(32)                # room in the SGE
        address = Signal(64)
        piece = Signal(16)
        reason = Signal(Reason)
        m.d.sync += octets.eq(job.mo + job.payload)      # right from the second cycle of a job on
        m.d.comb += [
            read.addr.eq(self.request.p.qp),
            read.en.eq(0),               # its default is 1
            write.addr.eq(job.qp),
            write.data.eq(at),
            self.take.p.qp.eq(job.qp),
            self.sge.p.qp.eq(job.qp),
            self.sge.p.entry.eq(at.entry),
            self.sge.p.index.eq(at.index),
            step.p.reason.eq(reason),
            step.p.wqe_index.eq(at.wqe_index),
            step.p.octets.eq(octets),
            step.p.lkey.eq(sge_now.lkey),
            step.p.address.eq(address),
            step.p.length.eq(piece),
            step.p.final.eq(piece == remaining),
        ]

        with m.FSM():
            with m.State("IDLE"):        # a request
                m.d.comb += [self.request.ready.eq(1), read.en.eq(1)]
                m.d.sync += [job.eq(self.request.payload), reason.eq(Reason.NONE)]
                with m.If(self.request.valid):
                    with m.If(self.request.p.op != ScatterOp.SEGMENT):
                        m.next = "TELL"
                    with m.Elif(self.request.p.first):
                        m.next = "TAKE"
                    with m.Else():
                        m.next = "LOAD"
            with m.State("TELL"):        # queues, to hear of a claim or WQE that is done with
                m.d.comb += [
                    self.take.valid.eq(1),
                    self.take.p.claimed.eq(job.op == ScatterOp.RETURN),
                    self.take.p.retire.eq(job.op == ScatterOp.RETIRE),
                ]
                with m.If(self.take.ready):
                    m.next = "IDLE"
            with m.State("TAKE"):        # queues, to hear that a WQE is wanted
                m.d.comb += [self.take.valid.eq(1), self.take.p.take.eq(1), self.take.p.claimed.eq(job.claimed)]
                with m.If(self.take.ready):
                    m.next = "TAKEN"
            with m.State("TAKEN"):       # their answer
                m.d.comb += self.taken.ready.eq(1)
                m.d.sync += [
                    at.entry.eq(self.taken.p.entry), at.wqe_index.eq(self.taken.p.wqe_index),
                    at.total.eq(self.taken.p.total), at.index.eq(0), at.offset.eq(0), remaining.eq(job.payload),
                ]
                with m.If(self.taken.valid):
                    with m.If(self.taken.p.ok & ~self.taken.p.failed):
                        m.next = "FIT"
                    with m.Else():
                        m.d.sync += reason.eq(Mux(self.taken.p.failed, Reason.RQ_FETCH, Reason.NO_BUFFER))
                        m.next = "END"
            with m.State("LOAD"):        # nothing: the position has been read
                m.d.sync += [at.eq(read.data), remaining.eq(job.payload)]
                m.next = "FIT"
            with m.State("FIT"):         # U5; a message has less than 2**32 octets, whatever its buffer
                with m.If((octets > at.total) | octets[32]):
                    m.d.sync += reason.eq(Reason.TOO_LONG)
                    m.next = "END"
                with m.Elif(remaining == 0):
                    m.next = "END"
                with m.Else():
                    m.next = "SGE"
            with m.State("SGE"):         # queues, to hear which SGE is wanted
                m.d.comb += self.sge.valid.eq(1)
                with m.If(self.sge.ready):
                    m.next = "SGE_DATA"
            with m.State("SGE_DATA"):    # the SGE
                m.d.comb += self.sge_data.ready.eq(1)
                m.d.sync += sge_now.eq(self.sge_data.payload)
                with m.If(self.sge_data.valid):
                    m.next = "CUT"
            with m.State("CUT"):         # (the sum can't wrap unseen: the octets before were granted up to there)
                m.d.sync += [left.eq(sge_now.length - at.offset), address.eq(sge_now.addr + at.offset)]
                m.next = "MEASURE"
            with m.State("MEASURE"):
                m.d.sync += piece.eq(Mux(left < remaining, left, remaining))
                with m.If(left != 0):
                    m.next = "PIECE"
                with m.Elif(at.index == 3):      # not with a right `total`; but never hang
                    m.d.sync += reason.eq(Reason.LOCAL_SGE)
                    m.next = "END"
                with m.Else():                   # used up, or of no length: its lkey is nobody's business
                    m.d.sync += [at.index.eq(at.index + 1), at.offset.eq(0)]
                    m.next = "SGE"
            with m.State("PIECE"):       # its taker, who has it granted and placed first
                m.d.comb += step.valid.eq(1)
                with m.If(step.ready):
                    m.d.sync += [remaining.eq(remaining - piece), at.offset.eq(at.offset + piece)]
                    with m.If(self.abort):
                        m.next = "IDLE"
                    with m.Elif(step.p.final):
                        m.next = "SAVE"
                    with m.Else():
                        m.next = "CUT"
            with m.State("SAVE"):
                m.d.comb += write.en.eq(1)
                m.next = "IDLE"
            with m.State("END"):         # its taker
                m.d.comb += [step.valid.eq(1), step.p.end.eq(1), write.en.eq(1)]
                with m.If(step.ready):
                    m.next = "IDLE"
        return m
