"""Parsers of the IP layer: nothing behind a frame's end has a say."""

from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from emplace.ip.align import Align
from emplace.ip.checksum import Checksum
from emplace.ip.header import Header
from emplace.stream.packet import PacketSignature

from .base import Mutation, Proof
from .tracker import well_formed

__all__ = ["PARSER_PROOFS", "HeaderProof"]

#: Octets of the IPv4 packet behind which each field is known.
_FIELDS = {"total": 4, "ecn": 2, "options": 1, "fragment": 8, "bad_protocol": 10, "seq": 28, "ack": 32,
           "data_offset": 33, "flags": 34, "window": 36, "length": 33}
_KEY = {"remote_ip": 16, "local_ip": 20, "remote_port": 22, "local_port": 24, "tagged": 24, "vlan": 24}


class HeaderProof(wiring.Component):
    """Of :class:`Align`, :class:`Header` and :class:`Checksum`: two of each get the same frames, but behind the end of
    each frame, in its last word and until the next one, what the solver likes, and each something else.

    Then all that counts is the same in both: which words are a packet's, their octets as far as the frame goes, the
    verdict ``bad_ip``; unless that is set, each verdict of the packet's own; and unless one of them is, all fields and
    both checksums' results. A packet that passes has its total length within its frame.
    """

    def __init__(self, align=Align, header=Header, checksum=Checksum):
        self.parts = [(align(), header(), checksum()) for _ in range(2)]
        super().__init__({"frames": In(PacketSignature(8)), "half": In(1)})

    def elaborate(self, platform):
        m = Module()
        i = self.frames
        size = Signal(range(9))
        m.d.comb += [self.frames.ready.eq(1), size.eq(Mux(i.valid, 8 - i.p.empty, 0))]
        well_formed(m, i, Assume)
        for n, (align, header, checksum) in enumerate(self.parts):
            for name, part in (("align", align), ("header", header), ("checksum", checksum)):
                m.submodules[f"{name}{n}"] = part
            garbage = Signal(64, name=f"garbage{n}")
            m.d.comb += garbage.eq(AnySeq(64))
            m.d.comb += [
                align.frames.valid.eq(i.valid), align.frames.p.eq(i.p), align.half.eq(self.half),
                align.frames.p.data.eq(Cat(Mux(lane < size, i.p.data.word_select(lane, 8), garbage.word_select(lane, 8))
                                           for lane in range(8))),
                *(getattr(header, name).eq(getattr(align, name))
                  for name in ("valid", "index", "word", "last", "room", "tagged", "vlan")),
                *(getattr(checksum, name).eq(getattr(align, name)) for name in ("valid", "index", "word")),
                checksum.left.eq(header.left), checksum.total.eq(header.total),
            ]
        (a, h, c), (b, k, d) = self.parts

        def same(what, x, y, *names):
            return [Assert(getattr(x, name) == getattr(y, name), f"{what}: {name}") for name in names]

        # Words. `known`: octets of this word that are the frame's; `rest`: of the last word, behind it.
        seen, rest, known, known_payload = Signal(range(9)), Signal(range(9)), Signal(range(9)), Signal(range(9))
        shift, from_now = Signal(4), Signal(5)
        with m.If(i.valid):
            m.d.sync += seen.eq(size)
        m.d.sync += rest.eq(Mux(a.last & (a.room > 8), a.room - 8, 0))
        m.d.comb += [
            known.eq(Mux(i.valid & ~a.end, Mux(a.room > 8, 8, a.room), Mux(a.end, rest, 0))),
            shift.eq(Mux(self.half, 2, 6)), from_now.eq(size + 8 - shift),
            known_payload.eq(Mux(a.end, Mux(seen > shift, seen - shift, 0), Mux(from_now > 8, 8, from_now))),
        ]
        m.d.comb += same("align", a, b, "valid", "index", "last", "room", "end", "err", "ipv4", "tagged", "between",
                         "position")
        with m.If((a.index >= 2) | (a.position >= 2) | (a.end & (a.index != 0))):
            m.d.comb += same("align", a, b, "vlan")
        for lane in range(8):
            def octet(of, lane=lane):
                return of.word_select(lane, 8)
            m.d.comb += [
                Assert((lane >= seen) | (octet(a.before) == octet(b.before))),
                Assert((lane >= known) | ~a.valid | (octet(a.word) == octet(b.word)), "align: the frame's octets"),
                Assert((lane >= known_payload) | ~a.valid | (octet(a.payload) == octet(b.payload)), "align: payload"),
            ]
        m.d.comb += [
            Assert((a.position == 0) | (seen == 8)), Assert(~a.end | (a.position == 0)),
            Assert((a.index == 0) | (a.position != 1)),
        ]

        # Octets of this frame's packet that have been seen, and whether each that counts was the frame's
        have, honest, honest_now = Signal(18), Signal(), Signal()
        m.d.comb += honest_now.eq(known >= Mux((a.index == 0) | h.left[3:].any(), 8, h.left))
        with m.If(a.valid):
            m.d.sync += have.eq(Mux(a.index == 0, known, Mux(have[17], have, have + known)))
            m.d.sync += honest.eq(honest_now & (honest | (a.index == 0)))

        # Fields, each as soon as its octets have been seen.
        for name, octets in _FIELDS.items():
            m.d.comb += Assert((have < octets) | (getattr(h, name) == getattr(k, name)), f"header: {name}")
        for name, octets in _KEY.items():
            m.d.comb += Assert((have < octets) | (h.key[name] == k.key[name]), f"header: {name}")
        m.d.comb += [
            Assert((have < 4) | ((h.left == k.left) & (h.bad_form == k.bad_form))),
            Assert((h.short == k.short) | ~(a.end & a.ipv4), "header: short"),
        ]

        # While the packet comes, `left` is what its total length leaves of it.
        m.d.comb += [
            Assert((a.position != 1) | (~a.ipv4 & ~a.tagged & (a.index == 0))), Assert((a.position != 2) | (a.index == 0)),
            Assert(~honest | (have >= 8)),
        ]
        with m.If((a.position == 3) & (a.index != 0)):
            m.d.comb += Assert(honest & ((h.total < 8) | (h.left == Mux(h.total > have, h.total - have, 0))))

        with m.If(((a.position == 3) | (a.end & a.ipv4)) & (a.index != 0)):
            m.d.comb += Assert(Mux(a.index == 15, have >= Mux(a.end & (rest == 0), 112, 120),
                                   Mux(a.end & (rest == 0), have <= a.index << 3, have == a.index << 3)))

        # Checksums: a word's sums in the cycle behind it, the packet's in the one behind that.
        was_valid, was_first = Signal(), Signal()
        m.d.sync += [was_valid.eq(a.valid), was_first.eq(a.valid & (a.index == 0))]
        with m.If(honest & was_valid):
            m.d.comb += same("checksum", c, d, "front", "back")
        with m.If(honest & ~was_first):
            m.d.comb += same("checksum", c, d, "header", "segment")

        # The verdict, with `end`. The fields are looked at two cycles behind it.
        verdicts = ("options", "fragment", "bad_protocol", "bad_tcp")
        passed, behind = Signal(), Signal(2)
        m.d.comb += passed.eq(a.end & a.ipv4 & ~h.bad_ip & ~Cat(getattr(h, name) for name in verdicts).any())
        m.d.sync += behind.eq(Cat(passed, behind[0]))
        with m.If(a.end & a.ipv4):
            m.d.comb += Assert(h.bad_ip == k.bad_ip, "header: bad_ip")
            with m.If(~h.short):
                m.d.comb += Assert(honest & (h.left <= rest) & ((h.total < 8) | (have + rest >= h.total)))
            with m.If(~h.bad_ip):
                m.d.comb += same("header", h, k, *verdicts)
        with m.If(passed):
            m.d.comb += Assert(have + rest >= h.total, "header: total length within the frame")
        with m.If(behind[0]):
            m.d.comb += [Assert(honest & (have >= 40)), Assert(a.position <= 1), Assert(~a.valid)]
        with m.If(behind[1]):
            m.d.comb += [
                Assert(honest & (have >= 40) & ~was_first),
                *same("passed", h, k, "seq", "ack", "window", "flags", "ecn", "length", "key", "total"),
                *same("passed", c, d, "ip_good", "tcp_good"),
            ]
        m.d.comb += [
            Cover(behind[1] & c.ip_good & c.tcp_good & (h.total == 41), "parsers: a segment passes"),
            Cover(a.end & a.ipv4 & h.short & (h.total == 60) & ~h.bad_form, "parsers: too short for its length"),
        ]
        return m


PARSER_PROOFS = [
    Proof("parsers", HeaderProof, 2, 14, {Align: "align", Header: "header", Checksum: "checksum"}, [
        Mutation("type behind the frame's end", Align, "self.ipv4.eq((now[32:48] == 0x0008) & (size >= 6))",
                 "self.ipv4.eq(now[32:48] == 0x0008)"),
        Mutation("two octets too many", Align, "self.room.eq(size + Mux(self.tagged, 6, 2))",
                 "self.room.eq(size + Mux(self.tagged, 6, 4))"),
        Mutation("short packet accepted", Header, "(self.left > self.room)", "(self.left > self.room + 1)"),
        Mutation("ends in the first word", Header, "short.eq(~self.valid | (self.index == 0) |", "short.eq(~self.valid |"),
        Mutation("padding is summed", Checksum, "Cat(self.left[:3] > n for n in range(8))", "0xFF"),
    ], mutant_mode="prove"),
]
