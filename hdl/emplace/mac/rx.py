"""XGMII to packets. Ref: IEEE Std 802.3 clause 46 (XGMII), §3.2.9 (FCS), §4A.2.9 (frame reception)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .crc import CRC32, CRC32_RESIDUE, advance, apply, data_matrix
from .records import FRAME_LIMIT, SHORTEST, START, TERMINATE, Octets, Verdict, Xgmii

__all__ = ["MacRx"]


class MacRx(wiring.Component):
    """Strips preamble and FCS from received frames and judges them.

    Frames start in lane 0 or 4 and end in any lane. ``err`` is set on the last word of a frame whose
    FCS is wrong, that holds a coding error, or that is shorter than 64 or longer than ``limit`` bytes;
    a frame that is too long ends there and then, but is judged where it really ends. A frame that the receiver does
    not take in time is ended with ``err``. A start without SFD, or within a frame, begins no frame and counts as coding error.

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
    good, lost, false_start : ``Out(1)``
        Strobes: a good frame was handed over; a frame was not, since the receiver was late; a start without frame.
    verdict : ``Out(Verdict(limit))``
        Every frame's, lost ones' too.
    octets : ``Out(Octets)``
    """

    xgmii: wiring.PureInterface
    o: stream.Interface
    good: Signal
    lost: Signal
    false_start: Signal
    verdict: Signal
    octets: Signal

    def __init__(self, limit=FRAME_LIMIT):
        if limit < 1522:
            raise ValueError(f"Frame limit must be at least 1522 bytes, not {limit!r}")
        self.limit = limit
        super().__init__({
            "xgmii": In(Xgmii),
            "o": Out(PacketSignature(8)),
            "good": Out(1), "lost": Out(1), "false_start": Out(1),
            "verdict": Out(Verdict(limit)),
            "octets": Out(Octets),
        })

    def elaborate(self, platform):
        m = Module()
        o = self.o

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

        # Stage B: in a frame or not; where it ends; bytes past the end read zero. A frame that is too long is cut: nothing
        # more of it is handed on, but the CRC goes on to its end.
        in_frame, begin, stop, cut, ordinary, too_long, was_cut = (
            Signal(name=n) for n in ("in_frame", "begin", "stop", "cut", "ordinary", "too_long", "was_cut"))
        words = Signal(range(self.limit // 8 + 2))       # data words before this one, up to those of a frame too long
        tail = Signal(3)                                 # the first lane that holds a control character
        keep = Signal(8)
        m.d.comb += [
            begin.eq(a_start & ~in_frame & ~a_c[1:].any() & (a_d[56:] == 0xD5)),
            keep.eq(Cat(~a_c[:n + 1].any() for n in range(8))),
            too_long.eq(words == self.limit // 8 + 1),
            stop.eq(in_frame & a_c.any()),
            cut.eq(in_frame & too_long & ~was_cut),
        ]
        for n in reversed(range(8)):
            with m.If(a_c[n]):
                m.d.comb += [tail.eq(n), ordinary.eq(a_t[n])]
        m.d.sync += in_frame.eq(begin | (in_frame & ~stop))
        with m.If(begin):
            m.d.sync += [words.eq(0), was_cut.eq(0)]
        with m.Elif(in_frame):
            m.d.sync += was_cut.eq(too_long)
            with m.If(~too_long):
                m.d.sync += words.eq(words + 1)

        b_d, b_data, b_valid, b_end, b_stop, b_tail, b_broken, b_words, b_over = (
            Signal(width, name=n) for n, width in (
                ("b_d", 64), ("b_data", 1), ("b_valid", 1), ("b_end", 1), ("b_stop", 1), ("b_tail", 3), ("b_broken", 1),
                ("b_words", len(words)), ("b_over", 1)))
        m.d.sync += [
            b_data.eq(in_frame), b_valid.eq(in_frame & ~was_cut), b_end.eq(cut | (stop & ~was_cut)), b_stop.eq(stop),
            b_tail.eq(tail), b_broken.eq(~ordinary), b_words.eq(words),
            b_over.eq(too_long | ((words == self.limit // 8) & (tail > self.limit % 8))),
        ]
        for n in range(8):
            with m.If(keep[n]):
                m.d.sync += b_d.word_select(n, 8).eq(a_d.word_select(n, 8))
            with m.Else():
                m.d.sync += b_d.word_select(n, 8).eq(0)

        group, broadcast = Signal(), Signal()
        with m.If(b_data & (b_words == 0)):
            m.d.sync += [group.eq(b_d[0]), broadcast.eq(b_d[:48].all())]
        m.d.comb += [
            self.octets.count.eq(Mux(b_data, Mux(b_stop, b_tail, 8), 0)),
            self.octets.busy.eq(b_data & ~b_stop),
        ]

        # Stage C: the word goes into the CRC. It is the last one if the FCS begins in it or right behind it.
        c_d, c_data, c_valid, c_end, c_stop, c_tail, c_broken, c_words, c_over = (
            Signal.like(s, name=s.name.replace("b_", "c_"))
            for s in (b_d, b_data, b_valid, b_end, b_stop, b_tail, b_broken, b_words, b_over))
        m.d.sync += [c_d.eq(b_d), c_data.eq(b_data), c_valid.eq(b_valid), c_end.eq(b_end), c_stop.eq(b_stop),
                     c_tail.eq(b_tail), c_broken.eq(b_broken), c_words.eq(b_words), c_over.eq(b_over)]
        summed, crc = Signal(64), Signal(32, init=0xFFFFFFFF)
        m.d.comb += summed.eq(c_d ^ crc)
        with m.If(c_data):
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
        d_end, d_stop, d_tail, d_broken, d_words, d_over = (
            Signal.like(s, name=s.name.replace("c_", "d_"))
            for s in (c_end, c_stop, c_tail, c_broken, c_words, c_over))
        m.d.sync += [d_end.eq(c_end), d_stop.eq(c_stop), d_tail.eq(c_tail), d_broken.eq(c_broken),
                     d_words.eq(c_words), d_over.eq(c_over)]
        residue = Signal(32)
        with m.Switch(d_tail):
            for n in range(8):
                with m.Case(n):
                    m.d.comb += residue.eq(advance(CRC32, CRC32_RESIDUE, bytes(8 - n)))
        bad_fcs, bad = Signal(), Signal()
        m.d.comb += [
            bad_fcs.eq(d_broken | (crc != residue)),
            bad.eq((d_words < SHORTEST // 8) | d_over | bad_fcs),
            self.verdict.valid.eq(d_stop), self.verdict.bad_fcs.eq(bad_fcs),
            self.verdict.length.eq(Cat(d_tail, d_words)),
            self.verdict.group.eq(group), self.verdict.broadcast.eq(broadcast),
        ]

        # Output register. The last word waits in it, not yet valid, for the verdict.
        room, waiting = Signal(), Signal()
        opened = Signal()                # the receiver has had a part of a packet
        late = Signal()                  # the rest of this frame has no place
        owed = Signal()                  # an opened packet must be ended with `err`
        m.d.comb += room.eq(~o.valid | o.ready)
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(present & ~late):
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
                m.d.sync += late.eq(1)
                m.d.comb += self.lost.eq(1)
        with m.If(owed & room):
            m.d.sync += [o.valid.eq(1), o.p.last.eq(1), o.p.err.eq(1), o.p.empty.eq(0), owed.eq(0), opened.eq(0)]
        with m.If(d_end):
            m.d.sync += late.eq(0)
            with m.If(waiting):
                m.d.sync += [o.valid.eq(1), o.p.err.eq(bad), waiting.eq(0), opened.eq(0)]
            with m.Elif(opened & ~(owed & room)):
                m.d.sync += owed.eq(1)
            m.d.comb += self.good.eq(~late & ~bad)
        m.d.sync += self.false_start.eq(a_start & ~begin & ~in_frame)
        return m
