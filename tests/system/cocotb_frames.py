"""What the card does not carry reaches the host, whole; held connections. Runs inside the simulator."""

import os
import random
import struct
from dataclasses import replace

import cocotb

from emplace.abi import FrameReason, QpState
from emplace.config import PROFILES
from emplace.mac.records import FRAME_LIMIT
from emplace_sim import sender
from emplace_sim.driver_frames import FrameReceiver
from emplace_sim.inet import checksum
from emplace_sim.plain import fate, pieces
from emplace_sim.sender import Flow
from emplace_sim.system import Bench
from emplace_sim.xgmii import fcs

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
CARD, PEER = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
LONGEST = FRAME_LIMIT - 4


class Receiver(FrameReceiver):
    """Knows which bytes a frame may have touched: the rest of every buffer it lay in must be as it was."""

    def _next(self):
        frame = super()._next()
        if frame is not None:
            plan = pieces(len(frame.data), frame.header, bool(frame.header), self.buffer_bytes)
            assert frame.buffers == 1 + max(which for which, *_ in plan)
            for n in range(frame.buffers):
                slot = (frame.descriptor + n) % self.entries
                used = {kind: end - start for which, kind, start, end in plan if which == n}
                for buffer, at, size, kind in ((self.buffers[slot], 0, self.buffer_bytes, "data"),
                                               (self.headers, 128 * slot, 128, "header")):
                    rest = size - used.get(kind, 0)
                    assert buffer.read(at + used.get(kind, 0), rest) == b"\xcc" * rest, (kind, frame)
                    buffer.write(at, b"\xcc" * size)
        return frame


async def opened(dut, *, seed=1, receiver=None, **more):
    b = await Bench(dut, CONFIG, seed=seed, **more).start()
    return b, await Receiver(b.device, **(receiver or {})).start()


async def arrivals(b, receiver, count, cycles=20000, **options):
    """``count`` frames, fewer if they don't come in time."""
    found, end = [], b.cycle() + cycles
    while len(found) < count and b.cycle() < end:
        found += await receiver.poll(count - len(found), **options)
        if len(found) < count:
            await b.bus.wait_activity(200)
    return found


def same(got, sent, installed, *, split=False, **holds):
    """``got`` are ``sent`` with their fates, in order."""
    assert len(got) == len(sent), f"{len(got)} of {len(sent)}"
    for n, (frame, data) in enumerate(zip(got, sent, strict=True)):
        want = fate(data, installed, **holds)
        assert frame.data == data, f"frame {n}"
        assert (frame.reason, frame.flags & 15, frame.header) == (
            want.reason, want.flags, want.header if split else 0), f"frame {n}"


def ether(kind, body, *, to=CARD, tag=None):
    head = to + PEER + (b"" if tag is None else struct.pack(">HH", 0x8100, tag)) + struct.pack(">H", kind)
    return (head + body).ljust(60, b"\0")


def ipv4(protocol, body, *, options=b"", fragment=0x4000, spoil=0, **more):
    head = struct.pack(">BBHHHBBHII", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), 1, fragment, 64, protocol, 0,
                       0x0A000002, 0x0A000001) + options
    head = head[:10] + (checksum(head) ^ spoil).to_bytes(2, "big") + head[12:]
    return ether(0x0800, head + body, **more)


def udp(body, *, spoil=0, **more):
    datagram = struct.pack(">HHHH", 53, 53, 8 + len(body), 0) + body
    total = checksum(struct.pack(">IIHH", 0x0A000002, 0x0A000001, 17, len(datagram)) + datagram)
    return ipv4(17, datagram[:6] + (total ^ spoil or 0xFFFF).to_bytes(2, "big") + datagram[8:], **more)


def every_kind(rng):
    """Frames of each kind that the host should get."""
    stranger = Flow(src_port=9, dst_port=7)
    body = rng.randbytes(rng.randrange(8, 600))
    tcp = stranger.frame(body)
    arp = ether(0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + PEER + rng.randbytes(14), to=b"\xff" * 6)
    frames = [
        arp, ether(0x86DD, rng.randbytes(300), to=b"\x33\x33\0\0\0\1"), ether(0x0806, rng.randbytes(46), tag=5),
        ipv4(1, rng.randbytes(64)), udp(body), udp(body, spoil=0x1000), udp(b""),
        ipv4(6, body, fragment=0x2000), ipv4(17, body, fragment=0x0010), ipv4(6, body, options=b"\1\1\1\0"),
        ipv4(6, body, spoil=1), tcp, stranger.frame(b"", flags=2), Flow(src_port=9, timestamps=False).frame(b"", flags=4),
        Flow(src_port=9, vlan=77).frame(body), stranger.frame(body, options=b"\1" * 40),
        tcp[:-1] + bytes([tcp[-1] ^ 1]), stranger.frame(body, options=b"\2\1\0\0"),
        ether(0x0800, b"\x55" + rng.randbytes(60)), rng.randbytes(12).join([CARD, b""])[:6] + PEER + rng.randbytes(52),
    ]
    return [frame.ljust(60, b"\0") for frame in frames]


