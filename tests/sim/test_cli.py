"""``emplace replay`` without a simulation: its arguments and its refusals."""

from pathlib import Path

import pytest

from emplace.cli import main
from emplace_sim.replay_cli import _folder, plans_for, table

CAPTURES = Path(__file__).resolve().parents[1] / "captures"


@pytest.mark.parametrize("name, why", [("31_no_listener", "no MPA request"), ("30_mpa_reject_crc_strict", "rejected"),
                                       ("missing", "no such file")])
def test_nothing_to_replay(capsys, name, why):
    assert main(["replay", str(CAPTURES / f"{name}.pcap")]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["replay"], ["replay", "x", "--as", "both"], ["replay", "x", "--stall", "1.5"],
                                       ["replay", "x", "--profile", "huge"], ["teleport"], []])
def test_bad_arguments(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_plans_and_folders():
    plans = plans_for(CAPTURES / "17_write_bw_20000_x3_crc.pcap", ["client", "server"], recuts=(None, 5), stall=0.25)
    assert [str(_folder("r", plan)) for plan in plans] == [
        "r/17_write_bw_20000_x3_crc-client-stall25", "r/17_write_bw_20000_x3_crc-client-recut5-stall25",
        "r/17_write_bw_20000_x3_crc-server-stall25", "r/17_write_bw_20000_x3_crc-server-recut5-stall25"]


def test_table():
    row = dict.fromkeys(("frames", "fpdus", "placed_bytes", "send_bytes", "read_response_bytes", "completions",
                         "acks_sent", "mismatched_bytes", "cycles"), 1)
    row |= {"connection": "a - b", "role": "server", "fast_path_segments": None, "ok": False, "problems": ["too slow"]}
    text = table([row]).splitlines()
    assert text[0].split()[:2] == ["connection", "role"] and text[1].endswith("FAILED") and "too slow" in text[2]
