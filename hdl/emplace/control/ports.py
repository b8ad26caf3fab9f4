"""What the parts of control tell each other."""

from amaranth.lib import data

from ..ip.records import LookupKey

__all__ = ["RingConfig", "QpEntry"]

#: The admin queue's rings, from the registers: bases in units of 4 KiB, ``producer`` modulo 2**16. Not used unless
#: ``enabled``; ``restart`` strobes when the next command is to be number 0.
RingConfig = data.StructLayout({"sq_base": 52, "cq_base": 52, "log2": 4, "producer": 16, "enabled": 1, "restart": 1})


class QpEntry(data.StructLayout):
    """What control knows of a QP slot: ``state`` (abi.QpState), whole QP number, why it ended, what it uses."""

    def __init__(self, config):
        super().__init__({"state": 3, "qpn": 24, "reason": 8, "recv_cq": config.cq_bits, "send_cq": config.cq_bits,
                          "key": LookupKey()})
