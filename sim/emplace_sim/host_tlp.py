"""PCI Express transaction layer packets as bytes (PCIe Base Specification 2.2): a golden codec."""

from dataclasses import dataclass

__all__ = ["Tlp", "TlpError", "memory_request", "completion", "split_completion", "SUCCESS", "UNSUPPORTED", "ABORT"]

SUCCESS, UNSUPPORTED, ABORT = 0, 1, 4
_KINDS = {(0, 0x00): "MRd", (1, 0x00): "MRd", (2, 0x00): "MWr", (3, 0x00): "MWr", (0, 0x0A): "Cpl", (2, 0x0A): "CplD"}


class TlpError(Exception):
    """Bytes that are no TLP, or one that breaks a rule."""


@dataclass
class Tlp:
    """A memory request or a completion. ``requester`` is whose request it is (or answers)."""

    kind: str                # MRd, MWr, Cpl, CplD
    requester: int
    tag: int
    length: int              # DWORDs, 1..1024
    payload: bytes = b""
    address: int = 0         # multiple of 4
    first_be: int = 15
    last_be: int = 0
    wide: bool = False       # 4DW header
    completer: int = 0
    status: int = SUCCESS
    byte_count: int = 0
    lower_address: int = 0
    poisoned: bool = False
    attributes: int = 0      # TC, attributes, TH, AT: all the header bits that ought to be 0

    @property
    def header_bytes(self):
        return 16 if self.wide else 12

    @property
    def span(self):
        """(first byte's address, bytes) that the byte enables name; 0 bytes if none is set."""
        if self.length == 1:
            first, last = self.first_be, self.first_be
        else:
            first, last = self.first_be, self.last_be
        if not first or not last:
            return self.address, 0
        skip = (first & -first).bit_length() - 1
        return self.address + skip, 4 * (self.length - 1) + last.bit_length() - skip

    def writes(self):
        """(address, bytes) runs that a write touches."""
        address, size = self.span
        skip = address - self.address
        enables = [self.first_be] + [15] * (self.length - 2) + ([self.last_be] if self.length > 1 else [])
        if all(be == 15 for be in enables[1:-1]) and _solid(self):
            return [(address, self.payload[skip:skip + size])] if size else []
        return [(self.address + 4 * n + b, self.payload[4 * n + b:4 * n + b + 1])
                for n, be in enumerate(enables) for b in range(4) if be >> b & 1]

    def pack(self) -> bytes:
        fmt = (2 if self.payload else 0) | self.wide
        kind = 0x0A if self.kind.startswith("Cpl") else 0x00
        word = fmt << 29 | kind << 24 | self.poisoned << 14 | self.attributes | self.length % 1024
        if kind == 0x0A:
            rest = [self.completer << 16 | self.status << 13 | self.byte_count % 4096,
                    self.requester << 16 | self.tag << 8 | self.lower_address]
        else:
            rest = [self.requester << 16 | self.tag << 8 | self.last_be << 4 | self.first_be]
            rest += [self.address >> 32, self.address & 0xFFFFFFFF] if self.wide else [self.address]
        return b"".join(value.to_bytes(4, "big") for value in (word, *rest)) + self.payload

    @classmethod
    def parse(cls, packet: bytes):
        if len(packet) < 12 or len(packet) % 4:
            raise TlpError(f"{len(packet)} bytes are no TLP: {packet[:16].hex()}")
        words = [int.from_bytes(packet[n:n + 4], "big") for n in range(0, min(len(packet), 16), 4)]
        kind = _KINDS.get((words[0] >> 29, words[0] >> 24 & 31))
        if kind is None:
            raise TlpError(f"type {words[0] >> 24:#04x} is neither a memory request nor a completion")
        wide = bool(words[0] >> 29 & 1)
        header = 16 if wide else 12
        payload, length = packet[header:], words[0] & 0x3FF or 1024
        if len(payload) != (4 * length if words[0] >> 30 & 1 else 0):
            raise TlpError(f"{kind} of {length} DWORDs carries {len(payload)} bytes")
        common = dict(kind=kind, length=length, payload=payload, wide=wide, poisoned=bool(words[0] >> 14 & 1),
                      attributes=words[0] & 0x00FFBC00)
        if kind.startswith("Cpl"):
            return cls(**common, completer=words[1] >> 16, status=words[1] >> 13 & 7,
                       byte_count=words[1] & 0xFFF or 4096, requester=words[2] >> 16, tag=words[2] >> 8 & 0xFF,
                       lower_address=words[2] & 0x7F)
        address = words[2] << 32 | words[3] if wide else words[2]
        return cls(**common, requester=words[1] >> 16, tag=words[1] >> 8 & 0xFF, last_be=words[1] >> 4 & 15,
                   first_be=words[1] & 15, address=address & ~3)

    def check_request(self):
        """Rules of 2.2.5, 2.2.7 that hold whatever the sizes; raises TlpError."""
        if self.wide and self.address >> 32 == 0:
            raise TlpError(f"4DW header for {self.address:#x}, below 4 GiB")
        if self.address % 4096 + 4 * self.length > 4096:
            raise TlpError(f"{4 * self.length} bytes at {self.address:#x} cross a 4 KiB boundary")
        if self.length == 1 and self.last_be:
            raise TlpError(f"last byte enables {self.last_be:#x} for one DWORD")
        if self.length > 1 and not (self.first_be and self.last_be):
            raise TlpError(f"byte enables {self.first_be:#x}, {self.last_be:#x} of {self.length} DWORDs")
        if self.length > 1 and not _solid(self) and not (self.length == 2 and self.address % 8 == 0):
            raise TlpError(f"byte enables {self.first_be:#x}, {self.last_be:#x} with holes")


