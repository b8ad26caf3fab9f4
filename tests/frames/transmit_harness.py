"""The transmit half with a host: ring, bytes at any address, a bus with latency, errors and stalls."""

import random
from dataclasses import dataclass, field

from tests.dma.harness import get, simulate

from emplace import abi
from emplace.config import PROFILES
from emplace.frames.transmit import FrameTransmit
from emplace_sim import words
from emplace_sim.driver_records import pack, unpack

CONFIG = PROFILES["tiny"]
RING, HEAD = 0x2_1234_5000, 0x8765_4328
COUNTS = ("sent", "injected", "refused", "failed")


@dataclass
class Run:
    """Frames out (``wire``, ``inject``), heads written, strobes, and ``reads`` (address, length)."""

    wire: list = field(default_factory=list)
    inject: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    reads: list = field(default_factory=list)
    counts: dict = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    cycles: int = 0
    told: int = 0


class Bench:
    """``log2``: of the ring. ``stall``: of every stream; ``latency``: cycles of a read, least and most."""

    def __init__(self, *, config=CONFIG, seed=1, log2=4, stall=0.0, wire_stall=0.0, latency=(5, 40)):
        self.config, self.rng, self.log2, self.stall = config, random.Random(seed), log2, stall
        self.wire_stall, self.latency = wire_stall, latency
        self.dut = FrameTransmit(config)
        self.run = Run()
        self.bytes, self.bad = {}, set()     # host memory; addresses that can't be read
        self.posted = 0
        self.next_address = 0x1_0000_0000

    def place(self, data, length):
        """An address for ``data`` (None: unreadable) of ``length``, at any alignment."""
        at = self.next_address + self.rng.choice([0, self.rng.randrange(4096)])
        self.next_address += (length + 8192) & -4096
        if data is None:
            self.bad.update(range(at, at + length))
        else:
            self.bytes.update({at + n: byte for n, byte in enumerate(data)})
        return at

    def write_descriptor(self, index, descriptor):
        at = RING + 16 * (index % (1 << self.log2))
        address = self.place(descriptor.data, descriptor.length) if descriptor.length else self.rng.getrandbits(40)
        record = pack(abi.FrameTxDescriptor, {
            "address": address, "length": descriptor.length, "flags": descriptor.flags,
            "checksum_start": descriptor.checksum_start, "checksum_offset": descriptor.checksum_offset,
            "pad": self.rng.getrandbits(16)})
        self.bad.difference_update(range(at, at + 16))
        self.bytes.update({at + n: byte for n, byte in enumerate(record)})
        if not descriptor.readable:
            self.bad.update(range(at, at + 16))

    def done(self):
        return self.run.heads[-1]["head"] if self.run.heads else 0

    async def start(self, ctx):
        ctx.set(self.dut.head_address, HEAD // 8)
        ctx.set(self.dut.ring, {"base": RING >> 12, "log2": self.log2, "enabled": 1, "restart": 1})
        await ctx.tick()
        ctx.set(self.dut.ring.restart, 0)

    async def post(self, ctx, descriptors, *, burst=None):
        """Post as the ring has room; in ``burst``\\ s, or at random."""
        for n, descriptor in enumerate(descriptors):
            while (self.posted - self.done()) % 65536 >= 1 << self.log2:
                ctx.set(self.dut.ring.producer, self.posted & 0xFFFF)
                await ctx.tick()
            self.write_descriptor(self.posted, descriptor)
            self.posted += 1
            if (n % burst == burst - 1) if burst else self.rng.random() < 0.4:
                ctx.set(self.dut.ring.producer, self.posted & 0xFFFF)
                for _ in range(self.rng.choice([1, 1, 20])):
                    await ctx.tick()
        ctx.set(self.dut.ring.producer, self.posted & 0xFFFF)

    async def finish(self, ctx, count=None):
        while self.done() != (self.posted if count is None else count) & 0xFFFF:
            await ctx.tick()

    def benches(self):
        dut, run, rng, pending = self.dut, self.run, self.rng, []

        async def clock(ctx):
            while True:
                _, _, told, *strobes = await ctx.tick().sample(dut.told, *(getattr(dut, name) for name in COUNTS))
                run.cycles += 1
                run.told += told
                for name, strobe in zip(COUNTS, strobes, strict=True):
                    run.counts[name] += strobe

        async def requests(ctx):
            while True:
                request = await get(ctx, dut.reads, rng=rng, stall=self.stall)
                address, length = int(request.address), int(request.length)
                run.reads.append((address, length))
                assert 1 <= length <= self.config.read_bytes
                assert address // 4096 == (address + length - 1) // 4096, "crosses 4 KiB"
                assert address // self.config.read_bytes == (address + length - 1) // self.config.read_bytes
                assert len(pending) < 16
                pending.append((run.cycles + rng.randint(*self.latency), address, length))

        async def answers(ctx):
            while True:
                if not pending or pending[0][0] > run.cycles:
                    await ctx.tick()
                    continue
                _, address, length = pending.pop(0)
                where = range(address, address + length)
                if any(at in self.bad for at in where):
                    packet = words.split(bytes(rng.choice([8, (length + 7) & -8])), 8, err=True)
                else:
                    packet = words.split(bytes(self.bytes[at] for at in where), 8)
                for word in packet:
                    while rng.random() < self.stall:
                        await ctx.tick()
                    ctx.set(dut.read_data.payload, {**word, "client": 3})
                    ctx.set(dut.read_data.valid, 1)
                    ready = False
                    while not ready:
                        _, _, ready = await ctx.tick().sample(dut.read_data.ready)
                    ctx.set(dut.read_data.valid, 0)

        def sink(stream, frames, stall):
            async def bench(ctx):
                got, open_ = [], False
                while True:
                    ctx.set(stream.ready, open_ or rng.random() >= stall)
                    _, _, valid, ready, payload = await ctx.tick().sample(stream.valid, stream.ready, stream.payload)
                    assert valid or not open_, "the frame has a gap"
                    if valid and ready:
                        got.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
                        open_ = not got[-1]["last"]
                        if not open_:
                            frame, err = words.join(got, 8)
                            assert not err
                            frames.append(frame)
                            got = []
            return bench

        async def heads(ctx):
            while True:
                write = await get(ctx, dut.write, rng=rng, stall=self.stall)
                assert (int(write.address), int(write.length), int(write.skip)) == (HEAD, 8, 0)
                word = await get(ctx, dut.packet, rng=rng, stall=self.stall)
                assert word.last and not word.err and word.empty == 0
                run.heads.append(unpack(abi.FrameTxHead, int(word.data).to_bytes(8, "little")))
        return [clock, requests, answers, heads, sink(dut.wire, run.wire, self.wire_stall),
                sink(dut.inject, run.inject, self.wire_stall)]

    def go(self, script, cycles=60000):
        simulate(self.dut, script, background=self.benches(), cycles=cycles)
        return self.run
