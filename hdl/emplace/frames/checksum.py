"""The checksum that a frame leaves with."""

# Ref: RFC 1071

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .transmit_records import TxBegin

__all__ = ["FrameChecksum"]


class FrameChecksum(wiring.Component):
    """Ones' complement of the ones' complement sum of a frame's octets from ``start`` on; 0xFFFF for 0, which for UDP
    would mean that there is none (RFC 768) and for TCP is the same.

    Throughput: a word per cycle. Latency: ``LATENCY`` cycles from the last word.

    Members
    -------
    valid : ``In(1)``
        Strobe: the frame's next word.
    data, empty, last : ``In``
        As in PacketWord.
    start : ``In(...)``
        Octets. Stands while the frame's words come.
    sum : ``Out(16)``
        Octets at even places of the frame in the lower half.
    """

    LATENCY = 6

    def __init__(self):
        super().__init__({"valid": In(1), "data": In(64), "empty": In(3), "last": In(1), "start": In(TxBegin["start"].shape),
                          "sum": Out(16)})

    def elaborate(self, platform):
        m = Module()
        index = Signal(len(self.start) - 3)
        past, inside = Signal(), Signal()
        m.d.comb += [past.eq(index > self.start[3:]), inside.eq(index == self.start[3:])]
        with m.If(self.valid):
            m.d.sync += index.eq(Mux(self.last, 0, index + 1))

        # What counts of the word; sums of two, of four columns; of all words
        word, columns, both, total = Signal(64), [Signal(17, name=f"columns{n}") for n in range(2)], Signal(18), Signal(26)
        valid, first = Signal(3), Signal(3)
        for lane in range(8):
            counts = (past | (inside & (self.start[:3] <= lane))) & ~(self.last & (self.empty >= 8 - lane))
            with m.If(counts):
                m.d.sync += word.word_select(lane, 8).eq(self.data.word_select(lane, 8))
            with m.Else():
                m.d.sync += word.word_select(lane, 8).eq(0)
        m.d.sync += [
            valid.eq(Cat(self.valid, valid)), first.eq(Cat(index == 0, first)),
            *(columns[n].eq(word[32 * n:32 * n + 16] + word[32 * n + 16:32 * n + 32]) for n in range(2)),
            both.eq(columns[0] + columns[1]),
        ]
        with m.If(valid[2]):
            m.d.sync += total.eq(Mux(first[2], 0, total) + both)
        once, twice = Signal(17), Signal(16)
        m.d.sync += [once.eq(total[:16] + total[16:]), twice.eq(once[:16] + once[16])]
        m.d.comb += self.sum.eq(Mux(twice.all(), 0xFFFF, ~twice))
        return m
