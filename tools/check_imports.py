"""Import rules of the project, checked without importing anything.

- The gateware (emplace) imports nothing of emplace_sim, except the command line, which may at run time.
- Models and peers (emplace_sim) import nothing of the gateware but abi and config; what runs beside a
  simulated design (listed in BRIDGE) may import it.
- A lower layer imports no higher one; ddp knows nothing of tcp or mpa.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HDL = ROOT / "hdl" / "emplace"
SIM = ROOT / "sim" / "emplace_sim"

#: Importable by every layer.
SHARED = {"abi", "config", "llp", "stream", "control.records"}
#: What a layer may import beside itself and SHARED.
LAYERS = {
    "stream": set(),
    "mac": set(),
    "ip": {"mac"},
    "tcp": {"mac", "ip"},
    "mpa": {"mac", "ip", "tcp"},
    "ddp": set(),
    "dma": set(),
    "protect": {"dma"},
    "queues": {"dma", "protect"},
    "rdmap": {"ddp", "dma", "protect", "queues"},
    "frames": {"mac", "ip", "dma", "queues"},
    "stats": set(),
    "control": {"mac", "ip", "dma", "protect", "queues", "stats", "rdmap", "frames"},
}
#: Modules of emplace_sim that drive or build a design: harness, not model.
BRIDGE = {"build", "pysim", "cocotb_stream", "prove", "proofs", "mutate", "bench", "bench_run", "micro", "area", "demo",
          "replay_run", "system", "peer_host"}
#: Parts of the gateware's package that hold facts only.
FACTS = {"emplace.abi", "emplace.config"}


def imports(path, package):
    """(line, absolute dotted module) of each import in ``path``, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[:len(parts) - node.level + 1] + ([base] if base else []))
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def package_of(path, root, name):
    return ".".join([name, *path.relative_to(root).parent.parts])


def check():
    problems = []
    for path in sorted(HDL.rglob("*.py")):
        parts = path.relative_to(HDL).parts
        layer = parts[0] if len(parts) > 1 else None
        for line, module in imports(path, package_of(path, HDL, "emplace")):
            where = f"{path.relative_to(ROOT)}:{line}"
            if module.split(".")[0] == "emplace_sim" and path != HDL / "cli.py":
                problems.append(f"{where}: gateware imports {module}")
            if not module.startswith("emplace.") or layer not in LAYERS:
                continue
            inner = module.removeprefix("emplace.")
            target = inner.split(".")[0]
            if target == layer or any(inner == s or inner.startswith(s + ".") for s in SHARED):
                continue
            if target == "control" and inner == "control":
                continue               # "from ..control.records import": the prefix of an allowed import
            if target not in LAYERS[layer]:
                problems.append(f"{where}: layer {layer} imports {module}")
    for path in sorted(SIM.rglob("*.py")):
        if path.relative_to(SIM).parts[0].removesuffix(".py") in BRIDGE:
            continue
        for line, module in imports(path, package_of(path, SIM, "emplace_sim")):
            if module.split(".")[0] != "emplace" or module == "emplace":
                continue
            if not any(module == fact or module.startswith(fact + ".") for fact in FACTS):
                problems.append(f"{path.relative_to(ROOT)}:{line}: model imports gateware {module}")
    return problems


if __name__ == "__main__":
    found = check()
    print("\n".join(found) if found else "imports: all rules hold")
    sys.exit(bool(found))
