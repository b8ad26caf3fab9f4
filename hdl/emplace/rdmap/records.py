"""What RDMAP's parts tell each other, and its words with control."""

from amaranth.lib import data, enum

from ..control.records import RecordKind, Token
from ..llp import HEADER_BYTES

__all__ = ["RdmapOpcode", "Died", "ExpectRead", "ExpectResult", "CheckedSegment", "ReadQueueOp", "ReadQueueRequest",
           "ReadQueueReply", "ScatterOp", "ScatterRequest", "ScatterStep", "GatherJob",
           "MessageKind", "LogEntry"]


class RdmapOpcode(enum.IntEnum, shape=4):
    """RFC 5040 4.1. Those above TERMINATE aren't built."""

    WRITE = 0
    READ_REQUEST = 1
    READ_RESPONSE = 2
    SEND = 3
    SEND_INVALIDATE = 4
    SEND_SE = 5
    SEND_SE_INVALIDATE = 6
    TERMINATE = 7


def Died(config):
    """A stream has ended: ``qp``, and its ``reason`` (abi.Reason)."""
    return data.StructLayout({"qp": config.qp_bits, "reason": 8})


class ExpectRead(data.StructLayout):
    """The host has sent a Read Request of ``length`` octets into ``stag`` at ``to``: EXPECT_READ's fields."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "stag": 32, "to": 64, "length": 32, "wr_id": 16})


#: abi.Status of an ExpectRead: OK or QUEUE_FULL.
ExpectResult = data.StructLayout({"status": 8})


class CheckedSegment(data.StructLayout):
    """Header check to execution: a segment whose header is judged, with its QP's settings; or a token.

    Members
    -------
    kind : ``RecordKind``
    token : ``Token``
    qp : ``unsigned(qp_bits)``
        Of a token, the QP that it is about.
    packet : ``unsigned(1)``
        A packet belongs to it.
    claimed : ``unsigned(1)``
        A receive WQE is set aside for it.
    reason : ``unsigned(8)``
        abi.Reason of the first check that failed, NONE if all held.
    asks : ``unsigned(1)``
        A Write with something to place: it needs a grant, and nothing else.
    opcode : ``RdmapOpcode``
    last, first : ``unsigned(1)``
        L; first segment of a Send message.
    stag, to, mo : 32, 64, 32 bits
        As in DdpSegment.
    payload, skip : 16, 6 bits
        As in DdpSegment.
    qpn, pd, remote_write, recv_cq, send_cq
        The QP's, as installed.
    header : ``unsigned(384)``
    """

    def __init__(self, config):
        super().__init__({
            "kind": RecordKind, "token": Token(config), "qp": config.qp_bits, "packet": 1, "claimed": 1, "reason": 8,
            "asks": 1, "opcode": RdmapOpcode, "last": 1, "first": 1, "stag": 32, "to": 64, "mo": 32, "payload": 16,
            "skip": 6, "qpn": 24, "pd": 16, "remote_write": 1, "recv_cq": config.cq_bits, "send_cq": config.cq_bits,
            "header": 8 * HEADER_BYTES,
        })


class ReadQueueOp(enum.Enum, shape=2):
    """Of the outstanding-read queue."""

    CHECK = 0      # judge a Read Response segment against the head (R1..R3): one reply
    COMMIT = 1     # that segment is placed: count it, and pop the head if it was its last. No reply
    CLEAR = 2      # forget all reads of this QP. No reply


class ReadQueueRequest(data.StructLayout):
    """``stag``, ``to``, ``payload``, ``last``: of the Read Response segment. (CHECK; COMMIT: the last two)"""

    def __init__(self, config):
        super().__init__({"op": ReadQueueOp, "qp": config.qp_bits, "stag": 32, "to": 64, "payload": 16, "last": 1})


#: ``reason``: abi.Reason; ``octets``: of the response, this segment included; ``wr_id``: the head's.
ReadQueueReply = data.StructLayout({"reason": 8, "octets": 32, "wr_id": 16})


class ScatterOp(enum.Enum, shape=2):
    """Of the receive WQE's scatterer."""

    SEGMENT = 0    # cut a Send segment into pieces: a step or more follow
    RETURN = 1     # give a claim back. No step
    RETIRE = 2     # the QP's current receive WQE has its CQE. No step


class ScatterRequest(data.StructLayout):
    """SEGMENT: ``first`` of its message (takes a WQE, ``claimed`` or not), ``mo``, ``payload`` octets."""

    def __init__(self, config):
        super().__init__({"op": ScatterOp, "qp": config.qp_bits, "first": 1, "claimed": 1, "mo": 32, "payload": 16})


#: A piece of the segment, or (``end``) the end of an empty one, or of one that has failed.
#:
#: Piece: ``length`` octets go to ``address`` of ``lkey``; ``final``: none remain. It is taken once it has been granted.
#: End: ``reason`` (NONE, NO_BUFFER, RQ_FETCH, TOO_LONG, LOCAL_SGE).
#: Both: ``wqe_index``, and ``octets`` of the message, this segment included.
ScatterStep = data.StructLayout({
    "end": 1, "reason": 8, "wqe_index": 16, "octets": 32, "lkey": 32, "address": 64, "length": 16, "final": 1,
})


class GatherJob(data.StructLayout):
    """Octets of a message that go into one ULPDU.

    Members
    -------
    qp : ``unsigned(qp_bits)``, pd : ``unsigned(16)``
    line : ``unsigned(send_line_bits)``
        Where the send WQE lies, pinned until the job is done; unless ``remote``.
    place : ``unsigned(send_group_bits)``
        Its entry in the line.
    elements : ``unsigned(3)``
        SGEs that it has.
    inline : ``unsigned(1)``
        The WQE has the data itself.
    remote : ``unsigned(1)``
        The source is ``stag`` from ``to`` on, which the peer reads.
    again : ``unsigned(1)``
        It was sent before: a refusal is another reason.
    offset : ``unsigned(32)``
        First octet of the message (``remote``: counted in ``to`` already).
    octets : ``unsigned(16)``
        At least 1. ``inline``: the whole message.
    stag, to : 32, 64 bits
    """

    def __init__(self, config):
        super().__init__({
            "qp": config.qp_bits, "pd": 16, "line": config.send_line_bits, "place": config.send_group_bits, "elements": 3,
            "inline": 1, "remote": 1, "again": 1, "offset": 32, "octets": 16, "stag": 32, "to": 64,
        })


class MessageKind(enum.Enum, shape=3):
    """What a log entry is about."""

    WRITE = 0
    SEND = 1


class LogEntry(data.StructLayout):
    """A message that has been sent in part or whole, and is not acknowledged.

    Where it ends, its length and its headers aren't here: the next entry's ``start`` tells, and the WQE, which stays in
    host memory until the message completes. All FPDUs of a message but the last have the size of the connection's
    segments, so that any of their boundaries follows from ``start``.

    Members
    -------
    start : ``unsigned(32)``
        Position of its first octet.
    index : ``unsigned(16)``
        Of its WQE.
    kind : ``MessageKind``
    signaled : ``unsigned(1)``
    """

    def __init__(self):
        super().__init__({"start": 32, "index": 16, "kind": MessageKind, "signaled": 1})
