"""How many challenge ACKs a connection may send. Ref: RFC 5961 §7."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ChallengeBudget", "TOKENS", "PERIOD_LOG2"]

#: Tokens that a connection may save up, and log2 of the ticks after which it gets one more: 10 in about 5 s.
TOKENS = 10
PERIOD_LOG2 = 9


class ChallengeBudget(wiring.Component):
    """A token bucket per connection, so that nobody learns from one how many another has left; no jitter is needed.

    Latency: 1 cycle.

    Members
    -------
    tokens, stamp : ``In(4)``, ``In(8)``
        What the connection had, and when.
    now : ``In(32)``
        Ticks.
    some : ``Out(1)``
        There is a token.
    tokens_left, stamp_now : ``Out(4)``, ``Out(8)``
        Once it is spent.
    """

    def __init__(self):
        super().__init__({"tokens": In(4), "stamp": In(8), "now": In(32), "some": Out(1), "tokens_left": Out(4),
                          "stamp_now": Out(8)})

    def elaborate(self, platform):
        m = Module()
        elapsed, total = Signal(8), Signal(9)
        m.d.sync += [elapsed.eq(self.now[PERIOD_LOG2:] - self.stamp), self.stamp_now.eq(self.now[PERIOD_LOG2:])]
        m.d.comb += [
            total.eq(self.tokens + elapsed), self.some.eq(total != 0),
            self.tokens_left.eq(Mux(total >= TOKENS, TOKENS - 1, total - 1)),
        ]
        return m
