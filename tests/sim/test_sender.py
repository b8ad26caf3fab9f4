"""The sender's frames and headers against the worked examples, which came from elsewhere."""

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from emplace_sim import sender

HELLO_FRAME = bytes.fromhex(
    "020000000002 020000000001 0800"
    "4502 0050 0001 4000 4006 26a3 0a000001 0a000002"
    "c000 4853 fffffff8 11223344 8018 0400 c17a 0000 0101080a 000003e8 000007d0"
    "0013 c140 12345678 0000000100000040 48454c4c4f000000 ca7e6c5f")


def test_headers():
    assert sender.write(0x12345678, 0x100000040, b"HELLO") == HELLO_FRAME[68:87]
    assert sender.send(1, bytes.fromhex("00007f0000001000 0000b202 00000040")).hex() == \
        "4143000000000000000000000001" + "00000000" + "00007f00000010000000b20200000040"
    assert sender.send(2, b"", invalidate=0xB202).hex() == "41440000b202000000000000000200000000"
    assert sender.send(3, b"ABC", solicited=True).hex() == "414500000000000000000000000300000000414243"
    assert sender.read_request(1, 0xA101, 0x7F0000001000, 4096, 0xB202, 0x7F0000002000).hex() == \
        "414100000000000000010000000100000000" + "0000a10100007f0000001000000010000000b20200007f0000002000"
    assert sender.terminate(0x2002).hex() == "41470000000000000002000000010000000020020000"


def test_frame():
    flow = sender.Flow(src_ip=0x0A000001, dst_ip=0x0A000002, src_port=0xC000, dst_port=0x4853, src_mac=0x020000000001,
                       dst_mac=0x020000000002, seq=0xFFFFFFF8, ack=0x11223344, tsval=1000, tsecr=2000)
    made = flow.push(HELLO_FRAME[66:], flags=0x18)
    # The example has ECT(0) and an identification; everything else is the same.
    assert made[:15] + made[16:18] + made[20:24] + made[26:] == \
        HELLO_FRAME[:15] + HELLO_FRAME[16:18] + HELLO_FRAME[20:24] + HELLO_FRAME[26:]
    assert flow.seq == 20
    again = Ether(made)
    del again[IP].chksum, again[TCP].chksum
    assert bytes(again) == made
