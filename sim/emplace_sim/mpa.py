"""MPA's start-up frames on bytes.

Ref: RFC 5044 section 7.1.1; RFC 6581 section 9 (enhanced set-up, peer-to-peer).
"""

from dataclasses import dataclass

__all__ = ["REQUEST_KEY", "REPLY_KEY", "PRIVATE_MAX", "MpaFrame"]

REQUEST_KEY, REPLY_KEY = b"MPA ID Req Frame", b"MPA ID Rep Frame"
PRIVATE_MAX = 512            # octets, the enhanced words included


@dataclass
class MpaFrame:
    """MPA request or reply."""

    reply: bool
    markers: bool = False
    crc: bool = True
    rejected: bool = False
    enhanced: bool = True
    revision: int = 2
    private: bytes = b""     # behind the enhanced words
    ird: int | None = None
    ord: int | None = None
    length: int = 0          # of the whole frame, as parsed
    p2p: bool = False        # A: the initiator sends an RTR first
    rtr: frozenset = frozenset()         # of "send" (B), "write" (C), "read" (D)

    @classmethod
    def parse(cls, stream: bytes):
        """The frame that ``stream`` begins with, or None."""
        if len(stream) < 20 or stream[:16] not in (REQUEST_KEY, REPLY_KEY):
            return None
        flags, revision, size = stream[16], stream[17], int.from_bytes(stream[18:20], "big")
        if len(stream) < 20 + size or size > PRIVATE_MAX:
            return None
        private, words = bytes(stream[20:20 + size]), None
        enhanced = revision >= 2 and bool(flags & 0x10) and size >= 4
        if enhanced:
            words = [int.from_bytes(private[n:n + 2], "big") for n in (0, 2)]
            private = private[4:]
        frame = cls(reply=stream[:16] == REPLY_KEY, markers=bool(flags & 0x80), crc=bool(flags & 0x40),
                    rejected=bool(flags & 0x20), enhanced=enhanced, revision=revision, private=private, length=20 + size)
        if words:
            frame.ird, frame.ord, frame.p2p = words[0] & 0x3FFF, words[1] & 0x3FFF, bool(words[0] & 0x8000)
            frame.rtr = frozenset(name for name, bit in (("send", words[0] & 0x4000), ("write", words[1] & 0x8000),
                                                         ("read", words[1] & 0x4000)) if bit)
        return frame

    def build(self) -> bytes:
        flags = 0x80 * self.markers | 0x40 * self.crc | 0x20 * self.rejected | 0x10 * self.enhanced
        private = self.private
        if self.enhanced:
            words = ((self.ird or 0) | 0x8000 * self.p2p | 0x4000 * ("send" in self.rtr),
                     (self.ord or 0) | 0x8000 * ("write" in self.rtr) | 0x4000 * ("read" in self.rtr))
            private = b"".join(word.to_bytes(2, "big") for word in words) + private
        return (REPLY_KEY if self.reply else REQUEST_KEY) + bytes([flags, self.revision]) \
            + len(private).to_bytes(2, "big") + private
