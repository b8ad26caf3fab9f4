"""CRC32c at a word a cycle."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Crc32c", "Crc32cMaker"]

_POLY = 0x82F63B78      # 0x1edc6f41, reflected


def _advance(state, nbytes):
    """CRC register ``state`` after ``nbytes`` bytes of 0."""
    for _ in range(8 * nbytes):
        state = state >> 1 ^ (_POLY if state & 1 else 0)
    return state


def _matrix(value, columns):
    """Product of a bit matrix, given by its columns, and ``value``: 32 bits."""
    return Cat(Cat(value[n] for n, column in enumerate(columns) if column >> row & 1).xor() for row in range(32))


#: Column *n*: what data bit *n* of a word contributes to the register behind that word.
_DATA = [_advance(1 << n % 32, 8 - 4 * (n // 32)) for n in range(64)]
#: Column *n*: what bit *n* of the register becomes 8 bytes later.
_STATE = [_advance(1 << n, 8) for n in range(32)]
#: The same, 4 bytes later.
_STATE_HALF = [_advance(1 << n, 4) for n in range(32)]
#: The register behind data and their CRC, whatever the data.
_RESIDUE = 0xB798B438


class Crc32c(wiring.Component):
    """Checks the CRC32c that ends a frame (RFC 5044 section 4.4, RFC 3720 appendix B.4).

    Frames are a multiple of 4 bytes. A last word of 4 bytes comes with its upper half 0: the residue is
    compared as it is 4 bytes of 0 later, so that one matrix does for both.

    Throughput: one word a cycle. Latency: ``good`` is up 2 cycles after the last word.

    Members
    -------
    data : ``In(64)``
        Byte 0 lowest.
    valid : ``In(1)``
    first, half : ``In(1)``
        With ``data``, the latter a cycle later: its first word; its last word has 4 bytes alone.
    good : ``Out(1)``
        Two cycles after a last word: the CRC held.
    """

    data: Signal
    valid: Signal
    first: Signal
    half: Signal
    good: Signal

    def __init__(self):
        super().__init__({"data": In(64), "valid": In(1), "first": In(1), "half": In(1), "good": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # Stage 1: the word's contribution. Stage 2: the register takes it in.
        share, state, before = Signal(32), Signal(32), Signal(32)
        valid, first, half = Signal(), Signal(), Signal()
        m.d.sync += [
            share.eq(_matrix(self.data, _DATA)),
            valid.eq(self.valid),
            first.eq(self.first),
            half.eq(self.half),
        ]
        m.d.comb += before.eq(_matrix(state, _STATE))
        with m.If(valid):
            with m.If(first):
                m.d.sync += state.eq(share ^ _advance(0xFFFFFFFF, 8))
            with m.Else():
                m.d.sync += state.eq(share ^ before)
        with m.If(half):
            m.d.comb += self.good.eq(state == _advance(_RESIDUE, 4))
        with m.Else():
            m.d.comb += self.good.eq(state == _RESIDUE)
        return m


class Crc32cMaker(wiring.Component):
    """Computes the CRC32c of frames that are a multiple of 4 bytes, 8 at least.

    Throughput: one word every cycle with ``go``. Latency: ``crc`` is the frame's 2 cycles with ``go`` after its last word,
    until the next frame's first word is as far.

    Members
    -------
    go : ``In(1)``
        All stages move.
    data : ``In(64)``
        Byte 0 lowest. A last word of 4 bytes has them in the lower half; the upper one may be anything.
    valid, first, half : ``In(1)``
        With ``data``: there is a word; a frame's first; it has 4 bytes alone.
    crc : ``Out(32)``
        First byte on the wire lowest.
    """

    go: Signal
    data: Signal
    valid: Signal
    first: Signal
    half: Signal
    crc: Signal

    def __init__(self):
        super().__init__({"go": In(1), "data": In(64), "valid": In(1), "first": In(1), "half": In(1), "crc": Out(32)})

    def elaborate(self, platform):
        m = Module()
        # The matrix of 8 bytes does for 4: behind 4 bytes of 0 they contribute what they contribute alone.
        aligned = Signal(64)
        m.d.comb += aligned.eq(self.data)
        with m.If(self.half):
            m.d.comb += aligned.eq(Cat(Const(0, 32), self.data[:32]))
        share, state = Signal(32), Signal(32)
        valid, first, half = Signal(), Signal(), Signal()
        whole, part = Signal(32), Signal(32)
        m.d.comb += [whole.eq(_matrix(state, _STATE)), part.eq(_matrix(state, _STATE_HALF)), self.crc.eq(~state)]
        with m.If(self.go):
            m.d.sync += [
                share.eq(_matrix(aligned, _DATA)), valid.eq(self.valid), first.eq(self.first), half.eq(self.half),
            ]
            with m.If(valid):
                with m.If(first):
                    m.d.sync += state.eq(share ^ _advance(0xFFFFFFFF, 8))
                with m.Elif(half):
                    m.d.sync += state.eq(share ^ part)
                with m.Else():
                    m.d.sync += state.eq(share ^ whole)
        return m
