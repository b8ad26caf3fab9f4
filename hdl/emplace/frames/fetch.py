"""Descriptors of frames to send: judged, and turned into reads."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from .transmit_records import FRAME_OCTETS, MOST_DESCRIPTORS, SHORTEST, SHORTEST_RECEIVED, Piece, TxBegin, TxEnd, Verdict

__all__ = ["FrameFetch"]


class FrameFetch(wiring.Component):
    """Walks the descriptors in order. A frame's bytes are asked for as soon as frame memory has room for them, in reads
    within aligned blocks of ``read_bytes``; so they never cross 4 KiB.

    A frame is bad, and takes no more reads, at the descriptor that could not be read, or is empty; that makes the frame
    too long, or is its 8th without being its last; or ends one that is too short or whose checksum field would lie
    beyond it. What follows up to the next END is skipped with it.

    Throughput: a descriptor in 7 cycles and 2 for each read; a frame 2 more. Latency: 7 cycles to the first read.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    valid, failed, header, data, restarting, quiet, take, clear : as in :class:`~emplace.frames.descriptors.Descriptors`
    pieces : ``Out(stream.Signature(Piece))``
    begins, ends : ``Out(stream.Signature(TxBegin))``, ``Out(stream.Signature(TxEnd))``
        One each for every END, and for every descriptor that is skipped.
    retire : ``In(1)``, words : ``In(8)``
        Strobe: one of those is done with; its words in frame memory are free.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "valid": In(1), "failed": In(1), "header": In(64), "data": In(64), "restarting": In(1), "quiet": In(1),
            "take": Out(1), "clear": Out(1),
            "pieces": Out(stream.Signature(Piece)),
            "begins": Out(stream.Signature(TxBegin)),
            "ends":   Out(stream.Signature(TxEnd)),
            "retire": In(1),
            "words":  In(TxEnd["words"].shape),
        })

    def elaborate(self, platform):
        m = Module()
        block = self.config.read_bytes
        descriptor, flags = Signal(abi.FrameTxDescriptor), abi.FrameTxFlags
        m.d.comb += descriptor.as_value().eq(Cat(self.header, self.data))

        # Of the frame
        count, total = Signal(range(MOST_DESCRIPTORS + 1)), Signal(17)
        checksum, reinject, start, at = Signal(), Signal(), Signal(16), Signal(17)
        words, claimed, grow = Signal(14), Signal(TxEnd["words"].shape), Signal(TxEnd["words"].shape)
        # Of the descriptor
        low, page, left, end, failed = Signal(12), Signal(52), Signal(16), Signal(), Signal()
        # Of the read
        length, room_here, final, next_page = Signal(10), Signal(10), Signal(), Signal(52)

        skipping, bad = Signal(), Signal()
        none, long, many, short, beyond = (Signal(name=name) for name in ("none", "long", "many", "short", "beyond"))
        room, enough = Signal(range(self.config.frame_words + 1), init=self.config.frame_words), Signal()
        spend, flying = Signal(TxEnd["words"].shape), Signal(6)
        m.d.sync += [
            enough.eq(room >= grow),
            room.eq(room + Mux(self.retire, self.words, 0) - spend),
            flying.eq(flying + (self.ends.valid & self.ends.ready) - self.retire),
            none.eq(left == 0), long.eq(total > FRAME_OCTETS), many.eq((count == MOST_DESCRIPTORS) & ~end),
            short.eq(total < Mux(reinject, SHORTEST_RECEIVED, SHORTEST)),
            beyond.eq(checksum & (at + 2 > total)),
            words.eq((total + 7) >> 3), grow.eq(words - claimed),
            next_page.eq(page + 1),
        ]
        m.d.comb += [
            room_here.eq((~low & (block - 1)) + 1),
            self.pieces.p.address.eq(Cat(low, page)), self.pieces.p.length.eq(length), self.pieces.p.last.eq(final & end),
            self.begins.p.checksum.eq(checksum), self.begins.p.start.eq(start),
            self.ends.p.verdict.eq(Mux(~bad, Verdict.SEND, Mux(skipping, Verdict.SKIPPED, Mux(
                failed, Verdict.FAILED, Verdict.REFUSED)))),
            self.ends.p.reinject.eq(reinject), self.ends.p.descriptors.eq(count), self.ends.p.words.eq(claimed),
            self.ends.p.at.eq(at), self.ends.p.swap.eq(start[0] ^ at[0]),
        ]
        following = Signal(13)
        m.d.comb += following.eq(low + length)

        with m.FSM(name="frame_fetch"):
            with m.State("NEXT"):        # for a descriptor
                with m.If(self.restarting & (count == 0)):
                    m.next = "RESTART"
                with m.Elif(self.valid):
                    m.d.comb += self.take.eq(1)
                    m.d.sync += [
                        low.eq(descriptor.address[:12]), page.eq(descriptor.address[12:]), left.eq(descriptor.length),
                        end.eq((descriptor.flags & flags.END).any()), failed.eq(self.failed), count.eq(count + 1),
                    ]
                    with m.If(count == 0):
                        m.d.sync += [
                            checksum.eq((descriptor.flags & flags.CHECKSUM).any()),
                            reinject.eq((descriptor.flags & flags.REINJECT).any()),
                            start.eq(descriptor.checksum_start),
                            at.eq(descriptor.checksum_start + descriptor.checksum_offset),
                        ]
                    m.next = "ADD"
            with m.State("ADD"):         # for the gatherer to know of the frame
                m.d.comb += self.begins.valid.eq(count == 1)
                with m.If(self.begins.ready | (count != 1)):
                    m.d.sync += total.eq(total + left)
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += bad.eq(failed | skipping | none | long | many | (end & (short | beyond)))
                m.next = "SETTLE"
            with m.State("SETTLE"):      # `grow`, then `enough` follow the total
                m.next = "ROOM"
                with m.If(bad):
                    m.next = "ABORT"
            with m.State("ROOM"):        # for room in frame memory
                with m.If(enough):
                    m.d.comb += spend.eq(grow)
                    m.d.sync += claimed.eq(words)
                    m.next = "CUT"
            with m.State("CUT"):         # `next_page` follows the page
                m.d.sync += [length.eq(Mux(left > room_here, room_here, left)), final.eq(left <= room_here)]
                m.next = "ASK"
            with m.State("ASK"):         # for the bus
                m.d.comb += self.pieces.valid.eq(1)
                with m.If(self.pieces.ready):
                    m.d.sync += [low.eq(following), left.eq(left - length)]
                    with m.If(following[12]):
                        m.d.sync += page.eq(next_page)
                    m.next = "CUT"
                    with m.If(final):
                        m.next = "NEXT"
                        with m.If(end):
                            m.next = "END"
            with m.State("ABORT"):       # for the reads before
                m.d.comb += [self.pieces.valid.eq(1), self.pieces.p.abort.eq(1), self.pieces.p.last.eq(0)]
                with m.If(self.pieces.ready):
                    m.next = "END"
            with m.State("END"):         # for the gatherer
                m.d.comb += self.ends.valid.eq(1)
                with m.If(self.ends.ready):
                    m.d.sync += [count.eq(0), total.eq(0), claimed.eq(0), skipping.eq(bad & (failed | ~end))]
                    m.next = "NEXT"
            with m.State("RESTART"):     # for all that is under way
                with m.If(self.quiet & (flying == 0)):
                    m.d.comb += self.clear.eq(1)
                    m.d.sync += skipping.eq(0)
                    m.next = "NEXT"
        return m
