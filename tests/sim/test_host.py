"""The model of host memory."""

import pytest

from emplace_sim.host import CANARY, PAGE, HostMemory, MemoryFault


def test_scattered_above_and_below():
    memory = HostMemory(seed=1)
    buffer = memory.alloc(40 * PAGE, label="x", offset=100)
    assert len(buffer.pages) == 41 and not buffer.contiguous
    assert any(p < 1 << 32 for p in buffer.pages) and any(p >= 1 << 32 for p in buffer.pages)
    data = bytes(n * 7 & 0xFF for n in range(40 * PAGE))
    buffer.write(0, data)
    assert buffer.read() == data and buffer.read(5000, 3) == data[5000:5003]
    assert memory.read(buffer.physical(3996), 10)[:0] == b""
    assert memory.read(buffer.physical(5000), 16) == data[5000:5016]
    assert memory.check_canaries() == []


def test_contiguous_and_fixed():
    memory = HostMemory(seed=2)
    ring = memory.alloc(3 * PAGE, contiguous=True, high=False)
    assert ring.contiguous and ring.address < 1 << 32
    across = memory.alloc(2 * PAGE, at=(1 << 32) - PAGE)
    memory.write((1 << 32) - 2, b"abcd")
    assert across.read(PAGE - 2, 4) == b"abcd"
    with pytest.raises(ValueError, match="taken"):
        memory.alloc(PAGE, at=1 << 32)
    big = memory.alloc(5 * 4 * PAGE, block=4 * PAGE)
    assert len(big.blocks(4 * PAGE)) == 5 and big.blocks(8 * PAGE) is None and len(big.blocks(PAGE)) == 20


def test_neighbours_are_no_memory():
    memory = HostMemory(seed=3)
    for _ in range(200):
        memory.alloc(PAGE)
    for buffer in memory.buffers:
        for page in (buffer.pages[0] - PAGE, buffer.pages[-1] + PAGE):
            with pytest.raises(MemoryFault):
                memory.read(page, 1)


def test_canaries():
    memory = HostMemory(seed=4)
    buffer = memory.alloc(PAGE, offset=10, label="sink")
    assert buffer.read(0, 4) == bytes([CANARY]) * 4
    memory.write(buffer.address, bytes(PAGE)[:PAGE - 10])
    assert memory.check_canaries() == []
    memory.write(buffer.address - 1, b"\0")
    memory.write(buffer.physical(PAGE - 1) + 1, b"\0\0")
    assert memory.check_canaries() == [(buffer.address - 1, "sink"), (buffer.physical(PAGE - 1) + 1, "sink")]


def test_written_is_told():
    memory, told = HostMemory(seed=5), []
    buffer = memory.alloc(2 * PAGE, offset=8, contiguous=True)
    buffer.written = lambda at, data: told.append((at, data))
    memory.write(buffer.physical(PAGE - 10), b"0123456789")
    assert b"".join(data for _, data in told) == b"0123456789" and told[0][0] == PAGE - 10
    memory.free(buffer)
    with pytest.raises(MemoryFault):
        memory.write(buffer.address, b"x")


def test_bad_arguments():
    memory = HostMemory()
    for bad in ({"length": 0}, {"length": 5, "offset": PAGE}, {"length": 5, "block": 100}):
        with pytest.raises(ValueError):
            memory.alloc(**bad)
    with pytest.raises(ValueError, match="outside"):
        memory.alloc(10).read(5, 6)
