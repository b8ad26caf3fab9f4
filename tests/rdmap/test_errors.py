"""Every refusal of this layer: its reason, its Terminate code, and that the stream is dead behind it."""

import random

import pytest

from emplace.abi import Access, EventType, QpFlags, Reason, WcStatus
from emplace.control.records import TokenOp
from emplace.protect.records import Outcome, Refusal
from emplace_sim.rdmap_model import (
    READ_RESPONSE,
    SEND,
    SEND_INVALIDATE,
    SEND_SE,
    TERMINATE_OP,
    WRITE,
    read_request,
    tagged,
    terminate,
    untagged,
)

from .harness import BASE, Bench, region

A, B, OTHER_PD, READ_ONLY, HOLED, INVALID = 0xA101, 0xA202, 0xA303, 0xA404, 0xA505, 0xA606
REGIONS = [
    region(A), region(B), region(OTHER_PD, pd=2), region(READ_ONLY, access=Access.REMOTE_READ),
    region(HOLED, covered=0x2000), region(INVALID, valid=False), region(1 << 8, base=2**64 - 0x4000),
]
BUFFER = (BASE, 64, A)


def posted(bench, *sges, index=77, **kw):
    return bench.post(3, index, *(sges or (BUFFER,)), **kw)


def send(payload=b"x" * 8, msn=1, **kw):
    return lambda b: posted(b).ulpdu(untagged(SEND, msn, payload, **kw), claimed=True)


def response(stag=A, to=BASE, payload=b"y" * 8, last=True):
    return lambda b: b.expect_read(3, A, BASE, 16, 9).ulpdu(tagged(READ_RESPONSE, stag, to, payload, last=last))


