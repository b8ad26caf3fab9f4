import random

import pytest
from tests.queues.bench import receive, send
from tests.queues.harness import Host, idle, wqe, wqe_bytes

from emplace.control.records import TokenOp
from emplace.queues.ports import DoorbellKind


async def gate(ctx, host, qp):
    await send(ctx, host.dut.gate_request, {"qp": qp}, host.rng, host.stall)
    reply = await receive(ctx, host.dut.gate_reply, host.rng, host.stall)
    return reply["go"], reply["claimed"]


async def take(ctx, host, qp, *, take=1, claimed=0, retire=0):
    await send(ctx, host.dut.take, {"qp": qp, "take": take, "claimed": claimed, "retire": retire}, host.rng, host.stall)
    return await receive(ctx, host.dut.taken, host.rng, host.stall) if take else None


async def element(ctx, host, qp, entry, index):
    await send(ctx, host.dut.sge, {"qp": qp, "entry": entry, "index": index}, host.rng, host.stall)
    got = await receive(ctx, host.dut.sge_data, host.rng, host.stall)
    return got["addr"], got["length"], got["lkey"]


class Queue:
    """Golden receive queue, and its owner on the host."""

    def __init__(self, host, qp, base, log2):
        self.host, self.qp, self.base, self.log2 = host, qp, base, log2
        self.posted, self.taken, self.retired, self.claims = 0, 0, 0, 0
        self.settled = 0               # posted so long ago that the card must know of it

    def write(self, upto):
        for index in range(self.posted, upto):
            self.host.memory.write(self.base + 64 * (index % (1 << self.log2)), wqe_bytes(wqe(self.qp, index)))
        self.posted = upto


@pytest.mark.parametrize("seed, stall, latency", [(1, 0.0, (1, 4)), (2, 0.4, (10, 60)), (3, 0.2, (60, 90))])
def test_random_traffic(seed, stall, latency):
    """Gate, take, give back, retire and post on several QPs at once: every WQE is used once, in order, whole."""
    host = Host(seed, stall, latency=latency)
    rng = random.Random(seed)
    qps = [0, 3, 6]
    queues, resumed = {}, []
    goal = 36
    finished = set()

    async def start(ctx):
        await host.setup(ctx)
        for qp, log2 in zip(qps, (1, 3, 5)):
            base = await host.install(ctx, qp, 0xABC00 | qp, rq_log2=log2, base=0x7_FFFF_F000 + qp * 0x10000)
            queues[qp] = Queue(host, qp, base, log2)

    async def poster(ctx):
        while len(queues) < len(qps):
            await ctx.tick()
        while len(finished) < len(qps):
            queue = queues[rng.choice(qps)]
            room = queue.retired + (1 << queue.log2) - queue.posted
            if room and rng.random() < 0.5:
                queue.write(queue.posted + rng.randint(1, room))
                await host.post(ctx, 0xABC00 | queue.qp, queue.posted)
                value = queue.posted
                await idle(ctx, 5)
                queue.settled = value
            await ctx.tick()

    async def resumes(ctx):
        while True:
            resumed.append((await receive(ctx, host.dut.resume, rng, stall))["qp"])

    async def user(ctx):
        """mpa and rdmap in one: claims run ahead of takes, takes ahead of retirements."""
        while len(queues) < len(qps):
            await ctx.tick()
        blocked = set()
        while len(finished) < len(qps):
            queue = queues[rng.choice(qps)]
            qp = queue.qp
            for name in resumed:
                blocked.discard(name)
            resumed.clear()
            choice = rng.random()
            if choice < 0.4 and qp not in blocked:
                known = queue.settled
                go, claimed = await gate(ctx, host, qp)
                if claimed:
                    assert go and queue.taken + queue.claims < queue.posted
                    queue.claims += 1
                elif go:
                    assert queue.taken + queue.claims >= known, "a posted WQE was overlooked"
                else:
                    assert queue.taken + queue.claims < queue.posted, "waits though nothing is posted"
                    blocked.add(qp)
            elif choice < 0.45 and queue.claims:
                await take(ctx, host, qp, take=0, claimed=1)
                queue.claims -= 1
            elif choice < 0.7:
                claimed = int(queue.claims > 0 and rng.random() < 0.8)
                both = int(queue.retired < queue.taken and rng.random() < 0.2)
                got = await take(ctx, host, qp, claimed=claimed, retire=both)
                if got["ok"]:
                    assert not got["failed"]
                    assert got["wqe_index"] == queue.taken < queue.posted
                    assert queue.taken + queue.claims < queue.posted or claimed
                    content = wqe(qp, queue.taken)
                    assert got["total"] == sum(n for _, n, _ in content)
                    for index in rng.sample(range(4), 4):
                        assert await element(ctx, host, qp, got["entry"], index) == content[index]
                    queue.taken += 1
                    queue.claims -= claimed
                else:
                    assert not claimed, "a claim was broken"
                    assert not got["failed"]
                queue.retired += both
            elif queue.retired < queue.taken:
                await take(ctx, host, qp, take=0, retire=1)
                await idle(ctx, 8)
                queue.retired += 1
            if queue.retired >= goal and not queue.claims:
                finished.add(qp)
            await ctx.tick()

    host.run(start, poster, user, cycles=30_000, background=[resumes])
    assert host.counted["doorbell_refused"] == 0
    # Nothing was fetched twice, or beyond what was posted
    for qp in qps:
        queue = queues[qp]
        reads = [a for a, _ in host.memory.reads if queue.base <= a < queue.base + (64 << queue.log2)]
        assert all(length == 64 for _, length in host.memory.reads)
        order = [queue.base + 64 * (n % (1 << queue.log2)) for n in range(len(reads))]
        assert reads == order
        assert queue.taken <= len(reads) <= min(queue.posted, queue.retired + 4)


