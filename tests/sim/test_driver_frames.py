"""The driver's frame receiver, and activate, against a card in Python."""

import random

import pytest

from emplace import abi
from emplace.abi import FrameControl, FrameFlags, FrameReason, FrameTxFlags, Opcode, QpFlags, Status
from emplace_sim.driver import AdminError, Device
from emplace_sim.driver_frames import FrameReceiver, FrameTransmitter
from emplace_sim.driver_records import pack, unpack
from emplace_sim.plain import pieces

from .mock_card import MockBus, run


class Card:
    """Writes frames as the card would: into the descriptors that are posted, completions behind them."""

    def __init__(self, bus):
        self.bus, self.used, self.number = bus, 0, 0

    def address(self, name):
        return self.bus.register(name + "_LO") | self.bus.register(name + "_HI") << 32

    def deliver(self, data, *, header=0, skip=0, **fields):
        """``skip``: descriptors that could not be read."""
        bus, entries = self.bus, 1 << self.bus.register("FRAME_RX_LOG2")
        size = 1 << (bus.register("FRAME_CONTROL") >> 8)
        split = bool(bus.register("FRAME_CONTROL") & FrameControl.SPLIT) and header
        plan = pieces(len(data), header, split, size)
        self.used += skip
        buffers = 1 + max(number for number, *_ in plan)
        assert (bus.register("FRAME_RX_PRODUCER") - self.used - buffers) % (1 << 16) <= entries, "not posted"
        for number, kind, start, end in plan:
            at = self.address("FRAME_RX") + (self.used + number) % entries * 16
            descriptor = unpack(abi.FrameRxDescriptor, bus.memory.read(at, 16))
            bus.memory.write(descriptor[kind], data[start:end])
        bus.memory.write(self.address("FRAME_RXC") + self.number % entries * 32, pack(abi.FrameRxCompletion, {
            "descriptor": self.used & 0xFFFF, "buffers": buffers, "length": len(data), "header_length": header if split else 0,
            "flags": FrameFlags.SPLIT if split else 0, "phase": 1 - self.number // entries % 2, **fields}))
        self.used += buffers
        self.number += 1


@pytest.fixture
def bus():
    return MockBus()


@pytest.fixture
def device(bus):
    return run(Device(bus, seed=1).open())


@pytest.mark.parametrize("split", [False, True])
def test_frames_arrive(bus, device, split):
    """Many laps, several buffers a frame, descriptors that were passed over."""
    receiver = run(FrameReceiver(device, entries=16, buffer_bytes=256, split=split).start())
    assert bus.register("FRAME_CONTROL") == FrameControl.RX | FrameControl.SPLIT * split | 8 << 8
    assert (bus.register("MAC_HI"), bus.register("MAC_LO")) == (0x5254, 1)
    card, rng = Card(bus), random.Random(1)
    assert run(receiver.poll()) == []
    for n in range(100):
        data, header = rng.randbytes(rng.randint(60, 1000)), rng.choice([0, 54, 60])
        card.deliver(data, header=header, skip=rng.choice([0, 0, 3]), reason=FrameReason.HELD, qpn=n)
        frame, = run(receiver.poll())
        assert (frame.data, frame.reason, frame.qpn, frame.number) == (data, FrameReason.HELD, n, n)
        assert frame.header == (header if split else 0) and (FrameFlags.SPLIT in frame.flags) == bool(split and header)
    assert receiver.number == 100 and bus.register("FRAME_RX_PRODUCER") == card.used + 16
    assert bus.memory.check_canaries() == []


def test_posting(bus, device):
    receiver = run(FrameReceiver(device, entries=4).start(posted=1))
    assert bus.register("FRAME_RX_PRODUCER") == 1
    with pytest.raises(ValueError, match="only 3 are free"):
        run(receiver.post(4))
    run(receiver.post(2))
    assert bus.register("FRAME_RX_PRODUCER") == 3
    Card(bus).deliver(bytes(60))
    assert len(run(receiver.poll(post=False))) == 1 and bus.register("FRAME_RX_PRODUCER") == 3
    run(receiver.post())
    assert bus.register("FRAME_RX_PRODUCER") == 5
    run(receiver.stop())
    assert not bus.register("FRAME_CONTROL") & FrameControl.RX
    run(receiver.start())
    assert (receiver.number, bus.register("FRAME_RX_PRODUCER")) == (0, 4)


@pytest.mark.parametrize("bad", [{"entries": 3}, {"entries": 1}, {"entries": 8192}, {"buffer_bytes": 100},
                                 {"buffer_bytes": 128}, {"buffer_bytes": 1 << 17}])
def test_refused_sizes(device, bad):
    with pytest.raises(ValueError, match="must be a power of two"):
        FrameReceiver(device, **bad)


def test_activate(bus, device):
    cq = run(device.create_cq(8))
    qp = device.create_qp(device.alloc_pd(), cq, cq)
    run(device.install(qp, held=True, flags=QpFlags.CRC))
    assert bus.qps[qp.number]["flags"] == QpFlags.CRC | QpFlags.HELD
    asked = []

    def answer(command):
        asked.append((command["qpn"], command["index"]))
        return [Status.AGAIN, Status.OK, Status.BAD_STATE][len(asked) - 1]
    bus.activate_qp = answer
    bus.corrupt = ("value", 9)
    assert run(device.activate(qp, 7)) == 9
    bus.corrupt = None
    assert run(device.activate(qp, (1 << 32) + 9)) is None
    with pytest.raises(AdminError, match="ACTIVATE_QP: BAD_STATE"):
        run(device.activate(qp, 9))
    assert asked == [(qp.number, 7), (qp.number, 9), (qp.number, 9)]
    assert Opcode.ACTIVATE_QP == 12


class Sender:
    """Does with the transmit ring what the card does."""

    def __init__(self, bus):
        self.bus, self.done, self.dropped, self.frames = bus, 0, 0, []

    def work(self):
        bus, entries = self.bus, 1 << self.bus.register("FRAME_TX_LOG2")
        base, head = (bus.register(name + "_LO") | bus.register(name + "_HI") << 32 for name in ("FRAME_TX", "FRAME_TXH"))
        assert (bus.register("FRAME_TX_PRODUCER") - self.done) % (1 << 16) <= entries
        frame = []
        while self.done & 0xFFFF != bus.register("FRAME_TX_PRODUCER"):
            entry = unpack(abi.FrameTxDescriptor, bus.memory.read(base + self.done % entries * 16, 16))
            frame.append((entry, bus.memory.read(entry["address"], entry["length"])))
            self.done += 1
            if entry["flags"] & FrameTxFlags.END:
                first = frame[0][0]
                self.frames.append((b"".join(data for _, data in frame), first["flags"] & ~FrameTxFlags.END,
                                    first["checksum_start"], first["checksum_offset"], len(frame)))
                self.dropped += self.frames[-1][0].startswith(b"bad")
                frame = []
        assert frame == []
        bus.memory.write(head, pack(abi.FrameTxHead, {"head": self.done & 0xFFFF, "dropped": self.dropped}))


def test_frames_leave(bus, device):
    """Many laps, several buffers a frame, at any alignment; buffers are given back; drops are seen."""
    tx = run(FrameTransmitter(device, entries=8).start())
    card, rng, sent = Sender(bus), random.Random(1), []
    buffers = len(device.memory.buffers)
    for n in range(60):
        parts = [rng.randbytes(rng.randint(1, 300)) for _ in range(rng.randint(1, 8))]
        if n % 7 == 0:
            parts[0] = b"bad"
        sent.append((b"".join(parts), FrameTxFlags.CHECKSUM * (n % 2) | FrameTxFlags.REINJECT * (n % 3 == 0), n % 2 * 34,
                     n % 2 * 16, len(parts)))
        number = run(tx.post(parts, checksum=(34, 16) if n % 2 else None, reinject=n % 3 == 0))
        assert tx.poll() == 8 - len(parts) and number == tx.posted
        card.work()
        run(tx.completed(number))
        assert tx.dropped == n // 7 + 1 and tx.poll() == 8
        assert len(device.memory.buffers) == buffers
    assert card.frames == sent
    addresses = {unpack(abi.FrameTxDescriptor, tx.ring.read(16 * n, 16))["address"] % 8 for n in range(8)}
    assert len(addresses) > 2


def test_full_transmit_ring_times_out(device):
    tx = run(FrameTransmitter(device, entries=2).start())
    run(tx.post([b"a", b"b"]))
    with pytest.raises(TimeoutError, match="2 descriptors not done"):
        run(tx.post(b"c"))
    with pytest.raises(ValueError, match="power of two"):
        FrameTransmitter(device, entries=3)
