"""Golden XGMII, Ethernet, IPv4 and TCP receive rules, on bytes. No HDL in here."""

import struct
import zlib
from dataclasses import dataclass

from .inet import ones_sum

__all__ = ["with_fcs", "xgmii", "from_xgmii", "gmii", "from_gmii", "pause_frame", "Segment", "parse", "walk_options"]

IDLE, START, TERM, ERROR = 0x07, 0xFB, 0xFD, 0xFE


def with_fcs(frame):
    """``frame`` and its FCS."""
    return frame + struct.pack("<I", zlib.crc32(frame))


def xgmii(frames):
    """XGMII transfers ``(d, c)`` of ``[(gap, characters)]``: ``gap`` idle characters, then a frame. Its characters
    (bytes, or ``(character, 1)`` for a control character) follow the preamble; a terminate character closes it.
    The gap is lengthened until the start falls in lane 0 or 4."""
    line = []
    for gap, characters in frames:
        line += [(IDLE, 1)] * (gap + (-(len(line) + gap)) % 4)
        line += [(START, 1)] + [(0x55, 0)] * 6 + [(0xD5, 0)]
        line += [ch if isinstance(ch, tuple) else (ch, 0) for ch in characters]
        line.append((TERM, 1))
    line += [(IDLE, 1)] * (-len(line) % 8 + 8)
    for at in range(0, len(line), 8):
        part = line[at:at + 8]
        yield (int.from_bytes(bytes(ch for ch, _ in part), "little"), sum(ctl << n for n, (_, ctl) in enumerate(part)))


def from_xgmii(transfers):
    """Frames in XGMII transfers: ``[(bytes with FCS, had control characters, position of start, of end)]``."""
    frames, frame, start = [], None, 0
    for at, (d, c) in enumerate(transfers):
        for lane in range(8):
            ch, ctl = d >> 8 * lane & 0xFF, c >> lane & 1
            if frame is None:
                if ctl and ch == START:
                    assert lane in (0, 4)
                    frame, start = [], 8 * at + lane
                else:
                    assert (ch, ctl) == (IDLE, 1)
            elif ctl and ch == TERM:
                assert frame[:7] == [(0x55, 0)] * 6 + [(0xD5, 0)]
                body = frame[7:]
                frames.append((bytes(b for b, _ in body), any(k for _, k in body), start, 8 * at + lane))
                frame = None
            else:
                frame.append((ch, ctl))
    assert frame is None
    return frames


def gmii(frames, *, preamble=7):
    """GMII bytes ``(d, dv, er)`` of ``[(gap, bytes)]``; a byte may be ``(byte, 1)``: with RX_ER."""
    for gap, octets in frames:
        yield from [(0, 0, 0)] * gap
        yield from [(0x55, 1, 0)] * preamble + [(0xD5, 1, 0)]
        yield from ((octet[0], 1, octet[1]) if isinstance(octet, tuple) else (octet, 1, 0) for octet in octets)


def from_gmii(line):
    """Frames on GMII: ``[(bytes with FCS, TX_ER was high, position of preamble, behind the end)]``."""
    frames, frame, start = [], None, 0
    for at, (d, dv, er) in enumerate(line):
        if dv:
            if frame is None:
                frame, start = [], at
            frame.append((d, er))
        elif frame is not None:
            assert frame[:8] == [(0x55, 0)] * 7 + [(0xD5, 0)]
            frames.append((bytes(b for b, _ in frame[8:]), any(e for _, e in frame), start, at))
            frame = None
    assert frame is None
    return frames


def pause_frame(quanta, source, *, destination=b"\x01\x80\xc2\0\0\1", opcode=1):
    """MAC control frame, without FCS (IEEE Std 802.3 annex 31B)."""
    return (destination + source + struct.pack(">HHH", 0x8808, opcode, quanta)).ljust(60, b"\0")


