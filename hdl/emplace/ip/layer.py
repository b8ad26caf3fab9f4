"""The IP layer: frames in, segments of installed connections out; who gets the other frames."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import abi
from ..control.records import Token
from ..stream.packet import PacketSignature, connect_streams
from .align import Align
from .checksum import Checksum
from .header import Header
from .judge import Judge
from .lookup import Lookup
from .options import Options
from .payload import Payload
from .records import Disposition, HoldRequest, LookupUpdate, SegmentRecord, SlotIndex, SlotWrite
from .steer import Steer

__all__ = ["Ip"]


class Ip(wiring.Component):
    """Parses Ethernet, 802.1Q, IPv4 and TCP while the frame arrives, looks its connection up, writes the
    payload into a slot, and hands a record to TCP once FCS and both checksums hold.

    Throughput: a word every cycle, frames without a gap. Latency: 5 cycles from a frame's last word to
    its record; more only for connections deep in their hash bucket whose frame ends right behind the
    TCP header, and for options other than NOP NOP Timestamps at the frame's end: 8 at most.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    frames : ``In(PacketSignature(8))``
        From the MAC, or put in by the host, without FCS. Always ready.
    injected : ``In(1)``
        With a frame's last word: the host put it in.
    alloc : ``In(stream.Signature(SlotIndex(config)))``
        Free slots; one is kept in hand.
    slot_write : ``Out(stream.Signature(SlotWrite(config), always_ready=True))``
        Payload; what lies past its end in the last word may be anything.
    segments : ``Out(stream.Signature(SegmentRecord(config)))``
        Up to 32 wait here; a frame that finds no room is dropped.
    lookup_update : ``In(stream.Signature(LookupUpdate(config)))``
    lookup_result : ``Out(stream.Signature({"status": 8}))``
        See :class:`~emplace.ip.lookup.Lookup`.
    hold, released : ``In(stream.Signature(HoldRequest(config)))``, ``Out(1)``
        See :class:`~emplace.ip.steer.Steer`.
    dispositions : ``Out(stream.Signature(Disposition(config)))``
        One for each frame without ``err``, 6 cycles behind its last word, up to 11 where the record takes longer. To be
        taken within 8 cycles.
    token : ``In(stream.Signature(Token(config)))``
        Comes out of ``segments`` behind every frame that had begun before it.
    count : ``Out(abi.counter_layout("ip"))``
        Every frame without ``err`` counts once.
    """

    frames: stream.Interface
    injected: Signal
    hold: stream.Interface
    released: Signal
    dispositions: stream.Interface
    alloc: stream.Interface
    slot_write: stream.Interface
    segments: stream.Interface
    lookup_update: stream.Interface
    lookup_result: stream.Interface
    token: stream.Interface
    count: Signal

    def __init__(self, config):
        self.config = config
        super().__init__({
            "frames": In(PacketSignature(config.word_bytes)),
            "injected": In(1),
            "hold": In(stream.Signature(HoldRequest(config))),
            "released": Out(1),
            "dispositions": Out(stream.Signature(Disposition(config))),
            "alloc": In(stream.Signature(SlotIndex(config))),
            "slot_write": Out(stream.Signature(SlotWrite(config), always_ready=True)),
            "segments": Out(stream.Signature(SegmentRecord(config))),
            "lookup_update": In(stream.Signature(LookupUpdate(config))),
            "lookup_result": Out(stream.Signature(data.StructLayout({"status": 8}))),
            "token": In(stream.Signature(Token(config))),
            "count": Out(abi.counter_layout("ip")),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.align = align = Align()
        m.submodules.header = header = Header()
        m.submodules.checksum = checksum = Checksum()
        m.submodules.options = options = Options()
        m.submodules.lookup = lookup = Lookup(config)
        m.submodules.payload = payload = Payload(config)
        m.submodules.judge = judge = Judge(config)
        m.submodules.steer = steer = Steer(config)

        def fan_out(source, *names, to):
            for sink in to:
                m.d.comb += [getattr(sink, name).eq(getattr(source, name)) for name in names]

        connect_streams(m, self.frames, align.frames)
        fan_out(align, "valid", "index", "word", to=[header, checksum, options])
        fan_out(align, "last", "room", "tagged", "vlan", to=[header])
        fan_out(align, "valid", "index", "payload", "tagged", "end", to=[payload])
        fan_out(align, "end", "err", "from_host", "ipv4", "tagged", "between", to=[judge])
        fan_out(header, "left", "total", to=[checksum])
        fan_out(header, "length_new", "data_offset_next", to=[options, payload])
        fan_out(header, "length_next", to=[payload])
        fan_out(header, "seq", "ack", "window", "flags", "ecn", "length", "data_offset", "udp", "bad_ip",
                "options", "fragment", "bad_protocol", "bad_tcp", to=[judge])
        fan_out(checksum, "ip_good", "tcp_good", to=[judge])
        fan_out(options, "canonical", "none", "good", "found", "tsval", "tsecr", to=[judge])
        fan_out(lookup, "hit", "qp", to=[judge])
        fan_out(payload, "slot", "placed", to=[judge])
        fan_out(judge, "open", "spend", to=[payload])
        fan_out(judge, "enter", "entry", "judged", "keep", "reason", to=[steer])
        m.d.comb += [
            align.half.eq(payload.half), align.injected.eq(self.injected),
            steer.look.eq(lookup.qp), steer.qp.eq(lookup.qp), judge.held.eq(steer.held), self.released.eq(steer.released),
            lookup.key.eq(header.key), lookup.start.eq(header.key_new),
            judge.walked.eq(options.done), judge.looked_up.eq(lookup.done),
            self.slot_write.p.eq(payload.slot_write.p), self.slot_write.valid.eq(payload.slot_write.valid),
            self.count.eq(judge.count),
        ]
        connect_streams(m, self.alloc, payload.alloc)
        connect_streams(m, self.lookup_update, lookup.update)
        connect_streams(m, lookup.result, self.lookup_result)
        connect_streams(m, self.token, judge.token)
        connect_streams(m, self.hold, steer.hold)
        connect_streams(m, steer.o, self.dispositions)
        connect_streams(m, judge.segments, self.segments)
        return m
