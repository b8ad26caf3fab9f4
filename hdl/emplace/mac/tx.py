"""Packets to XGMII. Ref: IEEE Std 802.3 clause 46, §46.3.1.4 (start in lane 0 or 4, deficit idle count)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .crc import CRC32, apply, data_matrix, inverse, linear, zero_matrix
from .records import ERROR, IDLE, PREAMBLE, TERMINATE, Octets, Xgmii

__all__ = ["MacTx"]

_LAST_PAD_WORD = 7       # a frame has at least 60 bytes: seven words and a half


def _rotate(value, nbytes):
    """32-bit value, byte *n* of the result is byte *n* + ``nbytes`` of ``value``."""
    nbytes %= 4
    return (value >> 8 * nbytes | value << 32 - 8 * nbytes) & 0xFFFFFFFF


def _step_back(n):
    """Matrix that takes the *n*-th zero byte out of the state again (n = 1..3).

    Each step also moves the bytes to the lanes where the FCS will stand, so that no multiplexer is
    needed for that: behind a tail of r bytes, FCS byte k goes to lane (r + k) mod 4.
    """
    back = inverse(zero_matrix(CRC32, 1))

    def step(lanes):
        state = _rotate(lanes, 4 - (n - 1))
        state = sum((bin(row & state).count("1") & 1) << bit for bit, row in enumerate(back))
        return _rotate(state, n)
    return linear(step, 32)


class MacTx(wiring.Component):
    """Frames packets: preamble, padding to 60 bytes, FCS, and the gap.

    Starts in lane 0 or 4; a deficit idle count keeps the mean gap at 12 bytes (64-byte frames leave
    every 10.5 cycles). A packet that ends with ``err``, or whose next word is not there in time, is
    sent with error characters in the FCS's place; what remains of the latter is dropped.

    Throughput: one word a cycle within a frame. Latency: 3 cycles to the start character.

    Members
    -------
    i : ``In(PacketSignature(8))``
        Frames without FCS. Must have a word every cycle once it has begun.
    xgmii : ``Out(Xgmii)``
    sent, spoiled : ``Out(1)``
        Strobes: a good frame; one with error characters.
    octets : ``Out(Octets)``
    """

    i: stream.Interface
    xgmii: wiring.PureInterface
    sent: Signal
    spoiled: Signal
    octets: Signal

    def __init__(self):
        super().__init__({"i": In(PacketSignature(8)), "xgmii": Out(Xgmii), "sent": Out(1), "spoiled": Out(1),
                          "octets": Out(Octets)})

    def elaborate(self, platform):
        m = Module()
        i = self.i

        # Input: which word goes on this cycle.
        feed, end, bad, first = Signal(), Signal(), Signal(), Signal()
        tail = Signal(4)                 # bytes of it, 1..8
        taken = Signal()                 # it comes from `i`, else it is padding
        index = Signal(range(_LAST_PAD_WORD + 2))
        broken = Signal()                # the frame being padded is bad
        dropping = Signal()              # the packet goes on, but its frame was ended
        deficit, moved = Signal(2), Signal()
        wait = Signal(2)
        halves, debt = Signal(3), Signal(3)      # from the tail word to the next start
        m.d.comb += debt.eq(deficit + tail[:2])

        def finish():
            """The word fed ends the packet: pad, or end the frame."""
            with m.If(index < _LAST_PAD_WORD):
                m.d.sync += broken.eq(bad)
                m.next = "PAD"
            with m.Else():
                m.d.comb += end.eq(1)
                m.d.sync += [deficit.eq(debt[:2]), moved.eq(halves[0]), wait.eq(halves[1:])]
                m.next = "GAP"

        m.d.comb += halves.eq(Mux(tail[3], 6, Mux(tail[2], 5, 4)) + moved + debt[2])
        own = Signal(4)
        m.d.comb += own.eq(8 - i.p.empty)
        with m.FSM():
            with m.State("IDLE"):        # waits for a packet
                m.d.comb += i.ready.eq(1)
                with m.If(i.valid):
                    m.d.comb += [feed.eq(1), first.eq(1), taken.eq(1), tail.eq(own), bad.eq(i.p.last & i.p.err)]
                    m.d.sync += index.eq(1)
                    m.next = "DATA"
                    with m.If(i.p.last):
                        finish()
                with m.Else():
                    m.d.sync += deficit.eq(0)
            with m.State("DATA"):        # waits for the packet's end; or for a word that isn't there
                m.d.comb += [i.ready.eq(1), feed.eq(1), taken.eq(i.valid), tail.eq(8), bad.eq(~i.valid | i.p.err)]
                with m.If(index <= _LAST_PAD_WORD):
                    m.d.sync += index.eq(index + 1)
                with m.If(i.valid & i.p.last):
                    m.d.comb += tail.eq(Mux((index == _LAST_PAD_WORD) & (own < 4), 4, own))
                    finish()
                with m.Elif(~i.valid):
                    m.d.sync += dropping.eq(1)
                    finish()
            with m.State("PAD"):         # waits until the frame is long enough
                m.d.comb += [feed.eq(1), tail.eq(4), bad.eq(broken)]
                m.d.sync += index.eq(index + 1)
                with m.If(index == _LAST_PAD_WORD):
                    finish()
            with m.State("GAP"):         # waits until the next start may follow
                m.d.sync += [wait.eq(wait - 1), index.eq(0)]
                with m.If(wait == 1):
                    m.next = "IDLE"
                    with m.If(dropping):
                        m.next = "DROP"
            with m.State("DROP"):        # waits for the end of the packet that was cut short
                m.d.comb += i.ready.eq(1)
                m.d.sync += deficit.eq(0)
                with m.If(i.valid & i.p.last):
                    m.d.sync += dropping.eq(0)
                    m.next = "IDLE"
        m.d.comb += [
            self.sent.eq(end & ~bad), self.spoiled.eq(end & bad),
            self.octets.count.eq(Mux(feed, Mux(end, tail + 4, 8), 0)), self.octets.busy.eq(feed & ~end),
        ]

        # Stage 1: bytes past the end read zero.
        keep = Signal(8)
        d1, valid1, end1, tail1, bad1, half1 = (Signal(w, name=n) for n, w in (
            ("d1", 64), ("valid1", 1), ("end1", 1), ("tail1", 4), ("bad1", 1), ("half1", 1)))
        m.d.comb += keep.eq(Mux(taken, Cat(own > n for n in range(8)), 0))
        m.d.sync += [valid1.eq(feed), end1.eq(end), tail1.eq(tail), bad1.eq(bad), half1.eq(end & (tail <= 4))]
        for n in range(8):
            with m.If(keep[n]):
                m.d.sync += d1.word_select(n, 8).eq(i.p.data.word_select(n, 8))
            with m.Else():
                m.d.sync += d1.word_select(n, 8).eq(0)

        # Stage 2: preamble or data; the CRC, with up to three zero bytes too many at the end. `left`: where the FCS
        # begins, counted from lane 0 of the word at hand, or LONG.
        LONG, OVER = 15, -16
        crc = Signal(32, init=0xFFFFFFFF)
        d2, end2, tail2, bad2, start2, moved2 = (Signal(w, name=n) for n, w in (
            ("d2", 64), ("end2", 1), ("tail2", 2), ("bad2", 1), ("start2", 1), ("moved2", 1)))
        left = Signal(signed(5), init=OVER)
        m.d.sync += [end2.eq(valid1 & end1), tail2.eq(tail1), bad2.eq(bad1), start2.eq(first)]
        with m.If(first):
            m.d.sync += [d2.eq(PREAMBLE), moved2.eq(moved)]
        with m.Else():
            m.d.sync += d2.eq(d1)
        with m.If(first | (valid1 & ~end1)):
            m.d.sync += left.eq(LONG)
        with m.Elif(valid1):
            m.d.sync += left.eq(tail1 + Cat(0, 0, moved2))
        with m.Elif(left < 0):
            m.d.sync += left.eq(OVER)
        with m.Else():
            m.d.sync += left.eq(left - 8)
        # A tail of at most 4 bytes is taken as 4: in the upper half of the word, where only it counts.
        summed = Signal(64)
        m.d.comb += summed.eq(Mux(half1, Cat(Const(0, 32), d1[:32] ^ crc), Cat(d1[:32] ^ crc, d1[32:])))
        with m.If(valid1):
            m.d.sync += crc.eq(apply(data_matrix(CRC32, 8), summed))
        with m.Else():
            m.d.sync += crc.eq(0xFFFFFFFF)
        zeros = Signal(2)
        step1, step2 = Signal(32), Signal(32)
        m.d.comb += [
            zeros.eq(-tail2),
            step1.eq(Mux(zeros >= 1, apply(_step_back(1), crc), crc)),
            step2.eq(Mux(zeros >= 2, apply(_step_back(2), step1), step1)),
        ]

        # Stage 3: half a word later for a frame that starts in lane 4; and what each lane shall hold.
        d3, bad3, third, upper2 = (Signal(w, name=n) for n, w in (
            ("d3", 64), ("bad3", 1), ("third", 1), ("upper2", 32)))
        lanes = Signal(32)
        start_lane = Signal(8)
        m.d.sync += [
            upper2.eq(d2[32:]),
            d3.eq(Mux(moved2, Cat(upper2, d2[:32]), d2)),
            start_lane.eq(Cat(start2 & ~moved2, 0, 0, 0, start2 & moved2)),
        ]
        with m.If(end2):
            m.d.sync += [bad3.eq(bad2), third.eq((zeros == 3) & ~bad2), lanes.eq(step2)]
            with m.If(bad2):
                m.d.sync += lanes.eq(~(ERROR * 0x01010101))
        DATA, FCS, END, GAP = range(4)
        kind = [Signal(2, init=GAP, name=f"kind{n}") for n in range(8)]
        for n in range(8):
            with m.Switch(left):
                for value in range(-16, 16):
                    with m.Case(value):
                        m.d.sync += kind[n].eq(DATA if n < value else FCS if n < value + 4 else
                                               END if n == value + 4 else GAP)
            if n < 4:
                with m.If(start2 & moved2):
                    m.d.sync += kind[n].eq(GAP)

        # Output.
        fcs = Signal(32)
        d, c = Signal(64, init=IDLE * 0x0101010101010101), Signal(8, init=0xFF)
        m.d.comb += fcs.eq(~Mux(third, apply(_step_back(3), lanes), lanes))
        for n in range(8):
            lane = d.word_select(n, 8)
            with m.Switch(kind[n]):
                with m.Case(DATA):
                    m.d.sync += [lane.eq(d3.word_select(n, 8)), c[n].eq(start_lane[n])]
                with m.Case(FCS):
                    m.d.sync += [lane.eq(fcs.word_select(n % 4, 8)), c[n].eq(bad3)]
                with m.Case(END):
                    m.d.sync += [lane.eq(TERMINATE), c[n].eq(1)]
                with m.Case(GAP):
                    m.d.sync += [lane.eq(IDLE), c[n].eq(1)]
        m.d.comb += [self.xgmii.d.eq(d), self.xgmii.c.eq(c)]
        return m
