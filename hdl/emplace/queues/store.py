"""Receive WQEs on the card: reads on their way, the elements that came, their sums."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dma.records import ReadWord
from .records import Sge, SgeRequest

__all__ = ["WqeSum", "WqeStore"]

_WORDS = 8             # of 8 bytes: four elements of 16

#: ``total``: sum of the lengths, octets. ``failed``: the WQE could not be read.
WqeSum = data.StructLayout({"total": 34, "failed": 1})


class WqeStore(wiring.Component):
    """Takes the words of WQEs as they come from the bus, in the order in which they were asked for.

    Throughput: a WQE every 13 cycles; an element every 2 cycles. Latency: 4 cycles from a WQE's last word to
    ``arrived``, 2 cycles to an element.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    flights : :class:`int`
        Reads under way at most, a power of two.

    Members
    -------
    fly : ``In({en, qp, entry})``
        A read for this entry is about to be asked for. Not while ``full``.
    full : ``Out(1)``
    cancel : ``In({en, qp})``
        What is under way for this QP is not to arrive.
    read_data : ``In(stream.Signature(ReadWord()))``
    arrived : ``Out(stream.Signature({qp}))``
        The next WQE of ``qp`` is here.
    cancelled : ``Out(1)``
        The one on ``arrived`` has been cancelled: to be taken, and ignored.
    sum_at : ``In({qp, entry})``, ``sum`` : ``Out(WqeSum)``
        Reads the sum of an entry; 1 cycle.
    sge : ``In(stream.Signature(SgeRequest(config)))``
    sge_data : ``Out(stream.Signature(Sge))``
    """

    def __init__(self, config, flights=8):
        self.config, self.flights = config, flights
        where = {"qp": config.qp_bits, "entry": config.rq_prefetch_bits}
        self.where = data.StructLayout(where)
        super().__init__({
            "fly":       In(data.StructLayout({"en": 1, **where})),
            "full":      Out(1),
            "cancel":    In(data.StructLayout({"en": 1, "qp": config.qp_bits})),
            "read_data": In(stream.Signature(ReadWord())),
            "arrived":   Out(stream.Signature(data.StructLayout({"qp": config.qp_bits}))),
            "cancelled": Out(1),
            "sum_at":    In(self.where),
            "sum":       Out(WqeSum),
            "sge":       In(stream.Signature(SgeRequest(config))),
            "sge_data":  Out(stream.Signature(Sge)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        entries = config.qps * config.rq_prefetch

        # Reads under way, oldest at `tail`.
        bits = (self.flights - 1).bit_length()
        head, tail = Signal(bits + 1), Signal(bits + 1)
        flights = [Signal(self.where, name=f"flight_{n}") for n in range(self.flights)]
        cancelled = Signal(self.flights)
        level = Signal(bits + 1)
        m.d.comb += [level.eq(head - tail), self.full.eq(level[bits])]
        for index, flight in enumerate(flights):
            with m.If(self.cancel.en & (flight.qp == self.cancel.qp)):
                m.d.sync += cancelled[index].eq(1)
            with m.If(self.fly.en & (head[:bits] == index)):
                m.d.sync += [flight.qp.eq(self.fly.qp), flight.entry.eq(self.fly.entry), cancelled[index].eq(0)]
        with m.If(self.fly.en):
            m.d.sync += head.eq(head + 1)
        oldest, dead = Signal(self.where), Signal()
        with m.Switch(tail[:bits]):
            for index, flight in enumerate(flights):
                with m.Case(index):
                    m.d.comb += [oldest.eq(flight), dead.eq(cancelled[index])]

        # Elements: addresses in even words, length and lkey in odd ones.
        m.submodules.addresses = addresses = memory.Memory(shape=64, depth=entries * 4, init=[])
        m.submodules.lengths = lengths = memory.Memory(shape=64, depth=entries * 4, init=[])
        m.submodules.sums = sums = memory.Memory(shape=WqeSum, depth=entries, init=[])
        address_write, length_write, sum_write = addresses.write_port(), lengths.write_port(), sums.write_port()
        word = self.read_data
        count = Signal(range(_WORDS + 1))              # words of this WQE so far; more than there are don't count
        write = Signal()
        at = Signal(range(entries * 4))
        m.d.comb += [
            write.eq(word.valid & word.ready & ~dead & ~count[3]),
            at.eq(Cat(count[1:3], oldest.entry, oldest.qp)),
            address_write.addr.eq(at), address_write.data.eq(word.p.data), address_write.en.eq(write & ~count[0]),
            length_write.addr.eq(at), length_write.data.eq(word.p.data), length_write.en.eq(write & count[0]),
        ]

        # The sum, low half a cycle before the high one.
        total = Signal(34)
        low = Signal(17)
        addend = Signal(16)
        carry_due = Signal()
        failed = Signal()
        m.d.comb += low.eq(total[:16] + word.p.data[:16])
        carry = Signal()
        m.d.sync += carry_due.eq(0)
        with m.If(carry_due):
            m.d.sync += total[16:].eq(total[16:] + addend + carry)
        with m.If(word.valid & word.ready & count[0]):
            m.d.sync += [total[:16].eq(low[:16]), carry.eq(low[16]), addend.eq(word.p.data[16:32]), carry_due.eq(1)]

        m.d.comb += [
            sum_write.addr.eq(Cat(oldest.entry, oldest.qp)),
            sum_write.data.total.eq(total),
            sum_write.data.failed.eq(failed),
            self.arrived.p.qp.eq(oldest.qp),
            self.cancelled.eq(dead),
        ]
        with m.FSM(name="arrival"):
            with m.State("WORDS"):                     # waits for a WQE's last word
                m.d.comb += word.ready.eq(1)
                with m.If(word.valid):
                    m.d.sync += count.eq(Mux(count[3], count, count + 1))
                    with m.If(word.p.last):
                        m.d.sync += failed.eq(word.p.err | (count != _WORDS - 1))
                        m.next = "CARRY"
            with m.State("CARRY"):                     # the sum's high half
                m.next = "SUM"
            with m.State("SUM"):
                m.d.comb += sum_write.en.eq(~dead)
                m.d.sync += [total.eq(0), count.eq(0)]
                m.next = "ARRIVED"
            with m.State("ARRIVED"):                   # waits until the queue knows of it
                m.d.comb += self.arrived.valid.eq(1)
                with m.If(self.arrived.ready):
                    m.next = "LEAVE"
            with m.State("LEAVE"):                     # the receiver looks at `cancelled` until here
                m.next = "GONE"
            with m.State("GONE"):
                m.d.sync += tail.eq(tail + 1)
                m.next = "WORDS"

        sum_read = sums.read_port()
        m.d.comb += [sum_read.addr.eq(Cat(self.sum_at.entry, self.sum_at.qp)), self.sum.eq(sum_read.data)]

        # Elements out: the memories' read latches, then a register.
        address_read, length_read = addresses.read_port(), lengths.read_port()
        latched, move = Signal(), Signal()
        take = Signal()
        where = Cat(self.sge.p.index, self.sge.p.entry, self.sge.p.qp)
        m.d.comb += [
            move.eq(latched & (self.sge_data.ready | ~self.sge_data.valid)),
            self.sge.ready.eq(~latched | move),
            take.eq(self.sge.valid & self.sge.ready),
            address_read.addr.eq(where), address_read.en.eq(take),
            length_read.addr.eq(where), length_read.en.eq(take),
        ]
        with m.If(take):
            m.d.sync += latched.eq(1)
        with m.Elif(move):
            m.d.sync += latched.eq(0)
        with m.If(self.sge_data.ready | ~self.sge_data.valid):
            m.d.sync += self.sge_data.valid.eq(move)
        with m.If(move):
            m.d.sync += [
                self.sge_data.p.addr.eq(address_read.data),
                self.sge_data.p.length.eq(length_read.data[:32]),
                self.sge_data.p.lkey.eq(length_read.data[32:]),
            ]
        return m
