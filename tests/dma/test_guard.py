"""The guard against a model of it: TLPs of every type, whole and malformed, around every edge."""

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from amaranth.sim import Simulator

from emplace.config import NicConfig
from emplace.dma.guard import Guard
from emplace_sim import words

ID = 0x1A2B
WINDOW = range(0xFEE00000, 0xFEF00000)
#: Forbidden, in pages of 4 KiB: one page, 0..1 MiB, across 4 GiB, the top; an empty and a reversed range.
RANGES = [(0x80000, 0x80001), (0, 0x100), (0xFFFFF, 0x1_00010), ((1 << 52) - 2, (1 << 52) - 1),
          (0x55555, 0x55555), (0x60001, 0x60000), (0x123_4567_8000, 0x123_4567_9000), (0x3FF_FFFF, 0x400_0000)]
TYPES = {"MRd3": 0x00, "MRd4": 0x20, "MWr3": 0x40, "MWr4": 0x60, "Cpl": 0x0A, "CplD": 0x4A}


@dataclass
class Tlp:
    packet: bytes
    err: bool = False
    msix: bool = False


def request(kind, address, dws, rng, *, tag=None):
    """A read or write with ``dws`` of data (1..1024) and random bits wherever the guard sets its own."""
    head = bytearray(rng.randbytes(8))
    head[0] = kind
    head[2] = head[2] & 0xFC | (dws % 1024) >> 8
    head[3] = dws & 0xFF
    if tag is not None:
        head[6] = tag
    head += address.to_bytes(8 if kind & 0x20 else 4, "big")
    return bytes(head) + (rng.randbytes(4 * dws) if kind & 0x40 else b"")


def completion(kind, dws, rng):
    head = bytearray(rng.randbytes(12))
    head[0] = kind
    head[2] = head[2] & 0xFC | (dws % 1024) >> 8
    head[3] = dws & 0xFF
    return bytes(head) + (rng.randbytes(4 * dws) if kind & 0x40 else b"")


def judge(tlp, ranges):
    """(what leaves and its err, or None; counter or None; refused tag or None; a write has passed)."""
    packet = tlp.packet
    tag = packet[6] if len(packet) >= 8 and packet[0] in (0x00, 0x20) else None
    posted = packet[0] in (0x40, 0x60)
    other = (None, "guard_other", tag, posted)
    if packet[0] not in TYPES.values() or len(packet) < 12:
        return other
    dws = int.from_bytes(packet[2:4], "big") % 1024 or 1024
    four = bool(packet[0] & 0x20)
    total = 4 * (3 + four + (dws if packet[0] & 0x40 else 0))
    if (total <= 16) != (len(packet) <= 16) or (len(packet) <= 16 and (len(packet) != total or tlp.err)):
        return other
    if packet[0] & 0x0F == 0:
        address = int.from_bytes(packet[8:16 if four else 12], "big")
        last = address + 4 * dws - 1
        if address % 4 or address >> 12 != last >> 12 or (four and address < 1 << 32):
            return other
        blocked = any(first <= page < end for first, end in ranges for page in (address >> 12, last >> 12))
        if packet[0] & 0x40 and (tlp.msix or address in WINDOW):
            blocked |= not (tlp.msix and address in WINDOW and dws == 1)
        if blocked:
            return None, "guard_writes" if posted else "guard_reads", tag, posted
    good = len(packet) == total and not tlp.err
    out = packet[:1] + b"\0" + bytes([packet[2] & 3]) + packet[3:4] + ID.to_bytes(2, "big") + packet[6:total]
    return (out, not good), None if good else "guard_other", None, posted


