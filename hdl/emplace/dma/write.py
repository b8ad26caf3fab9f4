"""Write commands to memory write TLPs."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import Token
from ..stream.packet import PacketSignature, connect_streams
from ..stream.realign import Realigner
from .narrow import NarrowPacker
from .pack import Packer
from .records import TlpWord, WriteCommand
from .slice import Note, Slicer
from .split import Splitter

__all__ = ["Writer", "COUNT_BITS", "reached"]

#: Of the running numbers that other units wait for; far more than can be under way.
COUNT_BITS = 8


def reached(count, mark):
    """Running number ``count`` is at ``mark`` or past it."""
    return ~(count - mark)[COUNT_BITS - 1]


class Writer(wiring.Component):
    """Writes to host memory, in the order of the commands.

    Throughput: 8 bytes per cycle; 2 cycles for 16 octets skipped. Latency: 7 cycles from command and first word
    to the first word of its TLP, 6 with words of 8 bytes.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    commands : ``In(stream.Signature(WriteCommand(config)))``
    packets : ``In(PacketSignature(8))``
    o : ``Out(stream.Signature(TlpWord(tlp_bytes)))``
        MWr TLPs without the requester's ID.
    token : ``Out(stream.Signature(Token(config)))``
        Once every TLP begun before has been ``posted``.
    posted : ``In(1)``
        Strobe: a TLP of ``o`` has left for good.
    max_payload : ``In(3)``
        128 << n bytes.
    enable : ``In(1)``
        0: writes are thrown away.
    accepted, taken, begun, gone : ``Out(COUNT_BITS)``
        Running numbers: of writes accepted, of those whose last TLP has been begun; of TLPs begun, of TLPs posted.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "commands":    In(stream.Signature(WriteCommand(config))),
            "packets":     In(PacketSignature(8)),
            "o":           Out(stream.Signature(TlpWord(config.tlp_bytes))),
            "token":       Out(stream.Signature(Token(config))),
            "posted":      In(1),
            "max_payload": In(3),
            "enable":      In(1),
            "accepted":    Out(COUNT_BITS),
            "taken":       Out(COUNT_BITS),
            "begun":       Out(COUNT_BITS),
            "gone":        Out(COUNT_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        note = Note(self.config)

        m.submodules.slicer = slicer = Slicer(self.config)
        m.submodules.splitter = splitter = Splitter(note)
        m.submodules.realigner = realigner = Realigner(8)
        wide = self.config.tlp_bytes == 16
        m.submodules.packer = packer = Packer(note) if wide else NarrowPacker(note)
        connect_streams(m, self.commands, slicer.commands)
        connect_streams(m, self.packets, slicer.packets)
        connect_streams(m, slicer.transfers, splitter.i)
        connect_streams(m, slicer.words, realigner.i)
        connect_streams(m, realigner.o, packer.words)
        connect_streams(m, packer.o, self.o)
        m.d.comb += [splitter.limit.eq(self.max_payload), packer.enable.eq(self.enable)]

        m.d.sync += [
            self.accepted.eq(self.accepted + slicer.accepted),
            self.taken.eq(self.taken + packer.taken),
            self.begun.eq(self.begun + packer.begun),
            self.gone.eq(self.gone + self.posted),
        ]

        # A token waits for the TLPs before it; those behind it go on.
        part = splitter.o
        waiting, until = Signal(), Signal(COUNT_BITS)
        m.d.comb += [
            packer.parts.payload.eq(part.payload),
            packer.parts.valid.eq(part.valid & ~part.p.note.is_token),
            part.ready.eq(packer.parts.ready),
        ]
        with m.If(part.p.note.is_token):
            m.d.comb += part.ready.eq(~waiting & ~self.token.valid)
        with m.If(part.valid & part.ready & part.p.note.is_token):
            m.d.sync += [waiting.eq(1), self.token.payload.eq(part.p.note.token), until.eq(self.begun)]
        with m.If(self.token.ready):
            m.d.sync += self.token.valid.eq(0)
        with m.If(waiting & reached(self.gone, until)):
            m.d.sync += [waiting.eq(0), self.token.valid.eq(1)]

        return m
