"""What receive tells transmit: the newest of it, and which connections have any."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.scrub import scrub
from .send_records import AckNews, Mail

__all__ = ["Mailbox"]


class Mailbox(wiring.Component):
    """A mailbox a connection (design D4). Nothing in it can fill up: news replace each other, duplicate ACKs are counted.

    A duplicate ACK (RFC 5681 2) has no payload, and says the same acknowledgment and window as the latest; whether
    data is in flight is for the reader to know.

    Throughput: a piece of news every 3 cycles. Latency: 3 cycles to ``told``.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    news : ``In(stream.Signature(AckNews(config), always_ready=True))``
        At least 3 cycles apart.
    told : ``Out({en, qp})``
        Strobe: there is mail that says something new.
    set : ``In({en, qp, ack, wnd})``
        Strobe: a connection begins. Not while news come.
    look : ``In(qp_bits)``, mail : ``Out(Mail())``
        1 cycle.
    """

    def __init__(self, config):
        self.config = config
        qp = config.qp_bits
        super().__init__({
            "news": In(stream.Signature(AckNews(config), always_ready=True)),
            "told": Out(data.StructLayout({"en": 1, "index": qp})),
            "set":  In(data.StructLayout({"en": 1, "qp": qp, "ack": 32, "wnd": 32})),
            "look": In(qp),
            "mail": Out(Mail()),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.store = store = memory.Memory(shape=Mail(), depth=config.qps, init=[])
        write = store.write_port()
        mine, look = store.read_port(), store.read_port(transparent_for=(write,))
        news, steps = Signal(AckNews(config)), Signal(2)
        old, same, alike = Signal(Mail()), Signal(), Signal()
        with m.If(self.news.valid):
            m.d.sync += news.eq(self.news.p)
        m.d.sync += steps.eq(self.news.valid | steps << 1)
        m.d.comb += [
            mine.addr.eq(self.news.p.qp), mine.en.eq(self.news.valid), look.addr.eq(self.look), self.mail.eq(look.data),
            old.eq(mine.data),
        ]
        m.d.sync += [same.eq(news.ack == old.ack), alike.eq(news.wnd == old.wnd)]
        again = Signal()
        m.d.comb += [
            again.eq(same & alike & news.empty),
            write.addr.eq(news.qp), write.en.eq(steps[1]),
            write.data.ack.eq(news.ack), write.data.wnd.eq(news.wnd), write.data.stamped.eq(news.stamped),
            write.data.tsecr.eq(news.tsecr), write.data.dups.eq(old.dups + again),
            self.told.en.eq(steps[1] & (again | ~same | ~alike)), self.told.index.eq(news.qp),
        ]
        with m.If(self.set.en):
            m.d.comb += [
                write.addr.eq(self.set.qp), write.en.eq(1), write.data.eq(0), write.data.ack.eq(self.set.ack),
                write.data.wnd.eq(self.set.wnd),
            ]
        scrub(m, write, config.qps)
        return m
