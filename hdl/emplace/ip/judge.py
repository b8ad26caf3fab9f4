"""The end of a frame: to TCP, to the host, or nowhere; counted."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import RecordKind, Token
from ..stream.queue import Queue
from .records import FrameEntry, SegmentRecord

__all__ = ["Judge", "RECORDS"]

#: Records that may wait for TCP.
RECORDS = 32
#: Cycles from the end of a frame to its record, at most.
_DRAINED = 10


class Judge(wiring.Component):
    """Makes a record of every segment that is as it must be, and counts every other frame once, by the
    first reason in the order of ``abi.COUNTERS``. Frames that the MAC gave up are not counted here.

    Frames that are no installed connection's go to the host, and those of a held one, but for those that the host put
    in. What is wrong with an installed connection's segment ends it here, and so does the lack of a slot.

    A token waits for the end of the frame that is arriving, and until that has been judged; it comes
    behind all records of frames that had begun before it.

    Latency: 4 cycles from ``end`` to the record if lookup and option walk are over by then; else
    2 behind them.

    Members
    -------
    end, err, from_host, ipv4, tagged, between : as in :class:`~emplace.ip.align.Align`
    seq ... bad_tcp : as in :class:`~emplace.ip.header.Header`
    ip_good, tcp_good : as in :class:`~emplace.ip.checksum.Checksum`
    canonical ... tsecr : as in :class:`~emplace.ip.options.Options`
    looked_up, hit, qp : ``done``, ``hit``, ``qp`` of :class:`~emplace.ip.lookup.Lookup`
    slot, placed, open, spend : as in :class:`~emplace.ip.payload.Payload`, other way round
    held : ``In(1)``
        The QP that was looked up is held.
    enter, entry, judged, keep, reason : as in :class:`~emplace.ip.steer.Steer`, other way round
    token : ``In(stream.Signature(Token(config)))``
    segments : ``Out(stream.Signature(SegmentRecord(config)))``
    count : ``Out(abi.counter_layout("ip"))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "end": In(1), "err": In(1), "from_host": In(1), "ipv4": In(1), "tagged": In(1), "between": In(1),
            "seq": In(32), "ack": In(32), "window": In(16), "flags": In(8), "ecn": In(2), "length": In(signed(17)),
            "data_offset": In(4), "udp": In(1),
            "bad_ip": In(1), "options": In(1), "fragment": In(1), "bad_protocol": In(1), "bad_tcp": In(1),
            "ip_good": In(1), "tcp_good": In(1),
            "canonical": In(1), "none": In(1), "walked": In(1), "good": In(1), "found": In(1),
            "tsval": In(32), "tsecr": In(32),
            "looked_up": In(1), "hit": In(1), "qp": In(config.qp_bits),
            "slot": In(config.slot_bits), "placed": In(1), "open": Out(1), "spend": Out(1),
            "held": In(1), "enter": Out(1), "entry": Out(FrameEntry),
            "judged": Out(1), "keep": Out(1), "reason": Out(4),
            "token": In(stream.Signature(Token(config))),
            "segments": Out(stream.Signature(SegmentRecord(config))),
            "count": Out(abi.counter_layout("ip")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        count = Signal(abi.counter_layout("ip"))
        m.d.sync += self.count.eq(count)
        Reason = abi.FrameReason

        # What is wrong by the header alone, while the checksums' last additions are under way
        names = ("other", "bad_ip", "options", "fragment", "bad_protocol", "bad_tcp", "udp", "injected")
        seen, ended = Signal(len(names)), Signal(2)
        wrong = Signal(len(names))
        head, header = Signal(7), Signal(7)          # octets up to the end of the TCP header
        udp, injected = wrong[6], wrong[7]
        m.d.sync += [
            seen.eq(Cat(~self.ipv4, self.bad_ip, self.options, self.fragment, self.bad_protocol, self.bad_tcp, self.udp,
                        self.from_host)),
            wrong.eq(seen), ended.eq(Cat(self.end & ~self.err, ended[0])),
            head.eq(34 + ((self.data_offset + self.tagged) << 2)), header.eq(head),
        ]

        # Two cycles behind the end. Who is not counted here waits in `record` for lookup and option walk.
        record = Signal(SegmentRecord(config))
        walk, sum_good, odd_flags, too_long, payload, malformed, ours = (
            Signal(name=n) for n in ("walk", "sum_good", "odd_flags", "too_long", "payload", "malformed", "ours"))
        stamped = Signal()               # canonical Timestamps
        kept = Signal()                  # its payload is in the slot
        entry = self.entry
        good = Cat(1, self.ip_good, 0, 0)                                  # abi.FrameFlags: IP alone was looked at
        both = Cat(1, self.ip_good, 1, self.tcp_good)
        m.d.comb += self.enter.eq(ended[1])
        with m.If(ended[1]):
            with m.If(wrong[0]):
                m.d.comb += [count.rx_other_ethertype.eq(1), entry.reason.eq(Reason.OTHER_ETHERTYPE)]
            with m.Elif(wrong[1]):
                m.d.comb += [count.rx_ip_header.eq(1), entry.reason.eq(Reason.IP_HEADER)]
            with m.Elif(wrong[2]):
                m.d.comb += [count.rx_ip_options.eq(1), entry.reason.eq(Reason.IP_OPTIONS)]
            with m.Elif(wrong[3]):
                m.d.comb += [count.rx_ip_fragment.eq(1), entry.reason.eq(Reason.IP_FRAGMENT), entry.flags.eq(good)]
            with m.Elif(~self.ip_good):
                m.d.comb += [count.rx_ip_checksum.eq(1), entry.reason.eq(Reason.IP_CHECKSUM), entry.flags.eq(good)]
            with m.Elif(wrong[4]):
                m.d.comb += [count.rx_ip_protocol.eq(1), entry.reason.eq(Reason.IP_PROTOCOL), entry.flags.eq(good)]
                with m.If(udp):
                    m.d.comb += entry.flags.eq(both)
            with m.Else():
                m.d.comb += [entry.open.eq(1), entry.flags.eq(good)]
                m.d.sync += self.open.eq(1)
                with m.If(~wrong[5]):
                    m.d.comb += [entry.flags.eq(both), entry.header.eq(header)]
            m.d.sync += [
                record.slot.eq(self.slot), record.length.eq(self.length),
                record.seq.eq(self.seq), record.ack.eq(self.ack), record.window.eq(self.window),
                record.psh.eq(self.flags[3]), record.syn.eq(self.flags[1]), record.fin.eq(self.flags[0]),
                record.rst.eq(self.flags[2]), record.urg.eq(self.flags[5]), record.has_ack.eq(self.flags[4]),
                record.ecn.eq(self.ecn), record.ece.eq(self.flags[6]),
                record.cwr.eq(self.flags[7]), record.options.eq(~self.none & ~self.canonical),
                walk.eq(~self.none & ~self.canonical & ~wrong[5]), malformed.eq(wrong[5]), ours.eq(injected),
                stamped.eq(~self.none & self.canonical),
                sum_good.eq(self.tcp_good), kept.eq(self.placed),
                odd_flags.eq((self.flags[:6] & 0b010110) == 0),
                too_long.eq(self.length > config.slot_bytes), payload.eq(self.length != 0),
            ]

        # A token: armed between two frames, then until the frame before is judged.
        armed = Signal()
        timer = Signal(range(_DRAINED + 1))
        token_now, judge_now = Signal(), Signal()
        m.submodules.queue = queue = Queue(SegmentRecord(config), RECORDS)
        m.d.comb += [
            token_now.eq(armed & (timer == 0) & queue.i.ready),
            self.token.ready.eq(token_now),
            judge_now.eq(self.open & self.looked_up & (self.walked | ~walk) & ~token_now),
        ]
        with m.If(token_now):
            m.d.sync += armed.eq(0)
        with m.Elif(armed):
            with m.If(timer != 0):
                m.d.sync += timer.eq(timer - 1)
        with m.Elif(self.token.valid & self.between):
            m.d.sync += [armed.eq(1), timer.eq(_DRAINED)]

        push = Signal()
        m.d.comb += self.judged.eq(judge_now)
        with m.If(judge_now):
            m.d.sync += self.open.eq(0)
            m.d.comb += self.keep.eq(~self.hit)
            with m.If(malformed | (walk & ~self.good)):
                m.d.comb += [count.rx_tcp_header.eq(1), self.reason.eq(Reason.TCP_HEADER)]
            with m.Elif(~sum_good):
                m.d.comb += [count.rx_tcp_checksum.eq(1), self.reason.eq(Reason.TCP_CHECKSUM)]
            with m.Elif(~self.hit):
                m.d.comb += [count.rx_no_connection.eq(1), self.reason.eq(Reason.NO_CONNECTION)]
            with m.Elif(self.held & ~ours):
                m.d.comb += [count.rx_frames_held.eq(1), self.reason.eq(Reason.HELD), self.keep.eq(1)]
            with m.Elif(odd_flags):
                m.d.comb += count.rx_tcp_flags.eq(1)
            with m.Elif(too_long | (payload & ~kept) | ~queue.i.ready):
                m.d.comb += count.rx_no_slot.eq(1)
            with m.Else():
                m.d.comb += [push.eq(1), count.rx_segments.eq(1), self.spend.eq(payload)]

        m.d.comb += [
            queue.i.valid.eq(push | token_now),
            queue.i.p.eq(record),
            queue.i.p.kind.eq(RecordKind.DATA),
            queue.i.p.token.eq(self.token.p),
            queue.i.p.qp.eq(self.qp),
            queue.i.p.has_ts.eq(stamped | (walk & self.found)),
            queue.i.p.tsval.eq(self.tsval), queue.i.p.tsecr.eq(self.tsecr),
            self.segments.p.eq(queue.o.p), self.segments.valid.eq(queue.o.valid),
            queue.o.ready.eq(self.segments.ready),
        ]
        with m.If(token_now):
            m.d.comb += queue.i.p.kind.eq(RecordKind.TOKEN)
        return m
