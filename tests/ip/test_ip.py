import random
import struct
from itertools import pairwise

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from tests.ip.bench import CANONICAL, CONFIG, Bench, compare, frame, key

from emplace.config import PROFILES
from emplace_sim.frames import parse

SACK = [("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4))]


def good(frames):
    return [(f, False) for f in frames]


def test_payloads_land_at_the_slots_first_byte():
    rng = random.Random(1)
    installed = {key(0): 0, key(1, 5): 1}
    frames = [frame(rng.randbytes(n), qp=qp, vlan=vlan, options=options, seq=rng.getrandbits(32))
              for qp, vlan in ((0, None), (1, 5)) for options in ((), CANONICAL)
              for n in [*range(0, 71, 1 if vlan is None else 3), 1448]]
    rng.shuffle(frames)
    bench = Bench(installed=installed).run(good(frames))
    judged = compare(bench, good(frames))
    assert not any(s.drop for s in judged) and len(bench.segments) == len(frames)


def test_every_field():
    rng = random.Random(2)
    frames = [frame(rng.randbytes(rng.randrange(30)), seq=rng.getrandbits(32), ack=rng.getrandbits(32),
                    window=rng.getrandbits(16), flags=flags, ip_tos=rng.getrandbits(8), ip_ttl=rng.randrange(256),
                    options=[("NOP", None), ("NOP", None), ("Timestamp", (rng.getrandbits(32), rng.getrandbits(32)))])
              for flags in ("A", "PA", "EA", "CA", "CEPA", "S", "SA", "FA", "FPUA", "R", "RA", "SFRPAUEC") for _ in range(3)]
    bench = Bench(stall=0.7, idle=0.3, gap=lambda n: n % 7).run(good(frames))
    assert not any(s.drop for s in compare(bench, good(frames)))


def test_option_mixes():
    rng = random.Random(3)
    stamp = struct.pack(">BBII", 8, 10, 0x11223344, 0x55667788)
    lists = [stamp + b"\1\1", b"\1" + stamp + b"\1", b"\1\1" + stamp + b"\0\xff\xff\xff",
             b"\1\1" + stamp + b"\1\1\5\x0a" + bytes(8),
             b"\0" + b"\xff" * 39, b"\1" * 40, b"\1" * 30 + stamp, b"\1" * 29 + stamp + b"\1",
             bytes([254, 40]) + rng.randbytes(38), bytes([254, 41]) + rng.randbytes(38), b"\2\2" * 20, b"\2\1\1\1",
             b"\1\1\1\5", b"\1\1\1\1\1\1\1\5\2\1\1\1", b"\1\1\1\1\1\1\1\5\4\0\0\1", b"\5\0\1\1", b"\1\1\2\4",
             b"\1\1\1\2",
             b"\1" * 7 + stamp + b"\1\1\1", b"\1\2\3\0\3\3\0" + b"\1" + stamp + b"\1\1", stamp + stamp,
             b"\x08\x09" + bytes(7) + b"\1\1\1", stamp[:8], b"\2\3\0\2\3\0\2\3\0" + stamp + b"\0", b"\5\7\1\1\1\1\1\1",
             b"\1\1\5\6", b"\5\x08\0\0", b"\1\1\1\1\1\1\1\1\5\5\1\1"]
    lists += [b"\1" * n + stamp + b"\1" * (-(n + 10) % 4) for n in range(31)]
    for _ in range(150):
        one = b""
        while len(one) < 40 and rng.random() < 0.85:
            one += rng.choice([b"\1", b"\2\2", b"\3\3\0", b"\5\x0a" + bytes(8), stamp, bytes([9,
            rng.randrange(16)]), b"\0"])
        lists.append(one[:40].ljust(-(-len(one[:40]) // 4) * 4, rng.choice([b"\0", b"\1"])))
    frames = [frame(rng.randbytes(rng.choice([0, 1, 3, 4, 20])), raw_options=o, qp=n % 2, vlan=(None, 5)[n % 2],
                    seq=rng.getrandbits(32)) for n, o in enumerate(lists)]
    bench = Bench(installed={key(0): 0, key(1, 5): 1}, gap=lambda n: 2 + n % 3).run(good(frames))
    judged = compare(bench, good(frames))
    assert {s.drop for s in judged} == {None, "rx_tcp_header"}
    assert sum(s.has_ts for s in judged) > 60 and sum(s.drop is None for s in judged) > 120


def fix_ip(data, start=14):
    """Set the IPv4 header checksum right, so that what was changed alone decides."""
    body = bytearray(data)
    size = 4 * (body[start] & 15)
    body[start + 10:start + 12] = b"\0\0"
    total = sum(struct.unpack(f">{size // 2}H", bytes(body[start:start + size]).ljust(size, b"\0")))
    total = (total & 0xFFFF) + (total >> 16)
    body[start + 10:start + 12] = struct.pack(">H", (total + (total >> 16) & 0xFFFF) ^ 0xFFFF)
    return bytes(body)


def patched(data, at, value):
    return data[:at] + value + data[at + len(value):]


def test_each_reason_has_its_counter():
    base = frame(b"x" * 40)
    ether = Ether(src="52:54:00:00:00:02", dst="52:54:00:00:00:01")
    cases = {
        "rx_other_ethertype": [bytes(ether / ARP()).ljust(60, b"\0"), patched(base, 12, b"\x86\xdd"),
                               base[:12], base[:13],
                               bytes(ether / Dot1Q(vlan=1) / Dot1Q(vlan=2) / IP()).ljust(60, b"\0"),
                               bytes(ether / Dot1Q(vlan=1))[:17], base[:5]],
        "rx_ip_header": [fix_ip(patched(base, 14, b"\x55")), fix_ip(patched(base, 14, b"\x44")),
                         fix_ip(patched(base, 16, b"\0\x13")), fix_ip(patched(base, 16, struct.pack(">H",
                         len(base) - 13))),
                         base[:33], base[:-1], base[:54], fix_ip(patched(base, 16, b"\xff\xff")), base[:14], base[:15]],
        "rx_ip_options": [fix_ip(patched(base, 14, b"\x46")), patched(base, 14, b"\x4f")],
        "rx_ip_fragment": [fix_ip(patched(base, 20, b"\x20\x00")), fix_ip(patched(base, 20, b"\0\1")),
                           fix_ip(patched(base, 20, b"\x1f\0"))],
        "rx_ip_checksum": [patched(base, 24, b"\xff"), patched(base, 22, b"\1"), patched(base, 18, b"\7\7")],
        "rx_ip_protocol": [bytes(ether / IP(src="10.0.0.2", dst="10.0.0.1") / UDP() / Raw(b"x" * 60))],
        "rx_tcp_header": [fix_ip(patched(base, 16, b"\0\x27")), patched(base, 46, b"\x40"), patched(base, 46, b"\0"),
                          frame(dataofs=6), frame(dataofs=15), frame(b"x" * 39, dataofs=15)],
        "rx_tcp_checksum": [patched(base, 60, b"y"), patched(base, 50, b"\0"), patched(base, 93, b"y"),
                               patched(base, 38, b"\1")],
        "rx_tcp_flags": [frame(flags=f) for f in ("F", "P", "U", "FPU", "E", "C", "")],
        "rx_no_connection": [frame(qp=1), frame(qp=3, flags="S"), frame(vlan=5), frame(vlan=0), frame(qp=0x4000)],
        "rx_no_slot": [frame(b"x" * 2049), frame(b"x" * 5000)],
    }
    frames = [f for group in cases.values() for f in group]
    for name, group in cases.items():
        assert {parse(f, {key(): 0}).drop for f in group} == {name}
    # Every one of them behind a good one, and a good one behind it: nothing of it may stick.
    frames = [g for n, f in enumerate(frames) for g in (frame(bytes([n] * 9), seq=n), f)] + [frame(b"end")]
    bench = Bench(gap=lambda n: 2).run(good(frames))
    compare(bench, good(frames))
    assert bench.counts["rx_segments"] == (len(frames) + 1) // 2
    back = Bench().run(good(frames))
    compare(back, good(frames))


def test_longest_payload():
    frames = good([frame(bytes(n % 251 for n in range(2048))), frame(b"x" * 2049), frame(b"y")])
    bench = Bench().run(frames)
    compare(bench, frames)
    assert [len(p) for _, p in bench.segments] == [2048, 1]


@pytest.mark.parametrize("seed", range(4))
def test_mutated_frames(seed):
    rng = random.Random(seed)
    installed = {key(0): 0, key(1, 5): 1, key(2): 2}
    seeds = [frame(rng.randbytes(rng.randrange(60)), qp=q, vlan=v, options=o, flags=rng.choice(["A", "PA"]))
             for q, v in ((0, None), (1, 5), (2, None), (3, None)) for o in ((), CANONICAL, SACK, [*CANONICAL, *SACK])]
    frames = []
    for _ in range(250):
        f = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(3)):
            where = rng.randrange(12, min(len(f), 80)) if rng.random() < 0.8 else rng.randrange(len(f))
            f[where] = rng.choice([f[where] ^ 1 << rng.randrange(8), rng.getrandbits(8), 0, 1, 255])
        if rng.random() < 0.1:
            f = f[:rng.randrange(1, len(f))]
        if rng.random() < 0.5 and len(f) >= 34 and f[12:14] == b"\x08\0" and f[14] == 0x45:
            f = bytearray(fix_ip(bytes(f)))
        f = bytes(f)
        if rng.random() < 0.6:
            f = repaired(f)
        frames.append((f, rng.random() < 0.05))
    bench = Bench(installed=installed, idle=0.2 * (seed % 2), stall=0.3 * (seed // 2), seed=seed,
                  gap=lambda n: rng.choice([0, 0, 2, 3, 9])).run(frames)
    judged = compare(bench, frames)
    assert sum(s.drop is None for s in judged) > 60 and len({s.drop for s in judged}) >= 8


def repaired(f):
    """``f`` with its TCP checksum set right, if it has one."""
    start = 18 if f[12:14] == b"\x81\0" else 14
    total = int.from_bytes(f[start + 2:start + 4], "big")
    if len(f) < start + 40 or not 40 <= total <= len(f) - start:
        return f
    tcp = bytearray(f[start + 20:start + total])
    tcp[16:18] = b"\0\0"
    data = f[start + 12:start + 20] + struct.pack(">HH", 6, len(tcp)) + bytes(tcp)
    data += b"\0" * (len(data) % 2)
    value = sum(struct.unpack(f">{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return patched(f, start + 36, struct.pack(">H", value ^ 0xFFFF))


def test_smallest_frames_at_line_rate():
    frames = [frame(bytes([n & 255] * (n % 7)), seq=n) for n in range(200)]
    assert all(len(f) == 60 for f in frames)
    bench = Bench(gap=lambda n: 2).run(good(frames))
    compare(bench, good(frames))
    spacing = [b - a for a, b in pairwise(bench.last_word)]
    assert set(spacing) == {10}
    assert {r - w for r, w in zip(bench.record_at, bench.last_word, strict=True)} == {5}
    closer = Bench().run(good(frames))                     # not even a gap
    assert closer.counts == {"rx_segments": 200}
    compare(closer, good(frames))


@pytest.mark.parametrize("gap", [0, 2])
def test_option_walks_at_line_rate(gap):
    rng = random.Random(6)
    lists = [b"\1" * 40, b"\2\2" * 20, bytes([254, 40]) + bytes(38), b"\1\1\5\x0a" + bytes(8), b"\1\1\1\1"]
    frames = [frame(b"z" * rng.choice([0, 1, 7]), raw_options=rng.choice(lists), seq=n, qp=n % 2, vlan=(None, 5)[n % 2])
              for n in range(150)]
    bench = Bench(installed={key(0): 0, key(1, 5): 1}, gap=lambda n: gap).run(good(frames))
    compare(bench, good(frames))
    assert bench.counts == {"rx_segments": 150}
    assert max(r - w for r, w in zip(bench.record_at, bench.last_word, strict=True)) <= 8


def test_latency():
    installed = {key(0): 0, key(0, 7): 1}
    frames = [frame(b"q" * n, vlan=vlan, options=options) for vlan in (None, 7) for options in ((), CANONICAL)
              for n in range(17)]
    bench = Bench(installed=installed, gap=lambda n: 4).run(good(frames))
    compare(bench, good(frames))
    assert {r - w for r, w in zip(bench.record_at, bench.last_word, strict=True)} == {5}


def test_tokens_keep_their_place():
    frames = good([frame(bytes([n] * 30), seq=n) for n in range(60)])
    bench = Bench(gap=lambda n: 2 * (n % 2), stall=0.5)
    sent = []

    async def tokens(ctx):
        for n in range(8):
            await ctx.tick().repeat(29 + 7 * n)
            sent.append((len(bench.last_word), n % 6))
            await bench.send_token(ctx, n % 6, n)

    bench.run(frames, also=tokens)
    assert [s[1:] for s in bench.segments if s[0] == "token"] == [(n % 6, n) for n in range(8)]
    ahead = 0
    for s in bench.segments:
        if s[0] == "token":
            before, _ = sent.pop(0)
            assert ahead >= before                         # all that had arrived are ahead of it
        else:
            ahead += 1
    assert ahead == 60


def test_token_waits_for_the_frame_under_way():
    bench = Bench(idle=0.5)

    async def token(ctx):
        while not bench.now or not ctx.get(bench.dut.frames.valid):
            await ctx.tick()
        await ctx.tick().repeat(20)
        assert not bench.last_word
        await bench.send_token(ctx, 3, 9)

    bench.run(good([frame(b"long" * 100), frame(b"next")]), also=token)
    assert bench.segments[0][1][:4] == b"long"
    assert ("token", 3, 9) in bench.segments


def test_slots():
    bad = patched(frame(b"b" * 50), 70, b"!")
    frames = [(frame(b"a" * 50), False), (bad, False), (frame(b"c" * 50), True), (frame(), False),
             (frame(b"d" * 50), False),
              (frame(b"e" * 9), False)]
    bench = Bench(gap=lambda n: 12).run(frames)
    compare(bench, frames)
    used = []
    for slot, _ in bench.writes:
        if not used or used[-1] != slot:
            used.append(slot)
    assert used == [0, 1, 2]                               # what was dropped was written over
    none = Bench(slots=0).run(good([frame(b"a"), frame(), frame(b"b")]))
    assert none.counts == {"rx_no_slot": 2, "rx_segments": 1} and not none.writes
    one = Bench(slots=1, hold_records=300, gap=lambda n: 9).run(good([frame(b"a"), frame(b"b"), frame()]), drain=300)
    assert one.counts == {"rx_no_slot": 1, "rx_segments": 2}


def test_full_record_queue_drops():
    frames = good([frame(b"a" * (n % 2), seq=n) for n in range(50)])
    bench = Bench(hold_records=550, slots=20, gap=lambda n: 2)
    bench.free *= 2                                        # (the bench doesn't look at what it doesn't take)
    bench.run(frames, drain=100)
    assert bench.counts == {"rx_segments": 32, "rx_no_slot": 18}
    assert [s[0]["seq"] for s in bench.segments] == list(range(32))


def test_card_sizes():
    assert CONFIG.name == "tiny"
    frames = good([frame(b"hello", qp=n % 5) for n in range(9)])
    installed = {key(n): 200 + n for n in range(5)}
    bench = Bench(config=PROFILES["large"], installed=installed).run(frames)
    compare(bench, frames)
