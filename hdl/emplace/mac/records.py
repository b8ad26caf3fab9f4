"""XGMII: the boundary to the PCS (IEEE Std 802.3 clause 46)."""

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

__all__ = ["Xgmii", "IDLE", "START", "TERMINATE", "ERROR", "PREAMBLE"]

#: 64-bit XGMII, one transfer a cycle: ``d`` eight lanes, the first on the wire lowest; ``c`` a lane holds a control
#: character.
Xgmii = wiring.Signature({"d": Out(64), "c": Out(8)})

# Control characters (table 46-3)
IDLE, START, TERMINATE, ERROR = 0x07, 0xFB, 0xFD, 0xFE
#: Start character, preamble and start frame delimiter, first byte lowest.
PREAMBLE = int.from_bytes(bytes([START]) + b"\x55" * 6 + b"\xd5", "little")