def test_latency_and_rate():
    """Published figures: gate 3 cycles, take 4."""
    host = Host(1, 0.0, latency=(1, 1))

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install(ctx, 1)
        queue = Queue(host, 1, base, 3)
        queue.write(4)
        await host.post(ctx, 1, 4)
        await idle(ctx, 120)
        ctx.set(host.dut.gate_reply.ready, 1)
        ctx.set(host.dut.gate_request.payload, {"qp": 1})
        ctx.set(host.dut.gate_request.valid, 1)
        await ctx.tick()
        ctx.set(host.dut.gate_request.valid, 0)
        await idle(ctx, 2)
        assert ctx.get(host.dut.gate_reply.valid)
        assert ctx.get(host.dut.gate_reply.p.claimed)
        ctx.set(host.dut.take.payload, {"qp": 1, "take": 1, "claimed": 1, "retire": 0})
        ctx.set(host.dut.take.valid, 1)
        await ctx.tick()
        ctx.set(host.dut.take.valid, 0)
        await idle(ctx, 3)
        assert ctx.get(host.dut.taken.valid)

    host.run(user)


def test_gate_says_empty_waits_and_resumes():
    host = Host(4)

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install(ctx, 5)
        queue = Queue(host, 5, base, 3)
        assert await gate(ctx, host, 5) == (1, 0)                     # nothing posted
        assert (await take(ctx, host, 5))["ok"] == 0
        host.memory.hold = True
        queue.write(2)
        await host.post(ctx, 5, 2)
        await idle(ctx, 30)
        assert await gate(ctx, host, 5) == (0, 0)                     # posted, on the bus
        host.memory.hold = False
        assert (await receive(ctx, host.dut.resume))["qp"] == 5
        assert await gate(ctx, host, 5) == (1, 1)
        await idle(ctx, 100)
        assert await gate(ctx, host, 5) == (1, 1)
        assert await gate(ctx, host, 5) == (1, 0)                     # both claimed: nothing posted beyond
        assert (await take(ctx, host, 5))["ok"] == 0                  # and no unclaimed one
        await take(ctx, host, 5, take=0, claimed=1)
        assert await gate(ctx, host, 5) == (1, 1)

    host.run(user)


