"""Merging streams, round robin."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .packet import PacketWord

__all__ = ["StreamArbiter", "PacketArbiter"]


class StreamArbiter(wiring.Component):
    """Merges ``n`` streams word by word, or packet by packet where the payload has ``last``.

    Round robin: after a grant the others come first. A granted input keeps the output until it has
    handed over its word (its packet), so the output never changes while it waits.

    Throughput: one word per cycle, packets back to back. Latency: 0 within a packet, 1 to switch.

    Parameters
    ----------
    shape : :class:`~amaranth.hdl.ShapeLike`
    n : :class:`int`
        Inputs.

    Members
    -------
    i : ``In(stream.Signature(shape)).array(n)``
    o : ``Out(stream.Signature(shape))``
    """

    def __init__(self, shape, n):
        if n < 1:
            raise ValueError(f"An arbiter needs at least one input, not {n!r}")
        self.shape, self.n = shape, n
        self.packets = isinstance(shape, PacketWord)
        super().__init__({
            "i": In(stream.Signature(shape)).array(n),
            "o": Out(stream.Signature(shape)),
        })
        # The latest grant; it is in the middle of a word or packet. Public to the proof only.
        self.grant, self.busy = Signal(range(n)), Signal()

    def elaborate(self, platform):
        m = Module()
        n = self.n
        grant, busy = self.grant, self.busy
        choice = Signal(range(n))
        m.d.comb += choice.eq(grant)
        with m.If(~busy):
            with m.Switch(grant):
                for current in range(n):
                    with m.Case(current):
                        # Lowest priority first: later assignments win.
                        for step in range(n, 0, -1):
                            other = (current + step) % n
                            with m.If(self.i[other].valid):
                                m.d.comb += choice.eq(other)
        with m.Switch(choice):
            for index in range(n):
                with m.Case(index):
                    m.d.comb += [
                        self.o.payload.eq(self.i[index].payload),
                        self.o.valid.eq(self.i[index].valid),
                        self.i[index].ready.eq(self.o.ready),
                    ]
        m.d.sync += grant.eq(choice)
        with m.If(self.o.valid):
            m.d.sync += busy.eq(~(self.o.ready & self.o.p.last) if self.packets else ~self.o.ready)
        return m


def PacketArbiter(nbytes, n):
    """:class:`StreamArbiter` of packets."""
    return StreamArbiter(PacketWord(nbytes), n)
