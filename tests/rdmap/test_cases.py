"""The protocol's tricky cases (numbers are those of the list that the project works from), and the tokens."""

import pytest

from emplace.abi import Access, Reason, Status, WcStatus
from emplace.control.records import TokenOp
from emplace_sim.rdmap_model import (
    READ_RESPONSE,
    SEND,
    SEND_INVALIDATE,
    SEND_SE,
    SEND_SE_INVALIDATE,
    WRITE,
    Region,
    read_request,
    tagged,
    untagged,
)

from .harness import BASE, Bench, region

A, B, OTHER_PD, READ_ONLY = 0xA101, 0xA202, 0xA303, 0xA404
REGIONS = [region(A), region(B), region(OTHER_PD, pd=2), region(READ_ONLY, access=Access.REMOTE_READ)]


def bench(**kw):
    return Bench(REGIONS, **kw).install(3)


def placed(b):
    return [effect[1:] for effect in b.effects if effect[0] == "place"]


def cqes(b):
    return [effect[2] for effect in b.effects if effect[0] == "cqe"]


def died(b):
    return [reason for _, reason in b.died]


def test_case_15_zero_length_write_is_not_looked_at():
    b = bench().ulpdu(tagged(WRITE, 0, 0)).ulpdu(tagged(WRITE, 0xBAD, 2**64 - 1)).ulpdu(tagged(WRITE, OTHER_PD, 5))
    b.ulpdu(tagged(WRITE, A, BASE, b"abc", last=False)).ulpdu(tagged(WRITE, 0xBAD, 0)).ulpdu(tagged(WRITE, B, BASE, b"d"))
    b.ulpdu(tagged(WRITE, 0xBAD, 0, last=False)).ulpdu(tagged(WRITE, A, BASE, b"e")).ulpdu(untagged(SEND, 9)).run()
    assert died(b) == [Reason.MSN] and not cqes(b)
    assert placed(b) == [(A, BASE, b"abc"), (B, BASE, b"d"), (A, BASE, b"e")] and b.counts["rx_writes"] == 8


def test_case_17_zero_length_send():
    b = bench().post(3, 7, (BASE, 0, 0xBAD)).ulpdu(untagged(SEND, 1), claimed=True).ulpdu(untagged(SEND, 2)).run()
    assert [(c["wqe_index"], c["byte_len"], c["status"]) for c in cqes(b)] == [(7, 0, WcStatus.SUCCESS)]
    assert died(b) == [Reason.NO_BUFFER]


def test_case_18_send_ended_by_an_empty_segment():
    b = bench().post(3, 7, (BASE, 5, A)).ulpdu(untagged(SEND, 1, b"abcde", last=False), claimed=True)
    b.ulpdu(untagged(SEND, 1, mo=5)).run()
    assert placed(b) == [(A, BASE, b"abcde")] and [c["byte_len"] for c in cqes(b)] == [5] and not b.died


@pytest.mark.parametrize("first, second", [(1, 3), (1, 1), (0, None)])
def test_case_19_msn_skipped_repeated_or_zero(first, second):
    b = bench()
    for msn in (first, second):
        if msn is not None:
            b.post(3, msn, (BASE, 9, A)).ulpdu(untagged(SEND, msn, b"m%d" % msn), claimed=True)
    b.run()
    assert died(b) == [Reason.MSN] and placed(b) == ([(A, BASE, b"m1")] if first else [])


def test_case_20_msn_wraps():
    b = Bench(REGIONS).install(3, recv_msn=0xFFFFFFFF, recv_read_msn=0xFFFFFFFF)
    for msn in (0xFFFFFFFF, 0, 1):
        b.post(3, msn & 7, (BASE, 9, A)).ulpdu(untagged(SEND, msn, b"x"), claimed=True).ulpdu(read_request(msn))
    b.run()
    assert not b.died and len(cqes(b)) == 3 and b.counts["rx_read_requests"] == 3


@pytest.mark.parametrize("mo", [0, 3, 5, 0xFFFFFFFF])
def test_case_21_mo_jumps(mo):
    b = bench().post(3, 0, (BASE, 64, A)).ulpdu(untagged(SEND, 1, b"abcd", last=False), claimed=True)
    b.ulpdu(untagged(SEND, 1, b"efgh", mo=mo)).run()
    assert died(b) == [Reason.MO] and placed(b) == [(A, BASE, b"abcd")]


