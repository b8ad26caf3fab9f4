"""One golden peer against hand-made streams: protocol cases of MPA, DDP and RDMAP, and FPDUs cut anywhere."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emplace_sim import ddp
from emplace_sim.capture import parse_fpdus
from emplace_sim.fpdu import build_fpdu
from emplace_sim.peer import Access, Opcode, Peer, QpSettings, QpState, TcpSettings
from emplace_sim.peer.responder import cmp_swap, fetch_add
from emplace_sim.segment import parse
from emplace_sim.sender import Flow

from .peers import summary


class Bench:
    """A peer's QP and a flow that feeds it: ``feed`` ULPDUs or raw octets; ``sent``: FPDUs that it sent so far."""

    def __init__(self, *, crc=True, extensions=True, initiator=True, seed=1, **fields):
        self.peer = Peer(0x525400000001, 0x0A000001, seed=seed)
        self.flow = Flow(seq=0xFFFFFF00)
        self.pd = self.peer.alloc_pd()
        self.qp = self.peer.establish(self.flow.ends.turned, snd_nxt=self.flow.ack, rcv_nxt=self.flow.seq, pd=self.pd,
                                      initiator=initiator, tcp=TcpSettings(),
                                      qp=QpSettings(crc=crc, extensions=extensions, **fields))
        self.crc, self.now, self.stream = crc, 1000, b""
        self.mr = self.region(4096)

    def region(self, data, access=Access.ALL, pd=None, **more):
        return self.peer.reg_mr(pd or self.pd, data, access, **more)

    def octets(self, octets, cut=1448):
        for at in range(0, len(octets), cut):
            self.frame(self.flow.push(octets[at:at + cut]))

    def frame(self, frame):
        self.now += 1000
        self.peer.receive(frame, self.now)
        self.poll()

    def poll(self):
        for frame in self.peer.poll(self.now):
            self.stream += parse(frame)[1].payload

    def feed(self, *ulpdus):
        for ulpdu in ulpdus:
            self.octets(build_fpdu(ulpdu, self.crc))

    @property
    def sent(self):
        self.poll()
        return parse_fpdus(self.stream)[0]

    @property
    def codes(self):
        """(kind, Terminate code) of each event."""
        return [(e.kind, e.code) for e in self.peer.events]

    def terminated(self, code):
        """It ended the stream with this code, in its event and on the wire, once, and takes nothing more."""
        assert self.codes == [("terminate sent", code)]
        terminates = [f for f in self.sent if f.opcode == ddp.TERMINATE]
        assert len(terminates) == 1 and self.sent[-1] is not None and self.sent[-1].opcode == ddp.TERMINATE
        assert terminates[0].crc_good == self.crc and (terminates[0].qn, terminates[0].msn, terminates[0].mo) == (2, 1, 0)
        assert int.from_bytes(terminates[0].payload[:2], "big") == code
        assert self.qp.state is QpState.TERMINATE
        before = bytes(self.mr.data)
        self.feed(ddp.write(self.mr.rkey, self.mr.base, b"late"))
        assert bytes(self.mr.data) == before and len(self.codes) == 1
        return terminates[0].payload

    def completions(self):
        return summary(self.peer.poll_cq())


@pytest.fixture
def bench():
    return Bench()


# MPA

def mixed(bench):
    """A stream with every tail length and both headers; what it must do to ``bench``."""
    mr, sizes = bench.mr, [0, 1, 2, 3, 4, 5, 30, 1428]
    stream = b""
    for n, size in enumerate(sizes):
        data = bytes((n + k) & 0xFF for k in range(size))
        stream += build_fpdu(ddp.write(mr.rkey, mr.base + 100 * n, data), bench.crc)
        bench.qp.post_recv([bench.inbox.sge(100 * n, 90)], wr_id=n)
        stream += build_fpdu(ddp.send(n + 1, data[:90]), bench.crc)
    source = bench.peer.reg_mr(bench.pd, b"read me")
    stream += build_fpdu(ddp.read_request(1, 5, 6, 7, source.rkey, source.base), bench.crc)
    return stream, sizes


def outcome(bench, sizes):
    for n, size in enumerate(sizes):
        data = bytes((n + k) & 0xFF for k in range(size))
        assert n == len(sizes) - 1 or bench.mr.data[100 * n:100 * n + min(size, 100)] == data[:100]
        assert bench.inbox.data[100 * n:100 * n + min(size, 90)] == data[:90]
    assert bench.completions() == [(n, "SUCCESS", min(size, 90)) for n, size in enumerate(sizes)]
    response = bench.sent[-1]
    assert (response.opcode, response.stag, response.offset, response.payload) == (ddp.READ_RESPONSE, 5, 6, b"read me")
    assert not bench.codes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1448), min_size=1, max_size=400), st.booleans())
