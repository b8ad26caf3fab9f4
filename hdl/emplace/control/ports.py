"""What the parts of control tell each other."""

from amaranth.lib import data, enum

from ..ip.records import LookupKey

__all__ = ["RingConfig", "QpEntry", "HoldKind", "HoldOrder", "HoldAnswer"]

#: The admin queue's rings, from the registers: bases in units of 4 KiB, ``producer`` modulo 2**16. Not used unless
#: ``enabled``; ``restart`` strobes when the next command is to be number 0.
RingConfig = data.StructLayout({"sq_base": 52, "cq_base": 52, "log2": 4, "producer": 16, "enabled": 1, "restart": 1})


class QpEntry(data.StructLayout):
    """What control knows of a QP slot: ``state`` (abi.QpState), whole QP number, why it ended, what it uses."""

    def __init__(self, config):
        super().__init__({"state": 3, "qpn": 24, "reason": 8, "recv_cq": config.cq_bits, "send_cq": config.cq_bits,
                          "key": LookupKey()})


class HoldKind(enum.Enum, shape=2):
    """What the sequencer wants of a QP's hold."""

    FREE = 0       # its frames are TCP's
    HOLD = 1       # they are the host's
    ACTIVATE = 2   # from now on they are TCP's, if the host has all of those that it got
    FENCE = 3      # of no QP: every frame for the host that came before has been written, or dropped


class HoldOrder(data.StructLayout):
    """``kind`` for QP slot ``qp``, whose number is ``qpn``; ``index``: frame completions that the host has read."""

    def __init__(self, config):
        super().__init__({"kind": HoldKind, "qp": config.qp_bits, "qpn": 24, "index": 32})


#: ``again``: ACTIVATE has changed nothing; the host must first have read ``index`` completions.
HoldAnswer = data.StructLayout({"again": 1, "index": 32})
