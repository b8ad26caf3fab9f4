"""MPA's walk: whose slot is it, and an FPDU that has begun always goes on."""

from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from emplace.config import NicConfig
from emplace.control.records import RecordKind
from emplace.mpa.records import Outcome
from emplace.mpa.walk import Walk
from emplace.tcp.records import StreamEnd

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["WALK_PROOFS", "WalkProof"]

_CONFIG = NicConfig(qps=4, slots=8)


class WalkProof(wiring.Component):
    """Of :class:`Walk`, of one of 4 QPs, chosen by the solver; requests, leases, tokens and the number of free slots are
    whatever they are. Reader and cutter are their ports alone, with what is assumed of them below.

    - A QP has one slot at most: the latest that an answer kept. It is given back once, by the walk, and nothing else is.
    - An answer keeps the slot of its request or none, and keeps it with all its octets. If the QP had a slot, that one
      is given back with this answer: the FPDU goes on where it is, or changes place; it takes no slot more.
    - What is found whole keeps no slot. Octets of an FPDU that has a slot are all taken, however few slots are free,
      unless the stream has failed or waits for a WQE; without one, a slot is kept only while enough are free.
    - What lies in a slot is less than its FPDU, and that fits in the slot.

    Assumed of the cutter: it says ``finished`` while it cuts; what it leaves is no more than what there was, of the new
    octets only if it got ``some``; INCOMPLETE says a size beyond what there is, at most a slot's, or 0 if fewer than 3
    octets are there; the size stays until the next cut. Requests begin when the memory has been cleared.
    """

    def __init__(self, walk=Walk):
        self.dut = walk(_CONFIG)
        super().__init__(self.dut.signature)

    def elaborate(self, platform):
        m = Module()
        config = _CONFIG
        m.submodules.dut = dut = self.dut
        for name, member in self.signature.members.items():
            if member.is_port:
                target, source = (dut, self) if member.flow is In else (self, dut)
                m.d.comb += getattr(target, name).eq(getattr(source, name))
        for name in ("walk", "words", "expired"):
            connect(m, flipped(getattr(self, name)), getattr(dut, name))
        for name in ("walked", "notice", "slot_append", "slot_free"):
            connect(m, getattr(dut, name), flipped(getattr(self, name)))
        m.submodules.assume_walk = StreamContract.watch(m, dut.walk, check=Assume)
        m.submodules.assert_walked = StreamContract.watch(m, dut.walked, check=Assert)
        state, stage, answer = dut.state, dut.stage, dut.walked.p
        with m.If(dut.scrubbing):
            m.d.comb += Assume(~dut.walk.valid & ~dut.expired.valid)

        # The request at hand
        slot, length, data = Signal(config.slot_bits), Signal(12), Signal()
        is_token, end_of = Signal(), Signal(StreamEnd)
        taken, answered = Signal(), Signal()
        m.d.comb += [
            taken.eq(dut.walk.valid & dut.walk.ready), answered.eq(dut.walked.valid & dut.walked.ready),
        ]
        with m.If(taken):
            m.d.sync += [slot.eq(dut.walk.p.slot), length.eq(dut.walk.p.length),
                         is_token.eq(dut.walk.p.kind == RecordKind.TOKEN), end_of.eq(dut.walk.p.end)]
            m.d.comb += Assume((dut.walk.p.length != 0) & (dut.walk.p.length <= config.slot_bytes))

        m.d.comb += data.eq(~is_token & (end_of == StreamEnd.NONE))

        # The cutter
        ended, outcome, size, had_enough, enough = Signal(), Signal(Outcome), Signal(12), Signal(), Signal()
        m.d.sync += enough.eq(dut.free_count > config.slot_reserve)
        joined_left, left, some = Signal(13), Signal(13), Signal()
        m.d.comb += joined_left.eq(Mux(dut.some | ~state.open, length, dut.total))
        with m.If(stage.cut & dut.finished):
            m.d.comb += [
                Assume(dut.outcome.as_value() <= Outcome.CRC.value), Assume(dut.left <= joined_left),
                Assume((dut.outcome != Outcome.INCOMPLETE) | ((dut.left != 0) & Mux(
                    dut.left < 3, dut.size == 0, (dut.size > dut.left) & (dut.size <= config.slot_bytes)))),
                # Nothing was cut: all is left.
                Assume(dut.some | ~state.open | (dut.outcome != Outcome.INCOMPLETE) | (dut.left == dut.total)),
            ]
            m.d.sync += [ended.eq(1), outcome.eq(dut.outcome), size.eq(dut.size), had_enough.eq(enough)]
            m.d.sync += [left.eq(dut.left), some.eq(dut.some)]
        with m.Elif(answered | stage.idle):
            m.d.sync += ended.eq(0)
        with m.If(stage.size):
            m.d.comb += Assume(dut.size == size)
        with m.If(stage.settle):
            m.d.comb += Assume((dut.left == left) & (dut.some == some))

        # The slot of the chosen QP, by what was answered and given back
        chosen, owned, own = Signal(config.qp_bits), Signal(), Signal(config.slot_bits)
        had, alive = Signal(), Signal()
        m.d.comb += chosen.eq(AnyConst(config.qp_bits))
        mine = Signal()
        m.d.comb += mine.eq(dut.qp == chosen)
        with m.If(dut.slot_free.valid & mine):
            m.d.comb += Assert(owned & (dut.slot_free.p.slot == own), "walk: only the QP's slot is given back")
            m.d.sync += owned.eq(0)
        with m.If(answered & mine & answer.kept):
            m.d.comb += Assert(~owned | dut.slot_free.valid | had & ~owned, "walk: one slot at most")
            m.d.sync += [owned.eq(1), own.eq(slot)]
        with m.If(stage.look):
            m.d.sync += [had.eq(state.open), alive.eq(state.alive)]

        with m.If(stage.answer):
            m.d.comb += [
                Assert(answer.consumed <= length, "walk: not more than was there"),
                Assert(~answer.kept | (data & (answer.consumed == length)), "walk: a slot with all its octets"),
                Assert(~answer.kept | (ended & (outcome == Outcome.INCOMPLETE)), "walk: only an unfinished FPDU"),
                Assert(~answer.kept | had | had_enough, "walk: a first slot only if enough are free"),
                Assert(~(data & had & alive) | (answer.consumed == length) | answer.parked | answer.failed,
                       "walk: an FPDU with a slot goes on"),
                Assert(~(data & ended & (outcome == Outcome.END)) | ((answer.consumed == length) & ~state.open),
                       "walk: whole, and no slot"),
                Cover(answer.kept & had & ~had_enough, "walk: an FPDU changes place while few slots are free"),
                Cover(~answer.kept & data & had & alive & ~ended, "walk: appended"),
                Cover(data & ~had & ended & (outcome == Outcome.INCOMPLETE) & ~answer.kept & mine, "walk: not kept"),
            ]

        # What the machine knows of the chosen QP, in flip-flops or memory; so that induction closes.
        peek = dut.store.read_port(domain="comb")
        at_hand, now = Signal(), Signal.like(state)
        m.d.comb += [
            peek.addr.eq(chosen), at_hand.eq(mine & dut.known & ~stage.load),
            now.as_value().eq(Mux(at_hand, state.as_value(), peek.data.as_value())),
        ]
        freeing, keeping = Signal(), Signal()
        m.d.comb += [freeing.eq(dut.slot_free.valid & mine), keeping.eq(dut.walked.valid & mine & answer.kept)]
        with m.If(dut.scrubbing):
            m.d.comb += [
                Assert(~owned & ~dut.slot_free.valid & stage.idle & ~dut.known),
                Assert((dut.save.addr <= chosen) | (peek.data.as_value() == 0), "walk: cleared"),
            ]
        with m.Else():
            m.d.comb += [
                Assert(now.open == ((owned & ~freeing) | keeping), "walk: the machine's idea of it"),
                Assert(~now.open | (now.slot == Mux(keeping, slot, own))),
                Assert(~keeping | ~owned | freeing),
            ]
        busy, cutting, appending = Signal(), Signal(), Signal()
        m.d.comb += [
            appending.eq(stage.size | stage.tail | stage.end | stage.read), cutting.eq(stage.cut | stage.settle),
            busy.eq(~(stage.idle | stage.answer)),
            Assert(~busy | (Mux(stage.settle, answer.consumed <= length, answer.consumed == 0)
                            & ~answer.kept & ~answer.parked & ~answer.failed)),
            Assert(~dut.slot_free.valid | stage.answer | stage.store),
            Assert(stage.idle | dut.is_lease | ((dut.new_slot == slot) & (dut.new_length == length)
                                                & (dut.is_token == is_token) & (dut.end_of == end_of))),
            Assert(stage.idle | dut.is_lease | ((length != 0) & (length <= config.slot_bytes)) | ~data),
            Assert(~stage.answer | ~dut.is_lease), Assert(~(stage.load | stage.look | stage.notice) | ~ended),
            Assert(~stage.notice | ~data | dut.is_lease),
            Assert(stage.idle | stage.load | dut.known),
        ]
        with m.If(stage.idle & dut.known & mine):
            m.d.comb += Assert(peek.data.as_value() == state.as_value())
        with m.If(cutting | appending | stage.append):
            m.d.comb += [Assert(~dut.is_lease & data & (had == state.open) & (alive == state.alive) & state.alive)]
        with m.If((cutting | appending) & state.open):
            m.d.comb += [Assert(dut.total == length + state.held)]
        with m.If(stage.look & state.open & dut.continues & data & ~dut.is_lease):
            m.d.comb += Assert(dut.total == length + state.held)
        with m.If(stage.settle):
            m.d.comb += [Assert(ended & (outcome != Outcome.END) & (outcome != Outcome.INCOMPLETE)),
                         Assert(left <= Mux(some | ~state.open, length, dut.total))]
        with m.If(stage.cut):
            m.d.comb += Assert(~ended)
        with m.If(appending | stage.append):
            m.d.comb += [Assert(state.open), Assert(~ended | (outcome == Outcome.INCOMPLETE))]
        with m.If(appending & mine):
            found = Signal(12)
            m.d.comb += [found.eq(Mux(stage.size, size, state.size)), Assert(found <= config.slot_bytes),
                         Assert(Mux(found == 0, dut.total < 3, dut.total < found)), Assert(~stage.size | ended)]
        with m.If(now.open & ~dut.scrubbing):
            m.d.comb += [
                Assert((now.held != 0) & Mux(now.size == 0, now.held < 3, now.held < now.size),
                       "walk: less than its FPDU lies in a slot"),
                Assert(now.size <= config.slot_bytes, "walk: which fits"),
            ]
        return m


WALK_PROOFS = [
    Proof("slot progress", WalkProof, 2, 20, {Walk: "walk"}, [
        Mutation("takes a slot while few are free", Walk, "with m.If(state.open | enough):", "with m.If(1):"),
        Mutation("an FPDU waits for a free slot", Walk, "with m.If(state.open | enough):", "with m.If(enough):"),
        Mutation("old slot forgotten", Walk, """m.Elif(self.outcome == Outcome.INCOMPLETE):
                        give_back()""", "m.Elif(self.outcome == Outcome.INCOMPLETE):"),
        Mutation("whole, but kept", Walk, """                        give_back()
                        m.d.sync += result.consumed.eq(length)
                        m.next""", """                        m.d.sync += [result.consumed.eq(length), result.kept.eq(1)]
                        m.next"""),
        Mutation("given back twice", Walk, "state.slot), state.open.eq(0)]", "state.slot)]"),
    ], mutant_mode="prove"),
]
