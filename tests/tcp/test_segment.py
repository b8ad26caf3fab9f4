"""Segments are built of the octets that were ordered, whole, and summed."""

import random

import pytest
from tests.stream.harness import receive, send, simulate

from emplace.config import PROFILES
from emplace.tcp.segment import SegmentBuilder
from emplace_sim.inet import checksum

TINY = PROFILES["tiny"]
MSS = 1448


def plan(rng, count, *, most=400, torn=0.2, spoil=0.0):
    """Segments of one FPDU or more, some of them cut: [(lead, [(fpdu, begin, end, err)])]."""
    segments = []
    for _ in range(count):
        parts = []
        for _ in range(rng.choice([1, 1, 1, 2, 3, 7])):
            fpdu = rng.randbytes(4 * rng.randint(5, rng.choice([8, most // 4])))
            begin, end = 0, len(fpdu)
            if rng.random() < torn:
                begin = rng.randrange(len(fpdu))
                end = rng.randint(begin + 1, len(fpdu))
            parts.append((fpdu, begin, end, rng.random() < spoil))
        segments.append((rng.choice([2, 6]), parts))
    return segments


def run(segments, *, idle=0.0, stall=0.0, seed=0, cycles=80000):
    """(segment records with their payloads, QPs dropped) of what was built of ``segments``, the n-th with qp n % qps."""
    dut = SegmentBuilder(TINY)
    fpdus = [part for _, parts in segments for part in parts]
    good = sum(not any(err for *_, err in parts) for _, parts in segments)
    records, packets, dropped = [], [], []

    async def orders(ctx):
        rng = random.Random(f"o{seed}")
        for n, (lead, parts) in enumerate(segments):
            for k, (_, begin, end, _) in enumerate(parts):
                closes = k == len(parts) - 1
                while rng.random() < idle:
                    await ctx.tick()
                ctx.set(dut.orders.payload, {
                    "qp": n % TINY.qps, "begin": begin, "end": end, "closes": closes,
                    "lead": rng.randrange(8) if k else lead, "seq": 1000 * n if closes else rng.getrandbits(32),
                    "length": sum(e - b for _, b, e, _ in parts) if closes else 5, "push": n & 1 if closes else 0})
                ctx.set(dut.orders.valid, 1)
                await ctx.tick().until(dut.orders.ready)
                ctx.set(dut.orders.valid, 0)

    async def source(ctx):
        await send(ctx, dut.fpdus, [fpdu for fpdu, *_ in fpdus], random.Random(f"f{seed}"), idle,
                   spoil={n for n, (*_, err) in enumerate(fpdus) if err is True})

    async def sink(ctx):
        packets.extend(await receive(ctx, dut.packets, good, random.Random(f"p{seed}"), stall))

    async def take(ctx):
        rng = random.Random(f"s{seed}")
        while len(records) < good:
            ctx.set(dut.segments.ready, rng.random() >= stall)
            _, _, valid, ready, p = await ctx.tick().sample(dut.segments.valid, dut.segments.ready, dut.segments.payload)
            if valid and ready:
                records.append({name: int(p[name]) for name in ("qp", "seq", "length", "push", "sum")})

    async def watch(ctx):
        async for _, _, valid, qp in ctx.tick().sample(dut.dropped.valid, dut.dropped.p.qp):
            if valid:
                dropped.append(qp)
    simulate(dut, orders, source, sink, take, cycles=cycles, background=[watch])
    return records, packets, dropped


def check(segments, found):
    records, packets, dropped = found
    good = [(n, lead, b"".join(fpdu[b:e] for fpdu, b, e, _ in parts)) for n, (lead, parts) in enumerate(segments)
            if not any(err for *_, err in parts)]
    assert len(good) == len(records) == len(packets)
    assert dropped == [n % TINY.qps for n, (_, parts) in enumerate(segments) if any(err for *_, err in parts)]
    for (n, lead, payload), record, (packet, err) in zip(good, records, packets, strict=True):
        assert not err and packet == bytes(lead) + payload
        total = record.pop("sum")
        assert total % 0xFFFF == (checksum(payload) ^ 0xFFFF) % 0xFFFF
        assert record == {"qp": n % TINY.qps, "seq": 1000 * n, "length": len(payload), "push": n & 1}


@pytest.mark.parametrize("idle, stall", [(0, 0), (0.3, 0.3), (0, 0.7), (0.5, 0)])
def test_random(idle, stall):
    segments = plan(random.Random(11), 120, spoil=0.03)
    check(segments, run(segments, idle=idle, stall=stall))


def test_many_small_ones_wait():
    """Records find room however many small segments are staged while nothing is taken."""
    rng = random.Random(12)
    segments = [(2, [(rng.randbytes(20), 0, 20, False)]) for _ in range(80)]
    check(segments, run(segments, stall=0.97))


def test_every_cut():
    """Of an FPDU, any octets."""
    rng = random.Random(13)
    fpdu = rng.randbytes(28)
    segments = [(6, [(fpdu, begin, end, False)]) for begin in range(28) for end in range(begin + 1, 29)]
    check(segments, run(segments))


def test_a_short_fpdu_drops_its_segment():
    """It ends before the octets that were ordered: nothing of the segment leaves, the next one is whole."""
    rng = random.Random(14)
    segments = plan(rng, 40, torn=0)
    lies = []
    for n, (lead, parts) in enumerate(segments):
        if n % 4 == 1:
            fpdu, _, end, _ = parts[-1]
            parts = [*parts[:-1], (fpdu[:rng.randint(1, len(fpdu) - 1)], rng.choice([0, end - 1]), end, "short")]
        lies.append((lead, parts))
    check(lies, run(lies))


def test_throughput():
    """Large segments at line rate: MSS with a header of 66 bytes in fewer cycles than the wire takes."""
    rng = random.Random(15)
    segments = [(2, [(rng.randbytes(MSS), 0, MSS, False)]) for _ in range(8)]
    check(segments, run(segments, cycles=8 * 184 + 200))
