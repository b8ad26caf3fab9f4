"""Received frames to host memory."""

import random

import pytest
from tests.frames.harness import BROADCAST, CONFIG, MAC, Bench, Frame, expect

from emplace.abi import FrameReason

MINE = MAC.to_bytes(6, "big")


def some(rng, count, *, longest=700, sizes=None):
    """Frames for the host, with headers of all kinds, and others between them."""
    frames = []
    for _ in range(count):
        size = rng.choice(sizes) if sizes else rng.choice([60, rng.randint(60, 80), rng.randint(60, longest)])
        header = rng.choice([0, 54, rng.randrange(54, 99, 4), 60])
        frames.append(Frame(rng.choice([MINE, BROADCAST, b"\1\0\x5e" + rng.randbytes(3)]) + rng.randbytes(size - 6),
                            keep=rng.random() < 0.7, reason=rng.randrange(1, 10), flags=rng.randrange(16),
                            header=min(header, size), err=rng.random() < 0.1, after=rng.randint(4, 10),
                            gap=rng.choice([2, 3, rng.randrange(2, 60)])))
    return frames


def wanted(frames):
    return [f for f in frames if f.keep and not f.err]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("stall, buffer_log2", [(0, 8), (0.4, 8), (0.2, 11)])
def test_random(split, stall, buffer_log2):
    rng = random.Random(f"{split}{stall}{buffer_log2}")
    frames = some(rng, 40)
    for frame in frames:
        frame.gap += 150 if stall else 30
    bench = Bench(split=split, stall=stall, buffer_log2=buffer_log2, log2=8)
    run = bench.go(frames)
    expect(bench, wanted(frames))
    assert run.counts == {"rx_frames_host": len(wanted(frames))}


@pytest.mark.parametrize("split", [False, True])
def test_every_length(split):
    """Around buffers' and words' ends, with a header that ends anywhere."""
    rng = random.Random(3)
    frames = [Frame(MINE + rng.randbytes(n - 6), header=h, gap=120)
              for n, h in [(60, 60), (60, 54), (61, 58), (62, 0), (255, 0), (256, 0), (257, 0), (511, 54), (512, 54),
                           (54 + 256, 54), (54 + 257, 54), (98 + 511, 98), (66 + 512, 66), (66 + 513, 66), (769, 0)]]
    bench = Bench(split=split, log2=6)
    bench.go(frames)
    expect(bench, frames)


def test_longest_over_many_buffers():
    """Frames of the MAC's limit, in eight buffers of 256 bytes each, at every alignment of the payload."""
    rng = random.Random(4)
    frames = [Frame(MINE + rng.randbytes(1990 + n - 6), header=54 + 4 * n, gap=700) for n in range(7)]
    bench = Bench(split=True, log2=6)
    bench.go(frames)
    assert expect(bench, frames) == 7 * 8


def test_line_rate_that_is_not_ours():
    """Others' frames one behind the other, with the shortest gap, cost the host's frames no room."""
    rng = random.Random(5)
    frames = []
    for n in range(60):
        frames.append(Frame(MINE + rng.randbytes(rng.choice([54, 1440]) if n % 3 else 54), keep=False, gap=2,
                            after=rng.randint(4, 10)))
        if n % 10 == 0:
            frames.append(Frame(MINE + rng.randbytes(200), gap=2, after=rng.randint(4, 10)))
    bench = Bench(log2=6)
    run = bench.go(frames)
    expect(bench, wanted(frames))
    assert run.counts == {"rx_frames_host": 6}


def test_full_memory_drops_whole_frames():
    """While the bus does not take anything, frames are kept up to the memory's size; then whole ones are dropped."""
    rng = random.Random(6)
    frames = [Frame(MINE + rng.randbytes(494), gap=4) for _ in range(16)]
    later = [Frame(MINE + rng.randbytes(100), gap=30) for _ in range(3)]
    bench = Bench(log2=6, buffer_log2=9)
    bench.blocked = True

    async def unblock(ctx, bench):
        bench.blocked = False
        for _ in range(1500):
            await ctx.tick()
    run = bench.go([*frames, unblock, *later])
    kept = len(run.completions) - len(later)
    room = CONFIG.frame_words // (1 + 63)
    assert room - 1 <= kept <= room + 1
    expect(bench, frames[:kept] + later)
    assert run.counts == {"rx_frames_host": kept + 3, "rx_frames_no_room": 16 - kept}