# name: (what is done on a fresh QP, Reason, Terminate code as in RFC 5040 4.8, status of the receive WQE it fails)
ERRORS = {
    "llp_length": (lambda b: b.ulpdu(tagged(WRITE, A, BASE, b"z"), status=Reason.FPDU_LENGTH), "FPDU_LENGTH", 0x1000),
    "llp_crc": (lambda b: b.ulpdu(tagged(WRITE, 5, 5, b"z"), status=Reason.FPDU_CRC), "FPDU_CRC", 0x2002),
    "llp_lease": (lambda b: b.ulpdu(untagged(SEND, 1, b"z"), status=Reason.SLOT_LEASE), "SLOT_LEASE", 0x1000),
    "llp_fin": (lambda b: b.ulpdu(b"", status=Reason.PEER_FIN), "PEER_FIN", 0),
    "llp_fin_dirty": (lambda b: b.ulpdu(untagged(SEND, 1, b"z"), status=Reason.PEER_FIN_DIRTY), "PEER_FIN_DIRTY", 0),
    "llp_reset": (lambda b: b.ulpdu(untagged(15, 1, b"z"), status=Reason.PEER_RESET), "PEER_RESET", 0),
    "llp_error_of_a_claimed_send": (lambda b: posted(b).ulpdu(untagged(SEND, 1), status=Reason.FPDU_CRC, claimed=True),
                                    "FPDU_CRC", 0x2002),
    "runt": (lambda b: b.ulpdu(b"\0\5" + untagged(SEND, 1)[2:7]), "FPDU_LENGTH", 0x1000),
    "h1_tagged": (lambda b: b.ulpdu(tagged(WRITE, A, BASE, b"z", dv=2, rv=0)), "DDP_VERSION_TAGGED", 0x1104),
    "h1_untagged": (lambda b: b.ulpdu(untagged(SEND, 1, dv=0)), "DDP_VERSION_UNTAGGED", 0x1206),
    "h2": (lambda b: b.ulpdu(tagged(9, A, BASE, b"z", rv=0)), "RDMAP_VERSION", 0x0205),
    "h3_8": (lambda b: b.ulpdu(untagged(8, 1, bytes(8))), "OPCODE", 0x0206),
    "h3_15_tagged": (lambda b: b.ulpdu(tagged(15, A, BASE)), "OPCODE", 0x0206),
    "h4_untagged_write": (lambda b: b.ulpdu(untagged(WRITE, 1)), "TAGGED_FLAG", 0x0206),
    "h4_tagged_send": (lambda b: b.ulpdu(tagged(SEND, A, BASE)), "TAGGED_FLAG", 0x0206),
    "h4_untagged_response": (lambda b: b.ulpdu(untagged(READ_RESPONSE, 1)), "TAGGED_FLAG", 0x0206),
    "h4_tagged_terminate": (lambda b: b.ulpdu(tagged(TERMINATE_OP, A, BASE, bytes(9))), "TAGGED_FLAG", 0x0206),
    "h6_send_changes_opcode": (lambda b: (posted(b).ulpdu(untagged(SEND, 1, b"abc", last=False), claimed=True)
                                          .ulpdu(untagged(SEND_SE, 1, b"abc", mo=3))), "MESSAGE_MIX", 0x0206),
    "h6_write_changes_stag": (lambda b: (b.ulpdu(tagged(WRITE, A, BASE, b"abc", last=False))
                                         .ulpdu(tagged(WRITE, B, BASE + 3, b"abc"))), "MESSAGE_MIX", 0x0206),
    "h6_response_in_write": (lambda b: (b.ulpdu(tagged(WRITE, A, BASE, b"abc", last=False))
                                        .expect_read(3, A, BASE, 4, 1)
                                        .ulpdu(tagged(READ_RESPONSE, A, BASE, b"abcd"))), "MESSAGE_MIX", 0x0206),
    "u1_3": (lambda b: b.ulpdu(untagged(SEND, 1, qn=3)), "QN", 0x1201),
    "u1_ffffffff": (lambda b: b.ulpdu(untagged(SEND, 1, qn=0xFFFFFFFF)), "QN", 0x1201),
    "u1_high_bits": (lambda b: b.ulpdu(untagged(SEND, 1, qn=0x10000)), "QN", 0x1201),
    "u1_send_on_1": (lambda b: b.ulpdu(untagged(SEND, 1, qn=1)), "QN", 0x1201),
    "u1_request_on_0": (lambda b: b.ulpdu(read_request(1, qn=0)), "QN", 0x1201),
    "u1_request_on_2": (lambda b: b.ulpdu(read_request(1, qn=2)), "QN", 0x1201),
    "u1_terminate_on_0": (lambda b: b.ulpdu(terminate(qn=0)), "QN", 0x1201),
    "u2_gap": (send(msn=2), "MSN", 0x1203),
    "u2_zero_first": (send(msn=0), "MSN", 0x1203),
    "u2_repeat": (lambda b: send(msn=1)(send(msn=1)(b)), "MSN", 0x1203),
    "u2_request": (lambda b: b.ulpdu(read_request(2)), "MSN", 0x1203),
    "u2_terminate": (lambda b: b.ulpdu(terminate(msn=2)), "MSN", 0x1203),
    "u3": (lambda b: b.ulpdu(untagged(SEND, 1, b"abc")), "NO_BUFFER", 0x1202),
    "u3_empty_send": (lambda b: b.ulpdu(untagged(SEND, 1)), "NO_BUFFER", 0x1202),
    "u3_unreadable": (lambda b: posted(b, failed=True).ulpdu(untagged(SEND, 1), claimed=True), "RQ_FETCH", 0x1000),
    "u4_first": (send(mo=4), "MO", 0x1204),
    "u4_forward": (lambda b: (posted(b).ulpdu(untagged(SEND, 1, b"abc", last=False), claimed=True)
                              .ulpdu(untagged(SEND, 1, b"abc", mo=4))), "MO", 0x1204),
    "u4_backward": (lambda b: (posted(b).ulpdu(untagged(SEND, 1, b"abc", last=False), claimed=True)
                               .ulpdu(untagged(SEND, 1, b"abc", mo=0), claimed=True)), "MO", 0x1204),
    "u4_request": (lambda b: b.ulpdu(read_request(1, mo=4)), "MO", 0x1204),
    "u5": (send(bytes(65)), "TOO_LONG", 0x1205, WcStatus.LOC_LEN_ERR),
    "u5_second_segment": (lambda b: (posted(b).ulpdu(untagged(SEND, 1, bytes(60), last=False), claimed=True)
                                     .ulpdu(untagged(SEND, 1, bytes(5), mo=60))), "TOO_LONG", 0x1205,
                          WcStatus.LOC_LEN_ERR),
    "u6_stag": (lambda b: posted(b, (BASE, 9, 0xBAD)).ulpdu(untagged(SEND, 1, b"abc"), claimed=True), "LOCAL_SGE", 0x1000,
                WcStatus.LOC_PROT_ERR),
    "u6_pd": (lambda b: posted(b, (BASE, 9, OTHER_PD)).ulpdu(untagged(SEND, 1, b"abc")), "LOCAL_SGE", 0x1000,
              WcStatus.LOC_PROT_ERR),
    "u6_access": (lambda b: posted(b, (BASE, 9, READ_ONLY)).ulpdu(untagged(SEND, 1, b"abc")), "LOCAL_SGE", 0x1000,
                  WcStatus.LOC_PROT_ERR),
    "u6_second_sge": (lambda b: (posted(b, (BASE, 2, A), (BASE + 0x3FFF, 9, A))
                                 .ulpdu(untagged(SEND, 1, b"abcdef"), claimed=True)), "LOCAL_SGE", 0x1000,
                      WcStatus.LOC_PROT_ERR),
    "u6_wrap_between_segments": (lambda b: (posted(b, (2**64 - 4, 64, 1 << 8))
                                            .ulpdu(untagged(SEND, 1, bytes(4), last=False), claimed=True)
                                            .ulpdu(untagged(SEND, 1, bytes(4), mo=4))), "LOCAL_SGE", 0x1000,
                                 WcStatus.LOC_PROT_ERR),
    "u7_request_short": (lambda b: b.ulpdu(b"\0\x2d" + read_request(1)[2:-1]), "MALFORMED", 0x02FF),
    "u7_request_long": (lambda b: b.ulpdu(read_request(1, extra=b"\0")), "TOO_LONG", 0x1205),
    "u7_request_not_last": (lambda b: b.ulpdu(read_request(1, last=False)), "MALFORMED", 0x02FF),
    "u7_terminate_short": (lambda b: b.ulpdu(terminate(b"\x11\x01\0")), "MALFORMED", 0x02FF),
    "u7_terminate_not_last": (lambda b: b.ulpdu(terminate(last=False)), "MALFORMED", 0x02FF),
    "t1_unknown": (lambda b: b.ulpdu(tagged(WRITE, 0xBAD, BASE, b"z")), "STAG", 0x1100),
    "t1_invalid": (lambda b: b.ulpdu(tagged(WRITE, INVALID, BASE, b"z")), "STAG", 0x1100),
    "t1_key": (lambda b: b.ulpdu(tagged(WRITE, A ^ 1, BASE, b"z")), "STAG", 0x1100),
    "t2": (lambda b: b.ulpdu(tagged(WRITE, OTHER_PD, BASE, b"z")), "STAG_PD", 0x1102),
    "t3": (lambda b: b.ulpdu(tagged(WRITE, READ_ONLY, BASE, b"z")), "STAG_ACCESS", 0x0102),
    "t4": (lambda b: b.ulpdu(tagged(WRITE, 1 << 8, 2**64 - 4, bytes(5))), "TO_WRAP", 0x1103),
    "t5_above": (lambda b: b.ulpdu(tagged(WRITE, A, BASE + 0x3FFC, bytes(5))), "BOUNDS", 0x1101),
    "t5_below": (lambda b: b.ulpdu(tagged(WRITE, A, BASE - 1, bytes(5))), "BOUNDS", 0x1101),
    "t6": (lambda b: b.ulpdu(tagged(WRITE, HOLED, BASE + 0x1FFF, bytes(5))), "PAGE", 0x1000),
    "r1": (lambda b: b.ulpdu(tagged(READ_RESPONSE, A, BASE, b"z")), "RESPONSE_UNEXPECTED", 0x0206),
    "r1_empty": (lambda b: b.ulpdu(tagged(READ_RESPONSE, 1, 0)), "RESPONSE_UNEXPECTED", 0x0206),
    "r2_stag": (response(stag=B), "RESPONSE_STAG", 0x1100),
    "r2_to": (response(to=BASE + 4), "RESPONSE_TO", 0x1101),
    "r2_to_second": (lambda b: response(last=False)(b).ulpdu(tagged(READ_RESPONSE, A, BASE + 9, b"z" * 8)), "RESPONSE_TO",
                     0x1101),
    "r3_longer": (response(payload=bytes(17)), "RESPONSE_LENGTH", 0x1101),
    "r3_longer_not_last": (response(payload=bytes(17), last=False), "RESPONSE_LENGTH", 0x1101),
    "r3_shorter": (response(payload=bytes(15)), "RESPONSE_LENGTH", 0x1101),
    "r3_empty_last": (response(payload=b""), "RESPONSE_LENGTH", 0x1101),
    "r4_stag": (lambda b: b.expect_read(3, 0xBAD, BASE, 8, 1).ulpdu(tagged(READ_RESPONSE, 0xBAD, BASE, bytes(8))),
                "RESPONSE_SINK", 0x1000),
    "r4_access": (lambda b: (b.expect_read(3, READ_ONLY, BASE, 8, 1)
                             .ulpdu(tagged(READ_RESPONSE, READ_ONLY, BASE, bytes(8)))), "RESPONSE_SINK", 0x1000),
    "i_stag": (lambda b: posted(b).ulpdu(untagged(SEND_INVALIDATE, 1, b"abc", stag=0xBAD), claimed=True),
               "INVALIDATE_STAG", 0x0209, WcStatus.REM_INV_REQ_ERR),
    "i_pd": (lambda b: posted(b).ulpdu(untagged(SEND_INVALIDATE, 1, b"abc", stag=OTHER_PD), claimed=True),
             "INVALIDATE_PD", 0x0109, WcStatus.REM_INV_REQ_ERR),
    "i_access": (lambda b: posted(b).ulpdu(untagged(SEND_INVALIDATE, 1, stag=READ_ONLY), claimed=True),
                 "INVALIDATE_ACCESS", 0x0102, WcStatus.REM_INV_REQ_ERR),
    "terminated": (lambda b: b.ulpdu(terminate()), "TERMINATED", 0),
    "terminated_in_a_message": (lambda b: (posted(b).ulpdu(untagged(SEND, 1, b"abc", last=False), claimed=True)
                                           .ulpdu(tagged(WRITE, A, BASE, b"abc", last=False)).ulpdu(terminate())),
                                "TERMINATED", 0),
}


