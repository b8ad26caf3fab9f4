"""The plain frame path on bytes: whose a received frame is, and how it comes to lie in memory.

Ref: RFC 791 section 3.1, RFC 768, RFC 9293 section 3.1.
"""

import struct
from dataclasses import dataclass

from emplace.abi import FrameFlags, FrameReason

from .frames import parse
from .inet import ones_sum

__all__ = ["Fate", "fate", "pieces"]

_REASONS = {
    "rx_other_ethertype": FrameReason.OTHER_ETHERTYPE, "rx_ip_header": FrameReason.IP_HEADER,
    "rx_ip_options": FrameReason.IP_OPTIONS, "rx_ip_fragment": FrameReason.IP_FRAGMENT,
    "rx_ip_checksum": FrameReason.IP_CHECKSUM, "rx_ip_protocol": FrameReason.IP_PROTOCOL,
    "rx_tcp_header": FrameReason.TCP_HEADER, "rx_tcp_checksum": FrameReason.TCP_CHECKSUM,
    "rx_no_connection": FrameReason.NO_CONNECTION,
}


@dataclass(frozen=True)
class Fate:
    """``host``: the frame goes there, for ``reason`` and with ``flags``; ``header``: octets up to the end of the TCP
    header, 0 if there is none; ``qp``: HELD, whose it is. ``counter``: what counts it in ip."""

    host: bool
    reason: FrameReason
    flags: FrameFlags
    header: int
    counter: str
    qp: int | None = None


def fate(frame, installed, *, held=(), injected=False):
    """What becomes of ``frame`` (without FCS, which held). ``installed`` maps keys to QPs, ``held`` are some of these."""
    segment = parse(frame, installed)
    counter = segment.drop or "rx_segments"
    reason = _REASONS.get(counter, FrameReason.NONE)
    flags, header = FrameFlags(0), 0
    tagged = frame[12:14] == b"\x81\x00"
    packet = frame[18 if tagged else 14:]
    if reason == FrameReason.NONE or reason >= FrameReason.IP_FRAGMENT:
        flags = FrameFlags.IP_CHECKED
        if ones_sum(packet[:20]) == 0xFFFF:
            flags |= FrameFlags.IP_GOOD
    if reason not in (FrameReason.NONE, *list(FrameReason)[FrameReason.IP_PROTOCOL:]):
        return Fate(True, reason, flags, 0, counter)

    total = int.from_bytes(packet[2:4], "big")
    body = packet[20:total]
    good = ones_sum(packet[12:20] + bytes([0, packet[9]]) + struct.pack(">H", len(body)) + body) == 0xFFFF
    verdict = FrameFlags.L4_CHECKED | (FrameFlags.L4_GOOD if good else FrameFlags(0))
    if reason == FrameReason.IP_PROTOCOL:
        if packet[9] == 17 and len(body) >= 8 and int.from_bytes(body[4:6], "big") == len(body) and body[6:8] != b"\0\0":
            flags |= verdict
        return Fate(True, reason, flags, 0, counter)
    offset = packet[32] >> 4
    if total >= 40 and offset >= 5 and 4 * offset <= len(body):
        flags |= verdict
        header = 34 + 4 * tagged + 4 * offset
    key = (*struct.unpack(">II", packet[16:20] + packet[12:16]), *struct.unpack(">HH", packet[22:24] + packet[20:22]),
           int.from_bytes(frame[14:16], "big") & 0xFFF if tagged else 0, int(tagged))
    qp = installed.get(key)
    if qp in held and not injected and counter in ("rx_segments", "rx_tcp_flags", "rx_no_slot"):
        return Fate(True, FrameReason.HELD, flags, header, "rx_frames_held", qp)
    return Fate(qp is None, reason, flags, header, counter)


def pieces(length, header, split, size):
    """How a frame lies in memory: ``[(descriptor's number, "header" or "data", from octet, up to octet)]``."""
    found, at = [], 0
    if split and header:
        found.append((0, "header", 0, header))
        at = header
    number = 0
    while at < length:
        found.append((number, "data", at, min(at + size, length)))
        at, number = at + size, number + 1
    return found
