"""How a peer ends its stream: FIN at an FPDU's boundary and within one, RST; others go on. Runs inside the simulator."""

import os
import random

import cocotb

from emplace.abi import EventType, QpFlags, QpState, Reason
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.system import Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
FLAGS = QpFlags.REMOTE_WRITE | QpFlags.REMOTE_READ | QpFlags.SACK


class Scene:
    """A connection that ends, and one beside it that doesn't."""

    async def open(self, dut, seed, **more):
        self.rng = random.Random(seed)
        self.b = b = await Bench(dut, CONFIG, seed=seed, **more).start()
        b.keep_frames = True
        self.link, self.friend = await b.connect(flags=FLAGS), await b.connect(flags=FLAGS)
        self.region, self.home = await b.region(self.link, 8192), await b.region(self.friend, 8192)
        self.image, self.friends_image = bytearray(self.region.buffer.read()), bytearray(self.home.buffer.read())
        return self

    def write(self, at, length):
        """An FPDU for the connection that ends; what it should leave is noted by ``lands``."""
        data = self.rng.randbytes(length)
        return self.link.fpdu(sender.write(self.region.rkey, self.region.base + at, data)), (at, data)

    def lands(self, *notes):
        for at, data in notes:
            self.image[at:at + len(data)] = data

    def friendly(self):
        """The other connection sends something."""
        at, data = self.rng.randrange(7000), self.rng.randbytes(self.rng.choice([8, 300, 1000]))
        self.friends_image[at:at + len(data)] = data
        self.friend.send(self.friend.fpdu(sender.write(self.home.rkey, self.home.base + at, data)))

    async def event(self, kind, reason):
        event = await self.b.event()
        assert event is not None
        assert (event["type"], event["reason"], event["qpn"], event["terminate"]) == (kind, reason, self.link.qp.number, 0)

    async def end(self, state, reason):
        """The state, memory to the octet, and the other connection as if nothing had been."""
        b = self.b
        self.friendly()
        assert await self.friend.acknowledged()
        await b.device.fence()
        upload = await b.device.upload(self.link.qp)
        assert (upload["state"], upload["reason"]) == (state, reason)
        assert self.region.buffer.read() == bytes(self.image) and self.home.buffer.read() == bytes(self.friends_image)
        assert await b.device.get_async_event() is None
        b.check()


@cocotb.test()
@cocotb.parametrize(early=[False, True], stall=[0.0, 0.3])
async def a_clean_fin(dut, early, stall):
    """FPDUs first, then the event, then state CLOSING; the FIN is acknowledged, and again when it comes again; a RST
    behind it is told, too."""
    s = await Scene().open(dut, 1, stall=stall, gap=stall)
    flow = s.link.flow
    made, notes = zip(*(s.write(1000 * n, 700) for n in range(4)), strict=True)
    stream = b"".join(made)
    s.lands(*notes)
    s.friendly()
    start, end = flow.seq, flow.seq + len(stream)
    parts = [flow.frame(stream[at:at + 900], seq=start + at, flags=ACK | (FIN if at + 900 >= len(stream) else 0))
             for at in range(0, len(stream), 900)]
    for part in reversed(parts) if early else parts:
        s.b.put(part)
        s.friendly()
    flow.seq = end + 1
    await s.event(EventType.FIN_RECEIVED, Reason.PEER_FIN)
    assert await s.link.acknowledged()
    acks = s.link.acks
    s.b.put(parts[-1])                           # its ACK was lost
    assert await s.b.until(lambda: s.link.acks > acks, 5000)
    s.b.put(flow.frame(b"behind the FIN"))
    await s.end(QpState.CLOSING, Reason.PEER_FIN)
    assert await s.b.counters("rx_fin", "rx_after_fin", "err_peer_fin") == (1, 1, 1)
    s.b.put(flow.frame(flags=RST))
    await s.event(EventType.RST_RECEIVED, Reason.PEER_RESET)
    await s.end(QpState.ERROR, Reason.PEER_RESET)
    await s.b.stop()


@cocotb.test()
async def a_fin_within_an_fpdu(dut):
    """What was whole is placed, the torso isn't; dirty; the slot comes back; the tuple is free again."""
    s = await Scene().open(dut, 2)
    flow = s.link.flow
    whole, note = s.write(0, 500)
    torso, _ = s.write(1000, 500)
    s.lands(note)
    s.b.put(flow.push(whole + torso[:200]))
    s.friendly()
    s.b.put(flow.frame(flags=FIN | ACK))
    await s.event(EventType.FIN_RECEIVED, Reason.PEER_FIN_DIRTY)
    await s.end(QpState.ERROR, Reason.PEER_FIN_DIRTY)
    s.b.put(flow.frame(torso[200:]))             # it is not looked up any more
    await s.end(QpState.ERROR, Reason.PEER_FIN_DIRTY)
    await s.b.device.destroy_qp(s.link.qp)
    await s.b.stop()


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def a_reset(dut, stall):
    """Only at RCV.NXT; what came before is placed, what was held goes; challenge ACKs say where RCV.NXT is."""
    s = await Scene().open(dut, 3, stall=stall, gap=stall)
    flow = s.link.flow
    first, note = s.write(0, 900)
    second, _ = s.write(2000, 600)
    s.lands(note)
    s.b.put(flow.push(first, flags=ACK | PSH))
    s.b.put(flow.frame(second, seq=flow.seq + 10))
    assert await s.link.acknowledged()
    s.friendly()
    for seq, flags in ((flow.seq + 1, RST), (flow.seq - 1, RST), (flow.seq + (1 << 24), RST), (flow.seq, SYN), (1, SYN | ACK)):
        s.b.put(flow.frame(seq=seq, flags=flags))
    assert await s.b.until(lambda: s.link.acks >= 3, 5000)
    await s.b.cycles(500)
    assert await s.b.device.get_async_event() is None
    assert await s.b.counters("rx_rst_challenged", "rx_rst_outside", "rx_syn") == (1, 2, 2)
    s.b.put(flow.frame(flags=RST, options=b""))  # without timestamp
    await s.event(EventType.RST_RECEIVED, Reason.PEER_RESET)
    await s.end(QpState.ERROR, Reason.PEER_RESET)
    await s.b.stop()


@cocotb.test()
async def a_late_ack(dut):
    """One segment without PSH is acknowledged when the delay is over, two are at once."""
    s = await Scene().open(dut, 4)
    flow, b = s.link.flow, s.b
    for n, frames in enumerate((1, 2)):
        made, note = s.write(1000 * n, 600)
        s.lands(note)
        cut = len(made) // frames
        began = b.cycle()
        for at in range(0, len(made), cut):
            b.put(flow.push(made[at:at + cut]))
        assert await s.link.acknowledged()
        assert (b.cycle() - began > 500) == (frames == 1)
    await s.end(QpState.RTS, Reason.NONE)
    assert await b.counters("tx_delayed") == (1,)
    await b.stop()
