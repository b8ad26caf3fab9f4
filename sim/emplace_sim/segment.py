"""TCP segments in IPv4 in Ethernet, on bytes: built and taken apart.

Ref: RFC 791, RFC 9293 section 3.1, RFC 7323 (timestamps, window scale), RFC 2018 (SACK), IEEE Std 802.1Q.
"""

import struct
from dataclasses import dataclass, field, replace

from .inet import checksum, ones_sum

__all__ = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "BadSegment", "Ends", "Tcp", "build", "parse", "signed",
           "timestamp_option"]

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << n for n in range(8))


class BadSegment(Exception):
    """The frame is no TCP segment, or a damaged one; ``args[0]`` says what is wrong."""


def signed(value: int) -> int:
    """Difference of sequence numbers as a signed number."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


@dataclass(frozen=True)
class Ends:
    """Both ends of a connection, as the sender of a segment sees them."""

    src_mac: int
    dst_mac: int
    src_ip: int
    dst_ip: int
    src_port: int
    dst_port: int
    vlan: int | None = None              # TCI

    @property
    def turned(self):
        """As the other end sees it."""
        return replace(self, src_mac=self.dst_mac, dst_mac=self.src_mac, src_ip=self.dst_ip, dst_ip=self.src_ip,
                       src_port=self.dst_port, dst_port=self.src_port)


@dataclass
class Tcp:
    """A segment's header fields and payload. ``ecn``: the two bits of IP's field."""

    seq: int
    ack: int = 0
    flags: int = ACK
    window: int = 0                      # as on the wire
    options: bytes = b""
    payload: bytes = b""
    ecn: int = 0
    timestamps: tuple[int, int] | None = None        # what parse() found in the options
    mss: int | None = None
    wscale: int | None = None
    sack_permitted: bool = False
    sack: list[tuple[int, int]] = field(default_factory=list)

    @property
    def length(self):
        """Sequence numbers that it takes."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)


def timestamp_option(tsval: int, tsecr: int) -> bytes:
    return struct.pack(">BBBBII", 1, 1, 8, 10, tsval & 0xFFFFFFFF, tsecr & 0xFFFFFFFF)


def build(ends: Ends, tcp: Tcp, *, tos=0, ttl=64, identification=0) -> bytes:
    """The frame, without padding and FCS. ``tcp.options`` are its options; what is parsed out of them isn't looked at."""
    options = tcp.options + bytes(-len(tcp.options) % 4)
    head = struct.pack(">HHIIBBHHH", ends.src_port, ends.dst_port, tcp.seq & 0xFFFFFFFF, tcp.ack & 0xFFFFFFFF,
                       (5 + len(options) // 4) << 4, tcp.flags, tcp.window, 0, 0) + options
    size = len(head) + len(tcp.payload)
    total = checksum(head + tcp.payload, ones_sum(struct.pack(">IIHH", ends.src_ip, ends.dst_ip, 6, size)))
    ip = struct.pack(">BBHHHBBHII", 0x45, tos | tcp.ecn, 20 + size, identification & 0xFFFF, 0x4000, ttl, 6, 0,
                     ends.src_ip, ends.dst_ip)
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    ether = ends.dst_mac.to_bytes(6, "big") + ends.src_mac.to_bytes(6, "big")
    if ends.vlan is not None:
        ether += struct.pack(">HH", 0x8100, ends.vlan)
    return ether + b"\x08\x00" + ip + head[:16] + total.to_bytes(2, "big") + head[18:] + tcp.payload


def _options(tcp, octets):
    at = 0
    while at < len(octets) and octets[at]:
        kind = octets[at]
        if kind == 1:
            at += 1
            continue
        size = octets[at + 1] if at + 1 < len(octets) else 0
        if size < 2 or at + size > len(octets):
            raise BadSegment("TCP options")
        value = octets[at + 2:at + size]
        if kind == 8 and size == 10:
            tcp.timestamps = struct.unpack(">II", value)
        elif kind == 5 and size % 8 == 2:
            tcp.sack = [struct.unpack(">II", value[n:n + 8]) for n in range(0, size - 2, 8)]
        elif kind == 2 and size == 4:
            tcp.mss = int.from_bytes(value, "big")
        elif kind == 3 and size == 3:
            tcp.wscale = min(value[0], 14)
        elif kind == 4:
            tcp.sack_permitted = True
        at += size


def parse(frame: bytes) -> tuple[Ends, Tcp]:
    """Ends and segment of ``frame`` (padding may follow, no FCS). :class:`BadSegment` unless both checksums hold."""
    at, vlan = 14, None
    if frame[12:14] == b"\x81\x00":
        at, vlan = 18, int.from_bytes(frame[14:16], "big")
    if frame[at - 2:at] != b"\x08\x00":
        raise BadSegment("not IPv4")
    packet = frame[at:]
    if len(packet) < 40 or packet[0] != 0x45:
        raise BadSegment("IPv4 header")
    total = int.from_bytes(packet[2:4], "big")
    if ones_sum(packet[:20]) != 0xFFFF:
        raise BadSegment("IPv4 checksum")
    if not 40 <= total <= len(packet) or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        raise BadSegment("IPv4 length or fragment")
    if packet[9] != 6:
        raise BadSegment("not TCP")
    octets = packet[20:total]
    sport, dport, seq, ack, offset, flags, window = struct.unpack(">HHIIBBH", octets[:16])
    header = offset >> 4 << 2
    if not 20 <= header <= len(octets):
        raise BadSegment("TCP data offset")
    if ones_sum(packet[12:20] + struct.pack(">HH", 6, len(octets)) + octets) != 0xFFFF:
        raise BadSegment("TCP checksum")
    source, destination = struct.unpack(">II", packet[12:20])
    ends = Ends(int.from_bytes(frame[6:12], "big"), int.from_bytes(frame[:6], "big"), source, destination, sport, dport, vlan)
    tcp = Tcp(seq, ack, flags, window, octets[20:header], octets[header:], packet[1] & 3)
    _options(tcp, tcp.options)
    return ends, tcp
