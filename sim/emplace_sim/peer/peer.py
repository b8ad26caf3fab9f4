"""A host with an RDMA card, in Python: many connections, one memory, one completion queue."""

import random
from collections import Counter, deque
from dataclasses import replace

from ..segment import ACK, RST, SYN, BadSegment, Ends, Tcp, build, parse
from .faults import Faults
from .qp import Qp, QpSettings
from .stags import Mr, StagTable
from .tcp import TcpEndpoint, TcpState
from .tcp_send import TcpSettings
from .verbs import Access, AsyncEvent, Completion

__all__ = ["Peer"]


class Peer:
    """Frames go in and come out as bytes, without FCS; ``now`` is in nanoseconds and never goes back.

    Nothing happens between calls: ``receive`` a frame, ``poll`` for the frames that it may send, and poll again at
    ``next_deadline`` at the latest. The same calls with the same seed give the same frames.
    """

    def __init__(self, mac, ip, *, seed=0):
        self.mac, self.ip = mac, ip
        self.random = random.Random(f"peer {seed}")
        self.seed = seed
        self.stags = StagTable(seed)
        self.qps: dict[tuple, Qp] = {}
        self.cq: deque[Completion] = deque()
        self.events: deque[AsyncEvent] = deque()
        self._listeners = {}
        self._out: list[bytes] = []
        self._pds, self._ports = 0, 49152
        self.counts = Counter()              # frames dropped, by reason

    # Resources

    def alloc_pd(self):
        self._pds += 1
        return self._pds

    def reg_mr(self, pd, data, access=Access.ALL, *, base=None, stag=None) -> Mr:
        """``data``: octets, or how many of them; a bytearray is used in place."""
        return self.stags.register(pd, data, access, base=base, stag=stag)

    def dereg_mr(self, mr):
        self.stags.deregister(mr)

    def poll_cq(self, most=None):
        """Completions, all or ``most``."""
        count = len(self.cq) if most is None else min(most, len(self.cq))
        return [self.cq.popleft() for _ in range(count)]

    def get_async_event(self):
        return self.events.popleft() if self.events else None

    # Connections

    def establish(self, ends: Ends, *, snd_nxt, rcv_nxt, pd=None, initiator=True, tcp=None, qp=None, snd_wnd=65535,
                  ts_recent=0, faults=None):
        """Take over a connection whose start-up is done; ``ends`` as in frames that this peer sends."""
        endpoint = TcpEndpoint(ends, replace(tcp or TcpSettings()), iss=snd_nxt - 1, irs=rcv_nxt - 1, snd_wnd=snd_wnd,
                               seed=self.random.getrandbits(32), faults=faults)
        endpoint.rx.ts_recent = ts_recent
        return self._add(Qp(self, pd or self.alloc_pd(), endpoint, qp or QpSettings(), initiator=initiator))

    def connect(self, remote_mac, remote_ip, remote_port, now, *, local_port=None, pd=None, vlan=None, tcp=None, qp=None,
                on_start=None, faults=None):
        """Open a connection with TCP's handshake and MPA's. ``on_start(qp)`` posts what must be there from the start."""
        if local_port is None:
            self._ports += 1
            local_port = self._ports
        ends = Ends(self.mac, remote_mac, self.ip, remote_ip, local_port, remote_port, vlan)
        endpoint = self._endpoint(ends, tcp or TcpSettings(), TcpState.SYN_SENT, faults)
        endpoint.open(now)
        return self._add(Qp(self, pd or self.alloc_pd(), endpoint, qp or QpSettings(), initiator=True, start="mpa",
                            on_start=on_start))

    def listen(self, port, *, pd=None, tcp=None, qp=None, on_start=None, faults=None):
        """Accept connections to ``port``; each is a QP with these settings, named by its "established" event."""
        self._listeners[port] = (pd, tcp or TcpSettings(), qp or QpSettings(), on_start, faults)

    def forget(self, qp):
        """Drop a QP and its connection."""
        self.qps = {key: other for key, other in self.qps.items() if other is not qp}

    def _endpoint(self, ends, settings, state, faults):
        return TcpEndpoint(ends, replace(settings), iss=self.random.getrandbits(32), state=state,
                           seed=self.random.getrandbits(32), faults=faults)

    def _add(self, qp):
        key = self._key(qp.tcp.ends)
        if key in self.qps and self.qps[key].tcp.state is not TcpState.CLOSED and not self.qps[key].tcp.done:
            raise ValueError("the connection is there already")
        self.qps[key] = qp
        return qp

    @staticmethod
    def _key(ends):
        return ends.src_ip, ends.src_port, ends.dst_ip, ends.dst_port, ends.vlan

    # Frames

    def receive(self, frame, now):
        """A frame without FCS; what is not for us or damaged is counted and dropped."""
        try:
            ends, segment = parse(frame)
        except BadSegment as error:
            self.counts[str(error)] += 1
            return
        mine = ends.turned
        if (mine.src_mac, mine.src_ip) != (self.mac, self.ip):
            self.counts["for others"] += 1
            return
        qp = self.qps.get(self._key(mine))
        fresh = segment.flags & (SYN | ACK | RST) == SYN and mine.src_port in self._listeners
        if fresh and (qp is None or qp.tcp.done):
            self._accept(mine, segment, now)
        elif qp is not None:
            qp.receive(segment, now)
        else:
            self.counts["no connection"] += 1
            if not segment.flags & RST:
                reply = Tcp(segment.ack, 0, RST) if segment.flags & ACK else Tcp(0, segment.seq + segment.length, RST | ACK)
                self._out.append(build(mine, reply))

    def _accept(self, ends, segment, now):
        pd, tcp, settings, on_start, faults = self._listeners[ends.src_port]
        endpoint = self._endpoint(ends, tcp, TcpState.SYN_RECEIVED, faults or Faults())
        endpoint.now = now
        endpoint.syn(segment)
        endpoint.open(now)
        self._add(Qp(self, pd or self.alloc_pd(), endpoint, settings, initiator=False, start="mpa", on_start=on_start))

    def poll(self, now):
        """Frames to send now."""
        frames, self._out = self._out, []
        for qp in list(self.qps.values()):
            frames += qp.poll(now)
        return frames

    @property
    def next_deadline(self):
        """When to poll again at the latest, None if nothing is to come by itself."""
        due = [t for t in (qp.next_deadline for qp in self.qps.values()) if t is not None]
        return min(due) if due else None
