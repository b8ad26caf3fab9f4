"""DDP: direct data placement's headers. Knows neither TCP nor MPA, nor what lies above."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..control.records import InstallCommand, UploadPart
from ..llp import UlpduRecord
from .check import SegmentCheck
from .records import DdpSegment

__all__ = ["Ddp"]


class Ddp(wiring.Component):
    """DDP's part of the receive path: decodes each ULPDU's header and gives DDP's verdicts (RFC 5041 §7.1).

    Payload does not pass through here: see :mod:`emplace.llp`.

    Throughput: one segment every 3 cycles. Latency: 3 cycles.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    ulpdus : ``In(stream.Signature(UlpduRecord(config)))``
        What the LLP delivers, in stream order for each QP.
    segments : ``Out(stream.Signature(DdpSegment(config)))``
        One for each of them, in the same order.
    cmd : ``In(InstallCommand)``
    upload : ``Out(UploadPart)``
        recv_msn, recv_read_msn.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ulpdus":   In(stream.Signature(UlpduRecord(config))),
            "segments": Out(stream.Signature(DdpSegment(config))),
            "cmd":      In(InstallCommand),
            "upload":   Out(UploadPart),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.check = check = SegmentCheck(self.config)
        connect(m, flipped(self.ulpdus), check.ulpdus)
        connect(m, check.segments, flipped(self.segments))
        m.d.comb += [check.cmd.eq(self.cmd), self.upload.eq(check.upload)]
        return m
