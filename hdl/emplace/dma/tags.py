"""The life of each read's tag."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["Tags", "TagEvent", "QUARANTINE"]

#: A tag whose completions did not come is not used again for this many time-outs (until they come, if they do).
QUARANTINE = 60
_STEPS = 4                               # of age, until a read has timed out
_SLOW = 16                               # times slower does a tag age that is in quarantine


class TagEvent(data.StructLayout):
    """What a completion means for its read.

    Members
    -------
    valid : ``unsigned(1)``
    tag : ``unsigned(...)``
    ready : ``unsigned(1)``
        The data is complete, or never will be.
    failed : ``unsigned(1)``
    closed : ``unsigned(1)``
        No more completions will come.
    """

    def __init__(self, tags):
        super().__init__({"valid": 1, "tag": range(tags), "ready": 1, "failed": 1, "closed": 1})


class Tags(wiring.Component):
    """A tag is *open* until its read is complete or has failed, then *ready* until its data has been handed over
    (*drained*). It is free once it is drained and *closed*: its last completion has come, or can't come any more.
    One that is drained, but not closed, is in quarantine.

    A read times out after ``timeout`` to 1.25 ``timeout`` cycles.

    Parameters
    ----------
    tags : :class:`int`
        A power of two.
    timeout : :class:`int`
        Cycles; at least ``16 * tags``.

    Members
    -------
    pick : ``Out(range(tags))``
        A free tag, if ``any_free``; both are right from 2 cycles after ``take``.
    any_free : ``Out(1)``
    take : ``In(1)``
        Strobe: ``pick`` is given to a read.
    take_failed : ``In(1)``
        With ``take``: the read will not leave, so that it has failed already.
    event : ``In(TagEvent(tags))``
    refused : ``In(TagEvent(tags))``
        ``valid`` and ``tag``: the read was refused by the guard.
    drained : ``In(tags)``
        Strobe for each tag: its data has been handed over.
    used, ready, failed : ``Out(tags)``
        ``used``: not free.
    """

    def __init__(self, tags, timeout):
        if timeout < 16 * tags:
            raise ValueError(f"Reads' time-out must be at least {16 * tags} cycles, not {timeout!r}")
        self.tags, self.timeout = tags, timeout
        super().__init__({
            "pick":        Out(range(tags)),
            "any_free":    Out(1),
            "take":        In(1),
            "take_failed": In(1),
            "event":       In(TagEvent(tags)),
            "refused":     In(TagEvent(tags)),
            "drained":     In(tags),
            "used":        Out(tags),
            "ready":       Out(tags),
            "failed":      Out(tags),
        })

    def elaborate(self, platform):
        m = Module()
        tags = self.tags
        closed, passed = (Signal(tags, init=-1, name=name) for name in ("closed", "passed"))
        m.d.comb += self.used.eq(~(closed & passed))

        # Ages, looked at one tag a cycle after each tick
        tick, ticks, slow = Signal(range(self.timeout // _STEPS)), Signal(range(_SLOW)), Signal()
        scan, scanning = Signal(range(tags)), Signal()
        fresh = Signal(tags)             # its age is 0, whatever the memory says
        m.submodules.ages = ages = Memory(shape=4, depth=tags, init=[])
        age, new_age = ages.read_port(domain="comb"), ages.write_port()
        timed_out, released = Signal(), Signal()
        bits = {name: Signal(name=f"scanned_{name}") for name in ("fresh", "ready", "closed")}
        m.d.comb += [
            slow.eq(ticks == 0),
            age.addr.eq(scan), new_age.addr.eq(scan), new_age.en.eq(scanning),
            bits["fresh"].eq(Array(fresh)[scan]), bits["ready"].eq(Array(self.ready)[scan]),
            bits["closed"].eq(Array(closed)[scan]),
            new_age.data.eq(age.data),
        ]
        with m.If(tick == self.timeout // _STEPS - 1):
            m.d.sync += [tick.eq(0), ticks.eq(ticks + 1), scanning.eq(1)]
        with m.Else():
            m.d.sync += tick.eq(tick + 1)
        with m.If(scanning):
            m.d.sync += [scan.eq(scan + 1), scanning.eq(scan != tags - 1)]
            with m.If(bits["fresh"]):
                m.d.comb += new_age.data.eq(0)
            with m.Elif(~bits["ready"]):
                m.d.comb += [new_age.data.eq(age.data + 1), timed_out.eq(age.data == _STEPS - 1)]
                with m.If(timed_out):
                    m.d.comb += new_age.data.eq(0)
            with m.Elif(~bits["closed"] & slow):
                m.d.comb += [new_age.data.eq(age.data + 1), released.eq(age.data == QUARANTINE * _STEPS // _SLOW)]

        def only(strobe, tag):
            mask = Signal(tags, name=f"mask{len(masks)}")
            masks.append(mask)
            for n in range(tags):
                m.d.comb += mask[n].eq(strobe & (tag == n))
            return mask
        masks = []
        taken = only(self.take, self.pick)
        taken_dead = only(self.take & self.take_failed, self.pick)
        event, refused = self.event, self.refused
        event_ready, event_failed, event_closed = (
            only(event.valid & flag, event.tag) for flag in (event.ready, event.failed, event.closed))
        refusal = only(refused.valid, refused.tag)
        timeout, release = only(timed_out, scan), only(released, scan)
        seen = only(scanning, scan)
        m.d.sync += [
            self.ready.eq((self.ready & ~taken) | taken_dead | event_ready | refusal | timeout),
            # A read that is ready stays as it is.
            self.failed.eq((self.failed & ~taken) | taken_dead | (event_failed & ~self.ready) | (refusal & ~self.ready)
                           | (timeout & ~event_ready)),
            closed.eq((closed & ~taken) | taken_dead | event_closed | refusal | release),
            passed.eq((passed & ~taken) | self.drained),
            fresh.eq((fresh & ~seen) | taken),
        ]

        # The lowest free tag, a cycle late
        free = Signal(tags)
        m.d.comb += free.eq(~self.used)
        m.d.sync += self.any_free.eq(free.any() & ~self.take)
        for n in reversed(range(tags)):
            with m.If(free[n]):
                m.d.sync += self.pick.eq(n)

        return m
