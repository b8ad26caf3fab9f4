"""The layer behind cocotbext-pcie's root complex, for both widths of TLP words."""

import dataclasses

import pytest
from tests.dma.pcie_bench import DmaBench

from emplace.config import PROFILES
from emplace_sim.build import run_cocotb

TIMEOUT = 2000


@pytest.mark.cocotb
@pytest.mark.parametrize("tlp_bytes", [8, 16])
def test_dma(tlp_bytes):
    config = dataclasses.replace(PROFILES["tiny"], tlp_bytes=tlp_bytes)
    run_cocotb(DmaBench(config, timeout=TIMEOUT), f"dma_bench_{tlp_bytes}", "tests.dma.cocotb_dma_pcie",
               env={"TLP_BYTES": str(tlp_bytes)})
