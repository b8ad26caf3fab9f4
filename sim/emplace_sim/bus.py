"""A fast host behind raw TLPs: plain memory, no root complex model, no link.

:class:`HostBridge` is the logic, on bytes; :class:`FastBus` puts it on a simulated card's two packet
streams. Both check each TLP of the card against the rules that a root complex relies on, book it in
a :class:`~emplace_sim.ledger.Ledger`, and log it. For tests of links, credits and enumeration there is
:mod:`emplace_sim.pcie`.
"""

import random
from collections import deque

import cocotb
from cocotb.triggers import Event, First, RisingEdge, Timer
from cocotb.utils import get_sim_time

from .host import HostMemory, MemoryFault
from .host_tlp import ABORT, UNSUPPORTED, Tlp, TlpError, completion, memory_request, split_completion
from .ledger import Ledger

__all__ = ["HostBridge", "FastBus", "BusTimeout", "BAR0", "INTERRUPTS"]

BAR0 = 0xE000_0000
INTERRUPTS = (0xFEE0_0000, 0xFEF0_0000)
HOST_ID = 0x0000
CARD_ID = 0x0100             # bus 1, device 0, function 0


class BusTimeout(Exception):
    """The card did not answer a read of its registers."""


class HostBridge:
    """Memory and registers' other end, on TLP bytes.

    ``receive`` takes a TLP from the card and returns what to send back: (delay in cycles, bytes).
    ``latency`` and ``jitter``: cycles from a read to its first completion; reads overtake each
    other as the jitter makes them. ``cut``: how completions are split ("max", "rcb", "random").
    ``fault(tlp)`` may return "UR", "CA", "POISON" or "DROP" for a read. ``problems`` collects what
    the card did wrong; nothing is raised, so that a run ends with its reports.
    """

    def __init__(self, memory: HostMemory, *, seed=0, latency=30, jitter=20, cut="max", max_payload=256, max_read=512,
                 ledger=None, log=True):
        self.memory, self.ledger = memory, ledger or Ledger()
        self.random = random.Random(f"bus {seed}")
        self.latency, self.jitter, self.cut = latency, jitter, cut
        self.max_payload, self.max_read = max_payload, max_read
        self.fault = lambda tlp: None
        self.log, self.keep_log = [], log
        self.problems, self.interrupts = [], []
        self.interrupted = lambda address, data: None      # called for each interrupt, as it comes
        self.outstanding = set()             # tags of the card's reads
        self.answers = {}                    # tag of a host's read -> Tlp or None
        self._host_tag = 0
        self.now = lambda: 0

    def note(self, way, tlp, purpose):
        if not self.keep_log:
            return
        if tlp.kind.startswith("Cpl"):
            what = f"tag={tlp.tag:02x} status={tlp.status} bytes={len(tlp.payload)} left={tlp.byte_count}"
        else:
            address, size = tlp.span
            what = f"{address:#014x} {size:4} B tag={tlp.tag:02x} be={tlp.first_be:x}/{tlp.last_be:x}"
        self.log.append(f"{self.now():>10} {way} {tlp.kind:4} {what} {purpose}")

    def problem(self, text):
        if len(self.problems) < 100:
            self.problems.append(f"{self.now()}: {text}")

    def receive(self, packet, err=False):
        """What to answer to a packet of the card."""
        if err:
            return []                        # nullified, as on a link
        try:
            tlp = Tlp.parse(packet)
            if tlp.kind.startswith("Cpl"):
                return self._completed(tlp)
            tlp.check_request()
            self._check(tlp)
        except TlpError as error:
            self.problem(str(error))
            return []
        return self._write(tlp) if tlp.kind == "MWr" else self._read(tlp)

    def _check(self, tlp):
        if tlp.requester != CARD_ID:
            self.problem(f"requester {tlp.requester:#06x} in {tlp.kind} at {tlp.address:#x}")
        if tlp.attributes or tlp.poisoned:
            self.problem(f"attributes {tlp.attributes:#x} in {tlp.kind} at {tlp.address:#x}")
        limit = self.max_payload if tlp.kind == "MWr" else self.max_read
        if 4 * tlp.length > limit:
            raise TlpError(f"{tlp.kind} of {4 * tlp.length} bytes at {tlp.address:#x}: the limit is {limit}")

    def _write(self, tlp):
        address, size = tlp.span
        if INTERRUPTS[0] <= address < INTERRUPTS[1]:
            if tlp.length != 1 or tlp.first_be != 15:
                self.problem(f"{size} bytes into the interrupt window, at {address:#x}")
            message = int.from_bytes(tlp.payload, "little")
            self.interrupts.append(message)
            self.interrupted(address, message)
            self.ledger.add("write", "interrupt", size, tlp.header_bytes)
            self.note("card->host", tlp, "interrupt")
            return []
        owner = self.memory.owner(address)
        purpose = owner.label if owner else "nowhere"
        self.ledger.add("write", purpose, size, tlp.header_bytes)
        self.note("card->host", tlp, purpose)
        try:
            for at, data in tlp.writes():
                self.memory.write(at, data)
        except MemoryFault as fault:
            self.problem(str(fault))
        return []

    def _read(self, tlp):
        address, size = tlp.span
        owner = self.memory.owner(address)
        purpose = owner.label if owner else "nowhere"
        self.ledger.add("read", purpose, size, tlp.header_bytes)
        self.note("card->host", tlp, purpose)
        if tlp.tag in self.outstanding:
            self.problem(f"tag {tlp.tag} is used by two reads at once")
        fault = self.fault(tlp)
        delay = self.latency + (self.random.randrange(self.jitter) if self.jitter else 0)
        if fault == "DROP":
            return []
        self.outstanding.add(tlp.tag)
        try:
            answers = split_completion(tlp, self.memory.read(address, size), limit=self.max_payload, cut=self.cut,
                                       rng=self.random)
        except MemoryFault as error:
            self.problem(str(error))
            answers = [completion(tlp, status=UNSUPPORTED)]
        if fault in ("UR", "CA"):
            answers = [completion(tlp, status=UNSUPPORTED if fault == "UR" else ABORT)]
        for answer in answers:
            answer.poisoned = fault == "POISON"
        sent = []
        for answer in answers:
            sent.append((delay, answer, purpose))
            delay += 4 + (self.random.randrange(self.jitter) if self.jitter else 0)
        return sent

    def sent(self, tlp, purpose):
        """``tlp`` is on its way: the tag of a read is free again with its last completion."""
        if tlp.kind.startswith("Cpl"):
            at = tlp.lower_address & 3
            if tlp.kind == "Cpl" or 4 * tlp.length - at >= tlp.byte_count:
                self.outstanding.discard(tlp.tag)
            self.ledger.add("completion", purpose, len(tlp.payload), tlp.header_bytes)
        self.note("host->card", tlp, purpose)
        return tlp.pack()

    # The host's own accesses

    def mmio_write(self, offset, data):
        tlp = memory_request(BAR0 + offset, len(data), data=data, requester=HOST_ID)
        self.ledger.add("mmio_write", "doorbell" if offset >= 0x10000 else "register", len(data), tlp.header_bytes)
        return tlp

    def mmio_read(self, offset, size):
        """A read of the card, and its tag in ``answers``."""
        self._host_tag = tag = (self._host_tag + 1) % 32
        if self.answers.get(tag, False) is None:
            raise BusTimeout("32 reads of the card are unanswered")
        tlp = memory_request(BAR0 + offset, size, requester=HOST_ID, tag=tag)
        self.answers[tag] = None
        self.ledger.add("mmio_read", "register", size, tlp.header_bytes)
        return tlp

    def _completed(self, tlp):
        self.note("card->host", tlp, "register")
        if self.answers.get(tlp.tag, tlp) is not None or tlp.requester != HOST_ID:
            self.problem(f"completion for no read of the host: tag {tlp.tag}, requester {tlp.requester:#06x}")
        elif tlp.completer != CARD_ID:
            self.problem(f"completer {tlp.completer:#06x}")
        self.answers[tlp.tag] = tlp
        return []


