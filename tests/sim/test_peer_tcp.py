"""The golden peer's TCP and MPA start-up: protocol cases of loss, windows, blind attacks, time stamps, ECN, closing."""

from itertools import pairwise

import pytest

from emplace_sim import ddp
from emplace_sim.fpdu import build_fpdu
from emplace_sim.mpa import MpaFrame
from emplace_sim.peer import MS, Faults, Peer, QpSettings, QpState, TcpSettings
from emplace_sim.peer.tcp import TcpState
from emplace_sim.segment import ACK, CWR, ECE, FIN, RST, SYN, Ends, Tcp, build, parse, timestamp_option
from emplace_sim.wire import Impairments, Rule, data_segment

from .peers import IPS, MACS, Pair, summary

RCV, SND = 0xFFFFFF00, 5000              # first sequence numbers: the other side's, ours


class Bench:
    """A peer's TCP against hand-made segments. ``put`` returns what it says to one."""

    def __init__(self, *, initiator=True, faults=None, qp=None, **tcp):
        self.peer = Peer(MACS[0], IPS[0])
        self.ends = Ends(MACS[1], MACS[0], IPS[1], IPS[0], 7174, 50000)
        self.settings = TcpSettings(**{"rto_min": 5 * MS, "rto_initial": 20 * MS, **tcp})
        self.qp = self.peer.establish(self.ends.turned, snd_nxt=SND, rcv_nxt=RCV, initiator=initiator, tcp=self.settings,
                                      faults=faults, qp=qp, snd_wnd=100_000, ts_recent=1000)
        self.tcp, self.now, self.tsval = self.qp.tcp, MS, 1000
        self.mr = self.peer.reg_mr(self.qp.pd, 1 << 16)
        self.stream = build_fpdu(ddp.write(self.mr.rkey, self.mr.base, bytes(n & 0xFF for n in range(1, 5001))))

    def put(self, at=0, payload=b"", *, ack=0, window=800, flags=ACK, tsval=None, options=None, ecn=0, wait=0):
        """A segment at stream offset ``at`` that acknowledges our offset ``ack``."""
        if options is None:
            options = timestamp_option(self.tsval if tsval is None else tsval, 1) if self.settings.timestamps else b""
        self.peer.receive(build(self.ends, Tcp(RCV + at, SND + ack, flags, window, options, payload, ecn)), self.now)
        return self.poll(wait)

    def piece(self, at, size, **more):
        return self.put(at, self.stream[at:at + size], **more)

    def poll(self, wait=0):
        self.now += wait
        return [parse(frame)[1] for frame in self.peer.poll(self.now)]

    def post(self, size, **more):
        self.qp.post_send("RDMA_WRITE", [self.mr.sge(0, size)], rkey=1, remote_addr=0, **more)
        return self.poll()

    @property
    def taken(self):
        return self.tcp.rx.nxt - 1


def at(segments, base=SND):
    """(offset, octets) of segments with payload."""
    return [(s.seq - base & 0xFFFFFFFF, len(s.payload)) for s in segments if s.payload]


def acks(segments):
    return [s.ack - RCV & 0xFFFFFFFF for s in segments]


def blocks(segment):
    return [(left - RCV & 0xFFFFFFFF, right - RCV & 0xFFFFFFFF) for left, right in segment.sack]


# Receiving

def test_case_39_wrap_and_42_holes():
    b = Bench()
    assert acks(b.piece(1000, 500)) == [0]                       # three holes, 2**32 among them
    b.piece(2000, 500)
    last, = b.piece(100, 100)
    assert blocks(last) == [(100, 200), (2000, 2500), (1000, 1500)]       # the latest first
    last, = b.piece(200, 60)
    assert blocks(last)[0] == (100, 260)
    last, = b.piece(3000, 100)
    assert len(blocks(last)) == 3 and blocks(last)[0] == (3000, 3100)     # no more beside time stamps
    assert acks(b.piece(0, 1200)) == [1500]                      # a larger one fills the first hole
    assert acks(b.piece(1500, 500)) == [2500]
    assert acks(b.piece(2500, 500)) == [3100] and b.taken == 3100 and not b.tcp.rx.held
    b.piece(3100, len(b.stream) - 3100)
    assert b.mr.data[:5000] == b.stream[16:-8 + 2][:5000] or b.mr.data[:5000] == bytes(n & 0xFF for n in range(1, 5001))


