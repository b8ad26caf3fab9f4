"""Pause frames: obeyed, never handed up, sent at a watermark (IEEE Std 802.3 annex 31B)."""

import gc
import random
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from emplace.config import NicConfig
from emplace.mac.layer import Mac
from emplace.mac.watermark import Watermark
from emplace_sim import words
from emplace_sim.frames import from_gmii, from_xgmii, gmii, pause_frame, with_fcs, xgmii

OWN, PEER = bytes.fromhex("525400000001"), bytes.fromhex("020000000099")
#: Cycles of 512 bit times where every cycle moves the wire on.
QUANTUM = {"xgmii": 8, "gmii": 64}
IDLE = {"xgmii": (0x0707070707070707, 0xFF), "gmii": (0, 0, 0)}
NAMES = ("rx_frames", "rx_pause", "rx_control", "tx_pause", "tx_frames", "rx_fcs_errors")


class Wire:
    """A MAC whose line runs all the time: ``put`` a frame with FCS; ``frames()`` are those it has sent."""

    def __init__(self, phy, *, rx_pause=1, tx_pause=0, quanta=0):
        self.phy, self.dut = phy, Mac(NicConfig(phy=phy))
        self.settings = {"rx_pause": rx_pause, "tx_pause": tx_pause, "quanta": quanta,
                         "address": int.from_bytes(OWN, "big")}
        self.queue, self.sent, self.got, self.counts = [], [], [], dict.fromkeys(NAMES, 0)
        self.cycle = 0

    def put(self, frame):
        self.queue += list(xgmii([(12, frame)])) if self.phy == "xgmii" else list(gmii([(12, frame)]))

    def frames(self):
        found = from_xgmii(self.sent) if self.phy == "xgmii" else from_gmii(self.sent)
        scale = 8 if self.phy == "xgmii" else 1
        return [(frame, start // scale) for frame, _, start, _ in found]

    async def _line(self, ctx):
        dut, packet = self.dut, []
        for name, value in self.settings.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.rx.ready, 1)
        if self.phy == "gmii":
            ctx.set(dut.gmii_rx_enable, 1)
            ctx.set(dut.gmii_tx_enable, 1)
        names = ("d", "c") if self.phy == "xgmii" else ("d", "dv", "er")
        rx, tx = (getattr(dut, f"{self.phy}_{way}") for way in ("rx", "tx"))
        while True:
            for name, value in zip(names, self.queue.pop(0) if self.queue else IDLE[self.phy]):
                ctx.set(getattr(rx, name), value)
            self.sent.append(tuple(ctx.get(getattr(tx, name)) for name in names))
            if ctx.get(dut.rx.valid):
                payload = ctx.get(dut.rx.payload)
                packet.append({name: int(payload[name]) for name in ("data", "empty", "last", "err")})
                if payload.last:
                    self.got.append(words.join(packet, 8))
                    packet.clear()
            strobes = ctx.get(dut.count)
            for name in NAMES:
                self.counts[name] += strobes[name]
            self.cycle += 1
            await ctx.tick()

    async def idle(self, ctx):
        while self.queue:
            await ctx.tick()
        await self.wait(ctx, 10)

    async def wait(self, ctx, cycles):
        for _ in range(cycles):
            await ctx.tick()

    async def client(self, ctx):
        """Sends small frames, one after the other."""
        n = 0
        while True:
            for word in words.split(b"client" + n.to_bytes(2, "big") + bytes(52), 8):
                ctx.set(self.dut.tx.payload, word)
                ctx.set(self.dut.tx.valid, 1)
                taken = False
                while not taken:
                    _, _, taken = await ctx.tick().sample(self.dut.tx.ready)
            ctx.set(self.dut.tx.valid, 0)
            n += 1

    def run(self, user, *, client=False):
        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        sim.add_testbench(user)
        sim.add_testbench(self._line, background=True)
        if client:
            sim.add_testbench(self.client, background=True)
        sim.run()
        while self.sent[-1] != IDLE[self.phy]:     # a frame that the end of the run has cut
            self.sent.pop()


def longest_gap(wire):
    starts = [start for _, start in wire.frames()]
    gaps = [b - a for a, b in pairwise(starts)]
    return max(gaps), sorted(gaps)[len(gaps) // 2]


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
@pytest.mark.parametrize("destination", [b"\x01\x80\xc2\0\0\1", OWN])
def test_obeyed_at_a_frame_boundary(phy, destination):
    wire, quanta = Wire(phy), 20

    async def user(ctx):
        await wire.wait(ctx, 300)
        wire.put(with_fcs(pause_frame(quanta, PEER, destination=destination)))
        await wire.idle(ctx)
        await wire.wait(ctx, quanta * QUANTUM[phy] + 600)

    wire.run(user, client=True)
    longest, usual = longest_gap(wire)
    # It stops between frames, so what was under way takes up to one frame of the pause.
    assert quanta * QUANTUM[phy] <= longest <= quanta * QUANTUM[phy] + 2 * usual
    assert all(frame.startswith(b"client") and with_fcs(frame[:-4]) == frame for frame, _ in wire.frames())
    assert wire.counts["rx_pause"] == 1 and wire.got == [(pause_frame(quanta, PEER, destination=destination), True)]


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
def test_a_new_one_replaces_and_zero_resumes(phy):
    wire, quantum = Wire(phy), QUANTUM[phy]
    marks = []

    async def user(ctx):
        for quanta, then in ((0xFFFF, 20), (10, 30), (0xFFFF, 20), (0, 30)):
            wire.put(with_fcs(pause_frame(quanta, PEER)))
            await wire.idle(ctx)
            marks.append(wire.cycle)
            await wire.wait(ctx, then * quantum)

    wire.run(user, client=True)
    starts = [start for _, start in wire.frames()]

    def between(first, last):
        return [s for s in starts if first < s < last]
    slack = 2 * quantum + 20
    assert not between(marks[0] + slack, marks[1] + 9 * quantum - slack)
    assert between(marks[1] + 10 * quantum, marks[1] + 12 * quantum + slack)
    assert not between(marks[2] + slack, marks[3] - slack)
    assert between(marks[3], marks[3] + slack)
    assert wire.counts["rx_pause"] == 4


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
def test_what_is_not_obeyed(phy):
    """Other opcodes, other stations, broken ones; and all of them without RX_PAUSE. None is handed up."""
    other = bytes.fromhex("525400000002")
    bad = bytearray(with_fcs(pause_frame(0xFFFF, PEER)))
    bad[20] ^= 1
    frames = [with_fcs(pause_frame(0xFFFF, PEER, opcode=2)), with_fcs(pause_frame(0xFFFF, PEER, opcode=0x100)),
              with_fcs(pause_frame(0xFFFF, PEER, destination=other)),
              with_fcs(pause_frame(0xFFFF, PEER, destination=b"\xff" * 6)), bytes(bad)]
    plain = with_fcs(OWN + PEER + b"\x08\x09\0\1\xff\xff" + bytes(60))
    for rx_pause in (1, 0):
        wire = Wire(phy, rx_pause=rx_pause)

        async def user(ctx, wire=wire, rx_pause=rx_pause):
            for frame in [*frames, plain] if rx_pause else [with_fcs(pause_frame(0xFFFF, PEER)), plain]:
                wire.put(frame)
            await wire.idle(ctx)
            await wire.wait(ctx, 400)

        wire.run(user, client=True)
        longest, usual = longest_gap(wire)
        assert longest <= usual + 1
        assert [err for _, err in wire.got] == [True] * (len(wire.got) - 1) + [False] and wire.got[-1][0] == plain[:-4]
        assert (wire.counts["rx_pause"], wire.counts["rx_control"], wire.counts["rx_fcs_errors"]) == \
            ((0, 4, 1) if rx_pause else (1, 0, 0))


@pytest.mark.parametrize("phy", ["xgmii", "gmii"])
@pytest.mark.parametrize("client", [False, True])
def test_sent_while_asked_for(phy, client):
    """At once, again each time half of it has passed, and 0 at the end; between whole frames; also while paused."""
    quantum, quanta = QUANTUM[phy], 12
    wire = Wire(phy, tx_pause=1, quanta=quanta)
    marks = []

    async def user(ctx):
        await wire.wait(ctx, 200)
        wire.put(with_fcs(pause_frame(0xFFFF, PEER)))            # our own frames stop, PAUSE does not
        await wire.idle(ctx)
        await wire.wait(ctx, 2 * quantum)
        for _ in range(2):
            marks.append(wire.cycle)
            ctx.set(wire.dut.pause_request, 1)
            await wire.wait(ctx, 40 * quantum)
            marks.append(wire.cycle)
            ctx.set(wire.dut.pause_request, 0)
            await wire.wait(ctx, 20 * quantum)

    wire.run(user, client=client)
    pauses = [(frame, start) for frame, start in wire.frames() if not frame.startswith(b"client")]
    stop, go = with_fcs(pause_frame(quanta, OWN)), with_fcs(pause_frame(0, OWN))
    for on, off in ((marks[0], marks[1]), (marks[2], marks[3])):
        mine = [(frame, start) for frame, start in pauses if on <= start < off + 20 * quantum]
        stops = [start for frame, start in mine if frame == stop]
        assert [frame for frame, _ in mine] == [stop] * len(stops) + [go]
        assert stops[0] - on < 2 * quantum and mine[-1][1] - off < 3 * quantum
        gaps = [b - a for a, b in pairwise(stops)]
        assert gaps and all(quanta * quantum // 2 <= gap < quanta * quantum - quantum for gap in gaps)
    assert wire.counts["tx_pause"] == len(pauses)
    assert all(with_fcs(frame[:-4]) == frame for frame, _ in wire.frames())


@pytest.mark.parametrize("settings", [{"tx_pause": 0, "quanta": 9}, {"tx_pause": 1, "quanta": 0}])
def test_none_is_sent_unless_enabled(settings):
    wire = Wire("xgmii", **settings)

    async def user(ctx):
        ctx.set(wire.dut.pause_request, 1)
        await wire.wait(ctx, 500)

    wire.run(user)
    assert not wire.frames() and wire.counts["tx_pause"] == 0


def test_watermark():
    dut = Watermark(20, 5, 10, patience=64)
    rng = random.Random(5)
    seen = []

    async def user(ctx):
        async def at(free, cycles=4):
            ctx.set(dut.free, free)
            for _ in range(cycles):
                await ctx.tick()
                seen.append(ctx.get(dut.request))
            return ctx.get(dut.request)

        assert not await at(20) and not await at(6)
        assert await at(5) and await at(9) and await at(0)       # hysteresis
        assert not await at(10) and not await at(6)
        assert await at(2, 60)
        assert not await at(2, 20)                               # in vain for so long: give up
        assert not await at(9) and not await at(0)
        assert not await at(10)
        assert await at(5)                                       # roomy once: it may ask again
        for _ in range(300):
            await at(rng.randrange(21), rng.randrange(1, 9))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(user)
    sim.run()
    assert 0 < sum(seen) < len(seen)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_watermarks_must_make_sense():
    for marks in ((-1, 5), (5, 5), (6, 5), (5, 21)):
        with pytest.raises(ValueError, match="Watermarks must be"):
            Watermark(20, *marks)
    with pytest.raises(ValueError, match="Patience must be"):
        Watermark(20, 1, 2, patience=3)
    gc.collect()                                   # what was not made is thrown away here, not in another test
