"""Takes received TLPs apart: header, and payload aligned to its address."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .tlp import Beat, Head, swap

__all__ = ["Unpacker"]


class Unpacker(wiring.Component):
    """Received TLPs to a header and 8-byte beats, aligned to the address (of a completion: to its Lower Address).

    The header of 3 doublewords costs no beat of its own: a completion of 128 bytes takes 17 cycles. TLPs of less than
    12 bytes are dropped. Payload beyond the header's Length (a digest, if there is one) is masked out.

    Throughput: 8 bytes per cycle. Latency: 2 cycles.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word of ``i``, 8 or 16.

    Members
    -------
    i : ``In(PacketSignature(nbytes))``
    o : ``Out(stream.Signature(Beat))``
        Every TLP's first beat comes with its ``head``; at most the beats behind it have payload as well.
    head : ``Out(Head)``
        Constant from a TLP's first beat to its last.
    """

    def __init__(self, nbytes):
        if nbytes not in (8, 16):
            raise ValueError(f"TLP words are 8 or 16 bytes, not {nbytes!r}")
        self.nbytes = nbytes
        super().__init__({
            "i":    In(PacketSignature(nbytes)),
            "o":    Out(stream.Signature(Beat)),
            "head": Out(Head),
        })

    def elaborate(self, platform):
        m = Module()
        i, o, head = self.i, self.o, self.head

        # Words of 8 bytes from the TLP's ninth byte on, and beside them its first eight.
        start = Signal(64)
        word, half = Signal(64), Signal()            # `half`: only the lower doubleword is there
        have, begins, ends, err, next_word = Signal(), Signal(), Signal(), Signal(), Signal()
        fresh = Signal(init=1)                       # the next word of `i` begins a TLP
        with m.If(i.valid & i.ready):
            m.d.sync += fresh.eq(i.p.last)
        if self.nbytes == 8:
            second = Signal()                        # the word at hand is the TLP's second
            m.d.comb += [
                word.eq(i.p.data), half.eq(i.p.last & (i.p.empty >= 4)), ends.eq(i.p.last), err.eq(i.p.err),
                have.eq(i.valid & ~fresh), begins.eq(second),
                i.ready.eq(fresh | next_word),
            ]
            with m.If(i.valid & i.ready):
                m.d.sync += second.eq(fresh)
                with m.If(fresh):
                    m.d.sync += start.eq(i.p.data)
        else:
            upper = Signal()                         # the lower 8 bytes of the word at hand are done with
            m.d.comb += [
                begins.eq(fresh),
                word.eq(Mux(fresh | upper, i.p.data[64:], i.p.data[:64])),
                ends.eq(i.p.last & (fresh | upper | (i.p.empty >= 8))),
                half.eq(ends & (i.p.empty[:3] >= 4)),
                err.eq(i.p.err),
                have.eq(i.valid & ~(fresh & i.p.last & (i.p.empty >= 8))),
                i.ready.eq(~have | (next_word & (ends | fresh | upper))),
            ]
            with m.If(next_word & have):
                m.d.sync += upper.eq(~i.ready)

        # Where the payload lies in those words, and in the beats
        source = start if self.nbytes == 8 else i.p.data[:64]
        wide, loaded, moved, length = Signal(), Signal(), Signal(), Signal(11)
        low_address = Signal()                       # bit 2 of the address
        m.d.comb += [
            wide.eq(source[5]), loaded.eq(source[6]),
            length.eq(Cat(source[24:32], source[16:18])),
            low_address.eq(Mux(wide, word[58], word[26])),
        ]
        shift, data_left = Signal(), Signal(11)      # of the TLP under way, after its first word
        left = Signal(11)                            # doublewords of payload that are still to come
        m.d.comb += [
            moved.eq(Mux(begins, loaded & (wide == low_address), shift)),
            left.eq(Mux(begins, Mux(loaded, Mux(length == 0, 1024, length), 0), data_left)),
        ]
        has_low, has_high, low_out, over, more = Signal(), Signal(), Signal(), Signal(), Signal(11)
        kept, kept_valid = Signal(32), Signal()
        some, two, count, lacking = Signal(), Signal(), Signal(2), Signal()
        flushing, flush_err = Signal(), Signal()
        m.d.comb += [
            some.eq(left.any()), two.eq(left[1:].any()),
            has_low.eq(~begins & some),
            has_high.eq(~(begins & wide) & ~half & Mux(begins, some, two)),
            count.eq(has_low + has_high), more.eq(left - count),
            lacking.eq(left > count),                # more.any(), without waiting for it
            low_out.eq(~begins & kept_valid),
            over.eq(ends & moved & has_high),        # one more beat for the upper doubleword
        ]
        free = Signal()
        m.d.comb += [free.eq(o.ready | ~o.valid), next_word.eq(free & ~flushing)]
        with m.If(free):
            m.d.sync += [o.valid.eq(have | flushing), flushing.eq(0)]
        with m.If(free & flushing):
            m.d.sync += [
                o.p.data.eq(kept), o.p.mask.eq(0b01), o.p.first.eq(0), o.p.last.eq(1), o.p.err.eq(flush_err),
            ]
        with m.Elif(free & have):
            m.d.sync += [
                o.p.data.eq(Mux(moved, Cat(kept, word[:32]), word)),
                o.p.mask.eq(Mux(moved, Cat(low_out, has_low), Cat(has_low, has_high))),
                o.p.first.eq(begins), o.p.last.eq(ends & ~over),
                o.p.err.eq(ends & ~over & (err | lacking)),
                kept.eq(word[32:]), kept_valid.eq(has_high), shift.eq(moved), data_left.eq(more),
                flushing.eq(over), flush_err.eq(err | lacking),
            ]
            with m.If(begins):
                m.d.sync += [
                    head.type.eq(source[:8]), head.length.eq(Mux(length == 0, 1024, length)), head.poisoned.eq(source[22]),
                    head.second.eq(source[32:]), head.third.eq(swap(word[:32])), head.fourth.eq(swap(word[32:])),
                ]

        return m
