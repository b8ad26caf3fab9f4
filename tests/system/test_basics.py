"""The whole card in Verilator, with the fast bus."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb


@pytest.mark.cocotb
@pytest.mark.xdist_group("nic-default")
def test_basics():
    run_cocotb(Nic(PROFILES["default"]), "emplace_nic_default", "tests.system.cocotb_basics")


@pytest.mark.cocotb
@pytest.mark.xdist_group("nic-tiny")
def test_basics_of_tiny():
    run_cocotb(Nic(PROFILES["tiny"]), "emplace_nic_tiny", "tests.system.cocotb_basics", env={"EMPLACE_PROFILE": "tiny"})
