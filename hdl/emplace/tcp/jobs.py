"""What the receive unit does next, with the connection's context fetched ahead."""

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import QpIndex, RecordKind
from ..ip.records import SegmentRecord
from ..stream.scrub import scrub
from .context import Context, Job, JobKind

__all__ = ["Jobs"]


class Jobs(wiring.Component):
    """Merges segments (with tokens), resumed QPs and victims, and reads each one's context while the last is done.

    Resumed QPs and victims come first, but never twice in a row while a segment waits. The context that goes with a
    job may be older than the last one written, if that was of the same QP: the receive unit has that one at hand.

    Throughput: a job every 3 cycles. Latency: 2 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    segments : ``In(stream.Signature(SegmentRecord(config)))``
    resume, victim : ``In(stream.Signature(QpIndex(config)))``
    job : ``Out(stream.Signature(Job(config)))``
    alive : ``In(qps)``
        A bit for each QP that is in RTS.
    store : ``In(1)``
        ``store_context`` is the context of ``store_qp`` from now on.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "segments":      In(stream.Signature(SegmentRecord(config))),
            "resume":        In(stream.Signature(QpIndex(config))),
            "victim":        In(stream.Signature(QpIndex(config))),
            "job":           Out(stream.Signature(Job(config))),
            "alive":         In(config.qps),
            "store":         In(1),
            "store_qp":      In(config.qp_bits),
            "store_context": In(Context(config)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        # However few QPs there are: as LUTs it would be one of the largest things of the card.
        m.submodules.contexts = contexts = memory.Memory(shape=Context(config), depth=config.qps, init=[],
                                                         attrs={"ram_style": "block"})
        write, read = contexts.write_port(), contexts.read_port()
        m.d.comb += [write.en.eq(self.store), write.addr.eq(self.store_qp), write.data.eq(self.store_context)]

        full = Signal()                  # a job is here
        extra = Signal()                 # the last one was no segment
        kind, qp = Signal(JobKind), Signal(config.qp_bits)
        segment = Signal(SegmentRecord(config))
        first = Signal()                 # the others come before segments
        m.d.comb += first.eq(~(extra & self.segments.valid))

        m.d.comb += [read.addr.eq(qp), read.en.eq(full)]
        with m.If(~full):
            with m.If(first & self.victim.valid):
                m.d.comb += self.victim.ready.eq(1)
                m.d.sync += [full.eq(1), extra.eq(1), kind.eq(JobKind.EVICT), qp.eq(self.victim.p.qp)]
            with m.Elif(first & self.resume.valid):
                m.d.comb += self.resume.ready.eq(1)
                m.d.sync += [full.eq(1), extra.eq(1), kind.eq(JobKind.RESUME), qp.eq(self.resume.p.qp)]
            with m.Elif(self.segments.valid):
                p = self.segments.payload
                m.d.comb += self.segments.ready.eq(1)
                m.d.sync += [full.eq(1), extra.eq(0), segment.eq(p)]
                with m.If(p.kind == RecordKind.TOKEN):
                    m.d.sync += [kind.eq(JobKind.TOKEN), qp.eq(p.token.qp)]
                with m.Else():
                    m.d.sync += [kind.eq(JobKind.SEGMENT), qp.eq(p.qp)]

        # Once the first word has come the job stands still: a context must not change under it.
        alive = Signal()
        context = Signal(Context(config))
        fresh = Signal()
        with m.If(full & ~self.job.valid):
            m.d.sync += fresh.eq(1)
            m.d.sync += self.job.valid.eq(fresh)
            m.d.sync += [alive.eq(self.alive.bit_select(qp, 1)), context.eq(read.data)]
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [full.eq(0), fresh.eq(0), self.job.valid.eq(0)]
        m.d.comb += [
            self.job.p.kind.eq(kind), self.job.p.qp.eq(qp), self.job.p.segment.eq(segment),
            self.job.p.alive.eq(alive), self.job.p.context.eq(context),
        ]
        scrub(m, write, config.qps)      # INSTALL frees the list of held segments that it finds
        return m
