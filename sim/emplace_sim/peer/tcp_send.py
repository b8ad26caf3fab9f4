"""TCP's sending half: what is queued, in flight, lost, and when it is sent again.

Stream positions are plain integers that never wrap (0 is the SYN's); only the wire has sequence numbers.

Ref: RFC 9293 3.8, RFC 6298 (RTO), RFC 5681 and 6582 (NewReno), RFC 6675 (SACK), RFC 3168 (ECN), RFC 1122 4.2.2.17 (probes).
"""

import random
from collections import Counter, deque
from dataclasses import dataclass

__all__ = ["SendHalf", "TcpSettings", "MS", "CUTS"]

MS = 1_000_000               # nanoseconds
#: How a stream of FPDUs is cut: one a segment; as many whole ones as fit; each one's CRC apart, as Linux siw often does;
#: full segments whatever is in them; at random.
CUTS = ("aligned", "packed", "siw", "stream", "random")


@dataclass
class TcpSettings:
    """A connection's parameters. Times are in nanoseconds."""

    mss: int = 1460              # the other side's MSS option: payload and options of a segment
    timestamps: bool = True
    sack: bool = True
    ecn: bool = False
    snd_wscale: int = 7          # of the windows that the other side advertises
    rcv_wscale: int = 7
    rcv_wnd: int = 1 << 18
    cut: str = "aligned"
    initial_window: int = 10     # segments
    rto_initial: int = 1000 * MS
    rto_min: int = 5 * MS
    rto_max: int = 60_000 * MS
    delayed_ack: int = 2 * MS
    ts_tick: int = MS            # of the timestamp clock
    ts_offset: int = 0
    retries: int = 15            # time-outs in a row without any answer, then the connection is given up


@dataclass
class _Sent:
    """A segment in flight."""

    start: int
    end: int
    time: int
    fin: bool = False
    sends: int = 1
    sacked: bool = False
    lost: bool = False
    again: bool = False          # sent again since it was found lost

    @property
    def size(self):
        return self.end - self.start

    @property
    def in_flight(self):
        return not self.sacked and (not self.lost or self.again)


