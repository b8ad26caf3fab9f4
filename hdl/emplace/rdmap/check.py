"""RDMAP header checks: all that need neither buffer nor region.

Ref: RFC 5040 §4 (headers), §7.1 and §7.2 (receiver's checks); RFC 5041 §7.1.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..abi import QpFlags, Reason
from ..control.records import InstallCommand, RecordKind, TokenOp
from ..ddp.records import DdpSegment
from ..llp import UlpduStatus
from .records import CheckedSegment, RdmapOpcode

__all__ = ["HeaderCheck"]

#: ULPDU octets: RFC 5040 4.4 (whole), 4.8 (up to the control field).
READ_REQUEST_ULPDU = 46
TERMINATE_ULPDU = 22

# Settings of a QP, and the messages that are open on it.
_OPEN = {"send": 1, "opcode": RdmapOpcode, "write": 1, "stag": 32}


class HeaderCheck(wiring.Component):
    """Judges segments in the order of the RFCs: LLP, H1..H4, H6, U1, U2, U4, U7. The first failure is the reason.

    U3 and U5 need a buffer and come later; U4 comes before U3 here, so that a first segment with a
    wrong MO takes no buffer. Adds the QP's settings to the segment. Zero-length Writes neither open
    a message nor have their STag compared: nothing of them may be looked at (RFC 5041 5.2).

    Throughput: one segment every 3 cycles. Latency: 3 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    segments : ``In(stream.Signature(DdpSegment(config)))``
    checked : ``Out(stream.Signature(CheckedSegment(config)))``
    cmd : ``In(InstallCommand)``
        Read while an INSTALL token is here.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "segments": In(stream.Signature(DdpSegment(config))),
            "checked":  Out(stream.Signature(CheckedSegment(config))),
            "cmd":      In(InstallCommand),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        i, o = self.segments, self.checked

        Settings = data.StructLayout({"qpn": 24, "pd": 16, "remote_write": 1, "recv_cq": config.cq_bits,
                                      "send_cq": config.cq_bits})
        Open = data.StructLayout(_OPEN)
        m.submodules.settings = settings = memory.Memory(shape=Settings, depth=config.qps, init=[])
        m.submodules.messages = messages = memory.Memory(shape=Open, depth=config.qps, init=[])
        settings_read, settings_write = settings.read_port(), settings.write_port()
        open_read, open_write = messages.read_port(), messages.write_port()
        for port in (settings_read, settings_write, open_read, open_write):
            m.d.comb += [port.addr.eq(i.p.qp), port.en.eq(0)]        # a read port's default is 1
        m.d.comb += [settings_write.data[name].eq(self.cmd[name]) for name in ("qpn", "pd", "recv_cq", "send_cq")]
        m.d.comb += settings_write.data.remote_write.eq((self.cmd.flags & QpFlags.REMOTE_WRITE).any())

        token, install = Signal(), Signal()
        opcode = Signal(RdmapOpcode)
        is_send = Signal()
        m.d.comb += [
            token.eq(i.p.kind == RecordKind.TOKEN),
            install.eq(token & (i.p.token.op == TokenOp.INSTALL)),
            opcode.eq(i.p.ulp[:4]),
            is_send.eq((opcode >= RdmapOpcode.SEND) & (opcode <= RdmapOpcode.SEND_SE_INVALIDATE)),
        ]
        is_write, is_request = opcode == RdmapOpcode.WRITE, opcode == RdmapOpcode.READ_REQUEST
        is_terminate = opcode == RdmapOpcode.TERMINATE
        empty = i.p.payload == 0

        # Each check is one flip-flop, then the first of them is chosen.
        names = ("llp", "runt", "version", "rv", "op", "flag", "mix", "qn", "msn", "mo", "long", "malformed")
        bad = data.View(data.StructLayout(dict.fromkeys(names, 1)), Signal(len(names), name="bad"))
        was = Signal(Open)
        m.d.sync += [
            bad.llp.eq(i.p.status != UlpduStatus.OK),
            bad.runt.eq(i.p.runt),
            bad.version.eq(i.p.bad_version),
            bad.rv.eq(i.p.ulp[6:] != 1),
            bad.op.eq(opcode > RdmapOpcode.TERMINATE),
            bad.flag.eq(i.p.tagged != (is_write | (opcode == RdmapOpcode.READ_RESPONSE))),
            bad.qn.eq(~i.p.tagged & (i.p.bad_qn | (i.p.qn[:2] != (is_request | (is_terminate << 1))))),
            bad.msn.eq(i.p.bad_msn),
            bad.mo.eq(i.p.bad_mo),
            bad.long.eq(is_request & (i.p.length > READ_REQUEST_ULPDU)),
            bad.malformed.eq((is_request & ((i.p.length < READ_REQUEST_ULPDU) | ~i.p.last))
                             | (is_terminate & ((i.p.length < TERMINATE_ULPDU) | ~i.p.last))),
        ]
        reason = Signal(8)
        with m.If(bad.llp):
            with m.Switch(i.p.status):
                with m.Case(UlpduStatus.LENGTH):
                    m.d.comb += reason.eq(Reason.FPDU_LENGTH)
                with m.Case(UlpduStatus.CRC):
                    m.d.comb += reason.eq(Reason.FPDU_CRC)
                with m.Case(UlpduStatus.FIN):
                    m.d.comb += reason.eq(Reason.PEER_FIN)
                with m.Case(UlpduStatus.FIN_DIRTY):
                    m.d.comb += reason.eq(Reason.PEER_FIN_DIRTY)
                with m.Case(UlpduStatus.RESET):
                    m.d.comb += reason.eq(Reason.PEER_RESET)
                with m.Default():
                    m.d.comb += reason.eq(Reason.SLOT_LEASE)
        with m.Elif(bad.version & ~bad.runt):
            with m.If(i.p.tagged):
                m.d.comb += reason.eq(Reason.DDP_VERSION_TAGGED)
            with m.Else():
                m.d.comb += reason.eq(Reason.DDP_VERSION_UNTAGGED)
        for name, why in (("runt", Reason.FPDU_LENGTH), ("rv", Reason.RDMAP_VERSION), ("op", Reason.OPCODE),
                          ("flag", Reason.TAGGED_FLAG), ("mix", Reason.MESSAGE_MIX), ("qn", Reason.QN),
                          ("msn", Reason.MSN), ("mo", Reason.MO), ("long", Reason.TOO_LONG),
                          ("malformed", Reason.MALFORMED)):
            with m.Elif(bad[name]):
                m.d.comb += reason.eq(why)

        room = ~o.valid | o.ready
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)

        with m.FSM():
            with m.State("IDLE"):        # a segment
                m.d.comb += [settings_read.en.eq(1), open_read.en.eq(1)]
                with m.If(i.valid):
                    m.next = "COMPARE"
            with m.State("COMPARE"):     # nothing: the state of its QP has been read
                m.d.comb += [settings_write.en.eq(install), open_write.en.eq(install)]     # nothing is open
                m.d.sync += [
                    was.eq(open_read.data),
                    bad.mix.eq((is_send & open_read.data.send & (opcode != open_read.data.opcode))
                               | (i.p.tagged & open_read.data.write
                                  & (~is_write | (~empty & (i.p.stag != open_read.data.stag))))),
                ]
                m.next = "HAND_ON"
            with m.State("HAND_ON"):     # room in the output register
                with m.If(room):
                    m.d.comb += i.ready.eq(1)
                    with m.If(~token):
                        m.d.comb += [open_write.en.eq(1), open_write.data.eq(was)]
                        with m.If(is_send):
                            m.d.comb += [open_write.data.send.eq(~i.p.last), open_write.data.opcode.eq(opcode)]
                        with m.If(is_write & (~empty | i.p.last)):
                            m.d.comb += [open_write.data.write.eq(~i.p.last), open_write.data.stag.eq(i.p.stag)]
                    m.d.sync += [
                        o.valid.eq(1),
                        o.p.packet.eq(~token & ~bad.llp),
                        o.p.claimed.eq(~token & i.p.claimed),
                        o.p.reason.eq(reason),
                        o.p.asks.eq(~token & is_write & ~empty & ~bad.as_value().any()),
                        o.p.opcode.eq(opcode),
                        o.p.first.eq(~was.send),
                        *(o.p[name].eq(i.p[name]) for name in (
                            "kind", "token", "qp", "last", "stag", "to", "mo", "payload", "skip", "header")),
                        *(o.p[name].eq(settings_read.data[name]) for name in Settings.members),
                    ]
                    m.next = "IDLE"
        return m
