"""A golden peer at the other end of a simulated card's wire."""

import cocotb
from cocotb.triggers import Timer

from emplace.abi import QpFlags

from .peer import Peer, QpSettings, TcpSettings
from .segment import Ends
from .system import PERIOD_NS
from .wire import Impairments, Wire, strip_fcs

__all__ = ["PeerHost", "Connection"]

_MACS, _IPS = (0x525400000001, 0x525400000002), (0x0A000001, 0x0A000002)      # card, peer


class Connection:
    """Both ends of a connection: ``card`` (driver's QP, its ``cq`` and ``pd``), ``peer`` (golden QP)."""

    def __init__(self, card, cq, pd, peer):
        self.card, self.cq, self.pd, self.peer = card, cq, pd, peer


class PeerHost:
    """Carries frames between a :class:`~.system.Bench` and a :class:`~.peer.Peer`, each way over a :class:`~.wire.Wire`.

    ``to_peer``, ``to_card``: Impairments. The peer is polled every ``step`` cycles.
    """

    def __init__(self, bench, *, to_peer=None, to_card=None, rules=((), ()), seed=1, step=50):
        self.bench, self.step = bench, step
        self.peer = Peer(_MACS[1], _IPS[1], seed=seed)
        self.pd = self.peer.alloc_pd()
        self.wires = [Wire(what or Impairments(), list(rules[n]), seed=f"{seed} {n}")
                      for n, what in enumerate((to_peer, to_card))]
        self.ports = 20000
        bench.listeners.append(self._from_card)
        self.task = cocotb.start_soon(self._run())

    def now(self):
        return self.bench.cycle() * PERIOD_NS

    def _from_card(self, frame):
        self.wires[0].send(frame[:-4], self.now())

    async def _run(self):
        while True:
            now = self.now()
            for frame in self.wires[0].poll(now):
                whole = strip_fcs(frame)
                if whole is not None:
                    self.peer.receive(whole, now)
            for frame in self.peer.poll(now):
                self.wires[1].send(frame, now)
            for frame in self.wires[1].poll(now):
                self.bench.wire.send(frame)
            await Timer(self.step * PERIOD_NS, "ns")

    def stop(self):
        self.task.cancel()

    async def connect(self, *, initiator=True, crc=True, tcp=None, qp=None, vlan=None, pd=None, cq=None, max_send_wr=64,
                      max_recv_wr=16, cq_entries=256, isn=(0xFFFF_F000, 0xFFFF_FF00), flags=QpFlags(0), **fields):
        """Install an ESTABLISHED connection on both sides; ``initiator``: the card is MPA's."""
        device, tcp = self.bench.device, tcp or TcpSettings()
        pd, cq = pd or device.alloc_pd(), cq or await device.create_cq(cq_entries)
        card = device.create_qp(pd, cq, cq, max_send_wr=max_send_wr, max_recv_wr=max_recv_wr)
        self.ports += 1
        ends = Ends(_MACS[1], _MACS[0], _IPS[1], _IPS[0], self.ports, 7174, vlan)
        peer = self.peer.establish(ends, snd_nxt=isn[1], rcv_nxt=isn[0], pd=self.pd, initiator=not initiator, tcp=tcp,
                                   qp=qp or QpSettings(crc=crc))
        flags |= QpFlags.REMOTE_READ | QpFlags.REMOTE_WRITE | QpFlags.CRC * crc | QpFlags.INITIATOR * initiator \
            | QpFlags.TIMESTAMPS * tcp.timestamps | QpFlags.VLAN * (vlan is not None) | QpFlags.SACK * tcp.sack
        await device.install(card, **{
            "flags": flags, "ttl": 64, "local_mac": _MACS[0], "remote_mac": _MACS[1], "local_ip": _IPS[0],
            "remote_ip": _IPS[1], "local_port": 7174, "remote_port": self.ports, "vlan_tci": vlan or 0, "mss": tcp.mss,
            "snd_nxt": isn[0], "rcv_nxt": isn[1], "snd_wnd": tcp.rcv_wnd, "snd_wscale": tcp.rcv_wscale,
            "rcv_wnd": 1 << 18, "rcv_wscale": tcp.snd_wscale, "recv_msn": 1, "recv_read_msn": 1, "send_msn": 1,
            "send_read_msn": 1, **fields})
        return Connection(card, cq, pd, peer)

    async def completions(self, connection, count, cycles=200_000):
        """As many completions of the card's CQ, fewer if they don't come in time."""
        found, end = [], self.bench.cycle() + cycles
        while len(found) < count and self.bench.cycle() < end:
            found += await self.bench.device.poll_cq(connection.cq, count - len(found))
            if len(found) < count:
                await self.bench.bus.wait_activity(min(500, max(end - self.bench.cycle(), 1)))
        return found
