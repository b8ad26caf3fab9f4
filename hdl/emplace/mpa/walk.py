"""One walk after the other: which octets are cut, and what becomes of slots."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import InstallCommand, QpIndex, RecordKind, Token, TokenOp, UploadPart
from ..ip.records import SlotWrite
from ..llp import UlpduStatus
from ..stream.scrub import scrub
from ..tcp.records import SlotIndex, StreamEnd, WalkRequest, WalkResult
from .records import Outcome, Piece, StreamState, Verdict

__all__ = ["Walk"]

_STAGES = ("idle", "load", "look", "cut", "settle", "size", "tail", "end", "read", "append", "notice", "answer", "store")


class Walk(wiring.Component):
    """Owner of MPA's state of all QPs. Takes walk requests, sets reader and cutter to work, and says what came of it.

    One QP's state is at hand, that of the latest request; another one's costs 1 cycle, or 2 if it has an unfinished
    FPDU, for the reading starts as if it had none. Appending is reading too: the word in which the unfinished FPDU
    ends, the new octets, and what follows their end in the slot (which may be the FPDU's start), are packed and
    written back as whole words.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    walk : ``In(stream.Signature(WalkRequest(config)))``
    walked : ``Out(stream.Signature(WalkResult()))``
    read_start, read_pieces, read_flush, words : to and from SlotReader
    cut_start, total, qp, crc, joined, finished, outcome, left, size, some, length : to and from FpduCutter
    notice : ``Out(stream.Signature(Verdict(config)))``
        Tokens, and failures that aren't the CRC's.
    slot_append, slot_free, free_count : as in Mpa
    change, begin : ``Out(1)``
        To LeaseWatch.
    expired : ``In(stream.Signature(QpIndex(config)))``
    cmd, upload : as in Mpa
    appended, parked, unfinished : ``Out(1)``
        Counters.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "walk":        In(stream.Signature(WalkRequest(config))),
            "walked":      Out(stream.Signature(WalkResult())),
            "read_start":  Out(1),
            "read_pieces": Out(data.ArrayLayout(Piece(config), 3)),
            "read_flush":  Out(1),
            "words":       In(stream.Signature(64)),
            "cut_start":   Out(1),
            "total":       Out(13),
            "qp":          Out(config.qp_bits),
            "crc":         Out(1),
            "joined":      Out(1),
            "cutting":     Out(1),
            "finished":    In(1),
            "outcome":     In(Outcome),
            "left":        In(13),
            "size":        In(12),
            "some":        In(1),
            "length":      In(16),
            "notice":      Out(stream.Signature(Verdict(config))),
            "slot_append": Out(stream.Signature(SlotWrite(config))),
            "slot_free":   Out(stream.Signature(SlotIndex(config), always_ready=True)),
            "free_count":  In(range(config.slots + 1)),
            "change":      Out(1),
            "begin":       Out(1),
            "expired":     In(stream.Signature(QpIndex(config))),
            "cmd":         In(InstallCommand),
            "upload":      Out(UploadPart),
            "appended":    Out(1),
            "parked":      Out(1),
            "unfinished":  Out(1),
        })
        # Public to the proof only: the states of all QPs, of `qp`, and whether that is known; states of the machine; the
        # request.
        self.store = memory.Memory(shape=StreamState(config), depth=config.qps, init=[])
        self.save = self.store.write_port()
        self.state, self.known, self.continues = Signal(StreamState(config)), Signal(), Signal()
        self.scrubbing = Signal()
        self.new_slot, self.new_length = Signal(config.slot_bits), Signal(12)
        self.is_token, self.is_lease, self.end_of = Signal(), Signal(), Signal(StreamEnd)
        self.stage = Signal(data.StructLayout({name: 1 for name in _STAGES}))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        pieces, result = self.read_pieces, self.walked.p

        # State of `qp`; in the memory as of the end of its latest request.
        m.submodules.store = store = self.store
        load, save = store.read_port(), self.save
        state, known = self.state, self.known
        m.d.comb += [save.addr.eq(self.qp), save.data.eq(state)]

        # The request: octets, their end, a token, or a lease that ran out.
        slot, offset, length = self.new_slot, Signal(11), self.new_length
        token = Signal(Token(config))
        is_token, is_lease, end_of = self.is_token, self.is_lease, self.end_of
        continues = self.continues       # the reader begins in the unfinished slot
        outcome = Signal(Outcome)
        enough = Signal()                # a slot may become unfinished
        m.d.sync += enough.eq(self.free_count > config.slot_reserve)

        wanted, at_hand = Signal(config.qp_bits), Signal()
        with m.If(self.expired.valid):
            m.d.comb += wanted.eq(self.expired.p.qp)
        with m.Elif(self.walk.p.kind == RecordKind.TOKEN):
            m.d.comb += wanted.eq(self.walk.p.token.qp)
        with m.Else():
            m.d.comb += wanted.eq(self.walk.p.qp)
        m.d.comb += [load.addr.eq(wanted), at_hand.eq(known & (wanted == self.qp))]

        def read(*parts):
            """Start the reader on ``parts``: (slot, at, length) each."""
            return [self.read_start.eq(1), *(
                pieces[n][name].eq(value) for n, part in enumerate(parts)
                for name, value in zip(("slot", "at", "length"), part, strict=True))]

        def give_back():
            """Free the unfinished slot, if there is one."""
            with m.If(state.open):
                m.d.comb += self.change.eq(1)
                m.d.sync += [self.slot_free.valid.eq(1), self.slot_free.p.slot.eq(state.slot), state.open.eq(0)]

        m.d.sync += self.slot_free.valid.eq(0)
        m.d.comb += [
            self.crc.eq(state.crc),
            self.joined.eq(state.open),
            self.notice.p.qp.eq(self.qp),
            self.notice.p.token.eq(token),
        ]

        limit = Signal(11)               # where the request's octets end in their slot
        m.d.sync += limit.eq(offset + length)
        untouched = Signal()             # the unfinished FPDU is as it was
        taken = Signal(12)
        m.d.comb += untouched.eq(state.open & ~self.some)
        with m.If(~untouched):
            m.d.comb += taken.eq(length - self.left)

        tail, end = Signal(11), Signal(11)           # append: where the unfinished FPDU ends, before and after
        address, count = Signal(8), Signal(9)        # next word, words to go
        rest = Signal(3)
        m.d.comb += rest.eq(-end[:3])

        with m.FSM() as fsm:
            with m.State("IDLE"):            # for a lease that ran out, or a request
                m.d.comb += [self.expired.ready.eq(1), self.walk.ready.eq(~self.expired.valid)]
                m.d.sync += [
                    slot.eq(self.walk.p.slot), offset.eq(self.walk.p.offset), length.eq(self.walk.p.length),
                    token.eq(self.walk.p.token), is_token.eq(self.walk.p.kind == RecordKind.TOKEN),
                    is_lease.eq(self.expired.valid), end_of.eq(self.walk.p.end),
                    continues.eq(at_hand & state.open),
                    result.as_value().eq(0),
                ]
                new = (self.walk.p.slot, self.walk.p.offset, self.walk.p.length)
                with m.If(self.expired.valid | self.walk.valid):
                    m.d.sync += self.qp.eq(wanted)
                    with m.If(at_hand & state.open):
                        m.d.comb += read((state.slot, state.start, state.held), new)
                        m.d.sync += self.total.eq(self.walk.p.length + state.held)
                    with m.Else():
                        m.d.comb += read(new)
                        m.d.sync += self.total.eq(self.walk.p.length)
                    with m.If(at_hand):
                        m.next = "LOOK"
                    with m.Else():
                        m.next = "LOAD"
            with m.State("LOAD"):            # the memory's cycle
                m.d.sync += [state.eq(load.data), known.eq(1)]
                m.next = "LOOK"
            with m.State("LOOK"):            # what kind of request is it? Again, if the reader began in the wrong slot
                with m.If(is_lease | is_token | (end_of != StreamEnd.NONE)):
                    m.d.comb += self.read_flush.eq(1)
                    m.next = "NOTICE"
                with m.Elif(~state.alive):
                    m.d.comb += self.read_flush.eq(1)
                    m.d.sync += result.failed.eq(1)
                    m.next = "ANSWER"
                with m.Elif(state.open & ~continues):
                    m.d.comb += read((state.slot, state.start, state.held), (slot, offset, length))
                    m.d.sync += [self.total.eq(length + state.held), continues.eq(1)]
                with m.Elif(state.open & (self.total < state.size)):
                    m.d.comb += self.read_flush.eq(1)
                    m.next = "TAIL"
                with m.Else():
                    m.d.comb += self.cut_start.eq(1)
                    m.next = "CUT"
            with m.State("CUT"):             # for the cutter
                m.d.comb += self.cutting.eq(1)
                m.d.sync += outcome.eq(self.outcome)
                with m.If(self.finished):
                    m.d.comb += self.read_flush.eq(1)
                    with m.If(self.outcome == Outcome.END):
                        give_back()
                        m.d.sync += result.consumed.eq(length)
                        m.next = "ANSWER"
                    with m.Elif((self.outcome == Outcome.INCOMPLETE) & untouched):
                        m.next = "SIZE"
                    with m.Elif(self.outcome == Outcome.INCOMPLETE):
                        give_back()
                        m.next = "ANSWER"
                        with m.If(state.open | enough):
                            m.d.comb += [self.change.eq(1), self.begin.eq(1), self.unfinished.eq(1)]
                            m.d.sync += [
                                state.open.eq(1), state.slot.eq(slot), state.start.eq(limit - self.left),
                                state.held.eq(self.left), state.size.eq(self.size),
                                result.consumed.eq(length), result.kept.eq(1),
                            ]
                        with m.Else():
                            m.d.sync += result.consumed.eq(taken)
                    with m.Else():
                        m.next = "SETTLE"
            with m.State("SETTLE"):          # (LENGTH: for room for the record)
                m.d.sync += result.consumed.eq(taken)
                m.next = "ANSWER"
                with m.Switch(outcome):
                    with m.Case(Outcome.PARKED):
                        m.d.comb += self.parked.eq(1)
                        m.d.sync += result.parked.eq(1)
                        with m.If(~untouched):
                            give_back()
                    with m.Case(Outcome.CRC):
                        give_back()
                        m.d.sync += [result.failed.eq(1), state.alive.eq(0)]
                    with m.Default():        # LENGTH
                        m.d.comb += [self.notice.valid.eq(1), self.notice.p.length.eq(self.length),
                                     self.notice.p.status.eq(UlpduStatus.LENGTH)]
                        with m.If(self.notice.ready):
                            give_back()
                            m.d.sync += [result.failed.eq(1), state.alive.eq(0)]
                        with m.Else():
                            m.next = "SETTLE"
            with m.State("SIZE"):            # the cutter's find
                m.d.sync += state.size.eq(self.size)
                m.next = "TAIL"
            with m.State("TAIL"):
                m.d.sync += tail.eq(state.start + state.held)
                m.next = "END"
            with m.State("END"):
                m.d.sync += end.eq(tail + length)
                m.next = "READ"
            with m.State("READ"):
                m.d.comb += read((state.slot, tail & 0x7f8, tail[:3]), (slot, offset, length), (state.slot, end, rest))
                m.d.sync += [
                    state.held.eq(state.held + length),
                    address.eq(tail[3:]),
                    count.eq((tail[:3] + length + rest)[3:]),
                ]
                m.next = "APPEND"
            with m.State("APPEND"):          # for each word, and for slot memory to take it
                m.d.comb += [self.slot_append.valid.eq(self.words.valid), self.words.ready.eq(self.slot_append.ready)]
                with m.If(self.words.valid & self.slot_append.ready):
                    m.d.sync += [address.eq(address + 1), count.eq(count - 1)]
                    with m.If(count == 1):
                        m.d.comb += self.appended.eq(1)
                        m.d.sync += result.consumed.eq(length)
                        m.next = "ANSWER"
            with m.State("NOTICE"):          # a token, an end, or a lease that ran out: for room for the record
                m.d.comb += self.notice.valid.eq(1)
                with m.If(is_lease):
                    m.d.comb += self.notice.p.status.eq(UlpduStatus.LEASE)
                with m.Elif(is_token):
                    m.d.comb += self.notice.p.kind.eq(RecordKind.TOKEN)
                with m.Elif(end_of == StreamEnd.RESET):
                    m.d.comb += self.notice.p.status.eq(UlpduStatus.RESET)
                with m.Else():
                    m.d.comb += self.notice.p.status.eq(Mux(state.open, UlpduStatus.FIN_DIRTY, UlpduStatus.FIN))
                with m.If(self.notice.ready):
                    m.next = "ANSWER"
                    with m.If(is_lease | ~is_token):
                        give_back()
                        m.d.sync += state.alive.eq(0)
                        with m.If(is_lease):
                            m.next = "STORE"
                    with m.Else():
                        m.d.sync += self.upload.open_fpdu.eq(state.open & (token.op == TokenOp.UPLOAD))
                        with m.Switch(token.op):
                            with m.Case(TokenOp.INSTALL):
                                give_back()
                                m.d.sync += [state.alive.eq(1),
                                             state.crc.eq((self.cmd.flags & abi.QpFlags.CRC).any())]
                            with m.Case(TokenOp.KILL, TokenOp.REMOVE):
                                give_back()
                                m.d.sync += state.alive.eq(0)
            with m.State("ANSWER"):          # for TCP to take it
                m.d.comb += [self.walked.valid.eq(1), save.en.eq(1)]
                with m.If(self.walked.ready):
                    m.next = "IDLE"
            with m.State("STORE"):
                m.d.comb += save.en.eq(1)
                m.next = "IDLE"

        m.d.comb += [self.stage[name].eq(fsm.ongoing(name.upper())) for name in _STAGES]
        m.d.comb += [
            self.slot_append.p.slot.eq(state.slot),
            self.slot_append.p.address.eq(address),
            self.slot_append.p.data.eq(self.words.payload),
        ]
        m.d.comb += self.scrubbing.eq(scrub(m, save, config.qps))       # INSTALL gives back an unfinished slot that it finds
        return m
