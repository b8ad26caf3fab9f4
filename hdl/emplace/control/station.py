"""Registers of the MAC: pause frames; beside them in its word, the event ring's vector."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import MmioWrite

__all__ = ["MacSettings", "Station"]

#: As register MAC_CONTROL says.
MacSettings = data.StructLayout({"rx_pause": 1, "tx_pause": 1, "quanta": 16})

_WORD = abi.REGISTERS["MAC_CONTROL"].offset // 8


class Station(wiring.Component):
    """MAC_CONTROL and EVENT_VECTOR.

    Latency: a write acts in the next cycle.

    Members
    -------
    write : ``In(MmioWrite(config))``, here : ``In(1)``
        A write to the registers' page.
    mac : ``Out(MacSettings)``
    event_vector : ``Out(8)``
    readback : ``Out(64)``
        The word of both.
    """

    WORD = _WORD

    def __init__(self, config):
        super().__init__({
            "write": In(MmioWrite(config)), "here": In(1), "mac": Out(MacSettings), "event_vector": Out(8),
            "readback": Out(64),
        })

    def elaborate(self, platform):
        m = Module()
        write, mac = self.write, self.mac
        mine = Signal()
        m.d.comb += mine.eq(self.here & (write.address[:9] == self.WORD))
        with m.If(mine & write.mask[0]):
            m.d.sync += Cat(mac.rx_pause, mac.tx_pause).eq(write.data[:2])
        for byte in range(2):
            with m.If(mine & write.mask[2 + byte]):
                m.d.sync += mac.quanta.word_select(byte, 8).eq(write.data.word_select(2 + byte, 8))
        with m.If(mine & write.mask[4]):
            m.d.sync += self.event_vector.eq(write.data[32:40])
        m.d.comb += self.readback.eq(Cat(mac.rx_pause, mac.tx_pause, Const(0, 14), mac.quanta, self.event_vector))
        return m
