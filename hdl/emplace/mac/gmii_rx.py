"""GMII to packets. Ref: IEEE Std 802.3 clause 35 (GMII), §35.2.3 (SFD), §3.2.9 (FCS), §4A.2.9 (frame reception)."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .crc import CRC32, CRC32_RESIDUE, apply, data_matrix
from .records import FRAME_LIMIT, SHORTEST, Gmii, Octets, Verdict

__all__ = ["GmiiRx"]

_FCS = 4


class GmiiRx(wiring.Component):
    """Strips preamble and FCS from received frames and judges them; the same outcome as :class:`~emplace.mac.rx.MacRx`.

    A byte moves in each cycle with ``enable``. Preambles of any length; one with anything but 55 before the SFD, or
    without SFD, begins no frame and counts as coding error. ``err`` is set on the last word of a frame whose FCS is
    wrong, during which RX_ER was high, or that is shorter than 64 or longer than ``limit`` bytes; of the last, no word
    behind the limit is handed on. A frame that the receiver does not take in time is ended with ``err``.

    Throughput: a byte a cycle, any gap. Latency: a word comes 2 cycles after the 5th byte behind it; the last one 2
    cycles after the end.

    Parameters
    ----------
    limit : :class:`int`
        Longest frame, bytes with FCS.

    Members
    -------
    gmii : ``In(Gmii)``, enable : ``In(1)``
    o : ``Out(PacketSignature(8))``
        Frames from the destination address to the last byte before the FCS. Frames that have no such byte are only
        counted.
    good, lost, false_start : ``Out(1)``
        Strobes: a good frame was handed over; a frame was not, since the receiver was late; a start without frame.
    verdict : ``Out(Verdict(limit))``
        Every frame's, lost ones' too.
    octets : ``Out(Octets)``
    """

    gmii: wiring.PureInterface
    enable: Signal
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
            "gmii": In(Gmii), "enable": In(1),
            "o": Out(PacketSignature(8)),
            "good": Out(1), "lost": Out(1), "false_start": Out(1),
            "verdict": Out(Verdict(limit)),
            "octets": Out(Octets),
        })

    def elaborate(self, platform):
        m = Module()
        o, verdict = self.o, self.verdict

        # What came in the last cycle with `enable`.
        beat, d, dv, er = Signal(), Signal(8), Signal(init=1), Signal()
        m.d.sync += beat.eq(self.enable)
        with m.If(self.enable):
            m.d.sync += [d.eq(self.gmii.d), dv.eq(self.gmii.dv), er.eq(self.gmii.er)]

        # A frame's bytes: into the CRC at once, into words once four more have come.
        begin, take, end = Signal(), Signal(), Signal()
        length, broken = Signal(range(self.limit + 2)), Signal()     # bytes before this one, up to limit + 1
        crc, summed = Signal(32), Signal(8)
        group, broadcast = Signal(), Signal()
        m.d.comb += [summed.eq(d ^ crc[:8]), self.octets.count.eq(take)]
        m.d.sync += self.false_start.eq(0)
        with m.FSM():
            with m.State("OFF"):         # waits for the line to be idle: behind a reset, and behind a false start
                with m.If(beat & ~dv):
                    m.next = "IDLE"
            with m.State("IDLE"):        # waits for a preamble
                with m.If(beat & dv):
                    m.next = "PREAMBLE"
                    with m.If((d == 0xD5) & ~er):
                        m.d.comb += begin.eq(1)
                        m.next = "FRAME"
                    with m.Elif((d != 0x55) | er):
                        m.d.sync += self.false_start.eq(1)
                        m.next = "OFF"
            with m.State("PREAMBLE"):    # waits for the start frame delimiter
                with m.If(beat & dv & ~er & (d == 0xD5)):
                    m.d.comb += begin.eq(1)
                    m.next = "FRAME"
                with m.Elif(beat & (~dv | er | (d != 0x55))):
                    m.d.sync += self.false_start.eq(1)
                    m.next = "OFF"
                    with m.If(~dv):
                        m.next = "IDLE"
            with m.State("FRAME"):       # waits for the frame's end
                m.d.comb += [take.eq(beat & dv), end.eq(beat & ~dv), self.octets.busy.eq(1)]
                with m.If(end):
                    m.next = "IDLE"
        with m.If(begin):
            m.d.sync += [length.eq(0), broken.eq(0), crc.eq(0xFFFFFFFF), broadcast.eq(1)]
        with m.If(take):
            m.d.sync += [broken.eq(broken | er), crc.eq(apply(data_matrix(CRC32, 1), summed) ^ crc[8:])]
            with m.If(length != self.limit + 1):
                m.d.sync += length.eq(length + 1)
            with m.If(length == 0):
                m.d.sync += group.eq(d[0])
            with m.If(length < 6):
                m.d.sync += broadcast.eq(broadcast & d.all())

        # The word being filled stays until another byte follows, or the end does.
        delay, waits = Signal(8 * _FCS), Signal(range(_FCS + 1))
        word, count = Signal(64), Signal(4)
        move, full, place = Signal(), Signal(), Signal(3)
        m.d.comb += [
            move.eq(take & (waits == _FCS) & (length != self.limit + 1)),
            full.eq(count == 8),
            place.eq(count[:3]),
        ]
        with m.If(take):
            m.d.sync += delay.eq(Cat(delay[8:], d))
            with m.If(waits != _FCS):
                m.d.sync += waits.eq(waits + 1)
        with m.If(move):
            m.d.sync += count.eq(Cat(count[:3], 0) + 1)
            with m.Switch(place):
                for n in range(8):
                    with m.Case(n):
                        m.d.sync += word.word_select(n, 8).eq(delay[:8])
        with m.If(begin):
            m.d.sync += [waits.eq(0), count.eq(0)]

        bad_fcs, bad = Signal(), Signal()
        m.d.comb += [
            bad_fcs.eq(broken | (crc != CRC32_RESIDUE)),
            bad.eq(bad_fcs | (length < SHORTEST) | (length > self.limit)),
        ]
        m.d.sync += [
            verdict.valid.eq(end), verdict.length.eq(length), verdict.bad_fcs.eq(bad_fcs),
            verdict.group.eq(group), verdict.broadcast.eq(broadcast),
        ]

        # Output register
        room, present = Signal(), Signal()
        opened = Signal()                # the receiver has had a part of a packet
        late = Signal()                  # the rest of this frame has no place
        owed = Signal()                  # an opened packet must be ended with `err`
        m.d.comb += [
            room.eq((~o.valid | o.ready) & ~owed),
            present.eq(((move & full) | (end & count.any())) & ~late),
        ]
        m.d.sync += [self.good.eq(0), self.lost.eq(0)]
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(owed & (~o.valid | o.ready)):
            m.d.sync += [o.valid.eq(1), o.p.last.eq(1), o.p.err.eq(1), o.p.empty.eq(0), owed.eq(0)]
        with m.If(present & room):
            m.d.sync += [
                o.valid.eq(1), o.p.data.eq(word), o.p.last.eq(end), o.p.err.eq(end & bad),
                o.p.empty.eq(0), opened.eq(~end), self.good.eq(end & ~bad),
            ]
            with m.If(end):
                m.d.sync += o.p.empty.eq(8 - count)
        with m.Elif(present):
            m.d.sync += [late.eq(1), self.lost.eq(1)]
        with m.If(end & ((present & ~room) | late)):
            m.d.sync += [late.eq(0), owed.eq(owed | opened), opened.eq(0)]
        return m
