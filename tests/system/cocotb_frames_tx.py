"""The host's frames leave the card whole, or enter its receive path. Runs inside the simulator."""

import os
import random
from dataclasses import replace
from itertools import pairwise

import cocotb
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from emplace import abi
from emplace.abi import FrameReason, FrameTxFlags, QpState
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.driver_frames import FrameReceiver, FrameTransmitter
from emplace_sim.driver_records import pack
from emplace_sim.sender import Flow
from emplace_sim.system import Bench
from emplace_sim.transmit_model import LONGEST
from emplace_sim.xgmii import finish

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
TAPS = os.environ["EMPLACE_TAPS"]
COUNTERS = ("tx_frames_host", "tx_frames_injected", "tx_frames_refused", "tx_frames_bus_error", "rx_bypass_overflow")
FOREIGN = bytes.fromhex("525400000002" "525400000001" "88b5")


async def opened(dut, name, *, entries=64, **more):
    b = await Bench(dut, CONFIG, pcapng=f"{TAPS}/{name}.pcapng", **more).start()
    b.keep_frames = True
    return b, await FrameTransmitter(b.device, entries=entries).start()


def cut(rng, frame, parts):
    at = [0, *sorted(rng.sample(range(1, len(frame)), parts - 1)), len(frame)]
    return [frame[first:end] for first, end in pairwise(at)]


def body(rng, length):
    """A frame of ``length`` octets of a type that nobody looks into."""
    return (FOREIGN + rng.randbytes(max(length - 14, 0)))[:length]


async def arrivals(b, receiver, count, cycles=20000):
    """``count`` frames, fewer if they don't come in time."""
    found, end = [], b.cycle() + cycles
    while len(found) < count and b.cycle() < end:
        found += await receiver.poll()
        await b.bus.wait_activity(200)
    return found


async def close(b):
    b.check()
    await b.stop()


@cocotb.test()
async def every_length(dut):
    """Every length from 14 to 1518 octets and the longest, at any alignment, as 1 to 8 descriptors; 64 in a ring."""
    rng = random.Random(1)
    b, tx = await opened(dut, "every_length", latency=100, jitter=50, cut="random")
    lengths = [*range(14, 1519), LONGEST - 1, LONGEST]
    if CONFIG.name != "default":
        lengths = sorted(rng.sample(lengths, 300))
    rng.shuffle(lengths)
    frames = [body(rng, length) for length in lengths]
    for n, frame in enumerate(frames):
        await tx.post(cut(rng, frame, rng.randint(1, 8)), ring=n % 5 == 0 or n == len(frames) - 1 or tx.poll() < 16)
    await tx.completed()
    await b.cycles(500)
    # The monitor has checked FCS and padding's length.
    assert [frame[:-4] for frame in b.frames] == [finish(frame)[:-4] for frame in frames]
    assert await b.counters(*COUNTERS, "tx_frames") == (len(frames), 0, 0, 0, 0, len(frames))
    assert tx.dropped == 0
    await close(b)


@cocotb.test()
async def checksums(dut):
    """TCP and UDP, with and without a tag, as Linux leaves them: scapy finds every checksum right."""
    rng = random.Random(2)
    b, tx = await opened(dut, "checksums")
    frames = []
    for n in range(60):
        payload = rng.randbytes(rng.choice([0, 1, 2, 7, rng.randint(0, 1400)]))
        udp = n % 2
        tag = Dot1Q(vlan=5) if n % 3 == 0 else None
        layer = UDP(sport=1, dport=9) if udp else TCP(sport=1, dport=9, flags="A", options=[("Timestamp", (n, 1))])
        ether = Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02")
        packet = (ether / tag if tag else ether) / IP(src="10.0.0.1", dst="10.0.0.2") / layer / payload
        right = bytes(packet)
        start = 14 + 4 * bool(tag) + 20
        offset = 6 if udp else 16
        # CHECKSUM_PARTIAL: the field holds the pseudo header's sum, not complemented.
        pseudo = sum(int.from_bytes(right[start - 8 + k:start - 6 + k], "big") for k in range(0, 8, 2)) \
            + (17 if udp else 6) + len(right) - start
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
        at = start + offset
        partial = right[:at] + pseudo.to_bytes(2, "big") + right[at + 2:]
        await tx.post(cut(rng, partial, rng.randint(1, 4)), checksum=(start, offset))
        frames.append(right)
    await tx.completed()
    await b.cycles(300)
    assert len(b.frames) == len(frames)
    for wire, right in zip(b.frames, frames, strict=True):
        assert wire[:len(right)] == right
        found = Ether(wire[:len(right)])
        kind = UDP if UDP in found else TCP
        had = found[kind].chksum
        del found[kind].chksum
        assert Ether(bytes(found))[kind].chksum == had
    await close(b)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.2])
