"""Legal traffic on several QPs, with random stalls and latencies, against the golden model."""

import random

import pytest

from emplace_sim.rdmap_model import (
    READ_RESPONSE,
    SEND,
    SEND_INVALIDATE,
    SEND_SE,
    SEND_SE_INVALIDATE,
    WRITE,
    read_request,
    tagged,
    untagged,
)

from .harness import BASE, Bench, region


class Sender:
    """Makes legal messages of one QP, cut into segments."""

    def __init__(self, bench, slot, rng, stags, victims):
        self.bench, self.slot, self.rng, self.stags, self.victims = bench, slot, rng, stags, victims
        self.msn, self.read_msn, self.wqe = 1, 1, rng.getrandbits(16)
        self.queue = []                  # of segments: functions of the bench

    def pieces(self, payload):
        at = 0
        while True:
            size = self.rng.choice((len(payload) - at, self.rng.randrange(1, 60)))
            size = min(size, len(payload) - at)
            at += size
            # Some messages end with an empty segment.
            last = at == len(payload) and (size == 0 or self.rng.random() < 0.8)
            yield payload[at - size:at], at - size, last
            if last:
                return

    def message(self):
        rng, bench, slot = self.rng, self.bench, self.slot
        payload = rng.randbytes(rng.choice((0, 1, 7, 64, rng.randrange(300))))
        kind = rng.choice(("write", "write", "send", "send", "read", "response"))
        if kind == "write":
            stag, to = rng.choice(self.stags), BASE + rng.randrange(0x3000)
            self.queue += [lambda p=p, at=at, last=last: bench.ulpdu(tagged(WRITE, stag, to + at, p, last=last), slot)
                           for p, at, last in self.pieces(payload)]
        elif kind == "read":
            fpdu = read_request(self.read_msn)
            self.read_msn += 1
            self.queue.append(lambda: bench.ulpdu(fpdu, slot))
        elif kind == "response":
            stag, to, wr = rng.choice(self.stags), BASE + rng.randrange(0x3000), rng.getrandbits(16)
            bench.expect_read(slot, stag, to, len(payload), wr, wait=False)
            self.queue += [lambda p=p, at=at, last=last: bench.ulpdu(
                tagged(READ_RESPONSE, stag, to + at, p, last=last), slot) for p, at, last in self.pieces(payload)]
        else:
            opcode = rng.choice((SEND, SEND, SEND_SE, SEND_INVALIDATE, SEND_SE_INVALIDATE))
            invalidate = 0
            if opcode in (SEND_INVALIDATE, SEND_SE_INVALIDATE):
                invalidate = rng.choice(self.victims)      # may be invalid already: legal
            sges, room = [], len(payload) + rng.randrange(20)
            for n in range(4):
                size = room if n == 3 else rng.choice((0, rng.randrange(room + 1)))
                size = min(size, room)
                sges.append((BASE + rng.randrange(0x3000), size, rng.choice(self.stags) if size else 0xDEAD))
                room -= size
            bench.post(slot, self.wqe, *sges)
            self.wqe = (self.wqe + 1) & 0xFFFF
            msn, self.msn = self.msn, self.msn + 1
            self.queue += [lambda p=p, at=at, last=last: bench.ulpdu(
                untagged(opcode, msn, p, mo=at, last=last, stag=invalidate), slot, claimed=at == 0 and rng.random() < 0.9)
                for p, at, last in self.pieces(payload)]


@pytest.mark.parametrize("stall, seed", [(0.0, 1), (0.0, 2), (0.3, 3), (0.6, 4)])
def test_legal_messages_on_several_qps(stall, seed):
    rng = random.Random(seed)
    regions, victims = [], []
    for slot in range(4):
        regions += [region(0x1000 * (slot + 1) + n, pd=10 + slot, page=256) for n in range(3)]
        victims += [region(0x1000 * (slot + 1) + 0x100 + n, pd=10 + slot) for n in range(2)]
    bench = Bench(regions + victims, stall=stall, seed=seed, grant_latency=rng.choice((1, 4, 9)))
    senders = []
    for slot in range(4):
        bench.install(slot, pd=10 + slot)
        senders.append(Sender(bench, slot, rng, [0x1000 * (slot + 1) + n for n in range(3)],
                              [0x1000 * (slot + 1) + 0x100 + n for n in range(2)]))
    for _ in range(160):
        sender = rng.choice(senders)
        if not sender.queue:
            sender.message()
        sender.queue.pop(0)()
    bench.run()
    assert not bench.died and bench.counts["rx_completions"] > 10


def test_reads_are_expected_while_responses_come():
    """The two users of the read queue's state meet in every order. (Few segments are under way: it never fills.)"""
    bench = Bench([region(0xA1, page=256)], stall=0.3, seed=8).install(3).install(4)
    for n in range(40):
        for slot in (3, 4):
            bench.expect_read(slot, 0xA1, BASE + n, 2, n, wait=False)
            bench.ulpdu(tagged(READ_RESPONSE, 0xA1, BASE + n, b"a", last=False), slot)
            bench.ulpdu(tagged(READ_RESPONSE, 0xA1, BASE + n + 1, b"b"), slot)
    bench.run()
    assert not bench.died and bench.counts["rx_completions"] == 80