def test_case_1_to_5_cut_anywhere(cuts, crc):
    bench = Bench(crc=crc)
    bench.inbox = bench.region(4096)
    stream, sizes = mixed(bench)
    at = 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        bench.frame(bench.flow.push(stream[at:at + size]))
        at += size
    outcome(bench, sizes)


@pytest.mark.parametrize("opcode", ["write", "send", "read"])
def test_case_1_to_3_split_at_every_octet(opcode):
    for at in range(1, 52):
        bench = Bench()
        source = bench.region(b"octets")
        bench.qp.post_recv([bench.mr.sge()], wr_id=1)
        fpdu = build_fpdu({"write": ddp.write(bench.mr.rkey, bench.mr.base, b"HELLO"), "send": ddp.send(1, b"HELLO"),
                           "read": ddp.read_request(1, 1, 2, 6, source.rkey, source.base)}[opcode])
        if at >= len(fpdu):
            return
        bench.octets(fpdu[:at])
        assert not bench.completions() and bench.mr.data[:5] == bytes(5) and not bench.stream
        bench.octets(fpdu[at:])
        if opcode == "read":
            assert bench.sent[0].payload == b"octets"
        else:
            assert bench.mr.data[:6] == b"HELLO\0" and bench.completions() == ([(1, "SUCCESS", 5)] if opcode == "send" else [])


def test_case_5_largest_fpdu():
    bench = Bench()
    large = bench.region(64_754)
    data = bytes(n * 7 & 0xFF for n in range(64_754))
    bench.feed(ddp.write(large.rkey, large.base, data))
    assert large.data == data
    small = Bench(fpdu_max=2048)
    small.feed(ddp.write(small.mr.rkey, small.mr.base, bytes(3000)))
    small.terminated(0x1000)


@pytest.mark.parametrize("pad", [0, 1, 2, 3])
def test_case_6_padding_is_not_looked_at(bench, pad):
    data = bytes(4 - pad)
    bench.octets(build_fpdu(ddp.write(bench.mr.rkey, bench.mr.base, b"\1" * len(data)), pad=b"\xff\xee\xdd"))
    assert bench.mr.data[:5] == (b"\1" * len(data)).ljust(5, b"\0") and not bench.codes


def test_case_7_crc_comes_first(bench):
    fpdu = build_fpdu(ddp.write(0xDEADBEEF, 0, b"HELLO"))
    bench.octets(fpdu[:-1] + bytes([fpdu[-1] ^ 0x80]))
    assert bench.terminated(0x2002)[2:] == bytes(2)          # and quotes nothing


def test_case_8_without_crc():
    bench = Bench(crc=False)
    bench.octets(build_fpdu(ddp.write(bench.mr.rkey, bench.mr.base, b"HELLO"), crc=False)[:-4] + b"abcd")
    assert bench.mr.data[:5] == b"HELLO"
    bench.qp.post_send("SEND", inline=b"x")
    assert bench.sent[0].raw[-4:] == bytes(4)


@pytest.mark.parametrize("length, first", [(0, 0xC1), (1, 0xC1), (13, 0xC1), (17, 0x41), (0, 0x41)])
def test_case_9_impossible_lengths(bench, length, first):
    bench.octets(length.to_bytes(2, "big") + bytes([first, 0x40]) + bytes(60))
    bench.terminated(0x1000)


def test_case_9_longest_length_waits_for_no_more_than_it_says(bench):
    bench.octets(b"\xff\xff\xc1\x40" + bytes(40))
    assert not bench.codes


def test_case_10_ethernet_padding(bench):
    bench.frame(bench.flow.frame() + b"\xa5" * 6)
    fpdu = build_fpdu(ddp.write(bench.mr.rkey, bench.mr.base, b""))
    for part in (fpdu[:3], fpdu[3:]):
        bench.frame(bench.flow.push(part).ljust(60, b"\xa5") + b"\xa5" * 9)
    bench.feed(ddp.write(bench.mr.rkey, bench.mr.base, b"still in step"))
    assert bench.mr.data[:13] == b"still in step" and not bench.codes


# DDP and RDMAP

def test_case_15_zero_length_write(bench):
    bench.feed(ddp.write(0, 2**64 - 1, b""), ddp.write(0x12345678, 5, b""))
    assert not bench.codes and not bench.completions()


def test_case_16_zero_length_read(bench):
    bench.feed(ddp.read_request(1, 7, 8, 0, 0x99999999, 2**64 - 1), ddp.read_request(2, 9, 10, 0, 0, 0))
    assert [(f.opcode, f.stag, f.offset, f.payload, f.last) for f in bench.sent] == \
        [(ddp.READ_RESPONSE, 7, 8, b"", True), (ddp.READ_RESPONSE, 9, 10, b"", True)]


def test_case_17_zero_length_send(bench):
    bench.qp.post_recv([], wr_id=3)
    bench.feed(ddp.send(1, b""))
    assert bench.completions() == [(3, "SUCCESS", 0)]
    bench.feed(ddp.send(2, b""))
    bench.terminated(0x1202)


