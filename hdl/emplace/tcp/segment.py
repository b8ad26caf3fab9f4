"""Octets of FPDUs to segments' payloads: gathered whole, and summed."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import QpIndex
from ..stream.join import Joiner, JoinWord
from ..stream.packet import PacketSignature, PacketWord, connect_streams
from ..stream.queue import PacketQueue, Queue
from .records import BuiltSegment, SegmentOrder

__all__ = ["SegmentCutter", "SegmentSum", "SegmentBuilder", "ORDERS", "SEGMENTS"]

#: Orders that may wait for their FPDUs.
ORDERS = 16
#: Segments that may be under construction or wait to be sent.
SEGMENTS = 16


class SegmentCutter(wiring.Component):
    """Takes from each FPDU the octets that its order names.

    Throughput: a word a cycle, those left out included. Latency: 1 cycle; where the end is cut off, the last word waits for
    the FPDU's, which tells of errors.

    Members
    -------
    orders : ``In(stream.Signature(SegmentOrder(config)))``
        One an FPDU.
    fpdus : ``In(PacketSignature(8))``
        An FPDU that is shorter than its order says ends with ``err``.
    o : ``Out(stream.Signature(JoinWord(8)))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "orders": In(stream.Signature(SegmentOrder(config))),
            "fpdus":  In(PacketSignature(8)),
            "o":      Out(stream.Signature(JoinWord(8))),
        })

    def elaborate(self, platform):
        m = Module()
        o, fpdus, order = self.o, self.fpdus, self.orders.p
        at, last_at = Signal(9), Signal(9)         # index of the word at hand; of the last that is wanted
        end = Signal(12)
        before, final, done = Signal(), Signal(), Signal()
        waits = Signal()                 # `o` has the last word that is wanted; the FPDU goes on
        free, filled = Signal(), Signal(4)
        m.d.comb += [
            free.eq(o.ready | ~o.valid),
            end.eq(order.end - 1), last_at.eq(end[3:]),
            before.eq(at < order.begin[3:]), final.eq(at == last_at),
            filled.eq(8 - fpdus.p.empty),
            done.eq(fpdus.valid & fpdus.ready & fpdus.p.last), self.orders.ready.eq(done),
        ]
        with m.If(o.valid & o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(self.orders.valid & fpdus.valid):
            with m.If(waits):
                m.d.comb += fpdus.ready.eq(1)
                m.d.sync += [o.valid.eq(fpdus.p.last), o.p.err.eq(fpdus.p.last & fpdus.p.err)]
            with m.Elif(before & ~fpdus.p.last):
                m.d.comb += fpdus.ready.eq(1)
            with m.Else():
                m.d.comb += fpdus.ready.eq(free)
                with m.If(free):
                    # Too short: what there is goes on with `err`. One that ends before `begin` gives a word, too.
                    short = Signal()
                    m.d.comb += short.eq(fpdus.p.last & (~final | (filled <= end[:3])))
                    m.d.sync += [
                        o.valid.eq(~final | fpdus.p.last), waits.eq(final & ~fpdus.p.last),
                        o.p.data.eq(fpdus.p.data), o.p.last.eq(final | fpdus.p.last),
                        o.p.empty.eq(Mux(final & ~short, ~end[:3], 0)), o.p.err.eq(fpdus.p.last & (fpdus.p.err | short)),
                        o.p.skip.eq(Mux(before | short, 0, order.begin[:3])), o.p.lead.eq(order.lead),
                        o.p.joins.eq(~order.closes),
                    ]
        with m.If(fpdus.valid & fpdus.ready):
            m.d.sync += at.eq(at + 1)
            with m.If(fpdus.p.last):
                m.d.sync += [at.eq(0), waits.eq(0)]
        return m


class SegmentSum(wiring.Component):
    """Ones' complement sum (RFC 1071) of packets that go by.

    Latency: 4 cycles behind a packet's last word.

    Members
    -------
    go : ``In(1)``
        A word goes by.
    word : ``In(PacketWord(8))``
    done, dropped : ``Out(1)``
        Strobes: a packet has ended well, and ``sum`` is its; one has ended with ``err``.
    sum : ``Out(16)``
        Of its octets as 16-bit numbers, the first octet of each the higher.
    """

    def __init__(self):
        super().__init__({"go": In(1), "word": In(PacketWord(8)), "done": Out(1), "dropped": Out(1), "sum": Out(16)})

    def elaborate(self, platform):
        m = Module()
        lanes = [Signal(16, name=f"lane_{n}") for n in range(4)]
        end = Signal(4)
        m.d.comb += end.eq(8 - self.word.empty)
        for n, lane in enumerate(lanes):
            octets = [Mux(end > k, self.word.data.word_select(k, 8), 0) for k in (2 * n, 2 * n + 1)]
            m.d.comb += lane.eq(Cat(octets[1], octets[0]))
        # A stage for pairs of lanes, one for the word, one that adds up, one that folds.
        pairs = [Signal(17, name=f"pair_{n}") for n in range(2)]
        word, total, folded = Signal(18), Signal(20), Signal(17)
        first = Signal(init=1)
        heads, goes, good, bad = Signal(2), Signal(2), Signal(4), Signal(4)
        ends = Signal()
        m.d.comb += [ends.eq(self.go & self.word.last), self.sum.eq(folded[:16] + folded[16])]
        m.d.sync += [
            pairs[0].eq(lanes[0] + lanes[1]), pairs[1].eq(lanes[2] + lanes[3]), word.eq(pairs[0] + pairs[1]),
            folded.eq(total[:16] + total[16:]),
            goes.eq(Cat(self.go, goes)), heads.eq(Cat(first, heads)),
            good.eq(Cat(ends & ~self.word.err, good)), bad.eq(Cat(ends & self.word.err, bad)),
        ]
        with m.If(self.go):
            m.d.sync += first.eq(self.word.last)
        with m.If(goes[1]):
            m.d.sync += total.eq(Mux(heads[1], 0, total[:16] + total[16:]) + word)
        m.d.comb += [self.done.eq(good[3]), self.dropped.eq(bad[3])]
        return m


class SegmentBuilder(wiring.Component):
    """Stages the segments that transmit orders until each is whole and summed.

    A segment of which an FPDU ends with ``err`` is dropped.

    Throughput: a word a cycle, a segment of S octets from ``lead`` on in ``ceil((lead + S) / 8) + 1`` cycles at most.
    Latency: 6 cycles from an FPDU's last word to the record.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    orders : ``In(stream.Signature(SegmentOrder(config)))``
        One an FPDU, in order.
    fpdus : ``In(PacketSignature(8))``
    segments : ``Out(stream.Signature(BuiltSegment(config)))``
    packets : ``Out(PacketSignature(8))``
        One a segment, in that order; its payload from lane ``lead`` on, 0 below.
    dropped : ``Out(stream.Signature(QpIndex(config)))``
        Segments that are no more. Not looked at whether it is ready.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "orders":   In(stream.Signature(SegmentOrder(config))),
            "fpdus":    In(PacketSignature(8)),
            "segments": Out(stream.Signature(BuiltSegment(config))),
            "packets":  Out(PacketSignature(8)),
            "dropped":  Out(stream.Signature(QpIndex(config), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.waiting = waiting = Queue(SegmentOrder(config), ORDERS)
        m.submodules.cutter = cutter = SegmentCutter(config)
        m.submodules.joiner = joiner = Joiner(8)
        m.submodules.store = store = PacketQueue(8, config.stage_words)
        m.submodules.sum = total = SegmentSum()
        m.submodules.closed = closed = Queue(SegmentOrder(config), SEGMENTS)
        m.submodules.built = built = Queue(BuiltSegment(config), SEGMENTS)

        # No more segments are begun than there are places for their records.
        inside = Signal(range(SEGMENTS + 1))
        closes, leaves, room = Signal(), Signal(), Signal(init=1)
        m.d.comb += [
            closes.eq(cutter.orders.valid & cutter.orders.ready & cutter.orders.p.closes),
            leaves.eq((built.o.valid & built.o.ready) | total.dropped),
        ]
        m.d.sync += [inside.eq(inside + closes - leaves), room.eq(inside < SEGMENTS - 1)]
        connect_streams(m, self.orders, waiting.i)
        m.d.comb += [
            cutter.orders.p.eq(waiting.o.p), cutter.orders.valid.eq(waiting.o.valid & room),
            waiting.o.ready.eq(cutter.orders.ready & room),
            closed.i.p.eq(waiting.o.p), closed.i.valid.eq(closes),
        ]
        connect_streams(m, self.fpdus, cutter.fpdus)
        connect_streams(m, cutter.o, joiner.i)
        connect_streams(m, joiner.o, store.i)
        connect_streams(m, store.o, self.packets)
        m.d.comb += [
            total.go.eq(joiner.o.valid & joiner.o.ready), total.word.eq(joiner.o.p),
            closed.o.ready.eq(total.done | total.dropped),
            built.i.valid.eq(total.done), built.i.p.sum.eq(total.sum),
            *(built.i.p[name].eq(closed.o.p[name]) for name in ("qp", "seq", "length", "push")),
            self.dropped.valid.eq(total.dropped), self.dropped.p.qp.eq(closed.o.p.qp),
        ]
        connect_streams(m, built.o, self.segments)
        return m
