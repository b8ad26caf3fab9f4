"""tests.system.cocotb_fuzz on the whole card, with short examples; `make fuzz` runs more."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb

pytestmark = pytest.mark.cocotb


@pytest.mark.parametrize("profile", ["default", "tiny"])
def test_fuzz(profile):
    run_cocotb(Nic(PROFILES[profile]), f"emplace_nic_{profile}", "tests.system.cocotb_fuzz",
               env={"EMPLACE_PROFILE": profile})
