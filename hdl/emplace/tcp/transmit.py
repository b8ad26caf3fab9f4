"""TCP's transmit side: when each connection may send how much, and what again.

Ref: RFC 9293 §3.8, RFC 5681, RFC 6582, RFC 6298, RFC 7323 §4.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..abi import Reason
from ..control.records import InstallCommand, QpIndex, Token, TokenOp, UploadPart
from ..llp import Released, SendAnswer, SendAsk, SendOutcome
from ..stream.flags import FlagSet
from ..stream.scrub import scrub
from .mail import Mailbox
from .newreno import NewReno
from .records import SegmentOrder
from .rto import RtoEstimator
from .send_records import NO_LIMIT, AckNews, CongestionEvent, SendSetup, SendState
from .timers import Deadlines

__all__ = ["Transmit", "QUANTUM", "RETRIES"]

#: Octets that a connection may order in a visit, beyond which the others come first.
QUANTUM = 4096
#: Expiries in a row after which a connection is given up.
RETRIES = 15
_INITIAL_SEGMENTS = 10         # RFC 6928


def _died(config):
    return data.StructLayout({"qp": config.qp_bits, "reason": 8})


class Transmit(wiring.Component):
    """Visits connections that have mail, something to send, or a timer that is over; one at a time, in turn.

    A visit takes in what the peer has acknowledged, moves congestion window and timers, and then asks the ULP for FPDUs as
    long as both windows have room for them, up to ``QUANTUM`` octets. So a connection with something to send waits for no
    more than twice ``QUANTUM`` and a segment of each other one (it may be called one round late). FPDUs go whole, a segment
    each. Octets that are sent again are asked for again: nothing is kept here but numbers (design D2).

    Throughput: a segment every 12 cycles and the ULP's answer; a visit takes 8 cycles more, 8 for an ACK.
    Latency: 7 cycles from a ready connection to the question.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    retries : :class:`int`

    Members
    -------
    news : ``In(stream.Signature(AckNews(config), always_ready=True))``
        From receive; see :class:`~.mail.Mailbox`.
    ready : ``In(stream.Signature(QpIndex(config))).array(2)``
        It may be worth asking for this connection. Always taken.
    ask, answer : ``Out(stream.Signature(SendAsk(config)))``, ``In(stream.Signature(SendAnswer()))``
    released : ``Out(stream.Signature(Released(config)))``
    orders : ``Out(stream.Signature(SegmentOrder(config)))``
    left : ``In(2)``
        Segments that were handed to the MAC or dropped in this cycle.
    probe : ``Out(stream.Signature({qp, seq}))``
        A segment without payload is to be sent, with this sequence number: a probe of a closed window.
    look, snd_max : ``In(qp_bits).array(2)``, ``Out(32).array(2)``
        SND.MAX of the connection looked for 2 cycles ago.
    died : ``Out(stream.Signature({qp, reason}))``
        RETRY_LIMIT.
    token, token_out : ``In``, ``Out(stream.Signature(Token(config)))``
        KILL and REMOVE leave once no segment is under way any more.
    upload : ``Out(UploadPart)``
        snd_una, snd_nxt (SND.MAX), snd_wnd.
    now : ``In(32)``
        Ticks.
    cmd : ``In(InstallCommand)``
    timeouts, fast_retransmits, retransmitted, probes : ``Out(1)``
        Counters.
    """

    def __init__(self, config, *, retries=RETRIES):
        self.config, self.retries = config, retries
        qp = config.qp_bits
        super().__init__({
            "news":      In(stream.Signature(AckNews(config), always_ready=True)),
            "ready":     In(stream.Signature(QpIndex(config))).array(2),
            "ask":       Out(stream.Signature(SendAsk(config))),
            "answer":    In(stream.Signature(SendAnswer())),
            "released":  Out(stream.Signature(Released(config))),
            "orders":    Out(stream.Signature(SegmentOrder(config))),
            "left":      In(2),
            "probe":     Out(stream.Signature(data.StructLayout({"qp": qp, "seq": 32}))),
            "look":      In(qp).array(2),
            "snd_max":   Out(32).array(2),
            "died":      Out(stream.Signature(_died(config))),
            "token":     In(stream.Signature(Token(config))),
            "token_out": Out(stream.Signature(Token(config))),
            "upload":    Out(UploadPart),
            "now":       In(32),
            "cmd":       In(InstallCommand),
            **{name: Out(1) for name in ("timeouts", "fast_retransmits", "retransmitted", "probes")},
        })

    def elaborate(self, platform):
        m = Module()
        config, cmd, answer = self.config, self.cmd, self.answer.p

        m.submodules.states = states = memory.Memory(shape=SendState(), depth=config.qps, init=[])
        m.submodules.setups = setups = memory.Memory(shape=SendSetup(), depth=config.qps, init=[])
        m.submodules.ends = ends = memory.Memory(shape=32, depth=config.qps, init=[])
        m.submodules.mail = mailbox = Mailbox(config)
        m.submodules.work = work = FlagSet(config.qps, setters=5)
        m.submodules.deadlines = deadlines = Deadlines(config)
        m.submodules.congestion = congestion = NewReno()
        m.submodules.estimator = estimator = RtoEstimator()
        state_read, state_write = states.read_port(), states.write_port()
        setup_read, setup_write = setups.read_port(), setups.write_port()
        end_write = ends.write_port()

        qp, state, setup = Signal(config.qp_bits), Signal(SendState()), Signal(SendSetup())
        mail = Signal(mailbox.mail.shape())
        more_work = Signal()             # this connection is to be visited again
        m.d.comb += [
            mailbox.news.p.eq(self.news.p), mailbox.news.valid.eq(self.news.valid), mailbox.look.eq(qp),
            work.set[0].eq(mailbox.told), work.set[1].eq(deadlines.over),
            work.set[4].en.eq(more_work), work.set[4].index.eq(qp),
            deadlines.now.eq(self.now), deadlines.set.qp.eq(qp), deadlines.set.armed.eq(state.armed),
            deadlines.set.deadline.eq(state.deadline),
            state_read.addr.eq(qp), setup_read.addr.eq(qp), state_write.addr.eq(qp), setup_write.addr.eq(qp),
            state_write.data.eq(state), end_write.addr.eq(qp), end_write.data.eq(state.max),
            mailbox.set.qp.eq(qp), mailbox.set.ack.eq(cmd.snd_nxt), mailbox.set.wnd.eq(cmd.snd_wnd),
        ]
        for n in range(2):
            end_read = ends.read_port()
            m.d.comb += end_read.addr.eq(self.look[n])
            m.d.sync += self.snd_max[n].eq(end_read.data)
            m.d.comb += [self.ready[n].ready.eq(1), work.set[2 + n].en.eq(self.ready[n].valid),
                         work.set[2 + n].index.eq(self.ready[n].p.qp)]

        # Segments on their way through framer, stage and emission
        under_way = Signal(8)
        ordered = Signal()
        m.d.comb += ordered.eq(self.orders.valid & self.orders.ready)
        m.d.sync += under_way.eq(under_way + ordered - self.left[0] - self.left[1])

        # Differences
        acked, flight = Signal(signed(32)), Signal(32)
        beyond, recovered, timed = Signal(signed(32)), Signal(signed(32)), Signal(signed(32))
        overdue = Signal(signed(32))
        new_dups = Signal(8)
        elapsed = Signal(32)
        m.d.sync += [
            acked.eq(mail.ack - state.una), flight.eq(state.nxt - state.una), beyond.eq(state.max - mail.ack),
            recovered.eq(mail.ack - state.recover), timed.eq(mail.ack - state.timed), overdue.eq(self.now - state.deadline),
            new_dups.eq(mail.dups - state.seen),
            elapsed.eq(Mux(setup.timestamps, self.now + setup.ts_offset - mail.tsecr, self.now - state.since)),
        ]
        event, octets, pause = Signal(CongestionEvent), Signal(30), Signal(2)
        outstanding = Signal(30)         # in flight when the event happened
        taken, sampled, expiring = Signal(), Signal(), Signal()    # an ACK is being taken in; with a sample; a timeout is
        m.d.comb += [
            congestion.event.eq(event), congestion.octets.eq(octets), congestion.flight.eq(outstanding),
            congestion.segment.eq(setup.segment), congestion.cwnd.eq(state.cwnd), congestion.ssthresh.eq(state.ssthresh),
            estimator.sample.eq(Mux(elapsed[16:].any(), 0xFFFF, elapsed[:16])), estimator.srtt.eq(state.srtt),
            estimator.rttvar.eq(state.rttvar), estimator.measured.eq(state.measured), estimator.backoff.eq(state.backoff),
        ]

        # What may be sent
        window, spare, room = Signal(32), Signal(signed(33)), Signal(16)
        again, budget = Signal(), Signal(range(QUANTUM + 1))
        closed_window = Signal()         # nothing is in flight, and what is to be sent doesn't fit
        begin, length = Signal(12), Signal(12)
        position = Signal(32)
        m.d.comb += [
            window.eq(Mux(state.wnd > state.cwnd, state.cwnd, state.wnd)),
            position.eq(Mux(state.repeat, state.una, state.nxt)),
            self.ask.p.qp.eq(qp), self.ask.p.position.eq(position), self.ask.p.room.eq(room), self.ask.p.again.eq(again),
            self.released.p.qp.eq(qp), self.released.p.position.eq(state.una),
            self.orders.p.qp.eq(qp), self.orders.p.begin.eq(begin), self.orders.p.end.eq(begin + length),
            self.orders.p.lead.eq(Mux(setup.timestamps ^ setup.vlan, 2, 6)), self.orders.p.closes.eq(1),
            self.orders.p.seq.eq(position), self.orders.p.length.eq(length),
            self.probe.p.qp.eq(qp), self.probe.p.seq.eq(state.una - 1),
            self.died.p.qp.eq(qp), self.died.p.reason.eq(Reason.RETRY_LIMIT),
            self.token_out.p.eq(self.token.p),
        ]
        push = Signal()
        m.d.comb += self.orders.p.push.eq(push)

        def react(to, newly=0):
            """Tell the congestion control; CONGESTION takes over what it says, and goes on with DUPS."""
            m.d.sync += [event.eq(to), octets.eq(newly), outstanding.eq(flight), pause.eq(3)]
            m.next = "CONGESTION"

        with m.FSM(name="transmit"):
            with m.State("IDLE"):        # for a token, or a connection with something to do
                m.d.sync += [budget.eq(QUANTUM), taken.eq(0), sampled.eq(0), expiring.eq(0)]
                with m.If(self.token.valid):
                    m.d.sync += qp.eq(self.token.p.qp)
                    m.next = "TOKEN_LOAD"
                with m.Elif(work.o.valid):
                    m.d.comb += work.o.ready.eq(1)
                    m.d.sync += qp.eq(work.o.payload)
                    m.next = "LOAD"
            with m.State("LOAD"):        # for the memories
                m.next = "LOADED"
            with m.State("LOADED"):
                m.d.sync += [state.eq(state_read.data), setup.eq(setup_read.data), mail.eq(mailbox.mail)]
                m.next = "DIFFER"
            with m.State("DIFFER"):      # for the differences
                m.next = "NEWS"
                with m.If(~state.alive):
                    m.next = "IDLE"
            with m.State("NEWS"):        # what the peer says
                m.d.sync += state.wnd.eq(mail.wnd)
                m.next = "DUPS"
                with m.If((acked > 0) & (beyond >= 0)):
                    m.d.sync += [
                        state.una.eq(mail.ack), state.dups.eq(0), state.seen.eq(mail.dups), state.backoff.eq(0),
                        state.persist.eq(0), taken.eq(1),
                        sampled.eq(Mux(setup.timestamps, mail.stamped, state.timing & (timed > 0))),
                    ]
                    with m.If(acked > flight):     # it had been sent before it was to be sent again
                        m.d.sync += state.nxt.eq(mail.ack)
                    with m.If(~state.recovering):
                        react(CongestionEvent.ACK, acked[:30])
                    with m.Elif(recovered >= 0):
                        m.d.sync += [state.recovering.eq(0), state.repeat.eq(0)]
                        react(CongestionEvent.RECOVERED, acked[:30])
                    with m.Else():
                        m.d.sync += state.repeat.eq(1)
                        react(CongestionEvent.PARTIAL, acked[:30])
                    with m.If(recovered >= 0):
                        m.d.sync += state.guarded.eq(0)
            with m.State("CONGESTION"):  # for the congestion control, and the estimator beside it
                m.d.sync += pause.eq(pause - 1)
                with m.If(pause == 0):
                    m.d.sync += [state.cwnd.eq(congestion.new_cwnd), state.ssthresh.eq(congestion.new_ssthresh)]
                    with m.If(sampled):
                        m.d.sync += [state.srtt.eq(estimator.new_srtt), state.rttvar.eq(estimator.new_rttvar),
                                     state.measured.eq(1), state.timing.eq(0)]
                    m.d.sync += sampled.eq(0)
                    m.next = "DUPS"
                    with m.If(taken):
                        m.next = "RELEASE"
                    with m.Elif(expiring):
                        m.next = "REARM"
            with m.State("RELEASE"):     # for the ULP to know
                m.d.comb += self.released.valid.eq(1)
                m.d.sync += taken.eq(0)
                with m.If(self.released.ready):
                    m.next = "REARM"
            with m.State("REARM"):       # for the timeout's second stage
                m.next = "REARMED"
            with m.State("REARMED"):
                m.d.sync += [
                    state.armed.eq((state.una != state.max) | state.persist), state.deadline.eq(self.now + estimator.rto),
                ]
                m.d.sync += expiring.eq(0)
                m.next = "SETTLE"
            with m.State("SETTLE"):      # for the differences
                m.next = "DUPS"

            with m.State("DUPS"):        # one duplicate ACK after the other
                m.next = "TIMER"
                with m.If((new_dups != 0) & ~taken):
                    m.d.sync += state.seen.eq(state.seen + 1)
                    m.next = "MORE_DUPS"
                    with m.If(state.una == state.max):
                        m.d.sync += state.seen.eq(mail.dups)
                    with m.Elif(state.recovering):
                        react(CongestionEvent.DUP_MORE)
                    with m.Elif(state.dups == 2):
                        m.d.sync += state.dups.eq(3)
                        with m.If(~state.guarded):
                            m.d.comb += self.fast_retransmits.eq(1)
                            m.d.sync += [state.recovering.eq(1), state.guarded.eq(1), state.recover.eq(state.max),
                                         state.repeat.eq(1)]
                            react(CongestionEvent.DUP_3)
                    with m.Elif(state.dups != 3):
                        m.d.sync += state.dups.eq(state.dups + 1)
            with m.State("MORE_DUPS"):   # for the differences
                m.next = "DUPS"
            with m.State("TIMER"):       # is it over?
                m.next = "WINDOW"
                with m.If(state.armed & (overdue >= 0)):
                    m.d.sync += state.backoff.eq(Mux(state.backoff == 15, 15, state.backoff + 1))
                    with m.If(state.persist):
                        m.next = "PROBE"
                    with m.Elif(state.una == state.max):
                        m.d.sync += state.armed.eq(0)
                    with m.Elif(state.backoff >= self.retries):
                        m.next = "DIE"
                    with m.Else():
                        m.d.comb += self.timeouts.eq(1)
                        m.d.sync += [
                            expiring.eq(1),
                            state.nxt.eq(state.una), state.recovering.eq(0), state.guarded.eq(1),
                            state.recover.eq(state.max), state.repeat.eq(0), state.dups.eq(0), state.timing.eq(0),
                            state.cwnd.eq(setup.segment),
                        ]
                        m.next = "EXPIRED"
                        with m.If(state.backoff == 0):
                            react(CongestionEvent.TIMEOUT)
            with m.State("PROBE"):       # for the emission to know
                m.d.comb += [self.probe.valid.eq(1), self.probes.eq(self.probe.ready)]
                with m.If(self.probe.ready):
                    m.next = "EXPIRED"
            with m.State("EXPIRED"):     # for the timeout's stages
                m.next = "REARM"
            with m.State("DIE"):         # for control to know
                m.d.comb += self.died.valid.eq(1)
                m.d.sync += [state.alive.eq(0), state.armed.eq(0)]
                with m.If(self.died.ready):
                    m.next = "STORE"

            with m.State("WINDOW"):      # for the differences; then the room
                m.d.sync += spare.eq(window - flight)
                m.next = "ROOM"
            with m.State("ROOM"):
                m.d.sync += [
                    room.eq(Mux(state.repeat | (spare > 0xFFFF), 0xFFFF, Mux(spare < 0, 0, spare[:16]))),
                    again.eq(state.repeat | (state.nxt != state.max)),
                ]
                m.next = "ASK"
            with m.State("ASK"):         # for the ULP to take the question
                m.d.comb += self.ask.valid.eq(1)
                with m.If(self.ask.ready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):      # for its answer
                m.d.comb += self.answer.ready.eq(1)
                m.d.sync += [
                    begin.eq(position - answer.start), length.eq(answer.size - (position - answer.start)[:12]),
                    push.eq(~answer.more),
                    closed_window.eq((answer.outcome == SendOutcome.NO_ROOM) & (state.una == state.nxt)),
                ]
                with m.If(self.answer.valid):
                    m.next = "STOP"
                    with m.If(answer.outcome == SendOutcome.GIVEN):
                        m.next = "ORDER"
                    with m.Elif(answer.outcome == SendOutcome.FAILED):
                        m.d.sync += [state.alive.eq(0), state.armed.eq(0)]
                        m.next = "STORE"
            with m.State("ORDER"):       # for the builder of segments
                m.d.comb += [self.orders.valid.eq(~under_way[-1]), self.retransmitted.eq(ordered & again)]
                with m.If(ordered):
                    m.d.sync += [state.persist.eq(0), budget.eq(Mux(budget > length, budget - length, 0))]
                    with m.If(~state.armed | state.persist):
                        m.d.sync += [state.armed.eq(1), state.deadline.eq(self.now + estimator.rto)]
                    with m.If(state.repeat):
                        m.d.sync += state.repeat.eq(0)
                    with m.Else():
                        m.d.sync += state.nxt.eq(state.nxt + length)
                    with m.If(~again):
                        m.d.sync += state.max.eq(state.nxt + length)
                        with m.If(~state.timing):
                            m.d.sync += [state.timing.eq(1), state.timed.eq(state.nxt), state.since.eq(self.now)]
                    with m.Elif(~setup.timestamps):        # Karn
                        m.d.sync += state.timing.eq(0)
                    m.next = "ORDERED"
            with m.State("ORDERED"):     # for the differences
                m.d.comb += end_write.en.eq(1)
                m.next = "WINDOW"
                with m.If(budget == 0):
                    m.d.comb += more_work.eq(1)
                    m.next = "STORE"
            with m.State("STOP"):
                m.next = "STORE"
                with m.If(closed_window & (~state.armed | ~state.persist)):
                    m.d.sync += [state.armed.eq(1), state.persist.eq(1), state.deadline.eq(self.now + estimator.rto)]
                with m.Elif(~closed_window & state.persist):
                    m.d.sync += [state.armed.eq(state.una != state.max), state.persist.eq(0)]
            with m.State("STORE"):
                m.d.comb += [state_write.en.eq(1), deadlines.set.en.eq(1)]
                m.next = "IDLE"

            with m.State("TOKEN_LOAD"):  # for the memories
                m.next = "TOKEN_LOADED"
            with m.State("TOKEN_LOADED"):
                m.d.sync += [state.eq(state_read.data)]
                m.next = "TOKEN"
            with m.State("TOKEN"):       # KILL, REMOVE: until nothing is under way any more
                m.next = "TOKEN_OUT"
                with m.Switch(self.token.p.op):
                    with m.Case(TokenOp.INSTALL):
                        m.next = "INSTALL"
                    with m.Case(TokenOp.KILL, TokenOp.REMOVE):
                        m.d.sync += [state.alive.eq(0), state.armed.eq(0)]
                        m.next = "TOKEN"
                        with m.If(under_way == 0):
                            m.next = "TOKEN_STORE"
                    with m.Case(TokenOp.UPLOAD):
                        m.d.sync += [self.upload.snd_una.eq(state.una), self.upload.snd_nxt.eq(state.max),
                                     self.upload.snd_wnd.eq(state.wnd)]
            with m.State("INSTALL"):
                timestamps = Signal()
                segment = Signal(12)
                m.d.comb += [
                    timestamps.eq(cmd.flags[abi.QpFlags.TIMESTAMPS.bit_length() - 1]),
                    segment.eq((cmd.mss - Mux(timestamps, 12, 0)) & 0xFFC),
                    setup_write.en.eq(1), setup_write.data.segment.eq(segment), setup_write.data.timestamps.eq(timestamps),
                    setup_write.data.vlan.eq(cmd.flags[abi.QpFlags.VLAN.bit_length() - 1]),
                    setup_write.data.ts_offset.eq(cmd.ts_offset), mailbox.set.en.eq(1),
                ]
                m.d.sync += [
                    state.as_value().eq(0), state.alive.eq(1), state.una.eq(cmd.snd_nxt), state.nxt.eq(cmd.snd_nxt),
                    state.max.eq(cmd.snd_nxt), state.recover.eq(cmd.snd_nxt), state.wnd.eq(cmd.snd_wnd),
                    state.cwnd.eq(Mux(cmd.cwnd == 0, segment * _INITIAL_SEGMENTS, cmd.cwnd)),
                    state.ssthresh.eq(Mux(cmd.ssthresh == 0, NO_LIMIT, cmd.ssthresh)),
                ]
                m.next = "INSTALLED"
            with m.State("INSTALLED"):
                m.d.comb += end_write.en.eq(1)
                m.next = "TOKEN_STORE"
            with m.State("TOKEN_STORE"):
                m.d.comb += [state_write.en.eq(1), deadlines.set.en.eq(1)]
                m.next = "TOKEN_OUT"
            with m.State("TOKEN_OUT"):   # for its taker
                m.d.comb += [self.token_out.valid.eq(1), self.token.ready.eq(self.token_out.ready)]
                with m.If(self.token_out.ready):
                    m.next = "IDLE"
        scrub(m, state_write, config.qps)
        return m
