"""Receive queues: what is posted, fetched, claimed, taken and retired, per QP."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import InstallCommand, QpIndex, Token, TokenOp
from ..dma.records import ReadClient, ReadRequest
from ..stream.flags import FlagSet
from .doorbells import OwnerEntry
from .records import GateReply, GateRequest, TakeReply, TakeRequest
from .ring import RingAddress
from .store import WqeSum

__all__ = ["TokenAnswer", "ReceiveQueues"]

_READ_BYTES = 64


class _Op(enum.Enum, shape=3):
    TOKEN = 0
    ARRIVE = 1
    TAKE = 2
    GATE = 3
    FETCH = 4


def TokenAnswer(config):
    """A QP's receive queue as the token met it: ``retired`` and ``posted`` WQEs, its CQ and QP number."""
    return data.StructLayout({"retired": 16, "posted": 16, "cq": config.cq_bits, "qpn": 24})


class ReceiveQueues(wiring.Component):
    """The state of all receive queues, one operation every 2 cycles.

    WQEs are counted by free-running indices modulo 2**16: retired <= taken <= fetched <= posted. Of
    those on the card, ``here`` may be claimed or taken, ``claims`` are set aside; the others (fetched - taken
    - here - claims) are still on the bus. A WQE keeps its place on the card until it is retired.

    Latency, from request to answer: gate 3 cycles, take 4. Up to 2 more for each operation ahead: a token,
    an arrival, a take, a gate, a fetch, in this order of precedence.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    gate_request, gate_reply, take, taken : streams of queues.records
    resume : ``Out(stream.Signature(QpIndex(config)))``
        A WQE has come for a QP that the gate has turned away.
    reads : ``Out(stream.Signature(ReadRequest(config)))``
    fly, full, cancel, arrived, cancelled, sum_at, sum
        To the :class:`~emplace.queues.store.WqeStore`.
    rung : ``In({en, index})``
        A doorbell was accepted.
    owner, limit, look, latest
        To the :class:`~emplace.queues.doorbells.DoorbellTable`.
    token : ``In(stream.Signature(Token(config)))``
        A token passes; answered by ``answer`` once this state has been changed.
    answer : ``Out(stream.Signature(TokenAnswer(config)))``
    cmd : ``In(InstallCommand)``
    """

    def __init__(self, config):
        self.config = config
        qp, entry = config.qp_bits, config.rq_prefetch_bits
        super().__init__({
            "gate_request": In(stream.Signature(GateRequest(config))),
            "gate_reply":   Out(stream.Signature(GateReply())),
            "resume":       Out(stream.Signature(QpIndex(config))),
            "take":         In(stream.Signature(TakeRequest(config))),
            "taken":        Out(stream.Signature(TakeReply(config))),
            "reads":        Out(stream.Signature(ReadRequest(config))),
            "fly":          Out(data.StructLayout({"en": 1, "qp": qp, "entry": entry})),
            "full":         In(1),
            "cancel":       Out(data.StructLayout({"en": 1, "qp": qp})),
            "arrived":      In(stream.Signature(data.StructLayout({"qp": qp}))),
            "cancelled":    In(1),
            "sum_at":       Out(data.StructLayout({"qp": qp, "entry": entry})),
            "sum":          In(WqeSum),
            "rung":         In(data.StructLayout({"en": 1, "index": qp})),
            "owner":        Out(data.StructLayout({"en": 1, "index": qp, "entry": OwnerEntry})),
            "limit":        Out(data.StructLayout({"en": 1, "index": qp, "value": 16})),
            "look":         Out(qp),
            "latest":       In(data.StructLayout({"flip": 1, "value": 16})),
            "token":        In(stream.Signature(Token(config))),
            "answer":       Out(stream.Signature(TokenAnswer(config))),
            "cmd":          In(InstallCommand),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        room = config.rq_prefetch_bits + 1             # bits of a count of WQEs on the card
        entry_bits = config.rq_prefetch_bits
        State = data.StructLayout({
            "flip": 1, "stopped": 1, "waiting": 1, "retired": 16, "taken": 16, "fetched": 16, "here": room,
            "claims": room,
        })
        Setup = data.StructLayout({"base": 52, "log2": 4, "cq": config.cq_bits, "qpn": 24})

        m.submodules.states = states = memory.Memory(shape=State, depth=config.qps, init=[])
        m.submodules.setups = setups = memory.Memory(shape=Setup, depth=config.qps, init=[])
        state_write, setup_write = states.write_port(), setups.write_port()
        state_read = states.read_port(transparent_for=(state_write,))
        setup_read = setups.read_port()

        m.submodules.due = due = FlagSet(config.qps, setters=2)          # QPs that may have something to fetch
        m.submodules.resumed = resumed = FlagSet(config.qps)
        m.submodules.address = address = RingAddress(entry_log2=6)
        m.d.comb += [
            due.set[0].eq(self.rung),
            self.resume.p.qp.eq(resumed.o.payload), self.resume.valid.eq(resumed.o.valid),
            resumed.o.ready.eq(self.resume.ready),
        ]

        # Stage 0: choose an operation. Stage 1: the memories answer. Stage 2: act, while the next is chosen.
        valid1, valid2 = Signal(), Signal()
        op, qp = Signal(_Op), Signal(config.qp_bits)
        op1, qp1, op2, qp2 = Signal(_Op), Signal(config.qp_bits), Signal(_Op), Signal(config.qp_bits)
        args, token_op = Signal(TakeRequest(config)), Signal(TokenOp)    # of the take, of the token under way
        gating, taking, fetching, asking = Signal(), Signal(), Signal(), Signal()    # one of each kind at a time
        choose = Signal()
        with m.If(~valid1):
            with m.If(self.token.valid & ~asking):
                m.d.comb += [choose.eq(1), op.eq(_Op.TOKEN), qp.eq(self.token.p.qp), self.token.ready.eq(1)]
                m.d.sync += [asking.eq(1), token_op.eq(self.token.p.op)]
            with m.Elif(self.arrived.valid):
                m.d.comb += [choose.eq(1), op.eq(_Op.ARRIVE), qp.eq(self.arrived.p.qp), self.arrived.ready.eq(1)]
            with m.Elif(self.take.valid & ~taking):
                m.d.comb += [choose.eq(1), op.eq(_Op.TAKE), qp.eq(self.take.p.qp), self.take.ready.eq(1)]
                m.d.sync += [taking.eq(self.take.p.take), args.eq(self.take.payload)]
            with m.Elif(self.gate_request.valid & ~gating):
                m.d.comb += [choose.eq(1), op.eq(_Op.GATE), qp.eq(self.gate_request.p.qp),
                             self.gate_request.ready.eq(1)]
                m.d.sync += gating.eq(1)
            with m.Elif(due.o.valid & ~self.full & ~fetching):
                m.d.comb += [choose.eq(1), op.eq(_Op.FETCH), qp.eq(due.o.payload), due.o.ready.eq(1)]
                m.d.sync += fetching.eq(1)
        m.d.comb += [state_read.addr.eq(qp), setup_read.addr.eq(qp), self.look.eq(qp)]

        state, setup = Signal(State), Signal(Setup)
        posted, last_flip = Signal(16), Signal()
        m.d.sync += [
            valid1.eq(choose), op1.eq(op), qp1.eq(qp),
            valid2.eq(valid1), op2.eq(op1), qp2.eq(qp1),
            state.eq(state_read.data), setup.eq(setup_read.data), last_flip.eq(self.latest.flip),
            posted.eq(Mux(self.latest.flip == state_read.data.flip, self.latest.value, 0)),
        ]

        # Stage 2
        new = Signal(State)
        on_bus, all_fetched, on_card = Signal(), Signal(), Signal(room)
        following = Signal(16)
        claimed, spare = Signal(), Signal()
        size = Signal(17)
        m.d.comb += [
            new.eq(state),
            on_bus.eq((state.fetched - state.taken)[:room] != (state.here + state.claims)[:room]),
            all_fetched.eq(posted == state.fetched),
            on_card.eq((state.fetched - state.retired)[:room]),
            following.eq(state.fetched + 1),
            claimed.eq(args.claimed & (state.claims != 0)),
            spare.eq(state.here != 0),
            size.eq(Mux(setup.log2 == 0, 0, 1 << setup.log2)),
            state_write.addr.eq(qp2), state_write.data.eq(new), state_write.en.eq(valid2),
        ]

        wake = Signal()                                # a WQE has become free to claim
        m.d.comb += [resumed.set[0].en.eq(valid2 & wake & state.waiting), resumed.set[0].index.eq(qp2)]
        with m.If(wake):
            m.d.comb += new.waiting.eq(0)
        again = Signal()                               # there may be more to fetch
        m.d.comb += [due.set[1].en.eq(valid2 & again), due.set[1].index.eq(qp2)]
        is_take = Signal()
        m.d.comb += [
            is_take.eq(op2 == _Op.TAKE),
            self.limit.index.eq(qp2),
            self.limit.value.eq(Mux(is_take, state.retired, posted) + size + is_take),    # TAKE, FLUSH
        ]

        took = Signal()
        m.d.comb += [self.sum_at.qp.eq(qp2), self.sum_at.entry.eq(state.taken[:entry_bits])]
        answering = Signal()                           # `taken` is due in the next cycle
        m.d.sync += answering.eq(0)

        fetch = Signal()
        m.d.comb += [
            self.fly.en.eq(fetch), self.fly.qp.eq(qp2), self.fly.entry.eq(state.fetched[:entry_bits]),
            self.cancel.qp.eq(qp2), self.owner.index.eq(qp2), setup_write.addr.eq(qp2),
            setup_write.data.base.eq(self.cmd.rq_base[12:]), setup_write.data.log2.eq(self.cmd.rq_log2),
            setup_write.data.cq.eq(self.cmd.recv_cq), setup_write.data.qpn.eq(self.cmd.qpn),
            self.owner.entry.number.eq(self.cmd.qpn), self.owner.entry.context.eq(self.cmd.context),
            self.owner.entry.flip.eq(new.flip),
        ]
        with m.If(valid2):
            with m.Switch(op2):
                with m.Case(_Op.GATE):
                    m.d.sync += [self.gate_reply.valid.eq(1), self.gate_reply.p.go.eq(1), self.gate_reply.p.claimed.eq(0)]
                    with m.If(state.stopped):
                        pass                           # nothing of this QP will be placed any more
                    with m.Elif(spare):
                        m.d.comb += [new.here.eq(state.here - 1), new.claims.eq(state.claims + 1)]
                        m.d.sync += self.gate_reply.p.claimed.eq(1)
                    with m.Elif(~all_fetched | on_bus):
                        m.d.comb += new.waiting.eq(1)
                        m.d.sync += self.gate_reply.p.go.eq(0)
                with m.Case(_Op.TAKE):
                    with m.If(args.take):
                        with m.If(claimed):
                            m.d.comb += [took.eq(1), new.claims.eq(state.claims - 1)]
                        with m.Elif(spare):
                            m.d.comb += [took.eq(1), new.here.eq(state.here - 1)]
                    with m.Elif(claimed):
                        m.d.comb += [new.claims.eq(state.claims - 1), new.here.eq(state.here + 1), wake.eq(1)]
                    with m.If(took):
                        m.d.comb += new.taken.eq(state.taken + 1)
                    with m.If(args.retire & (state.retired != state.taken)):
                        m.d.comb += [new.retired.eq(state.retired + 1), self.limit.en.eq(1), again.eq(1)]
                    m.d.sync += [
                        answering.eq(args.take), self.taken.p.ok.eq(took),
                        self.taken.p.entry.eq(state.taken[:entry_bits]), self.taken.p.wqe_index.eq(state.taken),
                    ]
                with m.Case(_Op.ARRIVE):
                    with m.If(~self.cancelled):
                        m.d.comb += [new.here.eq(state.here + 1), wake.eq(1)]
                with m.Case(_Op.FETCH):
                    m.d.sync += fetching.eq(0)
                    with m.If(~state.stopped & ~all_fetched & (on_card != config.rq_prefetch)):
                        m.d.comb += [
                            fetch.eq(1), new.fetched.eq(following),
                            again.eq((following != posted) & (on_card != config.rq_prefetch - 1)),
                        ]
                        m.d.sync += fetching.eq(1)     # until its read has been asked for
                with m.Case(_Op.TOKEN):
                    m.d.sync += [
                        self.answer.valid.eq(1), self.answer.p.retired.eq(state.retired),
                        self.answer.p.posted.eq(posted), self.answer.p.cq.eq(setup.cq),
                        self.answer.p.qpn.eq(setup.qpn),
                    ]
                    with m.Switch(token_op):
                        with m.Case(TokenOp.INSTALL):
                            m.d.comb += [
                                new.as_value().eq(0), new.flip.eq(~last_flip), setup_write.en.eq(1),
                                self.owner.en.eq(1), self.owner.entry.valid.eq(1), self.cancel.en.eq(1),
                                self.limit.en.eq(1), self.limit.value.eq(Mux(self.cmd.rq_log2 == 0, 0,
                                                                             1 << self.cmd.rq_log2[:4])),
                            ]
                        with m.Case(TokenOp.KILL):
                            m.d.comb += [new.stopped.eq(1), new.waiting.eq(0), new.claims.eq(0),
                                         new.here.eq(state.here + state.claims)]
                        with m.Case(TokenOp.REMOVE):
                            m.d.comb += [new.stopped.eq(1), new.waiting.eq(0), self.owner.en.eq(1)]
                        with m.Case(TokenOp.FLUSH):
                            m.d.comb += [
                                new.stopped.eq(1), new.waiting.eq(0), new.claims.eq(0), new.here.eq(0),
                                new.retired.eq(posted), new.taken.eq(posted), new.fetched.eq(posted),
                                self.cancel.en.eq(1), self.limit.en.eq(1),
                            ]

        # Answers leave
        with m.If(self.gate_reply.valid & self.gate_reply.ready):
            m.d.sync += [self.gate_reply.valid.eq(0), gating.eq(0)]
        with m.If(answering):
            m.d.sync += [
                self.taken.valid.eq(1), self.taken.p.total.eq(self.sum.total), self.taken.p.failed.eq(
                    self.taken.p.ok & self.sum.failed), self.taken.p.ok.eq(self.taken.p.ok & ~self.sum.failed),
            ]
        with m.If(self.taken.valid & self.taken.ready):
            m.d.sync += [self.taken.valid.eq(0), taking.eq(0)]
        with m.If(self.answer.valid & self.answer.ready):
            m.d.sync += [self.answer.valid.eq(0), asking.eq(0)]

        # The read leaves: its address takes two cycles
        base, log2, index = Signal(52), Signal(4), Signal(16)
        steps = Signal(2)
        with m.If(fetch):
            m.d.sync += [base.eq(setup.base), log2.eq(setup.log2), index.eq(state.fetched)]
        m.d.sync += steps.eq(Cat(fetch, steps[0]))
        m.d.comb += [
            address.base.eq(base), address.log2.eq(log2), address.index.eq(index),
            self.reads.p.client.eq(ReadClient.RECEIVE), self.reads.p.address.eq(address.address),
            self.reads.p.length.eq(_READ_BYTES),
        ]
        with m.If(steps[1]):
            m.d.sync += self.reads.valid.eq(1)
        with m.If(self.reads.valid & self.reads.ready):
            m.d.sync += [self.reads.valid.eq(0), fetching.eq(0)]
        return m
