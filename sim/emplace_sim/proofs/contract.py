"""Stream properties to instantiate beside a component under proof."""

from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["StreamContract", "WordTracker"]


class StreamContract(wiring.Component):
    """Once offered, a word stays: ``valid`` holds and ``payload`` does not change until ``ready``.

    Reset is no exception to prove around: the record of the stalled word resets with the design.

    Parameters
    ----------
    shape : :class:`~amaranth.hdl.ShapeLike`
    check : :func:`Assert` or :func:`Assume`
        ``Assert`` at a stream the component drives, ``Assume`` at one that it receives.

    Members
    -------
    valid, ready, payload : ``In(...)``
        The stream, watched.
    """

    def __init__(self, shape, *, check):
        if check not in (Assert, Assume):
            raise TypeError(f"Check must be Assert or Assume, not {check!r}")
        self.check = check
        super().__init__({"valid": In(1), "ready": In(1), "payload": In(shape)})

    @classmethod
    def watch(cls, m, port, *, check):
        """A contract for ``port``, wired to it."""
        contract = cls(port.payload.shape(), check=check)
        m.d.comb += [
            contract.valid.eq(port.valid),
            contract.ready.eq(port.ready),
            contract.payload.eq(port.payload),
        ]
        return contract

    def elaborate(self, platform):
        m = Module()

        stalled = Signal()
        offered = Signal.like(self.payload)
        m.d.sync += [stalled.eq(self.valid & ~self.ready), offered.eq(self.payload)]
        with m.If(stalled):
            m.d.comb += self.check(self.valid, "stream: valid holds until ready")
            m.d.comb += self.check(offered == self.payload, "stream: payload holds until ready")

        return m


class WordTracker(wiring.Component):
    """Nothing lost, doubled, reordered or altered, shown for one byte of one word.

    The solver picks a byte lane and one accepted word, whichever and whenever; proving it for that
    word proves it for all. Words ahead of it are counted, so it needs no model of the storage.

    Parameters
    ----------
    width : :class:`int`
        Payload bits, seen as bytes (the last one may be short).
    most : :class:`int`
        How many words the component can hold.

    Members
    -------
    taken, given : ``In(1)``
        A word goes in, a word comes out.
    word_in, word_out : ``In(width)``
    level : ``Signal(range(most + 1))``, output
        Words inside.
    marked : ``Signal()``, output
        The chosen word is inside, behind ``ahead`` others, and its chosen byte is ``byte``.
    """

    def __init__(self, width, *, most):
        self.most = most
        super().__init__({"taken": In(1), "given": In(1), "word_in": In(width), "word_out": In(width)})
        self.level = Signal(range(most + 1))
        self.marked = Signal()
        self.ahead = Signal(range(most + 1))
        self.byte = Signal(8)
        self.lane = Signal(range(-(-width // 8)))

    def at_lane(self, word):
        """The chosen byte of ``word``."""
        return word.word_select(self.lane, 8)

    def elaborate(self, platform):
        m = Module()

        pick, was_picked = Signal(), Signal()
        m.d.comb += [
            self.lane.eq(AnyConst(self.lane.shape())),
            pick.eq(AnySeq(1) & self.taken & ~was_picked),
        ]
        m.d.sync += self.level.eq(self.level + self.taken - self.given)
        with m.If(self.taken):
            m.d.comb += Assert((self.level < self.most) | self.given, "tracker: not overfilled")
        with m.If(self.given):
            m.d.comb += Assert(self.level != 0, "tracker: nothing doubled")
        with m.If(pick):
            m.d.sync += [
                was_picked.eq(1),
                self.marked.eq(1),
                self.ahead.eq(self.level - self.given),
                self.byte.eq(self.at_lane(self.word_in)),
            ]
        with m.Elif(self.marked & self.given):
            m.d.sync += self.ahead.eq(self.ahead - 1)
            with m.If(self.ahead == 0):
                m.d.sync += self.marked.eq(0)
                m.d.comb += Assert(self.at_lane(self.word_out) == self.byte, "tracker: the word comes out unaltered")
        m.d.comb += Assert(~self.marked | was_picked)
        with m.If(self.marked):
            m.d.comb += Assert(self.ahead < self.level, "tracker: nothing lost")

        return m
