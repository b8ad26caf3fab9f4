"""The bus: writes, reads and the host's accesses, as TLPs; the guard behind all of them."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import Token
from ..stream.arbiter import StreamArbiter
from ..stream.packet import PacketSignature, connect_streams
from ..stream.skid import SkidBuffer
from .cfg import Cfg
from .guard import Guard
from .mmio import Mmio
from .read import Reader
from .records import READ_CLIENTS, GuardRange, MmioRead, MmioWrite, ReadRequest, ReadWord, TlpWord, WriteCommand
from .short import ShortSender
from .tlp import ShortTlp, Type
from .unpack import Unpacker
from .write import COUNT_BITS, Writer, reached

__all__ = ["Dma"]


class Dma(wiring.Component):
    """Everything between the core and the PCI Express port.

    Received TLPs are always taken: completions have their room reserved, writes of the host go straight on, and 16
    reads of the host may wait for their answers. Writes of the card wait for the link alone; reads, and the answers
    to the host's reads, take turns with them TLP by TLP.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    timeout : :class:`int`
        Cycles until a read without completions has failed.

    Members
    -------
    commands, packets : ``In(stream.Signature(WriteCommand(config)))``, ``In(PacketSignature(8))``
        What to write, in order; packets in the order of the commands that use them.
    reads, read_data : ``In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS)``, ``Out(...).array(READ_CLIENTS)``
        Index: ReadClient.
    token : ``Out(stream.Signature(Token(config)))``
        A token command, once every write before it has left the guard.
    mmio_write : ``Out(stream.Signature(MmioWrite(config), always_ready=True))``
    mmio_read, mmio_data : ``Out(stream.Signature(MmioRead(config)))``, ``In(stream.Signature(64))``
    rx_tlp, tx_tlp : ``In(PacketSignature(tlp_bytes))``, ``Out(...)``
    cfg : ``In(Cfg)``
    guard_ranges : ``In(ArrayLayout(GuardRange, guard_ranges))``
    count : ``Out(abi.counter_layout("dma"))``
    """

    def __init__(self, config, *, timeout=1 << 20):
        self.config, self.timeout = config, timeout
        super().__init__({
            "commands":     In(stream.Signature(WriteCommand(config))),
            "packets":      In(PacketSignature(8)),
            "reads":        In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS),
            "read_data":    Out(stream.Signature(ReadWord())).array(READ_CLIENTS),
            "token":        Out(stream.Signature(Token(config))),
            "mmio_write":   Out(stream.Signature(MmioWrite(config), always_ready=True)),
            "mmio_read":    Out(stream.Signature(MmioRead(config))),
            "mmio_data":    In(stream.Signature(64)),
            "rx_tlp":       In(PacketSignature(config.tlp_bytes)),
            "tx_tlp":       Out(PacketSignature(config.tlp_bytes)),
            "cfg":          In(Cfg),
            "guard_ranges": In(data.ArrayLayout(GuardRange, config.guard_ranges)),
            "count":        Out(abi.counter_layout("dma")),
        })

    def elaborate(self, platform):
        m = Module()
        config, cfg = self.config, self.cfg

        m.submodules.writer = writer = Writer(config)
        m.submodules.reader = reader = Reader(config, self.timeout)
        m.submodules.mmio = mmio = Mmio(config)
        m.submodules.unpacker = unpacker = Unpacker(config.tlp_bytes)
        m.submodules.short = short = StreamArbiter(ShortTlp, 2)
        m.submodules.sender = sender = ShortSender(config.tlp_bytes)
        m.submodules.arbiter = arbiter = StreamArbiter(TlpWord(config.tlp_bytes), 2)
        m.submodules.skid = skid = SkidBuffer(TlpWord(config.tlp_bytes))
        m.submodules.guard = guard = Guard(config)

        # Out
        connect_streams(m, self.commands, writer.commands)
        connect_streams(m, self.packets, writer.packets)
        connect_streams(m, writer.token, self.token)
        connect_streams(m, mmio.completions, short.i[0])
        connect_streams(m, reader.o, short.i[1])
        connect_streams(m, short.o, sender.i)
        connect_streams(m, writer.o, arbiter.i[0])
        connect_streams(m, arbiter.o, skid.i)
        for source, sink in ((sender.o, arbiter.i[1]), (skid.o, guard.i)):      # without and with `msix` beside
            m.d.comb += [
                *(sink.p[name].eq(source.p[name]) for name in ("data", "empty", "last", "err")),
                sink.valid.eq(source.valid), source.ready.eq(sink.ready),
            ]
        connect_streams(m, guard.o, self.tx_tlp)
        connect_streams(m, guard.refused_reads, reader.refused)
        m.d.comb += [
            guard.ranges.eq(self.guard_ranges), guard.id.eq(cfg.id), guard.msix.eq(skid.o.p.msix),
            writer.posted.eq(guard.posted),
            writer.max_payload.eq(cfg.max_payload), writer.enable.eq(cfg.bus_master),
            *(getattr(reader, name).eq(getattr(writer, name)) for name in ("accepted", "taken", "begun", "gone")),
            reader.id.eq(cfg.id), reader.max_read.eq(cfg.max_read), reader.enable.eq(cfg.bus_master),
            mmio.id.eq(cfg.id),
        ]
        # A completion stays behind the write TLPs that were begun before its data was read.
        mark = Signal(COUNT_BITS)
        with m.If(mmio.answered):
            m.d.sync += mark.eq(writer.begun)
        m.d.comb += mmio.hold.eq(~reached(writer.gone, mark))

        # In
        connect_streams(m, self.rx_tlp, unpacker.i)
        completion = Signal()
        m.d.comb += [
            completion.eq(Cat(unpacker.head.type[:6], Const(0, 1), unpacker.head.type[7]) == Type.CPL),
            reader.head.eq(unpacker.head), mmio.head.eq(unpacker.head),
            reader.beats.payload.eq(unpacker.o.payload), mmio.beats.payload.eq(unpacker.o.payload),
            reader.beats.valid.eq(unpacker.o.valid & completion), mmio.beats.valid.eq(unpacker.o.valid & ~completion),
        ]
        with m.If(completion):
            m.d.comb += unpacker.o.ready.eq(reader.beats.ready)
        with m.Else():
            m.d.comb += unpacker.o.ready.eq(mmio.beats.ready)

        # The clients
        for n in range(READ_CLIENTS):
            connect_streams(m, self.reads[n], reader.reads[n])
            connect_streams(m, reader.read_data[n], self.read_data[n])
        m.d.comb += [
            self.mmio_write.payload.eq(mmio.write.payload), self.mmio_write.valid.eq(mmio.write.valid),
        ]
        connect_streams(m, mmio.read, self.mmio_read)
        connect_streams(m, self.mmio_data, mmio.data)

        m.d.comb += [
            self.count.tx_writes.eq(writer.posted),
            self.count.tx_reads.eq(reader.sent),
            self.count.rx_completions_bad.eq(reader.bad),
            self.count.read_errors.eq(reader.error),
            self.count.guard_writes.eq(guard.count.guard_writes),
            self.count.guard_reads.eq(guard.count.guard_reads),
            self.count.guard_other.eq(guard.count.guard_other),
            self.count.mmio_unsupported.eq(mmio.unsupported),
        ]

        return m
