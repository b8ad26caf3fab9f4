"""A card that is reset in the midst of everything is as new. Runs inside the simulator."""

import os
import random

import cocotb

from emplace import abi
from emplace.abi import Access, EventType, Reason, WcOpcode, WcStatus
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.driver import AdminError
from emplace_sim.system import ALL_RIGHTS, Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
HOLDABLE = CONFIG.slots - CONFIG.slot_reserve - 2       # ip has one in hand, and the walk
LAST_SLOT = CONFIG.regions - 1 << 8 | 0x5A        # an STag of the table's last slot


async def links(b):
    """A connection on every QP, each with a CQ and a region of its own; the last region has the table's last slot."""
    pd, made = b.device.alloc_pd(), []
    for n in range(CONFIG.qps):
        link = await b.connect(pd=pd, cq_entries=16)
        stag = LAST_SLOT if n == CONFIG.qps - 1 else None
        made.append((link, await b.region(link, 4096, ALL_RIGHTS | Access.REMOTE_INVALIDATE, stag=stag)))
    return made


async def mess(b, after):
    """Leave something in every table, and stop ``after`` cycles into traffic, with a command under way."""
    rng = random.Random(after)
    made = await links(b)
    unfinished, held, rest = made[:HOLDABLE // 2], made[HOLDABLE // 2:HOLDABLE - 2], made[HOLDABLE - 2:]
    for link, region in unfinished:
        link.send(link.fpdu(sender.write(region.rkey, region.base, bytes(600)))[:400])
    for link, *_ in unfinished:
        assert await link.acknowledged()
    for link, region in held:
        frames = link.flow.cut(link.fpdu(sender.write(region.rkey, region.base, bytes(600))), 300)
        b.put(frames[1])
    for link, region in rest:
        await b.device.post_recv(link.qp, [([region.sge(n * 64, 64)], n) for n in range(8)])
        await b.device.expect_read(link.qp, region.lkey, region.base, 1000, wr_id=1)
        link.send(link.fpdu(sender.send(1, bytes(60))) + link.fpdu(sender.send(2, bytes(20), last=False))
                  + link.fpdu(sender.read_response(region.rkey, region.base, bytes(300), last=False)))
    for link, *_ in rest:
        assert await link.acknowledged()
    (link, region), (foe, _) = made[-2:]                   # an STag that its peer invalidates, a stream that ends
    link.send(link.fpdu(sender.send(2, bytes(20), mo=20)) + link.fpdu(sender.send(3, b"", invalidate=region.rkey)))
    foe.send(foe.fpdu(sender.write(0x77777700, 0, b"nobody's")))
    assert await link.acknowledged()
    assert (await b.event())["reason"] == Reason.STAG
    for link, region in rest[:-2] * 2:
        link.send(link.fpdu(sender.write(region.rkey, region.base, rng.randbytes(1400))), mss=rng.choice([200, 1000]))
    for _ in range(4):
        await b.device.post_recv(rest[0][0].qp, [[]])
    command = cocotb.start_soon(b.device.destroy_qp(rest[1][0].qp))
    await b.cycles(after)
    command.cancel()
    b.device.bus = None                                    # whatever comes now is not its business
    await b.stop()
    return made


async def fresh_counters(b):
    found = await b.counters()
    assert not any(value for name, value in found.items() if not name.startswith(("tx_", "commands"))), found


async def life(b):
    """Use all there is; everything that is seen of the card, with its cycle."""
    begin, b.keep_frames = b.cycle(), True
    await fresh_counters(b)
    made, rng = await links(b), random.Random(1)
    data = [rng.randbytes(600 + n) for n in range(len(made))]
    fpdus = [link.fpdu(sender.write(region.rkey, region.base, octets))
             for (link, region), octets in zip(made, data, strict=True)]
    holders = list(zip(made, fpdus, strict=True))[:min(HOLDABLE, CONFIG.qps)]
    for (link, _), fpdu in holders:
        link.send(fpdu[:400])
        assert await link.acknowledged(), "a slot is missing"
    for (link, _), fpdu in holders:
        link.send(fpdu[400:])            # one by one: no frame is lost, for nobody would send it again
        assert await link.acknowledged()
    for (link, _), fpdu in list(zip(made, fpdus, strict=True))[len(holders):]:
        last, *others = reversed(link.flow.cut(fpdu, 200))
        for frame in [last, *others]:
            b.put(frame)
        assert await link.acknowledged()
    await b.device.fence()
    for (_, region), octets in zip(made, data, strict=True):
        assert region.buffer.read(0, len(octets) + 1) == octets + b"\xcc"
    for link, region in made:
        await b.device.post_recv(link.qp, [([region.sge(2000 + n * 64, 64)], n) for n in range(3)])
        await b.device.expect_read(link.qp, region.lkey, region.base + 3000, 500, wr_id=7)
        link.send(link.fpdu(sender.send(1, bytes(range(40)), last=False)) + link.fpdu(sender.send(1, b"end", mo=40))
                  + link.fpdu(sender.read_response(region.rkey, region.base + 3000, data[0][:500]))
                  + link.fpdu(sender.send(2, b"", invalidate=region.rkey)))
        done = await b.completions(link, 3)
        assert [(c["wr_id"], c["byte_len"], c["status"], c["opcode"]) for c in done] == [
            (0, 43, WcStatus.SUCCESS, WcOpcode.RECV), (7, 500, WcStatus.SUCCESS, WcOpcode.RDMA_READ),
            (1, 0, WcStatus.SUCCESS, WcOpcode.RECV)]
        assert region.buffer.read(2000, 44) == bytes(range(40)) + b"end\xcc"
        assert region.buffer.read(3000, 500) == data[0][:500]
    uploads = [await b.device.upload(link.qp) for link, _ in made]
    assert await b.event(cycles=500) is None, "an event of before the reset"
    link, region = made[0]
    link.send(link.fpdu(sender.write(region.rkey, region.base, b"late")))
    event = await b.event()
    assert (event["type"], event["reason"], event["qpn"]) == (EventType.QP_ERROR, Reason.STAG, link.qp.number)
    counters = await b.counters()
    b.check()
    log = [line.split(None, 1) for line in b.bus.log]
    return [counters, uploads, b.frames, [(int(at) - begin * 8, what) for at, what in log]]


@cocotb.test()
async def it_lives_as_a_fresh_card_does(dut):
    """After each of several resets, cycle for cycle what a card does that has never been used: TLPs, ACKs, counters.
    (The first test of a simulation: its card is fresh.)"""
    b = await Bench(dut, CONFIG).start()
    fresh = await life(b)
    await b.stop()
    for after in (1, 90, 700):
        b = await Bench(dut, CONFIG).start()
        await mess(b, after)
        b = await Bench(dut, CONFIG).start()
        for was, now in zip(fresh, await life(b), strict=True):
            assert now == was
        await b.stop()


async def refused(b, status, command, **fields):
    try:
        await b.device.command(command, **fields)
    except AdminError as error:
        assert error.status is status, error
    else:
        raise AssertionError(f"{command.name} of before the reset was carried out: {fields}")


@cocotb.test()
async def nothing_is_known_any_more(dut):
    """Nobody knows the QPs, CQs and STags of before; their doorbells and frames are refused, and counted."""
    b = await Bench(dut, CONFIG).start()
    made = await mess(b, 300)
    b = await Bench(dut, CONFIG).start()
    await fresh_counters(b)
    for link, region in made:
        await refused(b, abi.Status.BAD_QPN, abi.Opcode.UPLOAD_QP, qpn=link.qp.number, address=b.device._sq.address)
        await refused(b, abi.Status.BAD_CQ, abi.Opcode.DESTROY_CQ, cq=link.cq.number)
        await refused(b, abi.Status.BAD_STAG, abi.Opcode.INVALIDATE, stag=region.lkey)
    for link, _ in made:
        await b.device._ring(0, abi.Doorbell.RQ, link.qp.number, 1)
        await b.device._ring(0, abi.Doorbell.CQ, link.cq.number, 1)
        b.put(link.flow.push(b"late"))
    await b.cycles(3000)
    assert await b.counters("doorbell_refused") == (2 * len(made),)
    assert await b.event(cycles=500) is None
    b.keep_frames = True
    peer = await b.connect()
    peer.send(peer.fpdu(sender.write(made[0][1].rkey, made[0][1].base, b"old")))
    assert (await b.event())["reason"] == Reason.STAG
    b.check()
    await b.stop()


@cocotb.test()
async def what_comes_too_early_waits(dut):
    """A command and a doorbell in the first cycles behind a reset: the one is carried out, the other refused."""
    b = await Bench(dut, CONFIG).start()
    link = await b.connect()
    await b.stop()
    b = Bench(dut, CONFIG)
    for _ in range(3):                   # they wait at the card's door when the reset ends
        await b.bus.write64(abi.DOORBELL_PAGE + abi.Doorbell.RQ, link.qp.number | 1 << 32)
    await b.start()
    await b.device.fence()
    assert await b.counters("doorbell_refused") == (3,)
    await b.connect()
    b.check()
    await b.stop()
