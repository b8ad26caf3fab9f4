"""What crossed the bus, by purpose."""

import json
from collections import defaultdict

__all__ = ["Ledger"]


class Ledger:
    """Counts transactions and bytes.

    ``direction`` is "write" or "read" (the card's requests), "completion" (the host's answers to
    them), "mmio_write" or "mmio_read" (the host's own). ``purpose`` is the label of the host's
    buffer, or of the register. ``header`` bytes are those of TLP headers, so that ``bytes`` is payload.
    """

    def __init__(self):
        self._rows = defaultdict(lambda: [0, 0, 0])

    def add(self, direction, purpose, payload, header=0):
        row = self._rows[direction, purpose]
        row[0] += 1
        row[1] += payload
        row[2] += header

    def bytes(self, direction, purpose=None):
        """Payload bytes of ``direction``, for one purpose or for all."""
        return sum(row[1] for (d, p), row in self._rows.items() if d == direction and purpose in (None, p))

    def transactions(self, direction, purpose=None):
        return sum(row[0] for (d, p), row in self._rows.items() if d == direction and purpose in (None, p))

    def as_dict(self):
        """{direction: {purpose: {"transactions", "bytes", "header_bytes"}}}"""
        table = {}
        for (direction, purpose), (count, payload, header) in sorted(self._rows.items()):
            table.setdefault(direction, {})[purpose] = {"transactions": count, "bytes": payload, "header_bytes": header}
        return table

    def dump(self, path, **more):
        """Write it as JSON; ``more`` are top-level entries beside ``bus``."""
        with open(path, "w") as file:
            json.dump({**more, "bus": self.as_dict()}, file, indent=1)
            file.write("\n")