@pytest.mark.parametrize("cuts", [(20,), (1, 19), (8, 12), (7, 1, 12), (10, 10)])
def test_case_22_send_exactly_filling_four_sges(cuts):
    """One of them empty, one of one octet; then one octet more than they hold."""
    sges = [(BASE, 8, A), (1, 0, 0xBAD), (BASE + 0x1FFF, 1, B), (BASE + 0xFF8, 11, A)]     # the last over a page end
    data = bytes(range(20))
    b = bench().post(3, 5, *sges).post(3, 6, *sges)
    for msn, extra in ((1, b""), (2, b"!")):
        at = 0
        for cut in cuts:
            last = at + cut == 20
            b.ulpdu(untagged(SEND, msn, data[at:at + cut] + extra * last, mo=at, last=last), claimed=at == 0)
            at += cut
    b.run()
    everything = [(A, BASE, data[:8]), (B, BASE + 0x1FFF, data[8:9]), (A, BASE + 0xFF8, data[9:])]
    assert placed(b)[:3] == everything
    assert died(b) == [Reason.TOO_LONG]
    assert [(c["wqe_index"], c["status"], c["byte_len"]) for c in cqes(b)] == [
        (5, WcStatus.SUCCESS, 20), (6, WcStatus.LOC_LEN_ERR, 0)]
    # Of the message that is too long, no octet of the segment that is.
    assert sum(len(p[2]) for p in placed(b)[3:]) == 20 - cuts[-1]


@pytest.mark.parametrize("to, length, reason", [
    (BASE, 16, None), (BASE + 0x3FF0, 16, None), (BASE + 0x3FF1, 16, Reason.BOUNDS), (BASE + 0x4000, 1, Reason.BOUNDS),
    (BASE - 1, 1, Reason.BOUNDS), (2**64 - 16, 16, Reason.BOUNDS), (2**64 - 15, 16, Reason.TO_WRAP),
])
def test_case_23_bounds_of_a_write(to, length, reason):
    b = bench().ulpdu(tagged(WRITE, A, to, b"x" * length)).run()
    assert died(b) == ([reason] if reason else [])
    assert placed(b) == ([] if reason else [(A, to, b"x" * length)])


def test_case_23_write_up_to_the_end_of_the_address_space():
    top = Region(A, 1, Access.REMOTE_WRITE, 2**64 - 4096, 4096, 4096, [0x8000])
    b = Bench([top]).install(3).ulpdu(tagged(WRITE, A, 2**64 - 16, b"y" * 16)).run()
    assert placed(b) == [(A, 2**64 - 16, b"y" * 16)] and not b.died


def test_case_25_stag_of_another_domain_old_key_and_no_right():
    for stag, reason in ((A ^ 0x80, Reason.STAG), (OTHER_PD, Reason.STAG_PD), (READ_ONLY, Reason.STAG_ACCESS)):
        b = bench().ulpdu(tagged(WRITE, stag, BASE, b"x")).run()
        assert died(b) == [reason] and not placed(b)


def test_case_26_invalidated_stag_is_dead_for_the_write_right_behind():
    for opcode in (SEND_INVALIDATE, SEND_SE_INVALIDATE):
        b = Bench(REGIONS, grant_latency=9).install(3).post(3, 1, (BASE, 9, B))
        b.ulpdu(tagged(WRITE, A, BASE, b"before")).ulpdu(untagged(opcode, 1, b"m", stag=A), claimed=True)
        b.ulpdu(tagged(WRITE, A, BASE, b"behind")).run()
        assert placed(b) == [(A, BASE, b"before"), (B, BASE, b"m")] and died(b) == [Reason.STAG]
        assert [(c["with_inv"], c["invalidated"], c["solicited"]) for c in cqes(b)] == [
            (1, A, int(opcode == SEND_SE_INVALIDATE))]


def test_case_27_responses_in_turn():
    """Two reads outstanding: the first in three segments, then an empty one, then the second."""
    b = bench().expect_read(3, A, BASE, 10, 0xFFFF).expect_read(3, B, BASE + 8, 0, 2).expect_read(3, B, BASE + 8, 4, 3)
    b.ulpdu(tagged(READ_RESPONSE, A, BASE, b"0123", last=False)).ulpdu(tagged(READ_RESPONSE, 0, 0, last=False))
    b.ulpdu(tagged(READ_RESPONSE, A, BASE + 4, b"456789", last=False)).ulpdu(tagged(READ_RESPONSE, 9, 9))
    b.ulpdu(tagged(READ_RESPONSE, 1, 0)).ulpdu(tagged(READ_RESPONSE, B, BASE + 8, b"abcd")).run()
    assert placed(b) == [(A, BASE, b"0123456789"), (B, BASE + 8, b"abcd")] and not b.died
    assert [(c["wqe_index"], c["byte_len"]) for c in cqes(b)] == [(0xFFFF, 10), (2, 0), (3, 4)]


def test_case_28_response_as_a_disguised_write():
    b = bench().ulpdu(tagged(READ_RESPONSE, A, BASE, b"sneaky")).run()
    assert died(b) == [Reason.RESPONSE_UNEXPECTED] and not placed(b)


