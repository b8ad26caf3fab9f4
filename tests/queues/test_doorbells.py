import random

from tests.queues.bench import run

from emplace.queues.doorbells import DoorbellTable

N = 4


class Golden:
    """The rule, entry by entry."""

    def __init__(self):
        self.owner, self.limit, self.latest = [None] * N, [0] * N, [0] * N

    def ring(self, number, context, value, move):
        index = number % N
        if self.owner[index] is None or self.owner[index][0] != number or context not in (0, self.owner[index][1]):
            return False
        if not move:
            return True
        if (value - self.latest[index]) % 65536 > (self.limit[index] - self.latest[index]) % 65536:
            return False
        self.latest[index] = value
        return True


async def enter(ctx, dut, golden, index, number, context, limit):
    """A new owner, as the queues do it."""
    ctx.set(dut.look, index)
    await ctx.tick()
    flip = not ctx.get(dut.latest.flip)
    ctx.set(dut.owner, {"en": 1, "index": index,
                        "entry": {"valid": 1, "number": number, "context": context, "flip": flip}})
    ctx.set(dut.limit, {"en": 1, "index": index, "value": limit})
    await ctx.tick()
    ctx.set(dut.owner.en, 0)
    ctx.set(dut.limit.en, 0)
    golden.owner[index], golden.limit[index], golden.latest[index] = (number, context, flip), limit, 0


def test_a_doorbell_every_cycle_agrees_with_the_rule():
    """Owners come and go, limits move, doorbells for one queue follow each other without a gap."""
    dut = DoorbellTable(N)
    golden, rng = Golden(), random.Random(5)
    expected, got = [], []

    async def source(ctx):
        for phase in range(12):
            for index in range(N):
                if phase == 0 or rng.random() < 0.5:
                    start = rng.choice([4, 16, 40])
                    await enter(ctx, dut, golden, index, index + N * rng.randrange(1 << 22), rng.randint(1, 3), start)
            for _ in range(60):
                index = rng.randrange(N) if rng.random() < 0.6 else 0
                number, context = golden.owner[index][:2]
                number = rng.choice([number] * 8 + [number ^ 1 << rng.randrange(2, 32)])
                context = rng.choice([context] * 6 + [0, rng.randint(1, 3)])
                value = (golden.latest[index] + rng.choice([0, 1, 1, 2, 3, 5, 40, 65535])) % 65536
                if rng.random() < 0.2 and number // N:
                    value = golden.limit[index]
                move = rng.random() < 0.9
                ctx.set(dut.ring.payload, {"number": number, "context": context, "value": value, "move": move})
                ctx.set(dut.ring.valid, valid := rng.random() < 0.9)
                if valid:
                    expected.append((number % N, golden.ring(number, context, value, move)))
                await ctx.tick()
            ctx.set(dut.ring.valid, 0)
            for _ in range(5):
                await ctx.tick()
            for index in range(N):
                ctx.set(dut.look, index)
                await ctx.tick()
                latest = ctx.get(dut.latest)
                assert (latest.value if latest.flip == golden.owner[index][2] else 0) == golden.latest[index]
                golden.limit[index] = (golden.latest[index] + rng.randrange(20)) % 65536
                ctx.set(dut.limit, {"en": 1, "index": index, "value": golden.limit[index]})
                await ctx.tick()
                ctx.set(dut.limit.en, 0)

    async def sink(ctx):
        while True:
            _, _, accepted, refused, index = await ctx.tick().sample(dut.accepted, dut.refused, dut.index)
            assert not (accepted and refused)
            if accepted or refused:
                got.append((index, bool(accepted)))

    run(dut, source, background=[sink], settle=N)
    assert got == expected
    assert 100 < sum(ok for _, ok in got) < len(got) - 100, "not a fair mix"


def test_a_new_owner_starts_at_zero_even_after_many():
    dut = DoorbellTable(N)
    golden = Golden()

    async def source(ctx):
        for generation in range(6):
            await enter(ctx, dut, golden, 1, 1 + N * generation, 1, 8)
            for value, good in ((9, False), (3, True), (2, False), (8, True)) if generation % 3 else ():
                ctx.set(dut.ring.payload, {"number": 1 + N * generation, "context": 1, "value": value, "move": 1})
                ctx.set(dut.ring.valid, 1)
                await ctx.tick()
                ctx.set(dut.ring.valid, 0)
                accepted, refused = await ctx.tick().sample(dut.accepted, dut.refused).until(dut.accepted | dut.refused)
                assert (accepted, refused) == (good, not good)

    run(dut, source, settle=N)
