"""Send WQEs: fetched in groups, kept in lines, as the host posted them."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from emplace import abi
from emplace.config import PROFILES, NicConfig
from emplace.queues.doorbells import DoorbellTable
from emplace.queues.records import LineOutcome, SendOrderOp
from emplace.queues.send_lines import WqeLines

TINY = PROFILES["tiny"]


class Table(wiring.Component):
    """The lines with their doorbells."""

    def __init__(self, config):
        self.config = config
        self.lines, self.doorbells = WqeLines(config), DoorbellTable(config.qps)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.lines, m.submodules.doorbells = lines, doorbells = self.lines, self.doorbells
        m.d.comb += [
            doorbells.owner.eq(lines.owner), doorbells.limit.eq(lines.limit), doorbells.look.eq(lines.look),
            lines.latest.eq(doorbells.latest), lines.rung.en.eq(doorbells.accepted), lines.rung.index.eq(doorbells.index),
        ]
        return m


class Bench:
    """A host's rings, a bus with random delays, and an asker. ``script(bench, ctx)`` runs against it."""

    def __init__(self, config=TINY, seed=1, delay=60, fail=0.0):
        self.config, self.rng, self.delay, self.fail = config, random.Random(seed), delay, fail
        self.dut = Table(config)
        self.rings, self.posted, self.log2 = {}, {}, {}
        self.ready, self.reads, self.failing, self.cycle = [], [], set(), 0

    def wqe(self, qp, index):
        """What the host wrote for the WQE with this running index."""
        return random.Random(f"{qp}.{index}.{self.rings[qp]}").randbytes(abi.nbytes(abi.SendWqe))

    async def order(self, ctx, op, qp, log2=4):
        lines = self.dut.lines
        if op == SendOrderOp.INSTALL:
            self.rings[qp], self.posted[qp], self.log2[qp] = self.rng.randrange(1 << 40) << 12, 0, log2
            ctx.set(lines.cmd, {"qpn": qp, "sq_base": self.rings[qp], "sq_log2": log2, "context": 0})
        ctx.set(lines.order.payload, {"op": op, "qp": qp})
        ctx.set(lines.order.valid, 1)
        await ctx.tick().until(lines.order.ready)
        ctx.set(lines.order.valid, 0)

    async def post(self, ctx, qp, count):
        ring = self.dut.doorbells.ring
        self.posted[qp] += count
        ctx.set(ring.payload, {"number": qp, "context": 0, "value": self.posted[qp] & 0xFFFF, "move": 1})
        ctx.set(ring.valid, 1)
        await ctx.tick()
        ctx.set(ring.valid, 0)
        await ctx.tick().repeat(5)

    async def retire(self, ctx, qp, done):
        """As the unit above does: so many more may be posted."""
        ctx.set(self.dut.lines.retired, {"en": 1, "index": qp, "value": (done + (1 << self.log2[qp])) & 0xFFFF})
        await ctx.tick()
        ctx.set(self.dut.lines.retired, {"en": 0})

    async def ask(self, ctx, qp, index):
        lines = self.dut.lines
        ctx.set(lines.ask.payload, {"qp": qp, "index": index & 0xFFFF})
        ctx.set(lines.ask.valid, 1)
        await ctx.tick().until(lines.ask.ready)
        ctx.set(lines.ask.valid, 0)
        ctx.set(lines.answer.ready, 1)
        p, = await ctx.tick().sample(lines.answer.payload).until(lines.answer.valid)
        ctx.set(lines.answer.ready, 0)
        return LineOutcome(p.outcome), int(p.line), int(p.posted)

    async def read(self, ctx, line, index, port=0):
        lines, out = self.dut.lines, b""
        for word in range(8):
            ctx.set(lines.at[port], {"line": line, "word": (index % (1 << self.config.send_group_bits)) << 3 | word})
            await ctx.tick()
            out += ctx.get(lines.data[port]).to_bytes(8, "little")
        return out

    async def unpin(self, ctx, line, port=0):
        ctx.set(self.dut.lines.unpin[port], {"en": 1, "line": line})
        await ctx.tick()
        ctx.set(self.dut.lines.unpin[port], {"en": 0})

    async def get(self, ctx, qp, index):
        """The WQE's bytes and its line, pinned; asks again whenever it is told LATER."""
        for _ in range(300):
            outcome, line, _ = await self.ask(ctx, qp, index)
            if outcome == LineOutcome.HERE:
                return await self.read(ctx, line, index, self.rng.randrange(2)), line
            if outcome != LineOutcome.LATER:
                return outcome, None
            for _ in range(2000):
                if qp in self.ready:
                    break
                await ctx.tick()
            else:
                raise AssertionError("not named on `ready`")
            self.ready.remove(qp)
        raise AssertionError("never here")

    async def bus(self, ctx):
        """Reads in order, each after its delay; a read that fails ends early, with err."""
        lines, queue = self.dut.lines, []
        sending = None
        async for *_, reading, request, taken, ringing, who in ctx.tick().sample(
                lines.reads.valid, lines.reads.payload, lines.read_data.ready, lines.ready.valid, lines.ready.p.qp):
            self.cycle += 1
            if ringing and who not in self.ready:
                self.ready.append(int(who))
            if reading and ctx.get(lines.reads.ready):
                queue.append((self.cycle + self.rng.randint(5, self.delay), int(request.address), int(request.length)))
                self.reads.append((int(request.address), int(request.length)))
            if sending and taken and ctx.get(lines.read_data.valid):
                sending.pop(0)
            if not sending and queue and queue[0][0] <= self.cycle:
                _, address, length = queue.pop(0)
                data = b"".join(self.at(address + n) for n in range(0, length, 64))
                words = [data[n:n + 8] for n in range(0, length, 8)]
                bad = self.rng.random() < self.fail
                if bad:
                    words = words[:self.rng.randint(1, len(words))]
                sending = [(w, n == len(words) - 1, bad) for n, w in enumerate(words)]
            show = bool(sending) and self.rng.random() < 0.8
            if show or not ctx.get(lines.read_data.valid) or taken:
                ctx.set(lines.read_data.valid, show)
                if show:
                    word, last, bad = sending[0]
                    ctx.set(lines.read_data.payload, {"data": int.from_bytes(word, "little"), "last": last,
                                                      "err": last and bad})
            ctx.set(lines.reads.ready, self.rng.random() < 0.7)
            ctx.set(lines.ready.ready, 1)

    def at(self, address):
        for qp, base in self.rings.items():
            slot = (address - base) // 64
            if 0 <= slot < 1 << self.log2[qp]:
                newest = self.posted[qp] - 1
                index = newest - (newest - slot) % (1 << self.log2[qp])
                return self.wqe(qp, index)
        raise AssertionError(f"read of {address:#x}, where no ring is")

    def run(self, script, cycles=150_000):
        sim = Simulator(self.dut)
        sim.add_clock(8e-9)

        async def watchdog(ctx):
            for _ in range(cycles):
                await ctx.tick()
            raise AssertionError("hangs")

        async def main(ctx):
            await ctx.tick().repeat(80)
            await script(self, ctx)
        sim.add_testbench(watchdog, background=True)
        sim.add_testbench(self.bus, background=True)
        sim.add_testbench(main)
        sim.run()


