"""Reads of host memory."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..stream.packet import connect_streams
from .complete import Completer
from .drain import Drain
from .fetch import Fetcher
from .records import READ_CLIENTS, ReadRequest, ReadWord
from .tags import Tags
from .tlp import Beat, Head, ShortTlp
from .write import COUNT_BITS

__all__ = ["Reader"]


class Reader(wiring.Component):
    """The clients' reads: requests out, completions in, data in the order of each client's requests.

    Every read has room for its data before it leaves, so that completions are always taken.

    Throughput: 8 bytes per cycle. Latency: 6 cycles from a request to its TLP, 8 from the last completion's last
    beat to the first word of data.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    timeout : :class:`int`
        Cycles until a read without completions has failed.

    Members
    -------
    reads : ``In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS)``
    read_data : ``Out(stream.Signature(ReadWord())).array(READ_CLIENTS)``
    accepted, taken, begun, gone : ``In(COUNT_BITS)``
        From :class:`~emplace.dma.write.Writer`.
    beats, head : ``In(...)``
        Completions.
    o : ``Out(stream.Signature(ShortTlp))``
        MRd TLPs without the requester's ID.
    refused : ``In(stream.Signature({"tag": 8}))``
        Reads that the guard did not let out.
    id, max_read, enable : ``In(...)``
        From configuration space.
    sent, bad, error : ``Out(1)``
        Strobes: a read left; a completion that fits no read; a request failed.
    """

    def __init__(self, config, timeout):
        self.config, self.timeout = config, timeout
        super().__init__({
            "reads":     In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS),
            "read_data": Out(stream.Signature(ReadWord())).array(READ_CLIENTS),
            **{name: In(COUNT_BITS) for name in ("accepted", "taken", "begun", "gone")},
            "beats":     In(stream.Signature(Beat)),
            "head":      In(Head),
            "o":         Out(stream.Signature(ShortTlp)),
            "refused":   In(stream.Signature(data.StructLayout({"tag": 8}))),
            "id":        In(16),
            "max_read":  In(3),
            "enable":    In(1),
            "sent":      Out(1),
            "bad":       Out(1),
            "error":     Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        tags, size = self.config.read_tags, self.config.read_bytes

        m.submodules.fetcher = fetcher = Fetcher(self.config)
        m.submodules.tags = table = Tags(tags, self.timeout)
        m.submodules.completer = completer = Completer(tags, size)
        m.submodules.drain = drain = Drain(tags, size)

        m.submodules.buffer = buffer = Memory(shape=data.ArrayLayout(32, 2), depth=tags * size // 8, init=[])
        store, load = buffer.write_port(granularity=1), buffer.read_port()
        m.d.comb += [
            store.en.eq(completer.write_en), store.addr.eq(completer.write_addr),
            store.data.eq(completer.write_data),
            load.addr.eq(drain.address), load.en.eq(drain.fetch), drain.word.eq(load.data),
        ]

        connect_streams(m, self.beats, completer.beats)
        connect_streams(m, fetcher.expect, completer.expect)
        connect_streams(m, fetcher.o, self.o)
        refusal = Signal()
        m.d.comb += [
            completer.head.eq(self.head), completer.id.eq(self.id),
            completer.used.eq(table.used), completer.ready.eq(table.ready),
            fetcher.pick.eq(table.pick), fetcher.any_free.eq(table.any_free),
            table.take.eq(fetcher.take), table.take_failed.eq(fetcher.take_failed),
            table.event.eq(completer.event),
            self.refused.ready.eq(1), refusal.eq(self.refused.valid & (self.refused.p.tag < tags)),
            table.refused.valid.eq(refusal), table.refused.tag.eq(self.refused.p.tag),
            table.drained.eq(drain.drained),
            fetcher.max_read.eq(self.max_read), fetcher.enable.eq(self.enable),
            *(getattr(fetcher, name).eq(getattr(self, name)) for name in ("accepted", "taken", "begun", "gone")),
            fetcher.holding.eq(drain.holding), fetcher.level.eq(drain.level),
            drain.take.eq(fetcher.take), drain.client.eq(fetcher.client), drain.tag.eq(fetcher.pick),
            drain.piece.eq(fetcher.piece),
            drain.ready.eq(table.ready), drain.failed.eq(table.failed),
            self.sent.eq(fetcher.take & ~fetcher.take_failed),
            self.bad.eq(completer.bad),
            self.error.eq(drain.error),
        ]
        for n in range(READ_CLIENTS):
            word, out = drain.o[n], self.read_data[n]
            connect_streams(m, self.reads[n], fetcher.reads[n])
            m.d.comb += [
                out.valid.eq(word.valid), word.ready.eq(out.ready),
                *(out.p[name].eq(word.p[name]) for name in ("data", "empty", "last", "err")), out.p.client.eq(n),
            ]

        return m
