"""A send work request, and the ULPDU that is made of a part of it."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..abi import SendFlags, SendOpcode
from ..llp import UlpduPlan
from .records import MessageKind, RdmapOpcode

__all__ = ["WorkRequest"]

#: Octets of an FPDU besides payload and padding: length, header, CRC.
_TAGGED, _UNTAGGED = 2 + 14 + 4, 2 + 18 + 4
_INLINE, _INLINE_EXTENDED = 32, 96


def _wire(value):
    """``value`` as on the wire: most significant octet first."""
    return Cat(value[n:n + 8] for n in reversed(range(0, len(value), 8)))


class WorkRequest(wiring.Component):
    """Keeps a send work request, and works out the ULPDU that begins at octet ``offset`` of its message.

    Latency: kind and ``good`` with the first word's next cycle; ``octets`` and ``last`` 2 cycles after the third word,
    ``size`` 3.

    Members
    -------
    load : ``In(3)``
        Strobes: ``data`` is word 0, 1, 2 of the request.
    data : ``In(64)``
    pair, odd : ``In(1)``
        The next entry of the queue has been posted, too; its own index is odd.
    offset : ``In(32)``, segment : ``In(12)``, msn : ``In(32)``
        Still from the third word on.
    opcode, flags, elements, length, rkey : ``Out``
        Its fields. ``signaled``, ``inline``, ``extended`` : ``Out(1)``: its flags.
    known, good : ``Out(1)``
        The opcode is one that is built; nothing about the request is wrong.
    kind : ``Out(MessageKind)``
    octets : ``Out(12)``
        Of payload.
    last : ``Out(1)``
        None are left behind them.
    size : ``Out(12)``
        Octets of the FPDU.
    plan : ``Out(UlpduPlan(config))``
        Without ``qp``.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "load": In(3), "data": In(64), "pair": In(1), "odd": In(1), "offset": In(32), "segment": In(12), "msn": In(32),
            "opcode": Out(8), "flags": Out(8), "elements": Out(8), "length": Out(32), "rkey": Out(32),
            "signaled": Out(1), "inline": Out(1), "extended": Out(1), "known": Out(1), "good": Out(1),
            "kind": Out(MessageKind), "octets": Out(12), "last": Out(1), "size": Out(12), "plan": Out(UlpduPlan(config)),
        })

    def elaborate(self, platform):
        m = Module()
        data, flags = self.data, self.flags
        to, left, chunk, overhead = Signal(64), Signal(32), Signal(12), Signal(5)
        tagged, invalidates = Signal(), Signal()
        with m.If(self.load[0]):
            m.d.sync += [
                self.opcode.eq(data[:8]), self.flags.eq(data[8:16]), self.elements.eq(data[16:24]), self.length.eq(data[32:]),
            ]
        with m.If(self.load[1]):
            m.d.sync += self.rkey.eq(data[:32])
        with m.If(self.load[2]):
            m.d.sync += to.eq(data + self.offset)
        with m.Switch(self.opcode):
            with m.Case(SendOpcode.RDMA_WRITE):
                m.d.comb += [self.known.eq(1), self.kind.eq(MessageKind.WRITE)]
            with m.Case(SendOpcode.SEND, SendOpcode.SEND_WITH_INV):
                m.d.comb += [self.known.eq(1), self.kind.eq(MessageKind.SEND)]
        m.d.comb += [
            self.signaled.eq(flags[1]), self.inline.eq(flags[3]), self.extended.eq(flags[7]),
            tagged.eq(self.kind == MessageKind.WRITE), overhead.eq(Mux(tagged, _TAGGED, _UNTAGGED)),
            invalidates.eq(self.opcode == SendOpcode.SEND_WITH_INV),
            self.good.eq(
                self.known & (self.elements <= Mux(self.extended, 4, 2)) & ((flags & ~sum(SendFlags)) == 0)
                & (~self.extended | (self.pair & ~self.odd))
                & (~self.inline | (self.length <= Mux(self.extended, _INLINE_EXTENDED, _INLINE)))),
        ]
        m.d.sync += [
            left.eq(self.length - self.offset), chunk.eq(self.segment - overhead),
            self.octets.eq(Mux(left > chunk, chunk, left)), self.last.eq(left <= chunk),
            self.size.eq(((self.octets + 3) & ~3) + overhead),
        ]

        control, rdmap_opcode, stag, head = Signal(8), Signal(RdmapOpcode), Signal(32), Signal(16)
        m.d.comb += [
            control.eq(Cat(Const(1, 6), self.last, tagged)),
            rdmap_opcode.eq(Mux(tagged, RdmapOpcode.WRITE.value, RdmapOpcode.SEND.value + invalidates + Cat(0, flags[2]))),
            stag.eq(Mux(tagged | invalidates, self.rkey, 0)), head.eq(Cat(control, rdmap_opcode, Const(0b0100, 4))),
            self.plan.tagged.eq(tagged), self.plan.payload.eq(self.octets),
            self.plan.header.eq(Cat(head, _wire(stag), Mux(tagged, _wire(to), Cat(Const(0, 32), _wire(self.msn))),
                                    _wire(self.offset))),
        ]
        return m
