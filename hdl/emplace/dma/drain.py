"""Read data to the clients, each in the order of its requests."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..stream.packet import PacketSignature
from ..stream.queue import Queue
from .records import READ_CLIENTS

__all__ = ["Drain", "Piece"]


class Piece(data.StructLayout):
    """A part of a request: where its bytes lie in its tag's buffer.

    Members
    -------
    word : ``range(size // 8)``
        First word.
    words : ``range(size // 8 + 2)``
        Words to be read; one more where the request's last bytes need an output word of their own.
    skip : ``unsigned(3)``
        First byte of the request's first word.
    prime : ``unsigned(1)``
        The first word gives no output.
    empty : ``unsigned(3)``
        Bytes of the request's last output word that don't count.
    last : ``unsigned(1)``
        The request's last part.
    """

    def __init__(self, size):
        super().__init__({"word": range(size // 8), "words": range(size // 8 + 2), "skip": 3, "prime": 1, "empty": 3,
                          "last": 1})


class Drain(wiring.Component):
    """Hands over the data of reads that are ready. The clients take turns, a part each; one that does not take its word
    is put back as soon as there is another one's part to hand over.

    Throughput: a word per cycle, two cycles between parts. Latency: 6 cycles from ``ready`` to the first word, 7 if its
    bytes are moved.

    Parameters
    ----------
    tags, size : :class:`int`

    Members
    -------
    take : ``In(1)``, client, tag : ``In(...)``, piece : ``In(Piece(size))``
        Strobe: ``tag`` is given to the client's next read.
    holding : ``Out(READ_CLIENTS)``
        The client has tags that are not drained.
    ready, failed : ``In(tags)``
    fetch : ``Out(1)``, address : ``Out(range(tags * size // 8))``, word : ``In(64)``
        Read port of the buffers; the word stands until the next ``fetch``.
    drained : ``Out(tags)``
        Strobes.
    level : ``Out(range(tags + 1))``
        Tags that are not drained.
    o : ``Out(PacketSignature(8)).array(READ_CLIENTS)``
        A packet for each request; ``err`` if the read failed.
    error : ``Out(1)``
        Strobe: a request has failed.
    """

    def __init__(self, tags, size):
        self.tags, self.size = tags, size
        super().__init__({
            "take":    In(1),
            "client":  In(range(READ_CLIENTS)),
            "tag":     In(range(tags)),
            "piece":   In(Piece(size)),
            "holding": Out(READ_CLIENTS),
            "ready":   In(tags),
            "failed":  In(tags),
            "fetch":   Out(1),
            "address": Out(range(tags * size // 8)),
            "word":    In(64),
            "drained": Out(tags),
            "level":   Out(range(tags + 1)),
            "o":       Out(PacketSignature(8)).array(READ_CLIENTS),
            "error":   Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        tags, size, clients = self.tags, self.size, range(READ_CLIENTS)
        piece = Piece(size)

        # The part at work
        busy, who, tag = Signal(), Signal(range(READ_CLIENTS)), Signal(range(tags))
        skip, empty, last, err = Signal(3), Signal(3), Signal(), Signal()
        load, done, park = Signal(), Signal(), Signal()

        # What each client waits for: the part that was put back, or else its oldest one.
        m.submodules.pieces = pieces = Memory(shape=piece, depth=tags, init=[])
        store, look = pieces.write_port(), pieces.read_port(domain="comb")
        parked, failing = Signal(READ_CLIENTS), Signal(READ_CLIENTS)
        able, blocked, heads = Signal(READ_CLIENTS), Signal(READ_CLIENTS), []
        candidate, found = Signal(range(READ_CLIENTS)), Signal()
        job_who, job_tag, job, job_valid = Signal.like(who), Signal.like(tag), Signal(piece), Signal()
        job_failed, job_spoiled, job_resumes = Signal(), Signal(), Signal()
        for n in clients:
            m.submodules[f"order{n}"] = order = Queue(range(tags), tags)
            aside, head = Signal(range(tags), name=f"aside{n}"), Signal(range(tags), name=f"head{n}")
            heads.append(head)
            with m.If(park & (who == n)):
                m.d.sync += aside.eq(tag)
            m.d.comb += [
                order.i.valid.eq(self.take & (self.client == n)), order.i.payload.eq(self.tag),
                order.o.ready.eq(load & (job_who == n) & ~job_resumes),
                head.eq(Mux(parked[n], aside, order.o.payload)),
                self.holding[n].eq(order.o.valid | parked[n] | (busy & (who == n))),
                blocked[n].eq(self.o[n].valid & ~self.o[n].ready),
                able[n].eq((order.o.valid | parked[n]) & Array(self.ready)[head]
                           & (~self.o[n].valid | (busy & (who == n)))),
            ]
            with m.If(load & (job_who == n)):
                m.d.sync += parked[n].eq(0)
            with m.If(park & (who == n)):
                m.d.sync += parked[n].eq(1)

        # The next part, looked for all the time: the one at work comes last.
        m.d.sync += [found.eq(able.any() & ~load), job_valid.eq(found & ~load)]
        with m.Switch(who):
            for n in clients:
                with m.Case(n):
                    for step in range(READ_CLIENTS, 0, -1):      # lowest priority first
                        other = (n + step) % READ_CLIENTS
                        with m.If(able[other]):
                            m.d.sync += candidate.eq(other)
        with m.Switch(candidate):
            for n in clients:
                with m.Case(n):
                    m.d.comb += look.addr.eq(heads[n])
                    m.d.sync += [job_spoiled.eq(failing[n]), job_resumes.eq(parked[n])]
        m.d.sync += [job_who.eq(candidate), job_tag.eq(look.addr), job.eq(look.data),
                     job_failed.eq(Array(self.failed)[look.addr])]

        # Fetch, register, hand over. `step`: what of the part is left from this word on.
        word, left, prime = Signal.like(job.word), Signal.like(job.words), Signal()
        step = data.StructLayout({"valid": 1, "word": job.word.shape(), "left": job.words.shape(), "prime": 1})
        step1, step2, word2 = Signal(step), Signal(step), Signal(64)
        gives, stalled, consume, final = Signal(), Signal(), Signal(), Signal()
        throw, freed = Signal(), Signal(2)
        m.d.comb += [
            final.eq(step2.left == 1),
            gives.eq(~step2.prime | err),
            stalled.eq(step2.valid & gives & Array(blocked)[who]),
            consume.eq(step2.valid & ~stalled),
            done.eq(consume & final),
            park.eq(stalled & job_valid & (job_who != who) & ~self.take),
            load.eq(job_valid & (~busy | done | park)),
            throw.eq(load & job_spoiled),
            self.fetch.eq(~stalled),
            self.address.eq(Cat(word, tag)),
            freed.eq(done + throw),
        ]
        m.d.sync += [self.error.eq(consume & err), self.level.eq(self.level + self.take - freed)]
        for n in range(tags):
            m.d.comb += self.drained[n].eq((done & (tag == n)) | (throw & (job_tag == n)))
        with m.If(~stalled):
            m.d.sync += [
                step1.valid.eq(left != 0), step1.word.eq(word), step1.left.eq(left), step1.prime.eq(prime),
                step2.eq(step1), word2.eq(self.word),
            ]
            with m.If(left != 0):
                m.d.sync += [word.eq(word + 1), left.eq(left - 1), prime.eq(0)]
        with m.If(done):
            m.d.sync += busy.eq(0)
        with m.If(park):
            m.d.sync += [step1.valid.eq(0), step2.valid.eq(0)]
        with m.If(load):
            m.d.sync += [
                busy.eq(~job_spoiled), who.eq(job_who), tag.eq(job_tag), word.eq(job.word), prime.eq(job.prime),
                skip.eq(job.skip), empty.eq(job.empty), last.eq(job.last), err.eq(job_failed),
                # A part that has failed gives one word that says so.
                left.eq(Mux(job_spoiled, 0, Mux(job_failed, 1, job.words))),
            ]
        for n in clients:
            with m.If(park & err & (who == n)):      # it will fail again
                m.d.sync += failing[n].eq(0)
            with m.If(load & (job_who == n) & (job_failed | job_spoiled)):
                m.d.sync += failing[n].eq(~job.last)
        m.d.comb += [
            store.en.eq(self.take | park), store.addr.eq(Mux(self.take, self.tag, tag)), store.data.eq(self.piece),
        ]
        with m.If(~self.take):
            m.d.comb += [
                store.data.word.eq(step2.word), store.data.words.eq(step2.left), store.data.prime.eq(step2.prime),
                store.data.skip.eq(skip), store.data.empty.eq(empty), store.data.last.eq(last),
            ]

        # Bytes to their lanes: a word's lower bytes fill up what the one before has left.
        m.submodules.rest = rest = Memory(shape=64, depth=READ_CLIENTS, init=[])
        keep, kept = rest.write_port(), rest.read_port(domain="comb")
        rotated = word2
        for bit in range(3):                         # a multiplexer of two for each bit
            turned = Signal(64, name=f"turned{bit}")
            m.d.comb += turned.eq(Mux(skip[bit], rotated.rotate_right(8 << bit), rotated))
            rotated = turned
        whole = Signal(64)
        m.d.comb += [
            keep.en.eq(consume), keep.addr.eq(who), keep.data.eq(rotated), kept.addr.eq(who),
            whole.eq(Cat(Mux((skip != 0) & (lane + skip < 8), kept.data.word_select(lane, 8), rotated.word_select(lane, 8))
                         for lane in range(8))),
        ]
        for n in clients:
            with m.If(self.o[n].ready):
                m.d.sync += self.o[n].valid.eq(0)
            with m.If(consume & gives & (who == n)):
                m.d.sync += [
                    self.o[n].valid.eq(1), self.o[n].p.data.eq(whole), self.o[n].p.err.eq(err),
                    self.o[n].p.last.eq((final & last) | err), self.o[n].p.empty.eq(Mux(final & last & ~err, empty, 0)),
                ]
        return m
