"""Transfers to TLP-sized parts."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .tlp import Part, Transfer

__all__ = ["Splitter"]

_HALF = 26     # the page number's lower half: the carry into the upper one is a cycle of its own


class Splitter(wiring.Component):
    """Cuts transfers at every multiple of ``128 << limit`` bytes, hence at every multiple of 4 KiB.

    Throughput: a part every 2 cycles, plus 1 cycle a transfer. Latency: 3 cycles.

    Parameters
    ----------
    note : :class:`~amaranth.hdl.ShapeLike`
        What goes along with a transfer.

    Members
    -------
    i : ``In(stream.Signature(Transfer(note)))``
    limit : ``In(3)``
        128 << n bytes; more than 5 counts as 5. A change counts from the next part on.
    o : ``Out(stream.Signature(Part(note)))``
        In order of address.
    """

    def __init__(self, note):
        self.note = note
        super().__init__({
            "i":     In(stream.Signature(Transfer(note))),
            "limit": In(3),
            "o":     Out(stream.Signature(Part(note))),
        })
        # Public to the proof only: what is still to be cut; the page after it, right a cycle after `page` is; the part
        # as it was measured, and which state this is.
        self.low, self.page, self.left = Signal(12), Signal(52), Signal(13)
        self.next_lower, self.next_upper = Signal(_HALF + 1), Signal(52 - _HALF)
        self.length, self.fits, self.wide, self.block = Signal(13), Signal(), Signal(), Signal(12)
        self.carried = Signal(note)
        self.measuring, self.emitting = Signal(), Signal()

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o

        low, page, left = self.low, self.page, self.left
        next_lower, next_upper = self.next_lower, self.next_upper
        note = self.carried
        length, fits, wide, block = self.length, self.fits, self.wide, self.block
        m.d.sync += [next_lower.eq(page[:_HALF] + 1), next_upper.eq(page[_HALF:] + 1)]

        mask, room = Signal(12), Signal(13)
        with m.Switch(self.limit):
            for n in range(5):
                with m.Case(n):
                    m.d.comb += mask.eq((128 << n) - 1)
            with m.Default():
                m.d.comb += mask.eq(4095)
        m.d.comb += room.eq((~low & mask) + 1)

        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)

        end, dwords, words, following = Signal(14), Signal(14), Signal(14), Signal(13)
        first_be, last_be, single = Signal(4), Signal(4), Signal()
        m.d.comb += [
            end.eq(low[:3] + length),
            dwords.eq(low[:2] + length + 3),
            words.eq(low[:3] + length + 7),
            single.eq(~length[3:].any() & (low[:2] + length[:3] <= 4)),
            first_be.eq(Const(15, 4) << low[:2]),
            following.eq((low | block) + 1),
        ]
        with m.Switch((low[:2] + length[:2])[:2]):
            for n in range(4):
                with m.Case(n):
                    m.d.comb += last_be.eq((1 << n) - 1 if n else 15)

        with m.FSM():
            with m.State("IDLE"):        # for a transfer
                m.d.comb += i.ready.eq(1)
                m.d.sync += [low.eq(i.p.address[:12]), page.eq(i.p.address[12:]), left.eq(i.p.length), note.eq(i.p.note)]
                with m.If(i.valid):
                    m.next = "MEASURE"
            with m.State("MEASURE"):     # for nothing: how much goes into the next part
                m.d.comb += self.measuring.eq(1)
                m.d.sync += [
                    fits.eq(left <= room),
                    length.eq(Mux(left <= room, left, room)),
                    wide.eq(page[20:].any()),
                    block.eq(mask),
                ]
                m.next = "EMIT"
            with m.State("EMIT"):        # for room at the output
                m.d.comb += self.emitting.eq(1)
                with m.If(o.ready | ~o.valid):
                    m.d.sync += [
                        o.valid.eq(1),
                        o.p.address.eq(Cat(low, page)), o.p.length.eq(length),
                        o.p.dwords.eq(dwords[2:]), o.p.words.eq(words[3:]),
                        o.p.upper.eq(low[2]), o.p.lower.eq((end[:3] >= 1) & (end[:3] <= 4)),
                        o.p.first_be.eq(Mux(single, first_be & last_be, first_be)),
                        o.p.last_be.eq(Mux(single, 0, last_be)),
                        o.p.wide.eq(wide), o.p.last.eq(fits), o.p.note.eq(note),
                        left.eq(left - length), low.eq(following[:12]),
                    ]
                    with m.If(following[12]):
                        m.d.sync += page.eq(Cat(next_lower[:_HALF],
                                                Mux(next_lower[_HALF], next_upper, page[_HALF:])))
                    with m.If(fits):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "MEASURE"

        return m
