"""Send WQEs on the card: fetched in groups, shared by all QPs."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import InstallCommand, QpIndex
from ..dma.records import ReadClient, ReadRequest, ReadWord
from ..stream.flags import FlagSet
from ..stream.queue import Queue
from ..stream.scrub import scrub
from .doorbells import OwnerEntry
from .records import SEND_WQE_WORDS, LineOutcome, LineWord, SendOrderOp, SendQueueOrder, SendWqeAnswer, SendWqeAsk
from .ring import RingAddress

__all__ = ["WqeLines", "AHEAD", "PATIENCE"]

#: Groups fetched ahead of the one that was asked for last.
AHEAD = 3
#: Questions that unused lines outlast.
PATIENCE = 256


class WqeLines(wiring.Component):
    """A cache of send queues' entries. A line holds one group: those that one bus read brings, or as many as were posted.
    A send queue has a group's entries at least.

    A WQE that isn't here is fetched, and the asker told LATER; so are the next ``AHEAD`` groups of the QP that asked
    last, while nobody asks. A pinned line stays, and so does one that nobody has used since it came: else many QPs could
    take the lines from each other before they are used; unless ``PATIENCE`` questions found no line to take, for who had
    it fetched may have come to an end. A WQE is read again as often as it is asked for: the host leaves it alone until it
    is complete, so that a retransmission finds it.

    Throughput: an answer every 6 cycles. Latency: 5 cycles to the answer, 7 to the read of a fetch. ``data``: 1 cycle.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    ask : ``In(stream.Signature(SendWqeAsk(config)))``, answer : ``Out(stream.Signature(SendWqeAnswer(config)))``
    ready : ``Out(stream.Signature(QpIndex(config)))``
        It may be worth asking for this QP (again).
    unpin : ``In({en, line}).array(2)``
        Strobe: one of ``line``'s pins is no more.
    at : ``In(LineWord(config)).array(2)``, data : ``Out(64).array(2)``
    reads, read_data
        Of the bus.
    order : ``In(stream.Signature(SendQueueOrder(config)))``
        Taken when it has been carried out.
    retired : ``In({en, index, value: 16})``
        Strobe: WQEs of QP ``index`` may be posted up to ``value``, for those before it are complete.
    rung : ``In({en, index})``, owner, limit, look, latest
        To the :class:`~emplace.queues.doorbells.DoorbellTable`.
    cmd : ``In(InstallCommand)``
    """

    def __init__(self, config):
        self.config = config
        qp, line = config.qp_bits, config.send_line_bits
        super().__init__({
            "ask":       In(stream.Signature(SendWqeAsk(config))),
            "answer":    Out(stream.Signature(SendWqeAnswer(config))),
            "ready":     Out(stream.Signature(QpIndex(config))),
            "unpin":     In(data.StructLayout({"en": 1, "line": line})).array(2),
            "at":        In(LineWord(config)).array(2),
            "data":      Out(64).array(2),
            "reads":     Out(stream.Signature(ReadRequest(config))),
            "read_data": In(stream.Signature(ReadWord())),
            "order":     In(stream.Signature(SendQueueOrder(config))),
            "retired":   In(data.StructLayout({"en": 1, "index": qp, "value": 16})),
            "rung":      In(data.StructLayout({"en": 1, "index": qp})),
            "owner":     Out(data.StructLayout({"en": 1, "index": qp, "entry": OwnerEntry})),
            "limit":     Out(data.StructLayout({"en": 1, "index": qp, "value": 16})),
            "look":      Out(qp),
            "latest":    In(data.StructLayout({"flip": 1, "value": 16})),
            "cmd":       In(InstallCommand),
        })

    def elaborate(self, platform):
        m = Module()
        config, cmd = self.config, self.cmd
        lines, group_bits = config.send_lines, config.send_group_bits
        group_size = 1 << group_bits

        Setup = data.StructLayout({"base": 52, "log2": 4, "flip": 1})
        m.submodules.setups = setups = memory.Memory(shape=Setup, depth=config.qps, init=[])
        setup_write, setup_read = setups.write_port(), setups.read_port()
        m.submodules.flags = flags = FlagSet(config.qps, setters=3)
        m.submodules.address = address = RingAddress(entry_log2=6)
        m.d.comb += [
            self.ready.p.qp.eq(flags.o.payload), self.ready.valid.eq(flags.o.valid), flags.o.ready.eq(self.ready.ready),
            flags.set[0].eq(self.rung),
        ]

        # Lines
        Tag = data.StructLayout({"qp": config.qp_bits, "group": 16 - group_bits})
        tags = [Signal(Tag, name=f"tag_{n}") for n in range(lines)]
        counts = [Signal(range(group_size + 1), name=f"count_{n}") for n in range(lines)]     # WQEs of the group
        pins = [Signal(4, name=f"pins_{n}") for n in range(lines)]
        valid, filling, failed = Signal(lines), Signal(lines), Signal(lines)
        unused, refused = Signal(lines), Signal(range(PATIENCE))
        m.submodules.words = words = memory.Memory(shape=64, depth=lines * group_size * SEND_WQE_WORDS, init=[])
        word_write = words.write_port()
        for n in range(2):
            port = words.read_port()
            m.d.comb += [port.addr.eq(Cat(self.at[n].word, self.at[n].line)), self.data[n].eq(port.data)]

        # The question at hand: somebody's, or our own about what comes next.
        qp, index, own, order = Signal(config.qp_bits), Signal(16), Signal(), Signal()
        last_qp, last_index, ahead = Signal(config.qp_bits), Signal(16), Signal(range(AHEAD + 1))
        group, place = Signal(16 - group_bits), Signal(group_bits)
        posted, setup = Signal(16), Signal(Setup)
        there = Signal(16)               # WQEs posted from the group's first on
        hits, evictable, mine = Signal(lines), Signal(lines), Signal(lines)
        m.d.comb += [group.eq(index[group_bits:]), place.eq(index[:group_bits])]
        for n in range(lines):
            m.d.comb += [
                mine[n].eq(tags[n].qp == qp), hits[n].eq(valid[n] & mine[n] & (tags[n].group == group)),
                # What comes next may not push out what is asked for now, nor each other.
                evictable[n].eq((pins[n] == 0) & ~filling[n] & ~(valid[n] & unused[n] & ~hits[n]) & ~(
                    own & valid[n] & mine[n] & ~(tags[n].group - last_index[group_bits:])[-1])),
            ]
        hit, hit_line, enough, pair, busy = Signal(), Signal(config.send_line_bits), Signal(), Signal(), Signal()
        next_line, victim = Signal(config.send_line_bits), Signal(config.send_line_bits)
        turned = Signal(lines)
        m.d.comb += [
            hit.eq(hits.any()), busy.eq((hits & filling).any()),
            turned.eq(Cat(evictable, evictable) >> next_line),
        ]
        for n in reversed(range(lines)):
            with m.If(hits[n]):
                m.d.comb += [hit_line.eq(n), enough.eq(place < counts[n]), pair.eq((place | 1) < counts[n])]
            with m.If(turned[n]):
                m.d.comb += victim.eq(next_line + n)

        # Fetches under way, in the order in which their words come.
        m.submodules.flights = flights = Queue(config.send_line_bits, lines)
        line, want = Signal(config.send_line_bits), Signal(range(group_size + 1))
        stale = Signal(lines)            # its QP is no more
        outcome = Signal(LineOutcome)
        again = Signal()                 # the QP is named on `ready` at once
        m.d.comb += [
            setup_read.addr.eq(qp), self.look.eq(qp),
            address.base.eq(setup.base), address.log2.eq(setup.log2), address.index.eq(Cat(Const(0, group_bits), group)),
            self.reads.p.client.eq(ReadClient.SEND), self.reads.p.address.eq(address.address),
            self.reads.p.length.eq(want << 6),
            self.answer.p.outcome.eq(outcome), self.answer.p.line.eq(hit_line), self.answer.p.pair.eq(pair),
            self.answer.p.posted.eq(posted),
            setup_write.addr.eq(qp), setup_write.data.base.eq(cmd.sq_base[12:]), setup_write.data.log2.eq(cmd.sq_log2),
            setup_write.data.flip.eq(~self.latest.flip),
            self.owner.index.eq(qp), self.owner.entry.number.eq(cmd.qpn), self.owner.entry.context.eq(cmd.context),
            self.owner.entry.flip.eq(~self.latest.flip), self.limit.eq(self.retired),
            flags.set[1].index.eq(qp), flights.i.p.eq(line),
        ]
        ask, orders = self.ask, self.order
        with m.FSM(name="lines"):
            with m.State("IDLE"):        # for an order, a question, or something to fetch ahead
                m.d.sync += [own.eq(0), order.eq(0)]
                with m.If(orders.valid):
                    m.d.sync += [qp.eq(orders.p.qp), order.eq(1), ahead.eq(0)]
                    m.next = "LOOK"
                with m.Elif(ask.valid):
                    m.d.comb += ask.ready.eq(1)
                    m.d.sync += [
                        qp.eq(ask.p.qp), index.eq(ask.p.index), last_qp.eq(ask.p.qp), last_index.eq(ask.p.index),
                        ahead.eq(AHEAD),
                    ]
                    m.next = "LOOK"
                with m.Elif(ahead != 0):
                    m.d.sync += [
                        qp.eq(last_qp), own.eq(1), ahead.eq(ahead - 1),
                        index.eq(Cat(Const(0, group_bits), (last_index[group_bits:] + (AHEAD + 1) - ahead)[:16 - group_bits])),
                    ]
                    m.next = "LOOK"
            with m.State("LOOK"):        # for the memories
                m.next = "LOOKED"
            with m.State("LOOKED"):
                m.d.sync += [
                    setup.eq(setup_read.data), posted.eq(Mux(self.latest.flip == setup_read.data.flip, self.latest.value, 0)),
                ]
                m.next = "COUNT"
                with m.If(order & self.retired.en):        # its port is in use
                    m.next = "LOOKED"
                with m.Elif(order):
                    m.d.comb += [
                        orders.ready.eq(1), setup_write.en.eq(orders.p.op == SendOrderOp.INSTALL), self.owner.en.eq(1),
                        self.owner.entry.valid.eq(orders.p.op == SendOrderOp.INSTALL), self.limit.en.eq(1),
                        self.limit.index.eq(qp), self.limit.value.eq(Mux(cmd.sq_log2 == 0, 0, 1 << cmd.sq_log2[:4])),
                    ]
                    m.d.sync += [valid.eq(valid & ~mine), stale.eq(stale | mine)]
                    m.next = "IDLE"
            with m.State("COUNT"):
                m.d.sync += [there.eq(posted - Cat(Const(0, group_bits), group)), line.eq(Mux(hit, hit_line, victim))]
                m.next = "JUDGE"
            with m.State("JUDGE"):
                missing = Signal()       # it can be fetched now
                usable = Signal()        # what there is may be thrown away
                m.d.comb += [
                    usable.eq(evictable.bit_select(line, 1)),
                    missing.eq(usable & flights.i.ready & (there != 0) & ~there[15]),
                ]
                m.d.sync += want.eq(Mux(there >= group_size, group_size, there[:group_bits + 1]))
                m.next = "ANSWER"
                with m.If(own):
                    m.next = "IDLE"
                    with m.If(missing & (~hit | (~enough & ~busy))):
                        m.next = "ADDRESS"
                with m.Elif(index == posted):
                    m.d.sync += outcome.eq(LineOutcome.EMPTY)
                with m.Elif(hit & busy):
                    m.d.sync += outcome.eq(LineOutcome.LATER)
                with m.Elif((hits & failed).any()):
                    m.d.sync += [outcome.eq(LineOutcome.FAILED), valid.eq(valid & ~hits)]
                with m.Elif(hit & enough):
                    m.d.sync += outcome.eq(LineOutcome.HERE)
                with m.Else():
                    m.d.sync += outcome.eq(LineOutcome.LATER)
                    m.d.comb += again.eq(~missing)
                    with m.If(missing):
                        m.next = "ADDRESS"
            with m.State("ADDRESS"):     # for its second stage
                m.next = "FETCH"
            with m.State("FETCH"):       # for dma
                m.d.comb += self.reads.valid.eq(1)
                with m.If(self.reads.ready):
                    m.d.comb += flights.i.valid.eq(1)
                    for n in range(lines):
                        with m.If(line == n):
                            m.d.sync += [tags[n].qp.eq(qp), tags[n].group.eq(group), counts[n].eq(want)]
                    m.d.sync += [
                        valid.bit_select(line, 1).eq(1), filling.bit_select(line, 1).eq(1),
                        failed.bit_select(line, 1).eq(0), stale.bit_select(line, 1).eq(0), next_line.eq(line + 1),
                        unused.bit_select(line, 1).eq(~own), refused.eq(0),
                    ]
                    m.next = "ANSWER"
                    with m.If(own):
                        m.next = "IDLE"
            with m.State("ANSWER"):      # for its taker
                m.d.comb += self.answer.valid.eq(1)
                with m.If(self.answer.ready):
                    m.next = "IDLE"
        m.d.comb += flags.set[1].en.eq(again)
        with m.If(again):
            m.d.sync += refused.eq(refused + 1)
            with m.If(refused == PATIENCE - 1):
                m.d.sync += unused.eq(0)

        # Pins
        taken = Signal(lines)
        m.d.comb += taken.eq((self.answer.valid & self.answer.ready & (outcome == LineOutcome.HERE)) << hit_line)
        with m.If(taken.any()):
            m.d.sync += unused.eq(unused & ~taken)
        for n in range(lines):
            gone = [Signal(name=f"unpin_{n}_{k}") for k in range(2)]
            m.d.comb += [bit.eq(port.en & (port.line == n)) for bit, port in zip(gone, self.unpin, strict=True)]
            m.d.sync += pins[n].eq(pins[n] + taken[n] - gone[0] - gone[1])

        # Words come.
        count = Signal(group_bits + 4)
        into, expected, end = Signal(config.send_line_bits), Signal(group_bits + 4), Signal()
        o = self.read_data
        m.d.comb += [into.eq(flights.o.p), o.ready.eq(flights.o.valid), end.eq(o.valid & o.ready & o.p.last)]
        for n in range(lines):
            with m.If(into == n):
                m.d.comb += [expected.eq(counts[n] << 3), flags.set[2].index.eq(tags[n].qp)]
        m.d.comb += [
            word_write.addr.eq(Cat(count[:group_bits + 3], into)), word_write.data.eq(o.p.data),
            word_write.en.eq(o.valid & o.ready & (count != expected)), flights.o.ready.eq(end), flags.set[2].en.eq(end),
        ]
        with m.If(o.valid & o.ready):
            m.d.sync += count.eq(Mux(o.p.last, 0, count + (count != expected)))
        with m.If(end):
            m.d.sync += [
                filling.bit_select(into, 1).eq(0),
                failed.bit_select(into, 1).eq(o.p.err | (count + 1 != expected)),
            ]
            with m.If(stale.bit_select(into, 1)):
                m.d.sync += valid.bit_select(into, 1).eq(0)
        scrub(m, setup_write, config.qps)
        return m
