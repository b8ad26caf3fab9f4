"""tests.system.cocotb_diagnosis on the whole card, in the profiles where it means something."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb

pytestmark = pytest.mark.cocotb


@pytest.mark.parametrize("profile", ["default", "tiny"])
def test_diagnosis(profile):
    run_cocotb(Nic(PROFILES[profile]), f"emplace_nic_{profile}", "tests.system.cocotb_diagnosis",
               env={"EMPLACE_PROFILE": profile})
