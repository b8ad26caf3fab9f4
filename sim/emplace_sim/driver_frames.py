"""The driver's half of the plain frame path: the host network interface, as it were."""

from dataclasses import dataclass

from emplace import abi
from emplace.abi import FrameControl, FrameFlags, FrameReason, FrameTxFlags

from .driver_records import pack, unpack

__all__ = ["HEADER_BYTES", "Frame", "FrameReceiver", "FrameTransmitter"]

HEADER_BYTES = 128


@dataclass
class Frame:
    """A frame that the card gave to the host. ``number``: of its completion; ``header``: octets that lay apart; ``qpn``:
    HELD, whose it is; ``descriptor``, ``buffers``: where it lay."""

    data: bytes
    reason: FrameReason
    flags: FrameFlags
    header: int
    qpn: int
    number: int
    descriptor: int
    buffers: int

    truncated = property(lambda self: FrameFlags.TRUNCATED in self.flags)


class FrameReceiver:
    """Gives the card buffers, and takes frames out of them.

    Parameters
    ----------
    device : an open Device
    entries : descriptors of the ring, a power of two
    buffer_bytes : of a data buffer, a power of two in 256..65536
    split : headers of TCP frames apart from their payload
    """

    def __init__(self, device, *, entries=64, buffer_bytes=2048, split=False, promiscuous=False, mac=0x525400000001):
        if entries < 2 or entries & entries - 1 or entries > 4096:
            raise ValueError(f"entries must be a power of two in 2..4096, not {entries}")
        if buffer_bytes & buffer_bytes - 1 or not 256 <= buffer_bytes <= 65536:
            raise ValueError(f"buffer_bytes must be a power of two in 256..65536, not {buffer_bytes}")
        self.device, self.entries, self.buffer_bytes, self.mac = device, entries, buffer_bytes, mac
        self.control = (FrameControl.RX | (FrameControl.SPLIT if split else FrameControl(0))
                        | (FrameControl.PROMISCUOUS if promiscuous else FrameControl(0)))
        memory = device.memory
        self.ring = device.ring_memory(16 * entries, "frame.descriptor")
        self.completions = device.ring_memory(32 * entries, "frame.completion")
        self.headers = memory.alloc(HEADER_BYTES * entries, label="frame.header", contiguous=True)
        self.buffers = [memory.alloc(buffer_bytes, label="frame.data", contiguous=True) for _ in range(entries)]
        for n, buffer in enumerate(self.buffers):
            self.ring.write(16 * n, pack(abi.FrameRxDescriptor, {"header": self.headers.address + HEADER_BYTES * n,
                                                                 "data": buffer.address}))
        self.number = 0                      # completions read so far: ACTIVATE's index
        self.used = 0                        # descriptors that the card is known to have used
        self.posted = 0

    async def start(self, posted=None):
        """Set the rings up, or anew, and post ``posted`` descriptors (default: all); returns itself."""
        self.number = self.used = 0
        self.completions.write(0, bytes(32 * self.entries))
        register = self.device.register
        for name, value in (("FRAME_RX", self.ring.address), ("FRAME_RXC", self.completions.address), ("MAC", self.mac)):
            await register(name + "_LO", value & 0xFFFFFFFF)
            await register(name + "_HI", value >> 32)
        await register("FRAME_RX_LOG2", self.entries.bit_length() - 1)
        await register("FRAME_CONTROL", self.control | (self.buffer_bytes.bit_length() - 1) << 8)
        self.posted = 0
        await self.post(self.entries if posted is None else posted)
        # An answer to a read comes behind the writes before it: from here on the card takes frames.
        await self.device.bus.read32_many([abi.REGISTERS["FRAME_CONTROL"].offset])
        return self

    async def stop(self):
        """No frame more. Those on their way still come; behind a fence there are none."""
        self.control &= ~FrameControl.RX
        await self.device.register("FRAME_CONTROL", self.control | (self.buffer_bytes.bit_length() - 1) << 8)

    async def post(self, count=None):
        """Post ``count`` descriptors more, or all that are free."""
        free = self.used + self.entries - self.posted
        count = free if count is None else count
        if count > free:
            raise ValueError(f"{count} descriptors: only {free} are free")
        if count:
            self.posted += count
            await self.device.register("FRAME_RX_PRODUCER", self.posted & 0xFFFF)

    async def poll(self, most=16, *, post=True):
        """Up to ``most`` frames; their buffers are posted again."""
        frames = []
        while len(frames) < most and (frame := self._next()) is not None:
            frames.append(frame)
        if frames and post:
            await self.post()
        return frames

    def _next(self):
        record = self.completions.read(self.number % self.entries * 32, 32)
        entry = unpack(abi.FrameRxCompletion, record)
        if entry["phase"] != (self.number // self.entries + 1) % 2:
            return None
        # Descriptors that it leaves out could not be read by the card.
        first = self.used + (entry["descriptor"] - self.used & 0xFFFF)
        flags, header, length = FrameFlags(entry["flags"]), entry["header_length"], entry["length"]
        slot = first % self.entries
        data = self.headers.read(HEADER_BYTES * slot, header) if header else b""
        for n in range(entry["buffers"]):
            data += self.buffers[(first + n) % self.entries].read(0, min(self.buffer_bytes, length - len(data)))
        frame = Frame(data, FrameReason(entry["reason"]), flags, header, entry["qpn"], self.number, first, entry["buffers"])
        self.number += 1
        self.used = first + entry["buffers"]
        return frame


class FrameTransmitter:
    """Hands frames to the card: to the wire, or back into its receive path.

    Parameters
    ----------
    device : an open Device
    entries : descriptors of the ring, a power of two
    """

    def __init__(self, device, *, entries=64):
        if entries < 2 or entries & entries - 1 or entries > 4096:
            raise ValueError(f"entries must be a power of two in 2..4096, not {entries}")
        self.device, self.entries = device, entries
        self.ring = device.ring_memory(16 * entries, "frame.tx.descriptor")
        self.head = device.ring_memory(abi.nbytes(abi.FrameTxHead), "frame.tx.head")
        self.posted = self.done = 0          # descriptors
        self.dropped = 0                     # frames, by the card's word, since it was reset
        self._buffers = []                   # (descriptor behind the frame's last, buffers)

    async def start(self):
        """Set the ring up, or anew; returns itself."""
        self._release(self.posted)
        self.posted = self.done = 0
        self.head.write(0, bytes(8))
        for name, value in (("FRAME_TX", self.ring.address), ("FRAME_TXH", self.head.address)):
            await self.device.register(name + "_LO", value & 0xFFFFFFFF)
            await self.device.register(name + "_HI", value >> 32)
        await self.device.register("FRAME_TX_LOG2", self.entries.bit_length() - 1)
        return self

    def poll(self):
        """Look how far the card is; the number of descriptors that are free."""
        head = unpack(abi.FrameTxHead, self.head.read())
        self.done += head["head"] - self.done & 0xFFFF
        self.dropped = head["dropped"]
        self._release(self.done)
        return self.entries - (self.posted - self.done)

    def _release(self, done):
        while self._buffers and self._buffers[0][0] <= done:
            for buffer in self._buffers.pop(0)[1]:
                self.device.memory.free(buffer)

    async def post(self, data, *, checksum=None, reinject=False, ring=True):
        """Post a frame without FCS: bytes, or a list of them for a buffer each, at any alignment.

        ``checksum``: (start, offset) of the checksum to insert. ``ring``: tell the card. Returns the number of the
        descriptor behind it, for :meth:`completed`.
        """
        parts = [data] if isinstance(data, bytes | bytearray) else list(data)
        await self._wait(lambda: self.poll() >= len(parts))
        buffers, memory = [], self.device.memory
        for n, part in enumerate(parts):
            buffer = memory.alloc(max(len(part), 1), label="frame.tx.data", contiguous=True,
                                  offset=self.device.random.randrange(4096))
            buffer.write(0, part)
            buffers.append(buffer)
            flags = FrameTxFlags.END if n == len(parts) - 1 else FrameTxFlags(0)
            fields = {}
            if n == 0 and checksum is not None:
                flags |= FrameTxFlags.CHECKSUM
                fields = {"checksum_start": checksum[0], "checksum_offset": checksum[1]}
            if n == 0 and reinject:
                flags |= FrameTxFlags.REINJECT
            self.ring.write(16 * (self.posted % self.entries), pack(abi.FrameTxDescriptor, {
                "address": buffer.address, "length": len(part), "flags": flags, **fields}))
            self.posted += 1
        self._buffers.append((self.posted, buffers))
        if ring:
            await self.ring_doorbell()
        return self.posted

    async def ring_doorbell(self):
        await self.device.register("FRAME_TX_PRODUCER", self.posted & 0xFFFF)

    async def completed(self, number=None):
        """Wait until the card has done with the descriptors before ``number`` (default: all). TimeoutError if it does not."""
        number = self.posted if number is None else number
        await self._wait(lambda: self.poll() is not None and self.done >= number)

    async def send(self, data, *, checksum=None, reinject=False):
        """Post a frame, wait until it is done; True unless the card has dropped a frame meanwhile."""
        self.poll()
        dropped = self.dropped
        await self.completed(await self.post(data, checksum=checksum, reinject=reinject))
        return self.dropped == dropped

    async def _wait(self, condition):
        while not condition():
            if not await self.device.bus.wait_activity(self.device.timeout) and not condition():
                raise TimeoutError(f"frame transmit ring: {self.posted - self.done} descriptors not done in "
                                   f"{self.device.timeout} cycles")