def test_case_40_first_copy_wins():
    b = Bench()
    b.piece(0, 100)
    assert acks(b.put(50, b"\xee" * 100)) == [150]               # overlaps with other octets
    assert bytes(b.tcp.rx.stream) == b.stream[:100] + b"\xee" * 50
    b.put(200, b"\xaa" * 10)
    b.put(200, b"\xbb" * 10)
    b.put(150, b"\xcc" * 60)
    assert bytes(b.tcp.rx.stream[150:]) == b"\xcc" * 60


def test_case_41_duplicates():
    b = Bench()
    b.piece(0, len(b.stream))
    for n in range(0, 5000, 500):
        assert acks(b.piece(n, 500)) == [len(b.stream)]
    assert b.tcp.counts["rx_duplicate"] == 10 and not b.peer.events


def test_delayed_ack():
    b = Bench()
    assert b.piece(0, 100) == [] and acks(b.piece(100, 100)) == [200]
    assert b.piece(200, 100) == [] and b.peer.next_deadline == b.now + 2 * MS
    assert b.poll(2 * MS - 1) == [] and acks(b.poll(1)) == [300]
    b.piece(300, 100)
    b.qp.post_send("SEND", inline=b"x")
    assert acks(b.poll()) == [400] and b.poll(5 * MS - 1) == []  # the data carried it


def test_case_47_paws_and_time_stamps():
    b = Bench()
    b.tsval = 2000
    b.piece(0, 100)
    assert acks(b.piece(100, 100, tsval=1999)) == [100] and b.taken == 100
    assert b.piece(100, 100, options=b"") == [] and b.tcp.counts["rx_no_timestamp"] == 1
    assert b.put(100, flags=RST | ACK, options=b"") == [] and b.tcp.closed_by == "reset"
    b = Bench()
    b.tsval = 0xFFFFFFF0
    b.tcp.rx.ts_recent = 0xFFFFFFE0
    b.piece(0, 100)
    b.piece(100, 100, tsval=5)                                   # has wrapped
    assert b.taken == 200
    b.now += 25 * 86_400_000 * MS                                # TS.Recent means nothing any more
    b.piece(200, 100, tsval=0x90000000)
    assert b.taken == 300


def test_case_48_the_earliest_is_echoed():
    b = Bench()
    b.piece(0, 100, tsval=1001)
    reply, = b.piece(100, 100, tsval=1002)
    assert reply.timestamps[1] == 1001
    b.piece(200, 100, tsval=1003)
    reply, = b.piece(300, 100, tsval=1004)
    assert reply.timestamps[1] == 1003


def test_case_49_rst_and_syn():
    b = Bench()
    edge = b.tcp.rx.edge - 1
    assert acks(b.put(0, flags=SYN)) == [0] and b.tcp.counts["challenge_syn"] == 1
    assert acks(b.put(1, flags=RST)) == [0] and b.tcp.counts["challenge_rst"] == 1
    assert b.put(edge + 5, flags=RST) == [] and b.put(-5, flags=RST) == [] and b.tcp.state is TcpState.ESTABLISHED
    b.qp.post_recv([], wr_id=4)
    assert b.put(0, flags=RST) == [] and b.tcp.state is TcpState.CLOSED
    assert [e.kind for e in b.peer.events] == ["reset"] and summary(b.peer.poll_cq()) == [(4, "WR_FLUSH_ERR", 0)]
    assert b.qp.state is QpState.ERROR and b.peer.next_deadline is None


def test_case_50_acks():
    b = Bench()
    b.post(1000)
    end = b.tcp.tx.nxt - 1
    assert len(b.put(ack=end + 1)) == 1 and b.tcp.tx.una == 1    # of what was never sent
    assert len(b.put(ack=-200_000)) == 1                         # older than any window
    assert b.tcp.counts["challenge_ack"] == 2
    assert b.put(ack=-5) == [] and b.tcp.tx.una == 1             # old, harmless
    assert len(b.poll(60 * MS)) == 1                             # RTO
    b.put(ack=end)
    assert b.tcp.tx.una == end + 1 and b.peer.next_deadline is None


