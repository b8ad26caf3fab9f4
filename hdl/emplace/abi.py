"""The host interface: registers, doorbells, admin commands, work queue, completion and event records.

The gateware, the driver model and the pages in docs/ all come from this file. Records lie in host
memory little-endian, the first field in the lowest address. Rings are powers of two long and start
at a multiple of 4096. Whoever produces counts up and never wraps its index; the slot is the index's
low bits. Entries that the card writes end with a ``phase`` bit: 1 on the ring's first lap, 0 on the
second, and so on; an entry is the host's once its phase is that of the lap.
"""

import enum
from dataclasses import dataclass

from amaranth.lib import data

__all__ = [
    "ABI_VERSION", "CARD_ID", "Register", "REGISTERS", "GUARD_RANGE", "COUNTER_PAGE", "MSIX_PAGE", "DOORBELL_PAGE",
    "DOORBELL_STRIDE", "ARM_SOLICITED", "Doorbell", "DoorbellLayout", "Opcode", "Status", "COMMANDS", "COMMAND_BYTES",
    "CommandHeader", "AdminCompletion", "Sge", "RecvWqe", "SendOpcode", "SendFlags", "SendWqe", "SendWqeExtension", "Cqe",
    "CqeBody", "EventType", "Event", "EventBody", "WcStatus", "WcOpcode",
    "Access", "QpFlags", "QpState", "Reason", "TERMINATE", "Counter", "COUNTERS", "counter_layout", "nbytes",
    "FrameReason", "FrameFlags", "FrameTxFlags", "FrameRxDescriptor", "FrameRxCompletion", "FrameTxDescriptor", "FrameTxHead",
    "FrameControl", "MacControl", "MSIX_ENTRY", "MSIX_PBA", "MODERATION", "SAMPLE_PAGE", "SAMPLE_BYTES", "SAMPLED", "History",
    "HISTORY_DEPTH", "HistoryKind",
]

ABI_VERSION = 2
CARD_ID = 0x454D504C                     # "EMPL"


def nbytes(layout):
    """Bytes of a record."""
    return layout.size // 8


def _record(size, fields):
    """A record of exactly ``size`` bytes; what ``fields`` leave is named ``reserved``."""
    used = data.StructLayout(fields).size
    if used > 8 * size:
        raise ValueError(f"Record of {size} bytes has {used} bits of fields")
    return data.StructLayout({**fields, "reserved": 8 * size - used} if used < 8 * size else fields)


# Registers (BAR0, kernel page)

@dataclass(frozen=True)
class Register:
    """A 32-bit register: its byte offset in BAR0, access ("ro", "rw", "wo") and meaning."""

    offset: int
    access: str
    doc: str


