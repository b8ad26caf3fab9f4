"""The card sends: Writes and Sends from registered memory to a golden peer; runs inside the simulator."""

import os
import random
from itertools import pairwise

import cocotb

from emplace import abi
from emplace.abi import Access, EventType, Reason, SendFlags, SendOpcode, WcOpcode, WcStatus
from emplace.config import PROFILES
from emplace_sim.driver import Sge
from emplace_sim.driver_send import SendWr
from emplace_sim.peer import Access as PeerAccess
from emplace_sim.peer import Opcode, QpSettings, TcpSettings
from emplace_sim.peer_host import PeerHost
from emplace_sim.system import Bench
from emplace_sim.wire import Impairments, Rule, data_segment

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]


async def start(dut, *, tick=125, wires=None, **more):
    """A card and a peer; a tick of the card is 1 us, so that its timers fit a simulation."""
    b = await Bench(dut, CONFIG, **more).start(tick=tick)
    return b, PeerHost(b, **(wires or {}))


async def stop(b, host):
    b.check()
    host.stop()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(crc=[True, False], timestamps=[True, False], vlan=[None, 0x6005])
async def a_write_arrives(dut, crc, timestamps, vlan):
    b, host = await start(dut)
    link = await host.connect(crc=crc, tcp=TcpSettings(timestamps=timestamps), vlan=vlan)
    source = await b.device.reg_mr(link.pd, 8192, Access.LOCAL_WRITE)
    data = random.Random(1).randbytes(8192)
    source.buffer.write(0, data)
    sink = host.peer.reg_mr(host.pd, 8192, PeerAccess.ALL)
    await b.device.post_send(link.card, [SendWr(SendOpcode.RDMA_WRITE, [source.sge(37, 5000)], "w", rkey=sink.rkey,
                                                remote_addr=sink.base + 11)])
    done = await host.completions(link, 1)
    assert [(c["wr_id"], c["opcode"], c["status"]) for c in done] == [("w", WcOpcode.RDMA_WRITE, WcStatus.SUCCESS)]
    assert bytes(sink.data[11:5011]) == data[37:5037]
    assert not any(sink.data[:11]) and not any(sink.data[5011:])
    assert not host.peer.counts
    await stop(b, host)


SIZES = (0, 1, 3, 4, 31, 32, 33, 64, 96, 97, 1423, 1424, 1425, 1428, 1429, 4096, 20_000)


async def mixture(b, host, link, rng, count):
    """Writes and Sends of all sizes, lists and flags, in order; memory and completions as they must be."""
    source = await b.device.reg_mr(link.pd, 65536, Access.LOCAL_WRITE)
    data = rng.randbytes(65536)
    source.buffer.write(0, data)
    sink = host.peer.reg_mr(host.pd, 1 << 18, PeerAccess.ALL)
    inbox = host.peer.reg_mr(host.pd, 1 << 20, PeerAccess.ALL)
    image, inboxes, expected, at, posted = bytearray(1 << 18), [], [], 0, []
    for n in range(count):
        size = rng.choice(SIZES)
        begin = rng.randrange(65536 - size)
        what = data[begin:begin + size]
        if size <= 96 and rng.random() < 0.3:
            sges = what
        else:
            cuts = sorted(rng.randint(0, size) for _ in range(rng.choice((0, 0, 1, 3))))
            ends = [0, *cuts, size]
            sges = [source.sge(begin + x, y - x) for x, y in pairwise(ends)]
        flags = rng.choice([SendFlags.SIGNALED, SendFlags.SIGNALED, SendFlags(0)]) if n < count - 1 else SendFlags.SIGNALED
        if rng.random() < 0.5:
            to = at + rng.randrange(16)
            if to + size > len(image):
                continue
            image[to:to + size] = what
            at = to + size
            wr = SendWr(SendOpcode.RDMA_WRITE, sges, n, flags, rkey=sink.rkey, remote_addr=sink.base + to)
            opcode = WcOpcode.RDMA_WRITE
        else:
            solicited = rng.choice([SendFlags(0), SendFlags.SOLICITED])
            place = 32768 * len(inboxes)
            link.peer.post_recv([inbox.sge(place, 32768)], wr_id=n)
            inboxes.append((n, place, what))
            wr = SendWr(SendOpcode.SEND, sges, n, flags | solicited)
            opcode = WcOpcode.SEND
        posted.append(wr)
        if flags & SendFlags.SIGNALED:
            expected.append((n, opcode))
    done, waiting = [], list(posted)
    while waiting or len(done) < len(expected):
        batch = waiting[:rng.randint(1, 5)]
        before = len(waiting)
        for wr in batch:
            try:
                await b.device.post_send(link.card, [wr])
            except OSError:
                break
            waiting.pop(0)
        found = await host.completions(link, 1, 400 if len(waiting) != before else 60_000)
        assert found or len(waiting) != before, (len(done), len(expected), len(waiting))
        done += [(c["wr_id"], WcOpcode(c["opcode"]), WcStatus(c["status"])) for c in found]
    assert done == [(n, opcode, WcStatus.SUCCESS) for n, opcode in expected]
    assert bytes(sink.data) == bytes(image)
    received = [c for c in host.peer.poll_cq() if c.qp is link.peer]
    assert [(c.wr_id, c.byte_len) for c in received] == [(n, len(what)) for n, _, what in inboxes]
    for _, place, what in inboxes:
        assert bytes(inbox.data[place:place + len(what)]) == what


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def a_mixture_arrives(dut, stall):
    b, host = await start(dut, stall=stall, gap=stall)
    link = await host.connect(max_send_wr=16, tcp=TcpSettings(delayed_ack=20_000))
    await mixture(b, host, link, random.Random(f"mix {stall}"), 25)
    assert (await b.counters("tx_retransmitted", "tx_dropped", "tx_timeouts")) == (0, 0, 0)
    await stop(b, host)


