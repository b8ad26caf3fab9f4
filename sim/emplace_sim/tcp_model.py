"""TCP's receive side on bytes: what a card must do with each segment (RFC 9293 3.10.7.4, RFC 7323). No HDL in here."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .segment import Ends, Tcp, build, signed, timestamp_option

__all__ = ["Receiver", "Walk", "ack_frame", "signed"]

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
class Receiver:
    """One connection. ``walk`` is called with in-order octets; ``room`` says if one more segment may be held.

    ``counters`` counts as the card does; ``taken`` is everything that was consumed; ``acks`` has RCV.NXT for every
    ACK that a step calls for (the card may merge them).
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
    room: Callable[[], bool] = lambda: True
    slot_bytes: int = 2048
    snd_una: int = 0
    last_ack: int = 0
    parked: bool = False
    failed: bool = False
    held: dict[int, bytes] = field(default_factory=dict)
    taken: bytearray = field(default_factory=bytearray)
    acks: list[int] = field(default_factory=list)
    counters: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.snd_una, self.last_ack = self.snd_nxt, self.rcv_nxt

    def segment(self, seq: int, payload: bytes, *, ack: int, window: int = 0, tsval: int | None = None,
                options: bool = False, alive: bool = True, now: int = 0) -> None:
        """A segment whose checksums held."""
        if not alive or self.failed:
            self.counters["rx_dead"] += 1
            return
        ahead = signed(seq - self.rcv_nxt)
        time_ok = not self.timestamps or (tsval is not None and signed(tsval - self.ts_recent) >= 0)
        if not payload:
            self.counters["rx_pure_acks"] += 1
        elif (ahead == 0 and time_ok and not options and not self.held and not self.parked
              and self.rcv_wnd >= self.slot_bytes):
            self.counters["rx_fast_path"] += 1
        else:
            self.counters["rx_slow_path"] += 1

        if self.timestamps and tsval is None:
            self.counters["rx_no_timestamp"] += 1
            return
        age = ((now >> 16) - (self.ts_set >> 16)) & 0xFFFF
        if (not time_ok and age < _STALE) or (ahead + len(payload) <= 0 if payload else ahead < 0):
            self.counters["rx_duplicate"] += 1
            self.acks.append(self.rcv_nxt)
            return
        if ahead >= self.rcv_wnd and not (not payload and ahead == 0):
            self.counters["rx_beyond_window"] += 1
            self.acks.append(self.rcv_nxt)
            return

        bytes_in = payload
        if payload and ahead < 0:
            self.counters["rx_trimmed"] += 1
            bytes_in = bytes_in[-ahead:]
        start = max(ahead, 0)
        if start + len(bytes_in) > self.rcv_wnd:
            self.counters["rx_beyond_window"] += 1
            bytes_in = bytes_in[:self.rcv_wnd - start]

        before = self.rcv_nxt
        if bytes_in and start == 0 and not self.parked:
            if self._walk(bytes_in):
                self._drain()
        elif bytes_in:
            self._hold((self.rcv_nxt + start) & _MASK, bytes_in)
        if self.rcv_nxt != before:
            self.acks.append(self.rcv_nxt)

        # What the header says of the other direction, and of time
        if signed(ack - self.snd_nxt) > 0:
            self.counters["rx_bad_ack"] += 1
        elif signed(ack - self.snd_una) >= 0:
            self.snd_una = ack
            if ahead == 0:
                self.snd_wnd = window << self.snd_wscale
        if self.timestamps and signed(self.last_ack - seq) >= 0:
            assert tsval is not None
            self.ts_recent, self.ts_set = tsval, now

    def resume(self) -> None:
        """A receive WQE is there."""
        if self.failed:
            return
        self.parked = False
        before = self.rcv_nxt
        self._drain()
        if self.rcv_nxt != before:
            self.acks.append(self.rcv_nxt)

    def kill(self) -> None:
        """The stream is over."""
        self.held.clear()
        self.parked, self.failed = False, True

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
        return not rest and not result.parked

    def _keep(self, seq: int, piece: bytes) -> bool:
        if len(piece) <= len(self.held.get(seq, b"")):
            return False
        self.held[seq] = piece
        return True

    def _hold(self, seq: int, piece: bytes) -> None:
        if not self.room():
            self.counters["rx_held_dropped"] += 1
        elif self._keep(seq, piece):
            self.counters["rx_held"] += 1
        else:
            self.counters["rx_duplicate"] += 1
        if not self.parked:
            self.acks.append(self.rcv_nxt)

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
            if not self._walk(piece):
                return


def ack_frame(cmd: dict[str, int], *, rcv_nxt: int, ts_recent: int, now: int, vlan: bool, timestamps: bool) -> bytes:
    """The pure ACK of a connection that was installed by ``cmd`` (field names of INSTALL_QP)."""
    options = timestamp_option(now + cmd["ts_offset"], ts_recent) if timestamps else b""
    ends = Ends(cmd["local_mac"], cmd["remote_mac"], cmd["local_ip"], cmd["remote_ip"], cmd["local_port"],
                cmd["remote_port"], cmd["vlan_tci"] if vlan else None)
    tcp = Tcp(cmd["snd_nxt"], rcv_nxt, window=min(cmd["rcv_wnd"] >> cmd["rcv_wscale"], 0xFFFF), options=options)
    return build(ends, tcp, tos=cmd["tos"], ttl=cmd["ttl"])
