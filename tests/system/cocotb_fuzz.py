"""Streams of FPDUs, good and bad, cut anywhere: what the card makes of them is what the golden models make of them.

Hypothesis draws a stream and its cuts, in a thread beside the simulator, and shrinks what fails. Runs inside the
simulator. EMPLACE_EXAMPLES: how many; EMPLACE_SEED: of what.
"""

import os
import warnings
from collections import Counter

import cocotb
from cocotb.task import bridge, resume
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisSideeffectWarning

from emplace.abi import Access, EventType, Reason
from emplace.config import PROFILES
from emplace_sim import ddp
from emplace_sim.fpdu import build_fpdu, crc32c, split_fpdus
from emplace_sim.rdmap_model import Qp, RdmapModel, Region, Wqe
from emplace_sim.system import ALL_RIGHTS, Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
EXAMPLES = int(os.environ.get("EMPLACE_EXAMPLES", "60"))
SEED = int(os.environ.get("EMPLACE_SEED", "1"))
# cocotb loads pytest, whose plugin of hypothesis takes the whole run for its own start.
warnings.filterwarnings("ignore", category=HypothesisSideeffectWarning)
SIZE, BASE, RECEIVES = 4096, 0x7000_0000, 6
STAG, READONLY, UNKNOWN, INBOX = 0x155, 0x266, 0x377, 0x488

octets = st.one_of(st.integers(0, 20), st.sampled_from([63, 64, 65, 255, 700, 1400])).flatmap(
    lambda n: st.integers(0, 255).map(lambda first: bytes((first + at) & 255 for at in range(n))))
writes = st.tuples(st.just("write"), st.sampled_from([STAG] * 6 + [READONLY, UNKNOWN]),
                   st.integers(-4, SIZE - 1), octets, st.booleans())
sends = st.tuples(st.just("send"), st.sampled_from([0] * 8 + [1, -1]), st.sampled_from([0] * 8 + [1]), octets, st.booleans())
others = st.tuples(st.just("other"), st.integers(0, 15), st.booleans(), st.integers(0, 3), octets)
spoilt = st.tuples(st.just("spoil"), writes, st.integers(0, 39), st.integers(0, 7), st.booleans())
good = st.one_of(st.tuples(st.just("write"), st.just(STAG), st.integers(0, SIZE - 1400), octets, st.booleans()),
                 st.tuples(st.just("send"), st.just(0), st.just(0), octets, st.booleans()))
streams = st.one_of(st.lists(good, min_size=1, max_size=12),
                    st.lists(st.one_of(good, good, good, writes, sends, others, spoilt), min_size=1, max_size=12))
cuts = st.lists(st.one_of(st.integers(1, 24), st.integers(1, 1448)), min_size=1, max_size=12)


def fpdus(plan):
    """Whole FPDUs of a drawn plan."""
    msn, mo, made = 1, 0, []
    for kind, *what in plan:
        if kind == "spoil":
            inner, at, bit, mend = what
            one = bytearray(fpdus([inner])[0])
            one[at % len(one)] ^= 1 << bit
            if mend:                     # the CRC is right for what is there
                size = len(one) - 4
                one = bytearray(one[:size]) + crc32c(bytes(one[:size])).to_bytes(4, "little")
            made.append(bytes(one))
        elif kind == "write":
            stag, at, data, last = what
            made.append(build_fpdu(ddp.write(stag, BASE + at, data, last=last)))
        elif kind == "send":
            skip, gap, data, last = what
            made.append(build_fpdu(ddp.send(msn + skip, data[:600], mo=mo + gap, last=last)))
            mo = 0 if last else mo + len(data[:600])
            msn += last
        else:
            opcode, tagged, qn, data = what
            made.append(build_fpdu(
                ddp.tagged(opcode, STAG, BASE, data) if tagged else ddp.untagged(opcode, msn, data, qn=qn, mo=mo)))
    return made


def golden(stream):
    """Effects of a stream on the models: (image, receive image, statuses, reason)."""
    image, inbox = bytearray([0xCC]) * SIZE, bytearray([0xCC]) * SIZE
    model = RdmapModel([Region(STAG, 1, ALL_RIGHTS, BASE, SIZE, pages=[0]),
                        Region(READONLY, 1, Access.REMOTE_READ, BASE, SIZE, pages=[0]),
                        Region(INBOX, 1, Access.LOCAL_WRITE, 0, SIZE, pages=[0])])
    model.install(Qp(0, posted=[Wqe(n, [(600 * n, 600, INBOX)]) for n in range(RECEIVES)]))
    cut = split_fpdus(stream, CONFIG.fpdu_max)
    for one in cut.fpdus:
        header = stream[one.start:one.start + 48].ljust(48, b"\0")
        model.ulpdu(0, header, one.ulpdu, Reason.NONE if one.crc_good else Reason.FPDU_CRC)
    if cut.bad_length and not model.died:
        model.died.append((0, Reason.FPDU_LENGTH))
    requests, statuses = 0, []
    for kind, *what in model.effects:
        if kind == "place":
            stag, to, data = what
            target, at = (inbox, to) if stag == INBOX else (image, to - BASE)
            target[at:at + len(data)] = data
        elif kind == "cqe":
            statuses.append((what[1]["status"], what[1]["byte_len"]))
        else:
            requests += what[0]["type"] == EventType.READ_REQUEST
    return bytes(image), bytes(inbox), statuses, requests, model.died[0][1] if model.died else Reason.NONE


