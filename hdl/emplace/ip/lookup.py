"""Which connection a segment belongs to."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..abi import Status
from .records import LookupKey, LookupUpdate

__all__ = ["Lookup", "bucket_bits", "fold"]

#: Of the memories: searches go on while a connection is entered or taken out.
_SHARED = {"reads_collide": 1}


def bucket_bits(config):
    """log2 of the hash buckets: four a QP."""
    return config.qp_bits + 2


def fold(key, bits):
    """Hash: the key's ``bits``-bit pieces, added bit by bit. For ints and for values."""
    if isinstance(key, int):
        total = 0
        while key:
            total ^= key & (1 << bits) - 1
            key >>= bits
        return total
    key = Value.cast(key)
    return Cat(key[n::bits].xor() for n in range(bits))


class Lookup(wiring.Component):
    """Finds the QP of a 4-tuple (and VLAN): hash buckets, each a list through the QPs' slots, at most
    ``lookup_chain`` long. The whole key is compared.

    Latency of a lookup: 2 cycles from ``start`` to ``done`` in an empty bucket, else 3 and the place
    in the list. One may be started every 5 cycles; the one before is then forgotten.

    Updates use what memory cycles lookups leave, which is at least one in two: about 4 cycles a step of the list.
    Every change becomes visible by one write, so that a lookup meanwhile finds what it would have
    found before or behind it. Behind reset the table is cleared for ``4 * qps`` cycles, in which
    lookups find nothing.

    Members
    -------
    key : ``In(LookupKey())``
        Must hold from ``start`` until ``done``.
    start : ``In(1)``
    done : ``Out(1)``
        From the result on, until the next ``start``.
    hit : ``Out(1)``
    qp : ``Out(qp_bits)``
        If ``hit``.
    update : ``In(stream.Signature(LookupUpdate(config)))``
    result : ``Out(stream.Signature({"status": 8}))``
        ``abi.Status`` of each update: OK; EXISTS (some QP has the key already); TABLE_FULL (the bucket is);
        BAD_QPN (insert: the QP has another key; delete: it doesn't have this one).
    """

    key: data.View
    start: Signal
    done: Signal
    hit: Signal
    qp: Signal
    update: stream.Interface
    result: stream.Interface

    def __init__(self, config):
        self.config = config
        super().__init__({
            "key": In(LookupKey()), "start": In(1),
            "done": Out(1), "hit": Out(1), "qp": Out(config.qp_bits),
            "update": In(stream.Signature(LookupUpdate(config))),
            "result": Out(stream.Signature(data.StructLayout({"status": 8}))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bits = bucket_bits(config)
        link_layout = data.StructLayout({"valid": 1, "qp": config.qp_bits})
        key_layout = data.StructLayout({"used": 1, "key": LookupKey()})
        m.submodules.heads = heads = memory.Memory(shape=link_layout, depth=1 << bits, init=[], attrs=_SHARED)
        m.submodules.links = links = memory.Memory(shape=link_layout, depth=config.qps, init=[], attrs=_SHARED)
        m.submodules.keys = keys = memory.Memory(shape=key_layout, depth=config.qps, init=[], attrs=_SHARED)
        head_read, link_read, key_read = heads.read_port(), links.read_port(), keys.read_port()
        head_write, link_write, key_write = heads.write_port(), links.write_port(), keys.write_port()
        clearing = Signal(init=1)

        # A lookup: head, then entry by entry, one a cycle; each is compared the cycle behind, in 16-bit pieces, and
        # these are put together the cycle after.
        at_head, at_entry, more = Signal(), Signal(), Signal()
        pointer = Signal(link_layout)
        reading, comparing = Signal(config.qp_bits), Signal(config.qp_bits)
        steps = Signal(range(config.lookup_chain + 1))
        width = Value.cast(self.key).shape().width
        equal, judged, final = Signal(-(-width // 16)), Signal(), Signal()

        def pieces(left, right):
            left, right = Value.cast(left), Value.cast(right)
            return Cat(left[n:n + 16] == right[n:n + 16] for n in range(0, width, 16))

        m.d.comb += [
            pointer.eq(Mux(at_head, head_read.data, link_read.data)),
            more.eq((at_head | at_entry) & pointer.valid & (steps != config.lookup_chain) & ~self.done),
        ]
        m.d.sync += [
            at_head.eq(self.start), at_entry.eq(more & ~self.start), reading.eq(pointer.qp),
            steps.eq(Mux(self.start, 0, steps + more)),
            judged.eq(at_entry & ~self.start), final.eq(~more), comparing.eq(reading),
            equal.eq(pieces(key_read.data.key, self.key)),
        ]
        with m.If(self.start):
            m.d.sync += [self.done.eq(clearing), self.hit.eq(0)]
        with m.Elif(~self.done):
            with m.If(at_head & ~pointer.valid):
                m.d.sync += self.done.eq(1)
            with m.If(judged & equal.all()):
                m.d.sync += [self.done.eq(1), self.hit.eq(1), self.qp.eq(comparing)]
            with m.Elif(judged & final):
                m.d.sync += self.done.eq(1)

        # Updates
        update = self.update.p
        bucket = Signal(bits)
        free = Signal()                  # no lookup reads this cycle
        ask_head, ask_entry = Signal(), Signal()
        wanted = Signal(config.qp_bits)
        m.d.comb += [
            bucket.eq(fold(update.key, bits)),
            free.eq(~self.start & ~more),
            head_read.addr.eq(Mux(self.start, fold(self.key, bits), bucket)),
            head_read.en.eq(self.start | ask_head),
            link_read.addr.eq(Mux(more, pointer.qp, wanted)),
            link_read.en.eq(more | ask_entry),
            key_read.addr.eq(link_read.addr), key_read.en.eq(link_read.en),
            head_write.addr.eq(bucket), link_write.addr.eq(update.qp), key_write.addr.eq(update.qp),
            key_write.data.key.eq(update.key),
        ]
        head, entry, before = Signal(link_layout), Signal(link_layout), Signal(link_layout)
        follower = Signal(link_layout)
        same = Signal.like(equal)
        used = Signal()
        count = Signal(range(config.lookup_chain + 1))
        sweep = Signal(bits)

        def answer(status):
            m.d.sync += [self.result.p.status.eq(status), self.result.valid.eq(1)]
            m.d.comb += self.update.ready.eq(1)
            m.next = "RESULT"

        with m.FSM():
            with m.State("CLEAR"):       # waits until every head and entry has been cleared
                m.d.comb += [
                    head_write.addr.eq(sweep), head_write.en.eq(1),
                    key_write.addr.eq(sweep), key_write.en.eq(1), key_write.data.used.eq(0),
                ]
                m.d.sync += sweep.eq(sweep + 1)
                with m.If(sweep.all()):
                    m.d.sync += clearing.eq(0)
                    m.next = "IDLE"
            with m.State("IDLE"):        # waits for an update, and for a gap to read its bucket and its QP
                m.d.comb += [wanted.eq(update.qp), ask_head.eq(self.update.valid & free), ask_entry.eq(ask_head)]
                m.d.sync += [before.eq(0), count.eq(0)]
                with m.If(ask_head):
                    m.next = "HEAD"
            with m.State("HEAD"):
                m.d.sync += [head.eq(head_read.data), entry.eq(head_read.data), used.eq(key_read.data.used)]
                m.next = "STEP"
            with m.State("STEP"):        # waits for a gap to read the list's next entry
                m.d.comb += [wanted.eq(entry.qp), ask_entry.eq(entry.valid & free)]
                with m.If(ask_entry):
                    m.next = "ENTRY"
                with m.Elif(~entry.valid):
                    with m.If(~update.insert):
                        answer(Status.BAD_QPN)
                    with m.Elif(used):
                        answer(Status.BAD_QPN)
                    with m.Elif(count == config.lookup_chain):
                        answer(Status.TABLE_FULL)
                    with m.Else():
                        m.d.comb += [key_write.en.eq(1), key_write.data.used.eq(1),
                                     link_write.en.eq(1), link_write.data.eq(head)]
                        m.next = "INSERT"
            with m.State("ENTRY"):
                m.d.sync += [same.eq(pieces(key_read.data.key, update.key)), follower.eq(link_read.data)]
                m.next = "COMPARE"
            with m.State("COMPARE"):
                with m.If(~same.all()):
                    m.d.sync += [before.eq(entry), entry.eq(follower), count.eq(count + 1)]
                    m.next = "STEP"
                with m.Elif(update.insert):
                    answer(Status.EXISTS)
                with m.Elif(entry.qp != update.qp):
                    answer(Status.BAD_QPN)
                with m.Else():           # out of the list, and its QP is free again
                    m.d.comb += [
                        head_write.en.eq(~before.valid), head_write.data.eq(follower),
                        link_write.en.eq(before.valid), link_write.addr.eq(before.qp), link_write.data.eq(follower),
                        key_write.en.eq(1), key_write.data.used.eq(0),
                    ]
                    answer(Status.OK)
            with m.State("INSERT"):
                m.d.comb += [head_write.en.eq(1), head_write.data.valid.eq(1), head_write.data.qp.eq(update.qp)]
                answer(Status.OK)
            with m.State("RESULT"):      # waits until the result is taken
                with m.If(self.result.ready):
                    m.d.sync += self.result.valid.eq(0)
                    m.next = "IDLE"
        return m
