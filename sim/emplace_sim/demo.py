"""`emplace demo` and `emplace replay-all`: shipped captures through the simulated card."""

import contextlib
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .build import build_card
from .replay_cli import _folder, plans_for, replay

__all__ = ["CAPTURES", "DEMO", "demo", "replay_all", "replayable"]

CAPTURES = Path(__file__).resolve().parents[2] / "tests" / "captures"
#: (file, the card's side, what a Linux kernel did there)
DEMO = (
    ("05_rping_4096_crc.pcap", "server", "rping, Linux the client: its Sends and Read Responses"),
    ("05_rping_4096_crc.pcap", "client", "rping, Linux the server: its Sends and Writes"),
    ("11_send_bw_8192_crc.pcap", "server", "ib_send_bw: 8 KiB Sends"),
    ("12_write_bw_4096_crc.pcap", "server", "ib_write_bw: 4 KiB Writes"),
    ("13_read_bw_4096_crc.pcap", "client", "ib_read_bw: 4 KiB Read Responses"),
    ("21_write_bw_20000_drop_crc.pcap", "server", "20,000-byte Writes, every 9th segment lost"),
    ("22_write_bw_20000_reorder_dup_crc.pcap", "server", "the same, reordered and doubled"),
)
#: Captures without a connection that a card could take over.
NOT_REPLAYED = ("08_", "30_", "31_", "32_")


@contextlib.contextmanager
def _progress(total):
    """A progress bar on a terminal, nothing elsewhere: yields step(text)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text, advance=0: None
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                  console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda text, advance=0: progress.update(task, description=text, advance=advance)


def _share(row):
    return f"{100 * row['fast_path_segments'] / row['segments']:.0f} %" if row["segments"] else "-"


def demo(profile="default", root="build/demo"):
    """Replay DEMO; exit code 0 if everything landed."""
    began = time.monotonic()
    with _progress(len(DEMO) + 1) as step:
        step("building the simulation of the card (a few minutes the first time)")
        build_card(profile)
        step("", 1)
        results = []
        for file, role, what in DEMO:
            step(f"{file} as {role}")
            plans = plans_for(CAPTURES / file, [role])
            results.append((what, plans[0], replay(plans, profile=profile, root=root)))
            step("", 1)
    table = Table(title="Linux's RDMA traffic, placed in host memory by the simulated card")
    columns = ("traffic", "card", "frames", "FPDUs", "landed, bytes", "CQEs", "B/cycle", "fast path", "wrong")
    for title in columns:
        justify = "left" if title in ("traffic", "card") else "right"
        table.add_column(title, justify=justify)
    good = True
    for what, plan, rows in results:
        for n, row in enumerate(rows):
            good &= row["ok"]
            landed = [f"{row[key]:,} {name}" for key, name in (("placed_bytes", "Write"), ("send_bytes", "Send"),
                                                              ("read_response_bytes", "Read")) if row[key]]
            total = row["placed_bytes"] + row["send_bytes"] + row["read_response_bytes"]
            rate = f"{total / row['cycles']:.2f}" if row.get("cycles") else "-"
            table.add_row(what if n == 0 else "  second connection", plan.role, str(row["frames"]), str(row["fpdus"]),
                          "\n".join(landed) or "-", str(row["completions"]), rate, _share(row),
                          str(row["mismatched_bytes"]) if row["ok"] else f"[red]{row['mismatched_bytes']} FAILED[/]")
    console = Console(width=None if sys.stdout.isatty() else 132)
    console.print(table)
    console.print(f"Wireshark opens {_folder(root, results[0][1]) / 'wire.pcapng'}; beside it are bus.log (every TLP) "
                  "and ledger.json.")
    console.print("The bytes were compared with an independent parse of each capture." if good else
                  "[red]Something did not land as the capture has it: see above, and results.json beside each pcapng.[/]")
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if good else 1


def replayable():
    """The captures that hold connections to replay."""
    return [path for path in sorted(CAPTURES.glob("*.pcap")) if not path.name.startswith(NOT_REPLAYED)]


def replay_all(profile="default", root="build/replay-all", recuts=10):
    """Every capture, both roles, stalls 0 and 0.3, and ``recuts`` re-cuts each; exit code 0 if all landed."""
    files = replayable()
    failed = rows_seen = 0
    with _progress(len(files) + 1) as step:
        step("building the simulation of the card")
        build_card(profile)
        step("", 1)
        for path in files:
            step(path.name)
            whole = path.name.startswith("42_")          # ends in a Terminate: nothing to cut anew behind it
            cuts = [None] if whole else [None, *range(1, recuts + 1)]
            plans = [plan for stall in (0.0, 0.3) for plan in plans_for(path, ["client", "server"], recuts=cuts, stall=stall)]
            rows = replay(plans, profile=profile, root=root, log=False)
            bad = [row for row in rows if not row["ok"]]
            failed += len(bad)
            rows_seen += len(rows)
            print(f"{path.name:45} {len(plans):3} replays, {sum(row['fpdus'] for row in rows):6} FPDUs, "
                  f"{sum(row['mismatched_bytes'] for row in rows)} bytes wrong, {len(bad)} failed", flush=True)
            for row in bad[:3]:
                print(f"    {row['connection']} as {row['role']}: {row['problems'][:2]}")
            step("", 1)
    print(f"{rows_seen} connections replayed, {failed} failed")
    return 1 if failed else 0