SMALL = NicConfig(name="small", qps=16, cqs=16, regions=64, read_bytes=128, send_lines=2)


@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda c: c.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_in_order(config, seed):
    """Several QPs post at random and use their WQEs in order, over many laps of their rings."""
    async def script(b, ctx):
        qps = [3, 4, 9, 15]
        done = dict.fromkeys(qps, 0)
        for qp in qps:
            await b.order(ctx, SendOrderOp.INSTALL, qp, log2=b.rng.choice([3, 4, 5]))
        for _ in range(110):
            qp = b.rng.choice(qps)
            room = (1 << b.log2[qp]) - (b.posted[qp] - done[qp])
            if room and b.rng.random() < 0.6:
                await b.post(ctx, qp, b.rng.randint(1, room))
            for _ in range(b.rng.randint(0, b.posted[qp] - done[qp])):
                wqe, line = await b.get(ctx, qp, done[qp])
                assert wqe == b.wqe(qp, done[qp])
                await b.unpin(ctx, line, b.rng.randrange(2))
                done[qp] += 1
            await b.retire(ctx, qp, done[qp])
            if done[qp] == b.posted[qp]:
                assert (await b.ask(ctx, qp, done[qp]))[0] == LineOutcome.EMPTY
        assert sum(done.values()) > 100
    Bench(config, seed).run(script)


