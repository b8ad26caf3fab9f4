"""The plain frame path, wired."""

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import PlainWrite, ReadRequest, ReadWord
from ..ip.records import Disposition
from ..stream.packet import PacketSignature, PacketWord, connect_streams
from .deliver import Deliver
from .descriptors import Descriptors
from .inject import Inject
from .intake import Intake
from .reader import PieceReader
from .records import FrameRing, FrameSettings, Reached
from .transmit import FrameTransmit

__all__ = ["Frames"]


class Frames(wiring.Component):
    """Frames for the host: from ip's input into frame memory, and on into the host's buffers. And those of the host: to
    the wire, or into the receive path in between those of the wire.

    See :mod:`.intake`, :mod:`.descriptors` and :mod:`.deliver`; :mod:`.transmit` and :mod:`.inject`. Nothing here makes
    the wire or ip wait.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    i : ``In(stream.Signature(PacketWord(8), always_ready=True))``
        What the MAC has received.
    o : ``Out(PacketSignature(8))``, injected : ``Out(1)``
        What ip gets: those frames, and the host's. Its ``ready`` is not looked at.
    dispositions : ``In(stream.Signature(Disposition(config)))``
    settings : ``In(FrameSettings)``, ring : ``In(FrameRing)``
        As the registers say.
    tx_ring : ``In(FrameRing)``, tx_head : ``In(61)``
        The transmit ring; where its head is written, in units of 8 bytes.
    reads, read_data : ``Out(stream.Signature(ReadRequest(config)))``, ``In(stream.Signature(ReadWord()))``
        Descriptors.
    tx_reads, tx_read_data, tx_writes, tx_packets
        The same of the transmit half: descriptors and bytes in, heads out.
    tx : ``Out(PacketSignature(8))``
        Frames for the wire, whole: a word every cycle.
    tx_told : ``Out(1)``
        Strobe: dma has taken a head.
    writes, packets : ``Out(stream.Signature(PlainWrite))``, ``Out(PacketSignature(8))``
        Bytes and completions.
    reached : ``Out(stream.Signature(Reached))``
        To control: a mark's answer.
    count : ``Out(abi.counter_layout("frames"))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i":            In(stream.Signature(PacketWord(8), always_ready=True)),
            "o":            Out(PacketSignature(8)),
            "injected":     Out(1),
            "dispositions": In(stream.Signature(Disposition(config))),
            "settings":     In(FrameSettings),
            "ring":         In(FrameRing),
            "tx_ring":      In(FrameRing),
            "tx_head":      In(61),
            "tx_reads":     Out(stream.Signature(ReadRequest(config))),
            "tx_read_data": In(stream.Signature(ReadWord())),
            "tx_writes":    Out(stream.Signature(PlainWrite)),
            "tx_packets":   Out(PacketSignature(8)),
            "tx":           Out(PacketSignature(8)),
            "tx_told":      Out(1),
            "reads":        Out(stream.Signature(ReadRequest(config))),
            "read_data":    In(stream.Signature(ReadWord())),
            "writes":       Out(stream.Signature(PlainWrite)),
            "packets":      Out(PacketSignature(8)),
            "reached":      Out(stream.Signature(Reached)),
            "count":        Out(abi.counter_layout("frames")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.transmit = transmit = FrameTransmit(config)
        m.submodules.inject = inject = Inject()
        m.submodules.intake = intake = Intake(config)
        m.submodules.descriptors = descriptors = Descriptors(config)
        m.submodules.reader = reader = PieceReader(intake.bits)
        m.submodules.deliver = deliver = Deliver(config)
        m.submodules.store = store = memory.Memory(shape=64, depth=config.frame_words, init=[])
        write, read = store.write_port(), store.read_port()

        m.d.comb += [
            inject.wire.p.eq(self.i.p), inject.wire.valid.eq(self.i.valid), self.injected.eq(inject.injected),
            intake.i.p.eq(inject.o.p), intake.i.valid.eq(inject.o.valid), intake.settings.eq(self.settings),
            intake.tail.eq(deliver.tail), deliver.done.eq(intake.done),
            write.en.eq(intake.write.en), write.addr.eq(intake.write.addr), write.data.eq(intake.write.data),
            read.en.eq(deliver.en), read.addr.eq(deliver.addr), deliver.data.eq(read.data), reader.data.eq(read.data),
            *(getattr(reader, name).eq(getattr(deliver, name)) for name in ("start", "at", "words", "empty")),
            deliver.busy.eq(reader.busy),
            deliver.settings.eq(self.settings), deliver.ring.eq(self.ring), descriptors.ring.eq(self.ring),
            *(getattr(deliver, name).eq(getattr(descriptors, name))
              for name in ("posted", "valid", "failed", "header", "index", "restarting", "quiet")),
            deliver.buffer.eq(descriptors.data),
            descriptors.take.eq(deliver.take), descriptors.clear.eq(deliver.clear),
        ]
        with m.If(deliver.reading):
            m.d.comb += [read.en.eq(reader.en), read.addr.eq(reader.addr)]
        connect_streams(m, self.dispositions, intake.dispositions)
        connect_streams(m, descriptors.reads, self.reads)
        connect_streams(m, self.read_data, descriptors.read_data)
        connect_streams(m, reader.o, deliver.pieces)
        connect_streams(m, deliver.writes, self.writes)
        connect_streams(m, deliver.packets, self.packets)
        connect_streams(m, deliver.reached, self.reached)

        connect_streams(m, inject.o, self.o)
        connect_streams(m, transmit.inject, inject.host)
        connect_streams(m, transmit.wire, self.tx)
        connect_streams(m, transmit.reads, self.tx_reads)
        connect_streams(m, self.tx_read_data, transmit.read_data)
        connect_streams(m, transmit.write, self.tx_writes)
        connect_streams(m, transmit.packet, self.tx_packets)
        m.d.comb += [
            transmit.ring.eq(self.tx_ring), transmit.head_address.eq(self.tx_head), self.tx_told.eq(transmit.told),
        ]

        strobes = Signal(abi.counter_layout("frames"))
        m.d.comb += [
            strobes.rx_frames_host.eq(deliver.delivered), strobes.rx_frame_no_buffer.eq(deliver.no_buffer),
            strobes.rx_frame_bus_error.eq(deliver.bus_error), strobes.rx_frames_off.eq(intake.off),
            strobes.rx_frames_filtered.eq(intake.filtered), strobes.rx_frames_no_room.eq(intake.no_room),
            strobes.rx_bypass_overflow.eq(inject.overflow),
            strobes.tx_frames_host.eq(transmit.sent), strobes.tx_frames_injected.eq(transmit.injected),
            strobes.tx_frames_refused.eq(transmit.refused), strobes.tx_frames_bus_error.eq(transmit.failed),
        ]
        m.d.sync += self.count.eq(strobes)
        return m