REGISTERS = {
    "ID":             Register(0x000, "ro", "0x454D504C (\"EMPL\")"),
    "ABI":            Register(0x004, "ro", "version of this interface"),
    "BUILD":          Register(0x008, "ro", "hash of the profile's sizes"),
    "CAPS_TABLES":    Register(0x00C, "ro", "log2 of: QPs [7:0], CQs [15:8], regions [23:16], pages [31:24]"),
    "CAPS_QUEUES":    Register(0x010, "ro", "slots [7:0], ORQ [15:8], IRD [23:16], guard ranges [31:24]"),
    "CAPS_LIMITS":    Register(0x014, "ro", "fpdu_max in bytes [15:0], user contexts [31:16]"),
    "TICK":           Register(0x020, "rw", "core clock cycles per tick (default 1 ms at 125 MHz)"),
    "NOW":            Register(0x024, "ro", "tick counter: the TCP timestamp clock before each connection's offset"),
    "LEASE":          Register(0x028, "rw", "ticks that an unfinished FPDU may keep its slot under pressure"),
    "DELACK":         Register(0x02C, "rw", "ticks that an ACK may be delayed, at most 2047 (default 40); 0: none is"),
    "ADMIN_SQ_LO":    Register(0x040, "rw", "admin command ring, low half of its physical address"),
    "ADMIN_SQ_HI":    Register(0x044, "rw", "high half"),
    "ADMIN_CQ_LO":    Register(0x048, "rw", "admin completion ring"),
    "ADMIN_CQ_HI":    Register(0x04C, "rw", "high half"),
    "ADMIN_LOG2":     Register(0x050, "rw", "log2 of the entries of both admin rings, 0..8"),
    "ADMIN_DOORBELL": Register(0x054, "rw", "commands written so far; written to make the card run them"),
    "EVENT_LO":       Register(0x060, "rw", "event ring"),
    "EVENT_HI":       Register(0x064, "rw", "high half"),
    "EVENT_LOG2":     Register(0x068, "rw", "log2 of the event ring's entries, 0..12"),
    "EVENT_CONSUMER": Register(0x06C, "rw", "events read so far; the card keeps from overwriting the rest"),
    "GUARD_LOCK":     Register(0x080, "rw", "writing 1 locks all GUARD_RANGE registers until PCIe fundamental reset"),
    "FRAME_RX_LO":    Register(0x0A0, "rw", "frame receive ring of FrameRxDescriptor"),
    "FRAME_RX_HI":    Register(0x0A4, "rw", "high half"),
    "FRAME_RX_LOG2":  Register(0x0A8, "rw", "log2 of its entries, 1..12; written, the ring and its completions start anew"),
    "FRAME_RX_PRODUCER": Register(0x0AC, "rw", "descriptors posted so far (mod 2**16)"),
    "FRAME_RXC_LO":   Register(0x0B0, "rw", "ring of FrameRxCompletion, as many entries as descriptors"),
    "FRAME_RXC_HI":   Register(0x0B4, "rw", "high half"),
    "FRAME_TX_LO":    Register(0x0C0, "rw", "frame transmit ring of FrameTxDescriptor"),
    "FRAME_TX_HI":    Register(0x0C4, "rw", "high half"),
    "FRAME_TX_LOG2":  Register(0x0C8, "rw", "log2 of its entries, 1..12; written, the ring starts anew"),
    "FRAME_TX_PRODUCER": Register(0x0CC, "rw", "descriptors posted so far (mod 2**16)"),
    "FRAME_TXH_LO":   Register(0x0D0, "rw", "where the card writes FrameTxHead, a multiple of 8"),
    "FRAME_TXH_HI":   Register(0x0D4, "rw", "high half"),
    "FRAME_CONTROL":  Register(0x0D8, "rw", "FrameControl in [7:0]; log2 of a data buffer's bytes, 8..16, in [15:8]"),
    "FRAME_VECTOR":   Register(0x0DC, "rw", "MSI-X vector of receive completions [7:0], of the transmit head [15:8]"),
    "MAC_LO":         Register(0x0E0, "rw", "the card's MAC address, 52:54:00:00:00:01 is 0x525400000001: low half"),
    "MAC_HI":         Register(0x0E4, "rw", "bits 47..32"),
    "MAC_CONTROL":    Register(0x0E8, "rw", "MacControl in [7:0]; pause time sent, quanta, in [31:16]"),
    "EVENT_VECTOR":   Register(0x0EC, "rw", "MSI-X vector of the event ring [7:0]"),
}
#: Moderation of vector n, at MODERATION + 4 * n: requests that raise it at once [7:0] (0 counts as 1), and how long
#: fewer may wait, in units of 256 core clock cycles [23:8]. 32 bits.
MODERATION = 0x200
#: Range n: four registers from 0x100 + 16 * n: first byte (low, high), end (low, high), end exclusive. The low
#: 12 bits read 0. Empty when end <= first. No TLP of the card may touch a byte of it.
GUARD_RANGE = 0x100
#: MSI-X: table entry n at MSIX_PAGE + 16 * n, as in the PCIe specification; pending bits at MSIX_PBA.
MSIX_PAGE = 0x1000
MSIX_PBA = 0x1800
MSIX_ENTRY = data.StructLayout({"address": 64, "data": 32, "mask": 1, "reserved": 31})
#: Counter n: 32 bits, wrapping, at COUNTER_PAGE + 4 * n; the order is that of COUNTERS.
COUNTER_PAGE = 0x2000
#: The first SAMPLE_BYTES bytes of the last frame that counter n counted, at SAMPLE_PAGE + SAMPLE_BYTES * n, for the
#: counters in SAMPLED; 0 where there has been none.
SAMPLE_PAGE = 0x3000
SAMPLE_BYTES = 64
#: User context n: page at DOORBELL_PAGE + DOORBELL_STRIDE * n. It can ring for its own queues only.
DOORBELL_PAGE = 0x10000
DOORBELL_STRIDE = 4096


class FrameControl(enum.IntFlag):
    """Bits of register FRAME_CONTROL."""

    RX = 1               # frames go to the host; without it they are counted and dropped
    SPLIT = 2            # a TCP frame's headers go to the descriptor's header buffer, its payload to the data buffers
    PROMISCUOUS = 4      # frames for other stations' MAC addresses too


class MacControl(enum.IntFlag):
    """Bits of register MAC_CONTROL."""

    RX_PAUSE = 1         # obey pause frames (they never reach the host)
    TX_PAUSE = 2         # send pause frames while slots or frame memory run short


class Doorbell(enum.IntEnum):
    """Byte offsets within a doorbell page; each takes one 8-byte write of DoorbellLayout."""

    SQ = 0x00
    RQ = 0x08
    CQ = 0x10
    CQ_ARM = 0x18


DoorbellLayout = data.StructLayout({
    "number": 32,    # QP number, or CQ number
    "value":  32,    # SQ, RQ: entries produced so far (mod 2**16); CQ, CQ_ARM: entries consumed so far (mod 2**16)
})
#: Set in the value of CQ_ARM: notify of a solicited completion, or one with an error, only. Without: of any.
ARM_SOLICITED = 1 << 31


# Admin commands

