"""The host's accesses to BAR0."""

# Ref: PCI Express Base Specification 2.2.5 (byte enables), 2.2.9 (completions), 2.3.1 (request handling)

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.queue import Queue
from .records import MmioRead, MmioWrite
from .tlp import Beat, Head, ShortTlp, Status, Type, swap

__all__ = ["Mmio"]

#: Longest write, in doublewords: one line of a write-combining CPU.
_MOST_DWS = 16
#: Reads that wait for their answer before the receive path has to stop.
_READS = 16


class _Read(data.StructLayout):
    """A non-posted request: who, what, and the answer's status."""

    def __init__(self, config):
        super().__init__({"requester": 16, "tag": 8, "address": MmioRead(config)["address"].shape, "upper": 1, "two": 1,
                          "first_be": 4, "last_be": 4, "lower_address": 7, "status": 3})


class Mmio(wiring.Component):
    """Host writes and reads of BAR0, one TLP each.

    Writes of up to 16 doublewords go on as 8-byte beats with byte enables, one per cycle; longer and poisoned ones are
    dropped. Reads of up to 8 bytes within 8 aligned bytes are answered in order; others end in Completer Abort, and
    any other request that wants an answer in Unsupported Request. A completion never overtakes a write TLP
    of the card that was begun before it.

    A nullified write's last beat is dropped; beats before it have gone on already.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    beats : ``In(stream.Signature(Beat))``
        Anything but completions.
    head : ``In(Head)``
    write : ``Out(stream.Signature(MmioWrite(config), always_ready=True))``
    read : ``Out(stream.Signature(MmioRead(config)))``
    data : ``In(stream.Signature(64))``
        Answers to ``read``, in order.
    completions : ``Out(stream.Signature(ShortTlp))``
    id : ``In(16)``
        Completer ID.
    hold : ``In(1)``
        1: write TLPs begun before the latest answer are still under way.
    answered : ``Out(1)``
        Strobe: an answer has come in, ``hold`` counts from the next cycle on.
    unsupported : ``Out(1)``
        Strobe: an access that was dropped or answered with an error.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "beats":       In(stream.Signature(Beat)),
            "head":        In(Head),
            "write":       Out(stream.Signature(MmioWrite(config), always_ready=True)),
            "read":        Out(stream.Signature(MmioRead(config))),
            "data":        In(stream.Signature(64)),
            "completions": Out(stream.Signature(ShortTlp)),
            "id":          In(16),
            "hold":        In(1),
            "answered":    Out(1),
            "unsupported": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, head, beats = self.config, self.head, self.beats
        beat = beats.p
        bits = len(self.read.p.address)

        wide, address, one = Signal(), Signal(bits + 1), Signal()
        first_be, last_be = Signal(4), Signal(4)
        m.d.comb += [
            wide.eq(head.type[5]), one.eq(head.length == 1),
            address.eq(Mux(wide, head.fourth, head.third)[2:]),     # in doublewords
            first_be.eq(head.second[24:28]), last_be.eq(head.second[28:32]),
        ]
        is_write, is_read, wants_answer = Signal(), Signal(), Signal()
        kind = Signal(8)
        m.d.comb += [
            kind.eq(Cat(head.type[:5], Const(0, 1), head.type[6:])),
            is_write.eq(kind == Type.MWR), is_read.eq(kind == Type.MRD),
            # Messages (10xxx) want none, nor does what is no request at all.
            wants_answer.eq(~is_write & ~head.type[4] & (head.type[1:5] != Type.CPL >> 1)),
        ]

        # Writes
        good_write, done, move = Signal(), Signal(11), Signal()
        count = Signal(11)               # doublewords that went before
        at, now = Signal(bits), Signal(bits)
        nonzero = Signal()
        m.d.comb += [
            move.eq(beats.valid & beats.ready),
            good_write.eq(is_write & ~head.poisoned & (head.length <= _MOST_DWS)),
            done.eq(Mux(beat.first, 0, count)),
            now.eq(Mux(beat.first, address[1:], at)),
        ]
        enables = Signal(8)
        for n in range(2):
            before, is_last = Signal(11, name=f"before{n}"), Signal(name=f"is_last{n}")
            m.d.comb += [
                before.eq(done + (beat.mask[0] if n else 0)),
                is_last.eq(before + 1 == head.length),
            ]
            with m.If(beat.mask[n]):
                m.d.comb += enables.word_select(n, 4).eq(
                    Mux(before == 0, first_be, Mux(is_last, last_be, 15)))
        m.d.comb += nonzero.eq(enables.any())
        m.d.sync += self.write.valid.eq(move & good_write & nonzero & ~(beat.last & beat.err))
        with m.If(move):
            m.d.sync += [
                self.write.p.address.eq(now), self.write.p.data.eq(beat.data), self.write.p.mask.eq(enables),
                count.eq(done + beat.mask[0] + beat.mask[1]), at.eq(now + beat.mask.any()),
            ]

        # Reads, and all else that wants an answer
        m.submodules.reads = reads = Queue(_Read(config), _READS)
        fits, ask = Signal(), Signal()
        offset = Signal(2)
        with m.Switch(first_be):
            for pattern, value in (("---1", 0), ("--10", 1), ("-100", 2), ("1000", 3)):
                with m.Case(pattern):
                    m.d.comb += offset.eq(value)
        m.d.comb += [
            fits.eq(one | ((head.length == 2) & ~address[0])),
            ask.eq(beat.last & ~beat.err & wants_answer),
            reads.i.p.requester.eq(Cat(head.second[8:16], head.second[:8])), reads.i.p.tag.eq(head.second[16:24]),
            reads.i.p.address.eq(address[1:]), reads.i.p.upper.eq(address[0]), reads.i.p.two.eq(~one),
            reads.i.p.first_be.eq(first_be), reads.i.p.last_be.eq(last_be),
            reads.i.p.lower_address.eq(Mux(is_read, Cat(offset, address[:5]), 0)),
            reads.i.p.status.eq(Mux(is_read, Mux(fits, Status.SC, Status.CA), Status.UR)),
            beats.ready.eq(~ask | reads.i.ready),
            reads.i.valid.eq(beats.valid & ask),
        ]
        m.d.sync += self.unsupported.eq(
            move & beat.last & ~(good_write & ~beat.err) & ~(is_read & fits & ~beat.err))

        # Answers
        request, result = reads.o.p, Signal(64)
        nbytes, completion = Signal(12), self.completions
        leading, trailing = Signal(3), Signal(3)
        for be, spare, patterns in (
                (request.first_be, leading, (("---1", 0), ("--10", 1), ("-100", 2), ("1000", 3))),
                (Mux(request.two, request.last_be, request.first_be), trailing,
                 (("1---", 0), ("01--", 1), ("001-", 2), ("0001", 3)))):
            with m.Switch(be):
                for pattern, value in patterns:
                    with m.Case(pattern):
                        m.d.comb += spare.eq(value)
        m.d.comb += nbytes.eq(Mux(request.two, 8, 4) - leading - trailing)
        with m.If(request.status != Status.SC):
            m.d.comb += nbytes.eq(4)
        with m.Elif(~request.two & (request.first_be == 0)):
            m.d.comb += nbytes.eq(1)
        with m.FSM():
            with m.State("IDLE"):        # for a request
                with m.If(reads.o.valid):
                    with m.If(request.status == Status.SC):
                        m.next = "ASK"
                    with m.Else():
                        m.d.comb += self.answered.eq(1)
                        m.next = "ORDER"
            with m.State("ASK"):         # for the registers to take it
                m.d.comb += self.read.valid.eq(1)
                with m.If(self.read.ready):
                    m.next = "WAIT"
            with m.State("WAIT"):        # for their answer
                m.d.comb += self.data.ready.eq(1)
                with m.If(self.data.valid):
                    m.d.comb += self.answered.eq(1)
                    m.d.sync += result.eq(self.data.p)
                    m.next = "ORDER"
            with m.State("ORDER"):       # a cycle for `hold` to be right
                m.next = "SEND"
            with m.State("SEND"):        # for the writes before, and for the output
                m.d.comb += completion.valid.eq(~self.hold)
                with m.If(completion.ready & ~self.hold):
                    m.d.comb += reads.o.ready.eq(1)
                    m.next = "IDLE"
        m.d.comb += self.read.p.address.eq(request.address)

        success, low, high = Signal(), Signal(32), Signal(32)
        m.d.comb += [
            success.eq(request.status == Status.SC),
            low.eq(Mux(request.upper, result[32:], result[:32])), high.eq(result[32:]),
            completion.p.dwords[0].eq(Cat(Mux(success, Const(Type.CPLD, 8), Const(Type.CPL, 8)), Const(0, 16),
                                          Mux(success, Mux(request.two, Const(2, 8), Const(1, 8)), Const(0, 8)))),
            completion.p.dwords[1].eq(swap(Cat(nbytes, Const(0, 1), request.status, self.id))),
            completion.p.dwords[2].eq(swap(Cat(request.lower_address, Const(0, 1), request.tag, request.requester))),
            completion.p.dwords[3].eq(low), completion.p.dwords[4].eq(high),
            completion.p.count.eq(Mux(success, Mux(request.two, 5, 4), 3)),
        ]

        return m
