"""Which segments are not taken, and what they are answered: one table, in order of precedence."""

from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..ip.records import SegmentRecord
from .compare import Compared
from .context import Context

__all__ = ["Answer", "Row", "ROWS", "Verdict"]


class Answer(enum.Enum, shape=3):
    """To a segment that is dropped."""

    NONE = 0        # nothing
    ACK = 1
    CHALLENGE = 2   # an ACK, unless there have been many (RFC 5961 7)
    EITHER = 3      # CHALLENGE if the segment is empty: then it may itself answer such an ACK
    RESET = 4       # the connection is over


@dataclass(frozen=True)
class Row:
    """``applies(s, c, d)`` of segment, context, and Compared; ``counter`` of abi.COUNTERS; ``rule``: whose it is."""

    counter: str
    answer: Answer
    rule: str
    applies: object


#: The first that applies counts; if none does, the segment is acceptable.
ROWS = (
    Row("rx_rst", Answer.RESET, "RFC 5961 3.2: at RCV.NXT",
        lambda s, c, d: s.rst & d.level),
    Row("rx_rst_challenged", Answer.CHALLENGE, "RFC 5961 3.2: elsewhere in the window",
        lambda s, c, d: s.rst & d.inside),
    Row("rx_rst_outside", Answer.NONE, "RFC 9293 3.10.7.4",
        lambda s, c, d: s.rst),
    Row("rx_syn", Answer.CHALLENGE, "RFC 5961 4.2: wherever",
        lambda s, c, d: s.syn),
    Row("rx_no_timestamp", Answer.NONE, "RFC 7323 3.2",
        lambda s, c, d: c.timestamps & ~s.has_ts),
    Row("rx_paws", Answer.EITHER, "RFC 7323 5.3",
        lambda s, c, d: d.replayed),
    Row("rx_duplicate", Answer.EITHER, "RFC 9293 3.10.7.4: below RCV.NXT",
        lambda s, c, d: d.old),
    Row("rx_beyond_window", Answer.EITHER, "RFC 9293 3.10.7.4: above the window",
        lambda s, c, d: d.beyond),
    Row("rx_bad_ack", Answer.CHALLENGE, "RFC 9293 3.10.7.4: SEG.ACK > SND.MAX",
        lambda s, c, d: d.unsent),
    Row("rx_old_ack", Answer.CHALLENGE, "RFC 5961 5.2: SEG.ACK < SND.UNA - MAX.SND.WND",
        lambda s, c, d: d.stale),
    Row("rx_after_fin", Answer.NONE, "RFC 9293 3.10.7.4: there is nothing behind a FIN",
        lambda s, c, d: c.closed & ~d.empty),
)


class Verdict(wiring.Component):
    """Applies :data:`ROWS`. Combinational.

    Members
    -------
    segment, context : ``In(SegmentRecord(config))``, ``In(Context(config))``
    compared : ``In(Compared())``
        All three stages.
    drop : ``Out(1)``
        A row applies.
    answer : ``Out(Answer)``
        Never EITHER.
    duplicate : ``Out(1)``
        The row is that of segments without anything new, and there are octets of it to report.
    counter : ``Out(16)``
        Index of the row's counter in abi.COUNTERS.
    count : ``Out(abi.counter_layout("tcp"))``
        That counter, while ``drop``.
    """

    def __init__(self, config):
        super().__init__({
            "segment": In(SegmentRecord(config)), "context": In(Context(config)), "compared": In(Compared()),
            "drop": Out(1), "answer": Out(Answer), "duplicate": Out(1), "counter": Out(16),
            "count": Out(abi.counter_layout("tcp")),
        })

    def elaborate(self, platform):
        m = Module()
        names = [(c.layer, c.name) for c in abi.COUNTERS]
        for n, row in enumerate(ROWS):
            applies = row.applies(self.segment, self.context, self.compared)
            with m.If(applies) if n == 0 else m.Elif(applies):
                m.d.comb += [
                    self.drop.eq(1), self.count[row.counter].eq(1), self.counter.eq(names.index(("tcp", row.counter))),
                    self.answer.eq(Answer.ACK if row.answer is Answer.EITHER else row.answer),
                    self.duplicate.eq((self.segment.length != 0) if row.counter == "rx_duplicate" else 0),
                ]
                if row.answer is Answer.EITHER:
                    with m.If(self.compared.empty):
                        m.d.comb += self.answer.eq(Answer.CHALLENGE)
        return m
