"""A Control layer with a host and neighbours around it."""

import random

from tests.queues.bench import Memory, receive, run, send, unpack
from tests.queues.harness import CONFIG

from emplace import abi
from emplace.control.layer import Control
from emplace.control.records import TokenOp
from emplace.dma.records import WriteKind
from emplace.ip.records import HoldOp
from emplace.protect.records import TableUpdate
from emplace.stream.scrub import scrub_cycles

ADMIN_SQ, ADMIN_CQ = 0x0000_0001_2345_6000, 0x0000_0002_FFFF_F000
LOG2 = 2
STATUS = abi.Status
OP = abi.Opcode


def command(opcode, **fields):
    """A command's bytes."""
    layout = abi.COMMANDS.get(opcode, abi.COMMANDS[OP.NOP])
    return layout.const({"opcode": int(opcode), **fields}).as_value().value.to_bytes(abi.COMMAND_BYTES, "little")


def install_fields(qpn, **fields):
    """A good INSTALL_QP."""
    return {"qpn": qpn, "context": 1, "pd": 7, "flags": 1, "recv_cq": 1, "send_cq": 2, "rq_log2": 3, "rq_base": 0x7000,
            "local_ip": 0x0A000001, "remote_ip": 0x0A000002, "local_port": 4000 + qpn % 8, "remote_port": 5000,
            **fields}


