"""Puts headers before aligned payload, for words of 8 bytes: half of them are header in many a TLP."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .records import TlpWord
from .tlp import Part, Type, request_header

__all__ = ["NarrowPacker"]


class NarrowPacker(wiring.Component):
    """:class:`~emplace.dma.pack.Packer` with words of 8 bytes, a word after the other as they leave.

    The two words of the header are made while the part waits at the input; behind it payload goes straight through, or
    moved by one doubleword.

    Throughput: a full output. Latency: 1 cycle.

    Bytes that end before their transfer does, or with ``err``: the TLP under way ends with ``err``, so that it is
    nullified; parts that were not begun are dropped. Nothing is made up.

    Parameters
    ----------
    note : :class:`~emplace.dma.slice.Note`

    Members
    -------
    parts, words, enable, o, begun, taken
        See :class:`~emplace.dma.pack.Packer`.
    """

    def __init__(self, note):
        self.note = note
        super().__init__({
            "parts":  In(stream.Signature(Part(note))),
            "words":  In(PacketSignature(8)),
            "enable": In(1),
            "o":      Out(stream.Signature(TlpWord(8))),
            "begun":  Out(1),
            "taken":  Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        parts, words, o = self.parts, self.words, self.o
        part = parts.p

        hidden = Signal()                # the TLP under way is thrown away
        dropping = Signal()              # the rest of this transfer's parts is
        moved = Signal()                 # output words are of a word's upper and the next one's lower doubleword
        carry = Signal(32)               # that upper one
        left = Signal(10)                # words still to come
        lower, final = Signal(), Signal()

        free, emit, end, short, err = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += free.eq(o.ready | ~o.valid)
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)

        header = request_header(Type.MWR, part)
        low, high, word_low, word_high = Signal(32), Signal(32), Signal(32), Signal(32)
        spoiled, ends, alone = Signal(), Signal(), Signal()
        m.d.comb += [
            word_low.eq(words.p.data[:32]), word_high.eq(words.p.data[32:]),
            spoiled.eq(words.p.last & words.p.err),
            ends.eq(words.p.last | (left == 1)),
            alone.eq(words.p.last | (part.words == 1)),          # the part's first word is its last
            low.eq(Mux(moved, carry, word_low)), high.eq(Mux(moved, word_low, word_high)),
        ]
        with m.If(emit & ~hidden):
            m.d.sync += [
                o.valid.eq(1), o.p.data.eq(Cat(low, high)), o.p.last.eq(end), o.p.err.eq(err), o.p.empty.eq(Mux(short, 4, 0)),
            ]

        with m.FSM():
            with m.State("HEAD"):        # for a part and its first word, and for room
                m.d.comb += [low.eq(header[0]), high.eq(header[1])]
                m.d.sync += hidden.eq(~self.enable)
                with m.If(dropping):
                    m.d.comb += [parts.ready.eq(1), self.taken.eq(parts.valid & part.last)]
                    m.d.sync += dropping.eq(~(parts.valid & part.last))
                with m.Elif(parts.valid & words.valid & free):
                    m.d.comb += self.taken.eq(part.last)
                    with m.If(spoiled):
                        m.d.comb += [parts.ready.eq(1), words.ready.eq(1)]
                        m.d.sync += dropping.eq(~part.last)
                    with m.Else():
                        m.d.comb += self.begun.eq(self.enable)
                        with m.If(self.enable):
                            m.d.sync += [
                                o.valid.eq(1), o.p.data.eq(Cat(low, high)), o.p.last.eq(0), o.p.err.eq(0), o.p.empty.eq(0),
                                o.p.msix.eq(part.note.msix),
                            ]
                        m.next = "ADDRESS"
            with m.State("ADDRESS"):     # for room
                m.d.comb += [
                    low.eq(header[2]), high.eq(Mux(part.wide, header[3], Mux(part.upper, word_high, word_low))),
                    emit.eq(free), parts.ready.eq(free),
                ]
                with m.If(free):
                    m.d.sync += [
                        moved.eq(part.wide == part.upper), carry.eq(word_high),
                        left.eq(part.words), lower.eq(part.lower), final.eq(part.last),
                    ]
                    m.next = "DATA"
                    # Payload that begins with a lone doubleword: it goes here, or to the next word's lower half.
                    with m.If(~part.wide | part.upper):
                        m.d.comb += words.ready.eq(1)
                        m.d.sync += left.eq(part.words - 1)
                        with m.If(alone & ~part.wide & (part.upper | part.lower)):
                            m.d.comb += end.eq(1)
                            m.next = "HEAD"
                        with m.Elif(alone):
                            m.next = "TAIL"
            with m.State("DATA"):        # for a word, and for room
                with m.If(words.valid & free):
                    m.d.comb += [
                        words.ready.eq(1), emit.eq(1), err.eq(spoiled),
                        end.eq(spoiled | (ends & (~moved | lower))), short.eq(end & ~spoiled & ~moved & lower),
                    ]
                    m.d.sync += [left.eq(left - 1), carry.eq(word_high)]
                    with m.If(spoiled):
                        m.d.sync += dropping.eq(~final)
                    with m.If(end):
                        m.next = "HEAD"
                    with m.Elif(ends):
                        m.next = "TAIL"
            with m.State("TAIL"):        # for room: the last doubleword
                m.d.comb += [emit.eq(free), end.eq(1), short.eq(1)]
                with m.If(free):
                    m.next = "HEAD"

        return m