def test_case_51_fin():
    b = Bench()
    b.peer.stags.regions.clear()
    fpdu = build_fpdu(ddp.write(0, 0, b""))
    assert acks(b.put(len(fpdu) + 7, b"", flags=FIN | ACK)) == [0]       # out of order: not yet
    b = Bench()
    assert b.put(0, fpdu[:9]) == []
    last = b.put(9, fpdu[9:], flags=FIN | ACK)
    assert acks(last[:1]) == [len(fpdu) + 1] and any(s.flags & FIN for s in last)     # answered with our FIN
    assert [e.kind for e in b.peer.events] == ["fin"]
    again = b.put(9, fpdu[9:], flags=FIN | ACK)
    assert acks(again) == [len(fpdu) + 1] and len(b.peer.events) == 1
    b.put(len(fpdu) + 1, ack=1)
    assert b.tcp.done
    b = Bench()
    b.put(0, fpdu[:9], flags=FIN | ACK)
    assert [e.kind for e in b.peer.events] == ["fin within an FPDU"]


def test_fin_out_of_order_is_taken_later():
    b = Bench()
    fpdu = build_fpdu(ddp.write(0, 0, b""))
    b.put(10, fpdu[10:], flags=FIN | ACK)
    assert b.taken == 0 and not b.peer.events
    b.put(0, fpdu[:10])
    assert b.taken == len(fpdu) + 1 and [e.kind for e in b.peer.events] == ["fin"]


def test_case_53_ecn():
    b = Bench(ecn=True)
    assert [bool(s.flags & ECE) for s in b.piece(0, 100, ecn=3)] == [True]       # at once
    b.piece(100, 100, ecn=2)
    assert [bool(s.flags & ECE) for s in b.piece(200, 100, ecn=2)] == [True]     # until CWR
    b.piece(300, 100, ecn=2, flags=ACK | CWR)
    assert [bool(s.flags & ECE) for s in b.piece(400, 100)] == [False]
    sent = b.post(20_000)
    assert all(s.ecn == 2 and not s.flags & CWR for s in sent if s.payload)
    before = b.tcp.tx.cwnd
    sent = b.put(500, ack=1448, flags=ACK | ECE) + b.put(500, ack=2 * 1448, flags=ACK | ECE)
    assert before // 2 <= b.tcp.tx.cwnd < before // 2 + 1448 and b.tcp.tx.counts["ecn_reductions"] == 1      # once a window
    sent += b.put(500, ack=8 * 1448, flags=ACK | ECE)
    new = [s for s in sent if s.payload]
    assert [bool(s.flags & CWR) for s in new] == [True] + [False] * (len(new) - 1)
    again = b.poll(200 * MS)
    assert at(again) and all(s.ecn == 0 for s in again)          # no ECT on what is sent again


def test_window_field():
    b = Bench(rcv_wscale=3, rcv_wnd=8192)
    b.qp.deaf = True
    assert [s.window for s in b.piece(0, 100) + b.piece(100, 100)] == [1024]
    b.tcp.rx.wnd = 0                                             # closes as data comes, never by itself
    edge = b.tcp.rx.edge
    for n, start in enumerate(range(200, 4000, 333), 1):
        before = b.tcp.rx.edge
        for said in b.piece(start, 333):
            assert acks([said])[0] + (said.window << 3) >= before - 1        # a position less the SYN's
        assert before <= b.tcp.rx.edge < edge + 8 * n            # rounded up, as Linux does
    b.tcp.rx.shrink(64)
    assert [s.window for s in b.poll()] == [8]
    assert acks(b.piece(start + 333, 100)) == [start + 333 + 64] and b.tcp.rx.counts["trimmed"] == 1


