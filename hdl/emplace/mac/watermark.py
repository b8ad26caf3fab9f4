"""When to ask the link's other end for a pause."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Watermark"]


class Watermark(wiring.Component):
    """``request`` rises when ``free`` is at ``low`` or below, and falls at ``high``; or once ``patience`` cycles have
    passed without that. Then it does not come back until ``free`` has been at ``high``: what is short because it waits
    for the peer (unfinished FPDUs, segments out of order) can't become free while the peer is kept from sending.

    Latency: 2 cycles.

    Parameters
    ----------
    n : :class:`int`
        Most that can be free.
    low, high : :class:`int`
    patience : :class:`int`
        A power of two.

    Members
    -------
    free : ``In(range(n + 1))``
    request : ``Out(1)``
    """

    def __init__(self, n, low, high, patience=1 << 14):
        if not 0 <= low < high <= n:
            raise ValueError(f"Watermarks must be 0 <= low < high <= {n}, not {low!r} and {high!r}")
        if patience < 2 or patience & (patience - 1):
            raise ValueError(f"Patience must be a power of two, at least 2, not {patience!r}")
        self.low, self.high, self.patience = low, high, patience
        super().__init__({"free": In(range(n + 1)), "request": Out(1)})

    def elaborate(self, platform):
        m = Module()
        below, above = Signal(), Signal()
        waited = Signal(range(self.patience))
        m.d.sync += [below.eq(self.free <= self.low), above.eq(self.free >= self.high)]
        with m.FSM():
            with m.State("ROOMY"):       # waits until it is short
                m.d.sync += waited.eq(0)
                with m.If(below):
                    m.d.sync += self.request.eq(1)
                    m.next = "SHORT"
            with m.State("SHORT"):       # waits for room, but not for ever
                m.d.sync += waited.eq(waited + 1)
                with m.If(above | waited.all()):
                    m.d.sync += self.request.eq(0)
                    m.next = "ROOMY"
                    with m.If(~above):
                        m.next = "GIVEN_UP"
            with m.State("GIVEN_UP"):    # waits for room
                with m.If(above):
                    m.next = "ROOMY"
        return m
