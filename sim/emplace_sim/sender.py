"""A peer's transmit side on bytes: DDP segments, and frames that carry a stream of them.

Nothing here retransmits or listens: tests and benchmarks decide what goes out, in which cut.

Ref: RFC 5040 section 4, RFC 5041 section 4 (headers); RFC 9293 section 3.1, RFC 7323 section 3 (TCP).
"""

import struct
from dataclasses import dataclass, field

from .fpdu import crc32c
from .inet import checksum, ones_sum

__all__ = ["Flow", "fpdu", "read_request", "read_response", "send", "tagged", "terminate", "untagged", "write"]

WRITE, READ_REQUEST, READ_RESPONSE, SEND, SEND_INV, SEND_SE, SEND_SE_INV, TERMINATE = range(8)


def fpdu(ulpdu, *, crc=True, pad=0, length=None):
    """The FPDU of a ULPDU (RFC 5044 section 4.1). ``crc`` False: the field is 0; ``length``: a lie."""
    body = (len(ulpdu) if length is None else length).to_bytes(2, "big") + ulpdu
    body += bytes([pad]) * (-len(body) % 4)
    return body + (crc32c(body).to_bytes(4, "little") if crc else bytes(4))


def tagged(opcode, stag, to, payload, *, last=True, ddp=0x81, rdmap=0x40):
    """A tagged ULPDU: 14 octets of header, then the payload."""
    return struct.pack(">BBIQ", ddp | 0x40 * last, rdmap | opcode, stag, to) + payload


def untagged(opcode, qn, msn, mo, payload, *, last=True, invalidate=0, ddp=0x01, rdmap=0x40):
    """An untagged ULPDU: 18 octets of header, then the payload."""
    return struct.pack(">BBIIII", ddp | 0x40 * last, rdmap | opcode, invalidate, qn, msn, mo) + payload


def write(stag, to, payload, *, last=True):
    return tagged(WRITE, stag, to, payload, last=last)


def read_response(stag, to, payload, *, last=True):
    return tagged(READ_RESPONSE, stag, to, payload, last=last)


def send(msn, payload, *, mo=0, last=True, solicited=False, invalidate=None):
    opcode = SEND + 2 * solicited + (invalidate is not None)
    return untagged(opcode, 0, msn, mo, payload, last=last, invalidate=invalidate or 0)


def read_request(msn, sink_stag, sink_to, size, source_stag, source_to):
    return untagged(READ_REQUEST, 1, msn, 0, struct.pack(">IQIIQ", sink_stag, sink_to, size, source_stag, source_to))


def terminate(code, *, flags=0, copied=b""):
    """``code`` as in abi.TERMINATE; ``flags`` are M, D, R in the top bits of an octet."""
    return untagged(TERMINATE, 2, 1, 0, struct.pack(">HBB", code, flags, 0) + copied)


@dataclass
class Flow:
    """One direction of a TCP connection: the peer's, towards the card.

    ``frame`` is stateless; ``push`` sends the next bytes of the stream.
    """

    src_ip: int = 0x0A000002
    dst_ip: int = 0x0A000001
    src_port: int = 20000
    dst_port: int = 30000
    src_mac: int = 0x525400000002
    dst_mac: int = 0x525400000001
    seq: int = 1000                      # of the next new byte
    ack: int = 5000
    window: int = 0x400
    timestamps: bool = True
    tsval: int = 100
    tsecr: int = 0
    vlan: int | None = None              # TCI
    mss: int = 1448
    sent: bytearray = field(default_factory=bytearray)

    def frame(self, payload=b"", *, seq=None, ack=None, flags=0x10, tsval=None, options=None, window=None):
        """A frame without FCS and padding."""
        if options is None:
            options = struct.pack(">BBBBII", 1, 1, 8, 10, self.tsval if tsval is None else tsval, self.tsecr) \
                if self.timestamps else b""
        head = struct.pack(">HHIIBBHHH", self.src_port, self.dst_port, (self.seq if seq is None else seq) & 0xFFFFFFFF,
                           (self.ack if ack is None else ack) & 0xFFFFFFFF, (5 + len(options) // 4) << 4, flags,
                           self.window if window is None else window, 0, 0) + options
        pseudo = struct.pack(">IIHH", self.src_ip, self.dst_ip, 6, len(head) + len(payload))
        total = checksum(head + payload, ones_sum(pseudo))
        segment = head[:16] + total.to_bytes(2, "big") + head[18:] + payload
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0, self.src_ip, self.dst_ip)
        ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
        ether = self.dst_mac.to_bytes(6, "big") + self.src_mac.to_bytes(6, "big")
        if self.vlan is not None:
            ether += struct.pack(">HH", 0x8100, self.vlan)
        return ether + b"\x08\x00" + ip + segment

    def push(self, payload, **changes):
        """The frame with the next ``payload`` of the stream."""
        made = self.frame(payload, **changes)
        self.seq = (self.seq + len(payload)) & 0xFFFFFFFF
        self.sent += payload
        return made

    def cut(self, stream, mss=None):
        """Frames that carry ``stream`` in segments of ``mss`` bytes, the last one with PSH, as stacks send it."""
        mss = mss or self.mss
        return [self.push(stream[at:at + mss], flags=0x10 if at + mss < len(stream) else 0x18)
                for at in range(0, len(stream), mss)]
