"""What a QP does with each ULPDU that it receives: checks in the RFCs' order, placement, completions, answers.

Ref: RFC 5041 7.1, RFC 5040 5 and 7, RFC 7306; the order is protocol stages H, U, T, R, Q, I.
"""

import struct
from collections import deque

from .. import ddp
from .errors import StreamError, decode
from .requester import Answer
from .verbs import Access, Completion, Opcode, RecvWr, Status

__all__ = ["Responder", "fetch_add", "cmp_swap"]

_IMMEDIATES = (ddp.IMMEDIATE, ddp.IMMEDIATE_SE)
_ON_QN0 = (*ddp.SENDS, *_IMMEDIATES)
_TAGGED = (ddp.WRITE, ddp.READ_RESPONSE)
_LENGTHS = {ddp.READ_REQUEST: 28, ddp.ATOMIC_REQUEST: 52, ddp.ATOMIC_RESPONSE: 12, ddp.IMMEDIATE: 8, ddp.IMMEDIATE_SE: 8}


def fetch_add(value, addend, mask):
    """RFC 7306 5.1.1: a set bit of ``mask`` is the top one of a field, which carries do not leave."""
    total, carry = 0, 0
    for n in range(64):
        bit = (value >> n & 1) + (addend >> n & 1) + carry
        total |= (bit & 1) << n
        carry = 0 if mask >> n & 1 else bit >> 1
    return total


def cmp_swap(value, compare, compare_mask, swap, swap_mask):
    """RFC 7306 5.1.2."""
    return value & ~swap_mask | swap & swap_mask if not (value ^ compare) & compare_mask else value


