"""What is proved of the guard: whatever comes in, only harmless TLPs go out."""

from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import connect, flipped

from emplace.config import NicConfig
from emplace.dma.guard import Guard

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["GUARD_PROOFS", "GuardProof"]

_READS, _WRITES, _COMPLETIONS = (0x00, 0x20), (0x40, 0x60), (0x0A, 0x4A)


class _Header(data.StructLayout):
    """What a TLP's first 16 bytes say, read by the rules of the PCIe specification."""

    def __init__(self):
        super().__init__({"legal": 1, "request": 1, "write": 1, "dws": 11, "total": 11, "first": 64, "end": 65})


def read_header(m, head, name):
    """A :class:`_Header` for the 128 bits ``head``, first byte lowest."""
    it = Signal(_Header(), name=name)
    byte = [head[8 * n:8 * n + 8] for n in range(16)]
    kind = byte[0]
    field = Signal(10, name=f"{name}_field")
    m.d.comb += [
        field.eq(Cat(byte[3], byte[2][:2])),
        it.write.eq(kind.matches(*_WRITES)),
        it.request.eq(kind.matches(*_READS, *_WRITES)),
        it.legal.eq(kind.matches(*_READS, *_WRITES, *_COMPLETIONS)),
        it.dws.eq(Mux(field == 0, 1024, field)),
        it.total.eq(Mux(kind[5], 4, 3) + Mux(kind[6], it.dws, 0)),
        it.first.eq(Mux(kind[5], Cat(*reversed(byte[8:16])), Cat(*reversed(byte[8:12])))),
        it.end.eq(it.first + (it.dws << 2)),
    ]
    return it


