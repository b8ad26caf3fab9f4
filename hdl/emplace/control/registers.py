"""BAR0: registers, counters, doorbell pages."""

import dataclasses
import zlib

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..dma.records import GuardRange, MmioRead, MmioWrite
from ..frames.records import FrameRing, FrameSettings
from ..queues.ports import DoorbellKind, EventRing, Ring
from ..stream.scrub import scrub_cycles
from .ports import RingConfig
from .station import MacSettings, Station

__all__ = ["build_hash", "capabilities", "Registers"]

_TICK = 125_000                # 1 ms at 125 MHz
_LEASE = 2000
_BUFFER_LOG2 = 11              # 2 KiB
_DELACK = 40
_PAGE = 4096 // 8              # in words of 8 bytes


def build_hash(config):
    """Register BUILD: CRC-32 of the profile's sizes, in the order in which NicConfig names them; not of its name."""
    sizes = [f"{f.name}={getattr(config, f.name)}" for f in dataclasses.fields(config) if f.name != "name"]
    return zlib.crc32(",".join(sizes).encode())


def capabilities(config):
    """Values of the registers that never change, by name."""
    def log2(value):
        return value.bit_length() - 1
    return {
        "ID": abi.CARD_ID, "ABI": abi.ABI_VERSION, "BUILD": build_hash(config),
        "CAPS_TABLES": log2(config.qps) | log2(config.cqs) << 8 | log2(config.regions) << 16 | log2(config.pages) << 24,
        "CAPS_QUEUES": config.slots | config.orq << 8 | config.ird << 16 | config.guard_ranges << 24,
        "CAPS_LIMITS": config.fpdu_max | config.user_contexts << 16,
    }


def _word(name):
    """A register's word of 8 bytes and its half."""
    return abi.REGISTERS[name].offset // 8, abi.REGISTERS[name].offset // 4 % 2


