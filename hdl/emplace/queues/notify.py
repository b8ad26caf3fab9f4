"""Which completion makes an interrupt: armed completion queues, and their moderation."""

# Ref: RDMA Protocol Verbs Specification 1.0, 8.1.2 (Request Completion Notification)

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from ..stream.scrub import scrub
from .flags import FlagSet
from .ports import TIME_BITS

__all__ = ["Notifier"]

_NEVER = 1 << 15       # no CQ holds as many


class _Action(enum.Enum, shape=2):
    """What the row is read for."""

    COMPLETED = 0
    ARM = 1
    SCAN = 2
    RESET = 3


class Notifier(wiring.Component):
    """Keeps of each CQ whether it is armed, and raises its vector.

    An armed CQ notifies once ``count`` completions of the kind that it is armed for have come, or ``period`` has passed
    since the first of them; then it is no longer armed. Armed for solicited ones only, the others do not count; one
    that ended with an error does. What had come already beyond the consumer's index when it was armed counts as if it
    came then: no wake-up is lost, however the two cross. Armed twice, the wider request holds.

    Throughput: a completion every 4 cycles. Latency: 4 cycles, up to 4 more while another CQ is looked at; the period
    ends up to ``5 * cqs`` cycles late.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    completed : ``In({en, cq, solicited})``
        A completion has been written; solicited, or with an error. Not more often than every 6 cycles.
    change : ``In({en, cq, vector, count, period})``
        The CQ begins anew, not armed.
    arm : ``In({en, cq, index: 16, solicited})``
        The host has consumed up to ``index`` and wants to be told of the next one (solicited: of that kind).
    now : ``In(TIME_BITS)``
        Units of ``period``.
    notify : ``Out({en, vector})``
    """

    def __init__(self, config):
        self.config = config
        cq, vector = config.cq_bits, range(config.vectors)
        self.settings = data.StructLayout({"vector": vector, "count": 8, "period": 16})
        self.row = data.StructLayout({"armed": 1, "any": 1, "waiting": 1, "seen": 8, "due": TIME_BITS, "unsolicited": 16,
                                      "producer": 16})
        super().__init__({
            "completed": In(data.StructLayout({"en": 1, "cq": cq, "solicited": 1})),
            "change":    In(data.StructLayout({"en": 1, "cq": cq, "vector": vector, "count": 8, "period": 16})),
            "arm":       In(data.StructLayout({"en": 1, "cq": cq, "index": 16, "solicited": 1})),
            "now":       In(TIME_BITS),
            "notify":    Out(data.StructLayout({"en": 1, "vector": vector})),
        })

    def elaborate(self, platform):
        m = Module()
        cqs, cq_bits = self.config.cqs, self.config.cq_bits
        m.submodules.rows = rows = memory.Memory(shape=self.row, depth=cqs, init=[])
        m.submodules.settings = settings = memory.Memory(shape=self.settings, depth=cqs, init=[])
        row_read, row_write = rows.read_port(), rows.write_port()
        settings_read, settings_write = settings.read_port(), settings.write_port()
        change, arm = self.change, self.arm
        m.d.comb += [
            settings_write.en.eq(change.en), settings_write.addr.eq(change.cq),
            settings_write.data.vector.eq(change.vector), settings_write.data.count.eq(change.count),
            settings_write.data.period.eq(change.period),
        ]

        # Arming coalesces: of each kind the latest index of a CQ counts.
        m.submodules.arms = arms = FlagSet(2 * cqs)
        m.submodules.indices = indices = memory.Memory(shape=16, depth=2 * cqs, init=[])
        index_read, index_write = indices.read_port(), indices.write_port()
        which = Signal(cq_bits + 1)
        m.d.comb += [
            which.eq(arm.cq << 1 | arm.solicited),
            arms.set[0].en.eq(arm.en), arms.set[0].index.eq(which),
            index_write.en.eq(arm.en), index_write.addr.eq(which), index_write.data.eq(arm.index),
        ]

        # One of each waits here; it is looked at before the next can come.
        reset, reset_cq = Signal(), Signal(cq_bits)
        done, done_cq, done_solicited = Signal(), Signal(cq_bits), Signal()
        cq, scan, solicited, action = Signal(cq_bits), Signal(cq_bits), Signal(), Signal(_Action)
        m.d.comb += [
            row_read.addr.eq(cq), settings_read.addr.eq(cq), index_read.addr.eq(cq << 1 | solicited),
            row_write.addr.eq(cq),
        ]

        row, new, limits = row_read.data, row_write.data, settings_read.data
        behind, unseen, elapsed, total = Signal(16), Signal(), Signal(TIME_BITS), Signal(9)
        counts, wide, late, enough, due = Signal(), Signal(), Signal(), Signal(), Signal(TIME_BITS)
        hits, more, unsolicited = Signal(9), Signal(16), Signal(16)
        m.d.comb += [
            # Of what has come already, as many as there are; of solicited ones, whether there is any.
            hits.eq(Mux(wide, Mux(behind[8:].any(), 255, behind[:8]), unseen)),
            more.eq(row.producer + 1),
            self.notify.vector.eq(limits.vector),
        ]

        with m.FSM(name="notifier"):
            with m.State("IDLE"):        # chooses; there is always a CQ whose period may have ended
                m.d.sync += [cq.eq(scan), action.eq(_Action.SCAN)]
                m.next = "READ"
                with m.If(reset):
                    m.d.sync += [cq.eq(reset_cq), action.eq(_Action.RESET), reset.eq(0)]
                with m.Elif(done):
                    m.d.sync += [cq.eq(done_cq), solicited.eq(done_solicited), action.eq(_Action.COMPLETED), done.eq(0)]
                with m.Elif(arms.o.valid):
                    m.d.comb += arms.o.ready.eq(1)
                    m.d.sync += [cq.eq(arms.o.payload[1:]), solicited.eq(arms.o.payload[0]), action.eq(_Action.ARM)]
                with m.Else():
                    m.d.sync += scan.eq(scan + 1)
            with m.State("READ"):        # the memories are reading
                m.next = "JUDGE"
            with m.State("JUDGE"):       # distances
                m.d.sync += [
                    behind.eq(row.producer - index_read.data), elapsed.eq(self.now - row.due),
                    wide.eq(Mux(action == _Action.ARM, ~solicited | (row.armed & row.any), row.any)),
                    counts.eq(row.armed & (row.any | solicited)),
                    total.eq(row.seen + 1), due.eq(self.now + limits.period),
                    unsolicited.eq(Mux(solicited, 0, Mux(row.unsolicited[15], row.unsolicited, row.unsolicited + 1))),
                ]
                m.next = "ACT"
                with m.If(action == _Action.ARM):
                    m.next = "COMPARE"
            with m.State("COMPARE"):     # how many there are already
                m.d.sync += unseen.eq(row.unsolicited < behind)
                m.next = "COUNT"
            with m.State("COUNT"):
                m.d.sync += total.eq(hits)
                m.next = "ACT"
            with m.State("ACT"):         # the row's new state
                m.d.comb += [
                    new.eq(row),
                    late.eq(row.armed & row.waiting & ~elapsed[TIME_BITS - 1]),
                    enough.eq((total >= limits.count) & total.any()),
                ]
                m.next = "IDLE"
                with m.Switch(action):
                    with m.Case(_Action.COMPLETED):
                        m.d.comb += [row_write.en.eq(1), new.producer.eq(more), new.unsolicited.eq(unsolicited)]
                        with m.If(counts):
                            m.d.comb += [new.seen.eq(total), new.waiting.eq(1),
                                         new.due.eq(Mux(row.waiting, row.due, due)),
                                         self.notify.en.eq(enough | late)]
                    with m.Case(_Action.ARM):
                        m.d.comb += [
                            row_write.en.eq(1), new.armed.eq(1), new.any.eq(wide), new.seen.eq(total),
                            new.waiting.eq(total.any()),
                            new.due.eq(Mux(row.armed & row.waiting, row.due, due)),
                            self.notify.en.eq(enough),
                        ]
                    with m.Case(_Action.SCAN):
                        m.d.comb += [self.notify.en.eq(late), row_write.en.eq(late)]
                    with m.Case(_Action.RESET):
                        m.d.comb += [row_write.en.eq(1), new.as_value().eq(0), new.unsolicited.eq(_NEVER)]
                with m.If(self.notify.en):
                    m.d.comb += [new.armed.eq(0), new.waiting.eq(0), new.seen.eq(0)]
        with m.If(change.en):
            m.d.sync += [reset.eq(1), reset_cq.eq(change.cq)]
        with m.If(self.completed.en):
            m.d.sync += [done.eq(1), done_cq.eq(self.completed.cq), done_solicited.eq(self.completed.solicited)]
        scrub(m, row_write, cqs)
        return m