EVENTS = {"TERMINATED": EventType.TERMINATE_RECEIVED, "PEER_FIN": EventType.FIN_RECEIVED,
          "PEER_FIN_DIRTY": EventType.FIN_RECEIVED, "PEER_RESET": EventType.RST_RECEIVED}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    do, reason, code, *blamed = ERRORS[name]
    bench = Bench(REGIONS, stall=0.2 * (len(name) & 1)).install(3).install(4)
    do(bench)
    # Good segments behind it, on this QP: nothing of them may be seen. Those of another QP don't notice.
    for _ in range(2):
        bench.ulpdu(tagged(WRITE, A, BASE, b"after"))
        bench.ulpdu(tagged(WRITE, A, BASE + 64, b"other QP"), 4)
    bench.ulpdu(untagged(SEND, 1, b"after"), claimed=True).ulpdu(terminate()).ulpdu(read_request(1))
    bench.ulpdu(tagged(WRITE, A, BASE, b"after"), status=Reason.FPDU_CRC)
    bench.token(TokenOp.UPLOAD).run()

    assert bench.died == [(3, Reason[reason])]
    assert bench.uploads == [Reason[reason]]
    assert bench.counts["rx_after_error"] == 6 and bench.counts["err_" + reason.lower()] == 1
    events = [effect[1] for effect in bench.effects if effect[0] == "event"]
    assert [(e["type"], e["reason"], e["terminate"]) for e in events] == [
        (EVENTS.get(reason, EventType.QP_ERROR), Reason[reason], code)]
    statuses = [effect[2]["status"] for effect in bench.effects if effect[0] == "cqe"]
    assert [s for s in statuses if s] == blamed
    assert not any(b"after" in effect[3] for effect in bench.effects if effect[0] == "place")