def test_case_18_empty_last_segment(bench):
    bench.qp.post_recv([bench.mr.sge(0, 5)], wr_id=3)
    bench.feed(ddp.send(1, b"HELLO", last=False))
    assert not bench.completions()
    bench.feed(ddp.send(1, b"", mo=5))
    assert bench.completions() == [(3, "SUCCESS", 5)] and bench.mr.data[:5] == b"HELLO"


@pytest.mark.parametrize("msns", [(3,), (0,), (1, 1), (1, 3)])
def test_case_19_msn(bench, msns):
    for n in range(4):
        bench.qp.post_recv([bench.mr.sge(16 * n, 16)])
    bench.feed(*(ddp.send(msn, b"x") for msn in msns))
    good = len(msns) - 1
    assert bench.mr.data[16 * good:] == bytes(4096 - 16 * good)
    bench.terminated(0x1203)


def test_case_20_msn_wraps(bench):
    source = bench.region(b"abc")
    bench.qp.responder.msn.update({0: 0xFFFFFFFF, 1: 0xFFFFFFFF})
    for n in range(2):
        bench.qp.post_recv([bench.mr.sge()], wr_id=n)
    bench.feed(ddp.send(0xFFFFFFFF, b"a"), ddp.send(0, b"b"),
               *(ddp.read_request(msn, 1, 2, 3, source.rkey, source.base) for msn in (0xFFFFFFFF, 0)))
    assert bench.completions() == [(0, "SUCCESS", 1), (1, "SUCCESS", 1)] and len(bench.sent) == 2 and not bench.codes


@pytest.mark.parametrize("mo", [0, 4, 6])
def test_case_21_mo(bench, mo):
    bench.qp.post_recv([bench.mr.sge()])
    bench.feed(ddp.send(1, b"HELLO", last=False), ddp.send(1, b"world", mo=mo))
    assert bench.mr.data[:10] == b"HELLO".ljust(10, b"\0")
    bench.terminated(0x1204)


def test_case_22_scatter(bench):
    sges = [bench.mr.sge(0, 3), bench.mr.sge(500, 0), bench.mr.sge(100, 4), bench.mr.sge(200, 5)]
    for n in range(2):
        bench.qp.post_recv(sges, wr_id=n)
    bench.feed(ddp.send(1, b"abcdefg", last=False), ddp.send(1, b"hijkl", mo=7))
    assert (bench.mr.data[:4], bench.mr.data[100:105], bench.mr.data[200:206]) == (b"abc\0", b"defg\0", b"hijkl\0")
    assert bench.completions() == [(0, "SUCCESS", 12)]
    bench.feed(ddp.send(2, b"0123456789012"))
    assert bench.completions() == [(1, "LOC_LEN_ERR", 0)] and bench.mr.data[205] == 0
    bench.terminated(0x1205)


def test_case_22_too_long_by_its_second_segment(bench):
    bench.qp.post_recv([bench.mr.sge(0, 12)], wr_id=1)
    bench.feed(ddp.send(1, b"abcdefg", last=False), ddp.send(1, b"hijklm", mo=7))
    assert bench.completions() == [(1, "LOC_LEN_ERR", 0)] and bench.mr.data[:13] == b"abcdefg".ljust(13, b"\0")
    bench.terminated(0x1205)


def test_receive_elements_are_checked(bench):
    mine = bench.region(64, Access.REMOTE_WRITE)
    bench.qp.post_recv([bench.mr.sge(0, 4), mine.sge(0, 4)], wr_id=1)
    bench.feed(ddp.send(1, b"12345"))
    assert mine.data == bytes(64) and bench.completions() == [(1, "LOC_PROT_ERR", 0)]
    bench.terminated(0x1000)


@pytest.mark.parametrize("to, size, code", [
    (0, 16, None), (4080, 16, None), (4081, 16, 0x1101), (-1, 16, 0x1101), (4096, 1, 0x1101)])
def test_case_23_bounds(bench, to, size, code):
    bench.feed(ddp.write(bench.mr.rkey, bench.mr.base + to, b"\1" * size))
    if code is None:
        assert bench.mr.data.count(1) == size and not bench.codes
    else:
        assert bench.mr.data.count(1) == 0
        payload = bench.terminated(code)
        assert payload[2:4] == b"\xc0\0" and payload[6:20] == ddp.write(bench.mr.rkey, bench.mr.base + to, b"")


def test_case_23_top_of_the_address_space(bench):
    top = bench.region(16, base=2**64 - 16)
    bench.feed(ddp.write(top.rkey, 2**64 - 16, b"\2" * 16))
    assert top.data == b"\2" * 16
    bench.feed(ddp.write(top.rkey, 2**64 - 1, b"\3\3"))
    assert top.data == b"\2" * 16
    bench.terminated(0x1103)


