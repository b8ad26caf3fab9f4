"""A set of flags, handed out one by one: work that coalesces and therefore can't overflow."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["FlagSet"]

_GROUP = 8


class FlagSet(wiring.Component):
    """Remembers which of ``n`` indices were set, and hands each out once, in turn.

    Setting an index that is already in the set changes nothing. One that is set while it is being
    handed out comes again. No index waits longer than all others together.

    Throughput: one index a cycle within a group of 8, a group a cycle between. Latency: 2 cycles,
    and one a group that is passed over.

    Parameters
    ----------
    n : :class:`int`
        A power of two.
    setters : :class:`int`
        Ports that set.

    Members
    -------
    set : ``In({en: 1, index: range(n)}).array(setters)``
    empty : ``Out(1)``
        Nothing is in the set, nor being handed out.
    o : ``Out(stream.Signature(index))``
    """

    def __init__(self, n, setters=1):
        if n < 2 or n & (n - 1):
            raise ValueError(f"n must be a power of two, at least 2, not {n!r}")
        self.n, self.setters = n, setters
        super().__init__({
            "set":   In(data.StructLayout({"en": 1, "index": range(n)})).array(setters),
            "empty": Out(1),
            "o":     Out(stream.Signature(range(n))),
        })

    def elaborate(self, platform):
        m = Module()
        group_size = min(_GROUP, self.n)
        groups = self.n // group_size

        flags = Signal(self.n)
        group = Signal(range(max(groups, 2)))          # the next one to look at
        work = Signal(group_size)                      # taken out of `flags`, not yet handed out
        work_group = Signal.like(group)
        waiting = Signal(group_size)
        m.d.comb += waiting.eq(flags.word_select(group, group_size))

        lowest = Signal(range(group_size))
        for index in reversed(range(group_size)):
            with m.If(work[index]):
                m.d.comb += lowest.eq(index)
        rest = Signal(group_size)
        m.d.comb += rest.eq(work & (work - 1)[:group_size])

        free = Signal()
        m.d.comb += free.eq(self.o.ready | ~self.o.valid)
        low_bits = group_size.bit_length() - 1
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(work != 0),
                self.o.payload.eq(lowest | (work_group << low_bits)),
                work.eq(rest),
            ]
        fetch = Signal()
        m.d.comb += fetch.eq((work == 0) | (free & (rest == 0)))
        with m.If(fetch):
            m.d.sync += [work.eq(waiting), work_group.eq(group)]
            m.d.sync += group.eq(0 if groups == 1 else (group + 1)[:(groups - 1).bit_length()])

        for index in range(self.n):
            mine = Signal(name=f"set_{index}")
            m.d.comb += mine.eq(sum((port.en & (port.index == index) for port in self.set), 0) != 0)
            with m.If(mine):                           # setting wins
                m.d.sync += flags[index].eq(1)
            with m.Elif(fetch & (group == index // group_size)):
                m.d.sync += flags[index].eq(0)

        m.d.comb += self.empty.eq((flags == 0) & (work == 0) & ~self.o.valid)
        return m
