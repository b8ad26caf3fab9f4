"""Armed completion queues against the golden model; time; races between arming and completions."""

import random

import pytest
from tests.queues.bench import run
from tests.queues.harness import CONFIG, idle

from emplace.queues.notify import Notifier
from emplace.stream.scrub import scrub_cycles
from emplace_sim.notify_model import ArmedCq

VECTORS = {0: 0, 1: 3, 2: 3, 3: 1}
SETTLE = 60            # cycles until an event of ours has been looked at, whatever came before


class Host:
    """Around a Notifier: ``raised`` has (cycle, vector) of every notification."""

    def __init__(self):
        self.dut = Notifier(CONFIG)
        self.raised, self.cycle = [], 0

    async def watch(self, ctx):
        while True:
            _, _, notify = await ctx.tick().sample(self.dut.notify)
            self.cycle += 1
            if notify.en:
                self.raised.append((self.cycle, notify.vector))

    async def strobe(self, ctx, port, **fields):
        ctx.set(port, {"en": 1, **fields})
        await ctx.tick()
        ctx.set(port.en, 0)

    async def create(self, ctx, cq, count=0, period=0):
        await self.strobe(ctx, self.dut.change, cq=cq, vector=VECTORS[cq], count=count, period=period)
        await idle(ctx, SETTLE)

    async def complete(self, ctx, cq, solicited=0):
        await self.strobe(ctx, self.dut.completed, cq=cq, solicited=solicited)
        await idle(ctx, 5)

    async def arm(self, ctx, cq, index, solicited=0):
        await self.strobe(ctx, self.dut.arm, cq=cq, index=index & 0xFFFF, solicited=solicited)

    def run(self, *users, cycles=200_000):
        run(self.dut, *users, background=[self.watch], cycles=cycles, settle=scrub_cycles(CONFIG))


@pytest.mark.parametrize("seed", range(4))
def test_against_the_model(seed):
    """All kinds of order, on all CQs; periods that do not end."""
    host, rng = Host(), random.Random(seed)
    counts = [rng.choice([0, 1, 2, 3, 8]) for _ in range(CONFIG.cqs)]
    models = [ArmedCq(count) for count in counts]
    consumed = [0] * CONFIG.cqs
    expected = []

    async def user(ctx):
        for cq, count in enumerate(counts):
            await host.create(ctx, cq, count, 0xFFFF)
        for _ in range(250):
            cq = rng.randrange(CONFIG.cqs)
            model = models[cq]
            what = rng.random()
            before = len(host.raised)
            if what < 0.55:
                solicited = rng.random() < 0.3
                fires = model.completed(solicited)
                await host.complete(ctx, cq, solicited)
            elif what < 0.95:
                consumed[cq] = rng.choice([consumed[cq], model.produced, rng.randint(consumed[cq], model.produced)])
                solicited = rng.random() < 0.5
                fires = model.arm(consumed[cq], solicited)
                await host.arm(ctx, cq, consumed[cq], solicited)
            else:
                models[cq], consumed[cq], fires = ArmedCq(counts[cq]), 0, False
                await host.create(ctx, cq, counts[cq], 0xFFFF)
            await idle(ctx, SETTLE)
            expected.append(VECTORS[cq]) if fires else None
            assert [vector for _, vector in host.raised[before:]] == [VECTORS[cq]] * fires

    host.run(user)
    assert 10 < len(expected) == len(host.raised)


@pytest.mark.slow
def test_indices_go_round():
    """Producer and index beyond 2**16, and a solicited completion that lies more than 2**15 back."""
    host, model = Host(), ArmedCq()

    async def user(ctx):
        await host.create(ctx, 2)
        await host.complete(ctx, 2, 1)
        model.completed(True)
        for n in range(0x8000 + 3):
            await host.complete(ctx, 2)
            model.completed(False)
            if n in (0x7FFD, 0x7FFE, 0x7FFF, 0x8002):
                assert not model.arm(model.produced, True)
                await host.arm(ctx, 2, model.produced, 1)            # for ever armed for solicited ones
                await idle(ctx, SETTLE)
        assert not host.raised
        await host.arm(ctx, 2, model.produced - 0x7000, 1)           # none of those was solicited
        await idle(ctx, SETTLE)
        assert not host.raised
        while model.produced < 0x10002:
            await host.complete(ctx, 2)
            model.completed(False)
        await host.arm(ctx, 2, model.produced)
        await idle(ctx, SETTLE)
        assert not host.raised
        await host.complete(ctx, 2)
        await idle(ctx, SETTLE)
        assert len(host.raised) == 1

    host.run(user, cycles=800_000)


