"""The layer with a small memory behind BAR0, for cocotb."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from emplace.control.records import Token
from emplace.dma.cfg import Cfg
from emplace.dma.layer import Dma
from emplace.dma.records import ReadRequest, ReadWord, WriteCommand
from emplace.stream.packet import PacketSignature, connect_streams

__all__ = ["DmaBench", "WORDS"]

#: 8-byte words behind BAR0.
WORDS = 512


class DmaBench(wiring.Component):
    """:class:`Dma` whose BAR0 holds ``8 * WORDS`` bytes of memory, over and over."""

    def __init__(self, config, *, timeout):
        self.dma = Dma(config, timeout=timeout)
        super().__init__({
            "commands":   In(stream.Signature(WriteCommand(config))),
            "packets":    In(PacketSignature(8)),
            "reads0":     In(stream.Signature(ReadRequest(config))),
            "reads1":     In(stream.Signature(ReadRequest(config))),
            "read_data0": Out(stream.Signature(ReadWord())),
            "read_data1": Out(stream.Signature(ReadWord())),
            "token":      Out(stream.Signature(Token(config))),
            "rx_tlp":     In(PacketSignature(config.tlp_bytes)),
            "tx_tlp":     Out(PacketSignature(config.tlp_bytes)),
            "cfg":        In(Cfg),
            "count":      Out(self.dma.count.shape()),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dma = dma = self.dma
        for name in ("commands", "packets"):
            connect_streams(m, getattr(self, name), getattr(dma, name))
        for n in range(2):
            connect_streams(m, getattr(self, f"reads{n}"), dma.reads[n])
            connect_streams(m, dma.read_data[n], getattr(self, f"read_data{n}"))
        connect_streams(m, dma.token, self.token)
        connect_streams(m, self.rx_tlp, dma.rx_tlp)
        connect_streams(m, dma.tx_tlp, self.tx_tlp)
        wiring.connect(m, wiring.flipped(self.cfg), dma.cfg)
        m.d.comb += self.count.eq(dma.count)

        m.submodules.registers = registers = Memory(shape=data.ArrayLayout(8, 8), depth=WORDS, init=[])
        write, read = registers.write_port(granularity=1), registers.read_port()
        delay = Signal(range(20))
        m.d.comb += [
            write.addr.eq(dma.mmio_write.p.address), write.data.eq(dma.mmio_write.p.data),
            write.en.eq(dma.mmio_write.p.mask & dma.mmio_write.valid.replicate(8)),
            read.addr.eq(dma.mmio_read.p.address), read.en.eq(dma.mmio_read.valid & dma.mmio_read.ready),
            dma.mmio_read.ready.eq(delay == 0), dma.mmio_data.valid.eq(delay == 1),
            dma.mmio_data.p.eq(read.data.as_value()),
        ]
        with m.If(dma.mmio_read.valid & dma.mmio_read.ready):
            m.d.sync += delay.eq(12)
        with m.Elif((delay > 1) | ((delay == 1) & dma.mmio_data.ready)):
            m.d.sync += delay.eq(delay - 1)
        return m
