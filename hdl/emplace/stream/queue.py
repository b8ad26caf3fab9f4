"""Queues: plain, and of whole packets with commit and rollback."""

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import fifo, memory, stream, wiring
from amaranth.lib.data import View
from amaranth.lib.wiring import In, Out

from .packet import PacketSignature, PacketWord

__all__ = ["Queue", "PacketQueue"]


class Queue(wiring.Component):
    """First in, first out, of any payload.

    Throughput: one word per cycle. Latency: 1 cycle (``depth`` of at most 32, in registers or
    distributed memory) or 2 cycles (block memory).

    Parameters
    ----------
    shape : :class:`~amaranth.hdl.ShapeLike`
    depth : :class:`int`

    Members
    -------
    i : ``In(stream.Signature(shape))``
    o : ``Out(stream.Signature(shape))``
    level : ``Out(range(depth + 1))``
        Words inside.
    """

    def __init__(self, shape, depth):
        if depth < 1:
            raise ValueError(f"Queue depth must be at least 1, not {depth!r}")
        self.shape, self.depth = shape, depth
        super().__init__({
            "i":     In(stream.Signature(shape)),
            "o":     Out(stream.Signature(shape)),
            "level": Out(range(depth + 2)),
        })

    def elaborate(self, platform):
        m = Module()
        width = Shape.cast(self.shape).width
        if self.depth <= 32:
            m.submodules.store = store = fifo.SyncFIFO(width=width, depth=self.depth)
        else:
            m.submodules.store = store = fifo.SyncFIFOBuffered(width=width, depth=self.depth)
        m.d.comb += [
            store.w_data.eq(self.i.payload),
            store.w_en.eq(self.i.valid & self.i.ready),
            self.i.ready.eq(store.w_rdy),
            self.o.valid.eq(store.r_rdy),
            store.r_en.eq(self.o.ready & self.o.valid),
            self.level.eq(store.level),
        ]
        payload = self.o.payload
        target = payload.as_value() if isinstance(payload, View) else payload
        m.d.comb += target.eq(store.r_data)
        return m


class PacketQueue(wiring.Component):
    """Holds packets until they are complete; a packet that ends with ``err`` is rolled back.

    Only whole, good packets come out. A packet that doesn't fit while nothing else is inside could
    never come out: it is dropped, and told by ``overflow``.

    Throughput: one word per cycle. Latency from a packet's last word in to its first out: 3 cycles.

    Parameters
    ----------
    nbytes : :class:`int`
        Bytes per word.
    depth : :class:`int`
        Words; a power of two.
    drop_when_full : :class:`bool`
        True: every word is taken at once, a packet that meets a full queue is dropped whole. False:
        ``i.ready`` falls while the queue is full.

    Members
    -------
    i : ``In(PacketSignature(nbytes))``
    o : ``Out(PacketSignature(nbytes))``
        ``err`` is never set here.
    overflow : ``Out(1)``
        Strobe: a packet was dropped because it did not fit.
    rolled_back : ``Out(1)``
        Strobe: a packet was dropped because of its ``err``.
    level : ``Out(range(depth + 1))``
        Words inside, uncommitted ones included.
    """

    def __init__(self, nbytes, depth, *, drop_when_full=False):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"Depth must be a power of two, not {depth!r}")
        self.nbytes, self.depth, self.drop_when_full = nbytes, depth, drop_when_full
        super().__init__({
            "i":           In(PacketSignature(nbytes)),
            "o":           Out(PacketSignature(nbytes)),
            "overflow":    Out(1),
            "rolled_back": Out(1),
            "level":       Out(range(depth + 1)),
        })
        # Public to the proof only. Pointers have a wrap bit: the next word to write, the end of the last committed
        # packet, the next word to read. Then: the rest of this packet is being thrown away; the read port holds a
        # word not yet in `o`.
        bits = depth.bit_length() - 1
        self.head, self.done, self.tail = (Signal(bits + 1, name=n) for n in ("head", "done", "tail"))
        self.spoiled, self.fetched = Signal(), Signal()
        self.store = memory.Memory(shape=PacketWord(nbytes), depth=depth, init=[])
        self.read = self.store.read_port()

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        bits = self.depth.bit_length() - 1

        head, done, tail, spoiled, fetched = self.head, self.done, self.tail, self.spoiled, self.fetched
        full, alone = Signal(), Signal()
        m.d.comb += [
            self.level.eq(head - tail),
            full.eq(self.level == self.depth),
            alone.eq(done == tail),      # nothing committed is inside: waiting for room is in vain
        ]

        m.submodules.store = store = self.store
        write = store.write_port()
        read = self.read

        giving_up = Signal()
        m.d.comb += [
            giving_up.eq(i.valid & full & ~spoiled & (self.drop_when_full | alone)),
            i.ready.eq(~full | spoiled | giving_up),
            write.addr.eq(head[:bits]),
            write.data.eq(i.payload),
            write.en.eq(i.valid & i.ready & ~spoiled & ~giving_up),
        ]
        with m.If(i.valid & i.ready):
            with m.If(giving_up | spoiled):
                m.d.sync += [head.eq(done), spoiled.eq(~i.p.last)]
                m.d.comb += self.overflow.eq(i.p.last)
            with m.Elif(i.p.last & i.p.err):
                m.d.sync += head.eq(done)
                m.d.comb += self.rolled_back.eq(1)
            with m.Else():
                m.d.sync += head.eq(head + 1)
                with m.If(i.p.last):
                    m.d.sync += done.eq(head + 1)

        # Reading: memory, then an output register; the memory's word may wait in its read latch.
        move, fetch = Signal(), Signal()
        m.d.comb += [
            move.eq(fetched & (o.ready | ~o.valid)),
            fetch.eq((tail != done) & (~fetched | move)),
            read.addr.eq(tail[:bits]),
            read.en.eq(fetch),
        ]
        with m.If(fetch):
            m.d.sync += [tail.eq(tail + 1), fetched.eq(1)]
        with m.Elif(move):
            m.d.sync += fetched.eq(0)
        with m.If(o.ready | ~o.valid):
            m.d.sync += o.valid.eq(move)
        with m.If(move):
            m.d.sync += o.payload.eq(read.data)
        return m
