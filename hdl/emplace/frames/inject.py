"""Frames of the host into the receive path."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from ..stream.queue import PacketQueue

__all__ = ["Inject"]

_GAP = 2               # cycles without a word between two frames: a wire leaves as many


class Inject(wiring.Component):
    """Lets the wire's frames through, and the host's in between.

    While there is none of the host's, a frame of the wire goes straight through. While one goes in, those of the wire
    wait in a queue of whole frames, and go on waiting for one another until nothing is left in it and none is just
    arriving; meanwhile the host's frames take turns with them. One that finds no room there is dropped whole.

    Throughput: a word per cycle; two cycles between frames, which is what the wire leaves. Latency: 0 straight through.

    Parameters
    ----------
    depth : :class:`int`
        Words of the queue.

    Members
    -------
    wire, host : ``In(PacketSignature(8))``
        The wire's is always taken. Frames with ``err`` may not come out. The host's have the length that a MAC lets in.
    o : ``Out(PacketSignature(8))``
        Never waits: ``ready`` is not looked at.
    injected : ``Out(1)``
        The word is the host's.
    overflow : ``Out(1)``
        Strobe: a frame of the wire was dropped.
    """

    def __init__(self, depth=512):
        self.depth = depth
        super().__init__({
            "wire":     In(PacketSignature(8)),
            "host":     In(PacketSignature(8)),
            "o":        Out(PacketSignature(8)),
            "injected": Out(1),
            "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        wire, host, o = self.wire, self.host, self.o
        m.submodules.waiting = waiting = PacketQueue(8, self.depth, drop_when_full=True)

        arriving, between = Signal(), Signal()       # a frame of the wire has begun; none has, nor begins
        m.d.comb += [between.eq(~arriving & ~wire.valid), wire.ready.eq(1), self.overflow.eq(waiting.overflow)]
        with m.If(wire.valid):
            m.d.sync += arriving.eq(~wire.p.last)

        # May the next frame begin with the next cycle?
        opened, gap, free = Signal(), Signal(range(_GAP)), Signal()
        m.d.comb += free.eq((gap == 0) & ~opened)
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(o.valid):
            m.d.sync += opened.eq(~o.p.last)
            with m.If(o.p.last):
                m.d.sync += gap.eq(_GAP - 1)

        m.d.comb += [waiting.i.payload.eq(wire.payload), waiting.i.valid.eq(wire.valid), o.payload.eq(waiting.o.payload)]
        with m.FSM(name="inject"):
            with m.State("STRAIGHT"):    # for the host
                m.d.comb += [o.payload.eq(wire.payload), o.valid.eq(wire.valid), waiting.i.valid.eq(0)]
                with m.If(host.valid & between & free):
                    m.next = "HOST"
            with m.State("HOST"):        # for the end of its frame
                m.d.comb += [o.payload.eq(host.payload), o.valid.eq(host.valid), host.ready.eq(1), self.injected.eq(1)]
                with m.If(host.valid & host.p.last):
                    m.next = "NEXT"
            with m.State("NEXT"):        # for a frame of the wire, or for none to be under way
                with m.If(free):
                    with m.If(waiting.o.valid):
                        m.next = "WIRE"
                    with m.Elif(host.valid):
                        m.next = "HOST"
                    with m.Elif(between & (waiting.level == 0)):
                        m.next = "STRAIGHT"
            with m.State("WIRE"):        # for the end of the frame that has waited
                m.d.comb += [o.valid.eq(waiting.o.valid), waiting.o.ready.eq(1)]
                with m.If(waiting.o.valid & waiting.o.p.last):
                    m.next = "TURN"
            with m.State("TURN"):        # for the host, whose turn it is
                with m.If(~host.valid):
                    m.next = "NEXT"
                with m.Elif(free):
                    m.next = "HOST"
        return m
