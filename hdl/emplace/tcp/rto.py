"""Retransmission timeout. Ref: RFC 6298."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RtoEstimator", "RTO_MIN", "RTO_FIRST", "RTO_MAX"]

#: Ticks (ms): what Linux has in place of RFC 6298's second; before the first sample; persist probes are no rarer.
RTO_MIN, RTO_FIRST, RTO_MAX = 200, 1000, 60_000


class RtoEstimator(wiring.Component):
    """SRTT and RTTVAR after a sample, and the timeout before it.

    Throughput: a sample every 3 cycles. Latency: 3 cycles to the new values, 2 to ``rto``. All inputs stand still meanwhile.

    Members
    -------
    sample : ``In(16)``
        Ticks.
    srtt, rttvar : ``In(16)``
        Ticks * 8, ticks * 4.
    measured : ``In(1)``
        They mean something.
    backoff : ``In(4)``
    new_srtt, new_rttvar : ``Out(16)``
    rto : ``Out(17)``
        Ticks; of ``srtt``, ``rttvar`` and ``backoff``.
    """

    sample: Signal
    srtt: Signal
    rttvar: Signal
    measured: Signal
    backoff: Signal
    new_srtt: Signal
    new_rttvar: Signal
    rto: Signal

    def __init__(self):
        super().__init__({
            "sample": In(16), "srtt": In(16), "rttvar": In(16), "measured": In(1), "backoff": In(4),
            "new_srtt": Out(16), "new_rttvar": Out(16), "rto": Out(17),
        })

    def elaborate(self, platform):
        m = Module()
        # A sample beyond what 16 bits of eighths hold counts as that: 8 s.
        taken, delta, size, change = Signal(13), Signal(signed(15)), Signal(14), Signal(signed(17))
        m.d.comb += [
            taken.eq(Mux(self.sample[13:].any(), 0x1FFF, self.sample[:13])), change.eq(size - self.rttvar[2:]),
        ]
        m.d.sync += [delta.eq(taken - self.srtt[3:])]
        m.d.sync += size.eq(Mux(delta < 0, -delta, delta))
        srtt = Signal(signed(18))
        rttvar = Signal(signed(18))
        m.d.comb += [srtt.eq(self.srtt + delta), rttvar.eq(self.rttvar + change)]
        with m.If(self.measured):
            m.d.sync += [self.new_srtt.eq(srtt), self.new_rttvar.eq(Mux(rttvar > 0xFFFF, 0xFFFF, rttvar))]
        with m.Else():
            m.d.sync += [self.new_srtt.eq(taken << 3), self.new_rttvar.eq(taken << 1)]

        # SRTT + 4 RTTVAR, doubled for each expiry in a row, within bounds.
        base, bounded = Signal(17), Signal(17)
        m.d.comb += bounded.eq(Mux(~self.measured, RTO_FIRST, Mux(base < RTO_MIN, RTO_MIN, base)))
        m.d.sync += base.eq(self.srtt[3:] + self.rttvar)
        doubled = Signal(33)
        m.d.comb += doubled.eq(bounded << self.backoff)
        m.d.sync += self.rto.eq(Mux(doubled > RTO_MAX, RTO_MAX, doubled))
        return m
