"""Pieces of any length and lane become one packet."""

import random

import pytest
from tests.stream.harness import receive, send, simulate

from emplace.stream.join import Joiner


def join(packets, *, nbytes=8, idle=0.0, stall=0.0, seed=0, cycles=30000):
    """``packets``: (lead, [(skip, bytes, err), ...]) each; what comes out, from lane ``lead`` on."""
    rng = random.Random(f"pad{seed}")
    items, extras, spoil = [], [], set()
    for lead, pieces in packets:
        for n, (skip, piece, err) in enumerate(pieces):
            if err:
                spoil.add(len(items))
            items.append(rng.randbytes(skip) + piece)
            extras.append({"skip": skip, "lead": lead if n == 0 else rng.randrange(nbytes), "joins": n + 1 < len(pieces)})
    found = []
    dut = Joiner(nbytes)

    async def source(ctx):
        await send(ctx, dut.i, items, random.Random(f"i{seed}"), idle, spoil=spoil, extra=lambda n: extras[n])

    async def sink(ctx):
        found.extend(await receive(ctx, dut.o, len(packets), random.Random(f"o{seed}"), stall))
    simulate(dut, source, sink, cycles=cycles)
    assert not any(any(packet[:lead]) for (packet, _), (lead, _) in zip(found, packets, strict=True))
    return [(packet[lead:], err) for (packet, err), (lead, _) in zip(found, packets, strict=True)]


def expected(packets):
    return [(b"".join(piece for _, piece, _ in pieces), any(err for *_, err in pieces)) for _, pieces in packets]


@pytest.mark.parametrize("idle, stall", [(0, 0), (0.3, 0.3), (0, 0.6), (0.6, 0)])
def test_pieces(idle, stall):
    rng = random.Random(4)
    packets = []
    for _ in range(250):
        pieces = [(rng.randrange(8), rng.randbytes(rng.choice([1, rng.randint(1, 9), rng.randint(1, 40)])),
                   rng.random() < 0.05) for _ in range(rng.choice([1, 1, 2, 3, 8]))]
        packets.append((rng.randrange(8), pieces))
    assert join(packets, idle=idle, stall=stall) == expected(packets)


def test_every_pair_of_lanes():
    """A piece behind another, whatever the lanes and lengths around the word."""
    rng = random.Random(5)
    packets = [(lead, [(0, rng.randbytes(first), False), (skip, rng.randbytes(second), False)])
               for lead in (0, 2, 7) for first in range(1, 10) for skip in range(8) for second in (1, 7, 8, 9, 16, 17)]
    assert join(packets) == expected(packets)


def test_throughput():
    """A word a cycle, whole words behind one another; at most one more at the end of a packet."""
    packets = [(2, [(0, bytes(64), False)] * 3)] * 20
    assert join(packets, cycles=20 * (24 + 1) + 12) == expected(packets)


def test_other_width():
    rng = random.Random(6)
    packets = [(rng.randrange(16), [(rng.randrange(16), rng.randbytes(rng.randint(1, 50)), False)
                                    for _ in range(rng.randint(1, 4))]) for _ in range(60)]
    assert join(packets, nbytes=16) == expected(packets)
