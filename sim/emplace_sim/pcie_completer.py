"""The host's memory behind cocotbext-pcie's root complex: late, out of order, in pieces, or wrong."""

import contextlib
import enum
import random
from collections import deque

import cocotb
from cocotb.triggers import Event, Timer
from cocotb.utils import get_sim_steps, get_sim_time
from cocotbext.pcie.core.tlp import Tlp
from cocotbext.pcie.core.utils import PcieId

from .pcie import MEM_READ, MEM_WRITE

__all__ = ["ReadCompleter", "Fault"]


class Fault(enum.Enum):
    UR = "unsupported request"
    CA = "completer abort"
    POISON = "data with EP set"
    DROP = "no completion"
    TRUNCATE = "the first completion of several, then none"
    DUPLICATE = "the last completion twice"


class ReadCompleter:
    """Answers memory reads for ``rc``, whose own handler is strictly in order and takes no time.

    latency, jitter : float
        Nanoseconds from the request's arrival to its first completion: latency plus up to jitter.
    reorder : bool
        Requests complete independently, so completions of different tags overtake each other and
        interleave. Otherwise they keep the requests' order. Within a tag order is always kept.
    cut : "max", "rcb", "random"
        Completions as large as Max_Payload_Size allows, cut at every read completion boundary, or
        at boundaries picked at random.
    fault : callable
        Called with each request; returns a :class:`Fault` or None.
    """

    def __init__(self, rc, endpoint, *, latency=0, jitter=0, reorder=True, cut="max", seed=0):
        self.rc, self.endpoint = rc, endpoint
        self.latency, self.jitter, self.reorder, self.cut = latency, jitter, reorder, cut
        self.fault = lambda tlp: None
        self.rng = random.Random(seed)
        self.order = []                  # tags in the order in which they finished
        self.bad_writes = []             # (tlp, error) of writes to no memory, and of wrong interrupts
        self._steps = get_sim_steps(1, "ns")
        self._queue, self._queued = deque(), Event()
        for kind in MEM_READ:
            rc.register_rx_tlp_handler(kind, self._request)
        for kind in MEM_WRITE:
            rc.register_rx_tlp_handler(kind, self._write)
        cocotb.start_soon(self._in_order())

    async def _write(self, tlp):
        # RootComplex.handle_mem_write_tlp only logs a write that fails, a wrong interrupt among them.
        if tlp.ep:
            return
        if tlp.length == 1 and tlp.first_be == 0:
            return
        start, stop = tlp.get_first_be_offset(), tlp.length * 4 - tlp.get_last_be_offset()
        try:
            await self.rc.mem_address_space.write(tlp.address + start, bytes(tlp.data[start:stop]))
        except Exception as error:
            self.bad_writes.append((tlp, error))
            self.rc.log.warning("Memory write failed: %r: %r", error, tlp)

    async def _request(self, tlp):
        fault = self.fault(tlp)
        if not (self.latency or self.jitter):
            await self._complete(tlp, fault)
        elif self.reorder:
            cocotb.start_soon(self._later(tlp, fault))
        else:
            due = get_sim_time("ns") + self._delay()
            self._queue.append((due, tlp, fault))
            self._queued.set()

    def _delay(self):
        return self.latency + self.rng.random() * self.jitter

    async def _sleep(self, nanoseconds):
        steps = int(nanoseconds * self._steps)
        if steps > 0:
            await Timer(steps, "step")

    async def _later(self, tlp, fault):
        await self._sleep(self._delay())
        await self._complete(tlp, fault)

    async def _in_order(self):
        while True:
            while not self._queue:
                self._queued.clear()
                await self._queued.wait()
            due, tlp, fault = self._queue.popleft()
            await self._sleep(due - get_sim_time("ns"))
            await self._complete(tlp, fault)

    async def _complete(self, tlp, fault):
        if fault is Fault.DROP:
            return
        me = PcieId(0, 0, 0)
        # Read now, not at arrival: posted writes may pass a read, reads never pass them.
        data = None
        if fault is not Fault.UR:
            with contextlib.suppress(Exception):          # no memory there
                data = await self.rc.mem_address_space.read(tlp.address, tlp.length * 4)
        if data is None:
            cpl = Tlp.create_ur_completion_for_tlp(tlp, me)
            cpl.byte_count = tlp.get_be_byte_count()
            return await self._send(cpl)
        if fault is Fault.CA:
            cpl = Tlp.create_ca_completion_for_tlp(tlp, me)
            cpl.byte_count = tlp.get_be_byte_count()
            return await self._send(cpl)
        cpls = self._cut(tlp, data)
        if fault is Fault.TRUNCATE:
            cpls = cpls[:-1]
        if fault is Fault.DUPLICATE:
            cpls.append(Tlp(cpls[-1]))
        for n, cpl in enumerate(cpls):
            cpl.ep = fault is Fault.POISON
            if n and self.reorder and self.jitter:
                await self._sleep(self.rng.random() * self.jitter / 8)
            await self._send(cpl)
        self.order.append(tlp.tag)

    async def _send(self, cpl):
        await self.rc.send(cpl)

    def _cut(self, tlp, data):
        """Completions for ``tlp``: boundaries at multiples of the RCB, none over the payload limit."""
        zero = tlp.length == 1 and tlp.first_be == 0
        start = tlp.address + (0 if zero else tlp.get_first_be_offset())
        end = start + 1 if zero else tlp.address + tlp.length * 4 - tlp.get_last_be_offset()
        rcb = 128 if self.rc.read_completion_boundary else 64
        limit = self.endpoint.max_payload
        cpls, addr = [], start
        while addr < end:
            stop = (addr & ~3) + limit
            if stop < end:
                stop &= -rcb
            bounds = range((addr | rcb - 1) + 1, min(stop, end), rcb)
            if self.cut == "rcb" and bounds:
                stop = bounds[0]
            elif self.cut == "random" and bounds:
                stop = self.rng.choice([*bounds, stop])
            stop = min(stop, end)
            cpl = Tlp.create_completion_data_for_tlp(tlp, PcieId(0, 0, 0))
            cpl.byte_count = end - addr
            cpl.lower_address = addr & 0x7f
            first = (addr & ~3) - tlp.address
            cpl.set_data(data[first:(stop + 3 & ~3) - tlp.address])
            cpls.append(cpl)
            addr = stop
        return cpls
