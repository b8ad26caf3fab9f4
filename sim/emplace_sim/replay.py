"""What to do to replay a capture, and what must come of it. No gateware in here: golden on bytes.

:func:`make_plan` turns the connections of a capture into a :class:`Plan`: contexts to install, regions
and receive buffers to provide, frames to feed, and the outcome of each: every byte placed, every
completion, every event, the last ACK. ``replay_run`` carries it out against the simulated card.
"""

import random
from dataclasses import dataclass, field

from emplace.abi import Access, EventType, QpFlags, Reason, WcOpcode

from .capture import (
    ACK,
    READ_REQUEST,
    READ_RESPONSE,
    SEND_INV,
    SEND_SE,
    SEND_SE_INV,
    SENDS,
    SYN,
    TERMINATE,
    WRITE,
    CaptureError,
    Connection,
    Side,
    messages,
    relative,
)
from .host import CANARY
from .replay_wire import Feed, Sender, after_mpa, captured_feed, closes, recut_feed

__all__ = ["Region", "Receive", "Read", "Place", "Completion", "Event", "ConnectionPlan", "Plan", "make_plan", "Image"]

LARGEST_REGION = 64 << 20


@dataclass
class Region:
    """Memory that the peer places into: ``stag`` with ``length`` bytes from TO ``base`` on."""

    stag: int
    base: int
    length: int
    access: Access


@dataclass
class Receive:
    """A receive request: lengths of its scatter elements."""

    sizes: list[int]


@dataclass
class Read:
    """A Read Request that the card's side had sent: its sink."""

    stag: int
    to: int
    length: int


@dataclass
class Place:
    """``data`` lands at ``at`` of a region (``stag``) or of receive request ``receive``."""

    kind: str                # "write", "send", "read"
    data: bytes
    at: int                  # TO, or offset in the message
    stag: int | None = None
    receive: int | None = None


@dataclass
class Completion:
    """A CQE, fields as in abi.Cqe."""

    opcode: WcOpcode
    index: int
    byte_len: int
    solicited: int = 0
    invalidated: int | None = None


@dataclass
class Event:
    type: EventType
    data: bytes = b""        # what must be in the event's ``data``
    reason: Reason | None = None


@dataclass
class ConnectionPlan:
    """One connection: what to install, and what must happen, in order."""

    name: str
    peer: Side
    install: dict
    regions: list[Region] = field(default_factory=list)
    receives: list[Receive] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    steps: list = field(default_factory=list)      # Place, Completion, Event; in the order of the stream
    fpdus: int = 0           # that the card must accept
    fails: bool = False      # the stream ends with an error (42_*)
    fin: bool = False        # the peer closes its side behind the stream
    reset: bool = False      # the peer resets the connection behind that
    #: Read Response k may be fed once k + 1 reads are expected: stream offsets where responses begin.
    responses: list[int] = field(default_factory=list)
    #: (from the peer, frame) of the start-up in the capture, in front of everything: for the tap.
    prelude: list[tuple[bool, bytes]] = field(default_factory=list)

    @property
    def last_ack(self):
        """Acknowledgement of all of the stream, FIN included; None if the stream fails before its end."""
        return None if self.fails else self.peer.start + len(self.peer.stream) + self.fin & 0xFFFFFFFF

    @property
    def ends(self):
        """Reasons with which the peer ends the stream, in order."""
        return [reason for reason, on in ((Reason.PEER_FIN, self.fin), (Reason.PEER_RESET, self.reset)) if on]

    def placed(self, kind):
        return sum(len(step.data) for step in self.steps if isinstance(step, Place) and step.kind == kind)

    def expected(self, kind):
        return [step for step in self.steps if isinstance(step, kind)]

    def reads_needed(self, end):
        """How many reads must be expected before stream bytes up to ``end`` are fed."""
        return sum(1 for start in self.responses if start < end)

    def sender(self, number):
        return Sender(self.peer, number)


@dataclass
class Plan:
    """``feeds`` in the order in which they go to the card; ``shared_pd`` if connections name one STag."""

    name: str
    role: str
    connections: list[ConnectionPlan]
    feeds: list[Feed]
    recut: int | None = None
    shared_pd: bool = False
    stall: float = 0.0
    seed: int = 0


class Image:
    """Memory as it ought to be: canaries, then what is placed."""

    def __init__(self, connection: ConnectionPlan):
        self.regions = {region.stag: (region.base, bytearray([CANARY]) * region.length) for region in connection.regions}
        self.receives = [bytearray([CANARY]) * sum(receive.sizes) for receive in connection.receives]

    def place(self, step: Place):
        if step.receive is not None:
            self.receives[step.receive][step.at:step.at + len(step.data)] = step.data
        else:
            base, data = self.regions[step.stag]
            data[step.at - base:step.at - base + len(step.data)] = step.data


