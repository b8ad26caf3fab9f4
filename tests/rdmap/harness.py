"""DDP and RDMAP between stand-ins for their neighbours; what comes out is compared with the golden model."""

import copy
import functools
import random
from collections import deque
from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, connect, flipped
from amaranth.sim import Simulator

from emplace import abi
from emplace.abi import QpFlags, Reason
from emplace.config import PROFILES
from emplace.control.records import InstallCommand, RecordKind, TokenOp
from emplace.ddp.layer import Ddp
from emplace.dma.records import PlaceKind
from emplace.llp import UlpduRecord, UlpduStatus
from emplace.protect.records import AccessOp, Outcome, Refusal
from emplace.rdmap.layer import Rdmap
from emplace.stream.packet import connect_streams
from emplace_sim.rdmap_model import Qp, RdmapModel, Region, Wqe, refusal, refuse_invalidate

TINY = PROFILES["tiny"]
LLP = {Reason.NONE: UlpduStatus.OK, Reason.FPDU_LENGTH: UlpduStatus.LENGTH, Reason.FPDU_CRC: UlpduStatus.CRC,
       Reason.SLOT_LEASE: UlpduStatus.LEASE, Reason.PEER_FIN: UlpduStatus.FIN, Reason.PEER_FIN_DIRTY: UlpduStatus.FIN_DIRTY,
       Reason.PEER_RESET: UlpduStatus.RESET}


RECEIVING = ("access", "granted", "take", "taken", "sge", "sge_data", "commands", "died", "expect", "expect_result", "cmd",
             "upload", "count")


class Chain(wiring.Component):
    """Ddp and Rdmap's receiving side in a row; nothing is sent."""

    def __init__(self, config=TINY):
        self.config = config
        self.rdmap = Rdmap(config)
        ports = {name: self.rdmap.signature.members[name] for name in RECEIVING}
        super().__init__({"ulpdus": In(stream.Signature(UlpduRecord(config))), **ports})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ddp = ddp = Ddp(self.config)
        m.submodules.rdmap = rdmap = self.rdmap
        connect(m, flipped(self.ulpdus), ddp.ulpdus)
        connect_streams(m, ddp.segments, rdmap.segments)
        for name, member in self.signature.members.items():
            if member.is_signature:
                if name != "ulpdus":
                    mine, its = flipped(getattr(self, name)), getattr(rdmap, name)
                    connect(m, *((mine, its) if member.flow is In else (its, mine)))
            elif name == "cmd":
                m.d.comb += [ddp.cmd.eq(self.cmd), rdmap.cmd.eq(self.cmd)]
            else:
                m.d.comb += getattr(self, name).eq(getattr(rdmap, name))
        return m


# Steps of a script

@dataclass
class Ulpdu:
    """An FPDU up to its padding, on QP ``slot``."""

    slot: int
    fpdu: bytes
    status: Reason = Reason.NONE
    claimed: bool = False


@dataclass
class Install:
    qp: Qp
    recv_msn: int = 1
    recv_read_msn: int = 1


@dataclass
class TokenStep:
    op: TokenOp
    slot: int


@dataclass
class Expect:
    """Done once everything before it has come out, or (not ``wait``) in the midst of it."""

    slot: int
    stag: int
    to: int
    length: int
    wr_id: int
    wait: bool


