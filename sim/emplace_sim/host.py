"""Host memory as a card sees it: scattered physical pages, each byte outside a buffer a canary."""

import random
from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["PAGE", "CANARY", "MemoryFault", "Buffer", "HostMemory"]

PAGE = 4096
CANARY = 0xCC
FOUR_GIB = 1 << 32
#: Physical ranges that buffers come from. What the bus needs (BAR0, interrupts) lies between them.
LOW = (0x1000_0000, 0xC000_0000)
HIGH = (FOUR_GIB, 0x40_0000_0000)


class MemoryFault(Exception):
    """An access to a physical page that is no memory."""


@dataclass(eq=False)
class Buffer:
    """``length`` bytes from ``offset`` on in ``pages`` (physical addresses of 4 KiB pages).

    ``label`` says what it is for: the ledger books bus traffic under it. ``written(at, data)`` is
    called when the card writes to it.
    """

    memory: "HostMemory"
    label: str
    pages: list[int]
    offset: int
    length: int
    written: object = None

    @property
    def contiguous(self):
        return all(page == self.pages[0] + PAGE * n for n, page in enumerate(self.pages))

    @property
    def address(self):
        """Physical address of byte 0."""
        return self.pages[0] + self.offset

    def physical(self, at):
        """Physical address of byte ``at``."""
        where = self.offset + at
        return self.pages[where // PAGE] + where % PAGE

    def _runs(self, at, length):
        if at < 0 or at + length > self.length:
            raise ValueError(f"bytes {at}..{at + length} are outside buffer {self.label!r} of {self.length}")
        while length:
            where = self.offset + at
            run = min(length, PAGE - where % PAGE)
            yield self.pages[where // PAGE], where % PAGE, run
            at, length = at + run, length - run

    def read(self, at=0, length=None):
        length = self.length - at if length is None else length
        return b"".join(bytes(self.memory.pages[page][0][first:first + run]) for page, first, run in self._runs(at, length))

    def write(self, at, data):
        done = 0
        for page, first, run in self._runs(at, len(data)):
            self.memory.pages[page][0][first:first + run] = data[done:done + run]
            done += run

    def blocks(self, size):
        """Physical addresses of the blocks of ``size`` bytes that it lies in, or None if blocks of that
        size are not aligned and whole in physical memory."""
        if size % PAGE or self.pages[0] % size:
            return None
        per = size // PAGE
        found = []
        for n, page in enumerate(self.pages):
            if n % per == 0:
                if page % size:
                    return None
                found.append(page)
            elif page != self.pages[n - 1] + PAGE:
                return None
        return found


class HostMemory:
    """Sparse physical memory. New memory is all canaries; the same seed gives the same addresses."""

    def __init__(self, *, seed=0):
        self.random = random.Random(seed)
        self.pages = {}                     # physical page -> (bytes, index in its buffer, buffer)
        self.buffers = []
        self._taken = []                    # sorted (first, end) of what is allocated

    # Allocation

    def _free(self, first, end):
        """Nothing within a page of [first, end): so an overrun meets no memory instead of a neighbour."""
        n = bisect_right(self._taken, (end + PAGE,))
        return n == 0 or self._taken[n - 1][1] <= first - PAGE

    def _place(self, size, align, high):
        for _ in range(1000):
            low, top = HIGH if (self.random.random() < 0.5 if high is None else high) else LOW
            first = self.random.randrange(low // align + 1, (top - size) // align) * align
            if self._free(first, first + size):
                return first
        raise MemoryError("no room in the host's memory model")

    def alloc(self, length, *, label="", contiguous=False, offset=0, block=PAGE, high=None, at=None):
        """A buffer of ``length`` bytes that begins ``offset`` bytes into its first page.

        ``contiguous``: one physical run. Else it is made of blocks of ``block`` bytes, each aligned,
        anywhere. ``high``: above (True) or below (False) 4 GiB, else at random for each block.
        ``at``: the physical address of its first page.
        """
        if length <= 0:
            raise ValueError(f"a buffer needs at least one byte, not {length}")
        if not 0 <= offset < block or block % PAGE:
            raise ValueError(f"offset {offset} is not inside the first block of {block} bytes")
        total = -(-(offset + length) // block) * block
        runs = [total] if contiguous or at is not None else [block] * (total // block)
        buffer = Buffer(self, label, [], offset, length)
        for run in runs:
            first = self._place(run, block, high) if at is None else at
            if first % PAGE or not self._free(first, first + run):
                raise ValueError(f"physical address {first:#x} is taken or misaligned")
            self._taken.insert(bisect_right(self._taken, (first,)), (first, first + run))
            for page in range(first, first + run, PAGE):
                self.pages[page] = (bytearray([CANARY]) * PAGE, len(buffer.pages), buffer)
                buffer.pages.append(page)
        self.buffers.append(buffer)
        return buffer

    def free(self, buffer):
        self.buffers.remove(buffer)
        pages = set(buffer.pages)
        for page in pages:
            del self.pages[page]
        self._taken = [(first, end) for first, end in self._taken if first not in pages]

    # Access by physical address

    def owner(self, address):
        """The buffer whose page ``address`` is in, or None."""
        page = self.pages.get(address & -PAGE)
        return page and page[2]

    def read(self, address, length):
        parts = []
        while length:
            page = self.pages.get(address & -PAGE)
            if page is None:
                raise MemoryFault(f"read of {address:#x}: no memory there")
            first = address % PAGE
            run = min(length, PAGE - first)
            parts.append(bytes(page[0][first:first + run]))
            address, length = address + run, length - run
        return b"".join(parts)

    def write(self, address, data):
        """A write by the card: ``Buffer.written`` is told."""
        told = []
        done = 0
        while done < len(data):
            page = self.pages.get(address & -PAGE)
            if page is None:
                raise MemoryFault(f"write to {address:#x}: no memory there")
            first = address % PAGE
            run = min(len(data) - done, PAGE - first)
            page[0][first:first + run] = data[done:done + run]
            if page[2].written is not None:
                told.append((page[2], page[1] * PAGE + first - page[2].offset, data[done:done + run]))
            address, done = address + run, done + run
        for buffer, at, part in told:
            buffer.written(at, part)

    def check_canaries(self):
        """What lies outside buffers and is not as it was: (physical address, label), one a run of bytes."""
        found = []
        for buffer in self.buffers:
            end = buffer.offset + buffer.length
            for index, first, last in ((0, 0, buffer.offset),
                                       *((n, max(end - PAGE * n, 0), PAGE)
                                         for n in range(end // PAGE, len(buffer.pages)))):
                data = self.pages[buffer.pages[index]][0]
                bad = [n for n in range(first, last) if data[n] != CANARY]
                found += [(buffer.pages[index] + n, buffer.label) for n in bad if n - 1 not in bad]
        return found
