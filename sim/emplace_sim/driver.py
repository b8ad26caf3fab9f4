"""The card's driver: verbs by rdma-core's names, on the host interface of ``emplace.abi``.

Everything that talks to the card is a coroutine. The bus may be :class:`~emplace_sim.bus.FastBus` or
anything else with ``memory``, ``read32_many``, ``write32``, ``write64`` and ``wait_activity``.
"""

import errno
import random
from collections import Counter
from dataclasses import dataclass, field

from emplace import abi
from emplace.abi import Access, Opcode, Status

from .driver_records import pack, unpack
from .driver_send import SendQueue
from .host import PAGE, Buffer
from .statistics import ETHER_STATS, ETHTOOL, Widened, evaluate

__all__ = ["AdminError", "CardError", "Device", "ProtectionDomain", "MemoryRegion", "CompletionQueue", "QueuePair", "Sge"]


#: Where interrupts go: the local interrupt controllers of a PC, CPU 0.
MSI_ADDRESS = 0xFEE0_0000


class AdminError(Exception):
    """The card refused a command: ``status`` (abi.Status), ``command`` (abi.Opcode), ``value`` of its completion."""

    def __init__(self, status, command, value=0):
        self.status, self.command, self.value = status, command, value
        super().__init__(f"{command.name}: {status.name}")


class CardError(Exception):
    """The card is not what the driver expects, or does not answer."""


@dataclass(eq=False)
class ProtectionDomain:
    number: int


@dataclass(eq=False)
class MemoryRegion:
    """A registered region. ``base`` is its first TO; ``lkey`` and ``rkey`` are the STag."""

    pd: ProtectionDomain
    stag: int
    base: int
    buffer: Buffer
    access: Access
    pages: range

    lkey = rkey = property(lambda self: self.stag)
    length = property(lambda self: self.buffer.length)

    def sge(self, at=0, length=None):
        """A scatter element for ``length`` bytes from byte ``at`` on."""
        return Sge(self.base + at, self.length - at if length is None else length, self.stag)


@dataclass
class Sge:
    addr: int
    length: int
    lkey: int


