"""A wire that loses, reorders, doubles, spoils and delays frames: one direction, seeded, with a tap.

What comes out depends on the seed and on the frames and times put in, on nothing else. Times are in nanoseconds.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .inet import ones_sum
from .segment import FIN, SYN, BadSegment, Ends, Tcp, parse
from .xgmii import fcs

__all__ = ["Impairments", "Rule", "Seen", "Wire", "carry", "data_segment", "strip_fcs"]

#: Preamble, start delimiter, least gap: octets between frames.
GAP = 20
LEAST = 60                   # octets of a frame without FCS
ACTIONS = ("drop", "duplicate", "delay", "corrupt", "spoil")


@dataclass
class Impairments:
    """Probabilities for each frame, and times.

    ``corrupt``: a bit flips, and the FCS stays as it was. ``spoil``: a bit of TCP's payload flips and every checksum below
    MPA is made good again, as a broken switch might: only the MPA CRC can tell.
    """

    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    spoil: float = 0.0
    delay: int = 0               # ns
    jitter: int = 0              # ns, at most; order is kept
    late: int = 300_000          # ns that a reordered or doubled frame comes later, at most
    rate: int | None = None      # bits a second
    queue: int | None = None     # octets that may wait for the rate, then frames are dropped


@dataclass
class Seen:
    """A frame as rules see it: ``tcp`` is None for what is no good TCP segment."""

    frame: bytes
    number: int                  # on this wire, from 1
    time: int
    ends: Ends | None
    tcp: Tcp | None


def data_segment(seen: Seen) -> bool:
    """Predicate: a TCP segment with payload."""
    return seen.tcp is not None and bool(seen.tcp.payload)


@dataclass
class Rule:
    """``action`` on frames for which ``when`` holds: the ``nth`` such one (from 1) and ``count - 1`` further; once by default.

    "drop the 3rd data segment once": ``Rule("drop", data_segment, nth=3)``.
    """

    action: str
    when: Callable[[Seen], bool]
    nth: int = 1
    count: int | None = 1        # None: all from the nth on
    by: int = 1_000_000          # ns, of a delay
    matched: int = 0

    def __post_init__(self):
        if self.action not in ACTIONS:
            raise ValueError(f"{self.action!r} is none of {', '.join(ACTIONS)}")

    def applies(self, seen):
        if not self.when(seen):
            return False
        self.matched += 1
        return self.matched >= self.nth and (self.count is None or self.matched < self.nth + self.count)


@dataclass
class Wire:
    """Frames without FCS go in; padded ones with FCS come out when their time has come.

    ``tap(time, frame, comment)`` gets each frame as it was put in, ``comment`` saying what becomes of it.
    ``counts``: frames sent, delivered, and by what was done to them.
    """

    impairments: Impairments = field(default_factory=Impairments)
    rules: list[Rule] = field(default_factory=list)
    seed: int = 0
    tap: Callable[[int, bytes, str | None], None] | None = None
    counts: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self._random = random.Random(f"wire {self.seed}")
        self._due: list[tuple[int, int, bytes]] = []
        self._number = self._last = self._free = 0

    def send(self, frame: bytes, now: int) -> None:
        self._number += 1
        self.counts["sent"] += 1
        chances = self.impairments
        # Drawn for every frame, so that one more rule doesn't shift all that follows.
        draws = {name: self._random.random() < getattr(chances, name)
                 for name in ("loss", "reorder", "duplicate", "corrupt", "spoil")}
        bit, late, again, jitter = (self._random.random() for _ in range(4))
        actions = self._scripted(frame, now)
        what, data = [], frame.ljust(LEAST, b"\0")
        at = self._line(len(data), now)
        if draws["loss"] or "drop" in actions or at is None:
            what.append("lost" if draws["loss"] else "dropped" if "drop" in actions else "overrun")
            at = None
        else:
            at += chances.delay + round(jitter * chances.jitter)
            data = self._damage(data, draws, actions, bit, what)
            if draws["reorder"] or "delay" in actions:
                at += (actions["delay"].by if "delay" in actions else 0) + draws["reorder"] * round(late * chances.late)
                what.append("reordered" if draws["reorder"] else "delayed")
            else:
                at = self._last = max(at, self._last)
            self._deliver(at, data)
            if draws["duplicate"] or "duplicate" in actions:
                what.append("duplicated")
                self._deliver(at + round(again * chances.late), data)
        self.counts.update(what)
        if self.tap:
            self.tap(now, frame, ", ".join(what) or None)

    def _scripted(self, frame, now):
        if not self.rules:
            return {}
        try:
            ends, tcp = parse(frame)
        except BadSegment:
            ends = tcp = None
        seen = Seen(frame, self._number, now, ends, tcp)
        return {rule.action: rule for rule in self.rules if rule.applies(seen)}

    def _line(self, octets, now):
        """When the frame's last octet is out; None if the queue in front of the line is full."""
        if self.impairments.rate is None:
            return now
        start = max(now, self._free)
        waiting = (start - now) * self.impairments.rate // 8_000_000_000
        if self.impairments.queue is not None and waiting > self.impairments.queue:
            return None
        self._free = start + -(-(octets + 4 + GAP) * 8_000_000_000 // self.impairments.rate)
        return self._free

    def _damage(self, data, draws, actions, bit, what):
        """``data`` with its FCS."""
        if draws["spoil"] or "spoil" in actions:
            spoiled = _spoil(data, bit)
            if spoiled is not None:
                what.append("spoiled")
                data = spoiled
        check = fcs(data)
        if draws["corrupt"] or "corrupt" in actions:
            what.append("corrupted")
            data = _flip(data, 0, len(data), bit)
        return data + check

    def _deliver(self, at, frame):
        self.counts["scheduled"] += 1
        heapq.heappush(self._due, (at, self.counts["scheduled"], frame))

    def poll(self, now: int) -> list[bytes]:
        """Frames that have arrived by ``now``, with FCS."""
        frames = []
        while self._due and self._due[0][0] <= now:
            frames.append(heapq.heappop(self._due)[2])
        self.counts["delivered"] += len(frames)
        return frames

    @property
    def next_deadline(self) -> int | None:
        return self._due[0][0] if self._due else None


def _flip(data, start, end, where):
    n = min(int(where * 8 * (end - start)), 8 * (end - start) - 1)
    spoiled = bytearray(data)
    spoiled[start + n // 8] ^= 1 << n % 8
    return bytes(spoiled)


def _spoil(frame, where):
    """``frame`` with a bit of TCP's payload flipped and TCP's checksum right again; None if it has no payload."""
    try:
        ends, tcp = parse(frame)
    except BadSegment:
        return None
    if not tcp.payload or tcp.flags & (SYN | FIN):
        return None
    ip = 14 if ends.vlan is None else 18
    first = ip + 40 + len(tcp.options)
    spoiled = _flip(frame, first, first + len(tcp.payload), where)
    before, after = (ones_sum(octets[ip + 20:first + len(tcp.payload)]) for octets in (frame, spoiled))
    old = int.from_bytes(frame[ip + 36:ip + 38], "big")
    new = ones_sum((old ^ 0xFFFF).to_bytes(2, "big") + after.to_bytes(2, "big") + (before ^ 0xFFFF).to_bytes(2, "big")) ^ 0xFFFF
    return spoiled[:ip + 36] + new.to_bytes(2, "big") + spoiled[ip + 38:]


def strip_fcs(frame: bytes) -> bytes | None:
    """``frame`` without its FCS; None if that is wrong."""
    return frame[:-4] if fcs(frame[:-4]) == frame[-4:] else None


def carry(peers, wires, until, *, now=0, limit=60_000_000_000, check_fcs=True, tick=None):
    """Let two peers talk over two wires (``wires[n]`` takes what ``peers[n]`` sends) until ``until()`` holds; the time then.

    TimeoutError after ``limit`` nanoseconds, or if nothing is to come any more. ``tick(now)`` is called at each step.
    """
    end = now + limit
    while True:
        if tick:
            tick(now)
        for peer, wire in zip(peers, wires, strict=True):
            for frame in peer.poll(now):
                wire.send(frame, now)
        arrived = False
        for peer, wire in zip(reversed(peers), wires, strict=True):
            for frame in wire.poll(now):
                arrived = True
                whole = strip_fcs(frame) if check_fcs else frame[:-4]
                if whole is not None:
                    peer.receive(whole, now)
        if until():
            return now
        if arrived:
            continue
        due = [at for each in (*peers, *wires) if (at := each.next_deadline) is not None]
        if not due or min(due) > end:
            raise TimeoutError("nothing is to come any more" if not due else f"not done at {end} ns")
        now = max(now + 1, min(due))
