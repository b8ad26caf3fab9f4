"""A TCP endpoint: handshake, ESTABLISHED, closing. Frames in, frames out; time comes with each call.

Ref: RFC 9293 3.10.7, RFC 5961 3-5, RFC 7323. TIME-WAIT is kept until the owner forgets the connection.
"""

import enum
from collections import Counter

from ..segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, Ends, Tcp, build, signed, timestamp_option
from .faults import Faults
from .tcp_receive import ReceiveHalf
from .tcp_send import SendHalf, TcpSettings

__all__ = ["TcpEndpoint", "TcpState"]

_MASK = 0xFFFFFFFF


class TcpState(enum.Enum):
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    CLOSED = "CLOSED"                    # reset, or given up


class TcpEndpoint:
    """One connection. ``iss``, ``irs``: sequence numbers of the two SYNs, position 0 of each stream.

    FIN states are not named: ``tx.fin_sent``, ``tx.una`` and ``rx.fin`` tell them. ``closed_by``: "reset", "timeout".
    """

    def __init__(self, ends: Ends, settings: TcpSettings, *, iss, irs=0, state=TcpState.ESTABLISHED, snd_wnd=65535, seed=0,
                 faults=None):
        self.ends, self.settings, self.state = ends, settings, state
        self.iss, self.irs = iss & _MASK, irs & _MASK
        self.faults = faults or Faults()
        self.tx = SendHalf(settings, self._emit, seed=seed)
        self.rx = ReceiveHalf(settings)
        self.tx.edge = 1 + snd_wnd
        self.max_wnd = snd_wnd
        self.wl1 = self.wl2 = 0
        self.out: list[bytes] = []
        self.now, self.identification = 0, 0
        self.syn_deadline, self.syn_tries = None, 0
        self.closed_by = None
        self.counts = Counter()

    # Handshake

    def open(self, now):
        """Send SYN (active) or SYN-ACK (passive, once its SYN has been seen)."""
        self.now = now
        passive = self.state is TcpState.SYN_RECEIVED
        flags = SYN | (ACK | ECE * self.settings.ecn if passive else (ECE | CWR) * self.settings.ecn)
        options = (2).to_bytes(1, "big") + b"\x04" + min(self.settings.mss, 1460).to_bytes(2, "big")
        if self.settings.sack:
            options += b"\x04\x02"
        if self.settings.timestamps:
            options += timestamp_option(self._clock(), self.rx.ts_recent)[2:] + (b"" if self.settings.sack else b"\1\1")
        options += b"\x01\x03\x03" + bytes([self.settings.rcv_wscale])
        self._put(Tcp(self.iss, self.irs + 1 if passive else 0, flags, min(self.rx.wnd, 0xFFFF),
                      options + b"\x01" * (-len(options) % 4)))
        self.syn_deadline = now + (self.settings.rto_initial << self.syn_tries)
        self.syn_tries += 1

    def syn(self, tcp: Tcp):
        """Take over what the other side's SYN offers."""
        self.irs = tcp.seq
        settings = self.settings
        settings.timestamps = settings.timestamps and tcp.timestamps is not None
        settings.sack = settings.sack and tcp.sack_permitted
        settings.ecn = settings.ecn and bool(tcp.flags & ECE)
        settings.mss = min(settings.mss, tcp.mss or 536)
        if tcp.wscale is None:
            settings.snd_wscale = settings.rcv_wscale = 0
        else:
            settings.snd_wscale = tcp.wscale
        self.tx.set_mss(settings.mss)
        self.tx.cwnd = settings.initial_window * self.tx.mss
        self.tx.edge = self.tx.una + tcp.window
        self.max_wnd = tcp.window
        if tcp.timestamps:
            self.rx.ts_recent, self.rx.ts_time = tcp.timestamps[0], self.now

    # In

    def receive(self, tcp: Tcp, now):
        """A segment of this connection whose checksums held."""
        self.now = now
        if self.state is TcpState.CLOSED:
            return
        if self.state is TcpState.SYN_SENT:
            self._syn_sent(tcp)
            return
        at = self.rx.nxt + signed(tcp.seq - self.irs - self.rx.nxt)
        ack = self.tx.una + signed(tcp.ack - self.iss - self.tx.una)
        if self.state is TcpState.SYN_RECEIVED:
            if tcp.flags & SYN and tcp.seq == self.irs and not tcp.flags & RST:
                self.open(now)
                return
            if not tcp.flags & RST and (not tcp.flags & ACK or ack != 1):
                return
            self.state, self.syn_deadline = TcpState.ESTABLISHED, None
            self.tx.edge = 1 + (tcp.window << self.settings.snd_wscale)
        if tcp.flags & RST:
            self._reset(at)
            return
        if tcp.flags & SYN:
            self._challenge("syn")
            return
        why = self.rx.acceptable(at, tcp, now)
        if why:
            self.counts["rx_" + why] += 1
            self.rx.ack_now |= why != "no_timestamp"
            # With the window closed an ACK of unacceptable data still counts; of a whole duplicate it doesn't.
            if why != "beyond_window" or not tcp.flags & ACK:
                return
            self._acknowledge(at, ack, Tcp(tcp.seq, tcp.ack, tcp.flags & ~FIN, tcp.window))
            return
        if not tcp.flags & ACK:
            return
        if not self._acknowledge(at, ack, tcp):
            return
        self.rx.timestamp(at, tcp, now)
        self.rx.data(at, tcp, now)

    def _syn_sent(self, tcp):
        if tcp.flags & RST and tcp.ack == self.iss + 1 & _MASK:
            self._close("reset")
        elif tcp.flags & (SYN | ACK) == SYN | ACK and tcp.ack == self.iss + 1 & _MASK:
            self.syn(tcp)
            self.state, self.syn_deadline = TcpState.ESTABLISHED, None
            self.rx.ack_now = True

    def _reset(self, at):
        if at == self.rx.nxt:
            self._close("reset")
        elif self.rx.nxt < at < self.rx.edge:
            self._challenge("rst")

    def _challenge(self, why):
        self.counts["challenge_" + why] += 1
        self.rx.ack_now = True

    def _close(self, why):
        self.state, self.closed_by = TcpState.CLOSED, why

    def _acknowledge(self, at, ack, tcp):
        """RFC 9293's and RFC 5961 5.2's checks, then what the ACK says; False: drop the segment."""
        tx = self.tx
        if ack > tx.nxt or ack < tx.una - self.max_wnd:
            self._challenge("ack")
            return False
        window = tcp.window << self.settings.snd_wscale
        self.max_wnd = max(self.max_wnd, window)
        edge = None
        if ack >= tx.una and (self.wl1 < at or (self.wl1 == at and self.wl2 <= ack)):
            edge, self.wl1, self.wl2 = ack + window, at, ack
        duplicate = ack == tx.una and not tcp.length and edge in (None, tx.edge)
        rtt = None
        if tcp.timestamps and tcp.timestamps[1] and ack > tx.una:
            rtt = max(signed(self._clock() - tcp.timestamps[1]), 0) * self.settings.ts_tick
        sack = [(tx.una + signed(left - self.iss - tx.una), tx.una + signed(right - self.iss - tx.una))
                for left, right in tcp.sack]
        tx.acknowledge(ack, edge, self.now, duplicate=duplicate, sack=sack, rtt=rtt,
                       ece=bool(tcp.flags & ECE) and self.settings.ecn)
        return True

    # Out

    def poll(self, now):
        """Timers, then what may be sent; the frames."""
        self.now = now
        if self.state in (TcpState.SYN_SENT, TcpState.SYN_RECEIVED):
            if self.syn_deadline is not None and now >= self.syn_deadline:
                if self.syn_tries > 6:
                    self._close("timeout")
                else:
                    self.open(now)
        elif self.state is TcpState.ESTABLISHED:
            self.tx.timeout(now)
            self.tx.send(now)
            if self.tx.failed:
                self._close("timeout")
            rx = self.rx
            if rx.ack_deadline is not None and now >= rx.ack_deadline:
                rx.ack_now = True
            if rx.ack_now and self.state is TcpState.ESTABLISHED:
                self._segment(self.tx.nxt, self.tx.nxt, ACK)
        frames, self.out = self.out, []
        return frames

    @property
    def next_deadline(self):
        if self.state is TcpState.CLOSED:
            return None
        if self.state is not TcpState.ESTABLISHED:
            return self.syn_deadline
        due = [t for t in (self.tx.deadline, self.rx.ack_deadline) if t is not None]
        return min(due) if due else None

    @property
    def done(self):
        """Both FINs are acknowledged, or the connection is gone."""
        return self.state is TcpState.CLOSED or (self.rx.fin and self.tx.fin_sent and self.tx.una == self.tx.nxt)

    def close(self):
        """FIN behind what is queued."""
        self.tx.fin_wanted = True

    def abort(self, now):
        """RST."""
        self.now = now
        if self.state is not TcpState.CLOSED:
            self._segment(self.tx.nxt, self.tx.nxt, RST | ACK)
            self._close("abort")

    def _clock(self):
        return self.now // self.settings.ts_tick + self.settings.ts_offset & _MASK

    def _emit(self, start, end, *, fin, new):
        flags = ACK | (FIN if fin else 0) | (PSH if end > start and end == self.tx.end else 0)
        if new and end > start and self.tx.cwr_pending:
            flags, self.tx.cwr_pending = flags | CWR, False
        self._segment(start, end, flags, ecn=2 if new and end > start and self.settings.ecn else 0)

    def _segment(self, start, end, flags, ecn=0):
        rx, faults = self.rx, self.faults
        if faults.no_ack and start == end and not flags & (FIN | RST):
            rx.ack_now, rx.ack_deadline = False, None
            return
        acked = rx.nxt if faults.ack_at_most is None else min(rx.nxt, faults.ack_at_most)
        if faults.ack_ahead:
            acked, faults.ack_ahead = acked + faults.ack_ahead, 0
        options = timestamp_option(self._clock(), rx.ts_recent) if self.settings.timestamps else b""
        payload = self.tx.octets(start, end)
        room = min(40 - len(options), self.tx.mss - len(payload)) if payload else 40 - len(options)
        blocks = rx.sack_blocks(min(3 if options else 4, (room - 4) // 8)) if self.settings.sack and room >= 12 else []
        if blocks:
            options += bytes([1, 1, 5, 2 + 8 * len(blocks)])
            for edges in blocks:
                options += b"".join((self.irs + at & _MASK).to_bytes(4, "big") for at in edges)
        field = rx.field()
        if rx.ece and not flags & RST:
            flags |= ECE
        self._put(Tcp(self.iss + start & _MASK, self.irs + acked & _MASK, flags, field, options, payload, ecn))
        rx.advertised(field)

    def _put(self, tcp):
        if self.faults.segment:
            tcp = self.faults.segment(tcp)
            if tcp is None:
                return
        self.identification += 1
        self.counts["segments_sent"] += 1
        self.out.append(build(self.ends, tcp, identification=self.identification))
