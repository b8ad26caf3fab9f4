"""Outstanding reads: what Read Responses are judged against.

Ref: RFC 5040 §5.2.2, §5.5 (responses come in the order of the requests).
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..abi import Reason, Status
from .records import ExpectRead, ExpectResult, ReadQueueOp, ReadQueueReply, ReadQueueRequest

__all__ = ["ReadQueue"]


class ReadQueue(wiring.Component):
    """The outstanding-read queue of each QP, ``config.orq`` deep.

    The host tells of each read *before* it sends the Read Request. A Read Response segment is judged
    against the oldest: R1 (there is one), R2 (STag, and TO runs on; not of an empty segment), R3 (not
    longer, and at its end not shorter, than what was asked).

    Latency: CHECK 5 cycles to the reply, COMMIT 2, CLEAR 1, ``expect`` 3 to the result.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    request : ``In(stream.Signature(ReadQueueRequest(config)))``
        A reply must have been taken before the next request.
    reply : ``Out(stream.Signature(ReadQueueReply))``
        To CHECK alone.
    expect : ``In(stream.Signature(ExpectRead(config)))``
    expect_result : ``Out(stream.Signature(ExpectResult))``
        abi.Status: OK, or QUEUE_FULL and nothing was changed.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "request":       In(stream.Signature(ReadQueueRequest(config))),
            "reply":         Out(stream.Signature(ReadQueueReply)),
            "expect":        In(stream.Signature(ExpectRead(config))),
            "expect_result": Out(stream.Signature(ExpectResult)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bits = (config.orq - 1).bit_length()
        i = self.request

        # `progress`: octets that the oldest read has had so far.
        State = data.StructLayout({"head": bits, "level": bits + 1, "progress": 32})
        Entry = data.StructLayout({"stag": 32, "to": 64, "length": 32, "wr_id": 16})
        m.submodules.states = states = memory.Memory(shape=State, depth=config.qps, init=[])
        m.submodules.entries = entries = memory.Memory(shape=Entry, depth=config.qps * config.orq, init=[])
        state_read, state_write = states.read_port(), states.write_port()
        entry_read, entry_write = entries.read_port(), entries.write_port()
        state, entry = state_read.data, entry_read.data

        qp = Signal(config.qp_bits)
        m.d.comb += [
            qp.eq(Mux(i.valid, i.p.qp, self.expect.p.qp)),
            state_read.addr.eq(qp),
            state_read.en.eq(0),         # its default is 1
            entry_read.en.eq(0),
            entry_read.addr.eq(Cat(state.head, qp)),
            entry_write.addr.eq(Cat((state.head + state.level)[:bits], self.expect.p.qp)),
            *(entry_write.data[name].eq(self.expect.p[name]) for name in ("stag", "to", "length", "wr_id")),
            state_write.addr.eq(qp),
            state_write.data.eq(state),
        ]
        place = Signal(64)               # where the response goes on
        octets = Signal(33)
        bad_stag, bad_to, long, short = (Signal(name=name) for name in ("bad_stag", "bad_to", "long", "short"))
        empty = i.p.payload == 0

        with m.If(self.expect_result.ready):
            m.d.sync += self.expect_result.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):        # a request, else a read to expect
                m.d.comb += state_read.en.eq(1)
                with m.If(i.valid):
                    with m.Switch(i.p.op):
                        with m.Case(ReadQueueOp.CHECK):
                            m.next = "FETCH"
                        with m.Case(ReadQueueOp.COMMIT):
                            m.next = "COMMIT"
                        with m.Default():
                            m.d.comb += [i.ready.eq(1), state_write.en.eq(1), state_write.data.eq(0)]
                with m.Elif(self.expect.valid):
                    m.next = "EXPECT"
            with m.State("FETCH"):       # nothing: the state has been read
                m.d.comb += entry_read.en.eq(1)
                m.next = "ADD"
            with m.State("ADD"):         # nothing: the oldest read has been read
                m.d.sync += [
                    place.eq(entry.to + state.progress),
                    octets.eq(state.progress + i.p.payload),
                    bad_stag.eq(i.p.stag != entry.stag),
                ]
                m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += [
                    bad_to.eq(i.p.to != place),
                    long.eq(octets > entry.length),
                    short.eq(i.p.last & (octets != entry.length)),
                ]
                m.next = "REPLY"
            with m.State("REPLY"):       # its taker
                m.d.comb += [
                    self.reply.valid.eq(1), self.reply.p.octets.eq(octets), self.reply.p.wr_id.eq(entry.wr_id),
                    i.ready.eq(self.reply.ready),
                ]
                with m.If(state.level == 0):
                    m.d.comb += self.reply.p.reason.eq(Reason.RESPONSE_UNEXPECTED)
                with m.Elif(bad_stag & ~empty):
                    m.d.comb += self.reply.p.reason.eq(Reason.RESPONSE_STAG)
                with m.Elif(bad_to & ~empty):
                    m.d.comb += self.reply.p.reason.eq(Reason.RESPONSE_TO)
                with m.Elif(long | short):
                    m.d.comb += self.reply.p.reason.eq(Reason.RESPONSE_LENGTH)
                with m.If(self.reply.ready):
                    m.next = "IDLE"
            with m.State("COMMIT"):      # nothing: the state has been read anew (reads may have come since CHECK)
                m.d.comb += [i.ready.eq(1), state_write.en.eq(1)]
                with m.If(i.p.last):
                    m.d.comb += [
                        state_write.data.head.eq(state.head + 1),
                        state_write.data.level.eq(state.level - 1),
                        state_write.data.progress.eq(0),
                    ]
                with m.Else():
                    m.d.comb += state_write.data.progress.eq(state.progress + i.p.payload)
                m.next = "IDLE"
            with m.State("EXPECT"):      # the taker of the result before
                # A request may have come meanwhile: it waits, but `qp` is now its QP.
                m.d.comb += state_write.addr.eq(self.expect.p.qp)
                with m.If(~self.expect_result.valid):
                    m.d.comb += [
                        self.expect.ready.eq(1),
                        entry_write.en.eq(state.level != config.orq),
                        state_write.en.eq(state.level != config.orq),
                        state_write.data.level.eq(state.level + 1),
                    ]
                    m.d.sync += [
                        self.expect_result.valid.eq(1),
                        self.expect_result.p.status.eq(Mux(state.level == config.orq, Status.QUEUE_FULL, Status.OK)),
                    ]
                    m.next = "IDLE"
        return m
