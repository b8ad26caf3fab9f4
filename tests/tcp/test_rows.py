"""The receive side's rules for an established connection, a test a row (docs/tcp.md has the table)."""

import pathlib
import random
from itertools import pairwise

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from tests.tcp.harness import CONFIG, Bench
from tests.tcp.test_layer import twin

from emplace import abi
from emplace.abi import HistoryKind
from emplace.control.records import TokenOp
from emplace_sim.tcp_model import Walk, ack_frame

F = abi.QpFlags
INDEX = {c.name: n for n, c in enumerate(abi.COUNTERS)}


def run(test, *, seed=1, stall=0.2, cycles=200_000, **bench):
    b = Bench(seed=seed, stall=stall, **bench)

    async def wrapped(ctx):
        await test(ctx, b)

    b.run(wrapped, cycles=cycles)
    return b


def read(frame):
    return Ether(frame)[TCP]


def sack_of(frame):
    edges = dict(o for o in read(frame).options if o[0] == "SAck").get("SAck", ())
    return list(zip(edges[::2], edges[1::2], strict=True))


def dropped(bench, name):
    """Notes of drops that ``name`` counted."""
    return [n for n in bench.notes if n[1] == HistoryKind.DROPPED and n[2] == INDEX[name]]


def test_row_acceptance():
    """RFC 9293 3.10.7.4: the four cases of length and window, at and beside each edge."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(1), rcv_wnd=1000)
        for at, length, answered in ((0, 0, 0), (999, 0, 0), (1000, 0, 1), (-1, 0, 1), (1000, 5, 1), (999, 1, 1), (-5, 5, 1),
                                     (-5, 6, 1)):
            before = len(b.acks)
            await t.send(ctx, at, length, content=bytes(length))
            assert len(b.acks) - before == answered, (at, length)
        await t.send(ctx, 0, 999)
        t = await twin(ctx, b, random.Random(1), 1, rcv_wnd=0)
        b.counters.clear()
        for at, length, answered in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (-1, 0, 1)):
            before = len(b.acks)
            await t.send(ctx, at, length, content=bytes(length))
            assert len(b.acks) - before == answered, (at, length)
        assert not b.taken[1] and b.slots_free(ctx) == CONFIG.slots

    run(test)


def test_row_header_prediction():
    """What takes the fast path, and each thing that keeps a segment off it."""
    async def test(ctx, b):
        rng = random.Random(2)
        t = await twin(ctx, b, rng, flags=F.TIMESTAMPS | F.SACK | F.ECN, snd_wnd=500)
        una = b.installed[0]["snd_nxt"]
        at = 0
        for fields, fast in (({}, 1), ({"psh": True}, 1), ({"marked": True}, 1), ({"urg": True}, 1), ({"window": 7}, 1),
                             ({"tsval": 501}, 1), ({"options": True}, 0), ({"ack": una - 1}, 0), ({}, 1)):
            before = b.counters["rx_fast_path"]
            await t.send(ctx, at, 10, **fields)
            assert b.counters["rx_fast_path"] - before == fast, fields
            at += 10
        for fields in ({"ack": una + 1}, {"tsval": None}, {"tsval": 500}, {"syn": True}, {"rst": True, "tsval": None}):
            assert len(t.model.taken) == at
            before = b.counters["rx_fast_path"]
            await t.send(ctx, at if "rst" not in fields else at + 1, 10, **fields)
            assert b.counters["rx_fast_path"] == before, fields
        for at in (10, -3):                      # not the next octet
            await t.send(ctx, len(t.model.taken) + at, 5)
        await t.send(ctx, len(t.model.taken), 5)             # something is held
        await t.send(ctx, len(t.model.taken), 5, fin=True)
        assert b.counters["rx_fast_path"] == 7

    run(test)


def test_row_old_duplicate():
    """An ACK at once, the whole segment dropped, its ACK and window fields not looked at."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(3), flags=F.TIMESTAMPS | F.SACK)
        snd = b.installed[0]["snd_nxt"]
        await t.send(ctx, 0, 100)
        await t.send(ctx, 0, 100, ack=snd - 5, window=1)
        await t.send(ctx, 40, 60)
        assert sack_of(b.acks[-1]) == [(1040, 1100)]
        assert (await b.upload(ctx))["snd_wnd"] != 8 and b.counters["rx_duplicate"] == 2
        assert len(dropped(b, "rx_duplicate")) == 2
        assert b.slots_free(ctx) == CONFIG.slots

    run(test)


def test_row_zero_window_takes_acks():
    """Where RCV.WND is 0, the ACK of a segment at RCV.NXT counts, its data doesn't; a RST is taken."""
    async def test(ctx, b):
        rng = random.Random(4)
        t = await twin(ctx, b, rng, rcv_wnd=0, snd_wscale=0)
        await t.send(ctx, 0, 0, window=11)
        assert (await b.upload(ctx))["snd_wnd"] == 11
        await t.send(ctx, 0, 20, window=12)
        assert (await b.upload(ctx))["snd_wnd"] == 12 and not b.taken[0]
        await t.send(ctx, 0, 0, fin=True)
        assert not b.ends
        await t.send(ctx, 1, 0, rst=True)
        assert not b.ends
        await t.send(ctx, 0, 0, rst=True)
        assert b.ends == [(0, "RESET", 0)]
        assert b.slots_free(ctx) == CONFIG.slots

    run(test)


