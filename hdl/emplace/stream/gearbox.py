"""Packets to words of twice or half the size."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .packet import PacketSignature

__all__ = ["Widener", "Narrower"]


class Widener(wiring.Component):
    """Words of ``nbytes`` to words of ``2 * nbytes``.

    Throughput: one input word per cycle. Latency: 1 cycle from the word that completes an output word.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word of ``i``.

    Members
    -------
    i : ``In(PacketSignature(nbytes))``
    o : ``Out(PacketSignature(2 * nbytes))``
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({"i": In(PacketSignature(nbytes)), "o": Out(PacketSignature(2 * nbytes))})
        # The first half of a word. Public to the proof only.
        self.lower, self.have = Signal(8 * nbytes), Signal()

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        lower, have = self.lower, self.have
        whole = Signal()
        m.d.comb += [
            whole.eq(have | i.p.last),
            i.ready.eq(~whole | o.ready | ~o.valid),
        ]
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(i.valid & i.ready):
            m.d.sync += have.eq(~whole)
            with m.If(whole):
                m.d.sync += [
                    o.valid.eq(1),
                    o.p.data.eq(Mux(have, Cat(lower, i.p.data), i.p.data)),
                    # A missing upper half is nbytes more of emptiness.
                    o.p.empty.eq(Mux(i.p.last, Cat(i.p.empty, ~have), 0)),
                    o.p.last.eq(i.p.last), o.p.err.eq(i.p.err),
                ]
            with m.Else():
                m.d.sync += lower.eq(i.p.data)
        return m


class Narrower(wiring.Component):
    """Words of ``2 * nbytes`` to words of ``nbytes``.

    Throughput: one output word per cycle. Latency: 0 cycles.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word of ``o``.

    Members
    -------
    i : ``In(PacketSignature(2 * nbytes))``
    o : ``Out(PacketSignature(nbytes))``
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({"i": In(PacketSignature(2 * nbytes)), "o": Out(PacketSignature(nbytes))})
        # The lower half has been handed over. Public to the proof only.
        self.upper = Signal()

    def elaborate(self, platform):
        m = Module()
        i, o, nbytes = self.i, self.o, self.nbytes
        upper = self.upper
        short, final = Signal(), Signal()
        bits = len(i.p.empty) - 1
        m.d.comb += [
            short.eq(i.p.last & i.p.empty[bits]),            # the upper half is empty
            final.eq(upper | short),
            o.valid.eq(i.valid), i.ready.eq(o.ready & final),
            o.p.data.eq(Mux(upper, i.p.data[8 * nbytes:], i.p.data[:8 * nbytes])),
            o.p.last.eq(i.p.last & final), o.p.err.eq(i.p.err & final),
            o.p.empty.eq(Mux(o.p.last, i.p.empty[:bits], 0)),
        ]
        with m.If(i.valid & o.ready):
            m.d.sync += upper.eq(~final)
        return m
