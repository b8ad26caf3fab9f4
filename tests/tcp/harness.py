"""The TCP layer between an ip that allots slots, an mpa that walks as it likes, and a wire that takes ACKs."""

import random
from collections import Counter

from amaranth.sim import Simulator

from emplace import abi
from emplace.abi import HistoryKind
from emplace.config import NicConfig
from emplace.control.records import RecordKind, TokenOp
from emplace.llp import SendOutcome
from emplace.tcp.layer import Tcp
from emplace.tcp.records import StreamEnd
from emplace_sim import words
from emplace_sim.tcp_model import Receiver, Walk

CONFIG = NicConfig(name="test", tlp_bytes=8, qps=4, cqs=2, regions=2, pages=2, slots=10, slot_reserve=2, rq_prefetch=2,
                   orq=2, ird=2, guard_ranges=1, read_tags=8, user_contexts=2)
NAMES = [c.name for c in abi.COUNTERS if c.layer == "tcp"]


def install(qp=0, **fields):
    """Fields of INSTALL_QP: a different connection for each QP."""
    flags = fields.pop("flags", abi.QpFlags.TIMESTAMPS)
    return {"qpn": 0x100 + qp, "flags": int(flags), "ttl": 64, "tos": 0x20 + qp, "local_ip": 0x0A000001 + 256 * qp,
            "remote_ip": 0x0A000002 + 256 * qp, "local_port": 4791 + qp, "remote_port": 40000 + qp,
            "vlan_tci": 0x6064 + qp, "local_mac": 0x525400000001, "remote_mac": 0x525400000002 + 256 * qp,
            "snd_nxt": 0x11223344 + qp, "rcv_nxt": 1000, "snd_wnd": 65536, "rcv_wnd": 1 << 16, "snd_wscale": 3,
            "rcv_wscale": 2, "ts_recent": 500, "ts_offset": 0xFFFFFF00, **fields}


