"""``emplace replay``: plans, one simulation for all of them, and the table."""

import json
import pickle
import sys
from pathlib import Path

from emplace.config import PROFILES

from .build import build_card, run
from .capture import CaptureError, read_capture
from .replay import make_plan
from .replay_run import Job

__all__ = ["plans_for", "replay", "table", "main"]


def plans_for(path, roles, *, recuts=(None,), stall=0.0, seed=0):
    """Plans for a capture file. CaptureError if it has no iWARP connection."""
    connections = read_capture(path)
    return [make_plan(connections, role, name=Path(path).name, recut=recut, stall=stall, seed=seed)
            for role in roles for recut in recuts]


def _folder(root, plan):
    parts = [plan.name.removesuffix(".pcap"), plan.role]
    parts += [f"recut{plan.recut}"] if plan.recut is not None else []
    parts += [f"stall{round(100 * plan.stall)}"] if plan.stall else []
    return Path(root) / "-".join(parts)


def replay(plans, *, profile="default", root="build/replay", log=True):
    """Carry ``plans`` out, in one simulation if all goes well; the rows of all their connections.

    Each plan's folder below ``root`` gets wire.pcapng, bus.log, ledger.json, results.json.
    """
    config, simulation = PROFILES[profile], build_card(profile)
    folders = [_folder(root, plan).resolve() for plan in plans]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").unlink(missing_ok=True)
    left = list(zip(plans, folders, strict=True))
    while left:
        here = left[0][1]
        job, output = here / "job.pickle", here / "simulator.log"
        job.write_bytes(pickle.dumps(Job(config, [plan for plan, _ in left], [str(folder) for _, folder in left], log)))
        try:
            run(simulation, "emplace_sim.replay_run", env={"EMPLACE_REPLAY": str(job), "COCOTB_LOG_LEVEL": "INFO"},
                directory=here, log_file=output)
        except SystemExit:
            pass                             # the runner's way to say that the test failed
        finally:
            job.unlink()
        if not (here / "results.json").exists():
            raise RuntimeError(f"the simulation ended early; its output is in {output}")
        # A plan that left something in the card ends the simulation: on with the others in a new one.
        left = [item for item in left if not (item[1] / "results.json").exists()]
    rows = []
    for folder in folders:
        rows += json.loads((folder / "results.json").read_text())
    return rows


_COLUMNS = (("connection", "connection"), ("role", "role"), ("frames", "frames"), ("fpdus", "FPDUs"),
            ("fast_path_segments", "fast path"), ("placed_bytes", "Write B"), ("send_bytes", "Send B"),
            ("read_response_bytes", "Read B"), ("completions", "CQEs"), ("acks_sent", "ACKs"),
            ("mismatched_bytes", "wrong B"), ("cycles", "cycles"), ("ok", "result"))


def table(rows):
    """Text of ``rows``, a line each, and what went wrong."""
    cells = [[title for _, title in _COLUMNS]]
    for row in rows:
        line = ["-" if row[key] is None else str(row[key]) for key, _ in _COLUMNS]
        line[-1] = "ok" if row["ok"] else "FAILED"
        cells.append(line)
    widths = [max(len(line[n]) for line in cells) for n in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) if n < 2 else cell.rjust(width)
                       for n, (cell, width) in enumerate(zip(line, widths))) for line in cells]
    for row in rows:
        lines += [f"  {row['connection']} as {row['role']}: {problem}" for problem in row["problems"]]
    return "\n".join(lines)


def main(arguments):
    """Exit code of ``emplace replay``: 0 if every byte, completion and event came, 1 if not, 2 if there is
    nothing to replay."""
    try:
        plans = plans_for(arguments.file, [arguments.role], recuts=[arguments.recut], stall=arguments.stall,
                          seed=arguments.seed)
    except CaptureError as error:
        print(f"emplace replay: {error}", file=sys.stderr)
        return 2
    if not arguments.json:
        print(f"{arguments.file}: {len(plans[0].connections)} iWARP connection(s), {len(plans[0].feeds)} frames for the card"
              f" as {arguments.role}; simulating (the first time builds the card: a few minutes) ...", flush=True)
    rows = replay(plans, profile=arguments.profile, root=arguments.out)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows))
        print(f"wire.pcapng, bus.log and ledger.json are in {_folder(arguments.out, plans[0])}")
    return 0 if all(row["ok"] for row in rows) else 1
