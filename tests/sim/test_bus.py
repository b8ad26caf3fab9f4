"""TLPs as bytes, and the host bridge behind them."""

import random

import pytest

from emplace_sim.bus import BAR0, CARD_ID, HostBridge
from emplace_sim.host import PAGE, HostMemory
from emplace_sim.host_tlp import Tlp, TlpError, completion, memory_request, split_completion


def bridge(**options):
    return HostBridge(HostMemory(seed=1), **options)


def test_examples():
    """Headers written down by hand from the PCIe specification."""
    write = memory_request(0x12345679, 5, data=b"abcde", requester=0x0100)
    assert write.pack().hex() == "40000002" "0100003e" "12345678" "00616263" "64650000"
    assert write.writes() == [(0x12345679, b"abcde")]
    read = memory_request(0x1_0000_0010, 64, requester=0x0100, tag=7)
    assert read.pack().hex() == "20000010" "010007ff" "00000001" "00000010"
    answer = completion(read, data=bytes(range(64)), completer=0)
    assert answer.pack().hex().startswith("4a000010" "00000040" "01000710")
    assert memory_request(0x1003, 1, data=b"z").pack().hex() == "40000001" "00000008" "00001000" "0000007a"


def test_round_trip():
    rng = random.Random(1)
    for _ in range(500):
        address = rng.choice([0x2000, (1 << 32) - PAGE, 1 << 40]) + rng.randrange(2000)
        size = rng.randint(1, 512)
        data = rng.randbytes(size)
        tlp = Tlp.parse(memory_request(address, size, data=data, requester=5).pack())
        assert tlp.writes() == [(address, data)] and tlp.span == (address, size)
        read = Tlp.parse(memory_request(address, size, tag=3).pack())
        limit, cut = rng.choice([128, 256, 512]), rng.choice(["max", "rcb", "random"])
        left, got, at = size, b"", address
        for part in split_completion(read, data, limit=limit, cut=cut, rng=rng):
            part = Tlp.parse(part.pack())
            assert part.byte_count == left and part.lower_address == at & 0x7F and part.tag == 3
            here = min(4 * part.length - (at & 3), left)
            got += part.payload[at & 3:(at & 3) + here]
            at, left = at + here, left - here
            assert left == 0 or at % 64 == 0
            assert 4 * part.length <= limit
        assert got == data


@pytest.mark.parametrize("packet, why", [
    ("0000", "no TLP"), ("60000001" "0100000f" "00000000" "00001000" "00000000", "below 4 GiB"),
    ("40000002" "010000ff" "00000ffc" "0000000000000000", "4 KiB"),
    ("40000001" "010000ff" "00001000" "00000000", "last byte enables"),
    ("40000002" "0100000f" "00001000" "0000000000000000", "byte enables"),
    ("40000003" "010000f5" "00001000" "000000000000000000000000", "holes"),
    ("40000002" "0100000f" "00001000" "00000000", "carries 4 bytes"),
    ("74000001" "0100000f" "00000000" "00001000" "00000000", "neither"),
    ("40000081" "010000ff" "00001000" + "00" * 516, "limit is 256"),
    ("00000081" "010000ff" "00001000", "limit is 512"),
    ("40000001" "0200000f" "00001000" "00000000", "requester"),
    ("40100001" "0100000f" "00001000" "00000000", "attributes"),
    ("40000001" "0100000f" "00001000" "00000000", "no memory"),
])
def test_rules(packet, why):
    host = bridge()
    host.receive(bytes.fromhex(packet))
    assert host.problems and why in host.problems[0]


def test_memory():
    host = bridge(latency=10, jitter=50)
    buffer = host.memory.alloc(3 * PAGE, label="payload", contiguous=True, offset=5)
    where = buffer.address + 1000
    host.receive(memory_request(where, 200, data=bytes(range(200)), requester=CARD_ID).pack())
    assert buffer.read(1000, 200) == bytes(range(200)) and buffer.read(999, 1) == buffer.read(1200, 1) == b"\xcc"
    read = memory_request(where + 50, 100, requester=CARD_ID, tag=9)
    answers = host.receive(read.pack())
    assert host.outstanding == {9} and len(answers) == 1 and 10 <= answers[0][0] < 60
    assert host.sent(*answers[0][1:])[12 + (where + 50) % 4:][:100] == bytes(range(50, 150))
    assert not host.outstanding and not host.problems
    assert host.ledger.as_dict() == {
        "write": {"payload": {"transactions": 1, "bytes": 200, "header_bytes": 16 if where >> 32 else 12}},
        "read": {"payload": {"transactions": 1, "bytes": 100, "header_bytes": read.header_bytes}},
        "completion": {"payload": {"transactions": 1, "bytes": len(answers[0][1].payload), "header_bytes": 12}}}
    assert len(host.log) == 3 and "payload" in host.log[0]
    assert host.receive(memory_request(where, 4, data=b"1234").pack(), err=True) == []
    assert buffer.read(1000, 4) == bytes(range(4))


def test_one_tag_two_reads():
    host = bridge()
    buffer = host.memory.alloc(PAGE)
    read = memory_request(buffer.address, 8, requester=CARD_ID, tag=1).pack()
    host.receive(read)
    host.receive(read)
    assert "two reads" in host.problems[0]


@pytest.mark.parametrize("fault, status", [("UR", 1), ("CA", 4), ("POISON", 0), ("DROP", None)])
def test_faults(fault, status):
    host = bridge()
    host.fault = lambda tlp: fault
    answers = host.receive(memory_request(host.memory.alloc(PAGE).address, 8, requester=CARD_ID).pack())
    assert [a[1].status for a in answers] == ([] if status is None else [status])
    assert all(a[1].poisoned == (fault == "POISON") for a in answers)


def test_registers():
    host = bridge()
    read = host.mmio_read(0x14, 4)
    assert read.address == BAR0 + 0x14
    answer = completion(read, data=b"\1\2\3\4", completer=CARD_ID)
    host.receive(answer.pack())
    assert host.answers[read.tag].payload == b"\1\2\3\4" and not host.problems
    host.receive(answer.pack())
    assert "no read" in host.problems[0]
    assert host.mmio_write(0x10008, bytes(8)).pack()[:4].hex() == "40000002"


def test_interrupt():
    host = bridge()
    host.receive(memory_request(0xFEE00000, 4, data=b"\5\0\0\0", requester=CARD_ID).pack())
    assert host.interrupts == [5] and host.ledger.transactions("write", "interrupt") == 1


def test_bad_request_is_not_built():
    with pytest.raises(TlpError):
        memory_request(4000, 100)
