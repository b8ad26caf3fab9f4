"""What control and queues tell each other."""

from amaranth.lib import data, enum

__all__ = ["DoorbellKind", "Ring", "CqOp", "CqUpdate", "CqResult", "EventRing", "Died", "TIME_BITS", "Message", "msix_rows",
           "MsixWrite", "MsixLook"]

#: Of the clock that moderation goes by, in units of 256 cycles: one more than its longest time.
TIME_BITS = 17


class DoorbellKind(enum.Enum, shape=2):
    """Which doorbell of a user page; the order is that of abi.Doorbell's offsets."""

    SQ = 0
    RQ = 1
    CQ = 2
    CQ_ARM = 3


#: A doorbell as the host rang it: ``context`` is the page's; ``number`` and ``value`` as in abi.DoorbellLayout.
Ring = data.StructLayout({"kind": DoorbellKind, "context": 8, "number": 32, "value": 32})


class CqOp(enum.Enum, shape=2):
    """Of control, about completion queues. Each has one CqResult."""

    CHECK = 0      # BAD_CQ unless it exists
    CREATE = 1     # BAD_CQ if it exists
    DESTROY = 2    # BAD_CQ unless it exists


class CqUpdate(data.StructLayout):
    """Members
    -------
    op : ``CqOp``
    cq : ``unsigned(cq_bits)``
    log2 : ``unsigned(4)``
        Entries, 2..15. (CREATE, as all below)
    context : ``unsigned(8)``
        Whose page may ring it.
    base : ``unsigned(52)``
        Ring's physical address in units of 4 KiB.
    vector : ``range(vectors)``
        Of its notifications.
    count, period : ``unsigned(8)``, ``unsigned(16)``
        Their moderation: completions (0 counts as 1), and units of 256 cycles.
    """

    def __init__(self, config):
        super().__init__({"op": CqOp, "cq": config.cq_bits, "log2": 4, "context": 8, "base": 52,
                          "vector": range(config.vectors), "count": 8, "period": 16})


#: abi.Status of a CqUpdate.
CqResult = data.StructLayout({"status": 8})

#: The event ring, from control's registers: ``base`` in units of 4 KiB, ``consumer`` modulo 2**16. Events are dropped
#: unless ``enabled``; ``restart`` strobes when the next event is to be number 0.
EventRing = data.StructLayout({"base": 52, "log2": 4, "consumer": 16, "enabled": 1, "restart": 1})


def Died(config):
    """A stream must end: ``qp``, and its ``reason`` (abi.Reason)."""
    return data.StructLayout({"qp": config.qp_bits, "reason": 8})


#: An interrupt: ``data`` goes to ``address``.
Message = data.StructLayout({"address": 64, "data": 32})


def msix_rows(config):
    """Words of 8 bytes: two a table entry, then moderation, two vectors a word."""
    return 2 * config.vectors + config.vectors // 2


def MsixWrite(config):
    """The host writes a row: bytes by ``mask``."""
    return data.StructLayout({"en": 1, "row": range(msix_rows(config)), "data": 64, "mask": 8})


def MsixLook(config):
    """The host reads a row."""
    return data.StructLayout({"en": 1, "row": range(msix_rows(config))})
