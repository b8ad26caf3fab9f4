"""Control records that every layer may see: the fence token, and the command it stands for.

While a token is under way the command that caused it stands on ``cmd`` (one static record,
:data:`~emplace.abi.COMMANDS`), so that a token is just {op, qp}.
"""


from amaranth.lib import data
from amaranth.lib import enum as aenum

from .. import abi

__all__ = ["TokenOp", "Token", "RecordKind", "InstallCommand", "UploadPart", "QpIndex", "HistoryNote"]


class TokenOp(aenum.Enum, shape=3):
    """What the token asks each owner of state to do as it passes."""

    FENCE = 0      # nothing: comes out when all before it has left
    INSTALL = 1    # load this QP's state from ``cmd``
    KILL = 2       # the stream has failed: give back its slots, keep the rest for UPLOAD
    REMOVE = 3     # forget the QP
    FLUSH = 4      # complete every posted receive WQE with WR_FLUSH_ERR
    UPLOAD = 5     # put this owner's part of ``abi.Upload`` on its ``upload`` port


class RecordKind(aenum.Enum, shape=1):
    """A stream's record is about data, or is a token on its way."""

    DATA = 0
    TOKEN = 1


class Token(data.StructLayout):
    """Fence token (design D9).

    Members
    -------
    op : ``TokenOp``
    qp : ``unsigned(qp_bits)``
        Slot of the QP that it is about.
    """

    def __init__(self, config):
        super().__init__({"op": TokenOp, "qp": config.qp_bits})


class QpIndex(data.StructLayout):
    """``qp``: the slot of a QP."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits})


class HistoryNote(data.StructLayout):
    """One entry for a QP's history (``abi.History``), which adds the time.

    Goes with a strobe and never waits: whoever keeps histories takes one every cycle.

    Members
    -------
    qp : ``unsigned(qp_bits)``
    kind : ``unsigned(8)``
        abi.HistoryKind.
    detail : ``unsigned(16)``
        DROPPED: index of its counter in abi.COUNTERS; FAILED: abi.Reason; STATE: abi.QpState; IN_ORDER, HELD, FIN:
        octets of payload; ACK_SENT: number of SACK blocks. Else 0.
    flags : ``unsigned(8)``
        TCP's, as on the wire: CWR ECE URG ACK PSH RST SYN FIN from bit 7 down. 0 where there is no segment.
    seq, ack : ``unsigned(32)``
        SEG.SEQ and SEG.ACK of the segment noted.
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "kind": 8, "detail": 16, "flags": 8, "seq": 32, "ack": 32})


#: The command that is being carried out, INSTALL_QP's fields.
InstallCommand = abi.COMMANDS[abi.Opcode.INSTALL_QP]

#: The whole of abi.Upload; each owner drives its own fields and leaves the rest 0, so that they can be ORed.
UploadPart = abi.Upload
