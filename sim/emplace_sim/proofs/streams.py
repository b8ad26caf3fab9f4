"""Skid buffer and queue: the stream contract, and nothing lost, doubled, reordered or altered."""

from amaranth.hdl import Assert, Assume, Cover, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from emplace.stream.packet import PacketWord
from emplace.stream.queue import Queue
from emplace.stream.skid import SkidBuffer

from .base import Mutation, Proof
from .contract import StreamContract, WordTracker

__all__ = ["STREAM_PROOFS", "QueueProof", "SkidBufferProof"]


class _Passage(wiring.Component):
    """A component with ``i`` and ``o`` of one shape, both contracts, the tracker; ports are left to the solver."""

    def __init__(self, shape, dut, most):
        self.shape, self.dut, self.most = shape, dut, most
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def surround(self, m):
        m.submodules.dut = dut = self.dut
        connect(m, flipped(self.i), dut.i)
        connect(m, dut.o, flipped(self.o))
        for name, port, check in (("assume_i", dut.i, Assume), ("assert_o", dut.o, Assert)):
            m.submodules[name] = StreamContract.watch(m, port, check=check)
        word_in, word_out = Value.cast(dut.i.payload), Value.cast(dut.o.payload)
        m.submodules.tracker = tracker = WordTracker(len(word_in), most=self.most)
        m.d.comb += [
            tracker.taken.eq(dut.i.valid & dut.i.ready),
            tracker.given.eq(dut.o.valid & dut.o.ready),
            tracker.word_in.eq(word_in),
            tracker.word_out.eq(word_out),
        ]
        return tracker


class SkidBufferProof(_Passage):
    """Of :class:`SkidBuffer`, for a packet word."""

    def __init__(self, skid=SkidBuffer):
        super().__init__(PacketWord(8), skid(PacketWord(8)), 2)

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        tracker = self.surround(m)

        # Induction starts from any state that satisfies the assertions for `depth` cycles, also from
        # ones the buffer never reaches; these three tie the tracker to where the words are.
        m.d.comb += Assert(tracker.level == dut.o.valid + dut.spare_valid, "skid: level")
        m.d.comb += Assert(dut.o.valid | ~dut.spare_valid, "skid: the spare fills last")
        slot = (Value.cast(dut.o.payload), Value.cast(dut.spare))
        for n in range(2):
            with m.If(tracker.marked & (tracker.ahead == n)):
                m.d.comb += Assert(tracker.at_lane(slot[n]) == tracker.byte, f"skid: slot {n}")

        m.d.comb += Cover(dut.spare_valid, "skid: both slots in use")
        m.d.comb += Cover(tracker.given & (tracker.level == 2) & tracker.marked & (tracker.ahead == 1),
                          "skid: the chosen word is the second of two")
        return m


class QueueProof(_Passage):
    """Of :class:`Queue`, 4 words deep (distributed memory) or 33 (block memory), for a packet word.

    Amaranth's queue shows nothing of its memory, and a word may stay for any time, so this is no induction: it
    covers every way of filling and emptying in the first ``depth`` cycles from reset.
    """

    def __init__(self, queue=Queue, words=4):
        super().__init__(PacketWord(2), queue(PacketWord(2), words), words)

    def elaborate(self, platform):
        m = Module()
        tracker = self.surround(m)
        m.d.comb += Assert(self.dut.level == tracker.level, "queue: level")
        m.d.comb += Cover(tracker.given & (tracker.level == 4) & tracker.marked & (tracker.ahead == 3),
                          "queue: the chosen word is the last of four")
        if self.most == 4:
            m.d.comb += Cover(~self.i.ready, "queue: full")
        return m


_SKID_MUTANTS = [
    Mutation("ready too late by one word", SkidBuffer, "self.i.ready.eq(~self.spare_valid)", "self.i.ready.eq(1)"),
    Mutation("spare word doubled", SkidBuffer, "m.d.sync += self.spare_valid.eq(0)",
             "m.d.sync += self.spare_valid.eq(self.i.valid & self.spare_valid)"),
    Mutation("spare word lost", SkidBuffer, "self.spare_valid.eq(1),", "self.spare_valid.eq(0),"),
    Mutation("overtaking", SkidBuffer, "with m.If(self.spare_valid):\n",
             "with m.If(self.spare_valid & ~self.i.valid):\n"),
    Mutation("payload changes while stalled", SkidBuffer, "m.If(self.o.ready | ~self.o.valid)",
             "m.If(self.o.ready | ~self.spare_valid)"),
]

_QUEUE_MUTANTS = [
    Mutation("given before it is taken", Queue, "store.r_en.eq(self.o.ready & self.o.valid)", "store.r_en.eq(1)"),
    Mutation("ready while full", Queue, "self.i.ready.eq(store.w_rdy)", "self.i.ready.eq(1)"),
]

STREAM_PROOFS = [
    Proof("skid", SkidBufferProof, 2, 8, {SkidBuffer: "skid"}, _SKID_MUTANTS, mutant_depth=6),
    Proof("queue", QueueProof, 8, 12, {Queue: "queue"}, _QUEUE_MUTANTS, mutant_depth=8,
          mode="bmc"),
    Proof("queue, block memory", lambda **it: QueueProof(words=33, **it), 8, 12, {Queue: "queue"}, _QUEUE_MUTANTS[:1],
          mutant_depth=8, mode="bmc"),
]
