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
    limit: int = 30_000
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
        self.now = 0
        self.later = (None, 0)             # cycle, and what ``now`` is from then on
        self.first_read = self.first_packet = None
        self.closed_until = 0              # cycle up to which the bus takes nothing

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

    async def _neighbours(self, ctx):
        """All of them in one loop, for the simulator's sake."""
        dut, rng = self.dut, self.rng
        streams = {name: getattr(dut, name) for name in ("slot_append", "gate_request", "ulpdus", "packets")}
        names = list(dut.count.shape().members)
        self.counts = dict.fromkeys(names, 0)
        asked, appended, packet = None, [], b""
        held = dict.fromkeys(streams)      # what was offered, and not taken
        answer, offered = None, False      # the gate's
        driven = {}

        def drive(port, value):
            if driven.get(id(port)) != value:
                driven[id(port)] = value
                ctx.set(port, value)

        sampled = [dut.slot_read.en, dut.slot_read.slot, dut.slot_read.address, dut.slot_free.valid,
                   dut.slot_free.payload.as_value(), dut.count.as_value(), dut.gate_reply.ready]
        for port in streams.values():
            sampled += [port.valid, port.payload.as_value()]
        while True:
            drive(dut.free_count, max(0, self.owner.count("free") - self.reserved))
            if self.cycle == self.later[0]:
                self.now = self.later[1]
            drive(dut.now, self.now)
            ready = {name: not self.stall or rng.random() >= self.stall for name in streams}
            if self.cycle < self.closed_until:
                ready["ulpdus"] = ready["packets"] = False
            ready["gate_request"] &= answer is None
            for name, port in streams.items():
                drive(port.ready, ready[name])
            if answer is not None and not offered and (not self.stall or rng.random() >= self.stall):
                offered = True
                ctx.set(dut.gate_reply.payload, {"go": answer[0], "claimed": answer[1]})
            drive(dut.gate_reply.valid, offered)

            _, _, en, slot, address, free, freed, count, reply_ready, *rest = await ctx.tick().sample(*sampled)
            self.cycle += 1
            assert self.cycle < self.limit, "hangs"

            # What wasn't just asked for is noise; appended words take effect 2 cycles later.
            data = rng.getrandbits(64)
            if asked is not None:
                data = int.from_bytes(self.memory[asked[0]][8 * asked[1]:8 * asked[1] + 8], "little")
                self.first_read = self.first_read or self.cycle - 1
            if en or asked is not None:
                ctx.set(dut.slot_read.data, data)
            asked = (slot, address) if en else None
            while appended and appended[0][0] <= self.cycle:
                _, to, at, word = appended.pop(0)
                self.memory[to][8 * at:8 * at + 8] = word.to_bytes(8, "little")
            if free:
                slot = dut.slot_free.payload.shape().from_bits(freed).slot
                self.freed.append(slot)
                assert self.owner[slot].startswith("mpa"), "freed a slot that isn't MPA's"
                self.owner[slot] = "free"
            if count:
                for n, name in enumerate(names):
                    self.counts[name] += count >> n & 1
            if offered and reply_ready:
                answer, offered = None, False

            for n, (name, port) in enumerate(streams.items()):
                valid, payload = rest[2 * n:2 * n + 2]
                assert held[name] is None or (valid and payload == held[name]), f"{name} took an offer back"
                held[name] = payload if valid and not ready[name] else None
                if name == "packets" and valid and self.first_packet is None:
                    self.first_packet = self.cycle
                if not valid or not ready[name]:
                    continue
                got = port.payload.shape().from_bits(payload)
                if name == "slot_append":
                    assert self.owner[got.slot].startswith("mpa"), "wrote into a slot that isn't MPA's"
                    appended.append((self.cycle + 2, got.slot, got.address, got.data))
                elif name == "gate_request":
                    self.gate_asked.append(got.qp)
                    answer = self.gate(got.qp) if self.gate else (1, 1)
                elif name == "ulpdus":
                    self.records.append(Record(got.kind, got.qp, got.length, got.status, got.claimed,
                                               got.header.to_bytes(48, "little"), got.token.op))
                else:
                    assert not got.err and (got.last or not got.empty)
                    packet += got.data.to_bytes(8, "little")[:8 - got.empty]
                    if got.last:
                        self.packets.append(packet)
                        packet = b""

    def run(self, script):
        async def main(ctx):
            self.ctx = ctx
            ctx.set(self.dut.lease, 0xFFFFFFFF)
            for _ in range(self.config.qps):      # memories are being cleared
                await ctx.tick()
            await script(self)
            while self.cycle < self.closed_until:
                await ctx.tick()
            for _ in range(200 if self.stall else 100):
                await ctx.tick()
            while len(self.packets) < sum(r.status == UlpduStatus.OK and r.kind == RecordKind.DATA
                                          for r in self.records):
                await ctx.tick()
        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        sim.add_testbench(main)
        sim.add_testbench(self._neighbours, background=True)
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