def test_others_frames_in_a_full_memory():
    """What is not for the host is not counted as dropped for want of room; nor a frame with a bad FCS."""
    rng = random.Random(7)
    frames = [Frame(MINE + rng.randbytes(494), gap=4, keep=n % 2 == 0, err=n % 4 == 3) for n in range(32)]
    bench = Bench(log2=6, buffer_log2=9)
    bench.blocked = True

    async def unblock(ctx, bench):
        bench.blocked = False
    run = bench.go([*frames, unblock], drain=3000)
    assert run.counts["rx_frames_host"] + run.counts["rx_frames_no_room"] == 16
    expect(bench, wanted(frames)[:len(run.completions)])


def test_ring_wraps():
    """Rings of every small size, with indices past their ends."""
    for log2 in (1, 2, 3):
        rng = random.Random(log2)
        frames = []
        bench = Bench(log2=log2, seed=log2, split=True)

        async def post(ctx, bench):
            for _ in range(100):
                await ctx.tick()
            await bench.post(ctx, 1)
        for _ in range(21):
            frames.append(Frame(MINE + rng.randbytes(90), header=54, gap=70))
        script = [x for f in frames for x in (f, post)]
        bench.go(script)
        expect(bench, frames)
        assert all(length <= 16 << log2 for _, length in bench.run_.reads)


@pytest.mark.parametrize("log2", [1, 2, 3])
def test_no_read_across_the_rings_end(log2):
    """A full ring posted at once from an index within it: read in two goes."""
    rng = random.Random(log2)
    frames = [Frame(MINE + rng.randbytes(90), gap=200) for _ in range(1 + (2 << log2))]
    bench = Bench(log2=log2)

    async def fill(ctx, bench):
        await bench.post(ctx, 1 << log2)
        for _ in range(200):
            await ctx.tick()
    size = 1 << log2
    bench.go([frames[0], fill, *frames[1:1 + size], fill, *frames[1 + size:]], posted=1)
    expect(bench, frames)


def test_index_wraps_at_16_bits():
    """Descriptors are numbered modulo 2**16; producer indices that wrap are nothing special."""
    frames = [Frame(MINE + bytes(54), gap=25) for _ in range(300)]
    bench = Bench(log2=8)
    bench.descriptor(300)

    async def refill(ctx, bench):
        await bench.post(ctx, 100)
    run = bench.go([*frames[:150], refill, *frames[150:]], cycles=60000)
    assert len(run.completions) == 300 and run.completions[-1]["descriptor"] == 299


def test_no_descriptors():
    """No buffer: dropped and counted, the next frame with a buffer arrives."""
    rng = random.Random(9)
    frames = [Frame(MINE + rng.randbytes(200), gap=60) for _ in range(5)]
    late = [Frame(MINE + rng.randbytes(200), gap=60) for _ in range(2)]

    async def post(ctx, bench):
        for _ in range(200):
            await ctx.tick()
        await bench.post(ctx, 2)
        for _ in range(100):
            await ctx.tick()
    bench = Bench()
    run = bench.go([*frames, post, *late, frames[0]], posted=0)
    expect(bench, late)
    assert run.counts == {"rx_frames_host": 2, "rx_frame_no_buffer": 6}


def test_ring_never_set_up():
    bench = Bench()
    bench.enabled = 0
    run = bench.go([Frame(MINE + bytes(60), gap=60) for _ in range(3)])
    assert run.counts == {"rx_frame_no_buffer": 3} and not run.reads and not run.completions


def test_too_few_descriptors():
    """A frame that needs more buffers than are posted is dropped before anything is written; shorter ones use them."""
    rng = random.Random(10)
    long, short = Frame(MINE + rng.randbytes(600), gap=200), Frame(MINE + rng.randbytes(400), gap=200)
    bench = Bench()
    run = bench.go([long, short, long], posted=2)
    expect(bench, [short])
    assert run.counts == {"rx_frames_host": 1, "rx_frame_no_buffer": 2}


