import random

import pytest
from tests.queues.bench import send
from tests.queues.harness import EVENTS, Host, idle, wqe, wqe_bytes
from tests.queues.test_receive import gate, take

from emplace import abi
from emplace.control.records import TokenOp
from emplace.dma.records import PlaceKind, WriteKind
from emplace.queues.ports import CqOp, DoorbellKind


async def consume(ctx, host, cq, upto):
    await host.ring_doorbell(ctx, DoorbellKind.CQ, cq, upto)
    await idle(ctx, 6)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_cqes_over_three_laps(stall):
    """Every field and the phase, in each lap; the host consumes now and then."""
    host = Host(1, stall)
    rng = random.Random(1)
    bodies = []

    async def user(ctx):
        await host.setup(ctx)
        base = await host.create_cq(ctx, 2, log2=2)
        for index in range(13):
            body = {"qpn": rng.getrandbits(24), "opcode": 128, "status": rng.randrange(6),
                    "solicited": rng.getrandbits(1), "with_inv": rng.getrandbits(1),
                    "wqe_index": rng.getrandbits(16), "byte_len": rng.getrandbits(32),
                    "invalidated": rng.getrandbits(32), "immediate": rng.getrandbits(64)}
            bodies.append(body)
            await host.cqe(ctx, 2, **body)
            while len(host.writes) <= index:
                await ctx.tick()
            entry, = host.cqes(base, 2, index, 1)
            assert {name: entry[name] for name in body} == body
            if index % 3 == 2:
                await consume(ctx, host, 2, index + 1)

    host.run(user)
    assert all(w["length"] == 32 for w in host.writes)
    assert host.counted["cq_overflow"] == 0 and not host.deaths


def test_events_over_laps_and_overflow():
    host = Host(2)
    rng = random.Random(2)

    async def user(ctx):
        await host.setup(ctx)
        for index in range(20):
            body = {"type": 1, "reason": index, "terminate": rng.getrandbits(16), "qpn": rng.getrandbits(24),
                    "data": [rng.getrandbits(8) for _ in range(48)]}
            await host.event(ctx, **body)
            while len(host.writes) <= index:
                await ctx.tick()
            entry, = host.events(index, 1)
            assert entry["data"].to_bytes(48, "little") == bytes(body.pop("data"))
            assert {name: entry[name] for name in body} == body
            if index % 7 == 6:
                ctx.set(host.dut.event_ring.consumer, index + 1)
        # 14 were consumed of 20; the ring has 8
        for _ in range(5):
            await host.event(ctx, type=3)
        await idle(ctx, 40)
        assert len(host.writes) == 22 and host.counted["event_overflow"] == 3
        ctx.set(host.dut.event_ring.consumer, 22)
        await idle(ctx, 3)
        await host.event(ctx, type=4, reason=9)
        await idle(ctx, 20)
        assert host.events(22, 1)[0]["reason"] == 9
        # Restart: number 0, first lap
        ctx.set(host.dut.event_ring, {**host.ring, "restart": 1})
        await ctx.tick()
        ctx.set(host.dut.event_ring.restart, 0)
        host.memory.bytes.clear()
        await host.event(ctx, type=2, reason=7)
        await idle(ctx, 20)
        assert host.events(0, 1)[0]["reason"] == 7
        assert host.writes[-1]["address"] == EVENTS

    host.run(user)


def test_events_without_a_ring_are_dropped():
    host = Host(2)
    host.ring["enabled"] = 0

    async def user(ctx):
        await host.setup(ctx)
        await host.event(ctx, type=1)
        await idle(ctx, 20)
        assert host.writes == [] and host.counted["event_overflow"] == 1

    host.run(user)


def test_full_cq():
    """The completion is lost, its stream dies, the CQ is reported once; other CQs and later completions go on."""
    host = Host(3)

    async def user(ctx):
        await host.setup(ctx)
        bases = {cq: await host.create_cq(ctx, cq, log2=2) for cq in (0, 1)}
        for n in range(4):
            await host.cqe(ctx, 0, qp=1, wqe_index=n)
        for qp in (5, 6, 5):
            await host.cqe(ctx, 0, qp=qp)
        await host.cqe(ctx, 1, qp=6, wqe_index=77)
        await idle(ctx, 80)
        assert host.counted["cq_overflow"] == 3
        assert host.deaths == [{"qp": qp, "reason": abi.Reason.CQ_OVERFLOW} for qp in (5, 6, 5)]
        assert [c["wqe_index"] for c in host.cqes(bases[0], 2, 0, 4)] == [0, 1, 2, 3]
        assert host.cqes(bases[1], 2, 0, 1)[0]["wqe_index"] == 77
        event, = host.events(0, 1)
        assert (event["type"], event["qpn"], event["reason"]) == (abi.EventType.CQ_ERROR, 0, abi.Reason.CQ_OVERFLOW)
        assert sum(w["length"] == 64 for w in host.writes) == 1
        await consume(ctx, host, 0, 1)
        await host.cqe(ctx, 0, qp=1, wqe_index=44)
        await idle(ctx, 40)
        assert host.cqes(bases[0], 2, 4, 1)[0]["wqe_index"] == 44
        assert host.counted["cq_overflow"] == 3

    host.run(user)


