"""Builders of DDP segments, MPA frames and TCP segments, against examples that came from elsewhere."""

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from emplace_sim import ddp
from emplace_sim.fpdu import build_fpdu
from emplace_sim.mpa import MpaFrame
from emplace_sim.segment import ACK, SYN, BadSegment, Ends, Tcp, build, parse, timestamp_option

READ = ddp.read_request(1, 0xA101, 0x7F0000001000, 4096, 0xB202, 0x7F0000002000)
HELLO = ddp.write(0x12345678, 0x100000040, b"HELLO")
ENDS = Ends(0x020000000001, 0x020000000002, 0x0A000001, 0x0A000002, 0xC000, 0x4853)


@pytest.mark.parametrize("ulpdu, fpdu", [
    (HELLO, "0013c14012345678000000010000004048454c4c4f000000ca7e6c5f"),
    (READ, "002e4141000000000000000100000001000000000000a10100007f0000001000000010000000b20200007f0000002000333f78a5"),
    (ddp.read_response(0xA101, 0x7F0000001000, bytes.fromhex("deadbeef")), "0012c1420000a10100007f0000001000deadbeef98f429be"),
    (ddp.send(2, b"", invalidate=0xB202), "001241440000b202000000000000000200000000335ec5b3"),
    (ddp.send(3, b"ABC", solicited=True), "0015414500000000000000000000000300000000414243" "00d6aa2320"),
    (ddp.send(4, b"ABCD", solicited=True, invalidate=0xB202), "001641460000b202000000000000000400000000414243448e808bfa"),
    (ddp.terminate(0x1101, flags=0xC0, copied=ddp.with_length(HELLO)[:16]),
     "002641470000000000000002000000010000000011" "01c0000013c140123456780000000100000040d24a5dd8"),
    (ddp.immediate(5, bytes.fromhex("00000000cafef00d")),
     "001a4148000000000000000000000005" "0000000000000000cafef00d5d831273"),
    (ddp.atomic_request(2, 7, ddp.FETCH_ADD, 0xB202, 0x7F0000002008, 1, 0),
     "0046414a000000000000000100000002000000000000000000000007" "0000b20200007f0000002008" "0000000000000001" + "00" * 24
     + "bae32345"),
    (ddp.atomic_request(3, 8, ddp.CMP_SWAP, 0xB202, 0x7F0000002008, 0x55, 2**64 - 1, 0x2A, 2**64 - 1),
     "0046414a000000000000000100000003000000000000000200000008" "0000b20200007f0000002008" "0000000000000055" + "ff" * 8
     + "000000000000002a" + "ff" * 8 + "1d5ee47f"),
    (ddp.atomic_response(1, 7, 41), "001e414b00000000000000030000000100000000000000070000000000000029b9ebafe8"),
])
def test_worked_examples(ulpdu, fpdu):
    assert build_fpdu(ulpdu).hex() == fpdu


@pytest.mark.parametrize("frame, octets", [
    (MpaFrame(False, enhanced=False, revision=1), "4001 0000"),
    (MpaFrame(False, crc=False, ird=1, ord=1), "1002 0004 0001 0001"),
    (MpaFrame(True, ird=1, ord=1), "5002 0004 0001 0001"),
    (MpaFrame(False, ird=1, ord=1, p2p=True, rtr=frozenset(("write", "read"))), "5002 0004 8001 c001"),
    (MpaFrame(True, ird=1, ord=1, p2p=True, rtr=frozenset(("write",))), "5002 0004 8001 8001"),
    (MpaFrame(True, crc=False, rejected=True, ird=0, ord=0, private=b"no"), "3002 0006 0000 0000 6e6f"),
])
def test_mpa_frames(frame, octets):
    made = frame.build()
    assert made[16:] == bytes.fromhex(octets) and made[:16] == (b"MPA ID Rep Frame" if frame.reply else b"MPA ID Req Frame")
    again = MpaFrame.parse(made + b"more")
    assert again.length == len(made) and again.build() == made
    assert all(MpaFrame.parse(made[:n]) is None for n in range(len(made)))


def test_segments():
    options = timestamp_option(1000, 2000) + bytes.fromhex("0101050a0000000100000009")
    for ends in (ENDS, Ends(1, 2, 3, 4, 5, 6, vlan=0xA005)):
        made = build(ends, Tcp(0xFFFFFFF8, 0x11223344, ACK, 0x400, options, b"odd", ecn=2))
        again = Ether(made)
        del again[IP].chksum, again[TCP].chksum
        assert bytes(again) == made
        got_ends, got = parse(made + bytes(10))
        assert got_ends == ends and got.payload == b"odd" and (got.seq, got.ack, got.window, got.ecn) == \
            (0xFFFFFFF8, 0x11223344, 0x400, 2)
        assert got.timestamps == (1000, 2000) and got.sack == [(1, 9)]
    assert ENDS.turned.turned == ENDS and ENDS.turned.src_port == ENDS.dst_port
    syn = parse(build(ENDS, Tcp(5, 0, SYN, 0, bytes.fromhex("020405b4 0402 080a0000000100000000 01 03030e"))))[1]
    assert (syn.mss, syn.wscale, syn.sack_permitted, syn.timestamps, syn.length) == (1460, 14, True, (1, 0), 1)


def test_damaged_segments():
    made = build(ENDS, Tcp(1, 2, payload=b"payload", options=timestamp_option(1, 2)))
    for bit in range(8 * 14, 8 * len(made)):             # behind the Ethernet header every single bit counts
        spoiled = bytearray(made)
        spoiled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSegment):
            parse(bytes(spoiled))
    for options in ("0808", "080d" + "00" * 10, "0500", "01010101010108"):
        with pytest.raises(BadSegment, match="options"):
            parse(build(ENDS, Tcp(1, options=bytes.fromhex(options) + b"\x08" * (-len(options) // 2 % 4))))
    with pytest.raises(BadSegment, match="not IPv4"):
        parse(b"\0" * 12 + b"\x08\x06" + bytes(46))
