"""A card in Python, for the driver's tests: registers, admin commands, and completions on demand."""

from emplace import abi
from emplace.abi import Opcode, Status
from emplace.config import PROFILES
from emplace_sim.driver_records import pack, unpack
from emplace_sim.host import HostMemory
from emplace_sim.inet import checksum
from emplace_sim.xgmii import finish

__all__ = ["MockBus", "ack_frame", "run"]


def run(coroutine):
    """Run a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waits for something")


def ack_frame(install, offset, tsval, tsecr, **change):
    """A pure ACK of stream offset ``offset``, as the connection of ``install`` (INSTALL_QP's fields) has it.

    ``change``: fields of ``install``, or tcp_flags, window, options, payload, ip_error, tcp_error, fcs_error.
    """
    install = install | change
    options = change.get("options", b"")
    if install["flags"] & abi.QpFlags.TIMESTAMPS:
        options = b"\1\1\x08\x0a" + tsval.to_bytes(4, "big") + tsecr.to_bytes(4, "big") + options
    tcp = b"".join(value.to_bytes(size, "big") for value, size in (
        (install["local_port"], 2), (install["remote_port"], 2), (install["snd_nxt"], 4),
        (install["rcv_nxt"] + offset & 0xFFFFFFFF, 4), (20 + len(options) << 2, 1), (change.get("tcp_flags", 16), 1),
        (change.get("window", install["rcv_wnd"] >> install["rcv_wscale"]), 2), (0, 4))) + options
    tcp += change.get("payload", b"")
    addresses = install["local_ip"].to_bytes(4, "big") + install["remote_ip"].to_bytes(4, "big")
    total = checksum(addresses + b"\0\6" + len(tcp).to_bytes(2, "big") + tcp) ^ change.get("tcp_error", 0)
    tcp = tcp[:16] + total.to_bytes(2, "big") + tcp[18:]
    ip = bytes([0x45, install["tos"]]) + (20 + len(tcp)).to_bytes(2, "big") + b"\0\1\x40\0"
    ip += bytes([install["ttl"], 6, 0, 0]) + addresses
    ip = ip[:10] + (checksum(ip) ^ change.get("ip_error", 0)).to_bytes(2, "big") + ip[12:]
    frame = b"".join(install[name].to_bytes(6, "big") for name in ("remote_mac", "local_mac")) + b"\x08\0" + ip + tcp
    whole = finish(frame)
    return whole[:-1] + bytes([whole[-1] ^ change.get("fcs_error", 0)])


def log2(value):
    return (value - 1).bit_length()


class MockBus:
    """Bus and card in one: commands are checked and run when their doorbell rings."""

    def __init__(self, config=PROFILES["tiny"], *, seed=0, dead=False):
        self.config, self.memory, self.dead = config, HostMemory(seed=seed), dead
        self.samples = {}                    # offset in BAR0: a word of a sample
        self.registers = {register.offset: 0 for register in abi.REGISTERS.values()}
        self.registers |= {
            abi.REGISTERS["ID"].offset: abi.CARD_ID, abi.REGISTERS["ABI"].offset: abi.ABI_VERSION,
            abi.REGISTERS["CAPS_TABLES"].offset: log2(config.qps) | log2(config.cqs) << 8
            | log2(config.regions) << 16 | log2(config.pages) << 24,
            abi.REGISTERS["CAPS_QUEUES"].offset: config.slots | config.orq << 8 | config.ird << 16
            | config.guard_ranges << 24,
            abi.REGISTERS["CAPS_LIMITS"].offset: config.fpdu_max | config.user_contexts << 16}
        self.pages, self.mrs, self.cqs, self.qps, self.reads = [None] * config.pages, {}, {}, {}, []
        self.doorbells, self.produced, self.events, self.done = [], {}, 0, 0
        self.corrupt = None                  # (field, value) put into the next admin completion

    # The driver's side

    async def read32_many(self, offsets):
        return [offset - abi.COUNTER_PAGE if abi.COUNTER_PAGE <= offset < abi.COUNTER_PAGE + 0x1000
                else self.samples.get(offset, 0) if abi.SAMPLE_PAGE <= offset < abi.SAMPLE_PAGE + 0x1000
                else self.registers[offset] for offset in offsets]

    async def write32(self, offset, value):
        assert offset in self.registers and 0 <= value < 1 << 32
        self.registers[offset] = value
        if offset == abi.REGISTERS["ADMIN_DOORBELL"].offset and not self.dead:
            while self.done != value:
                self.admin()
                self.done += 1

    async def write64(self, offset, value):
        context, door = divmod(offset - abi.DOORBELL_PAGE, abi.DOORBELL_STRIDE)
        self.doorbells.append((context, abi.Doorbell(door), value & 0xFFFFFFFF, value >> 32))

    async def wait_activity(self, cycles):
        return False

    # The card's side

    def register(self, name):
        return self.registers[abi.REGISTERS[name].offset]

    def admin(self):
        entries = 1 << self.register("ADMIN_LOG2")
        base = self.register("ADMIN_SQ_LO") | self.register("ADMIN_SQ_HI") << 32
        record = self.memory.read(base + self.done % entries * abi.COMMAND_BYTES, abi.COMMAND_BYTES)
        opcode = Opcode(record[0])
        command = unpack(abi.COMMANDS[opcode], record)
        answer = getattr(self, opcode.name.lower())(command)
        fields = {"cookie": command["cookie"], "status": answer or Status.OK, "opcode": opcode,
                  "phase": (self.done // entries + 1) % 2}
        if self.corrupt:
            fields |= {self.corrupt[0]: self.corrupt[1]}
        base = self.register("ADMIN_CQ_LO") | self.register("ADMIN_CQ_HI") << 32
        self.memory.write(base + self.done % entries * 16, pack(abi.AdminCompletion, fields))

    def nop(self, command):
        pass

    fence = nop

    def create_cq(self, c):
        if c["cq"] in self.cqs:
            return Status.BAD_CQ
        if not 2 <= c["log2"] <= 15:
            return Status.BAD_SIZE
        if c["base"] % 4096:
            return Status.BAD_ADDRESS
        self.cqs[c["cq"]] = c
        self.produced[c["cq"]] = 0

    def destroy_cq(self, c):
        if c["cq"] not in self.cqs or any(c["cq"] in (q["recv_cq"], q["send_cq"]) for q in self.qps.values()):
            return Status.BAD_CQ
        del self.cqs[c["cq"]]

    def write_pages(self, c):
        if not 1 <= c["count"] <= 13 or c["first"] + c["count"] > self.config.pages:
            return Status.BAD_PAGES
        self.pages[c["first"]:c["first"] + c["count"]] = c["address"][:c["count"]]

    def reg_mr(self, c):
        slot = c["stag"] >> 8 & self.config.regions - 1
        if slot in self.mrs:
            return Status.BAD_STAG
        if not c["length"] or c["base"] + c["length"] > 1 << 64:
            return Status.BAD_LENGTH
        if c["page_log2"] and c["pages"] << c["page_log2"] < c["address"] + c["length"]:
            return Status.BAD_PAGES
        self.mrs[slot] = c

    def invalidate(self, c):
        slot = c["stag"] >> 8 & self.config.regions - 1
        if slot not in self.mrs or self.mrs[slot]["stag"] != c["stag"]:
            return Status.BAD_STAG
        del self.mrs[slot]

    def install_qp(self, c):
        if c["qpn"] & self.config.qps - 1 in {n & self.config.qps - 1 for n in self.qps}:
            return Status.BAD_QPN
        if c["recv_cq"] not in self.cqs or c["send_cq"] not in self.cqs:
            return Status.BAD_CQ
        self.qps[c["qpn"]] = c

    def remove_qp(self, c):
        if self.qps.pop(c["qpn"], None) is None:
            return Status.BAD_QPN

    def flush_qp(self, c):
        return None if c["qpn"] in self.qps else Status.BAD_QPN

    def upload_qp(self, c):
        if c["qpn"] not in self.qps:
            return Status.BAD_QPN
        self.memory.write(c["address"], pack(abi.Upload, {"qpn": c["qpn"], "rcv_nxt": self.qps[c["qpn"]]["rcv_nxt"]})
                          + pack(abi.History, [{"kind": abi.HistoryKind.NONE}] * 14 + [
                              {"kind": abi.HistoryKind.INSTALLED, "detail": 2}, {"kind": abi.HistoryKind.FAILED, "now": 9}]))

    def expect_read(self, c):
        if len(self.reads) == self.config.orq:
            return Status.QUEUE_FULL
        self.reads.append(c)

    def translate(self, stag, to, length):
        """Physical address of each byte of an access, as the protection unit would find it."""
        mr = self.mrs[stag >> 8 & self.config.regions - 1]
        assert mr["stag"] == stag and mr["base"] <= to and to + length <= mr["base"] + mr["length"]
        found = []
        for n in range(length):
            at = to - mr["base"] + n + (mr["address"] if mr["page_log2"] else 0)
            if mr["page_log2"]:
                page, offset = at >> mr["page_log2"], at & (1 << mr["page_log2"]) - 1
                found.append(self.pages[mr["first_page"] + page] + offset)
            else:
                found.append(mr["address"] + at)
        return found

    def complete(self, cq, **fields):
        ring = self.cqs[cq]
        index = self.produced[cq]
        self.produced[cq] += 1
        entries = 1 << ring["log2"]
        self.memory.write(ring["base"] + index % entries * 32,
                          pack(abi.Cqe, {**fields, "phase": (index // entries + 1) % 2}))

    def event(self, **fields):
        base = self.register("EVENT_LO") | self.register("EVENT_HI") << 32
        entries = 1 << self.register("EVENT_LOG2")
        self.memory.write(base + self.events % entries * 64,
                          pack(abi.Event, {"data": bytes(48), **fields, "phase": (self.events // entries + 1) % 2}))
        self.events += 1
