import random
import zlib

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from emplace.mac.crc import CRC32, CRC32C, advance, apply, data_matrix, inverse, zero_matrix


def product(matrix, value):
    return sum((bin(row & value).count("1") & 1) << n for n, row in enumerate(matrix))


def test_advance_is_the_crc():
    assert advance(CRC32, 0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == zlib.crc32(b"123456789") == 0xCBF43926
    assert advance(CRC32C, 0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_matrices_agree_with_advance():
    rng = random.Random(1)
    for poly in (CRC32, CRC32C):
        for nbytes in (1, 2, 4, 8):
            state, data = rng.getrandbits(32), rng.randbytes(nbytes)
            zeros = zero_matrix(poly, nbytes)
            got = product(zeros, state) ^ product(data_matrix(poly, nbytes), int.from_bytes(data, "little"))
            assert got == advance(poly, state, data)
            assert product(inverse(zeros), advance(poly, state, bytes(nbytes))) == state


def test_gateware_product():
    class Product(wiring.Component):
        i: In(64)
        o: Out(32)

        def elaborate(self, platform):
            m = Module()
            word = Signal(64)
            m.d.comb += [word.eq(self.i), self.o.eq(apply(data_matrix(CRC32, 8), word))]
            return m

    dut = Product()
    rng = random.Random(2)

    async def bench(ctx):
        for _ in range(50):
            data = rng.randbytes(8)
            ctx.set(dut.i, int.from_bytes(data, "little"))
            await ctx.delay(1e-9)
            assert ctx.get(dut.o) == advance(CRC32, 0, data)

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()
