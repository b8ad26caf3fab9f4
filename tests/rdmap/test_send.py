"""Messages become ULPDUs, in order, whole or again, and complete when the peer has them."""

import random
from dataclasses import dataclass

import pytest
from amaranth.sim import Simulator

from emplace import abi
from emplace.abi import QpFlags, Reason, SendFlags, SendOpcode, WcOpcode, WcStatus
from emplace.config import PROFILES
from emplace.control.records import TokenOp
from emplace.dma.records import PlaceKind
from emplace.llp import SendOutcome
from emplace.queues.records import LineOutcome, SendOrderOp
from emplace.rdmap.send import Messages

TINY = PROFILES["tiny"]


async def until(ctx, wanted, *values):
    while True:
        _, _, done, *found = await ctx.tick().sample(wanted, *values)
        if done:
            return found


@dataclass
class Work:
    """A work request, by the fields of abi.SendWqe."""

    opcode: int
    length: int
    flags: int = SendFlags.SIGNALED
    num_sge: int = 1
    rkey: int = 0
    remote_addr: int = 0
    index: int = 0

    @property
    def entries(self):
        return 2 if self.flags & SendFlags.EXTENDED else 1


@dataclass
class Plan:
    """What a plan says, and the job that goes with it."""

    qp: int
    header: bytes
    payload: int
    job: dict | None = None

    def __eq__(self, other):
        return (self.qp, self.header, self.payload, self.job) == (other.qp, other.header, other.payload, other.job)