def test_row_partial_overlap():
    """Trimmed at the left; nothing below RCV.NXT is walked again; the duplicate part is reported (RFC 2883 4.1.2)."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(5), flags=F.SACK)
        await t.send(ctx, 0, 100)
        for back in (1, 99, 100):
            at = len(t.model.taken)
            await t.send(ctx, at - back, back + 10)
            assert b.walks[-1] == (0, t.stream[at:at + 10])
            assert sack_of(b.acks[-1]) == [(1000 + at - back, 1000 + at)]

    run(test)


def test_row_out_of_order():
    """Held, an ACK at once for each, delivered in order; nothing is delivered out of order."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(6))
        for at in (30, 10, 20):
            await t.send(ctx, at, 10)
            assert b.walks == []
        assert len(b.acks) == 3 and [n[1] for n in b.notes].count(HistoryKind.HELD) == 3
        await t.send(ctx, 0, 10)
        assert [w for _, w in b.walks] == [t.stream[n:n + 10] for n in (0, 10, 20, 30)]

    run(test, delack=40)


def test_row_beyond_window():
    """Trimmed at the right: the rest is as if it hadn't come; with a FIN, the FIN goes first."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(7), rcv_wnd=100)
        await t.send(ctx, 0, 130)
        assert len(t.model.taken) == 100
        t = await twin(ctx, b, random.Random(7), 1, rcv_wnd=100)
        b.counters.clear()
        await t.send(ctx, 0, 100, fin=True)
        assert len(t.model.taken) == 100 and not b.ends
        t = await twin(ctx, b, random.Random(7), 2, rcv_wnd=100)
        b.counters.clear()
        await t.send(ctx, 0, 99, fin=True)
        assert b.ends == [(2, "FIN", 3)]

    run(test)


def test_row_ack_check():
    """RFC 5961 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.MAX, else a challenge ACK, and the segment is dropped."""
    async def test(ctx, b):
        rng = random.Random(8)
        t = await twin(ctx, b, rng, snd_wnd=300, snd_wscale=0, snd_nxt=100)
        at = 0
        for ack, name in ((100, None), (101, "rx_bad_ack"), (100 + 2**31 - 1, "rx_bad_ack"), (-200, None),
                          (-201, "rx_old_ack"), (101 - 2**31, "rx_old_ack")):
            for length in (0, 10):
                before = (len(b.acks), len(b.walks), len(dropped(b, name)) if name else 0)
                await t.send(ctx, at, length, ack=ack & 0xFFFFFFFF, window=0)
                taken = bool(length and not name)
                assert len(b.walks) - before[1] == taken
                assert len(b.acks) - before[0] == (bool(name) or taken)
                assert not name or len(dropped(b, name)) == before[2] + 1
                at += length * taken
        # A larger window widens what is acceptable, a smaller one later doesn't narrow it
        await t.send(ctx, at, 0, ack=100, window=1000)
        await t.send(ctx, at, 0, ack=100, window=5)
        await t.send(ctx, at, 0, ack=-900 & 0xFFFFFFFF)
        assert b.counters["rx_old_ack"] == 4
        await t.send(ctx, at, 0, ack=-901 & 0xFFFFFFFF)
        assert b.counters["rx_old_ack"] == 5 and b.counters["rx_bad_ack"] == 4
        assert b.slots_free(ctx) == CONFIG.slots

    run(test)


def test_row_window_update():
    """RFC 9293 3.10.7.4: from segments that are not older than the one it came from last; of any acceptable segment."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(9), snd_wnd=100, snd_wscale=2)

        async def window(at, length, value, expected, **more):
            await t.send(ctx, at, length, window=value, **more)
            assert (await b.upload(ctx))["snd_wnd"] == expected

        await window(0, 10, 50, 200)
        await window(10, 0, 60, 240)
        await window(30, 10, 70, 280)            # out of order
        await window(10, 10, 80, 280)            # sent before that one
        await window(20, 5, 90, 280)
        await window(25, 15, 100, 280)
        await window(40, 0, 110, 440)
        await window(40, 0, 0, 0)
        await window(40, 1, 1, 0, ack=b.installed[0]["snd_nxt"] - 1)      # its ACK is old

    run(test)


