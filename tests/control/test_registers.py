import random

from tests.control.harness import OP, Host, command
from tests.queues.harness import CONFIG, idle

from emplace import abi
from emplace.config import PROFILES
from emplace.control.registers import build_hash, capabilities
from emplace.stream.scrub import scrub_cycles


def test_identity_and_capabilities():
    host = Host()

    async def user(ctx):
        for name, value in capabilities(CONFIG).items():
            assert await host.read32(ctx, name) == value
            await host.write32(ctx, name, 0xFFFF_FFFF)
            assert await host.read32(ctx, name) == value
        assert await host.read32(ctx, "ID") == 0x454D504C
        assert await host.read32(ctx, "TICK") == 125_000
        assert await host.read32(ctx, "LEASE") == 2000
        assert ctx.get(host.dut.lease) == 2000
        assert await host.read(ctx, 0x900) == await host.read(ctx, 0x3000) == await host.read(ctx, 0x10008) == 0

    host.run(user)
    assert len({build_hash(config) for config in PROFILES.values()}) == len(PROFILES)
    caps = capabilities(PROFILES["default"])
    assert caps["CAPS_TABLES"] == 6 | 6 << 8 | 9 << 16 | 12 << 24
    assert caps["CAPS_QUEUES"] == 24 | 8 << 8 | 8 << 16 | 8 << 24
    assert caps["CAPS_LIMITS"] == 2048 | 16 << 16


def test_byte_masks():
    """Random partial writes to every read-write word, against bytes."""
    host = Host()
    rng = random.Random(3)
    golden = {abi.REGISTERS[name].offset: bytearray(8) for name in ("ADMIN_SQ_LO", "ADMIN_CQ_LO", "EVENT_LO")}

    async def user(ctx):
        for _ in range(60):
            address = rng.choice(list(golden))
            value, mask = rng.getrandbits(64), rng.getrandbits(8)
            await host.write(ctx, address, value, mask)
            for n in range(8):
                if mask >> n & 1:
                    golden[address][n] = value >> 8 * n & 0xFF
        await idle(ctx, 2)
        for address, content in golden.items():
            assert await host.read(ctx, address) == int.from_bytes(content, "little")
        assert ctx.get(host.dut.event_ring.base) == int.from_bytes(
            golden[abi.REGISTERS["EVENT_LO"].offset], "little") >> 12

    host.run(user)


def test_frame_registers():
    """Read back, byte by byte, and seen by frames; a buffer size out of range changes nothing."""
    host = Host()
    rng = random.Random(5)
    at = {name: abi.REGISTERS[name].offset for name in ("FRAME_RX_LO", "FRAME_RXC_LO", "MAC_LO", "FRAME_CONTROL")}

    async def user(ctx):
        dut = host.dut
        assert await host.read32(ctx, "FRAME_CONTROL") == 11 << 8
        assert not ctx.get(dut.frame_ring.enabled) and not ctx.get(dut.frame_settings.rx)
        golden = {name: bytearray(8) for name in ("FRAME_RX_LO", "FRAME_RXC_LO", "MAC_LO")}
        for _ in range(40):
            name = rng.choice(list(golden))
            value, mask = rng.getrandbits(64), rng.getrandbits(8)
            await host.write(ctx, at[name], value, mask)
            for n in range(8 if name != "MAC_LO" else 6):
                if mask >> n & 1:
                    golden[name][n] = value >> 8 * n & 0xFF
        await idle(ctx, 3)
        values = {name: int.from_bytes(content, "little") for name, content in golden.items()}
        for name, value in values.items():
            assert await host.read(ctx, at[name]) == value
        assert ctx.get(dut.frame_ring.base) == values["FRAME_RX_LO"] >> 12
        assert ctx.get(dut.frame_ring.completions) == values["FRAME_RXC_LO"] >> 12
        assert ctx.get(dut.frame_settings.mac) == values["MAC_LO"]
        size = 11
        for _ in range(40):
            bits, new, mask = rng.getrandbits(3), rng.choice([0, 7, 8, 12, 16, 17, 255]), rng.getrandbits(2)
            await host.write(ctx, at["FRAME_CONTROL"], bits | new << 8, mask)
            await idle(ctx, 3)
            if mask & 1:
                control = bits
                assert ctx.get(dut.frame_settings.rx) == bits & 1 and ctx.get(dut.frame_settings.split) == bits >> 1 & 1
                assert ctx.get(dut.frame_settings.promiscuous) == bits >> 2
                assert await host.read32(ctx, "FRAME_CONTROL") & 0xFF == control
            if mask & 2 and 8 <= new <= 16:
                size = new
            assert ctx.get(dut.frame_settings.buffer_log2) == size
            assert await host.read32(ctx, "FRAME_CONTROL") >> 8 == size
        for log2, good in ((0, False), (13, False), (1, True), (12, True), (1 << 31, False)):
            await host.write32(ctx, "FRAME_RX_PRODUCER", 77)
            before = await host.read32(ctx, "FRAME_RX_LOG2")
            await host.write32(ctx, "FRAME_RX_LOG2", log2)
            await ctx.tick()
            assert ctx.get(dut.frame_ring.restart) == good
            await idle(ctx, 2)
            assert not ctx.get(dut.frame_ring.restart)
            assert await host.read32(ctx, "FRAME_RX_LOG2") == (log2 if good else before)
            assert await host.read32(ctx, "FRAME_RX_PRODUCER") == (0 if good else 77) == ctx.get(dut.frame_ring.producer)
            assert ctx.get(dut.frame_ring.enabled) == (before != 0 or good)

    host.run(user)


