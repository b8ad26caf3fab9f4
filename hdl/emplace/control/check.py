"""Checks of an admin command that need nothing but the command."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import abi

__all__ = ["CommandCheck"]


class CommandCheck(wiring.Component):
    """abi.Status of what a command says by itself: sizes, alignment, ranges.

    Which registers, queues or regions exist is for others to say; so are REG_MR's fields (protect).

    Latency: 1 cycle.

    Members
    -------
    command : ``In(8 * abi.COMMAND_BYTES)``
    status : ``Out(8)``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({"command": In(8 * abi.COMMAND_BYTES), "status": Out(8)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        status = Signal(abi.Status)
        m.d.sync += self.status.eq(status)

        def view(opcode):
            return data.View(abi.COMMANDS[opcode], self.command)

        def refuse(**conditions):
            """The first that holds counts."""
            for name, condition in reversed(conditions.items()):
                with m.If(condition):
                    m.d.comb += status.eq(abi.Status[name])

        def misaligned(address, bits=12):
            return address[:bits] != 0

        with m.Switch(self.command[:8]):
            with m.Case(abi.Opcode.NOP, abi.Opcode.FENCE, abi.Opcode.REG_MR, abi.Opcode.INVALIDATE):
                pass
            with m.Case(abi.Opcode.CREATE_CQ):
                cmd = view(abi.Opcode.CREATE_CQ)
                refuse(
                    BAD_CQ=cmd.cq >= config.cqs,
                    BAD_SIZE=(cmd.log2 < 2) | (cmd.log2 > 15),
                    BAD_CONTEXT=cmd.context >= config.user_contexts,
                    BAD_ADDRESS=misaligned(cmd.base),
                )
            with m.Case(abi.Opcode.DESTROY_CQ):
                refuse(BAD_CQ=view(abi.Opcode.DESTROY_CQ).cq >= config.cqs)
            with m.Case(abi.Opcode.WRITE_PAGES):
                cmd = view(abi.Opcode.WRITE_PAGES)
                most = abi.COMMANDS[abi.Opcode.WRITE_PAGES]["address"].shape.length
                end = Signal(config.page_bits + 2)
                m.d.comb += end.eq(cmd.first[:config.page_bits] + cmd.count[:4])
                refuse(
                    BAD_LENGTH=(cmd.count == 0) | (cmd.count > most),
                    BAD_PAGES=(cmd.first >= config.pages) | (end > config.pages),
                )
            with m.Case(abi.Opcode.INSTALL_QP):
                cmd = view(abi.Opcode.INSTALL_QP)
                refuse(
                    BAD_CONTEXT=cmd.context >= config.user_contexts,
                    BAD_SIZE=((cmd.rq_log2 > 15) | (cmd.sq_log2 > 15)
                              | (cmd.snd_wscale > 14) | (cmd.rcv_wscale > 14)),        # RFC 7323 2.3
                    BAD_ADDRESS=(((cmd.rq_log2 != 0) & misaligned(cmd.rq_base))
                                 | ((cmd.sq_log2 != 0) & misaligned(cmd.sq_base))),
                    BAD_CQ=(cmd.recv_cq >= config.cqs) | (cmd.send_cq >= config.cqs),
                )
            with m.Case(abi.Opcode.REMOVE_QP, abi.Opcode.FLUSH_QP, abi.Opcode.EXPECT_READ,
                        abi.Opcode.ACTIVATE_QP):                             # all begin with `qpn`
                refuse(BAD_QPN=self.command[88:96] != 0)
            with m.Case(abi.Opcode.UPLOAD_QP):
                cmd = view(abi.Opcode.UPLOAD_QP)
                refuse(BAD_QPN=cmd.qpn[24:] != 0, BAD_ADDRESS=misaligned(cmd.address, 9))
            with m.Default():
                m.d.comb += status.eq(abi.Status.BAD_OPCODE)
        return m
