"""Pieces of frame memory as packets."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature

__all__ = ["PieceReader"]


class PieceReader(wiring.Component):
    """Reads consecutive words of frame memory as one packet.

    Throughput: a word a cycle. Latency: 3 cycles from ``start`` to the first word.

    Members
    -------
    start : ``In(1)``
        Begin; only while not ``busy``.
    at : ``In(bits)``, words : ``In(10)``, empty : ``In(3)``
        First word, how many (at least 1), octets of the last one that do not count.
    busy : ``Out(1)``
        The packet's last word has not left.
    en : ``Out(1)``, addr : ``Out(bits)``, data : ``In(64)``
        The memory's read port.
    o : ``Out(PacketSignature(8))``
    """

    def __init__(self, bits):
        self.bits = bits
        super().__init__({
            "start": In(1), "at": In(bits), "words": In(10), "empty": In(3), "busy": Out(1),
            "en": Out(1), "addr": Out(bits), "data": In(64),
            "o": Out(PacketSignature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        o = self.o
        left, empty = Signal(10), Signal(3)
        fetched, final = Signal(), Signal()  # the memory's output is a word that has not gone to `o`; the last one
        move = Signal()
        m.d.comb += [
            move.eq(fetched & (o.ready | ~o.valid)),
            self.en.eq((left != 0) & (~fetched | move)),
            self.busy.eq((left != 0) | fetched | o.valid),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.words), empty.eq(self.empty), self.addr.eq(self.at)]
        with m.If(self.en):
            m.d.sync += [left.eq(left - 1), self.addr.eq(self.addr + 1), fetched.eq(1), final.eq(left == 1)]
        with m.Elif(move):
            m.d.sync += fetched.eq(0)
        with m.If(o.ready | ~o.valid):
            m.d.sync += o.valid.eq(move)
        with m.If(move):
            m.d.sync += [o.p.data.eq(self.data), o.p.last.eq(final), o.p.empty.eq(Mux(final, empty, 0)), o.p.err.eq(0)]
        return m