def test_every_reason_of_this_layer_has_a_case():
    elsewhere = {"NONE", "CQ_OVERFLOW", "NOT_NOW", "READ_STAG", "READ_PD", "READ_ACCESS", "READ_WRAP", "READ_BOUNDS",
                 "SQ_WQE", "RETRY_LIMIT", "SOURCE_FETCH", "SQ_FETCH", "SOURCE_REVOKED", "SOURCE_ACCESS"}
    assert {case[1] for case in ERRORS.values()} == {reason.name for reason in Reason} - elsewhere


def test_a_reset_behind_the_peers_fin():
    """The FPDUs before the FIN are placed first; the reset is reported once; behind another error it is not."""
    bench = Bench(REGIONS).install(3).install(4)
    bench.ulpdu(tagged(WRITE, A, BASE, b"before")).ulpdu(b"", status=Reason.PEER_FIN)
    for _ in range(2):
        bench.ulpdu(b"", status=Reason.PEER_RESET)
    bench.ulpdu(b"", 4, status=Reason.PEER_FIN_DIRTY).ulpdu(b"", 4, status=Reason.PEER_RESET).run()
    assert bench.died == [(3, Reason.PEER_FIN), (3, Reason.PEER_RESET), (4, Reason.PEER_FIN_DIRTY)]
    assert [e[0] for e in bench.effects][:2] == ["place", "event"]
    assert bench.counts["rx_after_error"] == 2


