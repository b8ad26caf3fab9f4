"""MSI-X: the table, pending bits, moderation, messages."""

# Ref: PCI Express Base Specification 6.1.4 (MSI and MSI-X operation), 7.7.2 (MSI-X capability and table structures)

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.scrub import scrub
from .ports import TIME_BITS, Message, MsixLook, MsixWrite, msix_rows

__all__ = ["Msix"]

_MASK_BIT = 32         # in an entry's second word


class Msix(wiring.Component):
    """Vectors that were raised become messages, one for any number of raises until it is sent.

    A vector's pending bit is set while it waits: for its turn, for its mask bit, for the function mask or for MSI-X
    to be enabled; then the message is sent. Requests are moderated by their vector's MODERATION: one is raised once as
    many have come as it says, or its time has passed since the first. Completion queues have moderated theirs
    themselves.

    Throughput: a message every 6 cycles at best. Latency: up to ``vectors + 6`` cycles from a raise to the message,
    8 more for a request; the time of fewer requests ends up to ``6 * vectors`` cycles late.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    requesters : :class:`int`

    Members
    -------
    write : ``In(MsixWrite(config))``, look : ``In(MsixLook(config))``, word : ``Out(64)``
        The host's accesses to table and moderation; a word comes in the cycle behind ``look.en``.
    pending : ``Out(vectors)``
    enable, mask : ``In(1)``
        From the capability: MSI-X Enable, Function Mask.
    raised : ``In({en, vector})``
        Strobe: at once.
    requests : ``In({en, vector: 8}).array(requesters)``
        Strobe: moderated. The vector stands still; one that isn't there makes no message.
    now : ``In(TIME_BITS)``
        Units of moderation's time.
    messages : ``Out(stream.Signature(Message))``
    """

    def __init__(self, config, requesters):
        self.config, self.requesters = config, requesters
        vector = range(config.vectors)
        super().__init__({
            "write":    In(MsixWrite(config)),
            "look":     In(MsixLook(config)),
            "word":     Out(64),
            "pending":  Out(config.vectors),
            "enable":   In(1),
            "mask":     In(1),
            "raised":   In(data.StructLayout({"en": 1, "vector": vector})),
            "requests": In(data.StructLayout({"en": 1, "vector": 8})).array(requesters),
            "now":      In(TIME_BITS),
            "messages": Out(stream.Signature(Message)),
        })

    def elaborate(self, platform):
        m = Module()
        vectors = self.config.vectors
        bits = (vectors - 1).bit_length()
        write, look, messages = self.write, self.look, self.messages

        # Table and moderation, a word of 8 bytes a row; the host's look comes before ours. Mask bits lie beside it.
        m.submodules.table = table = memory.Memory(shape=64, depth=msix_rows(self.config), init=[])
        port, store = table.read_port(), table.write_port(granularity=8)
        masked, row = Signal(vectors, init=-1), Signal(range(msix_rows(self.config)))
        looked, looked_masked = Signal(), Signal()
        entry = Signal()
        m.d.comb += [
            port.addr.eq(Mux(look.en, look.row, row)),
            store.addr.eq(write.row), store.data.eq(write.data), store.en.eq(Mux(write.en, write.mask, 0)),
            entry.eq(write.en & (write.row < 2 * vectors) & write.row[0] & write.mask[_MASK_BIT // 8]),
            self.word.eq(port.data | (looked & looked_masked) << _MASK_BIT),
        ]
        m.d.sync += [
            looked.eq((look.row < 2 * vectors) & look.row[0]), looked_masked.eq(masked.bit_select(look.row[1:bits + 1], 1)),
        ]
        for n in range(vectors):
            with m.If(entry & (write.row[1:bits + 1] == n)):
                m.d.sync += masked[n].eq(write.data[_MASK_BIT])

        # What came of each requester and was not looked at yet.
        fresh = [Signal(4, name=f"fresh_{n}") for n in range(self.requesters)]
        served = Signal(self.requesters)
        for n, request in enumerate(self.requests):
            with m.If(served[n]):
                m.d.sync += fresh[n].eq(request.en)
            with m.Elif(request.en & ~fresh[n].all()):
                m.d.sync += fresh[n].eq(fresh[n] + 1)

        # Requests that wait for more of them
        Wait = data.StructLayout({"waiting": 1, "seen": 8, "due": TIME_BITS})
        m.submodules.waits = waits = memory.Memory(shape=Wait, depth=vectors, init=[])
        wait_read, wait_write = waits.read_port(), waits.write_port()
        sweep, sweeping, tick = Signal(range(vectors)), Signal(), Signal()
        m.d.sync += tick.eq(self.now[0])
        with m.If(tick != self.now[0]):
            m.d.sync += [sweep.eq(0), sweeping.eq(1)]

        at, vector = Signal(range(vectors)), Signal(range(vectors))     # the next one to look at; the one in hand
        arrived, total, elapsed, due = Signal(4), Signal(9), Signal(TIME_BITS), Signal(TIME_BITS)
        count, old = Signal(8), wait_read.data
        limits = Signal(data.StructLayout({"count": 8, "period": 16, "pad": 8}))
        sendable, sending, raising, fire = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            sendable.eq(Array(self.pending)[at] & ~Array(masked)[at] & self.enable & ~self.mask),
            wait_read.addr.eq(vector), wait_write.addr.eq(vector),
            limits.eq(port.data.word_select(vector[0], 32)),
        ]
        for n in range(vectors):
            with m.If((raising & (vector == n)) | (self.raised.en & (self.raised.vector == n))):     # setting wins
                m.d.sync += self.pending[n].eq(1)
            with m.Elif(sending & (at == n)):
                m.d.sync += self.pending[n].eq(0)

        with m.FSM(name="msix"):
            with m.State("IDLE"):        # waits for a vector that may be sent, for a request, for time to pass
                m.d.sync += at.eq(0 if vectors == 1 else at + 1)
                with m.If(sendable):
                    m.d.comb += sending.eq(1)
                    m.d.sync += vector.eq(at)
                    m.next = "ADDRESS"
                with m.Elif(Cat(f.any() for f in fresh).any()):
                    for n in reversed(range(self.requesters)):
                        with m.If(fresh[n].any()):
                            m.d.comb += served.eq(1 << n)
                            m.d.sync += [vector.eq(self.requests[n].vector), arrived.eq(fresh[n])]
                            m.next = "WAITS"
                            with m.If(self.requests[n].vector >= vectors):
                                m.next = "IDLE"
                with m.Elif(sweeping):
                    m.d.sync += [vector.eq(sweep), arrived.eq(0), sweep.eq(sweep + 1)]
                    with m.If(sweep == vectors - 1):
                        m.d.sync += sweeping.eq(0)
                    m.next = "WAITS"
            with m.State("WAITS"):       # for the table
                m.d.comb += row.eq(2 * vectors + (vector >> 1))
                with m.If(~look.en):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += [
                    count.eq(limits.count), due.eq(self.now + limits.period),
                    total.eq(old.seen + arrived), elapsed.eq(self.now - old.due),
                ]
                m.next = "ACT"
            with m.State("ACT"):
                m.d.comb += [
                    fire.eq((arrived.any() & (total >= count)) | (old.waiting & ~elapsed[TIME_BITS - 1])),
                    raising.eq(fire), wait_write.en.eq(fire | arrived.any()),
                ]
                with m.If(~fire):
                    m.d.comb += [
                        wait_write.data.waiting.eq(1), wait_write.data.seen.eq(total),
                        wait_write.data.due.eq(Mux(old.waiting, old.due, due)),
                    ]
                m.next = "IDLE"
            with m.State("ADDRESS"):     # waits for the table
                m.d.comb += row.eq(vector << 1)
                with m.If(~look.en):
                    m.next = "DATA"
            with m.State("DATA"):        # takes the address; waits for the table
                m.d.comb += row.eq(vector << 1 | 1)
                m.d.sync += messages.p.address.eq(Cat(port.data[:2] & 0, port.data[2:]))
                with m.If(~look.en):
                    m.next = "TAKE"
                with m.Else():
                    m.next = "AGAIN"
            with m.State("AGAIN"):       # waits for the table
                m.d.comb += row.eq(vector << 1 | 1)
                with m.If(~look.en):
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.sync += [messages.p.data.eq(port.data), messages.valid.eq(1)]
                m.next = "SEND"
            with m.State("SEND"):        # waits until it is on its way
                with m.If(messages.ready):
                    m.d.sync += messages.valid.eq(0)
                    m.next = "IDLE"
        scrub(m, store, msix_rows(self.config))
        scrub(m, wait_write, vectors)
        return m
