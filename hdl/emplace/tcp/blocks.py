"""SACK blocks of each connection, the one reported last first. Ref: RFC 2018 §4."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .context import BLOCKS, Block, BlocksOp, BlocksReply, BlocksRequest

__all__ = ["SackBlocks"]


class SackBlocks(wiring.Component):
    """A ring of four blocks a QP; how many there are, and where the newest lies, is their owner's to remember.

    Blocks of one QP neither overlap nor touch. ADD to a full ring forgets the oldest. The ring is gone through
    from the oldest to the newest, and what stays moves up behind what went, so that nothing is written that has
    not been read.

    Throughput: one request at a time, 4 cycles for each block that is there and 3 more. Looks: in cycles without
    a request, latency 1 cycle.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    request : ``In(stream.Signature(BlocksRequest(config)))``
    reply : ``Out(stream.Signature(BlocksReply))``
        To each request.
    look_qp, look_at : ``In(qp_bits)``, ``In(2)``
    looked : ``Out(1)``
        The block looked at will be on ``block`` in the next cycle.
    block : ``Out(Block())``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "request": In(stream.Signature(BlocksRequest(config))),
            "reply":   Out(stream.Signature(BlocksReply)),
            "look_qp": In(config.qp_bits),
            "look_at": In(2),
            "looked":  Out(1),
            "block":   Out(Block()),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.ring = ring = memory.Memory(shape=Block(), depth=BLOCKS * self.config.qps, init=[])
        write, read = ring.write_port(), ring.read_port()

        job = Signal(BlocksRequest(self.config))
        at, to = Signal(2), Signal(2)    # block looked at; where what stays goes
        left = Signal(3)                 # blocks still to be looked at
        found = Signal(Block())
        # The block looked at against that of the request: its right edge to the other's left, and so on.
        right_left, right_right, left_left, left_right = (
            Signal(signed(32), name=n) for n in ("right_left", "right_right", "left_left", "left_right"))
        adds, touches, above = Signal(), Signal(), Signal()
        m.d.comb += [
            self.block.eq(read.data), adds.eq(job.op == BlocksOp.ADD),
            touches.eq((right_left >= 0) & (left_right <= 0)), above.eq(right_left > 0),
            self.reply.p.count.eq(job.count), self.reply.p.newest.eq(job.newest),
            read.addr.eq(Cat(at, job.qp)), write.addr.eq(Cat(to, job.qp)),
            write.data.right.eq(found.right), write.data.left.eq(Mux(~adds & (left_left < 0), job.block.left, found.left)),
        ]

        def onward():
            m.d.sync += [at.eq(at - 1), left.eq(left - 1)]
            m.next = "READ"
            with m.If(left == 1):
                m.next = "LAST"

        with m.FSM():
            with m.State("IDLE"):        # for a request
                p = self.request.payload
                oldest = Signal(2)
                m.d.comb += [
                    self.request.ready.eq(1), self.looked.eq(~self.request.valid),
                    read.addr.eq(Cat(self.look_at, self.look_qp)), oldest.eq(p.newest + p.count - 1),
                ]
                m.d.sync += [job.eq(p), job.count.eq(0), left.eq(p.count), at.eq(oldest), to.eq(oldest)]
                with m.If(self.request.valid):
                    m.next = "READ"
                    with m.If(p.count == 0):
                        m.next = "LAST"
            with m.State("READ"):        # for the memory
                m.next = "COMPARE"
            with m.State("COMPARE"):     # for the subtractions
                m.d.sync += [
                    found.eq(read.data),
                    right_left.eq(read.data.right - job.block.left), right_right.eq(read.data.right - job.block.right),
                    left_left.eq(read.data.left - job.block.left), left_right.eq(read.data.left - job.block.right),
                ]
                m.next = "PLACE"
            with m.State("PLACE"):       # absorbs the block, drops it, or lets it stay
                onward()
                with m.If(adds & touches):
                    with m.If(left_left < 0):
                        m.d.sync += job.block.left.eq(found.left)
                    with m.If(right_right > 0):
                        m.d.sync += job.block.right.eq(found.right)
                with m.Elif(adds | above):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += [to.eq(to - 1), job.count.eq(job.count + 1)]
            with m.State("LAST"):        # writes the new one in front, over the oldest if all are taken
                m.d.sync += job.newest.eq(to + 1)
                with m.If(adds):
                    m.d.comb += [write.en.eq(1), write.data.eq(job.block)]
                    m.d.sync += job.newest.eq(to)
                    with m.If(job.count != BLOCKS):
                        m.d.sync += job.count.eq(job.count + 1)
                m.next = "ANSWER"
            with m.State("ANSWER"):      # for the reply to be taken
                m.d.comb += self.reply.valid.eq(1)
                with m.If(self.reply.ready):
                    m.next = "IDLE"
        return m
