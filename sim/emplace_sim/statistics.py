"""The MAC's counters under the names that others know: RFC 2819's etherStats and those of ``ethtool -S``.

The one place where these are written down: the driver, the tests and the page in docs take them from here. Golden
model of the counters in :func:`wire_counts`.
"""

import zlib
from collections import Counter

from emplace import abi

__all__ = ["ETHER_STATS", "ETHTOOL", "evaluate", "wire_counts", "Widened"]

_CLASSES = ("rx_64", "rx_65_127", "rx_128_255", "rx_256_511", "rx_512_1023", "rx_1024_1518", "rx_1519_max")
_RX_OCTETS = {"rx_octets_8": 8, "rx_octets_1": 1}
_TX_OCTETS = {"tx_octets_8": 8, "tx_octets_1": 1}
_BAD_LENGTH = {"rx_undersize": 1, "rx_oversize": 1, "rx_fragments": 1, "rx_jabbers": 1}

#: RFC 2819's etherStatsTable, of what is received: name -> {counter: factor}, to be added up. The limit of 1518 octets
#: in its text is 2000 here (IEEE Std 802.3 §3.2.7, envelope frames), so there is a size class more.
ETHER_STATS = {
    "etherStatsDropEvents": {"rx_overflow": 1},
    "etherStatsOctets": _RX_OCTETS,
    "etherStatsPkts": dict.fromkeys(_CLASSES, 1) | _BAD_LENGTH,
    "etherStatsBroadcastPkts": {"rx_broadcast": 1},
    "etherStatsMulticastPkts": {"rx_multicast": 1},
    "etherStatsCRCAlignErrors": {"rx_fcs_errors": 1},
    "etherStatsUndersizePkts": {"rx_undersize": 1},
    "etherStatsOversizePkts": {"rx_oversize": 1},
    "etherStatsFragments": {"rx_fragments": 1},
    "etherStatsJabbers": {"rx_jabbers": 1},
    "etherStatsPkts64Octets": {"rx_64": 1},
    "etherStatsPkts65to127Octets": {"rx_65_127": 1},
    "etherStatsPkts128to255Octets": {"rx_128_255": 1},
    "etherStatsPkts256to511Octets": {"rx_256_511": 1},
    "etherStatsPkts512to1023Octets": {"rx_512_1023": 1},
    "etherStatsPkts1024to1518Octets": {"rx_1024_1518": 1},
    "etherStatsPkts1519toMaxOctets": {"rx_1519_max": 1},
}

#: What a network driver shows: rtnl_link_stats64's names first, then those that ``ethtool -S`` has of most cards.
ETHTOOL = {
    "rx_packets": {"rx_frames": 1},
    "tx_packets": {"tx_frames": 1},
    "rx_bytes": _RX_OCTETS,
    "tx_bytes": _TX_OCTETS,
    "rx_broadcast": {"rx_broadcast": 1},
    "tx_broadcast": {"tx_broadcast": 1},
    "rx_multicast": {"rx_multicast": 1},
    "tx_multicast": {"tx_multicast": 1},
    "rx_errors": {"rx_fcs_errors": 1, **_BAD_LENGTH},
    "tx_errors": {"tx_errors": 1},
    "rx_missed_errors": {"rx_overflow": 1},
    "rx_crc_errors": {"rx_fcs_errors": 1},
    "rx_length_errors": _BAD_LENGTH,
    "rx_undersize": {"rx_undersize": 1},
    "rx_oversize": {"rx_oversize": 1},
    "rx_fragments": {"rx_fragments": 1},
    "rx_jabbers": {"rx_jabbers": 1},
    "rx_size_64": {"rx_64": 1},
    "rx_size_65_to_127": {"rx_65_127": 1},
    "rx_size_128_to_255": {"rx_128_255": 1},
    "rx_size_256_to_511": {"rx_256_511": 1},
    "rx_size_512_to_1023": {"rx_512_1023": 1},
    "rx_size_1024_to_1518": {"rx_1024_1518": 1},
    "rx_size_1519_to_max": {"rx_1519_max": 1},
    "rx_flow_control": {"rx_pause": 1},
    "tx_flow_control": {"tx_pause": 1},
    "rx_mac_control_dropped": {"rx_control": 1},
}


def evaluate(names, counters):
    """Values of ``names`` (ETHER_STATS or ETHTOOL) from those of the card's counters."""
    return {name: sum(factor * counters[counter] for counter, factor in parts.items()) for name, parts in names.items()}


def wire_counts(frames, *, limit=2000):
    """What the MAC counts of received frames: ``[bytes with FCS, or (bytes, True) for a coding error]``."""
    found = Counter()
    for frame in frames:
        frame, broken = frame if isinstance(frame, tuple) else (frame, False)
        bad = broken or len(frame) < 4 or zlib.crc32(frame[:-4]).to_bytes(4, "little") != frame[-4:]
        found["octets"] += len(frame)
        if len(frame) < 64:
            found["rx_fragments" if bad else "rx_undersize"] += 1
        elif len(frame) > limit:
            found["rx_jabbers" if bad else "rx_oversize"] += 1
        else:
            tops = (64, 127, 255, 511, 1023, 1518, limit)
            found[next(name for name, top in zip(_CLASSES, tops) if len(frame) <= top)] += 1
            if bad:
                found["rx_fcs_errors"] += 1
            elif frame[:6] == b"\xff" * 6:
                found["rx_broadcast"] += 1
            elif frame[0] & 1:
                found["rx_multicast"] += 1
    return found


class Widened:
    """Totals of 32-bit wrapping counters, by name. Must be told of them before any has gone round once more.

    The first to do so is ``rx_octets_8``: 2**35 octets, 27 s of 10 Gb/s, 274 s of 1 Gb/s.
    """

    def __init__(self):
        self.last = dict.fromkeys((counter.name for counter in abi.COUNTERS), 0)
        self.total = dict(self.last)

    def update(self, counters):
        """Take what the card says now; the totals."""
        for name, value in counters.items():
            self.total[name] += (value - self.last[name]) & 0xFFFFFFFF
            self.last[name] = value
        return self.total
