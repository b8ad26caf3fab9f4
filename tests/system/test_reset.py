"""A reset in the midst of everything, on the whole card in Verilator."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb


@pytest.mark.cocotb
@pytest.mark.xdist_group("nic-default")
def test_reset():
    run_cocotb(Nic(PROFILES["default"]), "emplace_nic_default", "tests.system.cocotb_reset")
