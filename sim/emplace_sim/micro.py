"""Cycle counts of single blocks, in Amaranth's simulator."""

import zlib

from amaranth.sim import Simulator

from emplace.config import PROFILES

from .sender import Flow
from .words import split
from .xgmii import IDLE, XgmiiDecoder, XgmiiEncoder

__all__ = ["measure"]

CONFIG = PROFILES["default"]
FRAMES = 60


def _run(dut, *testbenches):
    sim = Simulator(dut)
    sim.add_clock(8e-9)
    for bench in testbenches[:-1]:
        sim.add_testbench(bench, background=True)

    async def last(ctx):
        await testbenches[-1](ctx)
    sim.add_testbench(last)
    sim.run()


def mac_receive():
    """(cycles from a frame's first data word on XGMII to its first word out, cycles a 64-byte frame)."""
    from emplace.mac.layer import Mac
    dut = Mac(CONFIG)
    frame = bytes(range(60))
    wire = frame + zlib.crc32(frame).to_bytes(4, "little")
    encoder = XgmiiEncoder(lane4=True)
    words = [word for _ in range(FRAMES) for word in encoder.frame(wire)] + encoder.flush()
    first_in, firsts, lasts = [], [], []

    async def bench(ctx):
        ctx.set(dut.rx.ready, 1)
        fresh, cycle = True, 0
        for data, control in words + [IDLE] * 20:
            ctx.set(dut.xgmii_rx.d, data)
            ctx.set(dut.xgmii_rx.c, control)
            if control & 1 and data & 0xFF == 0xFB:
                first_in.append(cycle + 1)       # the word behind the preamble
            elif control >> 4 & 1 and data >> 32 & 0xFF == 0xFB:
                first_in.append(cycle + 1)
            await ctx.tick()
            cycle += 1
            if ctx.get(dut.rx.valid):
                if fresh:
                    firsts.append(cycle)
                fresh = bool(ctx.get(dut.rx.p.last))
                if fresh:
                    assert not ctx.get(dut.rx.p.err)
                    lasts.append(cycle)
    _run(dut, bench)
    assert len(lasts) == FRAMES
    return max(out - at for at, out in zip(first_in, firsts)), (lasts[-1] - lasts[0]) / (FRAMES - 1)


def mac_transmit():
    """(cycles from a frame's first word in to its preamble on XGMII, cycles a 64-byte frame)."""
    from emplace.mac.layer import Mac
    dut = Mac(CONFIG)
    frame = bytes(range(60))
    words = [word for _ in range(FRAMES) for word in split(frame, 8)]
    decoder, starts, ends, offered = XgmiiDecoder(), [], [], []

    async def bench(ctx):
        ctx.set(dut.rx.ready, 1)
        at = 0
        for cycle in range(11 * FRAMES + 60):
            if cycle > 20 and at < len(words):
                if not offered:
                    offered.append(cycle)
                ctx.set(dut.tx.payload, words[at])
                ctx.set(dut.tx.valid, 1)
            else:
                ctx.set(dut.tx.valid, 0)
            taken = ctx.get(dut.tx.valid) and ctx.get(dut.tx.ready)
            data, control = ctx.get(dut.xgmii_tx.d), ctx.get(dut.xgmii_tx.c)
            if any(control >> lane & 1 and data >> 8 * lane & 0xFF == 0xFB for lane in (0, 4)):
                starts.append(cycle)
            if decoder.word(data, control) is not None:
                ends.append(cycle)
            await ctx.tick()
            at += bool(taken)
    _run(dut, bench)
    assert len(ends) == FRAMES and not decoder.problems, (len(ends), decoder.problems)
    return starts[0] - offered[0], (ends[-1] - ends[0]) / (FRAMES - 1)


def ip_period():
    """Cycles from one smallest frame to the next that the header pipeline sustains."""
    from emplace.ip.layer import Ip
    flow = Flow(timestamps=False)
    frame = flow.frame().ljust(60, b"\0")
    key = {"local_ip": flow.dst_ip, "remote_ip": flow.src_ip, "local_port": flow.dst_port, "remote_port": flow.src_port,
           "vlan": 0, "tagged": 0}
    for period in range(8, 14):
        dut, taken = Ip(CONFIG), []

        async def bench(ctx, dut=dut, period=period):
            ctx.set(dut.alloc.valid, 1)
            ctx.set(dut.lookup_result.ready, 1)
            ctx.set(dut.lookup_update.payload, {"insert": 1, "qp": 3, "key": key})
            ctx.set(dut.lookup_update.valid, 1)
            await ctx.tick().until(dut.lookup_update.ready)
            ctx.set(dut.lookup_update.valid, 0)
            await ctx.tick().repeat(80)
            for _ in range(FRAMES):
                for word in split(frame, 8):
                    ctx.set(dut.frames.payload, word)
                    ctx.set(dut.frames.valid, 1)
                    await ctx.tick()
                ctx.set(dut.frames.valid, 0)
                for _ in range(period - 8):
                    await ctx.tick()
            await ctx.tick().repeat(60)

        async def sink(ctx, dut=dut, taken=taken):
            ctx.set(dut.segments.ready, 1)
            async for _, _, valid in ctx.tick().sample(dut.segments.valid):
                if valid:
                    taken.append(1)
        _run(dut, sink, bench)
        if len(taken) == FRAMES:
            return period
    return None


def measure():
    rx_first, rx_period = mac_receive()
    tx_first, tx_period = mac_transmit()
    return {"mac_rx_first": rx_first, "mac_rx_period": rx_period, "mac_tx_first": tx_first, "mac_tx_period": tx_period,
            "ip_period": ip_period()}
