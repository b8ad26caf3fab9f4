"""Byte realigner."""

import random

import pytest
from tests.stream.harness import through

from emplace.stream.realign import Realigner


def shift(items, moves, *, nbytes=8, **more):
    """Send each item with its first byte in lane ``skip``; what comes out from lane ``lead`` on."""
    rng = random.Random(2)
    padded = [rng.randbytes(skip) + item for item, (skip, _) in zip(items, moves, strict=True)]
    found = through(Realigner(nbytes), padded, extra=lambda n: {"skip": moves[n][0], "lead": moves[n][1]}, **more)
    return [(packet[lead:], err) for (packet, err), (_, lead) in zip(found, moves, strict=True)]


@pytest.mark.parametrize("idle, stall", [(0, 0), (0.3, 0.3)])
def test_all_moves(idle, stall):
    """Every pair of lanes, lengths around the word."""
    rng = random.Random(1)
    moves = [(skip, lead) for skip in range(8) for lead in range(8) for _ in range(5)]
    items = [rng.randbytes(rng.randint(1, 26)) for _ in moves]
    spoil = set(range(0, len(items), 7))
    assert shift(items, moves, idle=idle, stall=stall, spoil=spoil) == [(item, n in spoil) for n, item in enumerate(items)]


def test_other_width():
    rng = random.Random(1)
    moves = [(rng.randrange(16), rng.randrange(16)) for _ in range(60)]
    items = [rng.randbytes(rng.randint(1, 50)) for _ in moves]
    assert shift(items, moves, nbytes=16) == [(item, False) for item in items]


def test_throughput():
    """One word per cycle; at most one more for a packet."""
    assert shift([bytes(64)] * 20, [(3, 1)] * 20, cycles=20 * 10 + 10)
    assert shift([bytes(64)] * 20, [(0, 0)] * 20, cycles=20 * 8 + 10)