def cut(work, *, msn, mss, again=0):
    """The golden segmentation: (header, offset, payload octets, FPDU octets) of each ULPDU."""
    segment, tagged = mss & ~3, work.opcode == SendOpcode.RDMA_WRITE
    chunk = segment - (20 if tagged else 24)
    out, at = [], 0
    while True:
        octets = min(chunk, work.length - at)
        last = at + octets == work.length
        if tagged:
            header = bytes([0x81 | last << 6, 0x40]) + work.rkey.to_bytes(4, "big") + (work.remote_addr + at).to_bytes(8, "big")
        else:
            invalidates = work.opcode == SendOpcode.SEND_WITH_INV
            rdmap = 3 + invalidates + (2 if work.flags & SendFlags.SOLICITED else 0)
            header = bytes([0x01 | last << 6, 0x40 | rdmap]) + (work.rkey if invalidates else 0).to_bytes(4, "big") \
                + bytes(4) + msn.to_bytes(4, "big") + at.to_bytes(4, "big")
        out.append((header, at, octets, 2 + len(header) + (octets + 3) // 4 * 4 + 4))
        at += octets
        if last:
            return out


class Bench:
    """The unit with modelled lines, framer, gatherer and completion queue. ``script(bench, ctx)`` is the LLP."""

    def __init__(self, seed=1, stall=0.2, later=0.2):
        self.rng, self.stall, self.later = random.Random(seed), stall, later
        self.dut = Messages(TINY)
        self.rings = {qp: {} for qp in range(TINY.qps)}        # index -> Work or None (an extension)
        self.posted = dict.fromkeys(range(TINY.qps), 0)
        self.works = {qp: [] for qp in range(TINY.qps)}
        self.plans, self.jobs, self.cqes, self.died, self.orders, self.retired, self.ready = [], [], [], [], [], [], []
        self.events = []
        self.pins = [0] * TINY.send_lines
        self.fail = set()

    def post(self, qp, work):
        if work.entries == 2 and self.posted[qp] % 2:
            self.post(qp, Work(SendOpcode.NOP, 0))
        work.index = self.posted[qp]
        for n in range(work.entries):
            self.rings[qp][(work.index + n) & 0xFFFF] = work if n == 0 else None
        self.posted[qp] = (work.index + work.entries) & 0xFFFF
        if work.opcode != SendOpcode.NOP:
            self.works[qp].append(work)

    async def token(self, ctx, op, qp, **cmd):
        if op == TokenOp.INSTALL:
            ctx.set(self.dut.cmd, {"qpn": 0x4200 + qp, "pd": 7 + qp, "mss": 1460, "send_cq": qp, "sq_log2": 5, "send_msn": 1,
                                   "flags": QpFlags.INITIATOR | QpFlags.TIMESTAMPS, "snd_nxt": 0xFFFFF000, **cmd})
        ctx.set(self.dut.token.payload, {"op": op, "qp": qp})
        ctx.set(self.dut.token.valid, 1)
        await until(ctx, self.dut.token.ready)
        ctx.set(self.dut.token.valid, 0)

    async def ask(self, ctx, qp, position, room=0xFFFF, again=0):
        ctx.set(self.dut.ask.payload, {"qp": qp, "position": position & 0xFFFFFFFF, "room": room, "again": again})
        ctx.set(self.dut.ask.valid, 1)
        await until(ctx, self.dut.ask.ready)
        ctx.set(self.dut.ask.valid, 0)
        ctx.set(self.dut.answer.ready, 1)
        p, = await until(ctx, self.dut.answer.valid, self.dut.answer.payload)
        ctx.set(self.dut.answer.ready, 0)
        return SendOutcome(p.outcome), int(p.size), int(p.start), int(p.more)

    async def get(self, ctx, qp, position, room=0xFFFF, again=0):
        """As ``ask``, again as long as it is LATER."""
        for _ in range(100):
            answer = await self.ask(ctx, qp, position, room, again)
            if answer[0] != SendOutcome.LATER:
                return answer
        raise AssertionError("always LATER")

    async def release(self, ctx, qp, position):
        ctx.set(self.dut.released.payload, {"qp": qp, "position": position & 0xFFFFFFFF})
        ctx.set(self.dut.released.valid, 1)
        await until(ctx, self.dut.released.ready)
        ctx.set(self.dut.released.valid, 0)
        await self.ask(ctx, TINY.qps - 1, 0)           # comes behind it

    async def lines(self, ctx):
        dut = self.dut
        while True:
            ctx.set(dut.wqe.ready, 1)
            p, = await until(ctx, dut.wqe.valid, dut.wqe.payload)
            ctx.set(dut.wqe.ready, 0)
            qp, index = int(p.qp), int(p.index)
            line = self.rng.randrange(TINY.send_lines)
            outcome = LineOutcome.HERE
            if index == self.posted[qp]:
                outcome = LineOutcome.EMPTY
            elif (qp, index) in self.fail:
                outcome = LineOutcome.FAILED
            elif self.rng.random() < self.later:
                outcome = LineOutcome.LATER
            if outcome == LineOutcome.HERE:
                self.pins[line] += 1
                self.content = qp, index >> TINY.send_group_bits
            ctx.set(dut.wqe_answer.payload, {"outcome": outcome, "line": line, "posted": self.posted[qp],
                                             "pair": (index | 1) in self.rings[qp]})
            ctx.set(dut.wqe_answer.valid, 1)
            await until(ctx, dut.wqe_answer.ready)
            ctx.set(dut.wqe_answer.valid, 0)

    async def store(self, ctx):
        dut = self.dut
        async for _, _, at, unpin in ctx.tick().sample(dut.at, dut.unpin):
            if unpin.en:
                self.pins[int(unpin.line)] -= 1
            if hasattr(self, "content"):
                qp, group = self.content
                word = int(at.word)
                work = self.rings[qp].get(group << TINY.send_group_bits | word >> 3)
                value = self.rng.getrandbits(64)
                if work is not None:
                    layout = abi.SendWqe.const({"opcode": work.opcode, "flags": work.flags, "num_sge": work.num_sge,
                                                "length": work.length, "rkey": work.rkey, "remote_addr": work.remote_addr})
                    value = layout.as_value().value >> 64 * (word & 7) & (1 << 64) - 1
                ctx.set(dut.data, value)

    def taker(self, stream, take):
        async def run(ctx):
            while True:
                ctx.set(stream.ready, self.rng.random() >= self.stall)
                _, _, valid, ready, p = await ctx.tick().sample(stream.valid, stream.ready, stream.payload)
                if valid and ready:
                    take(p)
        return run

    async def strobes(self, ctx):
        async for _, _, r in ctx.tick().sample(self.dut.retired):
            if r.en:
                self.retired.append((int(r.index), int(r.value)))

    def run(self, script, cycles=300_000):
        dut = self.dut

        def plan(p):
            size = 14 if p.tagged else 18
            self.plans.append(Plan(int(p.qp), int(p.header).to_bytes(18, "little")[:size], int(p.payload)))

        def job(p):
            self.pins[int(p.line)] -= 1
            self.plans[-1].job = {name: int(p[name]) for name in ("qp", "pd", "place", "elements", "inline", "remote", "again",
                                                                  "offset", "octets")}

        def cqe(p):
            bits = int(p.data)
            if p.kind == PlaceKind.EVENT:
                event = {name: bits >> field.offset & (1 << field.width) - 1 for name, field in abi.EventBody}
                assert event["type"] == abi.EventType.QP_ERROR and event["terminate"] == (abi.TERMINATE[event["reason"]] or 0)
                self.events.append((event["qpn"] - 0x4200, Reason(event["reason"])))
                return
            fields = {name: bits >> field.offset & (1 << field.width) - 1 for name, field in abi.CqeBody}
            assert int(p.cq) == fields["qpn"] - 0x4200
            self.cqes.append((fields["qpn"] - 0x4200, fields["wqe_index"], WcOpcode(fields["opcode"]),
                              WcStatus(fields["status"])))
        sim = Simulator(dut)
        sim.add_clock(8e-9)

        async def watchdog(ctx):
            for _ in range(cycles):
                await ctx.tick()
            raise AssertionError("hangs")

        async def main(ctx):
            for _ in range(TINY.qps + 4):
                await ctx.tick()
            await script(self, ctx)
            for _ in range(100):
                await ctx.tick()
        for bench in (watchdog, self.lines, self.store, self.strobes, self.taker(dut.plans, plan), self.taker(dut.jobs, job),
                      self.taker(dut.commands, cqe), self.taker(dut.token_out, lambda p: None),
                      self.taker(dut.ready, lambda p: self.ready.append(int(p.qp))),
                      self.taker(dut.order, lambda p: self.orders.append((SendOrderOp(p.op), int(p.qp)))),
                      self.taker(dut.died, lambda p: self.died.append((int(p.qp), Reason(int(p.reason)))))):
            sim.add_testbench(bench, background=True)
        sim.add_testbench(main)
        sim.run()
        assert self.pins == [0] * TINY.send_lines
        assert self.events == self.died


def some_work(rng):
    opcode = rng.choice([SendOpcode.RDMA_WRITE, SendOpcode.RDMA_WRITE, SendOpcode.SEND, SendOpcode.SEND_WITH_INV])
    flags = rng.choice([0, SendFlags.SIGNALED, SendFlags.SIGNALED]) | rng.choice([0, SendFlags.SOLICITED])
    length = rng.choice([0, 1, 64, 1424, 1428, 1429, rng.randint(1, 9000)])
    sges = rng.randint(0, 2) if length == 0 else rng.randint(1, 2)
    if rng.random() < 0.3:
        flags |= SendFlags.EXTENDED
        sges = rng.randint(3, 4)
    if rng.random() < 0.2:
        flags |= SendFlags.INLINE
        length, sges = rng.randint(0, 96 if flags & SendFlags.EXTENDED else 32), 0
    return Work(opcode, length, int(flags), sges, rng.getrandbits(32), rng.getrandbits(48))


def expect(work, qp, *, msn, mss, again=0):
    """(Plan, FPDU octets) of each ULPDU of a work request."""
    out = []
    for header, at, octets, size in cut(work, msn=msn, mss=mss):
        job = None
        if octets:
            job = {"qp": qp, "pd": 7 + qp, "place": work.index % (1 << TINY.send_group_bits), "elements": work.num_sge,
                   "inline": int(bool(work.flags & SendFlags.INLINE)), "remote": 0, "again": again, "offset": at,
                   "octets": octets}
        out.append((Plan(qp, header, octets, job), size))
    return out


MSS = 1448


@pytest.mark.parametrize("seed", [1, 2])
def test_stream(seed):
    """New messages, asked for again at any octet, released at any octet; completions in order, each once."""
    async def script(b, ctx):
        rng, qp = b.rng, 5
        await b.token(ctx, TokenOp.INSTALL, qp, send_msn=0xFFFFFFFE)
        base = position = 0xFFFFF000
        msn, fpdus, ends, live = 0xFFFFFFFE, [], [], []       # fpdus: (position, Plan, size)
        una, completed = base, 0
        for _ in range(14):
            work = some_work(rng)
            b.post(qp, work)
            for plan, size in expect(work, qp, msn=msn, mss=MSS):
                if rng.random() < 0.2:
                    assert (await b.get(ctx, qp, position, room=size - 1))[:2] == (SendOutcome.NO_ROOM, size)
                outcome, got, start, more = await b.get(ctx, qp, position, room=rng.choice([size, 0xFFFF]))
                assert (outcome, got, start) == (SendOutcome.GIVEN, size, position & 0xFFFFFFFF)
                assert b.plans.pop() == plan and not b.plans
                final = plan is expect(work, qp, msn=msn, mss=MSS)[-1][0] or bool(plan.header[0] & 0x40)
                assert more == (not final)
                fpdus.append((position, plan, size))
                position += size
            if work.opcode != SendOpcode.RDMA_WRITE:
                msn = (msn + 1) & 0xFFFFFFFF
            ends.append((position, work))
            live.append(work)
            assert (await b.get(ctx, qp, position))[0] == SendOutcome.NOTHING
            # Again, from anywhere that isn't acknowledged.
            for _ in range(2):
                if una < position:
                    at = rng.choice([una, rng.randrange(una, position)])
                    begin, plan, size = next(f for f in fpdus if f[0] <= at < f[0] + f[2])
                    outcome, got, start, _ = await b.get(ctx, qp, at, again=1)
                    assert (outcome, got, start) == (SendOutcome.GIVEN, size, begin & 0xFFFFFFFF)
                    seen = b.plans.pop()
                    if plan.job:
                        assert seen.job == plan.job | {"again": 1}
                    assert (seen.header, seen.payload) == (plan.header, plan.payload)
            if rng.random() < 0.6:
                una = rng.choice([position, rng.randint(una, position)])
                await b.release(ctx, qp, una)
                completed = sum(end <= una for end, _ in ends)
                assert [index for _, index, *_ in b.cqes] == [w.index for _, w in ends[:completed]
                                                             if w.flags & SendFlags.SIGNALED]
        await b.release(ctx, qp, position)
        assert b.cqes == [(qp, w.index, WcOpcode.RDMA_WRITE if w.opcode == SendOpcode.RDMA_WRITE else WcOpcode.SEND,
                           WcStatus.SUCCESS) for _, w in ends if w.flags & SendFlags.SIGNALED]
        assert b.retired[-1] == (qp, (b.posted[qp] + 32) & 0xFFFF)
        assert not b.died
    Bench(seed).run(script)


def test_log_full():
    """As many messages as the log holds; then LATER until one is released."""
    async def script(b, ctx):
        await b.token(ctx, TokenOp.INSTALL, 1, sq_log2=8, snd_nxt=0)
        for _ in range(TINY.send_log + 1):
            b.post(1, Work(SendOpcode.SEND, 4))
        b.later, position = 0.0, 0
        for _ in range(TINY.send_log):
            outcome, size, _, more = await b.ask(ctx, 1, position)
            assert outcome == SendOutcome.GIVEN and more
            position += size
        assert (await b.ask(ctx, 1, position))[0] == SendOutcome.LATER
        await b.release(ctx, 1, 27)
        assert (await b.ask(ctx, 1, position))[0] == SendOutcome.LATER
        await b.release(ctx, 1, 28)
        outcome, _, _, more = await b.ask(ctx, 1, position)
        assert outcome == SendOutcome.GIVEN and not more
        assert [index for _, index, *_ in b.cqes] == [0]
    Bench().run(script)


def test_responder_waits():
    """For the peer's first FPDU."""
    async def script(b, ctx):
        await b.token(ctx, TokenOp.INSTALL, 2, flags=0, snd_nxt=0)
        b.post(2, Work(SendOpcode.SEND, 4))
        b.later = 0.0
        assert (await b.ask(ctx, 2, 0))[0] == SendOutcome.LATER
        ctx.set(b.dut.opened, {"en": 1, "qp": 2})
        await ctx.tick()
        ctx.set(b.dut.opened, {"en": 0})
        for _ in range(10):
            await ctx.tick()
        assert b.ready == [2]
        assert (await b.ask(ctx, 2, 0))[0] == SendOutcome.GIVEN
    Bench().run(script)


@pytest.mark.parametrize("bad", [
    {"opcode": 7}, {"opcode": 200}, {"num_sge": 3}, {"flags": SendFlags.EXTENDED | 2, "num_sge": 5}, {"flags": 0x40},
    {"flags": SendFlags.INLINE, "length": 33}, {"flags": SendFlags.INLINE | SendFlags.EXTENDED, "length": 97},
])
def test_bad_work_request(bad):
    """Ends its stream, before anything of it is sent; what was sent before still completes."""
    async def script(b, ctx):
        await b.token(ctx, TokenOp.INSTALL, 3, snd_nxt=0)
        b.post(3, Work(SendOpcode.SEND, 8))
        b.post(3, Work(**({"opcode": SendOpcode.SEND, "length": 8} | bad)))
        _, size, _, _ = await b.get(ctx, 3, 0)
        assert (await b.get(ctx, 3, size))[0] == SendOutcome.FAILED
        assert b.died == [(3, Reason.SQ_WQE)]
        assert (await b.get(ctx, 3, size))[0] == SendOutcome.FAILED
        assert len(b.plans) == 1 and len(b.died) == 1
        await b.release(ctx, 3, size)
        assert [index for _, index, *_ in b.cqes] == [0]
    Bench().run(script)


def test_odd_or_single_extension():
    """An extended work request begins at an even index, and both its entries have been posted."""
    async def script(b, ctx):
        for qp, entries in ((1, {1: True, 2: True}), (2, {0: True})):
            await b.token(ctx, TokenOp.INSTALL, qp, snd_nxt=0)
            work = Work(SendOpcode.SEND, 8, SendFlags.EXTENDED | SendFlags.SIGNALED)
            first = min(entries)
            b.rings[qp] = {0: Work(SendOpcode.NOP, 0)} | {first: work} | dict.fromkeys([n for n in entries if n > first])
            b.posted[qp] = first + len(entries)
            assert (await b.get(ctx, qp, 0))[0] == SendOutcome.FAILED
        assert [reason for _, reason in b.died] == [Reason.SQ_WQE] * 2
    Bench().run(script)


def test_changed_work_request():
    """One that was changed by the host after it was sent ends its stream when it is needed again."""
    async def script(b, ctx):
        for qp, change in ((1, {"opcode": SendOpcode.RDMA_WRITE}), (2, {"length": 100}), (3, {"opcode": SendOpcode.NOP})):
            await b.token(ctx, TokenOp.INSTALL, qp, snd_nxt=0)
            work = Work(SendOpcode.SEND, 3000)
            b.post(qp, work)
            position = 0
            while True:
                _, size, _, more = await b.get(ctx, qp, position)
                position += size
                if not more:
                    break
            for name, value in change.items():
                setattr(work, name, value)
            assert (await b.get(ctx, qp, 1448, again=1))[0] == SendOutcome.FAILED
        assert [reason for _, reason in b.died] == [Reason.SOURCE_REVOKED] * 3
    Bench().run(script)


def test_failed_fetch():
    async def script(b, ctx):
        await b.token(ctx, TokenOp.INSTALL, 4, snd_nxt=0)
        b.post(4, Work(SendOpcode.SEND, 3))
        b.fail.add((4, 0))
        assert (await b.get(ctx, 4, 0))[0] == SendOutcome.FAILED
        assert b.died == [(4, Reason.SQ_FETCH)]
    Bench().run(script)


def test_kill_flush_remove():
    """What isn't complete is flushed, entry by entry, once; a QP that is installed anew begins anew."""
    async def script(b, ctx):
        qp = 6
        await b.token(ctx, TokenOp.INSTALL, qp, snd_nxt=0)
        for n in range(6):
            b.post(qp, Work(SendOpcode.SEND, 8 if n < 4 else 4000))
        position = 0
        for _ in range(5):
            _, size, _, _ = await b.get(ctx, qp, position)
            position += size
        await b.release(ctx, qp, 2 * 32)
        await b.token(ctx, TokenOp.KILL, qp)
        assert (await b.get(ctx, qp, position))[0] == SendOutcome.FAILED
        await b.token(ctx, TokenOp.FLUSH, qp)
        assert [(index, status) for _, index, _, status in b.cqes] == [
            (0, WcStatus.SUCCESS), (1, WcStatus.SUCCESS), *((n, WcStatus.WR_FLUSH_ERR) for n in range(2, 6))]
        await b.token(ctx, TokenOp.FLUSH, qp)
        assert len(b.cqes) == 6
        await b.token(ctx, TokenOp.REMOVE, qp)
        await b.token(ctx, TokenOp.INSTALL, qp, snd_nxt=100)
        b.rings[qp], b.posted[qp] = {}, 0
        assert (await b.get(ctx, qp, 100))[0] == SendOutcome.NOTHING
        b.post(qp, Work(SendOpcode.SEND, 1))
        assert (await b.get(ctx, qp, 100))[0] == SendOutcome.GIVEN
        assert int.from_bytes(b.plans[-1].header[10:14], "big") == 1
        assert b.orders == [(SendOrderOp.INSTALL, qp), (SendOrderOp.REMOVE, qp), (SendOrderOp.INSTALL, qp)]
    Bench().run(script)


def test_others_give_a_stream_up():
    """Told once, by an event and to control; nothing more is given."""
    async def script(b, ctx):
        await b.token(ctx, TokenOp.INSTALL, 4, snd_nxt=0)
        b.post(4, Work(SendOpcode.SEND, 8))
        for reason in (Reason.SOURCE_FETCH, Reason.RETRY_LIMIT):
            ctx.set(b.dut.failed.payload, {"qp": 4, "reason": reason})
            ctx.set(b.dut.failed.valid, 1)
            await until(ctx, b.dut.failed.ready)
            ctx.set(b.dut.failed.valid, 0)
            assert (await b.get(ctx, 4, 0))[0] == SendOutcome.FAILED
        assert b.died == [(4, Reason.SOURCE_FETCH)]
    Bench().run(script)
