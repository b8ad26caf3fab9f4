"""Counters: one-bit strobes into 32-bit counters in memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Counts every strobe, each cycle, on all inputs at once.

    Even counters lie in one memory, odd ones in another, so that a host's 8-byte read finds a pair. Each bank is
    scanned, a counter a cycle: what its strobe counted since the last visit is added. That is at most one a
    cycle, so the small counts can't overflow.

    A strobe shows in ``data`` after at most ``n / 2 + 5`` cycles.

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
        pending_bits = pairs.bit_length()              # counts up to `pairs`

        at = [Signal(range(pairs), name=f"at_{n}") for n in range(4)]
        started = Signal(3)                            # the first visits aren't through the pipeline yet
        m.d.sync += [
            at[0].eq(Mux(at[0] == pairs - 1, 0, at[0] + 1)),
            *(later.eq(earlier) for earlier, later in zip(at, at[1:])),
            started.eq(Cat(1, started)),
        ]
        for bank in range(2):
            # Stage 0: take the small count, read the counter. Stages 1, 2: add, low half first. Stage 3: write.
            taken = Signal(pending_bits, name=f"taken_{bank}")
            chosen = Signal(pending_bits, name=f"chosen_{bank}")
            for position in range(pairs):
                index = 2 * position + bank
                if index >= self.n:
                    continue
                pending = Signal(pending_bits, name=f"pending_{index}")
                with m.If(at[0] == position):
                    m.d.comb += chosen.eq(pending)
                    m.d.sync += pending.eq(self.strobes[index])
                with m.Else():
                    m.d.sync += pending.eq(pending + self.strobes[index])
            store = memory.Memory(shape=32, depth=pairs, init=[])
            m.submodules[f"bank_{bank}"] = store
            scan, look, write = store.read_port(), store.read_port(), store.write_port()
            low, high, total = (Signal(width, name=f"{name}_{bank}") for name, width in
                                (("low", 17), ("high", 16), ("total", 32)))
            m.d.sync += [
                taken.eq(chosen),
                low.eq(scan.data[:16] + taken), high.eq(scan.data[16:]),
                total.eq(Cat(low[:16], (high + low[16])[:16])),
            ]
            m.d.comb += [
                scan.addr.eq(at[0]), look.addr.eq(self.pair), self.data.word_select(bank, 32).eq(look.data),
                write.addr.eq(at[3]), write.data.eq(total), write.en.eq(started[2]),
            ]
        return m
