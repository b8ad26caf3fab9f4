"""The scatterer alone, where no stream of octets can bring it."""

import pytest
from amaranth.sim import Simulator

from emplace.abi import Reason
from emplace.config import PROFILES
from emplace.rdmap.records import ScatterOp
from emplace.rdmap.scatter import Scatter


@pytest.mark.parametrize("mo, payload, total, reason", [
    (0, 100, 100, None), (0, 101, 100, Reason.TOO_LONG), (2**32 - 9, 8, 2**34 - 1, None),
    (2**32 - 8, 8, 2**34 - 1, Reason.TOO_LONG),      # a message has less than 2**32 octets
    (2**32 - 1, 0xFFFF, 2**32 + 0xFFFE, Reason.TOO_LONG), (2**31, 0xFFFF, 2**31 + 0xFFFE, Reason.TOO_LONG),
    (2**31, 0xFFFF, 2**31 + 0xFFFF, None),
])
def test_bounds(mo, payload, total, reason):
    dut = Scatter(PROFILES["tiny"])
    steps = []

    async def bench(ctx):
        for port, value in ((dut.request, {"op": ScatterOp.SEGMENT, "qp": 2, "first": 1, "mo": mo, "payload": payload}),
                            (dut.taken, {"ok": 1, "entry": 1, "total": total}),
                            (dut.sge_data, {"addr": 0x1000, "length": 0xFFFFFFFF, "lkey": 7})):
            ctx.set(port.payload, value)
            ctx.set(port.valid, 1)
        ctx.set(dut.take.ready, 1)
        ctx.set(dut.sge.ready, 1)
        await ctx.tick()
        ctx.set(dut.request.valid, 0)
        for _ in range(20):
            await ctx.tick()
            if ctx.get(dut.step.valid) and not steps:
                step = ctx.get(dut.step.payload)
                steps.append((step.end, Reason(step.reason), step.length, step.octets))
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    if reason:
        assert [step[:2] for step in steps] == [(1, reason)]
    else:
        assert steps == [(0, Reason.NONE, payload, mo + payload)]
