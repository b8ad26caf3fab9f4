"""Fields of the IPv4 and TCP headers. Ref: RFC 791 §3.1, RFC 9293 §3.1."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .records import LookupKey

__all__ = ["Header", "swapped"]


def swapped(value):
    """``value`` with its bytes in reverse order: a field as a number."""
    return Cat(value[n:n + 8] for n in reversed(range(0, len(value), 8)))


class Header(wiring.Component):
    """Keeps the fields of the packet that goes by, and what is wrong with them.

    Ports named as in :class:`~emplace.ip.align.Align` are its. Every field is there the cycle behind
    its word and holds until the next packet's.

    Members
    -------
    left : ``Out(16)``
        Bytes of the packet, by its total length, from ``word`` on; valid from word 1.
    total : ``Out(16)``
        Total length.
    key : ``Out(LookupKey())``
    key_new : ``Out(1)``
        Strobe: ``key`` is new.
    seq, ack : ``Out(32)``
    window : ``Out(16)``
    flags : ``Out(8)``
        CWR ECE URG ACK PSH RST SYN FIN.
    ecn : ``Out(2)``
    data_offset : ``Out(4)``
    length : ``Out(signed(17))``
        Octets of TCP payload; negative if the header would not fit.
    length_new : ``Out(1)``
        Word 4 is at hand: next cycle ``length`` will be ``length_next``, ``data_offset`` ``data_offset_next``.
    udp : ``Out(1)``
        It is UDP, with a checksum, and UDP's length is the rest of the packet: RFC 768. Right with ``end``.
    bad_ip, options, fragment, bad_protocol, bad_tcp : ``Out(1)``
        Malformed IPv4 header or shortened packet; IPv4 options; fragment; not TCP; malformed TCP
        header, but for its options. Right with ``end`` and the cycle behind it.
    """

    def __init__(self):
        super().__init__({
            "valid": In(1), "index": In(4), "word": In(64), "last": In(1), "room": In(4),
            "tagged": In(1), "vlan": In(12),
            "left": Out(16), "total": Out(16),
            "key": Out(LookupKey()), "key_new": Out(1),
            "seq": Out(32), "ack": Out(32), "window": Out(16), "flags": Out(8), "ecn": Out(2),
            "data_offset": Out(4), "data_offset_next": Out(4),
            "length": Out(signed(17)), "length_next": Out(signed(17)), "length_new": Out(1), "udp": Out(1),
            "bad_ip": Out(1), "options": Out(1), "fragment": Out(1), "bad_protocol": Out(1), "bad_tcp": Out(1),
        })
        # Public to the proof only: shorter than its total length; malformed.
        self.short, self.bad_form = Signal(), Signal()

    def elaborate(self, platform):
        m = Module()
        word = self.word
        total, short, bad_form = Signal(16), self.short, self.bad_form
        is_udp, udp_length, udp_summed = Signal(), Signal(), Signal()
        rest = Signal(16)                # what IP's total length leaves for UDP; right with word 3
        m.d.sync += rest.eq(self.total - 20)
        m.d.comb += self.udp.eq(is_udp & udp_length & udp_summed)
        m.d.comb += [
            total.eq(swapped(word[16:32])),
            self.data_offset_next.eq(word[4:8]),
            self.length_new.eq(self.valid & (self.index == 4)),
            self.length_next.eq(self.total - 20 - Cat(0, 0, self.data_offset_next)),
            self.bad_ip.eq(short | bad_form),
        ]
        m.d.sync += self.key_new.eq(self.valid & (self.index == 2))
        with m.If(self.valid):
            with m.If(self.left[3:].any()):
                m.d.sync += self.left.eq(self.left - 8)
            with m.Else():
                m.d.sync += self.left.eq(0)
            with m.Switch(self.index):
                with m.Case(0):
                    m.d.sync += [
                        self.total.eq(total), self.left.eq(total - 8), self.ecn.eq(word[8:10]),
                        bad_form.eq((word[4:8] != 4) | (word[:4] < 5) | (total < 20)),
                        self.options.eq(word[:4] > 5),
                        self.fragment.eq(Cat(word[48:54], word[56:64]).any()),
                    ]
                with m.Case(1):
                    m.d.sync += [
                        self.bad_protocol.eq(word[8:16] != 6), is_udp.eq(word[8:16] == 17),
                        self.key.remote_ip.eq(swapped(word[32:])),
                    ]
                with m.Case(2):
                    m.d.sync += [
                        self.key.local_ip.eq(swapped(word[:32])),
                        self.key.remote_port.eq(swapped(word[32:48])), self.key.local_port.eq(swapped(word[48:])),
                        self.key.tagged.eq(self.tagged), self.key.vlan.eq(0),
                    ]
                    with m.If(self.tagged):
                        m.d.sync += self.key.vlan.eq(self.vlan)
                with m.Case(3):
                    m.d.sync += [
                        self.seq.eq(swapped(word[:32])), self.ack.eq(swapped(word[32:])),
                        udp_length.eq((word[:16] == Cat(rest[8:], rest[:8])) & rest[3:].any()),
                        udp_summed.eq(word[16:32].any()),
                    ]
                with m.Case(4):
                    m.d.sync += [
                        self.data_offset.eq(self.data_offset_next), self.flags.eq(word[8:16]),
                        self.window.eq(swapped(word[16:32])), self.length.eq(self.length_next),
                    ]
        # A packet that is shorter than its total length may have ended before any of these words came.
        with m.If(self.last):
            m.d.sync += short.eq(~self.valid | (self.index == 0) | (self.left > self.room))
        m.d.comb += self.bad_tcp.eq((self.total < 40) | (self.data_offset < 5) | (self.length < 0))
        return m
