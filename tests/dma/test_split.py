"""Transfers to parts, against a golden function."""

import random

import pytest
from amaranth.hdl import unsigned
from tests.dma.harness import get, put, simulate

from emplace.dma.split import Splitter


def golden(address, length, limit):
    """(address, length, doublewords, words, first_be, last_be, wide, last) of each part."""
    end = address + length
    while address < end:
        top = min(end, (address // limit + 1) * limit)
        size = top - address
        dwords = (top + 3) // 4 - address // 4
        enables = [sum(1 << b for b in range(4) if address <= 4 * n + b < top) for n in (address // 4, (top - 1) // 4)]
        yield (address, size, dwords, (top + 7) // 8 - address // 8, enables[0], enables[1] if dwords > 1 else 0,
               int(address >= 1 << 32), int(top == end), address >> 2 & 1, int((top - 1) % 8 < 4))
        address = top


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("idle, stall", [(0, 0), (0.3, 0.5)])
def test_parts(limit, idle, stall):
    rng = random.Random(f"{limit}{idle}")
    dut = Splitter(unsigned(8))
    transfers = [((1 << 32) - 100, 300), (0x1000, 1), (0x1FFF, 1), (0x1FFF, 2), (0xFFFF_FFFF_FFFF_F000, 4096),
                 ((0x3FFFFFF << 12) + 4095, 8191), (0x1000, 8191)]
    for _ in range(40):
        transfers.append((rng.choice([0, 0x1000, 0xFFFF_F000, 0xFFF_FFFF_F000]) + rng.randrange(1, 8192),
                          rng.choice([1, 2, 3, 4, 5, 8, rng.randint(1, 300), rng.randint(1, 4000)])))
    wanted = [(n % 256, *part) for n, (address, length) in enumerate(transfers)
              for part in golden(address, length, 128 << min(limit, 5))]
    found = []

    async def source(ctx):
        ctx.set(dut.limit, limit)
        for n, (address, length) in enumerate(transfers):
            await put(ctx, dut.i, {"address": address, "length": length, "note": n % 256}, rng=rng, idle=idle)

    async def sink(ctx):
        for _ in wanted:
            p = await get(ctx, dut.o, rng=rng, stall=stall)
            found.append((p.note, p.address, p.length, p.dwords, p.words, p.first_be, p.last_be, p.wide, p.last, p.upper,
                          p.lower))
    simulate(dut, source, sink)
    assert found == wanted
