"""The write path: commands and payload packets to MWr TLPs."""

import random

import pytest
from tests.dma.harness import Memory, TlpSink, get, put, put_packet, simulate

from emplace.config import PROFILES
from emplace.dma.records import WriteKind
from emplace.dma.write import Writer


class Plan:
    """Commands, packets, and what memory must hold afterwards. ``short`` lists writes that lack bytes."""

    def __init__(self, seed, *, limit=128, high=0.3):
        self.rng = random.Random(seed)
        self.commands, self.packets, self.memory = [], [], Memory()
        self.plain = []                  # of the second source: (command, packet)
        self.limit, self.high, self.tokens = limit, high, 0

    def address(self, length):
        rng = self.rng
        base = rng.choice([0x1000_0000, 0xFFFF_F000 - 8192]) if rng.random() >= self.high else rng.choice(
            [1 << 32, 0xFF_FFFF_F000, (0x3FFFFFF << 12), 0xFFFF_FFFF_FFF0_0000])
        kind = rng.random()
        if kind < 0.3:
            return base + 4096 * rng.randrange(3) + 4096 - rng.randrange(length + 8)      # around a page's end
        return base + rng.randrange(8192)

    def packet(self, payloads, *, skip=0, tail=0):
        """One packet, written by a PAYLOAD for each of ``payloads``: (address, length)."""
        rng = self.rng
        body = rng.randbytes(sum(length for _, length in payloads))
        self.packets.append(rng.randbytes(skip) + body + rng.randbytes(tail))
        close = rng.random() < 0.3       # by a DISCARD of its own
        for n, (address, length) in enumerate(payloads):
            final = n == len(payloads) - 1 and not close
            self.command(WriteKind.PAYLOAD, address=address, length=length, skip=skip if n == 0 else 0, final=final)
            self.memory.store(address, body[:length])
            body = body[length:]
        if close:
            self.command(WriteKind.DISCARD)

    def inline(self, address, data):
        self.command(WriteKind.INLINE, address=address, length=len(data),
                     data=int.from_bytes(data.ljust(64, b"\x55"), "little"))
        self.memory.store(address, data)

    def token(self):
        self.tokens += 1
        # Only its token means something: what else is there may be of the command before.
        self.command(WriteKind.TOKEN, token={"op": 0, "qp": self.tokens % 16}, address=self.rng.getrandbits(64),
                     length=self.rng.randrange(2048))

    def command(self, kind, **fields):
        self.commands.append({"kind": kind, "token": {"op": 0, "qp": 0}, "address": 0, "length": 0, "skip": 0,
                              "final": 0, "data": 0, **fields})

    def plainly(self, address, data, *, skip=0):
        """A write of the second source."""
        self.plain.append(({"address": address, "length": len(data), "skip": skip}, self.rng.randbytes(skip) + data))
        self.memory.store(address, data)

    def random(self, count, longest=300):
        rng = self.rng
        for _ in range(count):
            kind = rng.random()
            if kind < 0.2:
                length = rng.choice([64, 16, rng.randint(1, 64)])
                self.inline(self.address(length) & ~3, rng.randbytes(length))
            elif kind < 0.3:
                self.token()
            elif kind < 0.4:
                self.packets.append(rng.randbytes(rng.randint(1, 40)))
                self.command(WriteKind.DISCARD)
            else:
                lengths = [rng.choice([1, rng.randint(1, 16), rng.randint(1, longest)])
                           for _ in range(rng.choice([1, 1, 2, 4]))]
                self.packet([(self.address(length), length) for length in lengths],
                            skip=rng.choice([0, 14, 16, 18, rng.randrange(64)]), tail=rng.choice([0, 0, 4, rng.randrange(20)]))
        return self


