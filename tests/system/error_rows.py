"""The rows of the receive stages: for each, what a peer sends and what must come of it.

Stages M, H, U, T, R, I and 7 are those of RFC 5040, 5041 and 5044 in the order in which the card checks (docs/decisions.md).
Two rows can't be brought about from outside: M2 (markers are refused in the handshake) and T6 (REG_MR refuses a
page list that is too short, so no grant meets a hole; ``tests/rdmap`` and ``tests/protect`` have it on the layer).
"""

from dataclasses import dataclass, field

from emplace.abi import Reason, WcStatus
from emplace_sim.ddp import (
    READ_REQUEST,
    READ_RESPONSE,
    SEND,
    SEND_INV,
    SEND_SE,
    TERMINATE,
    WRITE,
    read_request,
    read_response,
    send,
    tagged,
    terminate,
    untagged,
    write,
)
from emplace_sim.fpdu import build_fpdu

__all__ = ["ROWS", "ACCEPTED", "Row", "Room", "Whole"]

MDR, MD, NONE = 0xE0, 0xC0, 0


class Whole(bytes):
    """An FPDU that is spoiled as such; other bytes are ULPDUs."""


def fpdu(ulpdu, **lies):
    return Whole(build_fpdu(ulpdu, **lies))


@dataclass
class Room:
    """What the peer of a case finds: a connection, and regions that it may and may not touch.

    ``mine``: remote read and write, ``also``: the same; ``readonly``: remote read; ``foreign``: of another PD;
    ``gone``: an STag that was invalidated; ``top``: ends at 2**64; ``revocable``: may be invalidated remotely,
    ``revocable_foreign``: of another PD; ``inbox``: local write, 64 bytes of each receive request.
    """

    mine: object
    also: object
    readonly: object
    foreign: object
    gone: object
    top: object
    revocable: object
    revocable_foreign: object
    inbox: object


@dataclass
class Row:
    """``sends(room)``: ULPDUs, or :class:`Whole` FPDUs; the last one breaks the rule."""

    name: str
    reason: Reason
    code: int | None
    flags: int                           # M, D, R of the Terminate
    sends: object
    receives: int = 0                    # receive requests posted
    sges: object = None                  # room -> SGEs of them; default: 64 bytes of the inbox
    reads: object = None                 # room -> [(stag, to, length)] that the host has asked for
    status: WcStatus | None = None       # of the receive request that the error fails
    placed: object = None                # room -> [(region, at, bytes)] that the FPDUs before may place
    completions: int = 0                 # successful ones before
    install: dict = field(default_factory=dict)


ROWS, ACCEPTED = [], []


def row(name, reason, code, flags, sends, **more):
    ROWS.append(Row(name, Reason[reason], code, flags, sends, **more))


def w(r, data=b"evil", at=0, region=None, last=True):
    region = region or r.mine
    return write(region.rkey, region.base + at, data, last=last)


# M: MPA
for length in (0, 1, 13):
    row(f"M1 ULPDU_Length {length}, tagged", "FPDU_LENGTH", 0x1000, NONE, lambda r, n=length: [fpdu(w(r), length=n)])
row("M1 ULPDU_Length 17, untagged", "FPDU_LENGTH", 0x1000, NONE, lambda r: [fpdu(send(1, b"evil"), length=17)], receives=1)
row("M1 ULPDU_Length 65535", "FPDU_LENGTH", 0x1000, NONE, lambda r: [fpdu(w(r), length=65535)])
row("M1 FPDU above fpdu_max", "FPDU_LENGTH", 0x1000, NONE, lambda r: [fpdu(w(r, bytes(1400)), length=2043)])
row("M3 CRC, and a wrong TO", "FPDU_CRC", 0x2002, NONE,
    lambda r: [fpdu(write(r.mine.rkey, r.mine.base - 64, b"evil"), crc=False)])
row("M3 CRC of a good Write", "FPDU_CRC", 0x2002, NONE, lambda r: [fpdu(w(r), crc=False)])
row("M3 CRC of a Send", "FPDU_CRC", 0x2002, NONE, lambda r: [fpdu(send(1, b"evil"), crc=False)], receives=1)