def test_acks_count_while_our_window_is_closed():
    """Of data that is refused for want of a window, too; else two closed windows would wait for each other."""
    b = Bench()
    b.post(100, wr_id=1)
    b.tcp.rx.shrink(0)
    b.poll()
    assert [(s.ack - RCV & 0xFFFFFFFF, s.window) for s in b.piece(0, 100, ack=b.tcp.tx.nxt - 1)] == [(0, 0)]
    assert summary(b.peer.poll_cq()) == [(1, "SUCCESS", 100)] and b.taken == 0


# Sending

def test_case_43_fast_retransmit():
    b = Bench(sack=False)
    sent = b.post(14_000)
    assert len(at(sent)) == 10
    b.put(ack=1448)
    assert at(b.put(ack=1448)) == []                             # 1st
    b.put(ack=1448, window=900)                                  # a new window: none
    b.put(at=0, payload=b.stream[:10], ack=1448, window=900)     # data: none
    assert at(b.put(at=10, ack=1448, window=900)) == []          # 2nd
    assert at(b.put(at=10, ack=1448, window=900))[0] == (1448, 1448)     # 3rd
    assert b.tcp.tx.counts["fast_retransmits"] == 1
    half = b.tcp.tx.ssthresh
    again = at(b.put(at=10, ack=4 * 1448, window=900))           # partial: the next hole
    assert again[0] == (4 * 1448, 1448) and b.tcp.tx.recovering
    b.put(at=10, ack=b.tcp.tx.nxt - 1, window=900)
    assert not b.tcp.tx.recovering and half <= b.tcp.tx.cwnd <= half + 1448


def test_sack_recovery_sends_holes_alone():
    b = Bench()
    b.post(14_000)

    def sack(*spans):
        octets = bytes([1, 1, 5, 2 + 8 * len(spans)]) + b"".join(
            (SND + 1448 * n & 0xFFFFFFFF).to_bytes(4, "big") for span in spans for n in span)
        return b.put(ack=0, options=timestamp_option(b.tsval, 1) + octets)
    assert at(sack((1, 2))) == [] and at(sack((1, 3))) == []
    assert at(sack((4, 5), (1, 3))) == [(0, 1448)]               # 0 is lost: three above; 3 is not yet
    assert at(sack((4, 7), (1, 3))) == [(3 * 1448, 1448)]
    assert not at(sack((2**20, 2**20 + 1), (7, 6), (4, 7)))      # beyond what was sent, inverted: nothing


def test_case_55_reneging():
    b = Bench()
    b.post(6_000)
    sack = timestamp_option(1000, 1) + bytes([1, 1, 5, 10]) + b"".join(
        (SND + n).to_bytes(4, "big") for n in (1448, 4 * 1448))
    b.put(ack=0, options=sack)
    b.now += b.tcp.tx.rto
    sent = at(b.poll())
    assert sent == [(0, 1448)] and not any(s.sacked for s in b.tcp.tx.sent)
    assert at(b.put(ack=1448)) == [(1448, 1448), (2 * 1448, 1448)]        # although SACKed once


def test_rto_backs_off_and_gives_up():
    b = Bench(retries=3)
    b.qp.post_recv([], wr_id=2)
    b.post(100, wr_id=1)
    waits, last = [], b.now
    while b.peer.next_deadline is not None:
        b.now = b.peer.next_deadline
        waits.append(b.now - last)
        last = b.now
        b.poll()
    assert waits == [20 * MS, 40 * MS, 80 * MS, 160 * MS] and [e.kind for e in b.peer.events] == ["timeout"]
    assert summary(b.peer.poll_cq()) == [(1, "WR_FLUSH_ERR", 0), (2, "WR_FLUSH_ERR", 0)]


def test_rtt_is_measured():
    b = Bench()
    b.post(100)
    b.now += 8 * MS
    b.put(ack=b.tcp.tx.nxt - 1)
    assert b.tcp.tx.srtt == 8 * MS and b.tcp.tx.rttvar == 4 * MS and b.tcp.tx.rto == 24 * MS
    b.post(100)
    b.now += 16 * MS
    b.put(ack=b.tcp.tx.nxt - 1)
    assert (b.tcp.tx.srtt, b.tcp.tx.rttvar) == (9 * MS, 5 * MS)
    b = Bench(timestamps=False)
    b.post(100)
    b.poll(20 * MS)
    b.put(ack=b.tcp.tx.nxt - 1)
    assert b.tcp.tx.srtt is None                                 # Karn: sent twice


