"""The frames' transmit half, wired."""

from amaranth.hdl import Module
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dma.records import PlainWrite, ReadRequest, ReadWord
from ..stream.packet import PacketSignature, connect_streams
from ..stream.queue import Queue
from .descriptors import Descriptors
from .fetch import FrameFetch
from .gather import Gather
from .port import ReadPort
from .records import FrameRing
from .send import FrameSend
from .transmit_records import TxReady

__all__ = ["FrameTransmit"]

_READY = 8             # frames, whole in memory or dropped, that wait to leave


class FrameTransmit(wiring.Component):
    """Frames of the host: descriptors and bytes out of its memory, whole frames out to the wire or into the receive path.

    See :mod:`.descriptors`, :mod:`.fetch`, :mod:`.port`, :mod:`.gather` and :mod:`.send`.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    ring : ``In(FrameRing)``, head_address : ``In(61)``
        As the registers say.
    reads, read_data : ``Out(stream.Signature(ReadRequest(config)))``, ``In(stream.Signature(ReadWord()))``
    write, packet : ``Out(stream.Signature(PlainWrite))``, ``Out(PacketSignature(8))``
        To dma.
    wire, inject : ``Out(PacketSignature(8))``
        Whole frames, a word every cycle.
    told, sent, injected, refused, failed : ``Out(1)``
        As in :class:`FrameSend`.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ring":         In(FrameRing),
            "head_address": In(61),
            "reads":        Out(stream.Signature(ReadRequest(config))),
            "read_data":    In(stream.Signature(ReadWord())),
            "write":        Out(stream.Signature(PlainWrite)),
            "packet":       Out(PacketSignature(8)),
            "wire":         Out(PacketSignature(8)),
            "inject":       Out(PacketSignature(8)),
            **{name: Out(1) for name in ("told", "sent", "injected", "refused", "failed")},
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.descriptors = descriptors = Descriptors(config)
        m.submodules.fetch = fetch = FrameFetch(config)
        m.submodules.port = port = ReadPort(config)
        m.submodules.gather = gather = Gather(config)
        m.submodules.ready = ready = Queue(TxReady, _READY)
        m.submodules.send = send = FrameSend(config)
        m.submodules.store = store = memory.Memory(shape=data.ArrayLayout(8, 8), depth=config.frame_words, init=[])
        write, read = store.write_port(granularity=1), store.read_port()

        connect_streams(m, descriptors.reads, port.descriptor_reads)
        connect_streams(m, port.descriptor_data, descriptors.read_data)
        connect_streams(m, fetch.pieces, port.pieces)
        connect_streams(m, port.reads, self.reads)
        connect_streams(m, self.read_data, port.read_data)
        connect_streams(m, port.o, gather.pieces)
        connect_streams(m, fetch.begins, gather.begins)
        connect_streams(m, fetch.ends, gather.ends)
        connect_streams(m, gather.o, ready.i)
        connect_streams(m, ready.o, send.i)
        for name in ("wire", "inject", "write", "packet"):
            connect_streams(m, getattr(send, name), getattr(self, name))
        m.d.comb += [
            descriptors.ring.eq(self.ring), descriptors.take.eq(fetch.take), descriptors.clear.eq(fetch.clear),
            *(getattr(fetch, name).eq(getattr(descriptors, name))
              for name in ("valid", "failed", "header", "data", "restarting", "quiet")),
            fetch.retire.eq(send.retire), fetch.words.eq(send.words),
            send.restart.eq(fetch.clear), send.head_address.eq(self.head_address),
            write.en.eq(gather.mask), write.addr.eq(gather.addr), write.data.eq(gather.data),
            read.en.eq(send.en), read.addr.eq(send.addr), send.data.eq(read.data),
            *(getattr(self, name).eq(getattr(send, name)) for name in ("told", "sent", "injected", "refused", "failed")),
        ]
        return m