class Host:
    """Neighbours that answer with what the test tells them to, and note what was asked, in order.

    ``log``: ("token", op, qp), ("insert" or "delete", qp, key), ("cq", op, cq), ("table", op, stag), ("page", index,
    address), ("expect", ...), ("completion", ...), ("upload", ...), as they reach the neighbour.
    """

    def __init__(self, seed=1, stall=0.3):
        self.dut = Control(CONFIG)
        self.rng, self.stall = random.Random(seed), stall
        self.memory = Memory(seed, latency=(3, 20), stall=stall)
        self.log, self.completions, self.sent = [], [], 0
        self.cqs = {1: 1, 2: 1}                # that exist, and of which context
        self.lookup = {}                       # key: qp
        self.lookup_status = None              # what an insert is answered instead
        self.table_status = self.expect_status = STATUS.OK
        self.token_delay = 10
        self.tokens_out = True
        self.holds, self.lasts, self.release = {}, {}, lambda qp: True     # qp: qpn, last completion; RELEASE's outcome
        self.marks, self.marks_out = [], True
        self.uploads, self.histories = {}, {}
        self.history = {}                      # (slot, index): entry
        self.notes = []
        self.counted = {"commands": 0, "commands_refused": 0}
        self.doorbells = []

    def run(self, *testbenches, cycles=20_000, background=(), settle=scrub_cycles(CONFIG)):
        run(self.dut, *testbenches, cycles=cycles, settle=settle, background=[
            self.memory.requests(self.dut.reads), self.memory.answers(self.dut.read_data), self._inline, self._token,
            self._lookup, self._cq, self._table, self._pages, self._expect, self._count, self._history, self._note,
            self._hold, self._reached, *background])

    async def _inline(self, ctx):
        while True:
            write = await receive(ctx, self.dut.inline, self.rng, self.stall)
            assert write["kind"] == WriteKind.INLINE.value
            content = write["data"].to_bytes(64, "little")[:write["length"]]
            self.memory.write(write["address"], content)
            if not ADMIN_CQ <= write["address"] < ADMIN_CQ + 4096 and write["length"] == 16:
                self.histories.setdefault(write["address"] >> 9 << 9, {})[write["address"] & 511] = content
                continue
            if write["length"] == 64:
                self.uploads[write["address"]] = unpack(abi.Upload, int.from_bytes(content, "little"))
                self.log.append(("upload", write["address"]))
                continue
            entry = unpack(abi.AdminCompletion, int.from_bytes(content, "little"))
            number = len(self.completions)
            assert write["address"] == ADMIN_CQ + 16 * (number % (1 << LOG2))
            assert entry["phase"] == 1 - (number >> LOG2) % 2 and not entry["pad"]
            self.completions.append(entry)
            self.log.append(("completion", STATUS(entry["status"])))

    async def _history(self, ctx):
        """Entries as History shows them, a cycle late."""
        before = 0
        while True:
            ctx.set(self.dut.history.as_value(), self.history.get(before, 0))
            before = (ctx.get(self.dut.history_qp), ctx.get(self.dut.history_at)) if ctx.get(self.dut.history_hold) else None
            await ctx.tick()

    async def _note(self, ctx):
        while True:
            note = await receive(ctx, self.dut.note, self.rng, self.stall)
            self.notes.append((abi.HistoryKind(note["kind"]), note["qp"], note["detail"]))

    async def _token(self, ctx):
        while True:
            token = await receive(ctx, self.dut.token, self.rng, self.stall)
            op, qp = TokenOp(token["op"]), token["qp"]
            alive = ctx.get(self.dut.alive)
            cmd = ctx.get(self.dut.cmd)
            self.log.append(("token", op, qp))
            if op in (TokenOp.KILL, TokenOp.REMOVE, TokenOp.FLUSH):
                assert not alive >> qp & 1, "stopped before its token"
            for _ in range(self.rng.randint(1, self.token_delay)):
                await ctx.tick()
                assert not ctx.get(self.dut.token.valid), "two tokens at a time"
            while not self.tokens_out:
                await ctx.tick()
            if op in (TokenOp.INSTALL, TokenOp.UPLOAD):
                assert ctx.get(self.dut.cmd) == cmd, "cmd moved under its token"
            await send(ctx, self.dut.token_done, token, self.rng, self.stall)

    async def _lookup(self, ctx):
        while True:
            update = await receive(ctx, self.dut.lookup_update, self.rng, self.stall)
            key, qp = update["key"], update["qp"]
            self.log.append(("insert" if update["insert"] else "delete", qp))
            status = STATUS.OK
            if not update["insert"]:
                assert self.lookup.pop(key) == qp, "deletes another's entry"
            elif self.lookup_status is not None:
                status = self.lookup_status
            elif key in self.lookup:
                status = STATUS.EXISTS
            else:
                self.lookup[key] = qp
            await send(ctx, self.dut.lookup_result, {"status": status}, self.rng, self.stall)

    async def _hold(self, ctx):
        while True:
            request = await receive(ctx, self.dut.hold, self.rng, self.stall)
            op, qp = HoldOp(request["op"]), request["qp"]
            if op is not HoldOp.FREE and (op is not HoldOp.WATCH or qp in self.holds):    # FENCE watches, too
                self.log.append(("hold", op, qp))
            if op is HoldOp.HOLD:
                self.holds[qp] = request["qpn"]
                self.lasts.pop(qp, None)
            elif op is HoldOp.FREE:
                self.holds.pop(qp, None)
            elif op is HoldOp.RELEASE:
                good = self.release(qp)
                ctx.set(self.dut.released, good)
                if good:
                    del self.holds[qp]
            if op in (HoldOp.HOLD, HoldOp.WATCH):
                self.marks.append(qp)

    async def _reached(self, ctx):
        while True:
            while not self.marks or not self.marks_out:
                await ctx.tick()
            last = self.lasts.get(self.marks.pop(0))
            await send(ctx, self.dut.reached, {"any": last is not None, "index": last or 0}, self.rng, self.stall)

    async def _cq(self, ctx):
        while True:
            update = await receive(ctx, self.dut.cq_update, self.rng, self.stall)
            op, cq = ("check", "create", "destroy")[update["op"]], update["cq"]
            good = (cq in self.cqs) == (op != "create")
            if good and op == "create":
                self.cqs[cq] = update
            elif good and op == "destroy":
                del self.cqs[cq]
            if good and op != "check":
                self.log.append(("cq", op, cq))
            await send(ctx, self.dut.cq_result, {"status": STATUS.OK if good else STATUS.BAD_CQ}, self.rng, self.stall)

    async def _table(self, ctx):
        while True:
            update = await receive(ctx, self.dut.table, self.rng, self.stall)
            mr = unpack(TableUpdate()["mr"].shape, update["mr"])
            self.log.append(("table", update["op"], mr["stag"], mr["length"]))
            await send(ctx, self.dut.table_result, {"status": self.table_status}, self.rng, self.stall)

    async def _pages(self, ctx):
        while True:
            page = await receive(ctx, self.dut.pages, self.rng, self.stall)
            self.log.append(("page", page["index"], page["address"]))

    async def _expect(self, ctx):
        while True:
            self.log.append(("expect", await receive(ctx, self.dut.expect, self.rng, self.stall)))
            await send(ctx, self.dut.expect_result, {"status": self.expect_status}, self.rng, self.stall)

    async def _count(self, ctx):
        while True:
            _, _, count, valid, doorbell = await ctx.tick().sample(
                self.dut.count, self.dut.doorbell.valid, self.dut.doorbell.payload)
            for name in self.counted:
                self.counted[name] += int(count[name])
            if valid:
                self.doorbells.append((doorbell.kind.value, int(doorbell.context), int(doorbell.number),
                                       int(doorbell.value)))

    # The host

    async def write(self, ctx, address, value, mask=0xFF):
        """An 8-byte write, for one cycle."""
        assert address % 8 == 0
        ctx.set(self.dut.mmio_write.payload, {"address": address // 8, "data": value, "mask": mask})
        ctx.set(self.dut.mmio_write.valid, 1)
        await ctx.tick()
        ctx.set(self.dut.mmio_write.valid, 0)

    async def write32(self, ctx, name, value):
        offset = abi.REGISTERS[name].offset
        high = offset % 8 // 4
        await self.write(ctx, offset - 4 * high, value << 32 * high, 0xF << 4 * high)

    async def read(self, ctx, address):
        await send(ctx, self.dut.mmio_read, {"address": address // 8}, self.rng, self.stall)
        return await receive(ctx, self.dut.mmio_data, self.rng, self.stall)

    async def read32(self, ctx, name):
        offset = abi.REGISTERS[name].offset
        return await self.read(ctx, offset // 8 * 8) >> 32 * (offset % 8 // 4) & 0xFFFF_FFFF

    async def start(self, ctx):
        await self.write(ctx, abi.REGISTERS["ADMIN_SQ_LO"].offset, ADMIN_SQ)
        await self.write(ctx, abi.REGISTERS["ADMIN_CQ_LO"].offset, ADMIN_CQ)
        await self.write32(ctx, "ADMIN_LOG2", LOG2)

    async def submit(self, ctx, *commands):
        """Write commands and ring once."""
        for content in commands:
            self.memory.write(ADMIN_SQ + 128 * (self.sent % (1 << LOG2)), content)
            self.sent += 1
        await self.write32(ctx, "ADMIN_DOORBELL", self.sent)

    async def do(self, ctx, opcode, **fields):
        """Run one command; its status. AGAIN comes with its value."""
        cookie = self.rng.getrandbits(32)
        await self.submit(ctx, command(opcode, cookie=cookie, **fields))
        while len(self.completions) < self.sent:
            await ctx.tick()
        entry = self.completions[-1]
        assert (entry["cookie"], entry["opcode"]) == (cookie, int(opcode))
        if entry["status"] == STATUS.AGAIN:
            return STATUS.AGAIN, entry["value"]
        assert entry["value"] == 0
        return STATUS(entry["status"])

    async def install(self, ctx, qpn, **fields):
        return await self.do(ctx, OP.INSTALL_QP, **install_fields(qpn, **fields))

    async def state(self, ctx, qpn):
        """(state, reason) by UPLOAD_QP; None if there is no such QP."""
        address = 0x5_0000_0000 + 512 * len(self.uploads)
        if await self.do(ctx, OP.UPLOAD_QP, qpn=qpn, address=address) is STATUS.BAD_QPN:
            return None
        upload = self.uploads[address]
        assert upload["qpn"] == qpn
        return abi.QpState(upload["state"]), abi.Reason(upload["reason"])

    async def die(self, ctx, port, qp, reason):
        await send(ctx, self.dut.died[port], {"qp": qp, "reason": reason}, self.rng, self.stall)
