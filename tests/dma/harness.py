"""What the tests of this layer share: a watchdog, stream drivers, and host memory as a byte function."""

import random

from amaranth.sim import Simulator

from emplace_sim import words
from emplace_sim.host_tlp import Tlp

CONTROL, COMPLETER = 0x0102, 0x0000


def simulate(dut, *benches, cycles=20000, background=()):
    """Run ``benches`` (async functions of ctx) until all are done; fail after ``cycles``."""
    sim = Simulator(dut)
    sim.add_clock(8e-9)

    async def watchdog(ctx):
        for _ in range(cycles):
            await ctx.tick()
        raise AssertionError(f"hangs: not done after {cycles} cycles")
    sim.add_testbench(watchdog, background=True)
    for bench in background:
        sim.add_testbench(bench, background=True)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


async def put(ctx, stream, payload, *, rng=None, idle=0.0):
    while rng is not None and rng.random() < idle:
        await ctx.tick()
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    ready = False
    while not ready:                     # until() of a testbench that is left unfinished prints noise
        _, _, ready = await ctx.tick().sample(stream.ready)
    ctx.set(stream.valid, 0)


async def put_packet(ctx, stream, packet, *, rng=None, idle=0.0, err=False):
    for word in words.split(packet, stream.p.shape().nbytes, err=err):
        await put(ctx, stream, word, rng=rng, idle=idle)


async def get(ctx, stream, *, rng=None, stall=0.0):
    while rng is not None and rng.random() < stall:
        await ctx.tick()
    ctx.set(stream.ready, 1)
    valid = False
    while not valid:
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
    ctx.set(stream.ready, 0)
    return payload


class TlpSink:
    """Collects packets of a TLP stream as (bytes, err), with the cycle in which each ended; always ready, or at random."""

    def __init__(self, stream, *, seed=0, stall=0.0):
        self.stream, self.rng, self.stall = stream, random.Random(seed), stall
        self.packets, self.ends, self.cycle = [], [], 0
        self.arrived = lambda packet, err: None

    async def run(self, ctx):
        nbytes, got, stream = self.stream.p.shape().nbytes, [], self.stream
        while True:
            ctx.set(stream.ready, self.rng.random() >= self.stall)
            _, _, valid, ready, payload = await ctx.tick().sample(stream.valid, stream.ready, stream.payload)
            self.cycle += 1
            if valid and ready:
                got.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
                if got[-1]["last"]:
                    packet, err = words.join(got, nbytes)
                    got = []
                    self.packets.append((packet, err))
                    self.ends.append(self.cycle)
                    self.arrived(packet, err)


class Memory(dict):
    """Host memory byte by byte; what was never written is absent."""

    def store(self, address, data):
        for n, byte in enumerate(data):
            self[address + n] = byte

    def take(self, packet, max_payload):
        """Check a MWr against the rules of the bus and carry it out."""
        tlp = Tlp.parse(packet)
        assert tlp.kind == "MWr", tlp
        tlp.check_request()
        assert len(tlp.payload) <= max_payload, f"{len(tlp.payload)} bytes of payload"
        for address, data in tlp.writes():
            self.store(address, data)
        return tlp