def test_case_44_window_less_than_an_fpdu():
    b = Bench()
    first = b.post(2_856)                                        # two FPDUs
    assert at(first) == [(0, 1448), (1448, 1448)]
    b.put(window=4)                                              # 512 octets now
    b.now += b.tcp.tx.rto
    again = b.poll()
    assert at(again) == [(0, 1448)] and again[0].payload == first[0].payload
    sent, acked = bytearray(first[0].payload[:512]), 512         # it took what fitted
    while acked < 2 * 1448:
        got = b.put(ack=acked, window=4)
        while not (fresh := [s for s in got if s.seq <= SND + acked < s.seq + len(s.payload)]):
            b.now = b.peer.next_deadline
            got = b.poll()
        sent += fresh[0].payload[SND + acked - fresh[0].seq:][:512]
        acked = len(sent)
    assert bytes(sent) == first[0].payload + first[1].payload and not b.peer.events


def test_case_45_closed_window():
    b = Bench(retries=4)
    b.put(window=0)
    b.post(1000, wr_id=1)
    probes = []
    for _ in range(30):                                          # ten minutes, probed with one octet, never given up
        b.now = b.peer.next_deadline
        probes += [(b.now, s) for s in b.poll()]
        b.put(window=0)
    assert b.now > 600_000 * MS and {len(s.payload) for _, s in probes} == {1} and {s.seq for _, s in probes} == {SND}
    waits = [after - before for (before, _), (after, _) in pairwise(probes)]
    assert waits[:3] == [40 * MS, 80 * MS, 160 * MS] and set(waits[11:]) == {60_000 * MS}
    assert at(b.put(window=0, ack=1)) == []
    opened = b.put(window=8, ack=1)                              # 1,024 octets
    b.put(ack=1 + sum(size for _, size in at(opened)))
    assert at(opened)[0][0] == 1 and summary(b.peer.poll_cq()) == [(1, "SUCCESS", 1000)]


def test_window_closes_over_what_is_in_flight():
    b = Bench()
    b.post(4_284, wr_id=1)
    b.put(ack=0, window=12)                                      # 1,536 octets: the first FPDU, and a little
    b.now += b.tcp.tx.rto
    assert at(b.poll()) == [(0, 1448)]
    assert at(b.put(ack=1448, window=0)) == []                   # nothing beyond the window
    for _ in range(20):
        b.now = b.peer.next_deadline
        assert at(b.poll()) == [(1448, 1448)]                    # but its head as a probe, for as long as it takes
        assert at(b.put(ack=1448, window=0)) == []
    assert at(b.put(ack=1448, window=800))[0] == (1448, 1448)
    b.put(ack=3 * 1448)
    assert summary(b.peer.poll_cq()) == [(1, "SUCCESS", 4_284)]


def test_idle_restart():
    b = Bench()
    b.post(60_000)
    while b.tcp.tx.sent:
        b.put(ack=b.tcp.tx.sent[0].end - 1)
    assert b.tcp.tx.cwnd > 20 * 1448 and b.qp.idle
    b.now += b.tcp.tx.rto + 1
    assert len(at(b.post(60_000))) == 10


def test_case_46_ack_within_an_fpdu():
    b = Bench()
    first, = b.post(1000)
    b.mr.data[:1000] = b"\xee" * 1000                            # too late: the stream's octets are fixed
    b.put(ack=500)
    again, = b.poll(100 * MS)
    assert again.seq == SND + 500 and again.payload == first.payload[500:]


def test_case_52_mss_reduced():
    b = Bench()
    first = b.post(2_856)
    b.tcp.tx.set_mss(600)
    sent = b.poll(50 * MS) + b.put(ack=588) + b.put(ack=1448) + b.put(ack=1448 + 588) + b.put(ack=1448 + 588)
    assert at(sent) == [(0, 588), (588, 588), (1176, 272), (1448, 588), (1448 + 588, 588), (1448 + 1176, 272)]
    assert b"".join(s.payload for s in sent) == b"".join(s.payload for s in first)
    b.put(ack=2 * 1448)
    assert b.qp.mulpdu == 582
    assert [size for _, size in at(b.post(2_000) + b.put(ack=2 * 1448 + 588))] == [588, 588, 588, 316]        # so are new FPDUs


