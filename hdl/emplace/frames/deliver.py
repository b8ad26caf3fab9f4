"""Frames from frame memory to the host's buffers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import PlainWrite
from ..queues.ring import RingAddress, ring_phase
from ..stream.packet import PacketSignature, connect_streams
from .records import FrameHead, FrameRing, FrameSettings, Reached

__all__ = ["Deliver"]

_COMPLETION_WORDS = abi.nbytes(abi.FrameRxCompletion) // 8


class Deliver(wiring.Component):
    """Takes the frames one after the other: as many descriptors as each needs, its bytes piece by piece, its completion.

    Every piece is a write of its own, of a packet of its own, so that other writes come between them. A frame that
    needs more descriptors than are posted is dropped whole. A descriptor that could not be read is passed over: in
    front of a frame's first byte the frame is dropped with it, later the frame ends there, TRUNCATED.

    Completions are numbered here, and so it is here that a mark is answered: every frame that was in front of it has
    its number, or will never have one.

    Throughput: a frame in 22 cycles and its words, 9 more for each buffer but the first.

    Members
    -------
    done, tail : as in :class:`~emplace.frames.intake.Intake`, other way round
    addr, en, data : ``Out(bits)``, ``Out(1)``, ``In(64)``
        Frame memory's read port.
    at, words, empty, start, busy, reading : to :class:`~emplace.frames.reader.PieceReader`
        ``reading``: the read port is its.
    settings : ``In(FrameSettings)``, ring : ``In(FrameRing)``
    posted ... clear : as in :class:`~emplace.frames.descriptors.Descriptors`, other way round
    pieces : ``In(PacketSignature(8))``
        From the PieceReader.
    writes, packets : ``Out(stream.Signature(PlainWrite))``, ``Out(PacketSignature(8))``
        To dma.
    reached : ``Out(stream.Signature(Reached))``
        A mark's answer.
    delivered, no_buffer, bus_error : ``Out(1)``
        Strobes.
    """

    def __init__(self, config):
        self.config = config
        self.bits = bits = (config.frame_words - 1).bit_length()
        super().__init__({
            "done": In(bits + 1), "tail": Out(bits + 1),
            "addr": Out(bits), "en": Out(1), "data": In(64),
            "at": Out(bits), "words": Out(10), "empty": Out(3), "start": Out(1), "busy": In(1), "reading": Out(1),
            "settings": In(FrameSettings), "ring": In(FrameRing),
            "posted": In(16), "valid": In(1), "failed": In(1), "header": In(64), "buffer": In(64), "index": In(16),
            "take": Out(1), "restarting": In(1), "quiet": In(1), "clear": Out(1),
            "pieces": In(PacketSignature(8)),
            "writes": Out(stream.Signature(PlainWrite)), "packets": Out(PacketSignature(8)),
            "reached": Out(stream.Signature(Reached)),
            "delivered": Out(1), "no_buffer": Out(1), "bus_error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, settings, ring = self.config, self.settings, self.ring

        # Of each QP that was held: its last completion, its number
        m.submodules.rows = rows = memory.Memory(shape=Reached, depth=config.qps, init=[])
        m.submodules.names = names = memory.Memory(shape=24, depth=config.qps, init=[])
        row_read, row_write, name_read, name_write = (
            rows.read_port(), rows.write_port(), names.read_port(), names.write_port())
        m.submodules.address = address = RingAddress(entry_log2=5)

        head = Signal(FrameHead(config))
        frame, flags = head.of.frame, abi.FrameFlags
        number = Signal(32)              # of the next completion
        split, truncated = Signal(), Signal()
        left, position = Signal(13), Signal(13)      # octets that go to data buffers; where in the frame they begin
        rest, need = Signal(13), Signal(8)           # of them that are not counted yet; descriptors for the others
        used, first = Signal(8), Signal(16)          # descriptors used, and the first one's index
        target = Signal(64)              # address of the data buffer
        size = Signal(17)
        m.d.sync += size.eq(1 << settings.buffer_log2)
        completion = Signal(abi.FrameRxCompletion)
        step = Signal(range(_COMPLETION_WORDS))
        sweep = Signal(config.qp_bits)
        m.d.comb += [
            address.base.eq(ring.completions), address.log2.eq(ring.log2), address.index.eq(number),
            *(port.addr.eq(head.qp) for port in (row_read, row_write, name_read, name_write)),
            name_write.data.eq(head.of.mark.qpn),
            row_write.data.any.eq(1), row_write.data.index.eq(number),
            self.reached.p.any.eq(row_read.data.any & ~head.fresh), self.reached.p.index.eq(row_read.data.index),
            completion.descriptor.eq(first), completion.buffers.eq(used), completion.reason.eq(head.reason),
            completion.length.eq(frame.length), completion.header_length.eq(Mux(split, frame.header, 0)),
            completion.flags.eq(Mux(split, flags.SPLIT, 0) | Mux(truncated, flags.TRUNCATED, 0) | head.flags),
            completion.phase.eq(ring_phase(number, ring.log2)),
        ]
        with m.If(head.reason == abi.FrameReason.HELD):
            m.d.comb += completion.qpn.eq(name_read.data)

        # A write leaves: its address here, its bytes by way of the reader.
        writes = self.writes
        length, enough, span = Signal(13), Signal(), Signal(14)
        m.d.comb += span.eq(position[:3] + length)
        m.d.sync += enough.eq(self.posted >= need)
        with m.If(writes.ready):
            m.d.sync += writes.valid.eq(0)
        connect_streams(m, self.pieces, self.packets)

        with m.FSM(name="deliver"):
            with m.State("SWEEP"):       # behind a reset or a restart: forget what was numbered
                m.d.comb += [row_write.addr.eq(sweep), row_write.data.eq(0), row_write.en.eq(1)]
                m.d.sync += [sweep.eq(sweep + 1), number.eq(0)]
                with m.If(sweep == config.qps - 1):
                    m.next = "CLEAR"
            with m.State("CLEAR"):       # waits for descriptors that are on their way
                m.d.comb += self.clear.eq(self.quiet)
                with m.If(self.quiet):
                    m.next = "IDLE"
            with m.State("IDLE"):        # waits for a frame, or a mark
                m.d.comb += [self.addr.eq(self.tail), self.en.eq(1)]
                m.d.sync += [truncated.eq(0), used.eq(0), need.eq(1), step.eq(0), sweep.eq(0)]
                with m.If(self.restarting):
                    m.next = "SWEEP"
                with m.Elif(self.done != self.tail):
                    m.next = "HEAD"
            with m.State("HEAD"):        # the memory has read
                m.d.sync += head.eq(self.data)
                m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += [
                    split.eq(settings.split & (frame.header != 0)), position.eq(0), left.eq(frame.length),
                    rest.eq(frame.length),
                ]
                with m.If(settings.split):
                    m.d.sync += [left.eq(frame.length - frame.header), rest.eq(frame.length - frame.header)]
                m.next = "COUNT"
                with m.If(head.mark):
                    m.next = "MARK"

            with m.State("MARK"):        # the row has been read
                m.next = "ANSWER"
            with m.State("ANSWER"):      # waits for control
                m.d.comb += [
                    self.reached.valid.eq(1),
                    row_write.data.eq(0), row_write.en.eq(head.fresh), name_write.en.eq(head.fresh),
                ]
                with m.If(self.reached.ready):
                    m.d.sync += self.tail.eq(self.tail + 1)
                    m.next = "IDLE"

            with m.State("COUNT"):       # the descriptors that the frame needs, one a cycle
                with m.If(rest > size):
                    m.d.sync += [rest.eq(rest - size), need.eq(need + 1)]
                with m.Else():
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.next = "ENOUGH"
            with m.State("ENOUGH"):
                m.next = "DESCRIPTOR"
                with m.If(~enough):
                    m.d.comb += self.no_buffer.eq(1)
                    m.next = "FREE"
            with m.State("DESCRIPTOR"):  # waits for one from the bus
                m.d.sync += [target.eq(self.buffer), writes.p.address.eq(self.header), length.eq(frame.header)]
                with m.If(self.valid):
                    m.d.comb += self.take.eq(1)
                    with m.If(self.failed):
                        m.d.comb += [self.bus_error.eq(~self.restarting), self.no_buffer.eq(self.restarting)]
                        m.d.sync += truncated.eq(1)
                        m.next = "FREE"
                        with m.If(used != 0):
                            m.next = "COMPLETE"
                    with m.Else():
                        m.d.sync += used.eq(used + 1)
                        with m.If(used == 0):
                            m.d.sync += first.eq(self.index)
                        m.next = "MEASURE"
                        with m.If((used == 0) & split):
                            m.next = "AIM"

            with m.State("MEASURE"):     # a piece for a data buffer
                m.d.sync += [writes.p.address.eq(target), length.eq(Mux(left > size, size, left))]
                m.next = "AIM"
            with m.State("AIM"):
                m.d.sync += [
                    self.at.eq(self.tail + 1 + position[3:]), self.words.eq((span + 7) >> 3), self.empty.eq(-span),
                    writes.p.length.eq(length), writes.p.skip.eq(position),
                ]
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += self.start.eq(1)
                m.d.sync += [writes.valid.eq(1), position.eq(position + length)]
                with m.If((position != 0) | ~split):
                    m.d.sync += left.eq(left - length)
                m.next = "PIECE"
            with m.State("PIECE"):       # waits until all of it has left
                m.d.comb += self.reading.eq(1)
                with m.If(~self.busy):
                    m.next = "DESCRIPTOR"
                    with m.If(split & (position == frame.header) & (left != 0)):
                        m.next = "MEASURE"           # the payload, behind the headers
                    with m.Elif(left == 0):
                        m.next = "COMPLETE"

            with m.State("COMPLETE"):
                m.d.sync += [writes.valid.eq(1), writes.p.address.eq(address.address), writes.p.skip.eq(0),
                             writes.p.length.eq(8 * _COMPLETION_WORDS)]
                m.next = "WORDS"
            with m.State("WORDS"):       # waits until the completion has left
                m.d.comb += [
                    self.packets.valid.eq(1), self.packets.p.data.eq(completion.as_value().word_select(step, 64)),
                    self.packets.p.empty.eq(0), self.packets.p.err.eq(0),
                    self.packets.p.last.eq(step == _COMPLETION_WORDS - 1),
                ]
                with m.If(self.packets.ready):
                    m.d.sync += step.eq(step + 1)
                    with m.If(self.packets.p.last):
                        m.d.comb += [self.delivered.eq(1), row_write.en.eq(head.reason == abi.FrameReason.HELD)]
                        m.d.sync += number.eq(number + 1)
                        m.next = "FREE"
            with m.State("FREE"):
                m.d.sync += self.tail.eq(self.tail + 1 + ((frame.length + 7) >> 3))
                m.next = "IDLE"
        return m
