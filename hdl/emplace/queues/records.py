"""What the receive path asks of the queues in host memory."""

from amaranth.lib import data, enum

from .. import abi

__all__ = ["GateRequest", "GateReply", "TakeRequest", "TakeReply", "SgeRequest", "Sge", "SEND_WQE_WORDS", "SendWqeAsk",
           "LineOutcome", "SendWqeAnswer", "LineWord", "SendOrderOp", "SendQueueOrder"]


class GateRequest(data.StructLayout):
    """May a Send's first segment of QP ``qp`` go on?"""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits})


class GateReply(data.StructLayout):
    """``go``: yes. ``claimed``: a WQE was set aside for it (``go`` without it: the RQ is empty).

    Not ``go``: a WQE is posted but not on the card yet; ``resume`` tells when.
    """

    def __init__(self):
        super().__init__({"go": 1, "claimed": 1})


class TakeRequest(data.StructLayout):
    """From RDMAP: ``take`` the next receive WQE of ``qp`` (one that was ``claimed``, or not), or give
    a claim that was not needed back (``take`` 0), or say that the WQE is done with (``retire``)."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "take": 1, "claimed": 1, "retire": 1})


class TakeReply(data.StructLayout):
    """Answer to a request with ``take``.

    Members
    -------
    ok : ``unsigned(1)``
        0: the receive queue is empty (or its WQE could not be read: ``failed``).
    failed : ``unsigned(1)``
    entry : ``unsigned(rq_prefetch_bits)``
        Where the WQE lies on the card, for SgeRequest.
    wqe_index : ``unsigned(16)``
        For the CQE.
    total : ``unsigned(34)``
        Sum of its SGEs' lengths, octets.
    """

    def __init__(self, config):
        super().__init__({"ok": 1, "failed": 1, "entry": config.rq_prefetch_bits, "wqe_index": 16, "total": 34})


class SgeRequest(data.StructLayout):
    """Read scatter/gather element ``index`` of the WQE ``entry`` of ``qp``."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "entry": config.rq_prefetch_bits, "index": 2})


#: Answer to it.
Sge = abi.Sge


# The send queues' WQEs

#: Words of 8 bytes of an entry of a send queue.
SEND_WQE_WORDS = abi.nbytes(abi.SendWqe) // 8


class SendWqeAsk(data.StructLayout):
    """Is entry ``index`` (low 16 bits of its running index) of ``qp``'s send queue on the card?"""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "index": 16})


class LineOutcome(enum.Enum, shape=2):
    """Answer to a SendWqeAsk."""

    HERE = 0       # it lies in `line`, which is pinned until somebody says that he is done with it
    EMPTY = 1      # it has not been posted
    LATER = 2      # not now: `ready` will name the QP
    FAILED = 3     # it could not be read from host memory


class SendWqeAnswer(data.StructLayout):
    """``line``: where the entry lies; its place in the line is the low bits of its index. ``pair``: the next one is there,
    too. ``posted``: of the QP."""

    def __init__(self, config):
        super().__init__({"outcome": LineOutcome, "line": config.send_line_bits, "pair": 1, "posted": 16})


class LineWord(data.StructLayout):
    """Word ``word`` of ``line``."""

    def __init__(self, config):
        super().__init__({"line": config.send_line_bits, "word": config.send_group_bits + 3})


class SendOrderOp(enum.Enum, shape=1):
    """What becomes of a send queue."""

    INSTALL = 0
    REMOVE = 1


class SendQueueOrder(data.StructLayout):
    """A send queue begins (its settings stand on ``cmd``), or is no more."""

    def __init__(self, config):
        super().__init__({"op": SendOrderOp, "qp": config.qp_bits})
