"""Brings what is to be sent from registered memory: checked, and in one packet a ULPDU."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..abi import Access, Reason
from ..dma.records import ReadClient, ReadRequest, ReadWord
from ..protect.records import AccessOp, AccessReply, AccessRequest, Outcome
from ..queues.records import LineWord
from ..stream.join import Joiner
from ..stream.packet import PacketSignature, connect_streams
from ..stream.queue import Queue
from .records import Died, GatherJob

__all__ = ["Gather"]

#: Reads whose data may be under way.
_READS = 32
_INLINE_WORDS = 12             # 96 octets


class Gather(wiring.Component):
    """Walks the scatter/gather list of each job, asks for every piece's grant, reads it, and joins what comes.

    Local keys are checked like remote ones (right LOCAL_READ), at every transmission anew. What is refused, or can't be
    read, gives a packet with ``err`` and ends the stream.

    Throughput: a job of one element every 13 cycles and protect's latency; payload a word a cycle. Latency: 7 cycles and
    protect's from a job to its read.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    jobs : ``In(stream.Signature(GatherJob(config)))``
    at : ``Out(LineWord(config))``, data : ``In(64)``
        Of :class:`~emplace.queues.send_lines.WqeLines`.
    unpin : ``Out({en, line})``
        Strobe: the job's line is no longer needed.
    access, granted
        To and from protect; one request at a time.
    reads, read_data
        Of the bus.
    payload : ``Out(PacketSignature(8))``
        A packet a job, in order.
    died : ``Out(stream.Signature(Died(config)))``
        SQ_WQE: more octets than the SGEs have; SOURCE_ACCESS, SOURCE_REVOKED, READ_ACCESS: refused, of a WQE, of what was
        sent before, of the peer's read; NOT_NOW; SOURCE_FETCH: a read failed.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "jobs":      In(stream.Signature(GatherJob(config))),
            "at":        Out(LineWord(config)),
            "data":      In(64),
            "unpin":     Out(data.StructLayout({"en": 1, "line": config.send_line_bits})),
            "access":    Out(stream.Signature(AccessRequest(config))),
            "granted":   In(stream.Signature(AccessReply())),
            "reads":     Out(stream.Signature(ReadRequest(config))),
            "read_data": In(stream.Signature(ReadWord())),
            "payload":   Out(PacketSignature(8)),
            "died":      Out(stream.Signature(Died(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        jobs, granted, reads = self.jobs, self.granted, self.reads

        # What is to be joined: a read's data, inline data, or nothing (``bad``: an error in their stead).
        Part = data.StructLayout({"qp": config.qp_bits, "inline": 1, "bad": 1, "joins": 1, "octets": 7})
        m.submodules.parts = parts = Queue(Part, _READS)
        m.submodules.inline = inline = Queue(64, 16)

        job = Signal(GatherJob(config))
        element = Signal(3)
        left, offset = Signal(16), Signal(32)          # octets of the job still to be asked for; of the next element to skip
        address, length, lkey = Signal(64), Signal(32), Signal(32)
        rest, piece = Signal(32), Signal(16)
        burst, burst_left, burst_last = Signal(64), Signal(13), Signal()
        word = Signal(4)
        reason = Signal(Reason)
        in_second = Signal()                           # the element lies in the WQE's second entry
        inside, most, count, ends = Signal(range(config.read_bytes)), Signal(13), Signal(13), Signal()
        whole = Signal()
        m.d.comb += [
            in_second.eq(element[1]),
            self.unpin.line.eq(job.line), self.at.line.eq(job.line),
            rest.eq(length - offset), whole.eq(rest >= left),
            inside.eq(burst), most.eq(config.read_bytes - inside), ends.eq(burst_left <= most),
            count.eq(Mux(ends, burst_left, most)),
            self.access.p.op.eq(AccessOp.GRANT), self.access.p.pd.eq(job.pd), self.access.p.qp.eq(job.qp),
            self.access.p.stag.eq(lkey), self.access.p.offset.eq(address), self.access.p.length.eq(piece),
            self.access.p.right.eq(Mux(job.remote, Access.REMOTE_READ, Access.LOCAL_READ)),
            reads.p.client.eq(ReadClient.PAYLOAD), reads.p.address.eq(burst), reads.p.length.eq(count),
            reads.p.ordered.eq(job.remote),      # what the peer has written before is what it reads (RFC 5040 5.5 rule 12)
            parts.i.p.qp.eq(job.qp), parts.i.p.octets.eq(job.octets),
        ]

        # Words of the line: SGEs at words 4 and 6 of the first entry and 0 and 2 of the second; inline data the same.
        def entry(extension, at):
            return [self.at.word.eq(Cat(at, job.place | extension))]
        second, inline_word = Signal(), Signal(3)
        m.d.comb += [second.eq(word >= 4), inline_word.eq(Cat(word[:2], Mux(second, word[3], 1)))]

        refusing, failing = Signal(), Signal()         # somebody has a death to tell
        with m.FSM(name="ask"):
            with m.State("JOB"):         # for a job
                m.d.comb += jobs.ready.eq(1)
                m.d.sync += [
                    job.eq(jobs.p), left.eq(jobs.p.octets), offset.eq(jobs.p.offset), element.eq(0), word.eq(0),
                    lkey.eq(jobs.p.stag), address.eq(jobs.p.to), piece.eq(jobs.p.octets),
                ]
                with m.If(jobs.valid):
                    m.next = "ADDRESS"
                    with m.If(jobs.p.remote):
                        m.next = "ASK"
                    with m.Elif(jobs.p.inline):
                        m.next = "INLINE_READ"
            with m.State("ADDRESS"):     # for the line: the element's address
                m.d.comb += entry(in_second, Cat(0, element[0], ~in_second)[:3])
                m.next = "LENGTH"
                with m.If(element == job.elements):
                    m.d.sync += reason.eq(Reason.SQ_WQE)
                    m.next = "REFUSE"
            with m.State("LENGTH"):      # for the line: its length and key
                m.d.comb += entry(in_second, Cat(1, element[0], ~in_second)[:3])
                m.d.sync += address.eq(self.data)
                m.next = "ELEMENT"
            with m.State("ELEMENT"):
                m.d.sync += [length.eq(self.data[:32]), lkey.eq(self.data[32:]), element.eq(element + 1)]
                m.next = "PLACE"
            with m.State("PLACE"):       # passed over, or a piece of it
                m.d.sync += [address.eq(address + offset), piece.eq(Mux(whole, left, rest))]
                m.next = "ASK"
                with m.If(offset >= length):
                    m.d.sync += offset.eq(offset - length)
                    m.next = "ADDRESS"
                with m.Else():
                    m.d.sync += offset.eq(0)
            with m.State("ASK"):         # for protect to take the question
                m.d.comb += self.access.valid.eq(1)
                with m.If(self.access.ready):
                    m.next = "GRANT"
            with m.State("GRANT"):       # for a burst
                m.d.comb += granted.ready.eq(1)
                m.d.sync += [
                    burst.eq(granted.p.address), burst_left.eq(granted.p.length), burst_last.eq(granted.p.last),
                    reason.eq(Mux(granted.p.outcome == Outcome.NOT_NOW, Reason.NOT_NOW, Mux(
                        job.again, Reason.SOURCE_REVOKED, Mux(job.remote, Reason.READ_ACCESS, Reason.SOURCE_ACCESS)))),
                ]
                with m.If(granted.valid):
                    m.next = "READ"
                    with m.If(granted.p.outcome != Outcome.GRANTED):
                        m.next = "REFUSE"
            with m.State("READ"):        # for dma, and room for what it brings
                m.d.comb += [
                    reads.valid.eq(parts.i.ready), parts.i.valid.eq(reads.ready),
                    parts.i.p.joins.eq(left != count),
                ]
                with m.If(reads.valid & reads.ready):
                    m.d.sync += [burst.eq(burst + count), burst_left.eq(burst_left - count), left.eq(left - count)]
                    with m.If(left == count):
                        m.next = "DONE"
                    with m.Elif(ends):
                        m.next = "GRANT"
                        with m.If(burst_last):
                            m.next = "ADDRESS"
            with m.State("REFUSE"):      # for room, and for control to know
                m.d.comb += [
                    parts.i.p.bad.eq(1), refusing.eq(parts.i.ready), parts.i.valid.eq(self.died.ready & ~failing),
                ]
                with m.If(parts.i.valid & parts.i.ready):
                    m.next = "DONE"
            with m.State("INLINE_READ"):     # for the line
                m.d.comb += entry(second, inline_word)
                m.next = "INLINE"
            with m.State("INLINE"):      # for room; the last word brings the part with it
                final = Signal()
                m.d.comb += [
                    final.eq((word + 1) << 3 >= left), inline.i.p.eq(self.data), parts.i.p.inline.eq(1),
                    inline.i.valid.eq(~final | parts.i.ready), parts.i.valid.eq(final & inline.i.ready),
                    *entry(second, inline_word),
                ]
                with m.If(inline.i.valid & inline.i.ready):
                    m.d.sync += word.eq(word + 1)
                    m.next = "INLINE_READ"
                    with m.If(final):
                        m.next = "DONE"
            with m.State("DONE"):        # nothing
                m.d.comb += self.unpin.en.eq(~job.remote)
                m.next = "JOB"

        # What comes is joined.
        m.submodules.joiner = joiner = Joiner(8)
        part, i, o = parts.o.p, joiner.i, self.read_data
        octets, last = Signal(7), Signal()             # inline octets that have gone; the part ends with this word
        remain = Signal(7)
        m.d.comb += [
            remain.eq(part.octets - octets), i.p.joins.eq(part.joins), i.p.last.eq(last),
            parts.o.ready.eq(i.valid & i.ready & last),
        ]
        told = Signal()                                # control knows of this part's failure
        with m.If(part.bad):
            m.d.comb += [i.valid.eq(parts.o.valid), last.eq(1), i.p.err.eq(1)]
        with m.Elif(part.inline):
            m.d.comb += [
                i.valid.eq(parts.o.valid & inline.o.valid), i.p.data.eq(inline.o.p), last.eq(remain <= 8),
                i.p.empty.eq(Mux(last, 8 - remain[:4], 0)), inline.o.ready.eq(parts.o.valid & i.ready),
            ]
        with m.Else():
            m.d.comb += [
                i.valid.eq(parts.o.valid & o.valid & ~failing), i.p.data.eq(o.p.data), last.eq(o.p.last),
                i.p.empty.eq(o.p.empty), i.p.err.eq(o.p.last & o.p.err), o.ready.eq(parts.o.valid & i.ready & ~failing),
                failing.eq(parts.o.valid & o.valid & i.p.err & ~told),
            ]
        with m.If(failing & self.died.ready):
            m.d.sync += told.eq(1)
        with m.If(i.valid & i.ready):
            m.d.sync += [octets.eq(Mux(last, 0, octets + 8)), told.eq(0)]
        connect_streams(m, joiner.o, self.payload)
        m.d.comb += [
            self.died.valid.eq(failing | refusing),
            self.died.p.qp.eq(Mux(failing, part.qp, job.qp)),
            self.died.p.reason.eq(Mux(failing, Reason.SOURCE_FETCH, reason)),
        ]
        return m