class Opcode(enum.IntEnum):
    """Admin command opcodes."""

    NOP = 0
    CREATE_CQ = 1
    DESTROY_CQ = 2
    REG_MR = 3
    WRITE_PAGES = 4
    INVALIDATE = 5
    INSTALL_QP = 6
    REMOVE_QP = 7
    FLUSH_QP = 8
    UPLOAD_QP = 9
    EXPECT_READ = 10
    FENCE = 11
    ACTIVATE_QP = 12


class Status(enum.IntEnum):
    """Outcome of an admin command. Anything but OK: nothing was changed."""

    OK = 0
    BAD_OPCODE = 1
    BAD_QPN = 2          # no such QP, or its slot is taken by another
    BAD_CQ = 3           # no such CQ, or it exists already, or QPs still use it
    BAD_STAG = 4         # no such STag, or its slot is taken by another
    BAD_LENGTH = 5       # zero, too long, or wraps 2**64
    BAD_PAGES = 6        # page list outside card memory, or too short for the length
    BAD_SIZE = 7         # log2 of a ring or page out of range
    BAD_ADDRESS = 8      # misaligned
    BAD_STATE = 9        # the QP is not in a state that allows this
    EXISTS = 10          # another QP has this 4-tuple
    TABLE_FULL = 11      # tuple hash bucket full: use another local port
    QUEUE_FULL = 12      # outstanding-read queue full
    BUS_ERROR = 13       # the command could not be read from host memory
    BAD_CONTEXT = 14     # no such user context
    AGAIN = 15           # ACTIVATE_QP: a frame of the QP went to the host meanwhile; `value` is the index to reach
    BAD_VECTOR = 16      # no such MSI-X vector


COMMAND_BYTES = 128

#: First 8 bytes of every command.
CommandHeader = data.StructLayout({"opcode": 8, "pad": 24, "cookie": 32})


def _command(fields):
    return _record(COMMAND_BYTES, {"opcode": 8, "pad": 24, "cookie": 32, **fields})


class QpFlags(enum.IntFlag):
    """``flags`` of INSTALL_QP."""

    CRC = 1              # MPA CRC32c checked and generated
    TIMESTAMPS = 2       # TCP timestamps negotiated
    SACK = 4             # SACK permitted by both
    VLAN = 8             # frames carry an 802.1Q tag: vlan_tci
    INITIATOR = 16       # MPA initiator (not bound by the responder's gate)
    REMOTE_WRITE = 32    # peer may write (QP-level)
    REMOTE_READ = 64     # peer may read (QP-level)
    ECN = 128            # negotiated: CE is echoed as ECE until CWR (RFC 3168)
    DCTCP = 512          # with ECN: ECE mirrors each segment's CE instead (RFC 8257)
    HELD = 256           # the QP's frames still go to the frame ring, but for re-injected ones, until ACTIVATE_QP


class Access(enum.IntFlag):
    """Rights of a region (names of rdma-core's IBV_ACCESS_*)."""

    LOCAL_WRITE = 1
    REMOTE_WRITE = 2
    REMOTE_READ = 4
    REMOTE_ATOMIC = 8
    MW_BIND = 16
    ZERO_BASED = 32
    REMOTE_INVALIDATE = 64   # the peer may invalidate it with Send with Invalidate
    LOCAL_READ = 128         # always granted by the driver; the card checks it for local keys


