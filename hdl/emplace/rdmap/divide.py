"""Division, a bit a cycle."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Divider"]


class Divider(wiring.Component):
    """``dividend = quotient * divisor + remainder``, with ``remainder < divisor``.

    Latency: ``width + 1`` cycles from ``start`` to ``done``. The results hold until the next ``start``.

    Parameters
    ----------
    width : :class:`int`
        Bits of dividend and quotient.
    divisor_width : :class:`int`

    Members
    -------
    start : ``In(1)``
        Strobe: begin, even if another is under way.
    dividend, divisor : ``In(width)``, ``In(divisor_width)``
        ``divisor`` stands still until ``done``, and isn't 0.
    done : ``Out(1)``
        The results are there.
    quotient, remainder : ``Out(width)``, ``Out(divisor_width)``
    """

    start: Signal
    dividend: Signal
    divisor: Signal
    done: Signal
    quotient: Signal
    remainder: Signal

    def __init__(self, width, divisor_width):
        self.width, self.divisor_width = width, divisor_width
        super().__init__({
            "start": In(1), "dividend": In(width), "divisor": In(divisor_width), "done": Out(1),
            "quotient": Out(width), "remainder": Out(divisor_width),
        })

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self.width + 1))
        shifted, reduced, fits = Signal(self.divisor_width + 1), Signal(self.divisor_width + 1), Signal()
        m.d.comb += [
            shifted.eq(self.remainder << 1 | self.quotient[-1]), fits.eq(shifted >= self.divisor),
            reduced.eq(shifted - self.divisor), self.done.eq(left == 0),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.width), self.quotient.eq(self.dividend), self.remainder.eq(0)]
        with m.Elif(left != 0):
            m.d.sync += [left.eq(left - 1), self.quotient.eq(self.quotient << 1 | fits), self.remainder.eq(shifted)]
            with m.If(fits):
                m.d.sync += self.remainder.eq(reduced)
        return m
