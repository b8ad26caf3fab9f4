"""XGMII to packets. Ref: IEEE Std 802.3 clause 46 (XGMII), §3.2.9 (FCS), §4A.2.9 (frame reception)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..stream.packet import PacketSignature
from .crc import CRC32, advance, apply, data_matrix
from .records import START, TERMINATE, Xgmii

__all__ = ["MacRx", "FRAME_LIMIT"]

FRAME_LIMIT = 2000
_SHORTEST = 64
_RESIDUE = 0xDEBB20E3    # state after a frame and its right FCS


class MacRx(wiring.Component):
    """Strips preamble and FCS from received frames and judges them.

    Frames start in lane 0 or 4 and end in any lane. ``err`` is set on the last word of a frame whose
    FCS is wrong, that holds a coding error, or that is shorter than 64 or longer than ``limit`` bytes;
    a frame that is too long ends there and then. A frame that the receiver does not take in time is
    ended with ``err``. A start without SFD, or within a frame, begins no frame and counts as coding error.

    Throughput: one word a cycle, any gap. Latency: 4 cycles from the XGMII transfer that completes a
    word to that word; the last word comes up to 2 cycles later, when the FCS has been judged.

    Parameters
    ----------
    limit : :class:`int`
        Longest frame, bytes with FCS.

    Members
    -------
    xgmii : ``In(Xgmii)``
    o : ``Out(PacketSignature(8))``
        Frames from the destination address to the last byte before the FCS. Frames that have no such
        byte are only counted.
    count : ``Out(abi.counter_layout("mac"))``
        Those that begin with rx.
    """

    xgmii: wiring.PureInterface
    o: stream.Interface
    count: Signal

    def __init__(self, limit=FRAME_LIMIT):
        if limit < 1522:
            raise ValueError(f"Frame limit must be at least 1522 bytes, not {limit!r}")
        self.limit = limit
        super().__init__({
            "xgmii": In(Xgmii),
            "o": Out(PacketSignature(8)),
            "count": Out(abi.counter_layout("mac")),
        })

    def elaborate(self, platform):
        m = Module()
        o, count = self.o, self.count

        # Stage A: a frame's bytes begin in lane 0. A frame that starts in lane 4 is moved by half a word.
        d, c = self.xgmii.d, self.xgmii.c
        terminate = Signal(8)
        start0, start4, moved, move = Signal(), Signal(), Signal(), Signal()
        upper, upper_c, upper_t, upper_start = Signal(32), Signal(4), Signal(4), Signal()
        m.d.comb += [
            terminate.eq(Cat(c[n] & (d.word_select(n, 8) == TERMINATE) for n in range(8))),
            start0.eq(c[0] & (d[:8] == START)),
            start4.eq(c[4] & (d[32:40] == START)),
            move.eq(moved & ~start0),
        ]
        with m.If(start0 | start4):
            m.d.sync += moved.eq(start4)
        a_d, a_c, a_t, a_start = Signal(64), Signal(8), Signal(8), Signal()
        m.d.sync += [
            upper.eq(d[32:]), upper_c.eq(c[4:]), upper_t.eq(terminate[4:]), upper_start.eq(start4),
            a_d.eq(Mux(move, Cat(upper, d[:32]), d)),
            a_c.eq(Mux(move, Cat(upper_c, c[:4]), c)),
            a_t.eq(Mux(move, Cat(upper_t, terminate[:4]), terminate)),
            a_start.eq(Mux(move, upper_start, start0)),
        ]

        # Stage B: in a frame or not; where it ends; bytes past the end read zero.
        in_frame, begin, end, ordinary, too_long = (Signal(name=n) for n in
                                                    ("in_frame", "begin", "end", "ordinary", "too_long"))
        words = Signal(range(self.limit // 8 + 2))       # data words before this one
        tail = Signal(3)                                 # the first lane that holds a control character
        keep = Signal(8)
        m.d.comb += [
            begin.eq(a_start & ~in_frame & ~a_c[1:].any() & (a_d[56:] == 0xD5)),
            keep.eq(Cat(~a_c[:n + 1].any() for n in range(8))),
            too_long.eq(words == self.limit // 8 + 1),
            end.eq(in_frame & (a_c.any() | too_long)),
        ]
        for n in reversed(range(8)):
            with m.If(a_c[n]):
                m.d.comb += [tail.eq(n), ordinary.eq(a_t[n] & ~too_long)]
        m.d.sync += in_frame.eq(begin | (in_frame & ~end))
        with m.If(begin):
            m.d.sync += words.eq(0)
        with m.Elif(in_frame):
            m.d.sync += words.eq(words + 1)

        b_d, b_valid, b_end, b_tail, b_broken, b_runt, b_over = (
            Signal(width, name=n) for n, width in (("b_d", 64), ("b_valid", 1), ("b_end", 1), ("b_tail", 3),
                                                   ("b_broken", 1), ("b_runt", 1), ("b_over", 1)))
        m.d.sync += [
            b_valid.eq(in_frame), b_end.eq(end), b_tail.eq(tail), b_broken.eq(~ordinary),
            b_runt.eq(words < _SHORTEST // 8),
            b_over.eq(too_long | ((words == self.limit // 8) & (tail > self.limit % 8))),
        ]
        for n in range(8):
            with m.If(keep[n]):
                m.d.sync += b_d.word_select(n, 8).eq(a_d.word_select(n, 8))
            with m.Else():
                m.d.sync += b_d.word_select(n, 8).eq(0)

        # Stage C: the word goes into the CRC. It is the last one if the FCS begins in it or right behind it.
        c_d, c_valid, c_end, c_tail, c_broken, c_runt, c_over = (
            Signal.like(s, name=s.name.replace("b_", "c_"))
            for s in (b_d, b_valid, b_end, b_tail, b_broken, b_runt, b_over))
        m.d.sync += [c_d.eq(b_d), c_valid.eq(b_valid), c_end.eq(b_end), c_tail.eq(b_tail), c_broken.eq(b_broken),
                     c_runt.eq(b_runt), c_over.eq(b_over)]
        summed, crc = Signal(64), Signal(32, init=0xFFFFFFFF)
        m.d.comb += summed.eq(c_d ^ crc)
        with m.If(c_valid & ~(c_end & c_broken)):
            m.d.sync += crc.eq(apply(data_matrix(CRC32, 8), summed))
        with m.Else():
            m.d.sync += crc.eq(0xFFFFFFFF)
        ends_before, ends_here, present = Signal(), Signal(), Signal()
        m.d.comb += [
            ends_before.eq(b_end & (b_tail <= 4)),
            ends_here.eq(c_end & (c_tail > 4)),
            present.eq(c_valid & (~c_end | ends_here)),
        ]

        # Stage D: the verdict. The state is compared with the residue behind as many zero bytes as were appended.
        d_end, d_tail, d_broken, d_runt, d_over = (
            Signal.like(s, name=s.name.replace("c_", "d_")) for s in (c_end, c_tail, c_broken, c_runt, c_over))
        m.d.sync += [d_end.eq(c_valid & c_end), d_tail.eq(c_tail), d_broken.eq(c_broken), d_runt.eq(c_runt),
                     d_over.eq(c_over)]
        residue = Signal(32)
        with m.Switch(d_tail):
            for n in range(8):
                with m.Case(n):
                    m.d.comb += residue.eq(advance(CRC32, _RESIDUE, bytes(8 - n)))
        bad_fcs, bad = Signal(), Signal()
        m.d.comb += [
            bad_fcs.eq(d_broken | (crc != residue)),
            bad.eq(d_runt | d_over | bad_fcs),
        ]

        # Output register. The last word waits in it, not yet valid, for the verdict.
        room, waiting = Signal(), Signal()
        opened = Signal()                # the receiver has had a part of a packet
        lost = Signal()                  # the rest of this frame has no place
        owed = Signal()                  # an opened packet must be ended with `err`
        m.d.comb += room.eq(~o.valid | o.ready)
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(present & ~lost):
            with m.If(room & ~owed):
                m.d.sync += [
                    o.p.data.eq(c_d),
                    o.p.empty.eq(4 - Mux(ends_here, c_tail, b_tail)),
                    o.p.last.eq(ends_before | ends_here),
                    o.p.err.eq(0),
                    o.valid.eq(~(ends_before | ends_here)),
                    waiting.eq(ends_before | ends_here),
                    opened.eq(1),
                ]
                with m.If(~(ends_before | ends_here)):
                    m.d.sync += o.p.empty.eq(0)
            with m.Else():
                m.d.sync += lost.eq(1)
                m.d.comb += count.rx_overflow.eq(1)
        with m.If(owed & room):
            m.d.sync += [o.valid.eq(1), o.p.last.eq(1), o.p.err.eq(1), o.p.empty.eq(0), owed.eq(0), opened.eq(0)]
        with m.If(d_end):
            m.d.sync += lost.eq(0)
            with m.If(waiting):
                m.d.sync += [o.valid.eq(1), o.p.err.eq(bad), waiting.eq(0), opened.eq(0)]
            with m.Elif(opened & ~(owed & room)):
                m.d.sync += owed.eq(1)
            with m.If(~lost):
                m.d.comb += [
                    count.rx_runts.eq(d_runt),
                    count.rx_oversize.eq(~d_runt & d_over),
                    count.rx_fcs_errors.eq(~d_runt & ~d_over & bad_fcs),
                    count.rx_frames.eq(~bad),
                ]
        no_sfd = Signal()
        m.d.sync += no_sfd.eq(a_start & ~begin & ~in_frame)
        with m.If(no_sfd):
            m.d.comb += count.rx_fcs_errors.eq(1)
        return m
