"""Rings in host memory: slot, phase and address of an entry."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ring_slot", "ring_phase", "RingAddress"]


def ring_slot(index, log2):
    """Low ``log2`` bits of the free-running ``index``, of which at most 15 count."""
    return Cat(index[n] & (log2 > n) for n in range(15))


def ring_phase(index, log2):
    """Phase bit of entry ``index``: 1 on the ring's first lap, 0 on the second, and so on (abi)."""
    return ~index.bit_select(log2, 1)[0]


class RingAddress(wiring.Component):
    """Physical address of a ring's entry.

    Runs all the time: ``address`` belongs to what stood at the inputs two cycles ago.

    Parameters
    ----------
    entry_log2 : :class:`int`
        log2 of an entry's bytes, at most 7.

    Members
    -------
    base : ``In(52)``
        Ring's start, units of 4 KiB.
    log2 : ``In(4)``
        log2 of its entries.
    index : ``In(16)``
        Free-running index of the entry.
    address : ``Out(64)``
    """

    base: In(52)
    log2: In(4)
    index: In(16)
    address: Out(64)

    def __init__(self, entry_log2):
        if not 2 <= entry_log2 <= 7:
            raise ValueError(f"entry_log2 must be in 2..7, not {entry_log2!r}")
        self.entry_log2 = entry_log2
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        offset = Signal(24)
        m.d.comb += offset.eq(ring_slot(self.index, self.log2) << self.entry_log2)
        # Low half, then the carry into the high one: 52 bits are too wide for one stage.
        inside, low, high = Signal(12), Signal(13), Signal(40)
        m.d.sync += [
            inside.eq(offset[:12]),
            low.eq(self.base[:12] + offset[12:]),
            high.eq(self.base[12:]),
            self.address.eq(Cat(inside, low[:12], (high + low[12])[:40])),
        ]
        return m
