"""XGMII words and pcapng files."""

import random

import pytest
from scapy.utils import PcapNgReader, RawPcapNgReader

from emplace_sim.pcapng import PcapngWriter
from emplace_sim.xgmii import IDLE, XgmiiDecoder, XgmiiEncoder, fcs, finish


def through(frames, lane4):
    encoder, decoder = XgmiiEncoder(lane4=lane4), XgmiiDecoder()
    words = [word for frame in frames for word in encoder.frame(frame)] + encoder.flush()
    got = [frame for word in words if (frame := decoder.word(*word)) is not None]
    return words, got, decoder


@pytest.mark.parametrize("lane4", [False, True])
def test_frames(lane4):
    rng = random.Random(1)
    frames = [finish(rng.randbytes(rng.randint(20, 1514))) for _ in range(400)]
    words, got, decoder = through(frames, lane4)
    assert got == frames and not decoder.problems
    # Preamble and gap are 20 octets a frame on average, and never less than 9 of gap (46.3.1.4, with
    # lane 0 alone: 5, as a step of 8 needs a deficit of up to 7).
    assert abs(8 * len(words) - sum(len(f) + 20 for f in frames)) <= 16
    assert decoder.least_gap >= (9 if lane4 else 5)
    starts = [n for word in words if word[1] for n in range(8) if word[1] >> n & 1 and word[0] >> 8 * n & 0xFF == 0xFB]
    assert set(starts) == ({0, 4} if lane4 else {0})


def test_smallest_frames_at_line_rate():
    words, got, _ = through([finish(bytes(60))] * 100, True)
    assert len(got) == 100 and abs(len(words) - 1050) <= 1


def test_a_word():
    words, _, _ = through([finish(b"\x01\x02")], False)
    assert words[0] == (0xD5555555555555FB, 0x01) and words[1] == (0x0201, 0x00)
    assert len(words[-1:]) == 1 and IDLE[1] == 0xFF


def test_decoder_reports():
    for word, why in (((0xFB, 0xFE), "between frames"), ((0x07070707070707FE, 0xFF), "control octet 0xfe"),
                      ((0x070707070707FB07, 0xFF), "start in lane 1")):
        decoder = XgmiiDecoder()
        decoder.word(*word)
        assert why in decoder.problems[0]
    decoder = XgmiiDecoder()
    decoder.word(0x55D55555555555FB, 1)
    decoder.word(0x07070707070707FD, 0xFF)
    assert "preamble" in decoder.problems[0]


def test_fcs():
    assert fcs(b"123456789") == 0xCBF43926.to_bytes(4, "little")
    assert len(finish(b"x")) == 64 and len(finish(bytes(61))) == 65


def test_pcapng(tmp_path):
    path = tmp_path / "wire.pcapng"
    frames = [bytes.fromhex("020000000002020000000001") + b"\x08\x00" + bytes(n) for n in range(40, 60)]
    with PcapngWriter(path) as writer:
        for n, frame in enumerate(frames):
            writer.write(n & 1, 5_000_000_000 + 8 * n, frame, comment="fed" if n == 3 else None)
        assert writer.counts == [10, 10]
    with RawPcapNgReader(str(path)) as reader:
        got = list(reader)
    assert [bytes(data) for data, _ in got] == frames
    assert [(meta.tshigh << 32 | meta.tslow) for _, meta in got] == [5_000_000_000 + 8 * n for n in range(20)]
    assert {meta.tsresol for _, meta in got} == {10**9} and got[0][1].ifname == b"wire to card"
    packets = PcapNgReader(str(path)).read_all()
    assert [packet.sniffed_on for packet in packets[:2]] == ["wire to card", "card to wire"]
    assert packets[0].direction == 1 and packets[1].direction == 2
