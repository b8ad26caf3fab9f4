"""Cuts what write commands name out of the payload packets."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import Token
from ..stream.packet import PacketSignature
from ..stream.realign import RealignWord
from .records import WriteCommand, WriteKind
from .tlp import Transfer

__all__ = ["Slicer", "Note"]


class Note(data.StructLayout):
    """What goes along with a write's transfer: ``is_token``, and the ``token``; or whether it is an ``msix`` message."""

    def __init__(self, config):
        super().__init__({"is_token": 1, "token": Token(config), "msix": 1})


class Slicer(wiring.Component):
    """Carries out write commands up to the bytes: one transfer and one packet of bytes for each write.

    Throughput: a word per cycle, skipped ones included; a PAYLOAD that ends its packet is followed by the next
    command without a pause, anything else by one idle cycle. Latency: 1 cycle.

    A packet shorter than a command says ends the bytes with ``err``, with as many as there are; the packet's end
    is then that of a later command, too.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    commands : ``In(stream.Signature(WriteCommand(config)))``
    packets : ``In(PacketSignature(8))``
    transfers : ``Out(stream.Signature(Transfer(Note(config))))``
        One for each PAYLOAD, INLINE and TOKEN, before its first byte.
    words : ``Out(stream.Signature(RealignWord(8)))``
        One packet for each PAYLOAD and INLINE.
    accepted : ``Out(1)``
        Strobe: a PAYLOAD or INLINE was begun.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "commands":  In(stream.Signature(WriteCommand(config))),
            "packets":   In(PacketSignature(8)),
            "transfers": Out(stream.Signature(Transfer(Note(config)))),
            "words":     Out(stream.Signature(RealignWord(8))),
            "accepted":  Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        commands, packets, transfers, words = self.commands, self.packets, self.transfers, self.words
        command = commands.p
        free, announced = Signal(), Signal()
        m.d.comb += [
            free.eq(words.ready | ~words.valid),
            announced.eq(transfers.ready | ~transfers.valid),
        ]
        with m.If(transfers.ready):
            m.d.sync += transfers.valid.eq(0)
        with m.If(words.ready):
            m.d.sync += words.valid.eq(0)

        place = Signal(4)                # lane of the packet's next byte in the word at hand; 8: the word is used up
        at = Signal(7)                   # of the command's next byte; whole words are still to be skipped from 8 on
        left, final = Signal(13), Signal()
        begun, skip, lead = Signal(), Signal(3), Signal(3)
        idle, done = Signal(), Signal()  # no command is being carried out, or the last cycle of one

        # The word at hand, as the command sees it
        room, filled, fits, end, enough, finishes = Signal(4), Signal(4), Signal(), Signal(4), Signal(), Signal()
        m.d.comb += [
            room.eq(8 - at[:3]),
            filled.eq(8 - packets.p.empty),
            fits.eq(left <= room),
            end.eq(at[:3] + left[:4]),
            enough.eq(Mux(fits, ~packets.p.last | (end <= filled), ~packets.p.last)),
            finishes.eq(fits | packets.p.last),
        ]

        # The next command
        start, is_write, is_token, tells = Signal(), Signal(), Signal(), Signal()
        to_copy, to_inline, to_discard = Signal(), Signal(), Signal()

        def go():
            with m.If(to_copy):
                m.next = "COPY"
            with m.If(to_inline):
                m.next = "INLINE"
            with m.If(to_discard):
                m.next = "DISCARD"

        with m.FSM():
            with m.State("IDLE"):        # for a command
                m.d.comb += idle.eq(1)
                go()

            with m.State("COPY"):        # for a word of the packet, and room for it
                with m.If(packets.valid & at[3:].any() & ~packets.p.last):
                    m.d.comb += packets.ready.eq(1)
                    m.d.sync += at.eq(at - 8)
                with m.Elif(packets.valid & free):
                    m.d.sync += [
                        words.valid.eq(1),
                        words.p.data.eq(packets.p.data),
                        words.p.skip.eq(Mux(begun, skip, at[:3])), words.p.lead.eq(lead),
                        words.p.last.eq(finishes),
                        words.p.empty.eq(Mux(fits, 8 - end, 0)),
                        words.p.err.eq(~enough | at[3:].any() | (packets.p.last & packets.p.err)),
                        begun.eq(1), at.eq(0), left.eq(left - room),
                    ]
                    with m.If(~begun):
                        m.d.sync += skip.eq(at[:3])
                    # The packet's last word stays until somebody says that the packet is done.
                    with m.If(~finishes):
                        m.d.comb += packets.ready.eq(1)
                    with m.Elif(final):
                        m.d.comb += [packets.ready.eq(1), done.eq(packets.p.last)]
                        m.d.sync += place.eq(0)
                        m.next = "DISCARD"
                        with m.If(packets.p.last):
                            m.next = "IDLE"
                            go()
                    with m.Else():
                        m.next = "IDLE"
                        with m.If(fits & (end == 8) & ~packets.p.last):
                            m.d.comb += packets.ready.eq(1)
                            m.d.sync += place.eq(0)
                        with m.Else():
                            m.d.sync += place.eq(Mux(fits & ~at[3:].any(), end, 8))

            with m.State("INLINE"):      # for room; the command waits at the input meanwhile
                with m.If(free):
                    m.d.sync += [
                        words.valid.eq(1),
                        words.p.data.eq(command.data.word_select(at[:3], 64)),
                        words.p.skip.eq(0), words.p.lead.eq(lead),
                        words.p.last.eq(left <= 8),
                        words.p.empty.eq(Mux(left <= 8, 8 - left[:4], 0)),
                        words.p.err.eq(0),
                        at.eq(at + 1), left.eq(left - 8),
                    ]
                    with m.If(left <= 8):
                        m.d.comb += commands.ready.eq(1)
                        m.next = "IDLE"

            with m.State("DISCARD"):     # for the packet's last word
                m.d.comb += packets.ready.eq(1)
                m.d.sync += place.eq(0)
                with m.If(packets.valid & packets.p.last):
                    m.next = "IDLE"

        # The next command: from IDLE, or straight after a PAYLOAD that ended its packet
        m.d.comb += [
            is_write.eq(((command.kind == WriteKind.PAYLOAD) | (command.kind == WriteKind.INLINE)) & command.length.any()),
            is_token.eq(command.kind == WriteKind.TOKEN),
            tells.eq(is_write | is_token),
            start.eq((idle | done) & commands.valid & (announced | ~tells)),
            self.accepted.eq(start & is_write),
        ]
        with m.If(start):
            m.d.comb += commands.ready.eq(~to_inline)
            with m.If(tells):
                m.d.sync += transfers.valid.eq(1)
        with m.If((idle | done) & announced):
            m.d.sync += [
                transfers.p.address.eq(command.address), transfers.p.length.eq(Mux(is_token, 0, command.length)),
                transfers.p.note.is_token.eq(is_token), transfers.p.note.token.eq(command.token),
                transfers.p.note.msix.eq(command.msix & (command.kind == WriteKind.INLINE)),
                left.eq(command.length), final.eq(command.final), begun.eq(0), lead.eq(command.address[:3]),
                at.eq(Mux(to_inline, 0, command.skip + Mux(done, 0, place))),
            ]
        m.d.comb += [
            to_copy.eq(start & is_write & (command.kind == WriteKind.PAYLOAD)),
            to_inline.eq(start & is_write & (command.kind == WriteKind.INLINE)),
            to_discard.eq(start & ((command.kind == WriteKind.DISCARD)
                                   | ((command.kind == WriteKind.PAYLOAD) & ~is_write & command.final))),
        ]

        return m
