"""Read requests to memory read TLPs."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .complete import Expected
from .drain import Piece
from .records import READ_CLIENTS, ReadRequest
from .tlp import Part, ShortTlp, Type, request_header
from .write import COUNT_BITS, reached

__all__ = ["ReadGate", "Fetcher"]


class ReadGate(wiring.Component):
    """Tells which ``ordered`` reads have seen every write that was accepted before them leave. One at a time.

    Latency: 3 to 2 + READ_CLIENTS cycles if nothing is under way.

    Members
    -------
    asks : ``In(READ_CLIENTS)``
        The client has an ordered read.
    open : ``Out(READ_CLIENTS)``
        It may leave. Until ``close``.
    close : ``In(READ_CLIENTS)``
        Strobes: it has left.
    accepted, taken, begun, gone : ``In(COUNT_BITS)``
        From :class:`~emplace.dma.write.Writer`.
    """

    def __init__(self):
        super().__init__({
            "asks":  In(READ_CLIENTS),
            "open":  Out(READ_CLIENTS),
            "close": In(READ_CLIENTS),
            **{name: In(COUNT_BITS) for name in ("accepted", "taken", "begun", "gone")},
        })

    def elaborate(self, platform):
        m = Module()
        who, mark, here = Signal(range(READ_CLIENTS)), Signal(COUNT_BITS), Signal(READ_CLIENTS)
        opened = Signal(READ_CLIENTS)
        m.d.comb += here.eq(1 << who)
        m.d.sync += self.open.eq((self.open | opened) & ~self.close)
        with m.FSM():
            with m.State("LOOK"):        # for an ordered read
                m.d.sync += [mark.eq(self.accepted), who.eq(Mux(who == READ_CLIENTS - 1, 0, who + 1))]
                with m.If((here & self.asks & ~self.open).any()):
                    m.d.sync += who.eq(who)
                    m.next = "BEGUN"
            with m.State("BEGUN"):       # for the writes' last TLPs to have been begun
                with m.If(reached(self.taken, mark)):
                    m.d.sync += mark.eq(self.begun)
                    m.next = "GONE"
            with m.State("GONE"):        # for those TLPs to have left
                with m.If(reached(self.gone, mark)):
                    m.d.comb += opened.eq(here)
                    m.next = "SETTLE"
            with m.State("SETTLE"):      # for `open` to tell
                m.next = "LOOK"
        return m


class Fetcher(wiring.Component):
    """Cuts requests into reads that a tag's buffer can hold, gives each a tag, and sends it.

    The clients take turns, a read each. One that has no tag can always get one: a client that doesn't take its data, or
    waits for it, can't stop the others.

    Throughput: a read every 4 cycles. Latency: 4 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    reads : ``In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS)``
        Taken when its last part has its tag.
    accepted, taken, begun, gone : ``In(COUNT_BITS)``
        From :class:`~emplace.dma.write.Writer`.
    max_read : ``In(3)``
        128 << n bytes.
    enable : ``In(1)``
        0: reads fail at once.
    pick, any_free, take, take_failed :
        To :class:`~emplace.dma.tags.Tags`.
    holding, level, client, piece :
        To :class:`~emplace.dma.drain.Drain`.
    expect : ``Out(stream.Signature(Expected(...)))``
    o : ``Out(stream.Signature(ShortTlp))``
    """

    def __init__(self, config):
        self.config, self.tags, self.size = config, config.read_tags, config.read_bytes
        tags, size = self.tags, self.size
        super().__init__({
            "reads":       In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS),
            **{name: In(COUNT_BITS) for name in ("accepted", "taken", "begun", "gone")},
            "max_read":    In(3),
            "enable":      In(1),
            "pick":        In(range(tags)),
            "any_free":    In(1),
            "take":        Out(1),
            "take_failed": Out(1),
            "holding":     In(READ_CLIENTS),
            "level":       In(range(tags + 1)),
            "client":      Out(range(READ_CLIENTS)),
            "piece":       Out(Piece(size)),
            "expect":      Out(stream.Signature(Expected(tags, size))),
            "o":           Out(stream.Signature(ShortTlp)),
        })

    def elaborate(self, platform):
        m = Module()
        tags, size, clients = self.tags, self.size, range(READ_CLIENTS)

        m.submodules.gate = gate = ReadGate()
        m.d.comb += [getattr(gate, name).eq(getattr(self, name)) for name in ("accepted", "taken", "begun", "gone")]

        # Who may: tags are kept for those that have none. Right two cycles after `take`.
        wants, may, spare = Signal(READ_CLIENTS), Signal(READ_CLIENTS), Signal()
        m.d.sync += [spare.eq(self.level + sum(~self.holding[n] for n in clients) < tags)]
        m.d.comb += may.eq(~self.holding | spare.replicate(READ_CLIENTS))
        for n in clients:
            request = self.reads[n]
            m.d.comb += [
                gate.asks[n].eq(request.valid & request.p.ordered),
                wants[n].eq(request.valid & (~request.p.ordered | gate.open[n])),
            ]

        # How far each request has been cut
        m.submodules.progress = progress = Memory(shape=10, depth=READ_CLIENTS, init=[])
        cut, cut_before = progress.write_port(), progress.read_port(domain="comb")
        begun = Signal(READ_CLIENTS)

        who, request = Signal(range(READ_CLIENTS)), Signal(ReadRequest(self.config))
        with m.Switch(who):
            for n in clients:
                with m.Case(n):
                    m.d.comb += request.eq(self.reads[n].p)
        before, low, page, left = Signal(10), Signal(12), Signal(52), Signal(10)
        mask, room, fits, length = Signal(9), Signal(10), Signal(), Signal(10)
        with m.Switch(self.max_read):
            for n in range((size // 128).bit_length() - 1):
                with m.Case(n):
                    m.d.comb += mask.eq((128 << n) - 1)
            with m.Default():
                m.d.comb += mask.eq(size - 1)
        m.d.comb += [
            cut_before.addr.eq(who), before.eq(Mux(Array(begun)[who], cut_before.data, 0)),
            room.eq((~low & mask) + 1),
            cut.addr.eq(who), cut.data.eq(before + length), cut.en.eq(self.take),
        ]

        # The read, of `length` bytes from `low` on
        part, end, dwords, words, single = Signal(Part(1)), Signal(4), Signal(12), Signal(12), Signal()
        first_be, last_be = Signal(7), Signal(4)
        skip, empty, flush = Signal(3), Signal(3), Signal()
        m.d.comb += [
            end.eq(low[:2] + length[:2]),
            dwords.eq(low[:2] + length + 3), words.eq(low[:3] + length + 7),
            single.eq(~length[3:].any() & (low[:2] + length[:3] <= 4)),
            first_be.eq(Const(15, 4) << low[:2]), last_be.eq(Mux(end[:2] == 0, 15, (1 << end[:2]) - 1)),
            part.address.eq(Cat(low, page)), part.length.eq(length), part.dwords.eq(dwords[2:]),
            part.first_be.eq(Mux(single, first_be[:4] & last_be, first_be)), part.last_be.eq(Mux(single, 0, last_be)),
            part.wide.eq(page[20:].any()),
            # The request's bytes, moved down by `skip`: do the last ones need an output word of their own?
            skip.eq(request.address), empty.eq(-request.length), flush.eq(fits & (skip != 0) & (skip <= empty)),
            self.piece.word.eq(low[3:]), self.piece.words.eq(words[3:] + flush), self.piece.skip.eq(skip),
            self.piece.prime.eq((skip != 0) & (before == 0)), self.piece.empty.eq(empty), self.piece.last.eq(fits),
            self.client.eq(who),
        ]
        o, expect, chosen = self.o, self.expect, Signal()
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        header = request_header(Type.MRD, part, self.pick)
        m.d.comb += [
            expect.p.tag.eq(self.pick), expect.p.offset.eq(low), expect.p.left.eq(length),
            self.take_failed.eq(~self.enable | (length == 0)),
        ]
        with m.FSM():
            with m.State("CHOOSE"):      # for a read
                with m.Switch(who):
                    for n in clients:
                        with m.Case(n):
                            for step in range(READ_CLIENTS, 0, -1):      # lowest priority first
                                other = (n + step) % READ_CLIENTS
                                with m.If(wants[other] & may[other]):
                                    m.d.sync += who.eq(other)
                with m.If((wants & may).any()):
                    m.next = "LOAD"
            with m.State("LOAD"):        # for nothing: what is left of it
                m.d.sync += [low.eq(request.address[:12] + before), page.eq(request.address[12:]),
                             left.eq(request.length - before)]
                m.next = "CUT"
            with m.State("CUT"):         # for nothing: how much goes into one read
                m.d.sync += [fits.eq(left <= room), length.eq(Mux(left <= room, left, room))]
                m.next = "TAKE"
                with m.If(~Array(may)[who]):         # the last tag was given away meanwhile
                    m.next = "CHOOSE"
            with m.State("TAKE"):        # for a tag, its row, and the output
                m.d.comb += [
                    chosen.eq(self.any_free & (o.ready | ~o.valid)),
                    expect.valid.eq(chosen),
                    self.take.eq(chosen & expect.ready),
                ]
                with m.If(self.take):
                    m.d.sync += [
                        o.valid.eq(~self.take_failed), o.p.count.eq(3 + part.wide),
                        *(o.p.dwords[k].eq(header[k]) for k in range(4)), o.p.dwords[4].eq(Const(0, 32)),
                    ]
                    m.next = "CHOOSE"
        for n in clients:
            mine = Signal(name=f"take{n}")
            m.d.comb += [mine.eq(self.take & (who == n)), self.reads[n].ready.eq(mine & fits),
                         gate.close[n].eq(self.reads[n].ready & self.reads[n].p.ordered)]
            with m.If(mine):
                m.d.sync += begun[n].eq(~fits)

        return m