def test_write_to_a_qp_without_remote_write():
    """T3: the QP's own switch, behind T1 and T2 and ahead of T4 and T5."""
    for stag, to, reason in ((A, BASE, Reason.STAG_ACCESS), (A, 0, Reason.STAG_ACCESS), (READ_ONLY, 0, Reason.STAG_ACCESS),
                             (0xBAD, BASE, Reason.STAG), (OTHER_PD, BASE, Reason.STAG_PD)):
        bench = Bench(REGIONS).install(3, flags=QpFlags.CRC | QpFlags.REMOTE_READ)
        bench.ulpdu(tagged(WRITE, 0, 0)).ulpdu(tagged(WRITE, stag, to, b"abc")).ulpdu(tagged(WRITE, A, BASE, b"abc")).run()
        assert bench.died == [(3, reason)] and not [e for e in bench.effects if e[0] == "place"]


def test_not_now_ends_the_stream():
    def hook(request, replies):
        return [{"outcome": Outcome.NOT_NOW, "last": 1}]
    bench = Bench(REGIONS, hook=hook).install(3).ulpdu(tagged(WRITE, A, BASE, b"abc")).run(compare=False)
    assert bench.died == [(3, Reason.NOT_NOW)]


@pytest.mark.parametrize("kind", ["write", "send", "response"])
def test_refusal_behind_the_first_burst(kind):
    """Some of the packet is placed, the rest thrown away, and the next packet is still the right one."""
    def hook(request, replies):
        if len(replies) < 2:
            return replies
        return [replies[0], {"outcome": Outcome.REFUSED, "refusal": Refusal.PAGE, "last": 1}]
    bench = Bench([region(A, page=256)], hook=hook).install(3).install(4)
    at = BASE + 250
    if kind == "write":
        bench.ulpdu(tagged(WRITE, A, at, b"0123456789"))
    elif kind == "send":
        bench.post(3, 1, (at, 20, A)).ulpdu(untagged(SEND, 1, b"0123456789"), claimed=True)
    else:
        bench.expect_read(3, A, at, 10, 1).ulpdu(tagged(READ_RESPONSE, A, at, b"0123456789"))
    bench.ulpdu(tagged(WRITE, A, BASE, b"lost")).ulpdu(tagged(WRITE, A, BASE, b"next"), 4).run(compare=False)
    assert [e for e in bench.effects if e[0] == "place"] == [("place", A, at, b"012345"), ("place", A, BASE, b"next")]
    assert bench.died == [(3, {"write": Reason.PAGE, "send": Reason.LOCAL_SGE, "response": Reason.RESPONSE_SINK}[kind])]


