"""Random packets through a component, compared with what went in."""

import random

from amaranth.sim import Simulator

from emplace_sim import words


def packets(rng, count, longest):
    return [rng.randbytes(rng.choice([1, rng.randint(1, 8), rng.randint(1, longest)])) for _ in range(count)]


async def send(ctx, stream, items, rng, idle, domain="sync", spoil=None, extra=None):
    """Send packets; ``spoil`` names those with err, ``extra(n)`` gives further fields of every word."""
    nbytes = stream.p.shape().nbytes
    for n, packet in enumerate(items):
        for word in words.split(packet, nbytes, err=spoil is not None and n in spoil):
            while rng.random() < idle:
                await ctx.tick(domain)
            ctx.set(stream.payload, {**word, **(extra(n) if extra else {})})
            ctx.set(stream.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick(domain).sample(stream.ready)
            ctx.set(stream.valid, 0)


async def receive(ctx, stream, count, rng, stall, domain="sync", gaps=None):
    """Take ``count`` packets as (bytes, err). ``gaps`` gets the packets in which ``valid`` fell."""
    nbytes, found, got = stream.p.shape().nbytes, [], []
    previous = None
    while len(found) < count:
        ctx.set(stream.ready, rng.random() >= stall)
        _, _, valid, ready, payload = await ctx.tick(domain).sample(stream.valid, stream.ready, stream.payload)
        if previous is not None:
            assert valid and payload == previous, "a word changed or went before it was taken"
        previous = payload if valid and not ready else None
        if gaps is not None and got and not valid:
            gaps.append(len(found))
        if valid and ready:
            got.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
            if got[-1]["last"]:
                found.append(words.join(got, nbytes))
                got = []
    return found


def simulate(dut, *benches, cycles=20000, clocks=(("sync", 8e-9),), background=()):
    sim = Simulator(dut)
    for n, (domain, period) in enumerate(clocks):
        sim.add_clock(period, phase=1e-9 * n, domain=domain)

    async def watchdog(ctx):
        for _ in range(cycles):
            await ctx.tick(clocks[0][0])
        raise AssertionError("hangs")
    sim.add_testbench(watchdog, background=True)
    for bench in background:
        sim.add_testbench(bench, background=True)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


def through(dut, items, *, idle=0.0, stall=0.0, seed=0, spoil=None, extra=None, count=None, cycles=20000):
    """What comes out of ``dut`` (ports ``i``, ``o``) for ``items``."""
    found = []

    async def source(ctx):
        await send(ctx, dut.i, items, random.Random(f"i{seed}"), idle, spoil=spoil, extra=extra)

    async def sink(ctx):
        found.extend(await receive(ctx, dut.o, len(items) if count is None else count, random.Random(f"o{seed}"), stall))
    simulate(dut, source, sink, cycles=cycles)
    return found
