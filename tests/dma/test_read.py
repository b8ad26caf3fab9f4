"""Reads through the whole layer, against a host that answers late, out of order, in pieces, wrongly or not at all."""

import dataclasses
import random

import pytest
from tests.dma.harness import TlpSink, get, put, put_packet, simulate

from emplace.config import PROFILES
from emplace.dma.layer import Dma
from emplace.dma.records import READ_CLIENTS, ReadClient
from emplace_sim.host_tlp import ABORT, UNSUPPORTED, Tlp, completion, split_completion

CARD = 0x0108
SMALL = dict(read_tags=8)


def memory(address, length):
    """What host memory holds."""
    return bytes((at * 7 + (at >> 8) * 13 + (at >> 32)) & 0xFF for at in range(address, address + length))


class Host:
    """Answers MRd TLPs. ``fault(tlp)`` names what shall go wrong with a read."""

    def __init__(self, dut, *, seed=0, latency=20, jitter=0, cut="max", limit=128, stall=0.0, gap=0.0):
        self.dut, self.rng = dut, random.Random(seed)
        self.latency, self.jitter, self.cut, self.limit, self.gap = latency, jitter, cut, limit, gap
        self.sink = TlpSink(dut.tx_tlp, seed=seed, stall=stall)
        self.sink.arrived = self.request
        self.due, self.reads, self.most, self.under_way = [], [], 0, set()
        self.finished = []
        self.fault = lambda tlp: None
        self.max_read = 512

    def request(self, packet, err):
        assert not err
        tlp = Tlp.parse(packet)
        assert tlp.kind == "MRd" and tlp.requester == CARD, tlp
        tlp.check_request()
        assert 4 * tlp.length <= self.max_read
        assert tlp.tag not in self.under_way, f"tag {tlp.tag} used twice"
        self.reads.append(tlp)
        fault = self.fault(tlp)
        if fault == "drop":
            return
        self.under_way.add(tlp.tag)
        self.most = max(self.most, len(self.under_way))
        address, size = tlp.span
        parts = split_completion(tlp, memory(address, size), limit=self.limit, cut=self.cut, rng=self.rng)
        if fault == "ur":
            parts = [completion(tlp, status=UNSUPPORTED)]
        elif fault == "ca":
            parts = parts[:-1] + [completion(tlp, status=ABORT)]
        elif fault == "poison":
            self.rng.choice(parts).poisoned = True
        elif fault == "truncate":
            parts = parts[:-1]
        elif fault == "duplicate":
            parts.append(parts[-1])
        elif fault == "count":
            parts[0].byte_count += 4
        elif fault == "lower":
            parts[0].lower_address ^= 4
        elif fault == "long":                # more data than was asked for
            parts = [dataclasses.replace(parts[-1], length=128, payload=bytes(512))]
        elif fault == "empty":
            parts = [dataclasses.replace(completion(tlp), length=1024, status=0)]
        elif fault == "requester":
            parts = [dataclasses.replace(part, requester=CARD + 1) for part in parts]
        at = self.sink.cycle + self.latency
        for n, part in enumerate(parts):
            at += self.rng.randint(0, self.jitter) if self.jitter else 0
            self.due.append((at, len(self.reads), n, part, part is parts[-1]))
        self.due.sort(key=lambda item: item[:3])

    async def answer(self, ctx):
        while True:
            if self.due and self.due[0][0] <= self.sink.cycle:
                _, _, _, part, last = self.due.pop(0)
                if last:
                    self.under_way.discard(part.tag)
                    self.finished.append(part.tag)
                await put_packet(ctx, self.dut.rx_tlp, part.pack(), rng=self.rng, idle=self.gap)
            else:
                await ctx.tick()


def configure(ctx, dut, *, max_read=2, max_payload=0, bus_master=1):
    ctx.set(dut.cfg.id, CARD)
    ctx.set(dut.cfg.bus_master, bus_master)
    ctx.set(dut.cfg.max_read, max_read)
    ctx.set(dut.cfg.max_payload, max_payload)


def client(dut, index, requests, results, *, rng, stall=0.0, idle=0.0):
    """Testbenches that ask for (address, length), and collect (bytes, err, words)."""
    async def ask(ctx):
        for address, length in requests:
            await put(ctx, dut.reads[index], {"client": 3, "address": address, "length": length, "ordered": rng.random() < 0.3},
                      rng=rng, idle=idle)

    async def take(ctx):
        for _ in requests:
            data, word, words = b"", None, 0
            while word is None or not word.last:
                word = await get(ctx, dut.read_data[index], rng=rng, stall=stall)
                assert word.client == index
                data += int(word.data).to_bytes(8, "little")
                words += 1
            results.append((data[:len(data) - word.empty], bool(word.err), words))
    return ask, take


