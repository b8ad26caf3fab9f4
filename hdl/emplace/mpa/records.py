"""What passes between the parts of MPA, and its questions to the receive queues."""

from amaranth.lib import data, enum

from ..control.records import RecordKind, Token
from ..llp import UlpduStatus

__all__ = ["GateRequest", "GateReply", "Piece", "StreamState", "Outcome", "HoldWrite", "Verdict"]


class GateRequest(data.StructLayout):
    """May a Send's first segment of QP ``qp`` go on? (Laid out as in queues, which is a higher layer.)"""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits})


class GateReply(data.StructLayout):
    """``go``: yes. ``claimed``: a WQE was set aside for it. (Laid out as in queues.)"""

    def __init__(self):
        super().__init__({"go": 1, "claimed": 1})


class Piece(data.StructLayout):
    """``length`` octets of slot ``slot`` from octet ``at`` on; addresses wrap at the slot's end."""

    def __init__(self, config):
        super().__init__({"slot": config.slot_bits, "at": 11, "length": 12})


class StreamState(data.StructLayout):
    """MPA's state of one QP. All 0: not installed.

    Members
    -------
    alive : ``unsigned(1)``
        Installed, and the stream hasn't failed. Without it nothing is taken.
    crc : ``unsigned(1)``
        CRC32c is checked.
    open : ``unsigned(1)``
        There is an unfinished FPDU: all that follows is about it.
    slot : ``unsigned(slot_bits)``
    start : ``unsigned(11)``
        Its first octet in the slot.
    held : ``unsigned(11)``
        Octets of it that are there, at least 1.
    size : ``unsigned(12)``
        Octets of the whole FPDU; 0: not checked yet, since fewer than 3 octets are there.
    """

    def __init__(self, config):
        super().__init__({"alive": 1, "crc": 1, "open": 1, "slot": config.slot_bits, "start": 11, "held": 11,
                          "size": 12})


class Outcome(enum.Enum, shape=3):
    """How the cutting of a walk's octets ended."""

    END = 0           # all octets are used up
    INCOMPLETE = 1    # the FPDU is longer than what is there
    PARKED = 2        # its receive WQE isn't on the card yet
    LENGTH = 3        # check M1
    CRC = 4           # check M3


class HoldWrite(data.StructLayout):
    """``en``: one word of a packet, as in PacketWord."""

    def __init__(self):
        super().__init__({"en": 1, "data": 64, "empty": 3, "last": 1})


class Verdict(data.StructLayout):
    """A UlpduRecord but for its header."""

    def __init__(self, config):
        super().__init__({"kind": RecordKind, "token": Token(config), "qp": config.qp_bits, "length": 16,
                          "status": UlpduStatus, "claimed": 1})
