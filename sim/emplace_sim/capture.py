"""Captured iWARP connections: frames, byte streams, FPDUs and messages.

An independent reading of RFC 9293, 5044, 5041 and 5040 for golden images: frames are dissected by
scapy, everything above TCP is parsed here, from bytes. It knows nothing of the gateware.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from scapy.error import Scapy_Exception
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import RawPcapReader

from .fpdu import crc32c
from .mpa import REPLY_KEY, REQUEST_KEY, MpaFrame

__all__ = ["CaptureError", "Frame", "MpaFrame", "Fpdu", "Message", "Side", "Connection", "read_frames", "read_capture",
           "find_connections", "parse_fpdus", "messages", "crc32c", "relative"]

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << n for n in range(8))
WRITE, READ_REQUEST, READ_RESPONSE, SEND, SEND_INV, SEND_SE, SEND_SE_INV, TERMINATE = range(8)
OPCODES = ("Write", "ReadReq", "ReadResp", "Send", "SendInv", "SendSE", "SendSEInv", "Terminate")
SENDS = {SEND, SEND_INV, SEND_SE, SEND_SE_INV}


class CaptureError(Exception):
    """The file is no capture, or holds nothing that can be replayed."""


def relative(seq: int, base: int) -> int:
    """Signed distance from ``base`` to ``seq``, modulo 2**32."""
    return (seq - base + 0x80000000 & 0xFFFFFFFF) - 0x80000000


# Frames

@dataclass
class Frame:
    """A TCP segment as captured. ``payload_at`` is where its payload lies in ``raw``."""

    number: int              # in the file, from 1, as Wireshark counts
    time_ns: int
    raw: bytes
    src_mac: int
    dst_mac: int
    vlan_tci: int | None
    src: tuple[int, int]     # address, port
    dst: tuple[int, int]
    tos: int
    ttl: int
    seq: int
    ack: int
    flags: int
    window: int              # as on the wire
    options: dict            # MSS, WScale, SAckOK, Timestamp, SAck: scapy's values
    payload: bytes
    ip_at: int
    tcp_at: int
    payload_at: int

    @property
    def end(self):
        """Sequence number behind it."""
        return self.seq + len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN) & 0xFFFFFFFF


def _dissect(number, time_ns, raw):
    packet = Ether(raw)
    if IP not in packet or TCP not in packet or packet[IP].frag or packet[IP].flags & 1:
        return None
    ip, tcp = packet[IP], packet[TCP]
    ip_at = 18 if Dot1Q in packet else 14
    tcp_at = ip_at + 4 * ip.ihl
    payload_at = tcp_at + 4 * tcp.dataofs
    end = ip_at + ip.len                # not the frame's end: that may be Ethernet padding
    if end > len(raw) or payload_at > end:
        raise CaptureError(f"frame {number} is cut short: capture whole frames (tcpdump -s 0)")
    tag = packet[Dot1Q] if Dot1Q in packet else None
    return Frame(
        number=number, time_ns=time_ns, raw=raw, src_mac=int(packet.src.replace(":", ""), 16),
        dst_mac=int(packet.dst.replace(":", ""), 16),
        vlan_tci=None if tag is None else tag.prio << 13 | tag.id << 12 | tag.vlan,
        src=(_address(ip.src), tcp.sport), dst=(_address(ip.dst), tcp.dport), tos=ip.tos, ttl=ip.ttl,
        seq=tcp.seq, ack=tcp.ack, flags=int(tcp.flags) & 0xFF, window=tcp.window,
        options={name: value for name, value in tcp.options if isinstance(name, str)}, payload=raw[payload_at:end],
        ip_at=ip_at, tcp_at=tcp_at, payload_at=payload_at)


def _address(text):
    return int.from_bytes(bytes(map(int, text.split("."))), "big")


def read_frames(path) -> list[Frame]:
    """TCP segments of a capture (pcap or pcapng, Ethernet), in file order."""
    frames = []
    try:
        with RawPcapReader(str(path)) as reader:
            if getattr(reader, "linktype", 1) not in (1, None):
                raise CaptureError(f"{path}: link type {reader.linktype} is not Ethernet")
            for number, (raw, meta) in enumerate(reader, 1):
                if hasattr(meta, "sec"):
                    time_ns = meta.sec * 10**9 + meta.usec * (1 if getattr(reader, "nano", False) else 1000)
                else:
                    time_ns = ((meta.tshigh or 0) << 32 | (meta.tslow or 0)) * 10**9 // (meta.tsresol or 10**6)
                frame = _dissect(number, time_ns, bytes(raw))
                if frame is not None:
                    frames.append(frame)
    except (Scapy_Exception, OSError, EOFError) as error:
        raise CaptureError(f"{path}: {error}") from None
    return frames


# FPDUs and messages

@dataclass
class Fpdu:
    """One FPDU. ``start`` and ``end`` are offsets in the stream behind the MPA frame."""

    start: int
    raw: bytes               # with padding and CRC
    crc_good: bool
    length: int              # of the ULPDU

    @property
    def end(self):
        return self.start + len(self.raw)

    @property
    def crc_zero(self):
        return self.raw[-4:] == bytes(4) and not self.crc_good

    def _number(self, at, size):
        return int.from_bytes(self.raw[at:at + size], "big")

    tagged = property(lambda self: bool(self.raw[2] & 0x80))
    last = property(lambda self: bool(self.raw[2] & 0x40))
    opcode = property(lambda self: self.raw[3] & 15)
    stag = property(lambda self: self._number(4, 4))          # tagged; Send with Invalidate: the one to invalidate
    offset = property(lambda self: self._number(8, 8))        # tagged
    qn = property(lambda self: self._number(8, 4))            # untagged
    msn = property(lambda self: self._number(12, 4))
    mo = property(lambda self: self._number(16, 4))

    @property
    def payload(self):
        return self.raw[16 if self.tagged else 20:2 + self.length]

    @property
    def header(self):
        """What an event shows of it."""
        return self.raw[:min(48, 2 + self.length)]


def parse_fpdus(stream: bytes):
    """FPDUs of a stream without markers, and how many bytes of it are in none."""
    found, at = [], 0
    while at + 2 <= len(stream):
        length = int.from_bytes(stream[at:at + 2], "big")
        body = 2 + length + -(2 + length) % 4
        if length < 14 or at + body + 4 > len(stream):
            break
        raw = bytes(stream[at:at + body + 4])
        found.append(Fpdu(at, raw, crc32c(raw[:-4]) == int.from_bytes(raw[-4:], "little"), length))
        at += body + 4
    return found, len(stream) - at


@dataclass
class Message:
    """An RDMAP message; ``data`` is its payload, joined."""

    opcode: int
    fpdus: list[Fpdu] = field(default_factory=list)

    @property
    def data(self):
        return b"".join(f.payload for f in self.fpdus)

    @property
    def complete(self):
        return self.fpdus[-1].last


def messages(fpdus):
    """Messages in the order of their first FPDU; those of different classes may interleave."""
    found, open_messages = [], {}
    for fpdu in fpdus:
        key = (fpdu.opcode, fpdu.stag) if fpdu.tagged else (fpdu.qn, fpdu.msn)
        message = open_messages.get(key)
        if message is None:
            message = open_messages[key] = Message(fpdu.opcode)
            found.append(message)
        message.fpdus.append(fpdu)
        if fpdu.last:
            del open_messages[key]
    return found


# Connections

@dataclass
class Side:
    """One direction of a connection, named by who sends: its addresses, options, and stream."""

    address: tuple[int, int]
    mac: int
    frames: list[Frame] = field(default_factory=list)
    isn: int | None = None
    mss: int = 536
    wscale: int | None = None
    timestamps: bool = False
    sack: bool = False
    ecn: bool = False
    mpa: MpaFrame | None = None
    stream: bytes = b""      # contiguous bytes behind the MPA frame
    missing: int = 0         # bytes seen behind a hole that was never filled
    fpdus: list[Fpdu] = field(default_factory=list)
    rest: int = 0            # bytes of an FPDU that the capture does not hold whole

    @property
    def start(self):
        """Sequence number of the stream's first byte, just behind the MPA frame."""
        return self.isn + 1 + self.mpa.length & 0xFFFFFFFF

    @property
    def mpa_frame(self):
        """The captured frame that brought the last byte of the MPA frame."""
        need, have = self.mpa.length, bytearray(self.mpa.length)
        for frame in self.frames:
            at = relative(frame.seq, self.isn + 1)
            if not frame.flags & SYN and frame.payload and at < need:
                have[max(at, 0):at + len(frame.payload)] = b"\1" * (min(need, at + len(frame.payload)) - max(at, 0))
                if 0 not in have:
                    return frame
        raise CaptureError("the MPA frame is not whole")

    @property
    def name(self):
        return ".".join(map(str, self.address[0].to_bytes(4, "big"))) + f":{self.address[1]}"