def test_pinned_lines_stay():
    """While other QPs need lines; with all pinned the answer is LATER, and it comes once one is free."""
    async def script(b, ctx):
        for qp in range(6):
            await b.order(ctx, SendOrderOp.INSTALL, qp)
            await b.post(ctx, qp, 4)
        pinned = []
        for qp in range(b.config.send_lines):
            wqe, line = await b.get(ctx, qp, 1)
            assert wqe == b.wqe(qp, 1)
            pinned.append((qp, line))
        assert len({line for _, line in pinned}) == b.config.send_lines
        assert (await b.ask(ctx, 5, 0))[0] == LineOutcome.LATER
        for qp, line in pinned:
            assert await b.read(ctx, line, 2) == b.wqe(qp, 2)
        await b.unpin(ctx, pinned[2][1])
        wqe, line = await b.get(ctx, 5, 0)
        assert wqe == b.wqe(5, 0) and line == pinned[2][1]
    Bench().run(script)


def test_many_qps_with_few_lines():
    """Nobody loses a line before he has used it, and nobody is kept from one for good by who never comes back."""
    async def script(b, ctx):
        qps = list(range(TINY.qps))
        for qp in qps:
            await b.order(ctx, SendOrderOp.INSTALL, qp)
            await b.post(ctx, qp, 3)
        done, asked = dict.fromkeys(qps[4:], 0), 0
        for qp in qps[:4]:
            await b.ask(ctx, qp, 0)              # and never again
        while any(n < 3 for n in done.values()):
            for qp, n in done.items():
                if n < 3:
                    asked += 1
                    outcome, line, _ = await b.ask(ctx, qp, n)
                    if outcome == LineOutcome.HERE:
                        assert await b.read(ctx, line, n) == b.wqe(qp, n)
                        await b.unpin(ctx, line)
                        done[qp] += 1
        assert asked < 3000
    Bench(delay=100).run(script)


def test_failed_reads():
    """A read that fails is told once; the next ask reads again. No other WQE is hurt."""
    async def script(b, ctx):
        failures = 0
        for qp in range(3):
            await b.order(ctx, SendOrderOp.INSTALL, qp, log2=7)
            await b.post(ctx, qp, 64)
        for index in range(64):
            for qp in range(3):
                while True:
                    wqe, line = await b.get(ctx, qp, index)
                    if wqe != LineOutcome.FAILED:
                        break
                    failures += 1
                assert wqe == b.wqe(qp, index)
                await b.unpin(ctx, line)
        assert failures > 5
    Bench(fail=0.3).run(script)


def test_new_owner():
    """A QP that is installed anew sees nothing of the ring before it, not even of a read that was under way."""
    async def script(b, ctx):
        for n in range(12):
            await b.order(ctx, SendOrderOp.INSTALL, 7)
            assert (await b.ask(ctx, 7, 0))[0] == LineOutcome.EMPTY
            await b.post(ctx, 7, 5)
            if n % 3:
                await b.ask(ctx, 7, 0)
                await ctx.tick().repeat(b.rng.randint(0, 40))
            else:
                for index in range(5):
                    wqe, line = await b.get(ctx, 7, index)
                    assert wqe == b.wqe(7, index)
                    await b.unpin(ctx, line)
            if n % 2:
                await b.order(ctx, SendOrderOp.REMOVE, 7)
                await b.post(ctx, 7, 0)
            b.rings[f"old{n}"], b.log2[f"old{n}"], b.posted[f"old{n}"] = b.rings[7], 4, 5
    Bench().run(script)


def test_a_qp_alone_is_fetched_ahead():
    """With a bus latency of 200 cycles its WQEs come every 22 cycles and less."""
    async def script(b, ctx):
        b.rng = random.Random(3)
        await b.order(ctx, SendOrderOp.INSTALL, 2, log2=8)
        await b.post(ctx, 2, 200)
        begin = None
        for index in range(200):
            if index == 8:
                begin = b.cycle
            while True:
                outcome, line, _ = await b.ask(ctx, 2, index)
                if outcome == LineOutcome.HERE:
                    break
                assert outcome == LineOutcome.LATER
                await ctx.tick()
            await b.unpin(ctx, line)
        assert (b.cycle - begin) / 192 < 22
        assert len(b.reads) <= 28 and all(length == 512 for _, length in b.reads)
    Bench(PROFILES["default"], delay=200).run(script)
