"""Header samples against frames made at random."""

import random

import pytest
from tests.queues.bench import run

from emplace import abi
from emplace.stats.samples import Samples

BY_LAYER = {layer: [i for i, n in enumerate(abi.SAMPLED) if abi.COUNTERS[n].layer == layer]
            for layer in dict.fromkeys(abi.COUNTERS[n].layer for n in abi.SAMPLED)}


def test_sampled_counters():
    names = {abi.COUNTERS[n].name for n in abi.SAMPLED}
    assert {"rx_fcs_errors", "rx_fragments", "rx_no_slot", "rx_no_connection"} <= names
    assert not names & {"rx_frames", "tx_frames", "rx_segments", "rx_fast_path"}


class Wire:
    """Frames on the tap and their strobes: mac's about a spoiled frame's last word, or behind that of one that was cut and
    before another; others' behind a good one."""

    def __init__(self, seed, gap):
        self.dut, self.rng, self.gap = Samples(), random.Random(seed), gap
        self.counted = {}                # number in SAMPLED: frames that it counted
        self.due = []                    # (cycles to go, number)
        self.cycle, self.judging = 0, -1

    async def tick(self, ctx):
        strobes = 0
        for due in [d for d in self.due if d[0] == self.cycle]:
            strobes |= 1 << due[1]
            self.counted.setdefault(due[1], []).append(due[2])
        ctx.set(self.dut.strobes, strobes)
        await ctx.tick()
        self.cycle += 1

    async def frame(self, ctx, *, length=None, layer=None):
        rng, dut = self.rng, self.dut
        layer = layer or rng.choice(list(BY_LAYER))
        if self.cycle <= self.judging:   # a good frame behind another is never that early; a runt may be
            layer = "mac"
        frame = rng.randbytes(length or rng.choice([rng.randint(1, 70), rng.randint(60, 200)]))
        spoiled, number = layer == "mac", rng.choice(BY_LAYER[layer])
        cut = abi.COUNTERS[abi.SAMPLED[number]].name in ("rx_oversize", "rx_jabbers")
        words = [frame[at:at + 8] for at in range(0, len(frame), 8)]
        for n, word in enumerate(words):
            last = n == len(words) - 1
            while rng.random() < 0.1:
                await self.tick(ctx)
            if last and spoiled:         # the verdict is there before the word, with it, or a cycle later
                verdict = self.cycle + rng.choice([0, 1, 2, 5, 40] if cut else [0, 1, 2])
                self.due.append((verdict, number, frame))
                await self.tick(ctx)
            # What lies past the end may be anything.
            ctx.set(dut.word, {"data": int.from_bytes(word + rng.randbytes(8 - len(word)), "little"),
                               "empty": 8 - len(word), "last": last, "err": spoiled})
            ctx.set(dut.valid, 1)
            await self.tick(ctx)
            ctx.set(dut.valid, 0)
        while cut and self.cycle <= verdict:     # the rest is still on the wire
            await self.tick(ctx)
        if not spoiled:
            self.judging = self.cycle + rng.randint(3, 7)
            self.due.append((self.judging, number, frame))
        for _ in range(rng.randint(*self.gap)):
            await self.tick(ctx)

    async def sample(self, ctx, number):
        found = b""
        for word in range(8):
            ctx.set(self.dut.address, 8 * abi.SAMPLED[number] + word)
            await self.tick(ctx)
            found += ctx.get(self.dut.data).to_bytes(8, "little")
        return found


def padded(frame):
    return frame[:64].ljust(64, b"\0")


@pytest.mark.parametrize("seed", range(3))
def test_each_counter_has_its_last_frame(seed):
    wire = Wire(seed, (24, 30))

    async def user(ctx):
        for number in range(len(abi.SAMPLED)):
            assert await wire.sample(ctx, number) == bytes(64)
        for _ in range(120):
            await wire.frame(ctx)
        for number in range(len(abi.SAMPLED)):
            last = wire.counted[number][-1] if number in wire.counted else b""
            assert await wire.sample(ctx, number) == padded(last), abi.COUNTERS[abi.SAMPLED[number]]
        assert len(wire.counted) > 10

    run(wire.dut, user, cycles=20_000)


@pytest.mark.parametrize("seed", range(4))
def test_dense_frames_are_skipped_never_mixed(seed):
    """Runts as short as the MAC lets pass, without a pause: a sample is always one frame that its counter counted."""
    wire = Wire(10 + seed, (1, 3))

    async def user(ctx):
        for _ in range(400):
            await wire.frame(ctx, length=wire.rng.choice([1, 8, 9, 64, 70]))
        for _ in range(30):
            await wire.tick(ctx)
        for number, frames in wire.counted.items():
            assert await wire.sample(ctx, number) in map(padded, frames)
        await wire.frame(ctx)            # there is time now
        for _ in range(30):
            await wire.tick(ctx)
        last = max(wire.due)
        assert await wire.sample(ctx, last[1]) == padded(last[2])

    run(wire.dut, user, cycles=40_000)


def test_what_is_not_sampled_reads_zero():
    wire = Wire(1, (24, 30))

    async def user(ctx):
        for _ in range(40):
            await wire.frame(ctx)
        for n in range(64):
            if n not in abi.SAMPLED:
                ctx.set(wire.dut.address, 8 * n)
                await wire.tick(ctx)
                assert ctx.get(wire.dut.data) == 0

    run(wire.dut, user, cycles=20_000)
