"""The cases of the protocol notes that are TCP's, the fence token, and streams that end."""

import random

import pytest
from tests.tcp.harness import CONFIG, Bench
from tests.tcp.test_layer import twin

from emplace import abi
from emplace.control.records import TokenOp
from emplace_sim.tcp_model import Walk


def test_case_39_sequence_wrap():
    """2**32 inside a segment, between two, inside a held one, inside an overlap."""
    bench = Bench(seed=39)

    async def test(ctx):
        for qp, before in enumerate((1, 50, 100)):
            t = await twin(ctx, bench, random.Random(qp), qp, start=2**32 - before)
            bench.counters.clear()
            await t.send(ctx, 0, 100)
            await t.send(ctx, 60, 100)
            await t.send(ctx, 260, 100)
            await t.send(ctx, 160, 150)
            assert t.model.taken == t.stream[:360]
            t = await twin(ctx, bench, random.Random(qp), qp, start=2**32 - before - 200)
            bench.counters.clear()
            bench.taken[qp].clear()
            await t.send(ctx, 200, 100)        # held across the wrap
            await t.send(ctx, 150, 100)
            await t.send(ctx, 0, 150)
            assert t.model.taken == t.stream[:300]
            bench.taken[qp].clear()

    bench.run(test)


def test_case_40_overlap_with_other_content():
    """The first copy wins: nothing that was consumed is walked again, nor replaced in the stream."""
    bench = Bench(seed=40)

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(40))
        await t.send(ctx, 0, 100)
        for k in (1, 7, 50):
            at = len(t.model.taken)
            await t.send(ctx, at - k, k + 30, content=b"\xee" * k + t.stream[at:at + 30])
        assert bench.taken[0] == t.stream[:190]
        assert bench.counters["rx_trimmed"] == 3

    bench.run(test)


def test_case_41_window_sent_twice():
    """Each segment of a whole duplicate window gets an ACK or shares one, and is never walked again."""
    bench = Bench(seed=41, ack_stall=0.9)

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(41))
        for lap in range(2):
            for n in range(12):
                await bench.segment(ctx, 0, 1000 + 90 * n, t.stream[90 * n:90 * n + 90], tsval=500 + lap)
            await bench.settle(ctx, 200)
        assert bench.taken[0] == t.stream[:1080] and len(bench.walks) == 12
        assert bench.counters["rx_duplicate"] == 12
        assert 2 <= len(bench.acks) <= 24
        assert bench.slots_free(ctx) == CONFIG.slots

    bench.run(test)


def test_case_42_holes():
    """One hole, three holes, and a bigger retransmission that fills one and overlaps what is held."""
    bench = Bench(seed=42)

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(42))
        await t.send(ctx, 100, 100)
        await t.send(ctx, 0, 100)
        assert len(t.model.taken) == 200
        for at in (500, 300, 700):
            await t.send(ctx, at, 100)
        await t.send(ctx, 600, 100)
        await t.send(ctx, 300, 250)             # same start, longer: replaces
        await t.send(ctx, 500, 50)              # same start, shorter: nothing new
        assert len(t.model.held) == 4
        await t.send(ctx, 200, 420)             # over all of 300..550 and into 600
        assert t.model.taken == t.stream[:800] and not t.model.held
        assert bench.slots_free(ctx) == CONFIG.slots

    bench.run(test)


def test_window_edges():
    bench = Bench(seed=43)

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(43), rcv_wnd=1000)
        await t.send(ctx, 999, 1)               # the last octet of the window
        await t.send(ctx, 1000, 1)              # one past it
        await t.send(ctx, 998, 5)               # cut
        await t.send(ctx, 0, 1100)
        await t.send(ctx, 2**31 - 5, 1, content=b"x")
        await t.send(ctx, -2**31 + 5, 1, content=b"x")
        await t.send(ctx, 999, 0)               # probes: before, at and past the edges
        await t.send(ctx, 1000, 0)
        await t.send(ctx, 1999, 0)
        await t.send(ctx, 2000, 0)
        t = await twin(ctx, bench, random.Random(43), 1, rcv_wnd=0)
        bench.counters.clear()
        await t.send(ctx, 0, 0)
        await t.send(ctx, 0, 1)

    bench.run(test)


def test_timestamps():
    """PAWS, missing option, and a TS.Recent that is older than 24 days."""
    bench = Bench(seed=44)

    async def test(ctx):
        bench.set_now(ctx, 2**32 - 1000)
        t = await twin(ctx, bench, random.Random(44), ts_recent=2**32 - 10)
        await t.send(ctx, 0, 10, tsval=5)       # the clock has wrapped
        await t.send(ctx, 10, 10, tsval=4)      # too old
        await t.send(ctx, 10, 10, tsval=None)
        await t.send(ctx, 10, 0, tsval=None)
        assert len(t.model.taken) == 10
        bench.set_now(ctx, bench.now + 23 * 86_400_000)
        await t.send(ctx, 10, 10, tsval=4)
        assert len(t.model.taken) == 10
        bench.set_now(ctx, bench.now + 86_400_000 + 100_000)
        await t.send(ctx, 10, 10, tsval=4)
        await t.send(ctx, 20, 10, tsval=4)
        assert len(t.model.taken) == 30

    bench.run(test)


