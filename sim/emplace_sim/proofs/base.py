"""A proof: what to build, how deep to look, and what must make it fail."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..mutate import mutant
from ..prove import prove

__all__ = ["Mutation", "Proof"]


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in the source of ``target``."""

    name: str
    target: type
    old: str
    new: str


@dataclass(frozen=True)
class Proof:
    """``build(**{parameter: class})`` makes the component with its assertions; without arguments, of the real thing.

    ``parameters`` names, for each class that may be mutated, the argument of ``build`` that takes it.
    """

    name: str
    build: Callable
    depth: int
    cover_depth: int
    parameters: dict[type, str]
    mutants: list[Mutation] = field(default_factory=list)
    mutant_depth: int = 12
    mode: str = "prove"

    def catches(self, n, workdir):
        """Whether mutant ``n`` fails, by a trace from reset that breaks an assertion."""
        mutation = self.mutants[n]
        broken = mutant(mutation.target, mutation.old, mutation.new)
        component = self.build(**{self.parameters[mutation.target]: broken})
        result = prove(component, depth=self.mutant_depth, mode="bmc", workdir=workdir)
        return result.status == "fail" and result.trace is not None and result.trace.exists()
