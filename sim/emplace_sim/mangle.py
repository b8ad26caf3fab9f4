"""Frames that a broken or malicious peer might send: good ones, spoiled in one of many ways. Seeded."""

import struct

from . import ddp
from .fpdu import build_fpdu as fpdu
from .inet import checksum

__all__ = ["KINDS", "mangled"]


def _flip(rng, data, most=4):
    data = bytearray(data)
    for _ in range(rng.randint(1, most)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _ulpdu(rng, stag, base, length):
    """Some legal ULPDU, most often for the region that the peer may write to."""
    data = rng.randbytes(rng.choice([0, 1, 5, 64, 300]))
    at = base + rng.randrange(max(length - len(data), 1))
    return rng.choice([
        lambda: ddp.write(stag, at, data),
        lambda: ddp.write(stag, at, data, last=False),
        lambda: ddp.send(1, data[:64]),
        lambda: ddp.send(1, data[:64], solicited=True, invalidate=stag),
        lambda: ddp.read_request(1, 0x1234, 0, len(data), stag, at),
        lambda: ddp.read_response(stag, at, data),
        lambda: ddp.terminate(0x1101),
    ])()


def bits(rng, flow, ulpdu):
    """Bits flipped anywhere, no checksum mended."""
    return _flip(rng, flow.frame(fpdu(ulpdu)))


def stream_bits(rng, flow, ulpdu):
    """Bits flipped in the FPDU; TCP's checksum holds, MPA's CRC most often not."""
    return flow.frame(_flip(rng, fpdu(ulpdu)))


def header_bits(rng, flow, ulpdu):
    """Bits flipped in the DDP header under a right CRC."""
    return flow.frame(fpdu(_flip(rng, ulpdu[:18], 2) + ulpdu[18:]))


def wrong_length(rng, flow, ulpdu):
    """ULPDU_Length lies, the CRC is right for what is there."""
    return flow.frame(fpdu(ulpdu, length=rng.choice([0, 1, 13, 17, len(ulpdu) + 1, 4000, 65535, rng.randrange(65536)])))


def wild_header(rng, flow, ulpdu):
    """A random DDP header."""
    return flow.frame(fpdu(rng.randbytes(rng.randint(1, 60))))


def extremes(rng, flow, ulpdu):
    """TO, MSN, MO, QN at the ends of their ranges."""
    ends = [0, 1, (1 << 32) - 1, 1 << 31, rng.getrandbits(32)]
    if rng.random() < 0.5:
        return flow.frame(fpdu(ddp.tagged(rng.randrange(16), rng.choice(ends), rng.choice(ends) << 32 | rng.choice(ends),
                                          rng.randbytes(rng.randrange(100)), last=rng.random() < 0.5)))
    return flow.frame(fpdu(ddp.untagged(rng.randrange(16), qn=rng.choice([0, 1, 2, 3, 0xFFFFFFFF]), msn=rng.choice(ends),
                                         mo=rng.choice(ends), payload=rng.randbytes(rng.randrange(100)),
                                         last=rng.random() < 0.5)))


def sequence(rng, flow, ulpdu):
    """SEQ and ACK anywhere."""
    return flow.frame(fpdu(ulpdu), seq=flow.seq + rng.choice([-1, 1, 4, -1460, 1 << 20, 1 << 31, rng.getrandbits(32)]),
                      ack=rng.getrandbits(32))


def flags(rng, flow, ulpdu):
    return flow.frame(fpdu(ulpdu), flags=rng.getrandbits(8))


def options(rng, flow, ulpdu):
    """TCP options of any content, the length a multiple of 4."""
    return flow.frame(fpdu(ulpdu), options=_flip(rng, rng.choice([
        rng.randbytes(4 * rng.randint(1, 10)), b"\1\1\x08\x0a" + rng.randbytes(8), b"\1\1\x05\x0a" + rng.randbytes(8),
        b"\x08\x0a" + rng.randbytes(8) + b"\1\1", b"\x05\x22" + rng.randbytes(38), bytes(12)])))


def ip_header(rng, flow, ulpdu):
    """A field of the IPv4 header changed, its checksum mended."""
    frame = bytearray(flow.frame(fpdu(ulpdu)))
    at = rng.choice([14, 15, 16, 17, 18, 20, 21, 22, 23])
    frame[at] = rng.getrandbits(8)
    frame[24:26] = b"\0\0"
    frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
    return bytes(frame)


def cut_short(rng, flow, ulpdu):
    frame = flow.frame(fpdu(ulpdu))
    return frame[:rng.randrange(1, len(frame))]


def too_long(rng, flow, ulpdu):
    return flow.frame(fpdu(ulpdu)) + rng.randbytes(rng.randint(1, 400))


def ethertype(rng, flow, ulpdu):
    frame = flow.frame(fpdu(ulpdu))
    return frame[:12] + struct.pack(">H", rng.choice([0x8100, 0x86DD, 0x0806, rng.getrandbits(16)])) + frame[14:]


def noise(rng, flow, ulpdu):
    return rng.randbytes(rng.randint(1, 1514))


KINDS = (bits, stream_bits, header_bits, wrong_length, wild_header, extremes, sequence, flags, options, ip_header,
         cut_short, too_long, ethertype, noise)


def mangled(rng, flow, stag, base, length):
    """(kind, frame) for the peer behind ``flow``, who may write to one region."""
    kind = rng.choice(KINDS)
    return kind.__name__, kind(rng, flow, _ulpdu(rng, stag, base, length))
