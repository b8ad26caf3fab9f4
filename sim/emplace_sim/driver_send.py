"""Send queues of the driver model: work requests by rdma-core's names into the card's ring, and back from completions."""

import errno
from dataclasses import dataclass, field

from emplace import abi
from emplace.abi import SendFlags, SendOpcode, WcStatus

from .driver_records import pack

__all__ = ["SendWr", "SendQueue"]

_INLINE, _INLINE_EXTENDED = 32, 96
#: Opcodes that the card carries out.
BUILT = (SendOpcode.RDMA_WRITE, SendOpcode.SEND, SendOpcode.SEND_WITH_INV)


@dataclass
class SendWr:
    """A send work request (ibv_send_wr).

    ``sges``: up to four, or the data itself as bytes (at most 96), which is then sent inline. ``rkey``, ``remote_addr``: of an
    RDMA Write. ``invalidate_rkey``: of a Send with Invalidate.
    """

    opcode: SendOpcode
    sges: list | bytes = field(default_factory=list)
    wr_id: object = None
    flags: SendFlags = SendFlags.SIGNALED
    rkey: int = 0
    remote_addr: int = 0
    invalidate_rkey: int = 0

    def entries(self):
        """Bytes of its entries in the queue, 64 or 128. ValueError for what the card would refuse."""
        opcode, flags = SendOpcode(self.opcode), SendFlags(self.flags) & ~(SendFlags.INLINE | SendFlags.EXTENDED)
        if opcode not in BUILT:
            raise ValueError(f"{opcode.name} is not built into this card: it sends {', '.join(o.name for o in BUILT)}")
        fields = {"opcode": opcode, "remote_addr": self.remote_addr,
                  "rkey": self.invalidate_rkey if opcode is SendOpcode.SEND_WITH_INV else self.rkey}
        if isinstance(self.sges, (bytes, bytearray)):
            if len(self.sges) > _INLINE_EXTENDED:
                raise ValueError(f"inline data has at most {_INLINE_EXTENDED} octets, not {len(self.sges)}")
            flags |= SendFlags.INLINE | (SendFlags.EXTENDED if len(self.sges) > _INLINE else 0)
            body, length, number = bytes(self.sges).ljust(_INLINE_EXTENDED, b"\0"), len(self.sges), 0
        else:
            if len(self.sges) > 4:
                raise ValueError(f"a send request has at most 4 SGEs, not {len(self.sges)}")
            flags |= SendFlags.EXTENDED if len(self.sges) > 2 else 0
            length, number = sum(sge.length for sge in self.sges), len(self.sges)
            if length >= 1 << 32:
                raise ValueError(f"a message has less than 2**32 octets, not {length}")
            body = b"".join(pack(abi.Sge, {"addr": s.addr, "length": s.length, "lkey": s.lkey}) for s in self.sges)
            body = body.ljust(_INLINE_EXTENDED, b"\0")
        head = pack(abi.SendWqe, {**fields, "flags": flags, "num_sge": number, "length": length})
        size = abi.nbytes(abi.SendWqe)
        return (head[:size - _INLINE] + body)[:2 * size if flags & SendFlags.EXTENDED else size]


class SendQueue:
    """One QP's ring of send work requests.

    An extended request begins at an even entry: a NOP is put before it where needed. What a completion retires is counted
    from its index on backwards, unsignaled requests included.
    """

    ENTRY = abi.nbytes(abi.SendWqe)

    def __init__(self, buffer, log2):
        self.buffer, self.log2 = buffer, log2
        self.produced = self.retired = 0
        self.requests = {}               # running index -> (SendWr, entries)

    def put(self, request):
        """Write one request; OSError if the queue is full."""
        data = request.entries()
        count = len(data) // self.ENTRY
        skip = count == 2 and self.produced % 2
        if self.produced + skip + count - self.retired > 1 << self.log2:
            raise OSError(errno.ENOMEM, f"send queue is full: {1 << self.log2} entries (max_send_wr)")
        if skip:
            self._write(pack(abi.SendWqe, {"opcode": SendOpcode.NOP}))
        self.requests[self.produced] = request, count
        self._write(data)

    def _write(self, data):
        for at in range(0, len(data), self.ENTRY):
            self.buffer.write(self.produced % (1 << self.log2) * self.ENTRY, data[at:at + self.ENTRY])
            self.produced += 1

    def complete(self, wqe_index, status):
        """The request that a completion is about, None if its entry begins none (flushed: an extension, or a NOP)."""
        index = self.retired + (wqe_index - self.retired & 0xFFFF)
        request, count = self.requests.get(index, (None, 1))
        if request is None and status != WcStatus.WR_FLUSH_ERR:
            raise ValueError(f"completion for entry {wqe_index}, where no request is")
        for done in [n for n in self.requests if n <= index]:
            del self.requests[done]
        self.retired = index + count
        return request