def test_case_54_window_scale():
    b = Bench(snd_wscale=14)
    b.put(window=0xFFFF)
    assert b.tcp.tx.edge == 1 + (0xFFFF << 14)
    b.put(window=0)
    assert b.tcp.tx.edge == 1


def test_congestion_control():
    b = Bench()
    sent = at(b.post(60_000))
    assert len(sent) == 10
    assert len(at(b.put(ack=1448) + b.put(ack=2 * 1448))) == 4   # slow start: two for one
    b.now += b.tcp.tx.rto
    assert at(b.poll()) == [(2 * 1448, 1448)] and b.tcp.tx.cwnd == 1448 and b.tcp.tx.ssthresh == 6 * 1448


@pytest.mark.parametrize("cut, sizes", [
    ("aligned", [24, 24, 1448, 48]), ("packed", [48, 1448, 48]), ("siw", [20, 4, 20, 4, 1444, 4, 44, 4]),
    ("stream", [1448, 96])])
def test_cuts(cut, sizes):
    b = Bench(cut=cut)
    for size in (4, 4, 1428 + 28):
        b.qp.post_send("RDMA_WRITE", inline=bytes(size), rkey=1, remote_addr=0)
    assert [size for _, size in at(b.poll())] == sizes


# Hooks

def test_misbehaviour_of_tcp():
    faults = Faults()
    b = Bench(faults=faults)
    faults.ack_at_most = 51                                      # half an FPDU, and no more
    b.piece(0, 100)
    assert acks(b.piece(100, 100)) == [50]
    faults.ack_at_most, faults.ack_ahead = None, 1000
    b.piece(200, 100)
    assert acks(b.piece(300, 100)) == [1400]
    faults.no_ack = True
    assert b.piece(400, 100) == b.piece(500, 100) == []
    faults.no_ack = False
    b.piece(1000, 100)
    b.tcp.rx.renege()
    assert blocks(b.piece(1500, 100)[0]) == [(1500, 1600)] and b.tcp.rx.counts["reneged"] == 1
    faults.segment = lambda tcp: None
    assert b.piece(600, 400) == []
    faults.segment = lambda tcp: Tcp(tcp.seq, tcp.ack, tcp.flags | ECE, 1, tcp.options)
    assert [(s.window, bool(s.flags & ECE)) for s in b.piece(600, 400)] == [(1, True)]


# Start-up

START = TcpSettings(rto_initial=20 * MS)


@pytest.mark.parametrize("rules", [
    ((), ()),
    ([Rule("drop", lambda s: s.tcp.flags & SYN)], [Rule("drop", lambda s: s.tcp.flags & SYN)]),
    ([Rule("drop", lambda s: s.number == 2)], ()),                            # the handshake's last ACK
    ([Rule("drop", data_segment)], ()), ((), [Rule("drop", data_segment)]),   # MPA request, reply
    ([Rule("drop", data_segment, nth=2)], ()),                                # first FPDU
])
@pytest.mark.parametrize("rtr", [None, "write", "read"])
def test_case_11_to_13_start_up(rules, rtr):
    got = []
    pair = Pair(start=True, tcp=START, rules=[[Rule(r.action, r.when, r.nth) for r in rule] for rule in rules],
                settings=(QpSettings(rtr=rtr, private=b"hello", ird=3, ord=9),
                          QpSettings(private=b"hi", crc=False, ird=5, ord=7)),
                posted=(lambda qp: qp.post_recv([], wr_id=1), lambda qp: (qp.post_recv([], wr_id=2),
                                                                          qp.post_send("SEND", wr_id=3))))
    if rtr is None:
        pair.run(lambda: pair.qa.state is QpState.RTS)
        assert not pair.qb.counts["fpdus_sent"]                  # the gate: nothing before the initiator's first FPDU
        pair.qa.post_send("SEND", wr_id=4)
    pair.run(lambda: pair.qa.state is QpState.RTS and pair.qa.idle and pair.qb.idle and pair.qb.counts["fpdus_sent"] > 0)
    got = summary(pair.a.poll_cq()), summary(pair.b.poll_cq())
    assert got[0][-1:] == [(1, "SUCCESS", 0)] or (1, "SUCCESS", 0) in got[0]
    assert ((3, "SUCCESS", 0) in got[1]) and ((2, "SUCCESS", 0) in got[1]) == (rtr is None)
    assert (pair.qa.private, pair.qb.private) == (b"hi", b"hello") and pair.qa.crc and pair.qb.crc
    assert (pair.qa.ord, pair.qb.ord) == (5, 3)
    assert [e.kind for e in (*pair.a.events, *pair.b.events)] == ["established"] * 2


