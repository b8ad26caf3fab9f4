"""The way of every write to host memory: payload passes, completions and events get their place in their rings."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import Token, TokenOp, UploadPart
from ..dma.records import PlaceCommand, PlaceKind, WriteCommand, WriteKind
from ..stream.scrub import scrub
from .doorbells import OwnerEntry
from .ports import CqOp, CqResult, CqUpdate, Died, EventRing, Message
from .receive import TokenAnswer
from .ring import RingAddress, ring_phase

__all__ = ["Completions"]

_CQE_BYTES = abi.nbytes(abi.Cqe)
_EVENT_BYTES = abi.nbytes(abi.Event)
_MESSAGE_BYTES = 4


class _Source(enum.Enum, shape=2):
    """Whose completion or event is being written."""

    COMMAND = 0        # RDMAP's
    CQ_ERROR = 1       # ours: a CQ has overflowed
    FLUSH = 2          # ours: FLUSH_QP


class Completions(wiring.Component):
    """Turns PlaceCommands into WriteCommands, in order, with control's writes and interrupts merged in.

    Throughput: a PAYLOAD, DISCARD, inline write or interrupt every 2 cycles; a CQE every 7 cycles, an event every 3. Latency:
    1 cycle for PAYLOAD and DISCARD, 6 for a CQE, 2 for an event, 8 for a token that asks for the receive queue.

    A CQE for a full CQ is dropped and counted; its stream is reported to ``died``, and the CQ, once, by an event.
    An event for a full ring is dropped and counted.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    commands : ``In(stream.Signature(PlaceCommand(config)))``
    inline, writes : ``In``, ``Out(stream.Signature(WriteCommand(config)))``
    cq_update : ``In(stream.Signature(CqUpdate(config)))``, cq_result : ``Out(stream.Signature(CqResult))``
    event_ring : ``In(EventRing)``
    died : ``Out(stream.Signature(Died(config)))``
    token : ``Out(stream.Signature(Token(config)))``, answer : ``In(stream.Signature(TokenAnswer(config)))``
        To the receive queues.
    owner, limit, look, latest
        To the CQs' :class:`~emplace.queues.doorbells.DoorbellTable`.
    completed : ``Out({en, cq, solicited})``
        Strobe: a CQE has joined ``writes``; solicited, or with an error.
    changed : ``Out({en, cq, vector, count, period})``
        Strobe: this CQ was made or unmade.
    evented : ``Out(1)``
        Strobe: an event has joined ``writes``.
    messages : ``In(stream.Signature(Message))``
        Interrupts.
    upload : ``Out(UploadPart)``
        ``rq_consumed``: WQEs retired, of the QP that an UPLOAD token was about last.
    cq_overflow, event_overflow : ``Out(1)``
        Strobes.
    """

    def __init__(self, config):
        self.config = config
        cq = config.cq_bits
        super().__init__({
            "commands":       In(stream.Signature(PlaceCommand(config))),
            "inline":         In(stream.Signature(WriteCommand(config))),
            "writes":         Out(stream.Signature(WriteCommand(config))),
            "cq_update":      In(stream.Signature(CqUpdate(config))),
            "cq_result":      Out(stream.Signature(CqResult)),
            "event_ring":     In(EventRing),
            "died":           Out(stream.Signature(Died(config))),
            "token":          Out(stream.Signature(Token(config))),
            "answer":         In(stream.Signature(TokenAnswer(config))),
            "owner":          Out(data.StructLayout({"en": 1, "index": cq, "entry": OwnerEntry})),
            "limit":          Out(data.StructLayout({"en": 1, "index": cq, "value": 16})),
            "look":           Out(cq),
            "latest":         In(data.StructLayout({"flip": 1, "value": 16})),
            "completed":      Out(data.StructLayout({"en": 1, "cq": cq, "solicited": 1})),
            "changed":        Out(data.StructLayout({"en": 1, "cq": cq, "vector": range(config.vectors), "count": 8,
                                                     "period": 16})),
            "evented":        Out(1),
            "messages":       In(stream.Signature(Message)),
            "upload":         Out(UploadPart),
            "cq_overflow":    Out(1),
            "event_overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        command, out = self.commands, self.writes

        Entry = data.StructLayout({"valid": 1, "failed": 1, "base": 52, "log2": 4, "flip": 1, "producer": 16})
        m.submodules.cqs = cqs = memory.Memory(shape=Entry, depth=config.cqs, init=[])
        cq_read, cq_write = cqs.read_port(), cqs.write_port()
        m.submodules.cqe_address = cqe_address = RingAddress(entry_log2=5)
        m.submodules.event_address = event_address = RingAddress(entry_log2=6)

        # CQ looked at: its entry, and whether it has no room.
        cq, entry, flip, used = Signal(config.cq_bits), Signal(Entry), Signal(), Signal(16)
        consumer = Signal(16)
        full = Signal()
        m.d.comb += [
            cq_read.addr.eq(cq), self.look.eq(cq),
            consumer.eq(Mux(self.latest.flip == cq_read.data.flip, self.latest.value, 0)),
            cqe_address.base.eq(entry.base), cqe_address.log2.eq(entry.log2), cqe_address.index.eq(entry.producer),
            cq_write.addr.eq(cq), cq_write.data.eq(entry),
            self.owner.index.eq(cq), self.owner.entry.number.eq(cq),
            self.owner.entry.context.eq(self.cq_update.p.context), self.owner.entry.flip.eq(~flip),
            self.limit.index.eq(cq),
        ]

        # Event ring: its address is ready before it is needed.
        events, event_full = Signal(16), Signal(init=1)
        room = Signal(16)
        m.d.comb += [
            room.eq(events - self.event_ring.consumer),
            event_address.base.eq(self.event_ring.base), event_address.log2.eq(self.event_ring.log2),
            event_address.index.eq(events),
        ]
        m.d.sync += event_full.eq(~self.event_ring.enabled | (room >= (1 << self.event_ring.log2)))

        # What is to be written. RDMAP's bodies and our own take one way; what is not the body differs.
        source = Signal(_Source)
        first, last, flush_qpn, flush_cq = Signal(16), Signal(16), Signal(24), Signal(config.cq_bits)
        own_cqe, own_event = Signal(abi.CqeBody), Signal(abi.EventBody)
        is_cqe = Signal()
        body = Signal(448)
        m.d.comb += [
            own_cqe.qpn.eq(flush_qpn), own_cqe.opcode.eq(abi.WcOpcode.RECV),
            own_cqe.status.eq(abi.WcStatus.WR_FLUSH_ERR), own_cqe.wqe_index.eq(first),
            own_event.type.eq(Mux(source == _Source.FLUSH, abi.EventType.LAST_WQE, abi.EventType.CQ_ERROR)),
            own_event.reason.eq(Mux(source == _Source.FLUSH, abi.Reason.NONE, abi.Reason.CQ_OVERFLOW)),
            own_event.qpn.eq(Mux(source == _Source.FLUSH, flush_qpn, cq)),
            body.eq(Mux(source == _Source.COMMAND, command.p.data,
                        Mux(is_cqe, own_cqe.as_value(), own_event.as_value()))),
        ]
        interrupting = Signal()
        record = Signal(512)
        m.d.comb += record.eq(Cat(
            Mux(interrupting, self.messages.p.data, body[:32]), body[32:192], body[192:255] & ~is_cqe.replicate(63),
            Mux(is_cqe, ring_phase(entry.producer, entry.log2), body[255]),
            body[256:], Const(0, 63), ring_phase(events, self.event_ring.log2)))

        free = Signal()
        # A register of its own: dma's `ready` is the end of a long path, and would go on from here to protect's.
        m.d.comb += free.eq(~out.valid)
        with m.If(out.ready):
            m.d.sync += out.valid.eq(0)

        # One multiplexer in front of the output register, chosen by few signals: the payload is 600 bits wide.
        load, merging = Signal(), Signal()
        kind, address, length = Signal(WriteKind), Signal(64), Signal(13)
        with m.If(load):
            m.d.sync += [
                out.valid.eq(1),
                out.p.kind.eq(Mux(merging, self.inline.p.kind, kind)),
                out.p.token.eq(command.p.token),
                out.p.address.eq(Mux(merging, self.inline.p.address, address)),
                out.p.length.eq(Mux(merging, self.inline.p.length, length)),
                out.p.skip.eq(command.p.skip), out.p.final.eq(command.p.final), out.p.msix.eq(interrupting),
                out.p.data.eq(Mux(merging, self.inline.p.data, record)),
            ]

        def write(as_kind, at=command.p.address, octets=command.p.length):
            m.d.comb += [load.eq(1), kind.eq(as_kind), address.eq(at), length.eq(octets)]

        turn = Signal()                                # control's write goes before the next command
        changing = Signal()                            # it is about control's CqUpdate
        flushing = Signal()
        report = Signal()                              # an event about this CQ is due
        done = Signal()                                # the command has been carried out
        upload = Signal(16)
        m.d.comb += [
            command.ready.eq(done), self.upload.rq_consumed.eq(upload),
            self.token.payload.eq(command.p.token),
            self.died.p.qp.eq(command.p.qp), self.died.p.reason.eq(abi.Reason.CQ_OVERFLOW),
            self.completed.cq.eq(cq), self.completed.solicited.eq(body[40] | body[32:40].any()),
            self.changed.cq.eq(cq), self.changed.vector.eq(self.cq_update.p.vector),
            self.changed.count.eq(self.cq_update.p.count), self.changed.period.eq(self.cq_update.p.period),
        ]
        with m.If(self.cq_result.valid & self.cq_result.ready):
            m.d.sync += self.cq_result.valid.eq(0)

        with m.FSM(name="completions"):
            with m.State("IDLE"):                      # waits for a command, a write of control's, an interrupt, or a
                #                                        CQ's change
                m.d.sync += [source.eq(_Source.COMMAND), flushing.eq(0), changing.eq(0)]
                with m.If(self.cq_update.valid & ~self.cq_result.valid):
                    m.d.sync += [cq.eq(self.cq_update.p.cq), changing.eq(1)]
                    m.next = "CQ_READ"
                with m.Elif(self.messages.valid):
                    m.d.comb += [interrupting.eq(1), self.messages.ready.eq(free)]
                    with m.If(free):
                        write(WriteKind.INLINE, self.messages.p.address, _MESSAGE_BYTES)
                with m.Elif(self.inline.valid & (turn | ~command.valid)):
                    m.d.comb += [self.inline.ready.eq(free), merging.eq(1), load.eq(free)]
                    with m.If(free):
                        m.d.sync += turn.eq(0)
                with m.Elif(command.valid):
                    m.d.sync += cq.eq(command.p.cq)
                    with m.Switch(command.p.kind):
                        with m.Case(PlaceKind.PAYLOAD):
                            with m.If(free):
                                write(WriteKind.PAYLOAD)
                                m.d.comb += done.eq(1)
                        with m.Case(PlaceKind.DISCARD):
                            with m.If(free):
                                write(WriteKind.DISCARD)
                                m.d.comb += done.eq(1)
                        with m.Case(PlaceKind.CQE):
                            m.next = "CQ_READ"
                        with m.Case(PlaceKind.EVENT):
                            m.next = "EVENT_ADDRESS"
                        with m.Case(PlaceKind.TOKEN):
                            with m.If(command.p.token.op == TokenOp.FENCE):
                                m.next = "PASS"
                            with m.Else():
                                m.next = "ASK"
                        with m.Default():              # no such kind
                            m.d.comb += done.eq(1)

            with m.State("CQ_READ"):                   # the memories are reading
                m.next = "CQ_ENTRY"
            with m.State("CQ_ENTRY"):
                m.d.sync += [
                    entry.eq(cq_read.data), flip.eq(self.latest.flip), used.eq(cq_read.data.producer - consumer),
                ]
                m.next = "CQ_JUDGE"
            with m.State("CQ_JUDGE"):
                m.d.sync += full.eq(~entry.valid | (used >= (1 << entry.log2)))
                m.next = "CQ_ADDRESS"
            with m.State("CQ_ADDRESS"):                # the address' high half
                with m.If(changing):
                    m.next = "CQ_CHANGE"
                with m.Else():
                    m.next = "CQE"

            with m.State("CQE"):                       # waits for the output
                m.d.comb += [is_cqe.eq(1), cq_write.data.failed.eq(full), self.limit.value.eq(entry.producer + 1)]
                with m.If(full):
                    m.d.comb += [self.cq_overflow.eq(1), cq_write.en.eq(entry.valid)]
                    m.d.sync += report.eq(entry.valid & ~entry.failed)
                    with m.If(flushing):               # this stream has ended already
                        m.next = "LOST"
                    with m.Else():
                        m.next = "DIED"
                with m.Elif(free):
                    write(WriteKind.INLINE, cqe_address.address, _CQE_BYTES)
                    m.d.comb += [
                        cq_write.en.eq(1), cq_write.data.producer.eq(entry.producer + 1),
                        cq_write.data.failed.eq(entry.failed), self.limit.en.eq(1), done.eq(~flushing),
                        self.completed.en.eq(1),
                    ]
                    m.d.sync += first.eq(first + 1)
                    m.next = "IDLE"
                    with m.If(flushing):
                        m.next = "FLUSH"
            with m.State("DIED"):                      # waits until control knows
                m.d.comb += self.died.valid.eq(1)
                with m.If(self.died.ready):
                    m.next = "LOST"
            with m.State("LOST"):
                m.d.sync += first.eq(first + 1)
                with m.If(report):
                    m.d.sync += source.eq(_Source.CQ_ERROR)
                    m.next = "EVENT_ADDRESS"
                with m.Elif(flushing):
                    m.next = "FLUSH"
                with m.Else():
                    m.d.comb += done.eq(1)
                    m.next = "IDLE"

            with m.State("EVENT_ADDRESS"):             # the event ring's address follows its index two cycles later
                m.next = "EVENT"
            with m.State("EVENT"):                     # waits for the output
                with m.If(free | event_full):
                    with m.If(event_full):
                        m.d.comb += self.event_overflow.eq(1)
                    with m.Else():
                        write(WriteKind.INLINE, event_address.address, _EVENT_BYTES)
                        m.d.comb += self.evented.eq(1)
                        m.d.sync += events.eq(events + 1)
                    with m.If(source == _Source.FLUSH):
                        m.next = "PASS"
                    with m.Elif(flushing):
                        m.d.sync += source.eq(_Source.FLUSH)
                        m.next = "FLUSH"
                    with m.Else():
                        m.d.comb += done.eq(1)
                        m.next = "IDLE"

            with m.State("ASK"):                       # waits for the receive queue to take the token's order
                m.d.comb += self.token.valid.eq(1)
                with m.If(self.token.ready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):                    # waits until it has been carried out
                m.d.comb += self.answer.ready.eq(1)
                with m.If(self.answer.valid):
                    m.d.sync += [
                        first.eq(self.answer.p.retired), last.eq(self.answer.p.posted),
                        flush_cq.eq(self.answer.p.cq), flush_qpn.eq(self.answer.p.qpn),
                    ]
                    m.next = "PASS"
                    with m.If(command.p.token.op == TokenOp.FLUSH):
                        m.d.sync += [source.eq(_Source.FLUSH), flushing.eq(1)]
                        m.next = "FLUSH"
                    with m.Elif(command.p.token.op == TokenOp.UPLOAD):
                        m.d.sync += upload.eq(self.answer.p.retired)
            with m.State("FLUSH"):                     # one posted WQE after the other
                m.d.sync += cq.eq(flush_cq)
                with m.If(first == last):
                    m.next = "EVENT_ADDRESS"
                with m.Else():
                    m.next = "CQ_READ"
            with m.State("PASS"):                      # waits for the output
                with m.If(free):
                    write(WriteKind.TOKEN)
                    m.d.comb += done.eq(1)
                    m.next = "IDLE"

            with m.State("CQ_CHANGE"):
                good = Signal()
                m.d.comb += [
                    good.eq(entry.valid ^ (self.cq_update.p.op == CqOp.CREATE)),
                    self.cq_update.ready.eq(1),
                    self.owner.entry.valid.eq(self.cq_update.p.op == CqOp.CREATE),
                ]
                m.d.sync += [
                    self.cq_result.valid.eq(1),
                    self.cq_result.p.status.eq(Mux(good, abi.Status.OK, abi.Status.BAD_CQ)),
                ]
                with m.If(good & (self.cq_update.p.op != CqOp.CHECK)):
                    m.d.comb += [
                        cq_write.en.eq(1), self.owner.en.eq(1), self.limit.en.eq(1), self.changed.en.eq(1),
                        cq_write.data.valid.eq(self.cq_update.p.op == CqOp.CREATE),
                        cq_write.data.failed.eq(0), cq_write.data.base.eq(self.cq_update.p.base),
                        cq_write.data.log2.eq(self.cq_update.p.log2), cq_write.data.flip.eq(~flip),
                        cq_write.data.producer.eq(0),
                    ]
                m.next = "IDLE"

        with m.If(done):
            m.d.sync += turn.eq(1)
        with m.If(self.event_ring.restart):
            m.d.sync += events.eq(0)
        scrub(m, cq_write, config.cqs)
        return m
