"""Replays against tests.sim.model_card: a card that does all right passes, one that does not is found out."""

import tempfile
from pathlib import Path

import cocotb
from tests.sim.model_card import FAULTS, ModelCard

from emplace.config import PROFILES
from emplace_sim.capture import ACK, SYN, read_frames
from emplace_sim.replay_cli import plans_for
from emplace_sim.replay_run import PlanRun
from emplace_sim.tshark import MISSING, read

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
CONFIG = PROFILES["default"]


async def carry_out(dut, name, role, *, faults=(), folder=None, **options):
    with tempfile.TemporaryDirectory() as temporary:
        plan, = plans_for(CAPTURES / f"{name}.pcap", [role], **options)
        run = PlanRun(dut, CONFIG, plan, folder or temporary)
        card = ModelCard(dut, CONFIG, run.memory, faults=faults)
        rows = await run.carry_out()
        card.stop()
    return rows


@cocotb.test()
@cocotb.parametrize(
    (("name", "role", "options"), [
        ("05_rping_4096_crc", "client", {}), ("05_rping_4096_crc", "server", {}), ("07_rping_64_p2p_crc", "server", {}),
        ("11_send_bw_8192_crc", "server", {}), ("20_rping_4096_drop", "server", {"recuts": (1,)}),
        ("21_write_bw_20000_drop_crc", "server", {}), ("23_read_bw_8192_netem5_crc", "client", {"stall": 0.2}),
        ("41_pyserver_rping_3000_crc", "client", {"recuts": (2,)}), ("42_py_badcrc", "server", {}),
        ("42_py_badread", "server", {}), ("42_py_badstag", "client", {}), ("42_py_badstag", "server", {}),
        ("17_write_bw_20000_x3_crc", "server", {"recuts": (3,)})]))
async def good(dut, name, role, options):
    rows = await carry_out(dut, name, role, **options)
    for row in rows:
        assert row["ok"], row["problems"]
        assert row["mismatched_bytes"] == 0 and row["retransmitted_segments"] == 0
        assert row["acks_sent"] > 0 or name.startswith("42")
    if name.startswith("21"):
        assert [row["placed_bytes"] for row in rows] == [0, 100000]
        assert all(row["fast_path_segments"] > 0 for row in rows)
    if name.startswith("05"):
        key = "placed_bytes" if role == "client" else "read_response_bytes"
        assert rows[0][key] == 3 * 4096 and rows[0]["send_bytes"] == 96


@cocotb.test()
@cocotb.parametrize(fault=list(FAULTS))
async def bad(dut, fault):
    rows = await carry_out(dut, "05_rping_4096_crc", "client", faults=[fault])
    if fault == "lose":                      # a lost segment is legal: the peer sends it again
        assert rows[0]["ok"] and rows[0]["retransmitted_segments"] > 0, rows[0]["problems"]
    else:
        assert any(FAULTS[fault] in problem for problem in rows[0]["problems"]), rows[0]["problems"]
        assert not rows[0]["ok"]


@cocotb.test()
async def taps(dut):
    with tempfile.TemporaryDirectory() as folder:
        rows = await carry_out(dut, "05_rping_4096_crc", "client", folder=folder)
        frames = read_frames(Path(folder) / "wire.pcapng")
        handshake = [f for f in frames if f.flags & SYN or f.payload[:3] == b"MPA"]
        assert [(f.flags & (SYN | ACK), f.payload[:10]) for f in handshake] == \
            [(SYN, b""), (SYN | ACK, b""), (ACK, b"MPA ID Req"), (ACK, b"MPA ID Rep")]
        assert len(frames) == rows[0]["frames"] + rows[0]["acks_sent"] + 6       # two bare ACKs among the latter
        if not MISSING:                      # the peer's FPDUs, dissected: 3 Read Requests, 6 Sends, 9 Writes
            seen = read(Path(folder) / "wire.pcapng")
            assert (seen.opcodes, seen.good, seen.bad, seen.wrong) == ([1, 3, 0, 0, 0, 3] * 3, 18, 0, []), seen
        log = (Path(folder) / "bus.log").read_text().splitlines()
        assert any("payload.write.0" in line for line in log)
        assert '"payload.write.0"' in (Path(folder) / "ledger.json").read_text()