def test_case_24_invalidated_between_segments(bench):
    bench.feed(ddp.write(bench.mr.rkey, bench.mr.base, b"one", last=False))
    bench.qp.post_send(Opcode.LOCAL_INV, invalidate_rkey=bench.mr.rkey, wr_id=9)
    bench.poll()
    assert bench.completions() == [(9, "SUCCESS", 0)]
    bench.feed(ddp.write(bench.mr.rkey, bench.mr.base + 3, b"two"))
    assert bench.mr.data[:6] == b"one\0\0\0"
    bench.terminated(0x1100)


def test_case_25_keys_and_domains(bench):
    old = bench.mr.rkey
    bench.peer.dereg_mr(bench.mr)
    again = bench.region(64, stag=old ^ 0xFF, base=bench.mr.base)
    bench.feed(ddp.write(old, bench.mr.base, b"x"))
    assert again.data == bytes(64)
    bench.terminated(0x1100)
    for pd, access, code in ((77, Access.ALL, 0x1102), (None, Access.LOCAL_WRITE | Access.REMOTE_READ, 0x0102)):
        other = Bench()
        region = other.region(64, access, pd)
        other.feed(ddp.write(region.rkey, region.base, b"x"))
        assert region.data == bytes(64)
        other.terminated(code)


@pytest.mark.parametrize("kind, code", [("valid", None), ("invalid", None), ("pd", 0x0109), ("unknown", 0x0209),
                                        ("access", 0x0102)])
def test_case_26_send_with_invalidate(bench, kind, code):
    region = bench.region(64, Access.ALL & ~Access.REMOTE_INVALIDATE if kind == "access" else Access.ALL,
                          99 if kind == "pd" else None)
    region.valid = kind != "invalid"
    bench.qp.post_recv([bench.mr.sge()], wr_id=4)
    key = 0x01020304 if kind == "unknown" else region.rkey
    bench.feed(ddp.send(1, b"bye", invalidate=key, solicited=True))
    found, = bench.peer.poll_cq()
    if code is None:
        assert (found.status.name, found.invalidated, found.solicited) == ("SUCCESS", key, True) and not region.valid
        bench.feed(ddp.write(key, region.base, b"x"))        # right behind it
        assert region.data == bytes(64)
        bench.terminated(0x1100)
    else:
        assert (found.status.name, found.invalidated) == ("REM_INV_REQ_ERR", None) and region.valid
        bench.terminated(code)


def reading(bench, size=8, **fields):
    bench.sink = bench.region(64)
    bench.qp.post_send("RDMA_READ", [bench.sink.sge(0, size)], remote_addr=1, rkey=2, wr_id=5, **fields)
    bench.poll()


@pytest.mark.parametrize("what, code", [
    ("empty ORQ", 0x0206), ("STag", 0x1100), ("TO", 0x1101), ("short", 0x1101), ("long", 0x1101), ("disguised", 0x1100),
    ("taken away", 0x1000)])
def test_case_27_28_responses(bench, what, code):
    if what != "empty ORQ":
        reading(bench)
    stag, to = (bench.sink.lkey, bench.sink.base) if what != "empty ORQ" else (bench.mr.lkey, bench.mr.base)
    if what == "taken away":
        bench.sink.valid = False
    bench.feed({"empty ORQ": ddp.read_response(stag, to, b"\1" * 8), "STag": ddp.read_response(stag ^ 1, to, b"\1" * 8),
                "TO": ddp.read_response(stag, to + 1, b"\1" * 8), "short": ddp.read_response(stag, to, b"\1" * 7),
                "long": ddp.read_response(stag, to, b"\1" * 9), "taken away": ddp.read_response(stag, to, b"\1" * 8),
                "disguised": ddp.read_response(bench.mr.rkey, bench.mr.base, b"\1" * 8)}[what])
    assert bench.mr.data.count(1) == 0 and (what == "empty ORQ" or what == "short" or bench.sink.data.count(1) == 0)
    bench.terminated(code)
    assert bench.completions() == ([] if what == "empty ORQ" else [(5, "WR_FLUSH_ERR", 0)])


def test_a_good_response(bench):
    reading(bench)
    bench.feed(ddp.read_response(bench.sink.lkey, bench.sink.base, b"1234", last=False))
    assert not bench.completions()
    bench.feed(ddp.read_response(bench.sink.lkey, bench.sink.base + 4, b"5678"))
    assert bench.completions() == [(5, "SUCCESS", 8)] and bench.sink.data[:9] == b"12345678\0"
    assert bench.sent[0].payload == struct.pack(">IQIIQ", bench.sink.lkey, bench.sink.base, 8, 2, 1)


