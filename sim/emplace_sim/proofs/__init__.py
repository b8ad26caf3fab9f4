"""What is proved of the gateware, and the mutants that the proofs must notice."""

from .arbiters import ARBITER_PROOFS
from .base import Mutation, Proof
from .clocks import CLOCK_PROOFS
from .guard import GUARD_PROOFS
from .packets import PACKET_PROOFS
from .parsers import PARSER_PROOFS
from .protect import PROTECT_PROOFS
from .queues import QUEUE_PROOFS
from .split import SPLIT_PROOFS
from .streams import STREAM_PROOFS
from .walk import WALK_PROOFS

__all__ = ["PROOFS", "Mutation", "Proof"]

PROOFS = [*STREAM_PROOFS, *QUEUE_PROOFS, *CLOCK_PROOFS, *ARBITER_PROOFS, *PACKET_PROOFS, *GUARD_PROOFS,
          *PROTECT_PROOFS, *SPLIT_PROOFS, *PARSER_PROOFS, *WALK_PROOFS]
