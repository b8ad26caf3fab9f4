"""Golden model of DDP and RDMAP at the receiver: bytes in, effects out. Knows nothing of the gateware.

Ref: RFC 5040, RFC 5041.
"""

from dataclasses import dataclass, field

from emplace.abi import TERMINATE, Access, EventType, QpFlags, Reason, Status, WcOpcode, WcStatus

from . import ddp
from .ddp import READ_REQUEST, READ_RESPONSE, SEND, SEND_SE, WRITE, with_length
from .ddp import SEND_INV as SEND_INVALIDATE
from .ddp import SEND_SE_INV as SEND_SE_INVALIDATE
from .ddp import TERMINATE as TERMINATE_OP

__all__ = ["DdpModel", "DdpVerdict", "Qp", "RdmapModel", "Region", "tagged", "untagged", "read_request", "terminate",
           "WRITE", "READ_REQUEST", "READ_RESPONSE", "SEND", "SEND_INVALIDATE", "SEND_SE", "SEND_SE_INVALIDATE",
           "TERMINATE_OP"]

SENDS = (SEND, SEND_INVALIDATE, SEND_SE, SEND_SE_INVALIDATE)


# Segments behind their ULPDU_Length: FPDUs up to the padding

def tagged(*fields, **more):
    return with_length(ddp.tagged(*fields, **more))


def untagged(*fields, **more):
    return with_length(ddp.untagged(*fields, **more))


def read_request(msn, sink=(0xA101, 0x7F0000001000), size=4096, source=(0xB202, 0x7F0000002000), *, extra=b"", **kw):
    body = ddp.read_request(msn, *sink, size, *source)[ddp.UNTAGGED_HEADER:]
    return untagged(READ_REQUEST, msn, body + extra, **kw)


def terminate(body=b"\x11\x01\xc0\x00" + bytes(16), *, msn=1, **kw):
    return untagged(TERMINATE_OP, msn, body, **kw)


# Regions

