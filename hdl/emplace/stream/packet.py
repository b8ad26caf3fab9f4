"""The one packet stream of this project: how every module hands packets to the next.

A *word* is ``nbytes`` bytes; byte 0 is ``data[0:8]`` and is the first on the wire. A packet is
one or more words, of which exactly the final one has ``last`` set. There is no ``first``: a word
that follows a ``last`` (or reset) begins a packet.
"""

from amaranth.hdl import Cat, Const, unsigned
from amaranth.lib import data, stream

__all__ = ["PacketWord", "PacketSignature", "connect_streams"]


class PacketWord(data.StructLayout):
    """Payload of a packet stream.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word; a power of two, 2..64.

    Members
    -------
    data : ``unsigned(8 * nbytes)``
        Bytes, lowest first. Bytes past the packet's end may hold anything.
    empty : ``range(nbytes)``
        How many bytes at the top of the word are not part of the packet. Zero unless ``last``.
    last : ``unsigned(1)``
        This word ends the packet.
    err : ``unsigned(1)``
        The packet must be dropped. Meaningful only with ``last``; once a stage sets it,
        no later stage clears it.
    """

    def __init__(self, nbytes):
        if nbytes not in (2, 4, 8, 16, 32, 64):
            raise ValueError(f"Word size must be a power of two in 2..64 bytes, not {nbytes!r}")
        self.nbytes = nbytes
        super().__init__({
            "data":  unsigned(8 * nbytes),
            "empty": range(nbytes),
            "last":  1,
            "err":   1,
        })

    def keep(self, word):
        """Byte-valid mask of ``word``: bit *n* set where byte *n* belongs to the packet."""
        return Cat(word.empty < self.nbytes - n for n in range(self.nbytes))


def PacketSignature(nbytes):
    """Stream of :class:`PacketWord`, with back-pressure."""
    return stream.Signature(PacketWord(nbytes))


def connect_streams(m, source, sink):
    """Drive ``sink`` from ``source``; both must have the same payload layout.

    ``wiring.connect`` of Amaranth 0.5 compares widths alone, so that two different records of one
    width would connect silently.
    """
    if source.payload.shape() != sink.payload.shape():
        raise TypeError(f"Payloads differ: {source.payload.shape()!r} and {sink.payload.shape()!r}")
    m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid)]
    if not isinstance(source.ready, Const):
        m.d.comb += source.ready.eq(sink.ready)
    elif not isinstance(sink.ready, Const):
        raise TypeError("A source that is always ready needs a sink that is, too")
