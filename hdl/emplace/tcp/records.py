"""What TCP's receive side and the LLP's walk tell each other, and the slot memory's ports."""

from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import RecordKind, Token

__all__ = ["StreamEnd", "WalkRequest", "WalkResult", "SlotRead", "SlotIndex", "SegmentOrder", "BuiltSegment"]


class SlotIndex(data.StructLayout):
    """``slot``: a receive slot."""

    def __init__(self, config):
        super().__init__({"slot": config.slot_bits})


def SlotRead(config):
    """Read port of slot memory, seen from its user: ``data`` is the word asked for two cycles ago.

    Members: ``en``, ``slot``, ``address`` (word in the slot) out; ``data`` (64 bits) in. ``data``
    holds until two cycles after the next ``en``.
    """
    return wiring.Signature({
        "en": Out(1), "slot": Out(config.slot_bits), "address": Out((config.slot_words - 1).bit_length()),
        "data": In(64),
    })


class StreamEnd(enum.Enum, shape=2):
    """How the peer has ended its stream."""

    NONE = 0
    FIN = 1      # all octets before it have been walked
    RESET = 2


class WalkRequest(data.StructLayout):
    """In-order bytes for the walk, their end, or a token.

    Members
    -------
    kind : ``RecordKind``
    token : ``Token``
    qp : ``unsigned(qp_bits)``
    slot : ``unsigned(slot_bits)``
    offset : ``unsigned(11)``
        First byte in the slot.
    length : ``unsigned(12)``
        Octets, at least 1.
    end : ``StreamEnd``
        Not NONE: the stream ends here; the last three fields mean nothing. Sent once with FIN, once with RESET.
    """

    def __init__(self, config):
        super().__init__({"kind": RecordKind, "token": Token(config), "qp": config.qp_bits, "slot": config.slot_bits,
                          "offset": 11, "length": 12, "end": StreamEnd})


class WalkResult(data.StructLayout):
    """Answer to each WalkRequest, in order (also to a token or an end, all 0).

    Members
    -------
    consumed : ``unsigned(12)``
        Octets taken for good: RCV.NXT moves by this much. What was not taken was not looked at.
    kept : ``unsigned(1)``
        The LLP keeps the slot (an unfinished FPDU lies in it). Else it is TCP's again: to hold what
        was not consumed, or to free.
    parked : ``unsigned(1)``
        Stopped for want of a receive WQE: what is left waits for ``resume``.
    failed : ``unsigned(1)``
        The stream has just failed: nothing of it will ever be taken.
    """

    def __init__(self):
        super().__init__({"consumed": 12, "kept": 1, "parked": 1, "failed": 1})


class SegmentOrder(data.StructLayout):
    """Octets of one FPDU that go into the segment under construction.

    Members
    -------
    qp : ``unsigned(qp_bits)``
    begin, end : ``unsigned(12)``
        First octet of the FPDU, and the one behind the last. ``begin < end``.
    lead : ``unsigned(3)``
        Octets of the TCP header modulo 8. (First order of a segment)
    closes : ``unsigned(1)``
        The segment is whole with it; the rest is about it.
    seq : ``unsigned(32)``
    length : ``unsigned(12)``
        Octets of payload: the sum of its orders' ranges.
    push : ``unsigned(1)``
        PSH.
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "begin": 12, "end": 12, "lead": 3, "closes": 1, "seq": 32, "length": 12,
                          "push": 1})


class BuiltSegment(data.StructLayout):
    """A segment whose payload is staged: fields as in SegmentOrder; ``sum``: ones' complement sum of the payload, of
    16-bit numbers whose higher octet came first."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "seq": 32, "length": 12, "push": 1, "sum": 16})
