"""What a peer may be told to do wrong. Nothing of it happens unless a test sets it."""

from collections.abc import Callable
from dataclasses import dataclass

from ..segment import Tcp

__all__ = ["Faults"]


@dataclass
class Faults:
    """Hooks of one connection. Those that count go down by one each time. A window taken back and SACKed data dropped:
    ``Qp.tcp.rx.shrink()`` and ``.renege()``."""

    bad_crc: int = 0             # so many of the next FPDUs get a wrong CRC
    msn_skip: int = 0            # added to the MSN of the next Send, and of those behind it
    extra_reads: int = 0         # so many Reads beyond ORD may be outstanding
    repeat_reads: int = 0        # so many of the next Read Requests are sent twice, under consecutive MSNs
    wrong_response_to: int = 0   # so many of the next Read Responses go elsewhere: TO + 4
    ignore_gate: bool = False    # a responder that sends before the first FPDU, as siw does
    ack_at_most: int | None = None       # acknowledge nothing above this stream position: half an FPDU, say
    ack_ahead: int = 0           # acknowledge so many octets more than there were, in the next segment
    no_ack: bool = False         # acknowledge nothing at all
    ulpdu: Callable[[bytes], bytes] | None = None        # edits each ULPDU before it is framed
    fpdu: Callable[[bytes], bytes] | None = None         # edits each FPDU
    segment: Callable[[Tcp], Tcp | None] | None = None   # edits each segment before its checksums are made; None: not sent

    def spend(self, name):
        """True if the counting hook ``name`` is to act now."""
        left = getattr(self, name)
        setattr(self, name, max(left - 1, 0))
        return left > 0
