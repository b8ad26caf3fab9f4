"""From slots to a dense stream of words."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..tcp.records import SlotRead
from .records import Piece

__all__ = ["SlotReader"]


class SlotReader(wiring.Component):
    """Reads up to three pieces of slots, one behind the other, and packs their octets into words.

    Pieces may begin and end at any octet. Throughput: one word a cycle; where pieces meet or end inside words, each
    word read takes a cycle, so that a joint costs one at most. Latency from ``start`` to the first word: 4 cycles,
    the memory's 2 included.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    start : ``In(1)``
        Strobe: forget what was under way, read ``pieces``.
    pieces : ``In(data.ArrayLayout(Piece(config), 3))``
        In stream order. Any may be empty, but the third must be if the second is.
    flush : ``In(1)``
        Strobe: forget what is under way. Nothing comes out from the next cycle on.
    read : ``Out(SlotRead(config))``
    o : ``Out(stream.Signature(64))``
        The octets, first lowest. The last word is filled up with anything.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "start":  In(1),
            "pieces": In(data.ArrayLayout(Piece(config), 3)),
            "flush":  In(1),
            "read":   Out(SlotRead(config)),
            "o":      Out(stream.Signature(64)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # The piece being read: `span` counts from octet 0 of the current word to the piece's end.
        slot, word = Signal(config.slot_bits), Signal(8)
        lane, span = Signal(3), Signal(12)
        first, some = Signal(), Signal()
        running, owed = Signal(), Signal()   # owed: a last word whose octets are all there already
        place = Signal(3)                    # lane of the next octet in the packed stream
        coming = [Signal(Piece(config), name=f"coming_{n}") for n in range(2)]
        more = [Signal(name=f"more_{n}") for n in range(2)]

        def load(piece):
            return [slot.eq(piece.slot), word.eq(piece.at[3:]), lane.eq(piece.at[:3]),
                    span.eq(piece.length + piece.at[:3]), first.eq(1), some.eq(piece.length != 0)]

        # One operation of the packer for each read; it takes effect when the data are there.
        shape = data.StructLayout({"valid": 1, "turn": 3, "place": 4, "emit": 1})
        asked, there = Signal(shape), Signal(shape)

        level = Signal(range(6))             # words in the queue behind the packer
        room = Signal()
        m.d.comb += room.eq(level + asked.valid + there.valid < 5)

        last, final, issue = Signal(), Signal(), Signal()
        begin, count, filled = Signal(3), Signal(4), Signal(4)
        m.d.comb += [
            last.eq(span <= 8),
            final.eq(last & ~more[0]),
            begin.eq(Mux(first, lane, 0)),
            count.eq(Mux(last, span[:4], 8) - begin),
            filled.eq(place + count),
            issue.eq(running & some & room),
            self.read.en.eq(issue),
            self.read.slot.eq(slot),
            self.read.address.eq(word),
        ]
        m.d.sync += [asked.valid.eq(0), there.eq(asked)]
        with m.If(issue):
            m.d.sync += [
                asked.valid.eq(1),
                asked.turn.eq(place - begin),
                asked.place.eq(place),
                asked.emit.eq(filled[3] | final),
                place.eq(filled),
                first.eq(0),
                word.eq(word + 1),
                span.eq(span - 8),
                owed.eq(final & filled[3] & filled[:3].any()),
            ]
        with m.Elif(owed & room):
            m.d.sync += [owed.eq(0), asked.valid.eq(1), asked.place.eq(8), asked.emit.eq(1)]
        with m.If(running & (~some | (issue & last))):
            m.d.sync += [*load(coming[0]), running.eq(more[0]), coming[0].eq(coming[1]), Cat(more).eq(more[1])]

        # Packer: the word is turned so that its first octet meets its place; what doesn't fit waits.
        turned = [Signal(64, name=f"turned_{n}") for n in range(4)]
        waiting, packed = Signal(64), Signal(64)
        m.d.comb += turned[0].eq(self.read.data)
        for step in range(3):
            m.d.comb += turned[step + 1].eq(
                Mux(there.turn[step], turned[step].rotate_left(8 << step), turned[step]))
        for n in range(8):
            m.d.comb += packed.word_select(n, 8).eq(
                Mux(n < there.place, waiting.word_select(n, 8), turned[3].word_select(n, 8)))
        push, pop = Signal(), Signal()
        m.d.comb += [push.eq(there.valid & there.emit), pop.eq(self.o.valid & self.o.ready)]
        with m.If(there.valid):
            m.d.sync += waiting.eq(Mux(there.emit, turned[3], packed))

        # Queue: four words behind an output register, which is passed to directly.
        m.submodules.store = store = memory.Memory(shape=64, depth=4, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        stored, tail, behind = Signal(2), Signal(2), Signal(range(5))
        move = Signal()
        m.d.comb += [
            level.eq(behind + self.o.valid),
            move.eq(pop | ~self.o.valid),
            read.addr.eq(tail),
            write.addr.eq(stored),
            write.data.eq(packed),
            write.en.eq(push & ~(move & (behind == 0))),
        ]
        with m.If(move):
            m.d.sync += self.o.valid.eq(push | (behind != 0))
            with m.If(behind != 0):
                m.d.sync += [self.o.payload.eq(read.data), tail.eq(tail + 1)]
            with m.Else():
                m.d.sync += self.o.payload.eq(packed)
        with m.If(write.en):
            m.d.sync += stored.eq(stored + 1)
        m.d.sync += behind.eq(behind + write.en - (move & (behind != 0)))

        with m.If(self.start | self.flush):
            m.d.sync += [running.eq(0), owed.eq(0), asked.valid.eq(0), there.valid.eq(0), self.o.valid.eq(0),
                         stored.eq(0), tail.eq(0), behind.eq(0)]
        with m.If(self.start):
            m.d.sync += [*load(self.pieces[0]), running.eq(1), place.eq(0),
                         *(coming[n].eq(self.pieces[n + 1]) for n in range(2)),
                         *(more[n].eq(self.pieces[n + 1].length != 0) for n in range(2))]
        return m
