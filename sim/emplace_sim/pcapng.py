"""Writes pcapng files (draft-ietf-opsawg-pcapng): one interface a direction, nanoseconds."""

import struct

__all__ = ["PcapngWriter"]

INBOUND, OUTBOUND = 1, 2


def _options(*options):
    data = b""
    for code, value in options:
        data += struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
    return data + bytes(4) if options else b""


def _block(kind, body):
    size = len(body) + 12
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


class PcapngWriter:
    """Frames without FCS. ``interfaces`` names the directions: by default from the wire to the card,
    and from the card to the wire."""

    def __init__(self, path, interfaces=("wire to card", "card to wire")):
        self._file = open(path, "wb")
        self.counts = [0] * len(interfaces)
        self._file.write(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
                                + _options((4, b"Emplace simulation"))))
        for name in interfaces:
            self._file.write(_block(1, struct.pack("<HHI", 1, 0, 0) + _options((2, name.encode()), (9, b"\x09"))))

    def write(self, interface, time_ns, frame, comment=None):
        """Append ``frame`` of ``interface`` (0, 1, ...)."""
        options = [(2, struct.pack("<I", INBOUND if interface == 0 else OUTBOUND))]
        if comment:
            options.insert(0, (1, comment.encode()))
        self._file.write(_block(6, struct.pack("<IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(frame), len(frame))
                                + bytes(frame) + bytes(-len(frame) % 4) + _options(*options)))
        self.counts[interface] += 1

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
