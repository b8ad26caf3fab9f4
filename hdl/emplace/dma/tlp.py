"""TLP headers, and the records that the units of this layer hand to each other."""

# Ref: PCI Express Base Specification 2.2.1 (common header), 2.2.7 (memory requests), 2.2.9 (completions)

import enum

from amaranth.hdl import Cat, Const, Mux
from amaranth.lib import data

__all__ = ["Type", "Status", "swap", "request_header", "Transfer", "Part", "ShortTlp", "Beat", "Head"]


class Type(enum.IntEnum):
    """Fmt and Type, the first byte of a TLP, without the bit that says 4 doublewords of header."""

    MRD = 0x00
    MWR = 0x40
    CPL = 0x0A
    CPLD = 0x4A


class Status(enum.IntEnum):
    """Completion status."""

    SC = 0     # successful
    UR = 1     # unsupported request
    CA = 4     # completer abort


def swap(dword):
    """A doubleword's bytes the other way round: headers are big-endian."""
    return Cat(dword[24:32], dword[16:24], dword[8:16], dword[0:8])


def request_header(kind, part, tag=0):
    """Four doublewords of a memory request for ``part``; the last one is meaningless if not ``part.wide``.

    The guard puts in the requester's ID.
    """
    first = Cat(Const(kind, 5), part.wide, Const(kind >> 6, 2), Const(0, 8), part.dwords[8:10], Const(0, 6),
                part.dwords[:8])
    # An integer tag has a Const's width only if it is made one.
    tag = Const(tag, 8) if isinstance(tag, int) else Cat(tag, Const(0, 8))[:8]
    second = Cat(Const(0, 16), tag, part.first_be, part.last_be)
    low, high = swap(Cat(Const(0, 2), part.address[2:32])), swap(part.address[32:])
    return [first, second, Mux(part.wide, high, low), low]


class Transfer(data.StructLayout):
    """A run of bytes of host memory, of any length.

    Members
    -------
    address : ``unsigned(64)``
    length : ``unsigned(13)``
        Bytes, at least 1.
    note : shape
        Comes back with each part.
    """

    def __init__(self, note):
        super().__init__({"address": 64, "length": 13, "note": note})


class Part(data.StructLayout):
    """The part of a transfer that one TLP carries.

    Members
    -------
    address : ``unsigned(64)``
        Of the first byte.
    length : ``unsigned(13)``
        Bytes.
    dwords : ``unsigned(11)``
        Doublewords that the bytes lie in, 1..1024.
    words : ``unsigned(10)``
        Aligned 8-byte words that they lie in, 1..512.
    upper : ``unsigned(1)``
        The first word counts with its upper doubleword only.
    lower : ``unsigned(1)``
        The last word counts with its lower doubleword only.
    first_be, last_be : ``unsigned(4)``
        Byte enables.
    wide : ``unsigned(1)``
        At or above 4 GiB: 4 doublewords of header.
    last : ``unsigned(1)``
        The transfer's last part.
    note : shape
    """

    def __init__(self, note):
        super().__init__({"address": 64, "length": 13, "dwords": 11, "words": 10, "upper": 1, "lower": 1,
                          "first_be": 4, "last_be": 4, "wide": 1, "last": 1, "note": note})


#: A whole TLP of ``count`` doublewords, 3..5, the first in the lowest bits.
ShortTlp = data.StructLayout({"dwords": data.ArrayLayout(32, 5), "count": 3})

#: What of a received TLP's header is needed, as it lies in the TLP. ``third`` and ``fourth``: its third and fourth
#: doubleword with their bytes turned round.
Head = data.StructLayout({
    "type": 8,               # Fmt and Type
    "length": 11,            # doublewords, 1..1024
    "poisoned": 1,
    "second": 32,            # requester ID 15:0 (high byte first), tag, byte enables; or completer ID, status, byte count
    "third": 32,
    "fourth": 32,            # or the first doubleword of payload
})

#: A received TLP, as 8-byte words aligned to its address. ``mask``: which doublewords are payload. The first beat of
#: a TLP comes with its header and may have no payload.
Beat = data.StructLayout({
    "data": 64, "mask": 2, "first": 1, "last": 1,
    "err": 1,                # with ``last``: nullified, or shorter than its Length says
})
