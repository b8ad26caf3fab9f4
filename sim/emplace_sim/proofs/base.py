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

    ``parameters`` names, for each class that may be mutated, the argument of ``build`` that takes it. A mutant is
    caught by a trace from reset (``mutant_mode`` "bmc", ``mutant_depth`` cycles); where that would take the solver
    hours, by the proof itself, which no longer closes ("prove", to ``depth``).
    """

    name: str
    build: Callable
    depth: int
    cover_depth: int
    parameters: dict[type, str]
    mutants: list[Mutation] = field(default_factory=list)
    mutant_depth: int = 12
    mode: str = "prove"
    mutant_mode: str = "bmc"

    def catches(self, n, workdir):
        """Whether the proof fails for mutant ``n``, with a trace that shows it."""
        mutation = self.mutants[n]
        broken = mutant(mutation.target, mutation.old, mutation.new)
        component = self.build(**{self.parameters[mutation.target]: broken})
        depth = self.mutant_depth if self.mutant_mode == "bmc" else self.depth
        result = prove(component, depth=depth, mode=self.mutant_mode, workdir=workdir)
        failures = ("fail",) if self.mutant_mode == "bmc" else ("fail", "unknown")
        return result.status in failures and result.trace is not None and result.trace.exists()
