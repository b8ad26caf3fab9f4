"""TCP's receive side on bytes: what a card must do with each segment. No HDL in here.

Ref: RFC 9293 3.10.7.4, RFC 7323, RFC 5961, RFC 5681 4.2, RFC 2018, RFC 2883, RFC 3168 6.1.3, RFC 8257 3.2.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .segment import ACK, ECE, Ends, Tcp, build, signed, timestamp_option

__all__ = ["Ack", "Receiver", "Walk", "ack_frame", "signed"]

_MASK = 0xFFFFFFFF
#: Age in units of 2**16 ticks from which TS.Recent means nothing.
_STALE = 24 * 86_400_000 // 65536 + 1


@dataclass
class Walk:
    """What the LLP answers."""

    consumed: int
    kept: bool = False
    parked: bool = False
    failed: bool = False


@dataclass
class Ack:
    """What one ACK says. ``blocks``: the SACK option's, in order, a D-SACK first."""

    rcv_nxt: int
    ts_recent: int
    ece: bool
    blocks: tuple[tuple[int, int], ...]


@dataclass
class Receiver:
    """One connection. ``walk`` is called with in-order octets; ``room`` says if one more segment may be held.

    ``counters`` counts as the card does; ``taken`` is everything that was consumed; ``acks`` are those that are sent
    at once (``timer`` gives the late one); ``ended`` says how the peer has ended the stream.
    """

    rcv_nxt: int
    rcv_wnd: int
    walk: Callable[[bytes], Walk]
    snd_nxt: int = 0
    snd_wnd: int = 0
    snd_wscale: int = 0
    timestamps: bool = False
    ts_recent: int = 0
    ts_set: int = 0
    sack: bool = False
    ecn: bool = False
    dctcp: bool = False
    delayed: bool = False
    room: Callable[[], bool] = lambda: True
    slot_bytes: int = 2048
    parked: bool = False
    failed: bool = False
    closed: bool = False
    ended: str = ""
    fin_at: int | None = None
    ce: bool = False
    ece: bool = False
    tokens: int = 10
    held: dict[int, bytes] = field(default_factory=dict)
    blocks: list[tuple[int, int]] = field(default_factory=list)
    taken: bytearray = field(default_factory=bytearray)
    acks: list[Ack] = field(default_factory=list)
    counters: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.snd_una, self.last_ack, self.max_snd_wnd = self.snd_nxt, self.rcv_nxt, self.snd_wnd
        self.wl1, self.token_time = (self.rcv_nxt - 1) & _MASK, self.ts_set >> 9
        self._due, self._dsack = False, None

    # What comes

    def segment(self, seq: int, payload: bytes, *, ack: int, window: int = 0, tsval: int | None = None,
                options: bool = False, alive: bool = True, now: int = 0, syn: bool = False, fin: bool = False,
                rst: bool = False, urg: bool = False, psh: bool = False, marked: bool = False, cwr: bool = False) -> None:
        """A segment whose checksums held; ``marked``: with CE."""
        if not alive or self.failed:
            self.counters["rx_dead"] += 1
            return
        self._due, self._dsack = False, None
        ahead = signed(seq - self.rcv_nxt)
        unacked = signed(self.last_ack - seq) < 0
        remarked = self.ecn and bool(payload) and marked != self.ce
        if self.dctcp and remarked and ahead == 0 and unacked:
            self._ack()                          # of what came before
        self._count_path(ahead, payload, ack, tsval, options, syn or fin or rst)
        self.counters["rx_urgent"] += urg
        if self._unacceptable(seq, ahead, payload, ack, tsval, now, syn, fin, rst):
            self._finish()
            return

        fin_seq = (seq + len(payload)) & _MASK if fin else None
        if ahead < 0 and (payload or fin):
            self.counters["rx_trimmed"] += 1
            self._due, self._dsack = True, (seq, self.rcv_nxt)
            payload = payload[-ahead:]
        start = max(ahead, 0)
        if (payload or fin) and start + len(payload) + fin > self.rcv_wnd:
            self.counters["rx_beyond_window"] += 1
            self._due = True
            payload, fin_seq = payload[:self.rcv_wnd - start], None

        before = self.rcv_nxt
        if not payload:
            self._header(seq, payload, ack, window, tsval, now, marked, cwr, fin_seq)
        elif start == 0 and not self.parked:
            gap = bool(self.held)
            free = self._walk(payload)
            moved = self.rcv_nxt != before
            self._header(seq, payload, ack, window, tsval, now, marked, cwr, fin_seq)
            if moved and (unacked or psh or gap or remarked or not self.delayed
                          or (self.rcv_nxt - before) & _MASK != len(payload)):
                self._due = True
            if free:
                self._drain()
        else:
            self._hold((self.rcv_nxt + start) & _MASK, payload)
            self._header(seq, payload, ack, window, tsval, now, marked, cwr, fin_seq)
        self._settle(before, fin_seq is not None)
        self._finish()

    def resume(self) -> None:
        """A receive WQE is there."""
        if self.failed:
            return
        self._due, self._dsack, self.parked = False, None, False
        before = self.rcv_nxt
        self._drain()
        self._due |= self.rcv_nxt != before
        self._settle(before, False)
        self._finish()

    def timer(self) -> None:
        """The delay of an ACK is over."""
        if self.rcv_nxt != self.last_ack:
            self._ack()

    def kill(self) -> None:
        """The stream is over."""
        self.held.clear()
        self.parked, self.failed = False, True

    # What becomes of it

    def _count_path(self, ahead, payload, ack, tsval, options, odd):
        plain = (not odd and not options and not self.held and not self.parked and not self.closed and self.fin_at is None
                 and self.rcv_wnd >= self.slot_bytes)
        in_time = not self.timestamps or (tsval is not None and signed(tsval - self.ts_recent) >= 0)
        acks = signed(ack - self.snd_una) >= 0 and signed(self.snd_nxt - ack) >= 0
        if not payload:
            self.counters["rx_pure_acks"] += 1
        elif plain and ahead == 0 and in_time and acks:
            self.counters["rx_fast_path"] += 1
        else:
            self.counters["rx_slow_path"] += 1

    def _unacceptable(self, seq, ahead, payload, ack, tsval, now, syn, fin, rst):
        """Drop and answer what must not be taken: True if that was it."""
        octets = len(payload) + fin
        inside = 0 < ahead < self.rcv_wnd
        if rst:
            name = "rx_rst" if ahead == 0 else "rx_rst_challenged" if inside else "rx_rst_outside"
            if ahead == 0:
                self.failed, self.ended = True, "RESET"
            elif inside:
                self._challenge(now)
        elif syn:
            name = "rx_syn"
            self._challenge(now)
        elif self.timestamps and tsval is None:
            name = "rx_no_timestamp"
        else:
            age = ((now >> 16) - (self.ts_set >> 16)) & 0xFFFF
            if self.timestamps and signed(tsval - self.ts_recent) < 0 and age < _STALE:
                name = "rx_paws"
            elif ahead + octets <= 0 if octets else ahead < 0:
                name = "rx_duplicate"
                if payload:
                    self._dsack = (seq, (seq + len(payload)) & _MASK)
            elif ahead >= self.rcv_wnd and ahead != 0:
                name = "rx_beyond_window"
            elif signed(ack - self.snd_nxt) > 0:
                name = "rx_bad_ack"
            elif signed(ack - self.snd_una) < -self.max_snd_wnd:
                name = "rx_old_ack"
            elif self.closed and octets:
                name = "rx_after_fin"
            else:
                return False
            if name in ("rx_bad_ack", "rx_old_ack") or (name != "rx_after_fin" and not octets):
                self._challenge(now)
            elif name != "rx_after_fin":
                self._due = True
        self.counters[name] += 1
        return True

    def _challenge(self, now):
        """RFC 5961 7: ten, and one more every 512 ticks."""
        self.counters["tx_challenges"] += 1
        self.tokens = min(10, self.tokens + ((now >> 9) - self.token_time & 0xFF))
        self.token_time = now >> 9
        if self.tokens:
            self.tokens -= 1
            self._due = True
        else:
            self.counters["tx_throttled"] += 1

    def _header(self, seq, payload, ack, window, tsval, now, marked, cwr, fin_seq):
        """What an acceptable segment says of the other direction, of time, congestion and the stream's end."""
        if signed(ack - self.snd_una) >= 0:
            self.snd_una = ack
            if signed(seq - self.wl1) >= 0:
                self.snd_wnd, self.wl1 = window << self.snd_wscale, seq
                self.max_snd_wnd = max(self.max_snd_wnd, self.snd_wnd)
        if self.timestamps and signed(self.last_ack - seq) >= 0:
            self.ts_recent, self.ts_set = tsval, now
        if self.ecn and payload:
            self.counters["rx_ce"] += marked
            self.ece = marked if self.dctcp else marked or (self.ece and not cwr)
            self.ce = marked
        if fin_seq is not None:
            self.fin_at = fin_seq

    def _walk(self, bytes_in: bytes) -> bool:
        """True if what is held may be looked at next."""
        result = self.walk(bytes_in)
        self.taken += bytes_in[:result.consumed]
        self.rcv_nxt = (self.rcv_nxt + result.consumed) & _MASK
        rest = bytes_in[result.consumed:]
        self.parked |= result.parked
        self.failed |= result.failed
        if result.failed:
            return False
        if rest and result.parked and not result.kept:
            self._keep(self.rcv_nxt, rest)
        elif rest:
            self.counters["rx_refused"] += 1
            self.blocks.clear()
        return not rest and not result.parked

    def _keep(self, seq: int, piece: bytes) -> bool:
        if len(piece) <= len(self.held.get(seq, b"")):
            return False
        self.held[seq] = piece
        return True

    def _hold(self, seq: int, piece: bytes) -> None:
        self._due = not self.parked
        span = (seq, (seq + len(piece)) & _MASK)
        if not self.room():
            self.counters["rx_held_dropped"] += 1
        elif self._keep(seq, piece):
            self.counters["rx_held"] += 1
            if self.sack:
                self._add_block(*span)
        else:
            self.counters["rx_duplicate"] += 1
            self._dsack = span

    def _add_block(self, left, right):
        """RFC 2018 4: the block of the latest segment first, then those that were reported last."""
        kept = []
        for other in self.blocks:
            if signed(other[0] - right) <= 0 and signed(left - other[1]) <= 0:
                left = other[0] if signed(other[0] - left) < 0 else left
                right = other[1] if signed(other[1] - right) > 0 else right
            else:
                kept.append(other)
        self.blocks = [(left, right), *kept][:4]

    def _drain(self) -> None:
        while self.held and not self.parked and not self.failed:
            seq = min(self.held, key=lambda s: signed(s - self.rcv_nxt))
            distance = signed(seq - self.rcv_nxt)
            if distance > 0:
                return
            piece = self.held.pop(seq)[-distance:] if distance else self.held.pop(seq)
            if not piece:
                self.counters["rx_duplicate"] += 1
                continue
            self.counters["rx_released"] += 1
            before = self.rcv_nxt
            free = self._walk(piece)
            self._due |= self.rcv_nxt != before
            if not free:
                return

    def _settle(self, before, fin_new):
        """Blocks below RCV.NXT go; a FIN that is in order counts."""
        if self.failed:
            return
        if self.rcv_nxt != before:
            self.blocks = [(left if signed(left - self.rcv_nxt) >= 0 else self.rcv_nxt, right)
                           for left, right in self.blocks if signed(right - self.rcv_nxt) > 0]
        if self.fin_at == self.rcv_nxt and not self.parked:
            self.rcv_nxt, self.closed, self.fin_at, self.ended = (self.rcv_nxt + 1) & _MASK, True, None, "FIN"
            self.counters["rx_fin"] += 1
            self._due = True
        elif fin_new:
            self.counters["rx_fin_early"] += 1

    def _finish(self):
        if self._due:
            self._ack()

    def _ack(self):
        for left, right in self.blocks:          # nothing is said that isn't so
            at = left
            while signed(right - at) > 0:
                at = next((s + len(p) & _MASK for s, p in self.held.items()
                           if signed(at - s) >= 0 and signed(s + len(p) - at) > 0), None)
                assert at is not None, "a SACK block with octets that are not held"
        blocks = [self._dsack] if self._dsack and self.sack else []
        blocks += self.blocks
        self.acks.append(Ack(self.rcv_nxt, self.ts_recent, self.ece, tuple(blocks[:3 if self.timestamps else 4])))
        self.last_ack = self.rcv_nxt


def ack_frame(cmd: dict[str, int], *, rcv_nxt: int, ts_recent: int, now: int, vlan: bool, timestamps: bool,
              ece: bool = False, blocks: Iterable[tuple[int, int]] = ()) -> bytes:
    """The pure ACK of a connection that was installed by ``cmd`` (field names of INSTALL_QP)."""
    options = timestamp_option(now + cmd["ts_offset"], ts_recent) if timestamps else b""
    if blocks := tuple(blocks):
        options += bytes([1, 1, 5, 2 + 8 * len(blocks)]) + b"".join(struct.pack(">II", *block) for block in blocks)
    ends = Ends(cmd["local_mac"], cmd["remote_mac"], cmd["local_ip"], cmd["remote_ip"], cmd["local_port"],
                cmd["remote_port"], cmd["vlan_tci"] if vlan else None)
    window = min(cmd["rcv_wnd"] >> cmd["rcv_wscale"], 0xFFFF)
    tcp = Tcp(cmd["snd_nxt"], rcv_nxt, ACK | ECE * ece, window=window, options=options)
    return build(ends, tcp, tos=cmd["tos"], ttl=cmd["ttl"])