def test_case_29_overflow():
    bench = Bench(ird=2)
    source = bench.region(bytes(range(200)))
    fpdus = b"".join(build_fpdu(ddp.read_request(n + 1, 1, n, 10, source.rkey, source.base + n)) for n in range(3))
    bench.octets(fpdus)                                      # in one segment
    assert [f.payload for f in bench.sent[:2]] == [bytes(range(10)), bytes(range(1, 11))]
    bench.terminated(0x1202)
    exact = Bench(ird=3)
    source = exact.region(bytes(range(200)))
    exact.octets(b"".join(build_fpdu(ddp.read_request(n + 1, 1, n, 10, source.rkey, source.base + n)) for n in range(3)))
    assert len(exact.sent) == 3 and not exact.codes


@pytest.mark.parametrize("change, code", [("stag", 0x0100), ("pd", 0x0103), ("access", 0x0102), ("wrap", 0x0104),
                                          ("bounds", 0x0101)])
def test_case_30_bad_read_behind_good_ones(bench, change, code):
    good = bench.region(bytes(range(100)))
    access = Access.ALL & ~Access.REMOTE_READ if change == "access" else Access.ALL
    bad = bench.region(64, access, 88 if change == "pd" else None, base=2**64 - 64)
    request = ddp.read_request(3, 1, 2, 65 if change == "bounds" else 8, bad.rkey ^ (change == "stag"),
                               2**64 - 4 if change == "wrap" else bad.base - (change == "bounds"))
    bench.octets(b"".join(map(build_fpdu, (ddp.read_request(1, 1, 0, 50, good.rkey, good.base),
                                           ddp.read_request(2, 1, 50, 50, good.rkey, good.base + 50), request,
                                           ddp.write(bench.mr.rkey, bench.mr.base, b"dropped")))))
    assert [f.payload for f in bench.sent[:2]] == [bytes(range(50)), bytes(range(50, 100))] and bench.mr.data[:7] == bytes(7)
    payload = bench.terminated(code)
    assert payload[2:4] == b"\xe0\0" and payload[6:] == request


def test_case_31_taken_away_halfway():
    bench = Bench(ahead=1)                                   # framed as it is sent
    source = bench.region(bytes(10_000))
    bench.flow.window = 12                                   # 1,536 octets: one FPDU
    bench.octets(build_fpdu(ddp.read_request(1, 1, 1000, 10_000, source.rkey, source.base)))
    assert len(bench.sent) == 1
    bench.peer.dereg_mr(source)
    bench.flow.window, bench.flow.ack = 0x400, bench.flow.ack + len(bench.stream)
    bench.frame(bench.flow.frame())
    framed = sum(len(f.payload) for f in bench.sent if f.opcode == ddp.READ_RESPONSE)
    payload = bench.terminated(0x0100)
    assert 0 < framed < 10_000 and payload[2:4] == b"\xe0\0"
    assert struct.unpack(">IQIIQ", payload[-28:]) == (1, 1000 + framed, 10_000 - framed, source.rkey, source.base + framed)
    huge = Bench()
    huge.feed(ddp.read_request(1, 1, 2, 2**32 - 1, huge.mr.rkey, huge.mr.base))
    huge.terminated(0x0101)


def test_case_33_read_sees_earlier_writes(bench):
    bench.octets(b"".join(map(build_fpdu, (ddp.write(bench.mr.rkey, bench.mr.base, b"new"),
                                           ddp.read_request(1, 1, 2, 3, bench.mr.rkey, bench.mr.base)))))
    assert bench.sent[0].payload == b"new"


@pytest.mark.parametrize("second", ["response", "other STag", "send mix"])
def test_case_34_messages_mixed(bench, second):
    reading(bench)
    other = bench.region(64)
    bench.qp.post_recv([bench.mr.sge()])
    if second == "send mix":
        bench.feed(ddp.send(1, b"a", last=False), ddp.send(1, b"b", mo=1, solicited=True))
    else:
        bench.feed(ddp.write(bench.mr.rkey, bench.mr.base, b"x", last=False))
        bench.feed(ddp.read_response(bench.sink.lkey, bench.sink.base, bytes(8)) if second == "response" else
                   ddp.write(other.rkey, other.base, b"y"))
    bench.terminated(0x0206)


def test_a_write_may_interleave_with_a_send(bench):
    bench.qp.post_recv([bench.mr.sge(100, 10)], wr_id=1)
    bench.feed(ddp.send(1, b"ab", last=False), ddp.write(bench.mr.rkey, bench.mr.base, b"x", last=False),
               ddp.send(1, b"cd", mo=2), ddp.write(bench.mr.rkey, bench.mr.base + 1, b"y"))
    assert bench.completions() == [(1, "SUCCESS", 4)] and bench.mr.data[:2] == b"xy" and bench.mr.data[100:104] == b"abcd"


