"""RDMAP: turns DDP segments into placement, completions and events."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import abi
from ..control.records import InstallCommand, UploadPart
from ..ddp.records import DdpSegment
from ..dma.records import PlaceCommand
from ..protect.records import AccessReply, AccessRequest
from ..queues.records import Sge, SgeRequest, TakeReply, TakeRequest
from ..stream.packet import connect_streams
from ..stream.queue import Queue
from .check import HeaderCheck
from .execute import Execute
from .reads import ReadQueue
from .records import Died, ExpectRead, ExpectResult
from .scatter import Scatter

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
        return m
