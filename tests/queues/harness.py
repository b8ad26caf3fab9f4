"""A Queues layer with host memory around it."""

import random

from tests.queues.bench import Memory, receive, run, send, unpack

from emplace import abi
from emplace.config import NicConfig
from emplace.control.records import TokenOp
from emplace.dma.records import PlaceKind, WriteKind
from emplace.queues.layer import Queues
from emplace.queues.ports import CqOp, DoorbellKind
from emplace.queues.records import LineOutcome, SendOrderOp
from emplace.stream.scrub import scrub_cycles

CONFIG = NicConfig(name="test", tlp_bytes=8, qps=8, cqs=4, regions=16, pages=64, slots=8, rq_prefetch=4, orq=4, ird=4,
                   guard_ranges=2, user_contexts=4)
EVENTS = 0x0000_0012_3FF0_0000


def wqe(qp, index):
    """Four elements of WQE ``index`` of a QP: (address, length, lkey)."""
    rng = random.Random(qp << 16 | index)
    return [(rng.getrandbits(64), rng.choice([0, 1, 4096, 0xFFFF, 0x10000, 0xFFFFFFFF, rng.getrandbits(32)]),
             rng.getrandbits(32)) for _ in range(4)]


def wqe_bytes(elements):
    return b"".join(a.to_bytes(8, "little") + n.to_bytes(4, "little") + k.to_bytes(4, "little") for a, n, k in elements)


def send_wqe(qp, index):
    """WQE ``index`` of a QP's send queue: an entry of the ring."""
    return random.Random(f"send {qp} {index}").randbytes(abi.nbytes(abi.SendWqe))


