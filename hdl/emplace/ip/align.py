"""Ethernet header off, IPv4 header to byte 0. Ref: IEEE Std 802.3 §3.2.6 (type), IEEE Std 802.1Q §9.3 (tag)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature

__all__ = ["Align"]


class Align(wiring.Component):
    """Shows each frame as words of its IPv4 packet: byte 0 of word 0 is the first byte of the IPv4 header.

    Also a second view, shifted by half a word or not, for the TCP payload: its words begin at 2 or 6
    bytes into a word of the frame. Both views are there in the cycle in which their last byte arrives.
    A cycle behind every frame's last word is ``end``, which shows what is left of that word, if anything.

    Throughput: one word a cycle, frames without a gap. Latency: 0.

    Members
    -------
    frames : ``In(PacketSignature(8))``
        From the destination MAC address on. Always ready.
    injected : ``In(1)``
        With the frame's last word: the host put it in.
    valid : ``Out(1)``
        ``word`` is one of an IPv4 packet's.
    index : ``Out(4)``
        Its number from 0, at most 15.
    word, payload : ``Out(64)``
        Bytes past the frame's end may be anything.
    half : ``In(1)``
        Which way ``payload`` is shifted: it begins with byte 2 (1) or 6 (0) of the frame's previous word.
    last : ``Out(1)``
        The frame's last word is there; its packet ends ``room`` bytes behind the beginning of ``word``.
    room : ``Out(4)``
    end : ``Out(1)``
        The cycle behind any frame's last word.
    err : ``Out(1)``
        With ``end``: the MAC says that the frame must be dropped.
    from_host : ``Out(1)``
        With ``end``: ``injected``.
    ipv4, tagged : ``Out(1)``
        Ethertype; 802.1Q tag. Right from ``index`` 0 up to ``end``.
    vlan : ``Out(12)``
        VLAN id, if ``tagged``.
    between : ``Out(1)``
        No frame has begun and not ended.
    """

    frames: stream.Interface
    injected: Signal
    valid: Signal
    index: Signal
    word: Signal
    payload: Signal
    half: Signal
    last: Signal
    room: Signal
    end: Signal
    err: Signal
    from_host: Signal
    ipv4: Signal
    tagged: Signal
    vlan: Signal
    between: Signal

    def __init__(self):
        super().__init__({
            "frames": In(PacketSignature(8)), "injected": In(1),
            "valid": Out(1), "index": Out(4), "word": Out(64),
            "payload": Out(64), "half": In(1),
            "last": Out(1), "room": Out(4), "end": Out(1), "err": Out(1), "from_host": Out(1),
            "ipv4": Out(1), "tagged": Out(1), "vlan": Out(12), "between": Out(1),
        })
        # Public to the proof only: the frame's previous word; where in the frame the next one is: 0, 1, 2, more.
        self.before, self.position = Signal(64), Signal(2)

    def elaborate(self, platform):
        m = Module()
        i = self.frames
        now, before, position = i.p.data, self.before, self.position
        size = Signal(range(9))
        by_six, by_two = Signal(64), Signal(64)
        m.d.comb += [
            i.ready.eq(1),
            size.eq(8 - i.p.empty),
            by_six.eq(Cat(before[48:], now[:48])),
            by_two.eq(Cat(before[16:], now[:16])),
            self.word.eq(Mux(self.tagged, by_two, by_six)),
            self.payload.eq(Mux(self.half, by_two, by_six)),
            self.valid.eq(self.ipv4 & (self.end | (i.valid & (position != 0)))),
            self.last.eq(i.valid & i.p.last),
            self.room.eq(size + Mux(self.tagged, 6, 2)),
            self.between.eq(position == 0),
        ]
        m.d.sync += [self.end.eq(self.last), self.err.eq(i.p.err), self.from_host.eq(self.injected)]
        with m.If(self.valid & (self.index != 15)):
            m.d.sync += self.index.eq(self.index + 1)
        with m.If(i.valid):
            m.d.sync += before.eq(now)
            with m.If(i.p.last):
                m.d.sync += position.eq(0)
            with m.Elif(position != 3):
                m.d.sync += position.eq(position + 1)
            with m.Switch(position):
                with m.Case(0):
                    m.d.sync += [self.index.eq(0), self.ipv4.eq(0), self.tagged.eq(0)]
                with m.Case(1):
                    m.d.sync += [
                        self.ipv4.eq((now[32:48] == 0x0008) & (size >= 6)),
                        self.tagged.eq((now[32:48] == 0x0081) & (size >= 6)),
                        self.vlan.eq(Cat(now[56:64], now[48:52])),
                    ]
                with m.Case(2):
                    with m.If(self.tagged):
                        m.d.sync += self.ipv4.eq((now[:16] == 0x0008) & (size >= 2))
        return m
