"""Carries out admin commands, and ends streams: one thing at a time. Owns the QPs' states."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import WriteCommand, WriteKind
from ..ip.records import LookupKey, LookupUpdate
from ..protect.records import PageWrite, TableOp, TableResult, TableUpdate
from ..queues.ports import CqOp, CqResult, CqUpdate
from ..rdmap.records import Died, ExpectRead, ExpectResult
from ..stream.scrub import scrub
from .ports import HoldAnswer, HoldKind, HoldOrder, QpEntry
from .records import HistoryNote, Token, TokenOp, UploadPart

__all__ = ["Sequencer"]

_COMMAND_WORDS = abi.COMMAND_BYTES // 8
_ALIVE = (abi.QpState.RTS, abi.QpState.CLOSING, abi.QpState.HELD)     # TCP works for it
_ENTRY_BYTES = abi.nbytes(abi.History.elem_shape)
_FIRST_PAGE_WORD = 2           # of WRITE_PAGES: where its addresses begin


class Sequencer(wiring.Component):
    """Runs commands in order; a stream's death goes before the next command.

    A command is checked before it changes anything; what only its neighbours can judge (does the CQ, the region, the
    4-tuple exist) they judge before they change anything. INSTALL_QP meets EXISTS and TABLE_FULL last, with the QP's
    state loaded already: a REMOVE token takes it back.

    Every wait here is for an answer that comes whatever the host does: reports of deaths are always taken
    (:class:`~emplace.control.deaths.Deaths`), and the ways of tokens and writes depend on nothing of this.

    Latency, without what the others take: 5 cycles for NOP to its completion, 4 from a death to its lookup delete.

    Members
    -------
    valid, failed, command, rotate, finish, completion_address, completion_phase
        See :class:`~emplace.control.admin_ring.AdminRing`.
    check : ``In(8)``
        Status of :class:`~emplace.control.check.CommandCheck`.
    deaths : ``In(stream.Signature(Died(config)))``, deaths_empty : ``In(1)``
    inline, token, token_done, lookup_update, lookup_result, table, table_result, pages, cq_update, cq_result, expect,
    expect_result
        To the neighbours, see :class:`~emplace.control.layer.Control`.
    holds, held : ``Out(stream.Signature(HoldOrder(config)))``, ``In(stream.Signature(HoldAnswer))``
        To :class:`~emplace.control.hold.Holder`.
    alive : ``Out(qps)``
        Bit n: QP slot n is in RTS, CLOSING or HELD.
    upload : ``In(UploadPart)``
    note : ``Out(stream.Signature(HistoryNote(config)))``
        Each change of a QP's state.
    history_hold : ``Out(1)``, history_qp : ``Out(qp_bits)``, history_at : ``Out(4)``, history : ``In(abi.History.elem_shape)``
        See :class:`~emplace.stats.history.History`.
    commands, commands_refused : ``Out(1)``
        Strobes.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "valid":              In(1),
            "failed":             In(1),
            "command":            In(8 * abi.COMMAND_BYTES),
            "rotate":             Out(1),
            "finish":             Out(1),
            "completion_address": In(64),
            "completion_phase":   In(1),
            "check":              In(8),
            "deaths":             In(stream.Signature(Died(config))),
            "deaths_empty":       In(1),
            "inline":             Out(stream.Signature(WriteCommand(config))),
            "token":              Out(stream.Signature(Token(config))),
            "token_done":         In(stream.Signature(Token(config))),
            "lookup_update":      Out(stream.Signature(LookupUpdate(config))),
            "lookup_result":      In(stream.Signature(data.StructLayout({"status": 8}))),
            "table":              Out(stream.Signature(TableUpdate())),
            "table_result":       In(stream.Signature(TableResult)),
            "pages":              Out(stream.Signature(PageWrite(config))),
            "cq_update":          Out(stream.Signature(CqUpdate(config))),
            "cq_result":          In(stream.Signature(CqResult)),
            "expect":             Out(stream.Signature(ExpectRead(config))),
            "expect_result":      In(stream.Signature(ExpectResult)),
            "holds":              Out(stream.Signature(HoldOrder(config))),
            "held":               In(stream.Signature(HoldAnswer)),
            "alive":              Out(config.qps),
            "upload":             In(UploadPart),
            "note":               Out(stream.Signature(HistoryNote(config))),
            "history_hold":       Out(1),
            "history_qp":         Out(config.qp_bits),
            "history_at":         Out(range(abi.HISTORY_DEPTH)),
            "history":            In(abi.History.elem_shape),
            "commands":           Out(1),
            "commands_refused":   Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        Status, State, Opcode = abi.Status, abi.QpState, abi.Opcode

        def view(op):
            return data.View(abi.COMMANDS[op], self.command)
        install = view(Opcode.INSTALL_QP)

        m.submodules.qps = qps = memory.Memory(shape=QpEntry(config), depth=config.qps, init=[],
                                               attrs={"ram_style": "block"})
        qp_read, qp_write = qps.read_port(), qps.write_port()
        qp, entry = Signal(config.qp_bits), Signal(QpEntry(config))
        opcode, status = Signal(8), Signal(8)          # of the command at work
        value = Signal(32)                             # of its completion
        holding = Signal()                             # INSTALL_QP: what becomes of the QP
        dying, reason = Signal(), Signal(8)            # it isn't a command, but a death
        token_op, inserting = Signal(TokenOp), Signal()
        second = Signal()                              # of INSTALL_QP's two CQs
        step = Signal(range(_COMMAND_WORDS))           # of WRITE_PAGES' turns around the command; entry of a history
        index, count, crooked, writing = Signal(config.page_bits), Signal(4), Signal(), Signal()

        key = Signal(LookupKey())
        tagged = install.flags[abi.QpFlags.VLAN.bit_length() - 1]
        m.d.comb += [
            key.local_ip.eq(install.local_ip), key.remote_ip.eq(install.remote_ip),
            key.local_port.eq(install.local_port), key.remote_port.eq(install.remote_port),
            key.tagged.eq(tagged), key.vlan.eq(Mux(tagged, install.vlan_tci[:12], 0)),
        ]

        # What the neighbours are told. Each payload stands still while its FSM state lasts.
        expect, cq = view(Opcode.EXPECT_READ), view(Opcode.CREATE_CQ)
        uploading, telling = Signal(), Signal()        # Upload, or an entry of History
        activate = view(Opcode.ACTIVATE_QP)
        completion, upload = Signal(abi.AdminCompletion), Signal(abi.Upload)
        tell_offset = Signal(9)
        m.d.comb += [
            self.token.p.op.eq(token_op), self.token.p.qp.eq(Mux(token_op == TokenOp.FENCE, 0, qp)),
            self.lookup_update.p.insert.eq(inserting), self.lookup_update.p.qp.eq(qp),
            self.lookup_update.p.key.eq(Mux(inserting, key, entry.key)),
            self.table.p.op.eq(Mux(opcode == Opcode.REG_MR, TableOp.REGISTER, TableOp.INVALIDATE)),
            self.table.p.mr.eq(view(Opcode.REG_MR)),
            self.pages.p.index.eq(index), self.pages.p.address.eq(self.command[:64]),
            self.cq_update.p.cq.eq(cq.cq), self.cq_update.p.log2.eq(cq.log2), self.cq_update.p.base.eq(cq.base[12:]),
            self.cq_update.p.context.eq(cq.context), self.cq_update.p.vector.eq(cq.vector),
            self.cq_update.p.count.eq(cq.moderate_count), self.cq_update.p.period.eq(cq.moderate_period),
            self.expect.p.qp.eq(qp), self.expect.p.stag.eq(expect.stag), self.expect.p.to.eq(expect.to),
            self.expect.p.length.eq(expect.length), self.expect.p.wr_id.eq(expect.wr_id),
            completion.cookie.eq(self.command[32:64]), completion.status.eq(status), completion.opcode.eq(opcode),
            completion.phase.eq(self.completion_phase), completion.value.eq(value),
            holding.eq(install.flags[abi.QpFlags.HELD.bit_length() - 1]),
            self.holds.p.kind.eq(Mux(holding, HoldKind.HOLD, HoldKind.FREE)), self.holds.p.qp.eq(qp),
            self.holds.p.qpn.eq(install.qpn), self.holds.p.index.eq(activate.index),
            upload.eq(self.upload), upload.qpn.eq(entry.qpn), upload.state.eq(entry.state),
            upload.reason.eq(entry.reason),
            self.inline.p.kind.eq(WriteKind.INLINE),
            # Upload's place is aligned so that History follows it without an adder.
            self.inline.p.address.eq(Mux(uploading | telling, view(Opcode.UPLOAD_QP).address, self.completion_address)
                                     | Mux(telling, tell_offset, 0)),
            self.inline.p.length.eq(Mux(uploading, abi.nbytes(abi.Upload), abi.nbytes(abi.AdminCompletion))),
            # What lies behind the completion, or an entry, is not written.
            self.inline.p.data.eq(Cat(
                Mux(uploading, upload.as_value()[:128], Mux(telling, self.history.as_value(), completion.as_value())),
                upload.as_value()[128:])),
            tell_offset.eq((step + abi.nbytes(abi.Upload) // _ENTRY_BYTES) << (_ENTRY_BYTES - 1).bit_length()),
            self.history_qp.eq(qp), self.history_at.eq(step),
            qp_read.addr.eq(qp), qp_write.addr.eq(qp), qp_write.data.eq(entry),
        ]
        with m.If(opcode == Opcode.ACTIVATE_QP):
            m.d.comb += self.holds.p.kind.eq(HoldKind.ACTIVATE)
        with m.Elif(opcode == Opcode.FENCE):
            m.d.comb += self.holds.p.kind.eq(HoldKind.FENCE)
        with m.Switch(opcode):
            with m.Case(Opcode.CREATE_CQ):
                m.d.comb += self.cq_update.p.op.eq(CqOp.CREATE)
            with m.Case(Opcode.DESTROY_CQ):
                m.d.comb += self.cq_update.p.op.eq(CqOp.DESTROY)
            with m.Default():
                m.d.comb += [
                    self.cq_update.p.op.eq(CqOp.CHECK),
                    self.cq_update.p.cq.eq(Mux(second, install.send_cq, install.recv_cq)),
                ]

        established = Signal()                         # TCP still works for it
        m.d.comb += established.eq(Cat(entry.state == state for state in _ALIVE).any())
        unknown, mine = Signal(), Signal()             # the slot isn't that QP's
        m.d.comb += [
            mine.eq((entry.state != State.EMPTY) & (entry.qpn == install.qpn)), unknown.eq(~mine),
        ]

        def complete(with_status):
            m.d.sync += status.eq(with_status)
            m.next = "COMPLETE"

        def token(op):
            m.d.sync += token_op.eq(op)
            m.next = "TOKEN"

        def store(state, why=None):
            """The QP's new state."""
            m.d.comb += [qp_write.en.eq(1), qp_write.data.state.eq(state)]
            m.d.sync += [entry.state.eq(state), self.alive.bit_select(qp, 1).eq(int(state in _ALIVE))]
            if why is not None:
                m.d.comb += qp_write.data.reason.eq(why)
            m.d.sync += [
                self.note.valid.eq(1), self.note.p.qp.eq(qp), self.note.p.detail.eq(Mux(dying, reason, int(state))),
                self.note.p.kind.eq(Mux(inserting, abi.HistoryKind.INSTALLED,
                                        Mux(dying, abi.HistoryKind.FAILED, abi.HistoryKind.STATE))),
            ]

        def stop(op):
            """Take the connection out of the lookup, then send ``op``."""
            m.d.sync += [inserting.eq(0), token_op.eq(op)]
            m.next = "LOOKUP"

        with m.If(self.note.ready):
            m.d.sync += self.note.valid.eq(0)
        with m.FSM(name="sequencer"):
            with m.State("IDLE"):                      # waits for a death or a command
                m.d.comb += self.deaths.ready.eq(1)
                m.d.sync += [value.eq(0), second.eq(0), writing.eq(0), crooked.eq(0), inserting.eq(0), step.eq(0)]
                with m.If(self.deaths.valid):
                    m.d.sync += [qp.eq(self.deaths.p.qp), reason.eq(self.deaths.p.reason), dying.eq(1)]
                    m.next = "QP_READ"
                with m.Elif(self.valid & self.deaths_empty):
                    m.d.sync += [qp.eq(install.qpn), opcode.eq(self.command[:8]), dying.eq(0)]
                    m.next = "QP_READ"
            with m.State("QP_READ"):                   # the memory is reading
                m.next = "QP_ENTRY"
            with m.State("QP_ENTRY"):
                m.d.sync += entry.eq(qp_read.data)
                with m.If(dying):
                    m.next = "DYING"
                with m.Else():
                    m.next = "DISPATCH"

            with m.State("DYING"):
                with m.If(reason == abi.Reason.PEER_FIN):
                    m.next = "IDLE"
                    with m.If(entry.state == State.RTS):
                        store(State.CLOSING, reason)   # it still answers, and the card's side may go on
                with m.Elif(established):
                    store(State.ERROR, reason)
                    stop(TokenOp.KILL)
                with m.Else():                         # it has been stopped already
                    m.next = "IDLE"

            with m.State("DISPATCH"):
                with m.If(self.failed):
                    complete(Status.BUS_ERROR)
                with m.Elif(self.check != Status.OK):
                    complete(self.check)
                with m.Else():
                    with m.Switch(opcode):
                        with m.Case(Opcode.NOP):
                            complete(Status.OK)
                        with m.Case(Opcode.FENCE):     # frames first: the token leaves dma behind their writes
                            m.next = "HOLD"
                        with m.Case(Opcode.CREATE_CQ):
                            m.next = "CQ"
                        with m.Case(Opcode.DESTROY_CQ):
                            m.d.sync += qp.eq(0)
                            m.next = "SCAN"
                        with m.Case(Opcode.REG_MR, Opcode.INVALIDATE):
                            m.next = "TABLE"
                        with m.Case(Opcode.WRITE_PAGES):
                            pages = view(Opcode.WRITE_PAGES)
                            m.d.sync += [index.eq(pages.first), count.eq(pages.count)]
                            m.next = "PAGES"
                        with m.Case(Opcode.INSTALL_QP):
                            with m.If(entry.state != State.EMPTY):
                                complete(Status.BAD_QPN)
                            with m.Else():
                                m.next = "CQ"
                        with m.Case(Opcode.REMOVE_QP, Opcode.FLUSH_QP):
                            with m.If(unknown):
                                complete(Status.BAD_QPN)
                            with m.Elif(established):
                                store(State.ERROR, abi.Reason.NONE)
                                stop(TokenOp.KILL)
                            with m.Elif(opcode == Opcode.REMOVE_QP):
                                token(TokenOp.REMOVE)
                            with m.Else():
                                token(TokenOp.FLUSH)
                        with m.Case(Opcode.UPLOAD_QP):
                            with m.If(unknown):
                                complete(Status.BAD_QPN)
                            with m.Else():
                                token(TokenOp.UPLOAD)
                        with m.Case(Opcode.EXPECT_READ):
                            with m.If(unknown):
                                complete(Status.BAD_QPN)
                            with m.Elif(entry.state != State.RTS):
                                complete(Status.BAD_STATE)
                            with m.Else():
                                m.next = "EXPECT"
                        with m.Case(Opcode.ACTIVATE_QP):
                            with m.If(unknown):
                                complete(Status.BAD_QPN)
                            with m.Elif(entry.state != State.HELD):
                                complete(Status.BAD_STATE)
                            with m.Else():
                                m.next = "HOLD"

            with m.State("HOLD"):                      # waits until the holder takes it
                m.d.comb += self.holds.valid.eq(1)
                with m.If(self.holds.ready):
                    m.next = "HOLD_RESULT"
            with m.State("HOLD_RESULT"):               # waits for the holder's answer
                m.d.comb += self.held.ready.eq(1)
                with m.If(self.held.valid):
                    with m.If(opcode == Opcode.INSTALL_QP):
                        m.d.sync += inserting.eq(1)
                        m.next = "LOOKUP"
                    with m.Elif(opcode == Opcode.FENCE):
                        token(TokenOp.FENCE)
                    with m.Elif(self.held.p.again):
                        m.d.sync += value.eq(self.held.p.index)
                        complete(Status.AGAIN)
                    with m.Else():
                        store(State.RTS)
                        complete(Status.OK)

            with m.State("SCAN"):                      # DESTROY_CQ: the memory is reading
                m.next = "SCAN_LOOK"
            with m.State("SCAN_LOOK"):                 # one QP after the other: does it use the CQ?
                user = qp_read.data
                used = Signal()
                m.d.comb += used.eq((user.recv_cq == cq.cq) | (user.send_cq == cq.cq))
                m.d.sync += qp.eq(qp + 1)
                m.next = "SCAN"
                with m.If((user.state != State.EMPTY) & used):
                    complete(Status.BAD_CQ)
                with m.Elif(qp == config.qps - 1):
                    m.next = "CQ"
            with m.State("CQ"):                        # waits until queues takes it
                m.d.comb += self.cq_update.valid.eq(1)
                with m.If(self.cq_update.ready):
                    m.next = "CQ_RESULT"
            with m.State("CQ_RESULT"):                 # waits for queues' answer
                m.d.comb += self.cq_result.ready.eq(1)
                with m.If(self.cq_result.valid):
                    with m.If((self.cq_result.p.status != Status.OK) | (opcode != Opcode.INSTALL_QP)):
                        complete(self.cq_result.p.status)
                    with m.Elif(~second):
                        m.d.sync += second.eq(1)
                        m.next = "CQ"
                    with m.Else():
                        token(TokenOp.INSTALL)

            with m.State("TABLE"):                     # waits until protect takes it
                m.d.comb += self.table.valid.eq(1)
                with m.If(self.table.ready):
                    m.next = "TABLE_RESULT"
            with m.State("TABLE_RESULT"):              # waits for protect's answer
                m.d.comb += self.table_result.ready.eq(1)
                with m.If(self.table_result.valid):
                    with m.If((self.table_result.p.status != Status.OK) | (opcode == Opcode.REG_MR)):
                        complete(self.table_result.p.status)
                    with m.Else():                     # no grant any more; now what was granted before
                        token(TokenOp.FENCE)

            with m.State("PAGES"):                     # WRITE_PAGES: first turn checks, second turn writes
                in_list = Signal()
                m.d.comb += [
                    in_list.eq((step >= _FIRST_PAGE_WORD) & (step < _FIRST_PAGE_WORD + count)),
                    self.pages.valid.eq(writing & in_list),
                    self.rotate.eq(~self.pages.valid | self.pages.ready),
                ]
                with m.If(self.rotate):
                    m.d.sync += [step.eq(step + 1), crooked.eq(crooked | (in_list & (self.command[:12] != 0)))]
                    with m.If(self.pages.valid):
                        m.d.sync += index.eq(index + 1)
                    with m.If(step == _COMMAND_WORDS - 1):
                        m.d.sync += writing.eq(1)
                        with m.If(writing):
                            complete(Status.OK)
                        with m.Elif(crooked):
                            complete(Status.BAD_ADDRESS)

            with m.State("EXPECT"):                    # waits until rdmap takes it
                m.d.comb += self.expect.valid.eq(1)
                with m.If(self.expect.ready):
                    m.next = "EXPECT_RESULT"
            with m.State("EXPECT_RESULT"):             # waits for rdmap's answer
                m.d.comb += self.expect_result.ready.eq(1)
                with m.If(self.expect_result.valid):
                    complete(self.expect_result.p.status)

            with m.State("LOOKUP"):                    # waits until ip takes it
                m.d.comb += self.lookup_update.valid.eq(1)
                with m.If(self.lookup_update.ready):
                    m.next = "LOOKUP_RESULT"
            with m.State("LOOKUP_RESULT"):             # waits for ip's answer
                m.d.comb += self.lookup_result.ready.eq(1)
                with m.If(self.lookup_result.valid):
                    with m.If(~inserting):
                        m.next = "TOKEN"
                    with m.Elif(self.lookup_result.p.status == Status.OK):
                        store(State.RTS, abi.Reason.NONE)
                        with m.If(holding):
                            store(State.HELD, abi.Reason.NONE)
                        m.d.comb += [
                            qp_write.data.qpn.eq(install.qpn), qp_write.data.recv_cq.eq(install.recv_cq),
                            qp_write.data.send_cq.eq(install.send_cq), qp_write.data.key.eq(key),
                        ]
                        complete(Status.OK)
                    with m.Else():                     # take back what INSTALL loaded
                        m.d.sync += status.eq(self.lookup_result.p.status)
                        token(TokenOp.REMOVE)

            with m.State("TOKEN"):                     # waits until ip takes it
                m.d.comb += self.token.valid.eq(1)
                with m.If(self.token.ready):
                    m.next = "TOKEN_DONE"
            with m.State("TOKEN_DONE"):                # waits until it has gone through all layers
                m.d.comb += self.token_done.ready.eq(1)
                with m.If(self.token_done.valid):
                    with m.Switch(token_op):
                        with m.Case(TokenOp.INSTALL):  # its frames' way first, then that they are found
                            m.next = "HOLD"
                        with m.Case(TokenOp.KILL):
                            with m.If(dying):
                                m.next = "IDLE"
                            with m.Else():
                                token(Mux(opcode == Opcode.REMOVE_QP, TokenOp.REMOVE, TokenOp.FLUSH))
                        with m.Case(TokenOp.REMOVE):
                            with m.If(~inserting):
                                store(State.EMPTY)
                                m.d.sync += status.eq(Status.OK)
                            m.next = "COMPLETE"
                        with m.Case(TokenOp.UPLOAD):
                            m.next = "UPLOAD"
                        with m.Default():
                            complete(Status.OK)

            with m.State("UPLOAD"):                    # waits until queues takes it
                m.d.comb += [uploading.eq(1), self.history_hold.eq(1), self.inline.valid.eq(1)]
                with m.If(self.inline.ready):
                    m.next = "ENTRY_READ"
            with m.State("ENTRY_READ"):                # the memory is reading
                m.d.comb += self.history_hold.eq(1)
                m.next = "ENTRY"
            with m.State("ENTRY"):                     # waits until queues takes it
                m.d.comb += [telling.eq(1), self.history_hold.eq(1), self.inline.valid.eq(1)]
                with m.If(self.inline.ready):
                    m.d.sync += step.eq(step + 1)
                    m.next = "ENTRY_READ"
                    with m.If(step == abi.HISTORY_DEPTH - 1):
                        complete(Status.OK)
            with m.State("COMPLETE"):                  # waits until queues takes it
                m.d.comb += self.inline.valid.eq(1)
                with m.If(self.inline.ready):
                    m.d.comb += [self.finish.eq(1), self.commands.eq(1), self.commands_refused.eq(status != Status.OK)]
                    m.next = "IDLE"
        scrub(m, qp_write, config.qps)
        return m