def requests(rng, count, longest=512):
    found = []
    for _ in range(count):
        length = rng.choice([64, 128, 8, rng.randint(1, longest), rng.randint(1, longest)])
        base = rng.choice([0x1000_0000, 0x3_0000_0000])
        at = rng.choice([0, rng.randrange(4096 - length + 1), 4096 - length])
        found.append((base + 4096 * rng.randrange(4) + at, length))
    return found


def run(profile, asked, *, cycles=20000, host=None, stall=0.0, idle=0.0, config=None, timeout=1024, **cfg):
    config = dataclasses.replace(PROFILES[profile], **(config or {}))
    dut = Dma(config, timeout=timeout)
    host = host or {}
    fault = host.pop("fault", None)
    host = Host(dut, **host)
    if fault:
        host.fault = fault
    host.max_read = 128 << min(cfg.get("max_read", 2), 2)
    rng = random.Random(3)
    results = [[] for _ in asked]
    counts = dict.fromkeys(("tx_reads", "rx_completions_bad", "read_errors", "guard_reads"), 0)

    async def setup(ctx):
        configure(ctx, dut, **cfg)
        ctx.set(dut.token.ready, 1)

    async def count(ctx):
        while True:
            _, _, now = await ctx.tick().sample(dut.count)
            for name in counts:
                counts[name] += now[name]
    benches = [bench for n in range(len(asked)) if asked[n]
               for bench in client(dut, n, asked[n], results[n], rng=rng, stall=stall, idle=idle)]
    simulate(dut, setup, *benches, background=[host.sink.run, host.answer, count], cycles=cycles)
    return results, host, counts


def check(asked, results, failing=lambda address, length: False):
    for n in range(len(asked)):
        assert len(results[n]) == len(asked[n])
        for (address, length), (data, err, _) in zip(asked[n], results[n], strict=True):
            assert err == failing(address, length), f"{address:#x} + {length}"
            if not err:
                assert data == memory(address, length), f"{address:#x} + {length}"


@pytest.mark.parametrize("profile", ["tiny", "default"])
@pytest.mark.parametrize("kind", ["plain", "reordered", "stalled"])
def test_random(profile, kind):
    rng = random.Random(kind)
    asked = [requests(rng, 12), requests(rng, 12)]
    host, more = {
        "plain": (dict(limit=256), {}),
        "reordered": (dict(jitter=60, cut="random"), dict(max_read=0)),
        "stalled": (dict(jitter=40, cut="rcb", stall=0.4, gap=0.3), dict(stall=0.4, idle=0.3, max_read=1)),
    }[kind]
    results, host, counts = run(profile, asked, host=host, **more)
    check(asked, results)
    assert counts["rx_completions_bad"] == counts["read_errors"] == 0
    assert counts["tx_reads"] == len(host.reads)
    assert host.most > 3
    if kind == "reordered":
        assert host.finished != sorted(host.finished)


