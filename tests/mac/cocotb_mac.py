"""cocotb side of ``test_mac_cocotb``: XGMII source and sink of cocotbext-eth; runs inside the Verilog simulator."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.eth import XgmiiFrame, XgmiiSink, XgmiiSource

from emplace_sim.cocotb_stream import PacketSink, PacketSource

LENGTHS = [*range(1, 131), 1513, 1514]


async def reset(dut):
    dut.rst.value = 1
    Clock(dut.clk, 6400, unit="ps").start()
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
@cocotb.parametrize(ifg=[5, 12, 13], offset=[False, True])
async def receives(dut, ifg, offset):
    rng = random.Random(1)
    source = XgmiiSource(dut.xgmii_rx__d, dut.xgmii_rx__c, dut.clk, dut.rst)
    source.ifg, source.force_offset_start = ifg, offset
    sink = PacketSink(dut, "rx", 8)
    await reset(dut)
    frames = [rng.randbytes(n).ljust(60, b"\0") for n in LENGTHS]
    for frame in frames:
        wire = XgmiiFrame.from_payload(frame)
        bad = rng.random() < 0.2
        if bad:
            wire.data[rng.randrange(8, len(wire.data))] ^= 0x40
        await source.send(wire)
        got, err = await with_timeout(sink.recv(), 10, "us")
        assert err == bad and (bad or got == frame)


@cocotb.test()
async def receives_back_to_back(dut):
    rng = random.Random(2)
    source = XgmiiSource(dut.xgmii_rx__d, dut.xgmii_rx__c, dut.clk, dut.rst)
    sink = PacketSink(dut, "rx", 8)
    await reset(dut)
    frames = [rng.randbytes(rng.randrange(60, 90)) for _ in range(200)]
    for frame in frames:
        source.send_nowait(XgmiiFrame.from_payload(frame))
    dut.rx__ready.value = 1
    got, cycles = [], 0
    words = []
    while len(got) < len(frames):
        await RisingEdge(dut.clk)
        cycles += 1
        assert cycles < 200 * 14
        if dut.rx__valid.value:
            word = sink.layout.from_bits(int(dut.rx__payload.value))
            words.append(int(word.data).to_bytes(8, "little")[:8 - int(word.empty)])
            if word.last:
                assert not word.err
                got.append(b"".join(words))
                words = []
    assert got == frames


@cocotb.test()
@cocotb.parametrize(pause=[0, 20])
async def transmits(dut, pause):
    rng = random.Random(3)
    source = PacketSource(dut, "tx", 8)
    sink = XgmiiSink(dut.xgmii_tx__d, dut.xgmii_tx__c, dut.clk, dut.rst)
    await reset(dut)
    packets = [(rng.randbytes(n), rng.random() < 0.1) for n in LENGTHS]

    async def feed():
        for packet, err in packets:
            for _ in range(rng.randrange(pause + 1)):
                await RisingEdge(dut.clk)
            await source.send(packet, err=err)

    cocotb.start_soon(feed())
    lanes = set()
    for packet, err in packets:
        frame = await with_timeout(sink.recv(), 10, "us")
        lanes.add(frame.start_lane)
        if err:
            assert frame.ctrl is not None and any(frame.ctrl)
        else:
            assert frame.ctrl is None and frame.check_fcs() and frame.get_payload() == packet.ljust(60, b"\0")
    assert lanes == {0, 4}
