"""Puts packets behind one another, byte by byte."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .packet import PacketSignature, PacketWord

__all__ = ["JoinWord", "Joiner"]


class JoinWord(data.StructLayout):
    """A word of :class:`Joiner`'s input: :class:`PacketWord`, and how its packet (a *piece*) is joined.

    Members
    -------
    data, empty, last, err
        As in PacketWord. Every word has a byte at least.
    skip : ``range(nbytes)``
        Lanes of the piece's first word before its first byte. Constant in a piece.
    lead : ``range(nbytes)``
        Lanes of the output's first word to leave before the first byte. Constant in a piece; only the first piece's counts.
    joins : ``unsigned(1)``
        The next piece goes on in the same packet. Constant in a piece.
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({**{name: field.shape for name, field in PacketWord(nbytes)},
                          "skip": range(nbytes), "lead": range(nbytes), "joins": 1})


class Joiner(wiring.Component):
    """Makes one packet of one or more pieces of any length, each beginning in any lane.

    ``err`` of any piece is the packet's.

    Throughput: one word per cycle, one more at the end of a packet whose last input word doesn't fit into the output word
    under way. Latency: 2 cycles.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word, a power of two.

    Members
    -------
    i : ``In(stream.Signature(JoinWord(nbytes)))``
    o : ``Out(PacketSignature(nbytes))``
        Lanes below ``lead`` of the first word are 0.
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({
            "i": In(stream.Signature(JoinWord(nbytes))),
            "o": Out(PacketSignature(nbytes)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o, nbytes = self.i, self.o, self.nbytes
        bits = nbytes.bit_length() - 1
        go = Signal()                    # the second stage moves

        # First stage: turn the word so that its first byte comes behind those that wait.
        opens, begins = Signal(init=1), Signal(init=1)       # the next word begins a packet, a piece
        fill = Signal(bits)              # lanes taken of the output's word under way
        start, skip, here = Signal(bits), Signal(bits), Signal(bits + 1)
        amount = Signal(bits)            # lanes up, around the corner
        total = Signal(bits + 1)         # lanes taken behind this word, up to 2 * nbytes - 1
        turned = Signal(8 * nbytes)
        m.d.comb += [
            start.eq(Mux(opens, i.p.lead, fill)), skip.eq(Mux(begins, i.p.skip, 0)),
            here.eq(nbytes - skip - i.p.empty), amount.eq(start - skip), total.eq(start + here),
            i.ready.eq(go),
        ]
        stage = i.p.data
        for bit in range(bits):
            step = Signal(8 * nbytes, name=f"turned{bit}")
            m.d.comb += step.eq(Mux(amount[bit], stage.rotate_left(8 << bit), stage))
            stage = step
        m.d.comb += turned.eq(stage)

        valid, word, before, after = Signal(), Signal(8 * nbytes), Signal(bits), Signal(bits + 1)
        ends, spoiled, spoils = Signal(), Signal(), Signal()
        m.d.comb += spoils.eq(i.p.last & i.p.err)
        with m.If(go):
            m.d.sync += [
                valid.eq(i.valid), word.eq(turned), before.eq(start), after.eq(total), ends.eq(i.p.last & ~i.p.joins),
            ]
            with m.If(i.valid):
                m.d.sync += [
                    fill.eq(total), begins.eq(i.p.last), opens.eq(i.p.last & ~i.p.joins),
                    spoiled.eq((spoiled & ~opens) | spoils),
                ]

        # Second stage: what waits, and the word behind it.
        kept, merged = Signal(8 * nbytes), Signal(8 * nbytes)
        full, over = Signal(), Signal()
        flushing, rest, free = Signal(), Signal(bits), Signal()
        m.d.comb += [
            merged.eq(Cat(Mux(before > lane, kept.word_select(lane, 8), word.word_select(lane, 8))
                          for lane in range(nbytes))),
            full.eq(after[bits]), over.eq(ends & full & (after[:bits] != 0)),
            free.eq(o.ready | ~o.valid), go.eq(~valid | (free & ~flushing)),
        ]
        with m.If(free):
            m.d.sync += [o.valid.eq(flushing | (valid & (full | ends))), flushing.eq(valid & over & ~flushing)]
            with m.If(flushing):
                m.d.sync += [o.p.data.eq(kept), o.p.last.eq(1), o.p.empty.eq(nbytes - rest)]
            with m.Else():
                m.d.sync += [
                    o.p.data.eq(merged), o.p.last.eq(ends & ~over), o.p.empty.eq(Mux(ends & ~full, nbytes - after, 0)),
                    o.p.err.eq(spoiled & ends), rest.eq(after),
                ]
        with m.If(valid & free & ~flushing):
            m.d.sync += kept.eq(Mux(full, word, merged))
        with m.If(free & (flushing | (valid & ends & ~over))):
            m.d.sync += kept.eq(0)       # the lanes below the next packet's `lead`
        return m
