"""A golden iWARP peer on bytes: TCP with its own retransmission, MPA, DDP, RDMAP, an STag table. It knows nothing of the
gateware.

From the wire inwards: ``tcp`` (``tcp_send``, ``tcp_receive``), ``qp`` (MPA), ``responder`` and ``requester`` (DDP, RDMAP),
``stags``; ``peer`` has all connections of a host.
"""

from .faults import Faults
from .peer import Peer
from .qp import Qp, QpSettings
from .stags import Mr
from .tcp_send import CUTS, MS, TcpSettings
from .verbs import Access, AsyncEvent, Completion, Opcode, QpState, Sge, Status

__all__ = ["Access", "AsyncEvent", "CUTS", "Completion", "Faults", "MS", "Mr", "Opcode", "Peer", "Qp", "QpSettings", "QpState",
           "Sge", "Status", "TcpSettings"]
