"""MPA's receive part: TCP octets to ULPDUs."""

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..abi import QpFlags, counter_layout
from ..control.records import InstallCommand, Token, TokenOp, UploadPart
from ..ip.records import SlotWrite
from ..llp import UlpduPlan, UlpduRecord
from ..stream.packet import PacketSignature, connect_streams
from ..tcp.records import SlotIndex, SlotRead, WalkRequest, WalkResult
from .cutter import FpduCutter
from .framer import Framer
from .hold import HoldQueue
from .lease import LeaseWatch
from .reader import SlotReader
from .records import GateReply, GateRequest
from .walk import Walk

__all__ = ["Mpa"]


class Mpa(wiring.Component):
    """Walks the in-order octets of each stream, and delivers whole, checked ULPDUs (RFC 5044 sections 4 and 8).

    An FPDU whose end isn't there stays in its slot, which becomes the QP's unfinished slot, and is read when the rest
    has come; what is read twice is two words of it. Markers aren't supported (they are refused in the handshake).

    Throughput: one word a cycle, an FPDU of S octets in ``ceil(S / 8)`` cycles. Latency from a request to its first
    word: 4 cycles, and up to 2 more if the QP before was another; from the last word to the result: 3; to the packet:
    6. Slot memory must show an appended word to a read that comes 3 cycles after it was taken.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    walk : ``In(stream.Signature(WalkRequest(config)))``, walked : ``Out(stream.Signature(WalkResult()))``
        One request at a time. ``offset + length`` is at most ``slot_bytes``.
    slot_read : ``Out(SlotRead(config))``
    slot_append : ``Out(stream.Signature(SlotWrite(config)))``
        Into unfinished slots.
    slot_free : ``Out(stream.Signature(SlotIndex(config), always_ready=True))``
        Slots that were ``kept``.
    free_count : ``In(range(config.slots + 1))``
    gate_request : ``Out(stream.Signature(GateRequest(config)))``, gate_reply : ``In(stream.Signature(GateReply()))``
        Asked for each Send's first FPDU, once it is whole.
    ulpdus : ``Out(stream.Signature(UlpduRecord(config)))``, packets : ``Out(PacketSignature(8))``
        See :mod:`emplace.llp`.
    opened : ``Out({en, qp})``
        Strobe: a good FPDU of this stream has come.
    plans, payload, fpdus
        What is sent: see :class:`~.framer.Framer`.
    send_token, send_token_out : ``In``, ``Out(stream.Signature(Token(config)))``
    now, lease : ``In(32)``
        Ticks. While no more than ``slot_reserve`` slots are free, an unfinished FPDU older than ``lease`` ends its
        stream.
    cmd : ``In(InstallCommand)``
    upload : ``Out(UploadPart)``
        open_fpdu.
    count : ``Out(counter_layout("mpa"))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "walk":         In(stream.Signature(WalkRequest(config))),
            "walked":       Out(stream.Signature(WalkResult())),
            "slot_read":    Out(SlotRead(config)),
            "slot_append":  Out(stream.Signature(SlotWrite(config))),
            "slot_free":    Out(stream.Signature(SlotIndex(config), always_ready=True)),
            "free_count":   In(range(config.slots + 1)),
            "gate_request": Out(stream.Signature(GateRequest(config))),
            "gate_reply":   In(stream.Signature(GateReply())),
            "ulpdus":       Out(stream.Signature(UlpduRecord(config))),
            "packets":      Out(PacketSignature(8)),
            "opened":       Out(data.StructLayout({"en": 1, "qp": config.qp_bits})),
            "plans":        In(stream.Signature(UlpduPlan(config))),
            "payload":      In(PacketSignature(8)),
            "fpdus":        Out(PacketSignature(8)),
            "send_token":     In(stream.Signature(Token(config))),
            "send_token_out": Out(stream.Signature(Token(config))),
            "now":          In(32),
            "lease":        In(32),
            "cmd":          In(InstallCommand),
            "upload":       Out(UploadPart),
            "count":        Out(counter_layout("mpa")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.walk = walk = Walk(config)
        m.submodules.reader = reader = SlotReader(config)
        m.submodules.cutter = cutter = FpduCutter(config)
        m.submodules.hold = hold = HoldQueue(config)
        m.submodules.lease = lease = LeaseWatch(config)

        connect(m, flipped(self.walk), walk.walk)
        connect(m, walk.walked, flipped(self.walked))
        connect(m, walk.slot_append, flipped(self.slot_append))
        connect(m, walk.slot_free, flipped(self.slot_free))
        m.d.comb += [walk.free_count.eq(self.free_count), walk.cmd.eq(self.cmd), self.upload.eq(walk.upload)]

        connect(m, reader.read, flipped(self.slot_read))
        m.d.comb += [
            reader.start.eq(walk.read_start), reader.pieces.eq(walk.read_pieces), reader.flush.eq(walk.read_flush),
            # What is read is cut, or appended.
            cutter.words.payload.eq(reader.o.payload), cutter.words.valid.eq(reader.o.valid & walk.cutting),
            walk.words.payload.eq(reader.o.payload), walk.words.valid.eq(reader.o.valid),
            reader.o.ready.eq(cutter.words.ready | walk.words.ready),
        ]
        m.d.comb += [
            cutter.start.eq(walk.cut_start), cutter.total.eq(walk.total), cutter.qp.eq(walk.qp),
            cutter.crc.eq(walk.crc), cutter.joined.eq(walk.joined),
            *(getattr(walk, name).eq(getattr(cutter, name))
              for name in ("finished", "outcome", "left", "size", "some", "length")),
        ]
        connect(m, cutter.gate_request, flipped(self.gate_request))
        connect(m, flipped(self.gate_reply), cutter.gate_reply)

        connect(m, cutter.verdict, hold.verdict)
        connect(m, walk.notice, hold.notice)
        m.d.comb += [
            cutter.room.eq(hold.room), cutter.record_room.eq(hold.verdict.ready), hold.write.eq(cutter.write),
            hold.commit.eq(cutter.commit), hold.rollback.eq(cutter.rollback), hold.header.eq(cutter.header),
        ]
        connect(m, hold.packets, flipped(self.packets))
        connect(m, hold.ulpdus, flipped(self.ulpdus))

        m.d.comb += [
            lease.now.eq(self.now), lease.lease.eq(self.lease),
            # At rest one slot less is in use than while a segment is walked: no more can become unfinished.
            lease.pressure.eq(self.free_count <= config.slot_reserve + 1),
            lease.change.eq(walk.change), lease.qp.eq(walk.qp), lease.begin.eq(walk.begin),
        ]
        connect(m, lease.expired, walk.expired)

        # What is sent
        m.submodules.framer = framer = Framer(config)
        connect(m, flipped(self.plans), framer.plans)
        connect(m, flipped(self.payload), framer.payload)
        connect(m, framer.o, flipped(self.fpdus))
        connect_streams(m, self.send_token, self.send_token_out)
        token = self.send_token.p
        with m.If(self.send_token.valid & (token.op == TokenOp.INSTALL)):
            m.d.sync += framer.crc.bit_select(token.qp, 1).eq((self.cmd.flags & QpFlags.CRC).any())
        m.d.comb += [self.opened.en.eq(cutter.commit), self.opened.qp.eq(walk.qp)]

        m.d.comb += [
            self.count.rx_fpdus.eq(cutter.fpdus), self.count.rx_fpdus_split.eq(cutter.fpdus_split),
            self.count.rx_appended.eq(walk.appended), self.count.rx_parked.eq(walk.parked),
            self.count.rx_unfinished.eq(walk.unfinished),
        ]
        return m
