"""Two golden peers over a bad wire: every operation, memory equal, every work request completed exactly once."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from emplace_sim.peer import CUTS, MS, Faults, Opcode, QpSettings, TcpSettings
from emplace_sim.wire import Impairments, Rule, data_segment

from .peers import Pair, summary

SIZES = (0, 1, 3, 64, 1423, 1424, 1425, 1428, 1429, 4096, 20_000)
ARENA = 1 << 19


class Side:
    """One direction's requests: disjoint areas of the memories, and what they must hold in the end."""

    def __init__(self, pair, me, rng):
        self.pair, self.rng = pair, rng
        self.qp, self.other = pair.qps[me], pair.qps[1 - me]
        self.source = pair.region(me, rng.randbytes(ARENA))
        self.sink = pair.region(me, ARENA)
        self.target = pair.region(1 - me, ARENA)
        self.remote = pair.region(1 - me, rng.randbytes(ARENA))
        self.inbox = pair.region(1 - me, ARENA)
        self.counter = pair.region(1 - me, bytes(16), base=0x7F0000001000)
        self.used = Counter()
        self.due, self.received = [], []
        self.sink_image, self.target_image, self.inbox_image = (bytearray(ARENA) for _ in range(3))
        self.value, self.olds = 0, []

    def _place(self, area, size):
        """An address in ``area`` that nothing else uses, at any offset."""
        at = self.used[area] + self.rng.randrange(16)
        if at + size > ARENA - 16:
            return None
        self.used[area] = at + size
        return at

    def _elements(self, region, at, size):
        cuts = sorted(self.rng.randint(0, size) for _ in range(self.rng.choice((0, 0, 1, 3))))
        ends = [0, *cuts, size]
        return [region.sge(at + start, end - start) for start, end in pairwise(ends)]

    def post(self, wr_id):
        rng, size = self.rng, self.rng.choice(SIZES)
        kind = rng.choice(("write", "send", "send", "inv", "read", "imm", "add", "cas"))
        start = rng.randrange(ARENA - size)
        data = bytes(self.source.data[start:start + size])
        more = {"wr_id": wr_id, "fence": rng.random() < .1, "local_fence": rng.random() < .05, "signaled": rng.random() < .8}
        if kind in ("write", "imm"):
            to = self._place("target", size)
            if to is None:
                return
            self.target_image[to:to + size] = data
            opcode = Opcode.RDMA_WRITE if kind == "write" else Opcode.RDMA_WRITE_WITH_IMM
            octets = rng.randbytes(8)
            if kind == "imm":
                self._receive(wr_id, b"", immediate=octets)
            self.qp.post_send(opcode, self._elements(self.source, start, size), remote_addr=self.target.base + to,
                              rkey=self.target.rkey, immediate=octets, **more)
        elif kind in ("send", "inv"):
            if not self._receive(wr_id, data):
                return
            if kind == "inv":
                self.spare = self.pair.region(1 - self.pair.qps.index(self.qp), 16)
                self.qp.post_send(Opcode.SEND_WITH_INV, self._elements(self.source, start, size),
                                  invalidate_rkey=self.spare.rkey, solicited=True, **more)
            elif rng.random() < .3:
                self.qp.post_send("SEND", inline=data, **more)
            else:
                self.qp.post_send("SEND", self._elements(self.source, start, size), **more)
        elif kind == "read":
            at = self._place("sink", size)
            if at is None:
                return
            where = rng.randrange(ARENA - size)
            self.sink_image[at:at + size] = self.remote.data[where:where + size]
            self.qp.post_send("RDMA_READ", [self.sink.sge(at, size)], remote_addr=self.remote.base + where,
                              rkey=self.remote.rkey, **more)
        else:
            at = self._place("sink", 8)
            if at is None:
                return
            self.sink_image[at:at + 8] = self.value.to_bytes(8, "little")
            if kind == "add":
                step = rng.getrandbits(64)
                fields = {"compare_add": step}
                self.value = (self.value + step) % 2**64
            else:
                guess, new = rng.choice((self.value, rng.getrandbits(64))), rng.getrandbits(64)
                fields = {"compare_add": guess, "swap": new}
                self.value = new if guess == self.value else self.value
            self.qp.post_send(Opcode.ATOMIC_FETCH_AND_ADD if kind == "add" else Opcode.ATOMIC_CMP_AND_SWP,
                              [self.sink.sge(at, 8)], remote_addr=self.counter.base, rkey=self.counter.rkey, **fields, **more)
        if more["signaled"]:
            self.due.append(wr_id)

    def _receive(self, wr_id, data, immediate=None):
        at = self._place("inbox", len(data) + 20)
        if at is None:
            return False
        room = len(data) + self.rng.choice((0, 0, 20))
        self.inbox_image[at:at + len(data)] = data
        self.other.post_recv(self._elements(self.inbox, at, room), wr_id=wr_id)
        self.received.append((wr_id, "SUCCESS", len(data)))
        return True

    def check(self, completions):
        own = [c for c in completions if c.qp is self.qp and c.opcode is not Opcode.RECV]
        assert [c.wr_id for c in own] == self.due            # each once, in order
        got = [c for c in completions if c.qp is self.other and c.opcode is Opcode.RECV]
        assert summary(got) == self.received
        assert all(c.status.name == "SUCCESS" for c in completions)
        assert self.target.data == self.target_image and self.inbox.data == self.inbox_image
        assert self.sink.data == self.sink_image
        assert int.from_bytes(self.counter.data[:8], "little") == self.value and self.counter.data[8:] == bytes(8)


