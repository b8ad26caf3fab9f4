"""What the next ACK says: its fields, its checksums, and its SACK option as words."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import QpIndex
from .context import AckState, Block
from .template import AckMeta

__all__ = ["AckFields", "AckGather", "HEAD_LANES"]

#: 16-bit lanes in front of a SACK option, without and with Timestamps; two more behind a tag.
HEAD_LANES = (27, 33)


class AckFields(data.StructLayout):
    """One ACK, ready to be sent.

    Members
    -------
    qp : ``unsigned(qp_bits)``
    meta : ``AckMeta``
    state : ``AckState``
    tsval : ``unsigned(32)``
    number : ``unsigned(3)``
        SACK blocks, the D-SACK counted.
    ip_sum, tcp_sum : ``unsigned(20)``
        One's-complement sums, to be folded once more each.
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "meta": AckMeta(), "state": AckState(config), "tsval": 32, "number": 3,
                          "ip_sum": 20, "tcp_sum": 20})


class AckGather(wiring.Component):
    """Takes a QP that is due and works out its ACK, always from the newest state.

    The SACK option (RFC 2018 3; in front two NOPs, as usual) is laid out 16 bits a cycle into words of the frame,
    with zeros where what comes before it belongs. As many blocks as fit: 3 beside Timestamps, else 4.

    Throughput: an ACK every 8 cycles; with n blocks 9 + 5n more, after the last option's words have been read.
    Latency from ``due`` to ``o``: 7 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    due : ``In(stream.Signature(QpIndex(config)))``
    update, state : ``In(1)``, ``In(AckState(config))``
        As in :class:`~.acks.Acks`.
    meta_qp, meta : ``Out(qp_bits)``, ``In(AckMeta())``
        To the templates.
    look_qp, look_at, looked, block
        To :class:`~.blocks.SackBlocks`.
    now : ``In(32)``
    o : ``Out(stream.Signature(AckFields(config)))``
        Taken when the sending unit begins; holds for as long as ``copied`` hasn't come.
    copied : ``In(1)``
    option_busy : ``In(1)``
        Words of the option are still to be read.
    option_word, option : ``In(3)``, ``Out(64)``
        Low bits of a word's number in the frame; the word, 1 cycle later; holds while ``option_en`` is low.
    option_en : ``In(1)``
    busy, qp : ``Out(1)``, ``Out(qp_bits)``
        An ACK of ``qp`` is in the making.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "due":         In(stream.Signature(QpIndex(config))),
            "update":      In(1),
            "state":       In(AckState(config)),
            "meta_qp":     Out(config.qp_bits),
            "meta":        In(AckMeta()),
            "look_qp":     Out(config.qp_bits),
            "look_at":     Out(2),
            "looked":      In(1),
            "block":       In(Block()),
            "now":         In(32),
            "o":           Out(stream.Signature(AckFields(config))),
            "copied":      In(1),
            "option_busy": In(1),
            "option_en":   In(1),
            "option_word": In(3),
            "option":      Out(64),
            "busy":        Out(1),
            "qp":          Out(config.qp_bits),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.latest = latest = memory.Memory(shape=AckState(config), depth=config.qps, init=[])
        m.submodules.words = words = memory.Memory(shape=64, depth=8, init=[])
        latest_write, latest_read = latest.write_port(), latest.read_port()
        word_write, word_read = words.write_port(), words.read_port()
        o, qp = self.o.p, self.o.p.qp
        meta, said = o.meta, o.state
        m.d.comb += [
            latest_write.en.eq(self.update), latest_write.addr.eq(self.state.qp), latest_write.data.eq(self.state),
            latest_read.addr.eq(qp), self.meta_qp.eq(qp), self.qp.eq(qp), self.look_qp.eq(qp),
            word_read.addr.eq(self.option_word), word_read.en.eq(self.option_en), self.option.eq(word_read.data),
        ]

        number, most = Signal(3), Signal(3)      # blocks: those that there are, those that fit
        found = latest_read.data
        m.d.comb += [most.eq(Mux(self.meta.timestamps, 3, 4)), number.eq(found.blocks + found.duplicate)]

        sum_ack, sum_ts, sum_option = Signal(18), Signal(18), Signal(17)
        extra = Signal(16)               # what blocks and ECE add to the constant part of TCP's sum
        octets = Signal(6)               # of the SACK option
        m.d.comb += [
            octets.eq(Mux(o.number == 0, 0, 4 + (o.number << 3))),
            extra.eq((Mux(o.number == 0, 0, 2 * o.number + 1) << 12) + (said.ece << 6) + octets),
        ]

        # The option, lane by lane
        lane, push = Signal(16), Signal()
        word, fill, where = Signal(64), Signal(2), Signal(3)
        shifted, filled = Signal(64), Signal()
        block, part, done = Signal(64), Signal(2), Signal(3)
        fresh = Signal()                 # the next block is the D-SACK
        m.d.comb += [
            shifted.eq(Cat(word[16:], lane[8:], lane[:8])), filled.eq(push & (fill == 3)),
            word_write.addr.eq(where), word_write.data.eq(shifted), word_write.en.eq(filled),
            self.look_at.eq(said.newest + done - said.duplicate),
        ]
        with m.If(push):
            m.d.sync += [word.eq(shifted), fill.eq(fill + 1), where.eq(where + filled),
                         sum_option.eq(sum_option[:16] + sum_option[16] + lane)]

        with m.FSM(name="gather") as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("NEXT"))
            with m.State("NEXT"):        # for a QP that is due
                m.d.comb += self.due.ready.eq(1)
                m.d.sync += [qp.eq(self.due.p.qp), sum_option.eq(0), done.eq(0)]
                with m.If(self.due.valid):
                    m.next = "FETCH"
            with m.State("FETCH"):       # for the memories
                m.next = "GET"
            with m.State("GET"):
                m.d.sync += [meta.eq(self.meta), said.eq(found), o.number.eq(Mux(number > most, most, number)),
                             fresh.eq(found.duplicate)]
                m.next = "SUM"
                with m.If(number != 0):
                    m.next = "OPTION"
            with m.State("SUM"):         # the checksums in three stages
                m.d.sync += [o.tsval.eq(self.now + meta.ts_offset),
                             sum_ack.eq(meta.tcp_sum + said.rcv_nxt[:16] + said.rcv_nxt[16:])]
                m.next = "SUM_TS"
                with m.If(~meta.valid):  # removed while it was in the list
                    m.next = "NEXT"
            with m.State("SUM_TS"):
                with m.If(meta.timestamps):
                    m.d.sync += sum_ts.eq(Cat(o.tsval[:16], Const(0, 2)) + o.tsval[16:] + said.ts_recent[:16]
                                          + said.ts_recent[16:])
                with m.Else():
                    m.d.sync += sum_ts.eq(0)
                m.d.sync += [sum_ack.eq(sum_ack[:16] + sum_ack[16:] + extra), o.ip_sum.eq(meta.ip_sum + octets)]
                m.next = "TOTAL"
            with m.State("TOTAL"):
                m.d.sync += o.tcp_sum.eq(sum_ack + sum_ts + sum_option)
                m.next = "OFFER"
            with m.State("OFFER"):       # for the sending unit to be free
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "COPY"
            with m.State("COPY"):        # for it to have begun with the first word
                with m.If(self.copied):
                    m.next = "NEXT"

            # With blocks
            with m.State("OPTION"):      # for the last option's words to have been read
                start, tagged_start = Signal(6), Signal(6)
                m.d.comb += [start.eq(Mux(meta.timestamps, HEAD_LANES[1], HEAD_LANES[0])),
                             tagged_start.eq(start + (meta.vlan << 1))]
                m.d.sync += [where.eq(tagged_start[2:]), fill.eq(0), part.eq(tagged_start[:2])]
                with m.If(~self.option_busy):
                    m.next = "LEAD"
            with m.State("LEAD"):        # zeros for what the word begins with
                m.d.comb += push.eq(1)
                m.d.sync += part.eq(part - 1)
                with m.If(part == 1):
                    m.next = "KIND"
            with m.State("KIND"):        # NOP, NOP
                m.d.comb += [push.eq(1), lane.eq(0x0101)]
                m.next = "LENGTH"
            with m.State("LENGTH"):      # SACK, octets
                m.d.comb += [push.eq(1), lane.eq(0x0502 + (o.number << 3))]
                m.next = "LOOK"
            with m.State("LOOK"):        # for the block's turn at its memory
                m.d.sync += part.eq(0)
                with m.If(fresh):
                    m.d.sync += [block.eq(Cat(said.dsack.right, said.dsack.left)), fresh.eq(0), done.eq(done + 1)]
                    m.next = "BLOCK"
                with m.Elif(self.looked):
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.sync += [block.eq(Cat(self.block.right, self.block.left)), done.eq(done + 1)]
                m.next = "BLOCK"
            with m.State("BLOCK"):       # left edge, right edge
                m.d.comb += [push.eq(1), lane.eq(block[48:])]
                m.d.sync += [block.eq(block << 16), part.eq(part + 1)]
                with m.If(part == 3):
                    m.next = "LOOK"
                    with m.If(done == o.number):
                        m.next = "FILL"
            with m.State("FILL"):        # the last word up
                m.d.comb += push.eq(fill != 0)
                with m.If(fill == 0):
                    m.d.sync += sum_option.eq(sum_option[:16] + sum_option[16])
                    m.next = "SUM"
        return m
