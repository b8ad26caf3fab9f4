"""What is to be sent is brought from where its elements lie, as far as protect grants."""

import random

import pytest
from amaranth.sim import Simulator
from tests.stream.harness import receive

from emplace.abi import Access, Reason
from emplace.config import PROFILES
from emplace.protect.records import AccessOp, Outcome, Refusal
from emplace.rdmap.gather import Gather

TINY = PROFILES["tiny"]
PAGE = 4096


async def until(ctx, wanted, *values):
    """Wait as `tick().until` does, in a way that may be left unfinished at the end of a test."""
    while True:
        _, _, done, *found = await ctx.tick().sample(wanted, *values)
        if done:
            return found


class Bench:
    """Lines with WQEs, a protection unit that maps pages at random, a bus. ``jobs``: what is asked; see ``add``."""

    def __init__(self, seed=1, stall=0.3, fail=()):
        self.rng, self.stall, self.fail = random.Random(seed), stall, set(fail)
        self.dut = Gather(TINY)
        self.lines = [[0] * (8 << TINY.send_group_bits) for _ in range(TINY.send_lines)]
        self.pages, self.memory = {}, {}
        self.jobs, self.expected, self.refused = [], [], {}
        self.asked, self.died, self.unpinned, self.reads = [], [], [], []

    def byte(self, lkey, address):
        """What registered memory holds."""
        return (lkey * 31 + address * 7 + (address >> 8)) & 0xFF

    def physical(self, lkey, address):
        key = lkey, address // PAGE
        if key not in self.pages:
            page = self.rng.getrandbits(30)
            while page in self.memory:
                page = self.rng.getrandbits(30)
            self.pages[key], self.memory[page] = page, key
        return self.pages[key] * PAGE + address % PAGE

    def add(self, *, elements=(), offset=0, octets=1, inline=None, refuse=None, **more):
        """A job of (address, length, lkey) ``elements``; ``refuse``: protect's answer to its n-th question."""
        n = len(self.jobs)
        job = {"qp": n % TINY.qps, "pd": 100 + n, "line": self.rng.randrange(TINY.send_lines),
               "place": 2 * self.rng.randrange(1 << TINY.send_group_bits - 1), "elements": len(elements),
               "offset": offset, "octets": octets, **more}
        if inline is not None:
            job |= {"inline": 1, "octets": len(inline)}
            self.expected.append((inline, False))
        elif job.get("remote"):
            self.expected.append((bytes(self.byte(job["stag"], job["to"] + k) for k in range(octets)), False))
        else:
            data = b"".join(bytes(self.byte(lkey, address + k) for k in range(length)) for address, length, lkey in elements)
            self.expected.append((data[offset:offset + octets], False))
        if refuse is not None:
            self.refused[n] = refuse
        self.jobs.append((job, list(elements), inline))

    def load(self, job, elements, inline):
        """The WQE into its line: other words of it hold anything."""
        at = job["place"] * 8
        words = [self.rng.getrandbits(64) for _ in range(16)]
        if inline is not None:
            padded = inline + self.rng.randbytes(96 - len(inline))
            values = [int.from_bytes(padded[k:k + 8], "little") for k in range(0, 96, 8)]
            words[4:16] = values
        for k, (address, length, lkey) in enumerate(elements):
            where = (4, 6, 8, 10)[k]
            words[where:where + 2] = [address, length | lkey << 32]
        self.lines[job["line"]][at:at + 16] = words

    async def drive(self, ctx):
        for n, (job, elements, inline) in enumerate(self.jobs):
            while len(self.unpinned) + sum(bool(j.get("remote")) for j, *_ in self.jobs[:n]) < n:
                await ctx.tick()         # one at a time: it has a line
            self.load(job, elements, inline)
            ctx.set(self.dut.jobs.payload, job)
            ctx.set(self.dut.jobs.valid, 1)
            await until(ctx, self.dut.jobs.ready)
            ctx.set(self.dut.jobs.valid, 0)

    async def watch(self, ctx):
        async for _, _, en, line in ctx.tick().sample(self.dut.unpin.en, self.dut.unpin.line):
            if en:
                self.unpinned.append(int(line))

    async def store(self, ctx):
        value = 0
        async for *_, at in ctx.tick().sample(self.dut.at):
            value = self.lines[int(at.line)][int(at.word)]
            ctx.set(self.dut.data, value)

    async def protect(self, ctx):
        access, granted = self.dut.access, self.dut.granted
        questions = {}
        while True:
            ctx.set(access.ready, 1)
            p, = await until(ctx, access.valid, access.payload)
            ctx.set(access.ready, 0)
            n = int(p.pd) - 100
            job = self.jobs[n][0]
            assert p.op == AccessOp.GRANT and int(p.qp) == job["qp"]
            assert int(p.right) == (Access.REMOTE_READ if job.get("remote") else Access.LOCAL_READ)
            number = questions[n] = questions.get(n, -1) + 1
            offset, length, stag = int(p.offset), int(p.length), int(p.stag)
            assert 1 <= length <= 4096
            self.asked.append((n, stag, offset, length))
            replies = []
            outcome = self.refused.get(n, (None, None))
            if outcome[0] == number:
                replies = [{"outcome": outcome[1], "refusal": Refusal.STAG, "address": 0, "length": 0, "last": 1}]
            else:
                while length:
                    part = min(length, PAGE - offset % PAGE)
                    replies.append({"outcome": Outcome.GRANTED, "address": self.physical(stag, offset), "length": part,
                                    "last": part == length})
                    offset, length = offset + part, length - part
            for reply in replies:
                for _ in range(self.rng.randint(0, 6)):
                    await ctx.tick()
                ctx.set(granted.payload, reply)
                ctx.set(granted.valid, 1)
                await until(ctx, granted.ready)
                ctx.set(granted.valid, 0)

    async def requests(self, ctx):
        reads = self.dut.reads
        while True:
            ctx.set(reads.ready, self.rng.random() >= self.stall)
            _, _, valid, ready, p = await ctx.tick().sample(reads.valid, reads.ready, reads.payload)
            if valid and ready:
                address, length = int(p.address), int(p.length)
                assert 1 <= length <= TINY.read_bytes and address % PAGE + length <= PAGE
                self.reads.append((address, length, int(p.ordered)))

    async def answers(self, ctx):
        o, n = self.dut.read_data, 0
        while True:
            while n >= len(self.reads):
                await ctx.tick()
            for _ in range(self.rng.randint(0, 30) if self.stall else 0):
                await ctx.tick()
            address, length, _ = self.reads[n]
            lkey, page = self.memory[address // PAGE]
            data = bytes(self.byte(lkey, page * PAGE + address % PAGE + k) for k in range(length))
            words = [data[k:k + 8] for k in range(0, length, 8)]
            bad = n in self.fail
            if bad:
                words = words[:self.rng.randint(1, len(words))]
            for k, word in enumerate(words):
                while self.rng.random() < self.stall:
                    await ctx.tick()
                last = k == len(words) - 1
                ctx.set(o.payload, {"data": int.from_bytes(word.ljust(8, b"\xa5"), "little"),
                                    "empty": 8 - len(word) if last else 0, "last": last, "err": bad and last})
                ctx.set(o.valid, 1)
                await until(ctx, o.ready)
                ctx.set(o.valid, 0)
            n += 1

    async def deaths(self, ctx):
        died = self.dut.died
        while True:
            ctx.set(died.ready, self.rng.random() >= self.stall)
            _, _, valid, ready, p = await ctx.tick().sample(died.valid, died.ready, died.payload)
            if valid and ready:
                self.died.append((int(p.qp), Reason(int(p.reason))))

    def run(self, cycles=200_000):
        found = []

        async def sink(ctx):
            found.extend(await receive(ctx, self.dut.payload, len(self.jobs), random.Random("s"), self.stall))
            await ctx.tick().repeat(20)

        async def watchdog(ctx):
            for _ in range(cycles):
                await ctx.tick()
            raise AssertionError("hangs")
        sim = Simulator(self.dut)
        sim.add_clock(8e-9)
        for bench in (watchdog, self.drive, self.watch, self.store, self.protect, self.requests, self.answers, self.deaths):
            sim.add_testbench(bench, background=True)
        sim.add_testbench(sink)
        sim.run()
        assert len(self.unpinned) == sum(not job.get("remote") for job, *_ in self.jobs)
        return found


def some_elements(rng, count):
    return [(rng.choice([rng.getrandbits(48), rng.getrandbits(36) << 12, (rng.getrandbits(36) << 12) - rng.randint(1, 20)]),
             rng.choice([0, 1, 3, rng.randint(1, 100), rng.randint(1, 5000)]), rng.getrandbits(32)) for _ in range(count)]


@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.4), (3, 0.7)])
def test_random(seed, stall):
    """Elements of any length and place, zero-length ones among them; parts of the message; inline; the peer's reads."""
    b, rng = Bench(seed, stall), random.Random(seed)
    while len(b.jobs) < 60:
        kind = rng.random()
        if kind < 0.2:
            b.add(inline=rng.randbytes(rng.randint(1, 96)))
        elif kind < 0.35:
            b.add(remote=1, stag=rng.getrandbits(32), to=rng.getrandbits(48), octets=rng.randint(1, 1428))
        else:
            elements = some_elements(rng, rng.randint(1, 4))
            total = sum(length for _, length, _ in elements)
            if total:
                offset = rng.randrange(total)
                b.add(elements=elements, offset=offset, octets=min(rng.randint(1, 1428), total - offset))
    assert b.run() == b.expected
    assert not b.died