def test_case_11_first_fpdu_with_the_reply():
    """siw's way: a responder that sends at once."""
    pair = Pair(start=True, tcp=START, faults=(None, Faults(ignore_gate=True)),
                posted=(lambda qp: qp.post_recv([], wr_id=1), lambda qp: qp.post_send("SEND", wr_id=2)))
    pair.run(lambda: pair.b.cq)
    assert summary(pair.a.poll_cq()) == [(1, "SUCCESS", 0)] and summary(pair.b.poll_cq()) == [(2, "SUCCESS", 0)]


def test_rejected():
    pair = Pair(start=False)
    pair.b.listen(9, tcp=START, qp=QpSettings(reject=True))
    qp = pair.a.connect(MACS[1], IPS[1], 9, pair.now, tcp=START)
    pair.run(lambda: qp.state is QpState.ERROR)
    assert [e.kind for e in pair.a.events] == ["rejected"]


def answer(reply):
    """Events of an initiator that gets ``reply`` to its request, and what it sends then."""
    peer = Peer(MACS[0], IPS[0])
    qp = peer.connect(MACS[1], IPS[1], 9, 0, tcp=START, qp=QpSettings(rtr="write", ird=2))
    ends, syn = parse(peer.poll(0)[0])
    back = ends.turned
    peer.receive(build(back, Tcp(100, syn.seq + 1, SYN | ACK, 1000, bytes.fromhex("020405b4"))), MS)
    frames = peer.poll(MS)
    request = b"".join(parse(f)[1].payload for f in frames)
    assert MpaFrame.parse(request).p2p and not qp.tcp.settings.timestamps and qp.tcp.settings.snd_wscale == 0
    peer.receive(build(back, Tcp(101, syn.seq + 1 + len(request), ACK, 1000, payload=reply)), 2 * MS)
    sent = [parse(f)[1] for f in peer.poll(2 * MS)]
    return [(e.kind, e.code) for e in peer.events], sent


def test_bad_replies():
    assert answer(b"HTTP/1.1 400 Bad")[0] == [("bad MPA frame", 0)]
    good = MpaFrame(True, ird=1, ord=2, p2p=True, rtr=frozenset(["write"]))
    events, sent = answer(good.build())
    assert events == [("established", 0)] and sent[-1].payload == build_fpdu(ddp.write(1, 0, b""))
    for change, code in (({"ord": 3}, 0x2006), ({"rtr": frozenset(["read"])}, 0x2007)):
        fields = {"ird": 1, "ord": 2, "p2p": True, "rtr": frozenset(["write"]), **change}
        events, sent = answer(MpaFrame(True, **fields).build())
        assert events == [("terminate sent", code)] and sent[0].payload[20:22] == code.to_bytes(2, "big")
    for bad in (MpaFrame(True, markers=True), MpaFrame(True, rejected=True)):
        events, sent = answer(bad.build())
        assert events == [("rejected", 0)] and sent[-1].flags & RST
    assert answer(MpaFrame(True, revision=7, enhanced=False).build())[0] == [("bad MPA frame", 0)]
    assert answer(good.build()[:18] + b"\x02\x01" + bytes(513))[0] == [("bad MPA frame", 0)]
    assert answer(good.build()[:19]) == ([], [])                 # may still become one


