"""The context behind a segment, and that of a new connection."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..abi import QpFlags
from ..control.records import InstallCommand
from ..ip.records import SegmentRecord
from .challenge import PERIOD_LOG2, TOKENS
from .compare import Compared
from .context import Context
from .records import WalkResult

__all__ = ["Commit", "Fresh"]


class Commit(wiring.Component):
    """What an acceptable segment changes. Combinational.

    SND.WND: RFC 9293 3.10.7.4 (WL2 is never above SND.UNA, so that WL1 alone decides), MAX.SND.WND: RFC 5961 5.2.
    TS.Recent: RFC 7323 4.3. ECE: until CWR (RFC 3168 6.1.3), or as the segment was marked (RFC 8257 3.2). When an ACK is
    not late: RFC 5681 4.2.

    Members
    -------
    segment, context, compared : the job's
    take, fin : ``In(1)``
        What the header says has not been taken yet; it has a FIN in the window.
    result : ``In(WalkResult())``
    whole, resumed, delayed : ``In(1)``
        All that was walked was consumed; it had been parked; ACKs may be late.
    now : ``In(32)``
    o : ``Out(Context(config))``
    prompt : ``Out(1)``
        If something was consumed: the ACK is due at once.
    """

    def __init__(self, config):
        super().__init__({
            "segment": In(SegmentRecord(config)), "context": In(Context(config)), "compared": In(Compared()), "take": In(1),
            "fin": In(1), "result": In(WalkResult()), "whole": In(1), "resumed": In(1), "delayed": In(1), "now": In(32),
            "o": Out(Context(config)), "prompt": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        segment, context, c, o = self.segment, self.context, self.compared, self.o
        m.d.comb += [
            o.eq(context), o.rcv_nxt.eq(context.rcv_nxt + self.result.consumed),
            self.prompt.eq(c.second | segment.psh | context.listed | c.remarked | self.resumed | ~self.whole | ~self.delayed),
        ]
        with m.If(self.take):
            with m.If(c.take_una):
                m.d.comb += o.snd_una.eq(segment.ack)
            with m.If(c.take_window):
                m.d.comb += [o.snd_wnd.eq(c.window), o.snd_wl1.eq(segment.seq)]
                with m.If(c.wider):
                    m.d.comb += o.max_snd_wnd.eq(c.window)
            with m.If(c.take_ts):
                m.d.comb += [o.ts_recent.eq(segment.tsval), o.ts_stamp.eq(self.now[16:])]
            with m.If(context.ecn & (segment.length != 0)):
                m.d.comb += [o.ce.eq(c.marked), o.ece.eq(c.marked | (context.ece & ~segment.cwr & ~context.dctcp))]
            with m.If(self.fin):
                m.d.comb += [o.fin_seen.eq(1), o.fin_seq.eq(c.right)]
        return m


class Fresh(wiring.Component):
    """The context of the connection that ``cmd`` installs. Combinational.

    Members
    -------
    cmd, now : as in :class:`~.layer.Tcp`
    o : ``Out(Context(config))``
    """

    def __init__(self, config):
        self.config = config
        super().__init__({"cmd": In(InstallCommand), "now": In(32), "o": Out(Context(config))})

    def elaborate(self, platform):
        m = Module()
        cmd, o = self.cmd, self.o
        flags = {"timestamps": QpFlags.TIMESTAMPS, "sack": QpFlags.SACK, "ecn": QpFlags.ECN, "dctcp": QpFlags.DCTCP}
        m.d.comb += [
            o.rcv_nxt.eq(cmd.rcv_nxt), o.rcv_wnd.eq(cmd.rcv_wnd), o.ts_recent.eq(cmd.ts_recent),
            o.ts_stamp.eq(self.now[16:]), o.snd_una.eq(cmd.snd_nxt), o.snd_nxt.eq(cmd.snd_nxt),
            o.snd_wnd.eq(cmd.snd_wnd), o.max_snd_wnd.eq(cmd.snd_wnd), o.snd_wl1.eq(cmd.rcv_nxt - 1),
            o.snd_wscale.eq(cmd.snd_wscale), o.tokens.eq(TOKENS), o.token_stamp.eq(self.now[PERIOD_LOG2:]),
            o.wide.eq(cmd.rcv_wnd >= self.config.slot_bytes),
            *(o[name].eq((cmd.flags & flag.value) != 0) for name, flag in flags.items()),
        ]
        return m