def run(plan, config, *, limit=0, idle=0.0, stall=0.0, enable=1, cycles=20000, check=True):
    dut = Writer(config)
    sink = TlpSink(dut.o, seed=1, stall=stall)
    memory, tokens, seen, spoiled = Memory(), [], [], []
    rng, plain_rng = random.Random(7), random.Random(8)

    def arrived(packet, err):
        if err:
            spoiled.append(packet)
        else:
            memory.take(packet, 128 << limit)
        seen.append(len(memory))
    sink.arrived = arrived

    async def commands(ctx):
        ctx.set(dut.enable, enable)
        ctx.set(dut.max_payload, limit)
        for command in plan.commands:
            await put(ctx, dut.commands, command, rng=rng, idle=idle)
        await drain(ctx)

    async def packets(ctx):
        for packet in plan.packets:
            await put_packet(ctx, dut.packets, packet, rng=rng, idle=idle)
        await drain(ctx)

    async def plain_commands(ctx):
        for command, _ in plan.plain:
            await put(ctx, dut.plain[0], command, rng=plain_rng, idle=idle)
        await drain(ctx)

    async def plain_packets(ctx):
        for _, packet in plan.plain:
            await put_packet(ctx, dut.plain_packets[0], packet, rng=plain_rng, idle=idle)
        await drain(ctx)

    async def drain(ctx):
        for _ in range(60 if stall == 0 else 400):
            await ctx.tick()

    async def posted(ctx):
        # Stands for the guard: tells of each TLP some cycles after it has passed.
        late, told = [], 0
        while True:
            now = len(sink.packets)
            late.append(now)
            behind = late.pop(0) if len(late) > 5 else 0
            ctx.set(dut.posted, behind > told)
            told += behind > told
            await ctx.tick()

    async def token(ctx):
        while True:
            got = await get(ctx, dut.token, rng=rng, stall=stall)
            tokens.append((int(got.qp), len(sink.packets)))
    benches = [commands, packets] + ([plain_commands, plain_packets] if plan.plain else [])
    simulate(dut, *benches, background=[sink.run, posted, token], cycles=cycles)
    if check:
        assert memory == plan.memory
        assert not spoiled
    assert [qp for qp, _ in tokens] == [n % 16 for n in range(1, plan.tokens + 1)]
    return sink, memory, spoiled, tokens


@pytest.mark.parametrize("profile", ["tiny", "default"])
@pytest.mark.parametrize("idle, stall, limit", [(0, 0, 0), (0.3, 0, 1), (0, 0.4, 0), (0.3, 0.3, 2), (0, 0, 7)])
def test_random(profile, idle, stall, limit):
    plan = Plan(f"{idle}{stall}{limit}").random(40, longest=600)
    run(plan, PROFILES[profile], idle=idle, stall=stall, limit=min(limit, 5))


@pytest.mark.parametrize("profile", ["tiny", "default"])
@pytest.mark.parametrize("idle, stall", [(0, 0), (0.4, 0), (0, 0.4), (0.3, 0.3)])
def test_two_sources(profile, idle, stall):
    """Both sources' writes land whole, whatever the other one is in the middle of."""
    plan = Plan(f"two {idle}{stall}").random(40, longest=200)
    for n in range(40):
        plan.plainly(0x7000_0000 + 1024 * n + plan.rng.randrange(200), plan.rng.randbytes(plan.rng.choice([1, 8, 32, 300])),
                     skip=plan.rng.randrange(8))
    sink, *_ = run(plan, PROFILES[profile], idle=idle, stall=stall)
    plain = [0x7000_0000 <= int.from_bytes(packet[8:12], "big") < 0x7100_0000 for packet, _ in sink.packets]
    assert any(plain[:8]) and any(not p for p in plain[:8]), "one of them waits for the other's end"


@pytest.mark.parametrize("busy", ["queues", "plain"])
def test_sources_take_turns(busy):
    """While one source never pauses, the other's only write comes at once."""
    plan = Plan(3)
    for n in range(20):
        plan.inline(0x1000_0000 + 64 * n, bytes([n] * 64))
        plan.plainly(0x7000_0000 + 64 * n, bytes([n] * 64))
    if busy == "queues":
        plan.plain = plan.plain[:1]
    else:
        plan.commands = plan.commands[:1]
    plan.memory = Memory()
    sink, *_ = run(plan, PROFILES["default"], check=False)
    found = [n for n, (packet, _) in enumerate(sink.packets) if (packet[8] == 0x70) == (busy == "queues")]
    assert len(sink.packets) == 21 and len(found) == 1 and found[0] <= 1