# H: headers
row("H1 DDP version, tagged", "DDP_VERSION_TAGGED", 0x1104, NONE,
    lambda r: [tagged(WRITE, r.mine.rkey, r.mine.base, b"evil", dv=2)])
row("H1 DDP version, untagged", "DDP_VERSION_UNTAGGED", 0x1206, NONE,
    lambda r: [untagged(SEND, 1, b"evil", dv=0)], receives=1)
row("H2 RDMAP version 0 (RDMAC)", "RDMAP_VERSION", 0x0205, MD,
    lambda r: [tagged(WRITE, r.mine.rkey, r.mine.base, b"evil", rv=0)])
for opcode in (8, 9, 10, 11, 15):
    row(f"H3 opcode {opcode}", "OPCODE", 0x0206, MD, lambda r, n=opcode: [untagged(n, 1, bytes(8), qn=0)], receives=1)
row("H3 opcode 12, tagged", "OPCODE", 0x0206, MD, lambda r: [tagged(12, r.mine.rkey, r.mine.base, b"evil")])
row("H4 untagged Write", "TAGGED_FLAG", 0x0206, MD, lambda r: [untagged(WRITE, 1, b"evil", qn=0)])
row("H4 tagged Send", "TAGGED_FLAG", 0x0206, MD, lambda r: [tagged(SEND, r.mine.rkey, r.mine.base, b"evil")], receives=1)
row("H4 untagged Read Response", "TAGGED_FLAG", 0x0206, MD, lambda r: [untagged(READ_RESPONSE, 1, b"evil", qn=0)],
    reads=lambda r: [(r.inbox.lkey, r.inbox.base, 4)])
row("H4 tagged Read Request", "TAGGED_FLAG", 0x0206, MD, lambda r: [tagged(READ_REQUEST, 1, 2, bytes(32))])
row("H4 tagged Terminate", "TAGGED_FLAG", 0x0206, MD, lambda r: [tagged(TERMINATE, 1, 2, bytes(32))])
row("H6 Send changes its opcode", "MESSAGE_MIX", 0x0206, MD,
    lambda r: [send(1, b"abc", last=False), untagged(SEND_SE, 1, b"evil", mo=3)], receives=2,
    placed=lambda r: [(r.inbox, 0, b"abc")])
row("H6 Write changes its STag", "MESSAGE_MIX", 0x0206, MD,
    lambda r: [w(r, b"abc", last=False), w(r, b"evil", 3, r.also)], placed=lambda r: [(r.mine, 0, b"abc")])
row("H6 Read Response within a Write", "MESSAGE_MIX", 0x0206, MD,
    lambda r: [w(r, b"abc", last=False), read_response(r.inbox.lkey, r.inbox.base, b"evil")],
    reads=lambda r: [(r.inbox.lkey, r.inbox.base, 4)], placed=lambda r: [(r.mine, 0, b"abc")])

# U: untagged
for qn in (1, 2, 3, 0x10000, 0xFFFFFFFF):
    row(f"U1 Send on QN {qn:#x}", "QN", 0x1201, MD, lambda r, n=qn: [untagged(SEND, 1, b"evil", qn=n)], receives=1)
row("U1 Read Request on QN 0", "QN", 0x1201, MD, lambda r: [untagged(READ_REQUEST, 1, bytes(28), qn=0)], receives=1)
row("U1 Terminate on QN 0", "QN", 0x1201, MD, lambda r: [untagged(TERMINATE, 1, b"\x11\1\0\0", qn=0)], receives=1)
row("U2 MSN skips one", "MSN", 0x1203, MD, lambda r: [send(2, b"evil")], receives=2)
row("U2 MSN 0 comes first", "MSN", 0x1203, MD, lambda r: [send(0, b"evil")], receives=2)
row("U2 MSN again", "MSN", 0x1203, MD, lambda r: [send(1, b"abc"), send(1, b"evil")], receives=2, completions=1,
    placed=lambda r: [(r.inbox, 0, b"abc")])
row("U2 MSN of a Read Request", "MSN", 0x1203, MD, lambda r: [read_request(2, 1, 2, 3, 4, 5)])
row("U2 MSN behind the wrap", "MSN", 0x1203, MD, lambda r: [send(0xFFFFFFFF, b"abc"), send(1, b"evil")], receives=2,
    completions=1, placed=lambda r: [(r.inbox, 0, b"abc")], install={"recv_msn": 0xFFFFFFFF})
