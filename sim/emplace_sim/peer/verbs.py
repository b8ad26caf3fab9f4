"""Words of the verbs interface: work requests, completions, rights. Names are rdma-core's without IBV_."""

import enum
from dataclasses import dataclass, field

__all__ = ["Access", "Opcode", "Status", "Sge", "SendWr", "RecvWr", "Completion", "AsyncEvent", "QpState"]


class Access(enum.IntFlag):
    LOCAL_WRITE = 1
    REMOTE_WRITE = 2
    REMOTE_READ = 4
    REMOTE_ATOMIC = 8
    REMOTE_INVALIDATE = 64
    ALL = 1 | 2 | 4 | 8 | 64


class Opcode(enum.Enum):
    """Of work requests and completions."""

    SEND = "SEND"
    SEND_WITH_INV = "SEND_WITH_INV"
    RDMA_WRITE = "RDMA_WRITE"
    RDMA_WRITE_WITH_IMM = "RDMA_WRITE_WITH_IMM"      # a Write, then Immediate Data
    IMMEDIATE = "IMMEDIATE"                          # Immediate Data alone
    RDMA_READ = "RDMA_READ"
    RDMA_READ_WITH_INV = "RDMA_READ_WITH_INV"        # invalidates its sink when the response is there
    ATOMIC_FETCH_AND_ADD = "ATOMIC_FETCH_AND_ADD"
    ATOMIC_CMP_AND_SWP = "ATOMIC_CMP_AND_SWP"
    LOCAL_INV = "LOCAL_INV"
    RECV = "RECV"


class Status(enum.Enum):
    SUCCESS = "SUCCESS"
    LOC_LEN_ERR = "LOC_LEN_ERR"
    LOC_QP_OP_ERR = "LOC_QP_OP_ERR"
    LOC_PROT_ERR = "LOC_PROT_ERR"
    WR_FLUSH_ERR = "WR_FLUSH_ERR"
    REM_INV_REQ_ERR = "REM_INV_REQ_ERR"
    REM_ACCESS_ERR = "REM_ACCESS_ERR"
    REM_OP_ERR = "REM_OP_ERR"


class QpState(enum.Enum):
    START = "START"              # TCP's or MPA's start-up
    RTS = "RTS"
    CLOSING = "CLOSING"          # FIN asked for
    TERMINATE = "TERMINATE"      # a Terminate is on its way
    ERROR = "ERROR"


@dataclass(frozen=True)
class Sge:
    address: int
    length: int
    lkey: int


@dataclass
class SendWr:
    opcode: Opcode
    sges: list[Sge] = field(default_factory=list)
    wr_id: int = 0
    remote_addr: int = 0
    rkey: int = 0
    invalidate_rkey: int = 0
    inline: bytes | None = None          # instead of sges
    immediate: bytes = bytes(8)
    compare_add: int = 0
    swap: int = 0
    compare_mask: int = 2**64 - 1
    swap_mask: int | None = None         # CmpSwap: bits to swap, all by default; FetchAdd: top bits of fields, none by default
    signaled: bool = True
    solicited: bool = False
    fence: bool = False                  # waits for earlier Reads and atomics
    local_fence: bool = False            # waits for all earlier requests

    @property
    def length(self):
        return sum(sge.length for sge in self.sges) if self.inline is None else len(self.inline)


@dataclass
class RecvWr:
    sges: list[Sge] = field(default_factory=list)
    wr_id: int = 0
    used: int = 0                        # octets placed

    @property
    def length(self):
        return sum(sge.length for sge in self.sges)


@dataclass
class Completion:
    wr_id: int
    opcode: Opcode
    status: Status
    byte_len: int = 0
    qp: object = field(default=None, repr=False)
    invalidated: int | None = None
    immediate: bytes | None = None
    solicited: bool = False


@dataclass
class AsyncEvent:
    """``kind``: "established", "rejected", "terminate sent", "terminate received", "fin", "fin within an FPDU", "reset",
    "timeout", "bad MPA frame", "closed"."""

    kind: str
    qp: object = field(repr=False)
    code: int = 0                # of a Terminate: layer << 12 | error type << 8 | error code
    detail: str = ""
    data: bytes = b""            # what a Terminate quotes
