"""RDMAP: turns DDP segments into placement, completions and events."""

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import abi
from ..control.records import InstallCommand, QpIndex, Token, UploadPart
from ..ddp.records import DdpSegment
from ..dma.records import PlaceCommand, ReadRequest, ReadWord
from ..llp import Released, SendAnswer, SendAsk, UlpduPlan
from ..protect.records import AccessReply, AccessRequest
from ..queues.records import (
    LineWord,
    SendQueueOrder,
    SendWqeAnswer,
    SendWqeAsk,
    Sge,
    SgeRequest,
    TakeReply,
    TakeRequest,
)
from ..stream.packet import PacketSignature, connect_streams
from ..stream.queue import Queue
from .check import HeaderCheck
from .deaths import Deaths
from .execute import Execute
from .gather import Gather
from .reads import ReadQueue
from .records import Died, ExpectRead, ExpectResult
from .scatter import Scatter
from .send import Messages

__all__ = ["Rdmap"]


class Rdmap(wiring.Component):
    """RDMAP's part of the receive path (RFC 5040): header checks, authorisation, and their outcome.

    Each packet of the payload stream (:mod:`emplace.llp`) is used up by the commands of its own
    segment: PAYLOADs, the first with the headers as ``skip`` and the last ``final``, or one DISCARD.
    The first error of a stream gives an event, a word on ``died`` and a counter; all behind it is
    thrown away and counted.

    Throughput, with g cycles from an access request to its reply: a Write in one burst every
    max(3, g / 2 + 2) cycles, a Send of one segment about 14 + g.
    Latency: from a Write's segment to its first command 6 + g.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    segments : ``In(stream.Signature(DdpSegment(config)))``
    access : ``Out(stream.Signature(AccessRequest(config)))``
        At most two wait for their replies.
    granted : ``In(stream.Signature(AccessReply()))``
        In the order of the requests.
    take : ``Out(stream.Signature(TakeRequest(config)))``
        ``retire`` for each receive WQE whose CQE has been issued, whatever its status.
    taken : ``In(stream.Signature(TakeReply(config)))``
        To requests with ``take``.
    sge : ``Out(stream.Signature(SgeRequest(config)))``
    sge_data : ``In(stream.Signature(Sge))``
    commands : ``Out(stream.Signature(PlaceCommand(config)))``
    died : ``Out(stream.Signature(Died(config)))``
        Never holds the receive path up: at most one a QP is inside.
    expect : ``In(stream.Signature(ExpectRead(config)))``
    expect_result : ``Out(stream.Signature(ExpectResult))``
    ask, answer, released, plans, payload
        The LLP's sending side: see :mod:`emplace.llp`.
    opened : ``In({en, qp})``, ready : ``Out(stream.Signature(QpIndex(config)))``
        The peer's first ULPDU has come; it may be worth asking.
    send_wqe, send_wqe_answer, send_at, send_data, send_unpin, send_order, send_retired
        Send WQEs, of queues.
    send_access, send_granted, send_reads, send_read_data
        Protect and bus, for what is sent.
    send_commands : ``Out(stream.Signature(PlaceCommand(config)))``
        Completions and events of what is sent.
    send_failed : ``In(stream.Signature(Died(config)))``, send_died : ``Out(stream.Signature(Died(config)))``
        Streams that the LLP's sending side gives up; all that the sending side ends.
    send_token, send_token_out : ``In``, ``Out(stream.Signature(Token(config)))``
    cmd : ``In(InstallCommand)``
    upload : ``Out(UploadPart)``
        ``reason``.
    count : ``Out(abi.counter_layout("rdmap"))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "segments":      In(stream.Signature(DdpSegment(config))),
            "access":        Out(stream.Signature(AccessRequest(config))),
            "granted":       In(stream.Signature(AccessReply())),
            "take":          Out(stream.Signature(TakeRequest(config))),
            "taken":         In(stream.Signature(TakeReply(config))),
            "sge":           Out(stream.Signature(SgeRequest(config))),
            "sge_data":      In(stream.Signature(Sge)),
            "commands":      Out(stream.Signature(PlaceCommand(config))),
            "died":          Out(stream.Signature(Died(config))),
            "expect":        In(stream.Signature(ExpectRead(config))),
            "expect_result": Out(stream.Signature(ExpectResult)),
            "ask":           In(stream.Signature(SendAsk(config))),
            "answer":        Out(stream.Signature(SendAnswer())),
            "released":      In(stream.Signature(Released(config))),
            "plans":         Out(stream.Signature(UlpduPlan(config))),
            "payload":       Out(PacketSignature(8)),
            "opened":        In(data.StructLayout({"en": 1, "qp": config.qp_bits})),
            "ready":         Out(stream.Signature(QpIndex(config))),
            "send_wqe":      Out(stream.Signature(SendWqeAsk(config))),
            "send_wqe_answer": In(stream.Signature(SendWqeAnswer(config))),
            "send_at":       Out(LineWord(config)).array(2),
            "send_data":     In(64).array(2),
            "send_unpin":    Out(data.StructLayout({"en": 1, "line": config.send_line_bits})).array(2),
            "send_order":    Out(stream.Signature(SendQueueOrder(config))),
            "send_retired":  Out(data.StructLayout({"en": 1, "index": config.qp_bits, "value": 16})),
            "send_access":   Out(stream.Signature(AccessRequest(config))),
            "send_granted":  In(stream.Signature(AccessReply())),
            "send_reads":    Out(stream.Signature(ReadRequest(config))),
            "send_read_data": In(stream.Signature(ReadWord())),
            "send_commands": Out(stream.Signature(PlaceCommand(config))),
            "send_failed":   In(stream.Signature(Died(config))),
            "send_died":     Out(stream.Signature(Died(config))),
            "send_token":    In(stream.Signature(Token(config))),
            "send_token_out": Out(stream.Signature(Token(config))),
            "cmd":           In(InstallCommand),
            "upload":        Out(UploadPart),
            "count":         Out(abi.counter_layout("rdmap")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.check = check = HeaderCheck(config)
        m.submodules.execute = execute = Execute(config)
        m.submodules.scatter = scatter = Scatter(config)
        m.submodules.reads = reads = ReadQueue(config)
        m.submodules.dead = dead = Queue(Died(config), config.qps)

        connect(m, flipped(self.segments), check.segments)
        connect_streams(m, check.checked, execute.checked)
        connect(m, execute.access, flipped(self.access))
        connect(m, flipped(self.granted), execute.granted)
        connect(m, execute.commands, flipped(self.commands))
        connect_streams(m, execute.scatter, scatter.request)
        connect_streams(m, scatter.step, execute.step)
        connect(m, scatter.take, flipped(self.take))
        connect(m, flipped(self.taken), scatter.taken)
        connect(m, scatter.sge, flipped(self.sge))
        connect(m, flipped(self.sge_data), scatter.sge_data)
        connect_streams(m, execute.reads, reads.request)
        connect_streams(m, reads.reply, execute.response)
        connect(m, flipped(self.expect), reads.expect)
        connect(m, reads.expect_result, flipped(self.expect_result))
        connect_streams(m, execute.died, dead.i)
        connect(m, dead.o, flipped(self.died))
        m.d.comb += [
            check.cmd.eq(self.cmd),
            scatter.abort.eq(execute.abort),
            self.upload.eq(execute.upload),
            self.count.eq(execute.count),
        ]

        # What is sent
        m.submodules.messages = messages = Messages(config)
        m.submodules.gather = gather = Gather(config)
        m.submodules.failures = failures = Deaths(config, 2)
        for source, sink in ((self.ask, messages.ask), (messages.answer, self.answer), (self.released, messages.released),
                             (messages.plans, self.plans), (messages.jobs, gather.jobs), (gather.payload, self.payload),
                             (messages.ready, self.ready), (messages.wqe, self.send_wqe),
                             (self.send_wqe_answer, messages.wqe_answer), (messages.order, self.send_order),
                             (gather.access, self.send_access), (self.send_granted, gather.granted),
                             (gather.reads, self.send_reads), (self.send_read_data, gather.read_data),
                             (messages.commands, self.send_commands), (gather.died, failures.died[0]),
                             (self.send_failed, failures.died[1]), (failures.o, messages.failed),
                             (messages.died, self.send_died),
                             (self.send_token, messages.token), (messages.token_out, self.send_token_out)):
            connect_streams(m, source, sink)
        for n, unit in enumerate((messages, gather)):
            m.d.comb += [self.send_at[n].eq(unit.at), unit.data.eq(self.send_data[n]), self.send_unpin[n].eq(unit.unpin)]
        m.d.comb += [messages.opened.eq(self.opened), self.send_retired.eq(messages.retired), messages.cmd.eq(self.cmd)]
        return m