async def beside_rdma(dut, stall):
    """A flood of frames while a peer writes at line rate: no ACK is lost or late, no frame either."""
    rng = random.Random(3)
    b, tx = await opened(dut, f"beside_rdma_{stall}", stall=stall, gap=stall)
    link = await b.connect()
    region = await b.region(link, 48 * 1400)

    async def writes():
        data, acks = rng.randbytes(48 * 1400), link.acks
        for n in range(48):
            link.send(link.fpdu(sender.write(region.rkey, region.base + 1400 * n, data[1400 * n:1400 * n + 1400])))
        start = b.cycle()
        assert await (link.acknowledged(60000) if not stall else link.deliver(b"", patience=60000))
        took = b.cycle() - start
        await b.device.fence()
        assert region.buffer.read() == data
        return took, link.acks - acks
    alone, acks = await writes()
    task, sent = cocotb.start_soon(writes()), []
    while not task.done():
        sent.append(body(rng, rng.choice([60, 300, 1514])))
        await tx.post(sent[-1])
    took, acks_then = await task
    await tx.completed()
    await b.cycles(500)
    got = [frame[:-4] for frame in b.frames if frame[12:14] == b"\x88\xb5"]
    assert got == sent and len(sent) > 10
    print(f"{alone} cycles alone, {took} beside {len(sent)} frames; {acks} and {acks_then} ACKs")
    if not stall:
        # An ACK waits for one frame at most, and those behind it.
        assert took <= alone + 450 and acks_then == acks
        assert await b.counters("rx_no_slot", "rx_held", "rx_duplicate") == (0, 0, 0)
    await close(b)


@cocotb.test()
async def bad_descriptors(dut):
    """Each is dropped with its frame, counted and done; the next frame leaves."""
    rng = random.Random(4)
    b, tx = await opened(dut, "bad_descriptors", entries=16)
    good = []

    async def fine():
        good.append(body(rng, rng.randint(14, 1518)))
        assert await tx.send(cut(rng, good[-1], rng.randint(1, 3)))
    await fine()
    bad = [([b""], {}), ([b"x" * 13], {}), ([b"x" * (LONGEST + 1)], {}), ([b"x" * 1000, b"x" * 997], {}),
           ([b"x" * 60, b""], {}), ([b"x" * 20] * 9, {}), ([b"x" * 65535], {}), ([b"x" * 100], {"checksum": (99, 0)}),
           ([b"x" * 100], {"checksum": (40, 59)}), ([b"x" * 100], {"checksum": (65535, 255)}),
           ([b"x" * 59], {"reinject": True}), ([b"x" * (LONGEST + 1)], {"reinject": True})]
    for parts, options in bad:
        assert not await tx.send(parts, **options), (parts, options)
        await fine()
    # Eight without an END, and the rest of them
    for n in range(10):
        tx.ring.write(16 * (tx.posted % 16), pack(abi.FrameTxDescriptor, {
            "address": tx.ring.address, "length": 16, "flags": FrameTxFlags.END if n == 9 else 0}))
        tx.posted += 1
    await tx.ring_doorbell()
    await tx.completed()
    await fine()
    await b.cycles(500)
    assert [frame[:-4] for frame in b.frames] == [finish(frame)[:-4] for frame in good]
    assert tx.dropped == len(bad) + 1
    assert await b.counters(*COUNTERS) == (len(good), 0, len(bad) + 1, 0, 0)
    await close(b)


