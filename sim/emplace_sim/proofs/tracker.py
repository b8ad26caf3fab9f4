"""Bytes of packets, followed through a component that packs them otherwise."""

from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

__all__ = ["ByteTracker", "Run", "well_formed"]


class Run(data.StructLayout):
    """Bytes of a packet in one word: ``count`` of them from lane ``first`` on; ``last`` of them is the packet's."""

    def __init__(self, nbytes):
        self.nbytes = nbytes
        super().__init__({"data": 8 * nbytes, "first": range(nbytes), "count": range(nbytes + 1), "last": 1, "err": 1})

    @staticmethod
    def of(word, nbytes, first=0):
        """Statements' right side: fields of a run for a packet word."""
        return {"data": word.data, "first": first, "count": nbytes - word.empty - first, "last": word.last,
                "err": word.err}


def well_formed(m, port, check):
    """``check`` (Assert or Assume) that only a packet's last word is not full."""
    with m.If(port.valid):
        m.d.comb += check(port.p.last | (port.p.empty == 0), "packet: full words up to the last")


class ByteTracker(wiring.Component):
    """No byte lost, doubled, reordered or altered, packets end where they ended, ``err`` is kept: shown for one byte.

    The solver picks a byte that goes in, whichever and whenever; proving it for that byte proves it for all. It may
    come out in the cycle in which it goes in.

    Parameters
    ----------
    i_bytes, o_bytes : :class:`int`
        Bytes per word.
    most : :class:`int`
        How many bytes the component can hold.

    Members
    -------
    taken, given : ``In(1)``
    i, o : ``In(Run(...))``
        What goes in with ``taken``, comes out with ``given``.
    level : ``Signal()``, output
        Bytes inside.
    marked, ahead, byte, is_last, is_err : ``Signal()``, output
        The chosen byte is inside, behind ``ahead`` others; it; whether it ends its packet, and so with ``err``.
    """

    def __init__(self, i_bytes, o_bytes, *, most):
        super().__init__({"taken": In(1), "given": In(1), "i": In(Run(i_bytes)), "o": In(Run(o_bytes))})
        self.most = most
        self.level = Signal(range(most + i_bytes + 1))
        self.marked, self.byte, self.is_last, self.is_err = Signal(), Signal(8), Signal(), Signal()
        self.ahead = Signal.like(self.level)

    def fits(self, run, lane):
        """Byte ``lane`` of ``run`` is the chosen one, as far as one can see."""
        return ((run.data.word_select((run.first + lane)[:range(run.shape().nbytes - 1).stop.bit_length()], 8)
                 == self.byte)
                & ((run.last & (lane + 1 == run.count)) == self.is_last)
                & (~self.is_last | (run.err == self.is_err)))

    @classmethod
    def connect(cls, m, name, *, taken, i, given, o, most):
        """A tracker, wired; ``i`` and ``o`` as from :meth:`Run.of`, with the bytes per word in front."""
        (i_bytes, i_run), (o_bytes, o_run) = i, o
        tracker = cls(i_bytes, o_bytes, most=most)
        m.submodules[name] = tracker
        m.d.comb += [tracker.taken.eq(taken), tracker.given.eq(given)]
        for run, fields in ((tracker.i, i_run), (tracker.o, o_run)):
            m.d.comb += [run[field].eq(value) for field, value in fields.items()]
        return tracker

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        pick, was_picked, lane = Signal(), Signal(), Signal(range(i.shape().nbytes))
        incoming, outgoing = Signal.like(self.level), Signal.like(self.level)
        m.d.comb += [
            lane.eq(AnyConst(lane.shape())),
            pick.eq(AnySeq(1) & self.taken & ~was_picked & (lane < i.count)),
            incoming.eq(Mux(self.taken, i.count, 0)), outgoing.eq(Mux(self.given, o.count, 0)),
        ]
        m.d.sync += self.level.eq(self.level + incoming - outgoing)
        m.d.comb += [
            Assert(self.level + incoming >= outgoing, "bytes: nothing doubled"),
            Assert(self.level + incoming - outgoing <= self.most, "bytes: not overfilled"),
            Assert(~self.marked | was_picked),
            Assert(~self.marked | (self.ahead < self.level), "bytes: nothing lost"),
        ]
        with m.If(self.taken):
            m.d.comb += Assume(i.count != 0)
        with m.If(self.given):
            m.d.comb += Assert(o.count != 0, "bytes: no empty word")

        # Of the chosen byte, in the cycle in which it goes in, too
        marked, ahead = Signal(), Signal.like(self.level)
        byte, is_last, is_err = Signal(8), Signal(), Signal()
        here = Signal.like(lane)
        m.d.comb += [
            here.eq(i.first + lane),
            marked.eq(self.marked | pick), ahead.eq(Mux(pick, self.level + lane, self.ahead)),
            byte.eq(Mux(pick, i.data.word_select(here, 8), self.byte)),
            is_last.eq(Mux(pick, i.last & (lane + 1 == i.count), self.is_last)),
            is_err.eq(Mux(pick, i.err, self.is_err)),
        ]
        m.d.sync += [self.byte.eq(byte), self.is_last.eq(is_last), self.is_err.eq(is_err)]
        with m.If(pick):
            m.d.sync += was_picked.eq(1)
        m.d.sync += [self.marked.eq(marked), self.ahead.eq(ahead - outgoing)]
        with m.If(marked & self.given & (ahead < o.count)):
            there = Signal(range(o.shape().nbytes))
            m.d.comb += there.eq(o.first + ahead)
            m.d.sync += self.marked.eq(0)
            m.d.comb += [
                Assert(o.data.word_select(there, 8) == byte, "bytes: it comes out unaltered"),
                Assert((o.last & (ahead + 1 == o.count)) == is_last, "bytes: a packet ends where it ended"),
                Assert(~is_last | (o.err == is_err), "bytes: err is kept"),
            ]
        return m