@dataclass
class Segment:
    """What a received frame says; ``drop`` is the counter that tells why it goes no further, None if it does."""

    drop: str | None = None
    key: tuple = ()              # local_ip, remote_ip, local_port, remote_port, vlan, tagged
    payload: bytes = b""
    seq: int = 0
    ack: int = 0
    window: int = 0
    psh: int = 0
    syn: int = 0
    fin: int = 0
    rst: int = 0
    urg: int = 0
    has_ack: int = 0
    ecn: int = 0
    ece: int = 0
    cwr: int = 0
    has_ts: int = 0
    tsval: int = 0
    tsecr: int = 0
    options: int = 0
    qp: int | None = None


def walk_options(options):
    """``(well formed, (tsval, tsecr) or None)``; the last timestamp counts."""
    at, found = 0, None
    while at < len(options):
        kind = options[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 1 >= len(options):
            return False, None
        length = options[at + 1]
        if length < 2 or at + length > len(options):
            return False, None
        if kind == 8 and length == 10:
            found = struct.unpack(">II", options[at + 2:at + 10])
        at += length
    return True, found


def parse(frame, installed, *, slot_bytes=2048):
    """Judge ``frame`` (without FCS, which held) as RFC 791, RFC 9293 and IEEE Std 802.1Q say.

    ``installed`` maps a key to its QP. Whether a slot is there is not looked at, but for the payload's length.
    """
    ethertype, start, vlan, tagged = frame[12:14], 14, 0, 0
    if ethertype == b"\x81\x00":
        tagged, vlan = 1, int.from_bytes(frame[14:16], "big") & 0xFFF
        ethertype, start = frame[16:18], 18
    if ethertype != b"\x08\x00":
        return Segment("rx_other_ethertype")
    packet = frame[start:]
    if len(packet) < 20:
        return Segment("rx_ip_header")
    total = int.from_bytes(packet[2:4], "big")
    version, ihl = packet[0] >> 4, packet[0] & 15
    if version != 4 or ihl < 5 or total < 20 or total > len(packet):
        return Segment("rx_ip_header")
    if ihl > 5:
        return Segment("rx_ip_options")
    if int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return Segment("rx_ip_fragment")
    if ones_sum(packet[:20]) != 0xFFFF:
        return Segment("rx_ip_checksum")
    if packet[9] != 6:
        return Segment("rx_ip_protocol")
    tcp = packet[20:total]
    if len(tcp) < 20 or tcp[12] >> 4 < 5 or 4 * (tcp[12] >> 4) > len(tcp):
        return Segment("rx_tcp_header")
    header = 4 * (tcp[12] >> 4)
    options = tcp[20:header]
    good, stamps = walk_options(options)
    if not good:
        return Segment("rx_tcp_header")
    if ones_sum(packet[12:20] + b"\x00\x06" + struct.pack(">H", len(tcp)) + tcp) != 0xFFFF:
        return Segment("rx_tcp_checksum")
    source, destination = struct.unpack(">II", packet[12:20])
    sport, dport, seq, ack, _, flags, window = struct.unpack(">HHIIBBH", tcp[:16])
    key = (destination, source, dport, sport, vlan, tagged)
    if key not in installed:
        return Segment("rx_no_connection", key)
    if not flags & 0x16:
        return Segment("rx_tcp_flags", key)
    payload = tcp[header:]
    if len(payload) > slot_bytes:
        return Segment("rx_no_slot", key)
    canonical = len(options) == 12 and options[:4] == b"\x01\x01\x08\x0a"
    tsval, tsecr = stamps or (0, 0)
    bits = {name: flags >> n & 1 for n, name in enumerate(("fin", "syn", "rst", "psh", "has_ack", "urg", "ece", "cwr"))}
    return Segment(None, key, payload, seq, ack, window, **bits, ecn=packet[1] & 3, has_ts=int(stamps is not None),
                   tsval=tsval, tsecr=tsecr, options=int(bool(options) and not canonical), qp=installed[key])
