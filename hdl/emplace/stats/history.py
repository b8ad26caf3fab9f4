"""What happened to each connection: its last events (design D11)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import HistoryNote

__all__ = ["History"]

_BITS = (abi.HISTORY_DEPTH - 1).bit_length()


class History(wiring.Component):
    """A ring of ``abi.HISTORY_DEPTH`` events a QP; the newest overwrites the oldest.

    Throughput: a note every cycle. Latency: a note can be read 2 cycles after it was taken, an entry is there 2 cycles
    after ``qp`` and 1 after ``at``.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    note : ``In(1)``, note_record : ``In(HistoryNote(config))``
        tcp's. Always taken.
    control : ``In(stream.Signature(HistoryNote(config)))``
        control's; waits for tcp's. INSTALLED begins a new history.
    now : ``In(32)``
        Ticks.
    hold : ``In(1)``
        Notes of ``qp`` get lost, so that its history stands still while it is read.
    qp : ``In(qp_bits)``, at : ``In(4)``, entry : ``Out(128)``
        Entry ``at`` of a QP's history, from the oldest (0) to the newest (15). As long as fewer have been written the
        first ones are 0.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "note":        In(1),
            "note_record": In(HistoryNote(config)),
            "control":     In(stream.Signature(HistoryNote(config))),
            "now":         In(32),
            "hold":        In(1),
            "qp":          In(config.qp_bits),
            "at":          In(_BITS),
            "entry":       Out(abi.History.elem_shape),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        Head = data.StructLayout({"next": _BITS, "full": 1})
        m.submodules.heads = heads = memory.Memory(shape=Head, depth=config.qps, init=[])
        m.submodules.entries = entries = memory.Memory(
            shape=abi.History.elem_shape, depth=config.qps << _BITS, init=[])
        move = heads.write_port()
        find, show = heads.read_port(transparent_for=[move]), heads.read_port(transparent_for=[move])
        write, read = entries.write_port(), entries.read_port()

        # The QP's head is read, then the note is written there.
        chosen, valid, note, fresh = Signal(HistoryNote(config)), Signal(), Signal(HistoryNote(config)), Signal()
        m.d.comb += [
            self.control.ready.eq(~self.note),
            chosen.eq(Mux(self.note, self.note_record, self.control.p)),
            find.addr.eq(chosen.qp),
        ]
        m.d.sync += [valid.eq((self.note | self.control.valid) & ~(self.hold & (chosen.qp == self.qp))), note.eq(chosen),
                     fresh.eq(~self.note & (self.control.p.kind == abi.HistoryKind.INSTALLED))]
        at = Signal(_BITS)
        m.d.comb += [
            at.eq(Mux(fresh, 0, find.data.next)),
            move.addr.eq(note.qp), move.en.eq(valid), move.data.next.eq(at + 1),
            move.data.full.eq(~fresh & (find.data.full | at.all())),
            write.addr.eq(Cat(at, note.qp)), write.en.eq(valid), write.data.now.eq(self.now),
            *(write.data[name].eq(note[name]) for name in ("kind", "detail", "flags", "seq", "ack")),
        ]

        oldest, place, empty = Signal(Head), Signal(_BITS), Signal()
        m.d.comb += [
            show.addr.eq(self.qp), oldest.eq(show.data), place.eq(oldest.next + self.at),
            read.addr.eq(Cat(place, self.qp)),
            self.entry.eq(Mux(empty, 0, read.data)),
        ]
        m.d.sync += empty.eq(~oldest.full & (place >= oldest.next))
        return m