def test_just_enough_descriptors():
    """A frame that fills its buffers to the last byte needs no more of them."""
    for split, header, length in ((False, 0, 512), (True, 54, 54 + 512), (True, 66, 66)):
        frame = Frame(MINE + bytes(range(250)) * 3, header=header)
        frame.data = frame.data[:length]
        bench = Bench(split=split)
        bench.go([frame], posted=max(1, (length - header * split) // 256))
        expect(bench, [frame])


def test_producer_claims_too_much():
    """More descriptors than the ring has: none is read."""
    bench = Bench(log2=2)
    run = bench.go([Frame(MINE + bytes(60), gap=100)] * 3, posted=5)
    assert run.counts == {"rx_frame_no_buffer": 3} and not run.reads


def test_descriptors_that_cannot_be_read():
    """A failed read costs the frames that it would have served, one a descriptor; the next ones arrive."""
    rng = random.Random(11)
    frames = [Frame(MINE + rng.randbytes(100), gap=200) for _ in range(8)]
    bench = Bench(errors=[1], log2=3)
    run = bench.go(frames)
    assert run.counts == {"rx_frames_host": 4, "rx_frame_bus_error": 4}
    assert [c["descriptor"] for c in run.completions] == [4, 5, 6, 7]
    for number, frame in enumerate(frames[4:], 4):
        at = bench.descriptor(number)[1]
        assert bytes(run.memory[at + n] for n in range(106)) == frame.data


def test_descriptor_lost_in_a_frame():
    """The second batch fails while a frame is half written: it ends there, TRUNCATED; the rest goes on."""
    rng = random.Random(12)
    first, second, third = (Frame(MINE + rng.randbytes(n), gap=500) for n in (500, 1000, 100))
    bench = Bench(errors=[4], log2=4)
    run = bench.go([first, second, third, third, third, third])
    assert [(c["descriptor"], c["buffers"], c["flags"], c["length"]) for c in run.completions] == [
        (0, 2, 0, 506), (2, 2, 32, 1006), (8, 1, 0, 106)]
    # 4 truncates, 5, 6 and 7 cost a frame each
    assert run.counts == {"rx_frames_host": 3, "rx_frame_bus_error": 4}
    at = bench.descriptor(2)[1], bench.descriptor(3)[1]
    assert bytes(run.memory[a + n] for a in at for n in range(256)) == second.data[:512]


@pytest.mark.parametrize("promiscuous", [False, True])
def test_mac_filter(promiscuous):
    other = [(MAC ^ 1 << bit).to_bytes(6, "big") for bit in range(48) if bit != 40]      # bit 40 says multicast
    mine = [MINE, BROADCAST, b"\1\2\3\4\5\6", b"\x33\x33\0\0\0\1"]
    frames = [Frame(mac + bytes([n] * 54), gap=30) for n, mac in enumerate([*other, *mine])]
    bench = Bench(promiscuous=promiscuous, log2=6)
    run = bench.go(frames)
    expect(bench, frames if promiscuous else frames[47:])
    assert run.counts.get("rx_frames_filtered", 0) == (0 if promiscuous else 47)


def test_off():
    bench = Bench(rx=False)
    run = bench.go([Frame(MINE + bytes(54)), Frame(b"\2" * 60), Frame(MINE + bytes(54), keep=False)])
    assert run.counts == {"rx_frames_off": 2} and not run.completions


def test_restart():
    """The rings begin anew: descriptor and completion 0, first lap; what was posted or fetched before is forgotten."""
    rng = random.Random(13)
    frames = [Frame(MINE + rng.randbytes(100), gap=100) for _ in range(6)]
    bench = Bench(log2=3)

    async def restart(ctx, bench):
        for _ in range(100):
            await ctx.tick()
        assert len(bench.run_.completions) == 3
        bench.run_.completions.clear()
        bench.run_.memory.clear()
        await bench.restart(ctx, log2=2)
        for _ in range(200):
            await ctx.tick()
        await bench.post(ctx, 4)
        for _ in range(100):
            await ctx.tick()
    bench.go([*frames[:3], restart, *frames[3:]])
    expect(bench, frames[3:])


@pytest.mark.parametrize("delay", [0, 3, 9, 17, 30, 46, 60])
def test_restart_at_any_time(delay):
    """Within a descriptor read, a frame, or between: it goes on with the new rings."""
    rng = random.Random(14)
    frames = [Frame(MINE + rng.randbytes(400), gap=300) for _ in range(4)]
    bench = Bench(log2=4, seed=delay, latency=(20, 60))

    async def restart(ctx, bench):
        for _ in range(delay):
            await ctx.tick()
        await bench.restart(ctx)
        for _ in range(400):
            await ctx.tick()
        bench.run_.completions.clear()
        bench.run_.memory.clear()
        await bench.post(ctx, 16)
        for _ in range(100):
            await ctx.tick()
    frames[0].gap = 0
    bench.go([frames[0], restart, *frames[1:]])
    expect(bench, frames[1:])


def test_restart_stops_reads():
    """From the restart on no read begins that was due before, at whatever time it comes."""
    bench = Bench(log2=4, latency=(3, 6))
    bench.strict = False

    async def restarts(ctx, bench):
        for delay in range(24):
            await bench.restart(ctx, log2=4)
            for _ in range(60):
                await ctx.tick()
            await bench.post(ctx, 16)
            for _ in range(delay):
                await ctx.tick()
            await bench.restart(ctx, log2=4)
            await ctx.tick()
            begun = len(bench.run_.reads)
            for _ in range(60):
                await ctx.tick()
            assert len(bench.run_.reads) == begun, f"{delay} cycles behind the descriptors"
    bench.go([restarts], posted=0)
    assert len(bench.run_.reads) > 12


def held(qp, n, **more):
    return Frame(MINE + bytes([n] * 60), reason=FrameReason.HELD, qp=qp, gap=20, **more)


def mark(qp, *, fresh=False, qpn=0):
    return Frame(None, qp=qp, fresh=fresh, qpn=qpn)


async def settle(ctx, bench):
    for _ in range(300):
        await ctx.tick()


@pytest.mark.parametrize("stall", [0, 0.3])
def test_marks(stall):
    """A mark says which completion was the QP's last: of that QP alone, since it was new, and not before it is sure."""
    bench = Bench(log2=5, stall=stall)
    names = {1: 0xABC1, 2: 0xABC2, 15: 0xFFFFFF}
    plain = Frame(MINE + bytes(60), gap=20, qp=1)        # whose `qp` means nothing
    frames = [held(1, 1), plain, held(2, 2), held(1, 3), held(15, 4), held(1, 5)]
    script = [*(mark(qp, fresh=True, qpn=name) for qp, name in names.items()), settle, mark(1), settle,
              *frames[:2], mark(1), settle, *frames[2:4], mark(1), mark(2), mark(15), settle, *frames[4:], plain, mark(15),
              mark(1), settle, mark(1, fresh=True, qpn=5), mark(1), mark(2)]
    run = bench.go(script, drain=2500)
    expect(bench, [*frames, plain], names=names)
    assert [(any_, index if any_ else None) for any_, index in run.reached] == [(0, None)] * 4 + [
        (1, 0), (1, 3), (1, 2), (0, None), (1, 4), (1, 5), (0, None), (0, None), (1, 2)]
    # A mark is answered behind the completions in front of it.
    assert [done for _, done in run.order][4:10] == [2, 4, 4, 4, 7, 7]


def test_mark_among_arriving_words():
    """At whatever word of the next frame a mark comes: it is answered, and the frames are whole."""
    rng = random.Random(15)
    for delay in range(0, 24, 3):
        frames = [held(3, n, after=7) for n in range(3)]
        long = Frame(MINE + rng.randbytes(150), gap=30)
        for frame in frames:
            frame.gap = 2

        def late(n):
            async def wait(ctx, bench):
                for _ in range(n):
                    await ctx.tick()
            return wait
        bench = Bench(log2=5)
        mark_ = mark(3)
        mark_.after = delay
        run = bench.go([mark(3, fresh=True, qpn=9), settle, *frames, mark_, long], drain=800)
        expect(bench, [*frames, long], names={3: 9})
        assert run.reached[1] == (1, 2)


def test_mark_of_dropped_frames():
    """A held frame that found no buffer has no number."""
    bench = Bench()
    run = bench.go([mark(3, fresh=True, qpn=9), settle, held(3, 1), held(3, 2), mark(3)], posted=1)
    assert run.reached[1] == (1, 0) and run.counts["rx_frame_no_buffer"] == 1
    bench = Bench()
    run = bench.go([mark(3, fresh=True, qpn=9), settle, held(3, 1), mark(3)], posted=0)
    assert run.reached[1][0] == 0


def test_restart_forgets_numbers_but_not_names():
    bench = Bench(log2=5)

    async def restart(ctx, bench):
        await settle(ctx, bench)
        await bench.restart(ctx)
        await settle(ctx, bench)
        bench.run_.completions.clear()
        bench.run_.memory.clear()
        await bench.post(ctx, 8)
        await settle(ctx, bench)
    last = held(3, 2)
    run = bench.go([mark(3, fresh=True, qpn=77), settle, held(3, 1), held(3, 1), mark(3), restart, mark(3), settle, last,
                    mark(3)])
    expect(bench, [last], names={3: 77})
    assert [any_ for any_, _ in run.reached] == [0, 1, 0, 1] and run.reached[-1] == (1, 0)
