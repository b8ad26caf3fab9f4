"""Traffic that a Linux kernel made, through the whole card: every byte, completion, event and ACK as the capture has it."""

import json

import pytest

from emplace_sim.demo import CAPTURES, replayable
from emplace_sim.replay_cli import plans_for, replay
from emplace_sim.tshark import MISSING, read

pytestmark = pytest.mark.cocotb
NAMES = [path.name for path in replayable()]
#: Small enough to be cut anew many times: Sends and Reads, split CRCs, loss, reordering.
RECUT = ("05_rping_4096_crc.pcap", "06_rping_33_crc_odd.pcap", "13_read_bw_4096_nocrc.pcap",
         "20_rping_4096_drop.pcap", "41_pyserver_rping_3000_crc.pcap")


def run(plans, folder):
    rows = replay(plans, root=folder, log=False)
    bad = [f"{row['connection']} as {row['role']}: {row['problems']}" for row in rows if not row["ok"]]
    assert rows and not bad, "\n".join(bad)
    assert all(row["mismatched_bytes"] == 0 for row in rows)
    return rows


def test_the_issue_s_captures_are_all_here():
    numbers = {name[:2] for name in NAMES}
    assert numbers == {f"{n:02}" for n in (*range(1, 8), *range(9, 18), *range(20, 24), 40, 41, 42)}


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("part", range(4))
def test_as_captured(part, stall, tmp_path):
    plans = [plan for name in NAMES[part::4] for plan in plans_for(CAPTURES / name, ["client", "server"], stall=stall)]
    rows = run(plans, tmp_path)
    landed = sum(row["placed_bytes"] + row["send_bytes"] + row["read_response_bytes"] for row in rows)
    assert landed > 50_000


@pytest.mark.parametrize("name", RECUT)
def test_cut_anew(name, tmp_path):
    run(plans_for(CAPTURES / name, ["client", "server"], recuts=range(1, 11)), tmp_path)


def test_cut_anew_under_stalls(tmp_path):
    run([plan for name in RECUT[:2]
         for plan in plans_for(CAPTURES / name, ["client", "server"], recuts=range(11, 16), stall=0.3)], tmp_path)


@pytest.mark.skipif(bool(MISSING), reason=str(MISSING))
def test_tshark_finds_every_fpdu_and_nothing_wrong(tmp_path):
    """Wireshark's dissectors read the tap: no malformed frame, no wrong checksum or CRC, and each FPDU that the card took."""
    names = ("02_rping_64_crc.pcap", "11_send_bw_8192_crc.pcap", "13_read_bw_4096_crc.pcap", "12_write_bw_4096_crc.pcap")
    rows = run([plan for name in names for plan in plans_for(CAPTURES / name, ["client", "server"])], tmp_path)
    taps = sorted(tmp_path.rglob("wire.pcapng"))
    assert len(taps) == 2 * len(names)
    seen = [read(tap) for tap in taps]
    for tap, reading in zip(taps, seen, strict=True):
        results = json.loads((tap.parent / "results.json").read_text())
        assert reading.fpdus == reading.good == sum(row["fpdus"] for row in results) > 3, tap
        assert reading.bad == 0 and reading.wrong == [] and reading.frames > 10, tap
    assert sum(reading.fpdus for reading in seen) == sum(row["fpdus"] for row in rows)


def test_results_are_complete(tmp_path):
    """What the command line promises for --json."""
    rows = run(plans_for(CAPTURES / "12_write_bw_4096_crc.pcap", ["server"]), tmp_path)
    wanted = {"connection", "role", "frames", "segments", "fpdus", "fast_path_segments", "placed_bytes", "send_bytes",
              "read_response_bytes", "mismatched_bytes", "completions", "crc_errors", "acks_sent", "counters"}
    assert len(rows) == 2 and all(wanted <= row.keys() for row in rows)
    folder = next(tmp_path.iterdir())
    ledger = json.loads((folder / "ledger.json").read_text())
    assert ledger
