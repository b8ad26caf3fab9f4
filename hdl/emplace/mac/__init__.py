"""Ethernet MAC. XGMII to packets (`rx`), packets to XGMII (`tx`), their CRC as matrices (`crc`), wired by `layer`."""
