"""Captured traffic of Linux siw through the whole simulated card: what lands must be what the capture has."""

from pathlib import Path

import pytest

from emplace_sim.replay_cli import plans_for, replay, table

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
#: All but those whose MPA negotiation failed.
FILES = [path.stem for path in sorted(CAPTURES.glob("*.pcap")) if not path.stem.startswith(("30_", "31_"))]
#: One simulation each: what is replayed how.
RUNS = {
    "as_captured": (FILES, {}, "default"),
    "stalls": (["05_rping_4096_crc", "13_read_bw_4096_crc", "22_write_bw_20000_reorder_dup_crc"], {"stall": 0.3}, "default"),
    "recut": (["02_rping_64_crc", "11_send_bw_8192_crc", "13_read_bw_4096_nocrc", "41_pyserver_rping_3000_crc"],
              {"recuts": (1, 2)}, "default"),
    "recut_stalls": (["20_rping_4096_drop", "23_read_bw_8192_netem5_crc"], {"recuts": (3,), "stall": 0.3}, "default"),
    "tiny": (["05_rping_4096_crc", "11_send_bw_8192_crc", "23_read_bw_8192_netem5_crc"], {"recuts": (None, 4)}, "tiny"),
}


@pytest.mark.cocotb
@pytest.mark.xdist_group("card")
@pytest.mark.parametrize("run", RUNS)
def test_replay(run, tmp_path):
    names, options, profile = RUNS[run]
    plans = [plan for name in names for plan in plans_for(CAPTURES / f"{name}.pcap", ["client", "server"], **options)]
    rows = replay(plans, profile=profile, root=tmp_path)
    bad = [row for row in rows if not row["ok"]]
    assert not bad, "\n" + table(bad)
    assert len(rows) == sum(len(plan.connections) for plan in plans)
    if run == "as_captured":
        assert sum(row["placed_bytes"] for row in rows) == sum(
            connection.placed("write") for plan in plans for connection in plan.connections) > 370_000
        assert sum(row["fast_path_segments"] for row in rows) > 0
