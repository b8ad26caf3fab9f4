"""An entry of the region table."""

from amaranth.lib import data, enum

__all__ = ["LENGTH_LIMIT", "PAGE_LOG2_MAX", "PAGE_LOG2_MIN", "RegionEntry", "RegionState"]

#: Longest region, bytes.
LENGTH_LIMIT = 1 << 45
PAGE_LOG2_MIN = 12
PAGE_LOG2_MAX = 30


class RegionState(enum.Enum, shape=2):
    """Of a table slot. INVALID keeps its STag, so that a repeated invalidation is told from a wrong one."""

    EMPTY = 0
    VALID = 1
    INVALID = 2


class RegionEntry(data.StructLayout):
    """What the checks need of a region, worked out when it is registered.

    Members
    -------
    stag : ``unsigned(32)``
    pd : ``unsigned(16)``
    access : ``unsigned(8)``
        ``abi.Access``.
    base, end : ``unsigned(64)``, ``unsigned(65)``
        First TO, and the one past the last.
    bias : ``unsigned(64)``
        What is added to a TO, mod 2**64: for one block, to get the physical address; for a page
        list, to get the distance from the start of the first page.
    page_log2 : ``unsigned(5)``
        12..30, or 0: one block.
    first_page, pages : ``unsigned(page_bits)``, ``unsigned(page_bits + 1)``
        Of card memory.
    """

    def __init__(self, config):
        super().__init__({"stag": 32, "pd": 16, "access": 8, "base": 64, "end": 65, "bias": 64, "page_log2": 5,
                          "first_page": config.page_bits, "pages": config.page_bits + 1})
