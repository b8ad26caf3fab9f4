"""Several sources of writes, one writer."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from .records import PlainWrite, WriteCommand, WriteKind

__all__ = ["WriteMerge"]


class WriteMerge(wiring.Component):
    """Source 0 gives whole write commands, the others writes of one packet each.

    Round robin by unit: a command, or for source 0 all commands from a packet's first to its last. So nothing comes
    between the writes of a packet, and a source waits for at most one unit of each of the others.

    Throughput: a command a cycle. Latency: 0.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    plain : :class:`int`
        Sources beside source 0.

    Members
    -------
    commands, packets : ``In(stream.Signature(WriteCommand(config)))``, ``In(PacketSignature(8))``
        Source 0.
    plain, plain_packets : ``In(stream.Signature(PlainWrite)).array(plain)``, ``In(PacketSignature(8)).array(plain)``
    o, o_packets : ``Out(stream.Signature(WriteCommand(config)))``, ``Out(PacketSignature(8))``
        To :class:`~emplace.dma.slice.Slicer`: it begins with a packet the cycle after it took the first command that
        is about it.
    """

    def __init__(self, config, plain):
        self.config, self.n_plain = config, plain
        super().__init__({
            "commands":      In(stream.Signature(WriteCommand(config))),
            "packets":       In(PacketSignature(8)),
            "plain":         In(stream.Signature(PlainWrite)).array(plain),
            "plain_packets": In(PacketSignature(8)).array(plain),
            "o":             Out(stream.Signature(WriteCommand(config))),
            "o_packets":     Out(PacketSignature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        n, o = self.n_plain + 1, self.o
        sources = [self.commands, *self.plain]
        packets = [self.packets, *self.plain_packets]

        # `grant` had the output last. It keeps it while its command waits there, or within source 0's packet.
        grant, choice, bound = Signal(range(n)), Signal(range(n)), Signal()
        inside = Signal()                # source 0's packet has been begun, and not ended
        m.d.comb += choice.eq(grant)
        with m.If(~bound):
            with m.Switch(grant):
                for current in range(n):
                    with m.Case(current):
                        for step in range(n, 0, -1):         # the last assignment wins: the next one round
                            other = (current + step) % n
                            with m.If(sources[other].valid):
                                m.d.comb += choice.eq(other)

        m.d.comb += o.payload.eq(self.commands.payload)
        within = Signal()
        m.d.comb += within.eq(inside)
        with m.Switch(self.commands.p.kind):
            with m.Case(WriteKind.PAYLOAD):
                m.d.comb += within.eq(~self.commands.p.final)
            with m.Case(WriteKind.DISCARD):
                m.d.comb += within.eq(0)
        with m.Switch(choice):
            for index, source in enumerate(sources):
                with m.Case(index):
                    m.d.comb += [o.valid.eq(source.valid), source.ready.eq(o.ready)]
                    if index:
                        m.d.comb += [
                            o.p.kind.eq(WriteKind.PAYLOAD), o.p.address.eq(source.p.address),
                            o.p.length.eq(source.p.length), o.p.skip.eq(source.p.skip), o.p.final.eq(1),
                        ]
        m.d.sync += grant.eq(choice)
        with m.If(o.valid):
            m.d.sync += bound.eq(~o.ready | ((choice == 0) & within))
        with m.If(o.valid & o.ready & (choice == 0)):
            m.d.sync += inside.eq(within)

        # The packet that the writer is at, or will begin with next
        carried = Signal(range(n))
        with m.If(o.valid & o.ready):
            m.d.sync += carried.eq(choice)
        with m.Switch(carried):
            for index, packet in enumerate(packets):
                with m.Case(index):
                    m.d.comb += [
                        self.o_packets.payload.eq(packet.payload), self.o_packets.valid.eq(packet.valid),
                        packet.ready.eq(self.o_packets.ready),
                    ]
        return m
