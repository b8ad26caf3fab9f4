"""Each proof holds, reaches its covers, and fails for mutants that a test bench could overlook."""

import pytest
from amaranth.hdl import Assert, Cover, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from emplace.protect.check import AccessCheck
from emplace_sim.mutate import mutant
from emplace_sim.proofs import PROOFS
from emplace_sim.prove import prove

#: Mutants tried here, of each proof; `emplace prove` tries them all.
TRIED = 2


#: Half a minute and more: whether the proof holds; its mutants and covers.
SLOW = {"guard, 8 bytes", "protect, check", "protect, table", "queue, block memory", "async queue",
        "async queue, drop", "realigner", "TLP splitter", "parsers", "slot progress"}
SLOW_MUTANTS = {"protect, table", "protect, memory", "async queue", "async queue, drop", "TLP splitter", "parsers",
                "slot progress"}


def case(proof, *more, slow, name=None):
    return pytest.param(proof, *more, id=name or proof.name, marks=[pytest.mark.slow] if proof.name in slow else [])


@pytest.mark.parametrize("proof", [case(p, slow=SLOW) for p in PROOFS])
def test_holds(tmp_path, proof):
    result = prove(proof.build(), depth=proof.depth, mode=proof.mode, workdir=tmp_path)
    assert result, f"{result.status} {result.failed}, trace {result.trace}"


@pytest.mark.parametrize("proof", [case(p, slow=SLOW_MUTANTS) for p in PROOFS])
def test_reaches_its_covers(tmp_path, proof):
    result = prove(proof.build(), depth=proof.cover_depth, mode="cover", workdir=tmp_path)
    assert result, f"{result.status} {result.failed}"


@pytest.mark.parametrize("proof, n", [case(p, n, slow=SLOW_MUTANTS, name=f"{p.name}: {p.mutants[n].name}")
                                      for p in PROOFS for n in range(min(TRIED, len(p.mutants)))])
def test_mutant_fails(tmp_path, proof, n):
    assert proof.catches(n, tmp_path)


def test_every_mutation_applies():
    for proof in PROOFS:
        assert proof.mutants
        for mutation in proof.mutants:
            assert mutant(mutation.target, mutation.old, mutation.new) is not mutation.target
    with pytest.raises(ValueError, match="must occur once"):
        mutant(AccessCheck, "no such text", "")


class Counter(wiring.Component):
    """Counts to 5 and stays: what the tool must say of it is known."""

    go: In(1)

    def __init__(self, most):
        self.most = most
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        count = Signal(4)
        with m.If(self.go & (count != 5)):
            m.d.sync += count.eq(count + 1)
        m.d.comb += [Assert(count <= self.most), Cover(count == self.most)]
        return m


@pytest.mark.parametrize("most, mode, status", [(5, "prove", "pass"), (4, "prove", "fail"), (6, "prove", "unknown"),
                                                (5, "cover", "pass"), (6, "cover", "fail"), (4, "bmc", "fail")])
def test_the_tool_itself(tmp_path, most, mode, status):
    result = prove(Counter(most), depth=8 if mode != "prove" or most == 4 else 1, mode=mode, workdir=tmp_path)
    assert result.status == status