def asked(request, **settings):
    """The MPA reply of a responder with ``settings`` to ``request``, its events, and its QP."""
    peer = Peer(MACS[1], IPS[1])
    peer.listen(9, tcp=TcpSettings(), qp=QpSettings(**settings))
    ends = Ends(MACS[0], MACS[1], IPS[0], IPS[1], 1, 9)
    peer.receive(build(ends, Tcp(99, flags=SYN, window=1000, options=bytes.fromhex("020405b4"))), 0)
    syn = parse(peer.poll(0)[0])[1]
    peer.receive(build(ends, Tcp(100, syn.seq + 1, ACK, 1000, payload=request)), MS)
    stream = b"".join(parse(f)[1].payload for f in peer.poll(MS))
    qp, = peer.qps.values()
    return MpaFrame.parse(stream), [e.kind for e in peer.events], qp


def test_requests():
    reply, events, qp = asked(MpaFrame(False, ird=3, ord=9, crc=False).build(), crc=False, ird=5, ord=7, private=b"me")
    assert (reply.reply, reply.crc, reply.ird, reply.ord, reply.private, reply.p2p) == (True, False, 5, 3, b"me", False)
    assert events == ["established"] and not qp.crc and not qp.gate_open and qp.ord == 3
    reply, _, qp = asked(MpaFrame(False, ird=1, ord=1, crc=True).build(), crc=False)
    assert reply.crc and qp.crc                                  # one side wants it: both have it
    for offered, chosen in ((("write", "read"), "write"), (("read",), "read"), (("send",), "write")):
        reply, _, _ = asked(MpaFrame(False, ird=1, ord=1, p2p=True, rtr=frozenset(offered)).build())
        assert reply.p2p and reply.rtr == {chosen}
    reply, events, _ = asked(MpaFrame(False, revision=1, enhanced=False).build())
    assert (reply.revision, reply.enhanced, events) == (1, False, ["established"])
    for request, settings in ((MpaFrame(False, markers=True), {}), (MpaFrame(False), {"reject": True}),
                              (MpaFrame(False), {"revision": 1})):
        reply, events, qp = asked(request.build(), **settings)   # case 14: no markers here
        assert reply.rejected and not reply.markers and events == ["rejected"] and qp.state is QpState.ERROR
    assert asked(MpaFrame(True).build())[:2] == (None, ["bad MPA frame"])


def test_nobody_listens():
    peer = Peer(MACS[0], IPS[0])
    ends = Ends(MACS[1], MACS[0], IPS[1], IPS[0], 1, 2)
    peer.receive(build(ends, Tcp(10, flags=SYN)), 0)
    peer.receive(build(ends, Tcp(10, 77, ACK)), 0)
    peer.receive(build(ends, Tcp(10, 77, RST)), 0)
    assert [(s.seq, s.ack, s.flags) for _, s in map(parse, peer.poll(0))] == [(0, 11, RST | ACK), (77, 0, RST)]
    peer.receive(build(Ends(1, MACS[0], 1, 3, 1, 1), Tcp(1)), 0)
    peer.receive(build(Ends(MACS[1], 7, IPS[1], IPS[0], 1, 2), Tcp(1)), 0)
    peer.receive(bytes(60), 0)
    assert peer.poll(0) == [] and peer.counts == {"no connection": 3, "for others": 2, "not IPv4": 1}


def test_orderly_close():
    pair = Pair(Impairments(loss=.2, delay=20_000), seed=3)
    there = pair.region(1, 4000)
    pair.qa.post_send("RDMA_WRITE", [pair.region(0, b"\1" * 4000).sge()], remote_addr=there.base, rkey=there.rkey, wr_id=1)
    pair.qa.disconnect()
    pair.qb.post_recv([], wr_id=2)
    pair.run(lambda: pair.qa.tcp.done and pair.qb.tcp.done)
    assert there.data == b"\1" * 4000 and summary(pair.a.poll_cq()) == [(1, "SUCCESS", 4000)]
    assert summary(pair.b.poll_cq()) == [(2, "WR_FLUSH_ERR", 0)]
    assert [e.kind for e in pair.a.events] == [e.kind for e in pair.b.events] == ["fin"]