def test_a_claim_given_back_resumes_who_waits():
    """All places on the card are claimed, more is posted: the gate turns away, and a claim given back lets it in."""
    host = Host(4, 0.0)

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install(ctx, 2)
        queue = Queue(host, 2, base, 3)
        queue.write(6)
        await host.post(ctx, 2, 6)
        await idle(ctx, 250)
        for _ in range(4):
            assert await gate(ctx, host, 2) == (1, 1)
        assert await gate(ctx, host, 2) == (0, 0)
        await idle(ctx, 20)
        assert not ctx.get(host.dut.resume.valid)
        await take(ctx, host, 2, take=0, claimed=1)
        assert (await receive(ctx, host.dut.resume))["qp"] == 2
        assert await gate(ctx, host, 2) == (1, 1)
        assert len(host.memory.reads) == 4

    host.run(user)


@pytest.mark.parametrize("seed", range(4))
def test_a_wqe_that_cannot_be_read(seed):
    """The gate lets it through, the take says failed, others are untouched; whether all words come or fewer."""
    host = Host(seed)

    async def user(ctx):
        await host.setup(ctx)
        for qp in (1, 2):
            base = await host.install(ctx, qp)
            queue = Queue(host, qp, base, 3)
            queue.write(2)
        host.memory.bad.add(0x10_0000 * 2 + 64)                       # WQE 1 of QP 1
        await host.post(ctx, 1, 2)
        await host.post(ctx, 2, 2)
        await idle(ctx, 400)
        for qp in (1, 2):
            for index in range(2):
                assert await gate(ctx, host, qp) == (1, 1)
                got = await take(ctx, host, qp, claimed=1)
                bad = (qp, index) == (1, 1)
                assert (got["ok"], got["failed"]) == (not bad, bad)
                if not bad:
                    assert got["total"] == sum(n for _, n, _ in wqe(qp, index))

    host.run(user)


def test_wqes_under_way_for_a_removed_qp_do_not_reach_its_successor():
    host = Host(7)

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install(ctx, 1, qpn=0x101)
        Queue(host, 1, base, 3).write(2)
        host.memory.hold = True
        await host.post(ctx, 0x101, 2)
        await idle(ctx, 40)
        assert len(host.memory.reads) == 2
        await host.token(ctx, TokenOp.KILL, 1)
        await host.token(ctx, TokenOp.REMOVE, 1)
        base = await host.install(ctx, 1, qpn=0x109, base=0x9000_0000)
        queue = Queue(host, 1, base, 3)
        assert await gate(ctx, host, 1) == (1, 0)
        host.memory.write(base, wqe_bytes(wqe(1, 77)))
        queue.posted = 1
        await host.post(ctx, 0x101, 1)                                # the old number
        await host.post(ctx, 0x109, 1)
        await idle(ctx, 10)
        assert await gate(ctx, host, 1) == (0, 0)
        host.memory.hold = False
        assert (await receive(ctx, host.dut.resume))["qp"] == 1
        assert await gate(ctx, host, 1) == (1, 1)
        got = await take(ctx, host, 1, claimed=1)
        assert got["ok"] and got["wqe_index"] == 0
        assert got["total"] == sum(n for _, n, _ in wqe(1, 77))
        assert await element(ctx, host, 1, got["entry"], 2) == wqe(1, 77)[2]
        assert host.counted["doorbell_refused"] == 1

    host.run(user)


