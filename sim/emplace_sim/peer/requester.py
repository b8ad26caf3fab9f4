"""What a QP sends: its own work requests and the answers that it owes, as ULPDUs in the order of the stream.

Ref: RFC 5041 5 (segmentation), RFC 5040 5 and 6 (operations), RFC 7306 (atomics, Immediate Data).
"""

import struct
from collections import deque
from dataclasses import dataclass

from .. import ddp
from .errors import StreamError
from .verbs import Access, Completion, Opcode, SendWr, Status

__all__ = ["Requester", "Outstanding", "Answer"]

_READS = {Opcode.RDMA_READ, Opcode.RDMA_READ_WITH_INV}
_ATOMICS = {Opcode.ATOMIC_FETCH_AND_ADD: ddp.FETCH_ADD, Opcode.ATOMIC_CMP_AND_SWP: ddp.CMP_SWAP}
#: Read Responses and atomics between two requests of our own, when both wait.
_TURNS = 1


@dataclass(eq=False)
class _Entry:
    """A work request under way. ``end``: stream position behind its last octet; ``done``: its answer is there."""

    wr: SendWr | None
    end: int | None = None
    done: bool = False


@dataclass(eq=False)
class Outstanding:
    """An entry of the outstanding-read queue (ORQ)."""

    entry: _Entry
    kind: str                    # "read", "atomic"
    stag: int = 0                # sink
    to: int = 0
    length: int = 0
    got: int = 0
    request_id: int = 0


@dataclass
class Answer:
    """Owed to the peer. ``error`` ends the stream when its turn comes, behind the good answers."""

    kind: str                    # "read", "atomic", "error"
    request: bytes = b""         # ULPDU
    sink: tuple[int, int] = (0, 0)
    source: tuple[int, int] = (0, 0)
    length: int = 0
    request_id: int = 0
    original: int = 0
    error: StreamError | None = None


