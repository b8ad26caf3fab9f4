"""ACKs as frames: a template's words, filled in."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .gather import AckFields

__all__ = ["AckWords"]

_ECE = 6


class AckWords(wiring.Component):
    """Sends an ACK: asks for a word of its template and its SACK option, has it, fills it in.

    Throughput: a word a cycle unless ``frames`` is not ready, and frames back to back. Latency: 3 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    i : ``In(stream.Signature(AckFields(config)))``
        Must hold on until ``copied``.
    hold : ``In(1)``
        None begins.
    copied : ``Out(1)``
    image_en, image_qp, image_word, image
        To :class:`~.template.AckTemplates`.
    option_busy, option_en, option_word, option
        To :class:`~.gather.AckGather`.
    busy, qp : ``Out(1)``, ``Out(qp_bits)``
        Words of ``qp``'s template are being read.
    frames : ``Out(PacketSignature(8))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i":           In(stream.Signature(AckFields(config))),
            "hold":        In(1),
            "copied":      Out(1),
            "image_en":    Out(1),
            "image_qp":    Out(config.qp_bits),
            "image_word":  Out(4),
            "image":       In(64),
            "option_busy": Out(1),
            "option_en":   Out(1),
            "option_word": Out(3),
            "option":      In(64),
            "busy":        Out(1),
            "qp":          Out(config.qp_bits),
            "frames":      Out(PacketSignature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        p, frames = self.i.payload, self.frames

        # A asks for a word, B has it from memory, C is `frames`. All stand still while C does.
        go, ending, start = Signal(), Signal(), Signal()
        a_valid, a_word, a_last, a_empty = Signal(), Signal(4), Signal(4), Signal(3)
        a_number, a_join, a_end = Signal(3), Signal(4), Signal(4)
        b_valid, b_word, b_last, b_empty, b_vlan = Signal(), Signal(4), Signal(), Signal(3), Signal()
        b_head, b_option = Signal(), Signal()    # the word has something of the template, of the option
        b_ack, b_tsval, b_tsecr, b_ip, b_tcp = Signal(32), Signal(32), Signal(32), Signal(20), Signal(20)
        b_total, b_flags = Signal(7), Signal(16)
        some = Signal()
        m.d.comb += [
            go.eq(~frames.valid | frames.ready), ending.eq(a_word == a_last),
            self.i.ready.eq((~a_valid | (go & ending)) & ~self.hold), start.eq(self.i.valid & self.i.ready),
            self.copied.eq(go & a_valid & (a_word == 0)),
            self.image_en.eq(go), self.image_qp.eq(self.qp), self.image_word.eq(a_word),
            self.option_en.eq(go), self.option_word.eq(a_word[:3]),
            self.option_busy.eq(a_valid & (a_number != 0)), self.busy.eq(a_valid),
            some.eq(p.number != 0),
        ]
        m.d.sync += [b_ip.eq(b_ip[:16] + b_ip[16:]), b_tcp.eq(b_tcp[:16] + b_tcp[16:])]
        with m.If(go):
            m.d.sync += [
                a_word.eq(a_word + 1), b_valid.eq(a_valid), b_word.eq(a_word), b_last.eq(ending), b_empty.eq(a_empty),
                b_head.eq(a_word <= a_end), b_option.eq((a_number != 0) & (a_word >= a_join)),
            ]
            with m.If(ending):
                m.d.sync += a_valid.eq(0)
            with m.If(self.copied):
                m.d.sync += [
                    b_ack.eq(p.state.rcv_nxt), b_tsval.eq(p.tsval & p.meta.timestamps.replicate(32)),
                    b_tsecr.eq(p.state.ts_recent), b_ip.eq(p.ip_sum), b_tcp.eq(p.tcp_sum), b_vlan.eq(p.meta.vlan),
                    b_total.eq(Mux(p.meta.timestamps, 52, 40) + Mux(some, 4 + (p.number << 3), 0)),
                    b_flags.eq(Cat(Const(0x10, 12), Mux(p.meta.timestamps, 8, 5) + Mux(some, 2 * p.number + 1, 0))
                               | (p.state.ece << _ECE)),
                ]
        with m.If(start):
            m.d.sync += [a_valid.eq(1), a_word.eq(0), self.qp.eq(p.qp), a_number.eq(p.number)]
            with m.Switch(Cat(p.meta.vlan, p.meta.timestamps)):
                for bits, nbytes in ((0, 54), (1, 58), (2, 66), (3, 70)):
                    with m.Case(bits):
                        end = (nbytes - 1) // 8
                        with_option = (nbytes + 3) // 8          # behind NOP NOP SACK length
                        m.d.sync += [
                            a_end.eq(end), a_join.eq(nbytes // 8),
                            a_last.eq(Mux(some, with_option + p.number, end)),
                            a_empty.eq(Mux(some, -(nbytes + 4) % 8, -nbytes % 8)),
                        ]

        word = Signal(data.ArrayLayout(16, 4))
        m.d.comb += word.as_value().eq(self.image & b_head.replicate(64))
        self._fill_in(m, word, Cat(b_word, b_vlan, b_head),
                      {8: b_total, 12: ~b_ip[:16], 21: b_ack[16:], 22: b_ack[:16], 23: b_flags, 25: ~b_tcp[:16],
                       29: b_tsval[16:], 30: b_tsval[:16], 31: b_tsecr[16:], 32: b_tsecr[:16]})
        with m.If(go):
            m.d.sync += [
                frames.valid.eq(b_valid), frames.p.last.eq(b_last), frames.p.empty.eq(0),
                frames.p.data.eq(word.as_value() | (self.option & b_option.replicate(64))),
            ]
            with m.If(b_last):
                m.d.sync += frames.p.empty.eq(b_empty)
        return m

    @staticmethod
    def _fill_in(m, word, number, fields):
        """Put what changes into the 16-bit lanes of a frame without tag, two later behind one."""
        values = {}
        for lane, value in fields.items():
            values[lane] = Signal(16, name=f"lane{lane}")
            m.d.comb += values[lane].eq(value)
        with m.Switch(number):
            for tagged in (0, 1):
                for index in sorted({(lane + 2 * tagged) // 4 for lane in values}):
                    with m.Case(0x20 | 16 * tagged | index):
                        m.d.comb += [word[(lane + 2 * tagged) % 4].eq(Cat(value[8:], value[:8]))
                                     for lane, value in values.items() if (lane + 2 * tagged) // 4 == index]
