"""MPA with modelled neighbours: slot memory, TCP's walk requests, the gate, and two sinks."""

import random
from dataclasses import dataclass, field

from amaranth.sim import Simulator

from emplace.config import PROFILES
from emplace.control.records import RecordKind, TokenOp
from emplace.llp import UlpduStatus
from emplace.mpa.layer import Mpa

__all__ = ["TINY", "Bench", "Result", "Record", "parts"]

TINY = PROFILES["tiny"]
RECORD = ("kind", "qp", "length", "status", "claimed", "header")


@dataclass
class Result:
    consumed: int
    kept: int
    parked: int
    failed: int


@dataclass
class Record:
    kind: RecordKind
    qp: int
    length: int
    status: UlpduStatus
    claimed: int
    header: bytes
    token: TokenOp
    packet: bytes | None = None


def parts(total, rng, least=1, most=1448):
    """Random sizes that add up to ``total``."""
    while total:
        size = min(total, rng.randint(least, most))
        yield size
        total -= size


@dataclass
class Bench:
    """Runs ``script(bench)``: a coroutine that calls ``walk``, ``token`` and so on, one after the other.

    Slots are TCP's and MPA's by ``owner``; what breaks the rules of who may free what fails at once.
    """

    stall: float = 0.0
    seed: int = 1
    config: object = TINY
    limit: int = 60_000
    reserved: int = 0                      # slots that are somebody else's: pressure
    gate: object = None                    # qp -> (go, claimed)
    records: list = field(default_factory=list)
    packets: list = field(default_factory=list)
    cycle: int = 0

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        self.dut = Mpa(self.config)
        self.memory = [bytearray(self.rng.randbytes(2048)) for _ in range(self.config.slots)]
        self.owner = ["free"] * self.config.slots
        self.freed = []
        self.gate_asked = []
        self.counts = {}
        self.now = 0
        self.first_read = self.first_packet = None
        self.bus_open = True
        self.busy = 0

    # What a script does.

    def take_slot(self):
        slot = self.rng.choice([n for n, owner in enumerate(self.owner) if owner == "free"])
        self.owner[slot] = "tcp"
        return slot

    async def walk(self, qp, data, *, offset=None, slot=None):
        """One segment: written to a slot (``slot``: where it lies already), walked; the slot is TCP's again unless
        kept. Returns (result, slot)."""
        if slot is None:
            slot = self.take_slot()
            if offset is None:
                offset = self.rng.randrange(2048 - len(data) + 1) if self.rng.random() < 0.5 else 0
            self.memory[slot][offset:offset + len(data)] = data
        got = await self.request({"kind": RecordKind.DATA, "qp": qp, "slot": slot, "offset": offset,
                                  "length": len(data)})
        assert got.consumed <= len(data) and not (got.kept and got.consumed != len(data))
        if got.kept:
            assert self.owner[slot] == "tcp"
            self.owner[slot] = f"mpa{qp}"
        return got, slot

    def drop(self, slot):
        assert self.owner[slot] == "tcp"
        self.owner[slot] = "free"

    async def feed(self, qp, data, **kw):
        """``walk``, and drop the slot unless kept."""
        got, slot = await self.walk(qp, data, **kw)
        if not got.kept:
            self.drop(slot)
        return got

    async def token(self, op, qp, **command):
        self.ctx.set(self.dut.cmd, command)
        got = await self.request({"kind": RecordKind.TOKEN, "token": {"op": op, "qp": qp}})
        assert got == Result(0, 0, 0, 0)

    async def install(self, qp, crc=True):
        await self.token(TokenOp.INSTALL, qp, flags=0xfffe | crc)

    async def request(self, payload):
        ctx, dut = self.ctx, self.dut
        while self.rng.random() < self.stall:
            await ctx.tick()
        ctx.set(dut.walk.payload, payload)
        ctx.set(dut.walk.valid, 1)
        ready = False
        while not ready:
            _, _, ready = await ctx.tick().sample(dut.walk.ready)
        ctx.set(dut.walk.valid, 0)
        ctx.set(dut.walk.payload, {"qp": self.rng.randrange(16), "length": 5})
        while self.rng.random() < self.stall:
            await ctx.tick()
        ctx.set(dut.walked.ready, 1)
        while True:
            _, _, valid, got = await ctx.tick().sample(dut.walked.valid, dut.walked.payload)
            if valid:
                break
        ctx.set(dut.walked.ready, 0)
        return Result(got.consumed, got.kept, got.parked, got.failed)

    async def idle(self, cycles):
        for _ in range(cycles):
            await self.ctx.tick()

    # Neighbours.

    async def _memory(self, ctx):
        port, append = self.dut.slot_read, self.dut.slot_append
        coming, writes, held = None, [], None
        while True:
            ready = ctx.get(append.ready)
            _, _, en, slot, address, valid, word = await ctx.tick().sample(
                port.en, port.slot, port.address, append.valid, append.payload)
            self.cycle += 1
            assert self.cycle < self.limit, "hangs"
            # What isn't just asked for is noise.
            data = self.rng.getrandbits(64)
            if coming is not None:
                data = int.from_bytes(self.memory[coming[0]][8 * coming[1]:8 * coming[1] + 8], "little")
            ctx.set(port.data, data)
            coming = (slot, address) if en else None
            if en and self.first_read is None:
                self.first_read = self.cycle
            # Appended words take effect 2 cycles later.
            for write in [w for w in writes if w[0] <= self.cycle]:
                self.memory[write[1]][8 * write[2]:8 * write[2] + 8] = write[3].to_bytes(8, "little")
                writes.remove(write)
            if held is not None:
                assert valid, "an offered word went away"
            if valid and ready:
                assert self.owner[word.slot].startswith("mpa"), "wrote into a slot that isn't MPA's"
                writes.append((self.cycle + 2, word.slot, word.address, word.data))
            held = True if valid and not ready else None
            ctx.set(append.ready, self.rng.random() >= self.stall)

    async def _slots(self, ctx):
        port, names = self.dut.slot_free, [name for name in self.dut.count.shape().members]
        while True:
            ctx.set(self.dut.free_count, max(0, self.owner.count("free") - self.reserved))
            ctx.set(self.dut.now, self.now)
            _, _, valid, got, count = await ctx.tick().sample(port.valid, port.payload, self.dut.count)
            for name in names:
                self.counts[name] = self.counts.get(name, 0) + count[name]
            if valid:
                self.freed.append(got.slot)
                assert self.owner[got.slot].startswith("mpa"), "freed a slot that isn't MPA's"
                self.owner[got.slot] = "free"

    async def _gate(self, ctx):
        request, reply = self.dut.gate_request, self.dut.gate_reply
        while True:
            while self.rng.random() < self.stall:
                await ctx.tick()
            ctx.set(request.ready, 1)
            valid = False
            while not valid:
                _, _, valid, got = await ctx.tick().sample(request.valid, request.payload)
            ctx.set(request.ready, 0)
            self.gate_asked.append(got.qp)
            go, claimed = self.gate(got.qp) if self.gate else (1, 1)
            while self.rng.random() < self.stall:
                await ctx.tick()
            ctx.set(reply.payload, {"go": go, "claimed": claimed})
            ctx.set(reply.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(reply.ready)
            ctx.set(reply.valid, 0)

    async def _records(self, ctx):
        port = self.dut.ulpdus
        while True:
            ready = self.bus_open and self.rng.random() >= self.stall
            ctx.set(port.ready, ready)
            _, _, valid, got = await ctx.tick().sample(port.valid, port.payload)
            if valid and ready:
                self.records.append(Record(got.kind, got.qp, got.length, got.status, got.claimed,
                                           got.header.to_bytes(48, "little"), got.token.op))

    async def _packets(self, ctx):
        port, words = self.dut.packets, b""
        while True:
            ready = self.bus_open and self.rng.random() >= self.stall
            ctx.set(port.ready, ready)
            _, _, valid, got = await ctx.tick().sample(port.valid, port.payload)
            if valid and self.first_packet is None:
                self.first_packet = self.cycle
            if valid and ready:
                assert not got.err and (got.last or not got.empty)
                words += got.data.to_bytes(8, "little")[:8 - got.empty]
                if got.last:
                    self.packets.append(words)
                    words = b""

    def run(self, script):
        async def main(ctx):
            self.ctx = ctx
            ctx.set(self.dut.lease, 0xFFFFFFFF)
            await script(self)
            self.bus_open = True
            for _ in range(100 if not self.stall else 200):
                await ctx.tick()
            while len(self.packets) < sum(r.status == UlpduStatus.OK and r.kind == RecordKind.DATA
                                          for r in self.records):
                await ctx.tick()
        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        sim.add_testbench(main)
        for neighbour in (self._memory, self._slots, self._gate, self._records, self._packets):
            sim.add_testbench(neighbour, background=True)
        sim.run()
        # Each good record has one packet, in the same order.
        packets = iter(self.packets)
        for record in self.records:
            if record.kind == RecordKind.DATA and record.status == UlpduStatus.OK:
                record.packet = next(packets)
                assert record.packet[:2] == record.length.to_bytes(2, "big")
                assert record.header[:len(record.packet)] == record.packet[:48]
        assert next(packets, None) is None
        return self

    # What came out.

    def ulpdus(self, qp):
        return [r.packet[2:] for r in self.records if r.qp == qp and r.packet is not None]

    def statuses(self, qp):
        return [r.status for r in self.records if r.qp == qp and r.kind == RecordKind.DATA]

    def leaks(self):
        """Slots that are nobody's business to hold any more."""
        return [owner for owner in self.owner if owner != "free"]