class Registers(wiring.Component):
    """The host's window. Writes act byte by byte and are always accepted; what isn't there reads 0.

    Writing ADMIN_LOG2, EVENT_LOG2 or FRAME_RX_LOG2 starts that ring anew: indices 0, first lap. Until then it isn't
    used. A value out of range is ignored. A doorbell that isn't one whole 8-byte write is passed on as one for no queue, so
    that it is refused and counted; so is every doorbell before ``awake``.

    Throughput: a write a cycle; a read every 4 cycles. Latency: a write acts after 2 cycles (a doorbell: is out
    after 2), a read is answered after 4.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    mmio_write : ``In(stream.Signature(MmioWrite(config), always_ready=True))``
    mmio_read : ``In(stream.Signature(MmioRead(config)))``, mmio_data : ``Out(stream.Signature(unsigned(64)))``
    doorbell : ``Out(stream.Signature(Ring))``
        Never waits: its ``ready`` is not looked at.
    awake : ``Out(1)``
        Every table has been cleared since the last reset.
    admin_ring : ``Out(RingConfig)``, event_ring : ``Out(EventRing)``
    frame_ring : ``Out(FrameRing)``, frame_settings : ``Out(FrameSettings)``
    now, lease : ``Out(32)``, delack : ``Out(11)``
    guard_ranges : ``Out(data.ArrayLayout(GuardRange, guard_ranges))``
    station, mac, event_vector : ``Out(48)``, ``Out(MacSettings)``, ``Out(8)``
    pair : ``Out(10)``, counters : ``In(64)``
        To :class:`~emplace.stats.counters.Counters`.
    sample_word : ``Out(9)``, sample : ``In(64)``
        To :class:`~emplace.stats.samples.Samples`.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "mmio_write":   In(stream.Signature(MmioWrite(config), always_ready=True)),
            "mmio_read":    In(stream.Signature(MmioRead(config))),
            "mmio_data":    Out(stream.Signature(unsigned(64))),
            "doorbell":     Out(stream.Signature(Ring)),
            "awake":        Out(1),
            "admin_ring":   Out(RingConfig),
            "event_ring":   Out(EventRing),
            "frame_ring":   Out(FrameRing),
            "frame_settings": Out(FrameSettings),
            "now":          Out(32),
            "lease":        Out(32),
            "delack":       Out(11),
            "guard_ranges": Out(data.ArrayLayout(GuardRange, config.guard_ranges)),
            "station":      Out(48),
            "mac":          Out(MacSettings),
            "event_vector": Out(8),
            "pair":         Out(9),
            "counters":     In(64),
            "sample_word":  Out(9),
            "sample":       In(64),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # One register stage for what comes from the bus.
        valid, write = Signal(), Signal(MmioWrite(config))
        m.d.sync += [valid.eq(self.mmio_write.valid), write.eq(self.mmio_write.payload)]
        page, word = Signal(len(write.address) - 9), Signal(9)
        here = Signal()
        m.d.comb += [page.eq(write.address[9:]), word.eq(write.address[:9]), here.eq(valid & (page == 0))]

        def held(number, width, init=0, low=0, locked=None):
            """A register at word ``number``, bytes written as the mask says. ``low``: bits that read 0."""
            store = Signal(width, init=init)
            touched = here & (word == number) if locked is None else here & (word == number) & ~locked
            selected = Signal()
            m.d.comb += selected.eq(touched)
            for byte in range(0, width, 8):
                start, end = max(byte, low), byte + 8
                if start < end:
                    with m.If(selected & write.mask[byte // 8]):
                        m.d.sync += store[start:end].eq(write.data[start:end])
            return store, selected

        # 32-bit registers come in pairs of one word.
        tick_word, _ = _word("TICK")
        tick_now, tick_selected = held(tick_word, 32, init=_TICK)
        waits, _ = held(_word("LEASE")[0], 64, init=_LEASE | _DELACK << 32)
        admin_sq, _ = held(_word("ADMIN_SQ_LO")[0], 64)
        admin_cq, _ = held(_word("ADMIN_CQ_LO")[0], 64)
        event_base, _ = held(_word("EVENT_LO")[0], 64)
        frame_base, _ = held(_word("FRAME_RX_LO")[0], 64)
        frame_completions, _ = held(_word("FRAME_RXC_LO")[0], 64)
        frame_control_word, _ = _word("FRAME_CONTROL")
        frame_bits, frame_control = held(frame_control_word, 8)
        buffer_log2 = Signal(8, init=_BUFFER_LOG2)
        with m.If(frame_control & write.mask[1] & (write.data[8:16] >= 8) & (write.data[8:16] <= 16)):
            m.d.sync += buffer_log2.eq(write.data[8:16])
        m.d.comb += [
            self.frame_ring.base.eq(frame_base[12:]), self.frame_ring.completions.eq(frame_completions[12:]),
            self.frame_settings.eq(Cat(frame_bits[:3], buffer_log2[:5], self.station)),
            self.lease.eq(waits[:32]), self.delack.eq(waits[32:]),
            self.admin_ring.sq_base.eq(admin_sq[12:]), self.admin_ring.cq_base.eq(admin_cq[12:]),
            self.event_ring.base.eq(event_base[12:]),
        ]

        # Rings: {log2, index} in one word.
        def ring(log2_name, index_name, ports, index_port, most, least=0):
            (number, low), (other, high) = _word(log2_name), _word(index_name)
            if (number, low, high) != (other, 0, 1):
                raise ValueError(f"{log2_name} and {index_name} must share a word")
            selected, value = Signal(), Signal(4)
            good = Signal()
            m.d.comb += [
                selected.eq(here & (word == number)), value.eq(write.data[:4]),
                good.eq(selected & (write.mask[:4] == 0xF) & (write.data[:32] <= most) & (write.data[:32] >= least)),
            ]
            m.d.sync += ports.restart.eq(good)
            index = getattr(ports, index_port)
            with m.If(good):
                m.d.sync += [ports.log2.eq(value), ports.enabled.eq(1), index.eq(0)]
            for byte in range(2):
                with m.If(selected & write.mask[4 + byte]):
                    m.d.sync += index.word_select(byte, 8).eq(write.data.word_select(4 + byte, 8))
            return Cat(ports.log2, Const(0, 28), index)

        admin_readback = ring("ADMIN_LOG2", "ADMIN_DOORBELL", self.admin_ring, "producer", 8)
        frame_readback = ring("FRAME_RX_LOG2", "FRAME_RX_PRODUCER", self.frame_ring, "producer", 12, least=1)
        event_readback = ring("EVENT_LOG2", "EVENT_CONSUMER", self.event_ring, "consumer", 12)

        # The guard's ranges, until they are locked.
        lock = Signal()
        lock_word, _ = _word("GUARD_LOCK")
        with m.If(here & (word == lock_word) & write.mask[0] & write.data[0]):
            m.d.sync += lock.eq(1)
        guard_words = []
        for index in range(config.guard_ranges):
            for half, field in enumerate(("first", "end")):
                store, _ = held(abi.GUARD_RANGE // 8 + 2 * index + half, 64, low=12, locked=lock)
                m.d.comb += self.guard_ranges[index][field].eq(store[12:])
                guard_words.append(store)

        # The clock. Counting down, so that a tick is a compare with 0.
        left, last = Signal(32, init=_TICK - 1), Signal()
        changed = Signal()
        m.d.sync += [changed.eq(tick_selected), last.eq(left == 1)]
        with m.If(changed | last | (tick_now <= 1)):
            m.d.sync += [left.eq(Mux(tick_now == 0, 0, tick_now - 1)), last.eq(0)]
        with m.Else():
            m.d.sync += left.eq(left - 1)
        with m.If((last | (tick_now <= 1)) & ~changed):
            m.d.sync += self.now.eq(self.now + 1)

        m.submodules.station = station = Station(config)
        m.d.comb += [
            station.write.eq(write), station.here.eq(here), self.station.eq(station.address), self.mac.eq(station.mac),
            self.event_vector.eq(station.event_vector),
        ]

        # Behind a reset the tables are cleared first.
        rest = Signal(range(scrub_cycles(config)), init=scrub_cycles(config) - 1)
        with m.If(rest == 0):
            m.d.sync += self.awake.eq(1)
        with m.Else():
            m.d.sync += rest.eq(rest - 1)

        # Doorbells
        refuse = Signal()
        m.d.comb += refuse.eq(~write.mask.all() | ~self.awake)
        offset, context = Signal(9), Signal(len(page) + 1)
        kind = Signal(DoorbellKind)
        m.d.comb += [
            offset.eq(word), context.eq(page - abi.DOORBELL_PAGE // 4096), kind.eq(offset[:2]),
        ]
        m.d.sync += [
            self.doorbell.valid.eq(valid & (page >= abi.DOORBELL_PAGE // 4096) & (offset < 4)
                                   & (context < config.user_contexts)),
            self.doorbell.p.kind.eq(kind),
            self.doorbell.p.context.eq(context),
            self.doorbell.p.number.eq(write.data[:32] | refuse.replicate(32)),
            self.doorbell.p.value.eq(write.data[32:]),
        ]

        # Reads
        constant = capabilities(config)
        words = {}
        for name, value in constant.items():
            number, half = _word(name)
            words[number] = words.get(number, 0) | value << 32 * half
        address, result = Signal(MmioRead(config)), Signal(64)
        read_page, read_word = Signal(len(page)), Signal(9)
        m.d.comb += [read_page.eq(address.address[9:]), read_word.eq(address.address[:9]), self.pair.eq(read_word),
                     self.sample_word.eq(read_word)]
        with m.Switch(read_word):
            for number, value in words.items():
                with m.Case(number):
                    m.d.comb += result.eq(value)
            for number, value in ((tick_word, Cat(tick_now, self.now)), (_word("LEASE")[0], waits),
                                  (_word("ADMIN_SQ_LO")[0], admin_sq), (_word("ADMIN_CQ_LO")[0], admin_cq),
                                  (_word("ADMIN_LOG2")[0], admin_readback), (_word("EVENT_LO")[0], event_base),
                                  (_word("EVENT_LOG2")[0], event_readback), (lock_word, lock),
                                  (_word("FRAME_RX_LO")[0], frame_base), (_word("FRAME_RX_LOG2")[0], frame_readback),
                                  (_word("FRAME_RXC_LO")[0], frame_completions),
                                  (frame_control_word, Cat(frame_bits, buffer_log2)),
                                  *station.readback().items()):
                with m.Case(number):
                    m.d.comb += result.eq(value)
            for index, store in enumerate(guard_words):
                with m.Case(abi.GUARD_RANGE // 8 + index):
                    m.d.comb += result.eq(store)
        chosen = Signal(64)
        n_pairs = (len(abi.COUNTERS) + 1) // 2
        with m.FSM(name="read"):
            with m.State("IDLE"):                      # waits for a read
                m.d.comb += self.mmio_read.ready.eq(1)
                m.d.sync += address.eq(self.mmio_read.payload)
                with m.If(self.mmio_read.valid):
                    m.next = "LOOK"
            with m.State("LOOK"):                      # counters' memory is reading
                m.d.sync += chosen.eq(Mux(read_page == 0, result, 0))
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.sync += [
                    self.mmio_data.valid.eq(1),
                    self.mmio_data.payload.eq(
                        chosen | Mux((read_page == abi.COUNTER_PAGE // 4096) & (read_word < n_pairs), self.counters, 0)
                        | Mux(read_page == abi.SAMPLE_PAGE // 4096, self.sample, 0)),
                ]
                m.next = "LEAVE"
            with m.State("LEAVE"):                     # waits until the answer is taken
                with m.If(self.mmio_data.ready):
                    m.d.sync += self.mmio_data.valid.eq(0)
                    m.next = "IDLE"
        return m