class FastBus(HostBridge):
    """:class:`HostBridge` on the ports ``tx_tlp``, ``rx_tlp`` and ``cfg`` of a simulated card.

    Parameters
    ----------
    stall : probability of refusing a word of the card in a cycle
    gap : probability of a pause before a word to it
    period_ns : of the clock

    The rest: see HostBridge. One coroutine serves both streams, and sleeps while both are idle.
    """

    def __init__(self, dut, memory, *, tlp_bytes, seed=0, stall=0.0, gap=0.0, period_ns=8, tx="tx_tlp", rx="rx_tlp", **rest):
        super().__init__(memory, seed=seed, **rest)
        self.dut, self.nbytes, self.stall, self.gap, self.period_ns = dut, tlp_bytes, stall, gap, period_ns
        self.clk = dut.clk
        self._tx = [getattr(dut, f"{tx}__{name}") for name in ("payload", "valid", "ready")]
        self._rx = [getattr(dut, f"{rx}__{name}") for name in ("payload", "valid", "ready")]
        self._outbox = deque()               # (tlp, purpose)
        self._wake, self.activity = Event(), Event()
        self.now = lambda: round(get_sim_time("ns"))
        self._chance = random.Random(f"stream {seed}").random
        self._tasks, self._stopped = [], False       # completions on their way
        self._drive_cfg(1)

    def _drive_cfg(self, bus_master):
        for name, value in {"id": CARD_ID, "bus_master": bus_master, "ext_tag": 0, "msix_enable": 0, "msix_mask": 0,
                            "max_payload": (self.max_payload // 128).bit_length() - 1,
                            "max_read": (self.max_read // 128).bit_length() - 1}.items():
            handle = getattr(self.dut, f"cfg__{name}", None)
            if handle is not None:
                handle.value = value

    def set_msix(self, enable, mask=0):
        """MSI-X Enable and Function Mask of the capability."""
        self.dut.cfg__msix_enable.value, self.dut.cfg__msix_mask.value = int(enable), int(mask)

    def start(self):
        cocotb.start_soon(self._run())
        return self

    def stop(self):
        """No more bus: the streams' coroutine ends at once (cocotb's First must not be cancelled)."""
        self._stopped = True
        self._wake.set()
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def _words(self, packet):
        n = self.nbytes
        words = [int.from_bytes(packet[at:at + n], "little") for at in range(0, len(packet), n)]
        words[-1] |= -len(packet) % n << 8 * n | 1 << 8 * n + n.bit_length() - 1
        return words

    async def _run(self):
        tx_payload, tx_valid, tx_ready = self._tx
        rx_payload, rx_valid, rx_ready = self._rx
        tx_ready.value = rx_valid.value = rx_payload.value = 0
        # Reading through the GPI handle skips building a LogicArray: wide values come as a string.
        get_payload = tx_payload._handle.get_signal_val_binstr
        get_valid = tx_valid._handle.get_signal_val_binstr
        get_ready = rx_ready._handle.get_signal_val_binstr
        edge, risen = RisingEdge(self.clk), RisingEdge(tx_valid)
        n = self.nbytes
        mask, empty_mask = (1 << 8 * n) - 1, n - 1
        last_at = 8 * n + n.bit_length() - 1
        words, packet = deque(), bytearray()
        ready = valid = shown = 0
        await edge
        while not self._stopped:
            # At the edge every signal still has the value that the card's registers sample.
            idle = True
            if get_valid() == "1":
                idle = False
                if ready:
                    word = int(get_payload(), 2)
                    packet += (word & mask).to_bytes(n, "little")
                    if word >> last_at & 1:
                        empty = word >> 8 * n & empty_mask
                        self._deliver(bytes(packet[:len(packet) - empty]), bool(word >> last_at + 1 & 1))
                        packet.clear()
            if valid and get_ready() == "1":
                words.popleft()
                valid = 0
            if not valid:
                if not words and self._outbox:
                    words.extend(self._words(self.sent(*self._outbox.popleft())))
                if words and not (self.gap and self._chance() < self.gap):
                    rx_payload.value = words[0]
                    valid = 1
                if valid != shown:
                    rx_valid.value = shown = valid
            want = not (self.stall and self._chance() < self.stall)
            if want != ready:
                tx_ready.value = ready = int(want)
            if idle and not words and not packet and not self._outbox:
                self._wake.clear()
                if self._stopped:
                    break
                if not self.stall and not ready:
                    tx_ready.value = ready = 1
                await First(risen, self._wake.wait())
                if self._stopped:
                    break
            await edge

    def _send(self, tlp, purpose):
        self._outbox.append((tlp, purpose))
        self._wake.set()

    async def _later(self, delay, tlp, purpose):
        await Timer(delay * self.period_ns, "ns")
        self._send(tlp, purpose)

    def _deliver(self, packet, err):
        for delay, tlp, purpose in self.receive(packet, err):
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(cocotb.start_soon(self._later(delay, tlp, purpose)))
        self.activity.set()

    # What a driver uses

    async def wait_activity(self, cycles):
        """Until the card sends a TLP from now on (True), or ``cycles`` have passed (False).

        Look at what you wait for right before: nothing can come between.
        """
        self.activity.clear()
        timer = Timer(max(round(cycles), 1) * self.period_ns, "ns")
        return await First(timer, self.activity.wait()) is not timer

    async def sleep(self, cycles):
        await Timer(cycles * self.period_ns, "ns")

    async def write32(self, offset, value):
        self._send(self.mmio_write(offset, value.to_bytes(4, "little")), "register")

    async def write64(self, offset, value):
        self._send(self.mmio_write(offset, value.to_bytes(8, "little")), "doorbell")

    async def read32(self, offset, *, timeout=20000):
        return (await self.read32_many([offset], timeout=timeout))[0]

    async def read32_many(self, offsets, *, timeout=20000):
        """Several registers; up to eight reads are on their way at once."""
        values = []
        for at in range(0, len(offsets), 8):
            tlps = [self.mmio_read(offset, 4) for offset in offsets[at:at + 8]]
            for tlp in tlps:
                self._send(tlp, "register")
            for tlp in tlps:
                values.append(await self._answer(tlp, timeout))
        return values

    async def _answer(self, request, timeout):
        end = get_sim_time("ns") + timeout * self.period_ns
        while self.answers[request.tag] is None:
            left = end - get_sim_time("ns")
            if left <= 0:
                del self.answers[request.tag]
                raise BusTimeout(f"no answer to a read of register {request.address - BAR0:#x} in {timeout} cycles")
            await self.wait_activity(left // self.period_ns)
        answer = self.answers.pop(request.tag)
        if answer.status or not answer.payload:
            raise BusTimeout(f"a read of register {request.address - BAR0:#x} ended with status {answer.status}")
        return int.from_bytes(answer.payload[:4], "little")