class Card:
    """A card, and a connection for each example."""

    def __init__(self, bench, cq, pd, region, readonly, inbox):
        self.b, self.cq, self.pd, self.region, self.readonly, self.inbox = bench, cq, pd, region, readonly, inbox
        self.seen = Counter()

    async def run(self, stream, sizes):
        """Deliver ``stream`` in segments of ``sizes``, over and over; what came of it, as golden() tells it."""
        b, device = self.b, self.b.device
        for region in (self.region, self.readonly, self.inbox):
            region.buffer.write(0, bytes([0xCC]) * SIZE)
        link = await b.connect(cq=self.cq, pd=self.pd)
        await device.post_recv(link.qp, [([self.inbox.sge(600 * n, 600)], n) for n in range(RECEIVES)])
        frames, at, events = [], 0, []
        while at < len(stream):
            part = stream[at:at + (sizes[len(frames) % len(sizes)] if len(frames) < 100 else 1448)]
            frame, at = link.flow.push(part), at + len(part)
            frames.append((link.flow.seq, frame))
        ended = False
        # The peer's TCP sends again what is not acknowledged: the first segment of it alone, as at a time-out. (More at
        # once would find slots that are still full of what the card has held out of order.)
        for turn in range(len(frames) + 10):
            left = [f for f in frames if 0 < (f[0] - link.acked) & 0xFFFFFFFF < 1 << 31]
            for _, frame in left[:1 if turn else None]:
                b.put(frame)
            await b.until(lambda: not b.wire.queue, 100_000)
            await b.until(lambda: link.acked == link.flow.seq, 800)
            while (event := await device.get_async_event()) is not None:
                events.append(event)
                ended |= event["type"] in (EventType.QP_ERROR, EventType.TERMINATE_RECEIVED)
            if ended or link.acked == link.flow.seq:
                break
        assert ended or link.acked == link.flow.seq, f"stuck {(link.flow.seq - link.acked) & 0xFFFFFFFF} octets before the end"
        await device.fence()
        while (event := await device.get_async_event()) is not None:
            events.append(event)
        found = [(c["status"], c["byte_len"]) for c in await device.poll_cq(self.cq, 64)]
        last = [e for e in events if e["type"] in (EventType.QP_ERROR, EventType.TERMINATE_RECEIVED)]
        assert len(last) <= 1 and all(e["qpn"] == link.qp.number for e in events), events
        reason = Reason(last[0]["reason"]) if last else Reason.NONE
        assert self.readonly.buffer.read() == bytes([0xCC]) * SIZE
        b.check()
        await device.destroy_qp(link.qp)
        self.seen[reason] += 1
        requests = sum(e["type"] == EventType.READ_REQUEST for e in events)
        return self.region.buffer.read(), self.inbox.buffer.read(), found, requests, reason


@cocotb.test()
async def any_stream_cut_anywhere(dut):
    print(f"seed {SEED}, {EXAMPLES} examples")
    b = await Bench(dut, CONFIG, seed=SEED, log=False).start(events=256)
    pd, cq = b.device.alloc_pd(), await b.device.create_cq(256)
    card = Card(b, cq, pd, *[await b.device.reg_mr(pd, SIZE, access, base=BASE, stag=stag) for stag, access in (
        (STAG, ALL_RIGHTS), (READONLY, Access.REMOTE_READ), (INBOX, Access.LOCAL_WRITE))])
    on_card = resume(card.run)

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck),
              phases=[Phase.explicit, Phase.generate, Phase.shrink])
    @given(streams, cuts)
    def examples(plan, sizes):
        stream = b"".join(fpdus(plan))
        found, want = on_card(stream, sizes), golden(stream)
        assert found[4] is want[4] and found[2:4] == want[2:4], (found[2:], want[2:])
        assert found[:2] == want[:2]

    await bridge(examples)()
    print({reason.name: count for reason, count in card.seen.items()})
    assert card.seen[Reason.NONE] and len(card.seen) > 4
    await b.stop()
