"""The replay harness in a simulator, against a card in Python."""

import pytest

from emplace_sim.build import run_cocotb

from .model_card import Pads


@pytest.mark.cocotb
def test_harness():
    run_cocotb(Pads(), "pads", "tests.sim.cocotb_replay_model")