def _install(card: Side, peer: Side, connection: Connection, role):
    """Fields of INSTALL_QP that say how the connection stood, seen from ``card``."""
    scaled = card.wscale is not None and peer.wscale is not None
    card_scale, peer_scale = (card.wscale, peer.wscale) if scaled else (0, 0)
    timestamps = card.timestamps and peer.timestamps
    flags = QpFlags.REMOTE_WRITE | QpFlags.REMOTE_READ
    for flag, on in ((QpFlags.CRC, connection.crc), (QpFlags.TIMESTAMPS, timestamps),
                     (QpFlags.SACK, card.sack and peer.sack), (QpFlags.INITIATOR, role == "client"),
                     (QpFlags.ECN, card.ecn and peer.ecn)):
        flags |= flag if on else 0
    # The peer's segments acknowledge what the card's side sent in the capture, its FIN included. The card
    # sends none of it here, so it begins behind all of that.
    sent = max([f.end for f in card.frames if not f.flags & SYN] + [f.ack for f in peer.frames if f.flags & ACK],
               key=lambda seq: relative(seq, card.isn))
    windows = [max((f.window << scale for f in side.frames if f.flags & (SYN | ACK) == ACK), default=65535)
               for side, scale in ((card, card_scale), (peer, peer_scale))]
    look = next((f for f in reversed(card.frames) if f.flags & (SYN | ACK) == ACK), card.frames[-1])
    first = peer.mpa_frame
    tsval = max((f.options["Timestamp"][0] for f in card.frames if "Timestamp" in f.options), default=0)
    fields = {
        "flags": flags, "ttl": look.ttl, "tos": look.tos, "vlan_tci": look.vlan_tci or 0,
        "local_ip": card.address[0], "local_port": card.address[1], "local_mac": card.mac,
        "remote_ip": peer.address[0], "remote_port": peer.address[1], "remote_mac": peer.mac,
        "mss": peer.mss, "snd_nxt": sent, "rcv_nxt": peer.start,
        # An ACK of old data is only acceptable within the largest window (RFC 5961 5.2).
        "snd_wnd": max(windows[1], relative(sent, card.isn)), "rcv_wnd": windows[0],
        "snd_wscale": peer_scale, "rcv_wscale": card_scale,
        "ts_recent": first.options.get("Timestamp", (0, 0))[0] if timestamps else 0,
        "ts_offset": tsval + 1 & 0xFFFFFFFF if timestamps else 0,
        "cwnd": 10 * peer.mss, "ssthresh": 0x7FFFFFFF,
        "ord": min(card.mpa.ord or 0, 255), "ird": min(card.mpa.ird or 0, 255),
        "recv_msn": 1, "recv_read_msn": 1, "send_msn": 1, "send_read_msn": 1,
    }
    if look.vlan_tci is not None:
        fields["flags"] |= QpFlags.VLAN
    return fields


def _refused_stags(card: Side):
    """STags that the card's side refused in the capture: those its Terminate quotes as invalid.

    siw writes the Terminate's control octet with its nibbles swapped, so both readings count.
    """
    found = set()
    for fpdu in card.fpdus:
        if fpdu.opcode == TERMINATE and len(fpdu.payload) >= 20:
            octet, code = fpdu.payload[0], fpdu.payload[1]
            if 0x11 in (octet, octet >> 4 | (octet & 15) << 4) and code in (0, 1, 2):
                found.add(int.from_bytes(fpdu.payload[8:12], "big"))
    return found


def _sizes(length, rng):
    """Scatter elements for a message of ``length``: one, or several, with or without room to spare."""
    spare = rng.choice((0, 0, 0, rng.randint(1, 100)))
    count = rng.choice((1, 1, 2, 3, 4))
    cuts = sorted(rng.randint(0, length) for _ in range(count - 1))
    sizes = [end - start for start, end in zip([0, *cuts], [*cuts, length])]
    sizes[-1] += spare
    return sizes


