"""Block RAM answers anything to a read of a row that is being written: nobody may look."""

import subprocess
import sys
from pathlib import Path

from amaranth.hdl import Module
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from emplace_sim import area, collide

ROOT = Path(__file__).parents[2]


def pytest_run(*folders):
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "emplace_sim.collide", *folders], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_layers_with_spoiled_reads():
    """Layers whose tests take little time; the rest likewise: ``pytest -p emplace_sim.collide tests``."""
    run = pytest_run("tests/ddp", "tests/stats", "tests/stream/test_queue.py")
    assert run.returncode == 0, run.stdout[-3000:]


def test_spoiling(monkeypatch):
    """What a collision says is the row's complement, and nothing else changes."""
    monkeypatch.setattr(Memory, "elaborate", collide._elaborate)
    heard = {}
    for attribute in ({}, {"reads_collide": 1}):
        m = Module()
        m.submodules.store = store = Memory(shape=8, depth=4, init=[1, 2, 3, 4], attrs=attribute)
        read, write = store.read_port(), store.write_port()

        async def bench(ctx, read=read, write=write, name=bool(attribute)):
            ctx.set(write.addr, 2)
            ctx.set(write.data, 0x55)
            got = []
            for at, writes in ((1, 0), (2, 1), (2, 0)):
                ctx.set(read.addr, at)
                ctx.set(write.en, writes)
                await ctx.tick()
                got.append(ctx.get(read.data))
            heard[name] = got
        sim = Simulator(m)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()
    assert heard == {False: [2, 3 ^ 0xFF, 0x55], True: [2, 3, 0x55]}


def test_masks():
    """Yosys is told so of every synchronous port of every memory without the attribute, and of no other."""
    def memory(name):
        return f"  memory width 8 size 4 \\{name}\n"

    def port(name, clocked, transparent="2'00"):
        return (f'  cell $memrd_v2 $1\n    parameter \\MEMID "\\\\{name}"\n    parameter \\TRANSPARENCY_MASK {transparent}\n'
                f"    parameter \\COLLISION_X_MASK 2'00\n    parameter \\CLK_ENABLE {clocked}\n  end\n")
    il = "".join(("module \\a\n", memory("free"), "  attribute \\reads_collide 1\n", memory("own"),
                  port("free", 1), port("free", 0), port("free", 1, "2'01"), port("own", 1), "end\n"))
    masks = [line.split()[2] for line in area._let_collide(il).splitlines() if "COLLISION_X_MASK" in line]
    assert masks == ["2'11", "2'00", "2'10", "2'00"]
