"""The checks of an access, and its physical bursts."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from .entry import PAGE_LOG2_MAX, PAGE_LOG2_MIN, RegionEntry, RegionState
from .records import AccessOp, AccessReply, AccessRequest, Outcome, Refusal

__all__ = ["GRANT_LIMIT", "AccessCheck"]

#: Longest access that GRANT takes, octets: at most two bursts.
GRANT_LIMIT = 4096
#: Bits of a distance within a region: 2**45 octets, and where they begin in a first page of 2**30.
_PLACE_BITS = 47


class _Question(data.StructLayout):
    """What goes down the pipeline with a request (AccessRequest's fields)."""

    def __init__(self):
        super().__init__({"op": AccessOp, "stag": 32, "pd": 16, "offset": 64, "length": 32, "right": 8})


class AccessCheck(wiring.Component):
    """Judges a request against its slot's entry and names the physical bursts.

    The checks, first failure told: STAG, PD, ACCESS, WRAP, BOUNDS, PAGE (protocol stages T, Q and I).
    BOUNDS is also what GRANT of no octet, or of more than 4096, and CHECK of no octet get.
    PAGE can't happen while the table checks what it registers: it keeps a fault there from becoming
    an address.

    Throughput: a request every 2 cycles; behind an INVALIDATE, 6. Latency: a reply 5 cycles after
    its request, the second burst's one later. The pipeline never stands still: requests are taken
    only while ``room`` is high, so whoever takes the replies must have room for 8 then.

    Members
    -------
    access : ``In(stream.Signature(AccessRequest(config)))``
    reply : ``Out(stream.Signature(AccessReply(), always_ready=True))``
    room : ``In(1)``
    blocked : ``In(1)``
        The table is in use.
    slot, entry, state : the table's read port
    kill, kill_slot : strobe, the slot becomes invalid
    quiet : ``Out(1)``
        No INVALIDATE on its way.
    page_slot, page : ``Out(page_bits)``, ``In(52)``
        Read port of the page list: ``page`` is that of the last cycle's ``page_slot``.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "access":    In(stream.Signature(AccessRequest(config))),
            "reply":     Out(stream.Signature(AccessReply(), always_ready=True)),
            "room":      In(1),
            "blocked":   In(1),
            "slot":      Out(config.region_bits),
            "entry":     In(RegionEntry(config)),
            "state":     In(RegionState),
            "kill":      Out(1),
            "kill_slot": Out(config.region_bits),
            "quiet":     Out(1),
            "page_slot": Out(config.page_bits),
            "page":      In(52),
        })
        # Public to the proof only: each stage's question, and whether there is one. Stage 1 waits for
        # the entry, 2 has it, 3 has the lower sums, 4 all facts, 5 the verdict; a second burst comes a cycle later.
        self.questions = [Signal(_Question(), name=f"question{n}") for n in range(1, 6)]
        self.valids = Signal(5)
        self.second, self.was_second = Signal(), Signal()

    def elaborate(self, platform):
        m = Module()
        config = self.config
        q1, q2, q3, q4, q5 = self.questions

        # Taking. Odd cycles are for second bursts. An INVALIDATE must have its effect before the
        # next request looks.
        take = Signal()
        m.d.comb += [
            self.quiet.eq(~Cat(v & (q.op == AccessOp.INVALIDATE)
                               for v, q in zip(self.valids, self.questions, strict=True)).any()),
            self.access.ready.eq(self.room & ~self.blocked & self.quiet & ~self.valids[0]),
            take.eq(self.access.valid & self.access.ready),
            self.slot.eq(self.access.p.stag[8:8 + config.region_bits]),
        ]
        m.d.sync += [
            self.valids.eq(Cat(take, self.valids)[:5]),
            *(q1[name].eq(self.access.p[name]) for name in ("op", "stag", "pd", "offset", "length", "right")),
            q2.eq(q1), q3.eq(q2), q4.eq(q3), q5.eq(q4),
        ]

        # 1: the entry arrives; the request's end, lower half.
        entry2, state2, stop_low2 = Signal(RegionEntry(config)), Signal(RegionState), Signal(33)
        m.d.sync += [
            entry2.eq(self.entry), state2.eq(self.state), stop_low2.eq(q1.offset[:32] + q1.length),
        ]

        # 2: everything whose operands are there.
        stop3 = Signal(65)
        place3, rest3, bias_rest3 = Signal(_PLACE_BITS + 1), Signal(64 - _PLACE_BITS), Signal(64 - _PLACE_BITS)
        stag3, pd3, access3, size3 = Signal(), Signal(), Signal(), Signal()
        low_below3, high_below3, high_same3, low_beyond3 = Signal(), Signal(), Signal(), Signal()
        end_high3 = Signal(33)
        page_log2_3, first_page3, pages3 = (Signal.like(entry2[f], name=f"{f}3")
                                            for f in ("page_log2", "first_page", "pages"))
        same_stag, revoking = Signal(), Signal()
        revoke_bit = abi.Access.REMOTE_INVALIDATE.value.bit_length() - 1
        m.d.comb += [
            same_stag.eq(entry2.stag == q2.stag),
            revoking.eq(q2.op == AccessOp.INVALIDATE),
        ]
        m.d.sync += [
            stop3.eq(Cat(stop_low2[:32], q2.offset[32:] + stop_low2[32])),
            place3.eq(q2.offset[:_PLACE_BITS] + entry2.bias[:_PLACE_BITS]),
            rest3.eq(q2.offset[_PLACE_BITS:]),
            bias_rest3.eq(entry2.bias[_PLACE_BITS:]),
            stag3.eq(same_stag & ((state2 == RegionState.VALID) | (revoking & (state2 == RegionState.INVALID)))),
            pd3.eq(entry2.pd == q2.pd),
            access3.eq(Mux(revoking, entry2.access[revoke_bit],
                           q2.right.any() & ~(q2.right & ~entry2.access).any())),
            size3.eq(q2.length.any() & ((q2.op != AccessOp.GRANT) | (q2.length <= GRANT_LIMIT))),
            low_below3.eq(q2.offset[:32] < entry2.base[:32]),
            high_below3.eq(q2.offset[32:] < entry2.base[32:]),
            high_same3.eq(q2.offset[32:] == entry2.base[32:]),
            low_beyond3.eq(stop_low2[:32] > entry2.end[:32]),
            end_high3.eq(entry2.end[32:]),
            page_log2_3.eq(entry2.page_log2), first_page3.eq(entry2.first_page), pages3.eq(entry2.pages),
        ]

        # 3: compares' upper halves; the page's number in the region and in card memory.
        index_bits = _PLACE_BITS - PAGE_LOG2_MIN
        in_page_bits = PAGE_LOG2_MAX - PAGE_LOG2_MIN
        index, shift, reach = Signal(index_bits), Signal(5), Signal(14)
        upper = Signal(in_page_bits)             # ones above the page's size
        here = Signal(config.page_bits)
        m.d.comb += [
            shift.eq(page_log2_3 - PAGE_LOG2_MIN),
            index.eq(place3[PAGE_LOG2_MIN:_PLACE_BITS] >> shift),
            upper.eq(Cat(shift <= n for n in range(in_page_bits))),
            reach.eq(place3[:PAGE_LOG2_MIN] + q3.length[:13]),
            here.eq(first_page3 + index),
        ]
        paged4, over4, index4, address4 = Signal(), Signal(), Signal(index_bits), Signal(64)
        upper4, next4, pages4, reach4 = Signal(in_page_bits), Signal(config.page_bits), Signal.like(pages3), Signal(12)
        stag4, pd4, access4, size4, wrap4, below4, beyond4 = (
            Signal(name=n) for n in ("stag4", "pd4", "access4", "size4", "wrap4", "below4", "beyond4"))
        m.d.sync += [
            stag4.eq(stag3), pd4.eq(pd3), access4.eq(access3), size4.eq(size3), pages4.eq(pages3),
            wrap4.eq(stop3[64] & stop3[:64].any()),
            below4.eq(high_below3 | (high_same3 & low_below3)),
            beyond4.eq((stop3[32:] > end_high3) | ((stop3[32:] == end_high3) & low_beyond3)),
            address4.eq(Cat(place3[:_PLACE_BITS], rest3 + bias_rest3 + place3[_PLACE_BITS])),
            paged4.eq(page_log2_3 != 0),
            over4.eq((page_log2_3 != 0) & (reach > GRANT_LIMIT)
                     & (place3[PAGE_LOG2_MIN:PAGE_LOG2_MAX] | upper).all()),
            reach4.eq(reach),
            upper4.eq(upper), index4.eq(index), next4.eq(here + 1),
        ]
        # The second page is read in the cycle after the first; the next request is a cycle behind.
        m.d.comb += self.page_slot.eq(Mux(self.valids[2], here, next4))

        # 4: the verdict, and the first burst.
        refusal, granting, page_off = Signal(Refusal), Signal(), Signal()
        with m.If(over4):
            m.d.comb += page_off.eq(index4 + 1 >= pages4)
        with m.Else():
            m.d.comb += page_off.eq(index4 >= pages4)
        m.d.comb += granting.eq(q4.op == AccessOp.GRANT)
        revoking4 = Signal()
        m.d.comb += revoking4.eq(q4.op == AccessOp.INVALIDATE)
        with m.If(~stag4):
            m.d.comb += refusal.eq(Refusal.STAG)
        with m.Elif(~pd4):
            m.d.comb += refusal.eq(Refusal.PD)
        with m.Elif(~access4):
            m.d.comb += refusal.eq(Refusal.ACCESS)
        with m.Elif(revoking4):
            m.d.comb += refusal.eq(Refusal.NONE)
        with m.Elif(wrap4):
            m.d.comb += refusal.eq(Refusal.WRAP)
        with m.Elif(below4 | beyond4 | ~size4):
            m.d.comb += refusal.eq(Refusal.BOUNDS)
        with m.Elif(granting & paged4 & page_off):
            m.d.comb += refusal.eq(Refusal.PAGE)

        reply, remainder, kill = self.reply, Signal(12), Signal()
        whole, physical = Signal(), Signal(64)
        m.d.comb += [
            whole.eq(~(over4 & granting & (refusal == Refusal.NONE))),
            physical.eq(address4),
        ]
        with m.If(paged4):                       # a page is aligned to its size: nothing to add
            m.d.comb += physical[PAGE_LOG2_MIN:].eq(Cat(
                (self.page[:in_page_bits] & upper4) | (address4[PAGE_LOG2_MIN:PAGE_LOG2_MAX] & ~upper4),
                self.page[in_page_bits:]))
        upper5 = Signal(in_page_bits)
        m.d.sync += [
            reply.valid.eq(self.valids[3]),
            reply.p.outcome.eq(Mux(refusal == Refusal.NONE, Outcome.GRANTED, Outcome.REFUSED)),
            reply.p.refusal.eq(refusal),
            reply.p.address.eq(physical),
            reply.p.length.eq(Mux(whole, q4.length[:13], GRANT_LIMIT - address4[:PAGE_LOG2_MIN])),
            reply.p.last.eq(whole),
            self.second.eq(self.valids[3] & ~whole), self.was_second.eq(self.second),
            remainder.eq(reach4), upper5.eq(upper4),
            kill.eq(self.valids[3] & revoking4 & (refusal == Refusal.NONE)),
        ]
        m.d.comb += [self.kill.eq(kill), self.kill_slot.eq(q5.stag[8:8 + config.region_bits])]

        # 5: the second burst, from the start of the next page.
        with m.If(self.second):
            m.d.sync += [
                reply.valid.eq(1),
                reply.p.outcome.eq(Outcome.GRANTED),
                reply.p.refusal.eq(Refusal.NONE),
                reply.p.address.eq(Cat(Const(0, PAGE_LOG2_MIN), self.page[:in_page_bits] & upper5,
                                       self.page[in_page_bits:])),
                reply.p.length.eq(remainder),
                reply.p.last.eq(1),
            ]

        return m
