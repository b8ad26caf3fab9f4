"""Frames in, records and slot memory out: the bench of the IP layer."""

import random

from amaranth.sim import Simulator
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from emplace.abi import COUNTERS
from emplace.config import PROFILES
from emplace.control.records import RecordKind
from emplace.ip.layer import Ip
from emplace.ip.records import HoldOp
from emplace_sim import words
from emplace_sim.frames import parse
from emplace_sim.plain import fate

CONFIG = PROFILES["tiny"]
NAMES = [c.name for c in COUNTERS if c.layer == "ip"]
FIELDS = ("seq", "ack", "window", "psh", "syn", "fin", "rst", "urg", "has_ack", "ecn", "ece", "cwr", "has_ts", "options")
LOCAL, REMOTE, PORT, PEER = 0x0A000001, 0x0A000002, 7471, 40000
CANONICAL = [("NOP", None), ("NOP", None), ("Timestamp", (0x01020304, 0xA0B0C0D0))]


def key(qp=0, vlan=None):
    """Key of the connection that the bench gives QP ``qp``."""
    return (LOCAL, REMOTE, PORT, PEER + qp, vlan or 0, int(vlan is not None))


def frame(payload=b"", *, qp=0, vlan=None, options=(), flags="A", raw_options=None, **fields):
    """A frame as scapy builds it, padded to 60 bytes; ``raw_options`` replaces the option bytes."""
    ip = {k[3:]: v for k, v in fields.items() if k.startswith("ip_")}
    tcp = {k: v for k, v in fields.items() if not k.startswith("ip_")}
    packet = Ether(src="52:54:00:00:00:02", dst="52:54:00:00:00:01")
    if vlan is not None:
        packet /= Dot1Q(vlan=vlan)
    if raw_options is not None:
        assert len(raw_options) % 4 == 0
        tcp["dataofs"] = 5 + len(raw_options) // 4
        payload = raw_options + payload
    packet /= IP(src="10.0.0.2", dst="10.0.0.1", **ip) / TCP(
        sport=PEER + qp, dport=PORT, flags=flags, options=list(options), **{"seq": 1, "ack": 1, **tcp})
    return bytes(packet / Raw(payload)).ljust(60, b"\xee")


def key_dict(k):
    return dict(zip(("local_ip", "remote_ip", "local_port", "remote_port", "vlan", "tagged"), k, strict=True))