def soak(pair, count, seed):
    rng = random.Random(f"soak {seed}")
    sides = [Side(pair, me, rng) for me in (0, 1)]
    for n in range(count):
        for side in sides:
            side.post(n)
    found = []

    def collect(now):
        found.extend(pair.a.poll_cq() + pair.b.poll_cq())
    pair.run(lambda: all(qp.idle for qp in pair.qps), tick=collect)
    collect(0)
    assert not [e for e in (*pair.a.events, *pair.b.events) if e.kind != "established"]
    for side in sides:
        side.check(found)
    for qp in pair.qps:                                       # nothing is left over
        assert not qp.responder.rq and qp.responder.wr is None and not qp.tcp.rx.held and not qp.tcp.rx.stream
        assert qp.requester.owed == 0 and not qp.tcp.tx.data and qp.tcp.tx.una == qp.tcp.tx.end
    return sides


@pytest.mark.parametrize("loss", [0, .01, .05])
@pytest.mark.parametrize("sack", [False, True])
def test_all_operations(loss, sack):
    bad = Impairments(loss=loss, reorder=2 * loss, duplicate=loss, corrupt=loss, delay=20_000, jitter=5_000, rate=10**9)
    pair = Pair(bad, seed=f"{loss} {sack}", tcp=TcpSettings(sack=sack), check_fcs=sack)
    soak(pair, 200, loss)
    did = sum((wire.counts for wire in pair.wires), Counter())
    again = sum(qp.tcp.tx.counts["retransmitted"] for qp in pair.qps)
    if loss:
        assert did["lost"] and did["reordered"] and did["duplicated"] and did["corrupted"] and again >= did["lost"] // 4
        assert any(qp.tcp.tx.counts["fast_retransmits"] for qp in pair.qps)
    else:
        assert again == 0 and did["sent"] == did["delivered"]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("timestamps", [False, True])
def test_every_cut(cut, timestamps):
    bad = Impairments(loss=.02, reorder=.05, duplicate=.02, corrupt=.01, delay=20_000)
    tcp = TcpSettings(cut=cut, timestamps=timestamps, ecn=timestamps, rcv_wnd=20_000, rcv_wscale=0, snd_wscale=0)
    pair = Pair(bad, seed=cut, tcp=tcp, qp=QpSettings(crc=timestamps, ird=2, ord=2))
    soak(pair, 40, cut)


def test_from_the_handshake_on():
    bad = Impairments(loss=.05, reorder=.05, duplicate=.05, delay=20_000)
    pair = Pair(bad, seed=5, start=True, tcp=TcpSettings(rto_initial=20 * MS), settings=(QpSettings(rtr="write"), None))
    soak(pair, 30, 5)