COMMANDS = {
    Opcode.NOP: _command({}),
    Opcode.FENCE: _command({}),
    Opcode.CREATE_CQ: _command({
        "cq": 16,            # CQ number
        "log2": 8,           # entries, 2..15
        "context": 8,        # user context whose page may ring it
        "vector": 8,         # MSI-X vector of its notifications
        "moderate_count": 8, # completions that notify at once, of an armed CQ; 0 counts as 1
        "moderate_period": 16,   # how long fewer may wait, in units of 256 core clock cycles
        "base": 64,          # ring of Cqe, physical, multiple of 4096
    }),
    Opcode.DESTROY_CQ: _command({"cq": 16}),
    Opcode.REG_MR: _command({
        "stag": 32,          # index << 8 | key; slot = low bits of the index
        "pd": 16,
        "access": 8,         # Access
        "page_log2": 8,      # page size of the list, 12..30; 0: one contiguous block at `address`
        "base": 64,          # first TO (0 where ZERO_BASED)
        "length": 64,        # bytes
        "address": 64,       # physical address (page_log2 0), or offset of `base` in the first page
        "first_page": 32,    # first entry of the page list in card memory
        "pages": 32,         # entries of the page list
    }),
    Opcode.WRITE_PAGES: _command({
        "first": 32,         # first entry written
        "count": 32,         # entries in this command, 1..13
        "address": data.ArrayLayout(64, 13),
    }),
    Opcode.INVALIDATE: _command({"stag": 32}),
    Opcode.INSTALL_QP: _command({
        "qpn": 24, "context": 8,
        "pd": 16, "flags": 16,
        "recv_cq": 16, "send_cq": 16,
        "rq_log2": 8, "sq_log2": 8, "ttl": 8, "tos": 8,      # ring sizes: 0 none, else 1..15
        "rq_base": 64, "sq_base": 64,
        "local_ip": 32, "remote_ip": 32,                     # 10.0.0.1 is 0x0a000001
        "local_port": 16, "remote_port": 16, "vlan_tci": 16, "mss": 16,
        "local_mac": 48, "remote_mac": 48,                   # 52:54:00:00:00:01 is 0x525400000001
        "snd_nxt": 32, "rcv_nxt": 32, "snd_wnd": 32, "rcv_wnd": 32,   # windows in bytes, unscaled
        "snd_wscale": 8, "rcv_wscale": 8, "ord": 8, "ird": 8,
        "ts_recent": 32, "ts_offset": 32, "cwnd": 32, "ssthresh": 32,
        "recv_msn": 32, "recv_read_msn": 32,                 # expected MSN on QN 0 and QN 1
        "send_msn": 32, "send_read_msn": 32,
    }),
    Opcode.REMOVE_QP: _command({"qpn": 32}),
    Opcode.FLUSH_QP: _command({"qpn": 32}),
    Opcode.UPLOAD_QP: _command({
        "qpn": 32, "pad1": 32,
        "address": 64,       # where Upload goes, and History behind it: a multiple of 512
    }),
    Opcode.ACTIVATE_QP: _command({
        "qpn": 32,
        "index": 32,         # frame completions that the host has read (and re-injected where it had to) so far
    }),
    Opcode.EXPECT_READ: _command({
        "qpn": 32, "stag": 32, "to": 64, "length": 32,       # sink of a Read Request that the host sent
        "wr_id": 16,                                         # returned in the CQE's wqe_index
    }),
}

AdminCompletion = _record(16, {"cookie": 32, "value": 32, "status": 8, "opcode": 8, "pad": 47, "phase": 1})

#: What UPLOAD_QP leaves in host memory.
Upload = _record(64, {
    "qpn": 24, "state": 8, "snd_una": 32, "snd_nxt": 32, "snd_wnd": 32, "rcv_nxt": 32, "rcv_wnd": 32,
    "ts_recent": 32, "recv_msn": 32, "recv_read_msn": 32, "rq_consumed": 16, "reason": 8, "open_fpdu": 8,
})
__all__ += ["Upload"]


class HistoryKind(enum.IntEnum):
    """What happened to a connection: ``kind`` of a History entry."""

    NONE = 0             # the entry has not been written
    INSTALLED = 1
    IN_ORDER = 2         # segment taken in order (slow path only: the fast path is not noted)
    HELD = 3             # out-of-order segment kept
    DROPPED = 4          # segment dropped; `detail` is its counter's index in abi.COUNTERS
    ACK_SENT = 5         # immediate, duplicate or challenge ACK
    FIN = 6
    RST = 7
    FAILED = 8           # the stream has ended; `detail` is abi.Reason
    STATE = 9            # control changed the QP's state; `detail` is abi.QpState


HISTORY_DEPTH = 16
#: A QP's last protocol events, the oldest first, behind Upload: 16 entries of 16 bytes.
History = data.ArrayLayout(_record(16, {"kind": 8, "detail": 16, "flags": 8, "seq": 32, "ack": 32, "now": 32}), HISTORY_DEPTH)


# The plain frame path

class FrameReason(enum.IntEnum):
    """Why a frame went to the host; the order is that in which they are looked for."""

    NONE = 0
    OTHER_ETHERTYPE = 1  # not IPv4 (ARP, IPv6, ...)
    IP_HEADER = 2        # IPv4 header malformed
    IP_OPTIONS = 3
    IP_FRAGMENT = 4
    IP_CHECKSUM = 5      # wrong header checksum
    IP_PROTOCOL = 6      # not TCP
    TCP_HEADER = 7       # malformed data offset or options
    TCP_CHECKSUM = 8     # wrong TCP checksum, no installed connection
    NO_CONNECTION = 9    # TCP, but no installed connection
    HELD = 10            # of an installed connection that is not activated yet


class FrameFlags(enum.IntFlag):
    """``flags`` of a FrameRxCompletion: the checksum verdict, and how the frame lies in memory."""

    IP_CHECKED = 1
    IP_GOOD = 2
    L4_CHECKED = 4       # TCP or UDP checksum was looked at (not of fragments)
    L4_GOOD = 8
    SPLIT = 16           # header_length octets in the header buffer, the rest in the data buffers
    TRUNCATED = 32       # a descriptor behind the `buffers` used could not be read: the rest of the frame is lost


#: 16 bytes. Data buffers have the size that FRAME_CONTROL says, header buffers 128 bytes; both physical.
FrameRxDescriptor = data.StructLayout({"header": 64, "data": 64})
#: 32 bytes, one a frame, written behind its bytes.
FrameRxCompletion = data.StructLayout({
    "descriptor": 16,        # first descriptor used, low 16 bits of its index; ones left out could not be read
    "buffers": 8,            # descriptors used, in order
    "reason": 8,             # FrameReason
    "length": 16,            # octets of the frame, without FCS
    "header_length": 8,      # octets in the header buffer; 0: not split
    "flags": 8,              # FrameFlags
    "qpn": 24, "pad": 8,     # HELD: whose frame it is
    "pad1": 159, "phase": 1,
})