def test_scatterer_gives_up_where_sges_are_shorter_than_their_total():
    """Can't be; must not hang."""
    class Lying(list):
        """Sums up to more than it gives."""

        def __add__(self, other):
            return [(BASE, 8, A), *other]
    bench = Bench(REGIONS).install(3).post(3, 5, (BASE, 64, A))
    bench.script.append(lambda: setattr(bench.posted[3][0], "sges", Lying(bench.posted[3][0].sges)))
    bench.ulpdu(untagged(SEND, 1, bytes(32)), claimed=True).run(compare=False)
    assert bench.died == [(3, Reason.LOCAL_SGE)]


@pytest.mark.parametrize("seed", range(4))
def test_random_faults(seed):
    """Random segments, legal or not, on many QPs that are installed again once they have died."""
    rng = random.Random(seed)
    bench = Bench(REGIONS, stall=rng.choice((0, 0.4)), seed=seed, grant_latency=rng.choice((1, 4, 10)))
    for _ in range(12):
        slots = rng.sample(range(16), 3)
        for slot in slots:
            bench.install(slot)
            for n in range(5):
                bench.post(slot, n, *[(BASE + rng.randrange(0x4000), rng.randrange(40), rng.choice((A, A, B, HOLED)))
                                      for _ in range(rng.randrange(1, 5))])
        msn, octets = dict.fromkeys(slots, 1), dict.fromkeys(slots, 0)
        for _ in range(rng.randrange(8, 20)):
            slot, payload, last = rng.choice(slots), rng.randbytes(rng.randrange(30)), rng.random() < 0.6
            if rng.random() < 0.45:
                bench.ulpdu(tagged(WRITE, rng.choice((A, A, A, A, B, READ_ONLY, HOLED)), BASE + rng.randrange(0x3FE0),
                                   payload, last=rng.random() < 0.9), slot)
            elif rng.random() < 0.8:
                bench.ulpdu(untagged(rng.choice((SEND,) * 6 + (SEND_SE, SEND_INVALIDATE)), msn[slot], payload, stag=B,
                                     mo=octets[slot], last=last), slot, claimed=octets[slot] == 0)
                octets[slot] = 0 if last else octets[slot] + len(payload)
                msn[slot] += last
            else:
                junk = bytearray(rng.choice((read_request(1), terminate(), tagged(READ_RESPONSE, A, BASE, payload))))
                junk[rng.randrange(2, len(junk))] ^= 1 << rng.randrange(8)
                bench.ulpdu(bytes(junk), slot)
        for slot in slots:
            bench.token(TokenOp.KILL, slot).token(TokenOp.REMOVE, slot)
        bench.forget()
    bench.run()
    assert len(bench.died) > 10
