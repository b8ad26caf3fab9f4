"""Carries out what checked segments ask for: placement, completions, events, and the end of a stream.

Ref: RFC 5040 §5 (operations), §7 (errors); RFC 5041 §5.2, §7.1.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..abi import Access, EventType, Reason, WcStatus
from ..control.records import RecordKind, TokenOp, UploadPart
from ..dma.records import PlaceCommand, PlaceKind
from ..protect.records import AccessOp, AccessReply, AccessRequest, Outcome
from ..stream.scrub import scrub
from .records import (
    CheckedSegment,
    Died,
    RdmapOpcode,
    ReadQueueOp,
    ReadQueueReply,
    ReadQueueRequest,
    ScatterOp,
    ScatterRequest,
    ScatterStep,
)
from .report import RefusalReason, Report

__all__ = ["Execute"]


class Execute(wiring.Component):
    """Takes checked segments in order and turns each into commands.

    Each packet is used up by exactly one segment: by its PAYLOAD commands, the last one ``final``, or
    by one DISCARD. The first error of a stream is reported (event, ``died``, counter), and all behind
    it is thrown away. While a Write waits for its grant, the grant of the next is asked already.

    Throughput, with g cycles from an access request to its reply: a Write in one burst every
    max(3, g / 2 + 2) cycles. Others one by one: a Send in one segment and one SGE about 14 + g,
    a Read Response segment 11 + g, a Read Request 4.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    checked : ``In(stream.Signature(CheckedSegment(config)))``
    access, granted : ``Out``, ``In``
        To and from protect. At most two requests are under way; replies in order.
    scatter, step, abort : ``Out``, ``In``, ``Out``
        To :class:`~emplace.rdmap.scatter.Scatter`.
    reads, response : ``Out``, ``In``
        To :class:`~emplace.rdmap.reads.ReadQueue`.
    commands : ``Out(stream.Signature(PlaceCommand(config)))``
    died : ``Out(stream.Signature(Died(config)))``
        At most one for each time that a QP is installed, and a PEER_RESET behind a PEER_FIN.
    upload : ``Out(UploadPart)``
        ``reason``, from the latest UPLOAD token on.
    count : ``Out(abi.counter_layout("rdmap"))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "checked":  In(stream.Signature(CheckedSegment(config))),
            "access":   Out(stream.Signature(AccessRequest(config))),
            "granted":  In(stream.Signature(AccessReply())),
            "scatter":  Out(stream.Signature(ScatterRequest(config))),
            "step":     In(stream.Signature(ScatterStep)),
            "abort":    Out(1),
            "reads":    Out(stream.Signature(ReadQueueRequest(config))),
            "response": In(stream.Signature(ReadQueueReply)),
            "commands": Out(stream.Signature(PlaceCommand(config))),
            "died":     Out(stream.Signature(Died(config))),
            "upload":   Out(UploadPart),
            "count":    Out(abi.counter_layout("rdmap")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        checked, access, granted, commands = self.checked, self.access, self.granted, self.commands

        Stream = data.StructLayout({"alive": 1, "reason": 8})
        m.submodules.streams = streams = memory.Memory(shape=Stream, depth=config.qps, init=[])
        stream_read, stream_write = streams.read_port(), streams.write_port()

        now = Signal(CheckedSegment(config))
        asked = Signal()                 # its grant has been asked
        next_asked = Signal()            # that of the one behind it, too
        packet = Signal()                # some of its packet is left
        claim = Signal()                 # its claim is still to be used or given back
        skip = Signal(6)
        reason = Signal(Reason)
        blame = Signal(WcStatus)         # for the receive WQE of a failed Send; SUCCESS: none
        event = Signal(EventType)
        wqe_index = Signal(16)
        octets = Signal(32)
        m.d.comb += [
            stream_read.addr.eq(checked.p.qp),
            stream_read.en.eq(0),        # its default is 1
            stream_write.addr.eq(now.qp),
            stream_write.data.reason.eq(stream_read.data.reason),
            self.died.p.qp.eq(now.qp),
            self.died.p.reason.eq(reason),
            self.scatter.p.qp.eq(now.qp),
            self.scatter.p.first.eq(now.first),
            self.scatter.p.claimed.eq(now.claimed),
            self.scatter.p.mo.eq(now.mo),
            self.scatter.p.payload.eq(now.payload),
            self.reads.p.qp.eq(now.qp),
            self.reads.p.stag.eq(now.stag),
            self.reads.p.to.eq(now.to),
            self.reads.p.payload.eq(now.payload),
            self.reads.p.last.eq(now.last),
        ]
        is_send, is_response, invalidates = (Signal(name=name) for name in ("is_send", "is_response", "invalidates"))
        m.d.comb += [
            is_send.eq((now.opcode >= RdmapOpcode.SEND) & (now.opcode <= RdmapOpcode.SEND_SE_INVALIDATE)),
            is_response.eq(now.opcode == RdmapOpcode.READ_RESPONSE),
            invalidates.eq((now.opcode == RdmapOpcode.SEND_INVALIDATE)
                           | (now.opcode == RdmapOpcode.SEND_SE_INVALIDATE)),
        ]
        empty = now.payload == 0

        # Outputs are registers; `room` says that the command's can be loaded.
        room = Signal()
        m.d.comb += room.eq(~commands.valid | commands.ready)
        with m.If(commands.ready):
            m.d.sync += commands.valid.eq(0)
        with m.If(access.ready):
            m.d.sync += access.valid.eq(0)
        m.d.sync += self.count.eq(0)

        def emit(kind):
            m.d.sync += [commands.valid.eq(1), commands.p.kind.eq(kind), commands.p.qp.eq(now.qp)]

        def ask(op, stag, offset, length, right, source=now):
            m.d.sync += [
                access.valid.eq(1), access.p.op.eq(op), access.p.stag.eq(stag), access.p.pd.eq(source.pd),
                access.p.qp.eq(source.qp), access.p.offset.eq(offset), access.p.length.eq(length),
                access.p.right.eq(right),
            ]

        def ask_write(segment):
            # Where the QP must not be written, the region's checks still come first: check, place nothing.
            ask(Mux(segment.remote_write, AccessOp.GRANT, AccessOp.CHECK), segment.stag, segment.to, segment.payload,
                Access.REMOTE_WRITE, segment)

        m.submodules.report = report = Report(config)
        m.submodules.refusal = refusal = RefusalReason()
        m.d.comb += [
            report.now.eq(now), report.blame.eq(blame), report.wqe_index.eq(wqe_index), report.octets.eq(octets),
            report.type.eq(event), report.reason.eq(reason),
            refusal.reply.eq(granted.payload), refusal.remote_write.eq(now.remote_write),
        ]

        def complete():
            emit(PlaceKind.CQE)
            # Behind the body `data` means nothing.
            m.d.sync += [commands.p.cq.eq(Mux(is_response, now.send_cq, now.recv_cq)),
                         commands.p.data[:len(report.cqe.as_value())].eq(report.cqe),
                         self.count.rx_completions.eq(1)]

        def fail(why, status=WcStatus.SUCCESS):
            m.d.sync += [reason.eq(why), blame.eq(status)]
            m.next = "FAIL"

        with m.FSM() as fsm:
            with m.State("IDLE"):        # a segment
                m.d.comb += [checked.ready.eq(1), stream_read.en.eq(1)]
                m.d.sync += [
                    now.eq(checked.payload), packet.eq(checked.p.packet), claim.eq(checked.p.claimed),
                    skip.eq(checked.p.skip), event.eq(EventType.QP_ERROR), reason.eq(Reason.NONE),
                    blame.eq(WcStatus.SUCCESS),
                ]
                with m.If(checked.valid):
                    m.d.sync += [asked.eq(next_asked), next_asked.eq(0)]
                    m.next = "START"

            with m.State("START"):       # nothing: its stream's state has been read
                # A peer that has closed its side may still reset the connection.
                alive = Signal()
                m.d.comb += alive.eq(stream_read.data.alive | ((stream_read.data.reason == Reason.PEER_FIN)
                                                               & (now.reason == Reason.PEER_RESET)))
                takes = alive & (now.reason == Reason.NONE) & is_send & now.first
                with m.If(now.kind == RecordKind.TOKEN):
                    m.d.comb += stream_write.en.eq(
                        (now.token.op == TokenOp.INSTALL) | (now.token.op == TokenOp.KILL)
                        | (now.token.op == TokenOp.REMOVE))
                    m.d.comb += stream_write.data.alive.eq(now.token.op == TokenOp.INSTALL)
                    with m.If(now.token.op != TokenOp.KILL):
                        m.d.comb += stream_write.data.reason.eq(Reason.NONE)
                    with m.If(now.token.op == TokenOp.UPLOAD):
                        m.d.sync += self.upload.reason.eq(stream_read.data.reason)
                    m.next = "TOKEN"
                    with m.If((now.token.op == TokenOp.INSTALL) | (now.token.op == TokenOp.REMOVE)):
                        m.next = "CLEAR"
                with m.Elif(claim & ~takes):
                    m.next = "RETURN"
                with m.Elif(~alive):
                    m.d.sync += self.count.rx_after_error.eq(1)
                    m.next = "DISCARD"
                    with m.If(asked):
                        m.next = "DRAIN"
                with m.Elif(now.reason != Reason.NONE):
                    fail(now.reason)
                    with m.Switch(now.reason):
                        with m.Case(Reason.PEER_FIN, Reason.PEER_FIN_DIRTY):
                            m.d.sync += event.eq(EventType.FIN_RECEIVED)
                        with m.Case(Reason.PEER_RESET):
                            m.d.sync += event.eq(EventType.RST_RECEIVED)
                with m.Else():
                    with m.Switch(now.opcode):
                        with m.Case(RdmapOpcode.WRITE):
                            m.next = "GRANT"
                            with m.If(empty):
                                m.d.sync += self.count.rx_writes.eq(1)
                                m.next = "DISCARD"
                            with m.Elif(~asked):
                                ask_write(now)
                        with m.Case(RdmapOpcode.READ_REQUEST):
                            m.d.sync += [event.eq(EventType.READ_REQUEST), self.count.rx_read_requests.eq(1)]
                            m.next = "DISCARD"
                        with m.Case(RdmapOpcode.READ_RESPONSE):
                            m.next = "RESPONSE_CHECK"
                        with m.Case(RdmapOpcode.TERMINATE):
                            m.d.sync += [event.eq(EventType.TERMINATE_RECEIVED), self.count.rx_terminates.eq(1)]
                            fail(Reason.TERMINATED)
                        with m.Default():
                            m.next = "SEND"

            with m.State("RETURN"):      # the scatterer, to give the claim back
                m.d.comb += [self.scatter.valid.eq(1), self.scatter.p.op.eq(ScatterOp.RETURN)]
                with m.If(self.scatter.ready):
                    m.d.sync += claim.eq(0)
                    m.next = "START"
            with m.State("DRAIN"):       # the replies to a grant asked before the stream failed
                m.d.comb += granted.ready.eq(1)
                with m.If(granted.valid & granted.p.last):
                    m.next = "DISCARD"
            with m.State("DISCARD"):     # room for a command
                with m.If(room):
                    with m.If(packet):
                        emit(PlaceKind.DISCARD)
                        m.d.sync += packet.eq(0)
                    m.next = "IDLE"
                    with m.If(event == EventType.READ_REQUEST):
                        m.next = "EVENT"

            with m.State("GRANT"):       # a grant's bursts, and room for a command
                m.d.comb += granted.ready.eq(room)
                with m.If(granted.valid & room):
                    with m.If((granted.p.outcome == Outcome.GRANTED) & (is_send | is_response | now.remote_write)):
                        final = granted.p.last & (~is_send | self.step.p.final)
                        emit(PlaceKind.PAYLOAD)
                        m.d.sync += [
                            commands.p.address.eq(granted.p.address),
                            commands.p.length.eq(granted.p.length),
                            commands.p.skip.eq(skip),
                            commands.p.final.eq(final),
                            skip.eq(0),
                        ]
                        with m.If(final):
                            m.d.sync += packet.eq(0)
                        with m.If(granted.p.last):
                            with m.If(is_send):
                                m.d.comb += self.step.ready.eq(1)
                                m.next = "STEP"
                                with m.If(final):
                                    m.d.sync += self.count.rx_sends.eq(1)
                                    m.next = "SEND_END"
                            with m.Elif(is_response):
                                m.next = "RESPONSE_COMMIT"
                            with m.Else():
                                m.d.sync += self.count.rx_writes.eq(1)
                                m.next = "IDLE"
                    with m.Elif(is_send):
                        m.d.comb += [self.step.ready.eq(1), self.abort.eq(1)]
                        fail(Reason.LOCAL_SGE, WcStatus.LOC_PROT_ERR)
                    with m.Elif(is_response):
                        fail(Reason.RESPONSE_SINK)
                    with m.Else():
                        fail(refusal.write)

            with m.State("SEND"):        # the scatterer, to take the segment
                m.d.comb += [self.scatter.valid.eq(1), self.scatter.p.op.eq(ScatterOp.SEGMENT)]
                with m.If(self.scatter.ready):
                    m.d.sync += claim.eq(0)
                    m.next = "STEP"
            with m.State("STEP"):        # a piece (left there until it is granted), or the segment's end
                m.d.sync += [wqe_index.eq(self.step.p.wqe_index), octets.eq(self.step.p.octets)]
                with m.If(self.step.valid & self.step.p.end):
                    m.d.comb += self.step.ready.eq(1)
                    with m.Switch(self.step.p.reason):
                        with m.Case(Reason.NONE):
                            m.d.sync += self.count.rx_sends.eq(1)
                            m.next = "SEND_END"
                        with m.Case(Reason.TOO_LONG):
                            fail(Reason.TOO_LONG, WcStatus.LOC_LEN_ERR)
                        with m.Case(Reason.LOCAL_SGE):
                            fail(Reason.LOCAL_SGE, WcStatus.LOC_PROT_ERR)
                        with m.Default():        # no WQE, so none to blame
                            fail(self.step.p.reason)
                with m.Elif(self.step.valid):
                    ask(AccessOp.GRANT, self.step.p.lkey, self.step.p.address, self.step.p.length, Access.LOCAL_WRITE)
                    m.next = "GRANT"
            with m.State("SEND_END"):    # room for a command; an empty segment's packet is left
                with m.If(room):
                    with m.If(packet):
                        emit(PlaceKind.DISCARD)
                        m.d.sync += packet.eq(0)
                    with m.If(~now.last):
                        m.next = "IDLE"
                    with m.Elif(invalidates):
                        ask(AccessOp.INVALIDATE, now.stag, 0, 0, Access.REMOTE_INVALIDATE)
                        m.next = "INVALIDATE"
                    with m.Else():
                        m.next = "COMPLETE"
            with m.State("INVALIDATE"):  # protect: the STag is invalid before the completion can be seen
                m.d.comb += granted.ready.eq(1)
                with m.If(granted.valid):
                    m.next = "COMPLETE"
                    with m.If(granted.p.outcome != Outcome.GRANTED):
                        fail(refusal.invalidate, WcStatus.REM_INV_REQ_ERR)
            with m.State("COMPLETE"):    # room for a command
                with m.If(room):
                    complete()
                    m.next = "IDLE"
                    with m.If(is_send):
                        m.next = "RETIRE"
            with m.State("RETIRE"):      # the scatterer, to say that the WQE is done with
                m.d.comb += [self.scatter.valid.eq(1), self.scatter.p.op.eq(ScatterOp.RETIRE)]
                with m.If(self.scatter.ready):
                    m.next = "IDLE"
                    with m.If(reason != Reason.NONE):
                        m.next = "EVENT"

            with m.State("RESPONSE_CHECK"):      # the read queue, to take the question
                m.d.comb += [self.reads.valid.eq(1), self.reads.p.op.eq(ReadQueueOp.CHECK),
                             self.response.ready.eq(1)]
                m.d.sync += [wqe_index.eq(self.response.p.wr_id), octets.eq(self.response.p.octets)]
                with m.If(self.response.valid):
                    with m.If(self.response.p.reason != Reason.NONE):
                        fail(self.response.p.reason)
                    with m.Elif(empty):
                        m.next = "RESPONSE_COMMIT"
                    with m.Else():
                        ask(AccessOp.GRANT, now.stag, now.to, now.payload, Access.LOCAL_WRITE)
                        m.next = "GRANT"
            with m.State("RESPONSE_COMMIT"):     # the read queue, to count the segment
                m.d.comb += [self.reads.valid.eq(1), self.reads.p.op.eq(ReadQueueOp.COMMIT)]
                with m.If(self.reads.ready):
                    m.d.sync += self.count.rx_responses.eq(1)
                    m.next = "RESPONSE_END"
            with m.State("RESPONSE_END"):        # room for a command
                with m.If(room):
                    with m.If(packet):
                        emit(PlaceKind.DISCARD)
                        m.d.sync += packet.eq(0)
                    m.next = "IDLE"
                    with m.If(now.last):
                        m.next = "COMPLETE"

            with m.State("FAIL"):        # room for a command
                with m.If(room):
                    with m.If(packet):
                        emit(PlaceKind.DISCARD)
                        m.d.sync += packet.eq(0)
                    m.next = "EVENT"
                    with m.If(blame != WcStatus.SUCCESS):
                        m.next = "BLAME"
            with m.State("BLAME"):       # room for a command
                with m.If(room):
                    complete()
                    m.next = "RETIRE"
            with m.State("EVENT"):       # room for a command
                with m.If(room):
                    emit(PlaceKind.EVENT)
                    m.d.sync += commands.p.data.eq(report.event)
                    m.next = "IDLE"
                    with m.If(reason != Reason.NONE):
                        m.next = "DIE"
            with m.State("DIE"):         # room among the streams that have died
                m.d.comb += [self.died.valid.eq(1), stream_write.data.reason.eq(reason)]
                with m.If(self.died.ready):
                    m.d.comb += stream_write.en.eq(1)
                    with m.Switch(reason):
                        for why in Reason:
                            if why is not Reason.NONE:
                                with m.Case(why):
                                    m.d.sync += self.count["err_" + why.name.lower()].eq(1)
                    m.next = "IDLE"

            with m.State("CLEAR"):       # the read queue, to forget
                m.d.comb += [self.reads.valid.eq(1), self.reads.p.op.eq(ReadQueueOp.CLEAR)]
                with m.If(self.reads.ready):
                    m.next = "TOKEN"
            with m.State("TOKEN"):       # room for a command
                with m.If(room):
                    emit(PlaceKind.TOKEN)
                    m.d.sync += commands.p.token.eq(now.token)
                    m.next = "IDLE"

        # Ask for the next Write while this one's bursts come. Its stream may fail before: see DRAIN.
        with m.If(fsm.ongoing("GRANT") & now.asks & checked.valid & checked.p.asks & ~next_asked & ~access.valid):
            ask_write(checked.p)
            m.d.sync += next_asked.eq(1)
        scrub(m, stream_write, config.qps)
        return m
