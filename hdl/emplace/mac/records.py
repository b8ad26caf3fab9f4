"""The boundary to the PCS: XGMII (IEEE Std 802.3 clause 46) or GMII (clause 35); and what receivers tell of a frame."""

from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

__all__ = ["Xgmii", "Gmii", "IDLE", "START", "TERMINATE", "ERROR", "PREAMBLE", "SHORTEST", "FRAME_LIMIT", "Verdict", "Octets",
           "Sent"]

#: 64-bit XGMII, one transfer a cycle: ``d`` eight lanes, the first on the wire lowest; ``c`` a lane holds a control
#: character.
Xgmii = wiring.Signature({"d": Out(64), "c": Out(8)})

#: GMII, a byte a cycle in which the clock enable beside it is high: ``d``, ``dv`` (RX_DV, TX_EN), ``er`` (RX_ER, TX_ER).
Gmii = wiring.Signature({"d": Out(8), "dv": Out(1), "er": Out(1)})

# Control characters (table 46-3)
IDLE, START, TERMINATE, ERROR = 0x07, 0xFB, 0xFD, 0xFE
#: Start character, preamble and start frame delimiter, first byte lowest.
PREAMBLE = int.from_bytes(bytes([START]) + b"\x55" * 6 + b"\xd5", "little")

#: Bytes of a frame with FCS: the shortest that is none of a collision's, and the longest envelope frame.
SHORTEST, FRAME_LIMIT = 64, 2000


class Verdict(data.StructLayout):
    """A frame has ended on the wire.

    Members
    -------
    valid : ``unsigned(1)``
        Strobe.
    length : ``range(limit + 16)``
        Bytes with FCS; one that is longer than ``limit`` has any number above.
    bad_fcs : ``unsigned(1)``
        Wrong FCS or a coding error.
    group, broadcast : ``unsigned(1)``
        Of its destination address.
    """

    def __init__(self, limit):
        super().__init__({"valid": 1, "length": range(limit + 16), "bad_fcs": 1, "group": 1, "broadcast": 1})


#: Bytes on the wire in this cycle, preamble left out. ``busy``: more of the same frame may come.
Octets = data.StructLayout({"count": range(13), "busy": 1})

#: A frame has been sent, or has been spoiled (``bad``).
Sent = data.StructLayout({"valid": 1, "bad": 1, "group": 1, "broadcast": 1})