class Responder:
    """Receive queue and the state of the messages that are open."""

    def __init__(self, qp):
        self.qp = qp
        self.rq: deque[RecvWr] = deque()
        self.msn = {0: 1, 1: 1, 2: 1, 3: 1}
        self.wr = None               # of the open Send
        self.send_op = None
        self.tagged = None           # (opcode, STag) of the open tagged message

    def ulpdu(self, ulpdu):
        """Take one whole ULPDU, or raise :class:`StreamError`."""
        control, rdmap = ulpdu[0], ulpdu[1]
        is_tagged, last, opcode = bool(control & 0x80), bool(control & 0x40), rdmap & 15

        def need(ok, name):
            if not ok:
                raise StreamError(name)
        need(len(ulpdu) >= (14 if is_tagged else 18), "fpdu_length")
        need(control & 3 == 1, "ddp_version_tagged" if is_tagged else "ddp_version_untagged")
        need(rdmap >> 6 == 1, "rdmap_version")
        need(opcode <= (ddp.ATOMIC_RESPONSE if self.qp.settings.extensions else ddp.TERMINATE), "opcode")
        need(is_tagged == (opcode in _TAGGED), "tagged_flag")
        if is_tagged:
            stag, to = struct.unpack(">IQ", ulpdu[2:14])
            need(self.tagged in (None, (opcode, stag)), "message_mix")
            payload = ulpdu[14:]
            self.tagged = None if last else (opcode, stag)
            (self._write if opcode == ddp.WRITE else self._read_response)(stag, to, payload, last)
            return
        stag, qn, msn, mo = struct.unpack(">IIII", ulpdu[2:18])
        payload = ulpdu[18:]
        if qn == 0 and self.send_op is not None and opcode in _ON_QN0:
            need(opcode == self.send_op[0] and stag == self.send_op[1], "message_mix")
        need(qn <= (3 if self.qp.settings.extensions else 2), "qn")
        need(qn == (0 if opcode in _ON_QN0 else {ddp.READ_REQUEST: 1, ddp.ATOMIC_REQUEST: 1, ddp.TERMINATE: 2}.get(opcode, 3)),
             "qn")
        need(msn == self.msn[qn], "msn")
        if qn == 0 and self.wr is None:
            need(bool(self.rq), "no_buffer")
            self.wr = self.rq.popleft()
        need(mo == (self.wr.used if qn == 0 else 0), "mo")
        if opcode in _LENGTHS:
            need(len(payload) <= _LENGTHS[opcode], "too_long")
            need(len(payload) == _LENGTHS[opcode] and last, "malformed")
        if last:
            self.msn[qn] = (msn + 1) % 2**32
        if opcode in ddp.SENDS:
            self._send(opcode, stag, payload, last)
        elif opcode in _IMMEDIATES:
            self._complete(Opcode.RECV, immediate=payload, solicited=opcode == ddp.IMMEDIATE_SE)
        elif opcode == ddp.READ_REQUEST:
            self._read_request(ulpdu, payload)
        elif opcode == ddp.ATOMIC_REQUEST:
            self._atomic_request(ulpdu, payload)
        elif opcode == ddp.ATOMIC_RESPONSE:
            self._atomic_response(payload)
        else:
            need(len(payload) >= 4 and last, "malformed")
            code, swapped, copied = decode(payload)
            self.qp.terminated(code, swapped, copied)

    # Tagged

    def _write(self, stag, to, payload, last):
        if payload:
            why = self.qp.stags.refuse(stag, self.qp.pd, to, len(payload), Access.REMOTE_WRITE)
            if why:
                raise StreamError(why)
            self.qp.stags.write(stag, to, payload)

    def _read_response(self, stag, to, payload, last):
        orq = self.qp.requester.orq
        if not orq or orq[0].kind != "read":
            raise StreamError("response")
        head = orq[0]
        if payload and stag != head.stag:
            raise StreamError("response_stag")
        if payload and to != (head.to + head.got) % 2**64:
            raise StreamError("response_bounds")
        if head.got + len(payload) > head.length or (last and head.got + len(payload) != head.length):
            raise StreamError("response_bounds")
        if payload:
            if self.qp.stags.refuse(stag, self.qp.pd, to, len(payload), Access.LOCAL_WRITE):
                raise StreamError("response_sink")
            self.qp.stags.write(stag, to, payload)
        head.got += len(payload)
        if last:
            orq.popleft()
            wr = head.entry.wr
            if wr is not None and wr.opcode is Opcode.RDMA_READ_WITH_INV and head.stag in self.qp.stags.regions:
                self.qp.stags.regions[head.stag].valid = False
            head.entry.done = True

    # Untagged

    def _send(self, opcode, stag, payload, last):
        wr = self.wr
        self.send_op = None if last else (opcode, stag)
        if wr.used + len(payload) > wr.length:
            raise StreamError("too_long", Status.LOC_LEN_ERR, wr)
        skip, rest = wr.used, payload
        for sge in wr.sges:
            piece, rest = rest[:max(sge.length - skip, 0)], rest[max(sge.length - skip, 0):]
            if piece:
                if self.qp.stags.refuse(sge.lkey, self.qp.pd, sge.address + skip, len(piece), Access.LOCAL_WRITE):
                    raise StreamError("local", Status.LOC_PROT_ERR, wr)
                self.qp.stags.write(sge.lkey, sge.address + skip, piece)
            skip = max(skip - sge.length, 0)
        wr.used += len(payload)
        if not last:
            return
        invalidated = None
        if opcode in (ddp.SEND_INV, ddp.SEND_SE_INV):
            why = self.qp.stags.refuse_invalidate(stag, self.qp.pd)
            if why:
                raise StreamError("inv_" + why, Status.REM_INV_REQ_ERR, wr)
            invalidated = stag
        self._complete(Opcode.RECV, invalidated=invalidated, solicited=opcode in (ddp.SEND_SE, ddp.SEND_SE_INV))

    def _complete(self, opcode, **more):
        wr, self.wr = self.wr, None
        self.qp.recv_cq.append(Completion(wr.wr_id, opcode, Status.SUCCESS, wr.used, self.qp, **more))

    def _owe(self, answer):
        """An answer, or the end of the stream behind the answers before it."""
        requester = self.qp.requester
        if answer.error is None and requester.owed >= self.qp.ird:
            answer = Answer("error", error=StreamError("no_buffer"))
        if answer.error is None:
            requester.owed += 1
        else:
            answer.error.quoted = answer.error.quoted or self.qp.current
            self.qp.deaf = True              # nothing that follows is looked at
        requester.answers.append(answer)

    def _read_request(self, ulpdu, payload):
        sink_stag, sink_to, length, stag, to = struct.unpack(">IQIIQ", payload)
        why = length and self.qp.stags.refuse(stag, self.qp.pd, to, length, Access.REMOTE_READ)
        error = StreamError("read_" + why) if why else None
        self._owe(Answer("error" if error else "read", ulpdu, (sink_stag, sink_to), (stag, to), length, error=error))

    def _atomic_request(self, ulpdu, payload):
        kind, request_id, stag, to, operand, mask, compare, compare_mask = struct.unpack(">IIIQQQQQ", payload)
        why = self.qp.stags.refuse(stag, self.qp.pd, to, 8, Access.REMOTE_ATOMIC)
        if why or to % 8 or kind & 15 not in (ddp.FETCH_ADD, ddp.CMP_SWAP):
            self._owe(Answer("error", error=StreamError("read_" + why if why else "atomic_alignment")))
            return
        if self.qp.requester.owed < self.qp.ird:     # else nothing is done, and the stream ends
            original = int.from_bytes(self.qp.stags.read(stag, to, 8), "little")
            new = fetch_add(original, operand, mask) if kind & 15 == ddp.FETCH_ADD else \
                cmp_swap(original, compare, compare_mask, operand, mask)
            self.qp.stags.write(stag, to, new.to_bytes(8, "little"))
        else:
            original = 0
        self._owe(Answer("atomic", ulpdu, request_id=request_id, original=original))

    def _atomic_response(self, payload):
        request_id, original = struct.unpack(">IQ", payload)
        orq = self.qp.requester.orq
        if not orq or orq[0].kind != "atomic" or orq[0].request_id != request_id:
            raise StreamError("response")
        head = orq[0]
        if self.qp.stags.refuse(head.stag, self.qp.pd, head.to, 8, Access.LOCAL_WRITE):
            raise StreamError("response_sink")
        self.qp.stags.write(head.stag, head.to, original.to_bytes(8, "little"))
        orq.popleft()
        head.entry.done = True

    def flush(self):
        """The open receive request, then the rest."""
        for wr in ([self.wr] if self.wr else []) + list(self.rq):
            self.qp.recv_cq.append(Completion(wr.wr_id, Opcode.RECV, Status.WR_FLUSH_ERR, 0, self.qp))
        self.wr = None
        self.rq.clear()
