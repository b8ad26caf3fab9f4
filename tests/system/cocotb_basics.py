"""The first things that must hold of the whole card; runs inside the simulator."""

import os
import random
import tempfile
from pathlib import Path

import cocotb

from emplace import abi
from emplace.abi import Access, EventType, Reason, WcOpcode, WcStatus
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.driver import AdminError, Sge
from emplace_sim.system import Bench
from emplace_sim.tshark import MISSING, read

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]


async def bench(dut, **more):
    return await Bench(dut, CONFIG, **more).start()


@cocotb.test()
async def counters_start_at_zero(dut):
    b = await bench(dut)
    found = await b.counters()
    assert all(value == 0 for name, value in found.items() if not name.startswith(("tx_", "commands"))), found
    await b.device.fence()
    b.check()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(crc=[True, False], timestamps=[True, False], vlan=[None, 0x6005])
async def a_write_lands(dut, crc, timestamps, vlan):
    b = await bench(dut)
    link = await b.connect(crc=crc, timestamps=timestamps, vlan=vlan)
    region = await b.region(link, 8192)
    data = random.Random(1).randbytes(1000)
    link.send(link.fpdu(sender.write(region.rkey, region.base + 37, data)))
    assert await link.acknowledged()
    await b.device.fence()
    assert region.buffer.read(37, 1000) == data
    assert region.buffer.read(0, 37) == bytes([0xCC]) * 37
    b.check()
    await b.stop()


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def a_stream_of_everything_lands(dut, stall):
    """Writes and Sends, split over segments as they come, against what they should leave."""
    rng = random.Random(7)
    b = await bench(dut, stall=stall, gap=stall)
    link = await b.connect(max_recv_wr=64)
    region = await b.region(link, 50000)
    inbox = await b.region(link, 64 * 1024, Access.LOCAL_WRITE)
    image, stream, expected = bytearray([0xCC]) * 50000, b"", []
    await b.device.post_recv(link.qp, [([inbox.sge(1024 * n, 1024)], n) for n in range(60)])
    for n in range(60):
        data = rng.randbytes(rng.choice([1, 4, 63, 64, 700, 1400]))
        at = rng.randrange(50000 - len(data))
        image[at:at + len(data)] = data
        stream += link.fpdu(sender.write(region.rkey, region.base + at, data))
        message = rng.randbytes(rng.choice([0, 1, 16, 512, 1024]))
        expected.append(message)
        stream += link.fpdu(sender.send(n + 1, message, solicited=n % 2))
    assert await link.deliver(stream, mss=1000)      # the smallest card may drop some of it at this rate
    done = await b.completions(link, 60, cycles=60000)
    assert [(c["wr_id"], c["byte_len"], c["status"], c["opcode"], c["solicited"]) for c in done] == \
        [(n, len(m), WcStatus.SUCCESS, WcOpcode.RECV, n % 2) for n, m in enumerate(expected)]
    for n, message in enumerate(expected):
        assert inbox.buffer.read(1024 * n, len(message)) == message
    assert await link.acknowledged()
    await b.device.fence()
    assert region.buffer.read() == bytes(image)
    b.check()
    await b.stop()


@cocotb.test()
async def a_bad_stag_ends_its_stream_alone(dut):
    b = await bench(dut)
    bad, good = await b.connect(), await b.connect()
    region = await b.region(good, 4096)
    bad.send(bad.fpdu(sender.write(region.rkey, region.base, b"stranger")))     # other PD
    event = await b.event()
    assert (event["type"], event["reason"], event["qpn"]) == (EventType.QP_ERROR, Reason.STAG_PD, bad.qp.number)
    assert event["terminate"] == abi.TERMINATE[Reason.STAG_PD]
    good.send(good.fpdu(sender.write(region.rkey, region.base, b"friend")))
    assert await good.acknowledged()
    await b.device.fence()
    assert region.buffer.read(0, 8) == b"friend\xcc\xcc"
    assert await b.counters("err_stag_pd") == (1,)
    b.check()
    await b.stop()


@cocotb.test()
async def out_of_order_segments_are_held(dut):
    rng = random.Random(3)
    b = await bench(dut)
    link = await b.connect()
    region = await b.region(link, 16384)
    data = rng.randbytes(9000)
    stream = b"".join(link.fpdu(sender.write(region.rkey, region.base + at, data[at:at + 1400], last=at + 1400 >= 9000))
                      for at in range(0, 9000, 1400))
    frames = link.flow.cut(stream, 1100)
    first, rest = frames[0], frames[1:]
    rng.shuffle(rest)
    for frame in rest + [first]:
        b.put(frame)
    assert await link.acknowledged()
    await b.device.fence()
    assert region.buffer.read(0, 9000) == data
    held, = await b.counters("rx_held")
    assert held == len(rest)
    b.check()
    await b.stop()


@cocotb.test()
async def admin_errors_are_told(dut):
    b = await bench(dut)
    link = await b.connect()
    for command, fields, status in (
            (abi.Opcode.REMOVE_QP, {"qpn": link.qp.number ^ 1 << 20}, abi.Status.BAD_QPN),
            (abi.Opcode.INVALIDATE, {"stag": 0x12345678}, abi.Status.BAD_STAG),
            (abi.Opcode.DESTROY_CQ, {"cq": link.cq.number}, abi.Status.BAD_CQ)):
        try:
            await b.device.command(command, **fields)
        except AdminError as error:
            assert error.status is status, error
        else:
            raise AssertionError(f"{command.name} was not refused")
    b.check()
    await b.stop()


@cocotb.test()
async def a_flush_completes_every_receive(dut):
    b = await bench(dut)
    link = await b.connect()
    region = await b.region(link, 4096)
    await b.device.post_recv(link.qp, [([Sge(region.base, 16, region.lkey)], n) for n in range(9)])
    link.send(link.fpdu(sender.send(1, b"hello")))
    assert [c["status"] for c in await b.completions(link, 1)] == [WcStatus.SUCCESS]
    await b.device.flush(link.qp)
    done = await b.completions(link, 8)
    assert [(c["wr_id"], c["status"]) for c in done] == [(n, WcStatus.WR_FLUSH_ERR) for n in range(1, 9)]
    event = await b.event()
    assert (event["type"], event["qpn"]) == (EventType.LAST_WQE, link.qp.number)
    await b.device.destroy_qp(link.qp)
    b.check()
    await b.stop()


@cocotb.test(skip=bool(MISSING))
async def wireshark_knows_the_fpdus(dut):
    """The tap begins with start-ups that might have been, so FPDUs are dissected: of several connections at once."""
    with tempfile.TemporaryDirectory() as folder:
        b = await bench(dut, pcapng=Path(folder) / "wire.pcapng")
        links = [await b.connect(crc=crc, timestamps=timestamps, vlan=vlan, seq=seq) for crc, timestamps, vlan, seq in
                 ((True, True, None, 1000), (True, False, 0x6005, 20), (False, True, None, 0xFFFFFFF0))]
        for link in links:
            region = await b.region(link, 8192)
            link.send(b"".join(link.fpdu(sender.write(region.rkey, region.base + at, bytes(500)))
                               for at in range(0, 5000, 500)))
            assert await link.acknowledged()
        b.check()
        await b.stop()
        seen = read(Path(folder) / "wire.pcapng")
    assert (seen.opcodes, seen.good, seen.bad, seen.wrong) == ([0] * 30, 20, 0, []), seen