def test_station():
    """The MAC's registers and EVENT_VECTOR, written byte by byte; what they do not have reads 0."""
    host = Host()
    rng = random.Random(4)
    words = {abi.REGISTERS["MAC_LO"].offset: 0x0000_FFFF_FFFF_FFFF, abi.REGISTERS["MAC_CONTROL"].offset: 0xFF_FFFF_0003}
    golden = dict.fromkeys(words, 0)

    async def user(ctx):
        for _ in range(60):
            address = rng.choice(list(words))
            value, mask = rng.getrandbits(64), rng.getrandbits(8)
            await host.write(ctx, address, value, mask)
            touched = sum(0xFF << 8 * n for n in range(8) if mask >> n & 1) & words[address]
            golden[address] = golden[address] & ~touched | value & touched
        await idle(ctx, 2)
        for address, value in golden.items():
            assert await host.read(ctx, address) == value
        control = golden[abi.REGISTERS["MAC_CONTROL"].offset]
        assert ctx.get(host.dut.station) == golden[abi.REGISTERS["MAC_LO"].offset]
        mac = ctx.get(host.dut.mac)
        assert (mac.rx_pause, mac.tx_pause, mac.quanta) == (control & abi.MacControl.RX_PAUSE,
                                                            (control & abi.MacControl.TX_PAUSE) >> 1,
                                                            control >> 16 & 0xFFFF)
        assert ctx.get(host.dut.event_vector) == control >> 32

    host.run(user)


def test_rings_refuse_sizes_out_of_range():
    host = Host()

    async def user(ctx):
        assert not ctx.get(host.dut.event_ring.enabled)
        await host.write32(ctx, "EVENT_LOG2", 13)
        await host.write32(ctx, "ADMIN_LOG2", 9)
        await host.write32(ctx, "ADMIN_LOG2", 0x100)
        await host.write32(ctx, "ADMIN_DOORBELL", 1)
        await idle(ctx, 20)
        assert not ctx.get(host.dut.event_ring.enabled) and host.memory.reads == []
        await host.write32(ctx, "EVENT_LOG2", 12)
        await host.write32(ctx, "EVENT_CONSUMER", 0xABCD)
        await idle(ctx, 2)
        ring = ctx.get(host.dut.event_ring)
        assert (ring.enabled, ring.log2, ring.consumer) == (1, 12, 0xABCD)
        await host.write32(ctx, "EVENT_LOG2", 3)
        assert await host.read(ctx, abi.REGISTERS["EVENT_LOG2"].offset) == 3     # consumer 0 again

    host.run(user)


def test_guard_ranges_lock_until_reset():
    host = Host()
    words = [abi.GUARD_RANGE + 8 * n for n in range(2 * CONFIG.guard_ranges)]

    async def user(ctx):
        for n, address in enumerate(words):
            await host.write(ctx, address, 0x1234_5678_9ABC_DFFF + (n << 12))
        await host.write(ctx, abi.GUARD_RANGE, 0, 0x0F)                    # half of a word
        await idle(ctx, 2)
        ranges = ctx.get(host.dut.guard_ranges)
        assert ranges[0].first == 0x1234_5678_0000_0
        assert ranges[1].end == 0x1234_5678_9ABC_D + 3
        assert await host.read(ctx, words[1]) == 0x1234_5678_9ABC_D000 + 0x1000
        await host.write32(ctx, "GUARD_LOCK", 0)
        assert await host.read32(ctx, "GUARD_LOCK") == 0
        await host.write32(ctx, "GUARD_LOCK", 1)
        before = ctx.get(host.dut.guard_ranges).as_bits()
        await host.write32(ctx, "GUARD_LOCK", 0)
        for address in words:
            await host.write(ctx, address, 0)
        await idle(ctx, 3)
        assert await host.read32(ctx, "GUARD_LOCK") == 1
        assert ctx.get(host.dut.guard_ranges).as_bits() == before

    host.run(user)


