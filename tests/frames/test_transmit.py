"""Transmit half of the frame path against the golden model."""

import itertools
import random

import pytest
from tests.frames.transmit_harness import CONFIG, COUNTS, RING, Bench

from emplace.abi import FrameTxFlags
from emplace_sim.transmit_model import LONGEST, TxDescriptor, insert_checksum, outcomes

END, CHECKSUM, REINJECT = FrameTxFlags.END, FrameTxFlags.CHECKSUM, FrameTxFlags.REINJECT


def cut(rng, frame, count, flags=FrameTxFlags(0), **fields):
    """``frame`` as ``count`` descriptors."""
    at = [0, *sorted(rng.sample(range(1, len(frame)), count - 1)), len(frame)]
    return [TxDescriptor(frame[first:end], (flags if first == 0 else FrameTxFlags(0)) | (END if end == len(frame) else 0),
                         **(fields if first == 0 else {}))
            for first, end in itertools.pairwise(at)]


def check(run, descriptors, heads=True):
    expected = outcomes(descriptors)
    assert run.wire == [o.frame for o in expected if o.verdict == "sent"]
    assert run.inject == [o.frame for o in expected if o.verdict == "injected"]
    assert run.counts == {name: sum(o.verdict == name for o in expected) for name in COUNTS}
    if heads:
        assert run.heads[-1] == {"head": sum(o.descriptors for o in expected) & 0xFFFF, "pad": 0,
                                 "dropped": run.counts["refused"] + run.counts["failed"]}
        assert run.told == len(run.heads)


def both(descriptors, *, burst=None, cycles=60000, **options):
    bench = Bench(**options)

    async def script(ctx):
        await bench.start(ctx)
        await bench.post(ctx, descriptors, burst=burst)
        await bench.finish(ctx)
        for _ in range(50):
            await ctx.tick()
    run = bench.go(script, cycles)
    check(run, descriptors)
    return run


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_lengths(seed, stall):
    """Every length around word, block and frame limits, one to eight descriptors."""
    rng = random.Random(f"{seed} {stall}")
    lengths = [*range(14, 40), 60, 61, 127, 128, 129, 511, 512, 513, 1513, 1514, 1518, LONGEST]
    rng.shuffle(lengths)
    descriptors = []
    for length in lengths:
        descriptors += cut(rng, rng.randbytes(length), rng.randint(1, 8), REINJECT if length >= 60 and rng.random() < 0.3
                           else FrameTxFlags(0))
    both(descriptors, seed=seed, stall=stall, wire_stall=stall)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_checksum(stall):
    rng = random.Random(stall)
    descriptors = []
    for n in range(40):
        length = rng.choice([14, 60, rng.randint(14, 300), rng.randint(14, LONGEST)])
        start = rng.randrange(length - 1) if n % 2 else rng.randrange(min(length - 1, 40))
        offset = rng.randrange(min(length - 1 - start, 256))
        descriptors += cut(rng, rng.randbytes(length), rng.randint(1, 4), CHECKSUM, checksum_start=start,
                           checksum_offset=offset)
    both(descriptors, stall=stall)


def test_checksum_zero():
    """A sum whose complement is 0 leaves as 0xFFFF, at every place of the field."""
    descriptors = []
    for at in range(20, 29):
        frame = bytearray(b"\x11" * 60)
        frame[at:] = bytes(60 - at)
        frame[at + 10:at + 14] = b"\xff\xff\x00\x00"
        descriptors.append(TxDescriptor(bytes(frame), END | CHECKSUM, at, 0))
        assert insert_checksum(bytes(frame), at, 0)[at:at + 2] == b"\xff\xff"
    both(descriptors)


def test_most_ones():
    """The longest frame of the largest octets: no carry is lost."""
    both([TxDescriptor(b"\xff" * LONGEST, END | CHECKSUM, 0, 0), TxDescriptor(b"\xff" * (LONGEST - 1), END | CHECKSUM, 1, 4)])


BAD = {
    "empty": [TxDescriptor(b"")],
    "empty_first": [TxDescriptor(b"", FrameTxFlags(0)), TxDescriptor(bytes(100))],
    "empty_last": [TxDescriptor(bytes(100), FrameTxFlags(0)), TxDescriptor(b"")],
    "no_end": [TxDescriptor(bytes(20), FrameTxFlags(0))] * 8 + [TxDescriptor(bytes(20))],
    "no_end_long": [TxDescriptor(bytes(20), FrameTxFlags(0))] * 13 + [TxDescriptor(bytes(20))],
    "short": [TxDescriptor(bytes(13))],
    "short_in_two": [TxDescriptor(bytes(6), FrameTxFlags(0)), TxDescriptor(bytes(7))],
    "short_reinjected": [TxDescriptor(bytes(59), END | REINJECT)],
    "long": [TxDescriptor(bytes(LONGEST + 1))],
    "longest_descriptor": [TxDescriptor(bytes(65535))],
    "long_in_two": [TxDescriptor(bytes(LONGEST), FrameTxFlags(0)), TxDescriptor(bytes(1))],
    "long_before_end": [TxDescriptor(bytes(1900), FrameTxFlags(0)), TxDescriptor(bytes(97), FrameTxFlags(0)),
                        TxDescriptor(bytes(97))],
    "wraps": [TxDescriptor(bytes(65535), FrameTxFlags(0)), TxDescriptor(bytes(65535), FrameTxFlags(0)),
              TxDescriptor(bytes(100))],
    "checksum_at_end": [TxDescriptor(bytes(100), END | CHECKSUM, 60, 39)],
    "checksum_beyond": [TxDescriptor(bytes(100), END | CHECKSUM, 100, 0)],
    "checksum_far": [TxDescriptor(bytes(100), END | CHECKSUM, 65535, 255)],
    "checksum_aliased": [TxDescriptor(bytes(100), END | CHECKSUM, 2048, 0)],
    "unreadable": [TxDescriptor(None, length=100)],
    "unreadable_octets": [TxDescriptor(None, FrameTxFlags(0), length=1)] * 7 + [TxDescriptor(None, length=10)],
    "unreadable_last": [TxDescriptor(bytes(1000), FrameTxFlags(0)), TxDescriptor(None, length=700)],
    "unreadable_checksum": [TxDescriptor(bytes(1000), CHECKSUM, 10, 4), TxDescriptor(None, length=700)],
}


