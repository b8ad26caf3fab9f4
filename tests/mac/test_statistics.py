"""Counters of the wire against the golden count, on both MACs; and their names."""

import random

import pytest
from amaranth.sim import Simulator

from emplace import abi
from emplace.config import NicConfig
from emplace.mac.layer import Mac
from emplace_sim import words
from emplace_sim.frames import ERROR, gmii, with_fcs, xgmii
from emplace_sim.statistics import ETHER_STATS, ETHTOOL, Widened, evaluate, wire_counts

IDLES = (0x0707070707070707, 0xFF)
NAMES = [c.name for c in abi.COUNTERS if c.layer == "mac"]


def run(phy, frames, packets=(), *, stall=0.0):
    """Counts of ``frames`` [(gap, bytes or characters)] received and ``packets`` [(bytes, err)] sent."""
    dut = Mac(NicConfig(phy=phy))
    counts, rng = dict.fromkeys(NAMES, 0), random.Random(9)
    sending = bool(packets)

    async def receive(ctx):
        ctx.set(dut.rx.ready, 1)
        line = [IDLES, *xgmii(frames)] if phy == "xgmii" else [(0, 0, 0), *gmii(frames)]
        line += [IDLES if phy == "xgmii" else (0, 0, 0)] * 30
        if phy == "gmii":
            ctx.set(dut.gmii_rx_enable, 1)
            ctx.set(dut.gmii_tx_enable, 1)
        at = 0
        while at < len(line) or sending:
            transfer = line[min(at, len(line) - 1)]
            wire = dut.xgmii_rx if phy == "xgmii" else dut.gmii_rx
            for name, value in zip(("d", "c") if phy == "xgmii" else ("d", "dv", "er"), transfer):
                ctx.set(getattr(wire, name), value)
            ctx.set(dut.rx.ready, rng.random() >= stall)
            at += 1
            strobes = ctx.get(dut.count)
            for name in NAMES:
                counts[name] += strobes[name]
            await ctx.tick()

    async def send(ctx):
        nonlocal sending
        for packet, err in packets:
            for word in words.split(packet, 8, err=err):
                ctx.set(dut.tx.payload, word)
                ctx.set(dut.tx.valid, 1)
                await ctx.tick().until(dut.tx.ready)
            ctx.set(dut.tx.valid, 0)
        for _ in range(150):
            await ctx.tick()
        sending = False

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(receive)
    if packets:
        sim.add_testbench(send)
    sim.run()
    return counts


def frames_of_all_kinds(rng, thin=False):
    """Every edge of every size class, good and bad, to all kinds of address."""
    found = []
    for size in (8, 20, 63, 64, 65, 66, 127, 128, 129, 255, 256, 511, 512, 1023, 1024, 1518, 1519, 1999, 2000, 2001, 2007,
                 2008, 2009, 2100)[:: 2 if thin else 1]:
        for _ in range(1 if size > 300 else 3):
            frame = bytearray(rng.randbytes(size - 4))
            frame[:6] = rng.choice([b"\xff" * 6, b"\xff" * 5 + b"\xfe", b"\xfe" + b"\xff" * 5, b"\x01\0\x5e\0\0\1",
                                    b"\x52\x54\0\0\0\1"])[:len(frame)]
            frame = bytearray(with_fcs(bytes(frame)))
            if rng.random() < 0.4:
                frame[rng.randrange(len(frame))] ^= 0x10
            found.append(bytes(frame))
    rng.shuffle(found)
    return found


def check(counts, golden):
    assert 8 * counts["rx_octets_8"] + counts["rx_octets_1"] == golden["octets"]
    assert {name: counts[name] for name in golden if name != "octets"} == \
        {name: value for name, value in golden.items() if name != "octets"}


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
@pytest.mark.parametrize("stall", [0.0, 0.95])
def test_received(phy, stall):
    """Lost frames count like others: these counters are about the wire."""
    rng = random.Random(f"{phy} {stall}")
    frames = frames_of_all_kinds(rng, thin=phy == "gmii" and stall)
    counts = run(phy, [(rng.choice([12, 12, 13, 20]), f) for f in frames], stall=stall)
    golden = wire_counts(frames)
    check(counts, golden)
    assert (counts["rx_overflow"] > 0) == (stall > 0)
    assert counts["rx_octets_1"] < 8 * len(frames)
    named = evaluate(ETHER_STATS, counts)
    assert named["etherStatsPkts"] == len(frames) and named["etherStatsOctets"] == sum(map(len, frames))
    good = sum(with_fcs(f[:-4]) == f and 64 <= len(f) <= 2000 for f in frames)
    assert counts["rx_frames"] == good if not stall else counts["rx_frames"] < good


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
def test_coding_errors(phy):
    good, frames = with_fcs(bytes(range(100))), []
    for at in (70, 80, 103):
        frame = list(good)
        frame[at] = (ERROR, 1) if phy == "xgmii" else (frame[at], 1)
        frames += [frame, good]
    counts = run(phy, [(12, f) for f in frames])
    assert counts["rx_fcs_errors"] == 3 and counts["rx_frames"] == 3


def test_shortest_gaps_lose_no_octet():
    """XGMII frames with tails of all lengths, as close as they may come."""
    rng = random.Random(4)
    frames = [with_fcs(rng.randbytes(60 + rng.randrange(8))) for _ in range(150)]
    check(run("xgmii", [(5, f) for f in frames]), wire_counts(frames))
    tiny = [rng.randbytes(rng.randrange(1, 12)) for _ in range(150)]
    check(run("xgmii", [(5, f) for f in tiny]), wire_counts(tiny))


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
def test_sent(phy):
    rng = random.Random(f"sent {phy}")
    packets = []
    for _ in range(60):
        packet = bytearray(rng.randbytes(rng.choice([14, 15, 40, 59, 60, 61, 62, 63, 64, 100, 300])))
        packet[:6] = rng.choice([b"\xff" * 6, b"\x01\0\x5e\0\0\1", b"\x52\x54\0\0\0\1"])
        packets.append((bytes(packet), rng.random() < 0.2))
    counts = run(phy, [], packets)
    good = [p for p, err in packets if not err]
    assert 8 * counts["tx_octets_8"] + counts["tx_octets_1"] == sum(max(len(p), 60) + 4 for p, _ in packets)
    assert {name: counts[name] for name in ("tx_frames", "tx_errors", "tx_broadcast", "tx_multicast")} == {
        "tx_frames": len(good), "tx_errors": len(packets) - len(good),
        "tx_broadcast": sum(p[0] == 0xFF for p in good), "tx_multicast": sum(p[0] == 1 for p in good)}


def test_names():
    for names in (ETHER_STATS, ETHTOOL):
        assert {counter for parts in names.values() for counter in parts} <= set(NAMES)
    shown = {counter for names in (ETHER_STATS, ETHTOOL) for parts in names.values() for counter in parts}
    assert shown == set(NAMES)                            # none is left out


def test_widened():
    wide = Widened()
    zero = dict.fromkeys(wide.last, 0)
    assert wide.update(zero | {"rx_octets_8": 0xFFFFFFF0})["rx_octets_8"] == 0xFFFFFFF0
    assert wide.update(zero | {"rx_octets_8": 16})["rx_octets_8"] == 0x100000010
    assert wide.update(zero | {"rx_octets_8": 16})["rx_octets_8"] == 0x100000010
