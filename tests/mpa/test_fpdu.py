"""The model against the RFCs' own numbers."""

import random

import pytest

from emplace_sim.fpdu import build_fpdu, crc32c, split_fpdus

#: protocol examples with their CRCs: ULPDU_Length, ULPDU, PAD, CRC.
EXAMPLES = [bytes.fromhex(text) for text in (
    "0013 c140 12345678 0000000100000040 48454c4c4f 000000 ca7e6c5f",
    "000e c140 00000001 0000000000000000 ebd34c5f",
    "002e 4141 00000000 00000001 00000001 00000000 0000a101 00007f0000001000 00001000 0000b202 00007f0000002000"
    "333f78a5",
    "0012 c142 0000a101 00007f0000001000 deadbeef 98f429be",
    "000e c142 00000001 0000000000000000 21a3e83e",
    "0022 4143 00000000 00000000 00000001 00000000 00007f0000001000 0000b202 00000040 71462695",
    "0012 4144 0000b202 00000000 00000002 00000000 335ec5b3",
    "0015 4145 00000000 00000000 00000003 00000000 414243 00 d6aa2320",
    "0016 4146 0000b202 00000000 00000004 00000000 41424344 8e808bfa",
    "0026 4147 00000000 00000002 00000001 00000000 1101c000 0013 c140 12345678 0000000100000040 d24a5dd8",
    "0046 4147 00000000 00000002 00000001 00000000 0102e000 002e 4141 00000000 00000001 00000001 00000000 0000a101"
    "00007f0000001000 00001000 0000b202 00007f0000002000 c65ba5ce",
    "0016 4147 00000000 00000002 00000001 00000000 20020000 7fe42585",
    "001a 4148 00000000 00000000 00000005 00000000 00000000cafef00d 5d831273",
    "001e 414b 00000000 00000003 00000001 00000000 00000007 0000000000000029 b9ebafe8",
)]


def ulpdu_of(fpdu):
    return fpdu[2:2 + int.from_bytes(fpdu[:2], "big")]


@pytest.mark.parametrize("data, crc", [
    (bytes(32), "aa36918a"), (b"\xff" * 32, "43aba862"), (bytes(range(32)), "4e79dd46"),
    (bytes(range(31, -1, -1)), "5cdb3f11")])
def test_crc32c(data, crc):
    """RFC 3720 appendix B.4."""
    assert crc32c(data).to_bytes(4, "little") == bytes.fromhex(crc)


def test_crc32c_of_any_length():
    """Words at a time, then octets: against the plain definition, bit by bit."""
    rng = random.Random(3)
    for length in (*range(70), 127, 1444):
        data, crc = rng.randbytes(length), 0xFFFFFFFF
        for octet in data:
            crc ^= octet
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        assert crc32c(data) == crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("fpdu", EXAMPLES)
def test_build(fpdu):
    assert build_fpdu(ulpdu_of(fpdu)) == fpdu
    assert build_fpdu(ulpdu_of(fpdu), crc=False) == fpdu[:-4] + bytes(4)


def test_split():
    stream = b"".join(EXAMPLES)
    split = split_fpdus(stream)
    assert [f.ulpdu for f in split.fpdus] == [ulpdu_of(f) for f in EXAMPLES]
    assert all(f.crc_good for f in split.fpdus) and split.rest == len(stream) and not split.bad_length
    assert split_fpdus(stream[:-1]).rest == len(stream) - len(EXAMPLES[-1])
    damaged = bytearray(stream)
    damaged[5] ^= 1
    assert [f.crc_good for f in split_fpdus(damaged).fpdus] == [False] + [True] * (len(EXAMPLES) - 1)


@pytest.mark.parametrize("head, bad", [
    ("00", False), ("000d", True), ("000e", False), ("000e41", True), ("000ec1", False), ("001141", True),
    ("001241", False), ("ffff", True), ("07fac1", False), ("07fbc1", True)])
def test_split_length(head, bad):
    split = split_fpdus(EXAMPLES[0] + bytes.fromhex(head))
    assert len(split.fpdus) == 1 and split.rest == 28 and split.bad_length == bad