def test_row_rst():
    """RFC 5961 3.2, by SEQ: at RCV.NXT, in the window, at both of its ends, outside. PAWS is not for RST."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(10), rcv_wnd=1000)
        await t.send(ctx, 0, 50)
        for at, name, answered in ((51, "rx_rst_challenged", 1), (1049, "rx_rst_challenged", 1), (1050, "rx_rst_outside", 0),
                                   (49, "rx_rst_outside", 0), (2**31, "rx_rst_outside", 0)):
            before = b.counters[name], len(b.acks)
            await t.send(ctx, at, 0, content=b"", rst=True, tsval=None)
            assert (b.counters[name] - before[0], len(b.acks) - before[1]) == (1, answered), at
        assert not b.ends
        await t.send(ctx, 60, 10)                # something is held
        await t.send(ctx, 50, 9, rst=True, tsval=3, ack=5)
        assert b.ends == [(0, "RESET", 1)] and b.counters["rx_rst"] == 1
        assert [n[1] for n in b.notes][-1] == HistoryKind.RST
        before = len(b.acks)
        await t.send(ctx, 50, 10)                # nothing is taken any more, nor answered
        assert b.counters["rx_dead"] == 1 and len(b.acks) == before and len(b.walks) == 1

    run(test)


def test_row_syn():
    """RFC 5961 4.2: a challenge ACK wherever it lies, with timestamps or not; nothing of it is taken."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(11), rcv_wnd=1000)
        await t.send(ctx, 0, 50)
        for n, at in enumerate((0, 50, 51, 5000, 2**31)):
            await t.send(ctx, at, 7 * (n & 1), content=bytes(7 * (n & 1)), syn=True, tsval=[None, 3, 700][n % 3])
            assert read(b.acks[-1]).ack == 1050 and len(b.acks) == n + 2
        assert len(b.walks) == 1 and b.counters["rx_syn"] == 5 and b.slots_free(ctx) == CONFIG.slots
        await t.send(ctx, 50, 50)

    run(test)


def test_row_ack_throttling():
    """RFC 5961 7: ten at once, then one every 512 ticks, never more than ten saved; each connection has its own."""
    async def test(ctx, b):
        b.set_now(ctx, 1000 * 512 - 3)
        rng = random.Random(12)
        t, other = await twin(ctx, b, rng), await twin(ctx, b, rng, 3)

        async def flood(count, sent):
            before = len(b.acks), b.counters["tx_throttled"]
            for n in range(count):
                if n % 3 == 0:
                    await t.send(ctx, 9, 0, rst=True)
                elif n % 3 == 1:
                    await t.send(ctx, 9, 0, syn=True)
                else:
                    await t.send(ctx, 0, 0, ack=1)
            assert len(b.acks) - before[0] == sent and b.counters["tx_throttled"] - before[1] == count - sent

        await flood(13, 10)
        b.set_now(ctx, b.now + 3)
        await flood(2, 1)
        b.set_now(ctx, b.now + 511)
        await flood(2, 0)
        b.set_now(ctx, b.now + 1 + 512)
        await flood(4, 2)
        b.set_now(ctx, b.now + 100 * 512)
        await flood(12, 10)
        await t.send(ctx, 0, 30)                 # data is acknowledged all the same, and duplicates of it
        await t.send(ctx, 0, 30)
        await t.send(ctx, -1, 0, content=b"")    # but not what may answer an ACK of ours
        assert read(b.acks[-1]).ack == 1030 and b.counters["tx_throttled"] > 10
        b.counters.clear()
        before = len(b.acks)
        await other.send(ctx, 9, 0, syn=True)
        assert len(b.acks) == before + 1

    run(test)


@pytest.mark.parametrize("flags", [F(0), F.TIMESTAMPS | F.SACK])
def test_row_fin(flags):
    """Behind its data, alone, early, again: taken once, in order, acknowledged as one octet."""
    async def test(ctx, b):
        rng = random.Random(13)
        t = await twin(ctx, b, rng, flags=flags)
        await t.send(ctx, 0, 10)
        await t.send(ctx, 10, 10, fin=True)
        assert b.ends == [(0, "FIN", 2)] and read(b.acks[-1]).ack == 1021 and b.taken[0] == t.stream[:20]
        for at, length in ((10, 10), (20, 0)):   # again: an ACK, nothing else
            await t.send(ctx, at, length, fin=True)
            assert read(b.acks[-1]).ack == 1021 and len(b.ends) == 1
        assert (await b.upload(ctx))["rcv_nxt"] == 1021

        t = await twin(ctx, b, rng, 1, flags=flags)
        b.counters.clear()
        await t.send(ctx, 20, 10, fin=True)      # early, with data: both are kept
        await t.send(ctx, 10, 10)
        assert len(b.ends) == 1
        await t.send(ctx, 0, 10)
        assert b.ends[1:] == [(1, "FIN", len(b.walks))] and read(b.acks[-1]).ack == 1031 and b.taken[1] == t.stream[:30]

        t = await twin(ctx, b, rng, 2, flags=flags)
        b.counters.clear()
        await t.send(ctx, 30, 0, fin=True)       # early, alone; then a segment that ends where it is
        await t.send(ctx, 0, 30)
        assert b.ends[2:] == [(2, "FIN", len(b.walks))] and b.counters["rx_fin_early"] == 1 and b.counters["rx_fin"] == 1
        assert [n[1] for n in b.notes].count(HistoryKind.FIN) == 3
        assert b.slots_free(ctx) == CONFIG.slots

    run(test, delack=40)


