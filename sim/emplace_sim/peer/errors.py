"""Errors of a stream and their Terminate codes: layer << 12 | error type << 8 | error code.

Ref: RFC 5040 4.8 (figures 9 and 10), RFC 5041 7.2, RFC 5044 8, RFC 6581 9.
"""

from .. import ddp

__all__ = ["CODES", "StreamError", "quote", "decode"]

CODES = {
    # MPA and stage H
    "fpdu_length": 0x1000, "crc": 0x2002, "insufficient_ird": 0x2006, "no_rtr": 0x2007,
    "ddp_version_tagged": 0x1104, "ddp_version_untagged": 0x1206, "rdmap_version": 0x0205, "opcode": 0x0206,
    "tagged_flag": 0x0206, "message_mix": 0x0206,
    # Stages U and I
    "qn": 0x1201, "no_buffer": 0x1202, "msn": 0x1203, "mo": 0x1204, "too_long": 0x1205, "local": 0x1000, "malformed": 0x02FF,
    "inv_stag": 0x0209, "inv_pd": 0x0109, "inv_access": 0x0102,
    # Stage T
    "stag": 0x1100, "pd": 0x1102, "access": 0x0102, "wrap": 0x1103, "bounds": 0x1101,
    # Stage R
    "response": 0x0206, "response_stag": 0x1100, "response_bounds": 0x1101, "response_sink": 0x1000,
    # Stage Q, atomics
    "read_stag": 0x0100, "read_pd": 0x0103, "read_access": 0x0102, "read_wrap": 0x0104, "read_bounds": 0x0101,
    "atomic_alignment": 0x02FF,
    # Ours
    "local_catastrophic": 0x0000,
}


class StreamError(Exception):
    """The first error of a stream, by its name in CODES; ``status`` and ``wr`` of the receive request that it fails.

    ``quoted``: what the Terminate is to quote, in place of the ULPDU at hand.
    """

    def __init__(self, name, status=None, wr=None, quoted=None):
        super().__init__(name)
        self.name, self.status, self.wr, self.quoted = name, status, wr, quoted

    @property
    def code(self):
        return CODES[self.name]


def quote(code, ulpdu):
    """(M, D, R flags, copied octets) for a Terminate about ``ulpdu`` (RFC 5040 figure 10)."""
    layer, kind = code >> 12, code >> 8 & 15
    if layer == 2 or kind == 0 or len(ulpdu) < 14 or code in (0x1104, 0x1206):
        return 0, b""
    header = ddp.TAGGED_HEADER if ulpdu[0] & 0x80 else ddp.UNTAGGED_HEADER
    if len(ulpdu) < header:
        return 0, b""
    framed = ddp.with_length(ulpdu)
    if layer == 0 and kind == 1 and ulpdu[1] & 15 == ddp.READ_REQUEST and len(ulpdu) >= header + 28:
        return 0xE0, framed[:2 + header + 28]
    return 0xC0, framed[:2 + header]


def decode(body):
    """(code, the same if siw's nibble order is meant, copied octets) of a Terminate's body."""
    swapped = body[0] >> 4 | (body[0] & 15) << 4
    return body[0] << 8 | body[1], swapped << 8 | body[1], bytes(body[4:])