def run(nbytes, tlps, *, ranges=RANGES, seed=1, idle=0.0, stall=0.0):
    """Send all; check all that comes out. Returns the cycles from first word in to first out, of each that left."""
    ranges = ranges[:8]
    dut = Guard(NicConfig(tlp_bytes=nbytes, guard_ranges=len(ranges)))
    expected = [judge(tlp, ranges) for tlp in tlps]
    leaving = [e[0] for e in expected if e[0] is not None]
    refusals = [e[2] for e in expected if e[2] is not None and e[0] is None]
    entered, left, cycle, strobes = [], [], 0, Counter()

    async def source(ctx):
        rng = random.Random(seed)
        ctx.set(dut.id, ID)
        for n, (first, end) in enumerate(ranges):
            ctx.set(dut.ranges[n], {"first": first, "end": end})
        for tlp, (out, *_) in zip(tlps, expected, strict=True):
            for n, word in enumerate(words.split(tlp.packet, nbytes, err=tlp.err)):
                while rng.random() < idle:
                    await ctx.tick()
                ctx.set(dut.i.payload, word)
                ctx.set(dut.i.valid, 1)
                ctx.set(dut.msix, tlp.msix if n == 0 else rng.getrandbits(1))
                await ctx.tick().until(dut.i.ready)
                if n == 0 and out is not None:
                    entered.append(cycle)
                ctx.set(dut.i.valid, 0)
        for _ in range(8):
            await ctx.tick()

    async def sink(ctx):
        rng = random.Random(seed + 1)
        for packet, err in leaving:
            got = []
            while not got or not got[-1]["last"]:
                while rng.random() < stall:
                    await ctx.tick()
                ctx.set(dut.o.ready, 1)
                word, = await ctx.tick().sample(dut.o.payload).until(dut.o.valid)
                ctx.set(dut.o.ready, 0)
                if not got:
                    left.append(cycle)
                got.append({name: int(word[name]) for name in ("data", "empty", "last", "err")})
            out, was_err = words.join(got, nbytes)
            assert was_err == err
            assert out[:len(packet)] == packet
            assert len(out) - len(packet) < (4 * nbytes if err else 1)

    async def refused(ctx):
        rng = random.Random(seed + 2)
        for tag in refusals:
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(dut.refused_reads.ready, 1)
            got, = await ctx.tick().sample(dut.refused_reads.p.tag).until(dut.refused_reads.valid)
            ctx.set(dut.refused_reads.ready, 0)
            assert got == tag

    async def watch(ctx):
        nonlocal cycle
        limit = 2000 + 20 * sum(len(t.packet) // nbytes + 5 for t in tlps)
        async for _, _, posted, count, valid, ready, last in ctx.tick().sample(
                dut.posted, dut.count, dut.o.valid, dut.o.ready, dut.o.p.last):
            cycle += 1
            strobes["posted"] += posted
            for name in ("guard_writes", "guard_reads", "guard_other"):
                strobes[name] += count[name]
            strobes["out"] += valid & ready & last
            if cycle > limit:
                raise TimeoutError("a TLP hangs")

    sim = Simulator(dut)
    sim.add_clock(8e-9)
    sim.add_testbench(watch, background=True)
    for testbench in (source, sink, refused):
        sim.add_testbench(testbench)
    sim.run()
    want = Counter(e[1] for e in expected if e[1]) + Counter(posted=sum(e[3] for e in expected), out=len(leaving))
    assert +strobes == want
    return [b - a for a, b in zip(entered, left, strict=True)]


def addresses(rng, dws):
    """An address near an edge of a range or of the address space, for ``dws``."""
    edge = rng.choice([page << 12 for bounds in RANGES for page in bounds]
                      + [0, 1 << 32, 1 << 64, WINDOW.start, WINDOW.stop, 0x9000_0000])
    address = edge + rng.choice([0, -4, 4, -4096, 4096 - 4 * dws, -4 * dws, -4 * dws + 4,
                                 rng.randrange(-1024, 1024) * 4])
    if rng.random() < 0.03:
        address += rng.randrange(4)
    return address % (1 << 64)


def random_tlp(rng, longest):
    dws = rng.choice([1, 1, 2, 3, rng.randrange(1, longest + 1), rng.randrange(1, 17)])
    kind = rng.choice(list(TYPES.values()))
    if kind & 0x0F:
        packet = completion(kind, dws, rng)
    else:
        if not kind & 0x40:
            dws = rng.choice([dws, 128, 1024])
        address = addresses(rng, dws)
        if rng.random() < 0.9:
            kind = kind | 0x20 if address >> 32 else kind & ~0x20
        packet = request(kind, address if kind & 0x20 else address % (1 << 32), dws, rng)
    luck = rng.random()
    if luck < 0.06:                     # another type, or noise
        packet = bytes([rng.getrandbits(8)]) + packet[1:]
    elif luck < 0.09:
        packet = packet[:rng.randrange(1, len(packet) + 1)]
    elif luck < 0.12:
        packet += rng.randbytes(rng.randrange(1, 40))
    elif luck < 0.14:
        packet = rng.randbytes(rng.randrange(1, 80))
    return Tlp(packet, err=rng.random() < 0.05, msix=rng.random() < 0.1)


@pytest.mark.parametrize("nbytes", [8, 16])
@pytest.mark.parametrize("seed, idle, stall", [(1, 0.0, 0.0), (2, 0.5, 0.0), (3, 0.0, 0.5), (4, 0.3, 0.3)])
def test_random_tlps(nbytes, seed, idle, stall):
    rng = random.Random(seed)
    tlps = [random_tlp(rng, 32) for _ in range(400)]
    seen = Counter(judge(t, RANGES)[1] for t in tlps)
    assert min(seen[name] for name in (None, "guard_writes", "guard_reads", "guard_other")) > 15
    run(nbytes, tlps, seed=seed, idle=idle, stall=stall)


@pytest.mark.parametrize("nbytes", [8, 16])
def test_page_edges(nbytes):
    """The last doubleword before a range, its first, its last, and the one behind; reads and writes."""
    rng = random.Random(1)
    tlps = []
    for first, end in RANGES:
        for edge in (first << 12, end << 12):
            for dws in (1, 2, 8):
                for address in (edge - 4 * dws, edge - 4, edge, edge + 4, edge + 4096 - 4 * dws):
                    address %= 1 << 64
                    for kind in (0x00, 0x40):
                        kind |= 0x20 * (address >> 32 != 0)
                        tlps.append(Tlp(request(kind, address, dws, rng)))
    run(nbytes, tlps)


@pytest.mark.parametrize("nbytes", [8, 16])
def test_longest(nbytes):
    """Length 0 is 1024 doublewords; across 4 KiB or 2**64 nothing leaves."""
    rng = random.Random(2)
    run(nbytes, [Tlp(request(kind, address, 1024, rng)) for kind in (0x60, 0x20)
                 for address in (0x2_0000_0000, 0x2_0000_0004, (1 << 64) - 4096, (1 << 64) - 4092, 0x123_4567_7004_000)]
        + [Tlp(request(0x40, 0x9000_0000, 1024, rng)), Tlp(request(0x00, 0x9000_0000, 1024, rng))])


@pytest.mark.parametrize("nbytes", [8, 16])
def test_every_type(nbytes):
    """Of all 256 values of fmt and type, only the four kinds of TLP leave."""
    rng = random.Random(3)
    packet = request(0x60, 0x9_0000_0000, 1, rng)
    # 12, 16 and 20 bytes: so that whatever the type says of header and data, one of them is right.
    tlps = [Tlp(bytes([kind]) + packet[1:size]) for kind in range(256) for size in (12, 16, 20)]
    run(nbytes, tlps)


@pytest.mark.parametrize("nbytes", [8, 16])
def test_interrupt_window(nbytes):
    rng = random.Random(4)
    tlps = [Tlp(request(0x40 if address < 1 << 32 else 0x60, address, dws, rng), msix=msix)
            for address in (0xFEE00000, 0xFEEFFFFC, 0xFEDFFFFC, 0xFEF00000, 0xFEE00000 + (1 << 32))
            for dws in (1, 2) for msix in (False, True)]
    tlps += [Tlp(request(0x00, 0xFEE00000, 1, rng), msix=msix) for msix in (False, True)]
    run(nbytes, tlps, ranges=[(0, 0)])


@pytest.mark.parametrize("nbytes, least", [(8, 3), (16, 2)])
def test_latency_and_rate(nbytes, least):
    """Back to back, a word a cycle: no TLP waits longer than the first."""
    rng = random.Random(5)
    tlps = [Tlp(request(0x60, 0x9_0000_0000, 4 * n, rng)) for n in (1, 1, 8, 8, 32)]
    assert set(run(nbytes, tlps)) == {least}


def test_writes_behind_a_refused_read_wait_for_no_one_but_the_reader():
    """Refusals are never lost, though their taker is slow."""
    rng = random.Random(6)
    tlps = [Tlp(request(0x00, 0x8000_0000, 4, rng, tag=n)) for n in range(40)]
    tlps.insert(20, replace(tlps[0], packet=request(0x40, 0x9000_0000, 4, rng)))
    run(8, tlps, stall=0.9)
