"""The whole card on a bench: wire, bus, memory and driver around a simulated ``Nic``, for tests and benchmarks."""

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, Timer
from cocotb.utils import get_sim_time

from emplace.abi import Access, QpFlags

from .bus import FastBus
from .driver import Device
from .fpdu import build_fpdu
from .host import HostMemory
from .pcapng import PcapngWriter
from .prelude import prelude
from .sender import Flow
from .xgmii import XgmiiDriver, XgmiiMonitor, finish

__all__ = ["PERIOD_NS", "Bench", "Link"]

PERIOD_NS = 8
#: Short ticks, so that a late ACK comes soon.
CLOCK = {"tick": 500, "delack": 2}
ALL_RIGHTS = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ


class Link:
    """An installed connection: the peer's side (``flow``), the card's (``qp``), and what it may touch."""

    def __init__(self, bench, flow, qp, cq, pd, crc):
        self.bench, self.flow, self.qp, self.cq, self.pd, self.crc = bench, flow, qp, cq, pd, crc
        self.acked = flow.seq                # highest ACK that the card sent
        self.acks = 0

    def fpdu(self, ulpdu, **lies):
        return build_fpdu(ulpdu, crc=self.crc, **lies)

    def send(self, stream, mss=None):
        """Put ``stream`` on the wire as the next bytes of the connection."""
        for frame in self.flow.cut(stream, mss):
            self.bench.put(frame)

    async def deliver(self, stream, mss=None, *, patience=4000, tries=30):
        """Send ``stream`` and send again what is not acknowledged, as a peer's TCP does; True once all is."""
        mss = mss or self.flow.mss
        start, frames = self.flow.seq, []
        for n, frame in enumerate(self.flow.cut(stream, mss)):
            frames.append(((start + min((n + 1) * mss, len(stream))) & 0xFFFFFFFF, frame))
        for _ in range(tries):
            for end, frame in frames:
                if 0 < (end - self.acked) & 0xFFFFFFFF < 1 << 31:
                    self.bench.put(frame)
            if await self.acknowledged(patience):
                return True
        return False

    async def acknowledged(self, cycles=20000):
        """True once the card has acknowledged all that was sent."""
        return await self.bench.until(lambda: self.acked == self.flow.seq, cycles)