def test_a_cq_that_is_not_there_loses_its_completions():
    host = Host(3)

    async def user(ctx):
        await host.setup(ctx)
        await host.cqe(ctx, 3, qp=2)
        await idle(ctx, 40)
        assert host.writes == [] and host.counted["cq_overflow"] == 1
        assert host.deaths == [{"qp": 2, "reason": abi.Reason.CQ_OVERFLOW}]

    host.run(user)


def test_cq_life():
    host = Host(4)

    async def user(ctx):
        await host.setup(ctx)
        bad, ok = abi.Status.BAD_CQ, abi.Status.OK
        assert await host.update_cq(ctx, CqOp.CHECK, 1) is bad
        assert await host.update_cq(ctx, CqOp.DESTROY, 1) is bad
        base = await host.create_cq(ctx, 1)
        assert await host.update_cq(ctx, CqOp.CHECK, 1) is ok
        for n in range(3):
            await host.cqe(ctx, 1, wqe_index=n)
        await idle(ctx, 30)
        await consume(ctx, host, 1, 2)
        # A second CREATE changes nothing
        assert await host.update_cq(ctx, CqOp.CREATE, 1, log2=5, base=0x5000) is bad
        for n in (3, 4, 5):
            await host.cqe(ctx, 1, wqe_index=n)
        await idle(ctx, 40)
        assert [c["wqe_index"] for c in host.cqes(base, 2, 2, 4)] == [2, 3, 4, 5]
        assert await host.update_cq(ctx, CqOp.DESTROY, 1) is ok
        assert await host.update_cq(ctx, CqOp.CHECK, 1) is bad
        await consume(ctx, host, 1, 6)
        assert host.counted["doorbell_refused"] == 1
        # Made anew: first lap, nothing produced, nothing consumed
        host.memory.bytes.clear()
        base = await host.create_cq(ctx, 1, log2=3)
        await consume(ctx, host, 1, 1)
        assert host.counted["doorbell_refused"] == 2
        for n in range(8):
            await host.cqe(ctx, 1, wqe_index=n)
        await idle(ctx, 90)
        assert [c["wqe_index"] for c in host.cqes(base, 3, 0, 8)] == list(range(8))
        assert host.counted["cq_overflow"] == 0

    host.run(user)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_order_and_latency(stall):
    """Commands leave in order whatever their kind; control's writes come between and are not starved."""
    host = Host(5, stall)
    rng = random.Random(5)
    expected, inlines = [], []

    async def user(ctx):
        await host.setup(ctx)
        await host.create_cq(ctx, 0, log2=8)
        await host.install(ctx, 1)
        ctx.set(host.dut.event_ring.log2, 12)
        await idle(ctx, 5)
        host.writes.clear()
        for n in range(120):
            kind = rng.choice(["payload", "payload", "discard", "cqe", "event", "token"])
            if kind == "payload":
                fields = {"address": rng.getrandbits(64), "length": rng.randint(1, 2048), "skip": rng.randrange(64),
                          "final": rng.getrandbits(1)}
                await host.place(ctx, kind=PlaceKind.PAYLOAD, **fields)
            elif kind == "discard":
                fields = {}
                await host.place(ctx, kind=PlaceKind.DISCARD)
            elif kind == "cqe":
                fields = {"data": n}
                await host.cqe(ctx, 0, qpn=n)
            elif kind == "event":
                fields = {"data": n}
                await host.event(ctx, type=n)
            else:
                fields = {"token": rng.choice([TokenOp.FENCE, TokenOp.UPLOAD, TokenOp.KILL]).value | 1 << 3}
                await host.place(ctx, kind=PlaceKind.TOKEN, token={"op": TokenOp(fields["token"] & 7), "qp": 1})
            expected.append((kind, fields))

    async def control(ctx):
        while len(host.writes) < 2:
            await ctx.tick()
        for n in range(40):
            await send(ctx, host.dut.inline, {"kind": WriteKind.INLINE, "address": 4 * n, "length": 16,
                                              "data": n << 300}, rng, stall)
            inlines.append(n)

    host.run(user, control)
    mine = [w for w in host.writes if w["kind"] == WriteKind.INLINE.value and w["length"] == 16]
    assert [w["data"] >> 300 for w in mine] == list(range(40))
    rest = [w for w in host.writes if w not in mine]
    kinds = {"payload": WriteKind.PAYLOAD, "discard": WriteKind.DISCARD, "token": WriteKind.TOKEN}
    assert len(rest) >= len(expected) - 1                             # the last may still be on its way
    for write, (kind, fields) in zip(rest, expected):
        assert write["kind"] == kinds.get(kind, WriteKind.INLINE).value
        if kind in ("cqe", "event"):
            assert write["length"] == {"cqe": 32, "event": 64}[kind] and write["data"] & 0xFF == fields["data"]
        else:
            assert {name: write[name] for name in fields} == fields


