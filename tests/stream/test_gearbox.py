"""Width converters."""

import random

import pytest
from tests.stream.harness import packets, through

from emplace.stream.gearbox import Narrower, Widener


@pytest.mark.parametrize("kind", [Widener, Narrower])
@pytest.mark.parametrize("idle, stall", [(0, 0), (0.4, 0), (0, 0.4), (0.3, 0.3)])
def test_random(kind, idle, stall):
    items = packets(random.Random(1), 60, 70) + [bytes(n) for n in range(1, 35)]
    spoil = set(range(0, len(items), 5))
    found = through(kind(8), items, idle=idle, stall=stall, spoil=spoil)
    assert found == [(item, n in spoil) for n, item in enumerate(items)]


def test_throughput():
    """Nothing is lost between packets."""
    items = [bytes(64)] * 40
    assert through(Widener(8), items, cycles=330)
    assert through(Narrower(8), items, cycles=330)