@dataclass
class Region:
    """A registered region; ``pages`` are physical, of ``page`` bytes, the first one's start being ``base``'s."""

    stag: int
    pd: int
    access: int
    base: int
    length: int
    page: int = 4096
    pages: list = field(default_factory=list)
    valid: bool = True

    def refuse(self, pd, offset, length, right):
        """Name of the first check that fails, T2..T6, or None."""
        if pd != self.pd:
            return "PD"
        if right & ~self.access:
            return "ACCESS"
        if offset + length > 2**64:
            return "WRAP"
        if offset < self.base or offset + length > self.base + self.length:
            return "BOUNDS"
        if offset + length > self.base + self.page * len(self.pages):
            return "PAGE"
        return None

    def bursts(self, offset, length):
        """Physical bursts of a granted access: (address, length)."""
        at = offset - self.base
        while length:
            inside = at % self.page
            piece = min(length, self.page - inside)
            yield self.pages[at // self.page] + inside, piece
            at, length = at + piece, length - piece


def refusal(regions, stag, pd, offset, length, right):
    """T1, then :meth:`Region.refuse`."""
    region = regions.get(stag)
    if region is None or not region.valid:
        return "STAG"
    return region.refuse(pd, offset, length, right)


def refuse_invalidate(regions, stag, pd):
    """Stage I; makes the region invalid where it may. One that is invalid already stays so, without an error."""
    region = regions.get(stag)
    if region is None:
        return "STAG"
    if region.pd != pd:
        return "PD"
    if not region.access & Access.REMOTE_INVALIDATE:
        return "ACCESS"
    region.valid = False
    return None


# DDP

@dataclass
class DdpVerdict:
    """What DDP decodes and finds."""

    tagged: bool
    last: bool
    ulp: int
    stag: int
    to: int
    qn: int
    msn: int
    mo: int
    skip: int
    payload: int
    runt: bool
    bad_version: bool
    bad_qn: bool
    bad_msn: bool
    bad_mo: bool


class DdpModel:
    """DDP's state of every QP."""

    def __init__(self):
        self.expected = {}               # (slot, QN): MSN
        self.octets = {}                 # slot: octets so far of the message open on QN 0

    def install(self, slot, recv_msn=1, recv_read_msn=1):
        self.expected.update({(slot, 0): recv_msn, (slot, 1): recv_read_msn, (slot, 2): 1})
        self.octets[slot] = 0

    def segment(self, slot, header, length):
        """Judge a ULPDU of ``length`` octets whose first 48 bytes, ULPDU_Length included, are ``header``."""
        def number(first, size):
            return int.from_bytes(header[first:first + size], "big")
        is_tagged, last = bool(header[2] & 0x80), bool(header[2] & 0x40)
        size = 14 if is_tagged else 18
        qn, msn, mo = number(8, 4), number(12, 4), number(16, 4)
        seen = DdpVerdict(
            tagged=is_tagged, last=last, ulp=header[3], stag=number(4, 4), to=number(8, 8), qn=qn, msn=msn, mo=mo,
            skip=size + 2, payload=max(0, length - size), runt=length < size, bad_version=header[2] & 3 != 1,
            bad_qn=not is_tagged and qn > 2,
            bad_msn=not is_tagged and qn <= 2 and msn != self.expected.get((slot, qn), 0),
            bad_mo=not is_tagged and mo != (self.octets.get(slot, 0) if qn == 0 else 0))
        if not is_tagged and qn <= 2:
            key = (slot, qn)
            if last:
                self.expected[key] = (self.expected.get(key, 0) + 1) % 2**32
            if qn == 0:
                self.octets[slot] = 0 if last else (self.octets.get(slot, 0) + seen.payload) % 2**32
        return seen


# RDMAP

class StreamError(Exception):
    """The stream's first error: ``reason``, and the status of the receive WQE that it fails, if any."""

    def __init__(self, reason, status=None, wqe=None):
        super().__init__(reason)
        self.reason, self.status, self.wqe = reason, status, wqe


@dataclass
class Wqe:
    """A receive WQE: ``sges`` are (address, length, lkey)."""

    index: int
    sges: list
    failed: bool = False                 # could not be read from host memory
    used: int = 0                        # octets placed


@dataclass
class Qp:
    """A QP's settings and state."""

    slot: int
    qpn: int = 0
    pd: int = 1
    flags: int = QpFlags.REMOTE_WRITE
    recv_cq: int = 0
    send_cq: int = 1
    alive: bool = True
    reason: Reason = Reason.NONE
    posted: list = field(default_factory=list)
    reads: list = field(default_factory=list)    # [stag, to, length, wr_id, octets so far]
    wqe: Wqe | None = None               # of the open Send
    send_op: int | None = None           # of the open Send
    write_stag: int | None = None        # of the open Write


class RdmapModel:
    """Every QP of a receiver.

    ``effects`` grows by, in order: ("place", stag, to, bytes), ("cqe", cq, {...}), ("event", {...}).
    ``died`` by (slot, Reason), ``counts`` has the counters' names.
    """

    def __init__(self, regions, *, orq=4):
        self.regions = {region.stag: region for region in regions}
        self.orq = orq
        self.ddp = DdpModel()
        self.qps = {}
        self.effects, self.died, self.counts = [], [], {}

    def install(self, qp, recv_msn=1, recv_read_msn=1):
        self.qps[qp.slot] = qp
        self.ddp.install(qp.slot, recv_msn, recv_read_msn)

    def expect_read(self, slot, stag, to, length, wr_id):
        reads = self.qps[slot].reads
        if len(reads) == self.orq:
            return Status.QUEUE_FULL
        reads.append([stag, to, length, wr_id, 0])
        return Status.OK

    def ulpdu(self, slot, header, ulpdu, status=Reason.NONE):
        """One ULPDU: its record's 48 header bytes, its own bytes, and the LLP's verdict."""
        seen = None if status else self.ddp.segment(slot, header, len(ulpdu))
        qp = self.qps.get(slot)
        if qp is None or not (qp.alive or (qp.reason == Reason.PEER_FIN and status == Reason.PEER_RESET)):
            self._count("rx_after_error")
            return
        try:
            if seen is None:
                raise StreamError(status)
            self._headers(qp, seen, len(ulpdu))
            payload = ulpdu[seen.skip - 2:]
            opcode = seen.ulp & 15
            if opcode == WRITE:
                self._write(qp, seen, payload)
            elif opcode == READ_RESPONSE:
                self._response(qp, seen, payload)
            elif opcode == READ_REQUEST:
                self._count("rx_read_requests")
                self._event(qp, EventType.READ_REQUEST, Reason.NONE, header)
            elif opcode == TERMINATE_OP:
                self._count("rx_terminates")
                raise StreamError(Reason.TERMINATED)
            else:
                self._send(qp, seen, payload)
        except StreamError as error:
            if error.status is not None:
                self._cqe(qp, qp.recv_cq, error.status, error.wqe.index, 0, solicited=opcode in (5, 6))
            kind = {Reason.TERMINATED: EventType.TERMINATE_RECEIVED, Reason.PEER_FIN: EventType.FIN_RECEIVED,
                    Reason.PEER_FIN_DIRTY: EventType.FIN_RECEIVED,
                    Reason.PEER_RESET: EventType.RST_RECEIVED}.get(error.reason, EventType.QP_ERROR)
            self._event(qp, kind, error.reason, header)
            self._count("err_" + error.reason.name.lower())
            self.died.append((slot, error.reason))
            qp.alive, qp.reason = False, error.reason

    def _count(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1

    def _place(self, stag, to, data):
        if data:
            self.effects.append(("place", stag, to, bytes(data)))

    def _cqe(self, qp, cq, status, wqe_index, byte_len, *, opcode=WcOpcode.RECV, solicited=False, invalidated=None):
        self._count("rx_completions")
        self.effects.append(("cqe", cq, {
            "qpn": qp.qpn, "opcode": int(opcode), "status": int(status), "solicited": int(solicited),
            "with_inv": int(invalidated is not None), "wqe_index": wqe_index, "byte_len": byte_len,
            "invalidated": invalidated or 0, "immediate": 0}))

    def _event(self, qp, kind, reason, header):
        self.effects.append(("event", {
            "type": int(kind), "reason": int(reason), "terminate": TERMINATE[reason] or 0, "qpn": qp.qpn,
            "data": bytes(header)}))

    def _headers(self, qp, seen, length):
        """H1 to H6, U1, U2, U4, U7."""
        opcode = seen.ulp & 15

        def need(ok, reason):
            if not ok:
                raise StreamError(reason)
        need(not seen.runt, Reason.FPDU_LENGTH)
        need(not seen.bad_version, Reason.DDP_VERSION_TAGGED if seen.tagged else Reason.DDP_VERSION_UNTAGGED)
        need(seen.ulp >> 6 == 1, Reason.RDMAP_VERSION)
        need(opcode <= 7, Reason.OPCODE)
        need(seen.tagged == (opcode in (WRITE, READ_RESPONSE)), Reason.TAGGED_FLAG)
        if opcode in SENDS and qp.send_op is not None:
            need(opcode == qp.send_op, Reason.MESSAGE_MIX)
        if seen.tagged and qp.write_stag is not None:
            need(opcode == WRITE and (not seen.payload or seen.stag == qp.write_stag), Reason.MESSAGE_MIX)
        if not seen.tagged:
            need(seen.qn == {READ_REQUEST: 1, TERMINATE_OP: 2}.get(opcode, 0), Reason.QN)
            need(not seen.bad_msn, Reason.MSN)
            need(not seen.bad_mo, Reason.MO)
        if opcode == READ_REQUEST:
            need(length <= 46, Reason.TOO_LONG)
            need(length == 46 and seen.last, Reason.MALFORMED)
        if opcode == TERMINATE_OP:
            need(length >= 22 and seen.last, Reason.MALFORMED)

    def _write(self, qp, seen, payload):
        if payload:
            why = refusal(self.regions, seen.stag, qp.pd, seen.to, len(payload), Access.REMOTE_WRITE)
            if why not in ("STAG", "PD") and not qp.flags & QpFlags.REMOTE_WRITE:
                why = "ACCESS"
            if why:
                raise StreamError({"STAG": Reason.STAG, "PD": Reason.STAG_PD, "ACCESS": Reason.STAG_ACCESS,
                                   "WRAP": Reason.TO_WRAP, "BOUNDS": Reason.BOUNDS, "PAGE": Reason.PAGE}[why])
            self._place(seen.stag, seen.to, payload)
        if seen.last:
            qp.write_stag = None
        elif payload:
            qp.write_stag = seen.stag
        self._count("rx_writes")

    def _send(self, qp, seen, payload):
        opcode = seen.ulp & 15
        if qp.send_op is None:
            if not qp.posted:
                raise StreamError(Reason.NO_BUFFER)
            qp.wqe = qp.posted.pop(0)
            if qp.wqe.failed:
                raise StreamError(Reason.RQ_FETCH)
        wqe = qp.wqe
        if wqe.used + len(payload) > sum(length for _, length, _ in wqe.sges):
            raise StreamError(Reason.TOO_LONG, WcStatus.LOC_LEN_ERR, wqe)
        rest, skip = payload, wqe.used
        for address, length, lkey in wqe.sges:
            piece, rest_after = rest[:max(0, length - skip)], rest[max(0, length - skip):]
            if piece:
                # Found refused only when the SGEs before it have been filled.
                if refusal(self.regions, lkey, qp.pd, address + skip, len(piece), Access.LOCAL_WRITE):
                    raise StreamError(Reason.LOCAL_SGE, WcStatus.LOC_PROT_ERR, wqe)
                self._place(lkey, address + skip, piece)
            rest, skip = rest_after, max(0, skip - length)
        wqe.used += len(payload)
        qp.send_op = opcode
        self._count("rx_sends")
        if not seen.last:
            return
        qp.send_op = None
        invalidated = None
        if opcode in (SEND_INVALIDATE, SEND_SE_INVALIDATE):
            why = refuse_invalidate(self.regions, seen.stag, qp.pd)
            if why:
                raise StreamError({"STAG": Reason.INVALIDATE_STAG, "PD": Reason.INVALIDATE_PD,
                                   "ACCESS": Reason.INVALIDATE_ACCESS}[why], WcStatus.REM_INV_REQ_ERR, wqe)
            invalidated = seen.stag
        self._cqe(qp, qp.recv_cq, WcStatus.SUCCESS, wqe.index, wqe.used,
                  solicited=opcode in (SEND_SE, SEND_SE_INVALIDATE), invalidated=invalidated)

    def _response(self, qp, seen, payload):
        if not qp.reads:
            raise StreamError(Reason.RESPONSE_UNEXPECTED)
        stag, to, length, wr_id, octets = read = qp.reads[0]
        if payload and seen.stag != stag:
            raise StreamError(Reason.RESPONSE_STAG)
        if payload and seen.to != (to + octets) % 2**64:
            raise StreamError(Reason.RESPONSE_TO)
        if octets + len(payload) > length or (seen.last and octets + len(payload) != length):
            raise StreamError(Reason.RESPONSE_LENGTH)
        if payload:
            if refusal(self.regions, stag, qp.pd, seen.to, len(payload), Access.LOCAL_WRITE):
                raise StreamError(Reason.RESPONSE_SINK)
            self._place(stag, seen.to, payload)
        read[4] += len(payload)
        self._count("rx_responses")
        if seen.last:
            qp.reads.pop(0)
            self._cqe(qp, qp.send_cq, WcStatus.SUCCESS, wr_id, read[4], opcode=WcOpcode.RDMA_READ)
