"""The host's accesses to BAR0 through the whole layer, as raw TLPs."""

import dataclasses
import random

import pytest
from tests.dma.harness import TlpSink, get, put, put_packet, simulate

from emplace.config import PROFILES
from emplace.dma.layer import Dma
from emplace_sim.host_tlp import ABORT, SUCCESS, UNSUPPORTED, Tlp, memory_request

CARD, HOST = 0x0208, 0x0010


class Registers:
    """Sends TLPs, keeps what comes out on the registers' side, answers reads from ``image``."""

    def __init__(self, profile, packets, *, answers, gap=0.0, stall=0.0, errs=(), slow=3):
        self.config = PROFILES[profile]
        self.dut = dut = Dma(self.config)
        self.image = bytearray(random.Random(9).randbytes(4096))
        self.written, self.unsupported, self.found = [], 0, []
        sink = TlpSink(dut.tx_tlp, seed=2, stall=stall)
        sink.arrived = lambda packet, err: self.found.append(Tlp.parse(packet))
        rng = random.Random(1)

        async def host(ctx):
            ctx.set(dut.cfg.id, CARD)
            ctx.set(dut.cfg.bus_master, 1)
            for n, packet in enumerate(packets):
                await put_packet(ctx, dut.rx_tlp, packet, rng=rng, idle=gap, err=n in errs)
            for _ in range(40):
                await ctx.tick()
            while len(self.found) < answers:
                await ctx.tick()

        async def watch(ctx):
            while True:
                _, _, valid, write, count = await ctx.tick().sample(dut.mmio_write.valid, dut.mmio_write.payload,
                                                                    dut.count.mmio_unsupported)
                self.unsupported += count
                if valid:
                    self.written.append((int(write.address), int(write.mask)))
                    for n in range(8):
                        if write.mask >> n & 1:
                            self.image[8 * write.address + n & 4095] = write.data >> 8 * n & 0xFF

        async def answer(ctx):
            while True:
                request = await get(ctx, dut.mmio_read, rng=rng, stall=0.3)
                for _ in range(rng.randrange(slow)):
                    await ctx.tick()
                at = 8 * request.address & 4095
                await put(ctx, dut.mmio_data, int.from_bytes(self.image[at:at + 8], "little"))
        simulate(dut, host, background=[sink.run, watch, answer], cycles=6000)


def write(address, data, **fields):
    return dataclasses.replace(memory_request(address, None, data=data, requester=HOST), **fields).pack()


@pytest.mark.parametrize("profile", ["tiny", "default"])
@pytest.mark.parametrize("base", [0xE000_0000, 0x40_0000_0000])
@pytest.mark.parametrize("gap", [0, 0.4])
def test_writes(profile, base, gap):
    """Every alignment, up to 64 bytes, headers of both sizes."""
    rng = random.Random(base + 1)
    image, packets = bytearray(random.Random(9).randbytes(4096)), []
    for _ in range(60):
        length = rng.choice([4, 8, 64, rng.randint(1, 16), rng.randint(1, 60)])
        at = rng.choice([8 * rng.randrange(500), rng.randrange(4096 - length)]) if length <= 60 else 64 * rng.randrange(60)
        at = min(at, 4096 - length)
        data = rng.randbytes(length)
        packets.append(write(base + at, data))
        image[at:at + length] = data
    bench = Registers(profile, packets, answers=0, gap=gap)
    assert bench.image == image and bench.unsupported == 0


@pytest.mark.parametrize("profile", ["tiny", "default"])
@pytest.mark.parametrize("stall", [0, 0.5])
def test_reads(profile, stall):
    """Byte counts, lower addresses and data of every read of up to 8 bytes, in order."""
    rng = random.Random(4)
    asked = [(at, size) for at in range(16) for size in range(1, 9) if at % 8 + size <= 8 or (at // 4 == (at + size - 1) // 4)]
    asked = rng.sample(asked, 40) + [(5, 0), (8, 0)]
    packets = [memory_request(rng.choice([0xE000_0100, 0x40_0000_0100]) + at, size, requester=HOST, tag=n).pack()
               for n, (at, size) in enumerate(asked)]
    bench = Registers(profile, packets, answers=len(asked), stall=stall, gap=0.1)
    assert [tlp.tag for tlp in bench.found] == list(range(len(asked)))
    for (at, size), tlp in zip(asked, bench.found, strict=True):
        at += 0x100
        assert (tlp.kind, tlp.status, tlp.requester, tlp.completer) == ("CplD", SUCCESS, HOST, CARD)
        assert tlp.byte_count == max(size, 1)
        assert tlp.lower_address == (at & 0x7F if size else at & 0x7C)
        skip = at % 4
        assert tlp.payload[skip:skip + size] == bench.image[at:at + size]
        assert len(tlp.payload) == max((skip + size + 3) // 4, 1) * 4


@pytest.mark.parametrize("profile", ["tiny", "default"])
def test_unsupported(profile):
    """What is too long, poisoned or of another type is refused, counted, and does no harm."""
    read = memory_request(0xE000_0000, 4, requester=HOST, tag=1).pack()

    def kind(byte, payload=b""):
        return bytes([byte]) + read[1:] + payload
    packets = [
        memory_request(0xE000_0000, 12, requester=HOST, tag=0).pack(),           # CA
        memory_request(0xE000_0004, 8, requester=HOST, tag=7).pack(),            # CA: crosses 8 bytes
        kind(0x02), kind(0x42, bytes(4)), kind(0x04), kind(0x01), kind(0x4C, bytes(4)),   # I/O, config, locked, atomic: UR
        write(0xE000_0000, bytes(68)), write(0xE000_0000, bytes(8), poisoned=True),
        kind(0x34), kind(0x74, bytes(4)),                                        # messages
        bytes([0x0A]) + read[1:], bytes([0x4A]) + read[1:] + bytes(4),           # completions for nothing
        read[:8],                                                                # no header
        write(0xE000_0008, b"nullify!"),                                         # with err
        kind(0x40),                                                              # shorter than its Length
        write(0xE000_0010, b"this one"),
        memory_request(0xE000_0010, 8, requester=HOST, tag=9).pack(),
    ]
    bench = Registers(profile, packets, answers=8, errs={14})
    assert [tlp.status for tlp in bench.found] == [ABORT] * 2 + [UNSUPPORTED] * 5 + [SUCCESS]
    assert all(tlp.kind == "Cpl" for tlp in bench.found[:7])
    assert bench.found[-1].payload == b"this one"
    assert bench.written == [(2, 255)]
    assert bench.unsupported == 13


def test_many_reads():
    """More reads than can wait: the rest waits outside, none is lost."""
    packets = [memory_request(0xE000_0000 + 8 * n, 8, requester=HOST, tag=n).pack() for n in range(40)]
    bench = Registers("default", packets, answers=40, slow=20)
    assert [tlp.tag for tlp in bench.found] == list(range(40))
