"""The Ethernet MAC: receive and transmit, pause frames, statistics, wired."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import abi
from ..stream.packet import PacketSignature, connect_streams
from .gmii_rx import GmiiRx
from .gmii_tx import GmiiTx
from .pause import PauseReceive, PauseTransmit
from .records import FRAME_LIMIT, Gmii, Xgmii
from .rx import MacRx
from .statistics import Statistics
from .tx import MacTx

__all__ = ["Mac", "phy_members"]


def phy_members(config):
    """Ports to the PCS that a MAC of ``config.phy`` has, by name."""
    if config.phy == "xgmii":
        return {"xgmii_rx": In(Xgmii), "xgmii_tx": Out(Xgmii)}
    return {"gmii_rx": In(Gmii), "gmii_rx_enable": In(1), "gmii_tx": Out(Gmii), "gmii_tx_enable": In(1)}


class Mac(wiring.Component):
    """Ethernet MAC for 64-bit XGMII (10 Gb/s, or any rate that runs it) or for GMII (1 Gb/s), full duplex; see
    :class:`MacRx` and :class:`MacTx`, :class:`GmiiRx` and :class:`GmiiTx`, and :mod:`.pause`.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    limit : :class:`int`
        Longest frame received, bytes with FCS.

    Members
    -------
    xgmii_rx, xgmii_tx : ``In(Xgmii)``, ``Out(Xgmii)``
        One transfer a cycle. (``config.phy`` "xgmii")
    gmii_rx, gmii_tx : ``In(Gmii)``, ``Out(Gmii)``; gmii_rx_enable, gmii_tx_enable : ``In(1)``
        A byte in each cycle with its enable. (``config.phy`` "gmii")
    rx : ``Out(PacketSignature(8))``
        Received frames without FCS; ``err`` if they must be dropped.
    tx : ``In(PacketSignature(8))``
        Frames to send, without FCS.
    address : ``In(48)``
        Of this station.
    rx_pause, tx_pause, quanta : ``In(1)``, ``In(1)``, ``In(16)``
        Obey pause frames; send some while ``pause_request``, each for so many units of 512 bit times.
    pause_request : ``In(1)``
    count : ``Out(abi.counter_layout("mac"))``
    """

    rx: stream.Interface
    tx: stream.Interface
    count: Signal

    def __init__(self, config, *, limit=FRAME_LIMIT):
        self.config, self.limit = config, limit
        super().__init__({
            **phy_members(config),
            "rx":            Out(PacketSignature(config.word_bytes)),
            "tx":            In(PacketSignature(config.word_bytes)),
            "address":       In(48),
            "rx_pause":      In(1),
            "tx_pause":      In(1),
            "quanta":        In(16),
            "pause_request": In(1),
            "count":         Out(abi.counter_layout("mac")),
        })

    def elaborate(self, platform):
        m = Module()
        xgmii = self.config.phy == "xgmii"
        m.submodules.receive = receive = (MacRx if xgmii else GmiiRx)(self.limit)
        m.submodules.transmit = transmit = (MacTx if xgmii else GmiiTx)()
        m.submodules.pause_receive = pause_receive = PauseReceive(3 if xgmii else 6)
        m.submodules.pause_transmit = pause_transmit = PauseTransmit(3 if xgmii else 6)
        m.submodules.statistics = statistics = Statistics(self.limit)

        beat = Signal()
        if xgmii:
            connect(m, flipped(self.xgmii_rx), receive.xgmii)
            connect(m, transmit.xgmii, flipped(self.xgmii_tx))
            m.d.comb += beat.eq(1)
        else:
            connect(m, flipped(self.gmii_rx), receive.gmii)
            connect(m, transmit.gmii, flipped(self.gmii_tx))
            m.d.comb += [receive.enable.eq(self.gmii_rx_enable), transmit.enable.eq(self.gmii_tx_enable),
                         beat.eq(self.gmii_tx_enable)]
        connect_streams(m, receive.o, pause_receive.i)
        connect_streams(m, pause_receive.o, self.rx)
        connect_streams(m, self.tx, pause_transmit.i)
        connect_streams(m, pause_transmit.o, transmit.i)
        m.d.comb += [
            pause_receive.beat.eq(beat), pause_receive.address.eq(self.address), pause_receive.enable.eq(self.rx_pause),
            pause_transmit.beat.eq(beat), pause_transmit.address.eq(self.address),
            pause_transmit.paused.eq(pause_receive.paused), pause_transmit.request.eq(self.pause_request),
            pause_transmit.enable.eq(self.tx_pause), pause_transmit.quanta.eq(self.quanta),
            statistics.verdict.eq(receive.verdict), statistics.rx_octets.eq(receive.octets),
            statistics.false_start.eq(receive.false_start), statistics.tx_octets.eq(transmit.octets),
            statistics.sent.valid.eq(transmit.sent | transmit.spoiled), statistics.sent.bad.eq(transmit.spoiled),
            statistics.sent.group.eq(pause_transmit.group), statistics.sent.broadcast.eq(pause_transmit.broadcast),
            self.count.eq(statistics.count),
            self.count.rx_frames.eq(receive.good), self.count.rx_overflow.eq(receive.lost),
            self.count.rx_pause.eq(pause_receive.received), self.count.rx_control.eq(pause_receive.unknown),
            self.count.tx_pause.eq(pause_transmit.sent),
        ]
        return m