class GuardProof(wiring.Component):
    """Reads what leaves like a root complex would, and compares it with the forbidden ranges.

    Inputs may be anything: no frame, length, type or order is assumed, but that a stream's offer holds until it is
    taken. Ranges and ID stand still, as they do once locked. Proved, for every TLP that leaves:

    - it is a MRd, MWr, Cpl or CplD; requester's or completer's ID is the card's; the other fields of the first
      doublewords are 0;
    - no byte of a MRd or MWr lies in any range, nor does it wrap (the range is chosen by the solver);
    - unless ``msix`` was ever set, no MWr lies in the interrupt window; otherwise only one doubleword does;
    - it is never longer than its header says, and shorter only with ``err``.
    """

    def __init__(self, config, *, guard=Guard):
        self.config = config
        self.guard = guard(config)
        super().__init__(self.guard.signature)

    def elaborate(self, platform):
        m = Module()
        nbytes = self.config.tlp_bytes
        dws = nbytes // 4
        narrow = nbytes == 8

        m.submodules.dut = dut = self.guard
        connect(m, flipped(self.i), dut.i)
        connect(m, dut.o, flipped(self.o))
        connect(m, dut.refused_reads, flipped(self.refused_reads))
        m.d.comb += [dut.ranges.eq(self.ranges), dut.id.eq(self.id), dut.msix.eq(self.msix)]
        m.submodules.assume_i = StreamContract.watch(m, dut.i, check=Assume)
        m.submodules.assert_o = StreamContract.watch(m, dut.o, check=Assert)
        m.submodules.assert_refused = StreamContract.watch(m, dut.refused_reads, check=Assert)

        # Locked: the range that the solver chooses, and the ID, stand still.
        chosen, which = Signal(data.StructLayout({"first": 52, "end": 52})), Signal(range(self.config.guard_ranges))
        own_id = Signal(16)
        m.d.comb += [
            chosen.as_value().eq(AnyConst(104)), which.eq(AnyConst(which.shape())), own_id.eq(AnyConst(16)),
            Assume(self.ranges[which].as_value() == chosen.as_value()), Assume(self.id == own_id),
        ]
        msix_ever = Signal()
        with m.If(self.msix):
            m.d.sync += msix_ever.eq(1)

        # What leaves: where in its TLP the word in `o` is (0, 1, 2: later), and the TLP's first word.
        o = dut.o
        place, head, rest = Signal(2), Signal(64), Signal(12)
        with m.If(o.valid & o.ready):
            m.d.sync += place.eq(Mux(o.p.last, 0, Mux(place == 2, 2, place + 1)))
            with m.If(place == 0):
                m.d.sync += head.eq(o.p.data[:64])
        whole_head = Signal(128)                 # as far as it has come out
        m.d.comb += whole_head.eq(o.p.data if not narrow else Cat(Mux(place == 0, o.p.data, head), o.p.data))
        said = read_header(m, whole_head, "said")

        def harmless(it):
            """No byte of the request in the chosen range; nor in the interrupt window."""
            first_page, last_page, last = Signal(52), Signal(52), Signal(64)
            hit, window = Signal(), Signal()
            m.d.comb += [
                last.eq(it.end - 1), first_page.eq(it.first[12:]), last_page.eq(last[12:]),
                hit.eq(((first_page >= chosen.first) & (first_page < chosen.end))
                       | ((last_page >= chosen.first) & (last_page < chosen.end))),
                window.eq(it.write & (it.first[20:] == 0xFEE)),
            ]
            return it.legal & (~it.request | (
                ~hit & (it.end <= 1 << 64) & (it.first[:2] == 0) & ~(window & (~msix_ever | (it.dws != 1)))))

        with m.If(o.valid & (place == 0)):
            m.d.comb += Assert(said.legal, "guard: only four types leave")
            m.d.comb += Assert(o.p.data[8:16] == 0, "guard: class, attribute and hints are 0")
            m.d.comb += Assert(o.p.data[18:24] == 0, "guard: address type, attributes, poison and digest are 0")
            m.d.comb += Assert(o.p.data[32:48] == Cat(own_id[8:], own_id[:8]), "guard: the ID is the card's")
        out_harmless = Signal()
        m.d.comb += out_harmless.eq(harmless(said))
        with m.If(o.valid & (place == (1 if narrow else 0))):
            m.d.comb += Assert(out_harmless, "guard: no forbidden byte is touched")
        if narrow:
            m.d.comb += Assert(~(o.valid & (place == 0) & o.p.last), "guard: no header is cut")

        # Length. `rest`: doublewords of the TLP that have yet to leave, the word in `o` included.
        now_rest = Signal(12)
        m.d.comb += now_rest.eq(Mux(place == 0, said.total, rest))
        with m.If(o.valid & o.ready):
            m.d.sync += rest.eq(now_rest - dws)
        with m.If(o.valid):
            with m.If(~o.p.last):
                m.d.comb += Assert(now_rest > dws, "guard: ends with its length at the latest")
            with m.Else():
                sent = Signal(range(nbytes + 1))
                m.d.comb += sent.eq(nbytes - o.p.empty)
                m.d.comb += Assert(sent <= now_rest << 2, "guard: no byte more than the length says")
                m.d.comb += Assert(o.p.err | (sent == now_rest << 2), "guard: no byte fewer, unless with err")

        # What lets induction close: the guard's notes agree with the words they are about.
        word_valid, word_first, dropping = dut.word_valid, dut.word_first, dut.dropping
        behind, gate_first, second = Signal(), Signal(), Signal()
        next_place, next_rest = Signal(2), Signal(12)
        m.d.comb += [
            behind.eq(Mux(dut.early_valid, dut.early_first, dut.next_first) if narrow else dut.next_first),
            gate_first.eq(Mux(word_valid, word_first, behind)),
            next_place.eq(Mux(o.valid, Mux(o.p.last, 0, Mux(place == 2, 2, place + 1)), place)),
            next_rest.eq(Mux(o.valid, now_rest - dws, rest)),
        ]
        m.d.comb += Assert(place <= 2)
        with m.If(word_valid):
            m.d.comb += Assert(behind == dut.word.last)
        judged_head = Signal(128)                # the head of the TLP whose notes the guard holds
        m.d.comb += judged_head.eq(dut.word.data)
        if narrow:
            m.d.comb += judged_head.eq(Cat(dut.word.data, dut.early.data))
            with m.If(~word_first):
                m.d.comb += judged_head.eq(Cat(Mux(o.valid & (place == 0), o.p.data, head), dut.word.data))
            with m.If(dut.load):
                m.d.sync += second.eq(word_first & ~dut.early_first)
            with m.If(dut.early_valid):
                m.d.comb += Assert(dut.next_first == dut.early.last)
                m.d.comb += Assert(~dut.early_msix | msix_ever)
            with m.If(word_valid & word_first):
                m.d.comb += Assert(~second)
                m.d.comb += Assert(dut.bad | (dut.early_valid & ~dut.early_first & ~dut.word.last),
                                   "guard: the second word waits")
            with m.If(~word_valid & word_first & ~gate_first):
                m.d.comb += Assert(dropping, "guard: the second word follows at once")
        with m.If(gate_first | dropping):
            m.d.comb += Assert(next_place == 0, "guard: a TLP begins, at the gate and behind it")
        with m.Elif(word_valid & second):
            m.d.comb += Assert((next_place == 1) & ~dut.bad, "guard: a second word, there and there")
        with m.Else():
            m.d.comb += Assert(next_place == 2 if narrow else next_place != 0, "guard: a later word, there and there")
        with m.If(next_place != 0):
            m.d.comb += Assert((next_rest == dut.left) & (next_rest != 0), "guard: the length left, there and there")

        notes = read_header(m, judged_head, "notes")
        notes_harmless, page = Signal(), Signal(52)
        m.d.comb += [notes_harmless.eq(harmless(notes)), page.eq(notes.first[12:])]
        with m.If(word_valid & ~dut.bad & (word_first | (second & ~dropping))):
            m.d.comb += [
                Assert(notes.legal),
                Assert(dut.total == notes.total),
                Assert(dut.kind.as_value() == Mux(notes.write, 2, Mux(notes.request, 1, 3))),
                Assert(dut.window == (page[8:] == 0xFEE)),
                Assert(dut.single == (notes.dws == 1)),
                Assert(~dut.interrupt | msix_ever),
                Assert(~notes.request | ((notes.first[:2] == 0) & (notes.first[2:12] + notes.dws <= 1024))),
            ]
            for n, bound in enumerate((chosen.first, chosen.end)):
                bit = Signal(range(2 * self.config.guard_ranges), name=f"bit{n}")
                m.d.comb += [
                    bit.eq(Cat(Const(n, 1), which)),
                    Assert(dut.low.bit_select(bit, 1) == (page[:26] < bound[:26])),
                    Assert(dut.high.bit_select(bit, 1) == (page[26:] < bound[26:])),
                    Assert(dut.same.bit_select(bit, 1) == (page[26:] == bound[26:])),
                ]
        with m.If(word_valid & second & ~dropping):
            m.d.comb += Assert(notes_harmless, "guard: the verdict was about this word's address")

        leaves = o.valid & o.ready & o.p.last & ~o.p.err
        m.d.comb += [
            Cover(leaves & said.request & ~said.write & (place == (1 if narrow else 0)), "guard: a read leaves"),
            Cover(leaves & (place == 2 if narrow else place != 0), "guard: a long TLP leaves"),
            Cover(dut.count.guard_writes & (chosen.first < chosen.end), "guard: a write is blocked"),
            Cover(o.valid & o.p.last & o.p.err, "guard: a TLP is cut short"),
        ]

        return m