@pytest.mark.parametrize("period", [0, 1, 5])
def test_fewer_wait_for_the_period(period):
    """From the first one that counts on; a second arming does not begin it anew."""
    host = Host()
    host.now = 0
    unit = 40

    async def clock(ctx):
        now = 0
        while True:
            for _ in range(unit):
                await ctx.tick()
            now += 1
            ctx.set(host.dut.now, now & 0x1FFFF)

    async def user(ctx):
        await idle(ctx, 17)
        for cq in range(4):
            await host.create(ctx, cq, 3, period)
        for round_ in range(3):
            await host.arm(ctx, 1, 0 if round_ == 0 else 2 * round_)
            await idle(ctx, 6 * unit)
            assert len(host.raised) == round_                        # nothing has come: nothing to tell
            begin = host.cycle
            await host.complete(ctx, 1)
            await idle(ctx, 10)
            if period > 1:
                await idle(ctx, 2 * unit)
                await host.arm(ctx, 1, 2 * round_)                   # a second one: the time goes on
            await host.complete(ctx, 1)
            while len(host.raised) == round_:
                await ctx.tick()
            late = host.raised[-1][0] - begin
            assert (period - 1) * unit < late <= period * unit + 5 * CONFIG.cqs + 40
            await idle(ctx, 10 * unit)
            assert len(host.raised) == round_ + 1                    # once
        assert {vector for _, vector in host.raised} == {VECTORS[1]}

    run(host.dut, user, background=[host.watch, clock], cycles=20_000, settle=scrub_cycles(CONFIG))


@pytest.mark.parametrize("solicited", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_no_wake_up_is_lost(seed, solicited):
    """A consumer that arms, polls and sleeps, with completions at any time, one right after the other or not."""
    host, rng = Host(), random.Random(f"{seed} {solicited}")
    written, last = [], [0]
    total = 150
    wakes = []

    async def producer(ctx):
        for n in range(total):
            await idle(ctx, rng.choice([0, 0, 1, 2, 3, 5, 8, 13, 30]))
            kind = int(rng.random() < 0.4 or n == total - 1)
            written.append(kind)
            if kind:
                last[0] = len(written)
            await host.complete(ctx, 1, kind)

    async def consumer(ctx):
        consumed = 0
        while consumed < total:
            seen = len(host.raised)
            await host.arm(ctx, 1, consumed, solicited)
            waited = 0
            while len(host.raised) == seen:
                await ctx.tick()
                # What it waits for lies there: it must be told soon.
                there = last[0] > consumed if solicited else len(written) > consumed
                waited = waited + 1 if there else 0
                assert waited < 60, f"asleep with {len(written)} written, {consumed} consumed"
            await idle(ctx, rng.randrange(12))
            consumed = len(written)
            wakes.append(consumed)

    async def create(ctx):
        await host.create(ctx, 1)
        await producer(ctx)

    async def later(ctx):
        await idle(ctx, SETTLE + 5)
        await consumer(ctx)

    host.run(create, later)
    assert len(wakes) > 10


def test_what_coalesces_is_not_lost():
    """All CQs armed in a row, twice, of both kinds, while another's completions keep it busy."""
    host = Host()

    async def user(ctx):
        for cq in range(4):
            await host.create(ctx, cq)
        for cq in (1, 2, 3):
            await host.complete(ctx, cq, cq == 2)
        for _ in range(2):
            for cq in (1, 2, 3):
                await host.arm(ctx, cq, 0, cq == 2)
        await idle(ctx, 3 * SETTLE)
        raised = sorted(vector for _, vector in host.raised)
        assert {VECTORS[1], VECTORS[3]} <= set(raised) and 3 <= len(raised) <= 6

    async def busy(ctx):
        await idle(ctx, 4 * SETTLE + 20)
        for _ in range(30):
            await host.complete(ctx, 0)

    host.run(user, busy)
