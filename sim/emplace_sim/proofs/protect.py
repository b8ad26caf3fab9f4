"""What is proved of the protection unit: what it grants, the region allows.

Three proofs, each of one link, all with the real widths:

- *table*: what is written into the table follows from the REG_MR command, and only if the command is right;
- *memory*: what a request sees is the whole entry as last written or invalidated, never a mixture;
- *check*: what is answered to a request follows from the entry that it saw.

Together: a burst that is granted lies in a region that the host registered and nobody has invalidated.
"""

from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from emplace import abi
from emplace.config import NicConfig
from emplace.protect.check import AccessCheck
from emplace.protect.entry import RegionEntry, RegionState
from emplace.protect.layer import Protect
from emplace.protect.records import AccessOp, Outcome, Refusal, TableOp
from emplace.protect.table import RegionTable

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["PROTECT_PROOFS", "CheckProof", "MemoryProof", "TableProof"]

#: The table has 4 slots, the page list 8 entries.
_CONFIG = NicConfig(regions=4, pages=8)
_REVOKE = abi.Access.REMOTE_INVALIDATE.bit_length() - 1
_ZERO_BASED = abi.Access.ZERO_BASED.bit_length() - 1


class CheckProof(wiring.Component):
    """:class:`AccessCheck` with entries and pages that may be anything.

    GRANTED means, of a request that the solver picks and the entry that was read for it: the entry is valid, all 32
    bits of the STag and the protection domain are the same, at least one right is asked for and none that the
    entry lacks, offset + length doesn't pass 2**64, and all octets lie between base and end. Then

    - a burst of one block is the whole, at offset + bias;
    - a burst of a page list lies within one page of the region's list, at that page's address; of two, the first
      goes up to its page's end, the second begins with the next page, and their lengths add up;
    - nothing else is answered; an INVALIDATE that succeeds strikes its slot, before the next request is taken.

    The pipeline never stands still, so its state is what went in during the last cycles: induction needs no invariant.
    """

    def __init__(self, *, check=AccessCheck):
        self.check = check(_CONFIG)
        super().__init__(self.check.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.check
        for name in ("room", "blocked", "entry", "state", "page"):
            value, outer = getattr(dut, name), getattr(self, name)
            m.d.comb += (value.as_value() if hasattr(value, "as_value") else value).eq(
                outer.as_value() if hasattr(outer, "as_value") else outer)
        connect(m, flipped(self.access), dut.access)
        m.submodules.assume_access = StreamContract.watch(m, dut.access, check=Assume)

        # A request is picked when it is taken, at most one; `age` is how many cycles ago.
        taken, pick, was_picked, age = Signal(), Signal(), Signal(), Signal(8)
        ask, seen, page_read = Signal.like(dut.access.payload), Signal(RegionEntry(_CONFIG)), Signal(_CONFIG.page_bits)
        state = Signal(RegionState)
        m.d.comb += [taken.eq(dut.access.valid & dut.access.ready), pick.eq(taken & ~was_picked & AnySeq(1))]
        m.d.sync += age.eq(Cat(pick, age))
        m.d.comb += Assert((age & (age - 1)) == 0)
        m.d.comb += Assert((age == 0) | was_picked)
        with m.If(pick):
            m.d.sync += [was_picked.eq(1), ask.eq(dut.access.payload)]
        with m.If(age[0]):
            m.d.sync += [seen.eq(dut.entry), state.eq(dut.state)]

        # In age[n], n + 1 cycles have passed. The first burst is answered at age[4], the second at age[5].
        reply, granted = dut.reply, Signal()
        stop, place, size = Signal(65), Signal(47), Signal(31)
        within, index, tail = Signal(30), Signal(35), Signal(14)
        first_page, second_page, first_length = Signal(52), Signal(52), Signal(13)
        at, total, listed_size = Signal(64), Signal(14), Signal()
        m.d.comb += [
            granted.eq(reply.p.outcome == Outcome.GRANTED),
            listed_size.eq((seen.page_log2 >= 12) & (seen.page_log2 <= 30)),     # others aren't registered
            stop.eq(ask.offset + ask.length),
            at.eq(ask.offset + seen.bias),
            place.eq(at[:47]),
            size.eq(1 << seen.page_log2),
            within.eq(place & (size - 1)),
            index.eq(place >> seen.page_log2),
            tail.eq(within[:12] + ask.length[:13]),
            total.eq(first_length + reply.p.length),
        ]
        # The page list's port: asked in one cycle, read in the next.
        listed = seen.first_page + index
        with m.If(age[2]):
            m.d.sync += page_read.eq(dut.page_slot)
        with m.If(age[3]):
            m.d.sync += [first_page.eq(dut.page)]
        with m.If(age[4]):
            m.d.sync += [second_page.eq(dut.page), first_length.eq(reply.p.length)]
        next_read = Signal(_CONFIG.page_bits)
        with m.If(age[3]):
            m.d.sync += next_read.eq(dut.page_slot)

        with m.If(age[4]):
            m.d.comb += [
                Assert(reply.valid, "check: every request is answered"),
                Assert(granted == (reply.p.refusal == Refusal.NONE), "check: refused for a reason"),
                Assert(granted | reply.p.last, "check: one refusal"),
            ]
            with m.If(granted & (ask.op == AccessOp.INVALIDATE)):
                m.d.comb += [
                    Assert(reply.p.last & dut.kill, "check: invalidated"),
                    Assert(dut.kill_slot == ask.stag[8:8 + _CONFIG.region_bits], "check: its own slot"),
                    Assert(~taken, "check: before the next request looks"),
                    Assert(state != RegionState.EMPTY, "check: there was one"),
                    Assert((seen.stag == ask.stag) & (seen.pd == ask.pd) & seen.access[_REVOKE],
                           "check: it may be invalidated"),
                ]
            with m.Else():
                m.d.comb += Assert(~dut.kill, "check: nothing else invalidates")
        blind = Signal()                         # between taking an INVALIDATE and its effect, nobody looks
        m.d.comb += blind.eq((age[:5] != 0) & (ask.op == AccessOp.INVALIDATE))
        with m.If(blind):
            m.d.comb += Assert(~taken & ~dut.quiet, "check: an INVALIDATE is alone")
        with m.If(age[4] & granted & (ask.op != AccessOp.INVALIDATE)):
            m.d.comb += [
                Assert(state == RegionState.VALID, "check: valid"),
                Assert(seen.stag == ask.stag, "check: the whole STag"),
                Assert(seen.pd == ask.pd, "check: the domain"),
                Assert(ask.right != 0, "check: a right is asked for"),
                Assert((ask.right & ~seen.access) == 0, "check: all rights"),
                Assert(ask.length != 0, "check: not empty"),
                Assert(stop <= 1 << 64, "check: no wrap"),
                Assert(ask.offset >= seen.base, "check: not before the region"),
                Assert(stop <= seen.end, "check: not past the region"),
            ]
        with m.If(age[4] & granted & (ask.op == AccessOp.GRANT)):
            with m.If(reply.p.last):
                m.d.comb += Assert(reply.p.length == ask.length, "check: one burst is the whole")
            with m.If(seen.page_log2 == 0):
                m.d.comb += Assert(reply.p.last & (reply.p.address == at), "check: the octets asked for")
            with m.Elif(listed_size):
                m.d.comb += [
                    Assert(index < seen.pages, "check: a page of the region"),
                    Assert(page_read == listed[:_CONFIG.page_bits], "check: that page is looked up"),
                    Assert(within + reply.p.length <= size, "check: within the page"),
                    Assert(reply.p.last | (within + reply.p.length == size), "check: up to the page's end"),
                    Assert(reply.p.address == (((first_page << 12) & ~(size - 1)) | within), "check: at the page"),
                ]
        with m.If(age[5]):
            m.d.comb += Assert(~reply.valid | dut.was_second, "check: no other reply")
        with m.If(age[5] & dut.was_second):
            m.d.comb += [
                Assert(reply.valid & granted & reply.p.last, "check: the second burst follows"),
                Assert((reply.p.length != 0) & (total == ask.length), "check: two bursts are the whole"),
                Assert(seen.page_log2 != 0, "check: two bursts only of a list"),
            ]
            with m.If(listed_size):
                m.d.comb += [
                    Assert(index + 1 < seen.pages, "check: a second page of the region"),
                    Assert(next_read == (listed + 1)[:_CONFIG.page_bits], "check: that page is looked up"),
                    Assert(reply.p.length <= size, "check: within the second page"),
                    Assert(reply.p.address == ((second_page << 12) & ~(size - 1)), "check: at the second page"),
                ]

        m.d.comb += [
            Cover(age[4] & granted & (ask.op == AccessOp.GRANT) & (seen.page_log2 == 0) & (seen.base > 1)
                  & (stop == seen.end) & (ask.length > 1), "check: granted to the very end"),
            Cover(age[5] & reply.valid & (ask.length == 4096), "check: two bursts"),
            Cover(age[4] & granted & (ask.op == AccessOp.INVALIDATE), "check: invalidated"),
            *(Cover(age[4] & (reply.p.refusal == refusal), f"check: refused, {refusal.name}")
              for refusal in Refusal if refusal is not Refusal.NONE),
        ]
        return m


class TableProof(wiring.Component):
    """:class:`RegionTable` with commands that may be anything.

    When an entry is written, the command obeys every rule of REG_MR, the slot held no valid entry, and the entry is
    the command in the unit's terms: end = base + length, bias = address - base. A host's INVALIDATE strikes only a valid
    entry with all 32 bits of its STag.
    """

    def __init__(self, *, table=RegionTable):
        self.table = table(_CONFIG)
        super().__init__(self.table.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.table
        connect(m, flipped(self.update), dut.update)
        connect(m, dut.result, flipped(self.result))
        m.d.comb += [getattr(dut, name).eq(getattr(self, name)) for name in ("slot", "kill", "kill_slot", "quiet")]
        m.submodules.assume_update = StreamContract.watch(m, dut.update, check=Assume)
        m.submodules.assert_result = StreamContract.watch(m, dut.result, check=Assert)
        m.d.comb += Assume(~(dut.kill & dut.quiet))        # of AccessCheck: proved there
        quiet_before, busy_before = Signal(), Signal()
        m.d.sync += [quiet_before.eq(dut.quiet), busy_before.eq(dut.busy)]
        with m.If(quiet_before & busy_before):
            m.d.comb += Assume(dut.quiet)                  # for no request is taken while the table is busy

        mr = dut.update.p.mr
        paged, top, size, span, fine = Signal(), Signal(66), Signal(31), Signal(66), Signal()
        m.d.comb += [
            paged.eq(mr.page_log2 != 0),
            top.eq(mr.address + mr.length),
            size.eq(1 << mr.page_log2[:5]),
            span.eq(mr.pages[:_CONFIG.page_bits + 1] << mr.page_log2[:5]),
            fine.eq((mr.length != 0) & (mr.length <= 1 << 45) & (mr.base + mr.length <= 1 << 64)
                    & Mux(paged,
                          (mr.page_log2 >= 12) & (mr.page_log2 <= 30) & (mr.address < size) & (top <= span)
                          & (mr.first_page + mr.pages <= _CONFIG.pages),
                          top <= 1 << 64)
                    & ((mr.base == 0) | ~mr.access[_ZERO_BASED])),
        ]
        m.d.comb += Assert(~dut.scrubbing | (dut.step == 0), "table: nothing is registered while it is cleared")
        # Step by step, so that each is a small question.
        work, step = dut.work, dut.step
        with m.If((step != 0) & (step <= 7)):
            m.d.comb += Assert(dut.update.valid)
            m.d.comb += [Assert(same, "table: step 1") for same in (
                work.end_low == mr.base[:32] + mr.length[:32],
                work.top_low == mr.address[:32] + mr.length[:32],
                work.bias_low == (mr.address[:32] - mr.base[:32])[:33],
                work.span == (mr.pages[:_CONFIG.page_bits + 1] << mr.page_log2[:5])[:len(work.span)],
                work.outside == (mr.first_page + mr.pages > _CONFIG.pages),
                work.bad_size == (paged & ((mr.page_log2 < 12) | (mr.page_log2 > 30))),
                work.bad_length == ((mr.length == 0) | (mr.length > 1 << 45)),
                (mr.page_log2 > 30) | (work.bad_offset == (mr.address >= size)),
            )]
        with m.If((step >= 2) & (step <= 7)):
            m.d.comb += [Assert(same, "table: step 2") for same in (
                work.end == mr.base + mr.length,
                work.top == mr.address + mr.length,
                work.bias == (mr.address - mr.base)[:64],
            )]
        with m.If((step >= 3) & (step <= 7)):
            m.d.comb += Assert((work.short_high | (work.equal_high & work.short_low)) == (work.span < work.top),
                               "table: step 3")
        with m.If((step >= 4) & (step <= 6)):
            m.d.comb += Assert((work.status == abi.Status.OK) == fine, "table: OK for what is right, and only that")

        # The slot, as memory has it when it is written. That exactly `work` and the command get there: MemoryProof.
        entry, state = dut.entries.read_port(domain="comb"), dut.states.read_port(domain="comb")
        registers = dut.write & (dut.update.p.op == TableOp.REGISTER)
        invalidates = dut.write & (dut.update.p.op == TableOp.INVALIDATE)
        m.d.comb += [entry.addr.eq(mr.stag[8:8 + _CONFIG.region_bits]), state.addr.eq(entry.addr)]
        with m.If(registers):
            m.d.comb += Assert((step == 6) & fine, "table: written only if it is right")
            m.d.comb += Assert(state.data != RegionState.VALID, "table: no valid entry is overwritten")
        with m.If(invalidates):
            m.d.comb += Assert((state.data == RegionState.VALID) & (entry.data.stag == mr.stag),
                               "table: the host invalidates what it names")
        m.d.comb += [
            Cover(registers & (mr.page_log2 > 12), "table: a page list is registered"),
            Cover(dut.result.valid & (dut.result.p.status == abi.Status.BAD_ADDRESS), "table: refused"),
            Cover(invalidates, "table: invalidated"),
        ]
        return m


class MemoryProof(wiring.Component):
    """The whole unit; follows one slot and one page entry, chosen by the solver, in flip-flops beside the memories.

    Whatever requests, updates, invalidations and stalls come: the entry that a request sees is the whole of the one
    that was there when it was taken, the page it gets is the one the host wrote, and no reply meets a full queue.
    """

    def __init__(self, *, check=AccessCheck, table=RegionTable):
        self.protect = Protect(_CONFIG, check=check, table=table)
        super().__init__(self.protect.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.protect
        table, check = dut.regions, dut.check
        for name in ("access", "table", "pages"):
            connect(m, flipped(getattr(self, name)), getattr(dut, name))
            setattr(m.submodules, f"assume_{name}", StreamContract.watch(m, getattr(dut, name), check=Assume))
        for name in ("granted", "table_result"):
            connect(m, getattr(dut, name), flipped(getattr(self, name)))
        region_bits = _CONFIG.region_bits

        # A reset of the design doesn't clear memories, so nor does it these.
        chosen, entry, state = Signal(region_bits), Signal(RegionEntry(_CONFIG), reset_less=True), Signal(
            RegionState, reset_less=True)
        mr = table.update.p.mr
        m.d.comb += chosen.eq(AnyConst(region_bits))
        with m.If(table.write & (mr.stag[8:8 + region_bits] == chosen)):
            with m.If(table.update.p.op == TableOp.REGISTER):
                m.d.sync += [
                    state.eq(RegionState.VALID),
                    *(entry[f].eq(mr[f]) for f in ("stag", "pd", "access", "base", "page_log2", "first_page", "pages")),
                    entry.end.eq(table.work.end), entry.bias.eq(table.work.bias),
                ]
            with m.Else():
                m.d.sync += state.eq(RegionState.INVALID)
        with m.If(table.kill & (table.kill_slot == chosen)):
            m.d.sync += state.eq(RegionState.INVALID)
        # But every slot is emptied behind a reset, before anyone looks.
        with m.If(table.scrubbing & (table.state_write.addr == chosen)):
            m.d.sync += state.eq(RegionState.EMPTY)
        registered = Signal()                    # since the reset
        with m.If(table.write & (table.update.p.op == TableOp.REGISTER) & (mr.stag[8:8 + region_bits] == chosen)):
            m.d.sync += registered.eq(1)
        m.d.comb += [
            Assert((state != RegionState.VALID) | registered | (table.scrubbing & (table.state_write.addr <= chosen)),
                   "memory: no region of before the reset"),
            Assert(~table.scrubbing | ((table.step == 0) & ~table.kill & (check.valids == 0)),
                   "memory: nobody uses it while it is cleared"),
        ]
        entry_peek, state_peek = table.entries.read_port(domain="comb"), table.states.read_port(domain="comb")
        m.d.comb += [
            entry_peek.addr.eq(chosen), state_peek.addr.eq(chosen),
            Assert(state_peek.data == state, "memory: state agrees"),
            Assert(entry_peek.data == entry, "memory: entry agrees"),
            Assert(~(table.kill & (table.write | table.quiet)), "memory: one writer at a time"),
            Assert(~(table.busy & dut.access.ready), "memory: no request while the table is in use"),
        ]
        page_slot, page = Signal(_CONFIG.page_bits), Signal(52, reset_less=True)
        page_peek = dut.page_list.read_port(domain="comb")
        m.d.comb += [page_slot.eq(AnyConst(_CONFIG.page_bits)), page_peek.addr.eq(page_slot),
                     Assert(page_peek.data == page, "memory: page agrees")]
        with m.If(dut.pages.valid & dut.pages.ready & (dut.pages.p.index == page_slot)):
            m.d.sync += page.eq(dut.pages.p.address[12:])

        # What the check gets, in the cycle after it has asked.
        taken, asked, about = Signal(), Signal(), Signal()
        then_entry, then_state, then_page = Signal.like(entry), Signal(RegionState), Signal(52)
        about_page = Signal()
        m.d.comb += taken.eq(dut.access.valid & dut.access.ready)
        m.d.sync += [
            asked.eq(taken), about.eq(dut.access.p.stag[8:8 + region_bits] == chosen),
            then_entry.eq(entry), then_state.eq(state),
            about_page.eq(check.page_slot == page_slot), then_page.eq(page),
        ]
        m.d.comb += Assert(asked == check.valids[0], "memory: a question a request")
        with m.If(asked & about):
            m.d.comb += Assert((check.entry == then_entry) & (check.state == then_state),
                               "memory: the entry of its taking, whole")
        with m.If(about_page):
            m.d.comb += Assert(check.page == then_page, "memory: the page as the host wrote it")

        # Replies never overflow their queue.
        there, pending = Signal(5), Signal(range(32))
        m.d.sync += there.eq(Cat(taken, there)[:5])
        m.d.comb += [
            Assert(there == check.valids),
            pending.eq(sum((there[n] << 1 for n in range(4)), Const(0)) + check.reply.valid + check.second),
            Assert(dut.replies.level + pending <= 14, "memory: room for every reply"),
            Assert((there & (there >> 1)) == 0, "memory: a request every other cycle"),
            Assert(~check.second | (check.reply.valid & there[4])),
            Assert(~check.reply.valid | there[4] | check.was_second),
            Assert(~check.was_second | ~there[4]),
        ]
        with m.If(check.reply.valid):
            m.d.comb += Assert(dut.replies.i.ready, "memory: the queue takes every reply")
        m.d.comb += Cover(asked & about & (then_state == RegionState.VALID), "memory: a valid entry is seen")
        m.d.comb += Cover(table.kill & (state == RegionState.VALID), "memory: the peer invalidates")
        return m


_CHECK_MUTANTS = [
    Mutation("one octet past the end", AccessCheck, "low_beyond3.eq(stop_low2[:32] > entry2.end[:32])",
             "low_beyond3.eq(stop_low2[:32] > entry2.end[:32] + 1)"),
    Mutation("carry of the sum lost", AccessCheck, "q2.offset[32:] + stop_low2[32]", "q2.offset[32:]"),
    Mutation("one octet before the base", AccessCheck, "low_below3.eq(q2.offset[:32] < entry2.base[:32])",
             "low_below3.eq(q2.offset[:32] + 1 < entry2.base[:32])"),
    Mutation("any one right is enough", AccessCheck, "q2.right.any() & ~(q2.right & ~entry2.access).any()",
             "(q2.right & entry2.access).any()"),
    Mutation("key not compared", AccessCheck, "same_stag.eq(entry2.stag == q2.stag)",
             "same_stag.eq(entry2.stag[8:] == q2.stag[8:])"),
    Mutation("invalid entry grants", AccessCheck, "(revoking & (state2 == RegionState.INVALID))",
             "(state2 == RegionState.INVALID)"),
    Mutation("domain not compared", AccessCheck, "with m.Elif(~pd4):", "with m.Elif(0):"),
    Mutation("wrap not seen", AccessCheck, "with m.Elif(wrap4):", "with m.Elif(0):"),
    Mutation("burst past a page's end", AccessCheck, "(reach > GRANT_LIMIT)", "(reach > GRANT_LIMIT + 1)"),
    Mutation("page past the list", AccessCheck, "page_off.eq(index4 + 1 >= pages4)", "page_off.eq(index4 >= pages4)"),
    Mutation("request overtakes an invalidation", AccessCheck, "self.room & ~self.blocked & self.quiet",
             "self.room & ~self.blocked"),
]

_TABLE_MUTANTS = [
    Mutation("borrow lost", RegionTable, "- mr.base[32:] - work.bias_low[32]", "- mr.base[32:]"),
    Mutation("key not compared", RegionTable, "& (old_stag == stag)", "& (old_stag[8:] == stag[8:])"),
    Mutation("valid entry overwritten", RegionTable, "with m.If(old_state == RegionState.VALID):", "with m.If(0):"),
    Mutation("list one page short", RegionTable, "work.span[:24] < work.top[:24]",
             "work.span[:24] + 4096 < work.top[:24]"),
    Mutation("region may wrap", RegionTable, "work.bad_length | (work.end[64] & work.end[:64].any())", "work.bad_length"),
]

_MEMORY_MUTANTS = [
    Mutation("an entry is written in two steps", RegionTable, "entry_write.data.pd.eq(mr.pd)",
             "entry_write.data.pd.eq(old_stag)"),
    Mutation("table reads while requests do", AccessCheck, "self.room & ~self.blocked & self.quiet",
             "self.room & self.quiet"),
    Mutation("a slot isn't cleared", RegionTable, "state_write, config.regions)", "state_write, config.regions - 1)"),
    Mutation("requests taken without room", AccessCheck, "self.room & ~self.blocked & self.quiet",
             "~self.blocked & self.quiet"),
]

PROTECT_PROOFS = [
    Proof("protect, check", CheckProof, 7, 9, {AccessCheck: "check"}, _CHECK_MUTANTS, mutant_depth=8),
    Proof("protect, table", TableProof, 3, 22, {RegionTable: "table"}, _TABLE_MUTANTS, mutant_mode="prove"),
    Proof("protect, memory", MemoryProof, 3, 18, {AccessCheck: "check", RegionTable: "table"}, _MEMORY_MUTANTS,
          mutant_mode="prove"),
]
