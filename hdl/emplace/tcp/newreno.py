"""Congestion control: NewReno. Ref: RFC 5681 §3, RFC 6582 §3.2, RFC 6928."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .send_records import CongestionEvent

__all__ = ["NewReno"]

_WIDTH = 30


class NewReno(wiring.Component):
    """Says what an event makes of cwnd and ssthresh. Another algorithm has the same ports (and may have state of its own).

    In slow start cwnd grows by what was acknowledged: several ACKs may have come since the last event, so that RFC 5681's
    "a segment an ACK" can't be counted here. In congestion avoidance it grows by ``segment * octets / cwnd``, as far as a
    shift tells it (the next lower power of two of the quotient's inverse): never faster than RFC 5681 allows.

    Throughput: an event every 3 cycles. Latency: 3 cycles from ``event`` to the results.

    Members
    -------
    event : ``In(CongestionEvent)``
    octets, flight : ``In(30)``
        Newly acknowledged; in flight before.
    segment : ``In(12)``
    cwnd, ssthresh : ``In(30)``
        Before. All inputs stand still for 3 cycles.
    new_cwnd, new_ssthresh : ``Out(30)``
    """

    event: Signal
    octets: Signal
    flight: Signal
    segment: Signal
    cwnd: Signal
    ssthresh: Signal
    new_cwnd: Signal
    new_ssthresh: Signal

    def __init__(self):
        super().__init__({
            "event": In(CongestionEvent), "octets": In(_WIDTH), "flight": In(_WIDTH), "segment": In(12),
            "cwnd": In(_WIDTH), "ssthresh": In(_WIDTH), "new_cwnd": Out(_WIDTH), "new_ssthresh": Out(_WIDTH),
        })

    def elaborate(self, platform):
        m = Module()
        slow, half, least, grown = Signal(), Signal(_WIDTH), Signal(14), Signal(_WIDTH)
        # First stage: half of what is in flight. The window in segments, rounded up to a power of two, as a shift.
        shift = Signal(range(_WIDTH))
        ratio = Signal(_WIDTH)
        for n in range(_WIDTH - 1):
            with m.If(self.cwnd[n] if n else 0):
                m.d.comb += ratio.eq(n)
        size = Signal(4)
        for n in range(12):
            with m.If(self.segment[n]):
                m.d.comb += size.eq(n)
        m.d.sync += [
            slow.eq(self.cwnd < self.ssthresh),
            half.eq(self.flight >> 1), least.eq(self.segment << 1),
            shift.eq(Mux(ratio + 1 > size, ratio + 1 - size, 0)),
        ]
        # Second stage
        floor = Signal(_WIDTH)
        m.d.sync += [grown.eq(Mux(slow, self.octets, self.octets >> shift)), floor.eq(Mux(half > least, half, least))]
        # Third stage
        m.d.sync += [self.new_cwnd.eq(self.cwnd), self.new_ssthresh.eq(self.ssthresh)]
        full = self.cwnd[-1]             # far beyond any peer's window
        with m.Switch(self.event):
            with m.Case(CongestionEvent.ACK):
                m.d.sync += self.new_cwnd.eq(Mux(full, self.cwnd, self.cwnd + Mux(grown == 0, 1, grown)))
            with m.Case(CongestionEvent.DUP_3):
                m.d.sync += [self.new_ssthresh.eq(floor), self.new_cwnd.eq(floor + self.segment + (self.segment << 1))]
            with m.Case(CongestionEvent.DUP_MORE):
                m.d.sync += self.new_cwnd.eq(Mux(full, self.cwnd, self.cwnd + self.segment))
            with m.Case(CongestionEvent.PARTIAL):
                # Deflate by what was acknowledged, give back a segment for what will be sent again.
                m.d.sync += self.new_cwnd.eq(self.segment + Mux(self.octets >= self.cwnd, 0, self.cwnd - self.octets))
            with m.Case(CongestionEvent.RECOVERED):
                m.d.sync += self.new_cwnd.eq(self.ssthresh)
            with m.Case(CongestionEvent.TIMEOUT):
                m.d.sync += [self.new_ssthresh.eq(floor), self.new_cwnd.eq(self.segment)]
            with m.Case(CongestionEvent.IDLE):
                initial = Signal(16)
                m.d.comb += initial.eq((self.segment << 3) + (self.segment << 1))
                m.d.sync += self.new_cwnd.eq(Mux(self.cwnd > initial, initial, self.cwnd))
        return m
