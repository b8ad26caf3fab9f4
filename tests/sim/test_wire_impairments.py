"""The impaired wire: what it does is what its counts say, and depends on its seed alone."""

import random
from collections import Counter

import pytest
from scapy.utils import RawPcapNgReader

from emplace_sim import sender
from emplace_sim.pcapng import PcapngWriter
from emplace_sim.segment import ACK, SYN, BadSegment, parse
from emplace_sim.wire import Impairments, Rule, Wire, data_segment, strip_fcs

FLOW = sender.Flow()
ALL = Impairments(loss=.1, reorder=.1, duplicate=.1, corrupt=.1, spoil=.1, delay=1000, jitter=500, rate=10**9)


def frames(count, size=200, seed=1):
    rng, flow = random.Random(seed), sender.Flow()
    return [flow.push(rng.randbytes(rng.randint(1, size))) for _ in range(count)]


def drain(wire):
    """[(time, frame)] of all that is still to come."""
    found = []
    while (at := wire.next_deadline) is not None:
        assert wire.poll(at - 1) == []
        found += [(at, frame) for frame in wire.poll(at)]
    return found


def run(wire, what, gap=1000):
    for n, frame in enumerate(what):
        wire.send(frame, n * gap)
    return drain(wire)


def test_a_good_wire_changes_nothing():
    sent = frames(100)
    wire = Wire(Impairments(delay=777))
    got = run(wire, sent)
    assert got == [(n * 1000 + 777, frame) for n, (_, frame) in enumerate(got)]
    assert [strip_fcs(frame) for _, frame in got] == [frame.ljust(60, b"\0") for frame in sent]
    assert wire.counts == {"sent": 100, "scheduled": 100, "delivered": 100}


def test_the_seed_decides():
    sent = frames(300)
    runs = [run(Wire(ALL, seed=seed), sent) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_counts_say_what_happened():
    sent = frames(4000)
    wire = Wire(ALL, seed=3)
    got = run(wire, sent, gap=3000)
    counts = wire.counts
    assert counts["sent"] == 4000 and counts["delivered"] == len(got) == 4000 - counts["lost"] + counts["duplicated"]
    for name in ("lost", "reordered", "duplicated", "corrupted", "spoiled"):
        assert 300 < counts[name] < 500, name
    whole = [strip_fcs(frame) for _, frame in got]
    bad = sum(frame is None for frame in whole)
    assert counts["corrupted"] <= bad <= 1.25 * counts["corrupted"]          # some of them were doubled
    originals = Counter(frame.ljust(60, b"\0") for frame in sent)
    strange = [frame for frame in whole if frame is not None and frame not in originals]
    assert 0.7 * counts["spoiled"] < len(strange) < 1.3 * counts["spoiled"]
    for frame in strange:                                # the checksums hold: only who knows the payload can tell
        parse(frame)


def test_corruption_is_caught_by_checksums():
    """One bit flips, the FCS tells; without an FCS, IP's or TCP's checksum, but for bits of the MAC addresses."""
    sent = [FLOW.frame(random.Random(n).randbytes(60)) for n in range(500)]
    got = run(Wire(Impairments(corrupt=1), seed=4), sent)
    for (_, frame), original in zip(got, sent, strict=True):
        assert strip_fcs(frame) is None
        different = [n for n, (a, b) in enumerate(zip(frame, original)) if a != b]
        assert len(different) == 1 and bin(frame[different[0]] ^ original[different[0]]).count("1") == 1
        if different[0] >= 12:
            with pytest.raises(BadSegment):
                parse(frame[:-4])


def test_order_is_kept_but_for_what_is_reordered():
    sent = frames(1000)
    got = run(Wire(Impairments(delay=5000, jitter=50_000), seed=5), sent, gap=100)
    assert [frame[:-4] for _, frame in got] == [frame.ljust(60, b"\0") for frame in sent]
    assert len({at - 100 * n for n, (at, _) in enumerate(got)}) > 10
    wire = Wire(Impairments(reorder=.05), seed=6)
    got = run(wire, sent, gap=100)
    assert sorted(f for _, f in got) == sorted(f for _, f in run(Wire(), sent)) and wire.counts["reordered"] > 20
    assert [f[:-4] for _, f in got] != [frame.ljust(60, b"\0") for frame in sent]


def test_rate_and_queue():
    sent = [FLOW.frame(bytes(1448))] * 50
    wire = Wire(Impairments(rate=10**9))
    got = run(wire, sent, gap=0)
    assert [at for at, _ in got] == [(n + 1) * 1538 * 8 for n in range(50)]       # 66 octets of headers, FCS, preamble, gap
    wire = Wire(Impairments(rate=10**9, queue=10 * 1538))
    assert len(run(wire, sent, gap=0)) == 11 and wire.counts["overrun"] == 39


def test_rules():
    sent = [FLOW.frame(b"", flags=ACK), *frames(6), FLOW.frame(b"", flags=SYN)]
    padded = [frame.ljust(60, b"\0") for frame in sent]

    def through(*rules):
        wire = Wire(rules=list(rules))
        return [strip_fcs(frame) for _, frame in run(wire, sent)], wire.counts

    got, counts = through(Rule("drop", data_segment, nth=3))
    assert got == padded[:3] + padded[4:] and counts["dropped"] == 1
    got, _ = through(Rule("drop", data_segment, nth=2, count=2))
    assert got == padded[:2] + padded[4:]
    got, _ = through(Rule("drop", data_segment, count=None))
    assert got == [padded[0], padded[-1]]
    got, counts = through(Rule("duplicate", lambda seen: seen.tcp.flags & SYN))
    assert got == [*padded, padded[-1]] and counts["duplicated"] == 1
    got, counts = through(Rule("delay", data_segment, by=2500))
    assert got == [padded[0], padded[2], padded[3], padded[1], *padded[4:]] and counts["delayed"] == 1
    got, counts = through(Rule("corrupt", lambda seen: seen.number == 2))
    assert got == [padded[0], None, *padded[2:]] and counts["corrupted"] == 1
    got, counts = through(Rule("spoil", data_segment, nth=2), Rule("spoil", lambda seen: seen.number == 1))
    assert got[2] != padded[2] and parse(got[2])[1].seq == parse(padded[2])[1].seq and counts["spoiled"] == 1
    assert got[:2] + got[3:] == padded[:2] + padded[3:]       # what has no payload can't be spoiled
    with pytest.raises(ValueError, match="drop"):
        Rule("lose", data_segment)
    assert [strip_fcs(frame) for _, frame in run(Wire(rules=[Rule("drop", data_segment)]), [bytes(60)])] == [bytes(60)]


def test_rules_don_t_shift_chance():
    sent = frames(200)
    plain = run(Wire(Impairments(loss=.2), seed=7), sent)
    ruled = run(Wire(Impairments(loss=.2), [Rule("drop", lambda seen: seen.number == 1)], seed=7), sent)
    assert ruled in (plain, plain[1:])


def test_tap(tmp_path):
    sent, fates = frames(50), []
    with PcapngWriter(tmp_path / "x.pcapng") as writer:
        def tap(at, frame, comment):
            fates.append(comment)
            writer.write(0, at, frame, comment)
        wire = Wire(Impairments(loss=.3), seed=8, tap=tap)
        run(wire, sent)
    with RawPcapNgReader(str(tmp_path / "x.pcapng")) as reader:
        assert [(bytes(data), meta.tshigh << 32 | meta.tslow) for data, meta in reader] == \
            [(frame, 1000 * n) for n, frame in enumerate(sent)]
    assert fates.count("lost") == wire.counts["lost"] > 5 and set(fates) == {None, "lost"}
