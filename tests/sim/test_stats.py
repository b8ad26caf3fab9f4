"""``emplace stats``: what it prints of a run, and its refusals."""

import json
from pathlib import Path

import pytest

from emplace import abi
from emplace.abi import HistoryKind, QpState, Reason
from emplace.cli import main
from emplace_sim import sender
from emplace_sim.names import OS_NAMES
from emplace_sim.stats import history_line, report, sample_line


def row(**more):
    counters = dict.fromkeys((counter.name for counter in abi.COUNTERS), 0) | {
        "rx_frames": 12, "rx_tcp_checksum": 3, "err_stag": 1}
    entry = {"kind": 0, "detail": 0, "flags": 0, "seq": 0, "ack": 0, "now": 0}
    return {
        "connection": "10.0.0.2:4 - 10.0.0.1:5", "role": "server", "capture": "x.pcap", "recut": None, "cycles": 4321,
        "counters": counters, "bus": {"write": {"payload": {"transactions": 2, "bytes": 300, "header_bytes": 32}}},
        "history": [entry | {"kind": 1, "detail": QpState.RTS}, entry | {"kind": 8, "detail": Reason.STAG, "now": 77}],
        "samples": {"rx_tcp_checksum": sender.Flow().frame(b"hello").ljust(64, b"\0")[:64].hex()}, **more}


def test_report():
    lines = report([row(), row(connection="another", history=[])]).splitlines()
    assert lines[0] == "x.pcap as server: 4321 cycles"
    assert any(
        line.split()[:4] == ["12", "rx_frames", "eth-mac", "FramesReceivedOK"] for line in lines)
    assert any(line.split()[:3] == ["3", "rx_tcp_checksum", "TcpInCsumErrors"] for line in lines)
    assert any(line.split() == ["300", "2", "32", "write", "payload"] for line in lines)
    assert any(line.split() == ["77", "FAILED", "STAG"] for line in lines)
    assert any("rx_tcp_checksum" in line and "10.0.0.2:20000 > 10.0.0.1:30000" in line for line in lines)
    # Layers in the order of packets; a counter that has not moved is left out; one run is shown once.
    assert [line for line in lines if line in ("mac", "ip", "rdmap", "bus")] == ["mac", "ip", "rdmap", "bus"]
    assert not any("rx_fragments" in line for line in lines)
    assert lines.count("mac") == 1 and sum(line.startswith("history of") for line in lines) == 1
    everything = report([row()], everything=True)
    assert all(counter.name in everything for counter in abi.COUNTERS)


@pytest.mark.parametrize("kind, detail, text", [
    (HistoryKind.FAILED, Reason.BOUNDS, "FAILED    BOUNDS"), (HistoryKind.STATE, QpState.ERROR, "STATE     ERROR"),
    (HistoryKind.HELD, 1448, "HELD      1448 bytes"), (HistoryKind.ACK_SENT, 2, "ACK_SENT  2 SACK blocks"),
    (HistoryKind.DROPPED, 0, "DROPPED   rx_frames"), (HistoryKind.DROPPED, 60000, "DROPPED   60000"),
    (HistoryKind.RST, 0, "RST"), (200, 0, "200 (unknown)"), (HistoryKind.FAILED, 250, "FAILED    250 (unknown)")])
def test_history_lines(kind, detail, text):
    entry = {"kind": int(kind), "detail": int(detail), "flags": 0, "seq": 0, "ack": 0, "now": 5}
    assert history_line(entry) == f"{5:>10} {text}"
    assert history_line(entry | {"flags": 0x11, "seq": 7, "ack": 8}) == f"{5:>10} {text:<9} seq 7 ack 8 FIN ACK"


def test_sample_lines():
    assert "ARP" in sample_line(bytes.fromhex("ffffffffffff525400000001" + "0806" + "0001080006040001").ljust(64, b"\0"))
    assert sample_line(b"abc") == "616263" and sample_line(bytes(64)) == "00" * 64


def test_names():
    assert set(OS_NAMES) <= {counter.name for counter in abi.COUNTERS}
    assert len(set(OS_NAMES.values())) == len(OS_NAMES)


def test_command(tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps([row()]))
    for where in (tmp_path, tmp_path / "results.json"):
        assert main(["stats", str(where)]) == 0
        assert "TcpInCsumErrors" in capsys.readouterr().out
    assert main(["stats", "--all", str(tmp_path)]) == 0
    assert "rx_fragments" in capsys.readouterr().out


@pytest.mark.parametrize("content, why", [
    (None, "no such file"), ("", "not JSON"), ("{]", "not JSON"), ("[]", "no result"), ("{}", "no result"),
    ('[{"connection": "x"}]', "no result"), ('[{"connection": "x", "counters": 3}]', "no result"), ("[3]", "no result"),
    ('[{"connection": "x", "counters": {}, "bus": {"write": 3}}]', "malformed"),
    ('[{"connection": "x", "counters": {}, "bus": [1]}]', "malformed"),
    ('[{"connection": "x", "counters": {}, "history": [{"kind": 1}]}]', "malformed"),
    ('[{"connection": "x", "counters": {}, "samples": {"rx_fragments": "zz"}}]', "malformed")])
def test_bad_input(tmp_path, capsys, content, why):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    assert main(["stats", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and why in err and err.startswith("emplace stats: ")


def test_a_capture_with_nothing_to_replay(capsys):
    capture = Path(__file__).resolve().parents[1] / "captures" / "31_no_listener.pcap"
    assert main(["stats", str(capture)]) == 2
    assert "no MPA request" in capsys.readouterr().err