@cocotb.test()
@cocotb.parametrize(fault=["UR", "CA", "POISON"])
async def bus_errors(dut, fault):
    """Reads of bytes and of descriptors fail: the frame is dropped, the next ones leave; RDMA does not notice."""
    rng = random.Random(5)
    b, tx = await opened(dut, f"bus_errors_{fault}")
    link = await b.connect()
    region = await b.region(link, 4096)
    armed = []

    def wrong(tlp):
        owner = b.memory.owner(tlp.address)
        return fault if armed and owner and owner.label == armed[0] and armed.pop() else None
    b.bus.fault = wrong
    good = []
    for n in range(12):
        armed[:] = ["frame.tx.data" if n % 2 else "frame.tx.descriptor"]
        lost = body(rng, 1514)
        assert not await tx.send(cut(rng, lost, rng.randint(1, 4)))
        assert not armed
        # Behind a descriptor that can't be read, what comes up to the next END is skipped: it may be of the same frame.
        if n % 2 == 0:
            assert await tx.send(body(rng, 100)), "not counted twice"
        good.append(body(rng, 200))
        assert await tx.send(good[-1])
        data = rng.randbytes(1000)
        link.send(link.fpdu(sender.write(region.rkey, region.base, data)))
        assert await link.acknowledged()
        await b.device.fence()
        assert region.buffer.read(0, 1000) == data
    got = [frame[:-4] for frame in b.frames if frame[12:14] == b"\x88\xb5"]
    assert [frame for frame in got if len(frame) != 100] == good
    counts = await b.counters(*COUNTERS, "read_errors")
    assert counts == (len(got), 0, 0, 12, 0, 12)
    await close(b)


@cocotb.test(skip=CONFIG.name != "default")
async def time_out(dut):
    """A read that is never answered: the frame is dropped when it times out, the next ones leave. RDMA goes on meanwhile."""
    rng = random.Random(6)
    b, tx = await opened(dut, "time_out")
    link = await b.connect(max_recv_wr=4)
    region = await b.region(link, 4096)
    dropped = []

    def wrong(tlp):
        owner = b.memory.owner(tlp.address)
        if owner and owner.label == "frame.tx.data" and not dropped:
            dropped.append(tlp)
            return "DROP"
        return None
    b.bus.fault = wrong
    lost, good = body(rng, 1000), [body(rng, n) for n in (100, 1514)]
    await tx.post(lost)
    for frame in good:
        await tx.post(frame)
    for n in range(4):                       # receive WQEs are read meanwhile
        await b.device.post_recv(link.qp, [[region.sge(0, 64)]])
        link.send(link.fpdu(sender.send(n + 1, rng.randbytes(64))))
        assert await link.acknowledged()
    assert len(await b.completions(link, 4)) == 4
    assert tx.poll() == 61 and tx.done == 0
    assert await b.until(lambda: tx.poll() == 64, 1_400_000, step=2000)
    await b.cycles(500)
    assert tx.dropped == 1
    assert [frame[:-4] for frame in b.frames if frame[12:14] == b"\x88\xb5"] == good
    assert await b.counters(*COUNTERS, "read_errors") == (2, 0, 0, 1, 0, 1)
    await close(b)


@cocotb.test()
@cocotb.parametrize(entries=[2, 8])
async def rings_wrap_and_start_anew(dut, entries):
    rng = random.Random(entries)
    b, tx = await opened(dut, f"rings_{entries}", entries=entries)
    sent = []
    for _ in range(2):
        for _ in range(10 * entries):
            sent.append(body(rng, rng.randint(14, 200)))
            await tx.post(cut(rng, sent[-1], rng.randint(1, 2)))
        await tx.completed()
        await tx.start()
    await b.cycles(500)
    assert [frame[:-4] for frame in b.frames] == [finish(frame)[:-4] for frame in sent]
    await close(b)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.2])