def test_fpdus_larger_than_segments():
    """siw with GSO: an FPDU over many segments."""
    pair = Pair(Impairments(loss=.01, reorder=.02, delay=20_000), seed=6, tcp=TcpSettings(cut="stream"),
                qp=QpSettings(mulpdu=16_000))
    soak(pair, 20, 6)


def test_deterministic():
    def run():
        taps = []
        pair = Pair(Impairments(loss=.05, reorder=.05, corrupt=.05, delay=20_000), seed=7,
                    tap=lambda *what: taps.append(what), tcp=TcpSettings(cut="random"))
        soak(pair, 10, 7)
        return taps
    assert run() == run()


def test_spoiled_payload_is_found_by_the_crc_alone():
    """TCP's checksum was mended on the way: the stream ends, nothing of the FPDU is placed, each request completes once."""
    pair = Pair(seed=9, rules=([Rule("spoil", data_segment, nth=2)], ()))
    there, inbox = pair.region(1, 4000), pair.region(1, 64)
    for n in range(3):
        pair.qb.post_recv([inbox.sge()], wr_id=n)
    pair.qa.post_send("SEND", inline=b"first", wr_id=1, signaled=False)
    pair.qa.post_send("RDMA_WRITE", inline=b"\1" * 4000, remote_addr=there.base, rkey=there.rkey, wr_id=2)
    pair.qa.post_send("SEND", inline=b"last", wr_id=3)
    pair.run(lambda: pair.qa.tcp.done and pair.qb.tcp.done)
    assert pair.wires[0].counts["spoiled"] == 1 and there.data == bytes(4000)
    assert pair.events(1)[0] == ("terminate sent", 0x2002) and pair.events(0)[0] == ("terminate received", 0x2002)
    assert summary(pair.b.poll_cq()) == [(0, "SUCCESS", 5), (1, "WR_FLUSH_ERR", 0), (2, "WR_FLUSH_ERR", 0)]
    # TCP has acknowledged all of it: a completed Send says no more than that (RFC 5040 5.3).
    assert summary(pair.a.poll_cq()) == [(2, "SUCCESS", 4000), (3, "SUCCESS", 4)]


def test_a_read_too_many():
    """IRD + 1 Reads at once: the good ones are answered, then the stream ends."""
    pair = Pair(seed=10, qp=QpSettings(ird=2, ord=2), faults=(Faults(extra_reads=1), None), tcp=TcpSettings(cut="packed"))
    sink, source = pair.region(0, 300), pair.region(1, bytes(range(100)))
    for n in range(3):
        pair.qa.post_send("RDMA_READ", [sink.sge(100 * n, 100)], remote_addr=source.base, rkey=source.rkey, wr_id=n)
    pair.run(lambda: pair.qa.tcp.done and pair.qb.tcp.done)
    assert sink.data == bytes(range(100)) * 2 + bytes(100)
    assert summary(pair.a.poll_cq()) == [(0, "SUCCESS", 100), (1, "SUCCESS", 100), (2, "REM_OP_ERR", 0)]
    assert pair.events(1)[0] == ("terminate sent", 0x1202)


def test_a_mebibyte():
    pair = Pair(Impairments(loss=.01, delay=20_000, rate=10**10), seed=8, tcp=TcpSettings(cut="siw"))
    data = pair.random.randbytes(1 << 20)
    here, there, back = pair.region(0, data), pair.region(1, 1 << 20), pair.region(0, 1 << 20)
    pair.qa.post_send("RDMA_WRITE", [here.sge()], remote_addr=there.base, rkey=there.rkey, wr_id=1)
    pair.qa.post_send("RDMA_READ", [back.sge()], remote_addr=there.base, rkey=there.rkey, wr_id=2)
    pair.settle()
    assert there.data == back.data == data
    assert summary(pair.a.poll_cq()) == [(1, "SUCCESS", 1 << 20), (2, "SUCCESS", 1 << 20)]
