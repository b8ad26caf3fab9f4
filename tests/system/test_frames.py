"""tests.system.cocotb_frames on the whole card."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb

pytestmark = pytest.mark.cocotb


@pytest.mark.parametrize("profile", [pytest.param(name, marks=pytest.mark.xdist_group(f"nic-{name}"))
                                     for name in ("default", "tiny")])
def test_frames(profile):
    run_cocotb(Nic(PROFILES[profile]), f"emplace_nic_{profile}", "tests.system.cocotb_frames",
               env={"EMPLACE_PROFILE": profile})
