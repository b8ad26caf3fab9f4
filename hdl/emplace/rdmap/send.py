"""Messages to send: from work requests to ULPDUs, and to completions once the peer has them.

Ref: RFC 5040 §5 (operations), RFC 5041 §4 (headers), RFC 5044 §4.5 (FPDU sizes).
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..abi import Reason, SendOpcode, WcOpcode, WcStatus
from ..control.records import InstallCommand, QpIndex, Token, TokenOp
from ..dma.records import PlaceCommand, PlaceKind
from ..llp import Released, SendAnswer, SendAsk, SendOutcome, UlpduPlan
from ..queues.records import LineOutcome, LineWord, SendOrderOp, SendQueueOrder, SendWqeAnswer, SendWqeAsk
from ..stream.flags import FlagSet
from ..stream.scrub import scrub
from .divide import Divider
from .records import Died, GatherJob, LogEntry, MessageKind
from .work import WorkRequest

__all__ = ["Messages"]

class Messages(wiring.Component):
    """Answers the LLP's questions for the next ULPDU of a QP, and for any that it has to send again.

    A message is cut into FPDUs of the size of the connection's segments, the last one shorter. What was sent stands in a
    log, an entry a message; the work request is read again for every FPDU, and its source asked for again by
    :class:`~emplace.rdmap.gather.Gather`. A work request completes when the peer has its last octet.

    A responder's stream gives nothing before ``opened`` (RFC 5044 7.1.2).

    Throughput: an FPDU every 24 cycles, one that was given before about 60; a completion every 6. Latency: 16 cycles from a
    question to the plan if the work request is on the card.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    ask, answer : ``In(stream.Signature(SendAsk(config)))``, ``Out(stream.Signature(SendAnswer()))``
    plans : ``Out(stream.Signature(UlpduPlan(config)))``
    jobs : ``Out(stream.Signature(GatherJob(config)))``
        For each plan with payload.
    released : ``In(stream.Signature(Released(config)))``
    ready : ``Out(stream.Signature(QpIndex(config)))``
        A stream was opened. (WqeLines names the others.)
    opened : ``In({en, qp})``
        Strobe: the peer's first FPDU has come.
    wqe, wqe_answer, at, data, unpin, order, retired
        To :class:`~emplace.queues.send_lines.WqeLines`.
    commands : ``Out(stream.Signature(PlaceCommand(config)))``
        CQEs and events.
    failed : ``In(stream.Signature(Died(config)))``
        Other units of the sending side give a stream up.
    died : ``Out(stream.Signature(Died(config)))``
        Those, and SQ_FETCH, SQ_WQE, SOURCE_REVOKED: the first of a stream, behind its event.
    token, token_out : ``In``, ``Out(stream.Signature(Token(config)))``
    cmd : ``In(InstallCommand)``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ask":        In(stream.Signature(SendAsk(config))),
            "answer":     Out(stream.Signature(SendAnswer())),
            "plans":      Out(stream.Signature(UlpduPlan(config))),
            "jobs":       Out(stream.Signature(GatherJob(config))),
            "released":   In(stream.Signature(Released(config))),
            "ready":      Out(stream.Signature(QpIndex(config))),
            "opened":     In(data.StructLayout({"en": 1, "qp": config.qp_bits})),
            "wqe":        Out(stream.Signature(SendWqeAsk(config))),
            "wqe_answer": In(stream.Signature(SendWqeAnswer(config))),
            "at":         Out(LineWord(config)),
            "data":       In(64),
            "unpin":      Out(data.StructLayout({"en": 1, "line": config.send_line_bits})),
            "order":      Out(stream.Signature(SendQueueOrder(config))),
            "retired":    Out(data.StructLayout({"en": 1, "index": config.qp_bits, "value": 16})),
            "commands":   Out(stream.Signature(PlaceCommand(config))),
            "failed":     In(stream.Signature(Died(config))),
            "died":       Out(stream.Signature(Died(config))),
            "token":      In(stream.Signature(Token(config))),
            "token_out":  Out(stream.Signature(Token(config))),
            "cmd":        In(InstallCommand),
        })

    def elaborate(self, platform):
        m = Module()
        config, cmd, ask = self.config, self.cmd, self.ask
        log_bits = (config.send_log - 1).bit_length()

        # `next`: entry of the send queue to go on with: of the message under way (`active`, `sent` octets of it given), or
        # of the one to begin. `end`: position behind what was given. `msn`: the next Send's; `head_msn`: that of the first
        # Send in the log, or the next.
        State = data.StructLayout({
            "alive": 1, "active": 1, "next": 16, "sent": 32, "end": 32, "msn": 32, "head_msn": 32,
            "head": log_bits, "level": log_bits + 1,
        })
        Setup = data.StructLayout({"qpn": 24, "pd": 16, "cq": config.cq_bits, "log2": 4, "segment": 12})
        m.submodules.states = states = memory.Memory(shape=State, depth=config.qps, init=[])
        m.submodules.setups = setups = memory.Memory(shape=Setup, depth=config.qps, init=[])
        m.submodules.log = log = memory.Memory(shape=LogEntry(), depth=config.qps * config.send_log, init=[])
        state_read, state_write = states.read_port(), states.write_port()
        setup_read, setup_write = setups.read_port(), setups.write_port()
        log_read, log_write = log.read_port(), log.write_port()
        m.submodules.divider = divider = Divider(32, 12)
        m.submodules.openings = openings = FlagSet(config.qps)

        qp, state, setup = Signal(config.qp_bits), Signal(State), Signal(Setup)
        position, room, again = Signal(32), Signal(16), Signal()
        entry, following = Signal(LogEntry()), Signal(LogEntry())      # the log's entry at hand, and the one behind it
        step = Signal(log_bits + 1)      # which one, from the head on
        has_following, into_following = Signal(), Signal()
        msn = Signal(32)
        closed = Signal(config.qps)      # responders that wait for the peer's first FPDU

        # The work request at hand
        m.submodules.work = work = WorkRequest(config)
        index, line, pair = Signal(16), Signal(config.send_line_bits), Signal()
        word, offset = Signal(2), Signal(32)
        outcome = Signal(SendOutcome)
        pinned = Signal()
        reason = Signal(Reason)
        more = Signal()
        m.d.comb += [
            state_read.addr.eq(qp), setup_read.addr.eq(qp), state_write.addr.eq(qp), setup_write.addr.eq(qp),
            state_write.data.eq(state), log_write.addr.eq(Cat((state.head + state.level)[:log_bits], qp)),
            log_read.addr.eq(Cat((state.head + step)[:log_bits], qp)),
            log_write.data.start.eq(position), log_write.data.index.eq(index), log_write.data.kind.eq(work.kind),
            log_write.data.signaled.eq(work.signaled),
            has_following.eq(step + 1 < state.level),
            self.wqe.p.qp.eq(qp), self.wqe.p.index.eq(index),
            self.at.line.eq(line), self.at.word.eq(Cat(word, 0, index[:config.send_group_bits])),
            self.unpin.line.eq(line),
            work.data.eq(self.data), work.pair.eq(pair), work.odd.eq(index[0]), work.offset.eq(offset),
            work.segment.eq(setup.segment), work.msn.eq(msn),
            self.plans.p.eq(work.plan), self.plans.p.qp.eq(qp),
            self.jobs.p.qp.eq(qp), self.jobs.p.pd.eq(setup.pd), self.jobs.p.line.eq(line), self.jobs.p.place.eq(index),
            self.jobs.p.elements.eq(work.elements), self.jobs.p.inline.eq(work.inline), self.jobs.p.again.eq(again),
            self.jobs.p.offset.eq(offset), self.jobs.p.octets.eq(work.octets),
            self.order.p.qp.eq(qp), self.died.p.qp.eq(qp), self.died.p.reason.eq(reason),
            self.ready.p.qp.eq(openings.o.payload),
        ]
        with m.If(self.token_out.ready):
            m.d.sync += self.token_out.valid.eq(0)

        event = Signal(abi.EventBody)
        m.d.comb += [event.type.eq(abi.EventType.QP_ERROR), event.reason.eq(reason), event.qpn.eq(setup.qpn)]
        with m.Switch(reason):
            for why in abi.TERMINATE:
                if why >= Reason.SQ_FETCH and abi.TERMINATE[why] is not None:
                    with m.Case(why):
                        m.d.comb += event.terminate.eq(abi.TERMINATE[why])
        cqe = Signal(abi.CqeBody)
        m.d.comb += [
            cqe.qpn.eq(setup.qpn), cqe.wqe_index.eq(entry.index), cqe.status.eq(WcStatus.SUCCESS),
            cqe.opcode.eq(Mux(entry.kind == MessageKind.WRITE, WcOpcode.RDMA_WRITE, WcOpcode.SEND)),
            self.commands.p.kind.eq(PlaceKind.CQE), self.commands.p.qp.eq(qp), self.commands.p.cq.eq(setup.cq),
            self.commands.p.data.eq(cqe),
        ]
        # Where the entry at hand ends: at the next one, or behind what was given, if that was all of it.
        end, whole, behind = Signal(32), Signal(), Signal(signed(32))
        done = Signal(16)
        m.d.comb += [end.eq(Mux(has_following, following.start, state.end)), whole.eq(has_following | ~state.active)]

        releasing, flushing, token, failing = Signal(), Signal(), Signal(), Signal()
        posted = Signal(16)
        behind_index = Signal(16)        # the entry of the send queue behind the work request at hand
        m.d.comb += behind_index.eq(index + 1 + work.extended)

        def give(what):
            m.d.sync += outcome.eq(what)
            m.next = "ANSWER"

        def die(why):
            m.d.sync += reason.eq(why)
            m.next = "DIE"

        with m.FSM(name="messages"):
            with m.State("IDLE"):        # for a token, an acknowledgement, or a question
                m.d.sync += [step.eq(0), releasing.eq(0), flushing.eq(0), token.eq(0), pinned.eq(0), again.eq(0),
                             failing.eq(0)]
                with m.If(self.token.valid):
                    m.d.sync += [qp.eq(self.token.p.qp), token.eq(1)]
                    m.next = "LOAD"
                with m.Elif(self.failed.valid):
                    m.d.comb += self.failed.ready.eq(1)
                    m.d.sync += [qp.eq(self.failed.p.qp), reason.eq(self.failed.p.reason), failing.eq(1)]
                    m.next = "LOAD"
                with m.Elif(self.released.valid):
                    m.d.comb += self.released.ready.eq(1)
                    m.d.sync += [qp.eq(self.released.p.qp), position.eq(self.released.p.position), releasing.eq(1)]
                    m.next = "LOAD"
                with m.Elif(ask.valid):
                    m.d.comb += ask.ready.eq(1)
                    m.d.sync += [
                        qp.eq(ask.p.qp), position.eq(ask.p.position), room.eq(ask.p.room), again.eq(ask.p.again),
                    ]
                    m.next = "LOAD"
            with m.State("LOAD"):        # for the memories
                m.next = "LOADED"
            with m.State("LOADED"):
                m.d.sync += [state.eq(state_read.data), setup.eq(setup_read.data)]
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [index.eq(state.next), offset.eq(state.sent), msn.eq(Mux(again, state.head_msn, state.msn))]
                with m.If(token):
                    m.next = "TOKEN"
                with m.Elif(failing):
                    m.next = "IDLE"
                    with m.If(state.alive):
                        m.next = "DIE"
                with m.Elif(releasing):
                    m.next = "ENTRY"
                with m.Elif(~state.alive):
                    give(SendOutcome.FAILED)
                with m.Elif(closed.bit_select(qp, 1)):
                    give(SendOutcome.LATER)
                with m.Elif(again):
                    m.next = "ENTRY"
                with m.Else():
                    m.next = "WQE"

            # The log
            with m.State("ENTRY"):       # for the memory: entry `step`; then the one behind it
                m.d.sync += step.eq(step + 1)
                m.next = "ENTRY_READ"
                with m.If(state.level == 0):
                    m.next = "NO_ENTRY"
            with m.State("ENTRY_READ"):
                m.d.sync += [entry.eq(log_read.data), step.eq(step - 1)]
                m.next = "NEXT_READ"
            with m.State("NEXT_READ"):
                m.d.sync += following.eq(log_read.data)
                m.next = "BEHIND"
            with m.State("BEHIND"):
                m.d.sync += behind.eq(position - end)
                m.next = "RELEASE"
                with m.If(again):
                    m.next = "SEARCH"
            with m.State("NO_ENTRY"):    # nothing was sent: a question for it is the LLP's error
                m.next = "IDLE"
                with m.If(again):
                    die(Reason.SOURCE_REVOKED)

            with m.State("RELEASE"):     # its message is complete, if all of it was given and the peer has it
                m.d.sync += done.eq(Mux(has_following, following.index, state.next))
                m.next = "STORE"
                with m.If(whole & ~behind[-1]):
                    m.next = "COMPLETE"
                    with m.If(~entry.signaled):
                        m.next = "POP"
            with m.State("COMPLETE"):    # for the completion queue
                m.d.comb += self.commands.valid.eq(1)
                with m.If(self.commands.ready):
                    m.next = "POP"
            with m.State("POP"):
                m.d.comb += [
                    self.retired.en.eq(1), self.retired.index.eq(qp),
                    self.retired.value.eq(done + Mux(setup.log2 == 0, 0, 1 << setup.log2)),
                ]
                m.d.sync += [
                    state.head.eq(state.head + 1), state.level.eq(state.level - 1),
                    state.head_msn.eq(state.head_msn + (entry.kind == MessageKind.SEND)),
                ]
                m.next = "ENTRY"
                with m.If(state.level == 1):
                    m.next = "STORE"
            with m.State("STORE"):
                m.d.comb += state_write.en.eq(1)
                m.next = "IDLE"

            with m.State("SEARCH"):      # the entry that covers `position`
                m.d.sync += into_following.eq(has_following & ~behind[-1])
                m.next = "SEARCHED"
            with m.State("SEARCHED"):
                m.d.comb += [divider.dividend.eq(position - entry.start), divider.start.eq(~into_following)]
                with m.If(into_following):
                    m.d.sync += [step.eq(step + 1), msn.eq(msn + (entry.kind == MessageKind.SEND))]
                    m.next = "ENTRY"
                with m.Else():
                    m.d.sync += index.eq(entry.index)
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):      # for the number of whole FPDUs before it
                with m.If(divider.done):
                    m.d.sync += [
                        position.eq(position - divider.remainder),
                        offset.eq(position - entry.start - divider.remainder),
                    ]
                    m.next = "OVERHEAD"
            with m.State("OVERHEAD"):    # 20 octets each aren't the message's
                m.d.sync += offset.eq(offset - (divider.quotient << 4) - (divider.quotient << 2))
                m.next = "WQE"
                with m.If(entry.kind != MessageKind.WRITE):
                    m.next = "UNTAGGED"
            with m.State("UNTAGGED"):    # nor another 4
                m.d.sync += offset.eq(offset - (divider.quotient << 2))
                m.next = "WQE"

            # The work request
            with m.State("WQE"):         # for the lines to take the question
                m.d.comb += self.wqe.valid.eq(1)
                m.d.sync += word.eq(0)
                with m.If(self.wqe.ready):
                    m.next = "WQE_ANSWER"
            with m.State("WQE_ANSWER"):  # for their answer
                m.d.comb += self.wqe_answer.ready.eq(1)
                m.d.sync += [
                    line.eq(self.wqe_answer.p.line), pair.eq(self.wqe_answer.p.pair), posted.eq(self.wqe_answer.p.posted),
                ]
                with m.If(self.wqe_answer.valid & flushing):
                    m.d.comb += [
                        self.unpin.en.eq(self.wqe_answer.p.outcome == LineOutcome.HERE),
                        self.unpin.line.eq(self.wqe_answer.p.line),
                    ]
                    m.next = "FLUSH"
                with m.Elif(self.wqe_answer.valid):
                    with m.Switch(self.wqe_answer.p.outcome):
                        with m.Case(LineOutcome.HERE):
                            m.d.sync += pinned.eq(1)
                            m.next = "WORD"
                        with m.Case(LineOutcome.EMPTY):
                            give(SendOutcome.NOTHING)
                        with m.Case(LineOutcome.LATER):
                            give(SendOutcome.LATER)
                        with m.Case(LineOutcome.FAILED):
                            die(Reason.SQ_FETCH)
            with m.State("WORD"):        # for the line: words 0 to 2
                m.d.sync += word.eq(word + 1)
                m.next = "WORD_0"
            with m.State("WORD_0"):
                m.d.comb += work.load[0].eq(1)
                m.d.sync += word.eq(word + 1)
                m.next = "WORD_1"
            with m.State("WORD_1"):
                m.d.comb += work.load[1].eq(1)
                m.next = "WORD_2"
            with m.State("WORD_2"):
                m.d.comb += work.load[2].eq(1)
                m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "SIZE"
                with m.If((work.opcode == SendOpcode.NOP) & ~again):
                    m.d.comb += self.unpin.en.eq(1)
                    m.d.sync += [pinned.eq(0), index.eq(index + 1), state.next.eq(index + 1)]
                    m.next = "WQE"
                with m.Elif(again & (~work.known | (work.kind != entry.kind) | (offset > work.length)
                                     | ((offset == work.length) & (offset != 0)))):
                    die(Reason.SOURCE_REVOKED)
                with m.Elif(~work.good):
                    die(Reason.SQ_WQE)
            with m.State("SIZE"):        # for its size
                m.next = "ROOM"
            with m.State("ROOM"):
                m.d.sync += more.eq(~work.last | (behind_index != posted))
                m.next = "PLAN"
                with m.If(work.size > room):
                    give(SendOutcome.NO_ROOM)
                with m.Elif(~again & ~state.active & state.level[-1]):
                    give(SendOutcome.LATER)
            with m.State("PLAN"):        # for the framer
                m.d.comb += self.plans.valid.eq(1)
                with m.If(self.plans.ready):
                    m.next = "COMMIT"
                    with m.If(work.octets != 0):
                        m.next = "JOB"
            with m.State("JOB"):         # for the gatherer
                m.d.comb += self.jobs.valid.eq(1)
                with m.If(self.jobs.ready):
                    m.d.sync += pinned.eq(0)
                    m.next = "COMMIT"
            with m.State("COMMIT"):
                with m.If(~again):
                    m.d.sync += [state.end.eq(position + work.size), state.active.eq(~work.last),
                                 state.sent.eq(offset + work.octets)]
                    with m.If(~state.active):
                        m.d.comb += log_write.en.eq(1)
                        m.d.sync += state.level.eq(state.level + 1)
                    with m.If(work.last):
                        m.d.sync += [
                            state.next.eq(behind_index), state.sent.eq(0),
                            state.msn.eq(state.msn + (work.kind == MessageKind.SEND)),
                        ]
                give(SendOutcome.GIVEN)
            with m.State("ANSWER"):      # for its taker
                m.d.comb += [
                    self.answer.valid.eq(1), self.answer.p.outcome.eq(outcome), self.answer.p.size.eq(work.size),
                    self.answer.p.start.eq(position), self.answer.p.more.eq(more),
                    state_write.en.eq(~again & self.answer.ready),
                    self.unpin.en.eq(pinned & self.answer.ready),
                ]
                with m.If(self.answer.ready):
                    m.next = "IDLE"
            with m.State("DIE"):         # for the event ring
                m.d.comb += [self.commands.valid.eq(1), self.commands.p.kind.eq(PlaceKind.EVENT),
                             self.commands.p.data.eq(event)]
                m.d.sync += state.alive.eq(0)
                with m.If(self.commands.ready):
                    m.next = "DIED"
            with m.State("DIED"):        # for control to know
                m.d.comb += self.died.valid.eq(1)
                with m.If(self.died.ready):
                    m.next = "DEAD"
            with m.State("DEAD"):
                m.d.comb += state_write.en.eq(1)
                give(SendOutcome.FAILED)
                with m.If(failing):
                    m.next = "IDLE"

            with m.State("TOKEN"):
                m.next = "PASS"
                with m.Switch(self.token.p.op):
                    with m.Case(TokenOp.INSTALL):
                        m.next = "INSTALL"
                    with m.Case(TokenOp.KILL):
                        m.d.sync += state.alive.eq(0)
                        m.next = "TOKEN_STORE"
                    with m.Case(TokenOp.REMOVE):
                        m.d.sync += state.alive.eq(0)
                        m.next = "ORDER"
                    with m.Case(TokenOp.FLUSH):
                        m.d.sync += [state.alive.eq(0), flushing.eq(1)]
                        m.next = "FLUSH_READ"
            with m.State("FLUSH_READ"):  # for the memory: the oldest message that isn't complete
                m.next = "FLUSH_FROM"
            with m.State("FLUSH_FROM"):
                m.d.sync += entry.eq(log_read.data)
                with m.If(state.level != 0):
                    m.d.sync += index.eq(log_read.data.index)
                m.next = "WQE"           # which tells how many there are
            with m.State("FLUSH"):       # one entry after the other, for the completion queue
                m.d.sync += entry.index.eq(index)
                m.next = "FLUSH_CQE"
                with m.If(index == posted):
                    m.d.sync += [state.next.eq(posted), state.active.eq(0), state.level.eq(0), state.sent.eq(0)]
                    m.next = "TOKEN_STORE"
            with m.State("FLUSH_CQE"):   # for the completion queue
                m.d.comb += [self.commands.valid.eq(1), cqe.status.eq(WcStatus.WR_FLUSH_ERR)]
                with m.If(self.commands.ready):
                    m.d.sync += index.eq(index + 1)
                    m.next = "FLUSH"
            with m.State("INSTALL"):
                timestamps = Signal()
                m.d.comb += [
                    timestamps.eq(cmd.flags[abi.QpFlags.TIMESTAMPS.bit_length() - 1]),
                    setup_write.en.eq(1), setup_write.data.qpn.eq(cmd.qpn), setup_write.data.pd.eq(cmd.pd),
                    setup_write.data.cq.eq(cmd.send_cq), setup_write.data.log2.eq(cmd.sq_log2),
                    setup_write.data.segment.eq(((cmd.mss - Mux(timestamps, 12, 0)) & ~3)[:12]),
                ]
                m.d.sync += [
                    state.as_value().eq(0), closed.bit_select(qp, 1).eq(~cmd.flags[abi.QpFlags.INITIATOR.bit_length() - 1]),
                ]
                m.next = "INSTALLED"
            with m.State("INSTALLED"):
                m.d.sync += [
                    state.alive.eq(1), state.end.eq(cmd.snd_nxt), state.msn.eq(cmd.send_msn), state.head_msn.eq(cmd.send_msn),
                ]
                m.next = "ORDER"
            with m.State("ORDER"):       # for the lines
                m.d.comb += [
                    self.order.valid.eq(1),
                    self.order.p.op.eq(Mux(state.alive, SendOrderOp.INSTALL.value, SendOrderOp.REMOVE.value)),
                ]
                with m.If(self.order.ready):
                    m.next = "TOKEN_STORE"
            with m.State("TOKEN_STORE"):
                m.d.comb += state_write.en.eq(1)
                m.next = "PASS"
            with m.State("PASS"):        # not for its taker, who may wait for an answer first; there is one token at a time
                m.d.comb += self.token.ready.eq(1)
                m.d.sync += [self.token_out.valid.eq(1), self.token_out.p.eq(self.token.p)]
                m.next = "IDLE"

        m.d.comb += [
            openings.set[0].en.eq(self.opened.en & closed.bit_select(self.opened.qp, 1)),
            openings.set[0].index.eq(self.opened.qp),
            self.ready.valid.eq(openings.o.valid), openings.o.ready.eq(self.ready.ready),
        ]
        with m.If(self.opened.en):
            m.d.sync += closed.bit_select(self.opened.qp, 1).eq(0)
        m.d.comb += divider.divisor.eq(setup.segment)
        scrub(m, state_write, config.qps)
        return m
