"""TCP's receive processing, one segment after the other."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import InstallCommand, RecordKind, TokenOp, UploadPart
from ..ip.records import SegmentRecord
from .context import AckState, Context, HeldOp, HeldReply, HeldRequest, Job, JobKind, TemplateOrder
from .records import SlotIndex, WalkRequest, WalkResult

__all__ = ["Receive", "DAYS_24"]

#: 24 days in units of 2**16 ticks of 1 ms: a TS.Recent that old says nothing (RFC 7323 5.5).
DAYS_24 = 24 * 86_400_000 // 65536 + 1


class Receive(wiring.Component):
    """Decides for each segment what is new in it, has it walked, and moves RCV.NXT by what was consumed.

    Acceptance, trimming and the window follow RFC 9293 3.10.7.4, timestamps RFC 7323 3.2, 4.3 and 5.3. A segment for
    which header prediction holds (next octet, timestamp not older, usual options, nothing held or parked) needs no
    subtraction of its own results; all others take the slow path, which is as complete, and about 5 cycles longer.

    - An unacceptable segment is acknowledged and dropped, and its ACK field not looked at. One that acknowledges
      what was never sent is counted; its data is taken all the same.
    - SND.WND is taken from in-order segments alone. Their sequence numbers never fall, so that WL1 and WL2 would
      tell nothing more.
    - What a parked connection holds is not acknowledged twice: nothing is missing that the peer could send again.

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
    release : ``Out(stream.Signature(SlotIndex(config), always_ready=True))``
        Slots given back.
    store : ``Out(1)``
        Strobe: ``ack.qp`` has a new ``context``.
    context : ``Out(Context(config))``
    ack : ``Out(AckState(config))``
        Valid with ``store``.
    last_ack : ``In(32)``
        Last.ACK.sent of the job that was on offer a cycle ago.
    order : ``Out(stream.Signature(TemplateOrder(config)))``
    evicted, freed : ``Out(1)``
        Strobe: an EVICT job is done, and has freed a slot.
    force, short, roomy : ``In(1)``
        As in :class:`~.pressure.Pressure`.
    now, cmd, upload, count
        As in :class:`~.layer.Tcp`; ``tx_acks`` of ``count`` is 0.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "job":      In(stream.Signature(Job(config))),
            "walk":     Out(stream.Signature(WalkRequest(config))),
            "walked":   In(stream.Signature(WalkResult())),
            "ask":      Out(stream.Signature(HeldRequest(config))),
            "reply":    In(stream.Signature(HeldReply(config))),
            "release":  Out(stream.Signature(SlotIndex(config), always_ready=True)),
            "store":    Out(1),
            "context":  Out(Context(config)),
            "ack":      Out(AckState(config)),
            "last_ack": In(32),
            "order":    Out(stream.Signature(TemplateOrder(config))),
            "evicted":  Out(1),
            "freed":    Out(1),
            "force":    In(1),
            "short":    In(1),
            "roomy":    In(1),
            "now":      In(32),
            "cmd":      In(InstallCommand),
            "upload":   Out(UploadPart),
            "count":    Out(abi.counter_layout("tcp")),
        })

    def elaborate(self, platform):
        m = Module()
        count = self.count

        # The job in hand
        segment, alive = Signal(SegmentRecord(self.config)), Signal()
        qp, valid_qp = Signal(self.config.qp_bits), Signal()
        context, dirty = Signal(Context(self.config)), Signal()
        piece = Signal(data.StructLayout({"slot": self.config.slot_bits, "seq": 32, "offset": 11, "length": 12}))
        token = Signal()
        due = Signal()                   # an ACK is to be sent

        # First stage: differences. Second stage: what follows from them.
        ahead = Signal(signed(32))       # SEG.SEQ - RCV.NXT
        younger = Signal(signed(32))     # SEG.TSval - TS.Recent
        acked = Signal(signed(32))       # Last.ACK.sent - SEG.SEQ
        newly = Signal(signed(32))       # SEG.ACK - SND.UNA
        unsent = Signal(signed(32))      # SND.NXT - SEG.ACK
        age, window = Signal(16), Signal(32)
        take_ack, take_ts, take_window, bad_ack, replayed = (
            Signal(name=n) for n in ("take_ack", "take_ts", "take_window", "bad_ack", "replayed"))
        end = Signal(signed(34))         # SEG.SEQ + SEG.LEN - RCV.NXT
        over = Signal(signed(34))        # SEG.SEQ - right edge of the window
        excess = Signal(signed(34))      # octets beyond it
        old, beyond = Signal(), Signal()
        empty, below, level, next_up = (Signal(name=n) for n in ("empty", "below", "level", "next_up"))
        m.d.comb += [
            empty.eq(segment.length == 0), below.eq(ahead < 0), level.eq(ahead == 0),
        ]

        # Walks and lists
        walked, result = Signal(), Signal(WalkResult())
        rest = Signal(12)
        op, for_rest = Signal(HeldOp), Signal()
        m.d.comb += [
            self.walk.p.kind.eq(Mux(token, RecordKind.TOKEN.value, RecordKind.DATA.value)),
            self.walk.p.token.eq(segment.token), self.walk.p.qp.eq(qp), self.walk.p.slot.eq(piece.slot),
            self.walk.p.offset.eq(piece.offset), self.walk.p.length.eq(piece.length),
            self.ask.p.op.eq(op), self.ask.p.qp.eq(qp),
            self.ask.p.listed.eq(context.listed), self.ask.p.head.eq(context.head),
            self.ask.p.slot.eq(piece.slot), self.ask.p.offset.eq(piece.offset), self.ask.p.length.eq(piece.length),
            self.ask.p.seq.eq(Mux(op == HeldOp.POP, context.rcv_nxt, piece.seq)),
            self.ask.p.keep.eq(context.parked & ~self.force),
            self.release.p.slot.eq(piece.slot),
            self.order.p.qp.eq(qp), self.order.p.remove.eq(segment.token.op == TokenOp.REMOVE),
            rest.eq(piece.length - result.consumed),
            self.context.eq(context),
            self.ack.qp.eq(qp), self.ack.rcv_nxt.eq(context.rcv_nxt), self.ack.ts_recent.eq(context.ts_recent),
            self.ack.due.eq(due),
        ]

        def ask(what):
            m.d.sync += op.eq(what)
            m.next = "ASK"

        with m.FSM():
            with m.State("READY"):       # for a job; meanwhile the last one's context is stored
                m.d.comb += [self.store.eq(dirty), self.job.ready.eq(1)]
                p = self.job.payload
                m.d.sync += [
                    dirty.eq(0), due.eq(0), walked.eq(0), result.as_value().eq(0), for_rest.eq(0),
                    take_ack.eq(0), take_ts.eq(0), take_window.eq(0), bad_ack.eq(0),
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

            with m.State("DIFFER"):      # first stage
                m.d.sync += [
                    ahead.eq(segment.seq - context.rcv_nxt), younger.eq(segment.tsval - context.ts_recent),
                    acked.eq(self.last_ack - segment.seq), newly.eq(segment.ack - context.snd_una),
                    unsent.eq(context.snd_nxt - segment.ack), age.eq(self.now[16:] - context.ts_stamp),
                    window.eq(segment.window << context.snd_wscale),
                ]
                m.next = "PREDICT"
                with m.If(~alive | context.failed):
                    m.d.comb += [count.rx_dead.eq(1), self.release.valid.eq(~empty)]
                    m.next = "READY"

            with m.State("PREDICT"):     # second stage; header prediction
                m.d.sync += [
                    replayed.eq(context.timestamps & (younger < 0) & (age < DAYS_24)),
                    take_ts.eq(context.timestamps & (acked >= 0)),
                    take_ack.eq((newly >= 0) & (unsent >= 0)), bad_ack.eq(unsent < 0),
                    take_window.eq(level & (newly >= 0) & (unsent >= 0)),
                    end.eq(ahead + segment.length), over.eq(ahead - context.rcv_wnd),
                    next_up.eq(below | level),
                ]
                fast = Signal()
                m.d.comb += [
                    fast.eq(level & ~empty & ~segment.options & ~context.listed & ~context.parked & context.wide
                            & (~context.timestamps | (segment.has_ts & (younger >= 0)))),
                    count.rx_pure_acks.eq(empty), count.rx_fast_path.eq(fast), count.rx_slow_path.eq(~fast & ~empty),
                ]
                m.next = "RANGE"
                with m.If(fast):
                    m.next = "WALK"

            with m.State("RANGE"):       # slow path, third stage
                m.d.sync += [
                    old.eq(Mux(empty, below, end <= 0)), beyond.eq((over >= 0) & ~(empty & level)),
                    excess.eq(end - context.rcv_wnd),
                ]
                m.next = "TRIM"

            with m.State("TRIM"):        # drops the unacceptable, cuts the rest at the left
                drop = Signal()
                m.d.comb += self.release.valid.eq(drop & ~empty)
                with m.If(context.timestamps & ~segment.has_ts):
                    m.d.comb += [count.rx_no_timestamp.eq(1), drop.eq(1)]
                with m.Elif(replayed | old):
                    m.d.comb += [count.rx_duplicate.eq(1), drop.eq(1)]
                    m.d.sync += [due.eq(1), dirty.eq(1)]
                with m.Elif(beyond):
                    m.d.comb += [count.rx_beyond_window.eq(1), drop.eq(1)]
                    m.d.sync += [due.eq(1), dirty.eq(1)]
                with m.Elif(below & ~empty):
                    m.d.comb += count.rx_trimmed.eq(1)
                    m.d.sync += [piece.seq.eq(context.rcv_nxt), piece.offset.eq((-ahead)[:11]),
                                 piece.length.eq(end[:12])]
                m.next = "CUT"
                with m.If(drop):
                    m.next = "READY"
                with m.Elif(empty):
                    m.next = "COMMIT"

            with m.State("CUT"):         # cuts it at the right
                with m.If(excess > 0):
                    m.d.comb += count.rx_beyond_window.eq(1)
                    m.d.sync += piece.length.eq(piece.length - excess[:12])
                with m.If(next_up & ~context.parked):
                    m.next = "WALK"
                with m.Elif(self.roomy):
                    ask(HeldOp.INSERT)
                with m.Else():
                    m.d.comb += [count.rx_held_dropped.eq(1), self.release.valid.eq(1)]
                    m.d.sync += due.eq(~context.parked)
                    m.next = "COMMIT"

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

            with m.State("COMMIT"):      # takes what is new into the context
                m.d.sync += [
                    context.rcv_nxt.eq(context.rcv_nxt + result.consumed), dirty.eq(1),
                    take_ack.eq(0), take_ts.eq(0), take_window.eq(0), bad_ack.eq(0),
                ]
                m.d.comb += count.rx_bad_ack.eq(bad_ack)
                with m.If(take_ack):
                    m.d.sync += context.snd_una.eq(segment.ack)
                with m.If(take_window):
                    m.d.sync += context.snd_wnd.eq(window)
                with m.If(take_ts):
                    m.d.sync += [context.ts_recent.eq(segment.tsval), context.ts_stamp.eq(self.now[16:])]
                with m.If(result.consumed != 0):
                    m.d.sync += due.eq(1)
                m.next = "READY"
                with m.If(walked):
                    whole = Signal()
                    m.d.comb += [whole.eq(rest == 0), self.release.valid.eq(~result.kept)]
                    with m.If(result.parked):
                        m.d.sync += context.parked.eq(1)
                    with m.If(result.failed):
                        m.d.sync += context.failed.eq(1)
                    with m.Elif(result.parked & ~result.kept & ~whole):
                        m.d.comb += self.release.valid.eq(0)
                        m.next = "REST"
                    with m.Elif(~whole):
                        m.d.comb += count.rx_refused.eq(1)
                    with m.Elif(context.listed & ~result.parked):
                        ask(HeldOp.POP)

            with m.State("REST"):        # keeps what a parked walk has left
                m.d.sync += [piece.seq.eq(context.rcv_nxt), piece.offset.eq(piece.offset + result.consumed),
                             piece.length.eq(rest), for_rest.eq(1)]
                ask(HeldOp.INSERT)

            with m.State("ASK"):         # for the list unit
                m.d.comb += self.ask.valid.eq(1)
                with m.If(self.ask.ready):
                    m.next = "REPLY"

            with m.State("REPLY"):       # for its answer
                p = self.reply.payload
                m.d.comb += self.reply.ready.eq(1)
                with m.If(self.reply.valid):
                    m.d.sync += [context.listed.eq(p.listed), context.head.eq(p.head), dirty.eq(1)]
                    m.next = "READY"
                    with m.Switch(op):
                        with m.Case(HeldOp.INSERT):
                            with m.If(~for_rest):
                                m.d.comb += [count.rx_held.eq(p.done), count.rx_duplicate.eq(~p.done)]
                                m.d.sync += due.eq(~context.parked)
                                m.next = "COMMIT"
                        with m.Case(HeldOp.POP):
                            with m.If(p.done):
                                m.d.comb += count.rx_released.eq(1)
                                m.d.sync += [piece.slot.eq(p.slot), piece.offset.eq(p.offset),
                                             piece.length.eq(p.length)]
                                m.next = "WALK"
                        with m.Case(HeldOp.SHORTEN):
                            m.d.comb += [self.evicted.eq(1), self.freed.eq(p.done)]
                        with m.Case(HeldOp.CLEAR):
                            m.next = "ACT"

            with m.State("RESUME"):      # what was parked goes on
                m.next = "READY"
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
                        self._install(m, context)
                        m.d.sync += dirty.eq(1)
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
                m.d.comb += self.order.valid.eq(1)
                with m.If(self.order.ready):
                    m.next = "WALK"
        return m

    def _install(self, m, context):
        cmd = self.cmd
        m.d.sync += [
            context.as_value().eq(0),
            context.rcv_nxt.eq(cmd.rcv_nxt), context.rcv_wnd.eq(cmd.rcv_wnd), context.ts_recent.eq(cmd.ts_recent),
            context.ts_stamp.eq(self.now[16:]), context.snd_una.eq(cmd.snd_nxt), context.snd_nxt.eq(cmd.snd_nxt),
            context.snd_wnd.eq(cmd.snd_wnd), context.snd_wscale.eq(cmd.snd_wscale),
            context.timestamps.eq((cmd.flags & abi.QpFlags.TIMESTAMPS.value) != 0),
            context.wide.eq(cmd.rcv_wnd >= self.config.slot_bytes),
        ]
