"""Registers of the MAC: its address, pause frames; beside them in their word, the event ring's vector."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import MmioWrite

__all__ = ["MacSettings", "Station"]

#: As register MAC_CONTROL says.
MacSettings = data.StructLayout({"rx_pause": 1, "tx_pause": 1, "quanta": 16})


class Station(wiring.Component):
    """MAC_LO and MAC_HI; MAC_CONTROL and EVENT_VECTOR.

    Latency: a write acts in the next cycle.

    Members
    -------
    write : ``In(MmioWrite(config))``, here : ``In(1)``
        A write to the registers' page.
    address : ``Out(48)``
    mac : ``Out(MacSettings)``
    event_vector : ``Out(8)``
    """

    #: Words of 8 bytes in the registers' page.
    ADDRESS, CONTROL = (abi.REGISTERS[name].offset // 8 for name in ("MAC_LO", "MAC_CONTROL"))

    def __init__(self, config):
        super().__init__({
            "write": In(MmioWrite(config)), "here": In(1), "address": Out(48), "mac": Out(MacSettings),
            "event_vector": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        write, mac = self.write, self.mac
        named, settings = Signal(), Signal()
        m.d.comb += [
            named.eq(self.here & (write.address[:9] == self.ADDRESS)),
            settings.eq(self.here & (write.address[:9] == self.CONTROL)),
        ]
        for byte in range(6):
            with m.If(named & write.mask[byte]):
                m.d.sync += self.address.word_select(byte, 8).eq(write.data.word_select(byte, 8))
        with m.If(settings & write.mask[0]):
            m.d.sync += Cat(mac.rx_pause, mac.tx_pause).eq(write.data[:2])
        for byte in range(2):
            with m.If(settings & write.mask[2 + byte]):
                m.d.sync += mac.quanta.word_select(byte, 8).eq(write.data.word_select(2 + byte, 8))
        with m.If(settings & write.mask[4]):
            m.d.sync += self.event_vector.eq(write.data[32:40])
        return m

    def readback(self):
        """Values of the words, by their number."""
        return {self.ADDRESS: self.address, self.CONTROL: Cat(
            self.mac.rx_pause, self.mac.tx_pause, Const(0, 14), self.mac.quanta, self.event_vector)}
