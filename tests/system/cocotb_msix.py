"""Interrupts on the whole card: armed CQs, moderation, masks, order; pause frames; runs inside the simulator."""

import os
import random

import cocotb

from emplace import abi
from emplace.abi import Access, EventType, MacControl, WcStatus
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.frames import pause_frame
from emplace_sim.system import Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "tiny")]
QUIET = 600                  # cycles in which whatever is due has come


async def bench(dut, *, event_vector=0, **more):
    b = await Bench(dut, CONFIG, **more).start()
    await b.device.enable_interrupts(CONFIG.vectors, event_vector=event_vector)
    return b


class Inbox:
    """A connection with posted receives on a CQ of its own; ``send`` makes one completion."""

    @classmethod
    async def open(cls, b, *, receives=64, **cq):
        self = cls()
        self.b, self.cq = b, await b.device.create_cq(128, **cq)
        self.link = await b.connect(cq=self.cq, max_recv_wr=64)
        self.region = await b.region(self.link, 64 * 64, Access.LOCAL_WRITE)
        await b.device.post_recv(self.link.qp, [([self.region.sge(64 * n, 64)], n) for n in range(receives)])
        self.sent = 0
        return self

    def message(self, n):
        return bytes([n + 1]) * (n % 60 + 1)

    def send(self, solicited=False):
        self.link.send(self.link.fpdu(sender.send(self.sent + 1, self.message(self.sent), solicited=solicited)))
        self.sent += 1

    async def told(self, b, fired):
        """After a while the vector has fired that often, in all."""
        await b.cycles(QUIET)
        assert b.device.fired[self.cq.vector] == fired, (dict(b.device.fired), fired)


@cocotb.test()
async def next_and_next_solicited(dut):
    b = await bench(dut)
    inbox = await Inbox.open(b, vector=2)
    inbox.send()
    await inbox.told(b, 0)                                     # not armed
    assert len(await b.completions(inbox.link, 1)) == 1
    await b.device.req_notify(inbox.cq)
    await inbox.told(b, 0)
    inbox.send()
    assert await inbox.cq.event(5000)
    inbox.send()
    await inbox.told(b, 1)                                     # once
    assert len(await b.completions(inbox.link, 2)) == 2
    await b.device.req_notify(inbox.cq, solicited=True)
    inbox.send()
    await inbox.told(b, 1)
    inbox.send(solicited=True)
    assert await inbox.cq.event(5000)
    await b.device.req_notify(inbox.cq)                        # two lie there that were not polled
    assert await inbox.cq.event(5000)
    assert len(await b.completions(inbox.link, 2)) == 2
    await b.device.req_notify(inbox.cq, solicited=True)
    await b.device.flush(inbox.link.qp)                        # errors count as solicited
    assert await inbox.cq.event(5000)
    assert (await b.completions(inbox.link, 1))[0]["status"] == WcStatus.WR_FLUSH_ERR
    assert await b.until(lambda: set(b.device.fired) == {2, 0}, 5000)    # 0: the event ring's, LAST_WQE
    b.check()
    await b.stop()


@cocotb.test()
async def data_and_completion_are_there_when_it_comes(dut):
    """With a slow bus, at each interrupt what it announces can be read."""
    b = await bench(dut, stall=0.5, gap=0.3)
    inbox = await Inbox.open(b, vector=1)
    seen = []

    def look(address, message):
        b.device.fired[message] += 1
        ring, at = inbox.cq.ring, len(seen)
        entry = ring.buffer.read(32 * (at % ring.entries), 32)
        assert entry[-1] >> 7 == 1, f"interrupt {at} before its completion"
        assert inbox.region.buffer.read(64 * at, len(inbox.message(at))) == inbox.message(at)
        seen.append(message)

    b.bus.interrupted = look
    for n in range(12):
        await b.device.req_notify(inbox.cq)
        inbox.send()
        assert await inbox.cq.event(20000), n
        assert len(await b.completions(inbox.link, 1)) == 1
    assert seen == [1] * 12
    b.check()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(solicited=[False, True])
async def no_wake_up_is_lost(dut, solicited):
    """Arm, poll, sleep; Sends at random times against it."""
    rng = random.Random(f"wake {solicited}")
    b = await bench(dut)
    inbox = await Inbox.open(b, vector=3)
    total = 48

    async def peer():
        for n in range(total):
            await b.cycles(rng.choice([1, 20, 60, 100, 150, 300]))
            inbox.send(solicited and (n == total - 1 or rng.random() < 0.4))

    task = cocotb.start_soon(peer())
    done = []
    while len(done) < total:
        await b.device.req_notify(inbox.cq, solicited)
        await b.cycles(rng.randrange(1, 80))
        if rng.random() < 0.3:
            done += await b.device.poll_cq(inbox.cq)
            if len(done) == total:
                break
        assert await inbox.cq.event(20000), f"asleep with {len(done)} of {total}"
        while found := await b.device.poll_cq(inbox.cq):
            done += found
    await task
    assert [c["wr_id"] for c in done] == list(range(total))
    b.check()
    await b.stop()


