"""Internet checksums of a packet on its way. Ref: RFC 1071 §1, §2; RFC 791 §3.1; RFC 9293 §3.1 (pseudo-header)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Checksum"]


class Checksum(wiring.Component):
    """Sums IPv4 header and TCP segment, or UDP datagram, with pseudo-header, both over the same words.

    The sums are not folded until they are judged: carries gather above bit 16, enough for 8 KiB.

    Latency: the verdicts hold 2 cycles behind the packet's last word.

    Members
    -------
    valid, index, word : as in :class:`~emplace.ip.align.Align`
    left, total : as in :class:`~emplace.ip.header.Header`
    ip_good, tcp_good : ``Out(1)``
    """

    valid: Signal
    index: Signal
    word: Signal
    left: Signal
    total: Signal
    ip_good: Signal
    tcp_good: Signal

    def __init__(self):
        super().__init__({
            "valid": In(1), "index": In(4), "word": In(64), "left": In(16), "total": In(16),
            "ip_good": Out(1), "tcp_good": Out(1),
        })
        # Public to the proof only: sums of a word's halves, and of what went by.
        self.front, self.back, self.header, self.segment = Signal(17), Signal(17), Signal(20), Signal(28)

    def elaborate(self, platform):
        m = Module()

        # First stage: pairs of 16-bit columns; bytes behind the packet's end read zero.
        keep = Signal(8)
        columns = [Signal(16, name=f"column{n}") for n in range(4)]
        m.d.comb += keep.eq(Mux((self.index == 0) | self.left[3:].any(), 0xFF,
                                Cat(self.left[:3] > n for n in range(8))))
        for n, column in enumerate(columns):
            m.d.comb += column.eq(Cat(self.word.word_select(2 * n + 1, 8) & keep[2 * n + 1].replicate(8),
                                      self.word.word_select(2 * n, 8) & keep[2 * n].replicate(8)))
        valid, index = Signal(), Signal(2)
        front, back, header, segment = self.front, self.back, self.header, self.segment
        more = Signal(4)                 # what a UDP pseudo-header has more than TCP's
        m.d.sync += [
            more.eq(Mux((self.index == 1) & (columns[0][:8] == 17), 17 - 6, 0)),
            valid.eq(self.valid), index.eq(Mux(self.index < 3, self.index, 3)),
            front.eq(columns[0] + columns[1]), back.eq(columns[2] + columns[3]),
        ]

        # Second stage. The header is words 0, 1 and half of 2; what TCP sums begins with the addresses, bytes 12..19.
        # The rest of the pseudo-header is 6 + total - 20, or total + 65521 in this arithmetic.
        both = Signal(18)
        m.d.comb += both.eq(front + back)
        with m.If(valid):
            with m.Switch(index):
                with m.Case(0):
                    m.d.sync += [header.eq(both), segment.eq(self.total + 65521)]
                with m.Case(1):
                    m.d.sync += [header.eq(header + both), segment.eq(segment + back + more)]
                with m.Case(2):
                    m.d.sync += [header.eq(header + front), segment.eq(segment + both)]
                with m.Default():
                    m.d.sync += segment.eq(segment + both)

        # Good if the folded sum is 0xffff: if the low half is the complement of the carries. (It cannot be 0.)
        def good(total):
            return (total[:16] ^ total[16:])[:16].all()
        m.d.comb += [self.ip_good.eq(good(header)), self.tcp_good.eq(good(segment))]
        return m
