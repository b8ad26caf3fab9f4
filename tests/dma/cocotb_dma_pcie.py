"""cocotb tests of ``DmaBench`` behind cocotbext-pcie's RootComplex."""

import dataclasses
import logging
import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.pcie.core import RootComplex

from emplace.abi import counter_layout
from emplace.config import PROFILES
from emplace.dma.records import ReadRequest, ReadWord, WriteCommand, WriteKind
from emplace_sim.cocotb_stream import PacketSource
from emplace_sim.pcie import StreamTlpPort, TlpDevice, TlpStreamEndpoint, bypass_link
from emplace_sim.pcie_completer import Fault, ReadCompleter

CONFIG = dataclasses.replace(PROFILES["tiny"], tlp_bytes=int(os.environ["TLP_BYTES"]))
COMMAND, REQUEST, WORD, COUNT = WriteCommand(CONFIG), ReadRequest(CONFIG), ReadWord(), counter_layout("dma")


def bits(layout, **fields):
    value = 0
    for name, field in layout:
        value |= int(fields.get(name, 0)) << field.offset
    return value


class Bench:
    """A host with the layer in its only slot."""

    def __init__(self, dut, *, stall=0.0, gap=0.0, payload=128, read=512, seed=0, bypass=True, **completer):
        logging.getLogger("cocotb.pcie").setLevel(os.environ.get("PCIE_LOG", "ERROR"))
        self.dut, self.bypass, self.read = dut, bypass, read
        dut.rst.value = 1
        for name in ("commands", "reads0", "reads1"):
            getattr(dut, f"{name}__valid").value = 0
        for name in ("read_data0", "read_data1", "token"):
            getattr(dut, f"{name}__ready").value = 0
        self.packets = PacketSource(dut, "packets", 8)
        port = StreamTlpPort(dut, stall=stall, gap=gap, seed=seed)
        self.ep = TlpStreamEndpoint(dut, port, bars={0: (CONFIG.bar_bytes, False)}, msix=(1, 0, 0x1000, 0x1800))
        self.rc = RootComplex()
        self.rc.max_payload_size = (payload // 128).bit_length() - 1
        self.device = TlpDevice(self.ep)
        self.rc.make_port().connect(self.device)
        self.completer = ReadCompleter(self.rc, self.ep, seed=seed, **completer)
        self.high = self.rc.mem_address_space.create_pool(1 << 32, 1 << 32)

    async def start(self):
        dut = self.dut
        await Timer(1, "ns")
        Clock(dut.clk, 8, "ns", impl="gpi").start()
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await self.rc.enumerate()
        self.dev = self.rc.find_device(self.ep.pcie_id)
        if self.bypass:
            bypass_link(self.rc, self.device)
        await self.dev.enable_device()
        await self.dev.set_master()
        await self.dev.set_readrq((self.read // 128).bit_length() - 1)
        self.bar = self.dev.bar_window[0]
        return self

    def region(self, size, high=False):
        region = (self.high if high else self.rc.mem_pool).alloc_region(size)
        return region.get_absolute_address(0), region.mem

    async def put(self, name, value):
        payload, valid, ready = (getattr(self.dut, f"{name}__{part}") for part in ("payload", "valid", "ready"))
        payload.value, valid.value = value, 1
        while True:
            await RisingEdge(self.dut.clk)
            if ready.value == 1:
                break
        valid.value = 0

    async def command(self, kind, **fields):
        await self.put("commands", bits(COMMAND, kind=kind.value, **fields))

    async def fence(self):
        """Until all writes so far have left."""
        await self.command(WriteKind.TOKEN)
        self.dut.token__ready.value = 1
        while True:
            await RisingEdge(self.dut.clk)
            if self.dut.token__valid.value == 1:
                break
        self.dut.token__ready.value = 0
        await Timer(500, "ns")           # for the port and the model to have done with them

    async def ask(self, client, address, length, ordered=0):
        await self.put(f"reads{client}", bits(REQUEST, address=address, length=length, ordered=ordered))

    async def answer(self, client):
        """(bytes, err) of the next read."""
        payload, valid, ready = (getattr(self.dut, f"read_data{client}__{part}") for part in ("payload", "valid", "ready"))
        data, ready.value = b"", 1
        for _ in range(20000):
            await RisingEdge(self.dut.clk)
            if valid.value == 1:
                word = WORD.from_bits(int(payload.value))
                data += int(word.data).to_bytes(8, "little")
                if word.last:
                    ready.value = 0
                    return data[:len(data) - int(word.empty)], bool(word.err)
        raise AssertionError("no data")

    def watch(self):
        """Counts strobes from now on."""
        counts = {name: 0 for name, _ in COUNT}

        async def run():
            while True:
                await RisingEdge(self.dut.clk)
                now = int(self.dut.count.value)
                if now:
                    for name, field in COUNT:
                        counts[name] += now >> field.offset & 1
        cocotb.start_soon(run())
        return counts


@cocotb.test()
@cocotb.parametrize(payload=[128, 256, 512], hard=[False, True])
async def writes(dut, payload, hard):
    """Random alignment and length, some inline; all of memory compared."""
    bench = await Bench(dut, payload=payload, stall=0.3 * hard, bypass=payload != 512).start()
    rng = random.Random(payload + hard)
    bench.region(4096)                   # address 0 shall not be right by accident
    for high in (False, True):
        base, mem = bench.region(16384, high)
        image = bytearray(rng.randbytes(16384))
        mem[:16384] = bytes(image)
        commands, packets = [], []
        for _ in range(30):
            length = rng.choice([64, 1428, rng.randint(1, 40), rng.randint(1, 2000)])
            at = rng.choice([rng.randrange(16384 - length), 4096 - rng.randrange(length + 1)])
            if rng.random() < 0.25:
                length, at = min(length, 64), at & ~3
                data = rng.randbytes(length)
                commands.append(dict(kind=WriteKind.INLINE, data=int.from_bytes(data, "little")))
            else:
                data, skip = rng.randbytes(length), rng.choice([0, 14, 18, rng.randrange(64)])
                packets.append(rng.randbytes(skip) + data + rng.randbytes(rng.randrange(5)))
                commands.append(dict(kind=WriteKind.PAYLOAD, skip=skip, final=1))
            commands[-1].update(address=base + at, length=length)
            image[at:at + length] = data

        async def feed(packets=packets):
            for packet in packets:
                await bench.packets.send(packet)
        task = cocotb.start_soon(feed())
        for command in commands:
            await bench.command(**command)
        await bench.fence()
        await task
        if bench.bypass is False:
            await Timer(5, "us")
        assert mem[:16384] == bytes(image)
    assert not bench.completer.bad_writes


@cocotb.test()
@cocotb.parametrize(read=[128, 512], cut=["max", "rcb", "random"])
async def reads(dut, read, cut):
    """Two clients; late, out of order, in pieces."""
    bench = await Bench(dut, read=read, payload=256, stall=0.2, gap=0.2, latency=200, jitter=800, cut=cut, seed=4).start()
    rng = random.Random(f"{read}{cut}")
    bench.region(4096)
    base, mem = bench.region(16384)
    high, high_mem = bench.region(16384, True)
    image = rng.randbytes(16384)
    mem[:16384] = high_mem[:16384] = image
    counts = bench.watch()

    async def client(n):
        wanted = []
        for _ in range(20):
            length = rng.choice([64, 512, rng.randint(1, 512)])
            at = 4096 * rng.randrange(4) + rng.choice([0, rng.randrange(4096 - length + 1), 4096 - length])
            wanted.append((at, length))

        async def ask():
            for at, length in wanted:
                await bench.ask(n, rng.choice([base, high]) + at, length, ordered=rng.random() < 0.3)
        cocotb.start_soon(ask())
        for at, length in wanted:
            data, err = await bench.answer(n)
            assert not err and data == image[at:at + length], (at, length)
    tasks = [cocotb.start_soon(client(n)) for n in range(2)]
    for task in tasks:
        await task
    assert counts["rx_completions_bad"] == counts["read_errors"] == 0
    order = bench.completer.order
    assert order != sorted(order), "nothing was reordered"


@cocotb.test()
async def faults(dut):
    """Reads that go wrong fail alone; late completions do no harm."""
    bench = await Bench(dut, latency=100, cut="rcb").start()
    bench.region(4096)
    base, mem = bench.region(4096)
    image = random.Random(1).randbytes(4096)
    mem[:4096] = image
    counts = bench.watch()
    errors = 0
    for fault in (Fault.UR, Fault.CA, Fault.POISON, Fault.DROP, Fault.TRUNCATE, Fault.DUPLICATE):
        bench.completer.fault = lambda tlp, fault=fault: fault if tlp.address == base + 1024 else None
        for at in (512, 1024, 1536):
            await bench.ask(0, base + at, 256)
        for at in (512, 1024, 1536):
            data, err = await bench.answer(0)
            assert err == (at == 1024 and fault is not Fault.DUPLICATE), (fault, at)
            assert err or data == image[at:at + 256]
            errors += err
        await Timer(2, "us")
        for tag in list(bench.ep.outstanding):
            bench.ep.forget(tag)
    assert counts["read_errors"] == errors == 5
    assert bench.ep.unexpected == 1 and counts["rx_completions_bad"] > 0
    # No memory there: the root complex says UR.
    await bench.ask(1, 0x7000_0000, 64)
    assert (await bench.answer(1))[1]
    bench.completer.fault = lambda tlp: None
    for _ in range(8):
        await bench.ask(1, base + 8, 500)
        assert await bench.answer(1) == (image[8:508], False)


@cocotb.test()
async def ordered_read(dut):
    """An ordered read returns what was written just before it."""
    bench = await Bench(dut, stall=0.5).start()
    bench.region(4096)
    base, _ = bench.region(4096)
    for n in range(10):
        data = bytes([n] * 64)
        await bench.command(WriteKind.INLINE, address=base + 64 * n, length=64, data=int.from_bytes(data, "little"))
        await bench.ask(0, base + 64 * n, 64, ordered=1)
        assert await bench.answer(0) == (data, False)


@cocotb.test()
@cocotb.parametrize(bypass=[False, True])
async def registers(dut, bypass):
    """Host accesses of every alignment and length, with the card's own traffic beside them."""
    bench = await Bench(dut, stall=0.2, gap=0.2, bypass=bypass).start()
    bar, rng = bench.bar, random.Random(3)
    counts = bench.watch()
    image = bytearray(4096)
    for at in range(0, 4096, 64):
        image[at:at + 64] = rng.randbytes(64)
        await bar.write(at, bytes(image[at:at + 64]))
    bench.region(4096)
    base, _ = bench.region(4096)

    async def traffic():
        while True:
            await bench.command(WriteKind.INLINE, address=base, length=64, data=1)
    cocotb.start_soon(traffic())
    for _ in range(30):
        length = rng.choice([1, 2, 4, 8, rng.randint(1, 60)])
        at = rng.randrange(4096 - length)
        data = rng.randbytes(length)
        await bar.write(at, data)
        image[at:at + length] = data
        at = rng.randrange(512) * 8
        skip = rng.randrange(8)
        length = rng.randint(1, 8 - skip)
        assert await bar.read(at + skip, length, timeout=20, timeout_unit="us") == image[at + skip:at + skip + length]
    assert counts["mmio_unsupported"] == 0
    for at, length in ((0, 16), (4, 8), (6, 4)):
        try:
            await bar.read(at, length, timeout=20, timeout_unit="us")
        except Exception as error:
            assert "Unsuccessful" in str(error)
        else:
            raise AssertionError("a read that is too long went through")
    assert counts["mmio_unsupported"] == 3


@cocotb.test()
async def everything(dut):
    """Writes, reads and register accesses at once."""
    bench = await Bench(dut, stall=0.1, gap=0.1, latency=300, jitter=500, payload=256).start()
    rng = random.Random(8)
    bench.region(4096)
    base, mem = bench.region(16384)
    image = bytearray(rng.randbytes(16384))
    mem[:16384] = bytes(image)
    start = get_sim_time("ns")

    async def write():
        for n in range(40):
            data = rng.randbytes(200)
            image[8192 + 200 * n:8392 + 200 * n] = data
            task = cocotb.start_soon(bench.packets.send(bytes(16) + data))
            await bench.command(WriteKind.PAYLOAD, address=base + 8192 + 200 * n, length=200, skip=16, final=1)
            await task
        await bench.fence()

    async def read(n):
        for _ in range(20):
            at = 512 * rng.randrange(16)
            await bench.ask(n, base + at, 512)
            assert await bench.answer(n) == (bytes(image[at:at + 512]), False)

    async def access():
        for n in range(20):
            await bench.bar.write_dword(4 * n, n)
            assert await bench.bar.read_dword(4 * n, timeout=20, timeout_unit="us") == n
    for task in [cocotb.start_soon(job) for job in (write(), read(0), read(1), access())]:
        await task
    assert mem[:16384] == bytes(image)
    assert not bench.completer.bad_writes
    assert get_sim_time("ns") - start < 200_000
