"""Queues, arbiters and the register slice."""

import gc
import itertools
import random

import pytest
from amaranth.hdl import unsigned
from tests.stream.harness import packets, receive, send, simulate, through

from emplace.stream.arbiter import PacketArbiter, StreamArbiter
from emplace.stream.packet import PacketWord
from emplace.stream.queue import PacketQueue, Queue
from emplace.stream.skid import SkidBuffer

PACES = [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.3)]


@pytest.mark.parametrize("idle, stall", PACES)
@pytest.mark.parametrize("make", [lambda: Queue(PacketWord(8), 4), lambda: Queue(PacketWord(8), 64),
                                  lambda: SkidBuffer(PacketWord(8))])
def test_order(make, idle, stall):
    items = packets(random.Random(1), 40, 60)
    spoil = set(range(0, 40, 3))
    found = through(make(), items, idle=idle, stall=stall, spoil=spoil)
    assert found == [(item, n in spoil) for n, item in enumerate(items)]


@pytest.mark.parametrize("make", [lambda: Queue(unsigned(8), 5), lambda: Queue(unsigned(8), 40)])
def test_queue_depth(make):
    """A full queue holds as much as it says, and tells how much is inside."""
    dut = make()

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        taken = 0
        for n in range(dut.depth + 5):
            ctx.set(dut.i.payload, n)
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken += ready
        assert taken >= dut.depth and ctx.get(dut.level) == taken
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        for n in range(dut.depth):
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            assert valid and payload == n
    simulate(dut, bench, cycles=300)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::amaranth.hdl.UnusedElaboratable")
def test_bad_depths():
    for kind, arguments in ((Queue, (8, 0)), (PacketQueue, (8, 12)), (StreamArbiter, (8, 0))):
        with pytest.raises(ValueError):
            kind(*arguments)
    gc.collect()                         # Amaranth complains of unused components as they go


@pytest.mark.parametrize("idle, stall", PACES)
@pytest.mark.parametrize("nbytes", [8, 16])
def test_packet_queue(nbytes, idle, stall):
    """Good packets come out whole and in order, bad ones not at all."""
    items = packets(random.Random(2), 60, 100)
    spoil = {n for n in range(60) if n % 4 == 1}
    good = [item for n, item in enumerate(items) if n not in spoil]
    found = through(PacketQueue(nbytes, 16), items, idle=idle, stall=stall, spoil=spoil, count=len(good))
    assert found == [(item, False) for item in good]


@pytest.mark.parametrize("drop", [False, True])
def test_packet_queue_overflow(drop):
    """A packet longer than the queue is dropped; with drop_when_full any that meets a full one."""
    dut = PacketQueue(8, 8, drop_when_full=drop)
    items = [bytes([n]) * length for n, length in enumerate([40, 64, 65, 72, 200, 8, 33])]
    found, told = [], []

    async def source(ctx):
        await send(ctx, dut.i, items, random.Random(1), 0)

    async def sink(ctx):
        for _ in range(30 if drop else 3):
            await ctx.tick()
        found.extend(await receive(ctx, dut.o, 3 if drop else 4, random.Random(1), 0))

    async def count(ctx):
        while True:
            _, _, overflow = await ctx.tick().sample(dut.overflow)
            told.append(overflow)
    simulate(dut, source, sink, background=[count], cycles=400)
    assert found == [(items[n], False) for n in ([0, 5, 6] if drop else [0, 1, 5, 6])]
    assert sum(told) == (4 if drop else 3)


def test_packet_queue_waits_for_the_end():
    """Nothing of a packet comes out before its last word is in."""
    dut = PacketQueue(8, 16)

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for _ in range(5):
            await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for _ in range(10):
            await ctx.tick()
            assert not ctx.get(dut.o.valid) and ctx.get(dut.level) == 5
    simulate(dut, bench, cycles=100)


@pytest.mark.parametrize("idle, stall", PACES)
def test_arbiter_packets(idle, stall):
    """Packets of three inputs stay whole, and in order for each input."""
    dut = PacketArbiter(8, 3)
    items = [[bytes([source, n]) + packet for n, packet in enumerate(packets(random.Random(source), 20, 40))]
             for source in range(3)]
    found = []

    def source(index):
        async def bench(ctx):
            await send(ctx, dut.i[index], items[index], random.Random(index), idle)
        return bench

    async def sink(ctx):
        found.extend(await receive(ctx, dut.o, 60, random.Random(9), stall))
    simulate(dut, *(source(n) for n in range(3)), sink)
    for n in range(3):
        assert [packet for packet, _ in found if packet[0] == n] == items[n]


def test_arbiter_is_fair():
    """With all inputs busy each gets its turn; nothing is lost between words."""
    dut = StreamArbiter(unsigned(8), 3)
    order = []

    async def bench(ctx):
        for n in range(3):
            ctx.set(dut.i[n].payload, n)
            ctx.set(dut.i[n].valid, 1)
        ctx.set(dut.o.ready, 1)
        for _ in range(30):
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            assert valid
            order.append(payload)
    simulate(dut, bench, cycles=100)
    assert [order.count(n) for n in range(3)] == [10, 10, 10]
    assert all(a != b for a, b in itertools.pairwise(order))


def test_skid_cuts_paths():
    """`ready` and `valid` of one side don't follow the other side's within a cycle."""
    dut = SkidBuffer(unsigned(8))

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(2)       # full
        for ready in (0, 1, 0):
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.i.ready) == 0 and ctx.get(dut.o.valid) == 1
        ctx.set(dut.o.ready, 1)
        await ctx.tick()
        assert ctx.get(dut.i.ready) == 1
    simulate(dut, bench, cycles=100)
