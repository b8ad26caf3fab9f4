"""Terminate messages on bytes: what the driver sends for a QP_ERROR event, and what a received one says.

Ref: RFC 5040 section 4.8 (format, header control bits), section 7 (errors); RFC 5041 section 7.2; RFC 5044 section 8.
"""

import struct
from dataclasses import dataclass

from .fpdu import build_fpdu

__all__ = ["Terminate", "decode", "terminate_fpdu", "terminate_ulpdu", "describe"]

RDMAP, DDP, LLP = range(3)
#: Header control bits: DDP Segment Length valid; DDP header included; RDMAP (Read Request) header included.
M, D, R = 0x80, 0x40, 0x20
#: Codes whose FPDU is in a format that we don't know: its DDP header is not copied.
_FOREIGN = (0x1104, 0x1206)
_TAGGED, _UNTAGGED, _READ_REQUEST = 14, 18, 28

_LAYERS = {RDMAP: "RDMAP", DDP: "DDP", LLP: "MPA"}
_TYPES = {(RDMAP, 0): "local catastrophic", (RDMAP, 1): "remote protection", (RDMAP, 2): "remote operation",
          (DDP, 0): "local catastrophic", (DDP, 1): "tagged buffer", (DDP, 2): "untagged buffer", (LLP, 0): "MPA"}
#: IANA's registry of RDDP error codes.
_CODES = {
    0x0100: "invalid STag", 0x0101: "base or bounds", 0x0102: "access rights", 0x0103: "STag not of this stream",
    0x0104: "TO wrap", 0x0109: "STag cannot be invalidated", 0x01FF: "unspecified",
    0x0205: "invalid RDMAP version", 0x0206: "unexpected opcode", 0x0207: "catastrophic, this stream",
    0x0208: "catastrophic, global", 0x0209: "STag cannot be invalidated", 0x02FF: "unspecified",
    0x1100: "invalid STag", 0x1101: "base or bounds", 0x1102: "STag not of this stream", 0x1103: "TO wrap",
    0x1104: "invalid DDP version", 0x1201: "invalid queue number", 0x1202: "no buffer for this MSN",
    0x1203: "MSN out of range", 0x1204: "invalid MO", 0x1205: "message too long", 0x1206: "invalid DDP version",
    0x2001: "TCP connection lost", 0x2002: "CRC error", 0x2003: "marker and length differ",
    0x2004: "invalid request or reply frame", 0x2005: "local catastrophic", 0x2006: "insufficient IRD",
    0x2007: "no matching RTR option",
}


def describe(code):
    """Words for a code as in abi.TERMINATE: layer, error type, error."""
    layer, kind = code >> 12, code >> 8 & 15
    words = _LAYERS.get(layer, f"layer {layer}"), _TYPES.get((layer, kind), f"error type {kind}")
    if layer != LLP and kind == 0:       # any error code
        return "/".join(words)
    return "/".join((*words, _CODES.get(code, f"code {code & 255:#04x}")))


def _headers(code, fpdu):
    """Header control bits and what they announce, for the FPDU whose first octets are ``fpdu``."""
    layer, kind = code >> 12, code >> 8 & 15
    length = int.from_bytes(fpdu[:2], "big")
    tagged = bool(fpdu[2] & 0x80)
    size = _TAGGED if tagged else _UNTAGGED
    if layer == LLP or kind == 0 or code in _FOREIGN or length < size:
        return 0, b""                    # LLP and local catastrophic errors copy none
    copied = fpdu[:2 + size]             # DDP Segment Length, DDP header
    request = not tagged and fpdu[3] & 15 == 1 and length >= size + _READ_REQUEST
    if (layer, kind) == (RDMAP, 1) and request:
        return M | D | R, copied + fpdu[2 + size:2 + size + _READ_REQUEST]
    return M | D, copied


def terminate_ulpdu(event):
    """The Terminate message for an event (``terminate``, ``data``: the first 48 octets of the FPDU), or None.

    None where nothing may be sent: the peer's Terminate is never answered, nor its reset.
    """
    code, fpdu = event["terminate"], bytes(event["data"])
    if not code:
        return None
    flags, copied = _headers(code, fpdu)
    # DDP: untagged, last; RDMAP version 1, opcode 7; QN 2, MSN 1 (a stream has one Terminate), MO 0.
    return struct.pack(">BBIIII", 0x41, 0x47, 0, 2, 1, 0) + struct.pack(">HBB", code, flags, 0) + copied


def terminate_fpdu(event, *, crc=True):
    """:func:`terminate_ulpdu` as FPDU, or None."""
    ulpdu = terminate_ulpdu(event)
    return None if ulpdu is None else build_fpdu(ulpdu, crc)


@dataclass(frozen=True)
class Terminate:
    """A Terminate as received: ``code`` as in abi.TERMINATE, its header control bits, what was copied."""

    code: int
    flags: int
    segment_length: int | None
    ddp: bytes                           # copied DDP header, as far as it is there
    rdmap: bytes                         # copied Read Request header, as far as it is there
    truncated: bool                      # less is there than the bits announce
    siw: int                             # the code, if the peer lays bit fields out as Linux siw on a little-endian host does

    def __str__(self):
        text = f"{self.code:#06x} {describe(self.code)}"
        if self.siw != self.code:
            text += f" (from Linux siw: {self.siw:#06x} {describe(self.siw)})"
        return text + (", truncated" if self.truncated else "")


def decode(fpdu):
    """What the first octets of an FPDU that holds a Terminate say. ValueError if it is none.

    ``fpdu`` may be an event's ``data``: 48 octets, of which ULPDU_Length says how many count.
    """
    length = int.from_bytes(fpdu[:2], "big")
    ulpdu = bytes(fpdu[2:2 + length])
    if len(ulpdu) < 22 or ulpdu[0] & 0x80 or ulpdu[1] & 15 != 7:
        raise ValueError("not a Terminate")
    control = int.from_bytes(ulpdu[18:20], "big")
    flags, rest = ulpdu[20], ulpdu[22:]
    wanted, segment_length, ddp, rdmap = 0, None, b"", b""
    if flags & D:
        tagged = len(rest) > 2 and bool(rest[2] & 0x80)
        size = _TAGGED if tagged else _UNTAGGED
        wanted = 2 + size + (_READ_REQUEST if flags & R else 0)
        ddp = rest[2:2 + size]
        if len(rest) >= 2 and flags & M:
            segment_length = int.from_bytes(rest[:2], "big")
        if flags & R:
            rdmap = rest[2 + size:wanted]
    first = control >> 8
    return Terminate(control, flags, segment_length, ddp, rdmap, length - 22 < wanted,
                     (first & 15) << 12 | (first >> 4) << 8 | control & 255)