def _narrow(guard=Guard):
    return GuardProof(NicConfig(tlp_bytes=8, guard_ranges=2), guard=guard)


def _wide(guard=Guard):
    return GuardProof(NicConfig(tlp_bytes=16, guard_ranges=2), guard=guard)


_MUTANTS = [
    Mutation("a range's last 2**26 pages left out", Guard, "~below[0::2] & below[1::2]",
             "~below[0::2] & below[1::2] & ~self.same[1::2]"),
    Mutation("crossing 4 KiB not seen", Guard, "| (beyond > _PAGE_DWS)", "| (beyond > 2 * _PAGE_DWS)"),
    Mutation("length 0 taken for none", Guard, "Mux(field == 0, _PAGE_DWS, field)", "field"),
    Mutation("another type passes", Guard, "m.Case(_CPL, _CPLD)", 'm.Case(_CPL, _CPLD, "-1001010")'),
    Mutation("upper half not compared", Guard, "self.high | (self.same & self.low)", "self.high | self.low"),
    Mutation("interrupt without msix", Guard, "(window | msix) & ~(window & msix & single)",
             "msix & ~(window & msix & single)"),
    Mutation("address type kept", Guard, "o.p.data[18:24].eq(0)", "o.p.data[20:24].eq(0)"),
    Mutation("data after the length's end", Guard, "o.p.last.eq(fits | word.last)", "o.p.last.eq(word.last)"),
]

GUARD_PROOFS = [
    Proof("guard, 16 bytes", _wide, 1, 8, {Guard: "guard"}, _MUTANTS, mutant_depth=6),
    Proof("guard, 8 bytes", _narrow, 1, 10, {Guard: "guard"}, _MUTANTS, mutant_depth=7),
]