row("U3 no receive request", "NO_BUFFER", 0x1202, MD, lambda r: [send(1, b"evil")])
row("U3 no receive request for an empty Send", "NO_BUFFER", 0x1202, MD, lambda r: [send(1, b"abc"), send(2, b"")],
    receives=1, completions=1, placed=lambda r: [(r.inbox, 0, b"abc")])
row("U4 MO of a first segment", "MO", 0x1204, MD, lambda r: [send(1, b"evil", mo=4)], receives=1)
row("U4 MO jumps forward", "MO", 0x1204, MD, lambda r: [send(1, b"abc", last=False), send(1, b"evil", mo=4)], receives=1,
    placed=lambda r: [(r.inbox, 0, b"abc")])
row("U4 MO jumps back", "MO", 0x1204, MD, lambda r: [send(1, b"abc", last=False), send(1, b"evil", mo=2)], receives=1,
    placed=lambda r: [(r.inbox, 0, b"abc")])
row("U4 MO of a Read Request", "MO", 0x1204, MD, lambda r: [untagged(READ_REQUEST, 1, bytes(28), qn=1, mo=4)])
row("U5 one octet too long", "TOO_LONG", 0x1205, MD, lambda r: [send(1, bytes(65))], receives=1,
    status=WcStatus.LOC_LEN_ERR)
row("U5 too long by its second segment", "TOO_LONG", 0x1205, MD,
    lambda r: [send(1, b"a" * 60, last=False), send(1, b"evil!", mo=60)], receives=1, status=WcStatus.LOC_LEN_ERR,
    placed=lambda r: [(r.inbox, 0, b"a" * 60)])
row("U6 lkey unknown", "LOCAL_SGE", 0x1000, NONE, lambda r: [send(1, b"evil")], receives=1,
    sges=lambda r: [(r.inbox.base, 64, r.gone.stag)], status=WcStatus.LOC_PROT_ERR)
row("U6 lkey of another PD", "LOCAL_SGE", 0x1000, NONE, lambda r: [send(1, b"evil")], receives=1,
    sges=lambda r: [(r.foreign.base, 64, r.foreign.lkey)], status=WcStatus.LOC_PROT_ERR)
row("U6 no local write", "LOCAL_SGE", 0x1000, NONE, lambda r: [send(1, b"evil")], receives=1,
    sges=lambda r: [(r.readonly.base, 64, r.readonly.lkey)], status=WcStatus.LOC_PROT_ERR)
row("U6 beyond the region", "LOCAL_SGE", 0x1000, NONE, lambda r: [send(1, b"evil")], receives=1,
    sges=lambda r: [(r.inbox.base + 4095, 64, r.inbox.lkey)], status=WcStatus.LOC_PROT_ERR)
row("U7 Read Request too short", "MALFORMED", 0x02FF, MD, lambda r: [read_request(1, 1, 2, 3, 4, 5)[:-1]])
row("U7 Read Request too long", "TOO_LONG", 0x1205, MD, lambda r: [read_request(1, 1, 2, 3, 4, 5) + b"!"])
row("U7 Read Request without L", "MALFORMED", 0x02FF, MD, lambda r: [untagged(READ_REQUEST, 1, bytes(28), qn=1, last=False)])
row("U7 Terminate too short", "MALFORMED", 0x02FF, MD, lambda r: [untagged(TERMINATE, 1, b"\x11\1\0", qn=2)])

