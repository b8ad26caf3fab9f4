"""Packet queue: whole, good packets come out, in order; and a memory that is scrubbed is empty."""

from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from emplace.stream.queue import PacketQueue
from emplace.stream.scrub import scrub

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["QUEUE_PROOFS", "PacketQueueProof", "Scrubbed", "ScrubProof"]

_DEPTH = 4


class PacketQueueProof(wiring.Component):
    """Of :class:`PacketQueue`, 4 words deep.

    - Contract at ``o``; with ``drop_when_full``, ``i`` is always ready.
    - A packet's words count once its last one is in without ``err``, and it fitted: then all of them come out, in
      order, unaltered, and nothing else does. Shown for one byte of one word that the solver picks.
    - A packet that is not kept is told, once: ``overflow`` or ``rolled_back``; the latter exactly if it fitted and
      ends with ``err``.
    - Without ``drop_when_full`` only a packet of more than ``depth`` words overflows.
    """

    def __init__(self, drop, queue=PacketQueue):
        self.drop = drop
        self.dut = queue(2, _DEPTH, drop_when_full=drop)
        super().__init__(self.dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        i, o = dut.i, dut.o
        connect(m, flipped(self.i), i)
        connect(m, o, flipped(self.o))
        m.submodules.assume_i = StreamContract.watch(m, i, check=Assume)
        m.submodules.assert_o = StreamContract.watch(m, o, check=Assert)
        if self.drop:
            m.d.comb += Assert(i.ready | ~i.valid, "packet queue: always ready")

        taken, given = Signal(), Signal()
        kept = Signal()                          # this word ends a packet that is kept
        lost = Signal()
        m.d.comb += [
            taken.eq(i.valid & i.ready), given.eq(o.valid & o.ready),
            lost.eq(dut.overflow | dut.rolled_back), kept.eq(taken & i.p.last & ~lost),
            Assert(~(dut.overflow & dut.rolled_back), "packet queue: one reason"),
            Assert(~lost | (taken & i.p.last), "packet queue: told with the last word"),
            Assert(~(kept & i.p.err), "packet queue: no bad packet is kept"),
            Assert(~dut.rolled_back | i.p.err, "packet queue: no good packet is rolled back"),
        ]

        # `pending`: words of the packet that is coming in; it may have more than the queue holds. `level`: words of
        # kept packets that have not come out.
        pending, level = Signal(8), Signal(range(2 * _DEPTH))
        with m.If(taken):
            m.d.sync += pending.eq(Mux(i.p.last, 0, Mux(pending.all(), pending, pending + 1)))
        m.d.sync += level.eq(level + Mux(kept, pending + 1, 0) - given)
        with m.If(given):
            m.d.comb += Assert(level != 0, "packet queue: nothing comes out that wasn't kept")
        with m.If(dut.overflow):
            if self.drop:
                m.d.comb += Assert(dut.spoiled | (dut.level == _DEPTH), "packet queue: dropped only when full")
            else:
                m.d.comb += Assert(pending >= _DEPTH, "packet queue: dropped only if it can't fit")
        m.d.comb += Assert(dut.overflow == (taken & i.p.last & (dut.spoiled | (dut.level == _DEPTH))))

        # The byte that the solver picks
        pick, was_picked, chosen, waits = Signal(), Signal(), Signal(), Signal()
        lane, byte, ahead, last = Signal(1), Signal(8), Signal(9), Signal()
        there = Signal(dut.head.shape())         # where in the memory
        m.d.comb += [lane.eq(AnyConst(1)), pick.eq(AnySeq(1) & taken & ~was_picked)]
        with m.If(pick):
            m.d.sync += [was_picked.eq(1), byte.eq(i.p.data.word_select(lane, 8)), last.eq(i.p.last), there.eq(dut.head)]
            m.d.sync += [waits.eq(~i.p.last), chosen.eq(kept), ahead.eq(Mux(kept, level + pending - given, pending))]
        with m.Elif(waits & taken & i.p.last):   # `ahead` was of its packet alone
            m.d.sync += [waits.eq(0), chosen.eq(kept), ahead.eq(ahead + level - given)]
        with m.Elif(chosen & given):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += chosen.eq(0)
                m.d.comb += [
                    Assert(o.p.data.word_select(lane, 8) == byte, "packet queue: it comes out unaltered"),
                    Assert(o.p.last == last, "packet queue: packets end where they ended"),
                    Assert(~(o.p.last & o.p.err), "packet queue: no err comes out"),
                ]
        m.d.comb += [
            Assert(~(chosen & waits) & (was_picked | ~(chosen | waits)), "packet queue"),
            Assert(~chosen | (ahead < level), "packet queue: nothing lost"),
            Assert(~waits | dut.spoiled | (ahead < pending)),
        ]

        # Where the words are, so that induction closes.
        head, done, tail = dut.head, dut.done, dut.tail
        bits = head.shape()
        inside, begun, index = Signal(bits), Signal(bits), Signal(bits)
        m.d.comb += [
            inside.eq(done - tail), begun.eq(head - done), index.eq(there - tail),
            Assert(dut.level == inside + begun), Assert(dut.level <= _DEPTH), Assert(inside <= _DEPTH),
            Assert(level == inside + dut.fetched + o.valid, "packet queue: level"),
            Assert(~dut.spoiled | ((begun == 0) & (pending != 0))),
            Assert(dut.spoiled | (begun == pending)),
            Assert(o.valid | ~dut.fetched | (level == inside + 1)),
        ]
        if not self.drop:
            m.d.comb += Assert(~dut.spoiled | (pending > _DEPTH))
        stored, latched, out = Signal(), Signal(), Signal()      # where the chosen byte is
        peek = dut.store.read_port(domain="comb")
        m.d.comb += [
            peek.addr.eq(there[:-1]),
            out.eq(chosen & o.valid & (ahead == 0)), latched.eq(chosen & dut.fetched & (ahead == o.valid)),
            stored.eq((waits & ~dut.spoiled) | (chosen & ~out & ~latched)),
            Assert(~stored | (index == ahead + Mux(waits, inside, 0) - Mux(chosen, dut.fetched + o.valid, 0))),
        ]
        for there_now, word in ((stored, peek.data), (latched, dut.read.data), (out, o.p)):
            with m.If(there_now):
                m.d.comb += Assert((word.data.word_select(lane, 8) == byte) & (word.last == last)
                                    & ~(word.last & word.err))
        m.d.comb += [
            Cover(given & chosen & (ahead == 0) & o.p.last & dut.spoiled, "packet queue: out while another is dropped"),
            Cover(dut.rolled_back & (level != 0), "packet queue: rolled back while others wait"),
            Cover((dut.level == _DEPTH) & dut.fetched & o.valid, "packet queue: full to the brim"),
        ]
        return m


class Scrubbed(wiring.Component):
    """A memory of ``depth`` rows with one writer, scrubbed."""

    def __init__(self, depth, scrub=scrub):
        self.depth, self.scrub = depth, scrub
        super().__init__({"row": In(range(depth)), "data": In(8), "en": In(1), "scrubbing": Out(1)})
        self.store = memory.Memory(shape=8, depth=depth, init=[])
        self.write = self.store.write_port()

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = self.store
        write = self.write
        m.d.comb += [write.addr.eq(self.row), write.data.eq(self.data), write.en.eq(self.en)]
        m.d.comb += self.scrubbing.eq(self.scrub(m, write, self.depth))
        return m


class ScrubProof(wiring.Component):
    """Of :func:`scrub`, 5 rows; the writer does what it likes, and reset comes whenever the solver likes.

    In exactly the first 5 cycles behind a reset it is at work; then every row, until somebody writes to it, is 0
    whatever was there before, and what is written from then on is there.
    """

    def __init__(self, scrub=scrub, depth=5):
        self.depth = depth
        self.dut = Scrubbed(depth, scrub)
        super().__init__({"row": In(range(depth)), "data": In(8), "en": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [dut.row.eq(self.row), dut.data.eq(self.data), dut.en.eq(self.en), Assume(self.row < self.depth)]

        age = Signal(range(self.depth + 1))      # cycles behind the reset
        with m.If(age != self.depth):
            m.d.sync += age.eq(age + 1)
        m.d.comb += Assert(dut.scrubbing == (age != self.depth), "scrub: takes as many cycles as there are rows")

        chosen, value = Signal(range(self.depth)), Signal(8)
        m.d.comb += [chosen.eq(AnyConst(chosen.shape())), Assume(chosen < self.depth)]
        with m.If(~dut.scrubbing & self.en & (self.row == chosen)):
            m.d.sync += value.eq(self.data)
        peek = dut.store.read_port(domain="comb")
        m.d.comb += [
            peek.addr.eq(chosen),
            Assert((age <= chosen) | (peek.data == value), "scrub: empty behind a reset, then as written"),
            Assert((age == self.depth) | (value == 0)),
            Assert(~dut.scrubbing | (dut.write.addr == age)),
            Cover((age == self.depth) & (value != 0), "scrub: written after it"),
        ]
        return m


_QUEUE_MUTANTS = [
    Mutation("a bad packet is committed", PacketQueue, "with m.Elif(i.p.last & i.p.err):", "with m.Elif(0):"),
    Mutation("words of a dropped packet stay", PacketQueue, "m.d.sync += [head.eq(done), spoiled.eq(~i.p.last)]",
             "m.d.sync += [spoiled.eq(~i.p.last)]"),
    Mutation("a packet leaves before its end", PacketQueue, "fetch.eq((tail != done) &", "fetch.eq((tail != head) &"),
    Mutation("latch overwritten", PacketQueue, "& (~fetched | move)),", "),"),
    Mutation("the end of a dropped packet is kept", PacketQueue, "spoiled.eq(~i.p.last)]", "spoiled.eq(0)]"),
]

QUEUE_PROOFS = [
    Proof("packet queue, drop", lambda **it: PacketQueueProof(True, **it), 2, 16, {PacketQueue: "queue"},
          _QUEUE_MUTANTS, mutant_depth=10),
    Proof("packet queue", lambda **it: PacketQueueProof(False, **it), 2, 16, {PacketQueue: "queue"}, [
        *_QUEUE_MUTANTS,
        Mutation("dropped though it would fit", PacketQueue, "alone.eq(done == tail)", "alone.eq(1)"),
    ], mutant_depth=10),
    Proof("scrub", ScrubProof, 2, 8, {scrub: "scrub"}, [
        Mutation("the last row is left out", scrub, "scrubbing.eq(row != depth - 1)", "scrubbing.eq(row != depth - 2)"),
        Mutation("others write meanwhile", scrub, "write_port.addr.eq(row),", ""),
        Mutation("not behind every reset", scrub, "scrubbing, row = Signal(init=1)",
                 "scrubbing, row = Signal(init=1, reset_less=True)"),
    ], mutant_depth=14),
]
