"""One read client of dma for a ring's descriptors and its frames' bytes."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dma.records import ReadClient, ReadRequest, ReadWord
from ..stream.join import JoinWord
from ..stream.queue import Queue
from .transmit_records import Piece

__all__ = ["ReadPort"]

_UNDER_WAY = 16          # reads; as many as dma has tags for one client


class ReadPort(wiring.Component):
    """Sends reads of descriptors and of pieces of frames in turn, and knows whose data comes back.

    Throughput: a word per cycle. Latency: 1 cycle to send, none for the data.

    Members
    -------
    descriptor_reads, descriptor_data : ``In(stream.Signature(ReadRequest(config)))``, ``Out(stream.Signature(ReadWord()))``
    pieces : ``In(stream.Signature(Piece))``
    reads, read_data : ``Out(stream.Signature(ReadRequest(config)))``, ``In(stream.Signature(ReadWord()))``
        To dma.
    o : ``Out(stream.Signature(JoinWord(8)))``
        Pieces, one packet a frame when joined. Of a piece that could not be read, one octet with ``err``; an abort is
        another one.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "descriptor_reads": In(stream.Signature(ReadRequest(config))),
            "descriptor_data":  Out(stream.Signature(ReadWord())),
            "pieces":           In(stream.Signature(Piece)),
            "reads":            Out(stream.Signature(ReadRequest(config))),
            "read_data":        In(stream.Signature(ReadWord())),
            "o":                Out(stream.Signature(JoinWord(8))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.order = order = Queue(data.StructLayout({"last": 1, "abort": 1, "frame": 1}), _UNDER_WAY)

        # Of descriptors there is one read at a time: they come first, once a piece that waits has left.
        descriptor, piece = self.descriptor_reads, self.pieces
        frame, kept, valid, abort, go = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            frame.eq(kept | ~descriptor.valid), valid.eq(Mux(frame, piece.valid, descriptor.valid)),
            abort.eq(frame & piece.p.abort),
            go.eq(order.i.ready & (self.reads.ready | abort)),
            piece.ready.eq(go & frame), descriptor.ready.eq(go & ~frame),
            self.reads.p.client.eq(ReadClient.FRAME_TX),
            self.reads.p.address.eq(Mux(frame, piece.p.address, descriptor.p.address)),
            self.reads.p.length.eq(Mux(frame, piece.p.length, descriptor.p.length)),
            self.reads.valid.eq(valid & order.i.ready & ~abort),
            order.i.p.last.eq(piece.p.last), order.i.p.abort.eq(abort), order.i.p.frame.eq(frame),
            order.i.valid.eq(valid & (self.reads.ready | abort)),
        ]
        m.d.sync += kept.eq(frame & piece.valid & ~go)

        word, o, oldest = self.read_data, self.o, order.o.p
        m.d.comb += [
            self.descriptor_data.p.eq(word.p),
            o.p.data.eq(word.p.data), o.p.last.eq(word.p.last | oldest.abort),
            o.p.err.eq(word.p.err | oldest.abort), o.p.joins.eq(~oldest.last & ~oldest.abort),
            # What failed may not be longer than what was asked for.
            o.p.empty.eq(word.p.empty),
        ]
        with m.If(o.p.last & o.p.err):
            m.d.comb += o.p.empty.eq(7)
        with m.If(order.o.valid):
            with m.If(oldest.abort):
                m.d.comb += [o.valid.eq(1), order.o.ready.eq(o.ready)]
            with m.Elif(oldest.frame):
                m.d.comb += [o.valid.eq(word.valid), word.ready.eq(o.ready)]
            with m.Else():
                m.d.comb += [self.descriptor_data.valid.eq(word.valid), word.ready.eq(self.descriptor_data.ready)]
            with m.If(~oldest.abort):
                m.d.comb += order.o.ready.eq(word.valid & word.ready & word.p.last)
        return m
