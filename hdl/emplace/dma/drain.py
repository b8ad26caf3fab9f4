"""One client's read data, in the order of its requests."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature, connect_streams
from ..stream.queue import Queue
from ..stream.realign import Realigner, RealignWord

__all__ = ["Drain", "Piece"]


class Piece(data.StructLayout):
    """A part of a request: which tag it has, and where its bytes lie in the tag's buffer.

    Members
    -------
    tag : ``range(tags)``
    word : ``range(size // 8)``
        First word.
    words : ``range(size // 8 + 1)``
    skip : ``unsigned(3)``
        First byte of the request's first word.
    empty : ``unsigned(3)``
        Bytes of the last word that don't count.
    last : ``unsigned(1)``
        The request's last part.
    """

    def __init__(self, tags, size):
        super().__init__({"tag": range(tags), "word": range(size // 8), "words": range(size // 8 + 1), "skip": 3,
                          "empty": 3, "last": 1})


class Drain(wiring.Component):
    """Waits for the oldest read of its client, and hands its data over.

    Throughput: a word per cycle, one cycle between parts. Latency: 4 cycles from ``ready`` to the first word.

    Parameters
    ----------
    tags, size : :class:`int`

    Members
    -------
    pieces : ``In(stream.Signature(Piece(tags, size)))``
    level : ``Out(range(tags + 2))``
        Pieces whose tags are not drained.
    ready, failed : ``In(tags)``
    fetch : ``Out(stream.Signature(address))``
        A word of the buffers; it comes on ``word`` a cycle after this was taken.
    word : ``In(64)``
    drained : ``Out(tags)``
        Strobes.
    o : ``Out(PacketSignature(8))``
        A packet for each request; ``err`` if the read failed.
    error : ``Out(1)``
        Strobe: a request has failed.
    """

    def __init__(self, tags, size):
        self.tags, self.size = tags, size
        super().__init__({
            "pieces":  In(stream.Signature(Piece(tags, size))),
            "level":   Out(range(tags + 2)),
            "ready":   In(tags),
            "failed":  In(tags),
            "fetch":   Out(stream.Signature(range(tags * size // 8))),
            "word":    In(64),
            "drained": Out(tags),
            "o":       Out(PacketSignature(8)),
            "error":   Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.order = order = Queue(Piece(self.tags, self.size), self.tags)
        m.submodules.words = words = Queue(RealignWord(8), 4)
        m.submodules.realigner = realigner = Realigner(8)
        connect_streams(m, self.pieces, order.i)
        connect_streams(m, words.o, realigner.i)
        connect_streams(m, realigner.o, self.o)
        m.d.comb += self.level.eq(order.level)

        piece = order.o.p
        ready, failed = Signal(), Signal()
        failing = Signal()               # the request has failed, the rest of its parts is thrown away
        word, left = Signal.like(piece.word), Signal.like(piece.words)
        # The word being fetched
        coming, about = Signal(), Signal(RealignWord(8))
        room, final, step, done = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            ready.eq(Array(self.ready)[piece.tag]), failed.eq(Array(self.failed)[piece.tag]),
            room.eq(words.level + coming <= 2),
            final.eq(left == 1),
            words.i.valid.eq(coming),
            words.i.payload.eq(about),
            words.i.p.data.eq(self.word),
            step.eq(self.fetch.valid & self.fetch.ready),
            order.o.ready.eq(done),
        ]
        for n in range(self.tags):
            m.d.comb += self.drained[n].eq(done & (piece.tag == n))
        m.d.sync += [coming.eq(0), self.error.eq(0)]

        with m.FSM():
            with m.State("WAIT"):        # for the oldest piece to be ready
                m.d.sync += [word.eq(piece.word), left.eq(piece.words)]
                with m.If(order.o.valid & ready):
                    with m.If(failing):
                        m.d.comb += done.eq(1)
                        m.d.sync += failing.eq(~piece.last)
                    with m.Elif(failed):
                        m.next = "FAIL"
                    with m.Else():
                        m.next = "READ"
            with m.State("READ"):        # for the memory, and for room behind it
                m.d.comb += self.fetch.valid.eq(room)
                with m.If(step):
                    m.d.sync += [
                        coming.eq(1), word.eq(word + 1), left.eq(left - 1),
                        about.skip.eq(piece.skip), about.lead.eq(0),
                        about.last.eq(final & piece.last), about.empty.eq(Mux(final & piece.last, piece.empty, 0)),
                        about.err.eq(0),
                    ]
                    with m.If(final):
                        m.d.comb += done.eq(1)
                        m.next = "WAIT"
            with m.State("FAIL"):        # for room: one word that tells of it
                with m.If(room):
                    m.d.comb += done.eq(1)
                    m.d.sync += [
                        coming.eq(1), failing.eq(~piece.last), self.error.eq(1),
                        about.skip.eq(piece.skip), about.lead.eq(0), about.last.eq(1), about.empty.eq(0),
                        about.err.eq(1),
                    ]
                    m.next = "WAIT"
        # {tag, word}
        m.d.comb += self.fetch.payload.eq((piece.tag << len(word)) | word)

        return m