@dataclass
class Connection:
    """A TCP connection that became iWARP: ``client`` sent the MPA request."""

    client: Side
    server: Side

    @property
    def crc(self):
        """CRC is used both ways if either side asked for it (RFC 5044 7.1.1)."""
        return self.client.mpa.crc or self.server.mpa.crc

    @property
    def frames(self):
        return sorted(self.client.frames + self.server.frames, key=lambda f: f.number)

    def sides(self, role):
        """(the card's side, the peer's side) when the card plays ``role``."""
        return (self.client, self.server) if role == "client" else (self.server, self.client)


def _reassemble(frames, base):
    """Bytes from ``base`` on, the first copy of each winning; and the bytes behind the first hole."""
    data, have = bytearray(), bytearray()
    for frame in frames:
        at, payload = relative(frame.seq, base) + bool(frame.flags & SYN), frame.payload
        if at < 0:
            at, payload = 0, payload[-at:]
        if not payload or at > 1 << 28:
            continue
        end = at + len(payload)
        if end > len(data):
            data.extend(bytes(end - len(data)))
            have.extend(bytes(end - len(have)))
        if not any(have[at:end]):
            data[at:end] = payload
        else:
            for n, byte in enumerate(payload, at):
                if not have[n]:
                    data[n] = byte
        have[at:end] = b"\1" * (end - at)
    contiguous = have.find(0) if 0 in have else len(have)
    return bytes(data[:contiguous]), sum(have[contiguous:])


