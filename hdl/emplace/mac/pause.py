"""MAC control frames: PAUSE. Ref: IEEE Std 802.3 clause 31 (MAC control), annex 31B (PAUSE)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature

__all__ = ["PauseReceive", "PauseTransmit", "PauseClock"]

_GROUP = 0x0180C2000001      # 31B.1
_CONTROL = Const(0x0888, 16)                     # ethertype 8808, first byte lowest
_PAUSE = Const(0x0100, 16)                       # opcode 0001


def _wire(address):
    """A MAC address as its bytes stand on the wire, the first one lowest."""
    return Cat(address[8 * n:8 * n + 8] for n in reversed(range(6)))


class PauseClock(wiring.Component):
    """Counts down pause quanta of 512 bit times.

    Parameters
    ----------
    beats_log2 : :class:`int`
        log2 of the beats of a quantum: 3 where a beat is 8 bytes, 6 where it is one.

    Members
    -------
    beat : ``In(1)``
    start : ``In(1)``, beats : ``In(16 + beats_log2)``
        Begin anew with that many.
    running : ``Out(1)``
        From the cycle behind ``start`` on.
    """

    def __init__(self, beats_log2):
        self.bits = 16 + beats_log2
        super().__init__({"beat": In(1), "start": In(1), "beats": In(self.bits), "running": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal(self.bits)
        m.d.comb += self.running.eq(left.any())
        with m.If(self.start):
            m.d.sync += left.eq(self.beats)
        with m.Elif(self.beat & self.running):
            m.d.sync += left.eq(left - 1)
        return m


class PauseReceive(wiring.Component):
    """Takes MAC control frames (ethertype 8808) out of the received ones: they end with ``err``.

    A PAUSE to 01-80-C2-00-00-01 or to ``address``, in a good frame, stops the transmitter between frames for as long
    as it says: a new one takes the place of the one before, 0 ends it (31B.3.3). Any other control frame is dropped
    and counted (31.5.1).

    Throughput: a word a cycle. Latency: 0; ``paused`` 2 cycles behind the frame's last word.

    Parameters
    ----------
    beats_log2 : :class:`int`

    Members
    -------
    i, o : ``In(PacketSignature(8))``, ``Out(...)``
        Frames without FCS.
    beat : ``In(1)``
        See :class:`PauseClock`.
    address : ``In(48)``
    enable : ``In(1)``
        Obey; without it they are dropped and counted only.
    paused : ``Out(1)``
    received, unknown : ``Out(1)``
        Strobes: a PAUSE for this station; another control frame.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, beats_log2):
        self.beats_log2 = beats_log2
        super().__init__({
            "i": In(PacketSignature(8)), "o": Out(PacketSignature(8)), "beat": In(1), "address": In(48), "enable": In(1),
            "paused": Out(1), "received": Out(1), "unknown": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        m.submodules.clock = clock = PauseClock(self.beats_log2)

        index = Signal(2)                # words before this one, up to 3
        ours, control, pause, quanta = Signal(), Signal(), Signal(), Signal(16)
        move, ends, group, station = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            o.payload.eq(i.payload), o.valid.eq(i.valid), i.ready.eq(o.ready),
            o.p.err.eq(i.p.err | control),
            move.eq(i.valid & i.ready),
            ends.eq(move & i.p.last & ~i.p.err & control),
            group.eq(i.p.data[:48] == _wire(Const(_GROUP, 48))), station.eq(i.p.data[:48] == _wire(self.address)),
        ]
        with m.If(move):
            with m.If(i.p.last):
                m.d.sync += [index.eq(0), control.eq(0)]
            with m.Elif(index != 3):
                m.d.sync += index.eq(index + 1)
            with m.If(index == 0):
                m.d.sync += ours.eq(group | station)
            with m.If((index == 1) & ~i.p.last):
                m.d.sync += [control.eq(i.p.data[32:48] == _CONTROL), pause.eq(i.p.data[48:] == _PAUSE)]
            with m.If(index == 2):
                m.d.sync += quanta.eq(Cat(i.p.data[8:16], i.p.data[:8]))
        m.d.sync += [
            self.received.eq(ends & pause & ours), self.unknown.eq(ends & ~(pause & ours)),
        ]
        m.d.comb += [
            clock.start.eq(self.received & self.enable), clock.beats.eq(quanta << self.beats_log2),
            clock.beat.eq(self.beat), self.paused.eq(clock.running & self.enable),
        ]
        return m


class PauseTransmit(wiring.Component):
    """Lets frames wait while the link's other end has paused us, and pauses it.

    While ``request`` is high a PAUSE with ``quanta`` is sent, again each time half of it has passed; one with 0 when
    it falls (31B.2). These do not wait for the other end (31B.3.1). None is sent without ``enable``, or with
    ``quanta`` 0.

    Throughput: a word a cycle. Latency: 0.

    Parameters
    ----------
    beats_log2 : :class:`int`

    Members
    -------
    i, o : ``In(PacketSignature(8))``, ``Out(...)``
        Frames without FCS and padding.
    beat : ``In(1)``
        See :class:`PauseClock`.
    address : ``In(48)``
    paused, request, enable : ``In(1)``
    quanta : ``In(16)``
        Units of 512 bit times.
    group, broadcast : ``Out(1)``
        Destination of the frame that has begun last.
    sent : ``Out(1)``
        Strobe: a PAUSE has been handed over.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, beats_log2):
        self.beats_log2 = beats_log2
        super().__init__({
            "i": In(PacketSignature(8)), "o": Out(PacketSignature(8)), "beat": In(1), "address": In(48), "paused": In(1),
            "request": In(1), "enable": In(1), "quanta": In(16), "group": Out(1), "broadcast": Out(1), "sent": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        m.submodules.clock = clock = PauseClock(self.beats_log2)

        wanted, said, due = Signal(), Signal(), Signal()     # said: the last PAUSE has asked it to stop
        m.d.comb += clock.beat.eq(self.beat)
        m.d.sync += [
            wanted.eq(self.request & self.enable & self.quanta.any()),
            due.eq(Mux(wanted, ~said | ~clock.running, said)),
        ]

        first, offered, wait = Signal(init=1), Signal(), Signal()     # first: the next word of `i` is its frame's first
        m.d.comb += wait.eq(first & self.paused & ~offered)          # what has been offered must not be taken back
        m.d.sync += offered.eq(o.valid & ~o.ready)
        time, source = Signal(16), Signal(48)
        m.d.comb += source.eq(_wire(self.address))
        with m.FSM():
            with m.State("FRAMES"):      # waits for a PAUSE to be due, between frames
                m.d.comb += [
                    o.payload.eq(i.payload),
                    o.valid.eq(i.valid & ~wait), i.ready.eq(o.ready & ~wait),
                ]
                with m.If(o.valid & o.ready):
                    m.d.sync += first.eq(i.p.last)
                with m.If(due & Mux(o.valid, o.ready & i.p.last, first)):
                    m.d.sync += [time.eq(Mux(wanted, self.quanta, 0)), said.eq(wanted)]
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.comb += [o.valid.eq(1), o.p.data.eq(Cat(_wire(Const(_GROUP, 48)), source[:16]))]
                with m.If(o.ready):
                    m.next = "TYPE"
            with m.State("TYPE"):
                m.d.comb += [o.valid.eq(1), o.p.data.eq(Cat(source[16:], _CONTROL, _PAUSE))]
                with m.If(o.ready):
                    m.next = "TIME"
            with m.State("TIME"):        # the MAC pads the rest with zeros
                m.d.comb += [o.valid.eq(1), o.p.data.eq(Cat(time[8:], time[:8])), o.p.last.eq(1), o.p.empty.eq(6)]
                m.d.comb += [clock.beats.eq((time << self.beats_log2) >> 1), clock.start.eq(o.ready), self.sent.eq(o.ready)]
                with m.If(o.ready):
                    m.next = "SETTLE"
            with m.State("SETTLE"):      # `due` follows
                m.next = "SETTLED"
            with m.State("SETTLED"):
                m.next = "FRAMES"

        begins = Signal(init=1)
        with m.If(o.valid & o.ready):
            m.d.sync += begins.eq(o.p.last)
            with m.If(begins):
                m.d.sync += [self.group.eq(o.p.data[0]), self.broadcast.eq(o.p.data[:48].all())]
        return m
