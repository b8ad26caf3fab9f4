"""What TCP's receive side keeps of each connection, and the orders that its units give each other."""

from amaranth.lib import data, enum

from ..ip.records import SegmentRecord

__all__ = ["Context", "JobKind", "Job", "HeldOp", "HeldRequest", "HeldReply", "AckState", "TemplateOrder"]


class Context(data.StructLayout):
    """One connection.

    Members
    -------
    rcv_nxt, rcv_wnd : ``unsigned(32)``
        Next octet expected; window in octets, constant.
    ts_recent : ``unsigned(32)``
        TS.Recent of RFC 7323.
    ts_stamp : ``unsigned(16)``
        Bits 16 up of ``now`` when it was set.
    snd_una, snd_nxt, snd_wnd : ``unsigned(32)``
    snd_wscale : ``unsigned(4)``
    timestamps : ``unsigned(1)``
        Negotiated.
    wide : ``unsigned(1)``
        ``rcv_wnd`` holds any segment that fits a slot.
    listed, head
        Held segments are there; the slot of the one with the lowest sequence number.
    parked : ``unsigned(1)``
        In-order octets wait for ``resume``.
    failed : ``unsigned(1)``
        Nothing more is taken.
    """

    def __init__(self, config):
        super().__init__({
            "rcv_nxt": 32, "rcv_wnd": 32, "ts_recent": 32, "ts_stamp": 16, "snd_una": 32, "snd_nxt": 32, "snd_wnd": 32,
            "snd_wscale": 4, "timestamps": 1, "wide": 1, "listed": 1, "head": config.slot_bits, "parked": 1,
            "failed": 1,
        })


class JobKind(enum.Enum, shape=2):
    """What the receive unit does next."""

    SEGMENT = 0
    TOKEN = 1
    RESUME = 2
    EVICT = 3    # throw away the last held segment of a QP


class Job(data.StructLayout):
    """``segment`` means something for SEGMENT and TOKEN; ``alive``: the QP is in RTS; ``context`` as in memory."""

    def __init__(self, config):
        super().__init__({"kind": JobKind, "qp": config.qp_bits, "segment": SegmentRecord(config), "alive": 1,
                          "context": Context(config)})


class HeldOp(enum.Enum, shape=2):
    """What a list of held segments is asked for."""

    INSERT = 0   # put a segment into its place; of two with one beginning the longer stays
    POP = 1      # take the first out if it reaches down to `seq`, less what lies below `seq`
    CLEAR = 2    # free all
    SHORTEN = 3  # free the last; with `keep`, not if it is the only one


class HeldRequest(data.StructLayout):
    """Operation on the list that begins at ``head`` (empty unless ``listed``)."""

    def __init__(self, config):
        super().__init__({"op": HeldOp, "qp": config.qp_bits, "listed": 1, "head": config.slot_bits,
                          "slot": config.slot_bits, "seq": 32, "offset": 11, "length": 12, "keep": 1})


class HeldReply(data.StructLayout):
    """``listed``, ``head``: the list now. ``done``: INSERT held it (else its slot is free), POP found one (``slot``,
    ``offset``, ``length``), SHORTEN freed one."""

    def __init__(self, config):
        super().__init__({"listed": 1, "head": config.slot_bits, "slot": config.slot_bits, "offset": 11, "length": 12,
                          "done": 1})


class AckState(data.StructLayout):
    """What an ACK of ``qp`` says from now on; ``due``: one is to be sent."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "rcv_nxt": 32, "ts_recent": 32, "due": 1})


class TemplateOrder(data.StructLayout):
    """Load the header template of ``qp`` from ``cmd``, or (``remove``) let no ACK of it out any more."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "remove": 1})
