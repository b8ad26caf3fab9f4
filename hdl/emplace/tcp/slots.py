"""Slot memory, and who may have which slot next."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..ip.records import SlotWrite
from .records import SlotIndex, SlotRead

__all__ = ["SlotMemory"]


class SlotMemory(wiring.Component):
    """The receive slots with one write and one read port, and the set of free ones.

    Throughput: one word written, one word read, one slot allotted and two freed per cycle. Latency: a word can be asked
    for in the cycle after it was accepted; it is there 2 cycles after ``en`` (memory, output register). A freed
    slot is offered again after 2 cycles at the earliest.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    slot_write : ``In(stream.Signature(SlotWrite(config), always_ready=True))``
    slot_append : ``In(stream.Signature(SlotWrite(config)))``
        Taken in cycles without ``slot_write``.
    slot_read : ``In(SlotRead(config))``
    alloc : ``Out(stream.Signature(SlotIndex(config)))``
        A free slot; whoever takes it owns it.
    frees : ``In(stream.Signature(SlotIndex(config), always_ready=True)).array(2)``
        Slots given back by their owners. To free a slot that is free is the caller's error.
    free_count : ``Out(range(slots + 1))``
        Slots in nobody's hands, the one on offer counted.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "slot_write":  In(stream.Signature(SlotWrite(config), always_ready=True)),
            "slot_append": In(stream.Signature(SlotWrite(config))),
            "slot_read":   In(SlotRead(config)),
            "alloc":       Out(stream.Signature(SlotIndex(config))),
            "frees":       In(stream.Signature(SlotIndex(config), always_ready=True)).array(2),
            "free_count":  Out(range(config.slots + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        slots, slot_words = self.config.slots, self.config.slot_words

        # Words. The slot's number is the high part of the address.
        m.submodules.words = words = memory.Memory(shape=64, depth=slots * slot_words, init=[])
        write, read = words.write_port(), words.read_port()
        source = Signal(SlotWrite(self.config))
        m.d.comb += source.eq(self.slot_append.payload)
        with m.If(self.slot_write.valid):
            m.d.comb += source.eq(self.slot_write.payload)
        fetched = Signal()
        m.d.comb += [
            self.slot_append.ready.eq(~self.slot_write.valid),
            write.en.eq(self.slot_write.valid | self.slot_append.valid),
            write.addr.eq(Cat(source.address, source.slot)),
            write.data.eq(source.data),
            read.en.eq(self.slot_read.en),
            read.addr.eq(Cat(self.slot_read.address, self.slot_read.slot)),
        ]
        m.d.sync += fetched.eq(self.slot_read.en)
        with m.If(fetched):
            m.d.sync += self.slot_read.data.eq(read.data)

        # Free slots: a bit each; the lowest goes on offer. Found in two levels of eight, to keep the chain short.
        free = Signal(slots, init=(1 << slots) - 1)
        groups = -(-slots // 8)
        padded = Signal(8 * groups)
        some = Signal(groups)
        high, low = Signal(range(max(groups, 2))), Signal(3)
        row = Signal(8)
        m.d.comb += [
            padded.eq(free),
            some.eq(Cat(padded[8 * n:8 * n + 8].any() for n in range(groups))),
            row.eq(padded.word_select(high, 8)),
        ]
        for chosen, bits in ((high, some), (low, row)):
            for n in reversed(range(len(bits))):
                with m.If(bits[n]):
                    m.d.comb += chosen.eq(n)

        refill, taken = Signal(), Signal()
        picked, given = Signal(slots), [Signal(slots, name=f"given{n}") for n in range(2)]
        m.d.comb += [
            taken.eq(self.alloc.valid & self.alloc.ready),
            refill.eq((taken | ~self.alloc.valid) & some.any()),
            picked.eq(refill << Cat(low, high)),
        ]
        with m.If(taken | ~self.alloc.valid):
            m.d.sync += [self.alloc.valid.eq(refill), self.alloc.p.slot.eq(Cat(low, high))]
        for port, bits in zip(self.frees, given, strict=True):
            m.d.comb += bits.eq(port.valid << port.p.slot)
        m.d.sync += free.eq((free & ~picked) | given[0] | given[1])

        # Counted apart from the bits, so that nobody waits for a sum of them all.
        count = Signal(range(slots + 1), init=slots)
        change = Signal(2)
        m.d.comb += [change.eq(Const(0, 1) + self.frees[0].valid + self.frees[1].valid), self.free_count.eq(count)]
        m.d.sync += count.eq(count + change - taken)
        return m
