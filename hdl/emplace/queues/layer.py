"""Queues in host memory: receive queues, completion queues, the event ring."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import InstallCommand, QpIndex, UploadPart
from ..dma.records import PlaceCommand, ReadRequest, ReadWord, WriteCommand
from ..stream.packet import connect_streams
from .completions import Completions
from .doorbells import DoorbellTable
from .msix import Msix
from .notify import Notifier
from .ports import TIME_BITS, CqResult, CqUpdate, Died, DoorbellKind, EventRing, MsixLook, MsixWrite, Ring
from .receive import ReceiveQueues
from .records import GateReply, GateRequest, Sge, SgeRequest, TakeReply, TakeRequest
from .store import WqeStore

__all__ = ["Queues"]

_SOLICITED = abi.ARM_SOLICITED.bit_length() - 1


class Queues(wiring.Component):
    """See :mod:`.receive`, :mod:`.store`, :mod:`.completions` and :mod:`.doorbells` for throughput and latency.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    gate_request, gate_reply, resume
        mpa asks whether a Send's first segment may go on.
    take, taken, sge, sge_data
        rdmap uses receive WQEs.
    reads, read_data
        Receive WQEs from the bus.
    commands, writes
        The way of every write; ``inline`` merges control's.
    cq_update, cq_result
        Control makes and unmakes CQs.
    doorbell : ``In(stream.Signature(Ring, always_ready=True))``
        One a cycle.
    event_ring : ``In(EventRing)``
    died : ``Out(stream.Signature(Died(config)))``
        A completion was lost.
    msix_write, msix_look, msix_word, msix_pending
        The host's accesses to the MSI-X table; see :class:`~emplace.queues.msix.Msix`.
    msix_enable, msix_mask : ``In(1)``
    event_vector : ``In(8)``, frame_vector : ``In({rx: 8, tx: 8})``
    frame_done : ``In({rx: 1, tx: 1})``
        Strobes: a frame's completion, the transmit head, has joined the writes that ``writes`` joins.
    cmd, upload, count
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "gate_request": In(stream.Signature(GateRequest(config))),
            "gate_reply":   Out(stream.Signature(GateReply())),
            "resume":       Out(stream.Signature(QpIndex(config))),
            "take":         In(stream.Signature(TakeRequest(config))),
            "taken":        Out(stream.Signature(TakeReply(config))),
            "sge":          In(stream.Signature(SgeRequest(config))),
            "sge_data":     Out(stream.Signature(Sge)),
            "reads":        Out(stream.Signature(ReadRequest(config))),
            "read_data":    In(stream.Signature(ReadWord())),
            "commands":     In(stream.Signature(PlaceCommand(config))),
            "writes":       Out(stream.Signature(WriteCommand(config))),
            "inline":       In(stream.Signature(WriteCommand(config))),
            "cq_update":    In(stream.Signature(CqUpdate(config))),
            "cq_result":    Out(stream.Signature(CqResult)),
            "doorbell":     In(stream.Signature(Ring, always_ready=True)),
            "event_ring":   In(EventRing),
            "died":         Out(stream.Signature(Died(config))),
            "msix_write":   In(MsixWrite(config)),
            "msix_look":    In(MsixLook(config)),
            "msix_word":    Out(64),
            "msix_pending": Out(config.vectors),
            "msix_enable":  In(1),
            "msix_mask":    In(1),
            "event_vector": In(8),
            "frame_vector": In(data.StructLayout({"rx": 8, "tx": 8})),
            "frame_done":   In(data.StructLayout({"rx": 1, "tx": 1})),
            "cmd":          In(InstallCommand),
            "upload":       Out(UploadPart),
            "count":        Out(abi.counter_layout("queues")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.receive = receive = ReceiveQueues(config)
        m.submodules.store = store = WqeStore(config)
        m.submodules.completions = completions = Completions(config)
        m.submodules.rq_doorbells = rq = DoorbellTable(config.qps)
        m.submodules.cq_doorbells = cq = DoorbellTable(config.cqs)

        for mine, theirs in ((receive.gate_request, self.gate_request), (receive.take, self.take),
                             (store.sge, self.sge), (store.read_data, self.read_data),
                             (completions.commands, self.commands), (completions.inline, self.inline),
                             (completions.cq_update, self.cq_update), (receive.arrived, store.arrived),
                             (receive.token, completions.token), (completions.answer, receive.answer),
                             (self.gate_reply, receive.gate_reply), (self.resume, receive.resume),
                             (self.taken, receive.taken), (self.sge_data, store.sge_data),
                             (self.reads, receive.reads), (self.writes, completions.writes),
                             (self.cq_result, completions.cq_result), (self.died, completions.died)):
            connect_streams(m, theirs, mine)
        m.d.comb += [
            receive.cmd.eq(self.cmd), self.upload.eq(completions.upload),
            store.fly.eq(receive.fly), receive.full.eq(store.full),
            store.cancel.eq(receive.cancel), receive.cancelled.eq(store.cancelled),
            store.sum_at.eq(receive.sum_at), receive.sum.eq(store.sum),
            completions.event_ring.eq(self.event_ring),
        ]

        # Interrupts
        m.submodules.notifier = notifier = Notifier(config)
        m.submodules.msix = msix = Msix(config, 3)
        time = Signal(8 + TIME_BITS)
        m.d.sync += time.eq(time + 1)
        connect_streams(m, msix.messages, completions.messages)
        m.d.comb += [
            notifier.completed.eq(completions.completed), notifier.change.eq(completions.changed),
            notifier.now.eq(time[8:]), msix.now.eq(time[8:]), msix.raised.eq(notifier.notify),
            msix.write.eq(self.msix_write), msix.look.eq(self.msix_look), self.msix_word.eq(msix.word),
            self.msix_pending.eq(msix.pending), msix.enable.eq(self.msix_enable), msix.mask.eq(self.msix_mask),
        ]
        for request, strobe, vector in zip(msix.requests, (completions.evented, self.frame_done.rx, self.frame_done.tx),
                                           (self.event_vector, self.frame_vector.rx, self.frame_vector.tx)):
            m.d.comb += [request.en.eq(strobe), request.vector.eq(vector)]
        # Arming goes with the CQ's doorbells, which take 3 cycles.
        solicited = Signal(3)
        m.d.sync += solicited.eq(Cat(self.doorbell.p.value[_SOLICITED], solicited))
        m.d.comb += [
            notifier.arm.en.eq(cq.accepted & ~cq.moved), notifier.arm.cq.eq(cq.index), notifier.arm.index.eq(cq.value),
            notifier.arm.solicited.eq(solicited[2]),
        ]

        # Doorbells: kinds SQ and RQ name a QP, CQ and CQ_ARM a CQ. SQ is checked, and moves nothing yet.
        kind = Signal(DoorbellKind)
        m.d.comb += kind.eq(self.doorbell.p.kind)
        for table, owner, (still, moving) in ((rq, receive, (DoorbellKind.SQ, DoorbellKind.RQ)),
                                              (cq, completions, (DoorbellKind.CQ_ARM, DoorbellKind.CQ))):
            m.d.comb += [
                table.ring.valid.eq(self.doorbell.valid & ((kind == still) | (kind == moving))),
                table.ring.p.number.eq(self.doorbell.p.number),
                table.ring.p.context.eq(self.doorbell.p.context),
                table.ring.p.value.eq(self.doorbell.p.value[:16]),
                table.ring.p.move.eq(kind == moving),
                table.owner.eq(owner.owner), table.limit.eq(owner.limit),
                table.look.eq(owner.look), owner.latest.eq(table.latest),
            ]
        m.d.comb += [
            receive.rung.en.eq(rq.accepted), receive.rung.index.eq(rq.index),
            self.count.doorbell_refused.eq(rq.refused | cq.refused),
            self.count.cq_overflow.eq(completions.cq_overflow),
            self.count.event_overflow.eq(completions.event_overflow),
        ]
        return m
