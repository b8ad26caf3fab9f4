"""Benchmarks of the whole card in cycles; runs inside the simulator, leaves JSON in ``EMPLACE_BENCH_OUT``."""

import json
import os
import random
import time

import cocotb
from cocotb.triggers import RisingEdge

from emplace.config import PROFILES

from . import sender
from .system import Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
#: FPDU payload that fills a segment of MTU 1500 with timestamps.
FULL = 1428
RESULTS = {}


def leave(**values):
    RESULTS.update(values)
    with open(os.environ["EMPLACE_BENCH_OUT"], "w") as file:
        json.dump(RESULTS, file, indent=1)


async def start(dut, **more):
    return await Bench(dut, CONFIG, log=False, max_payload=256, **more).start()


class Meter:
    """Cycles at which the bytes of a region were written."""

    def __init__(self, bench, region):
        self.bench, self.marks, self.total = bench, [], 0
        region.buffer.written = self.written

    def written(self, at, data):
        self.total += len(data)
        self.marks.append((self.bench.cycle(), self.total))

    def rate(self, skip=0.2):
        """Bytes per cycle without the first ``skip`` of the run."""
        start = next(mark for mark in self.marks if mark[1] >= skip * self.total)
        end = self.marks[-1]
        return (end[1] - start[1]) / (end[0] - start[0])


async def stream(dut, *, payload, count, cut, timestamps=True, pack=1):
    """Rate, cycles a Write and fast-path share of ``count`` Writes of ``payload`` bytes, cut by ``cut``."""
    b = await start(dut)
    link = await b.connect(timestamps=timestamps)
    region = await b.region(link, 1 << 18)
    meter = Meter(b, region)
    data = random.Random(5).randbytes(payload)
    made = [link.fpdu(sender.write(region.rkey, region.base + n * payload % ((1 << 18) - payload), data))
            for n in range(64)]
    units = [b"".join(made[(n + k) % 64] for k in range(pack)) for n in range(count // pack)]
    wall = time.monotonic()
    first = b.cycle()
    for unit in units:
        for part in cut(unit):
            b.put(link.flow.push(part))
    done = await b.until(lambda: meter.total == count // pack * pack * payload, 400 * count + 20000, step=64)
    cycles = b.cycle() - first
    wall = time.monotonic() - wall
    counters = await b.counters()
    b.check()
    await b.stop()
    rate = meter.rate() if meter.marks else 0
    lost = counters["rx_no_slot"] + counters["rx_overflow"] + counters["rx_refused"]
    share = counters["rx_fast_path"] / max(counters["rx_fast_path"] + counters["rx_slow_path"], 1)
    return {"rate": rate if done else 0.0, "cycles_per_write": payload / rate if rate and done else None, "lost": lost,
            "fast_path": share, "speed": cycles / wall}


def whole(unit):
    return [unit]


def siw(unit):
    """As Linux siw often cuts: the CRC in a segment of its own."""
    return [unit[:-4], unit[-4:]]


@cocotb.test()
async def goodput_aligned(dut):
    r = await stream(dut, payload=FULL, count=150, cut=whole)
    leave(goodput_aligned=r["rate"], lost_aligned=r["lost"], fast_path_aligned=r["fast_path"], speed_loaded=r["speed"])


@cocotb.test()
async def goodput_siw(dut):
    r = await stream(dut, payload=FULL, count=150, cut=siw)
    leave(goodput_siw=r["rate"], lost_siw=r["lost"], fast_path_siw=r["fast_path"])


@cocotb.test()
async def small_writes(dut):
    r = await stream(dut, payload=64, count=300, cut=whole)
    leave(write64_timestamps=r["cycles_per_write"], lost_write64=r["lost"])
    r = await stream(dut, payload=64, count=300, cut=whole, timestamps=False)
    leave(write64=r["cycles_per_write"])
    r = await stream(dut, payload=64, count=340, cut=whole, pack=17)
    leave(write64_packed=r["cycles_per_write"])


@cocotb.test()
async def latency(dut):
    """From the word with the SFD on XGMII to the first word of the write TLP."""
    b = await start(dut, lane4=False)
    link = await b.connect()
    region = await b.region(link, 4096)
    found = []
    for n in range(4):
        sent = []
        b.wire.sent = lambda frame, at, sent=sent: sent.append(at // 8)
        b.put(link.flow.push(link.fpdu(sender.write(region.rkey, region.base + 64 * n, bytes(64)))))
        await RisingEdge(dut.tx_tlp__valid)
        found.append(b.cycle() - sent[0])
        await link.acknowledged()
    b.check()
    await b.stop()
    leave(wire_to_host=max(found))


@cocotb.test()
async def smallest_frames(dut):
    """Pure ACKs back to back: every one must be taken."""
    b = await start(dut)
    link = await b.connect(timestamps=False)
    frames = 400
    first = b.cycle()
    for _ in range(frames):
        b.put(link.flow.frame())
    await b.wire.drained.wait() if b.wire.queue else None
    last = b.cycle()
    await b.cycles(500)
    taken, = await b.counters("rx_pure_acks")
    b.check()
    await b.stop()
    leave(smallest_frame_cycles=(last - first) / frames if taken == frames else None)


@cocotb.test()
async def idle(dut):
    b = await start(dut)
    wall = time.monotonic()
    await b.cycles(300_000)
    wall = time.monotonic() - wall
    await b.stop()
    leave(speed_idle=300_000 / wall)
