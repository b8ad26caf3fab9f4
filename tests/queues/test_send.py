"""Send queues at the layer: their doorbells, their own reads, their completions among the others."""

import random

import pytest
from tests.queues.harness import Host, idle, send_wqe, wqe, wqe_bytes

from emplace.dma.records import PlaceKind, ReadClient, WriteKind
from emplace.queues.ports import DoorbellKind
from emplace.queues.records import LineOutcome, SendOrderOp

QP, QPN, LOG2 = 5, 0x44445, 4


async def post(ctx, host, base, index, count):
    for n in range(index, index + count):
        host.memory.write(base + 64 * (n % (1 << LOG2)), send_wqe(QP, n))
    await host.ring_doorbell(ctx, DoorbellKind.SQ, QPN, index + count & 0xFFFF, context=1)
    await idle(ctx, 6)


async def get(ctx, host, index):
    """A WQE's line, pinned; asks again when the QP is named."""
    while True:
        host.send_ready.clear()
        outcome, answer = await host.ask_send(ctx, QP, index)
        if outcome is not LineOutcome.LATER:
            return outcome, answer
        while QP not in host.send_ready:
            await ctx.tick()


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_posted_fetched_and_used(stall):
    """Over laps of the ring: the doorbell names the QP, the WQEs come by the send queues' own reads, and no more are taken
    than have been retired. The receive queue of the same QP sees nothing of it."""
    host, rng = Host(1, stall), random.Random(1)

    async def user(ctx):
        await host.setup(ctx)
        receive_base = await host.install(ctx, QP, qpn=QPN, rq_log2=3)
        host.memory.write(receive_base, wqe_bytes(wqe(QP, 0)))
        base = await host.install_send(ctx, QP, qpn=QPN, log2=LOG2)
        assert (await host.ask_send(ctx, QP, 0))[0] is LineOutcome.EMPTY
        assert host.send_ready == []
        posted = done = refused = 0
        while done < 50:
            count = rng.randint(1, (1 << LOG2) - (posted - done))
            await post(ctx, host, base, posted, count)
            posted += count
            for _ in range(20):
                if QP in host.send_ready:
                    break
                await ctx.tick()
            assert set(host.send_ready) == {QP}
            await host.ring_doorbell(ctx, DoorbellKind.SQ, QPN, done + (1 << LOG2) + 1, context=1)
            await idle(ctx, 6)
            refused += 1
            assert host.counted["doorbell_refused"] == refused
            for _ in range(rng.randint(1, posted - done)):
                outcome, answer = await get(ctx, host, done)
                assert outcome is LineOutcome.HERE and answer["posted"] == posted
                port = rng.randrange(2)
                assert await host.read_send(ctx, answer["line"], done, port) == send_wqe(QP, done)
                await host.unpin_send(ctx, answer["line"], port)
                done += 1
            await host.retire_send(ctx, QP, done + (1 << LOG2))
        assert host.memory.reads == []
        assert all(base <= address and address + length <= base + (64 << LOG2) for address, length in host.send_memory.reads)
        before = list(host.send_memory.reads)
        await host.post(ctx, QPN, 1)
        await idle(ctx, 100)
        assert host.memory.reads == [(receive_base, 64)] and host.send_memory.reads == before

    host.run(user)


def test_reads_name_their_client():
    host = Host(2)
    clients = []

    async def watch(ctx):
        while True:
            *_, valid, ready, client = await ctx.tick().sample(
                host.dut.send_reads.valid, host.dut.send_reads.ready, host.dut.send_reads.p.client)
            if valid and ready:
                clients.append(client)

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install_send(ctx, QP, qpn=QPN, log2=LOG2)
        await post(ctx, host, base, 0, 12)
        for index in (0, 8):
            assert (await get(ctx, host, index))[0] is LineOutcome.HERE

    host.run(user, background=[watch])
    assert len(clients) == 2 and set(clients) == {ReadClient.SEND}


def test_removed_and_made_anew():
    """Nothing can be posted to a queue that is no more; a new one begins empty, at 0, with its own context."""
    host = Host(3)

    async def user(ctx):
        await host.setup(ctx)
        base = await host.install_send(ctx, QP, qpn=QPN, log2=LOG2)
        await post(ctx, host, base, 0, 16)
        assert (await get(ctx, host, 0))[0] is LineOutcome.HERE
        await host.order(ctx, SendOrderOp.REMOVE, QP, qpn=QPN)
        await host.ring_doorbell(ctx, DoorbellKind.SQ, QPN, 16, context=1)
        await idle(ctx, 6)
        assert host.counted["doorbell_refused"] == 1
        await host.install_send(ctx, QP, qpn=QPN ^ 1 << 20, log2=3, context=2)
        assert (await host.ask_send(ctx, QP, 0))[0] is LineOutcome.EMPTY
        for refused, (number, value, context) in enumerate(
                [(QPN, 1, 1), (QPN ^ 1 << 20, 1, 1), (QPN ^ 1 << 20, 9, 2)], 2):
            await host.ring_doorbell(ctx, DoorbellKind.SQ, number, value, context)
            await idle(ctx, 6)
            assert host.counted["doorbell_refused"] == refused
        await host.ring_doorbell(ctx, DoorbellKind.SQ, QPN ^ 1 << 20, 8, 2)
        await idle(ctx, 6)
        assert host.counted["doorbell_refused"] == 4
        assert (await get(ctx, host, 7))[0] is LineOutcome.HERE

    host.run(user)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_completions_of_both_sides(stall):
    """The receiving and the sending side at once, into the same CQ and event ring: each side's order stays, nothing is lost
    or comes twice, and neither side waits for ever."""
    host, count, started = Host(4, stall), 40, []

    def side(sending):
        async def user(ctx):
            while not started:
                await ctx.tick()
            for n in range(count):
                await host.cqe(ctx, 1, qp=2, sending=sending, wqe_index=n, qpn=int(sending))
                if n % 10 == 9:
                    await host.event(ctx, sending=sending, type=3, reason=n, qpn=int(sending))
                if not sending and n % 4 == 0:
                    await host.place(ctx, kind=PlaceKind.PAYLOAD, address=n, length=8)
        return user

    async def user(ctx):
        await host.setup(ctx)
        base = await host.create_cq(ctx, 1, log2=7)
        started.append(True)
        while len(host.writes) < 2 * count + 2 * count // 10 + count // 4:
            await ctx.tick()
        await idle(ctx, 50)
        assert len(host.writes) == 2 * count + 2 * count // 10 + count // 4
        cqes, events = host.cqes(base, 7, 0, 2 * count), host.events(0, 2 * count // 10)
        for who in (0, 1):
            assert [c["wqe_index"] for c in cqes if c["qpn"] == who] == list(range(count))
            assert [e["reason"] for e in events if e["qpn"] == who] == list(range(9, count, 10))
        assert all(count // 4 < sum(c["qpn"] == who for c in cqes[:count]) for who in (0, 1)), "not in turns"
        assert [w["address"] for w in host.writes if w["kind"] == WriteKind.PAYLOAD.value] == list(range(0, count, 4))
        assert host.counted["cq_overflow"] == host.counted["event_overflow"] == 0

    host.run(user, side(False), side(True))