@cocotb.test()
@cocotb.parametrize(split=[False, True], stall=[0.0, 0.3])
async def every_kind_arrives(dut, split, stall):
    rng = random.Random(1)
    b, receiver = await opened(dut, stall=stall, gap=stall, receiver={"split": split, "buffer_bytes": 256})
    for _ in range(4):
        frames = every_kind(rng)
        rng.shuffle(frames)
        for frame in frames:
            b.put(frame)
            await b.cycles(rng.choice([1, 200, 400]) if not stall else 500)
        same(await arrivals(b, receiver, len(frames)), frames, {}, split=split)
    await b.cycles(600)                      # counters show what they counted after a while
    names = ("rx_frames_host", "rx_frames_off", "rx_frames_filtered", "rx_frames_no_room", "rx_frame_no_buffer",
             "rx_frame_bus_error")
    assert await b.counters(*names) == (80, 0, 0, 0, 0, 0)
    b.check()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(buffer_bytes=[256, 512, 2048, 65536])
async def every_length_arrives(dut, buffer_bytes):
    """From the shortest to the longest that the MAC takes, over up to eight buffers; what is shorter or longer does not."""
    rng = random.Random(2)
    b, receiver = await opened(dut, receiver={"buffer_bytes": buffer_bytes, "split": True, "entries": 16})
    lengths = [60, 61, 63, 64, 65, 255, 256, 257, 511, 512, 513, 1514, 1518, LONGEST - 1, LONGEST]
    frames = [ether(0x88B5, rng.randbytes(n - 14)) for n in lengths]
    # TCP whose payload ends at a buffer's end, or a byte to either side
    frames += [Flow(src_port=9).frame(rng.randbytes(n)) for n in (buffer_bytes - 1, buffer_bytes, buffer_bytes + 1, 1400)
               if n + 66 <= LONGEST]
    got = []
    for frame in frames:
        b.put(frame)
        for n in (59, LONGEST + 1):              # finish() would pad the short one
            other = rng.randbytes(n)
            b.wire.send(other + fcs(other))
        got += await arrivals(b, receiver, 1)
    same(got, frames, {}, split=True)
    await b.cycles(1000)
    assert await b.counters("rx_undersize", "rx_oversize") == (len(frames), len(frames))
    b.check()
    await b.stop()


@cocotb.test()
async def wrong_station_bad_fcs_and_off(dut):
    b, receiver = await opened(dut)
    good = ether(0x88B5, b"yes")
    foreign = ether(0x88B5, b"no", to=bytes.fromhex("525400000003"))
    b.put(foreign)
    broken = ether(0x88B5, b"broken")
    b.wire.send(broken + fcs(good))
    b.put(good)
    same(await arrivals(b, receiver, 2, 3000), [good], {})
    await receiver.stop()
    b.put(good)
    b.put(foreign)
    await b.cycles(500)
    assert await receiver.poll() == []
    assert await b.counters("rx_frames_host", "rx_frames_off", "rx_frames_filtered", "rx_fcs_errors") == (1, 2, 1, 1)
    promiscuous = await Receiver(b.device, promiscuous=True, entries=4).start()
    b.put(foreign)
    same(await arrivals(b, promiscuous, 1), [foreign], {})
    b.check()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(delay=[1, 30, 60, 90, 150, 400])
async def nothing_is_written_behind_a_fence(dut, delay):
    """RX off, then FENCE: what had come is in its buffers, with its completion; afterwards nothing comes."""
    b, receiver = await opened(dut, latency=200, receiver={"buffer_bytes": 256})
    frames = [ether(0x88B5, bytes([n]) * 1000) for n in range(6)]
    for frame in frames:
        b.put(frame)
    await b.cycles(delay)
    await receiver.stop()
    await b.device.fence()
    here = await receiver.poll(post=False)
    same(here, frames[:len(here)], {})
    await b.cycles(3000)
    assert await receiver.poll() == [], "behind the fence"
    await b.cycles(600)
    off, = await b.counters("rx_frames_off")
    assert off + len(here) == 6
    b.check()
    await b.stop()


