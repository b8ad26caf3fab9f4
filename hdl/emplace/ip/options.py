"""TCP options at line rate. Ref: RFC 9293 §3.1 (options), RFC 7323 §3.2 (Timestamps)."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .header import swapped

__all__ = ["Options"]

_EOL, _NOP, _TIMESTAMPS = 0, 1, 8

#: Where an option leads that begins at a certain byte. ``next``: byte behind it, counted from the word's (or the
#: list's) byte 0. ``pending``: only its kind is in this word. ``stamp``: it, or the last one of several, is
#: Timestamps, and begins at byte ``at`` - 1.
_Step = data.StructLayout({"next": 6, "bad": 1, "done": 1, "pending": 1, "stamp": 1, "at": 3})


class Options(wiring.Component):
    """Walks the option list of every segment, eight bytes a cycle, and takes out Timestamps.

    For each of the 9 bytes at which the list's next option may begin in a word (-1: its kind was the
    word before's last byte) it is worked out where the options that begin there lead, in three steps
    that don't depend on what came before; the loop then only picks one. So a list of any form takes
    no longer than its words do.

    An option of length 0 or 1, or one that reaches past the list's end, makes it bad; behind End of
    Option List nothing is looked at. Of several Timestamps the last counts.

    Throughput: one word a cycle. Latency: ``done`` 4 cycles behind the list's last word; canonical
    NOP NOP Timestamps are there 1 cycle behind it.

    Members
    -------
    valid, index, word : as in :class:`~emplace.ip.align.Align`
    length_new, data_offset_next : as in :class:`~emplace.ip.header.Header`
    canonical : ``Out(1)``
        The options are NOP NOP Timestamps and nothing else: the rest need not be waited for.
    none : ``Out(1)``
        There are no options.
    done : ``Out(1)``
        The list's end was reached; falls when another list begins.
    good : ``Out(1)``
        With ``done``: the list is well formed.
    found : ``Out(1)``
        With ``done`` and ``good``: there were Timestamps.
    tsval, tsecr : ``Out(32)``
    """

    def __init__(self):
        super().__init__({
            "valid": In(1), "index": In(4), "word": In(64), "length_new": In(1), "data_offset_next": In(4),
            "canonical": Out(1), "none": Out(1), "done": Out(1), "good": Out(1), "found": Out(1),
            "tsval": Out(32), "tsecr": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        stamps = Signal(64)
        m.d.comb += [self.tsval.eq(swapped(stamps[:32])), self.tsecr.eq(swapped(stamps[32:]))]

        # Which words hold options, and whether just their lower half
        left = Signal(4)                 # groups of 4 bytes
        listed, first, final, half = Signal(), Signal(), Signal(), Signal()
        usual = Signal()                 # as many options as the canonical ones
        m.d.comb += [
            listed.eq(self.valid & (left != 0) & (self.index >= 5)),
            first.eq(self.index == 5), final.eq(left <= 2), half.eq(left == 1),
        ]
        with m.If(self.length_new):
            m.d.sync += [
                left.eq(Mux(self.data_offset_next > 5, self.data_offset_next - 5, 0)),
                self.none.eq(self.data_offset_next <= 5), usual.eq(self.data_offset_next == 8), self.canonical.eq(0),
            ]
        with m.If(listed):
            m.d.sync += left.eq(Mux(final, 0, left - 2))

        # First step: each option by itself. `hops`: it ends in the same half of the word, in front of which byte.
        byte = [self.word.word_select(n, 8) for n in range(8)]
        steps, hops = {}, {}
        for p in range(-1, 8):
            name = p % 16
            group = range(p + 1, 4 if p < 4 else 8)
            steps[p] = step = Signal(_Step, name=f"step{name}", init={"at": p + 1})
            hop = Signal(len(group), name=f"hop{name}") if group else None     # nothing follows in its half
            hops[p] = hop if group else ()
            eol, nop = Signal(name=f"eol{name}"), Signal(name=f"nop{name}")
            if p >= 0:
                m.d.comb += [eol.eq(byte[p] == _EOL), nop.eq(byte[p] == _NOP)]
            m.d.sync += step.done.eq(eol)
            if p == 7:
                m.d.sync += [step.next.eq(8), step.bad.eq(0), step.pending.eq(~eol & ~nop)]
            else:
                length = byte[p + 1]
                m.d.sync += [
                    step.next.eq(Mux(nop, p + 1, length[:6] + p)),
                    step.bad.eq(~eol & ~nop & ((length < 2) | (length >= 48))),
                    step.stamp.eq(((byte[p] == _TIMESTAMPS) if p >= 0 else 1) & (length == 10)),
                ]
            if group:
                m.d.sync += hop.eq(Mux(nop, 1, Mux(eol, 0, Cat(length == q - p if q > p + 1 else 0 for q in group))))
            with m.If(half):
                if p == 3:
                    m.d.sync += step.bad.eq(~eol & ~nop)
                if p >= 4:
                    m.d.sync += [step.done.eq(p == 4), step.bad.eq(p > 4), step.pending.eq(0)]
                    if group:
                        m.d.sync += hop.eq(0)
        kinds = [Signal(name=f"timestamps{n}") for n in range(3)]     # the word's last byte begins Timestamps
        m.d.sync += [kinds[0].eq(byte[7] == _TIMESTAMPS), kinds[1].eq(kinds[0]), kinds[2].eq(kinds[1])]

        # Second step: chains within bytes -1..3, and within 4..7.
        chains, chained = {}, {}
        for p in reversed(range(-1, 8)):
            chains[p] = chain = Signal(_Step, name=f"chain{p % 16}")
            chained[p] = Signal(_Step, name=f"chained{p % 16}", init={"at": p + 1})
            m.d.comb += chain.eq(steps[p])
            for n, hop in enumerate(hops[p]):
                with m.If(hop):
                    m.d.comb += chain.eq(chains[p + 1 + n])
            m.d.sync += chained[p].eq(chain)

        # Third step: from the lower group on into the upper one.
        ways = {}
        for p in range(-1, 8):
            ways[p] = Signal(_Step, name=f"way{p % 16}", init={"at": p + 1})
            chain = chained[p]
            m.d.sync += ways[p].eq(chain)
            if p < 4:
                with m.If(~chain.bad & ~chain.done & (chain.next[2:] == 1)):
                    with m.Switch(chain.next[:2]):
                        for q in range(4):
                            with m.Case(q):
                                m.d.sync += ways[p].eq(chained[4 + q])

        flags = data.StructLayout({"listed": 1, "first": 1, "final": 1, "half": 1})
        now = [Signal(flags, name=f"now{n}") for n in range(3)]
        words = [Signal(64, name=f"word{n}") for n in range(3)]
        m.d.sync += [now[0].eq(Cat(listed, first, final, half)), words[0].eq(self.word)]
        for n in range(2):
            m.d.sync += [now[n + 1].eq(now[n]), words[n + 1].eq(words[n])]

        # The loop: pick where the list goes on; count down an option that is longer than a word.
        state, pending_stamp = Signal(_Step), Signal()
        entry, way, after = Signal(_Step), Signal(_Step), Signal(_Step)
        skip = Signal(6)
        here = Signal()                  # an option begins in this word
        m.d.comb += [
            entry.eq(Mux(now[2].first, 0, state)),
            skip.eq(entry.next),
            way.eq(Mux(entry.pending, ways[-1], Array(ways[p] for p in range(8))[skip[:3]])),
            here.eq(~entry.bad & ~entry.done & (entry.pending | (skip < 8))),
            after.eq(entry),
        ]
        with m.If(here):
            m.d.comb += [after.eq(way), after.next.eq(way.next - 8)]
        with m.Elif(~entry.bad & ~entry.done):
            m.d.comb += after.next.eq(skip - 8)
        last_word, taking, at = Signal(64), Signal(), Signal(3)
        window = Signal(120)
        m.d.comb += window.eq(Cat(last_word[8:], words[2]))
        with m.If(now[2].listed):
            m.d.sync += [
                state.eq(after), pending_stamp.eq(kinds[2]), last_word.eq(words[2]),
                self.done.eq(now[2].final),
                self.good.eq(~after.bad & (after.done | (~now[2].half & ~after.pending & (after.next == 0)))),
                taking.eq(here & way.stamp & ((way.at != 0) | pending_stamp)), at.eq(way.at),
            ]
            with m.If(now[2].first):
                m.d.sync += self.found.eq(0)
            with m.Elif(taking):
                m.d.sync += [self.found.eq(1), stamps.eq(window >> (at << 3))]

        with m.If(listed & first):
            m.d.sync += [
                self.done.eq(0), stamps[:32].eq(self.word[32:]),
                self.canonical.eq(usual & (self.word[:32] == 0x0A080101)),
            ]
        with m.If(listed & (self.index == 6) & self.canonical):
            m.d.sync += stamps[32:].eq(self.word[:32])
        return m
