"""A well-behaved peer on the wire that others share, and how much of its part of the wire it makes use of."""

import random
from collections import deque

import cocotb

from . import sender
from .xgmii import finish

__all__ = ["Bystander", "wire_octets"]

_PAYLOAD = 1428              # with timestamps, an FPDU that fills a segment of MTU 1500
_GAP = 20                    # preamble and the average gap between frames
_PATIENCE = 4000             # cycles without an ACK after which it sends again


def wire_octets(frame):
    """Octets that a frame without FCS takes of the wire."""
    return max(len(frame), 60) + 4 + _GAP


class Bystander:
    """Fills the wire of ``bench`` with RDMA Writes on one connection, as fast as what :meth:`put` sends lets it.

    ``hostile`` frames have at most ``share`` of the wire's octets. ``pace``: the part of the wire that is used at
    all; the rest stays idle. What is not acknowledged in time is sent again and counts as used wire, so that a
    lost frame shows in :meth:`fairness`. As a TCP with a sensible window it has no more on its way than the card has
    slots for: at the full rate of the line the card has next to no cycles to spare, and what a stall has held back
    would wait in slots for good.
    """

    def __init__(self, bench, link, region, *, share=1.0, pace=1.0, seed=0):
        self.window = 1448 * min(10, bench.config.slots - bench.config.slot_reserve - 4)
        self.bench, self.link, self.region, self.share, self.pace = bench, link, region, share, pace
        self.random = random.Random(f"bystander {seed}")
        self.hostile = deque()               # frames
        self.image = bytearray(region.buffer.read())
        self.fresh = self.again = 0          # bytes of payload sent for the first time; frames sent again
        self._unacked = deque()              # (end, frame)
        self._resend = deque()
        self._at, self._moved = 0, bench.cycle()
        self._own = self._others = 0         # octets of the wire
        self._over = False
        self.start, self._fresh_before, self._others_before = bench.cycle(), 0, 0
        self.task = cocotb.start_soon(self._run())

    def put(self, frame):
        """Send a frame of somebody else, when its share of the wire allows it."""
        self.hostile.append(frame)

    def _frame(self):
        """The next frame of its own, or None while the window is closed."""
        while self._resend:
            end, frame = self._resend.popleft()
            if 0 < (end - self.link.acked) & 0xFFFFFFFF < 1 << 31:
                self.again += 1
                return frame
        flow, link = self.link.flow, self.link
        while self._unacked and (self._unacked[0][0] - 1 - link.acked) & 0xFFFFFFFF >= 1 << 31:
            self._unacked.popleft()
            self._moved = self.bench.cycle()
        if not self._unacked:
            self._moved = self.bench.cycle()
        if self.bench.cycle() - self._moved > _PATIENCE:
            self._moved = self.bench.cycle()
            self._resend.extend(self._unacked)
            return self._frame()
        if self._over or (flow.seq - link.acked) & 0xFFFFFFFF > self.window:
            return None
        data = self.random.randbytes(_PAYLOAD)
        self.fresh += _PAYLOAD
        self.image[self._at:self._at + _PAYLOAD] = data
        frame = flow.push(link.fpdu(sender.write(self.region.rkey, self.region.base + self._at, data)))
        self._unacked.append((flow.seq, frame))
        self._at = (self._at + _PAYLOAD) % (len(self.image) - _PAYLOAD)
        return frame

    async def _run(self):
        wire, began = self.bench.wire, self.bench.cycle()
        while not self._over or self._unacked or self.hostile:
            while len(wire.queue) < 2:
                total = self._own + self._others
                if total > 8 * self.pace * (self.bench.cycle() - began) + 4000:
                    break
                if self.hostile and self._others <= self.share * total:
                    frame = self.hostile.popleft()
                    self._others += wire_octets(frame)
                elif (frame := self._frame()) is not None:
                    self._own += wire_octets(frame)
                else:
                    break
                wire.send(finish(frame))
            await self.bench.cycles(16)

    def mark(self):
        """:meth:`fairness` counts from here."""
        self.start, self._fresh_before, self._others_before = self.bench.cycle(), self.fresh, self._others

    def fairness(self):
        """Bytes sent for the first time, of those that fit into the cycles that the others left on the wire (``pace``
        of it). Those that are still on their way count: :meth:`finish` tells whether they arrive."""
        cycles = self.pace * (self.bench.cycle() - self.start) - (self._others - self._others_before) / 8
        whole = len(self.link.flow.frame(bytes(_PAYLOAD + 20)))
        return (self.fresh - self._fresh_before) / (cycles * 8 / (whole + 4 + _GAP) * _PAYLOAD)

    async def finish(self):
        """No more new Writes; True once all are acknowledged and lie in memory as they should."""
        self._over = True
        if not await self.bench.until(lambda: self.task.done(), 400_000):
            return False
        await self.bench.device.fence()
        return self.region.buffer.read() == bytes(self.image)