@cocotb.test()
async def no_buffers(dut):
    """None posted, too few for one frame, and a ring never set up: dropped and counted; RDMA goes on; then all is well."""
    b = await Bench(dut, CONFIG).start()
    link = await b.connect()
    region = await b.region(link, 4096)
    rng = random.Random(3)
    small, large = ether(0x88B5, rng.randbytes(100)), ether(0x88B5, rng.randbytes(1000))

    async def rdma():
        data = rng.randbytes(700)
        link.send(link.fpdu(sender.write(region.rkey, region.base, data)))
        assert await link.acknowledged()
        await b.device.fence()
        assert region.buffer.read(0, 700) == data
    b.put(small)
    await rdma()
    receiver = await Receiver(b.device, entries=8, buffer_bytes=256).start(posted=0)
    b.put(small)
    await rdma()
    await receiver.post(2)
    await b.cycles(1000)
    b.put(large)
    b.put(small)
    b.put(small)
    b.put(small)
    await rdma()
    same(await arrivals(b, receiver, 3, 2000), [small, small], {})
    assert await b.counters("rx_frames_host", "rx_frames_off", "rx_frame_no_buffer") == (2, 1, 3)
    await receiver.post()
    await b.cycles(1000)
    b.put(large)
    same(await arrivals(b, receiver, 1), [large], {})
    b.check()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(entries=[2, 4, 64])
async def rings_wrap(dut, entries):
    """Many laps of rings of descriptors and completions, as fast as the ring allows."""
    rng = random.Random(entries)
    b, receiver = await opened(dut, receiver={"entries": entries, "buffer_bytes": 256, "split": True})
    sent, got = [], []
    while len(sent) < 6 * entries + 3:
        batch = [rng.choice([ether(0x88B5, rng.randbytes(rng.choice([46, 100, 240]))), Flow(src_port=9).frame(b"x" * 40)])
                 for _ in range(rng.randint(1, min(entries, 8)))]
        for frame in batch:
            b.put(frame)
            await b.cycles(60)
        sent += batch
        got += await arrivals(b, receiver, len(batch))
        await b.cycles(300)
    same(got, sent, {}, split=True)
    b.check()
    await b.stop()


async def stream_of_writes(b, link, region, rng, plain):
    """48 Writes at line rate, ``plain`` other frames among them; (cycles to the last ACK, the other frames)."""
    data, sent = rng.randbytes(48 * 1400), []
    every = 48 // plain if plain else 49
    last = []
    b.wire.sent, before = (lambda frame, time_ns: last.append(b.cycle())), b.wire.sent
    for n in range(48):
        at = 1400 * n
        link.send(link.fpdu(sender.write(region.rkey, region.base + at, data[at:at + 1400])))
        if n % every == every - 1:
            sent.append(rng.choice(every_kind(rng)))
            b.put(sent[-1])
    assert await link.acknowledged(40000)
    late = b.cycle() - last[-1]
    b.wire.sent = before
    await b.device.fence()
    assert region.buffer.read() == data
    return late, sent


@cocotb.test()
async def between_writes_at_line_rate(dut):
    """Frames for the host among a stream of RDMA Writes without a gap: the Writes are as quick, and nothing is lost. Only
    where the TLP port is slower than the wire (8 bytes a cycle, headers included) frames for the host find no room: whole
    ones, and counted; RDMA is not hurt."""
    rng = random.Random(5)
    b, receiver = await opened(dut, receiver={"split": True})
    link = await b.connect()
    region = await b.region(link, 48 * 1400)
    alone, _ = await stream_of_writes(b, link, region, rng, 0)
    total = lost_before = 0
    for plain in (4, 16, 48):
        late, sent = await stream_of_writes(b, link, region, rng, plain)
        assert late <= alone + 60, f"{late} cycles to the last ACK, {alone} without other frames"
        await b.cycles(3000)
        total, lost = total + len(sent), lost_before
        lost_before, = await b.counters("rx_frames_no_room")
        lost = lost_before - lost
        assert lost == 0 or (CONFIG.tlp_bytes == 8 and plain == 48)
        got = await arrivals(b, receiver, len(sent) - lost)
        whole = iter(sent)
        same(got, [next(data for data in whole if data == frame.data) for frame in got], {}, split=True)
        assert len(got) == len(sent) - lost and await receiver.poll() == []
    names = ("rx_no_slot", "rx_overflow", "rx_frame_no_buffer", "rx_held", "rx_duplicate")
    assert await b.counters(*names) == (0,) * 5
    assert await b.counters("rx_frames_host") == (total - lost_before,)
    b.check()
    await b.stop()