# T: tagged
row("T1 unknown STag", "STAG", 0x1100, MD, lambda r: [write(r.mine.rkey ^ 1 << 31, r.mine.base, b"evil")])
row("T1 wrong key", "STAG", 0x1100, MD, lambda r: [write(r.mine.rkey ^ 1, r.mine.base, b"evil")])
row("T1 invalidated STag", "STAG", 0x1100, MD, lambda r: [w(r, region=r.gone)])
row("T2 another PD", "STAG_PD", 0x1102, MD, lambda r: [w(r, region=r.foreign)])
row("T3 no remote write", "STAG_ACCESS", 0x0102, MD, lambda r: [w(r, region=r.readonly)])
row("T3 QP without remote write", "STAG_ACCESS", 0x0102, MD, lambda r: [w(r)], install={"flags": 0})
row("T4 wraps", "TO_WRAP", 0x1103, MD, lambda r: [write(r.top.rkey, 2**64 - 4, b"evil!")])
row("T4 before T5", "TO_WRAP", 0x1103, MD, lambda r: [write(r.mine.rkey, 2**64 - 1, b"evil")])
row("T5 above", "BOUNDS", 0x1101, MD, lambda r: [w(r, at=4093)])
row("T5 below", "BOUNDS", 0x1101, MD, lambda r: [w(r, at=-1)])
row("T5 second segment", "BOUNDS", 0x1101, MD, lambda r: [w(r, b"abcd", 4092, last=False), w(r, at=4096)],
    placed=lambda r: [(r.mine, 4092, b"abcd")])

# R: Read Responses
ONE = {"reads": lambda r: [(r.inbox.lkey, r.inbox.base + 8, 8)]}
row("R1 no read", "RESPONSE_UNEXPECTED", 0x0206, MD, lambda r: [read_response(r.inbox.lkey, r.inbox.base, b"evil")])
row("R1 a Write in disguise", "RESPONSE_UNEXPECTED", 0x0206, MD, lambda r: [read_response(r.mine.rkey, r.mine.base, b"evil")])
row("R1 one response too many", "RESPONSE_UNEXPECTED", 0x0206, MD,
    lambda r: [read_response(r.inbox.lkey, r.inbox.base + 8, b"abcdefgh"), read_response(r.inbox.lkey, r.inbox.base, b"evil")],
    completions=1, placed=lambda r: [(r.inbox, 8, b"abcdefgh")], **ONE)
row("R2 another STag", "RESPONSE_STAG", 0x1100, MD, lambda r: [read_response(r.mine.rkey, r.inbox.base + 8, b"evilevil")],
    **ONE)
row("R2 another TO", "RESPONSE_TO", 0x1101, MD, lambda r: [read_response(r.inbox.lkey, r.inbox.base + 9, b"evilevil")], **ONE)
row("R2 TO skips", "RESPONSE_TO", 0x1101, MD,
    lambda r: [tagged(READ_RESPONSE, r.inbox.lkey, r.inbox.base + 8, b"abc", last=False),
               read_response(r.inbox.lkey, r.inbox.base + 12, b"evil")], placed=lambda r: [(r.inbox, 8, b"abc")], **ONE)
row("R3 too long", "RESPONSE_LENGTH", 0x1101, MD, lambda r: [read_response(r.inbox.lkey, r.inbox.base + 8, b"evilevil!")],
    **ONE)
row("R3 too short", "RESPONSE_LENGTH", 0x1101, MD, lambda r: [read_response(r.inbox.lkey, r.inbox.base + 8, b"evil")], **ONE)
row("R4 sink invalidated", "RESPONSE_SINK", 0x1000, NONE, lambda r: [read_response(r.gone.stag, r.gone.base, b"evil")],
    reads=lambda r: [(r.gone.stag, r.gone.base, 4)])
row("R4 sink of another PD", "RESPONSE_SINK", 0x1000, NONE, lambda r: [read_response(r.foreign.lkey, r.foreign.base, b"evil")],
    reads=lambda r: [(r.foreign.lkey, r.foreign.base, 4)])
row("R4 sink without local write", "RESPONSE_SINK", 0x1000, NONE,
    lambda r: [read_response(r.readonly.lkey, r.readonly.base, b"evil")],
    reads=lambda r: [(r.readonly.lkey, r.readonly.base, 4)])

