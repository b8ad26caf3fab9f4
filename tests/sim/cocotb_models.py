"""XGMII driver and monitor, and the bus, on tests.sim.test_build.Loop."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Timer

from emplace_sim.bus import CARD_ID, FastBus
from emplace_sim.host import HostMemory
from emplace_sim.host_tlp import memory_request
from emplace_sim.xgmii import XgmiiDriver, XgmiiMonitor, finish


async def start(dut):
    dut.rst.value = 1
    Clock(dut.clk, 8, "ns", impl="gpi").start()
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0


@cocotb.test()
@cocotb.parametrize(lane4=[False, True])
async def frames(dut, lane4):
    await start(dut)
    got, sent, rng = [], [], random.Random(1)
    driver = XgmiiDriver(dut, lane4=lane4, sent=lambda frame, at: sent.append(at))
    monitor = XgmiiMonitor(dut, lambda frame, at: got.append((frame, at)))
    frames = [finish(rng.randbytes(rng.randint(30, 400))) for _ in range(60)]
    for n, frame in enumerate(frames):
        driver.send(frame)
        if n % 10 == 9:
            await Timer(rng.randrange(4000), "ns")
    await Timer(20, "us")
    assert [frame for frame, _ in got] == frames and not monitor.decoder.problems
    # Driven a cycle after it was told, out of the register a cycle after that.
    assert {at - told for told, (_, at) in zip(sent, got)} <= {8, 16, 24}, sorted(
        {at - told for told, (_, at) in zip(sent, got)})


def memory_write(bus, address, data):
    bus._send(memory_request(address, 0, data=data, requester=CARD_ID), "test")


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def bus(dut, stall):
    """What the host sends comes back as if the card had sent it."""
    await start(dut)
    memory, rng = HostMemory(seed=2), random.Random(2)
    bus = FastBus(dut, memory, tlp_bytes=8, stall=stall, gap=stall, latency=20, jitter=40).start()
    await ClockCycles(dut.clk, 3)
    buffer = memory.alloc(3000, contiguous=True, label="x")
    want = bytearray(buffer.read())
    for _ in range(60):
        size = rng.randint(1, 200)
        at = rng.randrange(3000 - size)
        data = rng.randbytes(size)
        want[at:at + size] = data
        memory_write(bus, buffer.address + at, data)
        if rng.random() < 0.2:
            await Timer(rng.randrange(1000), "ns")
    for _ in range(500):
        if buffer.read() == want or not await bus.wait_activity(5000):
            break
    assert buffer.read() == want and not bus.problems and memory.check_canaries() == []
    # A read comes back, is answered, and its answer comes back.
    bus._send(memory_request(buffer.address + 5, 60, requester=CARD_ID, tag=3), "test")
    assert await bus.wait_activity(5000) and bus.outstanding == {3}
    seen = []
    bus._completed = lambda tlp: seen.append(tlp) or []
    assert await bus.wait_activity(5000)
    assert seen[0].payload[seen[0].lower_address & 3:][:60] == want[5:65] and not bus.outstanding
    bus.stop()


@cocotb.test()
async def quiet(dut):
    """Time passes while nothing happens; a bus can be stopped in its sleep."""
    await start(dut)
    host = FastBus(dut, HostMemory(), tlp_bytes=8).start()
    assert not await host.wait_activity(100)
    host.stop()