@pytest.mark.parametrize("kind", BAD)
def test_bad(kind):
    """Bad frames are dropped, counted and reported as done; those around them leave whole."""
    rng = random.Random(kind)
    descriptors = []
    for _ in range(3):
        for _ in range(2):
            descriptors += cut(rng, rng.randbytes(rng.choice([14, 200, 1000])), rng.randint(1, 3))
        descriptors += BAD[kind]
    descriptors += cut(rng, rng.randbytes(300), 2)
    both(descriptors, seed=len(kind), log2=5)


@pytest.mark.parametrize("parts, left", [(1, [0, 1, 2, 3, 9]), (2, [0, 1, 5, 6, 7, 8, 9]), (3, [0, 3, 4, 5, 6, 7, 8, 9])])
def test_unreadable_descriptors(parts, left):
    """A read of descriptors 4 to 7 fails: nothing of the frames in it leaves, nor what may be the rest of the last one."""
    rng = random.Random(parts)
    frames = [rng.randbytes(100) for _ in range(10)]
    descriptors = [descriptor for frame in frames for descriptor in cut(rng, frame, parts)]
    for descriptor in descriptors[4:8]:
        descriptor.readable = False
    run = both(descriptors, burst=len(descriptors), log2=5)
    assert run.counts["failed"] == 1
    assert run.wire == [frames[n] for n in left]


def test_restart():
    """The ring starts anew in the middle of a frame: that one is dropped, the next is number 0."""
    bench = Bench(log2=3)
    rng = random.Random(4)
    before, half, after = cut(rng, rng.randbytes(200), 2), cut(rng, rng.randbytes(300), 3)[:2], cut(rng, rng.randbytes(99), 3)

    async def script(ctx):
        await bench.start(ctx)
        await bench.post(ctx, before + half)
        await bench.finish(ctx, 2)
        for _ in range(200):
            await ctx.tick()
        bench.posted = 0
        bench.run.heads.clear()
        ctx.set(bench.dut.ring.producer, 0)
        await bench.start(ctx)
        for _ in range(100):
            await ctx.tick()
        bench.run.heads.clear()
        await bench.post(ctx, after)
        await bench.finish(ctx)
        for _ in range(50):
            await ctx.tick()
    run = bench.go(script)
    assert run.wire == [b"".join(d.data for d in before), b"".join(d.data for d in after)]
    assert run.heads[-1] == {"head": 3, "pad": 0, "dropped": 1} and run.counts["failed"] == 1


def test_overcommitted_ring():
    """A producer that claims more than the ring has: nothing is read."""
    bench = Bench(log2=2)

    async def script(ctx):
        await bench.start(ctx)
        for n in range(4):
            bench.write_descriptor(n, TxDescriptor(bytes(60)))
        ctx.set(bench.dut.ring.producer, 5)
        for _ in range(300):
            await ctx.tick()
        assert bench.run.reads == []
        ctx.set(bench.dut.ring.producer, 4)
        bench.posted = 4
        await bench.finish(ctx)
    assert len(bench.go(script).wire) == 4


@pytest.mark.parametrize("log2", [1, 2, 12])
def test_rings(log2):
    """Rings of any size, over and over; several descriptors a read."""
    rng = random.Random(log2)
    descriptors = []
    for _ in range(20):
        descriptors += cut(rng, rng.randbytes(rng.randint(14, 80)), rng.randint(1, 2 if log2 == 1 else 4))
    run = both(descriptors, log2=log2, burst=1 if log2 < 3 else 16)
    ring = [length for address, length in run.reads if RING <= address < RING + (16 << log2)]
    assert max(ring) == (32 if log2 == 1 else 64)


@pytest.mark.parametrize("seed", range(2))
def test_random(seed):
    """Good and bad frames of every kind, all stalls."""
    rng = random.Random(seed)
    descriptors = []
    for _ in range(60):
        if rng.random() < 0.3:
            descriptors += rng.choice([bad for bad in BAD.values() if len(bad) < 9])
        else:
            length = rng.choice([rng.randint(60, 300), rng.randint(14, LONGEST)])
            flags = (CHECKSUM if rng.random() < 0.5 else FrameTxFlags(0)) | (
                REINJECT if length >= 60 and rng.random() < 0.4 else FrameTxFlags(0))
            start = rng.randrange(length - 1)
            descriptors += cut(rng, rng.randbytes(length), rng.randint(1, 8), flags, checksum_start=start,
                               checksum_offset=rng.randrange(min(256, length - 1 - start)))
    both(descriptors, seed=seed, stall=0.2, wire_stall=0.2, log2=5, cycles=100000)


def test_throughput():
    """Frames of 1514 octets, one descriptor each: with a bus that answers in 100 cycles, beginning and end included."""
    frames = [random.Random(n).randbytes(1514) for n in range(20)]
    run = both([TxDescriptor(frame) for frame in frames], latency=(100, 100), burst=16)
    rate = sum(map(len, frames)) / run.cycles
    print(f"{rate:.2f} octets a cycle")
    assert rate > 5.5 and CONFIG.read_bytes == 512