def test_no_write_slips_in_behind_the_lock():
    """Lock and range in neighbouring cycles."""
    host = Host()

    async def user(ctx):
        await host.write(ctx, abi.GUARD_RANGE, 0x5000)
        await host.write32(ctx, "GUARD_LOCK", 1)
        await host.write(ctx, abi.GUARD_RANGE, 0x9000)
        await idle(ctx, 3)
        assert ctx.get(host.dut.guard_ranges)[0].first == 5

    host.run(user)


def test_doorbell_pages():
    """Kind and context come from the address alone; a write that isn't whole is one for no queue."""
    host = Host()
    rng = random.Random(6)
    expected = []

    async def user(ctx):
        for _ in range(60):
            context = rng.randrange(CONFIG.user_contexts + 3)
            offset = rng.choice([0, 8, 16, 24, 24, 32, 2048, 4088])
            number, value = rng.getrandbits(32), rng.getrandbits(32)
            mask = rng.choice([0xFF, 0xFF, 0x0F, 0xFE])
            await host.write(ctx, abi.DOORBELL_PAGE + 4096 * context + offset, number | value << 32, mask)
            if context < CONFIG.user_contexts and offset < 32:
                expected.append((offset // 8, context, number if mask == 0xFF else 0xFFFF_FFFF, value))
        await host.write(ctx, 0x0008, 5)                                   # not a doorbell
        await idle(ctx, 4)

    host.run(user)
    assert host.doorbells == expected and len(expected) > 15


def test_now_counts_ticks():
    host = Host()

    async def user(ctx):
        for tick in (5, 2, 1, 0, 7):
            await host.write32(ctx, "TICK", tick)
            await idle(ctx, 12)
            start, seen = ctx.get(host.dut.now), []
            for _ in range(70):
                await ctx.tick()
                seen.append(ctx.get(host.dut.now))
            steps = [b - a for a, b in zip([start, *seen], seen)]
            assert set(steps) <= {0, 1}
            assert abs(sum(steps) - 70 / max(tick, 1)) <= 1
        now = await host.read32(ctx, "NOW")
        assert 0 <= ctx.get(host.dut.now) - now <= 4

    host.run(user)


def test_counters_are_read_in_pairs():
    host = Host()
    n = len(abi.COUNTERS)
    rng = random.Random(8)
    golden = [0] * n

    async def user(ctx):
        for cycle in range(450):
            strobes = rng.getrandbits(n) & rng.getrandbits(n)
            if cycle % 3:                              # as often as any counter takes them
                strobes = 0
            ctx.set(host.dut.counts, strobes)
            golden[:] = [c + (strobes >> i & 1) for i, c in enumerate(golden)]
            await ctx.tick()
        ctx.set(host.dut.counts, 0)
        await idle(ctx, n + 20)
        for pair in range((n + 1) // 2):
            raw = await host.read(ctx, abi.COUNTER_PAGE + 8 * pair)
            assert [raw & 0xFFFF_FFFF, raw >> 32][:n - 2 * pair] == golden[2 * pair:2 * pair + 2]
        assert await host.read(ctx, abi.COUNTER_PAGE + 8 * ((n + 1) // 2)) == 0

    host.run(user)


def test_sample_page():
    """Words of the sample memory, in its page alone."""
    host = Host()

    async def memory(ctx):
        word = 0
        while True:
            ctx.set(host.dut.sample, word * 0x1_0000_0001 ^ 0xA5A5)
            word = ctx.get(host.dut.sample_word)
            await ctx.tick()

    async def user(ctx):
        for word in (0, 1, 77, 511):
            assert await host.read(ctx, abi.SAMPLE_PAGE + 8 * word) == word * 0x1_0000_0001 ^ 0xA5A5
        assert await host.read(ctx, abi.SAMPLE_PAGE + 4096) == 0
        assert await host.read(ctx, abi.COUNTER_PAGE) == 0

    host.run(user, background=[memory])


def test_nothing_happens_before_the_tables_are_clear():
    """Behind a reset: doorbells are passed on as ones for no queue, commands stay where they are; registers answer."""
    host = Host(stall=0.0)
    cycle = 0

    async def clock(ctx):
        nonlocal cycle
        while True:
            await ctx.tick()
            cycle += 1

    async def user(ctx):
        await host.start(ctx)
        await host.submit(ctx, command(OP.NOP))
        assert await host.read32(ctx, "ID") == 0x454D504C
        while cycle < scrub_cycles(CONFIG) - 1:
            await host.write(ctx, abi.DOORBELL_PAGE + abi.Doorbell.RQ, 1 | 1 << 32)
        early = len(host.doorbells)
        assert host.memory.reads == [] and host.doorbells == [(1, 0, 0xFFFF_FFFF, 1)] * early and early > 10
        await idle(ctx, 5)
        await host.write(ctx, abi.DOORBELL_PAGE + abi.Doorbell.RQ, 1 | 1 << 32)
        while not host.completions:
            await ctx.tick()
        assert host.doorbells[-1] == (1, 0, 1, 1)

    host.run(user, background=[clock], settle=0, cycles=1000)
