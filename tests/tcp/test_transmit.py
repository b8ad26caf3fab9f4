"""When and what TCP's transmit side sends, against a modelled ULP, wire and peer."""

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from emplace.abi import QpFlags, Reason
from emplace.config import PROFILES
from emplace.control.records import TokenOp
from emplace.llp import SendOutcome
from emplace.tcp.transmit import Transmit

TINY = PROFILES["tiny"]
BASE = 0xFFFF_F000
MSS, SEGMENT = 1460, 1448


async def until(ctx, wanted, *values):
    while True:
        _, _, done, *found = await ctx.tick().sample(wanted, *values)
        if done:
            return found


@dataclass
class Conn:
    """A stream: sizes of its FPDUs, and the peer's end of it."""

    fpdus: list = field(default_factory=list)
    wnd: int = 60_000
    rcv_nxt: int = 0                       # counted from BASE
    ooo: set = field(default_factory=set)
    sent: list = field(default_factory=list)           # (cycle, position, length, again)
    released: int = 0

    @property
    def total(self):
        return sum(self.fpdus)

    def fpdu_at(self, position):
        """(start, size) of the FPDU that covers ``position``, None at the end."""
        start = 0
        for size in self.fpdus:
            if position < start + size:
                return start, size
            start += size
        return None


class Bench:
    """``lose(conn, n, position)``: is the n-th segment lost? ``delay``: one way, in cycles."""

    def __init__(self, *, seed=1, delay=150, lose=lambda qp, n, position: False, stamps=True, later=0.1, ack_every=1, tick=40,
                 **more):
        self.rng, self.delay, self.lose, self.stamps, self.later = random.Random(seed), delay, lose, stamps, later
        self.ack_every, self.tick = ack_every, tick            # tick: in cycles
        self.dut = Transmit(TINY, **more)
        self.conns, self.cycle, self.now = {}, 0, 1000
        self.to_peer, self.to_card = [], []
        self.died, self.counts, self.probes, self.left = [], {}, [], 0
        self.asked = []
        self.silent = False                # the peer says nothing
        self.wake = []

    async def token(self, ctx, op, qp, **cmd):
        if op == TokenOp.INSTALL:
            ctx.set(self.dut.cmd, {"mss": MSS, "flags": QpFlags.TIMESTAMPS if self.stamps else 0, "snd_nxt": BASE,
                                   "snd_wnd": 60_000, "ts_offset": 77, **cmd})
        ctx.set(self.dut.token.payload, {"op": op, "qp": qp})
        ctx.set(self.dut.token.valid, 1)
        await until(ctx, self.dut.token.ready)
        ctx.set(self.dut.token.valid, 0)

    async def install(self, ctx, qp, fpdus, **cmd):
        self.conns[qp] = Conn(list(fpdus), wnd=cmd.get("snd_wnd", 60_000))
        await self.token(ctx, TokenOp.INSTALL, qp, **cmd)
        self.wake.append(qp)

    def news(self, qp, *, ack=None, wnd=None, empty=1, tsecr=None):
        conn = self.conns[qp]
        self.to_card.append((self.cycle + self.delay, {
            "qp": qp, "ack": (BASE + (conn.rcv_nxt if ack is None else ack)) & 0xFFFFFFFF,
            "wnd": conn.wnd if wnd is None else wnd,
            "empty": empty, "stamped": self.stamps, "tsecr": (self.now + 77 if tsecr is None else tsecr) & 0xFFFFFFFF}))

    async def clock(self, ctx):
        dut = self.dut
        quiet = 0
        async for *_, probing, probe, fast, timeouts, sent_again in ctx.tick().sample(
                dut.probe.valid & dut.probe.ready, dut.probe.payload, dut.fast_retransmits, dut.timeouts, dut.retransmitted):
            self.cycle += 1
            if self.cycle % self.tick == 0:
                self.now += 1
            ctx.set(dut.now, self.now)
            for name, value in (("fast", fast), ("timeouts", timeouts), ("again", sent_again)):
                self.counts[name] = self.counts.get(name, 0) + value
            if probing:
                self.probes.append((self.now, int(probe.qp), int(probe.seq)))
                if not self.silent:
                    self.news(int(probe.qp))
            # The peer
            for item in [i for i in self.to_peer if i[0] <= self.cycle]:
                self.to_peer.remove(item)
                _, qp, position, length, stamp = item
                conn = self.conns[qp]
                conn.ooo.update(range(position, position + length, 4))
                before = conn.rcv_nxt
                while conn.rcv_nxt in conn.ooo:
                    conn.rcv_nxt += 4
                if not self.silent and (conn.rcv_nxt == before or conn.rcv_nxt // (SEGMENT * self.ack_every)
                                        != before // (SEGMENT * self.ack_every) or conn.rcv_nxt == conn.total):
                    self.news(qp, tsecr=stamp)
            quiet -= 1
            ctx.set(dut.news.valid, 0)
            due = [i for i in self.to_card if i[0] <= self.cycle]
            if due and quiet <= 0:
                self.to_card.remove(due[0])
                ctx.set(dut.news.payload, due[0][1])
                ctx.set(dut.news.valid, 1)
                quiet = 4
            ctx.set(dut.ready[0].valid, bool(self.wake))
            if self.wake:
                ctx.set(dut.ready[0].payload, {"qp": self.wake.pop(0)})
            leaving = min(self.left, self.rng.randint(0, 2))
            self.left -= leaving
            ctx.set(dut.left, (1 << leaving) - 1)

    async def ulp(self, ctx):
        dut = self.dut
        while True:
            ctx.set(dut.ask.ready, 1)
            p, = await until(ctx, dut.ask.valid, dut.ask.payload)
            ctx.set(dut.ask.ready, 0)
            qp, room, again = int(p.qp), int(p.room), int(p.again)
            conn, position = self.conns[qp], (int(p.position) - BASE) & 0xFFFFFFFF
            self.asked.append((qp, position, room, again))
            for _ in range(self.rng.randint(0, 10)):
                await ctx.tick()
            given = max((at + n for _, at, n, _ in conn.sent), default=0)
            assert position < given if again else position == given
            at = conn.fpdu_at(position)
            answer = {"outcome": SendOutcome.NOTHING}
            if at and self.rng.random() < self.later:
                answer = {"outcome": SendOutcome.LATER}
                self.wake.append(qp)
            elif at:
                start, size = at
                answer = {"outcome": SendOutcome.NO_ROOM if size > room else SendOutcome.GIVEN, "size": size,
                          "start": (BASE + start) & 0xFFFFFFFF, "more": start + size != conn.total}
                assert again or start == position
                self.pending = (qp, position, start, size, again)
            ctx.set(dut.answer.payload, answer)
            ctx.set(dut.answer.valid, 1)
            await until(ctx, dut.answer.ready)
            ctx.set(dut.answer.valid, 0)

    async def builder(self, ctx):
        dut = self.dut
        while True:
            ctx.set(dut.orders.ready, self.rng.random() < 0.7)
            _, _, valid, ready, p = await ctx.tick().sample(dut.orders.valid, dut.orders.ready, dut.orders.payload)
            if not (valid and ready):
                continue
            qp, position, start, size, again = self.pending
            conn = self.conns[qp]
            assert int(p.qp) == qp and int(p.seq) == (BASE + position) & 0xFFFFFFFF and p.closes
            assert (int(p.begin), int(p.end), int(p.length)) == (position - start, size, size - (position - start))
            n = len(conn.sent)
            conn.sent.append((self.cycle, position, int(p.length), again))
            self.left += 1
            if not self.lose(qp, n, position):
                self.to_peer.append((self.cycle + self.delay, qp, position, int(p.length), self.now + 77))

    async def others(self, ctx):
        dut = self.dut
        while True:
            ctx.set(dut.released.ready, self.rng.random() < 0.7)
            ctx.set(dut.died.ready, 1)
            ctx.set(dut.probe.ready, 1)
            ctx.set(dut.token_out.ready, 1)
            _, _, valid, ready, p, dead, d = await ctx.tick().sample(
                dut.released.valid, dut.released.ready, dut.released.payload, dut.died.valid, dut.died.payload)
            if valid and ready:
                conn = self.conns[int(p.qp)]
                position = (int(p.position) - BASE) & 0xFFFFFFFF
                assert conn.released < position <= conn.rcv_nxt
                conn.released = position
            if dead:
                self.died.append((int(d.qp), Reason(int(d.reason))))

    async def finish(self, ctx, cycles=200_000):
        """Until all streams are acknowledged whole."""
        for _ in range(cycles // 50):
            if all(conn.released == conn.total for conn in self.conns.values()):
                return
            for _ in range(50):
                await ctx.tick()
        raise AssertionError(f"not all acknowledged: {[(c.released, c.rcv_nxt, c.total) for c in self.conns.values()]}")

    def run(self, script, cycles=600_000):
        sim = Simulator(self.dut)
        sim.add_clock(8e-9)

        async def watchdog(ctx):
            for _ in range(cycles):
                await ctx.tick()
            raise AssertionError("hangs")

        async def main(ctx):
            for _ in range(TINY.qps + 4):
                await ctx.tick()
            await script(self, ctx)
        for bench in (watchdog, self.clock, self.ulp, self.builder, self.others):
            sim.add_testbench(bench, background=True)
        sim.add_testbench(main)
        sim.run()


def fpdus(rng, octets):
    out = []
    while sum(out) < octets:
        out.append(rng.choice([SEGMENT, SEGMENT, 4 * rng.randint(5, SEGMENT // 4), 24]))
    return out


@pytest.mark.parametrize("stamps", [True, False])
def test_clean(stamps):
    """Everything once, within the peer's window and the congestion window, and no timer is left armed."""
    async def script(b, ctx):
        for qp in (0, 7, 15):
            await b.install(ctx, qp, fpdus(b.rng, 30_000), snd_wnd=12_000)
        await b.finish(ctx)
        for conn in b.conns.values():
            assert not any(again for *_, again in conn.sent)
            assert [at for _, at, *_ in conn.sent] == sorted(at for _, at, *_ in conn.sent)
        for _ in range(b.tick * 250):
            await ctx.tick()
        assert b.counts["timeouts"] == 0 and not b.probes
    Bench(stamps=stamps).run(script)


def test_windows():
    """Never more in flight than the smaller of both windows; slow start doubles it, from ten segments on."""
    async def script(b, ctx):
        await b.install(ctx, 3, [SEGMENT] * 45, snd_wnd=200_000)
        await b.finish(ctx)
        conn = b.conns[3]
        first = [at for at, *_ in conn.sent if at < conn.sent[0][0] + 2 * b.delay]
        assert len(first) == 10
        second = [at for at, *_ in conn.sent if conn.sent[0][0] + 2 * b.delay <= at < conn.sent[0][0] + 4 * b.delay]
        assert 18 <= len(second) <= 20
    Bench(delay=1500, later=0).run(script)

    async def narrow(b, ctx):
        await b.install(ctx, 3, [SEGMENT] * 30, snd_wnd=3 * SEGMENT + 100)
        await b.finish(ctx)
        for at, position, length, _ in b.conns[3].sent:
            acked = max((p + n for t, p, n, _ in b.conns[3].sent if t + 2 * b.delay <= at), default=0)
            assert position + length - acked <= 3 * SEGMENT + 100
    Bench(delay=600).run(narrow)


def test_fast_retransmit_exactly_at_the_third():
    """Two duplicates are nothing, the third sends the lost segment again, once, and halves the window."""
    async def script(b, ctx):
        await b.install(ctx, 2, [SEGMENT] * 30)
        await b.finish(ctx)
        again = [(at, position) for at, position, _, a in b.conns[2].sent if a]
        assert [position for _, position in again] == [5 * SEGMENT]
        assert b.counts["fast"] == 1 and b.counts["timeouts"] == 0
    Bench(lose=lambda qp, n, position: n == 5, delay=800).run(script)

    async def two(b, ctx):
        await b.install(ctx, 2, [SEGMENT] * 8)
        await b.finish(ctx)
        assert b.counts["fast"] == 0 and b.counts["timeouts"] == 1
    Bench(lose=lambda qp, n, position: n == 5, delay=800, later=0).run(two)


def test_newreno_partial_acks():
    """Several losses in one window: one fast retransmit, then one segment a partial ACK, no timeout."""
    async def script(b, ctx):
        await b.install(ctx, 2, [SEGMENT] * 40)
        await b.finish(ctx)
        again = [position // SEGMENT for _, position, _, a in b.conns[2].sent if a]
        assert again == [12, 14, 17] and b.counts["fast"] == 1 and b.counts["timeouts"] == 0
    Bench(lose=lambda qp, n, position: n in (12, 14, 17), delay=2000).run(script)


def test_timeout_backs_off_and_recovers():
    """The tail is lost, several times: sent again after the timeout, each time after twice as long."""
    lost = iter([True, True, True])

    async def script(b, ctx):
        await b.install(ctx, 1, [SEGMENT, 400])
        await b.finish(ctx, 500_000)
        times = [at // b.tick for at, position, _, _ in b.conns[1].sent if position == SEGMENT]
        gaps = [y - x for x, y in pairwise(times)]
        assert len(gaps) == 3 and b.counts["timeouts"] == 3
        # The first runs from the other segment's ACK on (RFC 6298 5.3).
        assert 225 <= gaps[0] <= 240 and 398 <= gaps[1] <= 404 and 797 <= gaps[2] <= 806
    Bench(lose=lambda qp, n, position: position == SEGMENT and next(lost, False), later=0, tick=10).run(script)


def test_given_up():
    """After so many expiries in a row: told once, and nothing more is sent."""
    async def script(b, ctx):
        await b.install(ctx, 1, [SEGMENT] * 3)
        for _ in range(1000 * 5 * b.tick):
            await ctx.tick()
            if b.died:
                break
        assert b.died == [(1, Reason.RETRY_LIMIT)] and b.counts["timeouts"] == 1
        sent = len(b.conns[1].sent)
        for _ in range(50):
            await ctx.tick()
        assert len(b.conns[1].sent) == sent
    Bench(lose=lambda qp, n, position: True, retries=1, tick=4).run(script)


def test_persist():
    """A closed window is probed, ever more rarely, with the octet before SND.UNA; it opens, and the stream goes on."""
    async def script(b, ctx):
        await b.install(ctx, 4, [SEGMENT] * 4, snd_wnd=1000)
        while len(b.probes) < 2:
            await ctx.tick()
        assert not b.conns[4].sent
        (first, qp, seq), (second, _, _) = b.probes
        assert (qp, seq) == (4, BASE - 1) and second - first >= 1990
        b.conns[4].wnd = 50_000
        b.news(4)
        await b.finish(ctx)
        assert b.counts["timeouts"] == 0
    Bench(later=0, tick=4, delay=30).run(script)


@pytest.mark.parametrize("seed, stamps", [(1, True), (2, False), (3, True)])
def test_random_loss(seed, stamps):
    """Everything arrives whatever is lost, on all connections."""
    rng = random.Random(seed)

    async def script(b, ctx):
        for qp in (1, 2, 9):
            await b.install(ctx, qp, fpdus(b.rng, 15_000), snd_wnd=rng.choice([4000, 20_000, 60_000]))
        await b.finish(ctx, 500_000)
        assert not b.died
    Bench(seed=seed, stamps=stamps, lose=lambda qp, n, position: rng.random() < 0.05, delay=300, tick=10).run(script)


def test_fair():
    """Nobody waits for more than two visits of each other one: who is visited now may miss the next round's call."""
    async def script(b, ctx):
        for qp in range(6):
            await b.install(ctx, qp, [24] * 120 if qp == 3 else [SEGMENT] * 20, cwnd=1 << 20, snd_wnd=1 << 20)
        await b.finish(ctx)
        order = sorted((at, qp, length) for qp, conn in b.conns.items() for at, _, length, _ in conn.sent)
        for mine in range(6):
            turns = [n for n, (_, qp, _) in enumerate(order) if qp == mine]
            for x, y in pairwise(turns):
                between = {}
                for _, qp, length in order[x + 1:y]:
                    between[qp] = between.get(qp, 0) + length
                assert all(octets <= 2 * (4096 + SEGMENT) for octets in between.values())
    Bench(later=0).run(script)


def test_kill_drains():
    """The token leaves when the last segment has; a killed connection sends nothing more."""
    async def script(b, ctx):
        await b.install(ctx, 5, [SEGMENT] * 40)
        while len(b.conns[5].sent) < 5:
            await ctx.tick()
        await b.token(ctx, TokenOp.KILL, 5)
        assert b.left == 0
        sent = len(b.conns[5].sent)
        b.wake.append(5)
        for _ in range(2000):
            await ctx.tick()
        assert len(b.conns[5].sent) == sent
    Bench().run(script)
