"""Gearbox and realigner: the stream contract, and every byte comes out once, in order, in its packet."""

from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from emplace.stream.gearbox import Narrower, Widener
from emplace.stream.realign import Realigner

from .base import Mutation, Proof
from .contract import StreamContract
from .tracker import ByteTracker, Run, well_formed

__all__ = ["PACKET_PROOFS", "NarrowerProof", "RealignerProof", "WidenerProof"]


class _Repacking(wiring.Component):
    """A component with packets at ``i`` and ``o``, both contracts; ports are left to the solver."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__(dut.signature)

    def surround(self, m):
        m.submodules.dut = dut = self.dut
        connect(m, flipped(self.i), dut.i)
        connect(m, dut.o, flipped(self.o))
        for name, port, check in (("assume_i", dut.i, Assume), ("assert_o", dut.o, Assert)):
            m.submodules[name] = StreamContract.watch(m, port, check=check)
            well_formed(m, port, check)
        return dut


class WidenerProof(_Repacking):
    """Of :class:`Widener`, 4 to 8 bytes."""

    def __init__(self, widener=Widener):
        super().__init__(widener(4))

    def elaborate(self, platform):
        m = Module()
        dut = self.surround(m)
        i, o = dut.i, dut.o
        tracker = ByteTracker.connect(
            m, "tracker", taken=i.valid & i.ready, i=(4, Run.of(i.p, 4)),
            given=o.valid & o.ready, o=(8, Run.of(o.p, 8)), most=12)

        # Ties the tracker to where the bytes are, so that induction closes.
        in_o, at = Signal(range(9)), Signal(range(9))
        m.d.comb += [
            in_o.eq(Mux(o.valid, 8 - o.p.empty, 0)), at.eq(tracker.ahead - in_o),
            Assert(tracker.level == in_o + Mux(dut.have, 4, 0), "widener: level"),
        ]
        with m.If(tracker.marked):
            with m.If(tracker.ahead < in_o):
                m.d.comb += Assert(tracker.fits(tracker.o, tracker.ahead), "widener: in the output")
            with m.Else():
                m.d.comb += Assert((dut.lower.word_select(at, 8) == tracker.byte) & ~tracker.is_last, "widener: lower")
        m.d.comb += [
            Cover(o.valid & o.p.last & (o.p.empty == 6) & tracker.marked, "widener: half a word alone"),
            Cover(tracker.level == 12, "widener: full"),
        ]
        return m


class NarrowerProof(_Repacking):
    """Of :class:`Narrower`, 8 to 4 bytes. A word counts as inside from the cycle on in which it is offered."""

    def __init__(self, narrower=Narrower):
        super().__init__(narrower(4))

    def elaborate(self, platform):
        m = Module()
        dut = self.surround(m)
        i, o = dut.i, dut.o
        seen = Signal()
        m.d.sync += seen.eq(i.valid & ~i.ready)
        tracker = ByteTracker.connect(
            m, "tracker", taken=i.valid & ~seen, i=(8, Run.of(i.p, 8)),
            given=o.valid & o.ready, o=(4, Run.of(o.p, 4)), most=8)

        gone = Signal(range(5))
        m.d.comb += [gone.eq(Mux(dut.upper, 4, 0)), Assert(~dut.upper | (seen & ~(i.p.last & i.p.empty[2])))]
        with m.If(seen):
            m.d.comb += [
                Assert(i.valid & (tracker.level == 8 - i.p.empty - gone), "narrower: level"),
                Assert(~tracker.marked | tracker.fits(tracker.i, (gone + tracker.ahead)[:3]), "narrower: in the word"),
            ]
        with m.Else():
            m.d.comb += Assert(tracker.level == 0, "narrower: nothing inside")
        m.d.comb += Cover(o.valid & o.ready & o.p.last & o.p.err & dut.upper, "narrower: a packet ends in the upper half")
        return m


class RealignerProof(_Repacking):
    """Of :class:`Realigner`, 8 bytes a word, ``skip`` and ``lead`` constant in a packet that has a byte."""

    def __init__(self, realigner=Realigner):
        super().__init__(realigner(8))

    def elaborate(self, platform):
        m = Module()
        dut = self.surround(m)
        i, o, first = dut.i, dut.o, dut.first

        # What is promised of the input
        in_first, skip, lead = Signal(init=1), Signal(3), Signal(3)
        in_skip = Signal(3)
        m.d.comb += in_skip.eq(Mux(in_first, i.p.skip, 0))
        with m.If(i.valid):
            m.d.comb += Assume(in_skip + i.p.empty < 8)
            with m.If(~in_first):
                m.d.comb += Assume((i.p.skip == skip) & (i.p.lead == lead))
        with m.If(i.valid & i.ready):
            m.d.sync += [in_first.eq(i.p.last), skip.eq(i.p.skip), lead.eq(i.p.lead)]
        m.d.comb += Assert(in_first == first)

        # Where the word in `o` begins: at `lead` if it is its packet's first. `opened`: what came out last, or is about
        # to, doesn't end its packet.
        opened, was_opened, o_first = Signal(), Signal(), Signal(3)
        m.d.comb += opened.eq(Mux(o.valid, ~o.p.last, was_opened))
        m.d.sync += was_opened.eq(opened)
        with m.If(i.valid & i.ready):
            m.d.sync += o_first.eq(Mux(opened, 0, i.p.lead))
        with m.Elif(o.ready | ~o.valid):
            m.d.sync += o_first.eq(0)
        tracker = ByteTracker.connect(
            m, "tracker", taken=i.valid & i.ready, i=(8, Run.of(i.p, 8, in_skip)),
            given=o.valid & o.ready, o=(8, Run.of(o.p, 8, o_first)), most=16)

        # Where the bytes are: in `o`, and those that were moved down, in `kept`: from `lead` on if they are the first.
        in_o, moved, amount, at, primed = Signal(range(9)), Signal(range(9)), Signal(3), Signal(range(9)), Signal()
        m.d.comb += [
            primed.eq(~first & ~opened), amount.eq(skip - lead),
            in_o.eq(Mux(o.valid, 8 - o.p.empty - o_first, 0)), at.eq(tracker.ahead - in_o),
            Assert(~first | (opened == dut.flushing)),
            Assert(first | ~dut.flushing),
            Assert(~primed | (skip > lead)),
            Assert(~o.valid | (o_first + o.p.empty < 8), "realigner: no empty word"),
        ]
        with m.If(dut.flushing):
            m.d.comb += moved.eq(8 - dut.flush_empty)
        with m.Elif(primed):
            m.d.comb += moved.eq(8 - skip)
        with m.Elif(~first & (amount != 0)):
            m.d.comb += moved.eq(8 - amount)
        m.d.comb += Assert(tracker.level == in_o + moved, "realigner: level")
        with m.If(tracker.marked):
            with m.If(tracker.ahead < in_o):
                m.d.comb += Assert(tracker.fits(tracker.o, tracker.ahead), "realigner: in the output")
            with m.Else():
                m.d.comb += [
                    Assert(dut.kept.word_select((at + Mux(primed, lead, 0))[:3], 8) == tracker.byte, "realigner: moved down"),
                    Assert(tracker.is_last == (dut.flushing & (at + 1 == moved)), "realigner: the end is moved down"),
                    Assert(~tracker.is_last | (tracker.is_err == dut.flush_err), "realigner: err is moved down"),
                ]
        m.d.comb += [
            Cover(o.valid & o.p.last & o.p.err & tracker.marked & (skip > lead), "realigner: moved down"),
            Cover(dut.flushing & (skip < lead), "realigner: one word becomes two"),
        ]
        return m


PACKET_PROOFS = [
    Proof("widener", WidenerProof, 2, 8, {Widener: "widener"}, [
        Mutation("overwritten while stalled", Widener, "i.ready.eq(~whole | o.ready | ~o.valid)", "i.ready.eq(1)"),
        Mutation("a half's emptiness forgotten", Widener, "Cat(i.p.empty, ~have)", "Cat(i.p.empty, 0)"),
        Mutation("err lost", Widener, "o.p.err.eq(i.p.err)", "o.p.err.eq(i.p.err & have)"),
    ], mutant_depth=6),
    Proof("narrower", NarrowerProof, 2, 8, {Narrower: "narrower"}, [
        Mutation("an empty upper half", Narrower, "short.eq(i.p.last & i.p.empty[bits])", "short.eq(0)"),
        Mutation("half a word lost", Narrower, "i.ready.eq(o.ready & final)", "i.ready.eq(o.ready)"),
        Mutation("half moves without ready", Narrower, "with m.If(i.valid & o.ready):", "with m.If(i.valid):"),
    ], mutant_depth=6),
    Proof("realigner", RealignerProof, 2, 8, {Realigner: "realigner"}, [
        Mutation("last bytes forgotten", Realigner, "over.eq(i.p.last & (filled > amount)",
                 "over.eq(i.p.last & (filled > amount + 1)"),
        Mutation("a byte of the word before", Realigner, "(lane + amount < nbytes)", "(lane + amount <= nbytes)"),
        Mutation("err of the moved end lost", Realigner, "o.p.err.eq(flush_err)", "o.p.err.eq(0)"),
        Mutation("word taken while flushing", Realigner, "i.ready.eq(free & ~flushing)", "i.ready.eq(free)"),
        Mutation("first word alone comes out", Realigner, "(i.valid & ~(first & prime & ~i.p.last))", "i.valid"),
    ], mutant_depth=6),
]
