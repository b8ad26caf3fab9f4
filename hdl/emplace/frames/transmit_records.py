"""What the parts of the frames' transmit half tell each other."""

from amaranth.lib import data, enum

from ..mac.rx import FRAME_LIMIT

__all__ = ["FRAME_OCTETS", "SHORTEST", "SHORTEST_RECEIVED", "MOST_DESCRIPTORS", "Piece", "TxBegin", "Verdict", "TxEnd",
           "TxReady"]

#: Longest frame, without FCS: what the MAC lets in may also leave, and be put in again.
FRAME_OCTETS = FRAME_LIMIT - 4
#: Shortest one: a header. The MAC pads it.
SHORTEST = 14
#: Shortest one that can have come from the wire.
SHORTEST_RECEIVED = 60
MOST_DESCRIPTORS = 8

_OCTETS = FRAME_OCTETS.bit_length()
_WORDS = ((FRAME_OCTETS + 7) // 8).bit_length()

#: A read of a frame's bytes. ``last``: the frame's last one. ``abort``: no read at all, the frame ends here and is bad.
Piece = data.StructLayout({"address": 64, "length": 10, "last": 1, "abort": 1})

#: Told before a frame's first read: where its checksum starts, octets; if it has one.
TxBegin = data.StructLayout({"checksum": 1, "start": _OCTETS})


class Verdict(enum.Enum, shape=2):
    """What becomes of a run of descriptors."""

    SEND = 0
    REFUSED = 1      # a bad frame
    FAILED = 2       # a bad frame: its descriptors or bytes could not be read
    SKIPPED = 3      # the rest of one


#: Told behind a frame's last read: what becomes of it; its descriptors; its words, which are reserved in frame memory;
#: where its checksum goes, octets; and whether its octets change places: start and place are not both even or odd.
TxEnd = data.StructLayout({"verdict": Verdict, "reinject": 1, "descriptors": 4, "words": _WORDS, "at": _OCTETS, "swap": 1})

#: Told when a frame lies whole in frame memory. ``empty``: octets of its last word that don't count.
TxReady = data.StructLayout({"verdict": Verdict, "reinject": 1, "descriptors": 4, "words": _WORDS, "empty": 3})