@cocotb.test()
async def a_mixture_survives_loss(dut):
    """4 % of all frames lost both ways, two at the start for certain, some doubled, late, or damaged on the wire."""
    bad = Impairments(loss=0.04, reorder=0.02, duplicate=0.02, corrupt=0.02, delay=5000, late=20_000)
    once = [Rule("drop", data_segment, nth=n) for n in (3, 20)]
    b, host = await start(dut, wires={"to_peer": bad, "to_card": bad, "rules": (once, ()), "seed": 3})
    link = await host.connect(max_send_wr=32, tcp=TcpSettings(rto_min=400_000))
    await mixture(b, host, link, random.Random("lossy"), 25)
    assert (await b.counters("tx_retransmitted"))[0] > 0
    await stop(b, host)


@cocotb.test()
async def one_lost_segment_is_missed_at_the_third_duplicate_ack(dut):
    b, host = await start(dut, wires={"rules": ([Rule("drop", data_segment, nth=3)], ())})
    link = await host.connect()
    source = await b.device.reg_mr(link.pd, 14_000, Access.LOCAL_WRITE)
    data = random.Random(5).randbytes(14_000)
    source.buffer.write(0, data)
    sink = host.peer.reg_mr(host.pd, 14_000, PeerAccess.ALL)
    await b.device.post_send(link.card, [SendWr(SendOpcode.RDMA_WRITE, [source.sge(0, 14_000)], "w", rkey=sink.rkey,
                                                remote_addr=sink.base)])
    assert [c["status"] for c in await host.completions(link, 1)] == [WcStatus.SUCCESS]
    assert bytes(sink.data) == data
    assert await b.counters("tx_fast_retransmits") == (1,)
    await stop(b, host)


@cocotb.test()
async def a_responder_waits(dut):
    """Its Sends leave once the peer's first FPDU has come, and not before (RFC 5044 7.1.2)."""
    b, host = await start(dut)
    link = await host.connect(initiator=False)
    inbox = host.peer.reg_mr(host.pd, 64, PeerAccess.ALL)
    link.peer.post_recv([inbox.sge(0, 64)], wr_id=7)
    await b.device.post_send(link.card, [SendWr(SendOpcode.SEND, b"hello", 1)])
    assert not await host.completions(link, 1, 5000)
    assert (await b.counters("tx_segments")) == (0,)
    target = await b.device.reg_mr(link.pd, 64, Access.LOCAL_WRITE | Access.REMOTE_WRITE)
    link.peer.post_send(Opcode.RDMA_WRITE, [], rkey=target.rkey, remote_addr=target.base)
    assert len(await host.completions(link, 1)) == 1
    assert bytes(inbox.data[:5]) == b"hello"
    await stop(b, host)