@pytest.mark.parametrize("ulpdu, extensions, code", [
    (ddp.untagged(ddp.IMMEDIATE, 1, bytes(8)), False, 0x0206), (ddp.untagged(12, 1), True, 0x0206),
    (ddp.untagged(15, 1), True, 0x0206), (ddp.tagged(ddp.SEND, 1, 0), True, 0x0206),
    (ddp.untagged(ddp.WRITE, 1, b"1234"), True, 0x0206), (ddp.untagged(ddp.SEND, 1, qn=3), False, 0x1201),
    (ddp.untagged(ddp.SEND, 1, qn=0xFFFFFFFF), True, 0x1201),
    (ddp.untagged(ddp.READ_REQUEST, 1, bytes(28), qn=0), True, 0x1201),
    (ddp.untagged(ddp.SEND, 1, dv=0), True, 0x1206), (ddp.tagged(ddp.WRITE, 1, 0, dv=2), True, 0x1104),
    (ddp.untagged(ddp.SEND, 1, rv=0), True, 0x0205), (ddp.untagged(ddp.READ_REQUEST, 1, bytes(29)), True, 0x1205),
    (ddp.untagged(ddp.READ_REQUEST, 1, bytes(28), last=False), True, 0x02FF),
    (ddp.untagged(ddp.READ_REQUEST, 1, bytes(27)), True, 0x02FF), (ddp.untagged(ddp.IMMEDIATE, 1, bytes(7)), True, 0x02FF),
    (ddp.untagged(ddp.READ_REQUEST, 1, bytes(28), mo=4), True, 0x1204), (ddp.atomic_response(1, 7, 41), True, 0x0206),
    (ddp.untagged(ddp.TERMINATE, 2, bytes(4)), True, 0x1203),
])
def test_case_35_headers(ulpdu, extensions, code):
    bench = Bench(extensions=extensions)
    bench.qp.post_recv([bench.mr.sge()])
    bench.feed(ulpdu)
    payload = bench.terminated(code)
    assert payload[2] == (0 if code in (0x1104, 0x1206) else 0xC0)


@pytest.mark.parametrize("code", [0x1101, 0x2102, 0x0102])
def test_case_36_terminate(bench, code):
    bench.qp.post_recv([bench.mr.sge()], wr_id=1)
    reading(bench)
    bench.qp.post_send("SEND", inline=b"x", wr_id=6, signaled=False)
    bench.poll()
    before = len(bench.sent)
    bench.feed(ddp.send(1, b"part", last=False), ddp.terminate(code), ddp.terminate(code))
    assert bench.codes == [("terminate received", code)] and len(bench.sent) == before       # never answered
    reads = "REM_ACCESS_ERR" if code >> 8 in (0x01, 0x11) else "REM_OP_ERR"
    assert bench.completions() == [(5, reads, 0), (6, "WR_FLUSH_ERR", 0), (1, "WR_FLUSH_ERR", 0)]
    assert "0x1202" in bench.peer.events[0].detail if code == 0x2102 else True
    bench.qp.post_send("SEND", inline=b"y", wr_id=7)
    bench.qp.post_recv([], wr_id=8)
    assert bench.completions() == [(7, "WR_FLUSH_ERR", 0), (8, "WR_FLUSH_ERR", 0)]


def test_case_37_the_first_error_counts(bench):
    bench.octets(b"".join(map(build_fpdu, (ddp.write(1, 0, b"x"), ddp.send(9, b"y"),
                                           ddp.write(bench.mr.rkey, bench.mr.base, b"good")))))
    assert bench.mr.data[:4] == bytes(4)
    bench.terminated(0x1100)


def test_case_38_terminate_behind_whole_fpdus(bench):
    bench.qp.post_send("RDMA_WRITE", [bench.mr.sge()], remote_addr=1, rkey=2, wr_id=1)
    bench.qp.post_send("SEND", [bench.region(64, pd=5).sge()], wr_id=2)
    bench.qp.post_send("SEND", inline=b"z", wr_id=3)
    fpdus = bench.sent
    assert [f.opcode for f in fpdus] == [ddp.WRITE] * 3 + [ddp.TERMINATE] and all(f.crc_good for f in fpdus)
    assert bench.completions() == [(2, "LOC_PROT_ERR", 0), (1, "WR_FLUSH_ERR", 0), (3, "WR_FLUSH_ERR", 0)]
    assert bench.codes == [("terminate sent", 0)]


# Atomics, Immediate Data (RFC 7306)

