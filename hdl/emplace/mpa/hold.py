"""ULPDUs on their way out: those that may still be taken back, and those that may not."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..llp import HEADER_BYTES, UlpduRecord
from ..stream.packet import PacketSignature
from .records import HoldWrite, Verdict

__all__ = ["HoldQueue"]


class HoldQueue(wiring.Component):
    """Packets that wait for their verdict, two of ``fpdu_max`` deep, and the record of one that has its.

    A packet's ``commit`` may come as late as in the cycle of the next packet's first ``write``.

    Throughput: one word a cycle. Latency from ``commit`` to the packet's first word: 3 cycles; to its record: 1.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    write : ``In(HoldWrite())``
        Always taken: the writer looks at ``room``.
    room : ``Out(1)``
        At least 2 words more will find room, this cycle's not counted.
    commit : ``In(1)``
        Strobe: what was written before this cycle, whole packets, may leave.
    rollback : ``In(1)``
        Strobe: forget all that isn't committed, this cycle's ``write`` included.
    verdict, notice : ``In(stream.Signature(Verdict(config)))``
        Records of the cutter and of the walk; the former go first.
    header : ``In(8 * HEADER_BYTES)``
        Goes with either.
    packets : ``Out(PacketSignature(8))``
    ulpdus : ``Out(stream.Signature(UlpduRecord(config)))``
    """

    def __init__(self, config):
        self.config = config
        #: Words.
        self.depth = 1 << (2 * config.fpdu_max // 8 - 1).bit_length()
        super().__init__({
            "write":    In(HoldWrite()),
            "room":     Out(1),
            "commit":   In(1),
            "rollback": In(1),
            "verdict":  In(stream.Signature(Verdict(config))),
            "notice":   In(stream.Signature(Verdict(config))),
            "header":   In(8 * HEADER_BYTES),
            "packets":  Out(PacketSignature(8)),
            "ulpdus":   Out(stream.Signature(UlpduRecord(config))),
        })

    def elaborate(self, platform):
        m = Module()
        bits = self.depth.bit_length() - 1

        # Pointers have a wrap bit. `head` is the next word to write, `done` the end of the latest committed packet,
        # `tail` the next word to read.
        head, done, tail = (Signal(bits + 1, name=n) for n in ("head", "done", "tail"))
        level = Signal(bits + 1)
        m.d.comb += level.eq(head - tail)
        m.d.sync += self.room.eq(level < self.depth - 4)

        word = data.StructLayout({"data": 64, "empty": 3, "last": 1})
        m.submodules.store = store = memory.Memory(shape=word, depth=self.depth, init=[])
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            write.addr.eq(head[:bits]),
            write.data.data.eq(self.write.data),
            write.data.empty.eq(self.write.empty),
            write.data.last.eq(self.write.last),
            write.en.eq(self.write.en),
        ]
        with m.If(self.write.en):
            m.d.sync += head.eq(head + 1)
        with m.If(self.commit):
            m.d.sync += done.eq(head)
        with m.If(self.rollback):
            m.d.sync += head.eq(done)

        # Reading: memory, then an output register; the memory's word may wait in its read latch.
        o = self.packets
        fetched, move, fetch = Signal(), Signal(), Signal()
        m.d.comb += [
            move.eq(fetched & (o.ready | ~o.valid)),
            fetch.eq((tail != done) & (~fetched | move)),
            read.addr.eq(tail[:bits]),
            read.en.eq(fetch),
        ]
        with m.If(fetch):
            m.d.sync += [tail.eq(tail + 1), fetched.eq(1)]
        with m.Elif(move):
            m.d.sync += fetched.eq(0)
        with m.If(o.ready | ~o.valid):
            m.d.sync += o.valid.eq(move)
        with m.If(move):
            m.d.sync += [o.p.data.eq(read.data.data), o.p.empty.eq(read.data.empty), o.p.last.eq(read.data.last)]

        # The record's register. The largest of all records: a queue of them would be hundreds of LUTs.
        ulpdus, room = self.ulpdus, Signal()
        chosen = Signal(Verdict(self.config))
        with m.If(self.verdict.valid):
            m.d.comb += chosen.eq(self.verdict.payload)
        with m.Else():
            m.d.comb += chosen.eq(self.notice.payload)
        m.d.comb += [
            room.eq(ulpdus.ready | ~ulpdus.valid),
            self.verdict.ready.eq(room),
            self.notice.ready.eq(room & ~self.verdict.valid),
        ]
        with m.If(room):
            m.d.sync += [
                ulpdus.valid.eq(self.verdict.valid | self.notice.valid),
                *(ulpdus.p[name].eq(chosen[name]) for name in ("kind", "token", "qp", "length", "status", "claimed")),
                ulpdus.p.header.eq(self.header),
            ]
        return m
