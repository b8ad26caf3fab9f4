"""Terminates that the driver builds: the worked examples, and every rule of what is copied."""

import pytest

from emplace import abi
from emplace_sim import sender
from emplace_sim.fpdu import build_fpdu
from emplace_sim.terminate import decode, describe, terminate_fpdu, terminate_ulpdu

HELLO = bytes.fromhex("0013c1401234567800000001000000404 8454c4c4f000000ca7e6c5f".replace(" ", ""))
REQUEST = bytes.fromhex("002e41410000000000000001000000010000000 00000a10100007f00000010000000 1000"
                        "0000b20200007f0000002000333f78a5".replace(" ", ""))


def event(code, fpdu):
    """As the card writes it."""
    return {"terminate": code, "data": fpdu[:48].ljust(48, b"\0")}


@pytest.mark.parametrize("code, fpdu, expected", [
    (0x1101, HELLO, "0026 4147 00000000 00000002 00000001 00000000 1101c000 0013 c140 12345678 0000000100000040 d24a5dd8"),
    (0x0102, REQUEST, "0046 4147 00000000 00000002 00000001 00000000 0102e000 002e 4141 00000000 00000001 00000001 00000000"
                      "0000a101 00007f0000001000 00001000 0000b202 00007f0000002000 c65ba5ce"),
    (0x2002, HELLO, "0016 4147 00000000 00000002 00000001 00000000 20020000 7fe42585"),
])
def test_worked_examples(code, fpdu, expected):
    assert terminate_fpdu(event(code, fpdu)).hex() == expected.replace(" ", "")


SEND = build_fpdu(sender.send(1, b"hello"))
RUNT = build_fpdu(sender.write(1, 2, b"")[:13])


@pytest.mark.parametrize("code, fpdu, flags, copied", [
    (0x1000, HELLO, 0, b""),             # local catastrophic errors name no FPDU
    (0x1100, HELLO, 0xC0, HELLO[:16]),
    (0x1203, SEND, 0xC0, SEND[:20]),
    (0x1104, HELLO, 0, b""), (0x1206, SEND, 0, b""),         # of another version: who knows its format
    (0x0205, SEND, 0xC0, SEND[:20]), (0x0206, REQUEST, 0xC0, REQUEST[:20]),
    (0x0102, HELLO, 0xC0, HELLO[:16]), (0x0101, REQUEST, 0xE0, REQUEST[:48]),
    (0x0109, SEND, 0xC0, SEND[:20]),
    (0x2003, REQUEST, 0, b""),
    (0x1100, RUNT, 0, b""),              # no whole DDP header is there
])
def test_what_is_copied(code, fpdu, flags, copied):
    ulpdu = terminate_ulpdu(event(code, fpdu))
    assert ulpdu[18:] == code.to_bytes(2, "big") + bytes([flags, 0]) + copied
    assert terminate_fpdu(event(code, fpdu), crc=False)[-4:] == bytes(4)


def test_nothing_is_sent_where_nothing_may_be():
    for reason, code in abi.TERMINATE.items():
        built = terminate_fpdu(event(code or 0, HELLO))
        assert (built is None) == (code is None), reason
        if built:
            assert decode(built).code == code
            assert " code 0x" not in describe(code) and "/code 0x" not in describe(code), reason


def test_decode():
    seen = decode(terminate_fpdu(event(0x0102, REQUEST)))
    assert (seen.code, seen.flags, seen.segment_length, seen.ddp, seen.rdmap, seen.truncated) == \
        (0x0102, 0xE0, 46, REQUEST[2:20], REQUEST[20:48], False)
    seen = decode(terminate_fpdu(event(0x1101, HELLO))[:48])
    assert (seen.ddp, seen.rdmap, seen.truncated) == (HELLO[2:16], b"", False)
    # As an event's data: ULPDU_Length says what counts.
    assert decode(terminate_fpdu(event(0x2002, HELLO)).ljust(48, b"\xee")).ddp == b""


def test_decode_of_siw():
    """Layer 1, error type 2, code 3 with M and D, as a little-endian siw lays it out."""
    seen = decode(build_fpdu(sender.terminate(0x2103, flags=0x03)))
    assert (seen.code, seen.siw) == (0x2103, 0x1203)
    assert "0x1203 DDP/untagged buffer/MSN out of range" in str(seen)


def test_decode_of_truncated():
    seen = decode(build_fpdu(sender.terminate(0x1101, flags=0xC0, copied=HELLO[:9])))
    assert seen.truncated and seen.ddp == HELLO[2:9] and "truncated" in str(seen)
    assert decode(build_fpdu(sender.terminate(0x1101, flags=0xC0))).truncated
    assert decode(build_fpdu(sender.terminate(0x0101, flags=0xE0, copied=REQUEST[:20]))).truncated


@pytest.mark.parametrize("fpdu", [b"", b"\0", HELLO, SEND, build_fpdu(sender.terminate(0x1101)[:21])])
def test_not_a_terminate(fpdu):
    with pytest.raises(ValueError, match="not a Terminate"):
        decode(fpdu)
