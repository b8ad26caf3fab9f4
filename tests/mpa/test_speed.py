"""Cycles. The bounds are what was measured: a change that costs cycles shows here."""

import random

from emplace_sim.fpdu import build_fpdu

from .bench import Bench


def fpdu(size, rng):
    """A Write's FPDU of ``size`` octets."""
    return build_fpdu(b"\xc1\x40" + rng.randbytes(size - 8))


def cycles(segments, *, repeat=1, qps=1):
    """Cycles from the first request to the last result, with a TCP that answers at once."""
    async def script(bench):
        for qp in range(qps):
            await bench.install(qp)
        start = bench.cycle
        for n in range(repeat):
            for segment in segments:
                assert (await bench.feed(n % qps, segment, offset=0)).consumed == len(segment)
        bench.took = bench.cycle - start

    return Bench().run(script).took


def test_packed():
    """Writes of 64 octets, 84 as FPDUs, packed into segments: 11 cycles each."""
    rng = random.Random(1)
    segments = [b"".join(fpdu(84, rng) for _ in range(n)) for n in (7, 17)]
    less, more = (cycles([segment]) for segment in segments)
    assert more - less == 10 * 11 and more / 17 <= 11.5


def test_single():
    """Each in a segment of its own: 18 cycles."""
    rng = random.Random(2)
    assert cycles([fpdu(84, rng)], repeat=10) <= 10 * 18


def test_crc_in_its_own_segment():
    """Linux: 1,444 octets, then 4. A pair takes 203.5 cycles on the wire."""
    rng = random.Random(3)
    whole = fpdu(1448, rng)
    assert cycles([whole[:1444], whole[1444:]], repeat=5) <= 5 * 197
    assert cycles([whole[:1444], whole[1444:]], repeat=4, qps=2) <= 4 * 197


def test_aligned():
    """1,448 octets, 181 words, in one segment: 192.25 cycles on the wire."""
    rng = random.Random(4)
    assert cycles([fpdu(1448, rng)], repeat=5) <= 5 * 188


def test_latency():
    """From the first word read to the packet: FPDU's length and at most 8 cycles."""
    rng = random.Random(5)
    for size in (20, 84, 1448):
        async def script(bench, size=size):
            await bench.install(0)
            bench.first_read = None
            assert (await bench.feed(0, fpdu(size, rng), offset=0)).consumed == size

        bench = Bench().run(script)
        assert bench.first_packet - bench.first_read <= -(-size // 8) + 8
