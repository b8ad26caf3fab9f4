"""Moves packets to other byte lanes."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .packet import PacketSignature, PacketWord

__all__ = ["RealignWord", "Realigner"]


class RealignWord(data.StructLayout):
    """A word of :class:`Realigner`'s input: :class:`PacketWord`, and where the packet lies and shall lie.

    Members
    -------
    data, empty, last, err
        As in PacketWord.
    skip : ``range(nbytes)``
        Lanes of the first word before the packet's first byte. Constant in a packet.
    lead : ``range(nbytes)``
        What it shall be afterwards. Constant in a packet.
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({**{name: field.shape for name, field in PacketWord(nbytes)},
                          "skip": range(nbytes), "lead": range(nbytes)})


class Realigner(wiring.Component):
    """Moves a packet's first byte from lane ``skip`` to lane ``lead``.

    Throughput: one word per cycle; a packet takes as many cycles as the longer of input and output has words,
    one more if it both begins and ends with bytes that are moved down. Latency: 1 cycle, 2 if ``skip > lead``.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word.

    Members
    -------
    i : ``In(stream.Signature(RealignWord(nbytes)))``
    o : ``Out(PacketSignature(nbytes))``
        Lanes below ``lead`` of the first word may hold anything.
    """

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({
            "i": In(stream.Signature(RealignWord(nbytes))),
            "o": Out(PacketSignature(nbytes)),
        })
        # Public to the proof only: the next word begins a packet; what was moved around the corner; it needs a word
        # of its own, which ends the packet.
        self.first, self.kept = Signal(init=1), Signal(8 * nbytes)
        self.flushing, self.flush_empty, self.flush_err = Signal(), Signal(range(nbytes)), Signal()

    def elaborate(self, platform):
        m = Module()
        i, o, nbytes = self.i, self.o, self.nbytes

        first, kept = self.first, self.kept
        flushing, flush_empty, flush_err = self.flushing, self.flush_empty, self.flush_err
        amount = Signal(range(nbytes))   # lanes down, around the corner
        prime = Signal()                 # the first word alone gives no output
        rotated = Signal(8 * nbytes)
        m.d.comb += [amount.eq(i.p.skip - i.p.lead), prime.eq(i.p.skip > i.p.lead)]
        # A multiplexer of two for each bit of `amount`; one of all lanes would be four times as big.
        stage = i.p.data
        for bit in range(len(amount)):
            turned = Signal(8 * nbytes, name=f"turned{bit}")
            m.d.comb += turned.eq(Mux(amount[bit], stage.rotate_right(8 << bit), stage))
            stage = turned
        m.d.comb += rotated.eq(stage)

        # The last word's bytes below lane `amount` fill up the word now going out; those above need another.
        filled = Signal(range(nbytes + 1))
        over = Signal()
        whole = Signal()                 # the first word, moved down, is the whole packet
        free = Signal()
        m.d.comb += [
            filled.eq(nbytes - i.p.empty),
            whole.eq(first & prime & i.p.last),
            over.eq(i.p.last & (filled > amount) & (amount != 0) & ~whole),
            free.eq(o.ready | ~o.valid),
            i.ready.eq(free & ~flushing),
        ]
        with m.If(i.valid & i.ready):
            m.d.sync += [
                first.eq(i.p.last), kept.eq(rotated),
                flushing.eq(over), flush_empty.eq(amount - filled), flush_err.eq(i.p.err),
            ]
        with m.Elif(free):
            m.d.sync += flushing.eq(0)

        with m.If(free):
            m.d.sync += o.valid.eq(flushing | (i.valid & ~(first & prime & ~i.p.last)))
            with m.If(flushing):
                m.d.sync += [o.p.data.eq(kept), o.p.empty.eq(flush_empty), o.p.last.eq(1), o.p.err.eq(flush_err)]
            with m.Else():
                m.d.sync += [
                    o.p.data.eq(Cat(
                        Mux((amount != 0) & ~whole & (lane + amount < nbytes),
                            kept.word_select(lane, 8), rotated.word_select(lane, 8)) for lane in range(nbytes))),
                    o.p.empty.eq(Mux(i.p.last & ~over, amount - filled, 0)),
                    o.p.last.eq(i.p.last & ~over),
                    o.p.err.eq(i.p.last & ~over & i.p.err),
                ]

        return m
