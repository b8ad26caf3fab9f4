"""The TCP layer against a golden model, segment by segment."""

import random
from itertools import pairwise

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from tests.tcp.harness import CONFIG, Bench

from emplace import abi
from emplace_sim.tcp_model import Walk, ack_frame, signed

OF_ACKS = ("tx_acks", "tx_sacks", "tx_dsacks", "tx_delayed")
STAMPS = [abi.QpFlags(0), abi.QpFlags.TIMESTAMPS]


def read_ack(frame):
    """Source port and acknowledgment of a frame, as another implementation reads it; its checksums hold."""
    parsed = Ether(frame)
    fresh = parsed.copy()
    del fresh[IP].chksum, fresh[TCP].chksum, fresh[IP].len
    assert bytes(fresh) == frame
    assert parsed[TCP].flags == "A" and parsed[IP].flags == "DF" and not bytes(parsed[TCP].payload)
    return parsed[TCP].sport, parsed[TCP].ack


class Twin:
    """A connection in the layer and in the model, in lock step."""

    def __init__(self, bench, qp, model, stream, start):
        self.bench, self.qp, self.model, self.stream, self.start = bench, qp, model, stream, start

    async def send(self, ctx, at, length, *, content=None, **fields):
        """Octets of the stream from ``at`` on, or ``content`` in their place."""
        payload = self.stream[at:at + length] if content is None else content
        seq = (self.start + at) & 0xFFFFFFFF
        walks, acks = len(self.bench.walks), len(self.bench.acks)
        fields = {"tsval": self.model.ts_recent if self.model.timestamps else None,
                  "ack": self.bench.installed[self.qp]["snd_nxt"], "window": self.bench.rng.getrandbits(16), **fields}
        self.model.acks.clear()
        expected = self.expect(lambda: self.model.segment(seq, payload, now=self.bench.now, **fields))
        await self.bench.segment(ctx, self.qp, seq, payload, **fields)
        await self.check(ctx, walks, acks, expected)

    async def resume(self, ctx):
        walks, acks = len(self.bench.walks), len(self.bench.acks)
        self.model.acks.clear()
        expected = self.expect(self.model.resume)
        await self.bench.resume(ctx, self.qp)
        await self.check(ctx, walks, acks, expected)

    def expect(self, step):
        """What the model walks in a step, with answers that the layer's mpa will give again."""
        answers, pieces = [], []
        policy = self.bench.policy

        def walk(piece):
            pieces.append(bytes(piece))
            answers.append(policy(self.qp, piece))
            return answers[-1]

        self.model.walk = walk
        step()
        replay = iter(answers)
        self.bench.policy = lambda qp, piece: next(replay)
        self.real = policy
        return pieces

    async def check(self, ctx, walks, acks, expected):
        bench, model = self.bench, self.model
        await bench.settle(ctx, 110 if model.sack else 50)
        bench.policy = self.real
        assert [piece for _, piece in bench.walks[walks:]] == expected
        assert bench.taken[self.qp] == model.taken
        got = bench.acks[acks:]
        cmd = bench.installed[self.qp]
        vlan = bool(abi.QpFlags(cmd["flags"]) & abi.QpFlags.VLAN)
        assert got == [ack_frame(cmd, rcv_nxt=ack.rcv_nxt, ts_recent=ack.ts_recent, ece=ack.ece, blocks=ack.blocks,
                                 now=bench.now, vlan=vlan, timestamps=model.timestamps)
                       for ack in model.acks], [a.hex() for a in got]
        assert [how for qp, how, _ in bench.ends if qp == self.qp][-1:] == [model.ended] * bool(model.ended)
        counters = {name: n for name, n in bench.counters.items() if n and name not in OF_ACKS}
        assert counters == {name: n for name, n in model.counters.items() if n}
        assert bench.slots_free(ctx) + len(model.held) + len(bench.kept) == bench.config.slots


async def twin(ctx, bench, rng, qp=0, length=20_000, start=1000, **fields):
    model = await bench.install(ctx, qp, rcv_nxt=start & 0xFFFFFFFF, **fields)
    return Twin(bench, qp, model, rng.randbytes(length), start)


