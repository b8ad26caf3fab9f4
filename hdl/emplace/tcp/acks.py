"""Pure ACKs: who is due for one, what it says, and the frames."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import InstallCommand
from ..stream.packet import PacketSignature, connect_streams
from .context import AckState, Block, TemplateOrder
from .due import DueList
from .gather import AckGather
from .template import AckTemplates
from .words import AckWords

__all__ = ["Acks"]


class Acks(wiring.Component):
    """Sends pure ACKs, at once or delayed; those of a QP merge while frames are held up.

    One unit knows who is due (:mod:`.due`), one gathers what the next ACK says, always the newest state
    (:mod:`.gather`), one sends words (:mod:`.words`). The frame is Ethernet (802.1Q), IPv4 (RFC 791) with DF and TCP
    (RFC 9293) with the Timestamps option in its usual form (RFC 7323 appendix A), and SACK blocks behind it (RFC 2018,
    RFC 2883): 54, 58, 66 or 70 bytes, and 4 + 8n more with n blocks.

    Throughput: an ACK every 9 cycles (its words) with timestamps, every 8 without, 9 + 5n and its words more with n
    blocks; a word every cycle once a frame has begun, unless ``frames`` is not ready. Latency from ``update`` to the
    first word: 11 cycles.

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
    block_qp, block_at, block_there, block
        To :class:`~.blocks.SackBlocks`.
    delay : ``In(11)``
        Of delayed ACKs, in ticks.
    cmd, now : as in :class:`~.layer.Tcp`
    frames : ``Out(PacketSignature(8))``
    sent, sacks, dsacks : ``Out(1)``
        Strobe: an ACK is on its way; it has blocks; the first one is a duplicate.
    overdue : ``Out(1)``
        Strobe: a delay was over.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "update":      In(1),
            "state":       In(AckState(config)),
            "look":        In(config.qp_bits),
            "last_ack":    Out(32),
            "order":       In(stream.Signature(TemplateOrder(config))),
            "block_qp":    Out(config.qp_bits),
            "block_at":    Out(2),
            "block_there": In(1),
            "block":       In(Block()),
            "delay":       In(11),
            "cmd":         In(InstallCommand),
            "now":         In(32),
            "frames":      Out(PacketSignature(8)),
            "sent":        Out(1),
            "sacks":       Out(1),
            "dsacks":      Out(1),
            "overdue":     Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, state = self.config, self.state
        m.submodules.due = due = DueList(config)
        m.submodules.templates = templates = AckTemplates(config)
        m.submodules.gather = gather = AckGather(config)
        m.submodules.words = words = AckWords(config)
        m.submodules.last = last = memory.Memory(shape=32, depth=config.qps, init=[])
        last_write, last_read = last.write_port(), last.read_port()

        connect_streams(m, due.o, gather.due)
        connect_streams(m, gather.o, words.i)
        connect_streams(m, words.frames, self.frames)
        installing = Signal()            # Last.ACK.sent is being set by an order
        m.d.comb += [
            installing.eq(self.order.valid & self.order.ready),
            due.update.eq(self.update), due.qp.eq(state.qp), due.rcv_nxt.eq(state.rcv_nxt), due.due.eq(state.due),
            due.late.eq(state.late), due.delay.eq(self.delay), due.now.eq(self.now),
            due.frozen.eq(self.order.valid), due.frozen_qp.eq(self.order.p.qp),
            due.said.eq(last_write.en), due.said_qp.eq(last_write.addr), due.said_nxt.eq(last_write.data),
            gather.update.eq(self.update), gather.state.eq(state), gather.now.eq(self.now),
            gather.copied.eq(words.copied), gather.option_busy.eq(words.option_busy),
            gather.option_en.eq(words.option_en), gather.option_word.eq(words.option_word),
            words.option.eq(gather.option), words.hold.eq(installing),
            templates.meta_qp.eq(gather.meta_qp), gather.meta.eq(templates.meta),
            templates.image_en.eq(words.image_en), templates.image_qp.eq(words.image_qp),
            templates.image_word.eq(words.image_word), words.image.eq(templates.image),
            self.block_qp.eq(gather.look_qp), self.block_at.eq(gather.look_at), gather.looked.eq(self.block_there),
            gather.block.eq(self.block),
            self.sent.eq(gather.o.valid & gather.o.ready), self.sacks.eq(self.sent & (gather.o.p.number != 0)),
            self.dsacks.eq(self.sent & gather.o.p.state.duplicate), self.overdue.eq(due.overdue),
        ]

        # Last.ACK.sent: written when an ACK leaves, and by an order
        m.d.comb += [
            templates.cmd.eq(self.cmd), templates.order.payload.eq(self.order.payload),
            templates.order.valid.eq(self.order.valid), self.order.ready.eq(templates.order.ready),
            last_write.en.eq(installing | self.sent), last_write.addr.eq(gather.qp),
            last_write.data.eq(gather.o.p.state.rcv_nxt), last_read.addr.eq(self.look),
        ]
        with m.If(installing):
            m.d.comb += [last_write.addr.eq(self.order.p.qp),
                         last_write.data.eq(Mux(self.order.p.remove, 0, self.cmd.rcv_nxt))]
        m.d.sync += self.last_ack.eq(last_read.data)

        # An image must not change under a frame: an order waits for those of its QP.
        m.d.comb += templates.hold.eq((words.busy & (words.qp == self.order.p.qp))
                                      | (gather.busy & (gather.qp == self.order.p.qp)))
        return m
