"""The card as Verilog: the same every time, and nothing that Verilator would warn of without a reason."""

import pytest

from emplace.cli import main
from emplace_sim.lint import lint_verilog


@pytest.mark.parametrize("profile", ["tiny", "default"])
def test_verilog(profile, tmp_path):
    paths = [tmp_path / f"{n}.v" for n in range(2)]
    for path in paths:
        assert main(["verilog", "-o", str(path), "--profile", profile]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert lint_verilog(paths[0], "emplace_nic") == []
