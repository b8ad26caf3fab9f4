"""What the receive path asks of the queues in host memory."""

from amaranth.lib import data

from .. import abi

__all__ = ["GateRequest", "GateReply", "TakeRequest", "TakeReply", "SgeRequest", "Sge"]


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
