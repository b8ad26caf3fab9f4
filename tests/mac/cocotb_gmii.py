"""cocotb side of ``test_mac_cocotb``: GMII source and sink of cocotbext-eth; runs inside the Verilog simulator."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource

from emplace_sim.cocotb_stream import PacketSink, PacketSource

LENGTHS = [*range(1, 70), 127, 128, 1514]


async def enables(dut, every):
    """A byte in each ``every``-th cycle; receive and transmit at different times."""
    cycle = 0
    while True:
        await RisingEdge(dut.clk)
        dut.gmii_rx_enable.value = cycle % every == 0
        dut.gmii_tx_enable.value = cycle % every == every - 1
        cycle += 1


async def reset(dut, every):
    dut.rst.value = 1
    dut.gmii_rx__d.value = dut.gmii_rx__dv.value = dut.gmii_rx__er.value = 0
    dut.gmii_rx_enable.value = dut.gmii_tx_enable.value = 0
    dut.tx__valid.value = dut.rx__ready.value = 0
    Clock(dut.clk, 8, unit="ns").start()
    cocotb.start_soon(enables(dut, every))
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
@cocotb.parametrize(ifg=[2, 12], every=[1, 3])
async def receives(dut, ifg, every):
    rng = random.Random(1)
    source = GmiiSource(dut.gmii_rx__d, dut.gmii_rx__er, dut.gmii_rx__dv, dut.clk, dut.rst, dut.gmii_rx_enable)
    source.ifg = ifg
    sink = PacketSink(dut, "rx", 8)
    await reset(dut, every)
    for length in LENGTHS:
        frame = rng.randbytes(length).ljust(60, b"\0")
        wire = GmiiFrame.from_payload(frame)
        kind = rng.choice(["good", "good", "good", "flipped", "error"])
        if kind == "flipped":
            wire.data[rng.randrange(8, len(wire.data))] ^= 0x40
        elif kind == "error":
            wire.error = [0] * len(wire.data)
            wire.error[rng.randrange(8, len(wire.data))] = 1
        await source.send(wire)
        got, err = await with_timeout(sink.recv(), 200, "us")
        assert err == (kind != "good") and (err or got == frame)


@cocotb.test()
@cocotb.parametrize(pause=[0, 200], every=[1, 3])
async def transmits(dut, pause, every):
    rng = random.Random(3)
    source = PacketSource(dut, "tx", 8)
    sink = GmiiSink(dut.gmii_tx__d, dut.gmii_tx__er, dut.gmii_tx__dv, dut.clk, dut.rst, dut.gmii_tx_enable)
    await reset(dut, every)
    packets = [(rng.randbytes(n), rng.random() < 0.1) for n in LENGTHS]

    async def feed():
        for packet, err in packets:
            for _ in range(rng.randrange(pause + 1)):
                await RisingEdge(dut.clk)
            await source.send(packet, err=err)

    cocotb.start_soon(feed())
    for packet, err in packets:
        frame = await with_timeout(sink.recv(), 200, "us")
        assert frame.get_preamble_len() == 7         # the model leaves the first byte of eight out
        if err:
            assert frame.error is not None and any(frame.error)
        else:
            assert frame.error is None and frame.check_fcs() and frame.get_payload() == packet.ljust(60, b"\0")
