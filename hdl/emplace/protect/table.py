"""The table of registered regions, and registration."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..stream.scrub import scrub
from .entry import LENGTH_LIMIT, PAGE_LOG2_MAX, PAGE_LOG2_MIN, RegionEntry, RegionState
from .records import TableOp, TableResult, TableUpdate

__all__ = ["RegionTable"]

_ZERO_BASED = abi.Access.ZERO_BASED.value.bit_length() - 1


class _Work(data.StructLayout):
    """What a registration has worked out so far, and the status."""

    def __init__(self, config):
        super().__init__({
            "end": 65, "end_low": 33,
            "top": 65, "top_low": 33,      # end of the block, or of what is used of the last page
            "bias": 64, "bias_low": 33,
            "span": config.page_bits + 1 + PAGE_LOG2_MAX,      # bytes that the page list covers
            "short_low": 1, "short_high": 1, "equal_high": 1,  # span against top
            "bad_length": 1, "bad_size": 1, "outside": 1, "bad_offset": 1,
            "status": 8,
        })


class RegionTable(wiring.Component):
    """Registers and invalidates regions, and shows the checks one entry a cycle.

    An entry is written in one cycle, so that a reader sees all of the old one or all of the new one.
    Nothing is written unless every check holds.

    An update takes about 10 cycles, of which the table is busy in 3 and more only while an
    INVALIDATE of the peer is on its way. Behind a reset it is busy until all slots are EMPTY.

    Members
    -------
    update : ``In(stream.Signature(TableUpdate()))``
    result : ``Out(stream.Signature(TableResult))``
        One an update; offered once the update has been taken, in effect from then on.
    slot : ``In(region_bits)``
        Entry to read.
    entry, state : ``Out(RegionEntry)``, ``Out(RegionState)``
        That of the last cycle's ``slot``.
    busy : ``Out(1)``
        ``slot`` isn't looked at.
    kill : ``In(1)``
        Strobe: slot ``kill_slot`` becomes INVALID. Never while ``quiet`` is high.
    kill_slot : ``In(region_bits)``
    quiet : ``In(1)``
        No ``kill`` comes, for as long as ``busy`` is high.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "update":    In(stream.Signature(TableUpdate())),
            "result":    Out(stream.Signature(TableResult)),
            "slot":      In(config.region_bits),
            "entry":     Out(RegionEntry(config)),
            "state":     Out(RegionState),
            "busy":      Out(1),
            "kill":      In(1),
            "kill_slot": In(config.region_bits),
            "quiet":     In(1),
        })
        # Public to the proof only.
        self.entries = memory.Memory(shape=RegionEntry(config), depth=config.regions, init=[])
        self.states = memory.Memory(shape=RegionState, depth=config.regions, init=[])
        self.state_write = self.states.write_port()
        self.scrubbing = Signal()
        self.write = Signal()
        self.step = Signal(range(9))     # number of the FSM's state, in their order
        self.work = Signal(_Work(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        mr = self.update.p.mr

        m.submodules.entries = self.entries
        m.submodules.states = self.states
        entry_write, entry_read = self.entries.write_port(), self.entries.read_port()
        state_write, state_read = self.state_write, self.states.read_port()
        m.d.comb += [self.entry.eq(entry_read.data), self.state.eq(state_read.data), self.busy.eq(self.scrubbing)]

        # What an entry holds beside the command's fields, in two steps of 32 bits each.
        work = self.work
        size_bits = config.page_bits + 1
        page_mask, paged = Signal(PAGE_LOG2_MAX), Signal()
        m.d.comb += [
            paged.eq(mr.page_log2 != 0),
            page_mask.eq(Cat(mr.page_log2 > n for n in range(PAGE_LOG2_MAX))),
        ]

        stag, old_stag, old_state = Signal(32), Signal(32), Signal(RegionState)
        mine, own_slot = Signal(), Signal(config.region_bits)
        m.d.comb += [
            stag.eq(mr.stag),
            own_slot.eq(stag[8:8 + config.region_bits]),
            entry_read.addr.eq(Mux(self.busy, own_slot, self.slot)),
            state_read.addr.eq(entry_read.addr),
            entry_write.addr.eq(own_slot),
            entry_write.data.stag.eq(stag),
            entry_write.data.pd.eq(mr.pd),
            entry_write.data.access.eq(mr.access),
            entry_write.data.base.eq(mr.base),
            entry_write.data.end.eq(work.end),
            entry_write.data.bias.eq(work.bias),
            entry_write.data.page_log2.eq(mr.page_log2),
            entry_write.data.first_page.eq(mr.first_page),
            entry_write.data.pages.eq(mr.pages),
            mine.eq((old_state == RegionState.VALID) & (old_stag == stag)),
            state_write.addr.eq(own_slot),
            state_write.data.eq(RegionState.INVALID),
            state_write.en.eq(self.write | self.kill),
        ]
        with m.If(self.kill):
            m.d.comb += state_write.addr.eq(self.kill_slot)

        with m.FSM(name="registration"):
            with m.State("IDLE"):              # waits until all is clear, and for an update
                m.d.comb += self.step.eq(0)
                m.d.sync += [
                    work.end_low.eq(mr.base[:32] + mr.length[:32]),
                    work.top_low.eq(mr.address[:32] + mr.length[:32]),
                    work.bias_low.eq(mr.address[:32] - mr.base[:32]),
                    work.span.eq(mr.pages[:size_bits] << mr.page_log2[:5]),
                    work.outside.eq(mr.pages[size_bits:].any() | mr.first_page[size_bits:].any()
                                    | (mr.pages[:size_bits] + mr.first_page[:size_bits] > config.pages)),
                    work.bad_size.eq(paged & ((mr.page_log2 < PAGE_LOG2_MIN) | (mr.page_log2 > PAGE_LOG2_MAX))),
                    work.bad_length.eq((mr.length == 0) | (mr.length > LENGTH_LIMIT)),
                    work.bad_offset.eq((mr.address[:PAGE_LOG2_MAX] & ~page_mask).any()
                                       | mr.address[PAGE_LOG2_MAX:].any()),
                ]
                with m.If(self.update.valid & ~self.scrubbing):
                    m.next = "HIGH"
            with m.State("HIGH"):              # the upper halves of the sums
                m.d.comb += self.step.eq(1)
                m.d.sync += [
                    work.end.eq(Cat(work.end_low[:32], mr.base[32:] + mr.length[32:] + work.end_low[32])),
                    work.top.eq(Cat(work.top_low[:32], mr.address[32:] + mr.length[32:] + work.top_low[32])),
                    work.bias.eq(Cat(work.bias_low[:32], (mr.address[32:] - mr.base[32:] - work.bias_low[32])[:32])),
                ]
                m.next = "COVER"
            with m.State("COVER"):             # compares the page list's bytes with what is needed
                m.d.comb += self.step.eq(2)
                m.d.sync += [
                    work.short_low.eq(work.span[:24] < work.top[:24]),
                    work.short_high.eq(work.span[24:] < work.top[24:]),
                    work.equal_high.eq(work.span[24:] == work.top[24:]),
                ]
                m.next = "JUDGE"
            with m.State("JUDGE"):             # the checks that need only the command
                m.d.comb += self.step.eq(3)
                with m.If(work.bad_length | (work.end[64] & work.end[:64].any())):
                    m.d.sync += work.status.eq(abi.Status.BAD_LENGTH)
                with m.Elif(work.bad_size):
                    m.d.sync += work.status.eq(abi.Status.BAD_SIZE)
                with m.Elif(paged & (work.outside | work.short_high | (work.equal_high & work.short_low))):
                    m.d.sync += work.status.eq(abi.Status.BAD_PAGES)
                with m.Elif((paged & work.bad_offset) | (~paged & work.top[64] & work.top[:64].any())
                            | (mr.access[_ZERO_BASED] & (mr.base != 0))):
                    m.d.sync += work.status.eq(abi.Status.BAD_ADDRESS)
                with m.Else():
                    m.d.sync += work.status.eq(abi.Status.OK)
                m.next = "CLAIM"
            with m.State("CLAIM"):             # keeps requests out, waits for a peer's INVALIDATE on its way
                m.d.comb += self.step.eq(4)
                m.d.comb += self.busy.eq(1)
                with m.If(self.quiet):
                    m.next = "READ"
            with m.State("READ"):              # the slot's entry comes out of memory
                m.d.comb += self.step.eq(5)
                m.d.comb += self.busy.eq(1)
                m.d.sync += [old_stag.eq(self.entry.stag), old_state.eq(self.state)]
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.step.eq(6)
                m.d.comb += self.busy.eq(1)
                with m.If(self.update.p.op == TableOp.REGISTER):
                    m.d.comb += state_write.data.eq(RegionState.VALID)
                    with m.If(old_state == RegionState.VALID):
                        m.d.sync += work.status.eq(abi.Status.BAD_STAG)
                    with m.Elif(work.status == abi.Status.OK):
                        m.d.comb += [self.write.eq(1), entry_write.en.eq(1)]
                with m.Else():
                    m.d.sync += work.status.eq(Mux(mine, abi.Status.OK, abi.Status.BAD_STAG))
                    m.d.comb += self.write.eq(mine)
                m.next = "DONE"
            with m.State("DONE"):              # takes the update before its result, so that one may wait for the other
                m.d.comb += self.step.eq(7)
                m.d.comb += self.update.ready.eq(1)
                m.next = "RESULT"
            with m.State("RESULT"):            # waits for the result to be taken
                m.d.comb += self.step.eq(8)
                m.d.comb += [self.result.valid.eq(1), self.result.p.status.eq(work.status)]
                with m.If(self.result.ready):
                    m.next = "IDLE"

        m.d.comb += self.scrubbing.eq(scrub(m, state_write, config.regions))
        return m
