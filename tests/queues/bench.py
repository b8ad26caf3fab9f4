"""Stream drivers and a stand-in for host memory, for the tests of queues and control."""

import random

from amaranth.lib import data
from amaranth.sim import Simulator

CLOCK = 1e-8


def unpack(layout, raw):
    """A record's raw bits as a dict of ints."""
    return {name: (raw >> field.offset) & ((1 << field.width) - 1) for name, field in layout}


async def send(ctx, stream, payload, rng=None, idle=0.0):
    """Offer one payload."""
    while rng is not None and rng.random() < idle:
        await ctx.tick()
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    taken = False
    while not taken:                   # a plain loop: `until` left unfinished in a background testbench makes noise
        _, _, taken = await ctx.tick().sample(stream.ready)
    ctx.set(stream.valid, 0)


async def receive(ctx, stream, rng=None, stall=0.0):
    """Take one payload, as a dict."""
    while rng is not None and rng.random() < stall:
        await ctx.tick()
    ctx.set(stream.ready, 1)
    valid = False
    while not valid:
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
    ctx.set(stream.ready, 0)
    layout = stream.payload.shape()
    raw = payload.as_bits() if isinstance(payload, data.Const) else int(payload)
    return unpack(layout, raw) if isinstance(layout, data.Layout) else raw


def run(dut, *testbenches, background=(), cycles=20_000, settle=0):
    """Run until all ``testbenches`` are done, which begin ``settle`` cycles behind the reset; ``background`` ones may
    go on for ever."""
    def settled(testbench):
        async def late(ctx):
            for _ in range(settle):
                await ctx.tick()
            await testbench(ctx)
        return late

    async def watchdog(ctx):
        for _ in range(cycles):
            await ctx.tick()
        raise TimeoutError(f"not finished after {cycles} cycles")

    sim = Simulator(dut)
    sim.add_clock(CLOCK)
    for testbench in testbenches:
        sim.add_testbench(settled(testbench))
    for testbench in (*background, watchdog):
        sim.add_testbench(testbench, background=True)
    sim.run()


class Memory:
    """Host memory: bytes at addresses, read over ``reads`` and ``read_data`` in order, after ``latency`` cycles."""

    def __init__(self, seed=1, latency=(5, 40), stall=0.3):
        self.bytes, self.rng, self.latency, self.stall = {}, random.Random(seed), latency, stall
        self.bad = set()               # addresses whose read fails
        self.reads = []                # (address, length) as they came
        self.hold = False              # answer nothing for now
        self._due = []

    def write(self, address, content):
        for offset, byte in enumerate(content):
            self.bytes[address + offset] = byte

    def read(self, address, length):
        return bytes(self.bytes.get(address + n, 0) for n in range(length))

    def requests(self, stream):
        async def testbench(ctx):
            while True:
                request = await receive(ctx, stream, self.rng, self.stall)
                assert request["address"] // 4096 == (request["address"] + request["length"] - 1) // 4096
                self.reads.append((request["address"], request["length"]))
                self._due.append((request, self.rng.randint(*self.latency)))
        return testbench

    def answers(self, stream):
        async def testbench(ctx):
            while True:
                await ctx.tick()
                if not self._due or self.hold:
                    continue
                request, wait = self._due.pop(0)
                for _ in range(wait):
                    await ctx.tick()
                address, length = request["address"], request["length"]
                words = [self.read(address + n, 8) for n in range(0, length, 8)]
                bad = address in self.bad
                if bad:
                    words = words[:self.rng.choice([len(words), self.rng.randint(1, len(words))])]
                for n, word in enumerate(words):
                    last = n == len(words) - 1
                    await send(ctx, stream, {"data": int.from_bytes(word, "little"), "last": last,
                                             "err": bad and last, "client": request["client"]}, self.rng, self.stall)
        return testbench
