import dataclasses

import pytest

from emplace.config import PROFILES
from emplace.mac.layer import Mac
from emplace_sim.build import run_cocotb


@pytest.mark.cocotb
def test_mac_in_verilog():
    run_cocotb(Mac(PROFILES["tiny"]), "mac", "tests.mac.cocotb_mac")


@pytest.mark.cocotb
def test_gmii_mac_in_verilog():
    run_cocotb(Mac(dataclasses.replace(PROFILES["tiny"], phy="gmii")), "gmii_mac", "tests.mac.cocotb_gmii")
