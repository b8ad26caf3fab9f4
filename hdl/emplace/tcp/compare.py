"""The subtractions of receive processing, in three stages. Ref: RFC 9293 §3.10.7.4, RFC 7323 §4.3, §5.3, RFC 5961 §5.2."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..ip.records import SegmentRecord
from .context import Context

__all__ = ["Compare", "Compared", "DAYS_24"]

#: 24 days in units of 2**16 ticks of 1 ms: a TS.Recent that old says nothing (RFC 7323 5.5).
DAYS_24 = 24 * 86_400_000 // 65536 + 1
_CE = 3


class Compared(data.StructLayout):
    """How a segment lies to its connection.

    Behind the first stage
    ----------------------
    ahead : ``signed(32)``
        SEG.SEQ - RCV.NXT.
    level, below, empty : ``unsigned(1)``
        It is 0; below 0; the segment has neither payload nor FIN.
    second : ``unsigned(1)``
        Octets that came before are not acknowledged yet.
    right : ``unsigned(32)``
        SEG.SEQ + octets of payload: where a FIN is.
    window : ``unsigned(32)``
        Scaled.
    predicted : ``unsigned(1)``
        Header prediction holds.
    marked, remarked : ``unsigned(1)``
        CE counts here and is set; it differs from the latest data segment's.

    Behind the second
    -----------------
    end : ``signed(34)``
        Behind the last octet, FIN counted, - RCV.NXT.
    replayed : ``unsigned(1)``
        PAWS: the timestamp is too old.
    unsent : ``unsigned(1)``
        SEG.ACK > SND.MAX.
    take_ts, take_una, take_window : ``unsigned(1)``
        TS.Recent is to be SEG.TSval; SND.UNA SEG.ACK; SND.WND ``window``.
    wider : ``unsigned(1)``
        ``window`` > MAX.SND.WND.

    Behind the third
    ----------------
    old, beyond, inside : ``unsigned(1)``
        Nothing in it is new; all lies behind the window; SEG.SEQ lies in it, and above RCV.NXT.
    excess : ``signed(34)``
        Octets behind the window, FIN counted.
    stale : ``unsigned(1)``
        SEG.ACK < SND.UNA - MAX.SND.WND.
    """

    def __init__(self):
        super().__init__({
            "ahead": signed(32), "level": 1, "below": 1, "empty": 1, "second": 1, "right": 32, "window": 32,
            "predicted": 1, "marked": 1, "remarked": 1,
            "end": signed(34), "replayed": 1, "unsent": 1, "take_ts": 1, "take_una": 1, "take_window": 1, "wider": 1,
            "old": 1, "beyond": 1, "inside": 1, "excess": signed(34), "stale": 1,
        })


class Compare(wiring.Component):
    """Compares a segment with its connection's context; all sequence numbers modulo 2**32.

    Latency: results of the first stage 1 cycle behind ``load``, and so on; they hold until the next ``load``.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    load : ``In(1)``
        Strobe: ``segment`` is new. It and ``context`` stand for 3 cycles.
    segment, context : ``In(SegmentRecord(config))``, ``In(Context(config))``
    last_ack : ``In(32)``
        Last.ACK.sent, with ``load``.
    now : ``In(32)``
    o : ``Out(Compared())``
    """

    def __init__(self, config):
        super().__init__({
            "load": In(1), "segment": In(SegmentRecord(config)), "context": In(Context(config)), "last_ack": In(32),
            "now": In(32), "o": Out(Compared()),
        })

    def elaborate(self, platform):
        m = Module()
        segment, context = self.segment, self.context
        o = {}                           # a signal a field
        for name, field in self.o.shape():
            o[name] = Signal(field.shape, name=name)
            m.d.comb += self.o[name].eq(o[name])
        stage = Signal(2)                # the second, the third
        m.d.sync += stage.eq(stage << 1 | self.load)

        # First
        younger = Signal(signed(32))     # SEG.TSval - TS.Recent
        acked = Signal(signed(32))       # Last.ACK.sent - SEG.SEQ
        newly = Signal(signed(32))       # SEG.ACK - SND.UNA
        unsent = Signal(signed(32))      # SND.MAX - SEG.ACK
        later = Signal(signed(32))       # SEG.SEQ - SND.WL1
        age = Signal(16)
        plain, marked, empty = Signal(), Signal(), Signal()
        data_octets, is_data = segment.length, Signal()
        m.d.comb += [
            is_data.eq(data_octets != 0), empty.eq(~is_data & ~segment.fin),
            marked.eq(context.ecn & is_data & (segment.ecn == _CE)),
        ]
        with m.If(self.load):
            m.d.sync += [
                o["ahead"].eq(segment.seq - context.rcv_nxt), younger.eq(segment.tsval - context.ts_recent),
                acked.eq(self.last_ack - segment.seq), newly.eq(segment.ack - context.snd_una),
                unsent.eq(context.snd_nxt - segment.ack), later.eq(segment.seq - context.snd_wl1),
                age.eq(self.now[16:] - context.ts_stamp), o["window"].eq(segment.window << context.snd_wscale),
                o["empty"].eq(empty), o["right"].eq(segment.seq + data_octets), o["marked"].eq(marked),
                o["remarked"].eq(context.ecn & is_data & (marked != context.ce)),
                plain.eq(is_data & ~(segment.rst | segment.syn | segment.fin | segment.options) & context.wide
                         & ~(context.listed | context.parked | context.fin_seen | context.closed)),
            ]
        fits = Signal()                  # UNA <= ACK <= MAX
        m.d.comb += [
            o["level"].eq(o["ahead"] == 0), o["below"].eq(o["ahead"] < 0), o["second"].eq(acked < 0),
            fits.eq((newly >= 0) & (unsent >= 0)),
            o["predicted"].eq(plain & o["level"] & fits & (~context.timestamps | (segment.has_ts & (younger >= 0)))),
        ]

        # Second
        over = Signal(signed(34))        # SEG.SEQ - right edge of the window
        above = Signal(signed(34))       # SEG.ACK - (SND.UNA - MAX.SND.WND)
        with m.If(stage[0]):
            m.d.sync += [
                o["end"].eq(o["ahead"] + data_octets + segment.fin), over.eq(o["ahead"] - context.rcv_wnd),
                o["replayed"].eq(context.timestamps & (younger < 0) & (age < DAYS_24)),
                o["unsent"].eq(unsent < 0), above.eq(newly + context.max_snd_wnd),
                o["take_ts"].eq(context.timestamps & (acked >= 0)), o["take_window"].eq(fits & (later >= 0)),
                o["take_una"].eq(fits), o["wider"].eq(o["window"] > context.max_snd_wnd),
            ]

        # Third
        with m.If(stage[1]):
            m.d.sync += [
                o["old"].eq(Mux(o["empty"], o["below"], o["end"] <= 0)), o["beyond"].eq((over >= 0) & ~o["level"]),
                o["inside"].eq((over < 0) & (o["ahead"] > 0)), o["excess"].eq(o["end"] - context.rcv_wnd),
                o["stale"].eq(above < 0),
            ]
        return m