def test_atomics(bench):
    region = bench.region((41).to_bytes(16, "little"), base=0x7000)
    full = 2**64 - 1
    bench.feed(ddp.atomic_request(1, 7, ddp.FETCH_ADD, region.rkey, 0x7000, 1, 0),
               ddp.atomic_request(2, 8, ddp.CMP_SWAP, region.rkey, 0x7000, 0x55, full, 42, full),
               ddp.atomic_request(3, 9, ddp.CMP_SWAP, region.rkey, 0x7000, 0x66, full, 42, full))
    assert [(f.qn, f.msn, f.payload) for f in bench.sent] == \
        [(3, n + 1, struct.pack(">IQ", 7 + n, value)) for n, value in enumerate((41, 42, 0x55))]
    assert int.from_bytes(region.data, "little") == 0x55
    bench.feed(ddp.atomic_request(4, 1, ddp.FETCH_ADD, region.rkey, 0x7004, 1, 0))
    bench.terminated(0x02FF)
    other = Bench()
    region = other.region(8, Access.REMOTE_WRITE | Access.REMOTE_READ, base=0x7000)
    other.feed(ddp.atomic_request(1, 1, ddp.FETCH_ADD, region.rkey, 0x7000, 1, 0))
    assert region.data == bytes(8)
    other.terminated(0x0102)


def test_an_atomic_beyond_ird_does_nothing():
    bench = Bench(ird=1)
    region = bench.region(8, base=0x7000)
    bench.octets(b"".join(build_fpdu(ddp.atomic_request(n, n, ddp.FETCH_ADD, region.rkey, 0x7000, 1, 0)) for n in (1, 2)))
    assert region.data[0] == 1 and bench.sent[0].payload == struct.pack(">IQ", 1, 0)
    bench.terminated(0x1202)


@pytest.mark.parametrize("what, code", [("good", None), ("taken away", 0x1000), ("other id", 0x0206), ("a Read's", 0x0206)])
def test_atomic_responses(bench, what, code):
    sink = bench.region(8)
    bench.qp.post_send(Opcode.ATOMIC_FETCH_AND_ADD, [sink.sge()], compare_add=3, remote_addr=8, rkey=9, wr_id=1)
    assert bench.sent[0].payload == struct.pack(">IIIQQQQQ", 0, 1, 9, 8, 3, 0, 0, 0)
    sink.valid = what != "taken away"
    bench.feed(ddp.read_response(sink.lkey, sink.base, bytes(8)) if what == "a Read's" else
               ddp.atomic_response(1, 2 if what == "other id" else 1, 0x1122334455667788))
    if code is None:
        assert sink.data == bytes.fromhex("8877665544332211") and bench.completions() == [(1, "SUCCESS", 8)]
    else:
        assert sink.data == bytes(8) and bench.completions() == [(1, "WR_FLUSH_ERR", 0)]
        bench.terminated(code)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_masks(value, operand, mask, compare):
    assert fetch_add(value, operand, 0) == (value + operand) % 2**64
    assert fetch_add(value, operand, 2**64 - 1) == value ^ operand
    halves = fetch_add(value, operand, 1 << 31)
    assert halves & 0xFFFFFFFF == (value + operand) & 0xFFFFFFFF
    assert halves >> 32 == ((value >> 32) + (operand >> 32)) & 0xFFFFFFFF
    assert cmp_swap(value, compare, 0, operand, mask) == (value & ~mask) | (operand & mask)
    assert cmp_swap(value, value ^ 1, 2**64 - 1, operand, mask) == value


def test_immediate(bench):
    bench.qp.post_recv([], wr_id=1)
    bench.qp.post_recv([bench.mr.sge()], wr_id=2)
    bench.feed(ddp.write(bench.mr.rkey, bench.mr.base, b"data"), ddp.immediate(1, b"12345678", solicited=True),
               ddp.send(2, b"x"))
    first, second = bench.peer.poll_cq()
    assert (first.wr_id, first.immediate, first.solicited, first.byte_len) == (1, b"12345678", True, 0)
    assert (second.wr_id, second.immediate) == (2, None)


# What it sends

def test_segmentation(bench):
    source = bench.region(bytes(n & 0xFF for n in range(4000)))
    bench.qp.post_send("SEND", [source.sge()], wr_id=1)
    bench.qp.post_send("RDMA_WRITE", [source.sge(0, 1428)], rkey=9, remote_addr=2**32 - 1, wr_id=2)
    bench.qp.post_send("RDMA_WRITE", [], rkey=9, remote_addr=5)
    sends = bench.sent[:3]
    assert [(f.mo, len(f.payload), f.last, f.msn) for f in sends] == \
        [(0, 1424, False, 1), (1424, 1424, False, 1), (2848, 1152, True, 1)]
    assert [(f.offset, len(f.payload), f.last) for f in bench.sent[3:]] == [(2**32 - 1, 1428, True), (5, 0, True)]
    bench.flow.ack += len(bench.stream) - 1
    bench.frame(bench.flow.frame())
    assert bench.completions() == [(1, "SUCCESS", 4000), (2, "SUCCESS", 1428)]       # the last octet is still missing
    bench.flow.ack += 1
    bench.frame(bench.flow.frame())
    assert bench.completions() == [(0, "SUCCESS", 0)]


