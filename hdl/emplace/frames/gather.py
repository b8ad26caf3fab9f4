"""Frames' bytes into frame memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.join import Joiner, JoinWord
from ..stream.packet import connect_streams
from ..stream.queue import Queue
from .checksum import FrameChecksum
from .transmit_records import TxBegin, TxEnd, TxReady, Verdict

__all__ = ["Gather"]


class Gather(wiring.Component):
    """Joins the pieces of a frame, stores it, puts its checksum in, and hands it on; or takes it back if it is bad.

    Throughput: a word per cycle; 2 cycles more a frame, 10 with a checksum.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    pieces : ``In(stream.Signature(JoinWord(8)))``
    begins, ends : ``In(stream.Signature(TxBegin))``, ``In(stream.Signature(TxEnd))``
    mask, addr, data : ``Out(8)``, ``Out(range(frame_words))``, ``Out(64)``
        To frame memory: lanes written.
    o : ``Out(stream.Signature(TxReady))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "pieces": In(stream.Signature(JoinWord(8))),
            "begins": In(stream.Signature(TxBegin)),
            "ends":   In(stream.Signature(TxEnd)),
            "mask":   Out(8),
            "addr":   Out(range(config.frame_words)),
            "data":   Out(64),
            "o":      Out(stream.Signature(TxReady)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.joiner = joiner = Joiner(8)
        m.submodules.begins = begins = Queue(TxBegin, 4)
        m.submodules.ends = ends = Queue(TxEnd, 4)
        m.submodules.checksum = checksum = FrameChecksum()
        connect_streams(m, self.pieces, joiner.i)
        connect_streams(m, self.begins, begins.i)
        connect_streams(m, self.ends, ends.i)

        word, end, o = joiner.o, ends.o.p, self.o
        head, base = Signal.like(self.addr), Signal.like(self.addr)      # next word to write; the frame's first one
        place = Signal.like(self.addr)
        failed, empty, wait = Signal(), Signal(3), Signal(range(FrameChecksum.LATENCY))
        both = Signal(16)
        m.d.sync += place.eq(base + end.at[3:])
        m.d.comb += [
            checksum.valid.eq(word.valid & word.ready), checksum.data.eq(word.p.data), checksum.empty.eq(word.p.empty),
            checksum.last.eq(word.p.last), checksum.start.eq(begins.o.p.start),
            both.eq(Mux(end.swap, Cat(checksum.sum[8:], checksum.sum[:8]), checksum.sum)),
            self.addr.eq(head), self.data.eq(word.p.data),
            o.p.verdict.eq(Mux(failed & (end.verdict == Verdict.SEND), Verdict.FAILED, end.verdict)),
            o.p.reinject.eq(end.reinject), o.p.descriptors.eq(end.descriptors), o.p.words.eq(end.words), o.p.empty.eq(empty),
        ]
        with m.FSM(name="gather"):
            with m.State("WORDS"):       # for the frame's last word
                m.d.comb += word.ready.eq(begins.o.valid)
                m.d.sync += [empty.eq(word.p.empty), failed.eq(word.p.err), wait.eq(0)]
                with m.If(word.valid & word.ready):
                    # The last word of a bad frame may be more than was reserved.
                    m.d.comb += self.mask.eq((~(word.p.last & word.p.err)).replicate(8))
                    m.d.sync += head.eq(head + 1)
                    with m.If(word.p.last):
                        m.next = "END"
                        with m.If(begins.o.p.checksum & ~word.p.err):
                            m.next = "SUM"
            with m.State("SUM"):         # for the sum, and where it goes
                m.d.sync += wait.eq(wait + (wait != FrameChecksum.LATENCY - 1))
                with m.If((wait == FrameChecksum.LATENCY - 1) & ends.o.valid):
                    m.next = "PUT"
            with m.State("PUT"):
                m.d.comb += [self.addr.eq(place), self.data.eq(both.replicate(4)), self.mask.eq(Const(3, 9) << end.at[:3])]
                m.next = "END"
                with m.If(end.at[:3] == 7):
                    m.next = "BEYOND"
            with m.State("BEYOND"):      # its second octet is the next word's first
                m.d.comb += [self.addr.eq(place + 1), self.data.eq(both.replicate(4)), self.mask.eq(1)]
                m.next = "END"
            with m.State("END"):         # for the frame's description, and room for it
                m.d.comb += o.valid.eq(ends.o.valid)
                with m.If(o.valid & o.ready):
                    m.d.comb += [begins.o.ready.eq(1), ends.o.ready.eq(1)]
                    with m.If(o.p.verdict == Verdict.SEND):
                        m.d.sync += base.eq(head)
                    with m.Else():
                        m.d.sync += head.eq(base)
                    m.next = "WORDS"
        return m