def _connection(connection: Connection, role, rng):
    card, peer = connection.sides(role)
    plan = ConnectionPlan(f"{card.name} - {peer.name}", peer, _install(card, peer, connection, role))
    handed_over = max(card.mpa_frame.number, peer.mpa_frame.number)
    fed = {f.number for f in after_mpa(peer)}
    plan.prelude = [(f in peer.frames, f.raw) for f in connection.frames
                    if f.number not in fed and f.number <= handed_over
                    and (f in peer.frames or relative(f.end, card.start) <= 0)]
    plan.reads = [Read(*(int.from_bytes(f.payload[at:at + size], "big") for at, size in ((0, 4), (4, 8), (12, 4))))
                  for f in card.fpdus if f.opcode == READ_REQUEST]
    sends = [m for m in messages(peer.fpdus) if m.opcode in SENDS]
    plan.receives = [Receive(_sizes(len(m.data), rng)) for m in sends]
    refused = _refused_stags(card)

    # The outcome, FPDU by FPDU, until one ends the stream
    spans = {}

    def reach(stag, first, end, right):
        low, high, access = spans.get(stag, (first, end, Access(0)))
        spans[stag] = min(low, first), max(high, end), access | right

    send, got, read, answered, answering = 0, 0, 0, 0, False
    for fpdu in peer.fpdus:
        data, opcode = fpdu.payload, fpdu.opcode
        failure = None
        if connection.crc and not fpdu.crc_good:
            failure = Event(EventType.QP_ERROR, fpdu.header, Reason.FPDU_CRC)
        elif opcode == WRITE and data and fpdu.stag in refused:
            failure = Event(EventType.QP_ERROR, fpdu.header, Reason.STAG)
        elif opcode == TERMINATE:
            failure = Event(EventType.TERMINATE_RECEIVED, fpdu.header)
        if failure is not None:
            plan.steps.append(failure)
            plan.fails = True
            plan.fpdus += failure.reason is not Reason.FPDU_CRC
            break
        plan.fpdus += 1
        if opcode == WRITE:
            if data:
                plan.steps.append(Place("write", data, fpdu.offset, stag=fpdu.stag))
                reach(fpdu.stag, fpdu.offset, fpdu.offset + len(data), Access.REMOTE_WRITE)
        elif opcode == READ_RESPONSE:
            if read >= len(plan.reads):
                raise CaptureError(f"{plan.name}: a Read Response without its Read Request: the capture is not whole")
            if not answering:
                plan.responses.append(fpdu.start)
            if data:
                plan.steps.append(Place("read", data, fpdu.offset, stag=fpdu.stag))
                reach(fpdu.stag, fpdu.offset, fpdu.offset + len(data), Access.LOCAL_WRITE)
            answered += len(data)
            if fpdu.last:
                plan.steps.append(Completion(WcOpcode.RDMA_READ, read, answered))
                read, answered = read + 1, 0
            answering = not fpdu.last
        elif opcode == READ_REQUEST:
            plan.steps.append(Event(EventType.READ_REQUEST, fpdu.header))
        elif opcode in SENDS:
            if data:
                plan.steps.append(Place("send", data, fpdu.mo, receive=send))
            got += len(data)
            if fpdu.last:
                plan.steps.append(Completion(WcOpcode.RECV, send, got, int(opcode in (SEND_SE, SEND_SE_INV)),
                                             fpdu.stag if opcode in (SEND_INV, SEND_SE_INV) else None))
                send, got = send + 1, 0
        else:
            raise CaptureError(f"{plan.name}: RDMAP opcode {opcode} is none that can be replayed")
    if not plan.fails:
        plan.fin, plan.reset = closes(peer)
        plan.steps += [Event(_ENDS[reason], reason=reason) for reason in plan.ends]
    for k in plan.reads:                     # sinks whose response the capture does not hold need a region too
        if k.length and k.stag not in spans:
            reach(k.stag, k.to, k.to + k.length, Access.LOCAL_WRITE)
    for stag, (first, end, access) in spans.items():
        if end - first > LARGEST_REGION:
            raise CaptureError(f"{plan.name}: accesses to STag {stag:#010x} are {end - first} bytes apart")
        plan.regions.append(Region(stag, first, end - first, access))
    return plan


_ENDS = {Reason.PEER_FIN: EventType.FIN_RECEIVED, Reason.PEER_RESET: EventType.RST_RECEIVED}


def _interleave(lists, rng):
    """The lists' items, each list's in order."""
    lists = [list(reversed(items)) for items in lists]
    found = []
    while any(lists):
        ready = [items for items in lists if items]
        chosen = rng.choices(ready, [len(items) for items in ready])[0]
        found += [chosen.pop() for _ in range(min(len(chosen), rng.randint(1, 4)))]
    return found


def make_plan(connections, role, *, name="", recut=None, stall=0.0, seed=0) -> Plan:
    """Plan for the card to play ``role`` ("client" or "server") in all ``connections`` at once."""
    if role not in ("client", "server"):
        raise ValueError(f"role is client or server, not {role!r}")
    rng = random.Random(f"plan {seed} {recut}")
    plans = [_connection(connection, role, rng) for connection in connections]
    peers = [connection.sides(role)[1] for connection in connections]
    if recut is None:
        merged = [(at, n, feed) for n, peer in enumerate(peers) for at, feed in captured_feed(peer, n)]
        feeds = [feed for _, _, feed in sorted(merged, key=lambda item: item[:2])]
    else:
        feeds = _interleave([recut_feed(peer, n, recut) for n, peer in enumerate(peers)], rng)
    stags = [region.stag for plan in plans for region in plan.regions]
    return Plan(name, role, plans, feeds, recut, len(stags) != len(set(stags)), stall, seed)
