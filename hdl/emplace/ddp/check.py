"""DDP header decode, and the checks that need DDP's own state.

Ref: RFC 5041 §4 (headers), §5.1 (queue numbers, MSN, MO), §7.1 (receiver's checks).
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import InstallCommand, RecordKind, TokenOp, UploadPart
from ..llp import UlpduRecord, UlpduStatus
from .records import TAGGED_HEADER, UNTAGGED_HEADER, DdpSegment, wire_field

__all__ = ["SegmentCheck"]

#: Queue numbers that have a counter, 0..2; the number of the last.
LAST_QN = 2


class SegmentCheck(wiring.Component):
    """Decodes DDP headers and judges them: version, queue number, sequence, offset.

    Keeps per QP the MSN expected on each of three queues, and the octets so far of the message open
    on queue 0. They move with every segment that the LLP has found whole; behind a stream's first error they
    mean nothing, and nobody looks.

    Throughput: one segment every 3 cycles. Latency: 3 cycles. Tokens: 3 cycles, INSTALL 6, UPLOAD 5.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    ulpdus : ``In(stream.Signature(UlpduRecord(config)))``
    segments : ``Out(stream.Signature(DdpSegment(config)))``
    cmd : ``In(InstallCommand)``
        Read while an INSTALL token is here: recv_msn, recv_read_msn.
    upload : ``Out(UploadPart)``
        recv_msn and recv_read_msn, from the latest UPLOAD token on.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ulpdus":   In(stream.Signature(UlpduRecord(config))),
            "segments": Out(stream.Signature(DdpSegment(config))),
            "cmd":      In(InstallCommand),
            "upload":   Out(UploadPart),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        i, o = self.ulpdus, self.segments

        m.submodules.msns = msns = memory.Memory(shape=32, depth=4 * config.qps, init=[])     # address {qp, QN}
        m.submodules.offsets = offsets = memory.Memory(shape=32, depth=config.qps, init=[])   # QN 0 alone
        msn_read, msn_write = msns.read_port(), msns.write_port()
        offset_read, offset_write = offsets.read_port(), offsets.write_port()

        # The header, straight from the input, which holds until it is taken.
        token = i.p.kind == RecordKind.TOKEN
        control = i.p.header[16:24]
        qp = Signal(config.qp_bits)
        tagged = Signal()
        size = Signal(5)                 # octets of the DDP header
        qn = Signal(32)
        m.d.comb += [
            qp.eq(Mux(token, i.p.token.qp, i.p.qp)),
            tagged.eq(control[7]),
            size.eq(Mux(tagged, TAGGED_HEADER, UNTAGGED_HEADER)),
            qn.eq(wire_field(i.p.header, 8, 4)),
        ]
        whole = i.p.status == UlpduStatus.OK
        mo = wire_field(i.p.header, 16, 4)
        last = control[6]

        step = Signal(range(LAST_QN + 1))      # queue that a token is at
        runt, bad_qn, bad_msn, bad_mo = (Signal(name=name) for name in ("runt", "bad_qn", "bad_msn", "bad_mo"))
        payload = Signal(16)
        next_offset = Signal(32)
        m.d.comb += [
            msn_read.en.eq(0), offset_read.en.eq(0),       # their default is 1
            msn_read.addr.eq(Cat(Mux(token, step, qn[:2]), qp)),
            msn_write.addr.eq(msn_read.addr),
            msn_write.data.eq(msn_read.data + 1),
            offset_read.addr.eq(qp),
            offset_write.addr.eq(qp),
            offset_write.data.eq(Mux(last, 0, next_offset)),
        ]
        room = ~o.valid | o.ready
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)

        with m.FSM():
            with m.State("IDLE"):        # a record
                m.d.comb += [msn_read.en.eq(1), offset_read.en.eq(1)]
                m.d.sync += [runt.eq(i.p.length < size), payload.eq(i.p.length - size), step.eq(0)]
                with m.If(i.valid):
                    with m.If(~token):
                        m.next = "COMPARE"
                    with m.Elif(i.p.token.op == TokenOp.INSTALL):
                        m.next = "INSTALL"
                    with m.Elif(i.p.token.op == TokenOp.UPLOAD):
                        m.next = "UPLOAD"
                    with m.Else():
                        m.next = "HAND_ON"
            with m.State("COMPARE"):     # nothing: the state of its QP has been read
                m.d.sync += [
                    bad_qn.eq(qn > LAST_QN),
                    bad_msn.eq(wire_field(i.p.header, 12, 4) != msn_read.data),
                    bad_mo.eq(Mux(qn == 0, mo != offset_read.data, mo != 0)),
                    next_offset.eq(offset_read.data + payload),
                ]
                m.next = "HAND_ON"
            with m.State("HAND_ON"):     # room in the output register
                with m.If(room):
                    m.d.comb += [
                        i.ready.eq(1),
                        msn_write.en.eq(~token & whole & ~tagged & last),
                        offset_write.en.eq(~token & whole & ~tagged & (qn == 0)),
                    ]
                    m.d.sync += [
                        o.valid.eq(1),
                        o.p.kind.eq(i.p.kind),
                        o.p.token.eq(i.p.token),
                        o.p.qp.eq(qp),
                        o.p.status.eq(i.p.status),
                        o.p.claimed.eq(i.p.claimed),
                        o.p.length.eq(i.p.length),
                        o.p.tagged.eq(tagged),
                        o.p.last.eq(last),
                        o.p.ulp.eq(i.p.header[24:32]),
                        o.p.stag.eq(wire_field(i.p.header, 4, 4)),
                        o.p.to.eq(wire_field(i.p.header, 8, 8)),
                        o.p.qn.eq(qn),
                        o.p.msn.eq(wire_field(i.p.header, 12, 4)),
                        o.p.mo.eq(mo),
                        o.p.payload.eq(Mux(runt, 0, payload)),
                        o.p.skip.eq(size + 2),
                        o.p.runt.eq(runt),
                        o.p.bad_version.eq(control[:2] != 1),
                        o.p.bad_qn.eq(~tagged & bad_qn),
                        o.p.bad_msn.eq(~tagged & bad_msn),
                        o.p.bad_mo.eq(~tagged & bad_mo),
                        o.p.header.eq(i.p.header),
                    ]
                    m.next = "IDLE"
            with m.State("INSTALL"):     # nothing: one counter a cycle
                m.d.comb += [
                    msn_write.en.eq(1), offset_write.en.eq(1), offset_write.data.eq(0),
                ]
                with m.Switch(step):
                    with m.Case(0):
                        m.d.comb += msn_write.data.eq(self.cmd.recv_msn)
                    with m.Case(1):
                        m.d.comb += msn_write.data.eq(self.cmd.recv_read_msn)
                    with m.Default():
                        m.d.comb += msn_write.data.eq(1)
                m.d.sync += step.eq(step + 1)
                with m.If(step == LAST_QN):
                    m.next = "HAND_ON"
            with m.State("UPLOAD"):      # nothing: QN 0 is being read
                m.d.comb += msn_read.en.eq(1)
                m.d.sync += step.eq(1)
                m.next = "UPLOAD_MSN"
            with m.State("UPLOAD_MSN"):
                m.d.comb += msn_read.en.eq(1)
                m.d.sync += self.upload.recv_msn.eq(msn_read.data)
                m.next = "UPLOAD_READ_MSN"
            with m.State("UPLOAD_READ_MSN"):
                m.d.sync += self.upload.recv_read_msn.eq(msn_read.data)
                m.next = "HAND_ON"
        return m
