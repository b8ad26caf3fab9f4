"""The Ethernet MAC: receive and transmit, wired."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import abi
from ..stream.packet import PacketSignature
from .records import Xgmii
from .rx import FRAME_LIMIT, MacRx
from .tx import MacTx

__all__ = ["Mac"]


class Mac(wiring.Component):
    """10 Gigabit Ethernet MAC (or any rate that runs 64-bit XGMII); see :class:`MacRx` and :class:`MacTx`.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    limit : :class:`int`
        Longest frame received, bytes with FCS.

    Members
    -------
    xgmii_rx, xgmii_tx : ``In(Xgmii)``, ``Out(Xgmii)``
    rx : ``Out(PacketSignature(8))``
        Received frames without FCS; ``err`` if they must be dropped.
    tx : ``In(PacketSignature(8))``
        Frames to send, without FCS.
    count : ``Out(abi.counter_layout("mac"))``
    """

    xgmii_rx: wiring.PureInterface
    xgmii_tx: wiring.PureInterface
    rx: stream.Interface
    tx: stream.Interface
    count: Signal

    def __init__(self, config, *, limit=FRAME_LIMIT):
        self.limit = limit
        super().__init__({
            "xgmii_rx": In(Xgmii),
            "xgmii_tx": Out(Xgmii),
            "rx":       Out(PacketSignature(config.word_bytes)),
            "tx":       In(PacketSignature(config.word_bytes)),
            "count":    Out(abi.counter_layout("mac")),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.receive = receive = MacRx(self.limit)
        m.submodules.transmit = transmit = MacTx()
        connect(m, flipped(self.xgmii_rx), receive.xgmii)
        connect(m, receive.o, flipped(self.rx))
        connect(m, flipped(self.tx), transmit.i)
        connect(m, transmit.xgmii, flipped(self.xgmii_tx))
        m.d.comb += [self.count.eq(receive.count), self.count.tx_frames.eq(transmit.sent)]
        return m
