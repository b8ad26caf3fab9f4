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
from .intake import Intake
from .reader import PieceReader
from .records import FrameRing, FrameSettings, Reached

__all__ = ["Frames"]


class Frames(wiring.Component):
    """Frames for the host: from ip's input into frame memory, and on into the host's buffers.

    See :mod:`.intake`, :mod:`.descriptors` and :mod:`.deliver`. Nothing here makes ip wait.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    i : ``In(stream.Signature(PacketWord(8), always_ready=True))``
        What ip gets.
    dispositions : ``In(stream.Signature(Disposition(config)))``
    settings : ``In(FrameSettings)``, ring : ``In(FrameRing)``
        As the registers say.
    reads, read_data : ``Out(stream.Signature(ReadRequest(config)))``, ``In(stream.Signature(ReadWord()))``
        Descriptors.
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
            "dispositions": In(stream.Signature(Disposition(config))),
            "settings":     In(FrameSettings),
            "ring":         In(FrameRing),
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
        m.submodules.intake = intake = Intake(config)
        m.submodules.descriptors = descriptors = Descriptors(config)
        m.submodules.reader = reader = PieceReader(intake.bits)
        m.submodules.deliver = deliver = Deliver(config)
        m.submodules.store = store = memory.Memory(shape=64, depth=config.frame_words, init=[])
        write, read = store.write_port(), store.read_port()

        m.d.comb += [
            intake.i.p.eq(self.i.p), intake.i.valid.eq(self.i.valid), intake.settings.eq(self.settings),
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

        strobes = Signal(abi.counter_layout("frames"))
        m.d.comb += [
            strobes.rx_frames_host.eq(deliver.delivered), strobes.rx_frame_no_buffer.eq(deliver.no_buffer),
            strobes.rx_frame_bus_error.eq(deliver.bus_error), strobes.rx_frames_off.eq(intake.off),
            strobes.rx_frames_filtered.eq(intake.filtered), strobes.rx_frames_no_room.eq(intake.no_room),
        ]
        m.d.sync += self.count.eq(strobes)
        return m
