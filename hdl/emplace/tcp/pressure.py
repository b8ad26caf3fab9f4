"""Which held segment goes when slots run short."""

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import QpIndex

__all__ = ["Pressure"]


class Pressure(wiring.Component):
    """While no more than ``slot_reserve`` slots are free, names one QP after the other that has a held segment.

    Goes round the slots rather than the QPs: there are fewer of them, and one who holds many comes up often. If a
    whole round frees nothing, ``force`` allows what parked connections need next to be thrown away, too.

    Latency: up to ``slots`` cycles to the first name. At most one is out at a time.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    free_count : ``In(range(slots + 1))``
    held, held_slot, held_qp, unheld, unheld_slot
        As in :class:`~.held.HeldLists`.
    victim : ``Out(stream.Signature(QpIndex(config)))``
        This QP's last held segment is to go.
    done : ``In(1)``
        Strobe: it has been tried; ``freed``: with success.
    force : ``Out(1)``
    short : ``Out(1)``
        At most ``slot_reserve`` slots are free.
    roomy : ``Out(1)``
        One more slot may be held.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "free_count":  In(range(config.slots + 1)),
            "held":        In(1),
            "held_slot":   In(config.slot_bits),
            "held_qp":     In(config.qp_bits),
            "unheld":      In(1),
            "unheld_slot": In(config.slot_bits),
            "victim":      Out(stream.Signature(QpIndex(config))),
            "done":        In(1),
            "freed":       In(1),
            "force":       Out(1),
            "short":       Out(1, init=0),
            "roomy":       Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.d.sync += [
            self.short.eq(self.free_count <= config.slot_reserve),
            self.roomy.eq(self.free_count > config.slot_reserve + 1),
        ]

        m.submodules.owners = owners = memory.Memory(shape=config.qp_bits, depth=config.slots, init=[])
        write, read = owners.write_port(), owners.read_port()
        held = Signal(config.slots)
        with m.If(self.unheld):
            m.d.sync += held.bit_select(self.unheld_slot, 1).eq(0)
        with m.If(self.held):
            m.d.sync += held.bit_select(self.held_slot, 1).eq(1)

        scan = Signal(range(config.slots))
        found = Signal()
        fruitless = Signal()         # nothing was freed since the round began
        settle = Signal(2)
        m.d.comb += [
            write.en.eq(self.held), write.addr.eq(self.held_slot), write.data.eq(self.held_qp),
            read.addr.eq(scan), found.eq(held.bit_select(scan, 1)),
        ]

        def step():
            with m.If(scan == config.slots - 1):
                m.d.sync += [scan.eq(0), self.force.eq(fruitless), fruitless.eq(1)]
            with m.Else():
                m.d.sync += scan.eq(scan + 1)

        with m.FSM():
            with m.State("LOOK"):        # for a held slot, while slots are short
                with m.If(~self.short):
                    m.d.sync += [self.force.eq(0), fruitless.eq(0)]
                with m.Elif(found):
                    m.next = "OFFER"
                with m.Else():
                    step()
            with m.State("OFFER"):       # for the memory: its word is there in the next state
                m.d.sync += self.victim.p.qp.eq(read.data)
                m.d.sync += self.victim.valid.eq(1)
                m.next = "TAKEN"
            with m.State("TAKEN"):       # for the name to be taken
                with m.If(self.victim.ready):
                    m.d.sync += self.victim.valid.eq(0)
                    m.next = "DONE"
            with m.State("DONE"):        # for the outcome
                with m.If(self.done):
                    step()
                    with m.If(self.freed):
                        m.d.sync += [fruitless.eq(0), self.force.eq(0)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):      # until the slot is counted as free
                m.d.sync += settle.eq(settle + 1)
                with m.If(settle.all()):
                    m.next = "LOOK"
        return m
