"""DDP segments with their RDMAP headers, on bytes: what goes into an FPDU.

Ref: RFC 5041 section 4 (DDP headers), RFC 5040 section 4 (RDMAP headers), RFC 7306 sections 5 and 6 (atomics, immediate).
"""

import struct

__all__ = ["WRITE", "READ_REQUEST", "READ_RESPONSE", "SEND", "SEND_INV", "SEND_SE", "SEND_SE_INV", "TERMINATE", "IMMEDIATE",
           "IMMEDIATE_SE", "ATOMIC_REQUEST", "ATOMIC_RESPONSE", "SENDS", "FETCH_ADD", "CMP_SWAP", "TAGGED_HEADER",
           "UNTAGGED_HEADER", "with_length", "tagged", "untagged", "write", "read_response", "send", "read_request",
           "terminate", "immediate", "atomic_request", "atomic_response"]

(WRITE, READ_REQUEST, READ_RESPONSE, SEND, SEND_INV, SEND_SE, SEND_SE_INV, TERMINATE, IMMEDIATE, IMMEDIATE_SE,
 ATOMIC_REQUEST, ATOMIC_RESPONSE) = range(12)
SENDS = (SEND, SEND_INV, SEND_SE, SEND_SE_INV)
FETCH_ADD, CMP_SWAP = 0, 2               # AOpCode
TAGGED_HEADER, UNTAGGED_HEADER = 14, 18  # octets

_QN = {READ_REQUEST: 1, ATOMIC_REQUEST: 1, TERMINATE: 2, ATOMIC_RESPONSE: 3}


def with_length(ulpdu):
    """``ulpdu`` behind its ULPDU_Length: an FPDU up to its padding."""
    return len(ulpdu).to_bytes(2, "big") + ulpdu


def tagged(opcode, stag, to, payload=b"", *, last=True, dv=1, rv=1, t=True, reserved=(0, 0)):
    """A tagged ULPDU. ``dv``, ``rv``, ``t``: what a broken peer may say; ``reserved``: bits of both control octets."""
    return struct.pack(">BBIQ", t << 7 | last << 6 | dv | reserved[0], rv << 6 | opcode | reserved[1], stag,
                       to % 2**64) + payload


def untagged(opcode, msn, payload=b"", *, qn=None, mo=0, last=True, stag=0, dv=1, rv=1, t=False, reserved=(0, 0)):
    """An untagged ULPDU, on the opcode's own queue. ``stag``: the one to invalidate."""
    return struct.pack(">BBIIII", t << 7 | last << 6 | dv | reserved[0], rv << 6 | opcode | reserved[1], stag,
                       _QN.get(opcode, 0) if qn is None else qn, msn % 2**32, mo % 2**32) + payload


def write(stag, to, payload, *, last=True):
    return tagged(WRITE, stag, to, payload, last=last)


def read_response(stag, to, payload, *, last=True):
    return tagged(READ_RESPONSE, stag, to, payload, last=last)


def send(msn, payload, *, mo=0, last=True, solicited=False, invalidate=None):
    opcode = SEND + 2 * solicited + (invalidate is not None)
    return untagged(opcode, msn, payload, mo=mo, last=last, stag=invalidate or 0)


def read_request(msn, sink_stag, sink_to, size, source_stag, source_to):
    """RFC 5040 4.4."""
    return untagged(READ_REQUEST, msn, struct.pack(">IQIIQ", sink_stag, sink_to, size, source_stag, source_to))


def terminate(code, *, flags=0, copied=b""):
    """RFC 5040 4.8. ``code``: layer, error type, error code in 16 bits; ``flags``: M, D, R in the top bits of an octet."""
    return untagged(TERMINATE, 1, struct.pack(">HBB", code, flags, 0) + copied)


def immediate(msn, octets, *, solicited=False):
    """RFC 7306 6: 8 octets on the Sends' queue."""
    return untagged(IMMEDIATE + solicited, msn, octets)


def atomic_request(msn, request_id, kind, stag, to, operand, mask, compare=0, compare_mask=0):
    """RFC 7306 5.1. ``operand``: what to add or to swap in; FetchAdd's ``mask`` has the top bits of its fields."""
    return untagged(ATOMIC_REQUEST, msn, struct.pack(">IIIQQQQQ", kind, request_id, stag, to, operand, mask, compare,
                                                     compare_mask))


def atomic_response(msn, request_id, original):
    """RFC 7306 5.2."""
    return untagged(ATOMIC_RESPONSE, msn, struct.pack(">IQ", request_id, original))