def region(stag, *, pd=1, access=abi.Access.LOCAL_WRITE | abi.Access.REMOTE_WRITE | abi.Access.REMOTE_INVALIDATE,
           base=0x7F0000001000, length=0x4000, page=4096, covered=None, valid=True):
    """A region whose pages lie apart in physical memory, last one lowest; pages behind ``covered`` octets lack."""
    count = -(-(length if covered is None else covered) // page)
    pages = [(stag << 32) + 2 * page * (count - n) for n in range(count)]
    return Region(stag, pd, access, base, length, page, pages, valid)


class Bench:
    """A script, the model's opinion of it, and a run of the gateware.

    Parameters
    ----------
    regions : list of Region
    stall : probability that a stream pauses, each cycle
    grant_latency : cycles from a request to its first reply, where ``stall`` is 0
    gather : join placements that go on where the last one ended
    """

    def __init__(self, regions, *, stall=0.0, seed=1, grant_latency=4, config=TINY, hook=None):
        self.config, self.stall, self.grant_latency = config, stall, grant_latency
        self.rng = random.Random(seed)
        self.regions = {r.stag: copy.deepcopy(r) for r in regions}
        self.model = RdmapModel([copy.deepcopy(r) for r in regions], orq=config.orq)
        self.hook = hook                 # hook(request, replies): may change the replies
        self.script, self.expect_want, self.expect_got = [], [], []
        self.posted, self.claims, self.wqes, self.domains = {}, {}, {}, {}
        self.packets, self.asked = deque(), deque()
        self.at = 0                      # octets of the first packet that are used up
        self.effects, self.died, self.tokens, self.uploads = [], [], [], []
        self.counts, self.stamps = {}, []
        self.retired = self.receive_cqes = 0
        self.cycle, self.quiet = 0, 0

    # The script

    def install(self, slot=3, *, recv_msn=1, recv_read_msn=1, **fields):
        qp = Qp(slot, **{"qpn": 0xAB0000 | slot, "recv_cq": slot & 7, "send_cq": 8 | slot & 7, **fields})
        self.script.append(Install(copy.deepcopy(qp), recv_msn, recv_read_msn))
        self.model.install(qp, recv_msn, recv_read_msn)
        return self

    def post(self, slot, index, *sges, failed=False):
        """A receive WQE."""
        self.model.qps[slot].posted.append(Wqe(index, list(sges), failed))
        wqe = Wqe(index, list(sges), failed)
        self.script.append(lambda: self.posted.setdefault(slot, deque()).append(wqe))
        return self

    def forget(self):
        """What the QPs have not used is gone."""
        self.script.append(lambda: (self.posted.clear(), self.wqes.clear()))
        return self

    def ulpdu(self, fpdu, slot=3, *, status=Reason.NONE, claimed=False):
        header = (fpdu + self.rng.randbytes(48))[:48]
        self.script.append((Ulpdu(slot, fpdu, status, claimed), header))
        self.model.ulpdu(slot, header, fpdu[2:], status)
        return self

    def token(self, op, slot=3):
        self.script.append(TokenStep(op, slot))
        if op in (TokenOp.KILL, TokenOp.REMOVE) and slot in self.model.qps:
            self.model.qps[slot].alive = False
        return self

    def expect_read(self, slot, stag, to, length, wr_id, *, wait=True):
        self.script.append(Expect(slot, stag, to, length, wr_id, wait))
        self.expect_want.append(self.model.expect_read(slot, stag, to, length, wr_id))
        return self

    # Stand-ins

    async def _pause(self, ctx):
        while self.rng.random() < self.stall:
            await ctx.tick()

    async def _put(self, ctx, port, payload):
        ctx.set(port.payload, payload)
        ctx.set(port.valid, 1)
        ready = False
        while not ready:                 # not until(): a bench that is left in it upsets pytest's report of a failure
            _, _, ready = await ctx.tick().sample(port.ready)
        ctx.set(port.valid, 0)

    async def _get(self, ctx, port):
        await self._pause(ctx)
        ctx.set(port.ready, 1)
        while True:
            _, _, valid, payload = await ctx.tick().sample(port.valid, port.payload)
            if valid:
                ctx.set(port.ready, 0)
                return payload

    async def _source(self, ctx):
        dut = self.dut
        sent_tokens = 0
        for step in self.script:
            await self._pause(ctx)
            if callable(step):
                step()
                continue
            if isinstance(step, Expect):
                while step.wait and (self.packets or not self._idle()):
                    await ctx.tick()
                ctx.set(dut.expect.payload, {"qp": step.slot, "stag": step.stag, "to": step.to, "length": step.length,
                                             "wr_id": step.wr_id})
                ctx.set(dut.expect.valid, 1)
                # The result is not looked for before the request is taken: as control does it.
                await ctx.tick().until(dut.expect.ready)
                ctx.set(dut.expect.valid, 0)
                for _ in range(self.rng.randrange(12) if self.stall else 0):
                    await ctx.tick()
                ctx.set(dut.expect_result.ready, 1)
                result, = await ctx.tick().sample(dut.expect_result.payload).until(dut.expect_result.valid)
                ctx.set(dut.expect_result.ready, 0)
                self.expect_got.append(abi.Status(result.status))
                continue
            if isinstance(step, Install | TokenStep):
                if isinstance(step, Install):
                    op, slot = TokenOp.INSTALL, step.qp.slot
                    self.domains[slot] = step.qp.pd
                    ctx.set(dut.cmd, {
                        "qpn": step.qp.qpn, "pd": step.qp.pd, "flags": step.qp.flags, "recv_cq": step.qp.recv_cq,
                        "send_cq": step.qp.send_cq, "recv_msn": step.recv_msn, "recv_read_msn": step.recv_read_msn})
                else:
                    op, slot = step.op, step.slot
                await self._put(ctx, dut.ulpdus, {"kind": RecordKind.TOKEN, "token": {"op": op, "qp": slot}})
                sent_tokens += 1
                while len(self.tokens) < sent_tokens:      # one is under way at a time
                    await ctx.tick()
                ctx.set(dut.cmd, InstallCommand.from_bits(0))
                continue
            ulpdu, header = step
            if ulpdu.status == Reason.NONE:
                self.packets.append(ulpdu.fpdu)
            self.claims[ulpdu.slot] = self.claims.get(ulpdu.slot, 0) + ulpdu.claimed
            await self._put(ctx, dut.ulpdus, {
                "kind": RecordKind.DATA, "qp": ulpdu.slot, "length": len(ulpdu.fpdu) - 2, "status": LLP[ulpdu.status],
                "claimed": ulpdu.claimed, "header": int.from_bytes(header, "little")})
        self.finished = True

    async def _listen(self, ctx):
        while True:
            payload = await self._get(ctx, self.dut.access)
            request = {name: int(payload[name]) for name in ("stag", "pd", "offset", "length", "right")}
            assert request["pd"] == self.domains[int(payload.qp)]
            self.asked.append((self.cycle, request | {"op": payload.op}))
            assert len(self.asked) <= 2

    async def _protect(self, ctx):
        while True:
            while not self.asked:
                await ctx.tick()
            stamp, request = self.asked[0]
            replies = self._answer(request)
            while self.cycle < stamp + self.grant_latency - 1:
                await ctx.tick()
            for reply in replies:
                await self._pause(ctx)
                await self._put(ctx, self.dut.granted, reply)
            self.asked.popleft()

    def _answer(self, request):
        stag, pd, offset, length, right = (request[name] for name in ("stag", "pd", "offset", "length", "right"))
        assert right
        if request["op"] == AccessOp.INVALIDATE:
            why, bursts = refuse_invalidate(self.regions, stag, pd), [(0, 0)]
        else:
            assert 1 <= length <= self.config.fpdu_max
            why = refusal(self.regions, stag, pd, offset, length, right)
            bursts = list(self.regions[stag].bursts(offset, length)) if not why else []
            if request["op"] == AccessOp.CHECK:
                bursts = [(0, 0)]
        if why:
            replies = [{"outcome": Outcome.REFUSED, "refusal": Refusal[why], "last": 1}]
        else:
            replies = [{"outcome": Outcome.GRANTED, "address": address, "length": size, "last": n == len(bursts) - 1}
                       for n, (address, size) in enumerate(bursts)]
        return self.hook(request, replies) if self.hook else replies

    async def _queues(self, ctx):
        dut, taken_count = self.dut, 0
        while True:
            payload = await self._get(ctx, dut.take)
            slot, take, claimed, retire = (int(payload[name]) for name in ("qp", "take", "claimed", "retire"))
            if claimed:
                assert self.claims.get(slot, 0) > 0
                self.claims[slot] -= 1
            assert not (take and retire)
            if retire:
                assert slot in self.wqes and not claimed
                del self.wqes[slot]
                self.retired += 1
            if not take:
                continue
            posted = self.posted.get(slot)
            await self._pause(ctx)
            if not posted:
                await self._put(ctx, dut.taken, {"ok": 0})
                continue
            wqe = posted.popleft()
            if wqe.failed:
                await self._put(ctx, dut.taken, {"ok": 0, "failed": 1})
                continue
            entry = taken_count % self.config.rq_prefetch
            taken_count += 1
            assert slot not in self.wqes, "a WQE was taken before the last was retired"
            self.wqes[slot] = (entry, wqe)
            await self._put(ctx, dut.taken, {
                "ok": 1, "entry": entry, "wqe_index": wqe.index, "total": sum(length for _, length, _ in wqe.sges)})

    async def _sges(self, ctx):
        dut = self.dut
        while True:
            payload = await self._get(ctx, dut.sge)
            entry, wqe = self.wqes[int(payload.qp)]
            assert entry == int(payload.entry)
            addr, length, lkey = (wqe.sges + [(0, 0, 0)] * 4)[int(payload.index)]
            await self._pause(ctx)
            await self._put(ctx, dut.sge_data, {"addr": addr, "length": length, "lkey": lkey})

    def _virtual(self, physical):
        """(STag, TO) of a physical address."""
        for r in self.regions.values():
            for n, page in enumerate(r.pages):
                if page <= physical < page + r.page:
                    return r.stag, r.base + n * r.page + physical - page
        raise AssertionError(f"{physical:#x} is nobody's memory")

    def _effect(self, effect):
        last = self.effects[-1] if self.effects else None
        if effect[0] == "place" and last and last[0] == "place" and last[1:3] == (effect[1], effect[2] - len(last[3])):
            self.effects[-1] = (*last[:3], last[3] + effect[3])
        else:
            self.effects.append(effect)

    async def _commands(self, ctx):
        while True:
            command = await self._get(ctx, self.dut.commands)
            self.quiet = 0
            self.stamps.append(self.cycle)
            if command.kind == PlaceKind.PAYLOAD:
                packet, skip, length = self.packets[0], int(command.skip), int(command.length)
                assert length >= 1 and self.at + skip + length <= len(packet)
                assert bool(skip) == (self.at == 0)
                self.at += skip + length
                self._effect(("place", *self._virtual(int(command.address)), packet[self.at - length:self.at]))
                if command.final:
                    assert self.at == len(packet), "the packet's end was not placed"
                    self.packets.popleft()
                    self.at = 0
            elif command.kind == PlaceKind.DISCARD:
                self.packets.popleft()
                self.at = 0
            elif command.kind == PlaceKind.CQE:
                body = abi.CqeBody.from_bits(int(command.data) & (1 << abi.CqeBody.size) - 1)
                names = ("qpn", "opcode", "status", "wqe_index", "byte_len", "solicited", "with_inv", "invalidated",
                         "immediate")
                self.receive_cqes += body.opcode == abi.WcOpcode.RECV
                self._effect(("cqe", int(command.cq), {name: int(body[name]) for name in names}))
            elif command.kind == PlaceKind.EVENT:
                body = abi.EventBody.from_bits(int(command.data))
                self._effect(("event", {name: int(body[name]) for name in ("type", "reason", "terminate", "qpn")}
                              | {"data": bytes(body.data)}))
            else:
                self.tokens.append((command.token.op, int(command.token.qp)))
                if command.token.op == TokenOp.UPLOAD:
                    self.uploads.append(int(ctx.get(self.dut.upload.reason)))

    async def _died(self, ctx):
        while True:
            payload = await self._get(ctx, self.dut.died)
            self.died.append((int(payload.qp), Reason(int(payload.reason))))

    async def _count(self, ctx):
        layout = abi.counter_layout("rdmap")
        async for _, _, strobes in ctx.tick().sample(self.dut.count.as_value()):
            self.cycle += 1
            self.quiet += 1
            for name in layout.members if strobes else ():
                if strobes >> layout[name].offset & 1:
                    self.counts[name] = self.counts.get(name, 0) + 1

    async def _wait(self, ctx):
        while not self.finished or self.packets or not self._idle():
            await ctx.tick()
            assert self.cycle < self.limit, f"hangs: {len(self.packets)} packets left, {len(self.effects)} effects"

    def _idle(self):
        return self.quiet > (20 + self.grant_latency if not self.stall else 60 + 20 / (1 - self.stall))

    def run(self, *, compare=True, limit=60_000):
        """Run the script; compare all with the model."""
        self.finished, self.limit = False, limit
        stage = _stage(self.config)
        self.dut = stage.dut
        if stage.bench is not None:
            stage.sim.reset()
        stage.bench = self
        stage.sim.run()
        assert not self.at and not any(self.claims.values()), "a claim was neither used nor given back"
        assert self.retired == self.receive_cqes
        if compare:
            got, self.effects = self.effects, []
            for effect in self.model.effects:
                self._effect(effect)
            for n, (mine, wanted) in enumerate(zip(got, self.effects, strict=False)):
                assert mine == wanted, f"effect {n}"
            assert len(got) == len(self.effects)
            self.effects = got
            assert self.died == self.model.died
            assert self.counts == self.model.counts
            assert self.expect_got == self.expect_want
        return self


class _Stage:
    """One simulator for all benches: making one takes longer than most runs."""

    def __init__(self, config):
        self.dut, self.bench = Chain(config), None
        self.sim = Simulator(self.dut)
        self.sim.add_clock(1e-8)
        for name in ("_source", "_listen", "_protect", "_queues", "_sges", "_commands", "_died", "_count", "_wait"):
            self.sim.add_testbench(self._player(name), background=name != "_wait")

    def _player(self, name):
        async def play(ctx):
            for _ in range(self.dut.config.qps):      # memories are being cleared
                await ctx.tick()
            await getattr(self.bench, name)(ctx)
        return play


@functools.cache
def _stage(config):
    return _Stage(config)


BASE = 0x7F0000001000
RIGHTS = abi.Access.LOCAL_WRITE | abi.Access.REMOTE_WRITE
FLAGS = QpFlags