async def handed_over(dut, stall):
    """A held connection's segments go to the host, which puts them in again, in order, while another connection's come from
    the wire; then ACTIVATE, and the card goes on where the host was. Every byte lands."""
    rng = random.Random(7)
    b, tx = await opened(dut, f"handed_over_{stall}", stall=stall, gap=stall)
    receiver = await FrameReceiver(b.device).start()
    other = await b.connect()
    link = await b.connect(held=True)
    region, home = await b.region(link, 20000), await b.region(other, 4096)
    data = rng.randbytes(20000)
    parts = [data[at:at + 900] for at in range(0, 20000, 900)]
    stream = b"".join(link.fpdu(sender.write(region.rkey, region.base + 900 * n, part)) for n, part in enumerate(parts))
    frames = link.flow.cut(stream, 1000)
    early, late = frames[:12], frames[12:]
    first = replace(link.flow)
    image = bytearray(b"\xcc" * 4096)

    async def friend():
        while not finished:
            piece = rng.randbytes(rng.choice([64, 500, 1400]))
            at = rng.randrange(4096 - len(piece))
            image[at:at + len(piece)] = piece
            assert await other.deliver(other.fpdu(sender.write(home.rkey, home.base + at, piece)))
    finished = []
    busy = cocotb.start_soon(friend())
    for frame in early:
        b.put(frame)
        if CONFIG.name == "tiny":            # whose memory for frames and bus cannot take more
            await b.cycles(500)
    got = await arrivals(b, receiver, len(early))
    assert [frame.data for frame in got] == early and {frame.reason for frame in got} == {FrameReason.HELD}
    assert region.buffer.read() == b"\xcc" * 20000
    for frame in got:
        assert await tx.send(cut(rng, frame.data, rng.randint(1, 3)), reinject=True)
    assert await b.device.activate(link.qp, receiver.number) is None
    assert (await b.device.upload(link.qp))["state"] == QpState.RTS
    for frame in late:
        b.put(frame)
        await b.cycles(100 if stall else 1)
    assert await b.until(lambda: link.acked == first.seq, 20000) or stall
    if stall:                            # what found no slot comes again
        link.flow.seq = first.seq
        for frame in late:
            b.put(frame)
            await b.cycles(1000)
        assert await link.acknowledged(40000)
    finished.append(1)
    await busy
    await b.device.fence()
    assert region.buffer.read() == data
    assert home.buffer.read() == bytes(image)
    assert await receiver.poll() == []
    assert await b.counters(*COUNTERS) == (0, len(early), 0, 0, 0)
    await close(b)


@cocotb.test()
async def put_in_beside_a_busy_wire(dut):
    """Segments of an installed connection put in by the host in between those that the wire brings at line rate: the one
    connection's bytes land as the other's, and nothing is lost unless it is counted."""
    rng = random.Random(8)
    b, tx = await opened(dut, "busy_wire")
    one, two = await b.connect(), await b.connect()
    mine, theirs = await b.region(one, 16000), await b.region(two, 60000)
    data, more = rng.randbytes(16000), rng.randbytes(60000)
    frames = one.flow.cut(b"".join(one.fpdu(sender.write(mine.rkey, mine.base + at, data[at:at + 500]))
                                   for at in range(0, 16000, 500)), 1400)
    stream = b"".join(two.fpdu(sender.write(theirs.rkey, theirs.base + at, more[at:at + 1200])) for at in range(0, 60000, 1200))
    peer = cocotb.start_soon(two.deliver(stream, patience=60000))
    for frame in frames:
        await tx.send(frame, reinject=True)
    assert await peer
    assert await one.acknowledged()
    await b.device.fence()
    assert mine.buffer.read() == data and theirs.buffer.read() == more
    counts = await b.counters(*COUNTERS)
    print(dict(zip(COUNTERS, counts, strict=True)))
    assert counts[:4] == (0, len(frames), 0, 0)
    await close(b)


@cocotb.test()
async def put_in_again_and_again(dut):
    """What the card does not carry and the host puts in comes back to the host, with the word that the wire's gets."""
    rng = random.Random(9)
    b, tx = await opened(dut, "echo")
    receiver = await FrameReceiver(b.device).start()
    stranger = Flow(src_port=9, dst_port=7)
    card = bytes.fromhex("525400000001")
    frames = [card + FOREIGN[6:] + rng.randbytes(n) for n in (46, 47, 1000, LONGEST - 14)] + [stranger.frame(b"x" * 100)]
    spoiled = bytearray(stranger.frame(b"y" * 100))
    spoiled[-1] ^= 1
    frames.append(bytes(spoiled))
    await b.cycles(200)                      # the registers have been written
    for frame in frames:
        b.put(frame)
    first = await arrivals(b, receiver, len(frames))
    for frame in first:
        assert await tx.send(frame.data, reinject=True)
    again = await arrivals(b, receiver, len(frames))
    assert [(f.data, f.reason, f.flags) for f in again] == [(f.data, f.reason, f.flags) for f in first]
    assert [f.data for f in first] == frames
    await close(b)
