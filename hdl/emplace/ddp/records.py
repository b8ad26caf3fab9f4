"""What DDP hands up."""

from amaranth.hdl import Cat
from amaranth.lib import data

from ..control.records import RecordKind, Token
from ..llp import HEADER_BYTES, UlpduStatus

__all__ = ["TAGGED_HEADER", "UNTAGGED_HEADER", "DdpSegment", "wire_field"]

#: Octets of the DDP headers, the octet reserved for the ULP included (RFC 5041 4.2, 4.3).
TAGGED_HEADER = 14
UNTAGGED_HEADER = 18


def wire_field(header, first, size):
    """``size`` octets from octet ``first`` of a record's header, most significant octet first on the wire."""
    return Cat(header[8 * n:8 * n + 8] for n in range(first + size - 1, first - 1, -1))


class DdpSegment(data.StructLayout):
    """One DDP segment with DDP's verdicts on it, or a token.

    The verdicts are apart, for RDMAP's own checks come between them. All that is decoded from a
    header means something only as far as the verdicts before allow: with ``status`` not OK, nothing.

    Members
    -------
    kind : ``RecordKind``
    token : ``Token``
        If ``kind`` is TOKEN.
    qp : ``unsigned(qp_bits)``
        The stream; of a token, the QP that it is about.
    status : ``UlpduStatus``
        The LLP's. Only with OK is there a packet on the payload stream.
    claimed : ``unsigned(1)``
        As in UlpduRecord: passed on.
    length : ``unsigned(16)``
        Octets of the ULPDU, headers included.
    tagged, last : ``unsigned(1)``
        T and L.
    ulp : ``unsigned(8)``
        Octet 1, which is the ULP's (RDMAP: version and opcode).
    stag : ``unsigned(32)``
        Tagged: STag. Untagged: RsvdULP octets 1..4 (RDMAP: STag to invalidate).
    to : ``unsigned(64)``
        Tagged: tagged offset.
    qn, msn, mo : ``unsigned(32)``
        Untagged: queue number, message sequence number, message offset.
    payload : ``unsigned(16)``
        Octets behind the DDP header.
    skip : ``unsigned(6)``
        Octets of the packet before the payload: 16 (tagged) or 20.
    runt : ``unsigned(1)``
        The ULPDU is too short for its DDP header. (An LLP should not let it come this far.)
    bad_version : ``unsigned(1)``
        DV is not 1. (H1)
    bad_qn : ``unsigned(1)``
        Untagged, and QN is above 2. (U1)
    bad_msn : ``unsigned(1)``
        Untagged, and MSN isn't the one expected on its QN. (U2)
    bad_mo : ``unsigned(1)``
        Untagged, and MO isn't the number of octets that this message had so far. (U4)
    header : ``unsigned(384)``
        As in UlpduRecord: for reports.
    """

    def __init__(self, config):
        super().__init__({
            "kind": RecordKind, "token": Token(config), "qp": config.qp_bits, "status": UlpduStatus, "claimed": 1,
            "length": 16, "tagged": 1, "last": 1, "ulp": 8, "stag": 32, "to": 64, "qn": 32, "msn": 32, "mo": 32,
            "payload": 16, "skip": 6, "runt": 1, "bad_version": 1, "bad_qn": 1, "bad_msn": 1, "bad_mo": 1,
            "header": 8 * HEADER_BYTES,
        })
