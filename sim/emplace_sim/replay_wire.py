"""The peer's segments for a replay: as captured, or cut anew."""

import random
from dataclasses import dataclass, replace
from itertools import pairwise

from .capture import ACK, FIN, PSH, RST, SYN, Frame, Side, relative
from .segment import Ends, Tcp, build, timestamp_option
from .xgmii import finish

__all__ = ["Feed", "Sender", "captured_feed", "recut_feed", "MTU"]

MTU = 1500
REORDER = 8                  # a re-cut segment comes at most this many segments late


@dataclass
class Feed:
    """A frame for the card. ``end`` is the offset in the peer's stream behind its payload.

    ``closing``: FIN or RST, or what follows them; ``number`` is the captured frame's, 0 for others.
    """

    connection: int
    frame: bytes
    start: int
    end: int
    closing: bool
    number: int
    note: str = ""

    @property
    def has_data(self):
        return self.end > self.start


@dataclass
class _Look:
    """What a segment of the peer looked like at some point of its stream."""

    ack: int
    window: int
    tsval: int
    tsecr: int


class Sender:
    """Builds segments that look like the peer's own: its headers, options, and what it acknowledged when
    it sent these bytes."""

    def __init__(self, side: Side, connection: int):
        self.side, self.connection = side, connection
        self.template = next(f for f in reversed(side.frames) if f.flags & (SYN | FIN | RST | ACK) == ACK)
        self.timestamps = side.timestamps and "Timestamp" in self.template.options
        self.identification = 0
        self.limit = MTU - 40 - (12 if self.timestamps else 0)
        # offset in the stream -> look, of the first copy of each byte
        self.looks, reached = [], 0
        for frame in side.frames:
            end = relative(frame.end, side.start)
            if frame.payload and end > reached and not frame.flags & (SYN | RST):
                self.looks.append((end, self._look(frame)))
                reached = end

    @staticmethod
    def _look(frame):
        tsval, tsecr = frame.options.get("Timestamp", (0, 0))
        return _Look(frame.ack, frame.window, tsval, tsecr)

    def look(self, end):
        """As it was when the bytes up to ``end`` were first sent."""
        return next((look for reached, look in self.looks if reached >= end), self._look(self.template))

    def segment(self, start, end, *, look=None, note=""):
        """A segment with stream bytes ``start``..``end``."""
        look = look or self.look(end)
        payload = self.side.stream[start:end]
        f = self.template
        flags = ACK | (PSH if payload and end == len(self.side.stream) else 0)
        tcp = Tcp(self.side.start + start, look.ack, flags, look.window,
                  timestamp_option(look.tsval, look.tsecr) if self.timestamps else b"", payload)
        self.identification = self.identification + 1 & 0xFFFF
        made = build(Ends(f.src_mac, f.dst_mac, f.src[0], f.dst[0], f.src[1], f.dst[1], f.vlan_tci), tcp, tos=f.tos,
                     ttl=f.ttl, identification=self.identification)
        return Feed(self.connection, finish(made), start, end, False, 0, note)


def after_mpa(side: Side) -> list[Frame]:
    """The frames of ``side`` behind the one that ended its MPA frame; that one too if it brings stream bytes."""
    first = side.mpa_frame
    return [f for f in side.frames
            if f.number > first.number or (f.number == first.number and relative(f.end, side.start) > 0)]


def captured_feed(side: Side, connection: int):
    """(position, Feed) of the peer's frames as captured, padded and with FCS.

    What comes with or behind the first FIN or RST and behind all data is ``closing``. A RST is moved there.
    """
    frames = after_mpa(side)
    last_data = max((f.number for f in frames if f.payload), default=0)
    closing, found = False, []
    for f in frames:
        closing = closing or bool(f.flags & (FIN | RST))
        start = relative(f.seq, side.start)
        end = start + len(f.payload)
        if f.payload and f.flags & FIN:
            # The data first, without FIN: what closes waits until all data has had its effect.
            found.append((f.number, replace(Sender(side, connection).segment(max(start, 0), end), number=f.number)))
            start = end
        late = closing and not (f.payload and not f.flags & (FIN | RST))
        at = max(f.number, last_data) if f.flags & RST else f.number
        found.append((at, Feed(connection, finish(f.raw), max(start, 0), max(end, 0), late and at >= last_data, f.number)))
    return found


def closes(side: Side):
    """(FIN, RST) that count when the peer's frames come behind its last data: in order, RFC 5961 3.2."""
    fin, end = False, len(side.stream)
    for f in after_mpa(side):
        if f.flags & FIN and relative(f.end, side.start) == end + 1 and not fin:
            fin = True
        elif f.flags & RST and relative(f.seq, side.start) == end + fin:
            return fin, True
    return fin, False


def _cuts(side, limit, rng):
    """Boundaries that cut the stream into 1..limit bytes; some of them tiny, some around FPDU boundaries."""
    marks = sorted({f.start for f in side.fpdus} | {f.end for f in side.fpdus})
    cuts, total = [0], len(side.stream)
    while cuts[-1] < total:
        at, kind = cuts[-1], rng.random()
        if kind < 0.5:
            size = rng.randint(1, limit)
        elif kind < 0.62:
            size = rng.randint(1, 8)
        elif kind < 0.72:
            size = limit
        else:                                # just before, at, or just behind a later boundary
            ahead = [mark for mark in marks if at < mark <= at + limit]
            size = (rng.choice(ahead) if ahead else at + limit) - at + rng.choice((-5, -4, -3, -2, -1, 0, 0, 1, 2, 3, 21))
        cuts.append(min(at + max(1, min(size, limit)), total))
    return cuts


def recut_feed(side: Side, connection: int, seed):
    """The same stream in other segments: duplicates, overlaps, some out of order; then the closing frames."""
    rng = random.Random(f"recut {seed} {connection}")
    sender = Sender(side, connection)
    cuts = _cuts(side, min(sender.limit, 1460), rng)
    feeds = []
    for start, end in pairwise(cuts):
        kind = rng.random()
        if kind < 0.08 and start:            # begins with bytes that were sent before
            early = max(start - rng.randint(1, 200), end - sender.limit, 0)
            feeds.append(sender.segment(early, end, note="overlap"))
            continue
        feeds.append(sender.segment(start, end))
        if kind < 0.14:                      # the same again
            feeds.append(sender.segment(start, end, note="duplicate"))
        elif kind < 0.18:                    # another cut of what was sent already
            early = rng.randrange(max(0, start - 1000), end)
            feeds.append(sender.segment(early, min(end, early + sender.limit), note="again"))
        elif kind < 0.22:
            feeds.append(sender.segment(end, end, note="pure ACK"))
    at = 0
    while at < len(feeds):                   # shuffle some runs
        size = rng.randint(2, REORDER)
        if rng.random() < 0.25:
            run = feeds[at:at + size]
            rng.shuffle(run)
            feeds[at:at + size] = run
        at += size
    return feeds + [feed for _, feed in captured_feed(side, connection) if feed.closing]