@cocotb.test()
async def a_wrong_lkey_ends_its_stream_alone(dut):
    """Nothing of it is sent; event, flush in order; another connection goes on."""
    b, host = await start(dut)
    good, bad = await host.connect(), await host.connect()
    other = await b.device.reg_mr(good.pd, 4096, Access.LOCAL_WRITE)
    inbox = host.peer.reg_mr(host.pd, 4096, PeerAccess.ALL)
    for n in range(3):
        bad.peer.post_recv([inbox.sge(0, 4096)], wr_id=n)
    await b.device.post_send(bad.card, [
        SendWr(SendOpcode.SEND, b"first", 0),
        SendWr(SendOpcode.SEND, [Sge(other.base, 100, other.lkey)], 1),            # of another protection domain
        SendWr(SendOpcode.SEND, b"third", 2)])
    event = await b.event()
    assert (event["type"], event["reason"], event["qpn"]) == (EventType.QP_ERROR, Reason.SOURCE_ACCESS, bad.card.number)
    await b.device.flush(bad.card)
    done = await host.completions(bad, 3)
    assert [c["wr_id"] for c in done] == [0, 1, 2] and done[1]["status"] == done[2]["status"] == WcStatus.WR_FLUSH_ERR
    assert not [c for c in host.peer.poll_cq() if c.byte_len == 100]
    await mixture(b, host, good, random.Random(5), 8)
    await b.device.destroy_qp(bad.card)
    await stop(b, host)


@cocotb.test()
async def a_removed_qp_sends_nothing_more(dut):
    """REMOVE in mid-transfer; its number is used again at once by another connection."""
    b, host = await start(dut)
    for _ in range(3):
        link = await host.connect()
        source = await b.device.reg_mr(link.pd, 65536, Access.LOCAL_WRITE)
        sink = host.peer.reg_mr(host.pd, 65536, PeerAccess.ALL)
        await b.device.post_send(link.card, [SendWr(SendOpcode.RDMA_WRITE, [source.sge(0, 60_000)], n, rkey=sink.rkey,
                                                    remote_addr=sink.base) for n in range(8)])
        await b.cycles(1500)
        await b.device.destroy_qp(link.card)
        before, = await b.counters("tx_segments")
        await b.cycles(3000)
        assert (await b.counters("tx_segments")) == (before,)
    link = await host.connect()
    await mixture(b, host, link, random.Random(6), 6)
    await stop(b, host)


@cocotb.test()
async def small_messages_of_many(dut):
    """All QPs at once, both directions."""
    b, host = await start(dut, wires={"step": 20})
    links = [await host.connect(max_send_wr=16, qp=QpSettings()) for _ in range(min(CONFIG.qps, 16))]
    sinks = [host.peer.reg_mr(host.pd, 4096, PeerAccess.ALL) for _ in links]
    targets = [await b.device.reg_mr(link.pd, 4096, Access.LOCAL_WRITE | Access.REMOTE_WRITE) for link in links]
    for n, (link, sink, target) in enumerate(zip(links, sinks, targets, strict=True)):
        target.buffer.write(0, bytes([n + 1]) * 2048)
        own = host.peer.reg_mr(host.pd, bytearray([n + 101]) * 2048, PeerAccess.ALL)
        for k in range(8):
            link.peer.post_send(Opcode.RDMA_WRITE, [own.sge(256 * k, 256)], rkey=target.rkey,
                                remote_addr=target.base + 2048 + 256 * k)
        await b.device.post_send(link.card, [SendWr(SendOpcode.RDMA_WRITE, [target.sge(256 * k, 256)], k, rkey=sink.rkey,
                                                    remote_addr=sink.base + 256 * k) for k in range(8)])
    for n, (link, sink, target) in enumerate(zip(links, sinks, targets, strict=True)):
        assert [c["wr_id"] for c in await host.completions(link, 8)] == list(range(8))
        assert bytes(sink.data[:2048]) == bytes([n + 1]) * 2048
        assert await b.until(lambda peer=link.peer: peer.idle, 100_000)
        await b.device.fence()
        assert target.buffer.read(2048, 2048) == bytes([n + 101]) * 2048
    assert abi.nbytes(abi.SendWqe) == 64
    await stop(b, host)
