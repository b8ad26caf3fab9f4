"""Who may ring what: one table for the receive queues, one for the completion queues."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.scrub import scrub

__all__ = ["TableRing", "OwnerEntry", "DoorbellTable"]

#: ``move`` 0: check the owner alone (a doorbell that isn't built yet).
TableRing = data.StructLayout({"number": 32, "context": 8, "value": 16, "move": 1})

#: Who owns an index. ``flip``: the inverse of what :attr:`DoorbellTable.latest` said when the owner was entered, so
#: that the value left by the former owner counts as 0, and the table's memory needs no second writer.
OwnerEntry = data.StructLayout({"valid": 1, "number": 24, "context": 8, "flip": 1})

_Latest = data.StructLayout({"flip": 1, "value": 16})


class DoorbellTable(wiring.Component):
    """Checks doorbells and keeps the latest value of each queue.

    A doorbell is refused unless its whole number names a queue of this table, the context owns it
    (context 0, the kernel, may ring all), and its value lies in ``latest .. limit`` modulo 2**16: it
    neither goes back nor claims more entries than there are.

    Throughput: one doorbell a cycle. Latency: 3 cycles to ``accepted`` or ``refused``; ``latest``
    shows the value a cycle later.

    Parameters
    ----------
    n : :class:`int`
        Queues, a power of two; the low bits of a number are the index.

    Members
    -------
    ring : ``In(stream.Signature(TableRing, always_ready=True))``
    accepted, refused : ``Out(1)``
        Strobes.
    index : ``Out(range(n))``, value : ``Out(16)``, moved : ``Out(1)``
        Of the strobe.
    owner : ``In({en, index, entry: OwnerEntry})``
        Writes an owner.
    limit : ``In({en, index, value: 16})``
        Writes the highest value that is accepted from now on.
    look : ``In(range(n))``, ``latest`` : ``Out({flip, value: 16})``
        Reads the latest value; 1 cycle. The value counts if ``flip`` is the owner's, else it is 0.
    """

    def __init__(self, n):
        self.n = n
        super().__init__({
            "ring":     In(stream.Signature(TableRing, always_ready=True)),
            "accepted": Out(1),
            "refused":  Out(1),
            "index":    Out(range(n)),
            "value":    Out(16),
            "moved":    Out(1),
            "owner":    In(data.StructLayout({"en": 1, "index": range(n), "entry": OwnerEntry})),
            "limit":    In(data.StructLayout({"en": 1, "index": range(n), "value": 16})),
            "look":     In(range(n)),
            "latest":   Out(_Latest),
        })

    def elaborate(self, platform):
        m = Module()
        bits = (self.n - 1).bit_length()
        m.submodules.owners = owners = memory.Memory(shape=OwnerEntry, depth=self.n, init=[])
        m.submodules.limits = limits = memory.Memory(shape=16, depth=self.n, init=[])
        m.submodules.latest = latest = memory.Memory(shape=_Latest, depth=self.n, init=[])
        owner_write, limit_write, latest_write = owners.write_port(), limits.write_port(), latest.write_port()
        owner, limit = owners.read_port(), limits.read_port()
        mine = latest.read_port(transparent_for=(latest_write,))
        look = latest.read_port()
        m.d.comb += [
            owner_write.en.eq(self.owner.en), owner_write.addr.eq(self.owner.index),
            owner_write.data.eq(self.owner.entry),
            limit_write.en.eq(self.limit.en), limit_write.addr.eq(self.limit.index),
            limit_write.data.eq(self.limit.value),
            look.addr.eq(self.look), self.latest.eq(look.data),
            owner.addr.eq(self.ring.p.number[:bits]),
            limit.addr.eq(self.ring.p.number[:bits]),
            mine.addr.eq(self.ring.p.number[:bits]),
        ]

        # Stage 1: the memories answer.
        valid1, ring1 = Signal(), Signal(TableRing)
        m.d.sync += [valid1.eq(self.ring.valid), ring1.eq(self.ring.payload)]
        index1 = Signal(bits)
        may = Signal()
        m.d.comb += [
            index1.eq(ring1.number[:bits]),
            may.eq(owner.data.valid & (ring1.number == owner.data.number)
                   & ((ring1.context == 0) | (ring1.context == owner.data.context))),
        ]

        # Stage 2: distances from the latest value. Stage 3: compare and write. A doorbell for the same queue that
        # is one or two cycles ahead hasn't reached the memory yet: its value is taken from stage 3.
        valid2, may2, index2, ring2, flip2 = Signal(), Signal(), Signal(bits), Signal(TableRing), Signal()
        limit2, old2, old = Signal(16), Signal(16), Signal(16)
        valid3, may3, move3, index3, flip3 = Signal(), Signal(), Signal(), Signal(bits), Signal()
        value3, ahead3, room3 = Signal(16), Signal(16), Signal(16)
        write = Signal()
        known = Signal(16)
        m.d.comb += [
            known.eq(Mux(mine.data.flip == owner.data.flip, mine.data.value, 0)),
            old.eq(Mux(write & (index3 == index2), value3, old2)),
        ]
        m.d.sync += [
            valid2.eq(valid1), may2.eq(may), index2.eq(index1), ring2.eq(ring1), flip2.eq(owner.data.flip),
            limit2.eq(limit.data),
            old2.eq(Mux(write & (index3 == index1), value3, known)),
            valid3.eq(valid2), may3.eq(may2), move3.eq(ring2.move), index3.eq(index2), flip3.eq(flip2),
            value3.eq(ring2.value),
            ahead3.eq(ring2.value - old),
            room3.eq(limit2 - old),
        ]
        good = Signal()
        m.d.comb += [
            good.eq(may3 & (~move3 | (ahead3 <= room3))),
            write.eq(valid3 & good & move3),
            latest_write.en.eq(write),
            latest_write.addr.eq(index3),
            latest_write.data.flip.eq(flip3),
            latest_write.data.value.eq(value3),
            self.accepted.eq(valid3 & good),
            self.refused.eq(valid3 & ~good),
            self.index.eq(index3), self.value.eq(value3), self.moved.eq(move3),
        ]
        scrub(m, owner_write, self.n)                  # what isn't owned is never looked at
        return m