def test_row_fin_behind_parked_octets():
    """What waits for a receive WQE goes before the FIN."""
    verdicts = [Walk(5, parked=True)]

    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(14))
        await t.send(ctx, 0, 20, fin=True)
        assert not b.ends and read(b.acks[-1]).ack == 1005
        await t.resume(ctx)
        assert b.ends == [(0, "FIN", 2)] and read(b.acks[-1]).ack == 1021 and b.taken[0] == t.stream[:20]

    run(test, policy=lambda qp, piece: verdicts.pop() if verdicts else Walk(len(piece)))


def test_row_data_after_fin():
    """Ignored and counted; ACKs go on counting, a RST still resets."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(15))
        await t.send(ctx, 0, 10, fin=True)
        for at, length, fin in ((11, 10, False), (11, 0, True), (5, 30, False), (40, 3, True)):
            await t.send(ctx, at, length, fin=fin)
        assert b.counters["rx_after_fin"] == 4 and len(dropped(b, "rx_after_fin")) == 4 and len(b.walks) == 1
        assert b.slots_free(ctx) == CONFIG.slots and len(b.ends) == 1
        await t.send(ctx, 11, 0, window=77)
        assert (await b.upload(ctx))["snd_wnd"] == 77 << 3
        await t.send(ctx, 11, 0, rst=True)
        assert [end[1] for end in b.ends] == ["FIN", "RESET"]

    run(test)


def test_row_urg():
    """Counted; the octets are data like others."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(16))
        await t.send(ctx, 0, 10, urg=True)
        await t.send(ctx, 20, 10, urg=True)
        await t.send(ctx, 10, 10)
        assert b.counters["rx_urgent"] == 2 and b.taken[0] == t.stream[:30]

    run(test)


def test_row_missing_timestamp():
    """Dropped silently where they were negotiated, with data or without, FIN or not; not looked for where not."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(17))
        for length, fin in ((10, False), (0, False), (0, True), (10, True)):
            await t.send(ctx, 0, length, tsval=None, fin=fin)
        assert b.counters["rx_no_timestamp"] == 4 and not b.walks and not b.ends and not b.acks
        t = await twin(ctx, b, random.Random(17), 1, flags=F(0))
        b.counters.clear()
        await t.send(ctx, 0, 10, tsval=77)
        assert len(b.walks) == 1

    run(test)


def test_row_ts_recent():
    """RFC 7323 4.3: only from segments at or below Last.ACK.sent that aren't older."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(18), ts_recent=100)
        for at, length, tsval, recent in ((0, 10, 101, 101), (10, 10, 110, 101), (40, 10, 120, 101), (20, 0, 130, 130),
                                          (20, 10, 125, 130), (20, 10, 130, 130), (30, 10, 135, 135)):
            await t.send(ctx, at, length, tsval=tsval)
            assert (await b.upload(ctx))["ts_recent"] == recent, (at, tsval)

    run(test, delack=40)


def test_row_paws():
    """RFC 7323 5.3: an old timestamp in the window is dropped with an ACK; modulo 2**32; but for 24 days of rest."""
    async def test(ctx, b):
        b.set_now(ctx, 2**32 - 70_000)
        t = await twin(ctx, b, random.Random(19), ts_recent=5)
        await t.send(ctx, 0, 10, tsval=4)
        await t.send(ctx, 0, 10, tsval=5 - 2**31 & 0xFFFFFFFF)
        await t.send(ctx, 10, 10, tsval=2**32 - 1, fin=True)
        assert b.counters["rx_paws"] == 3 and len(b.acks) == 3 and not b.walks and len(dropped(b, "rx_paws")) == 3
        b.set_now(ctx, b.now + 24 * 86_400_000 - 70_000)
        await t.send(ctx, 0, 10, tsval=4)
        assert not b.walks
        b.set_now(ctx, b.now + 70_000 + 2 * 65536)
        await t.send(ctx, 0, 10, tsval=4)
        assert len(b.walks) == 1 and (await b.upload(ctx))["ts_recent"] == 4
        assert b.slots_free(ctx) == CONFIG.slots

    run(test)


