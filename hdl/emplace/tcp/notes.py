"""What TCP's receive side tells a connection's history."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..abi import HistoryKind
from ..control.records import HistoryNote
from ..ip.records import SegmentRecord
from .context import Context

__all__ = ["Notes"]


class Notes(wiring.Component):
    """Makes a note of a strobe; of several the first in this order counts.

    Latency: 1 cycle.

    Members
    -------
    dropped, reset, fin, held, in_order, answered : ``In(1)``
        Strobes.
    counter : ``In(16)``
        With ``dropped``: index in abi.COUNTERS.
    length : ``In(12)``
        With ``held`` and ``in_order``: octets.
    qp, segment, context : the job's
    note, record : ``Out(1)``, ``Out(HistoryNote(config))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "dropped": In(1), "reset": In(1), "fin": In(1), "held": In(1), "in_order": In(1), "answered": In(1),
            "counter": In(16), "length": In(12), "qp": In(config.qp_bits), "segment": In(SegmentRecord(config)),
            "context": In(Context(config)), "note": Out(1), "record": Out(HistoryNote(config)),
        })

    def elaborate(self, platform):
        m = Module()
        segment, context = self.segment, self.context
        next_note = Signal(HistoryNote(self.config))
        m.d.comb += [
            next_note.qp.eq(self.qp), next_note.seq.eq(segment.seq), next_note.ack.eq(segment.ack),
            next_note.flags.eq(Cat(segment.fin, segment.syn, segment.rst, segment.psh, segment.has_ack, segment.urg,
                                   segment.ece, segment.cwr)),
        ]
        with m.If(self.dropped):
            m.d.comb += [next_note.kind.eq(HistoryKind.DROPPED), next_note.detail.eq(self.counter)]
        with m.Elif(self.reset):
            m.d.comb += next_note.kind.eq(HistoryKind.RST)
        with m.Elif(self.fin):                   # its segment may have come long ago
            m.d.comb += [next_note.kind.eq(HistoryKind.FIN), next_note.seq.eq(context.rcv_nxt),
                         next_note.ack.eq(context.snd_una), next_note.flags.eq(1)]
        with m.Elif(self.held):
            m.d.comb += [next_note.kind.eq(HistoryKind.HELD), next_note.detail.eq(self.length)]
        with m.Elif(self.in_order):
            m.d.comb += [next_note.kind.eq(HistoryKind.IN_ORDER), next_note.detail.eq(self.length)]
        with m.Else():
            m.d.comb += [
                next_note.kind.eq(HistoryKind.ACK_SENT), next_note.detail.eq(context.blocks),
                next_note.seq.eq(context.snd_nxt), next_note.ack.eq(context.rcv_nxt),
                next_note.flags.eq(Cat(Const(0x10, 6), context.ece)),
            ]
        m.d.sync += [
            self.note.eq(self.dropped | self.reset | self.fin | self.held | self.in_order | self.answered),
            self.record.eq(next_note),
        ]
        return m
