"""Frames from the wire into frame memory, until it is known whose they are."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..ip.header import swapped
from ..ip.records import Disposition
from ..stream.packet import PacketWord
from ..stream.queue import Queue
from .records import FrameHead, FrameSettings

__all__ = ["Intake", "MOST_WORDS"]

#: Words that can be on their way between a frame's last word and its disposition, and some more.
_DELAY = 16
#: The longest frame kept: one write command has room for 8,191 octets.
MOST_WORDS = 1023
#: Words that a frame never takes: for its head, a mark, and the cycles in which `full` follows.
_SPARE = 6


class Intake(wiring.Component):
    """Writes every frame that ip sees into a ring of words as it arrives, a head before it, and keeps or takes back the
    whole of it once its disposition says so.

    The ring begins a queue of 16 words behind ip: a frame's last word waits there for the disposition, so that
    everything in front of it is decided when a word is written, and a dropped frame leaves no hole.

    Throughput: a word a cycle, and one cycle more for each frame that is for the host, which the preamble gives.
    Latency: 3 cycles from the disposition.

    A frame for the host that is not wanted (RX off), is for another station, or finds no room, is dropped whole and
    counted, the first of these that holds.

    Members
    -------
    i : ``In(stream.Signature(PacketWord(8), always_ready=True))``
        What ip gets.
    dispositions : ``In(stream.Signature(Disposition(config)))``
        No mark before the one before it has been answered.
    settings : ``In(FrameSettings)``
    write : ``Out({en, addr, data})``
        To frame memory.
    done : ``Out(bits + 1)``, tail : ``In(bits + 1)``
        Words of the ring from ``tail`` up to ``done`` are frames for the host; a bit more than the address has.
    off, filtered, no_room : ``Out(1)``
        Strobes: frames dropped.
    """

    def __init__(self, config):
        self.config = config
        self.bits = bits = (config.frame_words - 1).bit_length()
        super().__init__({
            "i":            In(stream.Signature(PacketWord(8), always_ready=True)),
            "dispositions": In(stream.Signature(Disposition(config))),
            "settings":     In(FrameSettings),
            "write":        Out(data.StructLayout({"en": 1, "addr": bits, "data": 64})),
            "done":         Out(bits + 1),
            "tail":         In(bits + 1),
            "off":          Out(1),
            "filtered":     Out(1),
            "no_room":      Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        bits, disposition = self.bits, self.dispositions.p
        m.submodules.delay = delay = Queue(PacketWord(8), _DELAY)
        word = delay.o.p
        m.d.comb += [delay.i.p.eq(self.i.p), delay.i.valid.eq(self.i.valid)]

        head = Signal(bits + 1, init=1)  # the next word of a frame; its head's place is kept free at `done`
        first = Signal(init=1)           # the next word begins a frame
        words = Signal(range(MOST_WORDS + 1))
        lost = Signal()                  # the frame has no room
        full, level = Signal(), Signal(bits + 1)
        m.d.comb += level.eq(head - self.tail)
        m.d.sync += full.eq(level >= self.config.frame_words - _SPARE)

        # Whom the frame is for. Right in the cycle behind any of its words.
        same, group = Signal(6), Signal()
        mac = swapped(self.settings.mac)
        with m.If(first):
            m.d.sync += [
                same.eq(Cat(word.data.word_select(n, 8) == mac.word_select(n, 8) for n in range(6))),
                group.eq(word.data[0]),
            ]

        # A mark waits for the end of the frame that is being written; it may well come behind that.
        marked, mark = Signal(), Signal(FrameHead(self.config))
        put, putting_mark, take, known = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            putting_mark.eq(marked & first & ~put),
            known.eq(word.err | (self.dispositions.valid & ~disposition.mark)),
            take.eq(delay.o.valid & ~put & ~putting_mark & (~word.last | known)),
            delay.o.ready.eq(~put & ~putting_mark & (~word.last | known)),
            self.dispositions.ready.eq(Mux(disposition.mark, ~marked, take & word.last & ~word.err)),
        ]
        with m.If(self.dispositions.valid & disposition.mark & ~marked):
            m.d.sync += [
                marked.eq(1), mark.mark.eq(1), mark.fresh.eq(disposition.fresh), mark.qp.eq(disposition.qp),
                mark.of.mark.qpn.eq(disposition.qpn),
            ]

        # Words go behind `done` until the last one; what it says comes true a cycle later.
        frame, spoiled = Signal(FrameHead(self.config)), Signal()
        with m.If(take):
            m.d.sync += [first.eq(word.last), words.eq(words + 1), lost.eq(lost | full | (words == MOST_WORDS))]
            with m.If(~lost & ~full & (words != MOST_WORDS)):
                m.d.comb += self.write.en.eq(1)
                m.d.sync += head.eq(head + 1)
            with m.If(word.last):
                m.d.sync += [
                    words.eq(0), lost.eq(0), spoiled.eq(lost | full | (words == MOST_WORDS)),
                    put.eq(~word.err & disposition.keep),
                    frame.reason.eq(disposition.reason), frame.flags.eq(disposition.flags),
                    frame.qp.eq(disposition.qp), frame.of.frame.header.eq(disposition.header),
                    frame.of.frame.length.eq(((words + 1) << 3) - word.empty),
                ]
                with m.If(word.err | ~disposition.keep):
                    m.d.sync += head.eq(self.done + 1)
        m.d.comb += [self.write.addr.eq(head), self.write.data.eq(word.data)]

        with m.If(put):
            m.d.sync += [put.eq(0), head.eq(self.done + 1)]
            m.d.comb += [self.write.addr.eq(self.done), self.write.data.eq(frame)]
            with m.If(~self.settings.rx):
                m.d.comb += self.off.eq(1)
            with m.Elif(~same.all() & ~group & ~self.settings.promiscuous):
                m.d.comb += self.filtered.eq(1)
            with m.Elif(spoiled):
                m.d.comb += self.no_room.eq(1)
            with m.Else():
                m.d.comb += self.write.en.eq(1)
                m.d.sync += [self.done.eq(head), head.eq(head + 1)]
        with m.If(putting_mark):
            m.d.comb += [self.write.en.eq(1), self.write.addr.eq(self.done), self.write.data.eq(mark)]
            m.d.sync += [marked.eq(0), self.done.eq(head), head.eq(head + 1)]
        return m
