"""The plain receive path with ip's word for each frame, a host with descriptors, and memory."""

import random
from dataclasses import dataclass, field

from tests.dma.harness import Memory, get, put, simulate

from emplace import abi
from emplace.config import PROFILES
from emplace.frames.layer import Frames
from emplace_sim import words
from emplace_sim.driver_records import pack, unpack
from emplace_sim.plain import pieces

CONFIG = PROFILES["tiny"]
MAC = 0x525400000001
RING, COMPLETIONS = 0x1_2345_6000, 0x7654_3000
COUNTS = [c.name for c in abi.COUNTERS if c.layer == "frames"]
BROADCAST = b"\xff" * 6


@dataclass
class Frame:
    """A frame as ip sees it, with the disposition that it gets; or a mark (``data`` None)."""

    data: bytes | None
    keep: bool = True
    reason: int = abi.FrameReason.OTHER_ETHERTYPE
    flags: int = 0
    header: int = 0
    qp: int = 0
    err: bool = False
    qpn: int = 0
    fresh: bool = False
    after: int = 6               # cycles from the last word to the disposition
    gap: int = 2                 # cycles without a word behind it


@dataclass
class Run:
    """What came out: ``completions`` in order, ``counts``, ``reached`` (any, index), ``reads`` (address, length)."""

    memory: Memory
    completions: list = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    reached: list = field(default_factory=list)
    reads: list = field(default_factory=list)
    order: list = field(default_factory=list)