class Requester:
    """Send queue, outstanding reads, owed answers. ``room(header)`` is the payload that fits into an FPDU."""

    def __init__(self, qp):
        self.qp = qp
        self.sq: deque[_Entry] = deque()
        self.inflight: deque[_Entry] = deque()
        self.orq: deque[Outstanding] = deque()
        self.answers: deque[Answer] = deque()
        self.owed = 0                        # answers that count against IRD
        self.msn = {0: 1, 1: 1, 3: 1}
        self.request_id = 0
        self.active, self.turn = None, 0

    # What may go

    def post(self, wr: SendWr):
        if wr.opcode in _READS and len(wr.sges) != 1:
            raise ValueError("a Read has one sink")
        if (wr.opcode in _READS or wr.opcode in _ATOMICS) and not self.qp.ord:
            raise ValueError("ORD is 0: no Reads, no atomics")
        if wr.opcode in _ATOMICS and (wr.length != 8 or len(wr.sges) != 1):
            raise ValueError("an atomic's result takes one element of 8 octets")
        self.sq.append(_Entry(wr))

    def expect_read(self, sink, wr_id=0):
        """As if a Read Request for ``sink`` (an Sge) had been sent."""
        entry = _Entry(SendWr(Opcode.RDMA_READ, [sink], wr_id))
        self.inflight.append(entry)
        self.orq.append(Outstanding(entry, "read", sink.lkey, sink.address, sink.length))

    def _may_begin(self):
        if not self.sq or not (self.qp.gate_open or self.qp.faults.ignore_gate):
            return False
        wr = self.sq[0].wr
        if wr is None:
            return True
        if (wr.fence and self.orq) or (wr.local_fence and self.inflight):
            return False
        return not (wr.opcode in _READS or wr.opcode in _ATOMICS) or len(self.orq) < self.qp.ord + self.qp.faults.extra_reads

    def next_ulpdu(self):
        """(ULPDU, entry that ends with it or None), or None if there is nothing that may go now. StreamError as for
        received ones: the local ones have their entry failed already."""
        while True:
            if self.active is None:
                begin = self._may_begin()
                if self.answers and (not begin or self.turn < _TURNS):
                    self.turn += 1
                    self.active = self._answer(self.answers.popleft())
                elif begin:
                    self.turn = 0
                    self.active = self._request(self.sq.popleft())
                else:
                    return None
            made = next(self.active, None)
            if made is not None:
                return made
            self.active = None

    def _pieces(self, length, header):
        """(at, octets, last) of the segments of a message."""
        limit, at = self.qp.mulpdu - header, 0
        while True:
            size = min(limit, length - at)
            yield at, size, at + size == length
            at += size
            if at == length:
                return

    # Own requests

    def _gather(self, entry, at, size):
        """Octets at..at+size of what the request's elements list; checked like remote accesses."""
        wr, found = entry.wr, b""
        if wr.inline is not None:
            return wr.inline[at:at + size]
        for sge in wr.sges:
            piece = min(max(sge.length - at, 0), size)
            if piece:
                self._check(entry, sge.lkey, sge.address + at, piece, Access(0))
                found += self.qp.stags.read(sge.lkey, sge.address + at, piece)
            at, size = max(at - sge.length, 0), size - piece
        return found

    def _check(self, entry, stag, address, length, right):
        if length and self.qp.stags.refuse(stag, self.qp.pd, address, length, right):
            self.complete(entry, Status.LOC_PROT_ERR)
            if entry in self.inflight:
                self.inflight.remove(entry)
            raise StreamError("local_catastrophic")

    def _next_msn(self, qn):
        if qn == 0 and self.qp.faults.msn_skip:
            self.msn[0] += self.qp.faults.msn_skip
            self.qp.faults.msn_skip = 0
        self.msn[qn] = (self.msn[qn] + 1) % 2**32
        return (self.msn[qn] - 1) % 2**32

    def _request(self, entry):
        wr = entry.wr
        self.inflight.append(entry)
        if wr is None:                       # ready-to-receive of MPA's peer-to-peer mode
            if self.qp.rtr == "read":
                self.orq.append(Outstanding(entry, "read"))
                yield ddp.read_request(self._next_msn(1), 1, 0, 0, 1, 0), None
            else:
                yield ddp.write(1, 0, b""), entry
        elif wr.opcode in (Opcode.RDMA_WRITE, Opcode.RDMA_WRITE_WITH_IMM):
            more = wr.opcode is Opcode.RDMA_WRITE_WITH_IMM
            for at, size, last in self._pieces(wr.length, ddp.TAGGED_HEADER):
                yield (ddp.write(wr.rkey, wr.remote_addr + at, self._gather(entry, at, size), last=last),
                       entry if last and not more else None)
            if more:
                yield ddp.immediate(self._next_msn(0), wr.immediate, solicited=wr.solicited), entry
        elif wr.opcode is Opcode.IMMEDIATE:
            yield ddp.immediate(self._next_msn(0), wr.immediate, solicited=wr.solicited), entry
        elif wr.opcode in (Opcode.SEND, Opcode.SEND_WITH_INV):
            msn = self._next_msn(0)
            key = wr.invalidate_rkey if wr.opcode is Opcode.SEND_WITH_INV else None
            for at, size, last in self._pieces(wr.length, ddp.UNTAGGED_HEADER):
                yield (ddp.send(msn, self._gather(entry, at, size), mo=at, last=last, solicited=wr.solicited, invalidate=key),
                       entry if last else None)
        elif wr.opcode in _READS:
            sink = wr.sges[0]
            self._check(entry, sink.lkey, sink.address, sink.length, Access.LOCAL_WRITE)
            self.orq.append(Outstanding(entry, "read", sink.lkey, sink.address, sink.length))
            for _ in range(1 + self.qp.faults.spend("repeat_reads")):
                yield ddp.read_request(self._next_msn(1), sink.lkey, sink.address, sink.length, wr.rkey, wr.remote_addr), None
        elif wr.opcode in _ATOMICS:
            sink, self.request_id = wr.sges[0], (self.request_id + 1) % 2**32
            self._check(entry, sink.lkey, sink.address, 8, Access.LOCAL_WRITE)
            self.orq.append(Outstanding(entry, "atomic", sink.lkey, sink.address, 8, request_id=self.request_id))
            swap = wr.opcode is Opcode.ATOMIC_CMP_AND_SWP
            mask = (2**64 - 1 if swap else 0) if wr.swap_mask is None else wr.swap_mask
            yield ddp.atomic_request(self._next_msn(1), self.request_id, _ATOMICS[wr.opcode], wr.rkey, wr.remote_addr,
                                     wr.swap if swap else wr.compare_add, mask, wr.compare_add if swap else 0,
                                     wr.compare_mask if swap else 0), None
        elif wr.opcode is Opcode.LOCAL_INV:
            if self.qp.stags.refuse(wr.invalidate_rkey, self.qp.pd, 0, 0, Access(0)) in ("stag", "pd"):
                self.complete(entry, Status.LOC_QP_OP_ERR)
                self.inflight.remove(entry)
                raise StreamError("local_catastrophic")
            self.qp.stags.regions[wr.invalidate_rkey].valid = False
            entry.done = True
        else:
            raise ValueError(f"{wr.opcode} is no send request")

    # Answers

    def _answer(self, answer):
        if answer.kind == "error":
            raise answer.error
        if answer.kind == "atomic":
            self.owed -= 1
            yield ddp.atomic_response(self._next_msn(3), answer.request_id, answer.original), None
            return
        stag, to = answer.sink
        shift = 4 if self.qp.faults.spend("wrong_response_to") else 0
        for at, size, last in self._pieces(answer.length, ddp.TAGGED_HEADER):
            octets = b""
            if size:
                key, source = answer.source
                why = self.qp.stags.refuse(key, self.qp.pd, source + at, size, Access.REMOTE_READ)
                if why:                      # it has been taken away meanwhile
                    body = struct.pack(">IQIIQ", stag, to + at, answer.length - at, key, source + at)
                    raise StreamError("read_" + why, quoted=answer.request[:ddp.UNTAGGED_HEADER] + body)
                octets = self.qp.stags.read(key, source + at, size)
            self.owed -= last
            yield ddp.read_response(stag, to + at + shift, octets, last=last), None

    # Completions

    def complete(self, entry, status):
        wr = entry.wr
        if wr is not None and (wr.signaled or status is not Status.SUCCESS):
            self.qp.cq.append(Completion(wr.wr_id, wr.opcode, status, wr.length if status is Status.SUCCESS else 0, self.qp))

    def retire(self):
        """Completions in the order of the send queue: of what is acknowledged, or answered. True if there were any."""
        una, before = self.qp.tcp.tx.una, len(self.inflight)
        while self.inflight:
            entry = self.inflight[0]
            if not (entry.done or (entry.end is not None and una >= entry.end)):
                break
            self.inflight.popleft()
            self.complete(entry, Status.SUCCESS)
        return len(self.inflight) < before

    def flush(self, first=Status.WR_FLUSH_ERR):
        """Outstanding reads, then the others under way, then what has not begun; the oldest gets status ``first``."""
        reads = [one.entry for one in self.orq]
        others = [entry for entry in (*self.inflight, *self.sq) if entry not in reads]
        for entry in (*(e for e in reads if e in self.inflight), *others):
            self.complete(entry, first)
            first = Status.WR_FLUSH_ERR
        for queue in (self.orq, self.inflight, self.sq, self.answers):
            queue.clear()
        self.active = None
