"""64-bit XGMII (IEEE Std 802.3 clause 46): frames as bytes, with FCS, to words and back.

:class:`XgmiiEncoder` and :class:`XgmiiDecoder` are plain Python; :class:`XgmiiDriver` and
:class:`XgmiiMonitor` put them on a simulated design, and sleep while there is nothing to do.
"""

import zlib
from collections import deque

import cocotb
from cocotb.triggers import Event, RisingEdge, ValueChange
from cocotb.utils import get_sim_time

__all__ = ["IDLE", "fcs", "finish", "XgmiiEncoder", "XgmiiDecoder", "XgmiiDriver", "XgmiiMonitor"]

START, TERMINATE, ERROR, IDLE_OCTET = 0xFB, 0xFD, 0xFE, 0x07
PREAMBLE = bytes([START, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0xD5])
#: (data, control) of a word of idles.
IDLE = (0x0707070707070707, 0xFF)


def fcs(frame: bytes) -> bytes:
    """Frame check sequence (clause 3.2.9)."""
    return zlib.crc32(frame).to_bytes(4, "little")


def finish(frame: bytes) -> bytes:
    """``frame`` padded to 60 bytes, and its FCS."""
    frame = frame.ljust(60, b"\0")
    return frame + fcs(frame)


class XgmiiEncoder:
    """Frames to words. The gap averages 12 octets, by a deficit idle count (46.3.1.4).

    ``lane4``: frames may begin in lane 4 too, as the count has it; else always in lane 0.
    """

    def __init__(self, *, lane4=False):
        self.step = 4 if lane4 else 8
        self.deficit = 0                     # octets of gap that earlier frames went without
        self.pending, self.flags = b"", b""  # octets of an unfinished word, and which of them are control

    def frame(self, data: bytes):
        """Words (data, control) that end with the last whole one; the rest waits for the next frame."""
        octets = self.pending + PREAMBLE + data + bytes([TERMINATE])
        flags = self.flags + b"\1" + bytes(len(PREAMBLE) - 1 + len(data)) + b"\1"
        # The gap counts from the terminate; frames begin at multiples of ``step``.
        over = (len(octets) + 11) % self.step
        if self.deficit + over < self.step:
            gap = 12 - over
            self.deficit += over
        else:
            gap = 12 + self.step - over
            self.deficit -= self.step - over
        return self._words(octets + bytes([IDLE_OCTET]) * (gap - 1), flags + b"\1" * (gap - 1))

    def flush(self):
        """The unfinished word, filled with idles; then the line is idle."""
        fill = -len(self.pending) % 8
        return self._words(self.pending + bytes([IDLE_OCTET]) * fill, self.flags + b"\1" * fill)

    def _words(self, octets, flags):
        whole = len(octets) // 8 * 8
        self.pending, self.flags = octets[whole:], flags[whole:]
        return [(int.from_bytes(octets[at:at + 8], "little"), _bits(flags[at:at + 8])) for at in range(0, whole, 8)]


def _bits(flags):
    return sum(flag << n for n, flag in enumerate(flags)) if any(flags) else 0


class XgmiiDecoder:
    """Words to frames with FCS. ``problems`` collects what is against clause 46."""

    def __init__(self):
        self.frame = None                    # octets since the start, or None between frames
        self.gap = 12
        self.problems, self.least_gap = [], None

    def word(self, data, control):
        """The frame that this word ends, or None."""
        if control == 0 and self.frame is not None:
            self.frame += data.to_bytes(8, "little")
            return None
        done = None
        for lane, octet in enumerate(data.to_bytes(8, "little")):
            if not control >> lane & 1:
                if self.frame is None:
                    self.problems.append(f"data octet {octet:#04x} between frames")
                    self.frame = bytearray(PREAMBLE)     # one report, not one an octet
                else:
                    self.frame.append(octet)
            elif octet == START and self.frame is None:
                if lane % 4:
                    self.problems.append(f"start in lane {lane}")
                self.least_gap = self.gap if self.least_gap is None else min(self.gap, self.least_gap)
                self.frame = bytearray([octet])
            elif octet == TERMINATE and self.frame is not None:
                if bytes(self.frame[:8]) != PREAMBLE:
                    self.problems.append(f"preamble {bytes(self.frame[:8]).hex()}")
                done, self.frame, self.gap = bytes(self.frame[8:]), None, 1
            elif octet == IDLE_OCTET and self.frame is None:
                self.gap += 1
            else:
                self.problems.append(f"control octet {octet:#04x} in lane {lane}")
                if self.frame is not None:
                    self.frame = None
                    self.gap = 0
        return done


class XgmiiDriver:
    """Sends frames to ``{name}__d`` and ``{name}__c``, back to back while there are any.

    ``sent(frame, time_ns)`` is called as a frame's first word goes out.
    """

    def __init__(self, dut, name="xgmii_rx", *, lane4=False, sent=None):
        self.clk = dut.clk
        self.d, self.c = getattr(dut, f"{name}__d"), getattr(dut, f"{name}__c")
        self.encoder, self.sent = XgmiiEncoder(lane4=lane4), sent or (lambda frame, time_ns: None)
        self.d.value, self.c.value = IDLE
        self.queue, self._wake, self.drained = deque(), Event(), Event()
        self.frames = 0
        self.task = cocotb.start_soon(self._run())

    def send(self, frame):
        """Queue a frame that has its FCS."""
        self.queue.append(frame)
        self.drained.clear()
        self._wake.set()

    async def _run(self):
        edge = RisingEdge(self.clk)
        words, idle, control = deque(), True, 0xFF
        while True:
            if not words:
                if self.queue:
                    frame = self.queue.popleft()
                    words.extend(self.encoder.frame(frame))
                    self.frames += 1
                    self.sent(frame, round(get_sim_time("ns")))
                elif self.encoder.pending:
                    words.extend(self.encoder.flush())
            if words:
                data, now = words.popleft()
                self.d.value = data
                if now != control:
                    self.c.value = control = now
                idle = False
            elif not idle:
                self.d.value, self.c.value = IDLE
                control, idle = 0xFF, True
            else:
                self.drained.set()
                self._wake.clear()
                if not self.queue:
                    await self._wake.wait()
            await edge


class XgmiiMonitor:
    """Hands each frame of ``{name}__d``, ``{name}__c`` to ``received(frame, time_ns)``, FCS and all."""

    def __init__(self, dut, received, name="xgmii_tx"):
        self.clk = dut.clk
        self.d, self.c = getattr(dut, f"{name}__d"), getattr(dut, f"{name}__c")
        self.received, self.decoder = received, XgmiiDecoder()
        self.task = cocotb.start_soon(self._run())

    async def _run(self):
        edge, change = RisingEdge(self.clk), ValueChange(self.c)
        data, control = self.d._handle.get_signal_val_binstr, self.c._handle.get_signal_val_binstr
        decoder, started = self.decoder, 0
        await edge
        while control() != "11111111" or int(data(), 2) != IDLE[0]:
            await edge                       # not out of reset yet
        while True:
            now = control()
            if now == "11111111" and decoder.frame is None:
                if int(data(), 2) == IDLE[0]:
                    decoder.gap += 8
                    if decoder.gap >= 64:
                        await change         # a long gap: sleep until something starts
                        await edge
                        continue
                else:
                    decoder.word(int(data(), 2), 0xFF)
            else:
                if decoder.frame is None:
                    started = round(get_sim_time("ns"))
                frame = decoder.word(int(data(), 2), int(now, 2))
                if frame is not None:
                    self.received(frame, started)
            await edge
