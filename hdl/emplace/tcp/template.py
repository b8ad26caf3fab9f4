"""Headers of pure ACKs: made when a connection is installed, so that an ACK only fills in what changes."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import InstallCommand
from .context import TemplateOrder

__all__ = ["AckMeta", "AckTemplates"]


class AckMeta(data.StructLayout):
    """What an ACK of one connection needs besides its image.

    Members
    -------
    valid : ``unsigned(1)``
    timestamps, vlan : ``unsigned(1)``
        The frame has a Timestamps option, an 802.1Q tag.
    ip_sum : ``unsigned(16)``
        One's-complement sum of the IP header.
    tcp_sum : ``unsigned(16)``
        One's-complement sum of the pseudo header and of TCP's constant fields.
    ts_offset : ``unsigned(32)``
    """

    def __init__(self):
        super().__init__({"valid": 1, "timestamps": 1, "vlan": 1, "ip_sum": 16, "tcp_sum": 16, "ts_offset": 32})


class AckTemplates(wiring.Component):
    """A frame image per QP, 64-bit words as sent, with 0 where acknowledgment, timestamps and checksums belong.

    The image is made from ``cmd``, 16 bits every 2 cycles. Checksums are linear in the fields that change, so their
    constant parts are summed here once (RFC 1071 2). Length and flags are as without a SACK option.

    Throughput: an order takes about 90 cycles, a removal 2. Reads: one a cycle, latency 1 cycle.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    order : ``In(stream.Signature(TemplateOrder(config)))``
        Taken when it has been carried out; ``cmd`` stands still until then.
    hold : ``In(1)``
        The image of ``order.p.qp`` is in use: an installation waits.
    cmd : ``In(InstallCommand)``
    meta_qp, meta : ``In(qp_bits)``, ``Out(AckMeta())``
    image_en, image_qp, image_word : ``In(1)``, ``In(qp_bits)``, ``In(4)``
    image : ``Out(64)``
        Holds while ``image_en`` is low.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "order":      In(stream.Signature(TemplateOrder(config))),
            "hold":       In(1),
            "cmd":        In(InstallCommand),
            "meta_qp":    In(config.qp_bits),
            "meta":       Out(AckMeta()),
            "image_en":   In(1),
            "image_qp":   In(config.qp_bits),
            "image_word": In(4),
            "image":      Out(64),
        })

    def _lanes(self, window):
        """The frame in 16-bit lanes: (value, part of the IP header, part of the TCP sum, present)."""
        cmd = self.cmd
        vlan = (cmd.flags & abi.QpFlags.VLAN.value) != 0
        timestamps = (cmd.flags & abi.QpFlags.TIMESTAMPS.value) != 0
        parts = {name: [cmd[name][at:at + 16] for at in reversed(range(0, len(cmd[name]), 16))]
                 for name in ("remote_mac", "local_mac", "local_ip", "remote_ip", "snd_nxt")}
        lanes = [(v, 0, 0, 1) for v in parts["remote_mac"] + parts["local_mac"]]
        lanes += [(Const(0x8100, 16), 0, 0, vlan), (cmd.vlan_tci, 0, 0, vlan), (Const(0x0800, 16), 0, 0, 1)]
        lanes += [(v, 1, 0, 1) for v in (
            Cat(cmd.tos, Const(0x45, 8)), Mux(timestamps, 52, 40), Const(0, 16), Const(0x4000, 16),
            Cat(Const(6, 8), cmd.ttl), Const(0, 16))]
        lanes += [(v, 1, 1, 1) for v in parts["local_ip"] + parts["remote_ip"]]
        lanes += [(v, 0, 1, 1) for v in (
            cmd.local_port, cmd.remote_port, *parts["snd_nxt"], Const(0, 16), Const(0, 16),
            Mux(timestamps, 0x8010, 0x5010), window, Const(0, 16), Const(0, 16))]
        lanes += [(v, 0, 1, timestamps) for v in (
            Const(0x0101, 16), Const(0x080A, 16), Const(0, 16), Const(0, 16), Const(0, 16), Const(0, 16))]
        return lanes

    def elaborate(self, platform):
        m = Module()
        config, cmd = self.config, self.cmd
        m.submodules.images = images = memory.Memory(shape=64, depth=16 * config.qps, init=[])
        m.submodules.metas = metas = memory.Memory(shape=AckMeta(), depth=config.qps, init=[])
        image_write, image_read = images.write_port(), images.read_port()
        meta_write, meta_read = metas.write_port(), metas.read_port()
        m.d.comb += [
            image_read.en.eq(self.image_en), image_read.addr.eq(Cat(self.image_word, self.image_qp)),
            self.image.eq(image_read.data),
            meta_read.addr.eq(self.meta_qp), self.meta.eq(meta_read.data),
        ]

        window, shifts = Signal(32), Signal(4)
        clamped = Signal(16)
        sums = [Signal(17, name="ip_sum"), Signal(17, name="tcp_sum")]
        lanes = self._lanes(clamped)
        index, ended = Signal(range(len(lanes) + 1)), Signal()
        lane_shape = data.StructLayout({"value": 16, "in_ip": 1, "in_tcp": 1, "present": 1})
        chosen, lane = Signal(lane_shape), Signal(lane_shape)
        timestamps, vlan = Signal(), Signal()
        m.d.comb += [
            clamped.eq(Mux(window[16:].any(), 0xFFFF, window[:16])),
            timestamps.eq((cmd.flags & abi.QpFlags.TIMESTAMPS.value) != 0),
            vlan.eq((cmd.flags & abi.QpFlags.VLAN.value) != 0),
        ]
        with m.Switch(index):
            for n, (value, in_ip, in_tcp, present) in enumerate(lanes):
                with m.Case(n):
                    m.d.comb += [chosen.in_ip.eq(in_ip), chosen.in_tcp.eq(in_tcp), chosen.present.eq(present)]
                    m.d.comb += chosen.value.eq(value)

        word, fill, where = Signal(64), Signal(2), Signal(4)
        filled, shifted = Signal(), Signal(64)
        m.d.comb += [
            ended.eq(index == len(lanes)),
            shifted.eq(Cat(word[16:], lane.value[8:], lane.value[:8])),
            filled.eq(fill == 3),
            image_write.addr.eq(Cat(where, self.order.p.qp)), image_write.data.eq(shifted),
            meta_write.addr.eq(self.order.p.qp),
            meta_write.data.timestamps.eq(timestamps), meta_write.data.vlan.eq(vlan),
            meta_write.data.ip_sum.eq(sums[0][:16]), meta_write.data.tcp_sum.eq(sums[1][:16]),
            meta_write.data.ts_offset.eq(cmd.ts_offset),
            meta_write.data.valid.eq(~self.order.p.remove),
        ]

        with m.FSM():
            with m.State("IDLE"):        # for an order
                m.d.sync += [
                    window.eq(cmd.rcv_wnd), shifts.eq(cmd.rcv_wscale), index.eq(0), fill.eq(0), where.eq(0),
                    sums[0].eq(0), sums[1].eq(Mux(timestamps, 32 + 6, 20 + 6)),
                ]
                with m.If(self.order.valid):
                    with m.If(self.order.p.remove):
                        m.next = "META"
                    with m.Elif(~self.hold):
                        m.next = "SCALE"
            with m.State("SCALE"):       # shifts the window, a bit a cycle
                m.d.sync += [window.eq(window >> 1), shifts.eq(shifts - 1)]
                with m.If(shifts == 0):
                    m.d.sync += window.eq(window)
                    m.next = "PICK"
            with m.State("PICK"):        # for the next lane; the sums' carries come round
                m.d.sync += [lane.eq(chosen), *(total.eq(total[:16] + total[16]) for total in sums)]
                m.next = "USE"
            with m.State("USE"):         # both sums; four lanes a word, the last one filled up
                m.next = "PICK"
                with m.If(~ended):
                    m.d.sync += index.eq(index + 1)
                with m.If(lane.present | ended):
                    m.d.comb += image_write.en.eq(filled)
                    m.d.sync += [word.eq(shifted), fill.eq(fill + 1), where.eq(where + filled),
                                 *(total.eq(total[:16] + Mux(part, lane.value, 0))
                                   for total, part in zip(sums, (lane.in_ip, lane.in_tcp), strict=True))]
                    with m.If(ended & filled):
                        m.next = "META"
            with m.State("META"):        # makes it valid, or invalid
                m.d.comb += [meta_write.en.eq(1), self.order.ready.eq(1)]
                m.next = "IDLE"
        return m
