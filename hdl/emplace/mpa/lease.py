"""How old are unfinished FPDUs?"""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import QpIndex
from ..stream.scrub import scrub

__all__ = ["LeaseWatch"]


class LeaseWatch(wiring.Component):
    """Remembers when each QP's unfinished FPDU began, and looks for one that is too old.

    One QP every 4 cycles is looked at, while ``pressure`` lasts. An answer on ``expired`` is true as long as it
    stands: it is taken back if its QP's FPDU is closed.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    now, lease : ``In(32)``
        Ticks.
    pressure : ``In(1)``
        Slots are short.
    change : ``In(1)``
        Strobe: an unfinished FPDU of ``qp`` begins (``begin``), or is no more.
    qp : ``In(qp_bits)``
    begin : ``In(1)``
    expired : ``Out(stream.Signature(QpIndex(config)))``
        Its FPDU is older than ``lease``. (May be taken back before it is taken.)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "now":      In(32),
            "lease":    In(32),
            "pressure": In(1),
            "change":   In(1),
            "qp":       In(config.qp_bits),
            "begin":    In(1),
            "expired":  Out(stream.Signature(QpIndex(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        shape = data.StructLayout({"open": 1, "since": 32})
        m.submodules.store = store = memory.Memory(shape=shape, depth=config.qps, init=[])
        write, read = store.write_port(), store.read_port()

        at = Signal(config.qp_bits)
        age = Signal(32)
        is_open, old = Signal(), Signal()
        m.d.comb += [
            write.addr.eq(self.qp),
            write.data.open.eq(self.begin),
            write.data.since.eq(self.now),
            write.en.eq(self.change),
            read.addr.eq(at),
            self.expired.p.qp.eq(at),
        ]
        stale = Signal()                     # what was read has just changed: it isn't old
        m.d.comb += stale.eq(self.change & (self.qp == at))

        with m.FSM():
            with m.State("READ"):            # the memory's cycle
                with m.If(~stale):
                    m.next = "AGE"
            with m.State("AGE"):             # subtract
                m.d.sync += [age.eq(self.now - read.data.since), is_open.eq(read.data.open & ~stale)]
                m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += old.eq(is_open & (age > self.lease) & ~stale)
                m.next = "DECIDE"
            with m.State("DECIDE"):          # next QP, or an answer
                with m.If(old & self.pressure & ~stale):
                    m.d.sync += self.expired.valid.eq(1)
                    m.next = "WAIT"
                with m.Else():
                    m.d.sync += at.eq(at + 1)
                    m.next = "READ"
            with m.State("WAIT"):            # for the walk, as long as it is true
                with m.If(self.expired.ready | ~self.pressure | stale):
                    m.d.sync += self.expired.valid.eq(0)
                    m.next = "READ"
        scrub(m, write, config.qps)
        return m