@pytest.mark.parametrize("fault", ["ur", "ca", "poison", "count", "lower", "long", "empty", "drop", "truncate", "requester"])
def test_faults(fault):
    """Some reads fail, the rest is whole."""
    rng = random.Random(fault)
    asked = [[(0x1000_0000 + 4096 * n + rng.randrange(64), 256 + rng.randrange(100)) for n in range(6)],
             [(0x2000_0000 + 4096 * n, 64) for n in range(6)]]
    marked = {address // 4096 for address, _ in asked[0][1::3] + asked[1][2::3]}
    seen = []

    def wrong(tlp):
        if tlp.address // 4096 in marked:
            seen.append(tlp)
            return fault
        return None
    results, _, counts = run("default", asked, host=dict(fault=wrong, jitter=20, cut="rcb"),
                             timeout=256 if fault in ("drop", "truncate", "requester") else 1024)
    check(asked, results, lambda address, length: address // 4096 in marked)
    assert counts["read_errors"] == len(marked) == 4
    if fault in ("ca", "poison"):        # bad are those that follow the one that failed
        return
    assert (counts["rx_completions_bad"] > 0) == (fault in ("count", "lower", "long", "requester"))


def test_duplicate():
    """A completion that comes twice is counted and changes nothing."""
    rng = random.Random(1)
    asked = [requests(rng, 12), requests(rng, 12)]
    results, host, counts = run("default", asked, host=dict(fault=lambda tlp: "duplicate", latency=10))
    check(asked, results)
    assert counts["rx_completions_bad"] == len(host.reads)


def test_late_completion():
    """A tag that has timed out is not used again before its completion has come."""
    dut = Dma(dataclasses.replace(PROFILES["tiny"], **SMALL), timeout=256)
    host = Host(dut, latency=1000)
    answers = []

    async def bench(ctx):
        configure(ctx, dut)
        ask, take = client(dut, 0, [(0x1000_0000, 8)], answers, rng=random.Random(1))
        await ask(ctx)
        await take(ctx)
        assert answers.pop()[1]
        first = host.reads[0].tag
        host.latency = 5
        for n in range(12):
            ask, take = client(dut, 0, [(0x1000_1000 + 8 * n, 8)], answers, rng=random.Random(1))
            await ask(ctx)
            await take(ctx)
            data, err, _ = answers.pop()
            assert not err and data == memory(0x1000_1000 + 8 * n, 8)
            assert host.reads[-1].tag != first
        while host.sink.cycle < 1100:
            await ctx.tick()
        ask, take = client(dut, 0, [(0x1000_2000, 8)], answers, rng=random.Random(1))
        await ask(ctx)
        await take(ctx)
        assert host.reads[-1].tag == first and answers.pop()[0] == memory(0x1000_2000, 8)
    simulate(dut, bench, background=[host.sink.run, host.answer], cycles=4000)


def test_quarantine_ends():
    """Tags whose completions never come are used again in the end."""
    results = []
    dut = Dma(dataclasses.replace(PROFILES["tiny"], **SMALL), timeout=128)
    host = Host(dut)
    host.fault = lambda tlp: "drop" if len(host.reads) <= 8 else None
    asked = [(0x1000_0000 + 64 * n, 64) for n in range(10)]

    async def setup(ctx):
        configure(ctx, dut)
    simulate(dut, setup, *client(dut, 0, asked, results, rng=random.Random(1)),
             background=[host.sink.run, host.answer], cycles=20000)
    assert [err for _, err, _ in results] == [True] * 8 + [False, False]


def test_no_bus_master():
    asked = [[(0x1000_0000, 100), (0x1000_0FF0, 16)], [(0x2000_0000, 512)]]
    results, host, counts = run("tiny", asked, bus_master=0)
    assert not host.reads and counts["tx_reads"] == 0
    check(asked, results, lambda address, length: True)


def test_refused():
    """What the guard does not let out fails; nothing waits for it."""
    config = PROFILES["default"]
    dut = Dma(config, timeout=1 << 20)
    host = Host(dut)
    results = []
    asked = [(0x1000_0000, 64), (0x5000_0000, 64), (0x1000_1000, 8), (0x5000_0FFF, 1)] * 4

    async def setup(ctx):
        configure(ctx, dut)
        ctx.set(dut.guard_ranges[0], {"first": 0x50000, "end": 0x50001})
    simulate(dut, setup, *client(dut, 1, asked, results, rng=random.Random(1)), background=[host.sink.run, host.answer],
             cycles=3000)
    check([[], asked], [[], results], lambda address, length: address >> 28 == 5)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("max_read", [0, 2])
def test_all_clients(stall, max_read):
    rng = random.Random(f"{stall} {max_read}")
    asked = [requests(rng, 8) for _ in range(READ_CLIENTS)]
    results, host, counts = run("tiny", asked, host=dict(jitter=50, limit=256), stall=stall, max_read=max_read)
    check(asked, results)
    assert counts["read_errors"] == counts["rx_completions_bad"] == 0 and counts["tx_reads"] == len(host.reads)


def test_fairness():
    """Six greedy clients get the bus in turns: no one is a read ahead of another for long."""
    dut = Dma(PROFILES["tiny"])
    host = Host(dut, latency=30)
    asked = [[(0x1000_0000 + (n << 24) + 512 * k, 512) for k in range(10)] for n in range(READ_CLIENTS)]
    results = [[] for _ in asked]

    async def setup(ctx):
        configure(ctx, dut)
    simulate(dut, setup, *(bench for n in range(READ_CLIENTS) for bench in client(dut, n, asked[n], results[n],
                                                                              rng=random.Random(n))),
             background=[host.sink.run, host.answer], cycles=9000)
    check(asked, results)
    got = [0] * READ_CLIENTS
    for tlp in host.reads[:54]:
        got[(tlp.address >> 24) - 0x10] += 1
        assert max(got) - min(got) <= 2, got


@pytest.mark.parametrize("victim", [ReadClient.RECEIVE, ReadClient.PAYLOAD])
def test_lazy_clients(victim):
    """Clients that take no data do not stop another one, however many they are; theirs is whole when they do."""
    dut = Dma(dataclasses.replace(PROFILES["tiny"], **SMALL), timeout=4096)
    host = Host(dut)
    rng = random.Random(1)
    lazy = [n for n in range(READ_CLIENTS) if n != victim]
    asked = [requests(rng, 10 if n == victim else 2) for n in range(READ_CLIENTS)]
    asked[lazy[0]] = [(0x1000_0003 + 512 * n, 509) for n in range(12)]
    results = [[] for _ in asked]
    finished = []

    async def setup(ctx):
        configure(ctx, dut)

    def late(take):
        async def bench(ctx):
            while not finished:
                await ctx.tick()
            await take(ctx)
        return bench

    def watched(take):
        async def bench(ctx):
            await take(ctx)
            finished.append(host.sink.cycle)
        return bench
    benches = []
    for n in range(READ_CLIENTS):
        ask, take = client(dut, n, asked[n], results[n], rng=rng)
        benches += [ask, (late if n in lazy else watched)(take)]
    simulate(dut, setup, *benches, background=[host.sink.run, host.answer], cycles=8000)
    check(asked, results)
    assert finished[0] < 2000


def test_stuck_client():
    """Reads of one client that are never answered leave tags for all others."""
    dut = Dma(dataclasses.replace(PROFILES["tiny"], **SMALL), timeout=4096)
    host = Host(dut)
    host.fault = lambda tlp: "drop" if tlp.address >> 28 == 5 else None
    rng = random.Random(2)
    asked = [requests(rng, 6) for _ in range(READ_CLIENTS)]
    asked[ReadClient.FRAME_TX] = []
    results = [[] for _ in asked]

    async def setup(ctx):
        configure(ctx, dut)

    async def stuck(ctx):
        while True:
            await put(ctx, dut.reads[ReadClient.FRAME_TX], {"address": 0x5000_0000, "length": 64})
    simulate(dut, setup, *(bench for n in range(READ_CLIENTS) for bench in client(dut, n, asked[n], results[n], rng=rng)),
             background=[stuck, host.sink.run, host.answer], cycles=3500)
    check(asked, results)
    # One tag for each of the others stays free.
    assert sum(tlp.address >> 28 == 5 for tlp in host.reads) == SMALL["read_tags"] - (READ_CLIENTS - 1)


def test_failed_part_put_back():
    """A failed part whose word its client does not take is put back for another client's, and fails again later."""
    dut = Dma(dataclasses.replace(PROFILES["tiny"], **SMALL), timeout=4096)
    host = Host(dut, latency=5)
    host.fault = lambda tlp: "ur" if tlp.address >> 28 == 5 else None
    results = []

    async def bench(ctx):
        configure(ctx, dut)
        for address, length in ((0x1000_0000, 64), (0x5000_0100, 512)):
            await put(ctx, dut.reads[0], {"address": address, "length": length})
        for _ in range(100):
            await ctx.tick()
        words = [await get(ctx, dut.read_data[0]) for _ in range(7)]
        for _ in range(20):
            await ctx.tick()
        ask, take = client(dut, 1, [(0x1000_1000, 40)], results, rng=random.Random(1))
        await ask(ctx)
        await take(ctx)
        words += [await get(ctx, dut.read_data[0]) for _ in range(2)]
        await put(ctx, dut.reads[0], {"address": 0x1000_2000, "length": 24})
        words += [await get(ctx, dut.read_data[0]) for _ in range(3)]
        assert [(word.last, word.err) for word in words] == [(0, 0)] * 7 + [(1, 0), (1, 1), (0, 0), (0, 0), (1, 0)]
        assert b"".join(int(word.data).to_bytes(8, "little") for word in words[9:]) == memory(0x1000_2000, 24)
    simulate(dut, bench, background=[host.sink.run, host.answer], cycles=2000)
    assert results[0][0] == memory(0x1000_1000, 40)


def test_latency():
    """What the engine adds to a read of 64 bytes."""
    dut = Dma(PROFILES["default"])
    host = Host(dut, latency=0)
    times = {}

    async def bench(ctx):
        configure(ctx, dut)
        for _ in range(3):
            await ctx.tick()
        start = host.sink.cycle
        await put(ctx, dut.reads[0], {"address": 0x1000_0000, "length": 64})
        while not host.reads:
            await ctx.tick()
        times["out"] = host.sink.cycle - start
        await get(ctx, dut.read_data[0])
        times["all"] = host.sink.cycle - start
    simulate(dut, bench, background=[host.sink.run, host.answer], cycles=200)
    print("read: cycles to its TLP, and to the first word of data with a host that takes no time:", times)
    assert times["out"] <= 16 and times["all"] <= 40
