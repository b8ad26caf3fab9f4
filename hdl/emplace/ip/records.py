"""What IP hands to TCP."""

from amaranth.lib import data

from ..control.records import RecordKind, Token

__all__ = ["SegmentRecord", "SlotIndex", "SlotWrite", "LookupKey", "LookupUpdate"]


class SlotIndex(data.StructLayout):
    """``slot``: a receive slot that the one who gets it may fill."""

    def __init__(self, config):
        super().__init__({"slot": config.slot_bits})


class LookupKey(data.StructLayout):
    """What tells connections apart. ``vlan`` is the VLAN id, 0 without a tag; ports and addresses as
    numbers, the first wire byte highest."""

    def __init__(self):
        super().__init__({"local_ip": 32, "remote_ip": 32, "local_port": 16, "remote_port": 16, "vlan": 12,
                          "tagged": 1})


class LookupUpdate(data.StructLayout):
    """``insert`` (1) or delete (0) ``key`` for QP slot ``qp``."""

    def __init__(self, config):
        super().__init__({"insert": 1, "qp": config.qp_bits, "key": LookupKey()})


class SlotWrite(data.StructLayout):
    """One word into slot memory: word ``address`` of slot ``slot``."""

    def __init__(self, config):
        super().__init__({"slot": config.slot_bits, "address": (config.slot_words - 1).bit_length(), "data": 64})


class SegmentRecord(data.StructLayout):
    """A segment of an installed connection whose FCS and checksums held, or a token behind them.

    Members
    -------
    kind : ``RecordKind``
    token : ``Token``
    qp : ``unsigned(qp_bits)``
    slot : ``unsigned(slot_bits)``
        Where its payload lies, from byte 0 on; TCP owns the slot from here. Nothing if ``length``
        is 0.
    length : ``unsigned(12)``
        Octets of TCP payload, 0..slot_bytes.
    seq, ack : ``unsigned(32)``
    window : ``unsigned(16)``
        As on the wire.
    psh, syn, fin, rst, urg, has_ack : ``unsigned(1)``
        Flags. SYN, RST or ACK was there; without ACK, ``ack`` means nothing.
    ecn : ``unsigned(2)``
        IP ECN field.
    ece, cwr : ``unsigned(1)``
    has_ts : ``unsigned(1)``
        A timestamp option was there: ``tsval``, ``tsecr``.
    options : ``unsigned(1)``
        Options beyond the canonical NOP NOP Timestamps.
    """

    def __init__(self, config):
        super().__init__({
            "kind": RecordKind, "token": Token(config), "qp": config.qp_bits, "slot": config.slot_bits, "length": 12,
            "seq": 32, "ack": 32, "window": 16, "psh": 1, "syn": 1, "fin": 1, "rst": 1, "urg": 1, "has_ack": 1, "ecn": 2,
            "ece": 1, "cwr": 1, "has_ts": 1, "tsval": 32, "tsecr": 32, "options": 1,
        })
