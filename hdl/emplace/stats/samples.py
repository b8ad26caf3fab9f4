"""What a dropped frame began with: its first 64 bytes, by the counter that counted it (design D11)."""

from functools import reduce
from operator import or_

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..stream.packet import PacketWord

__all__ = ["Samples"]

_WORDS = abi.SAMPLE_BYTES // 8
_BUFFERS = 4
_CUT = ("rx_oversize", "rx_jabbers")       # frames that end before their verdict


class Samples(wiring.Component):
    """Looks on at ip's input and never holds it up.

    The first words of the last four frames are kept. A counter's strobe has those of its frame copied to the counter's
    sample: mac's means the next frame that ends with ``err``, or the last if that was cut for its length; any other
    the last one that ended without. While a copy is under way each layer has one more in line, the newest. A frame whose
    buffer is still to be copied from is not kept itself, and its counter keeps the sample that it has.

    Latency: a copy takes 10 cycles. After reset all samples are 0.

    Members
    -------
    valid : ``In(1)``, word : ``In(PacketWord(8))``
        A word of a frame passes.
    strobes : ``In(len(abi.SAMPLED))``
        Of the counters ``abi.SAMPLED``, which are mac's, ip's and frames'.
    address : ``In(9)``, data : ``Out(64)``
        Word ``address % 8`` of counter ``address // 8``; 1 cycle.
    """

    def __init__(self):
        super().__init__({
            "valid":   In(1),
            "word":    In(PacketWord(8)),
            "strobes": In(len(abi.SAMPLED)),
            "address": In(9),
            "data":    Out(64),
        })

    def elaborate(self, platform):
        m = Module()
        rows = max(abi.SAMPLED) + 1                    # counters that have a place in the memory
        if rows * _WORDS > 1 << len(self.address):
            raise ValueError(f"{rows} counters have no room for their samples")
        Kept = data.StructLayout({"kept": 1, "buffer": range(_BUFFERS), "words": range(_WORDS + 1)})
        Order = data.StructLayout({"row": range(rows), **dict(Kept.members.items())})

        # The frame that passes.
        m.submodules.recent = recent = memory.Memory(shape=64, depth=_WORDS * _BUFFERS, init=[])
        keep, copy = recent.write_port(), recent.read_port()
        now = Signal(Kept)                             # its buffer, and the words before this one
        mask = Signal(64)
        wanted = Signal(_BUFFERS)                      # buffers that are still to be copied from
        first, kept, words = Signal(init=1), Signal(), Signal(range(_WORDS + 1))
        m.d.comb += [
            kept.eq(Mux(first, ~wanted.bit_select(now.buffer, 1), now.kept)),
            words.eq(Mux(now.words == _WORDS, _WORDS, now.words + 1)),
            mask.eq(Cat((n < 8 - self.word.empty).replicate(8) for n in range(8))),
            keep.addr.eq(Cat(now.words[:3], now.buffer)), keep.data.eq(self.word.data & mask),
            keep.en.eq(self.valid & kept & (now.words != _WORDS)),
        ]
        passed, spoiled = Signal(Kept), Signal(Kept)   # the last frame that ended without `err`, and with it
        ends, spoils = Signal(), Signal()
        m.d.comb += ends.eq(self.valid & self.word.last)
        m.d.sync += spoils.eq(ends & self.word.err)
        with m.If(self.valid):
            m.d.sync += [first.eq(self.word.last), now.kept.eq(kept), now.words.eq(Mux(self.word.last, 0, words))]
        with m.If(ends):
            m.d.sync += now.buffer.eq(now.buffer + 1)
            for target, condition in ((passed, ~self.word.err), (spoiled, self.word.err)):
                with m.If(condition):
                    m.d.sync += [target.kept.eq(kept), target.buffer.eq(now.buffer), target.words.eq(words)]

        # Who wants a copy: one order a layer.
        lines = []
        for layer in dict.fromkeys(abi.COUNTERS[n].layer for n in abi.SAMPLED):
            mine = [(self.strobes[i], n) for i, n in enumerate(abi.SAMPLED) if abi.COUNTERS[n].layer == layer]
            any_, row = Signal(name=f"{layer}_any"), Signal(range(rows), name=f"{layer}_row")
            m.d.comb += [
                any_.eq(Cat(strobe for strobe, _ in mine).any()),
                row.eq(reduce(or_, (Mux(strobe, n, 0) for strobe, n in mine))),
            ]
            order, waiting = Signal(Order, name=f"{layer}_order"), Signal(name=f"{layer}_waiting")
            taken = Signal(name=f"{layer}_taken")
            with m.If(taken):
                m.d.sync += waiting.eq(0)
            if layer == "mac":
                # Its verdict comes before or with the frame's last word; but a frame that is too long is cut, and ends
                # here before its verdict.
                long = Signal()
                counted, counter, cut, pair = Signal(), Signal(range(rows)), Signal(), Signal()
                m.d.comb += [
                    long.eq(Cat(strobe for strobe, n in mine if abi.COUNTERS[n].name in _CUT).any()),
                    pair.eq(Mux(spoils, counted | any_, long & cut)),
                ]
                with m.If(any_):
                    m.d.sync += [counted.eq(1), counter.eq(row)]
                with m.If(spoils):
                    m.d.sync += cut.eq(~(counted | any_))
                with m.If(pair):
                    m.d.sync += [
                        counted.eq(0), cut.eq(0), waiting.eq(spoiled.kept), order.row.eq(Mux(any_, row, counter)),
                        order.kept.eq(spoiled.kept), order.buffer.eq(spoiled.buffer), order.words.eq(spoiled.words),
                    ]
            else:
                with m.If(any_):
                    m.d.sync += [waiting.eq(passed.kept), Cat(order.kept, order.buffer, order.words).eq(
                        Cat(passed.kept, passed.buffer, passed.words)), order.row.eq(row)]
            lines.append((order, waiting, taken))

        # The copy.
        m.submodules.samples = samples = memory.Memory(shape=64, depth=rows * _WORDS, init=[])
        look, write = samples.read_port(), samples.write_port()
        there = Signal(rows)                           # samples that have been taken since reset
        at, work, busy = Signal(range(_WORDS)), Signal(Order), Signal()
        late, late_at, late_row, late_zero = Signal(), Signal.like(at), Signal.like(work.row), Signal()
        m.d.comb += [
            copy.addr.eq(Cat(at, work.buffer)), write.addr.eq(Cat(late_at, late_row)),
            write.data.eq(Mux(late_zero, 0, copy.data)), write.en.eq(late),
            wanted.eq(reduce(or_, (Mux(valid, 1 << order.buffer, 0) for order, valid in
                                   ((work, busy), *((order, waiting) for order, waiting, _ in lines))))),
        ]
        m.d.sync += [late.eq(busy), late_at.eq(at), late_row.eq(work.row), late_zero.eq(at >= work.words), at.eq(at + 1)]
        with m.If(~busy | (at == _WORDS - 1)):
            m.d.sync += [busy.eq(0), at.eq(0)]
            for n, (order, waiting, taken) in enumerate(lines):
                with m.If(waiting) if n == 0 else m.Elif(waiting):
                    m.d.comb += taken.eq(1)
                    m.d.sync += [busy.eq(1), work.eq(order)]
        with m.If(late):
            m.d.sync += there.bit_select(late_row, 1).eq(1)

        shown = Signal()
        m.d.comb += [look.addr.eq(self.address), self.data.eq(Mux(shown, look.data, 0))]
        m.d.sync += shown.eq(Array([*there])[self.address[3:]] & (self.address[3:] < rows))
        return m
