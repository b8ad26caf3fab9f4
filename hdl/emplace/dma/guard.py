"""The last look at a TLP before it leaves (design D6)."""

# Ref: PCI Express Base Specification 2.2.1 (fmt, type), 2.2.4 (addresses), 2.2.7, 2.2.9

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature, PacketWord
from .records import GuardRange

__all__ = ["Guard", "GuardCount"]

#: Strobes, named as in abi.COUNTERS.
GuardCount = data.StructLayout({"guard_writes": 1, "guard_reads": 1, "guard_other": 1})

_MRD3, _MRD4, _MWR3, _MWR4, _CPL, _CPLD = 0x00, 0x20, 0x40, 0x60, 0x0A, 0x4A
#: Doublewords that fit into 4 KiB, and that the longest header has.
_PAGE_DWS = 1024
_HEAD_DWS = 4


class _Kind(enum.Enum, shape=2):
    OTHER = 0
    READ = 1
    WRITE = 2
    COMPLETION = 3


class Guard(wiring.Component):
    """Lets out only TLPs that can't touch a forbidden range, whatever comes in.

    - MRd, MWr, Cpl and CplD pass, with 3 or 4 doublewords of header; nothing else does.
    - A request must be well-formed: address a multiple of 4, a 4-doubleword header only for an address
      above 4 GiB, no crossing of 4 KiB. So its first and last byte lie in one page, which is compared
      with every range, and it can't wrap.
    - A write into the interrupt window 0xFEE00000..0xFEEFFFFF passes only with ``msix`` and one
      doubleword; with ``msix``, nothing else passes.
    - Traffic class, attributes, digest, poison, address type and the hint bits become 0; the requester's
      or completer's ID becomes ``id``.
    - The verdict is made before the first word leaves. What shows only later (``err``, or more or less
      data than the header's Length) ends the TLP with ``err``, at Length at the latest: the port behind must
      nullify it.

    Throughput: one word per cycle. Latency: 2 cycles with words of 16 bytes, 3 with 8.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    i, o : ``In(PacketSignature(tlp_bytes))``, ``Out(...)``
        TLPs as in the PCIe specification, first byte in the lowest lane.
    ranges : ``In(ArrayLayout(GuardRange, guard_ranges))``
        Forbidden, [first, end) in pages of 4 KiB. A change counts for TLPs that come in afterwards.
    id : ``In(16)``
        Bus, device and function of the card.
    msix : ``In(1)``
        The TLP is an interrupt; with its first word.
    refused_reads : ``Out(stream.Signature({"tag": 8}))``
        A read that was dropped, whatever for. Must be taken without regard to ``o``.
    posted : ``Out(1)``
        Strobe: the last word of a MWr has left for ``o``, or was dropped.
    count : ``Out(GuardCount)``
        Strobes: a write, or a read, into a forbidden range; any other TLP that was dropped or spoiled.
    """

    def __init__(self, config):
        self.nbytes = nbytes = config.tlp_bytes
        super().__init__({
            "i":             In(PacketSignature(nbytes)),
            "o":             Out(PacketSignature(nbytes)),
            "ranges":        In(data.ArrayLayout(GuardRange, config.guard_ranges)),
            "id":            In(16),
            "msix":          In(1),
            "refused_reads": Out(stream.Signature(data.StructLayout({"tag": 8}))),
            "posted":        Out(1),
            "count":         Out(GuardCount),
        })
        # Public to the proof only. `word` stands before the gate, `early` behind it (8 bytes a word only).
        self.word = Signal(PacketWord(nbytes))
        self.word_valid, self.word_first = Signal(), Signal()
        self.early = Signal(PacketWord(nbytes))
        self.early_valid, self.early_first, self.early_msix = Signal(), Signal(), Signal()
        self.next_first = Signal(init=1)
        # Of the TLP that stands before the gate.
        self.kind, self.bad, self.total = Signal(_Kind), Signal(), Signal(11)
        self.window, self.interrupt, self.single = Signal(), Signal(), Signal()
        self.left, self.dropping = Signal(11), Signal()
        self.move = Signal()             # the word before the gate goes: out, or nowhere
        self.load = Signal()             # another takes its place
        # Its page is below a bound, in the lower half, in the upper half, or the upper halves are the same; the
        # bounds are first and end of range 0, of range 1, ...
        bounds = 2 * config.guard_ranges
        self.low, self.high, self.same = Signal(bounds), Signal(bounds), Signal(bounds)

    def elaborate(self, platform):
        m = Module()
        i, o, word, nbytes = self.i, self.o, self.word, self.nbytes
        dws = nbytes // 4
        move, load, free = self.move, self.load, Signal()
        m.d.comb += free.eq(~self.word_valid | move)

        # The header, whole: with 8 bytes a word, the first word waits in `early` until the second is there.
        head, tail = Signal(128), Signal(PacketWord(nbytes))     # tail: the word in which the header ends
        ended, cut, has_tag, first_now, msix_now = Signal(), Signal(), Signal(), Signal(), Signal()
        next_first = self.next_first
        if nbytes == 16:
            m.d.comb += [
                load.eq(i.valid & free), i.ready.eq(free),
                head.eq(i.p.data), tail.eq(i.payload), ended.eq(i.p.last),
                has_tag.eq(~i.p.last | (i.p.empty <= 8)),
                first_now.eq(next_first), msix_now.eq(self.msix),
            ]
            with m.If(load):
                m.d.sync += word.eq(i.payload)
        else:
            early_msix = self.early_msix
            m.d.comb += [
                load.eq(self.early_valid & free & (~self.early_first | self.early.last | i.valid)),
                i.ready.eq(~self.early_valid | load),
                head.eq(Cat(self.early.data, i.p.data)), tail.eq(i.payload),
                cut.eq(self.early.last), ended.eq(self.early.last | i.p.last),
                has_tag.eq(~self.early.last | (self.early.empty == 0)),
                first_now.eq(self.early_first), msix_now.eq(early_msix),
            ]
            with m.If(i.ready):
                m.d.sync += self.early_valid.eq(i.valid)
            with m.If(i.valid & i.ready):
                m.d.sync += [self.early.eq(i.payload), self.early_first.eq(next_first), early_msix.eq(self.msix)]
            with m.If(load):
                m.d.sync += word.eq(self.early)
        with m.If(i.valid & i.ready):
            m.d.sync += next_first.eq(i.p.last)
        with m.If(free):
            m.d.sync += self.word_valid.eq(load)
        with m.If(load):
            m.d.sync += self.word_first.eq(first_now)

        # Step 1, as the first word comes before the gate: fields, and halves of the compares.
        octets = [head.word_select(n, 8) for n in range(16)]
        kind, four, upper = Signal(_Kind), Signal(), Signal(32)
        lower, field, length, total = Signal(32), Signal(10), Signal(11), Signal(11)
        page, beyond = Signal(52), Signal(12)
        with m.Switch(octets[0]):
            with m.Case(_MRD3, _MRD4):
                m.d.comb += kind.eq(_Kind.READ)
            with m.Case(_MWR3, _MWR4):
                m.d.comb += kind.eq(_Kind.WRITE)
            with m.Case(_CPL, _CPLD):
                m.d.comb += kind.eq(_Kind.COMPLETION)
        m.d.comb += [
            four.eq(octets[0][5]),
            field.eq(Cat(octets[3], octets[2][:2])),
            length.eq(Mux(field == 0, _PAGE_DWS, field)),
            upper.eq(Mux(four, Cat(reversed(octets[8:12])), 0)),
            lower.eq(Mux(four, Cat(reversed(octets[12:16])), Cat(reversed(octets[8:12])))),
            page.eq(Cat(lower[12:], upper)),
        ]
        m.d.comb += [
            total.eq(3 + four + Mux(octets[0][6], length, 0)),
            beyond.eq(lower[2:12] + length),
        ]
        odd, inside, exact = Signal(), Signal(), Signal()
        m.d.comb += [
            odd.eq((four & ~upper.any()) | lower[:2].any() | (beyond > _PAGE_DWS)),
            inside.eq(total <= _HEAD_DWS),
            exact.eq((tail.empty == ((_HEAD_DWS - total[:3]) << 2)[:4]) & ~tail.err),
        ]
        msix, window, single = self.interrupt, self.window, self.single
        tag, tagged = Signal(8), Signal()
        with m.If(load & first_now):
            m.d.sync += [
                self.kind.eq(kind), self.total.eq(total),
                self.bad.eq((kind == _Kind.OTHER) | ((kind != _Kind.COMPLETION) & odd) | cut
                            | (ended != inside) | (ended & ~exact)),
                msix.eq(msix_now), window.eq(page[8:] == 0xFEE), single.eq(length == 1),
                tag.eq(octets[6]), tagged.eq(has_tag),
            ]
            for n in range(len(self.ranges)):
                for k, bound in ((2 * n, self.ranges[n].first), (2 * n + 1, self.ranges[n].end)):
                    m.d.sync += [
                        self.low[k].eq(page[:26] < bound[:26]),
                        self.high[k].eq(page[26:] < bound[26:]),
                        self.same[k].eq(page[26:] == bound[26:]),
                    ]

        # Step 2, before the gate: the verdict.
        hit, passes, drop, is_read, refuse, refusable = Signal(), Signal(), Signal(), Signal(), Signal(), Signal()
        out, below = Signal(), Signal.like(self.low)
        refused = self.refused_reads
        m.d.comb += [
            below.eq(self.high | (self.same & self.low)),
            is_read.eq(self.kind == _Kind.READ),
            hit.eq((~below[0::2] & below[1::2]).any()
                   | ((self.kind == _Kind.WRITE) & (window | msix) & ~(window & msix & single))),
            passes.eq(~self.bad & ((self.kind == _Kind.COMPLETION) | ~hit)),
            drop.eq(Mux(self.word_first, ~passes, self.dropping)),
            refuse.eq(self.word_first & ~passes & is_read & tagged),
            refusable.eq(~refused.valid | refused.ready),
            move.eq(self.word_valid & Mux(drop, ~refuse | refusable, o.ready | ~o.valid)),
            out.eq(move & ~drop),
        ]
        with m.If(refused.ready):
            m.d.sync += refused.valid.eq(0)
        with m.If(move & refuse):
            m.d.sync += [refused.valid.eq(1), refused.p.tag.eq(tag)]

        # The gate: never more than the header's Length.
        left, fits, full, good, spoiled = Signal(11), Signal(), Signal(range(nbytes)), Signal(), Signal()
        m.d.comb += [
            left.eq(Mux(self.word_first, self.total, self.left)),
            fits.eq(left <= dws),
            full.eq(((dws - left[:3]) << 2)[:4]),
            good.eq(word.last & fits & (word.empty == full) & ~word.err),
            spoiled.eq((fits | word.last) & ~good),
        ]
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(out):
            m.d.sync += [
                o.valid.eq(1),
                o.p.data.eq(word.data),
                o.p.last.eq(fits | word.last),
                o.p.empty.eq(Mux(fits, full, Mux(word.last, word.empty, 0))),
                o.p.err.eq(spoiled),
                self.left.eq(left - dws),
            ]
            with m.If(self.word_first):
                m.d.sync += [
                    o.p.data[8:16].eq(0),                        # traffic class, attribute, hints, tag's bits 8 and 9
                    o.p.data[18:24].eq(0),                       # address type, attributes, poison, digest
                    o.p.data[32:40].eq(self.id[8:]), o.p.data[40:48].eq(self.id[:8]),
                ]
        with m.If(move):
            m.d.sync += self.dropping.eq(drop | fits)            # only matters for a word that isn't the TLP's first
        judged = Signal()
        m.d.comb += judged.eq(move & self.word_first & ~passes)
        m.d.sync += [
            self.posted.eq(move & word.last & (self.kind == _Kind.WRITE)),
            self.count.guard_writes.eq(judged & ~self.bad & ~is_read),
            self.count.guard_reads.eq(judged & ~self.bad & is_read),
            self.count.guard_other.eq((judged & self.bad) | (out & spoiled)),
        ]

        return m
