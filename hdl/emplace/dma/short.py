"""TLPs of a few doublewords onto the wide stream."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .tlp import ShortTlp

__all__ = ["ShortSender"]


class ShortSender(wiring.Component):
    """Sends TLPs that fit into one record: read requests and completions.

    Throughput: a word per cycle. Latency: 1 cycle.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word.

    Members
    -------
    i : ``In(stream.Signature(ShortTlp))``
    o : ``Out(PacketSignature(nbytes))``
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({
            "i": In(stream.Signature(ShortTlp)),
            "o": Out(PacketSignature(nbytes)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        width = self.nbytes // 4
        rest, left = Signal(160), Signal(range(6))
        done = Signal()
        m.d.comb += [
            o.valid.eq(left.any()),
            done.eq(left <= width),
            o.p.data.eq(rest), o.p.last.eq(done),
            o.p.empty.eq(Mux(done, (width - left[:width.bit_length()]) << 2, 0)),
            i.ready.eq(~left.any() | (o.ready & done)),
        ]
        with m.If(o.ready):
            m.d.sync += [rest.eq(rest >> 8 * self.nbytes), left.eq(Mux(done, 0, left - width))]
        with m.If(i.valid & i.ready):
            m.d.sync += [rest.eq(Cat(*(i.p.dwords[n] for n in range(5)))), left.eq(i.p.count)]
        return m