def test_fences_and_ord():
    bench = Bench(ord=1)
    reading(bench)
    bench.qp.post_send("RDMA_READ", [bench.sink.sge(8, 8)], remote_addr=1, rkey=2, wr_id=6)       # waits for ORD
    assert len(bench.sent) == 1
    bench.feed(ddp.read_response(bench.sink.lkey, bench.sink.base, bytes(8)))
    assert len(bench.sent) == 2
    bench.qp.post_send("SEND", inline=b"x", wr_id=7)
    bench.qp.post_send("SEND", inline=b"y", wr_id=8, fence=True)
    assert [f.opcode for f in bench.sent] == [ddp.READ_REQUEST, ddp.READ_REQUEST, ddp.SEND]
    bench.feed(ddp.read_response(bench.sink.lkey, bench.sink.base + 8, bytes(8)))
    assert bench.sent[-1].payload == b"y"
    bench.qp.post_send("SEND", inline=b"z", wr_id=9, local_fence=True)
    assert bench.sent[-1].payload == b"y"
    bench.flow.ack += len(bench.stream)
    bench.frame(bench.flow.frame())
    assert parse_fpdus(bench.stream)[0][-1].payload == b"z"   # at once: what has retired lets it go
    assert bench.completions() == [(n, "SUCCESS", 8 if n < 7 else 1) for n in (5, 6, 7, 8)]
    with pytest.raises(ValueError, match="ORD"):
        Bench(ord=0).qp.post_send("RDMA_READ", [bench.sink.sge(0, 1)])
    with pytest.raises(ValueError, match="sink"):
        bench.qp.post_send("RDMA_READ", [])


def test_answers_and_requests_take_turns(bench):
    source = bench.region(b"octets")
    for n in range(3):
        bench.qp.post_send("SEND", inline=bytes([n]))
    bench.octets(b"".join(build_fpdu(ddp.read_request(n, 1, 2, 6, source.rkey, source.base)) for n in (1, 2, 3)))
    assert [f.opcode for f in bench.sent] == [ddp.READ_RESPONSE, ddp.SEND] * 3


@pytest.mark.parametrize("opcode", [Opcode.RDMA_READ, Opcode.ATOMIC_CMP_AND_SWP])
def test_sinks_are_checked_before_anything_is_asked(bench, opcode):
    sink = bench.region(8, Access.REMOTE_WRITE)
    bench.qp.post_send(opcode, [sink.sge()], remote_addr=8, rkey=9, wr_id=1)
    assert [f.opcode for f in bench.sent] == [ddp.TERMINATE] and bench.completions() == [(1, "LOC_PROT_ERR", 0)]


def test_read_with_invalidate(bench):
    sink = bench.region(8)
    bench.qp.post_send(Opcode.RDMA_READ_WITH_INV, [sink.sge()], remote_addr=1, rkey=2, wr_id=1)
    bench.poll()
    bench.feed(ddp.read_response(sink.lkey, sink.base, b"12345678"))
    assert sink.data == b"12345678" and not sink.valid and bench.completions() == [(1, "SUCCESS", 8)]


def test_case_13_gate():
    bench = Bench(initiator=False)
    bench.qp.post_send("SEND", inline=b"early")
    assert bench.sent == []
    bench.feed(ddp.write(1, 0, b""))
    assert [f.payload for f in bench.sent] == [b"early"]
    eager = Bench(initiator=False)
    eager.qp.faults.ignore_gate = True
    eager.qp.post_send("SEND", inline=b"early")
    assert len(eager.sent) == 1


def test_hooks(bench):
    faults = bench.qp.faults
    faults.bad_crc = 1
    bench.qp.post_send("SEND", inline=b"1")
    bench.poll()
    faults.msn_skip = 2
    bench.qp.post_send("SEND", inline=b"2")
    bench.qp.post_send("SEND", inline=b"3")
    bench.poll()
    faults.ulpdu = lambda ulpdu: ulpdu[:-1] + b"!"
    bench.qp.post_send("SEND", inline=b"4")
    bench.poll()
    faults.ulpdu, faults.fpdu = None, lambda fpdu: fpdu + b"\0\0"
    bench.qp.post_send("SEND", inline=b"5")
    bench.poll()
    assert [(f.crc_good, f.msn, f.payload) for f in bench.sent] == \
        [(False, 1, b"1"), (True, 4, b"2"), (True, 5, b"3"), (True, 6, b"!"), (True, 7, b"5")]
    assert bench.stream.endswith(b"\0\0")
    other = Bench(ord=1)
    other.qp.faults.repeat_reads = 1
    other.qp.faults.extra_reads = 1
    reading(other)
    other.qp.post_send("RDMA_READ", [other.sink.sge(8, 8)], remote_addr=1, rkey=2)
    assert [(f.opcode, f.msn) for f in other.sent] == [(ddp.READ_REQUEST, n) for n in (1, 2, 3)]
    other.qp.faults.wrong_response_to = 1
    other.feed(ddp.read_request(1, 5, 100, 4, other.mr.rkey, other.mr.base))
    assert other.sent[-1].offset == 104