def key(flow):
    return flow.dst_ip, flow.src_ip, flow.dst_port, flow.src_port, (flow.vlan or 0) & 0xFFF, int(flow.vlan is not None)


async def held_link(b, **more):
    return await b.connect(held=True, **more)


@cocotb.test()
async def held_frames_go_to_the_host(dut):
    """All of the connection's frames, of it alone, with its number; behind ACTIVATE they are the card's."""
    b, receiver = await opened(dut, receiver={"split": True})
    other = await b.connect()
    link = await held_link(b)
    region, home = await b.region(link, 4096), await b.region(other, 4096)
    assert (await b.device.upload(link.qp))["state"] == QpState.HELD
    rng = random.Random(6)
    data = rng.randbytes(1000)
    stream = link.fpdu(sender.write(region.rkey, region.base, data[:500])) \
        + link.fpdu(sender.write(region.rkey, region.base + 500, data[500:]))
    start = replace(link.flow)
    frames = [link.flow.frame(b"", flags=2), *link.flow.cut(stream, 300), link.flow.frame(b"", flags=0x11)]
    for frame in frames:
        b.put(frame)
        other.send(other.fpdu(sender.write(home.rkey, home.base, data)))
    got = await arrivals(b, receiver, len(frames))
    same(got, [f.ljust(60, b"\0") for f in frames], {key(link.flow): 0}, split=True, held=[0])
    assert {(frame.reason, frame.qpn) for frame in got} == {(FrameReason.HELD, link.qp.number)}
    assert await other.acknowledged()
    await b.device.fence()
    assert home.buffer.read(0, 1000) == data and region.buffer.read() == b"\xcc" * 4096
    assert await b.device.activate(link.qp, receiver.number - 1) == receiver.number
    assert await b.device.activate(link.qp, 0) == receiver.number
    assert await b.device.activate(link.qp, receiver.number) is None
    assert (await b.device.upload(link.qp))["state"] == QpState.RTS
    link.flow.seq = start.seq
    link.send(stream, 300)
    assert await link.acknowledged()
    await b.device.fence()
    assert region.buffer.read(0, 1000) == data
    assert await receiver.poll() == []
    assert await b.counters("rx_frames_held", "rx_tcp_flags") == (len(frames), 0)
    b.check()
    await b.stop()


@cocotb.test()
async def activate_races_with_a_frame(dut):
    """A frame arrives at every time about an ACTIVATE: it is the host's, and ACTIVATE says again with its number; or it is
    the card's. Never both, never neither."""
    b, receiver = await opened(dut)
    again = done = 0
    cq, pd = await b.device.create_cq(16), b.device.alloc_pd()
    for delay in range(1, 400, 5):
        link = await held_link(b, cq=cq, pd=pd, seq=1000 * delay, max_recv_wr=0)
        region = await b.region(link, 64)
        data = random.Random(delay).randbytes(64)
        frame = link.flow.frame(link.fpdu(sender.write(region.rkey, region.base, data)))
        whole = (link.flow.seq + len(frame) - 66) & 0xFFFFFFFF
        index = receiver.number
        order = cocotb.start_soon(b.device.activate(link.qp, index))
        await b.cycles(delay)
        b.put(frame)
        reach = await order
        if reach is not None:
            again += 1
            assert reach == index + 1
            got = await arrivals(b, receiver, 1, 3000)
            same(got, [frame], {key(link.flow): 0}, held=[0])
            assert got[0].number == index and got[0].qpn == link.qp.number
            assert region.buffer.read() == b"\xcc" * 64 and link.acks == 0
            assert await b.device.activate(link.qp, reach) is None
            b.put(frame)                     # the peer sends it again
        else:
            done += 1
        assert await b.until(lambda link=link, whole=whole: link.acked == whole, 3000), f"delay {delay}: it got lost"
        await b.device.fence()
        assert region.buffer.read() == data
        assert await receiver.poll() == [], f"delay {delay}: to the host behind ACTIVATE"
        await b.device.destroy_qp(link.qp)
        await b.device.dereg_mr(region)
        b.memory.free(region.buffer)
    print(f"again {again}, done {done}")
    assert again > 10 and done > 10
    b.check()
    await b.stop()