def _solid(tlp):
    """The byte enables name one run of bytes."""
    if tlp.length == 1:
        return tlp.first_be in (0, 1, 2, 3, 4, 6, 7, 8, 12, 14, 15)
    return tlp.first_be in (8, 12, 14, 15) and tlp.last_be in (1, 3, 7, 15)


def memory_request(address, size, *, data=None, requester=0, tag=0):
    """MWr of ``data``, or MRd of ``size`` bytes, at any byte address; within 4 KiB."""
    size = len(data) if data is not None else size
    first, end = address & ~3, address + size
    length = max((end - first + 3) // 4, 1)
    first_be, last_be = 15 << (address & 3) & 15, 15 >> (-end & 3)
    if length == 1:
        first_be, last_be = (first_be & last_be if size else 0), 0
    payload = b""
    if data is not None:
        payload = bytes(address & 3) + bytes(data) + bytes(-end & 3)
    tlp = Tlp("MRd" if data is None else "MWr", requester, tag, length, payload, first, first_be, last_be,
              wide=first >> 32 != 0)
    tlp.check_request()
    return tlp


def completion(request, *, data=None, status=SUCCESS, completer=0, byte_count=None, at=None):
    """CplD with ``data`` (from address ``at`` on), or Cpl with ``status``, for a read ``request``."""
    address, size = request.span
    at = address if at is None else at
    if data is None:
        return Tlp("Cpl", request.requester, request.tag, 1024, completer=completer, status=status,
                   byte_count=4, lower_address=0)
    payload = bytes(at & 3) + data + bytes(-(at + len(data)) & 3)
    return Tlp("CplD", request.requester, request.tag, len(payload) // 4, payload, completer=completer,
               byte_count=size if byte_count is None else byte_count, lower_address=at & 0x7F)


def split_completion(request, data, *, limit, cut="max", rng=None, rcb=64):
    """Completions for ``request``: cut at read completion boundaries (2.3.1.1), none longer than ``limit``.

    ``cut``: "max" as few as may be, "rcb" at each boundary, "random" at some.
    """
    address, size = request.span
    if not size:                            # zero-length read: one DWORD of nothing
        return [Tlp("CplD", request.requester, request.tag, 1, bytes(4), byte_count=1, lower_address=address & 0x7C)]
    found, at = [], address
    end = address + size
    while at < end:
        top = min((at + limit) & -rcb, end) if at + limit < end else end
        if cut == "rcb":
            top = min((at // rcb + 1) * rcb, end)
        elif cut == "random" and rng is not None:
            marks = [mark for mark in range((at // rcb + 1) * rcb, top, rcb)]
            top = rng.choice([*marks, top])
        found.append(completion(request, data=data[at - address:top - address], byte_count=end - at, at=at))
        at = top
    return found
