"""``emplace stats``: what a run counted, put on the bus, noted and sampled, as text."""

import json
import sys
from pathlib import Path

from emplace import abi
from emplace.abi import HistoryKind, QpState, Reason

from .capture import CaptureError
from .names import os_name

__all__ = ["StatsError", "load", "report", "history_line", "sample_line", "main"]


class StatsError(Exception):
    """The input holds no statistics of a run."""


_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def load(path):
    """Rows of a run: of the file that ``emplace replay --json`` printed, of a results.json, or of a run's folder."""
    path = Path(path)
    if path.is_dir():
        path = path / "results.json"
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise StatsError(f"{path}: {error.strerror.lower()}") from error
    except ValueError as error:
        raise StatsError(f"{path}: not JSON") from error
    if not isinstance(rows, list) or not rows or not all(
            isinstance(row, dict) and isinstance(row.get("counters"), dict) and "connection" in row for row in rows):
        raise StatsError(f"{path}: no result of `emplace replay --json`")
    return rows


def _columns(lines):
    """Aligned: the first column to the right, as numbers are, the others to the left."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return ["  " + "  ".join(cell.rjust(width) if n == 0 else cell.ljust(width)
                             for n, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines]


def counter_lines(counters, *, everything=False):
    """Counters by layer: value, name, the OS's name, meaning. Those that are 0 only if ``everything``."""
    lines = []
    for layer in dict.fromkeys(counter.layer for counter in abi.COUNTERS):
        rows = [(str(counters[c.name]), c.name, os_name(c.name), c.doc) for c in abi.COUNTERS
                if c.layer == layer and c.name in counters and (everything or counters[c.name])]
        if rows:
            lines += [layer, *_columns(rows)]
    return lines


def bus_lines(bus):
    rows = [("bytes", "transactions", "header bytes", "direction", "purpose")]
    rows += [(str(row["bytes"]), str(row["transactions"]), str(row["header_bytes"]), direction, purpose)
             for direction, purposes in bus.items() for purpose, row in purposes.items()]
    return _columns(rows) if len(rows) > 1 else []


def _member(cls, value):
    return cls(value).name if value in [member.value for member in cls] else f"{value} (unknown)"


def history_line(entry):
    """One event of a connection: tick, kind, what its detail means, the segment."""
    kind, detail = _member(HistoryKind, entry["kind"]), entry["detail"]
    text = f"{entry['now']:>10} {kind:<9}"
    if kind == "FAILED":
        text += f" {_member(Reason, detail)}"
    elif kind in ("STATE", "INSTALLED"):
        text += f" {_member(QpState, detail)}"
    elif kind == "DROPPED":
        text += f" {abi.COUNTERS[detail].name if detail < len(abi.COUNTERS) else detail}"
    elif kind in ("IN_ORDER", "HELD", "FIN"):
        text += f" {detail} bytes"
    elif kind == "ACK_SENT" and detail:
        text += f" {detail} SACK blocks"
    if entry["flags"] or entry["seq"] or entry["ack"]:
        flags = [name for n, name in enumerate(_FLAGS) if entry["flags"] >> n & 1]
        text += f" seq {entry['seq']} ack {entry['ack']} {' '.join(flags)}"
    return text.rstrip()


def sample_line(frame):
    """A frame's first bytes as scapy sums them up."""
    from scapy.layers.l2 import Ether
    frame = bytes(frame)
    if len(frame) < 14 or not any(frame):
        return frame.hex()
    return Ether(frame).summary()


def report(rows, *, everything=False):
    """Text for all rows; counters, bus and samples once a run, a history for each connection."""
    runs = {}
    for row in rows:
        runs.setdefault((row.get("capture"), row.get("role"), row.get("recut")), []).append(row)
    lines = []
    for (capture, role, recut), connections in runs.items():
        first = connections[0]
        what = f"{capture} as {role}" if capture else "run"
        lines += [f"{what}{'' if recut is None else f', cut anew ({recut})'}: {first.get('cycles', '?')} cycles", ""]
        lines += counter_lines(first["counters"], everything=everything) or ["no counter has moved"]
        bus = bus_lines(first.get("bus") or {})
        if bus:
            lines += ["", "bus", *bus]
        for row in connections:
            if row.get("history"):
                lines += ["", f"history of {row['connection']} (tick, event)", *map(history_line, row["history"])]
        samples = first.get("samples") or {}
        if samples:
            lines += ["", "last frame of each counter that dropped one or gave it to the host",
                      *_columns([("", name, sample_line(bytes.fromhex(frame))) for name, frame in samples.items()])]
        lines.append("")
    return "\n".join(lines[:-1])


def _is_capture(path):
    try:
        with open(path, "rb") as file:
            return file.read(4) in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a")
    except OSError:
        return False


def main(arguments):
    """Exit code of ``emplace stats``: 0, or 2 if there is nothing to show."""
    try:
        if _is_capture(arguments.run_file):
            from .replay_cli import plans_for, replay
            rows = replay(plans_for(arguments.run_file, [arguments.role]), profile=arguments.profile)
        else:
            rows = load(arguments.run_file)
        text = report(rows, everything=arguments.all)
    except (StatsError, CaptureError) as error:
        print(f"emplace stats: {error}", file=sys.stderr)
        return 2
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        print(f"emplace stats: {arguments.run_file}: malformed result ({type(error).__name__}: {error})", file=sys.stderr)
        return 2
    print(text)
    return 0