class SendHalf:
    """Owns SND.*; ``emit(start, end, fin=, new=)`` puts a segment on the wire."""

    def __init__(self, settings: TcpSettings, emit, *, seed=0):
        assert settings.cut in CUTS, settings.cut
        self.settings, self.emit = settings, emit
        self.random = random.Random(f"tcp {seed}")
        self.una = self.nxt = self.end = 1           # first unacknowledged, next to send, end of what is queued
        self.data, self.marks = bytearray(), deque()  # from una on; ends of records that are not sent yet
        self.sent: list[_Sent] = []
        self.edge = 1                                # right edge of the other side's window
        self.mss = settings.mss - 12 * settings.timestamps
        self.cwnd = settings.initial_window * self.mss
        self.ssthresh = 1 << 30
        self.dupacks, self.recover, self.recovering = 0, 0, False
        self.urgent = False                          # the next lost segment goes whatever cwnd is (RFC 6582 3.2)
        self.srtt = self.rttvar = None
        self.rto, self.retries = settings.rto_initial, 0
        self.deadline = None                         # of the RTO or persist timer
        self.probing = False
        self.fin_wanted = self.fin_sent = False
        self.cwr_until, self.cwr_pending = 0, False
        self.cwnd_limited, self.last_sent = False, 0
        self.failed = False
        self.counts = Counter()

    # Queueing

    def push(self, record):
        """Queue ``record``: a boundary that cuts may respect."""
        assert not self.fin_wanted, "data behind FIN"
        self.data += record
        self.end += len(record)
        self.marks.append(self.end)

    @property
    def unsent(self):
        return max(self.end - self.nxt, 0)          # FIN lies behind the end

    def octets(self, start, end):
        return bytes(self.data[start - self.una:end - self.una])

    def set_mss(self, mss):
        """New MSS: what is in flight is cut anew when it is sent again."""
        self.mss = mss - 12 * self.settings.timestamps

    # Sending

    def _cut(self):
        """End of the next new segment, windows aside."""
        limit, cut = self.nxt + self.mss, self.settings.cut
        while self.marks and self.marks[0] <= self.nxt:
            self.marks.popleft()
        if cut == "stream":
            return min(limit, self.end)
        if cut == "random":
            return min(self.nxt + self.random.randint(1, self.mss), self.end)
        record = self.marks[0]
        if cut == "siw" and record - self.nxt > 4:
            return min(record - 4, limit)
        if cut == "packed":
            for mark in self.marks:
                if mark > limit:
                    break
                record = mark
        return min(record, limit)

    @property
    def pipe(self):
        flight = sum(s.size for s in self.sent if s.in_flight)
        if self.recovering and not self.settings.sack:           # each duplicate ACK tells of a segment that has left
            flight = max(flight - self.dupacks * self.mss, 0)
        return flight

    def send(self, now):
        """What is lost, then what is new, as far as the windows allow."""
        if self.failed:
            return
        pipe, self.cwnd_limited = self.pipe, False
        while (one := next((s for s in self.sent if s.lost and not s.again), None)) is not None:
            if one.start >= self.edge or (pipe and pipe + one.size > self.cwnd and not self.urgent):
                return
            self.urgent = False
            self._again(one, now)
            pipe += one.size
        if not self.sent and self.last_sent and now - self.last_sent > self.rto:     # RFC 5681 4.1
            self.cwnd = min(self.cwnd, self.settings.initial_window * self.mss)
        while self.nxt < self.end:
            end = self._cut()
            if end > self.edge:
                if self.edge - self.nxt >= self.mss or (self.settings.cut in ("stream", "random") and self.edge > self.nxt):
                    end = min(self.edge, self.nxt + self.mss)
                else:
                    if not self.sent and self.deadline is None:
                        self.probing, self.deadline = True, now + self.rto
                    return
            if pipe and pipe + end - self.nxt > self.cwnd:
                self.cwnd_limited = True
                return
            pipe += end - self.nxt
            self._new(end, now)
        if self.fin_wanted and not self.fin_sent and self.nxt == self.end:
            self.fin_sent = True
            self._new(self.end, now, fin=True)

    def _new(self, end, now, fin=False):
        start, self.nxt = self.nxt, end + fin
        self.sent.append(_Sent(start, self.nxt, now, fin))
        self.emit(start, end, fin=fin, new=True)
        self.counts["segments"] += 1
        self.last_sent, self.probing = now, False
        if len(self.sent) == 1 or self.deadline is None:
            self.deadline = now + self.rto

    def _again(self, one, now):
        """Send a lost segment again; in pieces if it has become too long."""
        limit = one.start + self.mss
        if one.end - one.fin > limit:
            at = self.sent.index(one)
            rest = _Sent(limit, one.end, one.time, one.fin, one.sends, lost=True)
            self.sent.insert(at + 1, rest)
            one.end, one.fin = limit, False
        one.sends, one.again, one.time = one.sends + 1, True, now
        self.emit(one.start, one.end - one.fin, fin=one.fin, new=False)
        self.counts["retransmitted"] += 1
        self.last_sent = now
        if self.deadline is None:
            self.deadline = now + self.rto

    # What comes back

    def acknowledge(self, ack, edge, now, *, duplicate, sack=(), rtt=None, ece=False):
        """An acceptable ACK: ``edge`` is the window's right end or None, ``duplicate``: RFC 5681's kind."""
        if edge is not None:
            if self.edge <= self.una < edge:         # it was closed: what lay beyond it was not taken
                for one in self.sent:
                    one.lost, one.again = not one.sacked, False
            self.edge = edge
        if self.settings.sack:
            self._sacked(sack)
        if ece and ack > self.cwr_until:
            self.ssthresh = self.cwnd = max(self.cwnd // 2, 2 * self.mss)
            self.cwr_until, self.cwr_pending = self.nxt, True
            self.counts["ecn_reductions"] += 1
        if ack > self.una:
            self._advance(ack, now, rtt)
        elif duplicate and self.sent:
            self.dupacks += 1
        if ack <= self.una and edge is not None and edge <= self.una:
            self.retries = 0                         # a closed window may stay closed for ever
        self._detect_loss(now)
        if self.probing and self.edge > self.nxt:
            self.probing, self.deadline, self.rto = False, None, self._fresh_rto()

    def _advance(self, ack, now, rtt):
        acked = ack - self.una
        sample = None
        while self.sent and self.sent[0].end <= ack:
            one = self.sent.pop(0)
            sample = now - one.time if one.sends == 1 else rtt
        if self.sent and self.sent[0].start < ack:
            self.sent[0].start = ack
        del self.data[:acked]
        self.una = ack
        if sample is not None:
            self._measure(sample)
        self.retries, self.rto = 0, self._fresh_rto()
        self.deadline = now + self.rto if self.sent else None
        if self.recovering:
            if ack >= self.recover:
                self.recovering, self.dupacks, self.cwnd = False, 0, self.ssthresh
            else:
                self.dupacks = max(self.dupacks - acked // self.mss, 0)
                if self.sent and not self.settings.sack:         # partial: the next hole
                    self.sent[0].lost, self.sent[0].again, self.urgent = True, False, True
                elif self.sent and not self.sent[0].sacked and not self.sent[0].lost:
                    self.sent[0].lost, self.sent[0].again, self.urgent = True, False, True
        else:
            self.dupacks = 0
            if self.cwnd_limited or self.cwnd < self.ssthresh:
                step = min(acked, self.mss) if self.cwnd < self.ssthresh else max(self.mss * acked // self.cwnd, 1)
                self.cwnd = min(self.cwnd + step, 1 << 28)

    def _sacked(self, blocks):
        for left, right in blocks:
            if self.una < left < right <= self.nxt:
                for one in self.sent:
                    if left <= one.start and one.end <= right:
                        one.sacked, one.lost = True, False

    def _detect_loss(self, now):
        if self.settings.sack:
            above = 0
            for one in reversed(self.sent):
                if one.sacked:
                    above += 1
                elif above >= 3 and not one.lost:
                    one.lost = self.recovering or self.una > self.recover
                    one.again = False
            if any(s.lost and not s.again for s in self.sent) and not self.recovering and self.una > self.recover:
                self._enter_recovery()
        if self.dupacks >= 3 and not self.recovering and self.una > self.recover and self.sent:
            self.sent[0].lost, self.sent[0].again = True, False
            self._enter_recovery()

    def _enter_recovery(self):
        self.recovering, self.recover, self.urgent = True, self.nxt, True
        self.ssthresh = self.cwnd = max(sum(s.size for s in self.sent) // 2, 2 * self.mss)
        self.counts["fast_retransmits"] += 1

    # Time

    def _measure(self, rtt):
        if self.srtt is None:
            self.srtt, self.rttvar = rtt, rtt // 2
        else:
            self.rttvar = (3 * self.rttvar + abs(self.srtt - rtt)) // 4
            self.srtt = (7 * self.srtt + rtt) // 8

    def _fresh_rto(self):
        if self.srtt is None:
            return self.settings.rto_initial
        return min(max(self.srtt + max(self.settings.ts_tick, 4 * self.rttvar), self.settings.rto_min), self.settings.rto_max)

    def timeout(self, now):
        """The timer has expired."""
        if self.deadline is None or now < self.deadline:
            return
        self.retries += 1
        self.rto = min(2 * self.rto, self.settings.rto_max)
        self.deadline = now + self.rto
        if self.retries > self.settings.retries:
            self.failed, self.deadline = True, None
            return
        if self.probing and not self.sent:
            # What the window holds, if anything; else an octet beyond it (RFC 9293 3.8.6.1)
            self.counts["probes"] += 1
            self._new(min(self._cut(), max(self.edge, self.nxt + 1)), now)
            self.probing = True
            return
        if not self.sent:
            self.deadline = None
            return
        if self.sent[0].start >= self.edge:
            self.counts["probes"] += 1               # the window has closed over what is in flight: probe with its head
            self._again(self.sent[0], now)
            return
        self.counts["timeouts"] += 1
        if self.retries == 1:
            self.ssthresh = max(sum(s.size for s in self.sent) // 2, 2 * self.mss)
        self.cwnd, self.recovering, self.dupacks, self.recover = self.mss, False, 0, self.nxt
        for one in self.sent:                        # reneging is legal: forget what was SACKed
            one.lost, one.again, one.sacked = True, False, False
        self.send(now)
