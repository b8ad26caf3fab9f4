"""Interrupts of the whole card in Verilator."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb


@pytest.mark.cocotb
@pytest.mark.xdist_group("nic-tiny")
def test_msix():
    run_cocotb(Nic(PROFILES["tiny"]), "emplace_nic_tiny", "tests.system.cocotb_msix", env={"EMPLACE_PROFILE": "tiny"})
