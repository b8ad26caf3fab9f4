"""The protection unit against a model of it, around every edge."""

import random
from dataclasses import dataclass

import pytest
from amaranth.sim import Simulator

from emplace import abi
from emplace.abi import Access, Status
from emplace.config import PROFILES
from emplace.protect.layer import Protect
from emplace.protect.records import AccessOp, Outcome, Refusal, TableOp

CONFIG = PROFILES["tiny"]
TOP = 1 << 64
ALL = 0xFF & ~Access.ZERO_BASED
PAGES = 48          # entries of card memory that the tests fill


@dataclass
class Mr:
    stag: int
    pd: int = 7
    access: int = ALL
    page_log2: int = 0
    base: int = 0x1000
    length: int = 0x1000
    address: int = 0x5000
    first_page: int = 0
    pages: int = 0

    def command(self):
        return {"opcode": abi.Opcode.REG_MR, **vars(self)}


class Model:
    """What the unit must do, in plain integers."""

    def __init__(self, config=CONFIG):
        self.config = config
        self.slots = {}              # slot: [Mr, valid]
        self.page = [0] * config.pages

    def slot(self, stag):
        return (stag >> 8) % self.config.regions

    def register(self, mr):
        if self.slots.get(self.slot(mr.stag), [None, False])[1]:
            return Status.BAD_STAG
        if not 0 < mr.length <= 1 << 45 or mr.base + mr.length > TOP:
            return Status.BAD_LENGTH
        if mr.page_log2:
            if not 12 <= mr.page_log2 <= 30:
                return Status.BAD_SIZE
            size = 1 << mr.page_log2
            if mr.first_page + mr.pages > self.config.pages or -(-(mr.address + mr.length) // size) > mr.pages:
                return Status.BAD_PAGES
            if mr.address >= size:
                return Status.BAD_ADDRESS
        elif mr.address + mr.length > TOP:
            return Status.BAD_ADDRESS
        if mr.access & Access.ZERO_BASED and mr.base:
            return Status.BAD_ADDRESS
        self.slots[self.slot(mr.stag)] = [mr, True]
        return Status.OK

    def invalidate(self, stag):
        entry = self.slots.get(self.slot(stag))
        if entry is None or entry[0].stag != stag or not entry[1]:
            return Status.BAD_STAG
        entry[1] = False
        return Status.OK

    def access(self, op, stag, pd, offset, length, right):
        """The replies: a Refusal, or a list of bursts (empty where none is asked for)."""
        entry = self.slots.get(self.slot(stag))
        mr = entry and entry[0]
        if entry is None or mr.stag != stag or not (entry[1] or op == AccessOp.INVALIDATE):
            return Refusal.STAG
        if mr.pd != pd:
            return Refusal.PD
        if op == AccessOp.INVALIDATE:
            if not mr.access & Access.REMOTE_INVALIDATE:
                return Refusal.ACCESS
            entry[1] = False
            return []
        if not right or right & ~mr.access:
            return Refusal.ACCESS
        if offset + length > TOP:
            return Refusal.WRAP
        if not (mr.base <= offset and offset + length <= mr.base + mr.length) or length == 0:
            return Refusal.BOUNDS
        if op == AccessOp.CHECK:
            return []
        if length > 4096:
            return Refusal.BOUNDS
        at = offset - mr.base + mr.address
        if not mr.page_log2:
            return [(at, length)]
        size, bursts = 1 << mr.page_log2, []
        while length:
            part = min(length, size - at % size)
            bursts.append((self.page[mr.first_page + at // size] + at % size, part))
            at, length = at + part, length - part
        return bursts


class Bench:
    """Runs steps one after another: ("pages", ..), ("table", op, mr), ("requests", [...])."""

    def __init__(self, seed, idle=0.0, stall=0.0, config=CONFIG):
        self.dut, self.config = Protect(config), config
        self.rng = random.Random(seed)
        self.idle, self.stall = idle, stall
        self.taken, self.first = [], []      # cycle of each request's handshake and of its first reply
        self.cycle = 0

    async def write_page(self, ctx, index, address):
        port = self.dut.pages
        ctx.set(port.payload, {"index": index, "address": address})
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)

    async def table(self, ctx, op, mr):
        port, result = self.dut.table, self.dut.table_result
        ctx.set(port.payload, {"op": op, "mr": mr.command()})
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)
        ctx.set(result.ready, 1)
        status, = await ctx.tick().sample(result.p.status).until(result.valid)
        ctx.set(result.ready, 0)
        return status

    async def put(self, ctx, op, stag, pd, offset, length, right):
        port = self.dut.access
        while self.rng.random() < self.idle:
            await ctx.tick()
        ctx.set(port.payload, {"op": op, "stag": stag, "pd": pd, "offset": offset, "length": length, "right": right})
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        self.taken.append(self.cycle)
        ctx.set(port.valid, 0)

    async def get(self, ctx):
        """All replies to one request, in the form of Model.access."""
        port, bursts = self.dut.granted, []
        while True:
            while self.rng.random() < self.stall:
                await ctx.tick()
            ctx.set(port.ready, 1)
            reply, = await ctx.tick().sample(port.payload).until(port.valid)
            ctx.set(port.ready, 0)
            if not bursts:
                self.first.append(self.cycle)
            if reply.outcome != Outcome.GRANTED:
                assert reply.outcome == Outcome.REFUSED and reply.last and not bursts
                return Refusal(reply.refusal)
            assert reply.refusal == Refusal.NONE
            bursts.append((reply.address, reply.length))
            if reply.last:
                return bursts

    def run(self, *testbenches, cycles=60_000):
        async def watchdog(ctx):
            for _ in range(cycles):
                await ctx.tick()
                self.cycle += 1
            raise TimeoutError("a request or an update was not answered")

        sim = Simulator(self.dut)
        sim.add_clock(8e-9)
        sim.add_testbench(watchdog, background=True)
        for testbench in testbenches:
            sim.add_testbench(testbench)
        sim.run()


def same(op, got, expected):
    if isinstance(expected, Refusal) or isinstance(got, Refusal):
        return got is expected
    return got == expected if op == AccessOp.GRANT else len(got) == 1


def regions():
    """Regions at every kind of edge, none of which shares a slot."""
    return [
        Mr(0x00000100),
        Mr(0xDEAD02FF, base=0, address=0x12345, length=1),
        Mr(0xFFFFC3AA, base=TOP - 0x1000, length=0x1000, address=0xFFFF_FFFF_0000_0001),
        Mr(0x12340401, base=0xFFFF_F000, length=0x2000, address=TOP - 0x2000),
        Mr(0x12340502, page_log2=12, base=0x7F00_0000_0123, length=0x3000, address=0x123, first_page=0, pages=4),
        Mr(0x12340603, page_log2=12, base=0, length=0x2000, address=0, first_page=4, pages=2,
           access=ALL | Access.ZERO_BASED),
        Mr(0x12340704, page_log2=13, base=0x1_0000_0000 - 0x2001, length=0x4001, address=0x1FFF, first_page=6, pages=3),
        Mr(0x12340805, page_log2=21, base=TOP - (1 << 22), length=1 << 22, address=0, first_page=9, pages=2),
        Mr(0x12340906, page_log2=30, base=0x8000_0000_0000, length=(1 << 31) + 17, address=(1 << 30) - 1,
           first_page=11, pages=4),
        Mr(0x12340A07, page_log2=16, base=0x5555_5555, length=0x18000, address=0x8000, first_page=15, pages=2),
        Mr(0x12340B08, access=Access.REMOTE_READ, pd=9),
        Mr(0x12340C09, access=Access.LOCAL_WRITE | Access.REMOTE_WRITE, pd=0xFFFF, base=0, length=1 << 45, address=5),
        Mr(0x12340D0A, page_log2=30, base=1, length=1 << 34, address=0x3FFF_F000, first_page=17, pages=17),
    ]


def pages(rng, mrs):
    """Physical addresses for their page lists, each aligned to its size."""
    where = [rng.getrandbits(52) << 12 for _ in range(PAGES)]
    for mr in mrs:
        if mr.page_log2:
            for n in range(mr.first_page, mr.first_page + mr.pages):
                where[n] &= -(1 << mr.page_log2)
    return where


def around(rng, mr):
    """A random request near an edge of ``mr``."""
    end = mr.base + mr.length
    edges = [mr.base, end, mr.base + mr.length // 2, TOP]
    if mr.page_log2:
        size = 1 << mr.page_log2
        edges += [mr.base - mr.address + n * size for n in range(mr.pages + 1)]
    edge = rng.choice(edges) + rng.choice([-2, -1, 0, 0, 0, 1, 2, rng.randrange(-5000, 5000)])
    length = rng.choice([1, 2, 3, 64, 1428, 2048, 4095, 4096, rng.randrange(1, 4097), rng.randrange(1, 64)])
    if rng.random() < 0.5:
        edge -= length               # ends at the edge
    op = AccessOp.GRANT
    if rng.random() < 0.1:
        op = AccessOp.CHECK
        length = rng.choice([length, mr.length & 0xFFFFFFFF, (1 << 32) - 1, 0])
        edge = rng.choice([edge, mr.base])
    elif rng.random() < 0.05:
        length = rng.choice([0, 4097, 8192, 1 << 13 | 1, (1 << 32) - 1])
    stag = mr.stag
    if rng.random() < 0.1:
        stag ^= 1 << rng.randrange(32)
    pd = mr.pd ^ (rng.random() < 0.05) << rng.randrange(16)
    right = mr.access & rng.getrandbits(8) or mr.access
    if rng.random() < 0.1:
        right = rng.choice([0, rng.getrandbits(8), 1 << rng.randrange(8)])
    return op, stag, pd, edge % TOP, length, right


@pytest.mark.parametrize("seed, idle, stall", [(1, 0.0, 0.0), (2, 0.4, 0.0), (3, 0.0, 0.6), (4, 0.3, 0.3)])
def test_every_edge(seed, idle, stall):
    bench, model, rng = Bench(seed, idle, stall), Model(), random.Random(seed)
    mrs = regions()
    model.page[:PAGES] = pages(rng, mrs)
    requests, expected, ready = [], [], []

    async def source(ctx):
        for n in range(PAGES):
            await bench.write_page(ctx, n, model.page[n])
        for mr in mrs:
            assert model.register(mr) == Status.OK
            assert await bench.table(ctx, TableOp.REGISTER, mr) == Status.OK
        for _ in range(1500):
            mr = rng.choice(mrs)
            request = around(rng, mr)
            if rng.random() < 0.003:
                request = (AccessOp.INVALIDATE, *request[1:])
            requests.append(request)
            expected.append(model.access(*request))
        ready.append(True)
        for request in requests:
            await bench.put(ctx, *request)

    async def sink(ctx):
        while not ready:
            await ctx.tick()
        for request, want in zip(requests, expected, strict=True):
            got = await bench.get(ctx)
            assert same(request[0], got, want), (request, got, want)

    bench.run(source, sink)
    seen = {want if isinstance(want, Refusal) else len(want) for want in expected}
    assert seen >= {Refusal.STAG, Refusal.PD, Refusal.ACCESS, Refusal.WRAP, Refusal.BOUNDS, 0, 1, 2}
    if not idle and not stall:
        gaps = [bench.taken[n] - bench.taken[n - 1] for n in range(1, len(requests))
                if requests[n - 1][0] != AccessOp.INVALIDATE]
        assert max(gaps) == 2
        # Replies queue up behind second bursts at most: the fastest shows the latency.
        assert min(a - t for t, a in zip(bench.taken, bench.first, strict=True)) == 6


@pytest.mark.parametrize("change, status", [
    ({}, Status.OK),
    ({"length": 0}, Status.BAD_LENGTH),
    ({"length": (1 << 45)}, Status.OK),
    ({"length": (1 << 45) + 1}, Status.BAD_LENGTH),
    ({"length": TOP - 1}, Status.BAD_LENGTH),
    ({"base": TOP - 0x1000}, Status.OK),
    ({"base": TOP - 0xFFF}, Status.BAD_LENGTH),
    ({"base": TOP - 1, "length": 1}, Status.OK),
    ({"base": TOP - 1, "length": 2}, Status.BAD_LENGTH),
    ({"address": TOP - 0x1000}, Status.OK),
    ({"address": TOP - 0xFFF}, Status.BAD_ADDRESS),
    ({"page_log2": 1}, Status.BAD_SIZE),
    ({"page_log2": 11}, Status.BAD_SIZE),
    ({"page_log2": 31}, Status.BAD_SIZE),
    ({"page_log2": 32 + 12}, Status.BAD_SIZE),
    ({"page_log2": 255}, Status.BAD_SIZE),
    ({"page_log2": 12, "address": 0, "pages": 1}, Status.OK),
    ({"page_log2": 12, "address": 1, "pages": 1}, Status.BAD_PAGES),
    ({"page_log2": 12, "address": 1, "pages": 2}, Status.OK),
    ({"page_log2": 12, "address": 0xFFF, "pages": 2}, Status.OK),
    ({"page_log2": 12, "address": 0x1000, "pages": 2}, Status.BAD_ADDRESS),
    ({"page_log2": 12, "address": 0x1001, "pages": 2}, Status.BAD_PAGES),
    ({"page_log2": 12, "address": 0, "pages": 0}, Status.BAD_PAGES),
    ({"page_log2": 12, "address": 0, "pages": 1, "first_page": CONFIG.pages - 1}, Status.OK),
    ({"page_log2": 12, "address": 0, "pages": 2, "first_page": CONFIG.pages - 1}, Status.BAD_PAGES),
    ({"page_log2": 12, "address": 0, "pages": 1, "first_page": CONFIG.pages}, Status.BAD_PAGES),
    ({"page_log2": 12, "address": 0, "pages": 1, "first_page": 0xFFFFFFFF}, Status.BAD_PAGES),
    ({"page_log2": 12, "address": 0, "pages": 0xFFFFFFFF, "first_page": 1}, Status.BAD_PAGES),
    ({"page_log2": 30, "address": (1 << 30) - 1, "pages": 2}, Status.OK),
    ({"page_log2": 30, "address": 1 << 30, "pages": 2}, Status.BAD_ADDRESS),
    ({"page_log2": 30, "address": 1 << 63, "pages": 2}, Status.BAD_PAGES),
    ({"page_log2": 30, "address": 0, "length": 1 << 40, "pages": 1023}, Status.BAD_PAGES),
    ({"page_log2": 30, "address": 0, "length": 1 << 40, "pages": 1024}, Status.OK),
    ({"page_log2": 30, "address": 1, "length": 1 << 40, "pages": 1024}, Status.BAD_PAGES),
    ({"access": ALL | Access.ZERO_BASED}, Status.BAD_ADDRESS),
    ({"access": ALL | Access.ZERO_BASED, "base": 0}, Status.OK),
    ({"stag": 0x9900_0133}, Status.BAD_STAG),
])
def test_registration(change, status):
    bench, model = Bench(1), Model()
    first, mr = Mr(0x100), Mr(**{"stag": 0xABCD_0233, **change})
    assert model.register(first) == Status.OK and model.register(mr) == status

    async def source(ctx):
        assert await bench.table(ctx, TableOp.REGISTER, first) == Status.OK
        assert await bench.table(ctx, TableOp.REGISTER, mr) == status
        request = (AccessOp.CHECK, mr.stag, mr.pd, mr.base, 1, Access.REMOTE_WRITE)
        await bench.put(ctx, *request)
        assert same(request[0], await bench.get(ctx), model.access(*request))
        request = (AccessOp.GRANT, first.stag, first.pd, first.base, 1, Access.REMOTE_WRITE)   # nothing was changed
        await bench.put(ctx, *request)
        assert await bench.get(ctx) == [(first.address, 1)]

    bench.run(source)


def test_random_registrations():
    bench, model, rng = Bench(1), Model(), random.Random(5)

    def near(*values):
        return max(0, rng.choice(values) + rng.choice([-1, 0, 0, 1]))

    async def source(ctx):
        seen = set()
        for _ in range(600):
            log2 = rng.choice([0, 0, 12, 12, 13, 16, 21, 29, 30, rng.randrange(256)])
            size = 1 << min(log2, 40)
            count = rng.choice([0, 1, 2, 3, 1023, 1024])
            mr = Mr(stag=rng.randrange(4) << 8 | rng.randrange(2), pd=rng.getrandbits(16),
                    access=rng.choice([ALL, 0xFF]), page_log2=log2, first_page=near(0, 0, CONFIG.pages - count % 1024),
                    base=rng.choice([0, 0x1000, near(TOP - 2, TOP - 4096), rng.getrandbits(64)]),
                    length=near(0, 1, size * count, size * count - 5, 1 << 45) or 0,
                    address=near(0, 5, 5, size - 1, size, TOP - size * 3) % TOP, pages=count)
            if rng.random() < 0.4:
                assert await bench.table(ctx, TableOp.INVALIDATE, mr) == model.invalidate(mr.stag)
            status = model.register(mr)
            seen.add(status)
            assert await bench.table(ctx, TableOp.REGISTER, mr) == status, mr
        assert seen >= {Status.OK, Status.BAD_STAG, Status.BAD_LENGTH, Status.BAD_PAGES, Status.BAD_SIZE,
                        Status.BAD_ADDRESS}

    bench.run(source)


@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_invalidate_by_the_peer(stall):
    """Stage I; and the request right behind sees it (cases 25, 26)."""
    bench = Bench(3, stall=stall)
    mr = Mr(0xAAAA0142)
    fixed = Mr(0xAAAA0243, access=ALL & ~Access.REMOTE_INVALIDATE)
    write = ("stag", 7, 0x1000, 64, Access.REMOTE_WRITE)

    def grant(stag):
        return (AccessOp.GRANT, stag, *write[1:])

    def revoke(stag, pd=7):
        return (AccessOp.INVALIDATE, stag, pd, 0, 0, 0)

    steps = [
        (grant(mr.stag), [(0x5000, 64)]),
        (revoke(mr.stag ^ 1), Refusal.STAG),                 # another key
        (revoke(0x0000_0300), Refusal.STAG),                 # slot never used, STag as an empty entry's
        (revoke(0x0000_0000), Refusal.STAG),
        (revoke(mr.stag, pd=8), Refusal.PD),
        (revoke(fixed.stag), Refusal.ACCESS),
        (grant(mr.stag), [(0x5000, 64)]),
        (revoke(mr.stag), []),
        (grant(mr.stag), Refusal.STAG),
        (revoke(mr.stag), []),                               # already invalid: success
        (revoke(mr.stag ^ 0x100000), Refusal.STAG),
        (revoke(mr.stag, pd=8), Refusal.PD),
        (grant(fixed.stag), [(0x5000, 64)]),
    ]
    ready = []

    async def source(ctx):
        for region in (mr, fixed):
            assert await bench.table(ctx, TableOp.REGISTER, region) == Status.OK
        ready.append(True)
        for request, _ in steps:
            await bench.put(ctx, *request)

    async def sink(ctx):
        while not ready:
            await ctx.tick()
        for request, want in steps:
            assert same(request[0], await bench.get(ctx), want), (request, want)
        # Invalid by the peer: nothing for the host to invalidate; another key may take the slot.
        assert await bench.table(ctx, TableOp.INVALIDATE, mr) == Status.BAD_STAG
        again = Mr(mr.stag + 1)
        assert await bench.table(ctx, TableOp.REGISTER, again) == Status.OK
        await bench.put(ctx, *grant(mr.stag))
        assert await bench.get(ctx) is Refusal.STAG
        await bench.put(ctx, *grant(again.stag))
        assert await bench.get(ctx) == [(0x5000, 64)]

    bench.run(source, sink)


@pytest.mark.parametrize("seed, idle, stall", [(1, 0.0, 0.0), (2, 0.3, 0.0), (3, 0.0, 0.4)])
def test_update_is_never_torn(seed, idle, stall):
    """Requests while the host replaces the entry: each sees one entry, whole, and never an older one."""
    bench, rng = Bench(seed, idle, stall), random.Random(seed)
    stag = 0x77001234
    versions = [Mr(stag, base=0x1000 * n, address=0x10_0000 * n, length=0x1000, page_log2=0) for n in range(1, 25)]
    now = [0, 0]                     # versions that a request taken now may see: from, to (odd: none)
    asked, done = [], []

    async def host(ctx):
        for n, mr in enumerate(versions):
            now[1] = 2 * n + 1
            assert await bench.table(ctx, TableOp.REGISTER, mr) == Status.OK
            now[0] = 2 * n + 1
            for _ in range(rng.randrange(30)):
                await ctx.tick()
            now[1] = 2 * n + 2
            assert await bench.table(ctx, TableOp.INVALIDATE, mr) == Status.OK
            now[0] = 2 * n + 2
        done.append(True)

    async def source(ctx):
        while not done:
            n = rng.randrange(max(1, now[0] // 2), now[1] // 2 + 2)
            least = now[0]
            await bench.put(ctx, AccessOp.GRANT, stag, 7, 0x1000 * n + 0x10, 16, Access.REMOTE_WRITE)
            asked.append((n, least, now[1]))
        asked.append(None)

    async def sink(ctx):
        at = granted = 0
        while True:
            while len(asked) <= at:
                await ctx.tick()
            if asked[at] is None:
                break
            n, least, most = asked[at]
            got = await bench.get(ctx)
            may = []
            for version in range(least, most + 1):
                if version % 2 == 0:
                    may.append(Refusal.STAG)
                elif versions[version // 2].base == 0x1000 * n:
                    may.append([(0x10_0000 * n + 0x10, 16)])
                    granted += got == may[-1]
                else:
                    may.append(Refusal.BOUNDS)
            assert got in may, (n, least, most, got)
            at += 1
        assert granted > 20

    bench.run(host, source, sink)


def test_updates_pass_while_no_reply_is_taken():
    """The host's queue doesn't wait for whoever takes the replies."""
    bench = Bench(1)

    async def source(ctx):
        assert await bench.table(ctx, TableOp.REGISTER, Mr(0x100)) == Status.OK
        for _ in range(4):
            await bench.put(ctx, AccessOp.GRANT, 0x100, 7, 0x1000, 8, Access.REMOTE_READ)
        assert await bench.table(ctx, TableOp.REGISTER, Mr(0x200)) == Status.OK
        assert await bench.table(ctx, TableOp.INVALIDATE, Mr(0x100)) == Status.OK
        for _ in range(4):
            assert await bench.get(ctx) == [(0x5000, 8)]

    bench.run(source)


def test_replies_wait_without_loss():
    """Two bursts a request, nobody takes them for long: none is lost."""
    bench = Bench(1)
    mr = Mr(0x100, page_log2=12, base=0, address=0, length=0x2000, pages=2)

    async def source(ctx):
        await bench.write_page(ctx, 0, 0xA000)
        await bench.write_page(ctx, 1, 0xC000)
        assert await bench.table(ctx, TableOp.REGISTER, mr) == Status.OK
        for n in range(40):
            await bench.put(ctx, AccessOp.GRANT, 0x100, 7, 0xFFF - n, 2 + n, Access.REMOTE_READ)

    async def sink(ctx):
        for _ in range(300):
            await ctx.tick()
        for n in range(40):
            assert await bench.get(ctx) == [(0xAFFF - n, 1 + n), (0xC000, 1)]

    bench.run(source, sink)
