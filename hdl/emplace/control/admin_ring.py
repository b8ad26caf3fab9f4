"""The admin queue's rings: fetches commands, one at a time, in order; knows where the next completion goes."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import ReadClient, ReadRequest, ReadWord
from ..queues.ring import RingAddress, ring_phase
from .ports import RingConfig

__all__ = ["AdminRing"]

_WORDS = abi.COMMAND_BYTES // 8


class AdminRing(wiring.Component):
    """Reads the next command once one is there, and holds it until it is finished.

    Nothing is read while the producer index claims more commands than the ring has.

    Latency: 5 cycles from the doorbell to the read; the command is valid a cycle after its last word.

    Members
    -------
    awake : ``In(1)``
        Commands may be fetched.
    config_ring : ``In(RingConfig)``
    reads : ``Out(stream.Signature(ReadRequest(config)))``, read_data : ``In(stream.Signature(ReadWord()))``
    valid : ``Out(1)``
        ``command`` stands until ``finish``.
    failed : ``Out(1)``
        It could not be read: ``command`` begins with 8 bytes of 0, the rest means nothing.
    command : ``Out(8 * abi.COMMAND_BYTES)``
        Also afterwards, until the next one comes.
    rotate : ``In(1)``
        Turn ``command`` right by 8 bytes.
    finish : ``In(1)``
        Its completion has been written.
    completion_address : ``Out(64)``, completion_phase : ``Out(1)``
    """

    def __init__(self, config):
        super().__init__({
            "awake":              In(1),
            "config_ring":        In(RingConfig),
            "reads":              Out(stream.Signature(ReadRequest(config))),
            "read_data":          In(stream.Signature(ReadWord())),
            "valid":              Out(1),
            "failed":             Out(1),
            "command":            Out(8 * abi.COMMAND_BYTES),
            "rotate":             In(1),
            "finish":             In(1),
            "completion_address": Out(64),
            "completion_phase":   Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        ring, word = self.config_ring, self.read_data
        # One index does for both rings: a command's completion has its number.
        index, pending, due = Signal(16), Signal(16), Signal()
        restart = Signal()
        m.submodules.command_address = source = RingAddress(entry_log2=7)
        m.submodules.completion_address = target = RingAddress(entry_log2=4)
        m.d.comb += [
            source.base.eq(ring.sq_base), target.base.eq(ring.cq_base),
            *(address.log2.eq(ring.log2) for address in (source, target)),
            *(address.index.eq(index) for address in (source, target)),
            pending.eq(ring.producer - index),
            self.completion_address.eq(target.address),
            self.completion_phase.eq(ring_phase(index, ring.log2)),
            self.reads.p.client.eq(ReadClient.CONTROL),
            self.reads.p.length.eq(abi.COMMAND_BYTES),
        ]
        m.d.sync += due.eq(self.awake & ring.enabled & (pending != 0) & (pending <= (1 << ring.log2)))
        with m.If(ring.restart):
            m.d.sync += restart.eq(1)

        count, whole = Signal(range(_WORDS + 1)), Signal()
        m.d.comb += whole.eq(count == _WORDS - 1)
        top = Signal(64)
        shift = Signal()
        m.d.comb += top.eq(Mux(self.rotate, self.command[:64], word.p.data))
        with m.If(self.rotate | shift):
            m.d.sync += self.command.eq(Cat(self.command[64:], top))

        with m.FSM(name="admin_ring"):
            with m.State("IDLE"):                      # waits for a command
                with m.If(ring.restart | restart):
                    m.d.sync += [index.eq(0), restart.eq(0), due.eq(0)]
                    m.next = "SETTLE"
                with m.Elif(due):
                    m.d.sync += self.reads.p.address.eq(source.address)
                    m.next = "READ"
            with m.State("SETTLE"):                    # `pending`, `due` and the addresses follow the index
                m.next = "SETTLED"
            with m.State("SETTLED"):
                m.next = "IDLE"
            with m.State("READ"):                      # waits for the bus
                m.d.comb += self.reads.valid.eq(1)
                m.d.sync += count.eq(0)
                with m.If(self.reads.ready):
                    m.next = "WORDS"
            with m.State("WORDS"):                     # waits for the command's last word
                m.d.comb += [word.ready.eq(1), shift.eq(word.valid)]
                with m.If(word.valid):
                    m.d.sync += count.eq(Mux(count == _WORDS, count, count + 1))
                    with m.If(word.p.last):
                        m.d.sync += [self.valid.eq(1), self.failed.eq(word.p.err | ~whole)]
                        with m.If(word.p.err | ~whole):
                            m.d.sync += self.command[:64].eq(0)
                        m.next = "HOLD"
            with m.State("HOLD"):                      # waits until it has been carried out
                with m.If(self.finish):
                    m.d.sync += [self.valid.eq(0), index.eq(index + 1)]
                    m.next = "SETTLE"
        return m
