"""Buffers for received frames: descriptors on their way from host memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dma.records import ReadClient, ReadRequest, ReadWord
from ..queues.ring import RingAddress
from .records import FrameRing

__all__ = ["Descriptors"]

_BATCH = 4             # descriptors a bus read: 64 bytes
_HELD = 2 * _BATCH


class Descriptors(wiring.Component):
    """Prefetches up to 8 descriptors, up to 4 a bus read, and hands them out in order.

    Nothing is read, and none count as posted, while the producer index claims more than the ring has. A batch whose
    read fails comes out as descriptors that have ``failed``.

    Throughput: 4 descriptors per read latency and 12 cycles. Latency: 8 cycles from the producer index to the read.

    Members
    -------
    ring : ``In(FrameRing)``
        ``restart`` is remembered until ``clear``; meanwhile every descriptor asked for has ``failed``.
    reads, read_data : ``Out(stream.Signature(ReadRequest(config)))``, ``In(stream.Signature(ReadWord()))``
    posted : ``Out(16)``
        Descriptors posted that have not been taken.
    valid : ``Out(1)``
        The next one is here: ``header``, ``data`` (64 bits each), its ``index`` (16); or it has ``failed``.
    take : ``In(1)``
        On to the next one; only while ``valid``, and not in the two cycles behind another ``take``, in which the memories
        read.
    restarting, quiet : ``Out(1)``
        A restart is due; and no read is under way.
    clear : ``In(1)``
        Restart now; only while ``quiet``.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ring":       In(FrameRing),
            "reads":      Out(stream.Signature(ReadRequest(config))),
            "read_data":  In(stream.Signature(ReadWord())),
            "posted":     Out(16),
            "valid":      Out(1),
            "failed":     Out(1),
            "header":     Out(64),
            "data":       Out(64),
            "index":      Out(16),
            "take":       In(1),
            "restarting": Out(1),
            "quiet":      Out(1),
            "clear":      In(1),
        })

    def elaborate(self, platform):
        m = Module()
        ring, word = self.ring, self.read_data
        m.submodules.headers = headers = memory.Memory(shape=64, depth=_HELD, init=[])
        m.submodules.buffers = buffers = memory.Memory(shape=64, depth=_HELD, init=[])
        m.submodules.address = address = RingAddress(entry_log2=4)
        bad = Signal(_HELD)

        # Free-running: handed out, here, asked for.
        used, here, fetched = self.index, Signal(16), Signal(16)
        claimed, size = Signal(16), Signal(16)
        m.d.comb += size.eq(1 << ring.log2)
        m.d.sync += [
            claimed.eq(ring.producer - used),
            self.posted.eq(Mux(ring.enabled & ~self.restarting & (claimed <= size), claimed, 0)),
        ]
        reads = []
        for store, output, half in ((headers, self.header, 0), (buffers, self.data, 1)):
            write, read = store.write_port(), store.read_port()
            reads.append((write, half))
            m.d.comb += [read.addr.eq(used[:3]), output.eq(read.data)]

        m.d.comb += [
            self.valid.eq((here != used) | self.restarting),
            self.failed.eq(self.restarting | bad.bit_select(used[:3], 1)),
        ]
        with m.If(self.take):
            m.d.sync += used.eq(used + 1)
        with m.If(ring.restart):
            m.d.sync += self.restarting.eq(1)

        # What is left to ask for, and how much of it before the ring's end or the next multiple of the batch
        left, room, at, count, due = Signal(16), Signal(4), Signal(2), Signal(3), Signal()
        m.d.sync += [
            left.eq(ring.producer - fetched), room.eq(_HELD - (fetched - used)[:4]),
            due.eq((self.posted != 0) & (left != 0) & (left <= size) & (room >= _BATCH)),
        ]
        to_end = Signal(3)
        m.d.comb += [
            at.eq(fetched[:2]), to_end.eq(Mux(ring.log2 == 1, 2 - at[0], _BATCH - at)),
            address.base.eq(ring.base), address.log2.eq(ring.log2), address.index.eq(fetched),
            self.reads.p.client.eq(ReadClient.FRAME_RX), self.reads.p.length.eq(count << 4),
            self.reads.p.address.eq(address.address),
        ]
        step, spoiled = Signal(4), Signal()
        row = Signal(3)
        m.d.comb += row.eq(fetched + step[1:])
        for write, half in reads:
            m.d.comb += [write.addr.eq(row), write.data.eq(word.p.data)]
            with m.If(word.valid & word.ready & (step[0] == half)):
                m.d.comb += write.en.eq(1)

        settle = Signal(3)
        with m.FSM(name="descriptors"):
            with m.State("SETTLE"):      # for what follows the indices
                m.d.sync += settle.eq(settle + 1)
                with m.If(settle.all()):
                    m.next = "IDLE"
            with m.State("IDLE"):        # for descriptors to be posted, and room for them
                m.d.comb += self.quiet.eq(1)
                m.d.sync += [step.eq(0), count.eq(Mux(left < to_end, left[:3], to_end))]
                with m.If(due & ~self.restarting & ~ring.restart):
                    m.next = "READ"
            with m.State("READ"):        # for the bus
                m.d.comb += self.reads.valid.eq(1)
                with m.If(self.reads.ready):
                    m.next = "WORDS"
            with m.State("WORDS"):       # for the last word
                m.d.comb += word.ready.eq(1)
                with m.If(word.valid):
                    m.d.sync += [step.eq(step + 1), spoiled.eq(word.p.err)]
                    with m.If(word.p.last):
                        m.next = "ADMIT"
            with m.State("ADMIT"):       # one after the other, so that each has its flag
                m.d.sync += [
                    bad.bit_select(here[:3], 1).eq(spoiled), here.eq(here + 1), fetched.eq(fetched + 1),
                    count.eq(count - 1), settle.eq(0),
                ]
                with m.If(count == 1):
                    m.next = "SETTLE"

        with m.If(self.clear):
            m.d.sync += [used.eq(0), here.eq(0), fetched.eq(0), self.restarting.eq(ring.restart)]
        return m