class Bench:
    """One card. ``start`` resets it and opens the driver; problems of the bus are kept, see ``check``.

    Parameters
    ----------
    dut : the simulated Nic
    config : NicConfig that it was built from
    pcapng : file for the wire tap. In front of each connection stand the frames of a start-up that might have been, so
        that Wireshark dissects its FPDUs
    bus : keyword arguments of FastBus
    """

    def __init__(self, dut, config, *, seed=0, pcapng=None, lane4=True, **bus):
        self.dut, self.config, self.seed = dut, config, seed
        self.memory = HostMemory(seed=seed)
        self.bus = FastBus(dut, self.memory, tlp_bytes=config.tlp_bytes, seed=seed, period_ns=PERIOD_NS, **bus)
        self.tap = PcapngWriter(pcapng) if pcapng else None
        self.wire = XgmiiDriver(dut, lane4=lane4, sent=self._sent)
        self.monitor = XgmiiMonitor(dut, self._received)
        self.links, self.frames = {}, []     # (remote ip, remote port, local port) -> Link
        self.keep_frames = False
        self._ports = 20000

    def _sent(self, frame, time_ns):
        if self.tap:
            self.tap.write(0, time_ns, frame[:-4])

    def _received(self, frame, time_ns):
        if self.tap:
            self.tap.write(1, time_ns, frame[:-4])
        if self.keep_frames:
            self.frames.append(frame)
        if frame[12:14] == b"\x81\x00":
            frame = frame[:12] + frame[16:]
        key = (int.from_bytes(frame[30:34], "big"), int.from_bytes(frame[36:38], "big"),
               int.from_bytes(frame[34:36], "big"))
        link = self.links.get(key)
        if link and frame[12:14] == b"\x08\x00":
            ack = int.from_bytes(frame[42:46], "big")
            link.acks += 1
            if (ack - link.acked) & 0xFFFFFFFF < 1 << 31:
                link.acked = ack

    def put(self, frame):
        """Send a frame without FCS and padding."""
        self.wire.send(finish(frame))

    async def start(self, **opening):
        dut = self.dut
        dut.rst.value = 1
        self.clock = Clock(dut.clk, PERIOD_NS, "ns", impl="gpi")
        self.clock.start()
        await ClockCycles(dut.clk, 8)
        dut.rst.value = 0
        self.bus.start()
        await ClockCycles(dut.clk, 4)
        self.device = await Device(self.bus, seed=self.seed).open(**{**CLOCK, **opening})
        return self

    async def stop(self):
        self.bus.stop()
        self.wire.task.cancel()
        self.monitor.task.cancel()
        if self.tap:
            self.tap.close()
        await RisingEdge(self.dut.clk)
        self.clock.stop()

    def cycle(self):
        return round(get_sim_time("ns")) // PERIOD_NS

    async def cycles(self, count):
        await Timer(count * PERIOD_NS, "ns")

    async def until(self, condition, cycles, step=8):
        """Look every ``step`` cycles; True once ``condition()`` holds, False if it does not within ``cycles``."""
        for _ in range(0, cycles, step):
            if condition():
                return True
            await self.cycles(step)
        return bool(condition())

    async def connect(self, *, crc=True, timestamps=True, cq=None, pd=None, max_recv_wr=16, seq=1000, vlan=None,
                      rcv_wnd=1 << 20, flags=QpFlags.REMOTE_WRITE | QpFlags.REMOTE_READ, cq_entries=256, **fields):
        """Install a connection and return its :class:`Link`."""
        device = self.device
        pd = pd or device.alloc_pd()
        cq = cq or await device.create_cq(cq_entries)
        qp = device.create_qp(pd, cq, cq, max_recv_wr=max_recv_wr)
        self._ports += 1
        flow = Flow(src_port=self._ports, seq=seq, timestamps=timestamps, vlan=vlan)
        link = Link(self, flow, qp, cq, pd, crc)
        await self.install(link, flags=flags, rcv_wnd=rcv_wnd, **fields)
        return link

    async def install(self, link, *, flags=QpFlags.REMOTE_WRITE | QpFlags.REMOTE_READ, rcv_wnd=1 << 20, **fields):
        """(Re-)install ``link`` where its flow stands."""
        flow = link.flow
        flags |= QpFlags.CRC * link.crc | QpFlags.TIMESTAMPS * flow.timestamps | QpFlags.VLAN * (flow.vlan is not None)
        fields = {
            "flags": flags, "ttl": 64, "local_ip": flow.dst_ip, "remote_ip": flow.src_ip, "local_port": flow.dst_port,
            "remote_port": flow.src_port, "local_mac": flow.dst_mac, "remote_mac": flow.src_mac,
            "vlan_tci": flow.vlan or 0, "mss": flow.mss, "snd_nxt": flow.ack, "rcv_nxt": flow.seq, "snd_wnd": 65535,
            "rcv_wnd": rcv_wnd, "rcv_wscale": 7, "ts_recent": flow.tsval, "recv_msn": 1, "recv_read_msn": 1, **fields}
        await self.device.install(link.qp, **fields)
        link.acked = flow.seq
        key = flow.src_ip, flow.src_port, flow.dst_port
        if self.tap and key not in self.links:
            for sent_by_peer, frame in prelude(
                    flow.ends, initiator=not flags & QpFlags.INITIATOR, seq=fields["rcv_nxt"], ack=fields["snd_nxt"],
                    crc=link.crc, timestamps=flow.timestamps, mss=fields["mss"] + 12 * flow.timestamps,
                    wscales=(fields.get("snd_wscale", 0), fields["rcv_wscale"]), tsvals=(flow.tsval, 0)):
                self.tap.write(0 if sent_by_peer else 1, PERIOD_NS * self.cycle(), frame, "made up: before the hand-over")
        self.links[key] = link

    async def region(self, link, length, access=ALL_RIGHTS, **more):
        return await self.device.reg_mr(link.pd, length, access, **more)

    async def completions(self, link, count, cycles=20000):
        """``count`` completions of ``link``'s CQ, fewer if they don't come in time."""
        found, end = [], self.cycle() + cycles
        while len(found) < count and self.cycle() < end:
            found += await self.device.poll_cq(link.cq, count - len(found))
            if len(found) < count:
                await self.bus.wait_activity(min(200, max(end - self.cycle(), 1)))
        return found

    async def event(self, cycles=20000):
        """The next event, or None."""
        end = self.cycle() + cycles
        while (found := await self.device.get_async_event()) is None and self.cycle() < end:
            await self.bus.wait_activity(min(200, max(end - self.cycle(), 1)))
        return found

    def check(self):
        """Assert what must hold at the end of every run: canaries whole, no rule of the bus broken."""
        assert self.memory.check_canaries() == []
        assert not self.bus.problems, "\n".join(self.bus.problems)
        assert not self.monitor.decoder.problems, "\n".join(self.monitor.decoder.problems)

    async def counters(self, *names):
        found = await self.device.counters(names or None)
        return tuple(found[name] for name in names) if names else found


