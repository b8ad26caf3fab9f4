"""Counters: one-bit strobes into 32-bit counters in memory."""

from itertools import pairwise

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Counters", "MOST"]

#: Counters of a group, and so the cycles until it comes to the same one again.
_TURN = 8
#: Strobes that a counter may have in any _TURN cycles, if it isn't said to come ``often``.
MOST = 3


def _plus(value, strobe):
    """``value + strobe``, of gates: carry chains come in pairs of bits."""
    bits, carry = [], strobe
    for bit in value:
        bits.append(bit ^ carry)
        carry &= bit
    return Cat(bits)


class Counters(wiring.Component):
    """Counts strobes, on all inputs at once.

    Counters are in groups of 8. A few flip-flops take a counter's strobes until its group's turn comes to it, every 8
    cycles; then they go into the group's memory of low bits, and begin anew. One group after the other, the low bits are
    copied into the memory that the host reads: it holds all of each counter as the last copy found it, and its high
    bits go up by one if the low ones have become less. Between two copies these can't go round.

    A counter takes at most 3 strobes in any 8 cycles, one that comes ``often`` takes any number. After reset all are 0.

    Even counters lie in one memory, odd ones in another, so that a host's 8-byte read finds a pair. A strobe shows in
    ``data`` after at most ``8 * groups + 12`` cycles.

    Parameters
    ----------
    n : :class:`int`
        Counters.
    often : collection of :class:`int`
        Those that may have more than 3 strobes in 8 cycles.

    Members
    -------
    strobes : ``In(n)``
    pair : ``In(range(pairs))``, ``data`` : ``Out(64)``
        Counters ``2 * pair`` (low) and ``2 * pair + 1``; 1 cycle.
    """

    def __init__(self, n, often=()):
        if n < 2:
            raise ValueError(f"n must be at least 2, not {n!r}")
        self.n, self.often = n, frozenset(often)
        self.groups = (n + _TURN - 1) // _TURN
        self.pairs = self.groups * _TURN // 2
        super().__init__({
            "strobes": In(n),
            "pair":    In(range(self.pairs)),
            "data":    Out(64),
        })

    def elaborate(self, platform):
        m = Module()
        # From one copy to the next a counter has as many strobes as cycles pass, and what waited before: less than this.
        low_bits = (_TURN * (self.groups + 1)).bit_length()

        turn, group = Signal(range(_TURN)), Signal(range(max(self.groups, 2)))
        now = Signal(_TURN)                            # `turn`, a bit for each
        fresh = Signal(init=1)                         # the first turn after reset: what the groups' memories hold is old
        last = Signal()
        m.d.comb += [now.eq(1 << turn), last.eq(group == self.groups - 1)]
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == _TURN - 1):
            m.d.sync += [group.eq(Mux(last, 0, group + 1)), fresh.eq(0)]

        sums = []
        for first in range(0, self.n, _TURN):
            waiting = []
            for index in range(first, first + _TURN):
                if index >= self.n:
                    waiting.append(0)
                    continue
                few = Signal(_TURN.bit_length() if index in self.often else MOST.bit_length(), name=f"few_{index}")
                m.d.sync += few.eq(_plus(few & ~now[index - first].replicate(len(few)), self.strobes[index]))
                waiting.append(few)
            low = memory.Memory(shape=low_bits, depth=2 * _TURN, init=[])      # nobody writes the upper half: it is 0
            m.submodules[f"low_{first // _TURN}"] = low
            read, write = low.read_port(domain="comb"), low.write_port()
            total = Signal(low_bits, name=f"sum_{first // _TURN}")
            m.d.comb += [
                read.addr.eq(Cat(turn, fresh)), write.addr.eq(turn), write.en.eq(1), write.data.eq(total),
                total.eq(read.data + Array(waiting)[turn]),
            ]
            sums.append(total)

        # Stage 0: the low bits. Stage 1: the memory reads. Stage 2: the high bits' carry. Stage 3: write.
        at = [Signal(range(2 * self.pairs), name=f"at_{stage}") for stage in range(4)]
        going = Signal(4)                              # copies have reached this stage
        first = Signal(5, init=0b11111)                # the round after reset: what memory holds doesn't count
        taken, taken2 = Signal(low_bits), Signal(low_bits)
        m.d.comb += at[0].eq(Cat(turn, group))
        m.d.sync += [
            *(later.eq(earlier) for earlier, later in pairwise(at)),
            going.eq(Cat(1, going)),
            first.eq(Cat(first[0] & ~(last & (turn == _TURN - 1)), first)),
            taken.eq(Array(sums)[group]), taken2.eq(taken),
        ]
        old, total = Signal(32), Signal(32)
        m.d.sync += total.eq(Cat(taken2, old[low_bits:] + (taken2 < old[:low_bits])))
        olds = []
        for bank in range(2):
            store = memory.Memory(shape=32, depth=self.pairs, init=[], attrs={"reads_collide": 1})    # the host's do
            m.submodules[f"bank_{bank}"] = store
            scan, look, write = store.read_port(), store.read_port(), store.write_port()
            olds.append(scan.data)
            m.d.comb += [
                scan.addr.eq(at[1][1:]), look.addr.eq(self.pair),
                self.data.word_select(bank, 32).eq(Mux(first[4], 0, look.data)),
                write.addr.eq(at[3][1:]), write.data.eq(total), write.en.eq(going[2] & (at[3][0] == bank)),
            ]
        m.d.comb += old.eq(Mux(first[2], 0, Mux(at[2][0], olds[1], olds[0])))
        return m
