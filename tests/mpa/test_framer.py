"""FPDUs made by the framer are those of RFC 5044."""

import random

import pytest
from tests.stream.harness import receive, send, simulate

from emplace.config import PROFILES
from emplace.mpa.framer import Framer
from emplace_sim.fpdu import build_fpdu

TINY = PROFILES["tiny"]


def frame(ulpdus, *, crc=0xAAAA, idle=0.0, stall=0.0, seed=0, spoil=(), cut=None, cycles=60000):
    """``ulpdus``: (qp, tagged, ULPDU) each. ``spoil``: packets with err. ``cut``: changes the n-th packet."""
    dut = Framer(TINY)
    sizes = [14 if tagged else 18 for _, tagged, _ in ulpdus]
    packets = [(n, ulpdu[size:]) for n, ((_, _, ulpdu), size) in enumerate(zip(ulpdus, sizes, strict=True))
               if len(ulpdu) > size]
    bad = {at for at, (n, _) in enumerate(packets) if n in spoil}
    data = [cut(n, packet) if cut else packet for n, packet in packets]
    found = []

    async def plans(ctx):
        rng = random.Random(f"p{seed}")
        ctx.set(dut.crc, crc)
        for (qp, tagged, ulpdu), size in zip(ulpdus, sizes, strict=True):
            while rng.random() < idle:
                await ctx.tick()
            header = int.from_bytes(ulpdu[:size], "little") | (rng.getrandbits(32) << 112 if tagged else 0)
            ctx.set(dut.plans.payload, {"qp": qp, "tagged": tagged, "payload": len(ulpdu) - size, "header": header})
            ctx.set(dut.plans.valid, 1)
            await ctx.tick().until(dut.plans.ready)
            ctx.set(dut.plans.valid, 0)

    async def payload(ctx):
        await send(ctx, dut.payload, data, random.Random(f"d{seed}"), idle, spoil=bad)

    async def sink(ctx):
        found.extend(await receive(ctx, dut.o, len(ulpdus), random.Random(f"o{seed}"), stall))
    simulate(dut, plans, payload, sink, cycles=cycles)
    return found


def some(rng, count, longest=200):
    out = []
    for _ in range(count):
        tagged = rng.random() < 0.5
        payload = rng.choice([0, rng.randint(1, 17), rng.randint(1, longest)])
        out.append((rng.randrange(TINY.qps), tagged, rng.randbytes((14 if tagged else 18) + payload)))
    return out


@pytest.mark.parametrize("idle, stall", [(0, 0), (0.3, 0.3), (0, 0.6), (0.6, 0)])
def test_random(idle, stall):
    ulpdus = some(random.Random(7), 150)
    crc = 0b1010_0110_1100_0101
    found = frame(ulpdus, crc=crc, idle=idle, stall=stall)
    assert found == [(build_fpdu(ulpdu, bool(crc >> qp & 1)), False) for qp, _, ulpdu in ulpdus]


@pytest.mark.parametrize("tagged", [False, True])
def test_every_length(tagged):
    rng = random.Random(8)
    ulpdus = [(1, tagged, rng.randbytes((14 if tagged else 18) + n)) for n in (*range(40), 1424, 1428, 1429)]
    assert frame(ulpdus) == [(build_fpdu(ulpdu), False) for _, _, ulpdu in ulpdus]


def test_examples():
    """Worked examples: a Write of "HELLO", a Read Request, a Send."""
    for text, tagged in (
            ("0013c140 12345678 0000000100000040 48454c4c4f 000000 ca7e6c5f", True),
            ("000ec140 00000001 0000000000000000 ebd34c5f", True),
            ("002e4141 00000000 00000001 00000001 00000000 0000a101 00007f0000001000 00001000 0000b202 00007f0000002000"
             "333f78a5", False),
            ("00224143 00000000 00000000 00000001 00000000 00007f0000001000 0000b202 00000040 71462695", False),
            ("00154145 00000000 00000000 00000003 00000000 414243 00 d6aa2320", False)):
        fpdu = bytes.fromhex(text)
        length = int.from_bytes(fpdu[:2], "big")
        assert frame([(1, tagged, fpdu[2:2 + length])], crc=2) == [(fpdu, False)]


def test_err_and_wrong_length():
    """A payload that failed, is short or long, spoils its own FPDU and no other."""
    rng = random.Random(9)
    ulpdus = [(0, n % 2 == 0, rng.randbytes(18 + 8 * n + rng.randint(1, 9))) for n in range(1, 30)]

    def cut(n, packet):
        return packet[:-1] if n % 5 == 1 else packet + bytes(9) if n % 5 == 3 else packet
    found = frame(ulpdus, spoil=set(range(0, 30, 5)), cut=cut, crc=0, idle=0.2, stall=0.2)
    assert [err for _, err in found] == [n % 5 in (0, 1, 3) for n in range(29)]
    for n in range(29):
        if n % 5 in (2, 4):
            assert found[n][0] == build_fpdu(ulpdus[n][2], False)


def test_throughput():
    rng = random.Random(10)
    ulpdus = [(0, True, rng.randbytes(14 + 1428)) for _ in range(10)]
    assert frame(ulpdus, cycles=10 * (1448 // 8 + 1) + 15)
    small = [(0, True, rng.randbytes(14 + 64)) for _ in range(40)]
    assert frame(small, cycles=40 * (11 + 1) + 15)
