"""Puts headers before aligned payload: memory write TLPs."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .records import TlpWord
from .tlp import Part, Type, request_header

__all__ = ["Packer"]

#: Bytes per word of the output. With 8 there is another way: see narrow.
_NBYTES = 16


class Packer(wiring.Component):
    """Makes a MWr of each part and its bytes.

    The bytes of a transfer come as one packet of 8-byte words aligned to its address, parts are cut from it at word
    boundaries. Headers cost the input no cycle: they are loaded together with a part's first word while the rest of
    the TLP before is still leaving. Only where that rest is more than one word of the output does the input wait.

    Throughput: 8 bytes of payload a cycle. Latency: 2 cycles.

    Bytes that end before their transfer does, or with ``err``: the TLP under way ends with ``err``, so that it is
    nullified; parts that were not begun are dropped. Nothing is made up.

    Parameters
    ----------
    note : :class:`~emplace.dma.slice.Note`

    Members
    -------
    parts : ``In(stream.Signature(Part(note)))``
    words : ``In(PacketSignature(8))``
    enable : ``In(1)``
        0: TLPs that begin now are thrown away.
    o : ``Out(stream.Signature(TlpWord(16)))``
        ``msix`` as the part's note says.
    begun : ``Out(1)``
        Strobe: a TLP was begun that will leave at ``o``.
    taken : ``Out(1)``
        Strobe: the last part of a transfer was begun, or dropped. Not before ``begun`` for it.
    """

    def __init__(self, note):
        self.note = note
        super().__init__({
            "parts":  In(stream.Signature(Part(note))),
            "words":  In(PacketSignature(8)),
            "enable": In(1),
            "o":      Out(stream.Signature(TlpWord(_NBYTES))),
            "begun":  Out(1),
            "taken":  Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        parts, words, o = self.parts, self.words, self.o
        width = _NBYTES // 4              # doublewords of the output's word
        part = parts.p

        # Doublewords that have not left, of one TLP: `held` holds `count` of them.
        held = Signal(data.ArrayLayout(32, 6))
        count = Signal(range(7))
        under_way = Signal()             # more words of the TLP are to come
        ending, ending_err = Signal(), Signal()      # `held` is the end of a TLP
        hidden = Signal()                # the TLP under way is thrown away
        dropping = Signal()              # the rest of this transfer's parts is
        left = Signal(10)                # words still to come
        lower, final, msix = Signal(), Signal(), Signal()

        free = Signal()
        m.d.comb += free.eq(o.ready | ~o.valid)
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)

        # What comes in this cycle: a TLP's start, or a word of the one under way
        empty = Signal()                 # nothing is left in `held` after this cycle
        start, more, drop = Signal(), Signal(), Signal()
        m.d.comb += [
            empty.eq((count == 0) | (ending & (count <= width))),
            drop.eq(dropping & parts.valid),
            start.eq(free & ~under_way & empty & ~dropping & parts.valid & words.valid),
            more.eq(free & under_way & words.valid),
            words.ready.eq(start | more),
            parts.ready.eq(start | drop),
        ]
        with m.If(drop & part.last):
            m.d.sync += dropping.eq(0)
        ends, spoiled, one, single = Signal(), Signal(), Signal(), Signal()
        fresh = Signal(data.ArrayLayout(32, 2))      # the word's doublewords that count
        fresh_count = Signal(range(3))
        m.d.comb += [
            ends.eq(words.p.last | Mux(under_way, left == 1, part.words == 1)),
            spoiled.eq(words.p.last & words.p.err),
            one.eq(Mux(under_way, lower & (left == 1), part.upper | (part.lower & (part.words == 1)))),
            single.eq(~under_way & part.upper),
            fresh[0].eq(Mux(single, words.p.data[32:], words.p.data[:32])),
            fresh[1].eq(words.p.data[32:]),
            fresh_count.eq(2 - one),
            self.begun.eq(start & self.enable & ~spoiled),
            self.taken.eq((start | drop) & part.last),
        ]

        # Out: `held`, and behind it what is fresh
        total = Signal(range(9))
        row = Signal(data.ArrayLayout(32, 8))
        emit, emit_last = Signal(), Signal()
        m.d.comb += total.eq(Mux(ending, count, count + fresh_count))
        for n in range(8):
            below = held[n] if n < 6 else fresh[1]
            m.d.comb += row[n].eq(below)
            with m.If(count == n):
                m.d.comb += row[n].eq(fresh[0])
            if n:
                with m.If(count == n - 1):
                    m.d.comb += row[n].eq(fresh[1])
        m.d.comb += [
            emit_last.eq((ending | (more & ends)) & (total <= width)),
            emit.eq(free & ~hidden & (ending | (more & (ends | (total >= width))))),
        ]
        with m.If(emit):
            m.d.sync += [
                o.valid.eq(1),
                o.p.data.eq(Cat(row[n] for n in range(width))),
                o.p.empty.eq(Mux(emit_last, (width - total[:width.bit_length()]) << 2, 0)),
                o.p.last.eq(emit_last),
                o.p.err.eq(emit_last & Mux(ending, ending_err, spoiled)),
                o.p.msix.eq(msix),
                count.eq(Mux(emit_last, 0, total - width)),
                *(held[n].eq(row[n + width]) for n in range(8 - width) if n < 6),
            ]
            with m.If(emit_last):
                m.d.sync += ending.eq(0)
        with m.Elif(more & ~hidden):
            m.d.sync += [count.eq(total), *(held[n].eq(row[n]) for n in range(6))]

        with m.If(more):
            m.d.sync += [left.eq(left - 1), under_way.eq(~ends)]
            with m.If(ends & ~hidden & ~emit_last):
                m.d.sync += [ending.eq(1), ending_err.eq(spoiled)]
            with m.If(spoiled & ~final):
                m.d.sync += dropping.eq(1)

        header = request_header(Type.MWR, part)
        with m.If(start):
            m.d.sync += [
                left.eq(part.words - 1), lower.eq(part.lower), final.eq(part.last), msix.eq(part.note.msix),
                hidden.eq(~self.enable), under_way.eq(~ends),
                dropping.eq(spoiled & ~part.last),
            ]
            with m.If(self.begun):
                m.d.sync += [
                    *(held[n].eq(header[n]) for n in range(3)),
                    held[3].eq(Mux(part.wide, header[3], fresh[0])),
                    held[4].eq(Mux(part.wide, fresh[0], fresh[1])),
                    held[5].eq(fresh[1]),
                    count.eq(3 + part.wide + fresh_count),
                    ending.eq(ends), ending_err.eq(0),
                ]

        return m