class Host:
    """What is around the queues. ``writes``: everything that left towards dma, in order. ``send_memory`` has the reads of
    send WQEs; its bytes are ``memory``'s. ``send_ready``: QPs that were named, in order."""

    def __init__(self, seed=1, stall=0.3, **memory):
        self.dut = Queues(CONFIG)
        self.memory, self.send_memory = (Memory(seed, stall=stall, **memory) for seed in (seed, seed + 1))
        self.send_memory.bytes = self.memory.bytes
        self.rng, self.stall = random.Random(seed), stall
        self.send_ready = []
        self.writes, self.deaths, self.counted = [], [], dict.fromkeys(("doorbell_refused", "cq_overflow",
                                                                         "event_overflow"), 0)
        self.died_hold = False
        self.locks = set()
        self.ring = {"base": EVENTS >> 12, "log2": 3, "consumer": 0, "enabled": 1, "restart": 0}

    def run(self, *testbenches, cycles=20_000, background=(), settle=scrub_cycles(CONFIG)):
        run(self.dut, *testbenches, cycles=cycles, settle=settle, background=[
            self.memory.requests(self.dut.reads), self.memory.answers(self.dut.read_data),
            self.send_memory.requests(self.dut.send_reads), self.send_memory.answers(self.dut.send_read_data),
            self._send_ready, self._writes, self._died, self._count, *background])

    async def _send_ready(self, ctx):
        while True:
            self.send_ready.append((await receive(ctx, self.dut.send_ready, self.rng, self.stall))["qp"])

    async def _writes(self, ctx):
        while True:
            write = await receive(ctx, self.dut.writes, self.rng, self.stall)
            self.writes.append(write)
            if write["kind"] == WriteKind.INLINE.value:
                self.memory.write(write["address"], write["data"].to_bytes(64, "little")[:write["length"]])

    async def _died(self, ctx):
        while True:
            if self.died_hold:
                await ctx.tick()
                continue
            self.deaths.append(await receive(ctx, self.dut.died, self.rng, self.stall))

    async def _count(self, ctx):
        while True:
            _, _, count = await ctx.tick().sample(self.dut.count)
            for name in self.counted:
                self.counted[name] += int(count[name])

    async def setup(self, ctx):
        ctx.set(self.dut.event_ring, self.ring)
        await ctx.tick()
        await ctx.tick()

    async def place(self, ctx, *, sending=False, **fields):
        """One PlaceCommand, of the receiving or the sending side."""
        while sending in self.locks:           # several testbenches share the streams
            await ctx.tick()
        self.locks.add(sending)
        await send(ctx, self.dut.send_commands if sending else self.dut.commands, fields, self.rng, self.stall)
        self.locks.remove(sending)

    async def cqe(self, ctx, cq, qp=0, *, sending=False, **body):
        raw = abi.CqeBody.const(body).as_value().value
        await self.place(ctx, sending=sending, kind=PlaceKind.CQE, qp=qp, cq=cq, data=raw)

    async def event(self, ctx, *, sending=False, **body):
        raw = abi.EventBody.const(body).as_value().value
        await self.place(ctx, sending=sending, kind=PlaceKind.EVENT, data=raw)

    async def token(self, ctx, op, qp, **cmd):
        """Send a token and wait until it comes out."""
        before = self.tokens()
        if cmd:
            ctx.set(self.dut.cmd, cmd)
        await self.place(ctx, kind=PlaceKind.TOKEN, token={"op": op, "qp": qp})
        while self.tokens() == before:
            await ctx.tick()
        write = [w for w in self.writes if w["kind"] == WriteKind.TOKEN.value][-1]
        assert write["token"] == op.value | qp << 3

    def tokens(self):
        return sum(w["kind"] == WriteKind.TOKEN.value for w in self.writes)

    async def install(self, ctx, qp, qpn=None, *, rq_log2=3, base=None, context=1, cq=0):
        base = base if base is not None else 0x10_0000 * (qp + 1)
        await self.token(ctx, TokenOp.INSTALL, qp, qpn=qpn if qpn is not None else qp, context=context,
                         rq_base=base, rq_log2=rq_log2, recv_cq=cq)
        return base

    async def order(self, ctx, op, qp, qpn=None, *, log2=3, base=None, context=1):
        """rdmap's sending side makes or unmakes a send queue; where its ring is."""
        base = base if base is not None else 0x4000_0000 + 0x10_0000 * qp
        ctx.set(self.dut.cmd, {"qpn": qpn if qpn is not None else qp, "context": context, "sq_base": base, "sq_log2": log2})
        await send(ctx, self.dut.send_order, {"op": op, "qp": qp}, self.rng, self.stall)
        return base

    async def install_send(self, ctx, qp, qpn=None, **fields):
        return await self.order(ctx, SendOrderOp.INSTALL, qp, qpn, **fields)

    async def retire_send(self, ctx, qp, value):
        """WQEs may be posted up to ``value``."""
        ctx.set(self.dut.send_retired, {"en": 1, "index": qp, "value": value})
        await ctx.tick()
        ctx.set(self.dut.send_retired.en, 0)

    async def ask_send(self, ctx, qp, index):
        await send(ctx, self.dut.send_wqe, {"qp": qp, "index": index}, self.rng, self.stall)
        answer = await receive(ctx, self.dut.send_wqe_answer, self.rng, self.stall)
        return LineOutcome(answer.pop("outcome")), answer

    async def read_send(self, ctx, line, index, port):
        """The bytes of an entry in a line."""
        content = b""
        for word in range(8):
            ctx.set(self.dut.send_at[port], {"line": line, "word": index % (1 << CONFIG.send_group_bits) << 3 | word})
            await ctx.tick()
            content += ctx.get(self.dut.send_data[port]).to_bytes(8, "little")
        return content

    async def unpin_send(self, ctx, line, port):
        ctx.set(self.dut.send_unpin[port], {"en": 1, "line": line})
        await ctx.tick()
        ctx.set(self.dut.send_unpin[port].en, 0)

    async def ring_doorbell(self, ctx, kind, number, value, context=0):
        ctx.set(self.dut.doorbell.payload, {"kind": kind, "context": context, "number": number, "value": value})
        ctx.set(self.dut.doorbell.valid, 1)
        await ctx.tick()
        ctx.set(self.dut.doorbell.valid, 0)

    async def post(self, ctx, number, value):
        await self.ring_doorbell(ctx, DoorbellKind.RQ, number, value)

    async def update_cq(self, ctx, op, cq, log2=2, context=1, base=0, **notify):
        await send(ctx, self.dut.cq_update, {"op": op, "cq": cq, "log2": log2, "context": context, "base": base >> 12,
                                             **notify})
        return abi.Status((await receive(ctx, self.dut.cq_result, self.rng, self.stall))["status"])

    async def create_cq(self, ctx, cq, log2=2, context=1, **notify):
        base = 0x800_0000 + 0x10_0000 * cq
        assert await self.update_cq(ctx, CqOp.CREATE, cq, log2, context, base, **notify) is abi.Status.OK
        return base

    def cqes(self, base, log2, first, count):
        """CQEs from memory, checked to be the host's: phase of their lap."""
        found = []
        for index in range(first, first + count):
            entry = unpack(abi.Cqe, int.from_bytes(self.memory.read(base + 32 * (index % (1 << log2)), 32), "little"))
            assert entry["phase"] == 1 - (index >> log2) % 2, f"CQE {index} isn't there"
            assert entry["pad1"] == 0
            found.append(entry)
        return found

    def events(self, first, count):
        found = []
        log2 = self.ring["log2"]
        for index in range(first, first + count):
            raw = self.memory.read(EVENTS + 64 * (index % (1 << log2)), 64)
            entry = unpack(abi.Event, int.from_bytes(raw, "little"))
            assert entry["phase"] == 1 - (index >> log2) % 2, f"event {index} isn't there"
            assert entry["pad1"] == 0
            found.append(entry)
        return found


async def idle(ctx, cycles):
    for _ in range(cycles):
        await ctx.tick()
