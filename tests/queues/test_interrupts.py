"""Completions, events and frames to interrupts, in the order of all writes."""

import random

import pytest
from tests.queues.harness import CONFIG, Host, idle

from emplace import abi
from emplace.dma.records import PlaceKind, WriteKind
from emplace.queues.ports import CqOp, DoorbellKind

ADDRESS = 0xFEE0_1000
LATE = 120


async def open_msix(ctx, host, event_vector=0xFF):
    for vector in range(CONFIG.vectors):
        for half, word in enumerate((ADDRESS, vector)):
            ctx.set(host.dut.msix_write, {"en": 1, "row": 2 * vector + half, "data": word, "mask": 0xFF})
            await ctx.tick()
    ctx.set(host.dut.msix_write.en, 0)
    ctx.set(host.dut.event_vector, event_vector)
    ctx.set(host.dut.msix_enable, 1)


async def arm(ctx, host, cq, index, *, solicited=False, context=0):
    await host.ring_doorbell(ctx, DoorbellKind.CQ_ARM, cq, index & 0xFFFF | abi.ARM_SOLICITED * solicited, context)


def interrupts(host):
    """(place among all writes, vector) of each message; what is marked looks like one, and nothing else does."""
    found = []
    for n, write in enumerate(host.writes):
        assert write["msix"] == (write["address"] == ADDRESS and write["kind"] == WriteKind.INLINE.value)
        if write["msix"]:
            assert write["length"] == 4
            found.append((n, write["data"] & 0xFFFFFFFF))
    return found


def test_arm_next_and_next_solicited():
    host = Host(3)

    async def user(ctx):
        await host.setup(ctx)
        await open_msix(ctx, host)
        await host.create_cq(ctx, 2, log2=5, vector=5)

        async def told(count):
            await idle(ctx, LATE)
            assert [vector for _, vector in interrupts(host)] == [5] * count

        await host.cqe(ctx, 2)                                       # not armed
        await told(0)
        await arm(ctx, host, 2, 1)
        await told(0)
        await host.cqe(ctx, 2)
        await told(1)
        await host.cqe(ctx, 2)                                       # once
        await told(1)
        await arm(ctx, host, 2, 3, solicited=True)
        await host.cqe(ctx, 2)
        await told(1)
        await host.cqe(ctx, 2, solicited=1)
        await told(2)
        await arm(ctx, host, 2, 5, solicited=True)
        await host.cqe(ctx, 2, status=abi.WcStatus.LOC_PROT_ERR)     # an error is told of
        await told(3)
        await arm(ctx, host, 2, 5)                                   # number 5 is there already
        await told(4)
        await arm(ctx, host, 2, 6, context=2)                        # another's
        await host.cqe(ctx, 2)
        await told(4)
        assert host.counted["doorbell_refused"] == 1
        await arm(ctx, host, 2, 7, context=1)                        # the owner
        await host.cqe(ctx, 2)
        await told(5)
        assert await host.update_cq(ctx, CqOp.DESTROY, 2) is abi.Status.OK
        await arm(ctx, host, 2, 0)
        await told(5)
        assert host.counted["doorbell_refused"] == 2
        await host.create_cq(ctx, 2, log2=5, vector=1)               # a new one is not armed
        await host.cqe(ctx, 2)
        await told(5)

    host.run(user)


def test_arming_does_not_consume():
    """A CQ is full until the CQ doorbell says otherwise."""
    host = Host(4)

    async def user(ctx):
        await host.setup(ctx)
        await host.create_cq(ctx, 1, log2=2)
        for _ in range(4):
            await host.cqe(ctx, 1)
        await arm(ctx, host, 1, 4)
        await idle(ctx, LATE)
        await host.cqe(ctx, 1)
        await idle(ctx, LATE)
        assert host.counted["cq_overflow"] == 1

    host.run(user)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_never_before_what_it_announces(stall):
    """CQEs of all CQs, events and payload at full rate, re-armed at random: the CQE lies before its message."""
    host, rng = Host(5, stall), random.Random(5)
    cqs, events = range(CONFIG.cqs), 0
    total = [0] * CONFIG.cqs
    armed = {cq: [] for cq in cqs}                                   # (writes seen so far, consumer index)

    async def user(ctx):
        nonlocal events
        await host.setup(ctx)
        await open_msix(ctx, host, event_vector=7)
        for cq in cqs:
            await host.create_cq(ctx, cq, log2=9, vector=cq)
        for _ in range(250):
            kind = rng.random()
            cq = rng.choice(cqs)
            if kind < 0.5:
                total[cq] += 1
                await host.cqe(ctx, cq, solicited=rng.getrandbits(1))
            elif kind < 0.6 and events < 8:
                events += 1
                await host.event(ctx, type=1)
            elif kind < 0.8:
                armed[cq].append((len(host.writes), total[cq]))
                await arm(ctx, host, cq, total[cq])                  # none is beyond: it waits for one
            else:
                await host.place(ctx, kind=PlaceKind.PAYLOAD, address=0x5000, length=64)
        await idle(ctx, 3 * LATE)
        for cq in cqs:
            if armed[cq]:
                await host.cqe(ctx, cq)                              # the last arming finds one
        await idle(ctx, 3 * LATE)

    host.run(user, cycles=60_000)
    found = interrupts(host)
    for cq in cqs:
        base = 0x800_0000 + 0x10_0000 * cq
        cqes = [n for n, w in enumerate(host.writes) if base <= w["address"] < base + 0x10_0000 and not w["msix"]]
        mine = [n for n, vector in found if vector == cq]
        assert mine
        for n in mine:
            # There is an arming that was out before, and a CQE that it waited for.
            written = sum(at < n for at in cqes)
            assert any(seen <= n and index < written for seen, index in armed[cq])
    event_writes = [n for n, w in enumerate(host.writes) if w["length"] == 64 and w["kind"] == WriteKind.INLINE.value]
    told = [n for n, vector in found if vector == 7]
    assert events and told[0] > event_writes[0] and told[-1] > event_writes[-1]


def test_frames():
    """Strobes of the frame path raise their vectors."""
    host = Host(6)

    async def user(ctx):
        await host.setup(ctx)
        await open_msix(ctx, host)
        ctx.set(host.dut.frame_vector, {"rx": 2, "tx": 6})
        for name, vector in (("rx", 2), ("tx", 6), ("rx", 2)):
            before = len(interrupts(host))
            ctx.set(host.dut.frame_done[name], 1)
            await ctx.tick()
            ctx.set(host.dut.frame_done[name], 0)
            await idle(ctx, LATE)
            assert [v for _, v in interrupts(host)[before:]] == [vector]

    host.run(user)


def test_moderation_of_a_cq():
    """Three at once, or 256 cycles from the first one on."""
    host = Host(7, stall=0.0)

    async def user(ctx):
        await host.setup(ctx)
        await open_msix(ctx, host)
        await host.create_cq(ctx, 0, log2=5, vector=4, count=3, period=2)
        await arm(ctx, host, 0, 0)
        for _ in range(3):
            assert not interrupts(host)
            await host.cqe(ctx, 0)
        await idle(ctx, 80)
        assert len(interrupts(host)) == 1
        await arm(ctx, host, 0, 3)
        await idle(ctx, 1500)
        assert len(interrupts(host)) == 1
        await host.cqe(ctx, 0)
        await idle(ctx, 200)
        assert len(interrupts(host)) == 1
        await idle(ctx, 512)
        assert len(interrupts(host)) == 2

    host.run(user)