@pytest.mark.parametrize("scale", [0, 7, 14])
def test_row_window_scale(scale):
    """SND.WND is the field shifted; the field sent is RCV.WND shifted back, at most 65535; installed values are bytes."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(20), snd_wscale=scale, snd_wnd=0xFFFF, rcv_wnd=(1 << 30) - 1, rcv_wscale=scale)
        assert (await b.upload(ctx))["snd_wnd"] == 0xFFFF
        for n, field in enumerate((0xFFFF, 0, 1)):
            await t.send(ctx, n, 1, window=field)
            assert (await b.upload(ctx))["snd_wnd"] == field << scale
            assert read(b.acks[-1]).window == min((1 << 30) - 1 >> scale, 0xFFFF)

    run(test)


def test_row_receive_window():
    """The window is constant and not a multiple of its scale: rounded down, and its right edge never goes back."""
    async def test(ctx, b):
        rng = random.Random(21)
        t = await twin(ctx, b, rng, rcv_wnd=70_003, rcv_wscale=4)
        at = 0
        for n in range(12):
            length = rng.randint(1, 300)
            await t.send(ctx, at + (n % 3 == 1) * 10, length)
            at = len(t.model.taken)
        edges = [read(a).ack + (read(a).window << 4) for a in b.acks]
        assert len(edges) > 8 and all(y >= x for x, y in pairwise(edges))
        assert edges[-1] == 1000 + at + (70_003 >> 4 << 4)

    run(test)


def test_row_silly_window():
    """RFC 9293 3.8.6.2.2: the edge moves by what was taken; by a parked connection's whole rest at once, which is told
    at once."""
    verdicts = [Walk(0, parked=True)]

    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(22))
        await t.send(ctx, 0, 200)
        await t.send(ctx, 200, 200)
        assert not b.acks                        # nothing was taken: no window moves
        await t.resume(ctx)
        assert [read(a).ack for a in b.acks] == [1400]

    run(test, delack=40, policy=lambda qp, piece: verdicts.pop() if verdicts else Walk(len(piece)))


def test_row_delayed_ack():
    """RFC 1122 4.2.3.2: every second segment at once, the first when the delay is over, and not a tick before."""
    async def test(ctx, b):
        b.set_now(ctx, 2**32 - 20)               # the clock wraps meanwhile
        rng = random.Random(23)
        t, other = await twin(ctx, b, rng), await twin(ctx, b, rng, 2)
        said = {0: 0, 2: 0}

        def acks(qp):
            found = [read(a).ack for a in b.acks if read(a).sport == 4791 + qp]
            return found[said[qp]:], said.__setitem__(qp, len(found))

        async def put(which, at, length=10, **more):
            await b.segment(ctx, which.qp, 1000 + at, which.stream[at:at + length], tsval=500, **more)
            await b.settle(ctx)

        await put(t, 0)
        assert acks(0)[0] == []
        await put(t, 10)
        assert acks(0)[0] == [1020]
        await put(t, 20)
        b.set_now(ctx, b.now + 39)
        await put(other, 0)                      # another connection's delay begins later
        assert acks(0)[0] == []
        b.set_now(ctx, b.now + 1)
        await b.settle(ctx)
        assert acks(0)[0] == [1030] and acks(2)[0] == [] and b.counters["tx_delayed"] == 1
        b.set_now(ctx, b.now + 38)
        await b.settle(ctx)
        assert acks(2)[0] == []
        b.set_now(ctx, b.now + 5000)
        await b.settle(ctx, 200)
        assert acks(2)[0] == [1010] and acks(0)[0] == []       # once
        await put(t, 30, psh=True)
        assert acks(0)[0] == [1040]
        b.set_now(ctx, b.now + 5000)
        await put(t, 40)
        await put(t, 60)                         # out of order: at once, and it acknowledges the one before
        assert acks(0)[0] == [1050]
        await put(t, 50)                         # fills the gap
        assert acks(0)[0] == [1070]
        await put(t, 0)                          # old
        assert acks(0)[0] == [1070]
        await put(t, 70)
        await b.token(ctx, TokenOp.REMOVE, 0)
        b.set_now(ctx, b.now + 5000)
        await b.settle(ctx, 200)
        assert acks(0)[0] == [] and b.counters["tx_delayed"] == 2

    run(test, delack=40)


def test_row_delayed_ack_off():
    """DELACK 0: each segment at once."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(24))
        for n in range(5):
            await t.send(ctx, 10 * n, 10)
        assert len(b.acks) == 5

    run(test, delack=0)


@pytest.mark.parametrize("flags, most", [(F.SACK, 4), (F.SACK | F.TIMESTAMPS, 3), (F.SACK | F.VLAN, 4),
                                         (F.SACK | F.TIMESTAMPS | F.VLAN, 3)])
def test_row_sack(flags, most):
    """RFC 2018 4: the block of the latest segment first, then those reported last; 3 beside timestamps, else 4."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(25), flags=flags, start=2**32 - 150)

        def blocks(*at):
            return [((t.start + 10 * a) & 0xFFFFFFFF, (t.start + 10 * z) & 0xFFFFFFFF) for a, z in at]

        for at, expected in ((2, [(2, 3)]), (6, [(6, 7), (2, 3)]), (4, [(4, 5), (6, 7), (2, 3)]),
                             (3, [(2, 5), (6, 7)]),                    # joins two
                             (20, [(20, 21), (2, 5), (6, 7)]), (16, [(16, 17), (20, 21), (2, 5), (6, 7)])):
            await t.send(ctx, 10 * at, 10)
            assert sack_of(b.acks[-1]) == blocks(*expected)[:most]
        await t.send(ctx, 0, 20)                 # 2..5 goes
        assert sack_of(b.acks[-1]) == blocks((16, 17), (20, 21), (6, 7))
        await t.send(ctx, 50, 50)                # 6..7 goes, and what it held is a duplicate
        assert sack_of(b.acks[-1]) == blocks((16, 17), (20, 21))
        await t.send(ctx, 100, 110)
        assert sack_of(b.acks[-1]) == [] and b.taken[0] == t.stream[:210]
        assert b.counters["tx_sacks"] == 8 and b.slots_free(ctx) == CONFIG.slots

    run(test)


def test_row_sack_five_blocks():
    """Of more than four the one reported longest ago is forgotten."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(26), flags=F.SACK)
        for at in (20, 40, 60, 80, 100):
            await t.send(ctx, at, 10)
        assert sack_of(b.acks[-1]) == [(1100, 1110), (1080, 1090), (1060, 1070), (1040, 1050)]
        await t.send(ctx, 0, 30)
        assert sack_of(b.acks[-1])[0] == (1100, 1110) and len(sack_of(b.acks[-1])) == 4

    run(test)