class Bench:
    """One run. ``frames``: ``[(bytes, err)]``. After :meth:`run`:

    segments : ``[(record fields, payload in the slot)]``, tokens as ``("token", op, qp)``
    counts : strobes by counter name
    dispositions : ``[(keep, reason, flags, header, qp)]``, marks as ``("mark", fresh, qp, qpn)``

    ``injected``: numbers of frames that the host puts in; ``held``: QPs held from the start.
    """

    def __init__(self, *, config=CONFIG, installed=None, stall=0.0, idle=0.0, gap=lambda n: 0, slots=None, seed=1,
                 hold_records=0, injected=(), held=()):
        self.config, self.dut = config, Ip(config)
        self.installed = installed if installed is not None else {key(): 0}
        self.stall, self.idle, self.gap, self.seed = stall, idle, gap, seed
        self.free = list(range(slots if slots is not None else config.slots))
        self.memory = {n: bytearray(b"\xcc" * config.slot_bytes) for n in range(config.slots)}
        self.segments, self.counts, self.results = [], dict.fromkeys(NAMES, 0), []
        self.last_word, self.record_at, self.writes = [], [], []
        self.now = self.began = 0
        self.hold_records = hold_records
        self.injected, self.held = set(injected), set(held)
        self.dispositions, self.disposed_at = [], []
        self.done = False

    async def update(self, ctx, insert, k, qp):
        dut = self.dut
        ctx.set(dut.lookup_update.payload, {"insert": insert, "qp": qp, "key": key_dict(k)})
        ctx.set(dut.lookup_update.valid, 1)
        await ctx.tick().until(dut.lookup_update.ready)
        ctx.set(dut.lookup_update.valid, 0)
        ctx.set(dut.lookup_result.ready, 1)
        status, = await ctx.tick().sample(dut.lookup_result.p.status).until(dut.lookup_result.valid)
        ctx.set(dut.lookup_result.ready, 0)
        return status

    async def send_token(self, ctx, op, qp):
        ctx.set(self.dut.token.payload, {"op": op, "qp": qp})
        ctx.set(self.dut.token.valid, 1)
        await ctx.tick().until(self.dut.token.ready)
        ctx.set(self.dut.token.valid, 0)

    async def hold(self, ctx, op, qp, qpn=0):
        """Ask for ``op``; for RELEASE, whether it ended the hold."""
        dut = self.dut
        ctx.set(dut.hold.payload, {"op": op, "qp": qp, "qpn": qpn})
        ctx.set(dut.hold.valid, 1)
        await ctx.tick().until(dut.hold.ready)
        ctx.set(dut.hold.valid, 0)
        return bool(ctx.get(dut.released))

    def run(self, frames, *, also=None, drain=60):
        dut, rng = self.dut, random.Random(self.seed)
        ready = [False]

        async def source(ctx):
            for k, qp in self.installed.items():
                assert await self.update(ctx, 1, k, qp) == 0
            for qp in sorted(self.held):
                await self.hold(ctx, HoldOp.HOLD, qp, 1000 + qp)
            ready[0], self.began = True, self.now
            for n, (packet, err) in enumerate(frames):
                for _ in range(self.gap(n)):
                    await ctx.tick()
                for word in words.split(packet, 8, err=err):
                    while rng.random() < self.idle:
                        await ctx.tick()
                    ctx.set(dut.frames.payload, word)
                    ctx.set(dut.frames.valid, 1)
                    ctx.set(dut.injected, n in self.injected if word["last"] else rng.random() < 0.5)
                    assert ctx.get(dut.frames.ready)
                    at = self.now
                    await ctx.tick()
                    ctx.set(dut.frames.valid, 0)
                self.last_word.append(at)
            for _ in range(drain):
                await ctx.tick()
            self.done = True

        async def slots(ctx):
            while True:
                offered = bool(self.free)
                ctx.set(dut.alloc.valid, offered)
                if offered:
                    ctx.set(dut.alloc.p.slot, self.free[0])
                if offered and ctx.get(dut.alloc.ready):
                    await ctx.tick()
                    self.free.pop(0)
                else:
                    await ctx.tick()

        async def watch(ctx):
            taken = random.Random(self.seed + 1)
            while True:
                accept = taken.random() >= self.stall and self.now >= self.began + self.hold_records
                ctx.set(dut.segments.ready, accept)
                if ctx.get(dut.slot_write.valid):
                    w = ctx.get(dut.slot_write.payload)
                    self.writes.append((w.slot, w.address))
                    self.memory[w.slot][8 * w.address:8 * w.address + 8] = int(w.data).to_bytes(8, "little")
                if ctx.get(dut.segments.valid) and accept:
                    self.take(ctx.get(dut.segments.payload))
                ctx.set(dut.dispositions.ready, 1)
                if ctx.get(dut.dispositions.valid):
                    d = ctx.get(dut.dispositions.payload)
                    self.disposed_at.append(self.now)
                    self.dispositions.append(
                        ("mark", int(d.fresh), int(d.qp), int(d.qpn)) if d.mark else
                        (int(d.keep), int(d.reason), int(d.flags), int(d.header), int(d.qp)))
                strobes = ctx.get(dut.count)
                for name in NAMES:
                    self.counts[name] += strobes[name]
                await ctx.tick()
                self.now += 1

        async def watchdog(ctx):
            for _ in range(60_000):
                await ctx.tick()
                if self.done:
                    return
            raise TimeoutError("the frames did not pass")

        sim = Simulator(dut)
        sim.add_clock(1e-8)
        sim.add_testbench(watch, background=True)
        sim.add_testbench(source)
        sim.add_testbench(slots, background=True)
        sim.add_testbench(watchdog)
        if also is not None:
            async def other(ctx):
                while not ready[0]:
                    await ctx.tick()
                await also(ctx)
            sim.add_testbench(other)
        sim.run()
        self.counts = {name: n for name, n in self.counts.items() if n}
        return self

    def take(self, r):
        if r.kind == RecordKind.TOKEN:
            self.segments.append(("token", int(r.token.op.value), int(r.token.qp)))
            return
        got = {name: int(r[name]) for name in FIELDS} | {"qp": int(r.qp)}
        if got["has_ts"]:
            got |= {"tsval": int(r.tsval), "tsecr": int(r.tsecr)}
        self.record_at.append(self.now)
        self.segments.append((got, bytes(self.memory[r.slot][:r.length]) if r.length else b""))
        if r.length:
            self.free.append(int(r.slot))


def expected(segment):
    """What the bench should see of a golden segment that was not dropped."""
    got = {name: getattr(segment, name) for name in FIELDS} | {"qp": segment.qp}
    if segment.has_ts:
        got |= {"tsval": segment.tsval, "tsecr": segment.tsecr}
    return got, segment.payload


def same_fates(bench, fates):
    """One disposition for each frame without ``err``, as the golden model has it."""
    got = [d for d in bench.dispositions if d[0] != "mark"]
    assert len(got) == len(fates)
    for n, (d, f) in enumerate(zip(got, fates, strict=True)):
        keep, reason, flags, header, qp = d
        assert keep == f.host, f"frame {n}"
        if keep:
            assert (reason, flags, header) == (f.reason, f.flags, f.header), f"frame {n}"
            assert f.qp is None or qp == f.qp, f"frame {n}"


def compare(bench, frames):
    """Records and counters against the golden parser."""
    judged = [parse(f, bench.installed) for f, err in frames if not err]
    fates = [fate(f, bench.installed, held=bench.held, injected=n in bench.injected) for n, (f, err) in enumerate(frames)
             if not err]
    same_fates(bench, fates)
    counts = {}
    for f in fates:
        counts[f.counter] = counts.get(f.counter, 0) + 1
    want = [expected(s) for s, f in zip(judged, fates, strict=True) if f.counter == "rx_segments"]
    got = [s for s in bench.segments if s[0] != "token"]
    for n, (a, b) in enumerate(zip(got, want, strict=False)):
        assert a == b, f"segment {n}"
    assert len(got) == len(want) and bench.counts == counts
    return judged