@pytest.mark.parametrize("fpdu, reason", [
    (untagged(8, 1, bytes(8)), Reason.OPCODE), (untagged(15, 1), Reason.OPCODE), (tagged(12, A, BASE), Reason.OPCODE),
    (untagged(WRITE, 1), Reason.TAGGED_FLAG), (tagged(SEND_SE, A, BASE), Reason.TAGGED_FLAG),
    (untagged(SEND, 1, qn=3), Reason.QN), (untagged(SEND, 1, qn=0xFFFFFFFF), Reason.QN)])
def test_case_35_opcodes_flags_and_queues(fpdu, reason):
    assert died(bench().post(3, 1, (BASE, 9, A)).ulpdu(fpdu, claimed=True).run()) == [reason]


def test_case_37_first_of_two_errors_in_a_burst():
    """The second Write's grant has been asked by the time the first is refused."""
    for latency in (1, 4, 12):
        b = Bench(REGIONS, grant_latency=latency).install(3).install(4)
        b.ulpdu(tagged(WRITE, A, 0, b"x")).ulpdu(tagged(WRITE, OTHER_PD, BASE, b"x")).ulpdu(tagged(WRITE, A, BASE, b"z"))
        b.ulpdu(tagged(WRITE, A, BASE, b"good"), 4).run()
        assert died(b) == [Reason.BOUNDS] and placed(b) == [(A, BASE, b"good")] and b.counts["rx_after_error"] == 2


def test_a_send_between_the_segments_of_a_write():
    b = bench().post(3, 1, (BASE, 9, B)).ulpdu(tagged(WRITE, A, BASE, b"abc", last=False))
    b.ulpdu(untagged(SEND, 1, b"hey"), claimed=True).ulpdu(read_request(1)).ulpdu(tagged(WRITE, A, BASE + 3, b"def")).run()
    assert placed(b) == [(A, BASE, b"abc"), (B, BASE, b"hey"), (A, BASE + 3, b"def")] and not b.died


def test_claim_for_what_only_looks_like_a_first_segment_goes_back():
    """An empty segment opens the message, so that the next has MO 0 as well. The bench counts claims."""
    b = bench().post(3, 1, (BASE, 9, A)).ulpdu(untagged(SEND, 1, last=False), claimed=True)
    b.ulpdu(untagged(SEND, 1, b"abc"), claimed=True).run()
    assert placed(b) == [(A, BASE, b"abc")] and [c["byte_len"] for c in cqes(b)] == [3] and not b.died


def test_message_longer_than_32_bits():
    """U5 with a buffer above 4 GiB: MO + length must stay below 2**32, or byte_len would wrap."""
    size = 2**31
    big = Region(A, 1, Access.LOCAL_WRITE, 0, 4 * size, 4 * size, [0])
    b = Bench([big]).install(3).post(3, 1, (0, size, A), (size, size, A), (0, size, A))
    b.ulpdu(untagged(SEND, 1, b"abc", last=False), claimed=True)
    b.ulpdu(untagged(SEND, 1, b"abc", mo=3)).run()
    assert not b.died                    # the sum itself must not trouble anybody


@pytest.mark.parametrize("op, uploaded", [(TokenOp.KILL, Reason.NONE), (TokenOp.REMOVE, Reason.NONE)])
def test_token_ends_a_stream(op, uploaded):
    b = bench().install(4).ulpdu(tagged(WRITE, A, BASE, b"x")).token(op).ulpdu(tagged(WRITE, A, BASE, b"y"))
    b.ulpdu(untagged(SEND, 1), claimed=True).ulpdu(tagged(WRITE, A, BASE + 1, b"z"), 4).token(TokenOp.UPLOAD).run()
    assert placed(b) == [(A, BASE, b"xz")] and not b.died and b.counts["rx_after_error"] == 2 and b.uploads == [uploaded]


def test_tokens_pass_in_order_and_do_nothing_else():
    b = bench().ulpdu(tagged(WRITE, A, BASE, b"x", last=False)).token(TokenOp.FENCE).token(TokenOp.FLUSH)
    b.ulpdu(tagged(WRITE, A, BASE + 1, b"y")).run()
    assert b.tokens == [(TokenOp.INSTALL, 3), (TokenOp.FENCE, 3), (TokenOp.FLUSH, 3)] and not b.died
    assert placed(b) == [(A, BASE, b"xy")]


def test_upload_keeps_the_reason_until_the_qp_is_removed():
    b = bench().ulpdu(tagged(WRITE, A, 0, b"x")).token(TokenOp.KILL).token(TokenOp.UPLOAD).token(TokenOp.REMOVE)
    b.token(TokenOp.UPLOAD).run()
    assert b.uploads == [Reason.BOUNDS, Reason.NONE]