def _finish(side):
    """Options, stream and FPDUs of ``side`` from its frames."""
    syn = next((f for f in side.frames if f.flags & SYN), None)
    if syn is not None:
        side.isn = syn.seq
        side.mss = syn.options.get("MSS", 536)
        side.wscale = syn.options.get("WScale")
        side.timestamps = "Timestamp" in syn.options
        side.sack = "SAckOK" in syn.options
        side.ecn = bool(syn.flags & ECE)
    else:
        # The handshake was not captured: begin at the MPA frame, and suppose what the segments show.
        first = next((f for f in side.frames if f.payload[:16] in (REQUEST_KEY, REPLY_KEY)), None)
        if first is None:
            return
        side.isn = first.seq - 1 & 0xFFFFFFFF
        side.timestamps = "Timestamp" in first.options
    stream, side.missing = _reassemble(side.frames, side.isn + 1 & 0xFFFFFFFF)
    side.mpa = MpaFrame.parse(stream)
    if side.mpa is not None:
        side.stream = stream[side.mpa.length:]
        side.fpdus, side.rest = parse_fpdus(side.stream)


def find_connections(frames):
    """(iWARP connections, why other TCP connections are none), each in order of appearance."""
    current, conversations = {}, []
    for frame in frames:
        key = frozenset((frame.src, frame.dst))
        sides = current.get(key)
        fresh = frame.flags & (SYN | ACK) == SYN
        if sides is None or (fresh and any(f.flags & SYN and f.seq != frame.seq
                                           for f in sides[frame.src].frames)):
            sides = current[key] = {}
            conversations.append(sides)
        for address, mac in ((frame.src, frame.src_mac), (frame.dst, frame.dst_mac)):
            sides.setdefault(address, Side(address, mac))
        sides[frame.src].frames.append(frame)

    connections, refused = [], []
    for sides in conversations:
        for side in sides.values():
            _finish(side)
        one, two = sides.values()
        names = f"{one.name} - {two.name}"
        if one.mpa is None or two.mpa is None or one.mpa.reply == two.mpa.reply:
            refused.append(f"{names}: no MPA request and reply")
            continue
        client, server = (two, one) if one.mpa.reply else (one, two)
        if server.mpa.rejected:
            refused.append(f"{names}: the MPA request was rejected")
        elif client.mpa.markers or server.mpa.markers:
            refused.append(f"{names}: MPA markers, which the card does not do")
        else:
            connections.append(Connection(client, server))
    return connections, refused


def read_capture(path) -> list[Connection]:
    """All iWARP connections of a capture file; :class:`CaptureError` if there are none."""
    if not Path(path).is_file():
        raise CaptureError(f"{path}: no such file")
    connections, refused = find_connections(read_frames(path))
    if not connections:
        why = "; ".join(refused) or "it has no TCP connection"
        raise CaptureError(f"{path}: no iWARP connection in it ({why})")
    return connections


def count_fpdus(connections):
    """{"good": ..., "zero": ..., "bad": ...} by CRC, and FPDUs by opcode's name."""
    crc, opcodes = {"good": 0, "zero": 0, "bad": 0}, defaultdict(int)
    for connection in connections:
        for side in (connection.client, connection.server):
            for fpdu in side.fpdus:
                crc["good" if fpdu.crc_good else "zero" if fpdu.crc_zero else "bad"] += 1
                opcodes[OPCODES[fpdu.opcode] if fpdu.opcode < 8 else "?"] += 1
    return crc, dict(opcodes)
