"""Captures through the smallest card: 8-byte TLP streams, 4 expected reads a QP, 16 QPs.

The default card: tests/system/test_replay.py.
"""

from pathlib import Path

import pytest

from emplace_sim.replay_cli import plans_for, replay, table

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
NAMES = ("05_rping_4096_crc", "11_send_bw_8192_crc", "21_write_bw_20000_drop_crc", "23_read_bw_8192_netem5_crc")


@pytest.mark.cocotb
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_tiny(stall, tmp_path):
    plans = [plan for name in NAMES
             for plan in plans_for(CAPTURES / f"{name}.pcap", ["client", "server"], recuts=(None, 4), stall=stall)]
    rows = replay(plans, profile="tiny", root=tmp_path, log=False)
    bad = [row for row in rows if not row["ok"]]
    assert not bad, "\n" + table(bad)
    assert len(rows) == sum(len(plan.connections) for plan in plans)
