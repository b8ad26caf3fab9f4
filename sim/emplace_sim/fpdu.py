"""MPA on bytes: CRC32c, FPDUs, and a byte stream cut into them.

Ref: RFC 5044 section 4 (FPDU, padding, CRC); RFC 3720 appendix B.4 (CRC32c test vectors).
"""

import functools
import struct
from typing import NamedTuple

__all__ = ["crc32c", "fpdu_bytes", "build_fpdu", "Fpdu", "Split", "split_fpdus"]


def _table():
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        rows.append(value)
    return rows


_TABLE = _table()


@functools.cache
def _wide():
    """Tables of two octets each: what the first and the second half of a 32-bit word leave behind the whole word."""
    second = [_TABLE[(_TABLE[n & 0xFF] ^ n >> 8) & 0xFF] ^ _TABLE[n & 0xFF] >> 8 for n in range(1 << 16)]
    return [second[n & 0xFFFF] ^ n >> 16 for n in second], second


def crc32c(data: bytes) -> int:
    """CRC32c as a number; on the wire it stands little-endian."""
    crc, words = 0xFFFFFFFF, len(data) // 4 if len(data) >= 64 else 0
    if words:
        first, second = _wide()
        for word in struct.unpack_from(f"<{words}I", data):
            crc ^= word
            crc = first[crc & 0xFFFF] ^ second[crc >> 16]
    for byte in data[4 * words:]:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def fpdu_bytes(length: int) -> int:
    """Octets of the FPDU whose ULPDU_Length is ``length``: length field, ULPDU, PAD and CRC."""
    return (2 + length + 3) // 4 * 4 + 4


def build_fpdu(ulpdu: bytes, crc: bool = True, pad: bytes = bytes(3), length: int | None = None) -> bytes:
    """The FPDU of ``ulpdu``. Without ``crc`` its CRC field is 0, as siw sends it; ``length``: a lie."""
    body = (len(ulpdu) if length is None else length).to_bytes(2, "big") + ulpdu
    body += pad[:-len(body) % 4]
    return body + (crc32c(body).to_bytes(4, "little") if crc else bytes(4))


class Fpdu(NamedTuple):
    """A whole FPDU of a stream: where it starts, how long it is, its ULPDU, and whether its CRC holds."""

    start: int
    size: int
    ulpdu: bytes
    crc_good: bool


class Split(NamedTuple):
    """``fpdus``: the whole ones. ``rest``: where they end. ``bad_length``: what follows breaks check M1."""

    fpdus: list[Fpdu]
    rest: int
    bad_length: bool


def split_fpdus(stream: bytes, fpdu_max: int = 2048) -> Split:
    """Cut a stream that starts at an FPDU into FPDUs, up to its end or the first impossible ULPDU_Length.

    ULPDU_Length is judged as soon as both octets are there, and once more as soon as the octet with the T bit is.
    """
    fpdus, at = [], 0
    while at + 2 <= len(stream):
        length = int.from_bytes(stream[at:at + 2], "big")
        size = fpdu_bytes(length)
        untagged = at + 3 <= len(stream) and not stream[at + 2] & 0x80
        if length < (18 if untagged else 14) or size > fpdu_max:
            return Split(fpdus, at, True)
        if at + size > len(stream):
            break
        crc = int.from_bytes(stream[at + size - 4:at + size], "little")
        fpdus.append(Fpdu(at, size, stream[at + 2:at + 2 + length], crc == crc32c(stream[at:at + size - 4])))
        at += size
    return Split(fpdus, at, False)
