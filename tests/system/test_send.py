"""The card sends, to a golden peer."""

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb


@pytest.mark.cocotb
@pytest.mark.parametrize("profile", [
    pytest.param("default", marks=pytest.mark.xdist_group("nic-default")),
    pytest.param("tiny", marks=pytest.mark.xdist_group("nic-tiny")),
])
def test_send(profile):
    run_cocotb(Nic(PROFILES[profile]), f"emplace_nic_{profile}", "tests.system.cocotb_send", env={"EMPLACE_PROFILE": profile})