class FrameTxFlags(enum.IntFlag):
    """``flags`` of a FrameTxDescriptor."""

    END = 1              # last descriptor of its frame (at most 8 a frame); all other flags are read in the first one
    CHECKSUM = 2         # insert the ones' complement of the sum of all octets from checksum_start on
    REINJECT = 4         # not to the wire: into the receive path, as if it had come from there


#: 16 bytes. checksum_start and checksum_offset are read in a frame's first descriptor. The field at their sum holds the
#: pseudo header's sum, as Linux's CHECKSUM_PARTIAL has it; a result of 0 is written as 0xFFFF.
FrameTxDescriptor = data.StructLayout({
    "address": 64, "length": 16, "checksum_start": 16, "checksum_offset": 8, "flags": 8, "pad": 16,
})
#: Written when the card has read a frame's descriptors and data: descriptors done so far (mod 2**16), frames dropped so far.
FrameTxHead = data.StructLayout({"head": 16, "pad": 16, "dropped": 32})


# Work queues

Sge = data.StructLayout({"addr": 64, "length": 32, "lkey": 32})
#: A receive work request: unused SGEs have length 0. 64 bytes. wr_id stays with the driver, found by wqe_index.
RecvWqe = data.ArrayLayout(Sge, 4)


class SendOpcode(enum.IntEnum):
    """``opcode`` of a send work request (rdma-core's IBV_WR_*)."""

    RDMA_WRITE = 0
    RDMA_WRITE_WITH_IMM = 1
    SEND = 2
    SEND_WITH_IMM = 3
    RDMA_READ = 4
    ATOMIC_CMP_AND_SWP = 5
    ATOMIC_FETCH_AND_ADD = 6
    LOCAL_INV = 7
    SEND_WITH_INV = 9
    NOP = 255


class SendFlags(enum.IntFlag):
    """``flags`` of a send work request (rdma-core's IBV_SEND_*, and one more)."""

    FENCE = 1            # wait for all earlier reads and atomics
    SIGNALED = 2         # a CQE when it completes; without it, only if it fails
    SOLICITED = 4        # the peer's completion is a solicited one
    INLINE = 8           # `sge` holds the data itself, `length` octets: at most 32, with EXTENDED 96
    LOCAL_FENCE = 32     # wait for all earlier work requests
    EXTENDED = 128       # a SendWqeExtension follows in the next entry; the first one's index is even


#: A send work request, 64 bytes. wr_id stays with the driver, found by wqe_index. An entry with opcode NOP is passed over.
SendWqe = data.StructLayout({
    "opcode": 8,             # SendOpcode
    "flags": 8,              # SendFlags
    "num_sge": 8,            # 0..2, with EXTENDED 0..4
    "pad": 8,
    "length": 32,            # octets of the message: the sum of the SGEs' lengths
    "rkey": 32,              # peer's STag; SEND_WITH_INV: the one to invalidate
    "invalidate": 32,        # RDMA_READ: local STag to invalidate when it completes, 0: none; LOCAL_INV
    "remote_addr": 64,       # peer's TO
    "imm": 64,
    "sge": data.ArrayLayout(Sge, 2),
})
#: The entry behind it: two more SGEs (or 64 octets more of inline data); operands of atomics.
SendWqeExtension = _record(64, {"sge": data.ArrayLayout(Sge, 2), "compare_add": 64, "swap": 64})


class WcOpcode(enum.IntEnum):
    """``opcode`` of a CQE (rdma-core's IBV_WC_*)."""

    SEND = 0
    RDMA_WRITE = 1
    RDMA_READ = 2
    COMP_SWAP = 3
    FETCH_ADD = 4
    LOCAL_INV = 6
    RECV = 128


class WcStatus(enum.IntEnum):
    """``status`` of a CQE (rdma-core's IBV_WC_*)."""

    SUCCESS = 0
    LOC_LEN_ERR = 1
    LOC_PROT_ERR = 2
    WR_FLUSH_ERR = 3
    REM_INV_REQ_ERR = 4
    GENERAL_ERR = 5
    LOC_QP_OP_ERR = 6
    REM_ACCESS_ERR = 7


_CQE = {
    "qpn": 24,
    "opcode": 8,             # WcOpcode
    "status": 8,             # WcStatus
    "solicited": 1,
    "with_inv": 1,           # `invalidated` is valid
    "pad": 6,
    "wqe_index": 16,         # low 16 bits of the work request's index
    "byte_len": 32,
    "invalidated": 32,       # STag that the peer's Send with Invalidate named
    "immediate": 64,
}
CqeBody = _record(24, _CQE)
#: 32 bytes.
Cqe = data.StructLayout({**_CQE, "pad1": 63, "phase": 1})


