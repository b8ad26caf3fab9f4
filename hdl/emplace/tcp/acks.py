"""Pure ACKs: who is due for one, and the frames."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import InstallCommand, QpIndex
from ..stream.packet import PacketSignature
from ..stream.queue import Queue
from .context import AckState, TemplateOrder
from .template import AckMeta, AckTemplates

__all__ = ["Acks"]


class Acks(wiring.Component):
    """Sends pure ACKs. A QP stands in the ready list at most once, so that ACKs merge while frames are held up.

    Two units: one gathers what the next ACK says, always the newest state, the other sends words. The frame is
    Ethernet (802.1Q), IPv4 (RFC 791) with DF and TCP (RFC 9293) with the Timestamps option in its usual form
    (RFC 7323 appendix A): 54, 58, 66 or 70 bytes.

    Throughput: an ACK every 9 cycles (its words) with timestamps, every 8 without; a word every cycle once a frame
    has begun, unless ``frames`` is not ready. Latency from ``update`` to the first word: 11 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    update : ``In(1)``
        Strobe: ``state`` is what ACKs of ``state.qp`` say from now on.
    state : ``In(AckState(config))``
    look, last_ack : ``In(qp_bits)``, ``Out(32)``
        Last.ACK.sent of the QP looked for 2 cycles ago (RFC 7323 4.3).
    order : ``In(stream.Signature(TemplateOrder(config)))``
        Template of ``cmd``; Last.ACK.sent becomes its RCV.NXT.
    cmd, now : as in :class:`~.layer.Tcp`
    frames : ``Out(PacketSignature(8))``
    sent : ``Out(1)``
        Strobe: an ACK is on its way.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "update":   In(1),
            "state":    In(AckState(config)),
            "look":     In(config.qp_bits),
            "last_ack": Out(32),
            "order":    In(stream.Signature(TemplateOrder(config))),
            "cmd":      In(InstallCommand),
            "now":      In(32),
            "frames":   Out(PacketSignature(8)),
            "sent":     Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.templates = templates = AckTemplates(config)
        m.submodules.ready = ready = Queue(QpIndex(config), config.qps)
        latest_shape = data.StructLayout({"rcv_nxt": 32, "ts_recent": 32})
        m.submodules.latest = latest = memory.Memory(shape=latest_shape, depth=config.qps, init=[])
        m.submodules.last = last = memory.Memory(shape=32, depth=config.qps, init=[])
        latest_write, latest_read = latest.write_port(), latest.read_port()
        last_write, last_read = last.write_port(), last.read_port()

        # Ready list. One word of it a QP at most, so that it never overflows.
        listed = Signal(config.qps)
        m.d.comb += [
            latest_write.en.eq(self.update), latest_write.addr.eq(self.state.qp),
            latest_write.data.rcv_nxt.eq(self.state.rcv_nxt), latest_write.data.ts_recent.eq(self.state.ts_recent),
            ready.i.p.qp.eq(self.state.qp),
            ready.i.valid.eq(self.update & self.state.due & ~listed.bit_select(self.state.qp, 1)),
        ]
        with m.If(ready.o.valid & ready.o.ready):
            m.d.sync += listed.bit_select(ready.o.p.qp, 1).eq(0)
        with m.If(ready.i.valid):
            m.d.sync += listed.bit_select(self.state.qp, 1).eq(1)

        # What the next ACK says
        qp, meta, said = Signal(config.qp_bits), Signal(AckMeta()), Signal(latest_shape)
        tsval = Signal(32)
        sum_ack, sum_ts, total = Signal(18), Signal(18), Signal(20)
        gathering, offered, copied = Signal(), Signal(), Signal()
        start = Signal()                 # the sending unit begins with this one
        m.d.comb += [templates.meta_qp.eq(qp), latest_read.addr.eq(qp)]
        with m.FSM(name="gather") as gather:
            m.d.comb += gathering.eq(~gather.ongoing("NEXT"))
            with m.State("NEXT"):        # for a QP that is due
                m.d.comb += ready.o.ready.eq(1)
                m.d.sync += qp.eq(ready.o.p.qp)
                with m.If(ready.o.valid):
                    m.next = "FETCH"
            with m.State("FETCH"):       # for the memories
                m.next = "GET"
            with m.State("GET"):
                m.d.sync += [meta.eq(templates.meta), said.eq(latest_read.data)]
                m.next = "SUM"
            with m.State("SUM"):         # TCP's checksum in three stages
                m.d.sync += [tsval.eq(self.now + meta.ts_offset),
                             sum_ack.eq(meta.sum + said.rcv_nxt[:16] + said.rcv_nxt[16:])]
                m.next = "SUM_TS"
                with m.If(~meta.valid):  # removed while it was in the list
                    m.next = "NEXT"
            with m.State("SUM_TS"):
                with m.If(meta.timestamps):
                    m.d.sync += sum_ts.eq(Cat(tsval[:16], Const(0, 2)) + tsval[16:] + said.ts_recent[:16]
                                          + said.ts_recent[16:])
                with m.Else():
                    m.d.sync += sum_ts.eq(0)
                m.next = "TOTAL"
            with m.State("TOTAL"):
                m.d.sync += total.eq(sum_ack + sum_ts)
                m.next = "OFFER"
            with m.State("OFFER"):       # for the sending unit to be free
                m.d.comb += offered.eq(1)
                with m.If(start):
                    m.next = "COPY"
            with m.State("COPY"):        # for it to have begun with the first word
                with m.If(copied):
                    m.next = "NEXT"

        # Words: A asks for one, B has it from memory, C is `frames`. All stand still while C does.
        go, ending = Signal(), Signal()
        a_valid, a_word, a_qp, a_last = Signal(), Signal(4), Signal(config.qp_bits), Signal(4)
        a_empty = Signal(3)
        b_valid, b_word, b_end, b_empty, b_vlan = Signal(), Signal(4), Signal(), Signal(3), Signal()
        b_ack, b_tsval, b_tsecr, b_sum = Signal(32), Signal(32), Signal(32), Signal(20)
        installing = Signal()            # Last.ACK.sent is being set by an order
        m.d.comb += [
            go.eq(~self.frames.valid | self.frames.ready),
            ending.eq(a_word == a_last),
            start.eq(offered & (~a_valid | (go & ending)) & ~installing),
            copied.eq(go & a_valid & (a_word == 0)),
            templates.image_en.eq(go), templates.image_qp.eq(a_qp), templates.image_word.eq(a_word),
            self.sent.eq(start),
        ]
        m.d.sync += b_sum.eq(b_sum[:16] + b_sum[16:])
        with m.If(go):
            m.d.sync += [a_word.eq(a_word + 1), b_valid.eq(a_valid), b_word.eq(a_word), b_end.eq(ending),
                         b_empty.eq(a_empty)]
            with m.If(ending):
                m.d.sync += a_valid.eq(0)
            with m.If(copied):
                m.d.sync += [b_ack.eq(said.rcv_nxt), b_tsval.eq(tsval), b_tsecr.eq(said.ts_recent), b_sum.eq(total),
                             b_vlan.eq(meta.vlan)]
        with m.If(start):
            m.d.sync += [a_valid.eq(1), a_word.eq(0), a_qp.eq(qp)]
            with m.Switch(Cat(meta.vlan, meta.timestamps)):
                for bits, nbytes in ((0, 54), (1, 58), (2, 66), (3, 70)):
                    with m.Case(bits):
                        m.d.sync += [a_last.eq((nbytes - 1) // 8), a_empty.eq(-nbytes % 8)]

        word = Signal(data.ArrayLayout(16, 4))
        m.d.comb += word.as_value().eq(templates.image)
        self._fill_in(m, word, b_word, b_vlan, b_ack, b_tsval, b_tsecr, b_sum)
        with m.If(go):
            m.d.sync += [self.frames.valid.eq(b_valid), self.frames.p.data.eq(word), self.frames.p.last.eq(b_end)]
            m.d.sync += self.frames.p.empty.eq(0)
            with m.If(b_end):
                m.d.sync += self.frames.p.empty.eq(b_empty)

        # Last.ACK.sent: written when an ACK leaves, and by an order
        m.d.comb += [
            templates.cmd.eq(self.cmd), templates.order.payload.eq(self.order.payload),
            templates.order.valid.eq(self.order.valid), self.order.ready.eq(templates.order.ready),
            installing.eq(self.order.valid & self.order.ready),
            last_write.en.eq(installing | start), last_write.addr.eq(qp), last_write.data.eq(said.rcv_nxt),
            last_read.addr.eq(self.look),
        ]
        with m.If(installing):
            m.d.comb += [last_write.addr.eq(self.order.p.qp), last_write.data.eq(self.cmd.rcv_nxt)]
        m.d.sync += self.last_ack.eq(last_read.data)

        # An image must not change under a frame: an order waits for those of its QP.
        m.d.comb += [
            templates.hold.eq((a_valid & (a_qp == self.order.p.qp)) | (gathering & (qp == self.order.p.qp))),
        ]
        return m

    def _fill_in(self, m, word, number, vlan, ack, tsval, tsecr, total):
        """Put what changes into 16-bit lanes 21.. of the frame, two later behind a tag."""
        def swap(value):
            return Cat(value[8:], value[:8])

        checksum = Signal(16)
        m.d.comb += checksum.eq(~total[:16])
        fields = {21: ack[16:], 22: ack[:16], 25: checksum, 29: tsval[16:], 30: tsval[:16], 31: tsecr[16:],
                  32: tsecr[:16]}
        with m.Switch(Cat(number, vlan)):
            for tagged in (0, 1):
                for index in range(5, 9):
                    lanes = {(n + 2 * tagged) % 4: value for n, value in fields.items()
                             if (n + 2 * tagged) // 4 == index}
                    with m.Case(16 * tagged + index):
                        m.d.comb += [word[lane].eq(swap(value)) for lane, value in lanes.items()]
