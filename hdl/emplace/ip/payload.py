"""TCP payload into a slot, while it arrives."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .records import SlotIndex, SlotWrite

__all__ = ["Payload"]


class Payload(wiring.Component):
    """Keeps one slot in hand and writes each segment's payload to it, from byte 0 on.

    Who judges the segment says ``spend`` if the slot goes with it; otherwise the next segment is
    written over it. A segment that finds no slot, or whose predecessor's fate is open, is not written at all.

    Throughput: one word a cycle. Latency: 1 cycle from a word to its write.

    Members
    -------
    valid, index, payload, half, end, tagged : as in :class:`~emplace.ip.align.Align`
    length_new, length_next, data_offset_next : as in :class:`~emplace.ip.header.Header`
    alloc : ``In(stream.Signature(SlotIndex(config)))``
    slot_write : ``Out(stream.Signature(SlotWrite(config), always_ready=True))``
    slot : ``Out(slot_bits)``
        In hand.
    placed : ``Out(1)``
        The last segment's payload is in ``slot``. Right from the cycle behind ``end``.
    open : ``In(1)``
        A segment has not been judged yet.
    spend : ``In(1)``
        The slot belongs to somebody else from now on.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "valid": In(1), "index": In(4), "payload": In(64), "half": Out(1), "tagged": In(1), "end": In(1),
            "length_new": In(1), "length_next": In(signed(17)), "data_offset_next": In(4),
            "alloc": In(stream.Signature(SlotIndex(config))),
            "slot_write": Out(stream.Signature(SlotWrite(config), always_ready=True)),
            "slot": Out(config.slot_bits), "placed": Out(1), "open": In(1), "spend": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        m.d.comb += self.alloc.ready.eq(~held)
        with m.If(self.alloc.valid & ~held):
            m.d.sync += [self.slot.eq(self.alloc.p.slot), held.eq(1)]
        with m.If(self.spend):
            m.d.sync += held.eq(0)

        # The payload begins 34 or 38 bytes and the TCP header into the frame: which word of the packet is the first
        # that has all of its first eight bytes, and how it is shifted, follows from data offset and tag.
        halves = Signal(5)
        begin, left = Signal(4), Signal(signed(17))
        m.d.comb += halves.eq(self.data_offset_next + self.tagged)
        with m.If(self.length_new):
            m.d.sync += [begin.eq(halves[1:] + Mux(self.tagged, 2, 3)), self.half.eq(~halves[0])]

        starting, writing, running = Signal(), Signal(), Signal()
        address = Signal((self.config.slot_words - 1).bit_length())
        m.d.comb += [
            starting.eq((self.index == begin) & (self.index >= 5) & held & ~self.open),
            writing.eq(self.valid & (starting | running) & (left > 0)),
        ]
        m.d.sync += [
            self.slot_write.valid.eq(writing),
            self.slot_write.p.eq(Cat(self.slot, address, self.payload)),
        ]
        with m.If(writing):
            m.d.sync += [left.eq(left - 8), address.eq(address + 1), running.eq(1), self.placed.eq(1)]
        with m.If(self.length_new):
            m.d.sync += [left.eq(self.length_next), address.eq(0), self.placed.eq(0)]
        with m.If(self.end):
            m.d.sync += running.eq(0)
        return m