def test_row_dsack():
    """RFC 2883: the duplicate first, once; of held octets too, with the block that they lie in behind it."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(27), flags=F.SACK | F.TIMESTAMPS)
        for at in (0, 20, 40, 60):
            await t.send(ctx, at, 10)
        await t.send(ctx, 20, 10)                # held already
        assert sack_of(b.acks[-1]) == [(1020, 1030), (1060, 1070), (1040, 1050)]
        await t.send(ctx, 2, 5)                  # consumed already
        assert sack_of(b.acks[-1]) == [(1002, 1007), (1060, 1070), (1040, 1050)]
        await t.send(ctx, 80, 10)
        assert sack_of(b.acks[-1]) == [(1080, 1090), (1060, 1070), (1040, 1050)]
        assert b.counters["tx_dsacks"] == 2

    run(test)


def test_row_sack_not_agreed():
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(27))
        for at in (0, 20, 20, 0):
            await t.send(ctx, at, 10)
            assert sack_of(b.acks[-1]) == []

    run(test)


def test_row_sack_says_nothing_that_is_gone():
    """Held octets that are thrown away, or refused by the walk, are in no block any more (RFC 2018 8)."""
    verdicts = []

    async def test(ctx, b):
        rng = random.Random(28)
        t, other = await twin(ctx, b, rng, flags=F.SACK), await twin(ctx, b, rng, 1)
        for at in (10, 30):
            await t.send(ctx, at, 10)
        verdicts.extend([Walk(4), Walk(10)])     # of what is held, only 4 octets are taken
        await t.send(ctx, 0, 10)
        assert read(b.acks[-1]).ack == 1014 and sack_of(b.acks[-1]) == [] and b.counters["rx_refused"] == 1
        await t.send(ctx, 50, 10)
        assert sack_of(b.acks[-1]) == [(1050, 1060)]
        b.policy = lambda qp, piece: Walk(len(piece), kept=True)
        for n in range(7):                       # pressure: the list's last goes
            await b.segment(ctx, 1, 1000 + 5 * n, other.stream[5 * n:5 * n + 5], tsval=600)
            await b.settle(ctx, 100)
        await b.segment(ctx, 0, 1014, b"", tsval=None)
        await b.segment(ctx, 0, 1010, t.stream[10:12])
        await b.settle(ctx)
        assert sack_of(b.acks[-1]) == [(1010, 1012)]         # the duplicate alone

    run(test, keep=(10**6, 10**6), policy=lambda qp, piece: verdicts.pop() if verdicts else Walk(len(piece)))


def test_row_ecn():
    """RFC 3168 6.1.3: CE, then ECE on all ACKs until CWR; a segment with both leaves it on."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(29), flags=F.ECN | F.TIMESTAMPS)
        for n, (marked, cwr, ece) in enumerate(((0, 0, 0), (1, 0, 1), (0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 0, 0), (1, 1, 1),
                                                (1, 1, 1), (0, 1, 0))):
            await t.send(ctx, 10 * n, 10, marked=bool(marked), cwr=bool(cwr))
            assert ("E" in read(b.acks[-1]).flags) == bool(ece), n
        await t.send(ctx, 90, 0, content=b"", marked=True)   # a pure ACK says nothing of congestion
        await t.send(ctx, 90, 10)
        assert "E" not in read(b.acks[-1]).flags and b.counters["rx_ce"] == 3
        t = await twin(ctx, b, random.Random(29), 1)         # not negotiated
        b.counters.clear()
        await t.send(ctx, 0, 10, marked=True)
        assert "E" not in read(b.acks[-1]).flags

    run(test)


def test_row_ecn_change_is_told_at_once():
    """The first marked segment isn't acknowledged late."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(30), flags=F.ECN)
        for at, marked, answered in ((0, False, 0), (10, False, 1), (20, True, 1), (30, True, 0), (40, False, 1)):
            before = len(b.acks)
            await t.send(ctx, at, 10, marked=marked)
            assert len(b.acks) - before == answered, at

    run(test, delack=40)


def test_row_malformed_window_of_parked_connection():
    """A parked connection answers what is old or unacceptable, not what it holds."""
    verdicts = [Walk(0, parked=True)]

    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(31), flags=F.SACK)
        for at, answered in ((0, 0), (10, 0), (30, 0), (-5, 1)):
            before = len(b.acks)
            await t.send(ctx, at, 10 if at >= 0 else 5, content=bytes(10 if at >= 0 else 5))
            assert len(b.acks) - before == answered
        await t.resume(ctx)
        assert len(b.taken[0]) == 20

    run(test, policy=lambda qp, piece: verdicts.pop() if verdicts else Walk(len(piece)))


# Directed cases

def test_case_47_paws():
    """Old TSval in the window: dropped, ACK; TS.Recent of 24 days ago: accepted; RST without TS: taken; data: dropped."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(47), ts_recent=1000)
        await t.send(ctx, 0, 10, tsval=999)
        assert b.counters["rx_paws"] == 1 and len(b.acks) == 1
        await t.send(ctx, 0, 10, tsval=None)
        assert b.counters["rx_no_timestamp"] == 1 and len(b.acks) == 1
        b.set_now(ctx, 25 * 86_400_000)
        await t.send(ctx, 0, 10, tsval=999)
        assert len(b.walks) == 1
        await t.send(ctx, 10, 0, tsval=None, rst=True)
        assert b.ends == [(0, "RESET", 1)]

    run(test)


