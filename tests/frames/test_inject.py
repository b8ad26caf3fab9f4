"""Frames of the host put into the receive path, between those of the wire."""

import itertools
import random

import pytest
from tests.dma.harness import simulate

from emplace.frames.inject import Inject
from emplace_sim import words


class Bench:
    """``wire`` and ``host``: lists of (frame, idle cycles before it, err)."""

    def __init__(self, wire, host, *, depth=512, seed=1, host_stall=0.0):
        self.dut, self.rng, self.wire, self.host = Inject(depth), random.Random(seed), wire, host
        self.host_stall = host_stall
        self.frames, self.starts, self.ends, self.overflows = [], [], [], 0
        self.latencies, self.sent = [], 0

    def go(self, cycles=60000):
        dut, cycle, begun = self.dut, [0], []

        def drive(stream, frames, waits):
            async def bench(ctx):
                for frame, idle, err in frames:
                    for _ in range(idle):
                        await ctx.tick()
                    for n, word in enumerate(words.split(frame, 8, err=err)):
                        while waits and n == 0 and self.rng.random() < self.host_stall:
                            await ctx.tick()
                        ctx.set(stream.payload, word)
                        ctx.set(stream.valid, 1)
                        if n == 0 and not waits:
                            begun.append((frame, cycle[0] + 1))
                        ready = False
                        while not ready:
                            _, _, ready = await ctx.tick().sample(stream.ready)
                            assert ready or waits, "the wire does not wait"
                        ctx.set(stream.valid, 0)
                for _ in range(1500):
                    await ctx.tick()
            return bench

        async def sink(ctx):
            got = []
            while True:
                _, _, valid, payload, injected, overflow = await ctx.tick().sample(
                    dut.o.valid, dut.o.payload, dut.injected, dut.overflow)
                cycle[0] += 1
                self.overflows += overflow
                if valid:
                    if not got:
                        self.starts.append(cycle[0])
                    got.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
                    if got[-1]["last"]:
                        self.ends.append(cycle[0])
                        self.frames.append((*words.join(got, 8), bool(injected)))
                        got = []
        simulate(dut, drive(dut.wire, self.wire, False), drive(dut.host, self.host, True), background=[sink], cycles=cycles)
        self.latencies = [start - next(at for data, at in begun if data == frame)
                          for (frame, _, injected), start in zip(self.frames, self.starts, strict=True) if not injected]
        return self

    def of(self, injected):
        return [frame for frame, err, mark in self.frames if mark == injected and not err]

    def check_gaps(self):
        """What comes out is never denser than a wire."""
        assert all(b - a >= 3 for a, b in zip(self.ends, self.starts[1:], strict=False))
        assert all(b - a >= 10 for a, b in zip(self.starts, self.starts[1:], strict=False))


def line_rate(rng, count, lengths=(60, 1514)):
    """Frames as a busy wire delivers them: 20 octets and the FCS more than their own."""
    found, time, at = [], 0, 0
    for _ in range(count):
        length = rng.choice([lengths[0], lengths[1], rng.randint(*lengths)])
        start = -(-time // 8)
        found.append((rng.randbytes(length), max(start - at, 0), False))
        at = max(start, at) + -(-length // 8)
        time += length + 24
    return found


def test_straight():
    """Nothing of the host: every frame goes through as it comes, bad ones included, in the same cycle."""
    rng = random.Random(1)
    wire = [(frame, gap, rng.random() < 0.2) for frame, gap, _ in line_rate(rng, 30)]
    bench = Bench(wire, []).go()
    assert bench.frames == [(frame, err, False) for frame, _, err in wire]
    assert set(bench.latencies) == {0}


@pytest.mark.parametrize("seed", range(3))
def test_between(seed):
    """Frames of the host among those of a busy wire: all come out, each in its order."""
    rng = random.Random(seed)
    wire = line_rate(rng, 40, (60, 400))
    host = [(rng.randbytes(rng.choice([60, 300])), rng.randint(200, 600), False) for _ in range(6)]
    bench = Bench(wire, host, seed=seed).go()
    assert bench.of(False) == [frame for frame, _, _ in wire] and bench.of(True) == [frame for frame, _, _ in host]
    assert bench.overflows == 0 and max(bench.latencies) > 0
    bench.check_gaps()


def test_straight_again():
    """Behind a pause of the wire, frames go straight through again."""
    rng = random.Random(2)
    (later, _, _), *last = line_rate(rng, 6, (60, 300))
    wire = line_rate(rng, 10, (60, 300)) + [(later, 600, False), *last]
    bench = Bench(wire, [(rng.randbytes(200), 100, False)]).go()
    assert bench.latencies[0] == 0 and max(bench.latencies[:10]) > 0 and bench.latencies[10:] == [0] * 6
    assert len(bench.of(True)) == 1
    bench.check_gaps()


def test_idle_wire():
    rng = random.Random(3)
    host = [(rng.randbytes(60), 0, False) for _ in range(5)]
    bench = Bench([], host).go()
    assert bench.of(True) == [frame for frame, _, _ in host]
    bench.check_gaps()


def test_bad_frames():
    """Frames that the MAC condemned don't come out of the queue as good ones."""
    rng = random.Random(4)
    wire = [(frame, gap, n % 3 == 0) for n, (frame, gap, _) in enumerate(line_rate(rng, 30, (60, 200)))]
    bench = Bench(wire, [(rng.randbytes(200), 150, False) for _ in range(3)]).go()
    assert bench.of(False) == [frame for frame, _, err in wire if not err] and len(bench.of(True)) == 3
    assert bench.overflows == 0


def test_overflow():
    """The host floods a busy wire: what finds no room is dropped whole and counted; neither starves; then all is as before."""
    rng = random.Random(5)
    wire = [*line_rate(rng, 60, (200, 1514)), (rng.randbytes(64), 1500, False)]
    host = [(rng.randbytes(1514), 0, False) for _ in range(25)]
    bench = Bench(wire, host).go()
    sent, out = [frame for frame, _, _ in wire], bench.of(False)
    assert bench.of(True) == [frame for frame, _, _ in host]
    assert out == [frame for frame in sent if frame in out] and len(sent) - len(out) == bench.overflows > 5
    # In turns: never two of the host in a row while the wire's wait.
    marks = [mark for _, _, mark in bench.frames[2:40]]
    assert not any(a and b for a, b in itertools.pairwise(marks))
    assert bench.latencies[-1] == 0
    bench.check_gaps()


def test_slow_host():
    """A frame of the host whose first word comes late holds nothing up."""
    rng = random.Random(6)
    wire, host = line_rate(rng, 20, (60, 400)), [(rng.randbytes(400), 0, False) for _ in range(6)]
    bench = Bench(wire, host, host_stall=0.97).go()
    assert bench.of(False) == [frame for frame, _, _ in wire] and bench.of(True) == [frame for frame, _, _ in host]
