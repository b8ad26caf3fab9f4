"""Packets from one clock domain to another."""

# Ref: C. E. Cummings, "Simulation and Synthesis Techniques for Asynchronous FIFO Design", SNUG 2002

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import cdc, fifo, wiring
from amaranth.lib.data import View
from amaranth.lib.wiring import In, Out

from .packet import PacketSignature

__all__ = ["AsyncPacketQueue"]


def _gray(value):
    return value ^ (value >> 1)


class AsyncPacketQueue(wiring.Component):
    """Holds packets until they are complete, then hands them over without a gap, whatever the two clocks.

    Pointers and a count of packets cross in Gray code. A packet leaves when all of it is inside, or, if it is longer than
    the queue, when the queue is full. ``err`` passes through.

    Throughput: one word per cycle of the slower clock. Latency: 2 to 3 cycles of ``i_domain`` and 4 to 5 of
    ``o_domain`` from a packet's last word in to its first word out.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word.
    depth : :class:`int`
        Words; a power of two, at least 8.
    i_domain, o_domain : :class:`str`
        Clock domains of ``i`` (and ``overflow``) and ``o``.
    drop_when_full : :class:`bool`
        True: ``i.ready`` is always high; a packet that meets a full queue is dropped, or if it has begun already,
        ends with ``err``. False: ``i.ready`` falls while the queue is full.

    Members
    -------
    i : ``In(PacketSignature(nbytes))``
    o : ``Out(PacketSignature(nbytes))``
    overflow : ``Out(1)``
        Strobe: a packet was dropped or cut short.
    """

    def __init__(self, nbytes, depth, *, i_domain, o_domain, drop_when_full=False):
        if depth < 8 or depth & (depth - 1):
            raise ValueError(f"Depth must be a power of two of at least 8, not {depth!r}")
        self.nbytes, self.depth, self.drop_when_full = nbytes, depth, drop_when_full
        self.i_domain, self.o_domain = i_domain, o_domain
        super().__init__({
            "i":        In(PacketSignature(nbytes)),
            "o":        Out(PacketSignature(nbytes)),
            "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        shape = i.p.shape()
        width = shape.size
        m.submodules.store = store = fifo.AsyncFIFO(width=width, depth=self.depth, w_domain=self.i_domain,
                                                    r_domain=self.o_domain)
        bits = self.depth.bit_length()

        # In. With drop_when_full the last free word is kept for the end of a packet that has to be cut short;
        # another one because w_level is a cycle late.
        word, push = Signal(shape), Signal()
        m.d.comb += [
            word.eq(i.payload),
            store.w_data.eq(word), store.w_en.eq(push),
        ]
        if self.drop_when_full:
            begun, spoiled, room = Signal(), Signal(), Signal()
            m.d.comb += [
                i.ready.eq(1),
                room.eq(store.w_level < self.depth - 2),
                push.eq(i.valid & ~spoiled & (room | (begun & store.w_rdy))),
                self.overflow.eq(i.valid & ~spoiled & ~room),
            ]
            with m.If(~room):
                m.d.comb += [word.last.eq(1), word.err.eq(1), word.empty.eq(0)]
            with m.If(i.valid):
                m.d[self.i_domain] += [
                    spoiled.eq((spoiled | ~room) & ~i.p.last),
                    begun.eq((begun | push) & ~i.p.last),
                ]
        else:
            m.d.comb += [i.ready.eq(store.w_rdy), push.eq(i.valid & i.ready)]
        packets_in, crossing = Signal(bits), Signal(bits)
        with m.If(push & word.last):
            m.d[self.i_domain] += packets_in.eq(packets_in + 1)
        m.d[self.i_domain] += crossing.eq(_gray(packets_in))

        # Out. The count crosses more slowly than the write pointer, so that the words are there before it. A packet that
        # leaves because the queue is full may do so before it has been counted: then `whole` is negative for a while.
        arrived, seen, packets_out, whole = Signal(bits), Signal(bits), Signal(bits), Signal(bits)
        m.submodules.cross = cdc.FFSynchronizer(crossing, arrived, o_domain=self.o_domain, stages=3)
        under_way, go = Signal(), Signal()
        m.d[self.o_domain] += seen.eq(Cat((arrived >> n).xor() for n in range(bits)))
        read = View(shape, store.r_data)
        m.d.comb += [
            whole.eq(seen - packets_out),
            go.eq(under_way | (whole.any() & ~whole[-1]) | (store.r_level >= self.depth - 2)),
            o.payload.eq(read), o.valid.eq(store.r_rdy & go), store.r_en.eq(o.valid & o.ready),
        ]
        with m.If(store.r_en):
            m.d[self.o_domain] += under_way.eq(~read.last)
            with m.If(read.last):
                m.d[self.o_domain] += packets_out.eq(packets_out + 1)
        # A reset of the writing side empties the queue; its count starts again.
        with m.If(store.r_rst):
            m.d[self.o_domain] += [packets_out.eq(0), under_way.eq(0)]

        return m