def test_case_48_delayed_ack_echo():
    """Two segments, one ACK: TSecr is the first one's TSval."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(48))
        await t.send(ctx, 0, 10, tsval=701)
        await t.send(ctx, 10, 10, tsval=702)
        assert [dict(o for o in read(a).options if o[0] == "Timestamp")["Timestamp"][1] for a in b.acks] == [701]
        await t.send(ctx, 20, 10, tsval=703)
        await t.send(ctx, 30, 10, tsval=704)
        assert dict(read(b.acks[-1]).options)["Timestamp"][1] == 703

    run(test, delack=40)


def test_case_49_rst_and_syn():
    """RST at RCV.NXT + 1: challenge; outside: silence; SYN: challenge; a flood of them: throttled; at RCV.NXT: the end."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(49), rcv_wnd=500)
        await t.send(ctx, 1, 0, rst=True, tsval=None)
        assert [read(a).ack for a in b.acks] == [1000]
        await t.send(ctx, 500, 0, rst=True)
        await t.send(ctx, -1, 0, content=b"", rst=True)
        assert len(b.acks) == 1
        await t.send(ctx, 100, 0, syn=True)
        assert len(b.acks) == 2
        for n in range(20):
            await t.send(ctx, 1 + n, 0, rst=n % 2 == 0, syn=n % 2 == 1)
        assert len(b.acks) == 10 and b.counters["tx_throttled"] == 12 and not b.ends
        await t.send(ctx, 0, 20)                 # it is none the worse
        assert b.taken[0] == t.stream[:20]
        await t.send(ctx, 20, 0, rst=True)
        assert b.ends == [(0, "RESET", 1)]

    run(test)


def test_case_50_unacceptable_acks():
    """Above SND.MAX; below SND.UNA - MAX.SND.WND; between: only that is taken. (No RTO rewinds what is compared with.)"""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(50), snd_nxt=5000, snd_wnd=1000, snd_wscale=0)
        for n, ack in enumerate((5001, 3999, 4000, 5000)):
            await t.send(ctx, 0, 0, ack=ack, window=n)
            assert len(b.acks) == min(n + 1, 2) and b.counters["tx_challenges"] == len(b.acks)
        assert (await b.upload(ctx))["snd_wnd"] == 3         # of the one that acknowledges no less than SND.UNA

    run(test)


def test_case_51_fin():
    """With data; early; again: data first. (Whether it falls within an FPDU is mpa's to say.)"""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(51), flags=F.SACK)
        await t.send(ctx, 100, 50, fin=True)
        assert sack_of(b.acks[-1]) == [(1100, 1150)] and not b.ends
        await t.send(ctx, 100, 50, fin=True)     # again, still early
        await t.send(ctx, 0, 100)
        assert b.taken[0] == t.stream[:150] and b.ends == [(0, "FIN", 2)] and read(b.acks[-1]).ack == 1151
        await t.send(ctx, 100, 50, fin=True)
        assert read(b.acks[-1]).ack == 1151 and len(b.ends) == 1

    run(test)


