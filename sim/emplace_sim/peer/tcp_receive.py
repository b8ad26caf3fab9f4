"""TCP's receiving half: what is in order, what waits for a hole, when an ACK is due.

Ref: RFC 9293 3.10.7.4, RFC 7323 (timestamps, PAWS), RFC 2018 (SACK), RFC 5961 (blind attacks), RFC 3168 (ECN).
"""

from collections import Counter

from ..segment import CWR, FIN, Tcp, signed
from .tcp_send import MS, TcpSettings

__all__ = ["ReceiveHalf"]

_DAY = 86_400_000 * MS


class ReceiveHalf:
    """Owns RCV.*, as positions that never wrap (0 is the SYN's). In-order octets gather in ``stream``."""

    def __init__(self, settings: TcpSettings):
        self.settings = settings
        self.nxt = 1
        self.wnd = settings.rcv_wnd                  # as much as is advertised; set it to close or open the window
        self.edge = 1 + self.wnd                     # right end of what has been advertised
        self.stream = bytearray()
        self.held: dict[int, bytes] = {}
        self.recent: list[int] = []                  # starts of held runs, the latest first
        self.ts_recent, self.ts_time, self.last_ack = 0, None, 1
        self.ack_now, self.ack_deadline, self.unacked = False, None, 0
        self.ece = False
        self.fin_at, self.fin = None, False          # FIN's position; whether all before it is in order
        self.counts = Counter()

    # Window

    def field(self):
        """The header's window field; the right edge never comes back."""
        edge = max(self.edge, self.nxt + self.wnd)
        size = edge - self.nxt
        shift = self.settings.rcv_wscale
        up = self.nxt + self.wnd < edge              # rounding must not take back what was promised
        return min((size + ((1 << shift) - 1 if up else 0)) >> shift, 0xFFFF)

    def advertised(self, field):
        """What an ACK that is leaving says."""
        self.edge = max(self.edge, self.nxt + (field << self.settings.rcv_wscale))
        self.last_ack = self.nxt
        self.ack_now, self.ack_deadline, self.unacked = False, None, 0

    def shrink(self, wnd):
        """Take the window back, as RFC 9293 3.8.6 asks nobody to do."""
        self.wnd, self.edge = wnd, self.nxt + wnd
        self.ack_now = True

    def renege(self):
        """Drop what was SACKed."""
        self.counts["reneged"] += len(self.held)
        self.held.clear()
        self.recent.clear()

    def sack_blocks(self, most):
        """(left, right) of held runs, the one that grew last first."""
        runs = []
        for start in sorted(self.held):
            end = start + len(self.held[start])
            if runs and start <= runs[-1][1]:
                runs[-1][1] = max(runs[-1][1], end)
            else:
                runs.append([start, end])
        runs.sort(key=lambda run: next((n for n, at in enumerate(self.recent) if run[0] <= at < run[1]), len(self.recent)))
        return runs[:most]

    # Segments

    def acceptable(self, at, tcp: Tcp, now):
        """Of a segment at position ``at``: None, or the name of what is wrong with it; all but "no_timestamp" call for
        an ACK."""
        length = tcp.length
        if self.settings.timestamps:
            if tcp.timestamps is None:
                return "no_timestamp"
            old = signed(tcp.timestamps[0] - self.ts_recent) < 0
            if old and self.ts_time is not None and now - self.ts_time < 24 * _DAY:
                return "paws"
        window = max(self.edge - self.nxt, 0)
        if at + length <= self.nxt and (length or at < self.nxt):
            return "duplicate"
        if at >= self.nxt + window and not (at == self.nxt and not length):
            return "beyond_window" if length else "outside"
        return None

    def timestamp(self, at, tcp: Tcp, now):
        """TS.Recent (RFC 7323 4.3)."""
        if tcp.timestamps and at <= self.last_ack and signed(tcp.timestamps[0] - self.ts_recent) >= 0:
            self.ts_recent, self.ts_time = tcp.timestamps[0], now

    def data(self, at, tcp: Tcp, now):
        """Payload and FIN of an acceptable segment."""
        if self.settings.ecn:
            if tcp.flags & CWR:
                self.ece = False
            if tcp.ecn == 3:
                self.ece = self.ack_now = True
                self.counts["ce"] += 1
        payload = tcp.payload
        if tcp.flags & FIN:
            self.fin_at = at + len(payload)
        if at < self.nxt:
            payload, at = payload[self.nxt - at:], self.nxt
        if at + len(payload) > self.edge:
            payload = payload[:self.edge - at]
            self.counts["trimmed"] += 1
            self.ack_now = True
        if payload and at > self.nxt:
            self._hold(at, payload)
        elif payload:
            gap = bool(self.held)
            self._take(payload)
            self._drain()
            self.unacked += 1
            if gap or self.unacked >= 2:
                self.ack_now = True
            elif self.ack_deadline is None:
                self.ack_deadline = now + self.settings.delayed_ack
        if self.fin_at == self.nxt and not self.fin:
            self.fin, self.ack_now = True, True
            self.nxt += 1
        elif self.fin_at is not None and not self.fin:
            self.ack_now = True

    def _take(self, octets):
        self.stream += octets
        self.nxt += len(octets)

    def _hold(self, at, payload):
        self.ack_now = True
        self.counts["out_of_order"] += 1
        if len(payload) > len(self.held.get(at, b"")):
            self.held[at] = payload
        self.recent = [at, *(n for n in self.recent if n != at)][:64]

    def _drain(self):
        for at in sorted(self.held):
            if at > self.nxt:
                break
            rest = self.held.pop(at)[self.nxt - at:]         # the first copy wins
            self._take(rest)
        self.recent = [at for at in self.recent if at in self.held]
