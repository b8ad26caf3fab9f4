"""DDP alone, against the golden model: no RDMAP, no MPA."""

import random
import subprocess
import sys
from dataclasses import asdict

import pytest
from amaranth.sim import Simulator

from emplace.config import PROFILES
from emplace.control.records import RecordKind, TokenOp
from emplace.ddp.layer import Ddp
from emplace.llp import UlpduStatus
from emplace_sim.rdmap_model import READ_RESPONSE, SEND, WRITE, DdpModel, read_request, tagged, terminate, untagged

TINY = PROFILES["tiny"]
FIELDS = ("tagged", "last", "ulp", "stag", "to", "qn", "msn", "mo", "skip", "payload", "runt", "bad_version", "bad_qn",
          "bad_msn", "bad_mo")


def run(steps, *, stall=0.0, seed=1):
    """Play ``steps``: ("install", slot, fields), ("upload", slot), or (slot, FPDU). Returns the records that came
    out, as dicts, what ``upload`` held at each UPLOAD, and the cycles taken."""
    dut = Ddp(TINY)
    rng = random.Random(seed)
    out, uploads, cycles = [], [], 0

    async def source(ctx):
        for step in steps:
            while rng.random() < stall:
                await ctx.tick()
            record = {"kind": RecordKind.DATA, "status": UlpduStatus.OK}
            if step[0] == "install":
                ctx.set(dut.cmd, step[2])
                record = {"kind": RecordKind.TOKEN, "token": {"op": TokenOp.INSTALL, "qp": step[1]}}
            elif step[0] == "upload":
                record = {"kind": RecordKind.TOKEN, "token": {"op": TokenOp.UPLOAD, "qp": step[1]}}
            else:
                slot, fpdu = step
                header = (fpdu + rng.randbytes(48))[:48]
                record |= {"qp": slot, "length": len(fpdu) - 2, "claimed": len(fpdu) & 1,
                           "header": int.from_bytes(header, "little")}
            ctx.set(dut.ulpdus.payload, record)
            ctx.set(dut.ulpdus.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.ulpdus.ready)
            ctx.set(dut.ulpdus.valid, 0)

    async def sink(ctx):
        nonlocal cycles
        for step in steps:
            while rng.random() < stall:
                await ctx.tick()
                cycles += 1
            ctx.set(dut.segments.ready, 1)
            got = None
            while got is None:
                cycles += 1
                _, _, valid, got = await ctx.tick().sample(dut.segments.valid, dut.segments.payload)
                got = got if valid else None
                assert cycles < 100_000, "nothing came out"
            ctx.set(dut.segments.ready, 0)
            if step[0] == "upload":
                uploads.append((ctx.get(dut.upload.recv_msn), ctx.get(dut.upload.recv_read_msn)))
            out.append({name: int(got[name]) for name in (*FIELDS, "qp", "header", "claimed", "length")}
                       | {"kind": got.kind, "op": got.token.op})

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(source)
    sim.add_testbench(sink)
    sim.run()
    return out, uploads, cycles


def expected(steps):
    model, want = DdpModel(), []
    for step in steps:
        if step[0] == "install":
            model.install(step[1], **step[2])
            want.append(None)
        elif step[0] == "upload":
            want.append(None)
        else:
            slot, fpdu = step
            want.append({name: int(value) for name, value in asdict(
                model.segment(slot, fpdu.ljust(48, b"\0"), len(fpdu) - 2)).items()} | {
                    "qp": slot, "claimed": len(fpdu) & 1, "length": len(fpdu) - 2})
    return want, model


def compare(steps, **kw):
    out, uploads, cycles = run(steps, **kw)
    want, model = expected(steps)
    for step, got, wanted in zip(steps, out, want, strict=True):
        if wanted is None:
            assert got["kind"] == RecordKind.TOKEN and got["qp"] == step[1]
            continue
        assert got["kind"] == RecordKind.DATA
        assert got["header"].to_bytes(48, "little").startswith(step[1][:48])
        # Untagged, what overlaps `to` is still decoded from the bytes; beyond a short ULPDU's end it may be anything.
        skip = {"to"} if not wanted["tagged"] else {"qn", "msn", "mo"}
        if wanted["runt"]:
            skip |= {"stag", "to", "qn", "msn", "mo", "ulp", "bad_msn", "bad_mo", "bad_qn"}
        for name, value in wanted.items():
            # The sequence on a queue that does not exist is nobody's business.
            if name not in skip and not (name == "bad_msn" and wanted["bad_qn"]):
                assert got[name] == value, (name, step)
    return uploads, model, cycles


INSTALL = ("install", 3, {"recv_msn": 1, "recv_read_msn": 1})


