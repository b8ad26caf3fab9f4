"""Segments held out of order: a list per connection, sorted by sequence number, linked through the slots."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .context import HeldOp, HeldReply, HeldRequest
from .records import SlotIndex

__all__ = ["HeldLists"]


class HeldLists(wiring.Component):
    """Carries out list operations; where a list begins is its owner's to remember.

    Bytes never move: a descriptor per slot says which octets of the stream lie in it. Sequence numbers are compared
    modulo 2**32. Held segments may overlap; POP trims them as they come out, so that each octet comes out once.

    Throughput: one operation at a time, 3 cycles for each segment looked at and about 4 more.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    request : ``In(stream.Signature(HeldRequest(config)))``
    reply : ``Out(stream.Signature(HeldReply(config)))``
        To each request.
    release : ``Out(stream.Signature(SlotIndex(config), always_ready=True))``
        Slots given back.
    held : ``Out(1)``
        ``held_slot`` now belongs to the list of ``held_qp``.
    unheld : ``Out(1)``
        ``unheld_slot`` belongs to no list any more.
    stale : ``Out(1)``
        Strobe: a held segment was freed because all of it had come by another way.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "request":     In(stream.Signature(HeldRequest(config))),
            "reply":       Out(stream.Signature(HeldReply(config))),
            "release":     Out(stream.Signature(SlotIndex(config), always_ready=True)),
            "held":        Out(1),
            "held_slot":   Out(config.slot_bits),
            "held_qp":     Out(config.qp_bits),
            "unheld":      Out(1),
            "unheld_slot": Out(config.slot_bits),
            "stale":       Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        piece_shape = data.StructLayout({"seq": 32, "offset": 11, "length": 12})
        link_shape = data.StructLayout({"next": config.slot_bits, "last": 1})
        m.submodules.pieces = pieces = memory.Memory(shape=piece_shape, depth=config.slots, init=[])
        m.submodules.links = links = memory.Memory(shape=link_shape, depth=config.slots, init=[])
        piece_write, piece_read = pieces.write_port(), pieces.read_port()
        link_write, link_read = links.write_port(), links.read_port()

        job = Signal(HeldRequest(config))
        at = Signal(config.slot_bits)           # the entry looked at
        before = Signal(config.slot_bits)       # the entry in front of it
        inner = Signal()                        # there is one in front of it
        piece, link = Signal(piece_shape), Signal(link_shape)
        distance = Signal(signed(32))           # from the octet asked for to the entry's first
        left = Signal(signed(34))               # octets of the entry that are new
        follower = Signal(link_shape)           # what comes behind the new entry
        answer = Signal(HeldReply(config))
        m.d.comb += [
            piece_read.addr.eq(at), link_read.addr.eq(at),
            piece_write.addr.eq(job.slot),
            piece_write.data.seq.eq(job.seq), piece_write.data.offset.eq(job.offset),
            piece_write.data.length.eq(job.length),
            self.held_slot.eq(job.slot), self.held_qp.eq(job.qp), self.unheld_slot.eq(at),
            self.release.p.slot.eq(at),
            self.reply.payload.eq(answer),
        ]
        longer, equal, below = Signal(), Signal(), Signal()
        m.d.comb += [longer.eq(job.length > piece.length), equal.eq(distance == 0), below.eq(distance < 0)]

        def go_on():
            m.d.sync += [before.eq(at), inner.eq(1), at.eq(link.next)]
            m.next = "READ"

        def drop():
            m.d.comb += [self.release.valid.eq(1), self.unheld.eq(1)]

        with m.FSM():
            with m.State("IDLE"):               # for a request
                p = self.request.payload
                m.d.comb += self.request.ready.eq(1)
                m.d.sync += [
                    job.eq(p), at.eq(p.head), inner.eq(0),
                    answer.listed.eq(p.listed), answer.head.eq(p.head), answer.done.eq(0),
                    follower.last.eq(1),
                ]
                with m.If(self.request.valid):
                    with m.If(p.listed):
                        m.next = "READ"
                    with m.Elif(p.op == HeldOp.INSERT):
                        m.next = "LINK"
                    with m.Else():
                        m.next = "ANSWER"

            with m.State("READ"):               # for both memories
                m.next = "COMPARE"

            with m.State("COMPARE"):            # for the subtraction
                m.d.sync += [piece.eq(piece_read.data), link.eq(link_read.data),
                             distance.eq(piece_read.data.seq - job.seq)]
                with m.Switch(job.op):
                    with m.Case(HeldOp.INSERT):
                        m.next = "PLACE"
                    with m.Case(HeldOp.POP):
                        m.next = "TAKE"
                    with m.Case(HeldOp.CLEAR):
                        m.next = "CLEAR"
                    with m.Case(HeldOp.SHORTEN):
                        m.next = "SHORTEN"

            with m.State("PLACE"):              # decides where the new entry goes, or goes on
                with m.If(below & ~link.last):
                    go_on()
                with m.Elif(equal & ~longer):
                    m.d.comb += [self.release.valid.eq(1), self.release.p.slot.eq(job.slot)]
                    m.next = "ANSWER"
                with m.Else():
                    m.next = "LINK"
                    with m.If(below):           # behind the last one
                        m.d.sync += [before.eq(at), inner.eq(1), follower.last.eq(1)]
                    with m.Elif(equal):         # instead of this one
                        drop()
                        m.d.sync += follower.eq(link)
                    with m.Else():
                        m.d.sync += [follower.next.eq(at), follower.last.eq(0)]

            with m.State("LINK"):               # writes the new entry
                m.d.comb += [
                    piece_write.en.eq(1),
                    link_write.en.eq(1), link_write.addr.eq(job.slot), link_write.data.eq(follower),
                    self.held.eq(1),
                ]
                m.d.sync += answer.done.eq(1)
                with m.If(inner):
                    m.next = "RELINK"
                with m.Else():
                    m.d.sync += [answer.head.eq(job.slot), answer.listed.eq(1)]
                    m.next = "ANSWER"

            with m.State("RELINK"):             # writes the entry in front: the new one follows, or none does
                m.d.comb += [
                    link_write.en.eq(1), link_write.addr.eq(before),
                    link_write.data.next.eq(job.slot), link_write.data.last.eq(job.op == HeldOp.SHORTEN),
                ]
                m.next = "ANSWER"

            with m.State("TAKE"):               # takes the first entry off, unless it lies above what is asked for
                m.d.sync += left.eq(distance + piece.length)
                with m.If(below | equal):
                    m.d.comb += self.unheld.eq(1)
                    m.d.sync += [answer.listed.eq(~link.last), answer.head.eq(link.next)]
                    m.next = "TRIM"
                with m.Else():
                    m.next = "ANSWER"

            with m.State("TRIM"):               # cuts it, or frees it if it is wholly below
                m.d.sync += [
                    answer.slot.eq(at), answer.offset.eq((piece.offset - distance)[:11]), answer.length.eq(left[:12]),
                    at.eq(link.next),
                ]
                with m.If(left > 0):
                    m.d.sync += answer.done.eq(1)
                    m.next = "ANSWER"
                with m.Else():
                    m.d.comb += [self.release.valid.eq(1), self.stale.eq(1)]
                    m.next = "ANSWER"
                    with m.If(answer.listed):
                        m.next = "READ"

            with m.State("CLEAR"):              # frees this one and goes on
                drop()
                m.d.sync += [answer.listed.eq(0), answer.done.eq(1)]
                m.next = "ANSWER"
                with m.If(~link.last):
                    go_on()

            with m.State("SHORTEN"):            # goes on to the last one
                with m.If(~link.last):
                    go_on()
                with m.Elif(inner | ~job.keep):
                    drop()
                    m.d.sync += [answer.done.eq(1), answer.listed.eq(inner)]
                    m.next = "ANSWER"
                    with m.If(inner):
                        m.next = "RELINK"
                with m.Else():
                    m.next = "ANSWER"

            with m.State("ANSWER"):             # for the reply to be taken
                m.d.comb += self.reply.valid.eq(1)
                with m.If(self.reply.ready):
                    m.next = "IDLE"
        return m
