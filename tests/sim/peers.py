"""Two golden peers and the wires between them, for tests."""

import random

from emplace_sim.peer import Access, Faults, Peer, QpSettings, TcpSettings
from emplace_sim.segment import Ends
from emplace_sim.wire import Impairments, Wire, carry

MACS, IPS = (0x525400000001, 0x525400000002), (0x0A000001, 0x0A000002)


class Pair:
    """Peers ``a`` (initiator) and ``b`` with one connection: taken over, or with ``start`` from the handshake on.

    ``impairments``: for both directions; ``seed``: of everything.
    """

    def __init__(self, impairments=None, *, seed=1, start=False, tcp=None, qp=None, rules=((), ()), tap=None, check_fcs=True,
                 isn=(0xFFFFF000, 0xFFFFFF00), posted=None, faults=(None, None), settings=(None, None)):
        self.seed, self.check_fcs, self.now = seed, check_fcs, 0
        self.random = random.Random(f"pair {seed}")
        self.a, self.b = self.peers = [Peer(MACS[n], IPS[n], seed=f"{seed} {n}") for n in (0, 1)]
        self.wires = [Wire(impairments or Impairments(delay=20_000), list(rules[n]), seed=f"{seed} {n}",
                           tap=(lambda at, frame, comment, n=n: tap(n, at, frame, comment)) if tap else None) for n in (0, 1)]
        tcp = tcp or TcpSettings()
        sets = [s or qp or QpSettings() for s in settings]
        faults = [f or Faults() for f in faults]
        self.pds = [peer.alloc_pd() for peer in self.peers]
        if start:
            made = []
            self.b.listen(7174, pd=self.pds[1], tcp=tcp, qp=sets[1], faults=faults[1],
                          on_start=lambda qp: (made.append(qp), posted and posted[1] and posted[1](qp)))
            self.qa = self.a.connect(MACS[1], IPS[1], 7174, 0, pd=self.pds[0], tcp=tcp, qp=sets[0], faults=faults[0],
                                     on_start=posted and posted[0])
            self.run(lambda: made)
            self.qb = made[0]
        else:
            ends = Ends(MACS[0], MACS[1], IPS[0], IPS[1], 50000, 7174)
            self.qa = self.a.establish(ends, snd_nxt=isn[0], rcv_nxt=isn[1], pd=self.pds[0], tcp=tcp, qp=sets[0],
                                       faults=faults[0])
            self.qb = self.b.establish(ends.turned, snd_nxt=isn[1], rcv_nxt=isn[0], pd=self.pds[1], initiator=False, tcp=tcp,
                                       qp=sets[1], faults=faults[1])
        self.qps = (self.qa, self.qb)

    def region(self, side, data, access=Access.ALL, **more):
        return self.peers[side].reg_mr(self.pds[side], data, access, **more)

    def run(self, until, limit=120_000_000_000, tick=None):
        self.now = carry(self.peers, self.wires, until, now=self.now, limit=limit, check_fcs=self.check_fcs, tick=tick)
        return self.now

    def settle(self):
        """Until nothing is under way: both idle, all acknowledged."""
        self.run(lambda: all(qp.idle for qp in self.qps) and all(w.next_deadline is None for w in self.wires))

    def events(self, side):
        return [(event.kind, event.code) for event in self.peers[side].events]


def summary(completions):
    """[(wr_id, status's name, byte_len)]"""
    return [(c.wr_id, c.status.name, c.byte_len) for c in completions]
