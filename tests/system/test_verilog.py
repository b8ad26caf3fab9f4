"""The card as Verilog: the same every time, and nothing that Verilator would warn of without a reason."""

import re

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from emplace.cli import main
from emplace.verilog import to_verilog
from emplace_sim.lint import lint_verilog


@pytest.mark.parametrize("profile", ["tiny", "default"])
def test_verilog(profile, tmp_path):
    paths = [tmp_path / f"{n}.v" for n in range(2)]
    for path in paths:
        assert main(["verilog", "-o", str(path), "--profile", profile]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert lint_verilog(paths[0], "emplace_nic") == []


class Partly(wiring.Component):
    """A signal with constant bits beside bits that follow a switch."""

    def __init__(self):
        super().__init__({"i": In(2), "o": Out(12)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o[:4].eq(0xA)
        with m.Switch(self.i):
            with m.Case(1):
                m.d.comb += self.o[4:].eq(7)
        return m


def test_constant_bits_are_there():
    """Nothing waits for a change that never comes: `always @*` without a variable never runs."""
    text = to_verilog(Partly(), "partly")
    assert "4'ha" in text
    for block in re.findall(r"always @\*(?: begin)?\n(.*?)(?=\n  (?:end|always|assign|endmodule)|\nendmodule)", text, re.S):
        assert re.search(r"if \(|casez? \(|= \S*[A-Za-z_\\]", block.replace("'h", "")), block
    assert "if (constants_run_once) begin end\n    o[3:0] = 4'ha;" in text
