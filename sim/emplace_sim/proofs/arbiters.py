"""Arbiter: the stream contract, packets whole, nobody waits for more than one packet of each other input."""

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import connect, flipped

from emplace.stream.arbiter import StreamArbiter
from emplace.stream.packet import PacketWord

from .base import Mutation, Proof
from .contract import StreamContract

__all__ = ["ARBITER_PROOFS", "ArbiterProof"]

_N = 3


class ArbiterProof(wiring.Component):
    """Of :class:`StreamArbiter` with 3 inputs, of single words or of packets.

    - Contract at ``o`` if it is kept at every ``i``.
    - A word leaves exactly when one input hands it over, that one, and unaltered.
    - Once a packet's first word has been offered, no other input's leaves until its last one has.
    - While an input waits, at most ``n - 1`` packets (words) of others end.
    """

    def __init__(self, packets, arbiter=StreamArbiter):
        self.packets = packets
        self.dut = arbiter(PacketWord(2) if packets else data.StructLayout({"data": 8}), _N)
        super().__init__(self.dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        o = dut.o
        connect(m, dut.o, flipped(self.o))
        m.submodules.assert_o = StreamContract.watch(m, o, check=Assert)
        moves = Signal(_N)
        for n in range(_N):
            connect(m, flipped(self.i[n]), dut.i[n])
            m.submodules[f"assume_i{n}"] = StreamContract.watch(m, dut.i[n], check=Assume)
            m.d.comb += moves[n].eq(dut.i[n].valid & dut.i[n].ready)
            with m.If(moves[n]):
                m.d.comb += Assert(o.payload.as_value() == dut.i[n].payload.as_value(), "arbiter: unaltered")

        out, ends = Signal(), Signal()
        m.d.comb += [
            out.eq(o.valid & o.ready), ends.eq(out & (o.p.last if self.packets else 1)),
            Assert(out == moves.any(), "arbiter: nothing lost, nothing made up"),
            Assert((moves & (moves - 1)) == 0, "arbiter: one at a time"),
        ]

        inside, owner = Signal(), Signal(_N)     # of a packet, and whose
        with m.If(out):
            m.d.sync += [inside.eq(~ends), owner.eq(moves)]
            with m.If(inside):
                m.d.comb += Assert(moves == owner, "arbiter: no packet within a packet")
        m.d.comb += Assert(~inside | (dut.busy & (owner == 1 << dut.grant)))
        m.d.comb += Assert(inside | ~dut.busy | Cat(port.valid for port in dut.i).bit_select(dut.grant, 1))
        m.d.comb += Assert(dut.grant < _N)

        # `waited`: packets of others that have ended meanwhile. Each new grant comes nearer.
        for n in range(_N):
            waited, distance = Signal(range(_N + 2), name=f"waited{n}"), Signal(range(_N + 1), name=f"distance{n}")
            with m.If(~dut.i[n].valid | (inside & owner[n]) | moves[n]):
                m.d.sync += waited.eq(0)
            with m.Elif(ends):
                m.d.sync += waited.eq(waited + 1)
            m.d.comb += [
                distance.eq(n - dut.grant + Mux(dut.grant >= n, _N, 0)),
                Assert((waited == 0) | dut.i[n].valid),
                Assert((dut.busy & (dut.grant == n)) | (waited + distance + dut.busy <= _N)),
                Assert(waited < _N, "arbiter: nobody waits for ever"),
                Cover(waited == _N - 1, "arbiter: one waits for all others"),
            ]
        if self.packets:
            m.d.comb += Cover(inside & ~o.valid & (Cat(port.valid for port in dut.i) != 0),
                              "arbiter: a packet pauses while others wait")
        return m


_MUTANTS = [
    Mutation("a waiting word is overtaken", StreamArbiter, "else ~self.o.ready)", "else 0)"),
    Mutation("fixed priority", StreamArbiter, "other = (current + step) % n", "other = step % n"),
    Mutation("others are ready, too", StreamArbiter, "self.i[index].ready.eq(self.o.ready)",
             "*(port.ready.eq(self.o.ready) for port in self.i)"),
]
_PACKET_MUTANTS = [
    Mutation("packets are mixed", StreamArbiter, "~(self.o.ready & self.o.p.last)", "~self.o.ready"),
    *_MUTANTS[1:],
]

ARBITER_PROOFS = [
    Proof("arbiter, words", lambda **it: ArbiterProof(False, **it), 2, 8, {StreamArbiter: "arbiter"}, _MUTANTS),
    Proof("arbiter, packets", lambda **it: ArbiterProof(True, **it), 2, 8, {StreamArbiter: "arbiter"}, _PACKET_MUTANTS),
]