@pytest.mark.parametrize("flags", STAMPS)
@pytest.mark.parametrize("vlan", [0, abi.QpFlags.VLAN])
def test_in_order(flags, vlan):
    bench = Bench(seed=3)

    async def test(ctx):
        t = await twin(ctx, bench, random.Random(1), flags=flags | vlan, start=2**32 - 777)
        at = 0
        for length in (1, 8, 100, 767, 3, 300):
            await t.send(ctx, at, length)
            at += length
        assert bench.counters["rx_fast_path"] == 6
        assert bench.slots_free(ctx) == CONFIG.slots
        assert (await bench.upload(ctx))["rcv_nxt"] == (2**32 - 777 + at) & 0xFFFFFFFF

    bench.run(test)


@pytest.mark.parametrize("flags", STAMPS)
def test_out_of_order_lock_step(flags):
    """Any order, overlaps, duplicates, pieces beyond the window; the wrap of sequence numbers in the middle."""
    rng = random.Random(11)
    bench = Bench(seed=4)

    async def test(ctx):
        t = await twin(ctx, bench, rng, flags=flags, start=2**32 - 1500, rcv_wnd=2500)
        for _ in range(60):
            base = (t.model.rcv_nxt - t.start) & 0xFFFFFFFF
            # Where the room model says no, the layer would say no too: stay below it
            near = rng.choice([0, 0, 0, -5, rng.randrange(-400, 0), rng.randrange(0, 400), rng.randrange(2700), 2500])
            if len(t.model.held) > 4:
                near = min(near, 0)
            elif near > 400 and len(t.model.held) > 2:
                near = 20
            fields = {}
            if rng.random() < 0.1:
                fields = {"options": True}
            if rng.random() < 0.2:
                fields["ack"] = t.bench.installed[0]["snd_nxt"] + rng.choice([-5, 0, 1, 2**31 - 1])
            if flags and rng.random() < 0.3:
                fields["tsval"] = rng.choice([None, (t.model.ts_recent + rng.choice([-1, 0, 1, 2**31 - 1])) & 0xFFFFFFFF])
            await t.send(ctx, max(base + near, 0), rng.choice([0, 1, 7, 64, 300]), **fields)
        final = await bench.upload(ctx)
        model = t.model
        assert final == {"snd_una": model.snd_una, "snd_nxt": model.snd_nxt, "snd_wnd": model.snd_wnd,
                         "rcv_nxt": model.rcv_nxt, "rcv_wnd": model.rcv_wnd, "ts_recent": model.ts_recent}
        assert model.taken == t.stream[:len(model.taken)] and len(model.taken) > 2000
        for name in ("rx_held", "rx_released", "rx_trimmed", "rx_duplicate", "rx_beyond_window", "rx_bad_ack"):
            assert bench.counters[name] > 1, name

    bench.run(test)


def test_walks_that_take_part_and_park():
    """Prefixes, slots kept, parking and resuming; what was not taken comes again."""
    rng = random.Random(21)

    def policy(qp, piece):
        kind = rng.random()
        if kind < 0.4:
            return Walk(len(piece))
        if kind < 0.55:
            return Walk(len(piece), kept=True)
        if kind < 0.7:
            return Walk(rng.randrange(len(piece)))
        if kind < 0.75:
            return Walk(rng.randrange(len(piece)), kept=True)
        return Walk(rng.choice([0, 0, rng.randrange(len(piece)), len(piece)]), parked=True)

    bench = Bench(seed=5, policy=policy)

    async def test(ctx):
        t = await twin(ctx, bench, rng)
        for _ in range(70):
            base = t.model.rcv_nxt - t.start
            if (t.model.parked and rng.random() < 0.5) or len(t.model.held) > 3:
                await t.resume(ctx)
            else:
                near = 0 if len(t.model.held) > 3 else rng.choice([0, 0, rng.randrange(-50, 400)])
                await t.send(ctx, max(base + near, 0), rng.choice([1, 30, 200]))
        assert t.model.taken == t.stream[:len(t.model.taken)] and len(t.model.taken) > 1000

    bench.run(test)