def test_reinstalled_qp_has_no_past():
    """Dead, with a Send, a Write and a read open: after INSTALL nothing of it is left."""
    b = bench().expect_read(3, A, BASE, 8, 1).post(3, 1, (BASE, 9, A))
    b.ulpdu(tagged(READ_RESPONSE, A, BASE, b"abc", last=False))
    b.ulpdu(untagged(SEND, 1, b"abc", last=False), claimed=True).ulpdu(tagged(WRITE, A, BASE, b"abc", last=False))
    b.ulpdu(tagged(WRITE, A, 0, b"x")).token(TokenOp.REMOVE).forget()
    b.install(3, pd=2, recv_cq=5, send_cq=6, qpn=0x123453, recv_msn=5)
    b.expect_read(3, OTHER_PD, BASE, 2, 7).post(3, 2, (BASE, 9, OTHER_PD))
    b.ulpdu(untagged(SEND_SE, 5, b"new"), claimed=True).ulpdu(tagged(READ_RESPONSE, OTHER_PD, BASE, b"rd")).run()
    assert died(b) == [Reason.BOUNDS]
    assert [(e[1], e[2]["qpn"], e[2]["solicited"]) for e in b.effects if e[0] == "cqe"] == [(5, 0x123453, 1), (6, 0x123453, 0)]


def test_outstanding_read_queue_fills_and_empties():
    b = bench(stall=0.2).install(2)
    for n in range(5):                   # one more than it holds
        b.expect_read(3, A, BASE + n, 1, n)
    b.expect_read(2, A, BASE, 1, 99)     # other QPs have their own
    for n in range(4):
        b.ulpdu(tagged(READ_RESPONSE, A, BASE + n, b"%d" % n))
        b.expect_read(3, A, BASE + n, 1, 10 + n)
    for n in range(4):
        b.ulpdu(tagged(READ_RESPONSE, A, BASE + n, b"%d" % n))
    b.run()
    assert b.expect_got == [Status.OK] * 4 + [Status.QUEUE_FULL] + [Status.OK] * 5
    assert [c["wqe_index"] for c in cqes(b)] == [0, 1, 2, 3, 10, 11, 12, 13] and not b.died


def test_died_never_holds_the_receive_path_up():
    """Control may wait for a token that stands behind a stream's end; so it need not take `died` first."""
    b = Bench(REGIONS)
    for slot in range(16):
        b.install(slot)
    for slot in range(16):
        b.ulpdu(tagged(WRITE, A, 0, b"x"), slot)

    async def deaf(ctx):
        while not b.finished:
            await ctx.tick()
        await Bench._died(b, ctx)
    b._died = deaf
    b.token(TokenOp.FENCE).run()
    assert len(b.died) == 16


# Speed. The stand-in answers `grant_latency` cycles after it was asked.

def spacing(b, count):
    stamps = b.run().stamps[-count:]
    return (stamps[-1] - stamps[0]) / (count - 1)


@pytest.mark.parametrize("latency, most", [(1, 4), (4, 6), (8, 10)])
def test_cycles_a_write(latency, most):
    """64-octet Writes into one burst; 84-octet FPDUs come every 11.5 cycles at line rate."""
    b = bench(grant_latency=latency)
    for n in range(60):
        b.ulpdu(tagged(WRITE, A, BASE + 64 * n, bytes(64)))
    cycles = spacing(b, 40)
    print(f"Write: {cycles} cycles with a grant latency of {latency}")
    assert cycles <= most


def test_cycles_of_other_segments():
    print()
    b = bench()
    for n in range(30):
        b.post(3, n, (BASE, 64, A)).ulpdu(untagged(SEND, n + 1, bytes(64)), claimed=True)
    print("Send, one segment:", 2 * spacing(b, 41))
    b = bench().post(3, 0, (BASE, 4096, A))
    for n in range(30):
        b.ulpdu(untagged(SEND, 1, bytes(64), mo=64 * n, last=False), claimed=n == 0)
    print("Send, middle segment:", spacing(b, 20))
    b = bench().expect_read(3, A, BASE, 4096, 1)
    for n in range(30):
        b.ulpdu(tagged(READ_RESPONSE, A, BASE + 64 * n, bytes(64), last=False))
    print("Read Response:", spacing(b, 20))
    b = bench()
    for n in range(30):
        b.ulpdu(read_request(n + 1))
    print("Read Request:", 2 * spacing(b, 41))
    b = bench().ulpdu(tagged(WRITE, A, 0, b"x"))
    for _ in range(30):
        b.ulpdu(tagged(WRITE, A, BASE, bytes(64)))
    print("after an error:", spacing(b, 20))
