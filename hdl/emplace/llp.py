"""The boundary below DDP: what any lower layer protocol hands up. No field of TCP is in it (design D10).

For every record with ``kind`` DATA and ``status`` OK there is exactly one packet on the payload
stream, in the same order: the ULPDU behind two octets that belong to the LLP (MPA: ULPDU_Length),
so that a tagged segment's payload starts at byte 16 and an untagged one's at byte 20. Padding and
CRC are not part of it. For any other record there is no packet.
"""

from amaranth.lib import data, enum

from .control.records import RecordKind, Token

__all__ = ["UlpduStatus", "UlpduRecord", "HEADER_BYTES", "PLAN_HEADER_BYTES", "SendAsk", "SendOutcome", "SendAnswer",
           "Released", "UlpduPlan"]

#: Bytes of the FPDU that travel in the record: ULPDU_Length, and enough for a whole Read Request.
HEADER_BYTES = 48
#: Octets of the longer, untagged DDP header: what a plan to send carries.
PLAN_HEADER_BYTES = 18


class UlpduStatus(enum.Enum, shape=3):
    """What the LLP says of a ULPDU, or (FIN and below) of the stream behind the last one. Anything but OK ends it."""

    OK = 0
    LENGTH = 1     # abi.Reason.FPDU_LENGTH
    CRC = 2        # abi.Reason.FPDU_CRC
    LEASE = 3      # abi.Reason.SLOT_LEASE
    FIN = 4        # abi.Reason.PEER_FIN: the peer sends no more, and the last ULPDU was whole
    FIN_DIRTY = 5  # abi.Reason.PEER_FIN_DIRTY: it ended within one
    RESET = 6      # abi.Reason.PEER_RESET: as if FIN, but whatever was under way is lost


class UlpduRecord(data.StructLayout):
    """One ULPDU, or a token.

    Members
    -------
    kind : ``RecordKind``
    token : ``Token``
        If ``kind`` is TOKEN.
    qp : ``unsigned(qp_bits)``
        The stream.
    length : ``unsigned(16)``
        Octets of the ULPDU.
    status : ``UlpduStatus``
    claimed : ``unsigned(1)``
        A receive WQE was set aside for it.
    header : ``unsigned(384)``
        The first 48 bytes, from the LLP's two octets on, first byte lowest; what lies past the
        ULPDU's end may be anything.
    """

    def __init__(self, config):
        super().__init__({
            "kind": RecordKind, "token": Token(config), "qp": config.qp_bits, "length": 16,
            "status": UlpduStatus, "claimed": 1, "header": 8 * HEADER_BYTES,
        })


# Sending. The LLP says when and how much, the ULP what. A *position* is a stream's octet count, modulo 2**32; the ULP gives
# it no other meaning.

class SendAsk(data.StructLayout):
    """The LLP asks for the ULPDU that begins at ``position``, or covers it.

    Members
    -------
    qp : ``unsigned(qp_bits)``
    position : ``unsigned(32)``
    room : ``unsigned(16)``
        Octets of FPDU that may be sent now. Only a whole one is given.
    again : ``unsigned(1)``
        It was given before. Else ``position`` is where the last one given ended.
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "position": 32, "room": 16, "again": 1})


class SendOutcome(enum.Enum, shape=3):
    """What became of a SendAsk."""

    NOTHING = 0    # there is nothing to send
    NO_ROOM = 1    # the next FPDU has `size` octets
    LATER = 2      # not now: the QP will be named on `ready`
    GIVEN = 3      # a UlpduPlan is on its way
    FAILED = 4     # the stream is dead


class SendAnswer(data.StructLayout):
    """Answer to each SendAsk, in order.

    Members
    -------
    outcome : ``SendOutcome``
    size : ``unsigned(16)``
        Octets of the FPDU. (GIVEN, NO_ROOM)
    start : ``unsigned(32)``
        Where it begins: ``position``, or before it if it was asked for ``again``. (GIVEN)
    more : ``unsigned(1)``
        There is more to ask for behind it. (GIVEN)
    """

    def __init__(self):
        super().__init__({"outcome": SendOutcome, "size": 16, "start": 32, "more": 1})


class Released(data.StructLayout):
    """The peer has all octets of ``qp`` before ``position``."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "position": 32})


class UlpduPlan(data.StructLayout):
    """A ULPDU to send. If ``payload`` isn't 0 there is exactly one packet on the payload stream that goes with the plans, in
    the same order, with that many octets; with ``err`` the FPDU must not leave.

    Members
    -------
    qp : ``unsigned(qp_bits)``
    tagged : ``unsigned(1)``
        ``header`` has 14 octets; else 18.
    payload : ``unsigned(16)``
        Octets behind the header.
    header : ``unsigned(144)``
        DDP header, the ULP's octets included, first octet lowest.
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "tagged": 1, "payload": 16, "header": 8 * PLAN_HEADER_BYTES})
