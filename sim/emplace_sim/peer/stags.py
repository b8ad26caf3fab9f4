"""Registered memory: STags with their rights, bounds and protection domain, and the octets themselves.

Ref: protocol checks T1-T6, Q1-Q5 and stage I: RFC 5041 7.1 and 8.3, RFC 5040 5.3 and 8.1.
"""

import random
from dataclasses import dataclass

from .verbs import Access, Sge

__all__ = ["Mr", "StagTable"]


@dataclass(eq=False)
class Mr:
    """A region of ``len(data)`` octets that begins at TO ``base``."""

    stag: int
    pd: int
    access: Access
    base: int
    data: bytearray
    valid: bool = True

    @property
    def lkey(self):
        return self.stag

    @property
    def rkey(self):
        return self.stag

    def sge(self, at=0, length=None):
        return Sge(self.base + at, len(self.data) - at if length is None else length, self.stag)


class StagTable:
    """All regions of a peer. Indices are random, keys too: hard to guess (RFC 5042)."""

    def __init__(self, seed=0):
        self.random = random.Random(f"stags {seed}")
        self.regions: dict[int, Mr] = {}

    def register(self, pd, data, access, *, base=None, stag=None):
        """``data``: octets, or how many. The STag of a region that is gone or invalid may be used again."""
        octets = bytearray(data) if not isinstance(data, bytearray) else data
        if not octets:
            raise ValueError("a region of no octets")
        if stag is None:
            stag = self.random.randrange(256, 1 << 32)
            while stag in self.regions:
                stag = self.random.randrange(256, 1 << 32)
        elif stag in self.regions and self.regions[stag].valid:
            raise ValueError(f"STag {stag:#010x} is in use")
        if base is None:
            base = self.random.randrange(1, 1 << 47)
        if base + len(octets) > 1 << 64:
            raise ValueError("a region beyond 2**64")
        self.regions[stag] = Mr(stag, pd, access, base, octets)
        return self.regions[stag]

    def deregister(self, mr):
        mr.valid = False
        if self.regions.get(mr.stag) is mr:
            del self.regions[mr.stag]

    def refuse(self, stag, pd, to, length, right):
        """Name of the first check that fails: "stag", "pd", "access", "wrap", "bounds", or None."""
        mr = self.regions.get(stag)
        if mr is None or not mr.valid:
            return "stag"
        if mr.pd != pd:
            return "pd"
        if right & ~mr.access:
            return "access"
        if to + length > 1 << 64:
            return "wrap"
        if to < mr.base or to + length > mr.base + len(mr.data):
            return "bounds"
        return None

    def refuse_invalidate(self, stag, pd):
        """Stage I. Makes the STag invalid where it may; one that is so already is no error."""
        mr = self.regions.get(stag)
        if mr is None:
            return "stag"
        if mr.pd != pd:
            return "pd"
        if not mr.access & Access.REMOTE_INVALIDATE:
            return "access"
        mr.valid = False
        return None

    def read(self, stag, to, length):
        mr = self.regions[stag]
        return bytes(mr.data[to - mr.base:to - mr.base + length])

    def write(self, stag, to, octets):
        mr = self.regions[stag]
        mr.data[to - mr.base:to - mr.base + len(octets)] = octets