class Bench:
    """``policy(qp, octets) -> Walk`` is mpa's mind. ``walks``: (qp, octets) in order; ``acks``: frames; ``ends``: (qp,
    how, walks before); ``notes``: HistoryNotes."""

    def __init__(self, seed=1, stall=0.3, config=CONFIG, policy=None, keep=(1, 60), ack_stall=None, delack=0):
        self.config, self.dut = config, Tcp(config)
        self.rng, self.stall = random.Random(seed), stall
        self.ack_stall = stall if ack_stall is None else ack_stall
        self.policy = policy or (lambda qp, octets: Walk(len(octets)))
        self.delack = delack
        self.keep = keep                         # cycles that mpa keeps a slot for
        self.walks, self.acks, self.tokens, self.ends, self.notes = [], [], [], [], []
        self.counters = Counter()
        self.taken = [bytearray() for _ in range(config.qps)]
        self.walk_times = []                     # (valid, taken, result taken), in cycles
        self.cycle = self.now = self.busy = self.last_sign = 0
        self.mine, self.kept = set(), {}         # slots that ip has; slots that mpa has, until a cycle
        self.installed, self.alive = {}, 0
        self.hold_acks = False

    def run(self, *testbenches, cycles=200_000):
        sim = Simulator(self.dut)
        sim.add_clock(8e-9)
        left = len(testbenches)

        def finish(testbench):
            async def wrapped(ctx):
                nonlocal left
                for _ in range(self.config.qps):     # memories are being cleared
                    await ctx.tick()
                await testbench(ctx)
                left -= 1
            return wrapped

        async def watchdog(ctx):
            while left:
                await ctx.tick()
                assert self.cycle < cycles, "hangs"

        for testbench in testbenches:
            sim.add_testbench(finish(testbench))
        sim.add_testbench(watchdog)
        for background in (self._watch, self._mpa, self._free, self._frames, self._ulp):
            sim.add_testbench(background, background=True)
        sim.run()

    # Around it

    async def _watch(self, ctx):
        dut = self.dut
        ctx.set(dut.now, self.now)
        ctx.set(dut.delack, self.delack)
        while True:
            _, _, count, free, note, record = await ctx.tick().sample(dut.count, dut.free_count, dut.note, dut.note_record)
            self.cycle += 1
            if note:
                self.notes.append((int(record.qp), HistoryKind(int(record.kind)), int(record.detail), int(record.flags),
                                   int(record.seq), int(record.ack)))
            for name in NAMES:
                if int(count[name]):
                    self.counters[name] += 1
                    self.last_sign = self.cycle
            assert 0 <= free <= self.config.slots

    async def _idle(self, ctx, chance):
        while self.rng.random() < chance:
            await ctx.tick()

    async def _mpa(self, ctx):
        dut = self.dut
        while True:
            await self._idle(ctx, self.stall)
            ctx.set(dut.walk.ready, 1)
            while not ctx.get(dut.walk.valid):
                await ctx.tick()
            begun, p = self.cycle, dut.walk.p
            qp, slot, offset, length = (int(ctx.get(p[name])) for name in ("qp", "slot", "offset", "length"))
            is_token = ctx.get(p.kind) == RecordKind.TOKEN
            token = (ctx.get(p.token.op), int(ctx.get(p.token.qp)))
            end = ctx.get(p.end)
            await ctx.tick()
            ctx.set(dut.walk.ready, 0)
            self.busy += 1
            if is_token:
                self.tokens.append(token)
                result = Walk(0)
            elif end != StreamEnd.NONE:
                self.ends.append((qp, end.name, len(self.walks)))
                result = Walk(0)
            else:
                assert 1 <= length and offset + length <= 2048
                assert slot not in self.mine and slot not in self.kept, "walk in a slot of somebody else"
                octets = await self._read(ctx, slot, offset, length)
                result = self.policy(qp, octets)
                self.walks.append((qp, octets))
                self.taken[qp] += octets[:result.consumed]
                if result.kept:
                    self.kept[slot] = self.cycle + self.rng.randint(*self.keep)
            await self._idle(ctx, self.stall)
            await self._give(ctx, dut.walked, {"consumed": result.consumed, "kept": int(result.kept),
                                               "parked": int(result.parked), "failed": int(result.failed)})
            ctx.set(dut.walked.payload, {"consumed": 0xAAA, "kept": 1, "parked": 1, "failed": 1})
            self.walk_times.append((begun, self.cycle))
            self.busy -= 1
            self.last_sign = self.cycle

    async def _read(self, ctx, slot, offset, length):
        port = self.dut.slot_read
        first, last = offset // 8, (offset + length - 1) // 8
        words = []
        for address in [*range(first, last + 1), None, None]:
            ctx.set(port.en, int(address is not None))
            if address is not None:
                ctx.set(port.slot, slot)
                ctx.set(port.address, address)
            words.append(int(ctx.get(port.data)))
            await ctx.tick()
        # Two cycles after it was asked for
        whole = b"".join(word.to_bytes(8, "little") for word in words[2:])
        ctx.set(port.en, 0)
        return whole[offset - 8 * first:][:length]

    async def _ulp(self, ctx):
        """A sending side with nothing to send, which always listens."""
        dut = self.dut
        ctx.set(dut.released.ready, 1)
        ctx.set(dut.send_died.ready, 1)
        while True:
            await self._take(ctx, dut.ask)
            await self._give(ctx, dut.answer, {"outcome": SendOutcome.NOTHING})

    async def _free(self, ctx):
        dut = self.dut
        while True:
            due = [slot for slot, until in self.kept.items() if until <= self.cycle]
            ctx.set(dut.slot_free.valid, int(bool(due)))
            if due:
                ctx.set(dut.slot_free.p.slot, due[0])
                del self.kept[due[0]]
            await ctx.tick()

    async def _frames(self, ctx):
        for _ in range(self.config.qps + 1):         # the test may hold ACKs from its beginning on
            await ctx.tick()
        while True:
            while self.hold_acks:
                await ctx.tick()
            got = []
            while not got or not got[-1]["last"]:
                await self._idle(ctx, self.ack_stall)
                p = await self._take(ctx, self.dut.frames)
                got.append({name: int(p[name]) for name in ("data", "empty", "last", "err")})
                self.last_sign = self.cycle
            frame, err = words.join(got, 8)
            assert not err
            self.acks.append(frame)

    @staticmethod
    async def _take(ctx, stream):
        """A word. A plain loop: an abandoned ``until`` complains when the simulation ends."""
        ctx.set(stream.ready, 1)
        valid = False
        while not valid:
            _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
        ctx.set(stream.ready, 0)
        return payload

    @staticmethod
    async def _give(ctx, stream, payload):
        ctx.set(stream.payload, payload)
        ctx.set(stream.valid, 1)
        ready = False
        while not ready:
            _, _, ready = await ctx.tick().sample(stream.ready)
        ctx.set(stream.valid, 0)

    # What a test does

    async def put(self, ctx, stream, payload):
        await self._idle(ctx, self.stall)
        await self._give(ctx, stream, payload)
        self.last_sign = self.cycle

    async def fill(self, ctx, payload):
        """Take a slot as ip does and write the payload into it."""
        dut = self.dut
        slot = int((await self._take(ctx, dut.alloc)).slot)
        assert slot not in self.mine and slot not in self.kept and slot < self.config.slots
        self.mine.add(slot)
        for address in range(0, -(-len(payload) // 8)):
            await self._idle(ctx, self.stall / 3)
            word = payload[8 * address:8 * address + 8].ljust(8, b"\xa5")
            ctx.set(dut.slot_write.payload, {"slot": slot, "address": address, "data": int.from_bytes(word, "little")})
            ctx.set(dut.slot_write.valid, 1)
            await ctx.tick()
            ctx.set(dut.slot_write.valid, 0)
        return slot

    async def segment(self, ctx, qp, seq, payload=b"", *, ack=None, window=100, tsval=None, options=False, marked=False,
                      **flags):
        slot = await self.fill(ctx, payload) if payload else self.rng.randrange(self.config.slots)
        self.mine.discard(slot) if payload else None
        await self.put(ctx, self.dut.segments, {
            "kind": RecordKind.DATA, "qp": qp, "slot": slot, "length": len(payload), "seq": seq & 0xFFFFFFFF,
            "ack": (self.installed[qp]["snd_nxt"] if ack is None else ack) & 0xFFFFFFFF, "window": window,
            "has_ts": int(tsval is not None), "tsval": (tsval or 0) & 0xFFFFFFFF, "options": int(options),
            "ecn": 3 if marked else 0, "has_ack": 1, **{name: int(value) for name, value in flags.items()}})

    async def token(self, ctx, op, qp=0):
        """Send a token and wait until it has come out."""
        seen = len(self.tokens)
        ctx.set(self.dut.send_token_out.ready, 1)          # the sending side comes first
        await self.put(ctx, self.dut.send_token, {"op": op, "qp": qp})
        await self.put(ctx, self.dut.segments, {"kind": RecordKind.TOKEN, "token": {"op": op, "qp": qp}})
        while len(self.tokens) == seen or self.busy:
            await ctx.tick()
        assert self.tokens[seen:] == [(op, qp)]

    async def install(self, ctx, qp=0, **fields):
        cmd = self.installed[qp] = install(qp, **fields)
        ctx.set(self.dut.cmd, cmd)
        await self.token(ctx, TokenOp.INSTALL, qp)
        await ctx.tick()
        ctx.set(self.dut.cmd, {name: 0 for name in cmd})
        self.set_alive(ctx, qp, 1)
        return self.model(qp)

    def model(self, qp=0):
        """A model that walks as mpa's policy says."""
        cmd = self.installed[qp]
        return Receiver(rcv_nxt=cmd["rcv_nxt"], rcv_wnd=cmd["rcv_wnd"], walk=lambda octets: self.policy(qp, octets),
                        snd_nxt=cmd["snd_nxt"], snd_wnd=cmd["snd_wnd"], snd_wscale=cmd["snd_wscale"],
                        ts_recent=cmd["ts_recent"], ts_set=self.now, delayed=bool(self.delack),
                        **{name.lower(): bool(cmd["flags"] & abi.QpFlags[name])
                           for name in ("TIMESTAMPS", "SACK", "ECN", "DCTCP")})

    def set_alive(self, ctx, qp, alive):
        self.alive = self.alive & ~(1 << qp) | alive << qp
        ctx.set(self.dut.alive, self.alive)

    def set_now(self, ctx, now):
        self.now = now & 0xFFFFFFFF
        ctx.set(self.dut.now, self.now)

    async def resume(self, ctx, qp):
        await self.put(ctx, self.dut.resume, {"qp": qp})

    async def settle(self, ctx, quiet=50):
        """Until nothing has happened for a while."""
        self.last_sign = self.cycle
        while self.cycle - self.last_sign < quiet or self.busy:
            await ctx.tick()

    async def upload(self, ctx, qp=0):
        await self.token(ctx, TokenOp.UPLOAD, qp)
        return {name: int(ctx.get(self.dut.upload[name]))
                for name in ("snd_una", "snd_nxt", "snd_wnd", "rcv_nxt", "rcv_wnd", "ts_recent")}

    def slots_free(self, ctx):
        return int(ctx.get(self.dut.free_count))
