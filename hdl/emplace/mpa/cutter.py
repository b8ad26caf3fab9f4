"""Cuts a run of octets into FPDUs, and judges each."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..control.records import RecordKind
from ..llp import HEADER_BYTES, UlpduStatus
from .crc import Crc32c
from .records import GateReply, GateRequest, HoldWrite, Outcome, Verdict

__all__ = ["FpduCutter"]

#: Octets of the smallest FPDU: a tagged ULPDU without payload.
_LEAST = 20


class FpduCutter(wiring.Component):
    """Cuts octets that begin with an FPDU, checks lengths (M1), CRC32c (M3) and asks the gate for Sends.

    Each FPDU is written to the hold queue from its first word on, before it is known whether it is whole; two words
    later that is known, and if it isn't, they are taken back. FPDUs are a multiple of 4 octets, so that those of one
    run begin at octet 0 or 4 of a word: half a word is all that has to be kept. The CRC's verdict comes while the
    next FPDU begins.

    Throughput: ``ceil(size / 8)`` cycles an FPDU, one behind the other. Latency: 3 cycles from an FPDU's last word to
    ``finished`` (END, CRC), ``verdict`` and ``commit``.

    Errors (RFC 5044 section 8; the first one ends the run): ULPDU_Length below 14 (tagged) or 18, or the FPDU longer
    than ``fpdu_max``: LENGTH. CRC: CRC.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    start : ``In(1)``
        Strobe: a run of ``total`` octets begins.
    total : ``In(13)``
        At least 1.
    qp : ``In(qp_bits)``
    crc : ``In(1)``
        CRC32c is checked.
    joined : ``In(1)``
        The run's first FPDU lies in two slots (to be counted).
    words : ``In(stream.Signature(64))``
        The octets, dense.
    finished : ``Out(1)``
        Strobe: the run is over, for the reason ``outcome``.
    outcome : ``Out(Outcome)``
    left : ``Out(13)``
        After ``finished``: octets from the start of the FPDU that ended the run (END: 0).
    size : ``Out(12)``
        After INCOMPLETE: octets of that FPDU; 0 as long as fewer than 3 octets of it are there.
    some : ``Out(1)``
        An FPDU of this run was committed.
    length : ``Out(16)``
        After LENGTH: the ULPDU_Length.
    gate_request, gate_reply : streams
        For the first segment of each Send: untagged, QN 0, MO 0. Asked only for whole FPDUs.
    room, record_room : ``In(1)``
        Of the hold queue.
    write, commit, rollback, header : ``Out``
        To the hold queue.
    verdict : ``Out(stream.Signature(Verdict(config)))``
        Always taken, as ``record_room`` was looked at. OK comes with ``commit``.
    fpdus, fpdus_split : ``Out(1)``
        Counters.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "start":        In(1),
            "total":        In(13),
            "qp":           In(config.qp_bits),
            "crc":          In(1),
            "joined":       In(1),
            "words":        In(stream.Signature(64)),
            "finished":     Out(1),
            "outcome":      Out(Outcome),
            "left":         Out(13),
            "size":         Out(12),
            "some":         Out(1),
            "length":       Out(16),
            "gate_request": Out(stream.Signature(GateRequest(config))),
            "gate_reply":   In(stream.Signature(GateReply())),
            "room":         In(1),
            "record_room":  In(1),
            "write":        Out(HoldWrite()),
            "commit":       Out(1),
            "rollback":     Out(1),
            "header":       Out(8 * HEADER_BYTES),
            "verdict":      Out(stream.Signature(Verdict(config))),
            "fpdus":        Out(1),
            "fpdus_split":  Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        words, length, left = self.words, self.length, self.left

        # Alignment: `late` FPDUs begin in the upper half of a word, which is kept.
        late, kept = Signal(), Signal(32)
        low, high = Signal(32), Signal(32)
        m.d.comb += [
            low.eq(Mux(late, kept, words.p[:32])),
            high.eq(Mux(late, words.p[:32], words.p[32:])),
        ]

        active = Signal()
        step = Signal(range(3))          # word 0, word 1, any later word of the FPDU
        # Of the FPDU from which `step` counts:
        short = Signal()                 # fewer octets are left than any FPDU has
        have_length, have_control = Signal(), Signal()
        limit = Signal(13)               # longest ULPDU that would be whole
        tagged, send = Signal(), Signal()
        bad, whole = Signal(), Signal()
        half = Signal()                  # its last word has 4 octets
        alone = Signal()                 # its last word holds nothing of the ULPDU
        final, togo = Signal(), Signal(9)   # the next word is its last; else, how many come before that

        # Gate: asked at word 2, answered before the last word passes.
        looked, asked, go, claimed = (Signal(name=n) for n in ("looked", "asked", "go", "claimed"))
        gate_ok, parked = Signal(), Signal()
        m.d.comb += [
            gate_ok.eq(~send | (looked & (~asked | go))),
            self.gate_request.p.qp.eq(self.qp),
            self.gate_reply.ready.eq(1),
            parked.eq(self.gate_reply.valid & ~self.gate_reply.p.go),
        ]
        with m.If(self.gate_request.ready):
            m.d.sync += self.gate_request.valid.eq(0)
        with m.If(self.gate_reply.valid):
            m.d.sync += [go.eq(self.gate_reply.p.go), claimed.eq(self.gate_reply.p.claimed)]

        # Which word passes in this cycle.
        tail = Signal()                  # the word is 4 octets
        present = Signal()
        begins, second, later, stop = Signal(), Signal(), Signal(), Signal()
        passes, ends, failed = Signal(), Signal(), Signal()
        m.d.comb += [
            tail.eq(Mux(step == 0, left <= 4, (step == 2) & final & half)),
            present.eq(words.valid | (late & tail)),
            stop.eq(active & (step == 2) & (bad | ~whole)),
            begins.eq(active & (step == 0) & (left != 0) & present & self.room),
            second.eq(active & (step == 1) & ~short & present & self.room),
            later.eq(active & (step == 2) & ~bad & whole & present & self.room
                     & (~final | (gate_ok & self.record_room))),
            passes.eq(begins | second | later),
            ends.eq(later & final),
            words.ready.eq(passes & ~(late & tail)),
        ]
        with m.If(words.valid & words.ready):
            m.d.sync += kept.eq(words.p[32:])
        with m.If(ends & half):
            m.d.sync += late.eq(~late)

        # Word 0: what is left for it; ULPDU_Length, T, opcode.
        with m.If(begins):
            m.d.sync += [
                step.eq(1),
                short.eq(left < _LEAST),
                have_length.eq(left >= 2),
                have_control.eq(left >= 3),
                limit.eq((left | 3) - 9),
                length.eq(Cat(low[8:16], low[:8])),
                tagged.eq(low[23]),
                send.eq(~low[23] & (low[24:28] >= 3) & (low[24:28] <= 6)),
                claimed.eq(0),
            ]
        # Word 1, which a run that is too short doesn't have: all about the length; QN.
        words_1, quarters = Signal(14), Signal(15)
        m.d.comb += [
            words_1.eq((length + 5)[3:]),          # index of its last word
            quarters.eq((length + 9)[2:]),         # size / 4
        ]
        with m.If(active & (step == 1) & (second | short)):
            m.d.sync += [
                step.eq(2),
                bad.eq((have_length & ((length < 14) | (length > config.fpdu_max - 6)))
                       | (have_control & ~tagged & (length < 18))),
                whole.eq(~short & (length <= limit)),
                self.size.eq(Mux(have_control, Cat(Const(0, 2), quarters), 0)),
                half.eq(quarters[0]),
                alone.eq((length + 1)[2]),
                togo.eq(words_1 - 2),
                final.eq(words_1 == 2),
                send.eq(send & (low == 0)),
                looked.eq(0), asked.eq(0), go.eq(0),
            ]
        # Word 2: MO.
        with m.If(active & (step == 2) & whole & ~bad & present & send & ~looked):
            m.d.sync += [looked.eq(1), asked.eq(low == 0), self.gate_request.valid.eq(low == 0)]
        left_before = Signal(13)
        with m.If(later):
            m.d.sync += [togo.eq(togo - 1), final.eq(togo == 1)]
        with m.If(ends):
            m.d.sync += [step.eq(0), left.eq(left - self.size), left_before.eq(left)]

        # One cycle later: into the hold queue and the header. `length` and `alone` are still this FPDU's.
        word, word_step = Signal(64), Signal(3)      # word_step: index, up to 7
        word_valid, word_last, word_next_last, word_half = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            word.eq(Cat(low, high)),
            word_valid.eq(passes & ~failed),
            word_last.eq(ends),
            word_next_last.eq(Mux(second, words_1 == 2, togo == 1)),
            word_half.eq(half),
        ]
        with m.If(begins):
            m.d.sync += word_step.eq(0)
        with m.Elif(passes & (word_step != 7)):
            m.d.sync += word_step.eq(word_step + 1)
        m.d.comb += [
            self.write.en.eq(word_valid & ~(word_last & alone)),
            self.write.data.eq(word),
            self.write.last.eq((word_step != 0) & Mux(alone, word_next_last, word_last)),
            self.write.empty.eq(Mux(self.write.last, 6 - length[:3], 0)),
        ]
        for n in range(HEADER_BYTES // 8):
            with m.If(word_valid & (word_step == n)):
                m.d.sync += self.header.word_select(n, 64).eq(word)

        # CRC: the matrix right here, the register one cycle later, the verdict in the cycle after that.
        m.submodules.check = check = Crc32c()
        blank = Signal()
        m.d.comb += [
            blank.eq((step == 2) & final & half),
            check.data.eq(Cat(low, Mux(blank, 0, high))),
            check.valid.eq(passes),
            check.first.eq(step == 0),
            check.half.eq(word_half),
        ]
        judge, judge_length, judge_claimed = Signal(), Signal(16), Signal()
        m.d.sync += [
            judge.eq(word_valid & word_last),
            judge_length.eq(length),
            judge_claimed.eq(claimed),
        ]
        m.d.comb += [
            failed.eq(judge & self.crc & ~check.good),
            self.commit.eq(judge & ~failed),
            self.fpdus.eq(self.commit),
            self.fpdus_split.eq(self.commit & self.joined & ~self.some),
            self.verdict.valid.eq(judge),
            self.verdict.p.kind.eq(RecordKind.DATA),
            self.verdict.p.qp.eq(self.qp),
            self.verdict.p.length.eq(judge_length),
            self.verdict.p.claimed.eq(judge_claimed),
            self.verdict.p.status.eq(Mux(failed, UlpduStatus.CRC, UlpduStatus.OK)),
        ]
        with m.If(self.commit):
            m.d.sync += self.some.eq(1)

        # How it ends. Nothing but END meets a verdict that is still to come: word 2 is too late for that.
        m.d.comb += self.finished.eq(1)
        with m.If(~active):
            m.d.comb += self.finished.eq(0)
        with m.Elif(failed):
            m.d.comb += self.outcome.eq(Outcome.CRC)
            m.d.sync += left.eq(left_before)
        with m.Elif(parked):
            m.d.comb += self.outcome.eq(Outcome.PARKED)
        with m.Elif(stop):
            m.d.comb += self.outcome.eq(Mux(bad, Outcome.LENGTH, Outcome.INCOMPLETE))
        with m.Elif((step == 0) & (left == 0) & ~(word_valid & word_last)):
            m.d.comb += self.outcome.eq(Outcome.END)
        with m.Else():
            m.d.comb += self.finished.eq(0)
        m.d.comb += self.rollback.eq(self.finished & (self.outcome != Outcome.END))
        with m.If(self.finished):
            m.d.sync += [active.eq(0), word_valid.eq(0)]

        with m.If(self.start):
            m.d.sync += [active.eq(1), step.eq(0), late.eq(0), left.eq(self.total), self.some.eq(0)]
        return m
