import random

import pytest
from amaranth.sim import Simulator
from tests.ip.bench import key_dict

from emplace.abi import Status
from emplace.config import PROFILES
from emplace.ip.lookup import Lookup, bucket_bits, fold
from emplace.ip.records import LookupKey

CONFIG = PROFILES["tiny"]


def bits(k):
    return LookupKey().const(key_dict(k)).as_value().value


def keys(rng, n, same_bucket=False):
    """``n`` different keys, of one bucket if wanted."""
    found, bucket = [], None
    while len(found) < n:
        k = (rng.choice([0x0A000001, 0x0A000002]), rng.getrandbits(32), rng.choice([7471, 22]), rng.getrandbits(16),
             *rng.choice([(0, 0), (0, 1), (7, 1)]))
        h = fold(bits(k), bucket_bits(CONFIG))
        bucket = h if bucket is None else bucket
        if k not in found and (h == bucket or not same_bucket):
            found.append(k)
    return found


class Model:
    """The table in a dict."""

    def __init__(self):
        self.qps = {}

    def update(self, insert, k, qp):
        hashed = fold(bits(k), bucket_bits(CONFIG))
        bucket = [other for other in self.qps if fold(bits(other), bucket_bits(CONFIG)) == hashed]
        if not insert:
            if self.qps.get(k) != qp:
                return Status.BAD_QPN
            del self.qps[k]
        elif k in self.qps:
            return Status.EXISTS
        elif qp in self.qps.values():
            return Status.BAD_QPN
        elif len(bucket) == CONFIG.lookup_chain:
            return Status.TABLE_FULL
        else:
            self.qps[k] = qp
        return Status.OK


def run(updater, seeker=None):
    dut = Lookup(CONFIG)
    over = []

    async def update(ctx, insert, k, qp):
        ctx.set(dut.update.payload, {"insert": insert, "qp": qp, "key": key_dict(k)})
        ctx.set(dut.update.valid, 1)
        await ctx.tick().until(dut.update.ready)
        ctx.set(dut.update.valid, 0)
        assert ctx.get(dut.result.valid)
        await ctx.tick()
        ctx.set(dut.result.ready, 1)
        status = ctx.get(dut.result.p.status)
        await ctx.tick()
        ctx.set(dut.result.ready, 0)
        return status

    async def seek(ctx, k, every=0):
        """QP or None, and the cycles it took; not before ``every`` cycles are over."""
        ctx.set(dut.key, key_dict(k))
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        cycles = 1
        while not ctx.get(dut.done):
            await ctx.tick()
            cycles += 1
            assert cycles <= 3 + CONFIG.lookup_chain
        result = ctx.get(dut.qp) if ctx.get(dut.hit) else None
        if every > cycles:
            await ctx.tick().repeat(every - cycles)
        return result, cycles

    async def main(ctx):
        await updater(ctx, lambda *a: update(ctx, *a), lambda *a: seek(ctx, *a))
        over.append(1)

    async def second(ctx):
        await seeker(ctx, lambda *a: seek(ctx, *a), over)

    async def watchdog(ctx):
        for _ in range(30_000):
            await ctx.tick()
            if over:
                return
        raise TimeoutError("updates starve")

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(main)
    sim.add_testbench(watchdog)
    if seeker:
        sim.add_testbench(second)
    sim.run()


def test_bucket_list():
    same = keys(random.Random(1), 7, same_bucket=True)

    async def updater(ctx, update, seek):
        for n, k in enumerate(same[:4]):
            assert await update(1, k, n) == Status.OK
        assert await update(1, same[4], 9) == Status.TABLE_FULL
        assert await update(1, same[2], 9) == Status.EXISTS
        assert await update(1, keys(random.Random(5), 1)[0], 2) == Status.BAD_QPN
        assert await update(0, same[4], 9) == Status.BAD_QPN
        assert await update(0, same[1], 2) == Status.BAD_QPN
        for n, k in enumerate(same[:4]):
            assert await seek(k) == (n, 3 + 4 - n)         # the newest is first
        assert await seek(same[5]) == (None, 7)
        for n in (2, 3, 0):                                # from the middle, the head, the end
            assert await update(0, same[n], n) == Status.OK
            assert (await seek(same[n]))[0] is None
            assert (await seek(same[1]))[0] == 1
        assert await update(1, same[6], 3) == Status.OK
        assert await update(0, same[1], 1) == Status.OK
        assert await seek(same[6]) == (3, 4)
        assert await update(0, same[6], 3) == Status.OK
        assert await seek(same[6]) == (None, 2)            # empty bucket

    run(updater)


@pytest.mark.parametrize("every", [5, 7, 8, 10])
def test_against_a_dict_while_lookups_go_on(every):
    rng = random.Random(every)
    some = keys(rng, 12, same_bucket=True) + keys(rng, 16)
    model = Model()
    steady = some[0]                                       # in the middle of a list that changes around it

    async def updater(ctx, update, seek):
        assert await update(1, steady, 15) == model.update(1, steady, 15) == Status.OK
        for _ in range(150):
            k, insert, qp = rng.choice(some[1:]), rng.random() < 0.6, rng.randrange(15)
            if not insert and rng.random() < 0.7:
                qp = model.qps.get(k, qp)
            assert await update(int(insert), k, qp) == model.update(insert, k, qp)

    async def seeker(ctx, seek, over):
        while (await seek(steady, every))[0] != 15:
            pass
        while not over:
            assert (await seek(steady, every))[0] == 15
        for k in some:
            assert (await seek(k))[0] == model.qps.get(k)

    run(updater, seeker)


def test_every_bit_of_the_key_counts():
    base = (0x0A000001, 0x0A000002, 7471, 40000, 5, 1)

    async def updater(ctx, update, seek):
        assert await update(1, base, 4) == Status.OK
        assert (await seek(base))[0] == 4
        for field, width in enumerate((32, 32, 16, 16, 12, 1)):
            for bit in range(width):
                other = list(base)
                other[field] ^= 1 << bit
                assert (await seek(tuple(other)))[0] is None
        # The same hash, another key
        for k in keys(random.Random(3), 5):
            assert (await seek(k))[0] is None

    run(updater)