@pytest.mark.parametrize("op", [TokenOp.KILL, TokenOp.REMOVE])
def test_token_gives_slots_back(op):
    """KILL and REMOVE free what is held of that QP alone; KILL keeps what UPLOAD wants."""
    bench = Bench(seed=45)

    async def test(ctx):
        rng = random.Random(45)
        a, b = [await twin(ctx, bench, rng, qp) for qp in (0, 1)]
        for t in (a, b):
            bench.counters.clear()
            t.model.counters.clear()
            for at in (50, 120, 200):
                await bench.segment(ctx, t.qp, 1000 + at, t.stream[at:at + 50], tsval=600)
        await bench.settle(ctx)
        assert bench.slots_free(ctx) == CONFIG.slots - 6
        await bench.token(ctx, TokenOp.FENCE)
        await bench.token(ctx, TokenOp.FLUSH)
        await bench.settle(ctx)
        assert bench.slots_free(ctx) == CONFIG.slots - 6
        bench.set_alive(ctx, 0, int(op == TokenOp.KILL))
        await bench.token(ctx, op, 0)
        await bench.settle(ctx)
        assert bench.slots_free(ctx) == CONFIG.slots - 3
        # Nothing of it is taken any more; the other goes on
        before, acks = len(bench.walks), len(bench.acks)
        await bench.segment(ctx, 0, 1000, a.stream[:50], tsval=600)
        await bench.resume(ctx, 0)
        await bench.settle(ctx)
        assert bench.counters["rx_dead"] == 1 and len(bench.walks) == before and len(bench.acks) == acks
        await bench.segment(ctx, 1, 1000, b.stream[:130], tsval=600)
        await bench.settle(ctx)
        assert bench.taken[1] == b.stream[:170]
        assert (await bench.upload(ctx, 0))["rcv_nxt"] == (1000 if op == TokenOp.KILL else 0)
        # Installed anew it starts at the beginning
        await bench.token(ctx, TokenOp.REMOVE, 1)
        c = await twin(ctx, bench, rng, 0, start=77)
        bench.counters.clear()
        await c.send(ctx, 0, 100)
        assert bench.slots_free(ctx) == CONFIG.slots

    bench.run(test)


def test_ack_of_a_removed_connection_stays_here():
    bench = Bench(seed=46, stall=0)

    async def test(ctx):
        rng = random.Random(46)
        twins = [await twin(ctx, bench, rng, qp) for qp in range(4)]
        bench.hold_acks = True
        for t in (twins[0], twins[1], twins[2], twins[3]):
            await bench.segment(ctx, t.qp, 1000, t.stream[:20], tsval=600)
        await bench.settle(ctx)
        bench.set_alive(ctx, 3, 0)
        await bench.token(ctx, TokenOp.REMOVE, 3)
        bench.hold_acks = False
        await bench.settle(ctx)
        assert len(bench.acks) == 3

    bench.run(test)


@pytest.mark.parametrize("kept", [False, True])
def test_failed_stream(kept):
    """After a walk has failed, nothing of the QP is taken; its slots come back with the KILL."""
    verdicts = [Walk(30, kept=kept, failed=True)]
    bench = Bench(seed=47, policy=lambda qp, piece: verdicts.pop() if verdicts and qp == 0 else Walk(len(piece)))

    async def test(ctx):
        rng = random.Random(47)
        a, b = [await twin(ctx, bench, rng, qp) for qp in (0, 3)]
        for t in (a, b):
            for at in (100, 0, 50, 150):
                await bench.segment(ctx, t.qp, 1000 + at, t.stream[at:at + 50], tsval=600)
        await bench.settle(ctx)
        assert bench.taken[0] == a.stream[:30] and bench.taken[3] == b.stream[:200]
        assert bench.counters["rx_dead"] == 2
        await bench.token(ctx, TokenOp.KILL, 0)
        await bench.settle(ctx)
        assert bench.slots_free(ctx) == CONFIG.slots

    bench.run(test)


def test_held_only_while_slots_are_to_spare():
    """One QP fills the slots with out-of-order segments: the reserve stays, and what was dropped comes again."""
    bench = Bench(seed=48)

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(48))
        for n in range(1, 12):
            await bench.segment(ctx, 0, 1000 + 40 * n, t.stream[40 * n:40 * n + 40], tsval=600)
            await bench.settle(ctx)
        held = bench.counters["rx_held"]
        assert bench.counters["rx_held_dropped"] == 11 - held and held == CONFIG.slots - CONFIG.slot_reserve - 2
        assert bench.slots_free(ctx) == CONFIG.slots - held
        await bench.segment(ctx, 0, 1000, t.stream[:40], tsval=600)
        await bench.settle(ctx)
        assert bench.taken[0] == t.stream[:40 * (held + 1)]
        assert bench.slots_free(ctx) == CONFIG.slots

    bench.run(test)