class _Ring:
    """A ring that the card writes, read by phase."""

    def __init__(self, buffer, layout, entries):
        self.buffer, self.layout, self.entries, self.consumed = buffer, layout, entries, 0
        self.size = abi.nbytes(layout)

    def next(self):
        """The next entry's fields, or None if the card has not written it."""
        data = self.buffer.read(self.consumed % self.entries * self.size, self.size)
        if data[-1] >> 7 != (self.consumed // self.entries + 1) % 2:
            return None
        self.consumed += 1
        return unpack(self.layout, data)


@dataclass(eq=False)
class CompletionQueue:
    number: int
    context: int
    ring: _Ring
    device: "Device"
    vector: int = 0
    qps: set = field(default_factory=set)
    heard: int = 0                                 # interrupts of the vector that event() has told of

    async def event(self, cycles=50000):
        """Until the queue's vector has fired since this was asked last (True), or for ``cycles`` (False).

        As with any completion channel: ``req_notify``, then poll, then wait.
        """
        while self.device.fired[self.vector] == self.heard:
            before = self.device.bus.now()
            if cycles <= 0 or not await self.device.bus.wait_activity(cycles):
                return False
            cycles -= (self.device.bus.now() - before) // self.device.bus.period_ns
        self.heard = self.device.fired[self.vector]
        return True


@dataclass(eq=False)
class QueuePair:
    """Its queues, and what is installed of the connection."""

    number: int
    pd: ProtectionDomain
    recv_cq: CompletionQueue
    send_cq: CompletionQueue
    context: int
    rq: Buffer | None
    rq_log2: int
    produced: int = 0
    installed: bool = False
    wr_ids: dict = field(default_factory=dict)     # receive WQE index -> wr_id
    sq: SendQueue | None = None


def _log2(entries, what, least, most):
    if entries < 1:
        raise ValueError(f"{what} must be at least 1, not {entries}")
    log2 = max((entries - 1).bit_length(), least)
    if log2 > most:
        raise ValueError(f"{what} may be at most {1 << most}, not {entries}")
    return log2


class Device:
    """One card.

    Parameters
    ----------
    bus : the bus that the card is on
    seed : of the numbers that must not be guessed (STags, QP numbers)
    timeout : cycles that an admin command may take
    """

    ADMIN_LOG2 = 4

    def __init__(self, bus, *, seed=0, timeout=50000):
        self.bus, self.memory, self.timeout = bus, bus.memory, timeout
        self.random = random.Random(f"driver {seed}")
        self._regions, self._qps, self._cqs, self._free_pages = {}, {}, {}, []
        self._pds = 0
        self._cookie = 0
        self._events = None
        self._widened = Widened()
        self.fired = Counter()                     # interrupts by vector

    # Opening

    async def open(self, *, events=256, tick=None, lease=None, delack=None):
        """Check that it is our card and give it its rings; returns itself."""
        names = ("ID", "ABI", "CAPS_TABLES", "CAPS_QUEUES", "CAPS_LIMITS")
        values = await self.bus.read32_many([abi.REGISTERS[name].offset for name in names])
        ident, version, tables, queues, limits = values
        if ident != abi.CARD_ID:
            raise CardError(f"ID register is {ident:#010x}, not {abi.CARD_ID:#010x}: this is no Emplace card")
        if version != abi.ABI_VERSION:
            raise CardError(f"the card has host interface {version}, this driver {abi.ABI_VERSION}")
        self.qps, self.cqs, self.regions, self.pages = (1 << (tables >> at & 0xFF) for at in (0, 8, 16, 24))
        self.slots, self.orq, self.ird, self.guard_ranges = (queues >> at & 0xFF for at in (0, 8, 16, 24))
        self.fpdu_max, self.contexts = limits & 0xFFFF, limits >> 16
        self._free_pages = [range(self.pages)]
        entries = 1 << self.ADMIN_LOG2
        self._sq = self.ring_memory(entries * abi.COMMAND_BYTES, "admin.command")
        self._cq = _Ring(self.ring_memory(entries * abi.nbytes(abi.AdminCompletion), "admin.completion"),
                         abi.AdminCompletion, entries)
        log2 = _log2(events, "events", 0, 12)
        self._events = _Ring(self.ring_memory(abi.nbytes(abi.Event) << log2, "event"), abi.Event, 1 << log2)
        for name, buffer in (("ADMIN_SQ", self._sq), ("ADMIN_CQ", self._cq.buffer), ("EVENT", self._events.buffer)):
            await self.register(name + "_LO", buffer.address & 0xFFFFFFFF)
            await self.register(name + "_HI", buffer.address >> 32)
        await self.register("ADMIN_LOG2", self.ADMIN_LOG2)
        await self.register("EVENT_LOG2", log2)
        for name, value in (("TICK", tick), ("LEASE", lease), ("DELACK", delack)):
            if value is not None:
                await self.register(name, value)
        return self

    async def register(self, name, value):
        """Write a register."""
        await self.bus.write32(abi.REGISTERS[name].offset, value)

    async def _ring(self, context, door, number, value, flags=0):
        page = abi.DOORBELL_PAGE + abi.DOORBELL_STRIDE * context
        word = pack(abi.DoorbellLayout, {"number": number, "value": value & 0xFFFF | flags})
        await self.bus.write64(page + door, int.from_bytes(word, "little"))

    def ring_memory(self, size, label):
        """Zeroed, so that no entry has the first lap's phase."""
        buffer = self.memory.alloc(size, label=label, contiguous=True)
        buffer.write(0, bytes(size))
        return buffer

    # Interrupts

    async def enable_interrupts(self, vectors, *, event_vector=0):
        """Fill the MSI-X table and switch it on: vector n writes n. ``fired`` counts what comes."""
        def fired(address, message):
            if address != MSI_ADDRESS:
                raise CardError(f"interrupt {message} at {address:#x}")
            self.fired[message] += 1
        self.bus.interrupted = fired
        await self.register("EVENT_VECTOR", event_vector)
        for vector in range(vectors):
            await self.bus.write64(abi.MSIX_PAGE + 16 * vector, MSI_ADDRESS)
            await self.bus.write64(abi.MSIX_PAGE + 16 * vector + 8, vector)       # data, and the mask bit 0
        self.bus.set_msix(1)

    async def mask_vector(self, vector, mask=True):
        """Set or clear a vector's mask bit; the card has seen it when this returns."""
        at = abi.MSIX_PAGE + 16 * vector + 12
        await self.bus.write32(at, int(mask))
        await self.bus.read32(at)

    async def moderate(self, vector, count, period):
        """Of a vector's other requests than CQs': so many raise it at once, fewer after ``period`` units of 256 cycles."""
        await self.bus.write32(abi.MODERATION + 4 * vector, count | period << 8)

    # Admin commands

    async def command(self, opcode, **fields):
        """Run one command; its completion's ``value``. AdminError if the card refuses it."""
        if self._events is None:
            raise CardError("the device is not open")
        cookie = self._cookie
        self._cookie += 1
        record = pack(abi.COMMANDS[opcode], {"opcode": opcode, "cookie": cookie & 0xFFFFFFFF, **fields})
        self._sq.write(cookie % self._cq.entries * abi.COMMAND_BYTES, record)
        await self.register("ADMIN_DOORBELL", cookie + 1 & 0xFFFFFFFF)
        while (done := self._cq.next()) is None:
            if not await self.bus.wait_activity(self.timeout):
                raise CardError(f"{opcode.name}: no completion in {self.timeout} cycles")
        if done["cookie"] != cookie & 0xFFFFFFFF or done["opcode"] != opcode:
            raise CardError(f"{opcode.name}, cookie {cookie}: completion is for opcode {done['opcode']}, "
                            f"cookie {done['cookie']}")
        if done["status"] != Status.OK:
            raise AdminError(Status(done["status"]), opcode, done["value"])
        return done["value"]

    # Memory

    def alloc_pd(self):
        self._pds += 1
        if self._pds > 0xFFFF:
            raise OSError(errno.ENOMEM, "all 65535 protection domains are in use")
        return ProtectionDomain(self._pds)

    def _new_stag(self, stag):
        if stag is not None:
            if not 0 <= stag < 1 << 32:
                raise ValueError(f"STag {stag:#x} is not a 32-bit number")
            slot = stag >> 8 & self.regions - 1
            if slot in self._regions:
                raise ValueError(f"STag {stag:#010x} needs region slot {slot}, which STag "
                                 f"{self._regions[slot].stag:#010x} has")
            return stag
        free = [slot for slot in range(self.regions) if slot not in self._regions]
        if not free:
            raise OSError(errno.ENOMEM, f"all {self.regions} regions (NicConfig.regions) are in use")
        bits = (self.regions - 1).bit_length()
        # RFC 5042 8: sparse and hard to guess.
        return (self.random.getrandbits(24 - bits) << bits | self.random.choice(free)) << 8 | self.random.getrandbits(8)

    def _take_pages(self, count):
        for n, run in enumerate(self._free_pages):
            if len(run) >= count:
                self._free_pages[n] = range(run.start + count, run.stop)
                return range(run.start, run.start + count)
        raise OSError(errno.ENOMEM, f"no {count} consecutive page list entries of {self.pages} (NicConfig.pages) are free")

    def _give_pages(self, pages):
        if pages:
            runs, merged = sorted([*filter(len, self._free_pages), pages], key=lambda run: run.start), []
            for run in runs:
                if merged and merged[-1].stop == run.start:
                    merged[-1] = range(merged[-1].start, run.stop)
                else:
                    merged.append(run)
            self._free_pages = merged

    async def reg_mr(self, pd, buffer, access, *, base=None, stag=None, label="payload"):
        """Register ``buffer``: a Buffer, or a length for a new one.

        ``base`` is its first TO (default: a random virtual address; 0 with ZERO_BASED). ``stag``: the
        STag to have, for replays. One physically contiguous run needs no page list; else the largest
        page that the buffer is made of is used.
        """
        access = Access(access) | Access.LOCAL_READ
        if isinstance(buffer, int):
            buffer = self.memory.alloc(buffer, label=label)
        if buffer.length <= 0:
            raise ValueError("a region has at least one byte")
        if access & Access.ZERO_BASED and base:
            raise ValueError(f"a zero-based region begins at 0, not {base:#x}")
        if base is None:
            page = self.random.randrange(1 << 20, 1 << 34) * PAGE
            base = 0 if access & Access.ZERO_BASED else page + buffer.offset
        if base < 0 or base + buffer.length > 1 << 64:
            raise ValueError(f"region {base:#x} + {buffer.length} is not within 2**64")
        stag = self._new_stag(stag)
        pages, fields = range(0), {"page_log2": 0, "address": buffer.address}
        if not buffer.contiguous:
            size = next(1 << log2 for log2 in range(30, 11, -1) if buffer.blocks(1 << log2))
            blocks = buffer.blocks(size)
            pages = self._take_pages(len(blocks))
            fields = {"page_log2": size.bit_length() - 1, "address": buffer.offset, "first_page": pages.start,
                      "pages": len(pages)}
        region = self._regions[stag >> 8 & self.regions - 1] = MemoryRegion(pd, stag, base, buffer, access, pages)
        try:
            for at in range(0, len(pages), 13):
                part = blocks[at:at + 13]
                await self.command(Opcode.WRITE_PAGES, first=pages.start + at, count=len(part),
                                   address=part + [0] * (13 - len(part)))
            await self.command(Opcode.REG_MR, stag=stag, pd=pd.number, access=access, base=base, length=buffer.length,
                               **fields)
        except (AdminError, CardError):
            del self._regions[stag >> 8 & self.regions - 1]
            self._give_pages(pages)
            raise
        return region

    async def dereg_mr(self, region):
        """Once it returns, nobody writes to the region through its STag any more."""
        try:
            await self.command(Opcode.INVALIDATE, stag=region.stag)
        except AdminError as error:
            if error.status is not Status.BAD_STAG or not region.access & Access.REMOTE_INVALIDATE:
                raise
            await self.fence()           # the peer has invalidated it; its writes that came before leave the card
        del self._regions[region.stag >> 8 & self.regions - 1]
        self._give_pages(region.pages)

    # Completion queues and events

    async def create_cq(self, entries, *, context=0, label="cqe", vector=0, moderate_count=0, moderate_period=0):
        """``moderate_count`` completions notify at once, fewer after ``moderate_period`` units of 256 cycles."""
        log2 = _log2(entries, "CQ entries", 2, 15)
        self._check_context(context)
        number = next((n for n in range(self.cqs) if n not in self._cqs), None)
        if number is None:
            raise OSError(errno.ENOMEM, f"all {self.cqs} completion queues (NicConfig.cqs) are in use")
        buffer = self.ring_memory(abi.nbytes(abi.Cqe) << log2, label)
        await self.command(Opcode.CREATE_CQ, cq=number, log2=log2, context=context, base=buffer.address, vector=vector,
                           moderate_count=moderate_count, moderate_period=moderate_period)
        cq = self._cqs[number] = CompletionQueue(number, context, _Ring(buffer, abi.Cqe, 1 << log2), self, vector,
                                                 heard=self.fired[vector])
        return cq

    async def req_notify(self, cq, solicited=False):
        """Arm ``cq``: the next completion beyond those polled makes an interrupt; ``solicited``: the next solicited one, or
        one with an error."""
        await self._ring(cq.context, abi.Doorbell.CQ_ARM, cq.number, cq.ring.consumed,
                         abi.ARM_SOLICITED if solicited else 0)

    async def poll_cq(self, cq, most=16):
        """Up to ``most`` completions, each a dict of abi.Cqe's fields with ``wr_id``; the card learns that
        their slots are free."""
        found, read = [], False
        while len(found) < most and (entry := cq.ring.next()) is not None:
            qp = self._qps.get(entry["qpn"])
            read = True
            if qp and entry["opcode"] == abi.WcOpcode.RECV:
                entry["wr_id"] = qp.wr_ids.pop(entry["wqe_index"], None)
            elif qp and qp.sq:
                request = qp.sq.complete(entry["wqe_index"], entry["status"])
                if request is None:
                    continue
                entry["wr_id"] = request.wr_id
            else:
                entry["wr_id"] = entry["wqe_index"]
            found.append(entry)
        if read:
            await self._ring(cq.context, abi.Doorbell.CQ, cq.number, cq.ring.consumed)
        return found

    async def destroy_cq(self, cq):
        await self.command(Opcode.DESTROY_CQ, cq=cq.number)
        del self._cqs[cq.number]

    async def get_async_event(self):
        """The next event (a dict of abi.Event's fields, ``data`` as bytes), or None."""
        event = self._events.next()
        if event is not None:
            await self.register("EVENT_CONSUMER", self._events.consumed)
        return event

    # Queue pairs

    def _check_context(self, context):
        if not 0 <= context < self.contexts:
            raise ValueError(f"user context {context}: the card has {self.contexts} (NicConfig.user_contexts)")

    def create_qp(self, pd, send_cq, recv_cq, *, max_recv_wr=16, max_send_wr=0, context=0, label="recv_wqe"):
        """A QP that no connection is installed in yet. The card learns of it by :meth:`install`.

        ``max_send_wr`` counts entries of 64 bytes: a request with more than two SGEs, or more than 32 octets of inline data,
        takes two.
        """
        self._check_context(context)
        log2 = _log2(max_recv_wr, "max_recv_wr", 1, 15) if max_recv_wr else 0
        taken = {number & self.qps - 1 for number in self._qps}
        slot = next((n for n in range(self.qps) if n not in taken), None)
        if slot is None:
            raise OSError(errno.ENOMEM, f"all {self.qps} queue pairs (NicConfig.qps) are in use")
        bits = (self.qps - 1).bit_length()
        number = self.random.getrandbits(24 - bits) << bits | slot
        rq = self.ring_memory(abi.nbytes(abi.RecvWqe) << log2, label) if log2 else None
        qp = self._qps[number] = QueuePair(number, pd, recv_cq, send_cq, context, rq, log2)
        if max_send_wr:
            sq_log2 = _log2(max_send_wr, "max_send_wr", 3, 15)
            qp.sq = SendQueue(self.ring_memory(SendQueue.ENTRY << sq_log2, "send_wqe"), sq_log2)
        return qp

    async def install(self, qp, *, held=False, **connection):
        """Hand an ESTABLISHED connection over: the fields of abi INSTALL_QP that are not the QP's own. ``held``: its
        frames still go to the frame ring, until :meth:`activate`."""
        known = {name for name, _ in abi.COMMANDS[Opcode.INSTALL_QP]}
        unknown = set(connection) - known
        if unknown:
            raise ValueError(f"INSTALL_QP has no field {', '.join(sorted(unknown))}")
        if held:
            connection["flags"] = connection.get("flags", 0) | abi.QpFlags.HELD
        await self.command(Opcode.INSTALL_QP, **{
            "qpn": qp.number, "context": qp.context, "pd": qp.pd.number, "recv_cq": qp.recv_cq.number,
            "send_cq": qp.send_cq.number, "rq_log2": qp.rq_log2, "rq_base": qp.rq.address if qp.rq else 0,
            "sq_log2": qp.sq.log2 if qp.sq else 0, "sq_base": qp.sq.buffer.address if qp.sq else 0, **connection})
        qp.installed = True

    async def post_send(self, qp, requests):
        """Post send requests (:class:`~emplace_sim.driver_send.SendWr`); one doorbell for all."""
        if qp.sq is None:
            raise ValueError("this QP has no send queue (max_send_wr)")
        for request in requests:
            qp.sq.put(request)
        if requests:
            await self._ring(qp.context, abi.Doorbell.SQ, qp.number, qp.sq.produced)

    async def activate(self, qp, index):
        """End the hold of a connection whose frames up to completion ``index`` the host has dealt with. None, or the
        index to reach first: more of its frames have gone to the host."""
        try:
            await self.command(Opcode.ACTIVATE_QP, qpn=qp.number, index=index & 0xFFFFFFFF)
        except AdminError as refused:
            if refused.status != Status.AGAIN:
                raise
            return refused.value
        return None

    async def post_recv(self, qp, requests):
        """Post receive requests, each a list of up to four Sges, or (list, wr_id); one doorbell for all."""
        if qp.rq is None:
            raise ValueError("this QP has no receive queue")
        for request in requests:
            sges, wr_id = request if isinstance(request, tuple) else (request, None)
            if len(sges) > 4:
                raise ValueError(f"a receive request has at most 4 SGEs, not {len(sges)}")
            index = qp.produced & 0xFFFF
            if len(qp.wr_ids) >= 1 << qp.rq_log2:
                raise OSError(errno.ENOMEM, f"receive queue is full: {1 << qp.rq_log2} requests (max_recv_wr)")
            fields = [{"addr": sge.addr, "length": sge.length, "lkey": sge.lkey} for sge in sges]
            fields += [{"addr": 0, "length": 0, "lkey": 0}] * (4 - len(fields))
            data = b"".join(pack(abi.Sge, sge) for sge in fields)
            qp.rq.write(qp.produced % (1 << qp.rq_log2) * len(data), data)
            qp.wr_ids[index] = wr_id
            qp.produced += 1
        if requests:
            await self._ring(qp.context, abi.Doorbell.RQ, qp.number, qp.produced)

    async def expect_read(self, qp, stag, to, length, wr_id=0):
        """The host has sent a Read Request whose sink is this; its response completes on ``send_cq``."""
        await self.command(Opcode.EXPECT_READ, qpn=qp.number, stag=stag, to=to, length=length, wr_id=wr_id)

    async def upload(self, qp):
        """abi.Upload of a QP, as a dict; ``history`` is a list of its last events, dicts of abi.History's fields."""
        size = abi.nbytes(abi.Upload)
        buffer = self.memory.alloc(size + abi.nbytes(abi.History), label="upload", contiguous=True)
        try:
            await self.command(Opcode.UPLOAD_QP, qpn=qp.number, address=buffer.address)
            entries = unpack(abi.History, buffer.read(size))
            return {**unpack(abi.Upload, buffer.read(0, size)),
                    "history": [entry for entry in entries if entry["kind"] != abi.HistoryKind.NONE]}
        finally:
            self.memory.free(buffer)

    async def flush(self, qp):
        """Every posted receive request completes with WR_FLUSH_ERR."""
        await self.command(Opcode.FLUSH_QP, qpn=qp.number)

    async def fence(self):
        await self.command(Opcode.FENCE)

    async def destroy_qp(self, qp):
        if qp.installed:
            await self.command(Opcode.REMOVE_QP, qpn=qp.number)
        del self._qps[qp.number]

    # Statistics

    async def counters(self, names=None):
        """Counters by name, all or those in ``names``."""
        numbers = {counter.name: n for n, counter in enumerate(abi.COUNTERS) if names is None or counter.name in names}
        values = await self.bus.read32_many([abi.COUNTER_PAGE + 4 * n for n in numbers.values()])
        return dict(zip(numbers, values))

    async def statistics(self):
        """Of the wire, since the card's reset, by the names of RFC 2819 and of ``ethtool -S``; to be asked for at least
        every 27 s (see :class:`~emplace_sim.statistics.Widened`)."""
        total = self._widened.update(await self.counters([c.name for c in abi.COUNTERS if c.layer == "mac"]))
        return evaluate(ETHER_STATS, total) | evaluate(ETHTOOL, total)

    async def samples(self):
        """By counter, the first 64 bytes of the last frame that it counted; of those that have counted one."""
        words = abi.SAMPLE_BYTES // 4
        values = await self.bus.read32_many([abi.SAMPLE_PAGE + abi.SAMPLE_BYTES * n + 4 * word
                                             for n in abi.SAMPLED for word in range(words)])
        found = {}
        for at, n in enumerate(abi.SAMPLED):
            frame = b"".join(value.to_bytes(4, "little") for value in values[words * at:words * (at + 1)])
            if any(frame):
                found[abi.COUNTERS[n].name] = frame
        return found
