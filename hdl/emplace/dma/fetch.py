"""Read requests to memory read TLPs."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.packet import connect_streams
from .complete import Expected
from .drain import Piece
from .records import READ_CLIENTS, ReadRequest
from .split import Splitter
from .tlp import ShortTlp, Transfer, Type, request_header
from .write import COUNT_BITS, reached

__all__ = ["ReadGate", "Fetcher"]


class ReadGate(wiring.Component):
    """Holds an ``ordered`` read back until every write accepted before it has left.

    Throughput: a request every 2 cycles. Latency: 1 cycle, 2 if ordered and nothing is under way.

    Members
    -------
    i : ``In(stream.Signature(ReadRequest(config)))``
    o : ``Out(stream.Signature(Transfer(3)))``
        ``note``: the lowest bits of the address.
    accepted, taken, begun, gone : ``In(COUNT_BITS)``
        From :class:`~emplace.dma.write.Writer`.
    """

    def __init__(self, config):
        super().__init__({
            "i": In(stream.Signature(ReadRequest(config))),
            "o": Out(stream.Signature(Transfer(3))),
            **{name: In(COUNT_BITS) for name in ("accepted", "taken", "begun", "gone")},
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        mark = Signal(COUNT_BITS)
        with m.FSM():
            with m.State("IDLE"):        # for a request
                m.d.comb += i.ready.eq(1)
                m.d.sync += [
                    o.p.address.eq(i.p.address), o.p.length.eq(i.p.length), o.p.note.eq(i.p.address[:3]),
                    mark.eq(self.accepted),
                ]
                with m.If(i.valid):
                    m.next = "SEND"
                    with m.If(i.p.ordered):
                        m.next = "BEGUN"
            with m.State("BEGUN"):       # for the writes' last TLPs to have been begun
                with m.If(reached(self.taken, mark)):
                    m.d.sync += mark.eq(self.begun)
                    m.next = "GONE"
            with m.State("GONE"):        # for those TLPs to have left
                with m.If(reached(self.gone, mark)):
                    m.next = "SEND"
            with m.State("SEND"):        # for the splitter
                m.d.comb += o.valid.eq(1)
                with m.If(o.ready):
                    m.next = "IDLE"
        return m


class Fetcher(wiring.Component):
    """Cuts requests into reads that a tag's buffer can hold, gives each a tag, and sends it.

    The clients take turns, a read each. One that has no tag can always get one: a client that doesn't take its data, or
    waits for it, can't stop the others.

    Throughput: a read every 3 cycles. Latency: 6 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    reads : ``In(stream.Signature(ReadRequest(config))).array(READ_CLIENTS)``
    accepted, taken, begun, gone : ``In(COUNT_BITS)``
        From :class:`~emplace.dma.write.Writer`.
    max_read : ``In(3)``
        128 << n bytes.
    enable : ``In(1)``
        0: reads fail at once.
    pick, any_free, take, take_failed :
        To :class:`~emplace.dma.tags.Tags`.
    level : ``In(...).array(READ_CLIENTS)``
        Tags that each client holds.
    expect : ``Out(stream.Signature(Expected(...)))``
    pieces : ``Out(stream.Signature(Piece(...))).array(READ_CLIENTS)``
        Always taken: there are no more than tags.
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
            "level":       In(range(tags + 2)).array(READ_CLIENTS),
            "expect":      Out(stream.Signature(Expected(tags, size))),
            "pieces":      Out(stream.Signature(Piece(tags, size))).array(READ_CLIENTS),
            "o":           Out(stream.Signature(ShortTlp)),
        })

    def elaborate(self, platform):
        m = Module()
        tags = self.tags
        most = (self.size // 128).bit_length() - 1
        limit = Signal(3)
        m.d.comb += limit.eq(Mux(self.max_read > most, most, self.max_read))

        held, waiting, spare = Signal(range(tags + 1)), Signal(range(READ_CLIENTS + 1)), Signal()
        m.d.comb += [
            held.eq(sum(self.level)), waiting.eq(sum(level == 0 for level in self.level)),
            spare.eq(held + waiting < tags),
        ]
        parts, wants = [], Signal(READ_CLIENTS)
        for n in range(READ_CLIENTS):
            m.submodules[f"gate{n}"] = gate = ReadGate(self.config)
            m.submodules[f"splitter{n}"] = splitter = Splitter(3)
            connect_streams(m, self.reads[n], gate.i)
            connect_streams(m, gate.o, splitter.i)
            m.d.comb += [
                *(getattr(gate, name).eq(getattr(self, name)) for name in ("accepted", "taken", "begun", "gone")),
                splitter.limit.eq(limit),
                wants[n].eq(splitter.o.valid & ((self.level[n] == 0) | spare)),
            ]
            parts.append(splitter.o)

        # CHOOSE a client, then give its read a tag.
        who, chosen = Signal(range(READ_CLIENTS)), Signal()
        part = Signal.like(parts[0].p)
        refuse = Signal()
        with m.Switch(who):
            for n in range(READ_CLIENTS):
                with m.Case(n):
                    m.d.comb += part.eq(parts[n].p)
        m.d.comb += [
            refuse.eq(~self.enable | (part.length == 0)),
        ]
        o, expect = self.o, self.expect
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        header = request_header(Type.MRD, part, self.pick)
        end = Signal(3)
        m.d.comb += [
            end.eq(part.address[:3] + part.length[:3]),
            expect.p.tag.eq(self.pick), expect.p.offset.eq(part.address), expect.p.left.eq(part.length),
            self.take_failed.eq(refuse),
        ]
        for n in range(READ_CLIENTS):
            piece = self.pieces[n].p
            m.d.comb += [
                self.pieces[n].valid.eq(self.take & (who == n)),
                piece.tag.eq(self.pick), piece.word.eq(part.address[3:]), piece.words.eq(part.words),
                piece.skip.eq(part.note), piece.empty.eq(8 - end), piece.last.eq(part.last),
                parts[n].ready.eq(self.take & (who == n)),
            ]
        with m.FSM():
            with m.State("CHOOSE"):      # for a read
                with m.Switch(who):
                    for n in range(READ_CLIENTS):
                        with m.Case(n):
                            for step in range(READ_CLIENTS, 0, -1):      # lowest priority first
                                other = (n + step) % READ_CLIENTS
                                with m.If(wants[other]):
                                    m.d.sync += who.eq(other)
                with m.If(wants.any()):
                    m.next = "TAKE"
            with m.State("TAKE"):        # for a tag, its row, and the output
                m.d.comb += [
                    chosen.eq(self.any_free & (o.ready | ~o.valid)),
                    expect.valid.eq(chosen),
                    self.take.eq(chosen & expect.ready),
                ]
                with m.If(self.take):
                    m.d.sync += [
                        o.valid.eq(~refuse), o.p.count.eq(3 + part.wide),
                        *(o.p.dwords[k].eq(header[k]) for k in range(4)), o.p.dwords[4].eq(Const(0, 32)),
                    ]
                    m.next = "CHOOSE"

        return m