# I: Send with Invalidate. Its payload is the message's, placed before the STag is looked at.
MESSAGE = {"receives": 1, "status": WcStatus.REM_INV_REQ_ERR, "placed": lambda r: [(r.inbox, 0, b"text")]}
row("I STag unknown", "INVALIDATE_STAG", 0x0209, MD, lambda r: [send(1, b"text", invalidate=r.mine.rkey ^ 1 << 31)], **MESSAGE)
row("I key differs", "INVALIDATE_STAG", 0x0209, MD, lambda r: [send(1, b"text", invalidate=r.revocable.rkey ^ 1)], **MESSAGE)
row("I another PD", "INVALIDATE_PD", 0x0109, MD, lambda r: [send(1, b"text", invalidate=r.revocable_foreign.rkey)], **MESSAGE)
row("I not allowed", "INVALIDATE_ACCESS", 0x0102, MD, lambda r: [send(1, b"text", invalidate=r.mine.rkey)], **MESSAGE)
row("I with solicited event", "INVALIDATE_ACCESS", 0x0102, MD,
    lambda r: [send(1, b"text", invalidate=r.readonly.rkey, solicited=True)], **MESSAGE)
row("T1 behind a Send with Invalidate", "STAG", 0x1100, MD,
    lambda r: [send(1, b"text", invalidate=r.revocable.rkey), w(r, region=r.revocable)], receives=1, completions=1,
    placed=lambda r: [(r.inbox, 0, b"text")])

# 7: the peer's Terminate
row("7 Terminate", "TERMINATED", None, NONE, lambda r: [terminate(0x1101)])
row("7 Terminate with all headers", "TERMINATED", None, NONE,
    lambda r: [terminate(0x0102, flags=MDR, copied=b"\0\x2e" + read_request(1, 1, 2, 3, 4, 5))])
row("7 MSN 2", "MSN", 0x1203, MD, lambda r: [untagged(TERMINATE, 2, b"\x11\1\0\0", qn=2)])
row("7 MO 4", "MO", 0x1204, MD, lambda r: [untagged(TERMINATE, 1, b"\x11\1\0\0", qn=2, mo=4)])
row("7 without L", "MALFORMED", 0x02FF, MD, lambda r: [untagged(TERMINATE, 1, b"\x11\1\0\0", qn=2, last=False)])


def accepted(name, sends, **more):
    ACCEPTED.append(Row(name, Reason.NONE, None, NONE, sends, **more))


# What is no error, whatever it looks like
accepted("M1 the longest FPDU", lambda r: [w(r, b"x" * 1400)], placed=lambda r: [(r.mine, 0, b"x" * 1400)])
accepted("H5 reserved bits", lambda r: [tagged(WRITE, r.mine.rkey, r.mine.base, b"fine", reserved=(0x3C, 0x30)),
                                        untagged(SEND, 1, b"good", reserved=(0x3C, 0x30), stag=0xDEADBEEF)],
         receives=1, completions=1, placed=lambda r: [(r.mine, 0, b"fine"), (r.inbox, 0, b"good")])
accepted("U2 MSN wraps to 0", lambda r: [send(0xFFFFFFFF, b"abc"), send(0, b"def")], receives=2, completions=2,
         placed=lambda r: [(r.inbox, 0, b"abc"), (r.inbox, 64, b"def")], install={"recv_msn": 0xFFFFFFFF})
accepted("T zero length: nothing is looked at", lambda r: [write(0xDEADBEEF, 2**64 - 1, b"")])
accepted("T4 ends at 2**64", lambda r: [write(r.top.rkey, 2**64 - 4, b"last")], placed=lambda r: [(r.top, 4092, b"last")])
accepted("T5 ends at the region's end", lambda r: [w(r, b"last", 4092)], placed=lambda r: [(r.mine, 4092, b"last")])
accepted("U5 fills the buffer", lambda r: [send(1, b"y" * 64)], receives=1, completions=1,
         placed=lambda r: [(r.inbox, 0, b"y" * 64)])
accepted("R zero length", lambda r: [read_response(0, 0, b"")],
    reads=lambda r: [(r.inbox.lkey, r.inbox.base, 0)], completions=1)
accepted("I invalid already", lambda r: [send(1, b"one", invalidate=r.revocable.rkey),
                                         untagged(SEND_INV, 2, b"two", stag=r.revocable.rkey)],
         receives=2, completions=2, placed=lambda r: [(r.inbox, 0, b"one"), (r.inbox, 64, b"two")])
# Stage Q: the card hands Read Requests up; the host checks their source.
accepted("Q Read Request of nothing", lambda r: [read_request(1, 1, 2, 0, 0xDEADBEEF, 5)])
