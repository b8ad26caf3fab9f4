"""ULPDUs to FPDUs, on the way out."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..llp import UlpduPlan
from ..stream.packet import PacketSignature
from .crc import Crc32cMaker

__all__ = ["Framer"]

_TAGGED, _UNTAGGED = 14, 18


class Framer(wiring.Component):
    """Makes the FPDU of each plan: ULPDU_Length, header, payload, zeros to a multiple of 4, CRC32c (RFC 5044 section 4).

    Throughput: a word of the FPDU every cycle, S octets in ``ceil(S / 8) + 1`` cycles. Latency: 4 cycles from a plan to its
    first word, and from a payload's word to the one it goes into.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    plans : ``In(stream.Signature(UlpduPlan(config)))``
    payload : ``In(PacketSignature(8))``
        See :class:`~emplace.llp.UlpduPlan`. A packet of another length than its plan's, or with ``err``, gives an FPDU with
        ``err``, whose octets mean nothing.
    crc : ``In(qps)``
        A bit a QP: CRC32c is in use. Else the CRC is sent as 0 (RFC 5044 4.4; as Linux siw does).
    o : ``Out(PacketSignature(8))``
        FPDUs.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "plans":   In(stream.Signature(UlpduPlan(config))),
            "payload": In(PacketSignature(8)),
            "crc":     In(config.qps),
            "o":       Out(PacketSignature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        o, payload = self.o, self.payload
        go = Signal()                    # the stages behind the first move

        # First stage: the words before the CRC, padded with zeros.
        plan, crc = Signal(UlpduPlan(self.config)), Signal()
        length = Signal(16)
        carry = Signal(32)               # untagged: the lower half of the word under way
        left = Signal(16)                # octets of the packet still to come
        word, put, first, half, last, err = (
            Signal(64, name="word"), *(Signal(name=n) for n in ("put", "first", "half", "last", "err")))
        filled = Signal(4)
        masked = Signal(64)
        odd = Signal()                   # the packet's length isn't the plan's
        m.d.comb += [
            filled.eq(8 - payload.p.empty),
            masked.eq(Cat(Mux(payload.p.last & (filled <= lane), 0, payload.p.data.word_select(lane, 8))
                          for lane in range(8))),
            odd.eq(payload.p.last & (left != filled)),
        ]
        wrong = Signal()
        with m.FSM():
            with m.State("PLAN"):        # for a plan
                m.d.comb += self.plans.ready.eq(go)
                m.d.sync += [
                    plan.eq(self.plans.p), crc.eq(self.crc.bit_select(self.plans.p.qp, 1)), left.eq(self.plans.p.payload),
                    length.eq(self.plans.p.payload + Mux(self.plans.p.tagged, _TAGGED, _UNTAGGED)),
                ]
                with m.If(self.plans.valid & go):
                    m.next = "FIRST"
            with m.State("FIRST"):       # for room
                m.d.comb += [put.eq(1), first.eq(1), word.eq(Cat(length[8:], length[:8], plan.header[:48]))]
                with m.If(go):
                    m.next = "SECOND"
            with m.State("SECOND"):      # for room
                m.d.comb += [put.eq(1), word.eq(plan.header[48:112])]
                m.d.sync += carry.eq(plan.header[112:])
                with m.If(go):
                    m.next = "BODY"
                    with m.If(left == 0):
                        m.next = "CARRY"
                        with m.If(plan.tagged):
                            m.d.comb += last.eq(1)
                            m.next = "PLAN"
            with m.State("BODY"):        # for a word of the payload, and room
                m.d.comb += [
                    payload.ready.eq(go), put.eq(payload.valid),
                    word.eq(Mux(plan.tagged, masked, Cat(carry, masked[:32]))),
                    half.eq(plan.tagged & payload.p.last & (filled <= 4)),
                    last.eq(payload.p.last & (plan.tagged | (filled <= 4))),
                    err.eq(payload.p.err | odd),
                ]
                with m.If(payload.valid & go):
                    m.d.sync += [carry.eq(masked[32:]), left.eq(left - 8), wrong.eq(err)]
                    with m.If(payload.p.last):
                        m.next = "PLAN"
                        with m.If(~last):
                            m.next = "CARRY"
            with m.State("CARRY"):       # for room
                m.d.comb += [put.eq(1), word.eq(carry), half.eq(1), last.eq(1), err.eq((plan.payload != 0) & wrong)]
                with m.If(go):
                    m.next = "PLAN"

        # Second and third stage: the CRC follows its words.
        m.submodules.maker = maker = Crc32cMaker()
        m.d.comb += [
            maker.go.eq(go), maker.data.eq(word), maker.valid.eq(put), maker.first.eq(first), maker.half.eq(half),
        ]
        stages = []
        source = (put, word, half, last, err, crc)
        for n in (2, 3):
            stage = tuple(Signal.like(signal, name=f"{name}_{n}") for name, signal in zip(
                ("valid", "word", "half", "last", "err", "crc"), source, strict=True))
            with m.If(go):
                m.d.sync += [ours.eq(theirs) for ours, theirs in zip(stage, source, strict=True)]
            stages.append(stage)
            source = stage
        valid_3, word_3, half_3, last_3, err_3, crc_3 = stages[1]

        # Out: the CRC fills the last word's upper half, or makes a word of its own.
        free, alone, tail = Signal(), Signal(), Signal()
        value = Signal(32)
        m.d.comb += [
            free.eq(o.ready | ~o.valid), alone.eq(valid_3 & last_3 & ~half_3),
            value.eq(maker.crc & crc_3.replicate(32)),
            go.eq(free & (~alone | tail)),
        ]
        with m.If(free):
            m.d.sync += [
                o.valid.eq(valid_3), o.p.last.eq(last_3 & (half_3 | tail)), o.p.err.eq(last_3 & err_3),
                o.p.data.eq(Mux(tail, Cat(value, Const(0, 32)), Cat(word_3[:32], Mux(half_3, value, word_3[32:])))),
                o.p.empty.eq(Mux(tail, 4, 0)), tail.eq(alone & ~tail),
            ]
        return m
