"""What is proved of the gateware, and the mutants that the proofs must notice."""

from .base import Mutation, Proof
from .guard import GUARD_PROOFS
from .protect import PROTECT_PROOFS
from .streams import STREAM_PROOFS

__all__ = ["PROOFS", "Mutation", "Proof"]

PROOFS = [*STREAM_PROOFS, *GUARD_PROOFS, *PROTECT_PROOFS]
