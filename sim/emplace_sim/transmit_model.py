"""Golden model of the frames' transmit half: what becomes of a run of descriptors."""

from dataclasses import dataclass

from emplace.abi import FrameTxFlags

__all__ = ["LONGEST", "MOST", "TxDescriptor", "Outcome", "insert_checksum", "outcomes"]

LONGEST = 1996         # octets of a frame, without FCS
MOST = 8               # descriptors of a frame


@dataclass
class TxDescriptor:
    """``data``: the bytes that it names, None if they can't be read. ``readable``: the descriptor itself can be."""

    data: bytes | None
    flags: FrameTxFlags = FrameTxFlags.END
    checksum_start: int = 0
    checksum_offset: int = 0
    readable: bool = True
    length: int | None = None

    def __post_init__(self):
        if self.length is None:
            self.length = len(self.data)


@dataclass
class Outcome:
    """``verdict``: "sent", "injected", "refused", "failed" (dropped), or "skipped" (a descriptor behind such a frame)."""

    verdict: str
    descriptors: int
    frame: bytes | None = None


def insert_checksum(frame, start, offset):
    """As Linux's skb_checksum_help: ones' complement of the sum of all octets from ``start`` on."""
    octets = frame[start:] + b"\0" * ((len(frame) - start) % 2)
    total = sum(int.from_bytes(octets[n:n + 2], "big") for n in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    value = ~total & 0xFFFF or 0xFFFF
    at = start + offset
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2:]


def outcomes(descriptors):
    """What the card does with ``descriptors``, as far as they make whole frames or bad ones."""
    found, frame, skipping = [], [], False
    for descriptor in descriptors:
        end = FrameTxFlags.END in descriptor.flags
        frame.append(descriptor)
        first, total = frame[0], sum(d.length for d in frame)
        field = first.checksum_start + first.checksum_offset
        verdict = None
        if skipping:
            verdict = "skipped"
        elif not descriptor.readable:
            verdict = "failed"
        elif descriptor.length == 0 or total > LONGEST or (len(frame) == MOST and not end):
            verdict = "refused"
        elif end:
            shortest = 60 if FrameTxFlags.REINJECT in first.flags else 14
            if total < shortest or (FrameTxFlags.CHECKSUM in first.flags and field + 2 > total):
                verdict = "refused"
            elif any(d.data is None for d in frame):
                verdict = "failed"
            else:
                data = b"".join(d.data for d in frame)
                if FrameTxFlags.CHECKSUM in first.flags:
                    data = insert_checksum(data, first.checksum_start, first.checksum_offset)
                found.append(Outcome("injected" if FrameTxFlags.REINJECT in first.flags else "sent", len(frame), data))
                frame = []
                continue
        if verdict:
            found.append(Outcome(verdict, len(frame)))
            # A good last frame whose bytes can't be read ends there; so does one that is refused at its END.
            skipping = not descriptor.readable or not end
            frame = []
    return found
