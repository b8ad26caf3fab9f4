"""Tables of the host interface as Markdown, from abi.py: ``python tools/interface_tables.py FOLDER``."""

import enum
import sys
from pathlib import Path

from amaranth.lib import data

from emplace import abi
from emplace.config import PROFILES
from emplace_sim.statistics import ETHER_STATS, ETHTOOL


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head),
                      *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)]) + "\n"


def record(layout):
    """Byte and bit of every field."""
    rows = []
    for name, field in layout:
        if name.startswith("pad") or name == "reserved":
            continue
        shape = field.shape
        text = f"{shape.length} x {shape.elem_shape if isinstance(shape.elem_shape, int) else 'record'}" \
            if isinstance(shape, data.ArrayLayout) else str(field.width)
        at = f"{field.offset // 8}" + (f".{field.offset % 8}" if field.offset % 8 else "")
        rows.append((f"`{name}`", at, text))
    return table(("field", "byte", "bits"), rows) + f"\n{abi.nbytes(layout)} bytes.\n"


def enumeration(cls):
    rows = [(member.value, f"`{member.name}`") for member in cls]
    return table(("value", "name"), rows)


def pages():
    yield "registers", table(("offset", "register", "access", "meaning"),
                             [(f"0x{r.offset:03x}", f"`{name}`", r.access, r.doc) for name, r in abi.REGISTERS.items()])
    yield "doorbells", table(("offset in the page", "doorbell"),
                             [(f"0x{d.value:02x}", f"`{d.name}`") for d in abi.Doorbell]) + "\n" + record(abi.DoorbellLayout)
    parts = []
    for opcode, layout in abi.COMMANDS.items():
        parts.append(f"### {opcode.name} ({opcode.value})\n\n{record(layout)}")
    yield "commands", "\n".join(parts)
    yield "status", enumeration(abi.Status)
    for name in ("AdminCompletion", "Upload", "Cqe", "Event", "Sge", "FrameRxDescriptor", "FrameRxCompletion",
                 "FrameTxDescriptor", "FrameTxHead"):
        yield name.lower(), record(getattr(abi, name))
    yield "history", record(abi.History.elem_shape)
    for name in ("WcOpcode", "WcStatus", "EventType", "Access", "QpFlags", "QpState", "FrameControl", "MacControl",
                 "FrameReason", "FrameFlags", "FrameTxFlags", "HistoryKind"):
        cls = getattr(abi, name)
        assert issubclass(cls, enum.Enum)
        yield name.lower(), enumeration(cls)
    rows = []
    for reason in abi.Reason:
        code = abi.TERMINATE[reason]
        rows.append((reason.value, f"`{reason.name}`", "none" if code is None else
                     f"{code >> 12:x}/{code >> 8 & 15:x}/{code & 255:02x}"))
    yield "reasons", table(("value", "reason", "Terminate (layer/type/code)"), rows)
    yield "counters", table(("offset", "layer", "counter", "meaning"),
                            [(f"0x{abi.COUNTER_PAGE + 4 * n:04x}", c.layer, f"`{c.name}`", c.doc)
                             for n, c in enumerate(abi.COUNTERS)])
    for name, names in (("etherstats", ETHER_STATS), ("ethtool", ETHTOOL)):
        yield name, table(("name", "counters"), [(f"`{known}`", " + ".join(
            (f"{factor} * " if factor > 1 else "") + f"`{counter}`" for counter, factor in parts.items()))
            for known, parts in names.items()])
    sizes = [f for f in PROFILES["default"].__dataclass_fields__ if f != "name"]
    yield "profiles", table(("size", *PROFILES), [(f"`{f}`", *(getattr(p, f) for p in PROFILES.values())) for f in sizes])


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
