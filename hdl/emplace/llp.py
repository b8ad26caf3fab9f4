"""The boundary below DDP: what any lower layer protocol hands up. No field of TCP is in it (design D10).

For every record with ``kind`` DATA and ``status`` OK there is exactly one packet on the payload
stream, in the same order: the ULPDU behind two octets that belong to the LLP (MPA: ULPDU_Length),
so that a tagged segment's payload starts at byte 16 and an untagged one's at byte 20. Padding and
CRC are not part of it. For any other record there is no packet.
"""

from amaranth.lib import data, enum

from .control.records import RecordKind, Token

__all__ = ["UlpduStatus", "UlpduRecord", "HEADER_BYTES"]

#: Bytes of the FPDU that travel in the record: ULPDU_Length, and enough for a whole Read Request.
HEADER_BYTES = 48


class UlpduStatus(enum.Enum, shape=2):
    """What the LLP says of a ULPDU. Anything but OK ends the stream."""

    OK = 0
    LENGTH = 1     # abi.Reason.FPDU_LENGTH
    CRC = 2        # abi.Reason.FPDU_CRC
    LEASE = 3      # abi.Reason.SLOT_LEASE


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