def test_case_53_ecn():
    """CE on one segment: ECE until CWR. DCTCP, CE toggling: each change acknowledges what came before as it was
    marked, and the segment itself as it is."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(53), flags=F.ECN)
        for n, marked in enumerate((0, 1, 0, 0)):
            await t.send(ctx, 10 * n, 10, marked=bool(marked), psh=True)
        await t.send(ctx, 40, 10, cwr=True, psh=True)
        assert ["E" in read(a).flags for a in b.acks] == [False, True, True, True, False]

        t = await twin(ctx, b, random.Random(53), 1, flags=F.ECN | F.DCTCP)
        b.counters.clear()
        b.acks.clear()
        for n in range(6):
            await t.send(ctx, 10 * n, 10, marked=n % 2 == 1)
        assert [(read(a).ack, "E" in read(a).flags) for a in b.acks] == [
            (1010, False), (1020, True), (1030, False), (1040, True), (1050, False), (1060, True)]
        await t.send(ctx, 60, 10, marked=True)   # late
        await t.send(ctx, 70, 10, marked=True)
        await t.send(ctx, 80, 10, marked=True)   # late
        await t.send(ctx, 90, 10)
        assert [(read(a).ack, "E" in read(a).flags) for a in b.acks[6:]] == [
            (1080, True), (1090, True), (1100, False)]

    run(test, delack=40, stall=0)


def test_case_54_window_scale():
    """Scale 14, window fields 0xffff and 0; the installed value is in bytes and is not shifted again."""
    async def test(ctx, b):
        t = await twin(ctx, b, random.Random(54), snd_wscale=14, snd_wnd=0x1234)
        assert (await b.upload(ctx))["snd_wnd"] == 0x1234
        await t.send(ctx, 0, 0, window=0xFFFF)
        assert (await b.upload(ctx))["snd_wnd"] == 0xFFFF << 14
        await t.send(ctx, 0, 0, window=0)
        assert (await b.upload(ctx))["snd_wnd"] == 0

    run(test)


# Mixes

@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_mix(seed):
    """Everything at random, in lock step with the model: flags, marks, timestamps, ACKs, overlaps, parking, the clock."""
    print(f"seed {seed}")
    rng = random.Random(100 + seed)
    flags = [F.TIMESTAMPS | F.SACK | F.ECN, F.SACK | F.ECN | F.DCTCP | F.VLAN, F.TIMESTAMPS | F.VLAN | F.SACK, F.SACK][seed]

    def policy(qp, piece):
        kind = rng.random()
        if kind < 0.75:
            return Walk(len(piece))
        if kind < 0.85:
            return Walk(len(piece), kept=True)
        if kind < 0.92:
            return Walk(rng.randrange(len(piece)))
        return Walk(rng.randrange(len(piece)), parked=True)

    async def test(ctx, b):
        for life in range(6):
            b.counters.clear()
            b.taken[life % 4].clear()
            b.ends.clear()
            t = await twin(ctx, b, rng, life % 4, flags=flags, start=2**32 - rng.randrange(1500), rcv_wnd=3000, snd_wnd=2000,
                           snd_wscale=1, snd_nxt=rng.getrandbits(32))
            for _ in range(35):
                m = t.model
                if rng.random() < 0.2:
                    b.set_now(ctx, b.now + rng.choice([1, 39, 512, 5120]))
                    # A late ACK may be due now
                    before = len(b.acks)
                    await b.settle(ctx)
                    assert len(b.acks) - before <= 1
                    if len(b.acks) > before:
                        m.acks.clear()
                        m.timer()
                        a = m.acks[0]
                        assert b.acks[-1] == ack_frame(b.installed[t.qp], rcv_nxt=a.rcv_nxt, ts_recent=a.ts_recent, ece=a.ece,
                                                       blocks=a.blocks, now=b.now, vlan=bool(flags & F.VLAN),
                                                       timestamps=m.timestamps)
                if m.parked and (rng.random() < 0.4 or len(m.held) > 3):
                    await t.resume(ctx)
                    continue
                base = (m.rcv_nxt - t.start) & 0xFFFFFFFF
                near = rng.choice([0, 0, 0, -5, rng.randrange(-300, 0), rng.randrange(0, 300), rng.randrange(3300)])
                if len(m.held) > 3:
                    near = min(near, 0)
                fields = {"psh": rng.random() < 0.2, "urg": rng.random() < 0.1, "cwr": rng.random() < 0.2,
                          "marked": rng.random() < 0.4, "options": rng.random() < 0.1, "window": rng.randrange(3000)}
                if rng.random() < 0.08:
                    fields[rng.choice(["syn", "rst"])] = True
                    near = near or rng.choice([0, 3])
                if rng.random() < 0.06:
                    fields["fin"] = True
                if rng.random() < 0.3:
                    step = rng.choice([-2000, -2001, -7, 0, 1, 2**31 - 1])
                    fields["ack"] = (b.installed[t.qp]["snd_nxt"] + step) & 0xFFFFFFFF
                if m.timestamps and rng.random() < 0.4:
                    fields["tsval"] = rng.choice([None, (m.ts_recent + rng.choice([-1, 0, 1, 5])) & 0xFFFFFFFF])
                if base + near < 0:
                    near = 0
                await t.send(ctx, base + near, rng.choice([0, 0, 1, 7, 64, 300]), **fields)
                if m.failed:
                    break
            assert m.taken == t.stream[:len(m.taken)]
            await b.token(ctx, TokenOp.KILL, t.qp)
            await b.token(ctx, TokenOp.REMOVE, t.qp)
            await b.settle(ctx, 200)
            assert b.slots_free(ctx) == CONFIG.slots

    b = run(test, seed=seed, stall=[0, 0.3, 0.5, 0.1][seed], policy=policy, delack=40 * (seed % 2 == 0), cycles=900_000)
    assert len(b.notes) > 50


def test_every_counter_of_the_layer_has_a_row():
    """Nothing is counted that no test here, beside or on the whole card calls for."""
    tests = pathlib.Path(__file__).parents[1]
    text = "".join(path.read_text() for path in (tests / "tcp").glob("*.py"))
    text += (tests / "system" / "cocotb_send.py").read_text()
    text += (tests.parent / "sim" / "emplace_sim" / "tcp_model.py").read_text()
    # As the engine's own bench calls it.
    other = {"tx_probes": "b.probes"}
    missing = [c.name for c in abi.COUNTERS if c.layer == "tcp" and c.name.startswith(("rx_", "tx_"))
               and other.get(c.name, c.name) not in text]
    assert not missing