# Events

class EventType(enum.IntEnum):
    """``type`` of an event."""

    QP_ERROR = 1             # stream closed by the card: `reason`, `terminate`, `data` = FPDU's first 48 bytes
    TERMINATE_RECEIVED = 2   # `data` = the FPDU's first 48 bytes; stream closed
    READ_REQUEST = 3         # `data` = the FPDU's first 48 bytes: the whole Read Request
    CQ_ERROR = 4             # `qpn` = CQ number
    LAST_WQE = 5             # FLUSH_QP has flushed the last receive WQE
    FIN_RECEIVED = 6         # the peer has closed its side: `reason` PEER_FIN at an FPDU's boundary, else PEER_FIN_DIRTY
    RST_RECEIVED = 7         # the peer has reset the connection: `reason` PEER_RESET


_EVENT = {
    "type": 8,
    "reason": 8,             # Reason
    "terminate": 16,         # layer << 12 | error type << 8 | error code, as in RFC 5040 4.8
    "qpn": 24,
    "pad": 8,
    "data": data.ArrayLayout(8, 48),
}
EventBody = _record(56, _EVENT)
#: 64 bytes.
Event = data.StructLayout({**_EVENT, "pad1": 63, "phase": 1})


class QpState(enum.IntEnum):
    """Owned by control/."""

    EMPTY = 0
    HELD = 1
    RTS = 2
    CLOSING = 3
    ERROR = 4


# Why a stream is closed

class Reason(enum.IntEnum):
    """Each has one Terminate code (TERMINATE) and one counter, ``err_`` and its name."""

    NONE = 0
    FPDU_LENGTH = 1          # M1: ULPDU_Length too small for its header, or FPDU above fpdu_max
    FPDU_CRC = 2             # M3
    DDP_VERSION_TAGGED = 3   # H1
    DDP_VERSION_UNTAGGED = 4
    RDMAP_VERSION = 5        # H2
    OPCODE = 6               # H3
    TAGGED_FLAG = 7          # H4
    MESSAGE_MIX = 8          # H6
    QN = 9                   # U1
    MSN = 10                 # U2
    NO_BUFFER = 11           # U3
    MO = 12                  # U4
    TOO_LONG = 13            # U5, U7
    LOCAL_SGE = 14           # U6
    MALFORMED = 15           # U7: Read Request or Terminate too short, or L=0
    STAG = 16                # T1
    STAG_PD = 17             # T2
    STAG_ACCESS = 18         # T3
    TO_WRAP = 19             # T4
    BOUNDS = 20              # T5
    PAGE = 21                # T6
    RESPONSE_UNEXPECTED = 22 # R1
    RESPONSE_STAG = 23       # R2
    RESPONSE_TO = 24         # R2
    RESPONSE_LENGTH = 25     # R3
    RESPONSE_SINK = 26       # R4
    READ_STAG = 27           # Q1
    READ_PD = 28             # Q2
    READ_ACCESS = 29         # Q3
    READ_WRAP = 30           # Q4
    READ_BOUNDS = 31         # Q5
    INVALIDATE_STAG = 32     # stage I
    INVALIDATE_PD = 33
    INVALIDATE_ACCESS = 34
    TERMINATED = 35          # peer's Terminate; never answered
    SLOT_LEASE = 36          # unfinished FPDU kept its slot too long under pressure
    CQ_OVERFLOW = 37
    RQ_FETCH = 38            # a receive WQE could not be read from host memory
    NOT_NOW = 39             # protect's third outcome, which no block produces yet
    PEER_RESET = 40          # RST
    PEER_FIN = 41            # FIN behind a whole FPDU
    PEER_FIN_DIRTY = 42      # FIN within an FPDU
    SQ_FETCH = 43            # a send WQE could not be read from host memory
    SQ_WQE = 44              # a send WQE that can't be: opcode, flags, more octets than its SGEs have
    SOURCE_ACCESS = 45       # a send WQE's SGE: lkey, rights or bounds
    SOURCE_FETCH = 46        # what was to be sent could not be read from host memory
    SOURCE_REVOKED = 47      # what was to be sent again may no longer be read
    RETRY_LIMIT = 48         # too many retransmissions in a row


