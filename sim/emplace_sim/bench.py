"""`emplace bench`: measured figures against the targets, as a table and as build/bench.json."""

import json
from importlib import import_module
from pathlib import Path

from emplace.config import PROFILES

from . import area, micro
from .build import run_cocotb

__all__ = ["rows", "run"]

BUILD = Path("build")
MTU_RATE = 1428 * 8 / 1538
SIW_RATE = 1428 * 8 / 1628


def run_card(profile="default"):
    """Figures of the whole card: a dict, see bench_run."""
    from emplace.nic import Nic
    out = (BUILD / "bench_run.json").resolve()
    out.parent.mkdir(exist_ok=True)
    out.unlink(missing_ok=True)
    run_cocotb(Nic(PROFILES[profile]), f"emplace_nic_{profile}", "emplace_sim.bench_run",
               env={"EMPLACE_BENCH_OUT": str(out), "EMPLACE_PROFILE": profile})
    return json.loads(out.read_text())


def run_area(profile="tiny"):
    """LUT4, FF, EBR by folder, of ECP5 synthesis; None, with a line that says why, if Yosys gives up."""
    from emplace.nic import Nic
    try:
        return area.by_folder(area.synthesize(Nic(PROFILES[profile]), BUILD / "area" / profile))
    except RuntimeError as error:
        print(f"area: no figures, {error}")
        return None


def rows(card, blocks, folders, timing):
    """(name, value, unit, target, met): ``met`` is None where there is no target or no value."""
    made = []

    def row(name, value, unit, target=None, at_least=False):
        met = None
        if target is not None and value is not None:
            met = value >= target if at_least else value <= target
        made.append({"name": name, "value": None if value is None else round(value, 3), "unit": unit,
                     "target": target if target is None else round(target, 3), "met": met})

    row("MAC transmit, first word", blocks.get("mac_tx_first"), "cycles", 3)
    row("MAC receive, first word", blocks.get("mac_rx_first"), "cycles", 4)
    row("MAC transmit, 64-byte frames", blocks.get("mac_tx_period"), "cycles a frame", 10.5)
    row("MAC receive, 64-byte frames", blocks.get("mac_rx_period"), "cycles a frame", 10.5)
    row("IP header pipeline, smallest frame", blocks.get("ip_period"), "cycles a frame", 10)
    row("whole card, smallest frames back to back", card.get("smallest_frame_cycles"), "cycles a frame", 10.51)
    row("receive goodput, MTU 1500, CRC, timestamps", card.get("goodput_aligned"), "B/cycle", 0.99 * MTU_RATE, True)
    row("receive goodput, siw's 1,444 + 4", card.get("goodput_siw"), "B/cycle", 0.99 * SIW_RATE, True)
    row("64 B Writes, timestamps", card.get("write64_timestamps"), "cycles a Write", 22.0)
    row("64 B Writes", card.get("write64"), "cycles a Write", 20.5)
    row("64 B Writes, 17 a segment", card.get("write64_packed"), "cycles a Write", 11.5)
    row("wire to host, 64 B Write", card.get("wire_to_host"), "cycles", 40)
    row("fast-path share, aligned", card.get("fast_path_aligned"), "")
    row("fast-path share, siw's pattern", card.get("fast_path_siw"), "")
    row("simulation, idle", card.get("speed_idle"), "cycles/s", 50_000, True)
    row("simulation, loaded", card.get("speed_loaded"), "cycles/s", 15_000, True)
    if folders:
        for folder, cells in sorted(folders.items()):
            row(f"tiny: {folder}", cells["lut4"], "LUT4", area.BUDGET.get(folder))
            row(f"tiny: {folder}", cells["ff"], "FF")
            row(f"tiny: {folder}", cells["ebr"], "EBR")
        row("tiny: all", sum(c["lut4"] for c in folders.values()), "LUT4", 37_000)
        row("tiny: all", sum(c["ff"] for c in folders.values()), "FF")
        row("tiny: all", sum(c["ebr"] for c in folders.values()), "EBR", 100)
    row("tiny: clock rate, one seed (make timing)", timing.get("mhz"), "MHz", 62.5, True)
    return made


def show(made):
    from rich.console import Console
    from rich.table import Table
    table = Table(title="Emplace against its targets")
    for column in ("what", "measured", "unit", "target", ""):
        table.add_column(column, justify="right" if column in ("measured", "target") else "left")
    for r in made:
        mark = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[r["met"]]
        table.add_row(r["name"], "-" if r["value"] is None else f"{r['value']:,g}", r["unit"],
                      "" if r["target"] is None else f"{r['target']:,g}", mark)
    Console().print(table)


def run(*, with_area=True):
    """Measure, write build/bench.json, print the table. Never fails for a missed target."""
    BUILD.mkdir(exist_ok=True)
    timing_file = BUILD / "timing.json"
    timing = json.loads(timing_file.read_text()) if timing_file.exists() else {}
    made = rows(run_card(), micro.measure(), run_area() if with_area else None, timing)
    (BUILD / "bench.json").write_text(json.dumps(made, indent=1))
    show(made)
    return made


def _layer(name, config):
    """The layer of that folder, as a component of its own."""
    return getattr(import_module(f"emplace.{name}.layer"), name.capitalize())(config)


def run_timing(profile="tiny", layer=None):
    """Place and route the card, or one layer alone, for its board, one seed; the card leaves build/timing.json."""
    from emplace.nic import Nic
    from emplace_boards import versa_ecp5_5g as board
    config = PROFILES[profile]
    folder = BUILD / "timing" / (f"{profile}_{layer}" if layer else profile)
    area.synthesize(_layer(layer, config) if layer else Nic(config), folder, flatten=True)
    found = area.place_and_route(folder, arguments=board.nextpnr_arguments(), mhz=62.5)
    what = layer or "card"
    print(f"{profile}, {what}, on {board.PLATFORM.device}: {found['mhz']:.1f} MHz (log: {folder / 'nextpnr.log'})")
    for kind, (used, available) in found["used"].items():
        print(f"  {kind:14}{used:7} of {available}, {used / available:.0%}")
    for ns, module, name in found["slowest"][:12]:
        print(f"  {ns:5.1f} ns  {module:28} {name}")
    if not layer:
        (BUILD / "timing.json").write_text(json.dumps({"profile": profile, "device": board.PLATFORM.device, **found}))
    return found
