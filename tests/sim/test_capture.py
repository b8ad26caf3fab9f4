"""The reading of captures, against the table that came with them (made by other code)."""

from pathlib import Path

import pytest

from emplace_sim.capture import (
    CaptureError,
    Frame,
    Side,
    _reassemble,
    count_fpdus,
    crc32c,
    find_connections,
    messages,
    parse_fpdus,
    read_capture,
    read_frames,
    relative,
)

CAPTURES = Path(__file__).resolve().parents[1] / "captures"

#: file: FPDUs whose CRC is good / zero / bad, connections, FPDUs by operation.
TABLE = """
01_rping_64_nocrc              0/21/0  1 Send 12, ReadResp 3, ReadReq 3, Write 3
02_rping_64_crc                21/0/0  1 Send 12, ReadResp 3, ReadReq 3, Write 3
03_rping_64_crc_client_only    21/0/0  1 Send 12, ReadResp 3, ReadReq 3, Write 3
04_rping_64_crc_server_only    0/21/0  1 Send 12, ReadResp 3, ReadReq 3, Write 3
05_rping_4096_crc              33/0/0  1 Send 12, ReadResp 9, ReadReq 3, Write 9
06_rping_33_crc_odd            21/0/0  1 Send 12, ReadResp 3, ReadReq 3, Write 3
07_rping_64_p2p_crc            15/0/0  1 Write 3, Send 8, ReadResp 2, ReadReq 2
08_rping_64_mpav1_crc          1/0/0   1 Send 1
09_send_lat_64_mpav1_crc       32/0/0  2 Send 32
10_send_bw_64_crc              29/0/0  2 Send 27, Write 2
10_send_bw_64_nocrc            0/29/0  2 Send 27, Write 2
11_send_bw_8192_crc            54/0/0  2 Send 52, Write 2
11_send_bw_8192_nocrc          0/54/0  2 Send 52, Write 2
12_write_bw_4096_crc           47/0/0  2 Send 32, Write 15
12_write_bw_4096_nocrc         0/47/0  2 Send 32, Write 15
13_read_bw_4096_crc            52/0/0  2 Send 32, ReadReq 5, ReadResp 15
13_read_bw_4096_nocrc          0/52/0  2 Send 32, ReadReq 5, ReadResp 15
14_write_lat_64_crc            30/0/0  2 Send 20, Write 10
14_write_lat_64_nocrc          0/30/0  2 Send 20, Write 10
15_send_lat_64_crc             32/0/0  2 Send 32
15_send_lat_64_nocrc           0/32/0  2 Send 32
16_read_lat_1024_crc           32/0/0  2 Send 22, ReadReq 5, ReadResp 5
17_write_bw_20000_x3_crc       107/0/0 2 Send 32, Write 75
20_rping_4096_drop             44/0/0  1 Send 16, ReadResp 12, ReadReq 4, Write 12
21_write_bw_20000_drop_crc     107/0/0 2 Send 32, Write 75
22_write_bw_20000_reorder_dup_crc 107/0/0 2 Send 32, Write 75
23_read_bw_8192_netem5_crc     102/0/0 2 Send 32, ReadReq 10, ReadResp 60
32_mpa_v1_client_v2_server     1/0/0   1 Send 1
40_pyclient_rping_100_crc      21/0/0  1 Send 12, ReadResp 3, ReadReq 3, Write 3
41_pyserver_rping_3000_crc     22/0/0  1 Send 8, ReadResp 6, ReadReq 2, Write 6
42_py_badcrc                   1/0/1   1 Send 1, Terminate 1
42_py_badread                  2/0/0   1 ReadReq 1, Terminate 1
42_py_badstag                  2/0/0   1 Write 1, Terminate 1
"""
ROWS = [line.split(None, 3) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize("name, crcs, conns, operations", ROWS, ids=[row[0] for row in ROWS])
def test_table(name, crcs, conns, operations):
    connections = read_capture(CAPTURES / f"{name}.pcap")
    crc, opcodes = count_fpdus(connections)
    assert "/".join(str(crc[key]) for key in ("good", "zero", "bad")) == crcs
    assert opcodes == {op: int(n) for op, n in (part.split() for part in operations.split(", "))}
    assert len(connections) == int(conns)
    for connection in connections:
        assert connection.crc == (crcs.split("/")[1] == "0")
        for side in (connection.client, connection.server):
            assert side.rest == side.missing == 0
            for message in messages(side.fpdus):
                assert message.complete
    assert not connections[0].client.mpa.reply and connections[0].server.mpa.reply


@pytest.mark.parametrize("name, why", [("30_mpa_reject_crc_strict", "rejected"), ("31_no_listener", "no MPA request")])
def test_no_iwarp(name, why):
    with pytest.raises(CaptureError, match=why):
        read_capture(CAPTURES / f"{name}.pcap")


def test_no_capture(tmp_path):
    with pytest.raises(CaptureError, match="no such file"):
        read_capture(tmp_path / "x.pcap")
    (tmp_path / "x.pcap").write_bytes(b"this is not a capture at all")
    with pytest.raises(CaptureError, match=r"x\.pcap"):
        read_capture(tmp_path / "x.pcap")
    (tmp_path / "y.pcap").write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
    with pytest.raises(CaptureError, match="no TCP"):
        read_capture(tmp_path / "y.pcap")


@pytest.mark.parametrize("data, crc", [
    (bytes(32), "aa36918a"), (b"\xff" * 32, "43aba862"), (bytes(range(32)), "4e79dd46"),
    (bytes(range(31, -1, -1)), "5cdb3f11"),                                          # RFC 3720 B.4
])
def test_crc32c(data, crc):
    assert crc32c(data).to_bytes(4, "little").hex() == crc


def test_fpdu_fields():
    send = bytes.fromhex("0015414500000000000000000000000300000000414243" "00d6aa2320")
    write = bytes.fromhex("0013c1401234567800000001000000 4048454c4c4f000000ca7e6c5f".replace(" ", ""))
    fpdus, rest = parse_fpdus(send + write + send[:9])
    assert rest == 9 and [f.crc_good for f in fpdus] == [True, True]
    assert (fpdus[0].qn, fpdus[0].msn, fpdus[0].mo, fpdus[0].opcode, fpdus[0].payload) == (0, 3, 0, 5, b"ABC")
    assert (fpdus[1].stag, fpdus[1].offset, fpdus[1].payload) == (0x12345678, 0x100000040, b"HELLO")
    assert fpdus[1].start == len(send) and fpdus[1].header == write[:21]


def _segment(seq, payload):
    return Frame(0, 0, b"", 0, 0, None, (0, 0), (0, 0), 0, 0, seq, 0, 16, 0, {}, payload, 0, 0, 0)


def test_first_copy_wins():
    base = 0xFFFFFFFC
    frames = [_segment(base + 4 & 0xFFFFFFFF, b"5678"), _segment(base, b"123456xx"), _segment(base - 2, b"yyzz"),
              _segment(base + 10 & 0xFFFFFFFF, b"hole")]
    assert _reassemble(frames, base) == (b"12345678", 4)


def test_relative():
    assert relative(5, 0xFFFFFFFE) == 7 and relative(0xFFFFFFFE, 5) == -7


def test_sides():
    connection = read_capture(CAPTURES / "02_rping_64_crc.pcap")[0]
    client, server = connection.client, connection.server
    assert (client.name.split(":")[0], server.name) == ("10.0.0.3", "10.0.0.2:7174")
    assert client.mac == 0x525400000003 and client.timestamps and client.sack and client.wscale is not None
    assert (client.mpa.ird, client.mpa.ord, client.mpa.revision) == (1, 1, 2)
    assert connection.sides("client") == (client, server)
    assert client.mpa_frame.payload.startswith(b"MPA ID Req")
    assert isinstance(client, Side)


def test_frames_in_order():
    frames = read_frames(CAPTURES / "40_pyclient_rping_100_crc.pcap")
    assert [f.number for f in frames] == sorted(f.number for f in frames) and frames[0].flags == 2
    connections, refused = find_connections(frames)
    assert len(connections) == 1 and not refused