#: layer << 12 | error type << 8 | error code; None: no Terminate is sent.
TERMINATE = {
    Reason.NONE: None,
    Reason.FPDU_LENGTH: 0x1000, Reason.FPDU_CRC: 0x2002,
    Reason.DDP_VERSION_TAGGED: 0x1104, Reason.DDP_VERSION_UNTAGGED: 0x1206, Reason.RDMAP_VERSION: 0x0205,
    Reason.OPCODE: 0x0206, Reason.TAGGED_FLAG: 0x0206, Reason.MESSAGE_MIX: 0x0206,
    Reason.QN: 0x1201, Reason.MSN: 0x1203, Reason.NO_BUFFER: 0x1202, Reason.MO: 0x1204, Reason.TOO_LONG: 0x1205,
    Reason.LOCAL_SGE: 0x1000, Reason.MALFORMED: 0x02FF,
    Reason.STAG: 0x1100, Reason.STAG_PD: 0x1102, Reason.STAG_ACCESS: 0x0102, Reason.TO_WRAP: 0x1103,
    Reason.BOUNDS: 0x1101, Reason.PAGE: 0x1000,
    Reason.RESPONSE_UNEXPECTED: 0x0206, Reason.RESPONSE_STAG: 0x1100, Reason.RESPONSE_TO: 0x1101,
    Reason.RESPONSE_LENGTH: 0x1101, Reason.RESPONSE_SINK: 0x1000,
    Reason.READ_STAG: 0x0100, Reason.READ_PD: 0x0103, Reason.READ_ACCESS: 0x0102, Reason.READ_WRAP: 0x0104,
    Reason.READ_BOUNDS: 0x0101,
    Reason.INVALIDATE_STAG: 0x0209, Reason.INVALIDATE_PD: 0x0109, Reason.INVALIDATE_ACCESS: 0x0102,
    Reason.TERMINATED: None, Reason.SLOT_LEASE: 0x1000, Reason.CQ_OVERFLOW: 0x1000, Reason.RQ_FETCH: 0x1000,
    Reason.NOT_NOW: 0x1000, Reason.PEER_RESET: None, Reason.PEER_FIN: None, Reason.PEER_FIN_DIRTY: None,
    Reason.SQ_FETCH: 0x1000, Reason.SQ_WQE: 0x1000, Reason.SOURCE_ACCESS: 0x1000, Reason.SOURCE_FETCH: 0x1000,
    Reason.SOURCE_REVOKED: None, Reason.RETRY_LIMIT: None,
}


# Counters

@dataclass(frozen=True)
class Counter:
    """A counter: its layer (folder of the gateware), name and meaning."""

    layer: str
    name: str
    doc: str