def test_kill_takes_claims_back_and_stops_fetching():
    host = Host(8)

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install(ctx, 1)
        queue = Queue(host, 1, base, 3)
        queue.write(8)
        await host.post(ctx, 1, 3)
        await idle(ctx, 300)
        assert await gate(ctx, host, 1) == (1, 1)
        await host.token(ctx, TokenOp.KILL, 1)
        reads = len(host.memory.reads)
        await host.post(ctx, 1, 8)
        await idle(ctx, 100)
        assert len(host.memory.reads) == reads == 3
        assert await gate(ctx, host, 1) == (1, 0)                     # a dead stream waits for nothing
        await host.token(ctx, TokenOp.UPLOAD, 1)
        assert ctx.get(host.dut.upload.rq_consumed) == 0

    host.run(user)


REFUSED = {
    "another context": (DoorbellKind.RQ, 0x21, 1, 2),
    "another number in the same slot": (DoorbellKind.RQ, 0x29, 1, 1),
    "number of more than 24 bits": (DoorbellKind.RQ, 0x0100_0021, 1, 1),
    "no such QP": (DoorbellKind.RQ, 0x22, 1, 0),
    "more than the ring has": (DoorbellKind.RQ, 0x21, 9, 1),
    "SQ of another context": (DoorbellKind.SQ, 0x21, 1, 2),
    "SQ: another number in the same slot": (DoorbellKind.SQ, 0x29, 1, 1),
    "SQ: number of more than 24 bits": (DoorbellKind.SQ, 0x0100_0021, 1, 1),
    "SQ: more than the ring has": (DoorbellKind.SQ, 0x21, 17, 1),
    "SQ: the QP has none": (DoorbellKind.SQ, 0x23, 1, 1),
    "SQ: no such QP": (DoorbellKind.SQ, 0x22, 1, 0),
    "CQ of another context": (DoorbellKind.CQ, 1, 0, 1),
    "CQ: more than was produced": (DoorbellKind.CQ, 1, 1, 2),
    "CQ: no such": (DoorbellKind.CQ, 2, 0, 0),
    "CQ: number beyond the table": (DoorbellKind.CQ, 5, 0, 2),
    "arming a CQ of another context": (DoorbellKind.CQ_ARM, 1, 0, 3),
}


@pytest.mark.parametrize("why", REFUSED)
def test_doorbells_that_are_refused(why):
    host = Host(9)
    kind, number, value, context = REFUSED[why]

    async def user(ctx):
        await host.setup(ctx)
        await host.create_cq(ctx, 1, context=2)
        base = await host.install(ctx, 1, qpn=0x21, context=1)
        Queue(host, 1, base, 3).write(8)
        await host.install_send(ctx, 1, qpn=0x21, context=1, log2=4)
        await host.install_send(ctx, 3, qpn=0x23, context=1, log2=0)
        await host.ring_doorbell(ctx, kind, number, value, context)
        await idle(ctx, 60)
        assert host.counted["doorbell_refused"] == 1
        assert host.memory.reads == [] and host.send_memory.reads == [] and host.send_ready == []
        # Nothing was changed: the right ones still work, from the page of the owner and from the kernel's
        for good in ((DoorbellKind.RQ, 0x21, 1, 1), (DoorbellKind.RQ, 0x21, 2, 0), (DoorbellKind.SQ, 0x21, 16, 1),
                     (DoorbellKind.CQ, 1, 0, 2), (DoorbellKind.CQ_ARM, 1, 7, 2)):
            await host.ring_doorbell(ctx, *good)
        await idle(ctx, 120)
        assert host.counted["doorbell_refused"] == 1
        assert len(host.memory.reads) == 2 and host.send_ready == [1]

    host.run(user)


def test_no_receive_queue():
    """rq_log2 0: nothing can be posted, and the gate lets pass without a claim."""
    host = Host(10)

    async def user(ctx):
        await host.setup(ctx)
        await host.install(ctx, 1, rq_log2=0)
        await host.post(ctx, 1, 1)
        await idle(ctx, 20)
        assert host.counted["doorbell_refused"] == 1
        assert await gate(ctx, host, 1) == (1, 0)

    host.run(user)