def test_worked_examples():
    # Bytes of protocol examples: Write "HELLO", zero-length Write, Read Request, Send, Send with Invalidate.
    ulpdus = ["0013c14012345678000000010000004048454c4c4f", "000ec140000000010000000000000000",
              "002e414100000000000000010000000100000000 0000a10100007f0000001000000010000000b20200007f0000002000",
              "0022414300000000000000000000000100000000 00007f00000010000000b20200000040",
              "000e4144"]
    steps = [INSTALL] + [(3, bytes.fromhex(text)) for text in ulpdus[:4]]
    out, _, _ = run(steps)
    write, empty, read, send = out[1:]
    assert (write["tagged"], write["last"], write["ulp"], write["stag"], write["to"], write["payload"], write["skip"]) \
        == (1, 1, 0x40, 0x12345678, 0x0000000100000040, 5, 16)
    assert (empty["payload"], empty["stag"]) == (0, 1)
    assert (read["tagged"], read["qn"], read["msn"], read["mo"], read["payload"], read["skip"]) == (0, 1, 1, 0, 28, 20)
    assert (send["qn"], send["msn"], send["payload"]) == (0, 1, 16)
    assert not any(record[name] for record in out[1:] for name in FIELDS if name.startswith("bad_") or name == "runt")
    compare(steps)


def test_messages_of_many_qps_interleave():
    rng = random.Random(5)
    msn = {slot: [rng.choice((1, 7, 0xFFFFFFFE)), rng.choice((1, 0xFFFFFFFF)), 1] for slot in range(6)}
    octets = dict.fromkeys(msn, 0)
    steps = [("install", slot, {"recv_msn": first[0], "recv_read_msn": first[1]}) for slot, first in msn.items()]
    for _ in range(150):
        slot = rng.randrange(6)
        kind = rng.randrange(4)
        if kind == 0:
            steps.append((slot, tagged(WRITE, rng.getrandbits(32), rng.getrandbits(64), rng.randbytes(rng.randrange(99)),
                                       last=rng.random() < 0.5)))
        elif kind == 1:
            steps.append((slot, read_request(msn[slot][1])))
            msn[slot][1] = (msn[slot][1] + 1) % 2**32
        else:
            last, payload = rng.random() < 0.5, rng.randbytes(rng.randrange(99))
            steps.append((slot, untagged(SEND, msn[slot][0], payload, mo=octets[slot], last=last)))
            octets[slot] = 0 if last else octets[slot] + len(payload)
            msn[slot][0] = (msn[slot][0] + last) % 2**32
    # All legal: none may be found bad.
    want, _ = expected(steps)
    assert not any(w and (w["bad_msn"] or w["bad_mo"] or w["bad_qn"] or w["bad_version"] or w["runt"]) for w in want)
    steps += [("upload", slot) for slot in msn]
    uploads, _, _ = compare(steps, stall=0.4, seed=3)
    assert uploads == [(first[0], first[1]) for first in msn.values()]


def test_anything_at_all():
    """Headers with random faults: every verdict as in the model, and never a hang."""
    rng = random.Random(9)
    steps = [("install", slot, {"recv_msn": 1, "recv_read_msn": 1}) for slot in range(2)]
    for _ in range(250):
        fpdu = rng.choice((
            lambda: untagged(rng.randrange(16), rng.randrange(3), rng.randbytes(rng.randrange(9)), dv=rng.choice((1, 1, 0, 3)),
                             qn=rng.choice((0, 0, 1, 2, 3, 2**32 - 1, 1 << 16)), mo=rng.choice((0, 0, 4, 2**31)),
                             last=rng.random() < 0.6),
            lambda: tagged(rng.choice((WRITE, READ_RESPONSE, SEND)), 5, 6, rng.randbytes(3), dv=rng.choice((1, 2))),
            lambda: rng.randbytes(rng.randrange(3, 40)),
            lambda: terminate(msn=rng.randrange(3)),
        ))()
        steps.append((rng.randrange(2), fpdu))
    # A ULPDU shorter than its header moves what is believed about the stream in ways that nobody looks at.
    steps = [step for step in steps if step[0] == "install" or len(step[1]) >= (16 if step[1][2] & 0x80 else 20)]
    compare(steps, stall=0.2)


@pytest.mark.parametrize("length", [3, 10, 15, 19])
def test_ulpdu_shorter_than_its_header(length):
    fpdu = untagged(SEND, 1)[:length]
    out, _, _ = run([INSTALL, (3, fpdu), (3, tagged(WRITE, 1, 2)[:min(length, 15)])])
    assert [record["runt"] for record in out[1:]] == [1, 1]
    assert [record["payload"] for record in out[1:]] == [0, 0]


def test_reinstalled_qp_starts_afresh():
    steps = [INSTALL, (3, untagged(SEND, 1, b"abc", last=False)), (3, read_request(1)), (3, terminate()),
             ("install", 3, {"recv_msn": 9, "recv_read_msn": 8}), ("upload", 3),
             (3, untagged(SEND, 9)), (3, read_request(8)), (3, terminate()), ("upload", 3)]
    uploads, _, _ = compare(steps)
    assert uploads == [(9, 8), (10, 9)]


def test_stands_alone():
    """DDP must not need what is above or below it (design: another LLP can come)."""
    code = ("import sys; import emplace.ddp.layer; layers = ('emplace.tcp', 'emplace.mpa', 'emplace.rdmap'); "
            "bad = [name for name in sys.modules if name.startswith(layers)]; assert not bad, bad")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_three_cycles_a_segment():
    steps = [INSTALL] + [(3, tagged(WRITE, 1, 2, bytes(64)))] * 50
    _, _, few = run(steps[:11])
    _, _, many = run(steps)
    assert (many - few) / 40 <= 3
