"""Cycles: between walks, and per ACK."""

from itertools import pairwise

import pytest
from tests.tcp.harness import Bench

from emplace import abi


async def burst(ctx, bench, qps, count, length=16):
    for qp in qps:
        await bench.install(ctx, qp, flags=abi.QpFlags(0))
    bench.walk_times.clear()
    slots = [await bench.fill(ctx, bytes(length)) for _ in range(count)]
    at = dict.fromkeys(qps, 1000)
    for n, slot in enumerate(slots):
        qp = qps[n % len(qps)]
        bench.mine.discard(slot)
        await bench.put(ctx, bench.dut.segments, {"qp": qp, "slot": slot, "length": length, "seq": at[qp],
                                                  "ack": bench.installed[qp]["snd_nxt"]})
        at[qp] += length
    await bench.settle(ctx)


@pytest.mark.parametrize("qps", [[0], [0, 1, 2]])
def test_between_walks(qps):
    """At most 5 cycles from a result to the next request, same connection or not, while segments wait."""
    bench = Bench(seed=1, stall=0)

    async def test(ctx):
        await burst(ctx, bench, qps, 8)
        gaps = [begun - ended for (_, ended), (begun, _) in pairwise(bench.walk_times)]
        assert len(gaps) == 7 and max(gaps) <= 5, gaps

    bench.run(test)


@pytest.mark.parametrize("flags, cycles", [(abi.QpFlags(0), 8), (abi.QpFlags.TIMESTAMPS, 9),
                                           (abi.QpFlags.TIMESTAMPS | abi.QpFlags.VLAN, 9)])
def test_acks(flags, cycles):
    """ACKs of different connections leave one behind the other, each in one piece."""
    bench = Bench(seed=2, stall=0)
    seen = []

    async def test(ctx):
        bench.hold_acks = True
        for qp in range(4):
            await bench.install(ctx, qp, flags=flags)
        for qp in range(4):
            await bench.segment(ctx, qp, 1000, b"x", tsval=600)
        await bench.settle(ctx)
        bench.hold_acks = False
        for _ in range(60):
            _, _, valid, ready, last = await ctx.tick().sample(bench.dut.frames.valid, bench.dut.frames.ready,
                                                               bench.dut.frames.p.last)
            seen.append((int(valid and ready), int(valid and ready and last)))

    bench.run(test)
    ends = [n for n, (_, last) in enumerate(seen) if last]
    assert len(ends) == 4
    assert all(b - a == cycles for a, b in pairwise(ends[1:])), ends
    nwords = -(-(54 + 12 * bool(flags & 2) + 4 * bool(flags & 8)) // 8)
    for end in ends[1:]:
        assert all(taken for taken, _ in seen[end - nwords + 1:end + 1])