_COUNTERS = """
mac     rx_frames           good frames received
mac     rx_fcs_errors       frames dropped: wrong FCS or coding error, of a lawful length
mac     rx_undersize        frames dropped: shorter than 64 bytes, FCS right
mac     rx_oversize         frames dropped: longer than 2000 bytes, FCS right
mac     rx_overflow         frames dropped: the receiver did not take them in time
mac     tx_frames           frames sent
mac     rx_octets_8         octets received, eight at a time: those of bad frames and FCS too, not the preamble
mac     rx_octets_1         the rest of them: the sum is 8 * rx_octets_8 + rx_octets_1
mac     rx_broadcast        good frames received to the broadcast address
mac     rx_multicast        good frames received to another group address
mac     rx_fragments        frames dropped: shorter than 64 bytes, FCS wrong
mac     rx_jabbers          frames dropped: longer than 2000 bytes, FCS wrong
mac     rx_64               frames received of 64 bytes, bad ones too, as the next six
mac     rx_65_127           of 65 to 127 bytes
mac     rx_128_255          of 128 to 255 bytes
mac     rx_256_511          of 256 to 511 bytes
mac     rx_512_1023         of 512 to 1023 bytes
mac     rx_1024_1518        of 1024 to 1518 bytes
mac     rx_1519_max         of 1519 to 2000 bytes
mac     rx_pause            pause frames received
mac     rx_control          frames dropped: MAC control, but no pause for this station
mac     tx_errors           frames spoiled: the packet ended with an error, or had no next word in time
mac     tx_octets_8         octets sent, eight at a time, as for those received
mac     tx_octets_1         the rest of them
mac     tx_broadcast        frames sent to the broadcast address
mac     tx_multicast        frames sent to another group address
mac     tx_pause            pause frames sent
ip      rx_other_ethertype  frames that are not IPv4
ip      rx_ip_header        IPv4 header malformed: version, length, or longer than the frame
ip      rx_ip_options       IPv4 options
ip      rx_ip_fragment      IPv4 fragments
ip      rx_ip_checksum      wrong IPv4 header checksum
ip      rx_ip_protocol      IPv4, but not TCP
ip      rx_tcp_header       TCP header malformed: data offset or options
ip      rx_tcp_checksum     wrong TCP checksum
ip      rx_tcp_flags        none of ACK, RST and SYN, on an installed connection
ip      rx_no_connection    TCP, but no installed connection
ip      rx_no_slot          segments dropped: no free slot, or payload longer than a slot
ip      rx_segments         segments handed to TCP
ip      rx_frames_held      frames of a held connection, for the host
frames  rx_frames_host      frames that went to the host
frames  rx_frames_off       frames for the host dropped: FRAME_CONTROL.RX is not set
frames  rx_frames_filtered  frames for the host dropped: another station's MAC address
frames  rx_frames_no_room   frames for the host dropped: the frame memory is full
frames  rx_frame_no_buffer  frames for the host dropped: fewer descriptors posted than the frame needs
frames  rx_frame_bus_error  receive descriptors that could not be read; the frame is dropped, or truncated before it
frames  rx_bypass_overflow  frames of the wire dropped: too many came while one of the host's was put in
frames  tx_frames_host      frames of the host sent to the wire
frames  tx_frames_injected  frames of the host put into the receive path
frames  tx_frames_refused   frames of the host dropped: empty descriptor, bad length, no END in 8, checksum field outside
frames  tx_frames_bus_error frames of the host dropped: their descriptors or bytes could not be read
tcp     rx_dead             segments for a QP that is not in RTS, CLOSING or HELD, or whose stream has ended
tcp     rx_fast_path        header prediction held
tcp     rx_slow_path        it did not
tcp     rx_pure_acks        segments without payload
tcp     rx_duplicate        nothing new in the segment, or below the window
tcp     rx_trimmed          trimmed at the left
tcp     rx_beyond_window    outside the window, or trimmed at the right
tcp     rx_no_timestamp     no timestamp on a connection that negotiated them
tcp     rx_held             out-of-order segments held
tcp     rx_held_dropped     out-of-order segments dropped: no slot to spare
tcp     rx_released         held segments handed on
tcp     rx_refused          in-order bytes dropped unacknowledged: no slot to spare, or parked
tcp     rx_bad_ack          dropped: ACK for data never sent
tcp     tx_acks             pure ACKs sent
tcp     rx_old_ack          dropped: ACK below SND.UNA - MAX.SND.WND
tcp     rx_paws             dropped: timestamp older than TS.Recent
tcp     rx_rst              connections reset: RST at RCV.NXT
tcp     rx_rst_challenged   RST elsewhere in the window, answered by a challenge ACK
tcp     rx_rst_outside      RST outside the window, ignored
tcp     rx_syn              SYN, answered by a challenge ACK
tcp     rx_urgent           segments with URG, which is ignored
tcp     rx_fin              FIN taken in order
tcp     rx_fin_early        FIN in front of which octets are missing: remembered
tcp     rx_after_fin        dropped: data behind the peer's FIN
tcp     rx_ce               data segments marked CE on a connection with ECN
tcp     tx_challenges       ACKs called for by RST, SYN, an unacceptable ACK or an unacceptable empty segment
tcp     tx_throttled        of those, the ones that were not sent: 10 in 5 s had been
tcp     tx_delayed          ACKs that the delay ran out for
tcp     tx_sacks            ACKs with SACK blocks
tcp     tx_dsacks           of those, the ones whose first block is a duplicate
tcp     tx_segments         segments with payload sent
tcp     tx_retransmitted    of those ordered, the ones that go again
tcp     tx_dropped          segments dropped before they left: their source could not be read, or was refused
tcp     tx_timeouts         retransmission timeouts
tcp     tx_fast_retransmits fast retransmits
tcp     tx_probes           probes of closed windows
mpa     rx_fpdus            FPDUs whose CRC held (or is off)
mpa     rx_fpdus_split      of those, the ones that lay in two slots
mpa     rx_appended         segments appended to an unfinished FPDU
mpa     rx_parked           walks stopped for want of a receive WQE
mpa     rx_unfinished       segments that left an unfinished FPDU
rdmap   rx_writes           RDMA Write segments placed
rdmap   rx_sends            Send segments placed
rdmap   rx_responses        Read Response segments placed
rdmap   rx_read_requests    Read Requests reported
rdmap   rx_terminates       Terminates received
rdmap   rx_after_error      FPDUs dropped behind a stream's first error
rdmap   rx_completions      receive and read completions written
dma     tx_writes           memory write TLPs
dma     tx_reads            memory read TLPs
dma     rx_completions_bad  completions that match no read
dma     read_errors         reads that ended in UR, CA, poison or time-out
dma     guard_writes        writes blocked by the guard
dma     guard_reads         reads blocked by the guard
dma     guard_other         TLPs of a type that may not leave
dma     mmio_unsupported    host accesses answered UR or ignored
queues  doorbell_refused    doorbells for a queue of another context, or for none
queues  cq_overflow         completions that met a full CQ
queues  event_overflow      events that met a full ring
control commands            admin commands run
control commands_refused    of those, the ones refused
"""

COUNTERS = tuple(Counter(*line.split(None, 2)) for line in _COUNTERS.strip().splitlines()) + tuple(
    Counter("rdmap", "err_" + reason.name.lower(), f"streams closed: {reason.name}")
    for reason in Reason if reason is not Reason.NONE)


#: Counters that have a sample, by number: those of mac, ip and frames that count frames which go no further on the fast path.
SAMPLED = tuple(n for n, c in enumerate(COUNTERS) if (c.layer == "mac" and c.doc.startswith("frames dropped"))
                or (c.layer in ("ip", "frames") and c.name not in ("rx_segments", "rx_frames_host")))


def counter_layout(layer):
    """One strobe bit for each counter of ``layer``: the shape of its ``count`` port."""
    return data.StructLayout({c.name: 1 for c in COUNTERS if c.layer == layer})