def test_payload_passes_in_one_cycle_one_every_two():
    host = Host(6, 0.0)

    async def user(ctx):
        ctx.set(host.dut.commands.valid, 1)
        for n in range(10):
            ctx.set(host.dut.commands.payload, {"kind": PlaceKind.PAYLOAD, "address": n, "length": 1})
            _, _, ready = await ctx.tick().sample(host.dut.commands.ready)
            assert ready
            assert ctx.get(host.dut.writes.valid) and ctx.get(host.dut.writes.p.address) == n
            _, _, ready = await ctx.tick().sample(host.dut.commands.ready)
            assert not ready and not ctx.get(host.dut.writes.valid)
        ctx.set(host.dut.commands.valid, 0)

    host.run(user)


def test_flush_completes_every_wqe_that_is_left():
    """Taken or not, fetched or not, in order; then LAST_WQE, then the token. Nothing is left to take."""
    host = Host(7)

    async def user(ctx):
        await host.setup(ctx)
        base_cq = await host.create_cq(ctx, 2, log2=4)
        base = await host.install(ctx, 3, qpn=0x44443, rq_log2=3, cq=2)
        for n in range(8):
            host.memory.write(base + 64 * n, wqe_bytes(wqe(3, n)))
        await host.post(ctx, 0x44443, 7)
        await idle(ctx, 250)
        for retire in (1, 1, 0):                                      # two retired, one taken, one claimed
            assert await gate(ctx, host, 3) == (1, 1)
            assert (await take(ctx, host, 3, claimed=1))["ok"]
            if retire:
                await take(ctx, host, 3, take=0, retire=1)
        await idle(ctx, 150)
        assert await gate(ctx, host, 3) == (1, 1)
        await host.token(ctx, TokenOp.KILL, 3)
        host.writes.clear()
        await host.token(ctx, TokenOp.FLUSH, 3)
        assert len(host.writes) == 7                                  # 5 CQEs, event, token
        for index, cqe in enumerate(host.cqes(base_cq, 4, 0, 5)):
            assert (cqe["wqe_index"], cqe["qpn"], cqe["opcode"], cqe["status"], cqe["byte_len"]) == (
                2 + index, 0x44443, abi.WcOpcode.RECV, abi.WcStatus.WR_FLUSH_ERR, 0)
        event, = host.events(0, 1)
        assert (event["type"], event["qpn"], event["reason"]) == (abi.EventType.LAST_WQE, 0x44443, 0)
        assert host.writes[5]["length"] == 64
        await host.token(ctx, TokenOp.UPLOAD, 3)
        assert ctx.get(host.dut.upload.rq_consumed) == 7
        assert (await take(ctx, host, 3))["ok"] == 0
        # Again: what was posted since
        await host.post(ctx, 0x44443, 9)
        await idle(ctx, 10)
        await host.token(ctx, TokenOp.FLUSH, 3)
        assert [c["wqe_index"] for c in host.cqes(base_cq, 4, 5, 2)] == [7, 8]

    host.run(user)


def test_flush_into_a_full_cq():
    """What has no room is lost and counted; no stream is reported, since this one has ended; no hang."""
    host = Host(8)

    async def user(ctx):
        await host.setup(ctx)
        await host.create_cq(ctx, 0, log2=2)
        await host.install(ctx, 1)
        await host.post(ctx, 1, 8)
        await idle(ctx, 20)
        await host.token(ctx, TokenOp.FLUSH, 1)
        assert host.counted["cq_overflow"] == 4 and host.deaths == []
        kinds = [e["type"] for e in host.events(0, 2)]
        assert kinds == [abi.EventType.CQ_ERROR, abi.EventType.LAST_WQE]

    host.run(user)


def test_upload_tells_what_is_retired():
    host = Host(9)

    async def user(ctx):
        await host.setup(ctx)
        await host.create_cq(ctx, 0)
        base = await host.install(ctx, 1)
        for n in range(3):
            host.memory.write(base + 64 * n, wqe_bytes(wqe(1, n)))
        await host.post(ctx, 1, 3)
        await idle(ctx, 200)
        for retire in (1, 0):
            assert (await take(ctx, host, 1))["ok"]
            if retire:
                await take(ctx, host, 1, take=0, retire=1)
        await idle(ctx, 10)
        await host.token(ctx, TokenOp.UPLOAD, 1)
        upload = ctx.get(host.dut.upload)
        assert upload.rq_consumed == 1
        assert upload.as_bits() == 1 << abi.Upload["rq_consumed"].offset

    host.run(user)


def test_a_wqe_that_comes_after_the_flush_is_not_there():
    host = Host(10)

    async def user(ctx):
        await host.setup(ctx)
        await host.create_cq(ctx, 0, log2=4)
        await host.install(ctx, 1)
        host.memory.hold = True
        await host.post(ctx, 1, 3)
        await idle(ctx, 60)
        assert len(host.memory.reads) == 3
        await host.token(ctx, TokenOp.FLUSH, 1)
        host.memory.hold = False
        await idle(ctx, 250)
        assert (await take(ctx, host, 1))["ok"] == 0

    host.run(user)
