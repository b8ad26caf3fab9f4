"""Completions: checked, and their data put where their read wants it."""

# Ref: PCI Express Base Specification 2.2.9 (completion rules), 2.3.1.1 (data return), 2.3.2 (completion handling)

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .tags import TagEvent
from .tlp import Beat, Head, Status, Type

__all__ = ["Completer", "Expected"]


class Expected(data.StructLayout):
    """What a tag still waits for.

    Members
    -------
    tag : ``range(tags)``
    offset : ``unsigned(log2(size))``
        Next byte, from the start of the aligned block that the read lies in.
    left : ``unsigned(...)``
        Bytes.
    """

    def __init__(self, tags, size):
        super().__init__({"tag": range(tags), "offset": range(size), "left": range(size + 1)})


class Completer(wiring.Component):
    """Writes the data of completions to the buffers of their tags, and tells what they mean for the reads.

    A buffer is an aligned block of ``size`` bytes of the host's address space: data goes to where it would lie there.
    So the place comes from the read, and never from the completion; and a completion must have exactly the byte
    count, the lower address and at most the length that its read still waits for. If it hasn't, or is poisoned,
    cut short or nullified, the read has failed.

    Throughput: a beat per cycle; completions of one or two beats take 3 cycles. Latency: 3 cycles.

    Parameters
    ----------
    tags, size : :class:`int`
        Tags, and bytes of a tag's buffer.

    Members
    -------
    beats : ``In(stream.Signature(Beat))``
        Completions alone.
    head : ``In(Head)``
    id : ``In(16)``
        Requester ID that completions must have.
    expect : ``In(stream.Signature(Expected(tags, size)))``
        A read that is going to leave.
    used, ready : ``In(tags)``
        From :class:`~emplace.dma.tags.Tags`.
    event : ``Out(TagEvent(tags))``
    write_en, write_addr, write_data : ``Out``
        To the buffers: 2 doubleword enables, {tag, word} and 64 bits.
    bad : ``Out(1)``
        Strobe: a completion that is for no read under way, or not what it waits for.
    """

    def __init__(self, tags, size):
        self.tags, self.size = tags, size
        super().__init__({
            "beats":      In(stream.Signature(Beat)),
            "head":       In(Head),
            "id":         In(16),
            "expect":     In(stream.Signature(Expected(tags, size))),
            "used":       In(tags),
            "ready":      In(tags),
            "event":      Out(TagEvent(tags)),
            "write_en":   Out(2),
            "write_addr": Out(range(tags * size // 8)),
            "write_data": Out(64),
            "bad":        Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beats, head = self.beats, self.head
        offset_bits, left_bits = (self.size - 1).bit_length(), self.size.bit_length()
        tag_bits = (self.tags - 1).bit_length()

        row = data.StructLayout({"offset": offset_bits, "left": left_bits})
        m.submodules.table = table = Memory(shape=row, depth=self.tags, init=[])
        look, update = table.read_port(domain="comb"), table.write_port()

        # Step 0: the header's fields; the row of its tag. A header stays until the one before has updated its row.
        first1, first2, busy = Signal(), Signal(), Signal()
        tag_field = Signal(8)
        m.d.comb += [
            busy.eq(first1 | first2),
            beats.ready.eq(~(beats.p.first & busy)),
            tag_field.eq(head.third[8:16]),
            look.addr.eq(tag_field[:tag_bits]),
        ]
        beat1, valid1 = Signal(Beat), Signal()
        tag1, ours1, kind1, low1, wants1 = Signal(tag_bits), Signal(), Signal(8), Signal(7), Signal(12)
        length1, status1, poisoned1, row1 = Signal(11), Signal(3), Signal(), Signal(row)
        second = Signal(32)
        m.d.comb += second.eq(Cat(*(head.second.word_select(n, 8) for n in reversed(range(4)))))
        m.d.sync += [valid1.eq(beats.valid & beats.ready), beat1.eq(beats.p),
                     first1.eq(beats.valid & beats.ready & beats.p.first)]
        with m.If(beats.valid & beats.ready & beats.p.first):
            m.d.sync += [
                tag1.eq(tag_field), ours1.eq((tag_field < self.tags) & (head.third[16:] == self.id)),
                kind1.eq(head.type), length1.eq(head.length), poisoned1.eq(head.poisoned),
                status1.eq(second[13:16]), wants1.eq(second[:12]), low1.eq(head.third[:7]),
                row1.eq(look.data),
            ]

        # Step 1: compare, and what the row becomes
        dws_left, taken, next_offset = Signal(left_bits), Signal(13), Signal(13)
        m.d.comb += [
            dws_left.eq((row1.offset[:2] + row1.left + 3)[2:]),
            taken.eq((length1 << 2) - row1.offset[:2]),
            next_offset.eq(Cat(Const(0, 2), row1.offset[2:] + length1)),
        ]
        beat2, valid2 = Signal(Beat), Signal()
        tag2, ours2, word2 = Signal(tag_bits), Signal(), Signal(range(self.size // 8))
        match2, final2, good2, over2 = Signal(), Signal(), Signal(), Signal()
        row2 = Signal(row)
        m.d.sync += [valid2.eq(valid1), beat2.eq(beat1), first2.eq(first1)]
        with m.If(first1):
            m.d.sync += [
                tag2.eq(tag1), ours2.eq(ours1), word2.eq(row1.offset[3:]),
                match2.eq((wants1 == row1.left) & (low1 == row1.offset[:7]) & (length1 <= dws_left)),
                final2.eq(length1 == dws_left),
                good2.eq((kind1 == Type.CPLD) & (status1 == Status.SC)),
                # The last one for this read, if what it says of itself is true
                over2.eq((kind1 == Type.CPL) | (status1 != Status.SC)
                         | (((wants1 + low1[:2]) <= (length1 << 2)) & wants1.any())),
                row2.offset.eq(next_offset), row2.left.eq(row1.left - taken),
            ]
        poisoned2 = Signal()
        with m.If(first1):
            m.d.sync += poisoned2.eq(poisoned1)

        # Step 2: do it
        used, ready, live, kept_live, write = Signal(), Signal(), Signal(), Signal(), Signal()
        live_now, known = Signal(), Signal()
        m.d.comb += [
            used.eq(Array(self.used)[tag2]), ready.eq(Array(self.ready)[tag2]),
            live_now.eq(ours2 & used & ~ready),
            live.eq(Mux(first2, live_now, kept_live)),
            known.eq(ours2 & used),
            write.eq(valid2 & live & match2 & good2 & ~poisoned2),
            self.write_en.eq(Mux(write, beat2.mask, 0)),
            self.write_addr.eq(Cat(word2, tag2)), self.write_data.eq(beat2.data),
        ]
        with m.If(first2):
            m.d.sync += kept_live.eq(live_now)
        with m.If(valid2 & ~first1 & beat2.mask.any()):      # the next TLP may be loading it
            m.d.sync += word2.eq(word2 + 1)
        fine, last2 = Signal(), Signal()
        m.d.comb += [
            last2.eq(valid2 & beat2.last),
            fine.eq(match2 & good2 & ~beat2.err),
            self.event.valid.eq(last2 & known),
            self.event.tag.eq(tag2),
            self.event.failed.eq(live & (~fine | poisoned2)),
            self.event.ready.eq(live & (~fine | poisoned2 | final2)),
            self.event.closed.eq(Mux(live & fine, final2, over2 & ~beat2.err)),
        ]
        m.d.sync += self.bad.eq(last2 & (~live | (good2 & ~fine)))

        # One write port for both: completions first, since a read can wait.
        m.d.comb += [
            update.en.eq(1), self.expect.ready.eq(~first2),
            update.addr.eq(Mux(first2, tag2, self.expect.p.tag)),
            update.data.eq(Mux(first2, row2, Cat(self.expect.p.offset, self.expect.p.left))),
            update.en.eq(Mux(first2, live_now & match2 & good2, self.expect.valid)),
        ]

        return m
