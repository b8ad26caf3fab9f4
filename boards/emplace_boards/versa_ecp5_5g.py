"""Lattice Versa ECP5-5G: gigabit Ethernet and a PCIe connector; the board that profile ``tiny`` is sized for."""

from amaranth_boards.versa_ecp5_5g import VersaECP55GPlatform

__all__ = ["PROFILE", "PLATFORM", "nextpnr_arguments"]

#: Profile of :data:`emplace.config.PROFILES`.
PROFILE = "tiny"
PLATFORM = VersaECP55GPlatform


def nextpnr_arguments():
    """What nextpnr-ecp5 needs to know of the board's FPGA."""
    family, size = PLATFORM.device.rsplit("-", 1)
    prefix = {"LFE5U": "", "LFE5UM": "um-", "LFE5UM5G": "um5g-"}[family]
    package = {"BG381": "CABGA381", "BG554": "CABGA554", "BG756": "CABGA756"}[PLATFORM.package]
    return [f"--{prefix}{size.rstrip('F')}k", "--package", package, "--speed", PLATFORM.speed]