def test_acks_wait_for_the_wire_and_merge():
    """No more than one ACK per QP waits, and it says the newest; the timestamp echoed is the first one's (case 48)."""
    bench = Bench(seed=6, stall=0.1)

    async def test(ctx):
        rng = random.Random(1)
        a, b = [await twin(ctx, bench, rng, qp) for qp in (0, 2)]
        bench.hold_acks = True
        for n in range(6):
            for t in (a, b):
                await bench.segment(ctx, t.qp, t.start + 100 * n, t.stream[100 * n:100 * n + 100], tsval=600 + n)
        await bench.settle(ctx)
        bench.hold_acks = False
        await bench.settle(ctx)
        frames = [ack_frame(bench.installed[qp], rcv_nxt=1000 + 100 * n, ts_recent=ts, now=0, vlan=False,
                            timestamps=True) for qp, n, ts in
                  # The first two were in the making when the wire stopped
                  ((0, 1, 600), (2, 1, 600), (0, 6, 601), (2, 6, 601))]
        assert len(bench.acks) <= 6 and bench.acks[0] == frames[0]
        assert set(frames[2:]) <= set(bench.acks[-2:]) | set(frames[:2])
        assert bench.acks[-1] in frames[2:] and bench.acks[-2] in frames[2:]
        assert bench.counters["tx_acks"] == len(bench.acks)

    bench.run(test)


def cut(rng, length, longest):
    """A stream's segments as a bad path delivers them: (at, length), everything at least once, in any order."""
    pieces, at = [], 0
    while at < length:
        pieces.append((at, min(rng.randint(1, longest), length - at)))
        at += pieces[-1][1]
    for n in range(len(pieces)):
        if rng.random() < 0.3:
            other = min(n + rng.randint(1, 3), len(pieces) - 1)
            pieces[n], pieces[other] = pieces[other], pieces[n]
    out = []
    for at, n in pieces:
        out.append((at, n))
        if rng.random() < 0.15:                  # again, cut otherwise
            back = rng.randint(0, min(at, 40))
            out.append((at - back, min(n + back + rng.randint(0, 20), length - at + back)))
    return out


@pytest.mark.parametrize("seed", [1, 2])
def test_three_streams_at_once(seed):
    """Whatever comes in whatever order, each octet is walked to its end once; what was dropped is sent again."""
    rng = random.Random(seed)
    parked = set()

    def policy(qp, piece):
        kind = rng.random()
        if kind < 0.1:
            parked.add(qp)
            return Walk(rng.randrange(len(piece)), parked=True)
        if kind < 0.3:
            return Walk(len(piece), kept=True)
        if kind < 0.4:
            return Walk(rng.randrange(len(piece) + 1))
        return Walk(len(piece))

    bench = Bench(seed=seed, stall=[0, 0.2, 0.5][seed % 3], policy=policy, keep=(1, 150))
    streams = {qp: rng.randbytes(900) for qp in (0, 1, 3)}
    done = []

    async def senders(ctx):
        for qp in streams:
            await bench.install(ctx, qp, rcv_nxt=(1000 - 700 * qp) & 0xFFFFFFFF, rcv_wnd=4000)
        for lap in range(20):
            work = [(qp, at, n) for qp in streams if len(bench.taken[qp]) < 900
                    for at, n in cut(rng, 900, 120) if at + n > len(bench.taken[qp])]
            queues = {qp: [w for w in work if w[0] == qp] for qp in streams}
            while any(queues.values()):
                qp = rng.choice([qp for qp in queues if queues[qp]])
                _, at, n = queues[qp].pop(0)
                await bench.segment(ctx, qp, 1000 - 700 * qp + at, streams[qp][at:at + n], tsval=600 + lap)
            await bench.settle(ctx, 100)
            if all(len(bench.taken[qp]) == 900 for qp in streams):
                break
        done.append(1)
        while parked:
            await ctx.tick()
        await bench.settle(ctx, 200)
        for qp, stream in streams.items():
            assert bench.taken[qp] == stream
            assert (await bench.upload(ctx, qp))["rcv_nxt"] == (1000 - 700 * qp + 900) & 0xFFFFFFFF
        await bench.settle(ctx)
        assert bench.slots_free(ctx) == CONFIG.slots
        for name in ("rx_held", "rx_released", "rx_refused", "rx_trimmed", "rx_held_dropped"):
            assert bench.counters[name], name
        said = {qp: [] for qp in streams}
        for frame in bench.acks:
            port, number = read_ack(frame)
            said[port - 4791].append(number)
        for qp, numbers in said.items():
            assert all(signed(b - a) >= 0 for a, b in pairwise(numbers))
            assert numbers[-1] == (1000 - 700 * qp + 900) & 0xFFFFFFFF

    async def resumer(ctx):
        while not done or parked:
            for _ in range(rng.randint(1, 60)):
                await ctx.tick()
            if parked:
                qp = rng.choice(sorted(parked))
                parked.discard(qp)
                await bench.resume(ctx, qp)

    bench.run(senders, resumer)
