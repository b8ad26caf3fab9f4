"""What is counted of the wire. Ref: RFC 2819 (etherStatsTable), RFC 2863 (ifTable), IEEE Std 802.3 §30.3.1."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from .records import FRAME_LIMIT, SHORTEST, Octets, Sent, Verdict

__all__ = ["Statistics", "OctetCount"]

#: Upper ends of the size classes, bytes with FCS; what is longer is in the last one.
_CLASSES = (("rx_64", 64), ("rx_65_127", 127), ("rx_128_255", 255), ("rx_256_511", 511), ("rx_512_1023", 1023),
            ("rx_1024_1518", 1518), ("rx_1519_max", None))


class OctetCount(wiring.Component):
    """Counts up to 12 octets a cycle with two one-bit strobes: ``eights`` for eight of them, ``ones`` for one.

    8 * eights + ones is what has come in but for fewer than 16, and for none once the wire has been idle for 8 cycles.
    Ones are told only between frames. No more than 8 a cycle may come in on average.

    Members
    -------
    octets : ``In(Octets)``
    eights, ones : ``Out(1)``
        1 cycle later.
    """

    octets: In(Octets)
    eights: Out(1)
    ones: Out(1)

    def elaborate(self, platform):
        m = Module()
        waiting, idle = Signal(5), Signal()
        m.d.comb += [
            self.eights.eq(waiting >= 8),
            self.ones.eq(waiting.any() & ~self.eights & idle),
        ]
        m.d.sync += [
            idle.eq(~self.octets.busy & (self.octets.count == 0)),
            waiting.eq(Mux(self.eights, waiting - 8, waiting - self.ones) + self.octets.count),
        ]
        return m


class Statistics(wiring.Component):
    """Turns what receiver and transmitter tell of frames into the counters of layer mac.

    Latency: 1 cycle.

    Parameters
    ----------
    limit : :class:`int`
        Longest frame received, bytes with FCS.

    Members
    -------
    verdict : ``In(Verdict(limit))``, rx_octets : ``In(Octets)``, false_start : ``In(1)``
    sent : ``In(Sent)``, tx_octets : ``In(Octets)``
    count : ``Out(abi.counter_layout("mac"))``
        Those that are about the wire; the others are 0.
    """

    def __init__(self, limit=FRAME_LIMIT):
        self.limit = limit
        super().__init__({
            "verdict": In(Verdict(limit)), "rx_octets": In(Octets), "false_start": In(1),
            "sent": In(Sent), "tx_octets": In(Octets),
            "count": Out(abi.counter_layout("mac")),
        })

    def elaborate(self, platform):
        m = Module()
        verdict, count = self.verdict, self.count
        for name in ("rx", "tx"):
            octets = OctetCount()
            m.submodules[f"{name}_octets"] = octets
            m.d.comb += [
                octets.octets.eq(getattr(self, f"{name}_octets")),
                count[f"{name}_octets_8"].eq(octets.eights), count[f"{name}_octets_1"].eq(octets.ones),
            ]

        short, long, fits = Signal(), Signal(), Signal()
        m.d.comb += [
            short.eq(verdict.length < SHORTEST), long.eq(verdict.length > self.limit),
            fits.eq(verdict.valid & ~short & ~long),
        ]
        m.d.sync += [
            count.rx_undersize.eq(verdict.valid & short & ~verdict.bad_fcs),
            count.rx_fragments.eq(verdict.valid & short & verdict.bad_fcs),
            count.rx_oversize.eq(verdict.valid & long & ~verdict.bad_fcs),
            count.rx_jabbers.eq(verdict.valid & long & verdict.bad_fcs),
            count.rx_fcs_errors.eq((fits & verdict.bad_fcs) | self.false_start),
            count.rx_broadcast.eq(fits & ~verdict.bad_fcs & verdict.broadcast),
            count.rx_multicast.eq(fits & ~verdict.bad_fcs & verdict.group & ~verdict.broadcast),
            count.tx_frames.eq(self.sent.valid & ~self.sent.bad),
            count.tx_errors.eq(self.sent.valid & self.sent.bad),
            count.tx_broadcast.eq(self.sent.valid & ~self.sent.bad & self.sent.broadcast),
            count.tx_multicast.eq(self.sent.valid & ~self.sent.bad & self.sent.group & ~self.sent.broadcast),
        ]
        above = Signal(len(_CLASSES))    # longer than the classes before
        m.d.comb += above[0].eq(1)
        for n, (name, most) in enumerate(_CLASSES):
            mine = Signal(name=name)
            m.d.comb += mine.eq(above[n])
            if most is not None:
                m.d.comb += above[n + 1].eq(verdict.length > most)
                m.d.comb += mine.eq(above[n] & ~above[n + 1])
            m.d.sync += count[name].eq(fits & mine)
        return m
