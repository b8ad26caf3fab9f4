"""Counters: one-bit strobes into 32-bit counters in memory."""

from itertools import pairwise

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Counts every strobe, each cycle, on all inputs at once.

    Even counters lie in one memory, odd ones in another, so that a host's 8-byte read finds a pair. Each bank is
    scanned, a counter a cycle. Registers hold each counter's low bits, the memory all of it as the last visit found
    it: the low bits are copied, and the high ones go up by one if the low ones have become less. Between two visits
    they can't go round. After reset all are 0.

    A strobe shows in ``data`` after at most ``pairs + 4`` cycles.

    Parameters
    ----------
    n : :class:`int`
        Counters.

    Members
    -------
    strobes : ``In(n)``
    pair : ``In(range(pairs))``, ``data`` : ``Out(64)``
        Counters ``2 * pair`` (low) and ``2 * pair + 1``; 1 cycle.
    """

    def __init__(self, n):
        if n < 2:
            raise ValueError(f"n must be at least 2, not {n!r}")
        self.n = n
        #: Scan positions; the pipeline is shorter than a round.
        self.pairs = max((n + 1) // 2, 8)
        super().__init__({
            "strobes": In(n),
            "pair":    In(range(self.pairs)),
            "data":    Out(64),
        })

    def elaborate(self, platform):
        m = Module()
        pairs = self.pairs
        low_bits = pairs.bit_length()                  # a round adds at most `pairs`, less than these can hold

        at = [Signal(range(pairs), name=f"at_{n}") for n in range(3)]
        going = Signal(3)                              # visits have reached this stage
        first = Signal(4, init=0b1111)                 # the round after reset: what memory holds doesn't count
        wrap = Signal()
        m.d.comb += wrap.eq(at[0] == pairs - 1)
        m.d.sync += [
            at[0].eq(Mux(wrap, 0, at[0] + 1)),
            *(later.eq(earlier) for earlier, later in pairwise(at)),
            going.eq(Cat(1, going)),
            first.eq(Cat(first[0] & ~wrap, first)),
        ]
        for bank in range(2):
            # Stage 0: take the low bits, read the memory. Stage 1: the high bits' carry. Stage 2: write.
            taken = Signal(low_bits, name=f"taken_{bank}")
            lows = []
            for position, strobe in enumerate(self.strobes[bank::2]):
                low = Signal(low_bits, name=f"low_{2 * position + bank}")
                with m.If(strobe):
                    m.d.sync += low.eq(low + 1)
                lows.append(low)
            store = memory.Memory(shape=32, depth=pairs, init=[])
            m.submodules[f"bank_{bank}"] = store
            scan, look, write = store.read_port(), store.read_port(), store.write_port()
            old, total = Signal(32, name=f"old_{bank}"), Signal(32, name=f"total_{bank}")
            m.d.comb += [
                old.eq(Mux(first[1], 0, scan.data)),
                scan.addr.eq(at[0]), look.addr.eq(self.pair),
                self.data.word_select(bank, 32).eq(Mux(first[3], 0, look.data)),
                write.addr.eq(at[2]), write.data.eq(total), write.en.eq(going[1]),
            ]
            m.d.sync += [
                taken.eq(Array(lows)[at[0]]),
                total.eq(Cat(taken, old[low_bits:] + (taken < old[:low_bits]))),
            ]
        return m