class Bench:
    """One layer. ``log2``: of the ring; ``buffer_log2``: of a data buffer's bytes."""

    def __init__(self, *, config=CONFIG, seed=1, log2=4, buffer_log2=8, split=False, rx=True, promiscuous=False, stall=0.0,
                 latency=(5, 40), errors=()):
        self.config, self.rng, self.log2, self.split, self.stall = config, random.Random(seed), log2, split, stall
        self.size, self.latency, self.errors = 1 << buffer_log2, latency, set(errors)
        self.dut = Frames(config)
        self.settings = {"rx": rx, "split": split, "promiscuous": promiscuous, "buffer_log2": buffer_log2, "mac": MAC}
        self.run_ = Run(Memory(), counts=dict.fromkeys(COUNTS, 0))
        self.descriptors, self.read = [], 0
        self.posted = 0
        self.enabled = 1
        self.blocked = False
        self.strict = True               # False: a restart may be too late for a read

    def descriptor(self, index):
        """(header, data) addresses of descriptor ``index``: never the same twice."""
        while len(self.descriptors) <= index:
            n = len(self.descriptors)
            self.descriptors.append((0x1_0000_0000 + 128 * n, 0x9000_0000 + 0x10000 * n))
        return self.descriptors[index]

    async def post(self, ctx, count):
        self.posted += count
        ctx.set(self.dut.ring.producer, self.posted & 0xFFFF)

    async def restart(self, ctx, log2=None):
        self.log2 = self.log2 if log2 is None else log2
        self.posted = self.read = 0
        ctx.set(self.dut.ring, {"base": RING >> 12, "completions": COMPLETIONS >> 12, "log2": self.log2, "producer": 0,
                                "enabled": self.enabled, "restart": 1})
        await ctx.tick()
        ctx.set(self.dut.ring.restart, 0)

    def go(self, frames, *, posted=None, drain=1500, script=None, cycles=60000):
        """Send ``frames``; ``posted`` descriptors beforehand (default: a full ring). ``script(ctx, bench)`` runs beside."""
        dut, run, rng = self.dut, self.run_, self.rng
        pending, marks = [], [0]

        async def source(ctx):
            ctx.set(dut.settings, self.settings)
            if self.enabled:
                await self.restart(ctx)
                for _ in range(4):
                    await ctx.tick()
                await self.post(ctx, (1 << self.log2) if posted is None else posted)
            for _ in range(120):
                await ctx.tick()
            for frame in frames:
                if callable(frame):
                    await frame(ctx, self)
                    continue
                if frame.data is None:       # one mark at a time
                    while len(run.reached) < marks[0]:
                        await ctx.tick()
                    marks[0] += 1
                    pending.append([frame.after, frame])
                    continue
                for word in words.split(frame.data, 8, err=frame.err):
                    ctx.set(dut.i.payload, word)
                    ctx.set(dut.i.valid, 1)
                    await ctx.tick()
                    ctx.set(dut.i.valid, 0)
                if not frame.err:
                    pending.append([frame.after, frame])
                for _ in range(frame.gap):
                    await ctx.tick()
            for _ in range(drain):
                await ctx.tick()

        async def dispositions(ctx):
            while True:
                if pending and pending[0][0] <= 0:
                    frame = pending.pop(0)[1]
                    ctx.set(dut.dispositions.payload, {
                        "mark": frame.data is None, "fresh": frame.fresh, "keep": frame.keep, "reason": frame.reason,
                        "flags": frame.flags, "header": frame.header, "qp": frame.qp, "qpn": frame.qpn})
                    ctx.set(dut.dispositions.valid, 1)
                    ready = False
                    while not ready:
                        _, _, ready = await ctx.tick().sample(dut.dispositions.ready)
                        for entry in pending:
                            entry[0] -= 1
                    ctx.set(dut.dispositions.valid, 0)
                else:
                    await ctx.tick()
                    for entry in pending:
                        entry[0] -= 1

        async def bus(ctx):
            while True:
                request = await get(ctx, dut.reads)
                address, length = int(request.address), int(request.length)
                run.reads.append((address, length))
                assert RING <= address and address + length <= RING + (16 << self.log2), "outside the ring"
                assert address // 4096 == (address + length - 1) // 4096
                for _ in range(rng.randint(*self.latency)):
                    await ctx.tick()
                first = (address - RING) // 16
                # Slots of this lap and, behind the ring's end, of the next one
                lap = self.read - self.read % (1 << self.log2)
                index = lap + first
                content = b"".join(pack(abi.FrameRxDescriptor, dict(zip(("header", "data"), self.descriptor(index + n))))
                                   for n in range(length // 16))
                self.read = index + length // 16
                failed = bool(self.errors & set(range(index, self.read)))
                assert self.read <= self.posted or not self.strict, "read before it was posted"
                if failed:
                    content = rng.randbytes(rng.choice([8, 8 * (length // 8)]))
                for word in words.split(content, 8, err=failed):
                    await put(ctx, dut.read_data, {**word, "client": 0}, rng=rng, idle=self.stall)

        async def writes(ctx):
            while True:
                command = await get(ctx, dut.writes, rng=rng, stall=self.stall)
                address, length, skip = int(command.address), int(command.length), int(command.skip)
                packet = []
                while not packet or not packet[-1]["last"]:
                    while self.blocked:
                        await ctx.tick()
                    word = await get(ctx, dut.packets, rng=rng, stall=self.stall)
                    packet.append({name: int(word[name]) for name in ("data", "empty", "last", "err")})
                body, err = words.join(packet, 8)
                assert not err and len(body) == skip + length
                self.landed(address, body[skip:])

        async def reached(ctx):
            while True:
                answer = await get(ctx, dut.reached, rng=rng, stall=self.stall)
                run.reached.append((int(answer.any), int(answer.index)))
                run.order.append(("reached", len(run.completions)))

        async def count(ctx):
            while True:
                _, _, strobes = await ctx.tick().sample(dut.count)
                for name in COUNTS:
                    run.counts[name] += strobes[name]

        async def beside(ctx):
            await script(ctx, self)
        simulate(dut, source, *([beside] if script else []), background=[dispositions, bus, writes, reached, count],
                 cycles=cycles)
        run.counts = {name: n for name, n in run.counts.items() if n}
        return run

    def landed(self, address, data):
        run = self.run_
        slots = 1 << self.log2
        if COMPLETIONS <= address < COMPLETIONS + 32 * slots:
            number = len(run.completions)
            assert len(data) == 32 and address == COMPLETIONS + 32 * (number % slots)
            entry = unpack(abi.FrameRxCompletion, data)
            assert entry["phase"] == 1 - (number // slots) % 2
            assert not entry["pad"] and not entry["pad1"]
            run.completions.append(entry)
            return
        assert not any(address + n in run.memory for n in range(len(data))), "written twice"
        run.memory.store(address, data)


def expect(bench, frames, *, names=None):
    """What must be in memory and in the completions once ``frames`` (those that are to arrive) have arrived, each with
    enough descriptors; checks it."""
    run, memory, used = bench.run_, Memory(), 0
    for number, frame in enumerate(frames):
        split = bench.split and frame.header != 0
        plan = pieces(len(frame.data), frame.header, bench.split, bench.size)
        for which, kind, start, end in plan:
            memory.store(bench.descriptor(used + which)[kind == "data"], frame.data[start:end])
        buffers = 1 + max(which for which, *_ in plan)
        assert number < len(run.completions), f"only {len(run.completions)} completions"
        got = run.completions[number]
        held = frame.reason == abi.FrameReason.HELD
        want = {"descriptor": used & 0xFFFF, "buffers": buffers, "reason": frame.reason, "length": len(frame.data),
                "header_length": frame.header if split else 0, "flags": frame.flags | (abi.FrameFlags.SPLIT if split else 0),
                "qpn": (names or {}).get(frame.qp, 0) if held else 0}
        assert {name: got[name] for name in want} == want, f"completion {number}"
        used += buffers
    assert len(run.completions) == len(frames)
    assert run.memory == memory
    return used