def test_pressure():
    """Slots that mpa keeps press on those that are held: the last of the lists go first, a parked head last."""
    parked = {1}

    def policy(qp, piece):
        if qp in parked:
            return Walk(0, parked=True)
        return Walk(len(piece), kept=qp == 2)

    bench = Bench(seed=49, policy=policy, keep=(10**6, 10**6))

    async def test(ctx):
        rng = random.Random(49)
        a, b, c = [await twin(ctx, bench, rng, qp) for qp in (0, 1, 2)]
        for at in (40, 80):
            await bench.segment(ctx, 0, 1000 + at, a.stream[at:at + 40], tsval=600)
        for at in (0, 40, 80):
            await bench.segment(ctx, 1, 1000 + at, b.stream[at:at + 40], tsval=600)
        await bench.settle(ctx)
        assert bench.slots_free(ctx) == CONFIG.slots - 5
        for n in range(4):                        # 5, 4, 3, 2, 1 free: victims go
            await bench.segment(ctx, 2, 1000 + 10 * n, c.stream[10 * n:10 * n + 10], tsval=600)
            await bench.settle(ctx, 100)
            assert bench.slots_free(ctx) > CONFIG.slot_reserve
        assert bench.counters["rx_held"] == 4
        for n in range(4, 6):
            await bench.segment(ctx, 2, 1000 + 10 * n, c.stream[10 * n:10 * n + 10], tsval=600)
            await bench.settle(ctx, 100)
            assert bench.slots_free(ctx) == CONFIG.slot_reserve + 1
        # Left: six that mpa keeps, and the parked head
        parked.clear()
        walks = len(bench.walks)
        await bench.segment(ctx, 0, 1000, a.stream[:120], tsval=600)
        await bench.resume(ctx, 1)
        await bench.settle(ctx)
        assert bench.walks[walks:] == [(0, a.stream[:120]), (1, b.stream[:40])]
        # A parked head goes, too, if nothing else is there
        parked.add(1)
        await bench.segment(ctx, 1, 1040, b.stream[40:80], tsval=600)
        await bench.settle(ctx)
        for n in range(6, 8):
            await bench.segment(ctx, 2, 1000 + 10 * n, c.stream[10 * n:10 * n + 10], tsval=600)
            await bench.settle(ctx, 100)
        assert len(bench.kept) == 8 and bench.slots_free(ctx) == 2
        parked.clear()
        await bench.resume(ctx, 1)
        await bench.segment(ctx, 1, 1040, b.stream[40:90], tsval=600)
        await bench.settle(ctx)
        assert bench.taken[1] == b.stream[:90]

    bench.run(test)


def test_installation_variants_are_all_in_the_ack():
    """TTL, TOS, ports, addresses, window scale with its upper end, both options: against the golden frame."""
    bench = Bench(seed=50)

    async def test(ctx):
        rng = random.Random(50)
        for wnd, scale, flags in ((0xFFFF, 0, 0), (0x10000, 0, 2), (1 << 30, 14, 8), ((1 << 30) - 1, 14, 10), (5, 3, 2)):
            fields = {name: rng.getrandbits(bits) for name, bits in (
                ("ttl", 8), ("tos", 8), ("local_ip", 32), ("remote_ip", 32), ("local_port", 16), ("remote_port", 16),
                ("local_mac", 48), ("remote_mac", 48), ("snd_nxt", 32), ("ts_offset", 32))}
            bench.set_now(ctx, rng.getrandbits(32))
            t = await twin(ctx, bench, rng, rng.randrange(4), rcv_wnd=wnd, rcv_wscale=scale, flags=abi.QpFlags(flags),
                           start=rng.getrandbits(32), **fields)
            bench.counters.clear()
            bench.taken[t.qp].clear()
            await t.send(ctx, 0, 3)
            await t.send(ctx, 0, 3)

    bench.run(test)


def test_parked_at_a_segments_end():
    """A walk that parks with nothing left over: what is held in order waits, too, and goes on with ``resume``."""
    verdicts = [Walk(50, parked=True)]
    bench = Bench(seed=51, policy=lambda qp, piece: verdicts.pop() if verdicts else Walk(len(piece)))

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(51))
        await t.send(ctx, 50, 50)
        await t.send(ctx, 0, 50)
        assert len(t.model.taken) == 50 and t.model.held
        await t.send(ctx, 100, 50)              # in order, but parked: no ACK
        await t.send(ctx, 20, 30)               # a duplicate gets one
        await t.resume(ctx)
        assert t.model.taken == t.stream[:150]
        await t.resume(ctx)                     # nothing to do

    bench.run(test)
