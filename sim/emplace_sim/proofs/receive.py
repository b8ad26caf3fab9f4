"""TCP receive: what is handed up, held and acknowledged."""

from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from emplace.config import NicConfig
from emplace.control.records import RecordKind, TokenOp
from emplace.tcp.context import Context, HeldOp, JobKind
from emplace.tcp.receive import Receive

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["RECEIVE_PROOFS", "ReceiveProof"]

_CONFIG = NicConfig(qps=4, slots=8)


class ReceiveProof(wiring.Component):
    """Of :class:`Receive`, by its ports, of one of 4 QPs that the solver picks; walk, lists and everything else are what
    they like within what is assumed of them below. Numbers have their real 32 bits.

    - Octets are handed up from RCV.NXT on, and RCV.NXT moves by what was taken of them: nothing twice, nothing out of
      order, never back. They are what lies in the slot at that number: of a segment by its SEG.SEQ, of a held piece by
      what the list says.
    - What is held lies at RCV.NXT or above it and within the window, by the right number, and was in the segment.
    - Every ACK says RCV.NXT: what the walk took, no more.
    - A slot that came is given back, held or kept by the LLP, and only one of these.

    Bounded: the first ``depth`` cycles from reset. A job begins with any context, so that is all that one job can do,
    with one held piece behind it, and the beginning of another job.

    Assumed. Jobs: a segment's octets fit its slot; a QP's context is as last stored; windows are of at most 2**30, and
    ``wide`` says what it means. Walk: an answer to each request, which consumes no more than was offered, all of it if
    it keeps the slot; 0 to a token. Lists: an answer to each question; POP's piece begins at the number asked for, has
    an octet and fits its slot. The command stands still, and ``force`` does while a question waits.
    """

    def __init__(self, receive=Receive):
        self.dut = receive(_CONFIG)
        super().__init__(self.dut.signature)

    def elaborate(self, platform):
        m = Module()
        config, dut = _CONFIG, self.dut
        m.submodules.dut = dut
        for name, member in self.signature.members.items():
            if member.is_port:
                target, source = (dut, self) if member.flow is In else (self, dut)
                m.d.comb += getattr(target, name).eq(getattr(source, name))
            elif member.flow is In:
                connect(m, flipped(getattr(self, name)), getattr(dut, name))
            else:
                connect(m, getattr(dut, name), flipped(getattr(self, name)))
        for name, check in (("job", Assume), ("walked", Assume), ("reply", Assume), ("walk", Assert), ("ask", Assert)):
            m.submodules[f"contract_{name}"] = StreamContract.watch(m, getattr(dut, name), check=check)
        job, walk, walked, ask, reply = dut.job.p, dut.walk.p, dut.walked.p, dut.ask.p, dut.reply.p
        takes, walks, ends, asks, replies = (Signal(name=f"{n}_moves") for n in ("job", "walk", "walked", "ask", "reply"))
        for moves, port in ((takes, dut.job), (walks, dut.walk), (ends, dut.walked), (asks, dut.ask), (replies, dut.reply)):
            m.d.comb += moves.eq(port.valid & port.ready)
        cmd_wnd, cmd_nxt = Signal(32), Signal(32)
        m.d.comb += [
            cmd_wnd.eq(AnyConst(32)), cmd_nxt.eq(AnyConst(32)),
            Assume((dut.cmd.rcv_wnd == cmd_wnd) & (cmd_wnd <= 1 << 30)), Assume(dut.cmd.rcv_nxt == cmd_nxt),
        ]

        # A question is stable but for this; and its asker waits for no other answer.
        waits, force = Signal(), Signal()
        m.d.sync += [waits.eq(dut.ask.valid & ~dut.ask.ready), force.eq(dut.force)]
        m.d.comb += [Assume(~waits | (dut.force == force)), Assume(~ResetSignal())]

        # The chosen QP: RCV.NXT, and its context as the memory has it
        chosen, known, nxt, memory = Signal(config.qp_bits), Signal(), Signal(32), Signal(Context(config))
        mine = Signal()                          # the job at hand is its
        stores = Signal()
        m.d.comb += [
            chosen.eq(AnyConst(config.qp_bits)), stores.eq(dut.store & (dut.ack.qp == chosen) & known),
        ]
        with m.If(stores):
            m.d.sync += memory.eq(dut.context)
            m.d.comb += Assert((dut.context.rcv_nxt == nxt) & (dut.ack.rcv_nxt == nxt), "receive: an ACK says what was taken")
        with m.If(dut.job.valid & (job.qp == chosen)):
            m.d.comb += [
                Assume(~known | stores | (job.context.as_value() == memory.as_value())),
                Assume((job.context.rcv_wnd <= 1 << 30)
                       & (job.context.wide == (job.context.rcv_wnd >= config.slot_bytes))),
            ]
        with m.If(dut.job.valid):
            m.d.comb += Assume(job.segment.length <= config.slot_bytes)
        with m.If(takes):
            m.d.sync += mine.eq(job.qp == chosen)
            with m.If((job.qp == chosen) & ~known):
                m.d.sync += [known.eq(1), nxt.eq(job.context.rcv_nxt), memory.eq(job.context)]

        # What lies at hand: octets up to ``limit`` of ``slot``, octet 0 being number ``base``; whose the slot is
        kind, op = Signal(JobKind), Signal(TokenOp)
        slot, base, limit, owned = Signal(config.slot_bits), Signal(32), Signal(13), Signal()
        with m.If(takes):
            m.d.comb += Assert(~owned, "receive: no slot is forgotten")
            m.d.sync += [
                kind.eq(job.kind), op.eq(job.segment.token.op), slot.eq(job.segment.slot), base.eq(job.segment.seq),
                limit.eq(Mux(job.kind == JobKind.SEGMENT, job.segment.length, 0)),
                owned.eq((job.kind == JobKind.SEGMENT) & (job.segment.length != 0)),
            ]
        with m.If(dut.release.valid):
            m.d.comb += Assert(owned & (dut.release.p.slot == slot), "receive: a slot is given back once")
            m.d.sync += owned.eq(0)

        # Walk: one request, one answer
        walking, is_data, length, popped = Signal(), Signal(), Signal(12), Signal()
        with m.If(takes):
            m.d.sync += popped.eq(0)
        with m.If(dut.walked.valid):
            m.d.comb += [
                Assume(walking & (walked.consumed <= Mux(is_data, length, 0))),
                Assume(~walked.kept | (is_data & (walked.consumed == length))),
                Assume(is_data | (walked.as_value() == 0)),
            ]
        with m.If(walks):
            m.d.sync += [walking.eq(1), is_data.eq(walk.kind == RecordKind.DATA), length.eq(walk.length)]
            m.d.comb += Assert((walk.kind == RecordKind.TOKEN) == (kind == JobKind.TOKEN))
            with m.If(walk.kind == RecordKind.DATA):
                m.d.comb += [
                    Assert(owned & (walk.slot == slot), "receive: its own slot is walked"),
                    Assert((walk.length != 0) & (walk.offset + walk.length <= limit), "receive: within what came"),
                ]
                with m.If(mine):
                    m.d.comb += [
                        Assert(walk.qp == chosen),
                        Assert((base + walk.offset)[:32] == nxt, "receive: handed up from RCV.NXT on"),
                        Assert(popped | (walk.length <= memory.rcv_wnd), "receive: within the window"),
                    ]
            with m.Elif(mine):
                with m.Switch(op):
                    with m.Case(TokenOp.INSTALL):
                        m.d.sync += nxt.eq(cmd_nxt)
                    with m.Case(TokenOp.REMOVE):
                        m.d.sync += nxt.eq(0)
        with m.If(ends):
            m.d.sync += walking.eq(0)
            with m.If(mine):
                m.d.sync += nxt.eq(nxt + walked.consumed)
            with m.If(walked.kept):
                m.d.sync += owned.eq(0)

        # Lists: one question, one answer
        asking, asked, sought = Signal(), Signal(HeldOp), Signal(32)
        with m.If(dut.reply.valid):
            m.d.comb += [
                Assume(asking & ((asked != HeldOp.POP) | ~reply.done | (
                    (reply.length != 0) & (reply.offset + reply.length <= config.slot_bytes)))),
            ]
        ahead = Signal(32)
        m.d.comb += ahead.eq(ask.seq - nxt)
        with m.If(asks):
            m.d.sync += [asking.eq(1), asked.eq(ask.op), sought.eq(ask.seq)]
            with m.If(mine):
                m.d.comb += Assert(ask.qp == chosen)
            with m.If(ask.op == HeldOp.INSERT):
                m.d.sync += owned.eq(0)
                m.d.comb += [
                    Assert(owned & (ask.slot == slot), "receive: its own slot is held"),
                    Assert((ask.length != 0) & (ask.offset + ask.length <= limit), "receive: held is what came"),
                    Assert((base + ask.offset)[:32] == ask.seq, "receive: held under its number"),
                ]
                with m.If(mine):
                    m.d.comb += Assert(popped | (ahead + ask.length <= memory.rcv_wnd),
                                       "receive: held within the window")
            with m.Elif((ask.op == HeldOp.POP) & mine):
                m.d.comb += Assert(ask.seq == nxt, "receive: what comes next is sought")
        with m.If(replies):
            m.d.sync += asking.eq(0)
            with m.If((asked == HeldOp.POP) & reply.done):
                m.d.comb += Assert(~owned)
                m.d.sync += [popped.eq(1), owned.eq(1), slot.eq(reply.slot), base.eq(sought - reply.offset),
                             limit.eq(reply.offset + reply.length)]
        m.d.comb += [
            Cover(asks & mine & (ask.op == HeldOp.INSERT) & (ask.offset != 0), "receive: the rest is held"),
            Cover(walks & mine & (walk.offset != 0) & (walk.kind == RecordKind.DATA) & (kind == JobKind.SEGMENT),
                  "receive: trimmed at the left"),
            Cover(walks & mine & (asked == HeldOp.POP) & (kind == JobKind.SEGMENT), "receive: a held piece follows"),
        ]
        return m


RECEIVE_PROOFS = [
    Proof("TCP receive", ReceiveProof, 16, 18, {Receive: "receive"}, [
        Mutation("RCV.NXT by what was offered", Receive, "context.rcv_nxt + result.consumed", "context.rcv_nxt + piece.length"),
        Mutation("an octet twice", Receive, "piece.offset.eq((-ahead)[:11])", "piece.offset.eq((-ahead - 1)[:11])"),
        Mutation("held beyond the window", Receive, "piece.length.eq(piece.length - excess[:12])",
                 "piece.length.eq(piece.length)"),
        Mutation("the rest under a wrong number", Receive, "piece.offset.eq(piece.offset + result.consumed)",
                 "piece.offset.eq(result.consumed)"),
        Mutation("kept, and given back", Receive, "self.release.valid.eq(~result.kept)", "self.release.valid.eq(1)"),
        Mutation("old segments are handed up", Receive, "replayed | old", "replayed"),
    ], mutant_depth=14, mode="bmc"),
]
