"""Registers, the admin queue, QP states, tokens, counters."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import abi
from ..dma.records import GuardRange, MmioRead, MmioWrite, ReadRequest, ReadWord, WriteCommand
from ..frames.records import FrameRing, FrameSettings, Reached
from ..ip.records import HoldRequest, LookupUpdate
from ..protect.records import PageWrite, TableResult, TableUpdate
from ..queues.ports import CqResult, CqUpdate, EventRing, MsixLook, MsixWrite, Ring
from ..rdmap.deaths import Deaths
from ..rdmap.records import Died, ExpectRead, ExpectResult
from ..stats.counters import Counters
from ..stream.packet import connect_streams
from .admin_ring import AdminRing
from .check import CommandCheck
from .hold import Holder
from .records import HistoryNote, InstallCommand, Token, UploadPart
from .registers import Registers
from .sequencer import Sequencer
from .station import MacSettings

__all__ = ["Control", "OFTEN"]

#: Counters that may have more than 3 strobes in 8 cycles: what comes with TLPs and doorbells, or with frames of any size.
OFTEN = {
    ("mac", "rx_fcs_errors"), ("mac", "rx_undersize"), ("mac", "rx_fragments"), ("mac", "rx_overflow"),
    ("mac", "rx_octets_8"), ("mac", "rx_octets_1"), ("mac", "tx_octets_8"), ("mac", "tx_octets_1"),
    ("dma", "tx_writes"), ("dma", "rx_completions_bad"), ("dma", "read_errors"),
    ("dma", "guard_writes"), ("dma", "guard_reads"), ("dma", "guard_other"),
    ("dma", "mmio_unsupported"), ("queues", "doorbell_refused"),
}


class Control(wiring.Component):
    """See :mod:`.registers`, :mod:`.admin_ring`, :mod:`.sequencer`, :mod:`.hold` and :mod:`.deaths`.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    mmio_write, mmio_read, mmio_data
        The host's accesses to BAR0.
    doorbell : ``Out(stream.Signature(Ring))``
        To queues, which is always ready.
    reads, read_data
        Admin commands from the bus.
    inline : ``Out(stream.Signature(WriteCommand(config)))``
        Admin completions and uploads.
    token, token_done
        Into ip, out of dma.
    lookup_update, lookup_result; table, table_result; pages; cq_update, cq_result; expect, expect_result
        Orders to ip, protect, queues and rdmap, and abi.Status of each.
    died : ``In(stream.Signature(Died(config))).array(3)``
        Streams that rdmap (0), queues (1) and the sending side (2) have ended. Always taken.
    alive : ``Out(qps)``
        Bit n: QP slot n is in RTS, CLOSING or held.
    msix_write, msix_look, msix_word, msix_pending
        To queues' MSI-X table.
    cmd : ``Out(InstallCommand)``
        The command under way.
    now, lease : ``Out(32)``, delack : ``Out(11)``
        Ticks.
    hold, released, reached
        Holds: orders to ip, and what ip and frames say.
    guard_ranges, event_ring, frame_ring, frame_tx_ring, frame_tx_head, frame_settings, frame_vector, station, mac, event_vector
        As the registers say.
    upload : ``In(UploadPart)``
        All owners' parts, ORed; theirs stand until the next UPLOAD token.
    note : ``Out(stream.Signature(HistoryNote(config)))``, history_hold, history_qp, history_at, history
        To and from :class:`~emplace.stats.history.History`.
    sample_word, sample : ``Out(9)``, ``In(64)``
        To and from :class:`~emplace.stats.samples.Samples`.
    counts : ``In(len(abi.COUNTERS))``
        Strobes of all layers, in that order. count : ``Out``: this layer's.
    """

    def __init__(self, config):
        self.config = config
        result = data.StructLayout({"status": 8})
        super().__init__({
            "mmio_write":    In(stream.Signature(MmioWrite(config), always_ready=True)),
            "mmio_read":     In(stream.Signature(MmioRead(config))),
            "mmio_data":     Out(stream.Signature(unsigned(64))),
            "doorbell":      Out(stream.Signature(Ring)),
            "reads":         Out(stream.Signature(ReadRequest(config))),
            "read_data":     In(stream.Signature(ReadWord())),
            "inline":        Out(stream.Signature(WriteCommand(config))),
            "token":         Out(stream.Signature(Token(config))),
            "token_done":    In(stream.Signature(Token(config))),
            "lookup_update": Out(stream.Signature(LookupUpdate(config))),
            "lookup_result": In(stream.Signature(result)),
            "table":         Out(stream.Signature(TableUpdate())),
            "table_result":  In(stream.Signature(TableResult)),
            "pages":         Out(stream.Signature(PageWrite(config))),
            "cq_update":     Out(stream.Signature(CqUpdate(config))),
            "cq_result":     In(stream.Signature(CqResult)),
            "expect":        Out(stream.Signature(ExpectRead(config))),
            "expect_result": In(stream.Signature(ExpectResult)),
            "died":          In(stream.Signature(Died(config))).array(3),
            "alive":         Out(config.qps),
            "cmd":           Out(InstallCommand),
            "now":           Out(32),
            "lease":         Out(32),
            "delack":        Out(11),
            "guard_ranges":  Out(data.ArrayLayout(GuardRange, config.guard_ranges)),
            "event_ring":    Out(EventRing),
            "frame_ring":    Out(FrameRing),
            "frame_tx_ring": Out(FrameRing),
            "frame_tx_head": Out(61),
            "frame_settings": Out(FrameSettings),
            "frame_vector":  Out(data.StructLayout({"rx": 8, "tx": 8})),
            "hold":          Out(stream.Signature(HoldRequest(config))),
            "released":      In(1),
            "reached":       In(stream.Signature(Reached)),
            "msix_write":    Out(MsixWrite(config)),
            "msix_look":     Out(MsixLook(config)),
            "msix_word":     In(64),
            "msix_pending":  In(config.vectors),
            "station":       Out(48),
            "mac":           Out(MacSettings),
            "event_vector":  Out(8),
            "upload":        In(UploadPart),
            "note":          Out(stream.Signature(HistoryNote(config))),
            "history_hold":  Out(1),
            "history_qp":    Out(config.qp_bits),
            "history_at":    Out(range(abi.HISTORY_DEPTH)),
            "history":       In(abi.History.elem_shape),
            "sample_word":   Out(9),
            "sample":        In(64),
            "counts":        In(len(abi.COUNTERS)),
            "count":         Out(abi.counter_layout("control")),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = Registers(self.config)
        m.submodules.ring = ring = AdminRing(self.config)
        m.submodules.check = check = CommandCheck(self.config)
        m.submodules.deaths = deaths = Deaths(self.config, len(self.died))
        m.submodules.sequencer = sequencer = Sequencer(self.config)
        m.submodules.holder = holder = Holder(self.config)
        m.submodules.counters = counters = Counters(
            len(abi.COUNTERS), {n for n, c in enumerate(abi.COUNTERS) if (c.layer, c.name) in OFTEN})

        connect(m, flipped(self.mmio_write), registers.mmio_write)
        for source, sink in ((self.mmio_read, registers.mmio_read), (registers.mmio_data, self.mmio_data),
                             (registers.doorbell, self.doorbell),
                             (ring.reads, self.reads), (self.read_data, ring.read_data),
                             (deaths.o, sequencer.deaths), (sequencer.holds, holder.i), (holder.o, sequencer.held),
                             (holder.hold, self.hold), (self.reached, holder.reached),
                             *zip(self.died, deaths.died)):
            connect_streams(m, source, sink)
        for name in ("inline", "token", "lookup_update", "table", "pages", "cq_update", "expect", "note"):
            connect_streams(m, getattr(sequencer, name), getattr(self, name))
        for name in ("token_done", "lookup_result", "table_result", "cq_result", "expect_result"):
            connect_streams(m, getattr(self, name), getattr(sequencer, name))
        m.d.comb += [
            ring.config_ring.eq(registers.admin_ring), ring.awake.eq(registers.awake),
            ring.rotate.eq(sequencer.rotate), ring.finish.eq(sequencer.finish),
            check.command.eq(ring.command),
            sequencer.valid.eq(ring.valid), sequencer.failed.eq(ring.failed), sequencer.command.eq(ring.command),
            sequencer.completion_address.eq(ring.completion_address),
            sequencer.completion_phase.eq(ring.completion_phase),
            sequencer.check.eq(check.status), sequencer.deaths_empty.eq(deaths.empty),
            sequencer.upload.eq(self.upload),
            self.history_hold.eq(sequencer.history_hold), self.history_qp.eq(sequencer.history_qp),
            self.history_at.eq(sequencer.history_at),
            sequencer.history.eq(self.history),
            self.sample_word.eq(registers.sample_word), registers.sample.eq(self.sample),
            self.alive.eq(sequencer.alive), self.cmd.eq(ring.command),
            self.now.eq(registers.now), self.lease.eq(registers.lease), self.delack.eq(registers.delack),
            self.guard_ranges.eq(registers.guard_ranges), self.event_ring.eq(registers.event_ring),
            self.msix_write.eq(registers.msix_write), self.msix_look.eq(registers.msix_look),
            registers.msix_word.eq(self.msix_word), registers.msix_pending.eq(self.msix_pending),
            self.station.eq(registers.station), self.mac.eq(registers.mac), self.event_vector.eq(registers.event_vector),
            self.frame_tx_ring.eq(registers.frame_tx_ring), self.frame_tx_head.eq(registers.frame_tx_head),
            self.frame_ring.eq(registers.frame_ring), self.frame_settings.eq(registers.frame_settings),
            self.frame_vector.eq(registers.frame_vector),
            holder.released.eq(self.released),
            counters.strobes.eq(self.counts), counters.pair.eq(registers.pair), registers.counters.eq(counters.data),
            self.count.commands.eq(sequencer.commands), self.count.commands_refused.eq(sequencer.commands_refused),
        ]
        return m
