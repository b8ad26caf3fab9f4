"""The whole layer: into the interrupt window goes what is marked as MSI-X, and that alone."""

import random

import pytest
from tests.dma.harness import TlpSink, put, put_packet, simulate

from emplace.config import PROFILES
from emplace.dma.layer import Dma
from emplace.dma.records import WriteKind
from emplace_sim.host_tlp import Tlp

WINDOW = range(0xFEE0_0000, 0xFEF0_0000)
FORBIDDEN = 0x4000_0000


@pytest.mark.parametrize("profile", ["tiny", "default"])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_only_messages_reach_the_window(profile, stall):
    config = PROFILES[profile]
    dut, rng = Dma(config), random.Random(f"{profile} {stall}")
    sink = TlpSink(dut.tx_tlp, seed=2, stall=stall)
    commands, packets, expected, blocked = [], [], [], 0
    for n in range(160):
        msix = rng.random() < 0.4
        length = 4 if msix and rng.random() < 0.8 else rng.choice([4, 4, 8, 32, 64])
        place = rng.random()
        address = rng.choice([WINDOW.start, WINDOW.stop - 4, WINDOW.start + 4 * rng.randrange(1 << 18)]) if place < 0.6 else \
            rng.choice([WINDOW.start - length, WINDOW.stop, 0x1000_0000, 1 << 36 | WINDOW.start, FORBIDDEN])
        address -= max(address % 128 + length - 128, 0)              # one TLP
        body = rng.randbytes(length)
        command = {"kind": WriteKind.INLINE, "token": {"op": 0, "qp": 0}, "address": address, "length": length, "skip": 0,
                   "final": 0, "msix": msix, "data": int.from_bytes(body, "little")}
        if n % 5 == 4:                                               # payload is never a message, whatever it says
            command |= {"kind": WriteKind.PAYLOAD, "final": 1, "msix": 1}
            packets.append(body)
            msix = False
        commands.append(command)
        inside = address in WINDOW
        good = (inside and length == 4) if msix else not inside
        if good and not FORBIDDEN <= address < FORBIDDEN + 4096:
            expected.append((address, body))
        else:
            blocked += 1
    counted = [0]

    async def user(ctx):
        ctx.set(dut.cfg.bus_master, 1)
        ctx.set(dut.guard_ranges[0], {"first": FORBIDDEN >> 12, "end": (FORBIDDEN >> 12) + 1})
        for command in commands:
            await put(ctx, dut.commands, command, rng=rng, idle=0.1)
        for _ in range(300):
            await ctx.tick()

    async def feed(ctx):
        for packet in packets:
            await put_packet(ctx, dut.packets, packet)

    async def count(ctx):
        while True:
            _, _, strobes = await ctx.tick().sample(dut.count)
            counted[0] += strobes.guard_writes

    simulate(dut, user, feed, background=[sink.run, count])
    got = [Tlp.parse(packet) for packet, err in sink.packets if not err]
    assert [(tlp.address, tlp.payload) for tlp in got] == expected
    assert counted[0] == blocked and any(address in WINDOW for address, _ in expected)
