"""The card: every layer, wired. Nothing else happens here."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from . import abi
from .control.layer import Control
from .ddp.layer import Ddp
from .dma.cfg import Cfg
from .dma.layer import Dma
from .dma.records import READ_CLIENTS, PlainSource, ReadClient
from .frames.layer import Frames
from .ip.layer import Ip
from .mac.layer import Mac, phy_members
from .mac.watermark import Watermark
from .mpa.layer import Mpa
from .protect.layer import Protect
from .queues.layer import Queues
from .rdmap.layer import Rdmap
from .stats.history import History
from .stats.samples import Samples
from .stream.packet import PacketSignature, connect_streams
from .stream.queue import PacketQueue
from .tcp.layer import Tcp

__all__ = ["Nic"]


class Nic(wiring.Component):
    """An iWARP RDMA network card, receive side.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`

    Members
    -------
    xgmii_rx, xgmii_tx : ``In(Xgmii)``, ``Out(Xgmii)``
        64-bit XGMII (IEEE Std 802.3 clause 46), one transfer a cycle; or the ports of a GMII, see
        :class:`~emplace.mac.layer.Mac`.
    rx_tlp, tx_tlp : ``In(PacketSignature(tlp_bytes))``, ``Out(...)``
        TLPs from and to the host, headers as in the PCIe specification, first byte in the lowest lane.
    cfg : ``In(Cfg)``
        What the PCIe hard core shows of configuration space.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            **phy_members(config),
            "rx_tlp":   In(PacketSignature(config.tlp_bytes)),
            "tx_tlp":   Out(PacketSignature(config.tlp_bytes)),
            "cfg":      In(Cfg),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        m.submodules.mac = mac = Mac(config)
        m.submodules.ip = ip = Ip(config)
        m.submodules.tcp = tcp = Tcp(config)
        m.submodules.mpa = mpa = Mpa(config)
        m.submodules.ddp = ddp = Ddp(config)
        m.submodules.rdmap = rdmap = Rdmap(config)
        m.submodules.protect = protect = Protect(config)
        m.submodules.queues = queues = Queues(config)
        m.submodules.dma = dma = Dma(config)
        m.submodules.frames = frames = Frames(config)
        m.submodules.control = control = Control(config)
        m.submodules.history = history = History(config)
        m.submodules.samples = samples = Samples()
        m.submodules.tx_frames = tx_frames = PacketQueue(config.word_bytes, 64)

        m.submodules.slots_short = slots_short = Watermark(config.slots, config.slots // 4, config.slots // 2)

        def link(source, sink):
            connect_streams(m, source, sink)

        # The outside
        for name, member in phy_members(config).items():
            mine, its = getattr(self, name), getattr(mac, name)
            if member.is_port:
                m.d.comb += its.eq(mine)
            else:
                connect(m, flipped(mine), its)
        connect(m, flipped(self.rx_tlp), dma.rx_tlp)
        connect(m, dma.tx_tlp, flipped(self.tx_tlp))
        connect(m, flipped(self.cfg), dma.cfg)

        # A frame's way to host memory
        link(mac.rx, ip.frames)
        m.d.comb += ip.injected.eq(0)      # nobody puts frames in yet
        link(ip.segments, tcp.segments)
        link(tcp.walk, mpa.walk)
        link(mpa.walked, tcp.walked)
        link(mpa.ulpdus, ddp.ulpdus)
        link(ddp.segments, rdmap.segments)
        link(rdmap.access, protect.access)
        link(protect.granted, rdmap.granted)
        link(rdmap.commands, queues.commands)
        link(queues.writes, dma.commands)
        link(mpa.packets, dma.packets)

        # Any other frame's
        m.d.comb += [frames.i.payload.eq(ip.frames.payload), frames.i.valid.eq(ip.frames.valid)]
        link(ip.dispositions, frames.dispositions)
        link(frames.writes, dma.plain[PlainSource.FRAME_RX])
        link(frames.packets, dma.plain_packets[PlainSource.FRAME_RX])
        m.d.comb += [dma.plain[PlainSource.FRAME_TX].valid.eq(0), dma.plain_packets[PlainSource.FRAME_TX].valid.eq(0)]

        # Slots
        link(tcp.alloc, ip.alloc)
        link(ip.slot_write, tcp.slot_write)
        connect(m, mpa.slot_read, tcp.slot_read)
        link(mpa.slot_append, tcp.slot_append)
        link(mpa.slot_free, tcp.slot_free)
        m.d.comb += [mpa.free_count.eq(tcp.free_count), slots_short.free.eq(tcp.free_count)]

        # Receive WQEs
        link(mpa.gate_request, queues.gate_request)
        link(queues.gate_reply, mpa.gate_reply)
        link(queues.resume, tcp.resume)
        link(rdmap.take, queues.take)
        link(queues.taken, rdmap.taken)
        link(rdmap.sge, queues.sge)
        link(queues.sge_data, rdmap.sge_data)

        # ACKs: whole frames, since the MAC wants a word every cycle
        link(tcp.frames, tx_frames.i)
        link(tx_frames.o, mac.tx)

        # Control
        link(dma.mmio_write, control.mmio_write)
        link(dma.mmio_read, control.mmio_read)
        link(control.mmio_data, dma.mmio_data)
        for client, layer in ((ReadClient.CONTROL, control), (ReadClient.RECEIVE, queues), (ReadClient.FRAME_RX, frames)):
            link(layer.reads, dma.reads[client])
            link(dma.read_data[client], layer.read_data)
        for client in range(ReadClient.FRAME_TX, READ_CLIENTS):      # nobody yet
            m.d.comb += [dma.reads[client].valid.eq(0), dma.read_data[client].ready.eq(0)]
        link(control.inline, queues.inline)
        link(control.doorbell, queues.doorbell)
        link(control.token, ip.token)
        link(dma.token, control.token_done)
        link(control.hold, ip.hold)
        link(frames.reached, control.reached)
        link(control.lookup_update, ip.lookup_update)
        link(ip.lookup_result, control.lookup_result)
        link(control.table, protect.table)
        link(protect.table_result, control.table_result)
        link(control.pages, protect.pages)
        link(control.cq_update, queues.cq_update)
        link(queues.cq_result, control.cq_result)
        link(control.expect, rdmap.expect)
        link(rdmap.expect_result, control.expect_result)
        link(rdmap.died, control.died[0])
        link(queues.died, control.died[1])
        m.d.comb += [
            tcp.alive.eq(control.alive),
            tcp.now.eq(control.now), mpa.now.eq(control.now),
            mpa.lease.eq(control.lease), tcp.delack.eq(control.delack),
            dma.guard_ranges.eq(control.guard_ranges),
            queues.event_ring.eq(control.event_ring),
            control.released.eq(ip.released),
            frames.settings.eq(control.frame_settings), frames.ring.eq(control.frame_ring),
            mac.address.eq(control.station), mac.rx_pause.eq(control.mac.rx_pause), mac.tx_pause.eq(control.mac.tx_pause),
            mac.quanta.eq(control.mac.quanta), mac.pause_request.eq(slots_short.request),
            *(layer.cmd.eq(control.cmd) for layer in (tcp, mpa, ddp, rdmap, queues)),
        ]

        # What each owner adds to an upload; fields of others are 0
        upload = Signal(abi.Upload)
        m.d.comb += upload.as_value().eq(tcp.upload.as_value() | mpa.upload.as_value() | ddp.upload.as_value()
                                         | rdmap.upload.as_value() | queues.upload.as_value())
        m.d.comb += control.upload.eq(upload)

        # History
        link(control.note, history.control)
        m.d.comb += [
            history.note.eq(tcp.note), history.note_record.eq(tcp.note_record),
            history.now.eq(control.now), history.hold.eq(control.history_hold), history.qp.eq(control.history_qp),
            history.at.eq(control.history_at), control.history.eq(history.entry),
        ]

        # Counters, in the order of abi.COUNTERS
        strobes = {"mac": mac.count, "ip": ip.count, "frames": frames.count, "tcp": tcp.count, "mpa": mpa.count,
                   "rdmap": rdmap.count, "dma": dma.count, "queues": queues.count, "control": control.count}
        m.d.comb += control.counts.eq(Cat(strobes[c.layer][c.name] for c in abi.COUNTERS))

        # Samples
        m.d.comb += [
            samples.valid.eq(ip.frames.valid & ip.frames.ready), samples.word.eq(ip.frames.p),
            samples.strobes.eq(Cat(control.counts[n] for n in abi.SAMPLED)),
            samples.address.eq(control.sample_word), control.sample.eq(samples.data),
        ]

        return m
