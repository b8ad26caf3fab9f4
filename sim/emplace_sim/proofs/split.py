"""TLP splitter: what is granted is written, all of it and nothing else, in requests that PCI Express allows."""

from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from emplace.dma.split import Splitter

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["SPLIT_PROOFS", "SplitterProof"]

_NOTE = 2


class SplitterProof(wiring.Component):
    """Of :class:`Splitter`, all widths real; of each transfer (address, length):

    - the first part begins at its address, each other one where the one before ended; the lengths add up to its
      length, and exactly with the last part; ``note`` is its;
    - no part crosses 4 KiB, whatever ``limit`` does; while it stands still, none is longer than ``128 << limit`` or
      crosses a multiple of it;
    - a byte is enabled in a part (by address, ``dwords``, byte enables) exactly if it belongs to it: shown for one byte
      of memory that the solver picks; ``words``, ``upper``, ``lower``, ``wide`` are right.

    Assumed: a transfer doesn't go beyond the end of memory (2**64): the protection unit grants none.
    """

    def __init__(self, splitter=Splitter):
        self.dut = splitter(_NOTE)
        super().__init__(self.dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        i, o = dut.i, dut.o
        connect(m, flipped(self.i), i)
        connect(m, o, flipped(self.o))
        m.d.comb += dut.limit.eq(self.limit)
        m.submodules.assume_i = StreamContract.watch(m, i, check=Assume)
        m.submodules.assert_o = StreamContract.watch(m, o, check=Assert)
        with m.If(i.valid):
            m.d.comb += Assume(i.p.address + i.p.length <= 1 << 64)

        # A part is looked at in its first cycle in `o`: it stays as it is. `at`, `rest`: where it must begin, and how
        # much is to come.
        at, rest, note, some = Signal(65), Signal(13), Signal(_NOTE), Signal()
        after, rest_after, fresh, was_free = Signal(65), Signal(13), Signal(), Signal(init=1)
        part = o.p
        m.d.sync += was_free.eq(o.ready | ~o.valid)
        m.d.comb += [
            fresh.eq(o.valid & was_free),
            after.eq(Mux(fresh, at + part.length, at)), rest_after.eq(Mux(fresh, rest - part.length, rest)),
        ]
        m.d.sync += [at.eq(after), rest.eq(rest_after)]
        with m.If(fresh):
            m.d.sync += some.eq(~part.last)
        with m.If(i.valid & i.ready):
            m.d.sync += [at.eq(i.p.address), rest.eq(i.p.length), note.eq(i.p.note), some.eq(1)]
            m.d.comb += Assert(~some | (fresh & part.last), "split: one transfer after the other")

        # Each limit that was in force while this part was cut
        steady, limit, block = Signal(init=1), Signal(3), Signal(13)
        m.d.comb += [limit.eq(AnyConst(3)), block.eq(Mux(limit >= 5, 4096, 128 << limit))]
        with m.If(self.limit != limit):
            m.d.sync += steady.eq(0)

        byte, first, stop = Signal(64), Signal(65), Signal(65)
        first_dword, last_dword, dword = Signal(62), Signal(62), Signal(62)
        enabled, covered = Signal(), Signal()
        m.d.comb += [
            byte.eq(AnyConst(64)), first.eq(part.address), stop.eq(part.address + part.length),
            first_dword.eq(part.address[2:]), last_dword.eq(first_dword + part.dwords - 1), dword.eq(byte[2:]),
            covered.eq((byte >= first) & (byte < stop)),
        ]
        with m.If((dword >= first_dword) & (dword <= last_dword)):
            with m.If(dword == first_dword):
                m.d.comb += enabled.eq(part.first_be.bit_select(byte[:2], 1))
            with m.Elif(dword == last_dword):
                m.d.comb += enabled.eq(part.last_be.bit_select(byte[:2], 1))
            with m.Else():
                m.d.comb += enabled.eq(1)
        inside, last_word = Signal(13), Signal(61)
        m.d.comb += [inside.eq(part.address[:12] + part.length), last_word.eq((stop - 1)[3:])]
        with m.If(fresh):
            m.d.comb += [
                Assert(some & (part.address == at) & (part.note == note), "split: begins where the one before ended"),
                Assert(part.length <= rest, "split: not more than is granted"),
                Assert(part.last == (part.length == rest), "split: all of it"),
                Assert((part.length != 0) | (rest == 0), "split: goes on"),
                Assert(inside <= 4096, "split: not across 4 KiB"),
                Assert(~steady | (part.length <= block), "split: not above the maximal payload"),
                Assert(~steady | ((part.address[:12] & (block - 1)) + part.length <= block), "split: not across a block"),
                Assert(part.wide == part.address[32:].any(), "split: wide"),
            ]
            with m.If(part.length != 0):
                m.d.comb += [
                    Assert(enabled == covered, "split: exactly its bytes are enabled"),
                    Assert((part.last_be == 0) == (part.dwords == 1), "split: byte enables of one doubleword"),
                    Assert(part.words == last_word - part.address[3:] + 1, "split: words"),
                    Assert(part.upper == part.address[2], "split: upper"),
                    Assert(part.lower == ~(stop - 1)[2], "split: lower"),
                ]

        # Inside, so that induction closes.
        here, room = Signal(64), Signal(13)
        m.d.comb += [here.eq(Cat(dut.low, dut.page)), room.eq((~dut.low & dut.block) + 1)]
        with m.If(dut.measuring | dut.emitting):
            m.d.comb += [
                Assert(some & ~(fresh & part.last)), Assert(here == after[:64]), Assert(dut.carried == note),
                Assert(~after[64]), Assert(dut.left == rest_after), Assert(after + rest_after <= 1 << 64),
            ]
        with m.Else():
            m.d.comb += [Assert((rest_after == 0) & (~some | (fresh & part.last)))]
        with m.If(dut.emitting):
            m.d.comb += [
                Assert(dut.next_lower == dut.page[:26] + 1), Assert(dut.next_upper == (dut.page[26:] + 1)[:26]),
                Assert(((dut.block & (dut.block + 1)) == 0) & (dut.block >= 127)),
                Assert(~steady | (dut.block == block - 1)),
                Assert(dut.fits == (dut.left <= room)), Assert(dut.length == Mux(dut.fits, dut.left, room)),
                Assert(dut.wide == dut.page[20:].any()),
            ]
        m.d.comb += [
            Cover(fresh & ~part.last & some & (part.length == 128) & (at[:52] == 0), "split: over the page's carry"),
            Cover(fresh & part.last & (part.address[:12] == 0) & covered, "split: the second part"),
        ]
        return m


SPLIT_PROOFS = [
    Proof("TLP splitter", SplitterProof, 2, 10, {Splitter: "splitter"}, [
        Mutation("the page stays", Splitter, "with m.If(following[12]):", "with m.If(0):"),
        Mutation("a byte too many", Splitter, "room.eq((~low & mask) + 1)", "room.eq((~low & mask) + 2)"),
        Mutation("carry of the page lost", Splitter, "Mux(next_lower[_HALF], next_upper, page[_HALF:])", "page[_HALF:]"),
        Mutation("next part begins wrong", Splitter, "following.eq((low | block) + 1)", "following.eq((low | mask) + 1)"),
        Mutation("bytes before the first", Splitter, "first_be.eq(Const(15, 4) << low[:2])", "first_be.eq(15)"),
        Mutation("one doubleword's enables", Splitter, "o.p.first_be.eq(Mux(single, first_be & last_be, first_be))",
                 "o.p.first_be.eq(first_be)"),
        Mutation("4 GiB", Splitter, "wide.eq(page[20:].any())", "wide.eq(page[21:].any())"),
    ], mutant_depth=8),
]
