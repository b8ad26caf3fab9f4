"""Queue between clock domains: the stream contract, nothing lost, and packets leave whole."""

from amaranth.hdl import (
    Assert,
    Assume,
    ClockDomain,
    ClockSignal,
    Cover,
    EnableInserter,
    Module,
    Mux,
    ResetSignal,
    Signal,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from emplace.stream.clock import AsyncPacketQueue
from emplace.stream.packet import PacketSignature

from .base import Mutation, Proof
from .contract import StreamContract
from .tracker import ByteTracker, Run, well_formed

__all__ = ["CLOCK_PROOFS", "AsyncQueueProof"]

_DEPTH = 8


class AsyncQueueProof(wiring.Component):
    """Of :class:`AsyncPacketQueue`, 8 words of 2 bytes.

    In every step one of the two clocks ticks, or both, as the solver likes: any ratio and phase, drifting, stopped.
    (Metastability is no subject of this: what crosses changes by one bit at a time.) Bounded: from the initial state,
    without later resets.

    - Contract at ``o``, at the reader's ticks; every byte of what is taken comes out once, in order, in its packet.
    - A packet's first word is offered only when its last one is inside, or as many words as make the queue full; in
      the first case it leaves without a gap.
    - With ``drop_when_full`` a packet that meets a full queue gives nothing, or if it has begun, ends with ``err``.
    """

    def __init__(self, drop, queue=AsyncPacketQueue):
        self.drop = drop
        self.dut = queue(2, _DEPTH, i_domain="write", o_domain="read", drop_when_full=drop)
        super().__init__({"i": In(PacketSignature(2)), "o": Out(PacketSignature(2)), "ticks": In(2)})

    def elaborate(self, platform):
        m = Module()
        dut, i, o = self.dut, self.dut.i, self.dut.o
        i_tick, o_tick = self.ticks
        for name in ("write", "read"):
            m.domains += ClockDomain(name, reset_less=True)
            m.d.comb += ClockSignal(name).eq(ClockSignal())
        m.d.comb += [Assume(~ResetSignal()), Assume(self.ticks != 0)]
        m.submodules.dut = EnableInserter({"write": i_tick, "read": o_tick})(dut)
        connect(m, flipped(self.i), i)
        connect(m, o, flipped(self.o))
        for name, port, check, tick in (("assume_i", i, Assume, i_tick), ("assert_o", o, Assert, o_tick)):
            m.submodules[name] = EnableInserter(tick)(StreamContract.watch(m, port, check=check))
            well_formed(m, port, check)

        taken, given = Signal(), Signal()
        m.d.comb += [taken.eq(i.valid & i.ready & i_tick), given.eq(o.valid & o.ready & o_tick)]
        run, keep = Run.of(i.p, 2), taken
        if self.drop:
            begun, spoiled, cut = Signal(), Signal(), Signal()
            m.d.comb += [
                Assert(i.ready, "async queue: always ready"), Assert(~dut.overflow | (i.valid & ~spoiled)),
                cut.eq(dut.overflow & begun),
            ]
            keep = taken & ~spoiled & (~dut.overflow | begun)
            run |= {"count": Mux(cut, 2, run["count"]), "last": i.p.last | cut, "err": i.p.err | cut}
            with m.If(taken):
                m.d.sync += [spoiled.eq((spoiled | dut.overflow) & ~i.p.last),
                             begun.eq((begun | ~dut.overflow) & ~i.p.last)]
            m.d.comb += Cover(cut, "async queue: a packet is cut short")
        ByteTracker.connect(m, "tracker", taken=keep, i=(2, run), given=given, o=(2, Run.of(o.p, 2)), most=2 * _DEPTH)

        # Words and whole packets inside
        words, packets, goes_in = Signal(range(2 * _DEPTH)), Signal(range(2 * _DEPTH)), Signal()
        m.d.comb += goes_in.eq(keep)
        m.d.sync += [
            words.eq(words + goes_in - given),
            packets.eq(packets + (goes_in & run["last"]) - (given & o.p.last)),
        ]
        under_way, sure = Signal(), Signal()
        with m.If(given):
            m.d.sync += [under_way.eq(~o.p.last), sure.eq(~o.p.last & (sure | (words < _DEPTH - 2)))]
        with m.If(o.valid & ~under_way):
            m.d.comb += Assert((packets != 0) | (words >= _DEPTH - 2), "async queue: no packet leaves before its end is in")
        m.d.comb += [
            Assert(o.valid | ~sure, "async queue: without a gap"),
            Cover(given & o.p.last & sure & (words == 2), "async queue: a packet is out, another is in"),
            Cover(o.valid & (packets == 0), "async queue: the queue is full, the packet longer"),
        ]
        return m


_MUTANTS = [
    Mutation("packets leave before their end is in", AsyncPacketQueue, "(whole.any() & ~whole[-1])", "store.r_rdy"),
    Mutation("counted late is taken for inside", AsyncPacketQueue, "(whole.any() & ~whole[-1])", "whole.any()"),
    Mutation("count crosses unsafely fast", AsyncPacketQueue, "o_domain=self.o_domain, stages=3)",
             "o_domain=self.o_domain, stages=2)"),
    Mutation("taken when full", AsyncPacketQueue, "i.ready.eq(store.w_rdy), push", "i.ready.eq(1), push"),
]

CLOCK_PROOFS = [
    Proof("async queue", lambda **it: AsyncQueueProof(False, **it), 10, 20, {AsyncPacketQueue: "queue"}, _MUTANTS,
          mutant_depth=11, mode="bmc"),
    Proof("async queue, drop", lambda **it: AsyncQueueProof(True, **it), 10, 20, {AsyncPacketQueue: "queue"}, [
        Mutation("no room is kept for the end", AsyncPacketQueue, "room.eq(store.w_level < self.depth - 2)",
                 "room.eq(store.w_rdy)"),
        _MUTANTS[0],
    ], mutant_depth=11, mode="bmc"),
]
