"""Packets to GMII. Ref: IEEE Std 802.3 clause 35, §4A.4.2 (interpacket gap, shortest frame)."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .crc import CRC32, apply, data_matrix
from .records import Gmii, Octets

__all__ = ["GmiiTx"]

_PREAMBLE, _PAD, _FCS, _GAP = 8, 60, 4, 12


class GmiiTx(wiring.Component):
    """Frames packets: preamble, padding to 60 bytes, FCS, and a gap of 12 bytes.

    A byte moves in each cycle with ``enable``. A packet that ends with ``err``, or whose next word is not there in
    time, is sent with TX_ER instead of its FCS; what remains of the latter is dropped.

    Throughput: a byte a cycle within a frame. Latency: 1 cycle with ``enable``, 1 more to the first byte of preamble.

    Members
    -------
    i : ``In(PacketSignature(8))``
        Frames without FCS. Must have a word every 8 bytes once it has begun.
    gmii : ``Out(Gmii)``, enable : ``In(1)``
        A new byte stands in the cycle behind ``enable``.
    sent, spoiled : ``Out(1)``
        Strobes: a good frame; one with TX_ER.
    octets : ``Out(Octets)``
    """

    i: stream.Interface
    gmii: wiring.PureInterface
    enable: Signal
    sent: Signal
    spoiled: Signal
    octets: Signal

    def __init__(self):
        super().__init__({"i": In(PacketSignature(8)), "gmii": Out(Gmii), "enable": In(1), "sent": Out(1),
                          "spoiled": Out(1), "octets": Out(Octets)})

    def elaborate(self, platform):
        m = Module()
        i, gmii, beat = self.i, self.gmii, self.enable

        lane, left = Signal(3), Signal(range(_GAP))      # byte of the word; beats that this state still takes
        length = Signal(range(_PAD + 1))                 # bytes before this one, up to 60
        bad, dropping = Signal(), Signal()
        last, missing = Signal(), Signal()
        d, dv, er = Signal(8), Signal(), Signal()
        counts, busy = Signal(), Signal()                # the byte is one of the frame's, behind its preamble
        crc, summed, into_crc = Signal(32), Signal(8), Signal()
        m.d.comb += [
            last.eq(i.valid & i.p.last & (lane == 7 - i.p.empty)),
            missing.eq(~i.valid),
            summed.eq(d ^ crc[:8]),
            self.octets.count.eq(beat & counts), self.octets.busy.eq(busy),
        ]
        with m.If(beat):
            m.d.sync += [gmii.d.eq(d), gmii.dv.eq(dv), gmii.er.eq(er)]
            with m.If(into_crc):
                m.d.sync += crc.eq(apply(data_matrix(CRC32, 1), summed) ^ crc[8:])
                with m.If(length != _PAD):
                    m.d.sync += length.eq(length + 1)

        long_enough = Signal()
        m.d.comb += long_enough.eq(length >= _PAD - 1)
        with m.FSM():
            with m.State("IDLE"):        # waits for a packet
                m.d.sync += [left.eq(_PREAMBLE - 2), lane.eq(0), length.eq(0), crc.eq(0xFFFFFFFF), bad.eq(0)]
                with m.If(beat & i.valid):
                    m.d.comb += [d.eq(0x55), dv.eq(1)]
                    m.next = "PREAMBLE"
            with m.State("PREAMBLE"):    # waits for its end
                m.d.comb += [d.eq(0x55), dv.eq(1), busy.eq(1)]
                with m.If(left == 0):
                    m.d.comb += d.eq(0xD5)
                with m.If(beat):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 0):
                        m.next = "DATA"
            with m.State("DATA"):        # waits for the packet's end; or for a word that isn't there
                m.d.comb += [d.eq(i.p.data.word_select(lane, 8)), dv.eq(1), er.eq(missing), busy.eq(1), counts.eq(1),
                             into_crc.eq(1)]
                m.d.sync += left.eq(_FCS - 1)
                with m.If(beat):
                    m.d.sync += lane.eq(lane + 1)
                    m.d.comb += i.ready.eq((lane == 7) | last)
                    with m.If(missing | last):
                        m.d.sync += [bad.eq(missing | i.p.err), dropping.eq(missing)]
                        m.next = "PAD"
                        with m.If(long_enough):
                            m.next = "FCS"
            with m.State("PAD"):         # waits until the frame is long enough
                m.d.comb += [dv.eq(1), busy.eq(1), counts.eq(1), into_crc.eq(1)]
                with m.If(beat & long_enough):
                    m.next = "FCS"
            with m.State("FCS"):         # waits for its four bytes
                m.d.comb += [d.eq(~crc[:8]), dv.eq(1), er.eq(bad), busy.eq(1), counts.eq(1)]
                with m.If(beat):
                    m.d.sync += [left.eq(left - 1), crc.eq(crc[8:])]
                    with m.If(left == 0):
                        m.d.comb += [self.sent.eq(~bad), self.spoiled.eq(bad)]
                        m.d.sync += left.eq(_GAP - 1)
                        m.next = "GAP"
            with m.State("GAP"):         # waits until the next start may follow
                with m.If(beat):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 0):
                        m.next = "IDLE"
                        with m.If(dropping):
                            m.next = "DROP"
            with m.State("DROP"):        # waits for the end of the packet that was cut short
                m.d.comb += i.ready.eq(1)
                with m.If(i.valid & i.p.last):
                    m.d.sync += dropping.eq(0)
                    m.next = "IDLE"
        return m
