"""TCP's receive processing, one segment after the other."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import HistoryNote, InstallCommand, RecordKind, TokenOp, UploadPart
from ..ip.records import SegmentRecord
from .challenge import ChallengeBudget
from .commit import Commit, Fresh
from .compare import Compare
from .context import (
    AckState,
    Block,
    BlocksOp,
    BlocksReply,
    BlocksRequest,
    Context,
    HeldOp,
    HeldReply,
    HeldRequest,
    Job,
    JobKind,
    TemplateOrder,
)
from .notes import Notes
from .records import SlotIndex, StreamEnd, WalkRequest, WalkResult
from .verdict import Answer, Verdict

__all__ = ["Receive"]

_NAMES = [c.name for c in abi.COUNTERS if c.layer == "tcp"]
_FIRST = next(n for n, c in enumerate(abi.COUNTERS) if c.layer == "tcp")


class Receive(wiring.Component):
    """Decides for each segment what is new in it, has it walked, and moves RCV.NXT by what was consumed.

    Which segments are dropped, and how they are answered: :mod:`.verdict`. A segment for which header prediction holds
    (next octet, an ACK between SND.UNA and SND.MAX, timestamp not older, usual options, none of SYN, FIN and RST,
    nothing held, parked or closed) needs no verdict; all others take the slow path, about 6 cycles longer.

    - What is taken in order is acknowledged at once if octets before it aren't acknowledged yet, if it has PSH, fills
      (part of) a gap, changes the CE mark, or was parked; else the ACK is late (RFC 5681 4.2). All that is out of
      order, a duplicate, trimmed or refused is acknowledged at once.
    - What a parked connection holds is not acknowledged twice: nothing is missing that the peer could send again.
    - A FIN in front of which octets are missing is remembered by its number; the octets beside it are held like others.

    Throughput: one walk at a time; the next one's request stands 5 cycles after the result of the last was taken, if
    its job is there and header prediction holds. Latency from job to walk: 3 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    job : ``In(stream.Signature(Job(config)))``
    walk, walked
        As in :class:`~.layer.Tcp`.
    ask : ``Out(stream.Signature(HeldRequest(config)))``
    reply : ``In(stream.Signature(HeldReply(config)))``
    blocks : ``Out(stream.Signature(BlocksRequest(config)))``
    blocks_reply : ``In(stream.Signature(BlocksReply))``
    release : ``Out(stream.Signature(SlotIndex(config), always_ready=True))``
        Slots given back.
    store : ``Out(1)``
        Strobe: ``ack.qp`` has a new ``context``.
    context : ``Out(Context(config))``
    ack : ``Out(AckState(config))``
        Valid with ``store``.
    last_ack : ``In(32)``
        Last.ACK.sent of the job that was on offer a cycle ago.
    delayed : ``In(1)``
        ACKs may be late.
    order : ``Out(stream.Signature(TemplateOrder(config)))``
    evicted, freed : ``Out(1)``
        Strobe: an EVICT job is done, and has freed a slot.
    force, short, roomy : ``In(1)``
        As in :class:`~.pressure.Pressure`.
    note, note_record : ``Out(1)``, ``Out(HistoryNote(config))``
    now, cmd, upload, count
        As in :class:`~.layer.Tcp`; of ``count`` what ACKs count is 0.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "job":      In(stream.Signature(Job(config))),
            "walk":     Out(stream.Signature(WalkRequest(config))),
            "walked":   In(stream.Signature(WalkResult())),
            "ask":      Out(stream.Signature(HeldRequest(config))),
            "reply":    In(stream.Signature(HeldReply(config))),
            "blocks":   Out(stream.Signature(BlocksRequest(config))),
            "blocks_reply": In(stream.Signature(BlocksReply)),
            "release":  Out(stream.Signature(SlotIndex(config), always_ready=True)),
            "store":    Out(1),
            "context":  Out(Context(config)),
            "ack":      Out(AckState(config)),
            "last_ack": In(32),
            "delayed":  In(1),
            "order":    Out(stream.Signature(TemplateOrder(config))),
            "evicted":  Out(1),
            "freed":    Out(1),
            "force":    In(1),
            "short":    In(1),
            "roomy":    In(1),
            "note":     Out(1),
            "note_record": Out(HistoryNote(config)),
            "now":      In(32),
            "cmd":      In(InstallCommand),
            "upload":   Out(UploadPart),
            "count":    Out(abi.counter_layout("tcp")),
        })

    def elaborate(self, platform):
        m = Module()
        config, count = self.config, Signal(abi.counter_layout("tcp"))

        # The job in hand
        segment, alive = Signal(SegmentRecord(config)), Signal()
        qp, valid_qp = Signal(config.qp_bits), Signal()
        context, dirty = Signal(Context(config)), Signal()
        piece = Signal(data.StructLayout({"slot": config.slot_bits, "seq": 32, "offset": 11, "length": 12}))
        token, resumed = Signal(), Signal()
        slow = Signal()                  # not predicted
        take = Signal()                  # what the header says is still to be taken
        fin = Signal()                   # a FIN within the window
        moved = Signal()                 # RCV.NXT has
        due, late = Signal(), Signal()   # an ACK is to be sent; soon
        early = Signal()                 # one is to be sent that says how it was before this segment
        duplicate, dsack = Signal(), Signal(Block())

        m.submodules.compare = compare = Compare(config)
        m.submodules.verdict = verdict = Verdict(config)
        m.submodules.commit = commit = Commit(config)
        m.submodules.fresh = fresh = Fresh(config)
        m.submodules.budget = budget = ChallengeBudget()
        m.submodules.notes = notes = Notes(config)
        c = compare.o
        m.d.comb += [
            compare.segment.eq(segment), compare.context.eq(context), compare.last_ack.eq(self.last_ack),
            compare.now.eq(self.now),
            verdict.segment.eq(segment), verdict.context.eq(context), verdict.compared.eq(c),
            fresh.cmd.eq(self.cmd), fresh.now.eq(self.now),
            budget.tokens.eq(context.tokens), budget.stamp.eq(context.token_stamp), budget.now.eq(self.now),
            notes.qp.eq(qp), notes.segment.eq(segment), notes.context.eq(context), notes.length.eq(piece.length),
            notes.counter.eq(verdict.counter), self.note.eq(notes.note), self.note_record.eq(notes.record),
            self.count.eq(count),
        ]
        has_data = Signal()
        m.d.comb += has_data.eq(segment.length != 0)

        # Walks, lists and blocks
        walked, result = Signal(), Signal(WalkResult())
        ending, rest, edge = Signal(StreamEnd), Signal(12), Signal(32)
        op, for_rest, blocks_op = Signal(HeldOp), Signal(), Signal(BlocksOp)
        fin_now, untidy = Signal(), Signal()
        m.d.comb += [
            self.walk.p.kind.eq(Mux(token, RecordKind.TOKEN.value, RecordKind.DATA.value)),
            self.walk.p.token.eq(segment.token), self.walk.p.qp.eq(qp), self.walk.p.slot.eq(piece.slot),
            self.walk.p.offset.eq(piece.offset), self.walk.p.length.eq(piece.length), self.walk.p.end.eq(ending),
            self.ask.p.op.eq(op), self.ask.p.qp.eq(qp),
            self.ask.p.listed.eq(context.listed), self.ask.p.head.eq(context.head),
            self.ask.p.slot.eq(piece.slot), self.ask.p.offset.eq(piece.offset), self.ask.p.length.eq(piece.length),
            self.ask.p.seq.eq(Mux(op == HeldOp.POP, context.rcv_nxt, piece.seq)),
            self.ask.p.keep.eq(context.parked & ~self.force),
            self.blocks.p.op.eq(blocks_op), self.blocks.p.qp.eq(qp), self.blocks.p.count.eq(context.blocks),
            self.blocks.p.newest.eq(context.newest), self.blocks.p.block.right.eq(edge),
            self.blocks.p.block.left.eq(Mux(blocks_op == BlocksOp.ADD, piece.seq, context.rcv_nxt)),
            self.release.p.slot.eq(piece.slot),
            self.order.p.qp.eq(qp), self.order.p.remove.eq(segment.token.op == TokenOp.REMOVE),
            rest.eq(piece.length - result.consumed),
            commit.segment.eq(segment), commit.context.eq(context), commit.compared.eq(c), commit.now.eq(self.now),
            commit.take.eq(take), commit.fin.eq(fin), commit.result.eq(result), commit.resumed.eq(resumed),
            commit.whole.eq(rest == 0), commit.delayed.eq(self.delayed),
            untidy.eq((context.blocks != 0) | context.fin_seen | (take & fin)),
            self.context.eq(context),
            self.ack.qp.eq(qp), self.ack.due.eq(due | early), self.ack.late.eq(late),
            self.ack.rcv_nxt.eq(context.rcv_nxt), self.ack.ts_recent.eq(context.ts_recent),
            self.ack.ece.eq(context.ece), self.ack.blocks.eq(context.blocks), self.ack.newest.eq(context.newest),
            self.ack.duplicate.eq(duplicate), self.ack.dsack.eq(dsack),
        ]

        def ask(what):
            m.d.sync += op.eq(what)
            m.next = "ASK"

        def report(left, right):
            """The ACK to come tells of a duplicate."""
            m.d.sync += [duplicate.eq(context.sack), dsack.left.eq(left), dsack.right.eq(right)]

        def dropped(name):
            """Count and note it."""
            m.d.comb += [count[name].eq(1), notes.dropped.eq(1), notes.counter.eq(_FIRST + _NAMES.index(name))]

        with m.FSM():
            with m.State("READY"):       # for a job; meanwhile the last one's context is stored
                m.d.comb += [self.store.eq(dirty), self.job.ready.eq(1), notes.answered.eq(dirty & due & slow)]
                p = self.job.payload
                m.d.sync += [
                    dirty.eq(0), due.eq(0), late.eq(0), walked.eq(0), result.as_value().eq(0), for_rest.eq(0),
                    take.eq(0), fin.eq(0), moved.eq(0), resumed.eq(0), slow.eq(0), duplicate.eq(0),
                    ending.eq(StreamEnd.NONE),
                ]
                with m.If(self.job.valid):
                    m.d.sync += [
                        segment.eq(p.segment), alive.eq(p.alive), qp.eq(p.qp), valid_qp.eq(1),
                        piece.slot.eq(p.segment.slot), piece.seq.eq(p.segment.seq), piece.offset.eq(0),
                        piece.length.eq(p.segment.length), token.eq(p.kind == JobKind.TOKEN),
                    ]
                    with m.If(~valid_qp | (qp != p.qp)):
                        m.d.sync += context.eq(p.context)
                    with m.Switch(p.kind):
                        with m.Case(JobKind.SEGMENT):
                            m.next = "DIFFER"
                        with m.Case(JobKind.TOKEN):
                            m.next = "TOKEN"
                        with m.Case(JobKind.RESUME):
                            m.next = "RESUME"
                        with m.Case(JobKind.EVICT):
                            m.next = "EVICT"

            with m.State("DIFFER"):      # for the first stage of the comparison
                m.d.comb += compare.load.eq(1)
                m.next = "PREDICT"
                with m.If(~alive | context.failed):
                    dropped("rx_dead")
                    m.d.comb += self.release.valid.eq(has_data)
                    m.next = "READY"

            with m.State("PREDICT"):     # header prediction; for the second stage
                m.d.comb += [
                    count.rx_pure_acks.eq(~has_data), count.rx_fast_path.eq(c.predicted),
                    count.rx_slow_path.eq(~c.predicted & has_data), count.rx_urgent.eq(segment.urg),
                    # RFC 8257 3.2: what came before the change is acknowledged as it was marked.
                    early.eq(context.dctcp & c.remarked & c.level & c.second), self.store.eq(early),
                ]
                m.d.sync += [take.eq(1), slow.eq(~c.predicted), fin.eq(segment.fin)]
                m.next = "RANGE"
                with m.If(c.predicted):
                    m.next = "WALK"

            with m.State("RANGE"):       # for the third stage
                m.next = "JUDGE"

            with m.State("JUDGE"):       # drops the unacceptable, cuts the rest at the left
                with m.If(verdict.drop):
                    m.d.comb += [
                        count.eq(verdict.count), self.release.valid.eq(has_data),
                        notes.reset.eq(verdict.answer == Answer.RESET), notes.dropped.eq(~notes.reset),
                    ]
                    with m.If(verdict.duplicate):
                        report(segment.seq, c.right)
                    with m.Switch(verdict.answer):
                        with m.Case(Answer.ACK):
                            m.d.sync += [due.eq(1), dirty.eq(1)]
                            m.next = "READY"
                        with m.Case(Answer.CHALLENGE):
                            m.next = "CHALLENGE"
                        with m.Case(Answer.RESET):
                            m.d.sync += ending.eq(StreamEnd.RESET)
                            m.next = "WALK"
                        with m.Default():
                            m.next = "READY"
                with m.Elif(c.empty):
                    m.next = "COMMIT"
                with m.Else():
                    with m.If(c.below):
                        m.d.comb += count.rx_trimmed.eq(1)
                        m.d.sync += [piece.seq.eq(context.rcv_nxt), piece.offset.eq((-c.ahead)[:11]),
                                     piece.length.eq(c.end[:12] - fin), due.eq(1)]
                        report(segment.seq, context.rcv_nxt)
                    m.next = "CUT"

            with m.State("CHALLENGE"):   # an ACK, if there is a token for it
                m.d.comb += [count.tx_challenges.eq(1), count.tx_throttled.eq(~budget.some)]
                m.d.sync += [due.eq(budget.some), dirty.eq(budget.some)]
                with m.If(budget.some):
                    m.d.sync += [context.tokens.eq(budget.tokens_left), context.token_stamp.eq(budget.stamp_now)]
                m.next = "READY"

            with m.State("CUT"):         # cuts it at the right
                with m.If(c.excess > 0):
                    m.d.comb += count.rx_beyond_window.eq(1)
                    m.d.sync += [piece.length.eq(piece.length - c.excess[:12] + fin), fin.eq(0), due.eq(1)]
                m.next = "ROUTE"

            with m.State("ROUTE"):       # to the walk, or to the list
                with m.If(piece.length == 0):
                    m.d.comb += self.release.valid.eq(has_data)
                    m.next = "COMMIT"
                with m.Elif((c.below | c.level) & ~context.parked):
                    m.next = "WALK"
                with m.Else():
                    m.d.sync += due.eq(~context.parked)
                    m.next = "COMMIT"
                    with m.If(self.roomy):
                        ask(HeldOp.INSERT)
                    with m.Else():
                        dropped("rx_held_dropped")
                        m.d.comb += self.release.valid.eq(1)

            with m.State("WALK"):        # for the walk to begin
                m.d.comb += self.walk.valid.eq(1)
                with m.If(self.walk.ready):
                    m.next = "WALKED"

            with m.State("WALKED"):      # for its result
                m.d.comb += self.walked.ready.eq(1)
                m.d.sync += [result.eq(self.walked.payload), walked.eq(1)]
                with m.If(self.walked.valid):
                    m.next = "COMMIT"
                    with m.If(token):
                        m.next = "READY"
                    with m.Elif(ending != StreamEnd.NONE):
                        m.next = "ENDED"

            with m.State("COMMIT"):      # takes what is new into the context
                m.d.sync += [context.eq(commit.o), dirty.eq(1), take.eq(0)]
                m.d.comb += count.rx_ce.eq(take & c.marked)
                with m.If(result.consumed != 0):
                    m.d.comb += notes.in_order.eq(take & slow)
                    m.d.sync += [moved.eq(1), late.eq(~commit.prompt)]
                    with m.If(commit.prompt):
                        m.d.sync += due.eq(1)
                m.next = "READY"
                with m.If(untidy):
                    m.next = "TIDY"
                with m.If(walked):
                    whole = Signal()
                    m.d.comb += [whole.eq(commit.whole), self.release.valid.eq(~result.kept)]
                    with m.If(result.parked):
                        m.d.sync += context.parked.eq(1)
                    with m.If(result.failed):
                        m.d.sync += context.failed.eq(1)
                        m.next = "READY"
                    with m.Elif(result.parked & ~result.kept & ~whole):
                        m.d.comb += self.release.valid.eq(0)
                        m.next = "REST"
                    with m.Elif(~whole):
                        dropped("rx_refused")
                        m.d.sync += context.blocks.eq(0)         # it may have been in one
                    with m.Elif(context.listed & ~result.parked):
                        ask(HeldOp.POP)

            with m.State("REST"):        # keeps what a parked walk has left
                m.d.sync += [piece.seq.eq(context.rcv_nxt), piece.offset.eq(piece.offset + result.consumed),
                             piece.length.eq(rest), for_rest.eq(1)]
                ask(HeldOp.INSERT)

            with m.State("ASK"):         # for the list unit
                m.d.comb += self.ask.valid.eq(1)
                m.d.sync += edge.eq(piece.seq + piece.length)
                with m.If(self.ask.ready):
                    m.next = "REPLY"

            with m.State("REPLY"):       # for its answer
                p = self.reply.payload
                m.d.comb += self.reply.ready.eq(1)
                with m.If(self.reply.valid):
                    m.d.sync += [context.listed.eq(p.listed), context.head.eq(p.head), dirty.eq(1)]
                    m.next = "TIDY"
                    with m.Switch(op):
                        with m.Case(HeldOp.INSERT):
                            with m.If(~for_rest):
                                m.d.comb += [count.rx_held.eq(p.done), notes.held.eq(p.done)]
                                m.next = "COMMIT"
                                with m.If(~p.done):
                                    dropped("rx_duplicate")
                                    report(piece.seq, edge)
                                with m.Elif(context.sack):
                                    m.d.sync += blocks_op.eq(BlocksOp.ADD)
                                    m.next = "BLOCKS"
                        with m.Case(HeldOp.POP):
                            with m.If(p.done):
                                m.d.comb += count.rx_released.eq(1)
                                m.d.sync += [piece.slot.eq(p.slot), piece.offset.eq(p.offset),
                                             piece.length.eq(p.length)]
                                m.next = "WALK"
                        with m.Case(HeldOp.SHORTEN):
                            m.d.comb += [self.evicted.eq(1), self.freed.eq(p.done)]
                            m.d.sync += context.blocks.eq(0)     # what they say must be there
                            m.next = "READY"
                        with m.Case(HeldOp.CLEAR):
                            m.next = "ACT"

            with m.State("BLOCKS"):      # for the unit that keeps SACK blocks
                m.d.comb += self.blocks.valid.eq(1)
                with m.If(self.blocks.ready):
                    m.next = "BLOCKS_REPLY"

            with m.State("BLOCKS_REPLY"):        # for its answer
                m.d.comb += self.blocks_reply.ready.eq(1)
                with m.If(self.blocks_reply.valid):
                    m.d.sync += [context.blocks.eq(self.blocks_reply.p.count),
                                 context.newest.eq(self.blocks_reply.p.newest)]
                    m.next = "COMMIT"
                    with m.If(blocks_op == BlocksOp.CUT):
                        m.next = "TIDIED"

            with m.State("TIDY"):        # behind all walks: is the FIN in order?
                m.d.sync += fin_now.eq(context.fin_seen & (context.rcv_nxt == context.fin_seq) & ~context.parked)
                m.next = "TIDIED"

            with m.State("TIDIED"):      # blocks, FIN
                m.next = "READY"
                with m.If(moved & (context.blocks != 0)):
                    m.d.sync += [moved.eq(0), blocks_op.eq(BlocksOp.CUT)]
                    m.next = "BLOCKS"
                with m.Elif(fin_now):
                    m.d.sync += ending.eq(StreamEnd.FIN)
                    m.next = "WALK"
                with m.Else():
                    m.d.comb += count.rx_fin_early.eq(fin)

            with m.State("ENDED"):       # no octet comes any more
                m.d.sync += dirty.eq(1)
                with m.If(ending == StreamEnd.RESET):
                    m.d.sync += context.failed.eq(1)
                with m.Else():
                    m.d.comb += [count.rx_fin.eq(1), notes.fin.eq(1)]
                    m.d.sync += [context.rcv_nxt.eq(context.rcv_nxt + 1), context.closed.eq(1), context.fin_seen.eq(0),
                                 due.eq(1)]
                m.next = "READY"

            with m.State("RESUME"):      # what was parked goes on
                m.next = "READY"
                m.d.sync += [resumed.eq(1), slow.eq(1)]
                with m.If(alive & ~context.failed):
                    m.d.sync += [context.parked.eq(0), dirty.eq(1)]
                    with m.If(context.listed):
                        ask(HeldOp.POP)

            with m.State("EVICT"):       # throws the list's last away, if that is still called for
                with m.If(self.short & context.listed):
                    ask(HeldOp.SHORTEN)
                with m.Else():
                    m.d.comb += [self.evicted.eq(1), self.freed.eq(~self.short)]
                    m.next = "READY"

            with m.State("TOKEN"):       # the list goes before its connection does
                m.next = "ACT"
                with m.If(context.listed):
                    with m.Switch(segment.token.op):
                        with m.Case(TokenOp.INSTALL, TokenOp.KILL, TokenOp.REMOVE):
                            ask(HeldOp.CLEAR)

            with m.State("ACT"):         # does what the token says
                m.next = "WALK"
                with m.Switch(segment.token.op):
                    with m.Case(TokenOp.INSTALL):
                        m.d.sync += [context.eq(fresh.o), dirty.eq(1)]
                        m.next = "ORDER"
                    with m.Case(TokenOp.KILL):
                        m.d.sync += [context.failed.eq(1), context.parked.eq(0), dirty.eq(1)]
                    with m.Case(TokenOp.REMOVE):
                        m.d.sync += [context.as_value().eq(0), dirty.eq(1)]
                        m.next = "ORDER"
                    with m.Case(TokenOp.UPLOAD):
                        m.d.sync += [self.upload[name].eq(context[name])
                                     for name in ("snd_una", "snd_nxt", "snd_wnd", "rcv_nxt", "rcv_wnd", "ts_recent")]

            with m.State("ORDER"):       # for the header template; then the token goes on
                m.d.comb += [self.order.valid.eq(1), self.store.eq(1)]
                with m.If(self.order.ready):
                    m.next = "WALK"
        return m