def test_the_peers_reads_come_behind_its_writes():
    """They are ordered on the bus; what the host sends isn't."""
    b = Bench(5, 0.2)
    b.add(remote=1, stag=7, to=0x1000, octets=100)
    b.add(elements=[(0x5000, 64, 9)], octets=64)
    assert b.run() == b.expected
    assert [ordered for _, _, ordered in b.reads] == [1, 0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_refused(seed):
    """Its packet has err, its stream ends with the reason, the others are whole."""
    b, rng = Bench(seed), random.Random(seed)
    reasons = []
    for n in range(24):
        elements = [(rng.getrandbits(40), rng.randint(1, 400), rng.getrandbits(32)) for _ in range(3)]
        total = sum(length for _, length, _ in elements)
        kind = n % 6
        if kind == 1:
            b.add(elements=elements, octets=total, refuse=(rng.randrange(3), Outcome.REFUSED))
            reasons.append((n, Reason.SOURCE_ACCESS))
        elif kind == 2:
            b.add(elements=elements, octets=total, refuse=(2, Outcome.REFUSED), again=1)
            reasons.append((n, Reason.SOURCE_REVOKED))
        elif kind == 3:
            b.add(remote=1, stag=3, to=77, octets=300, refuse=(0, Outcome.REFUSED))
            reasons.append((n, Reason.READ_ACCESS))
        elif kind == 4:
            b.add(elements=elements, octets=total + rng.randint(1, 50))
            reasons.append((n, Reason.SQ_WQE))
        elif kind == 5:
            b.add(elements=elements, octets=total, refuse=(1, Outcome.NOT_NOW))
            reasons.append((n, Reason.NOT_NOW))
        else:
            b.add(elements=elements, octets=total)
    found = b.run()
    bad = {n for n, _ in reasons}
    assert [err for _, err in found] == [n in bad for n in range(24)]
    assert all(found[n] == b.expected[n] for n in range(24) if n not in bad)
    assert b.died == [(n % TINY.qps, reason) for n, reason in reasons]


def test_failed_reads():
    """A read that fails spoils its own packet, and is told each time."""
    b, rng = Bench(4, fail=range(0, 90, 4)), random.Random(4)
    for _ in range(30):
        b.add(elements=[(rng.getrandbits(40), 700, 5), (rng.getrandbits(40), 700, 6)], octets=1400)
    found = b.run()
    assert any(err for _, err in found)
    assert all(one == other for one, other in zip(found, b.expected, strict=True) if not one[1])
    assert {reason for _, reason in b.died} == {Reason.SOURCE_FETCH}
    assert {qp for qp, _ in b.died} == {n % TINY.qps for n, (_, err) in enumerate(found) if err}
