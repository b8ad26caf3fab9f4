"""The MSI-X table as the PCIe specification has it, and moderation of requests."""

import random

import pytest
from tests.queues.bench import receive, run
from tests.queues.harness import CONFIG, idle

from emplace.queues.msix import Msix
from emplace.queues.ports import msix_rows

VECTORS = CONFIG.vectors
ADDRESS = 0xFEE0_0000
SENT = 4 * VECTORS + 40      # cycles until a raise has become a message, whatever else goes on
SETTLE = msix_rows(CONFIG) + 8


class Host:
    """Around an Msix: ``messages`` in order; ``unit`` cycles of its clock."""

    def __init__(self, *, seed=1, stall=0.3, unit=30):
        self.dut = Msix(CONFIG, 3)
        self.rng, self.stall, self.unit = random.Random(seed), stall, unit
        self.messages, self.cycle, self.hold = [], 0, False

    async def _messages(self, ctx):
        while True:
            while self.hold:
                await ctx.tick()
            message = await receive(ctx, self.dut.messages, self.rng, self.stall)
            self.messages.append((message["address"], message["data"]))

    async def _clock(self, ctx):
        now = 0
        while True:
            await ctx.tick()
            self.cycle += 1
            if self.cycle % self.unit == 0:
                now = now + 1 & 0x1FFFF
                ctx.set(self.dut.now, now)

    async def write(self, ctx, row, value, mask=0xFF):
        ctx.set(self.dut.write, {"en": 1, "row": row, "data": value, "mask": mask})
        await ctx.tick()
        ctx.set(self.dut.write.en, 0)

    async def read(self, ctx, row):
        ctx.set(self.dut.look, {"en": 1, "row": row})
        await ctx.tick()
        ctx.set(self.dut.look, {"en": 0, "row": 0})
        return ctx.get(self.dut.word)

    async def entry(self, ctx, vector, masked=0):
        await self.write(ctx, 2 * vector, ADDRESS + 4 * vector)
        await self.write(ctx, 2 * vector + 1, 0x100 + vector | masked << 32)

    async def mask(self, ctx, vector, value):
        await self.write(ctx, 2 * vector + 1, value << 32, 0xF0)

    async def moderate(self, ctx, vector, count, period):
        await self.write(ctx, 2 * VECTORS + vector // 2, (count | period << 8) << 32 * (vector % 2),
                         0xF0 if vector % 2 else 0x0F)

    async def open(self, ctx):
        for vector in range(VECTORS):
            await self.entry(ctx, vector)
        ctx.set(self.dut.enable, 1)

    async def strobe(self, ctx, port, **fields):
        ctx.set(port, {"en": 1, **fields})
        await ctx.tick()
        ctx.set(port.en, 0)

    async def raised(self, ctx, vector):
        await self.strobe(ctx, self.dut.raised, vector=vector)

    async def request(self, ctx, n, vector):
        await self.strobe(ctx, self.dut.requests[n], vector=vector)

    def run(self, *users, background=(), cycles=40_000):
        run(self.dut, *users, background=[self._messages, self._clock, *background], settle=SETTLE, cycles=cycles)


def message(vector):
    return ADDRESS + 4 * vector, 0x100 + vector


def test_table_is_read_as_written():
    """Bytes by mask; mask bits are 1 behind a reset; nothing else is kept of the vector control word's reset value."""
    host, rng = Host(), random.Random(2)
    golden = [bytearray(8) for _ in range(msix_rows(CONFIG))]
    for vector in range(VECTORS):
        golden[2 * vector + 1][4] = 1

    async def user(ctx):
        for row, content in enumerate(golden):
            assert await host.read(ctx, row) == int.from_bytes(content, "little")
        for _ in range(200):
            row, value, mask = rng.randrange(len(golden)), rng.getrandbits(64), rng.getrandbits(8)
            await host.write(ctx, row, value, mask)
            for n in range(8):
                if mask >> n & 1:
                    golden[row][n] = value >> 8 * n & 0xFF
            row = rng.randrange(len(golden))
            assert await host.read(ctx, row) == int.from_bytes(golden[row], "little")

    host.run(user)
    assert not host.messages


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_every_vector_sends_its_message(stall):
    """While the host reads the table all the time; the address' low two bits never get out."""
    host = Host(stall=stall)

    async def reader(ctx):
        while True:
            await idle(ctx, host.rng.randrange(3))
            row = host.rng.randrange(2 * VECTORS)
            word = await host.read(ctx, row)
            if host.cycle > SETTLE + 40 and row % 2:
                assert word == 0x100 + row // 2

    async def user(ctx):
        await host.open(ctx)
        await host.write(ctx, 0, ADDRESS | 3)
        for n in range(6 * VECTORS):
            await host.raised(ctx, n % VECTORS)
            await idle(ctx, SENT)
            assert host.messages == [message(k % VECTORS) for k in range(n + 1)]

    host.run(user, background=[reader])


