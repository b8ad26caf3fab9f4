"""Questions to the protection unit, and its answers."""

from amaranth.lib import data, enum

from .. import abi

__all__ = ["AccessOp", "Outcome", "Refusal", "AccessRequest", "AccessReply", "TableOp", "TableUpdate", "TableResult",
           "PageWrite"]


class AccessOp(enum.Enum, shape=2):
    """What is asked."""

    GRANT = 0         # check, and answer with the physical bursts
    CHECK = 1         # check alone: one reply, no bursts
    INVALIDATE = 2    # Send with Invalidate: check (stage I) and make invalid


class Outcome(enum.Enum, shape=2):
    """The three outcomes of design D5."""

    GRANTED = 0
    REFUSED = 1
    NOT_NOW = 2


class Refusal(enum.Enum, shape=3):
    """Why refused, in the order of the checks."""

    NONE = 0
    STAG = 1          # slot empty or invalid, or any of the 32 bits differs
    PD = 2            # protection domain (or QP of a bound window) differs
    ACCESS = 3        # right missing
    WRAP = 4          # offset + length > 2**64
    BOUNDS = 5        # not inside [base, base + length)
    PAGE = 6          # page list does not cover it


class AccessRequest(data.StructLayout):
    """Members
    -------
    op : ``AccessOp``
    stag : ``unsigned(32)``
    pd : ``unsigned(16)``
    qp : ``unsigned(qp_bits)``
        For regions bound to a QP, and for attribution.
    offset : ``unsigned(64)``
        TO, or local virtual address.
    length : ``unsigned(32)``
        Octets; GRANT: 1..fpdu_max. (Zero-length accesses are never asked: RFC 5041 5.2.)
    right : ``unsigned(8)``
        Bits of abi.Access that are all needed; at least one.
    """

    def __init__(self, config):
        super().__init__({"op": AccessOp, "stag": 32, "pd": 16, "qp": config.qp_bits, "offset": 64, "length": 32,
                          "right": 8})


class AccessReply(data.StructLayout):
    """One per burst for GRANT, else one.

    Members
    -------
    outcome : ``Outcome``
    refusal : ``Refusal``
    address : ``unsigned(64)``
        Physical, of this burst.
    length : ``unsigned(13)``
        Octets of this burst, never across a page of the region.
    last : ``unsigned(1)``
        No more bursts follow. Set in every reply that isn't GRANTED.
    """

    def __init__(self):
        super().__init__({"outcome": Outcome, "refusal": Refusal, "address": 64, "length": 13, "last": 1})


class TableOp(enum.Enum, shape=1):
    """Of the admin queue."""

    REGISTER = 0
    INVALIDATE = 1


class TableUpdate(data.StructLayout):
    """``mr``: REG_MR's fields (INVALIDATE: its ``stag`` alone). The table checks it whole and writes
    nothing unless all is right."""

    def __init__(self):
        super().__init__({"op": TableOp, "mr": abi.COMMANDS[abi.Opcode.REG_MR]})


#: abi.Status of a TableUpdate.
TableResult = data.StructLayout({"status": 8})


class PageWrite(data.StructLayout):
    """One entry of the page list."""

    def __init__(self, config):
        super().__init__({"index": config.page_bits, "address": 64})
