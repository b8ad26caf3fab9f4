"""Slots under pressure: every connection finishes, or, past its lease, ends alone. Runs inside the simulator.

Ref: docs/architecture.md, "Slots".
"""

import os
import random

import cocotb

from emplace.abi import EventType, Reason
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.system import Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
#: One slot is in arrival's hand, one is being walked, and more than the reserve stay free.
HOLDABLE = CONFIG.slots - CONFIG.slot_reserve - 2


async def links(b, count, **more):
    """``count`` connections on one CQ, each with a region and one Write's FPDU."""
    made, cq, pd = [], await b.device.create_cq(64), b.device.alloc_pd()
    rng = random.Random(count)
    for n in range(count):
        link = await b.connect(cq=cq, pd=pd, max_recv_wr=0, **more)
        region = await b.region(link, 2048)
        data = rng.randbytes(600 + n)
        made.append((link, region, data, link.fpdu(sender.write(region.rkey, region.base, data))))
    return made


async def landed(b, region, data):
    await b.device.fence()
    return region.buffer.read(0, len(data)) == data


@cocotb.test()
async def every_slot_unfinished_and_all_finish(dut):
    """As many QPs as can hold a slot have half an FPDU; the halves are acknowledged; then all end."""
    b = await Bench(dut, CONFIG).start()
    made = await links(b, min(HOLDABLE, CONFIG.qps))
    for link, _, _, fpdu in made:
        link.send(fpdu[:400])
    for link, *_ in made:
        assert await link.acknowledged(), "half an FPDU was not acknowledged"
    random.Random(1).shuffle(made)
    for link, region, data, fpdu in made:
        # One after the other: with slots this short, frames back to back may be dropped, and peers send them again.
        link.send(fpdu[400:])
        assert await link.acknowledged()
        assert await landed(b, region, data)
    b.check()
    await b.stop()


@cocotb.test()
async def aligned_traffic_goes_on_while_all_slots_are_unfinished(dut):
    b = await Bench(dut, CONFIG).start()
    made = await links(b, min(HOLDABLE, CONFIG.qps - 1) + 1)
    *holders, (free, region, data, fpdu) = made
    for link, _, _, half in holders:
        link.send(half[:400])
    for link, *_ in holders:
        assert await link.acknowledged()
    free.send(fpdu)
    assert await free.acknowledged()
    assert await landed(b, region, data)
    b.check()
    await b.stop()


@cocotb.test()
async def past_its_lease_an_unfinished_fpdu_costs_its_connection(dut):
    """Only where QPs outnumber slots: one that was refused a slot is let in once a lease has ended with
    SLOT_LEASE; whoever was not ended finishes, and nobody else is hurt."""
    if CONFIG.qps <= HOLDABLE:
        return
    b = await Bench(dut, CONFIG).start(tick=100, lease=200)
    made = await links(b, HOLDABLE + 1)
    *holders, (late, region, data, fpdu) = made
    for link, _, _, half in holders:
        link.send(half[:400])
    for link, *_ in holders:
        assert await link.acknowledged()
    late.send(fpdu[:400])
    assert not await late.acknowledged(2000), "no slot was left, and yet it was acknowledged"
    event = await b.event(60000)
    assert event is not None, "no lease ended"
    assert (event["type"], event["reason"]) == (EventType.QP_ERROR, Reason.SLOT_LEASE)
    assert event["qpn"] != late.qp.number
    # What was not acknowledged is sent again, as any TCP does.
    late.flow.seq -= 400
    late.send(fpdu)
    assert await late.acknowledged()
    assert await landed(b, region, data)
    ended = {event["qpn"]}
    while (event := await b.device.get_async_event()) is not None:
        assert event["reason"] == Reason.SLOT_LEASE
        ended.add(event["qpn"])
    assert len(ended) <= 2, "more leases ended than slots were needed"
    for link, other, expected, whole in holders:
        if link.qp.number not in ended:
            link.send(whole[400:])
            assert await link.acknowledged()
            assert await landed(b, other, expected)
    b.check()
    await b.stop()


@cocotb.test()
async def held_segments_give_way(dut):
    """One peer leaves as many holes as it can; the others are not hurt, and it finishes too when it resends."""
    b = await Bench(dut, CONFIG).start()
    made = await links(b, 5)
    (greedy, region, _, _), others = made[0], made[1:]
    data = random.Random(9).randbytes(40 * 40)
    stream = b"".join(greedy.fpdu(sender.write(region.rkey, region.base + at, data[at:at + 40]))
                      for at in range(0, len(data), 40))
    frames = greedy.flow.cut(stream, 64)
    for frame in frames[1:]:
        b.put(frame)
    for link, _, _, fpdu in others:
        link.send(fpdu[:300])
        link.send(fpdu[300:])
    for link, other, expected, _ in others:
        assert await link.acknowledged()
        assert await landed(b, other, expected)
    for frame in frames:
        b.put(frame)
    assert await greedy.acknowledged()
    assert await landed(b, region, data)
    b.check()
    await b.stop()


@cocotb.test()
async def crc_alone_lost_and_sent_again(dut):
    """Linux siw sends the CRC as a segment of its own. With every slot taken, that segment is lost, comes
    again, and the FPDU is placed."""
    b = await Bench(dut, CONFIG).start()
    made = await links(b, min(HOLDABLE, CONFIG.qps))
    for link, _, _, fpdu in made:
        link.send(fpdu[:-4])
    for link, *_ in made:
        assert await link.acknowledged()
    link, region, data, fpdu = made[3]
    lost = link.flow.push(fpdu[-4:])
    await b.cycles(4000)
    assert not await link.acknowledged(8)
    b.put(lost)
    assert await link.acknowledged()
    assert await landed(b, region, data)
    b.check()
    await b.stop()


@cocotb.test()
async def slots_come_back_when_a_stream_fails(dut):
    """A stream that fails with an unfinished FPDU and held segments gives all its slots back."""
    b = await Bench(dut, CONFIG).start()
    cq, pd = await b.device.create_cq(64), b.device.alloc_pd()
    for _ in range(3 * CONFIG.slots):
        link = await b.connect(cq=cq, pd=pd, max_recv_wr=0)
        fpdu = link.fpdu(sender.write(0x77777700, 0, bytes(100)))
        link.flow.push(bytes(10))                # never sent: what follows is out of order
        b.put(link.flow.push(bytes(64)))
        link.flow.seq -= 74
        b.put(link.flow.push(fpdu + b"\0\x40"))  # bad STag, and the beginning of another FPDU
        event = await b.event()
        assert event and event["reason"] == Reason.STAG, event
        await b.device.destroy_qp(link.qp)
    good = await links(b, 1)
    link, region, data, fpdu = good[0]
    link.send(fpdu)
    assert await link.acknowledged()
    assert await landed(b, region, data)
    b.check()
    await b.stop()
