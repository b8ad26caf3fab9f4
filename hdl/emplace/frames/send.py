"""Frames out of frame memory, and word of it to the host."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import PlainWrite
from ..stream.packet import PacketSignature
from .transmit_records import TxEnd, TxReady, Verdict

__all__ = ["FrameSend"]


class FrameSend(wiring.Component):
    """Sends whole frames, to the wire or into the receive path, and counts their descriptors as done when the last word
    has left. The host is told of it by a write; those that come while one waits are told together.

    Throughput: a word per cycle within a frame, 4 cycles between. Latency: 4 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    i : ``In(stream.Signature(TxReady))``
    addr, en, data : ``Out(range(frame_words))``, ``Out(1)``, ``In(64)``
        Frame memory's read port.
    wire, inject : ``Out(PacketSignature(8))``
    retire : ``Out(1)``, words : ``Out``
        To :class:`~emplace.frames.fetch.FrameFetch`.
    restart : ``In(1)``
        Strobe: the next descriptor is number 0. Nothing is under way.
    head_address : ``In(61)``
        Of abi.FrameTxHead, in units of 8 bytes.
    write, packet : ``Out(stream.Signature(PlainWrite))``, ``Out(PacketSignature(8))``
        To dma.
    told : ``Out(1)``
        Strobe: dma has taken a head.
    sent, injected, refused, failed : ``Out(1)``
        Strobes.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i":            In(stream.Signature(TxReady)),
            "addr":         Out(range(config.frame_words)), "en": Out(1), "data": In(64),
            "wire":         Out(PacketSignature(8)),
            "inject":       Out(PacketSignature(8)),
            "retire":       Out(1),
            "words":        Out(TxEnd["words"].shape),
            "restart":      In(1),
            "head_address": In(61),
            "write":        Out(stream.Signature(PlainWrite)),
            "packet":       Out(PacketSignature(8)),
            "told":         Out(1),
            "sent":         Out(1), "injected": Out(1), "refused": Out(1), "failed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        frame = self.i.p

        # Memory, then an output register; the memory's word may wait in its latch.
        tail, left = Signal.like(self.addr), Signal(TxEnd["words"].shape)
        fetched, final = Signal(), Signal()
        word, valid, ready = Signal(self.wire.p.shape()), Signal(), Signal()
        move, retire = Signal(), Signal()
        m.d.comb += [
            ready.eq(Mux(frame.reinject, self.inject.ready, self.wire.ready)),
            move.eq(fetched & (ready | ~valid)),
            self.addr.eq(tail), self.words.eq(frame.words), self.retire.eq(retire), self.i.ready.eq(retire),
            self.wire.p.eq(word), self.wire.valid.eq(valid & ~frame.reinject),
            self.inject.p.eq(word), self.inject.valid.eq(valid & frame.reinject),
        ]
        with m.If(ready):
            m.d.sync += valid.eq(0)
        with m.If(move):
            m.d.sync += [valid.eq(1), word.data.eq(self.data), word.last.eq(final), word.empty.eq(Mux(final, frame.empty, 0)),
                         fetched.eq(0)]

        done, dropped, untold = Signal(16), Signal(32), Signal()
        with m.FSM(name="frame_send"):
            with m.State("IDLE"):        # for a frame
                m.d.sync += left.eq(frame.words)
                with m.If(self.i.valid):
                    m.next = "RETIRE"
                    with m.If(frame.verdict == Verdict.SEND):
                        m.next = "WORDS"
            with m.State("WORDS"):       # for the last word to leave
                with m.If((left != 0) & (~fetched | move)):
                    m.d.comb += self.en.eq(1)
                    m.d.sync += [tail.eq(tail + 1), left.eq(left - 1), fetched.eq(1), final.eq(left == 1)]
                with m.If(valid & ready & word.last):
                    m.next = "RETIRE"
            with m.State("RETIRE"):
                m.d.comb += [
                    retire.eq(1),
                    self.sent.eq((frame.verdict == Verdict.SEND) & ~frame.reinject),
                    self.injected.eq((frame.verdict == Verdict.SEND) & frame.reinject),
                    self.refused.eq(frame.verdict == Verdict.REFUSED), self.failed.eq(frame.verdict == Verdict.FAILED),
                ]
                m.d.sync += done.eq(done + frame.descriptors)
                with m.If(self.refused | self.failed):
                    m.d.sync += dropped.eq(dropped + 1)
                m.next = "IDLE"
        with m.If(self.restart):
            m.d.sync += done.eq(0)

        write, packet = self.write, self.packet
        record = Signal(abi.FrameTxHead)
        m.d.comb += [
            record.head.eq(done), record.dropped.eq(dropped),
            write.p.address.eq(Cat(Const(0, 3), self.head_address)), write.p.length.eq(8), write.p.skip.eq(0),
            packet.p.last.eq(1),
            self.told.eq(packet.valid & packet.ready),
        ]
        with m.If(write.ready):
            m.d.sync += write.valid.eq(0)
        with m.If(packet.ready):
            m.d.sync += packet.valid.eq(0)
        with m.If(untold & ~write.valid & ~packet.valid):
            m.d.sync += [write.valid.eq(1), packet.valid.eq(1), packet.p.data.eq(record), untold.eq(0)]
        with m.If(retire):
            m.d.sync += untold.eq(1)
        return m
