"""Where the MSI-X table and its moderation lie in BAR0."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import MmioRead, MmioWrite
from ..queues.ports import MsixLook, MsixWrite

__all__ = ["MsixWindow"]

_PAGE, _PBA = abi.MSIX_PAGE // 8, abi.MSIX_PBA // 8
_MODERATION = abi.MODERATION // 8


class MsixWindow(wiring.Component):
    """Turns the host's accesses to MSIX_PAGE and MODERATION into rows of :class:`~emplace.queues.msix.Msix`.

    Latency: a write 0 cycles; ``data`` stands in the cycle behind ``reading``.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    write : ``In(MmioWrite(config))``, valid : ``In(1)``
    address : ``In(MmioRead(config))``, reading : ``In(1)``
    data : ``Out(64)``
        0 for what lies elsewhere.
    row_write : ``Out(MsixWrite(config))``, look : ``Out(MsixLook(config))``
    word : ``In(64)``, pending : ``In(vectors)``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "write":     In(MmioWrite(config)),
            "valid":     In(1),
            "address":   In(MmioRead(config)),
            "reading":   In(1),
            "data":      Out(64),
            "row_write": Out(MsixWrite(config)),
            "look":      Out(MsixLook(config)),
            "word":      In(64),
            "pending":   In(config.vectors),
        })

    def elaborate(self, platform):
        m = Module()
        vectors = self.config.vectors
        # Both regions are aligned to their sizes, so that the low bits of the address are the word's number.
        entry_bits, moderation_bits = (2 * vectors - 1).bit_length(), (vectors // 2 - 1).bit_length()

        def find(address, row, name):
            """``row`` of the word ``address``; whether there is one."""
            entry, moderation = Signal(name=f"{name}_entry"), Signal(name=f"{name}_moderation")
            m.d.comb += [
                entry.eq(address[entry_bits:] == _PAGE >> entry_bits),
                moderation.eq(address[moderation_bits:] == _MODERATION >> moderation_bits),
                row.eq(Mux(entry, address[:entry_bits], 2 * vectors + address[:moderation_bits])),
            ]
            return entry | moderation

        asked, pending = Signal(), Signal()
        m.d.comb += [
            self.row_write.en.eq(self.valid & find(self.write.address, self.row_write.row, "write")),
            self.row_write.data.eq(self.write.data), self.row_write.mask.eq(self.write.mask),
            self.look.en.eq(self.reading & find(self.address.address, self.look.row, "read")),
        ]
        m.d.sync += [asked.eq(self.look.en), pending.eq(self.reading & (self.address.address == _PBA))]
        with m.If(asked):
            m.d.comb += self.data.eq(self.word)
        with m.Elif(pending):
            m.d.comb += self.data.eq(self.pending)
        return m