def test_nothing_comes_within_a_packet():
    """Writes of one packet, an inline one among them, stay together though the other source waits all the time."""
    plan = Plan(4)
    for n in range(6):
        base = 0x1000_0000 + 4096 * n
        body = plan.rng.randbytes(90)
        plan.packets.append(body)
        for k in range(3):
            plan.command(WriteKind.PAYLOAD, address=base + 40 * k, length=30)
            plan.memory.store(base + 40 * k, body[30 * k:30 * k + 30])
        plan.inline(base + 1024, plan.rng.randbytes(32))
        plan.command(WriteKind.DISCARD)
        plan.plainly(0x7000_0000 + 64 * n, plan.rng.randbytes(40))
    sink, *_ = run(plan, PROFILES["default"])
    order = "".join("p" if packet[8] == 0x70 else "q" for packet, _ in sink.packets)
    assert order.replace("p", "").count("q") == 24 and "qqqqpqqqqp" in order and "pp" not in order


def steady(config, limit, packets, payload, skip, address):
    """Cycles per packet in the middle of a run of equal ones."""
    plan = Plan(0)
    for n in range(packets):
        plan.packet([(address + n * payload, payload)], skip=skip)
    plan.commands = [c for c in plan.commands if c["kind"] is not WriteKind.DISCARD]
    for c in plan.commands:
        c["final"] = 1
    sink, *_ = run(plan, config, limit=limit)
    ends = []
    done = Memory()
    for (packet, _), end in zip(sink.packets, sink.ends, strict=True):
        done.take(packet, 4096)
        if len(done) % payload == 0:
            ends.append(end)
    return (ends[-1] - ends[1]) / (len(ends) - 2)


@pytest.mark.parametrize("address", [0x1000_0000, 0x2_0000_0003, 0x1234_567C])
def test_throughput(address):
    """A 1,444-byte packet with 16 bytes of header in at most 192 cycles, a 64-byte write in 11 (words of 16 bytes)."""
    config = PROFILES["default"]
    assert steady(config, 1, 5, 1428, 16, address) <= 187
    assert steady(config, 1, 12, 64, 16, address) <= 11


def test_throughput_narrow():
    """With words of 8 bytes the port is the limit: payload plus header."""
    assert steady(PROFILES["tiny"], 1, 5, 1428, 16, 0x1000_0000) <= 193


@pytest.mark.parametrize("profile", ["tiny", "default"])
def test_short_packet(profile):
    """A packet that ends before its command does: nothing is made up, nothing hangs, what follows is whole."""
    for lack in (1, 7, 8, 40, 300):
        plan = Plan(lack)
        rng = plan.rng
        body = rng.randbytes(400)
        plan.packets.append(rng.randbytes(14) + body[:400 - lack])
        plan.command(WriteKind.PAYLOAD, address=0x1001, length=200, skip=14)
        plan.command(WriteKind.PAYLOAD, address=0x3003, length=200)
        plan.command(WriteKind.PAYLOAD, address=0x5003, length=10, final=1)
        plan.packet([(0x9000, 100)], skip=3)
        plan.inline(0xA000, bytes(range(64)))
        plan.token()
        _, memory, _, tokens = run(plan, PROFILES[profile], check=False, stall=0.2)
        wanted = {**plan.memory, **{at + n: byte for at, part in ((0x1001, body[:200]), (0x3003, body[200:]))
                                    for n, byte in enumerate(part)}}
        assert all(wanted.get(at) == byte for at, byte in memory.items())
        assert all(memory.get(at) == byte for at, byte in plan.memory.items())
        assert not any(0x5000 <= at < 0x6000 for at in memory)
        assert 0x3003 + 200 - lack not in memory
        assert len(tokens) == 1


@pytest.mark.parametrize("profile", ["tiny", "default"])
def test_no_bus_master(profile):
    """Writes are thrown away; tokens pass all the same."""
    plan = Plan(5).random(20)
    sink, *_ = run(plan, PROFILES[profile], enable=0, check=False)
    assert sink.packets == []


@pytest.mark.parametrize("stall", [0, 0.5])
def test_token_is_last(stall):
    """A token comes only when the TLPs before it have been posted, and doesn't hold up those behind it."""
    plan = Plan(9)
    for _ in range(6):
        plan.packet([(plan.address(300), 300)], skip=16)
        plan.token()
    _, _, _, tokens = run(plan, PROFILES["default"], stall=stall)
    # TLPs of each write, from the plan
    ends, total = [], 0
    for command in plan.commands:
        if command["kind"] is WriteKind.PAYLOAD:
            total += (command["address"] + 299) // 128 - command["address"] // 128 + 1
        elif command["kind"] is WriteKind.TOKEN:
            ends.append(total)
    assert all(seen >= want for (_, seen), want in zip(tokens, ends, strict=True))