@cocotb.test()
async def moderation(dut):
    """Three completions at once; fewer after 8 * 256 cycles; events by their vector's register."""
    b = await bench(dut, event_vector=2)
    inbox = await Inbox.open(b, vector=1, moderate_count=3, moderate_period=8)
    await b.device.req_notify(inbox.cq)
    for _ in range(2):
        inbox.send()
    await inbox.told(b, 0)
    inbox.send()
    assert await inbox.cq.event(600)
    assert len(await b.completions(inbox.link, 3)) == 3
    await b.device.req_notify(inbox.cq)
    await b.cycles(3000)
    assert b.device.fired[1] == 1                              # nothing has come, nothing is told
    inbox.send()
    begin = b.cycle()
    assert await inbox.cq.event(20000)
    assert 7 * 256 < b.cycle() - begin < 10 * 256
    await b.device.moderate(2, 2, 8)
    before = b.device.fired[2]
    await b.device.flush(inbox.link.qp)                        # one event
    assert (await b.event())["type"] == EventType.LAST_WQE
    await b.cycles(QUIET)
    assert b.device.fired[2] == before
    await b.cycles(10 * 256)
    assert b.device.fired[2] == before + 1
    b.check()
    await b.stop()


@cocotb.test()
async def masks_and_pending_bits(dut):
    b = await bench(dut)
    inbox = await Inbox.open(b, vector=1)

    async def pending():
        return await b.bus.read32(abi.MSIX_PBA)

    async def function_mask(value):
        b.bus.set_msix(1, value)

    async def entry_mask(value):
        await b.device.mask_vector(1, value)

    fired = 0
    for mask in (entry_mask, function_mask):
        await mask(1)
        await b.device.req_notify(inbox.cq)
        inbox.send()
        await inbox.told(b, fired)
        assert await pending() == 1 << 1
        await mask(0)
        fired += 1
        await inbox.told(b, fired)
        assert await pending() == 0
        assert len(await b.completions(inbox.link, 1)) == 1
    table = [await b.bus.read32(abi.MSIX_PAGE + 16 * CONFIG.vectors - 16 + 4 * n) for n in range(4)]
    assert table == [0xFEE00000, 0, CONFIG.vectors - 1, 0]
    b.check()
    await b.stop()


@cocotb.test()
async def only_messages_reach_the_window(dut):
    """A CQ whose ring lies there: the guard keeps its completions out, and the card goes on."""
    b = await bench(dut)
    await b.device.command(abi.Opcode.CREATE_CQ, cq=0, log2=4, vector=0, base=0xFEE0_0000)
    b.device._cqs[0] = None
    good = await Inbox.open(b, vector=1)
    cq = type(good.cq)(0, 0, good.cq.ring, b.device)
    bad = await b.connect(cq=cq)
    region = await b.region(bad, 64, Access.LOCAL_WRITE)
    await b.device.post_recv(bad.qp, [[region.sge()]])
    bad.send(bad.fpdu(sender.send(1, b"x")))
    assert await bad.acknowledged()
    await b.cycles(QUIET)
    assert await b.counters("guard_writes") == (1,) and not b.bus.interrupts
    await b.device.req_notify(good.cq)
    good.send()
    assert await good.cq.event(5000)
    b.check()
    await b.stop()


@cocotb.test()
async def paused_by_the_peer(dut):
    """No frame leaves while the other end has paused us; the counters tell, by the names of others."""
    b = await bench(dut)
    await b.bus.write32(abi.REGISTERS["MAC_CONTROL"].offset, MacControl.RX_PAUSE)
    link = await b.connect()
    region = await b.region(link, 4096)
    peer = bytes.fromhex("020000000099")
    before = await b.device.statistics()
    b.put(pause_frame(400, peer))                              # 3200 cycles
    await b.cycles(100)
    link.send(link.fpdu(sender.write(region.rkey, region.base, b"while paused")))
    await b.device.fence()
    assert region.buffer.read(0, 12) == b"while paused"        # received all the same
    assert not await link.acknowledged(2500)
    assert await link.acknowledged(1500)
    b.put(pause_frame(0xFFFF, peer))
    b.put(pause_frame(0, peer))
    link.send(link.fpdu(sender.write(region.rkey, region.base, b"go")))
    assert await link.acknowledged(500)
    after = await b.device.statistics()
    assert after["rx_flow_control"] - before["rx_flow_control"] == 3
    assert after["etherStatsMulticastPkts"] - before["etherStatsMulticastPkts"] == 3
    assert after["rx_packets"] == after["etherStatsPkts"] == b.wire.frames
    assert after["etherStatsCRCAlignErrors"] == 0
    b.check()
    await b.stop()