def test_masks():
    """By entry, by function, disabled: pending, and sent once when they go, however often it was raised."""
    host = Host()
    dut = host.dut

    async def user(ctx):
        async def check(close, open_):
            await close()
            await idle(ctx, SENT)
            before = len(host.messages)
            assert ctx.get(dut.pending) == 0
            for _ in range(3):
                await host.raised(ctx, 2)
                await idle(ctx, 5)
            await idle(ctx, SENT)
            assert len(host.messages) == before and ctx.get(dut.pending) == 1 << 2
            await open_()
            await idle(ctx, SENT)
            assert host.messages[before:] == [message(2)] and ctx.get(dut.pending) == 0

        async def put(port, value):
            ctx.set(port, value)

        await host.open(ctx)
        await check(lambda: host.mask(ctx, 2, 1), lambda: host.mask(ctx, 2, 0))
        await check(lambda: put(dut.mask, 1), lambda: put(dut.mask, 0))
        await check(lambda: put(dut.enable, 0), lambda: put(dut.enable, 1))
        # The others are not masked with it
        await host.mask(ctx, 2, 1)
        for vector in range(VECTORS):
            await host.raised(ctx, vector)
        await idle(ctx, SENT * VECTORS)
        assert sorted(host.messages[3:]) == [message(n) for n in range(VECTORS) if n != 2]

    host.run(user)


def test_a_raise_while_the_message_waits_makes_another():
    host = Host(stall=0.0)

    async def user(ctx):
        await host.open(ctx)
        host.hold = True
        await idle(ctx, 3)
        await host.raised(ctx, 1)
        await idle(ctx, SENT)                    # offered, not taken
        await host.raised(ctx, 1)
        host.hold = False
        await idle(ctx, 2 * SENT)
        assert host.messages == [message(1)] * 2

    host.run(user)


def test_requests_at_once_without_moderation():
    host = Host()

    async def user(ctx):
        await host.open(ctx)
        for n, vector in ((0, 3), (1, 0), (2, 3), (0, 7)):
            before = len(host.messages)
            await host.request(ctx, n, vector)
            await idle(ctx, SENT)
            assert host.messages[before:] == [message(vector)]
        for n in range(3):
            await host.request(ctx, n, VECTORS + n)          # no such vector
            await host.request(ctx, n, 0xFF)
        await idle(ctx, SENT)
        assert len(host.messages) == 4 and ctx.get(host.dut.pending) == 0

    host.run(user)


def test_requests_by_count():
    host = Host(unit=1000)

    async def user(ctx):
        await host.open(ctx)
        await host.moderate(ctx, 1, 3, 0xFFFF)
        await host.moderate(ctx, 0, 2, 0xFFFF)
        for turn in range(3):
            for n in range(3):
                assert len(host.messages) == turn
                await host.request(ctx, n % 3, 1)            # of any requester: the vector counts
                await idle(ctx, SENT)
            assert host.messages[turn:] == [message(1)]
        # As fast as they can come
        for _ in range(6):
            await host.request(ctx, 0, 1)
        await idle(ctx, 3 * SENT)
        assert len(host.messages) in (4, 5)
        await host.request(ctx, 1, 0)
        await host.raised(ctx, 1)                            # a CQ's is not held back
        await idle(ctx, SENT)
        assert host.messages[-1] == message(1) and len(host.messages) in (5, 6)

    host.run(user)


@pytest.mark.parametrize("period", [0, 2, 9])
def test_requests_by_time(period):
    host = Host(stall=0.0)

    async def user(ctx):
        await host.open(ctx)
        await host.moderate(ctx, 2, 200, period)
        for turn in range(3):
            await idle(ctx, host.rng.randrange(3 * host.unit))
            begin = host.cycle
            await host.request(ctx, 0, 2)
            await idle(ctx, 3 * host.unit if period > 3 else 15)
            await host.request(ctx, 0, 2)                    # does not begin it anew
            while len(host.messages) == turn:
                await ctx.tick()
            late = host.cycle - begin
            assert (period - 1) * host.unit < late <= (period + 1) * host.unit + SENT + 6 * VECTORS
            await idle(ctx, (period + 3) * host.unit)
            assert host.messages == [message(2)] * (turn + 1)

    host.run(user)


def test_all_at_once():
    """Raises and requests of all vectors, masks going up and down, the host reading: each raise is told of at the end."""
    host = Host(seed=5, stall=0.5)
    rng = random.Random(6)

    async def user(ctx):
        await host.open(ctx)
        told = [0] * VECTORS
        for _ in range(400):
            vector, kind = rng.randrange(VECTORS), rng.random()
            if kind < 0.4:
                await host.raised(ctx, vector)
                told[vector] = 1
            elif kind < 0.6:
                await host.request(ctx, rng.randrange(3), vector)
                told[vector] = 1
            elif kind < 0.8:
                await host.mask(ctx, vector, rng.getrandbits(1))
            else:
                await host.read(ctx, rng.randrange(msix_rows(CONFIG)))
            await idle(ctx, rng.randrange(8))
        for vector in range(VECTORS):
            await host.mask(ctx, vector, 1)
        await idle(ctx, 10 * SENT)
        pending = ctx.get(host.dut.pending)
        before = len(host.messages)
        for vector in range(VECTORS):
            await host.mask(ctx, vector, 0)
        await idle(ctx, 10 * SENT)
        assert sorted(host.messages[before:]) == [message(n) for n in range(VECTORS) if pending >> n & 1]
        assert {data - 0x100 for _, data in host.messages} == {n for n in range(VECTORS) if told[n]}

    host.run(user)
