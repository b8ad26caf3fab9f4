"""TCP, receive side: the layer's units, wired."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import abi
from ..control.records import HistoryNote, InstallCommand, QpIndex, UploadPart
from ..ip.records import SegmentRecord, SlotWrite
from ..stream.packet import PacketSignature, connect_streams
from .acks import Acks
from .blocks import SackBlocks
from .held import HeldLists
from .jobs import Jobs
from .pressure import Pressure
from .receive import Receive
from .records import SlotIndex, SlotRead, WalkRequest, WalkResult
from .slots import SlotMemory

__all__ = ["Tcp"]


class Tcp(wiring.Component):
    """Receive side of established TCP connections, and the slots in which segments lie.

    See :mod:`.receive` and :mod:`.verdict` for the rules, :mod:`.held` for out-of-order segments, :mod:`.pressure` for
    what happens when slots run short, :mod:`.acks` for what is sent.

    Throughput: a walk's request stands 5 cycles after the last result was taken; an ACK every 9 cycles.
    Latency from segment to walk: 6 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    segments : ``In(stream.Signature(SegmentRecord(config)))``
        Checksums have held; the payload lies in ``slot`` from byte 0 on.
    walk : ``Out(stream.Signature(WalkRequest(config)))``
        In-order octets. One at a time; a token once it has been acted upon.
    walked : ``In(stream.Signature(WalkResult()))``
        Answer to each.
    resume : ``In(stream.Signature(QpIndex(config)))``
        This QP is no longer parked.
    slot_write : ``In(stream.Signature(SlotWrite(config), always_ready=True))``
    slot_append : ``In(stream.Signature(SlotWrite(config)))``
    slot_read : ``In(SlotRead(config))``
    alloc : ``Out(stream.Signature(SlotIndex(config)))``
    slot_free : ``In(stream.Signature(SlotIndex(config), always_ready=True))``
    free_count : ``Out(range(slots + 1))``
        As in :class:`~.slots.SlotMemory`: the slot on offer is counted.
    alive : ``In(qps)``
        A bit for each QP that is in RTS or CLOSING.
    now : ``In(32)``
        Ticks.
    delack : ``In(11)``
        How long an ACK may be late, in ticks; 0: none is.
    cmd : ``In(InstallCommand)``
        Read while an INSTALL token is here.
    upload : ``Out(UploadPart)``
        SND.UNA, SND.NXT, SND.WND, RCV.NXT, RCV.WND, TS.Recent of the last UPLOAD token's QP.
    frames : ``Out(PacketSignature(8))``
        Pure ACKs, from the destination MAC address to the last option, unpadded.
    note, note_record : ``Out(1)``, ``Out(HistoryNote(config))``
        Strobe: something for a connection's history.
    count : ``Out(abi.counter_layout("tcp"))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "segments":    In(stream.Signature(SegmentRecord(config))),
            "walk":        Out(stream.Signature(WalkRequest(config))),
            "walked":      In(stream.Signature(WalkResult())),
            "resume":      In(stream.Signature(QpIndex(config))),
            "slot_write":  In(stream.Signature(SlotWrite(config), always_ready=True)),
            "slot_append": In(stream.Signature(SlotWrite(config))),
            "slot_read":   In(SlotRead(config)),
            "alloc":       Out(stream.Signature(SlotIndex(config))),
            "slot_free":   In(stream.Signature(SlotIndex(config), always_ready=True)),
            "free_count":  Out(range(config.slots + 1)),
            "alive":       In(config.qps),
            "now":         In(32),
            "delack":      In(11),
            "cmd":         In(InstallCommand),
            "upload":      Out(UploadPart),
            "frames":      Out(PacketSignature(8)),
            "note":        Out(1),
            "note_record": Out(HistoryNote(config)),
            "count":       Out(abi.counter_layout("tcp")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.slots = slots = SlotMemory(config)
        m.submodules.jobs = jobs = Jobs(config)
        m.submodules.receive = receive = Receive(config)
        m.submodules.held = held = HeldLists(config)
        m.submodules.blocks = blocks = SackBlocks(config)
        m.submodules.pressure = pressure = Pressure(config)
        m.submodules.acks = acks = Acks(config)

        connect(m, flipped(self.slot_read), slots.slot_read)
        for source, sink in ((self.segments, jobs.segments), (self.resume, jobs.resume),
                             (pressure.victim, jobs.victim), (jobs.job, receive.job),
                             (receive.walk, self.walk), (self.walked, receive.walked),
                             (receive.ask, held.request), (held.reply, receive.reply),
                             (receive.blocks, blocks.request), (blocks.reply, receive.blocks_reply),
                             (receive.order, acks.order), (acks.frames, self.frames), (slots.alloc, self.alloc),
                             (self.slot_append, slots.slot_append)):
            connect_streams(m, source, sink)

        # Slots come back from mpa, and from here: the list unit works only while the receive unit waits for it.
        for source, sink in ((self.slot_write, slots.slot_write), (self.slot_free, slots.frees[0])):
            m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid)]
        with m.If(held.release.valid):
            m.d.comb += slots.frees[1].payload.eq(held.release.payload)
        with m.Else():
            m.d.comb += slots.frees[1].payload.eq(receive.release.payload)

        m.d.comb += [
            slots.frees[1].valid.eq(held.release.valid | receive.release.valid),
            self.free_count.eq(slots.free_count), pressure.free_count.eq(slots.free_count),
            pressure.held.eq(held.held), pressure.held_slot.eq(held.held_slot), pressure.held_qp.eq(held.held_qp),
            pressure.unheld.eq(held.unheld), pressure.unheld_slot.eq(held.unheld_slot),
            pressure.done.eq(receive.evicted), pressure.freed.eq(receive.freed),
            receive.force.eq(pressure.force), receive.short.eq(pressure.short), receive.roomy.eq(pressure.roomy),
            jobs.alive.eq(self.alive),
            jobs.store.eq(receive.store), jobs.store_qp.eq(receive.ack.qp), jobs.store_context.eq(receive.context),
            acks.update.eq(receive.store), acks.state.eq(receive.ack),
            acks.look.eq(jobs.job.p.qp), receive.last_ack.eq(acks.last_ack),
            acks.cmd.eq(self.cmd), acks.now.eq(self.now), acks.delay.eq(self.delack),
            blocks.look_qp.eq(acks.block_qp), blocks.look_at.eq(acks.block_at), acks.block_there.eq(blocks.looked),
            acks.block.eq(blocks.block), self.note.eq(receive.note), self.note_record.eq(receive.note_record),
            receive.cmd.eq(self.cmd), receive.now.eq(self.now), self.upload.eq(receive.upload),
        ]
        m.d.sync += self.count.eq(receive.count)
        with m.If(held.stale):
            m.d.sync += self.count.rx_duplicate.eq(1)
        m.d.sync += [
            receive.delayed.eq(self.delack != 0),
            self.count.tx_acks.eq(acks.sent), self.count.tx_delayed.eq(acks.overdue),
            self.count.tx_sacks.eq(acks.sacks), self.count.tx_dsacks.eq(acks.dsacks),
        ]
        return m
