"""What TCP's receive side keeps of each connection, and the orders that its units give each other."""

from amaranth.lib import data, enum

from ..ip.records import SegmentRecord

__all__ = ["Context", "JobKind", "Job", "HeldOp", "HeldRequest", "HeldReply", "AckState", "TemplateOrder", "Block",
           "BlocksOp", "BlocksRequest", "BlocksReply", "BLOCKS"]

#: SACK blocks remembered per connection, a power of two.
BLOCKS = 4


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
    snd_una, snd_nxt, snd_wnd, snd_wl1, max_snd_wnd : ``unsigned(32)``
        As RFC 9293 and RFC 5961 5.2 name them; ``snd_nxt`` is the highest ever (SND.MAX).
    snd_wscale : ``unsigned(4)``
    timestamps, sack, ecn, dctcp : ``unsigned(1)``
        Negotiated; ``dctcp`` means nothing without ``ecn``.
    ce, ece : ``unsigned(1)``
        The latest data segment was marked; ACKs say so.
    wide : ``unsigned(1)``
        ``rcv_wnd`` holds any segment that fits a slot.
    listed, head
        Held segments are there; the slot of the one with the lowest sequence number.
    blocks, newest : ``unsigned(3)``, ``unsigned(2)``
        SACK blocks in the connection's ring of them; where the one lies that was reported last.
    parked : ``unsigned(1)``
        In-order octets wait for ``resume``.
    fin_seen, fin_seq
        A FIN has come that is not in order yet; its sequence number.
    closed : ``unsigned(1)``
        The peer's FIN was taken.
    failed : ``unsigned(1)``
        Nothing more is taken.
    tokens, token_stamp : ``unsigned(4)``, ``unsigned(8)``
        Challenge ACKs that may be sent, as of bits 9..16 of ``now``.
    """

    def __init__(self, config):
        super().__init__({
            "rcv_nxt": 32, "rcv_wnd": 32, "ts_recent": 32, "ts_stamp": 16, "snd_una": 32, "snd_nxt": 32, "snd_wnd": 32,
            "snd_wl1": 32, "max_snd_wnd": 32, "snd_wscale": 4, "timestamps": 1, "sack": 1, "ecn": 1, "dctcp": 1, "ce": 1,
            "ece": 1, "wide": 1, "listed": 1, "head": config.slot_bits, "blocks": 3, "newest": 2, "parked": 1,
            "fin_seen": 1, "fin_seq": 32, "closed": 1, "failed": 1, "tokens": 4, "token_stamp": 8,
        })


class JobKind(enum.Enum, shape=2):
    """What the receive unit does next."""

    SEGMENT = 0
    TOKEN = 1
    RESUME = 2
    EVICT = 3    # throw away the last held segment of a QP


class Job(data.StructLayout):
    """``segment`` means something for SEGMENT and TOKEN; ``alive``: the QP is established; ``context`` as in memory."""

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


class Block(data.StructLayout):
    """SACK block: from sequence number ``left`` up to, not including, ``right`` (RFC 2018 3)."""

    def __init__(self):
        super().__init__({"left": 32, "right": 32})


class BlocksOp(enum.Enum, shape=1):
    """What a connection's SACK blocks are told."""

    ADD = 0      # `block` has come: it, and those that it touches, are one, the newest
    CUT = 1      # nothing below `block.left` is a block any more


class BlocksRequest(data.StructLayout):
    """Of ``qp``, which has ``count`` blocks from ``newest`` on."""

    def __init__(self, config):
        super().__init__({"op": BlocksOp, "qp": config.qp_bits, "count": 3, "newest": 2, "block": Block()})


#: ``count`` and ``newest`` now.
BlocksReply = data.StructLayout({"count": 3, "newest": 2})


class AckState(data.StructLayout):
    """What an ACK of ``qp`` says from now on.

    Members
    -------
    due, late : ``unsigned(1)``
        One is to be sent now; or when its delay is over, unless another comes before.
    rcv_nxt, ts_recent : ``unsigned(32)``
    ece : ``unsigned(1)``
    blocks, newest
        As in Context.
    duplicate : ``unsigned(1)``, ``dsack`` : ``Block``
        The first block is this one (RFC 2883).
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "due": 1, "late": 1, "rcv_nxt": 32, "ts_recent": 32, "ece": 1,
                          "blocks": 3, "newest": 2, "duplicate": 1, "dsack": Block()})


class TemplateOrder(data.StructLayout):
    """Load the header template of ``qp`` from ``cmd``, or (``remove``) let no ACK of it out any more."""

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "remove": 1})
