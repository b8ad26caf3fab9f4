"""A whole card in Python behind a simulated card's pins: what the replay harness is tested with.

Slow, and with shortcuts: it reads host memory without a bus. All that it writes goes as TLPs, all that it sends
as XGMII. ``faults`` makes it do things wrong: see :data:`FAULTS`.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from emplace import abi
from emplace.abi import EventType, QpFlags, QpState, Reason, Status, WcOpcode
from emplace_sim.bus import BAR0, CARD_ID, FastBus
from emplace_sim.capture import FIN, RST, SYN, _dissect, parse_fpdus, relative
from emplace_sim.driver_records import pack, unpack
from emplace_sim.host_tlp import Tlp, completion, memory_request
from emplace_sim.xgmii import XgmiiDriver, XgmiiMonitor

from .mock_card import MockBus, ack_frame

__all__ = ["FAULTS", "ModelCard", "Pads"]

#: What may be broken, and what the harness must say of it.
FAULTS = {"lose": "", "flip": "bytes are wrong", "late": "wrong when completion", "twice": "bytes of Writes were placed",
          "spill": "outside of any buffer", "deaf": "got stuck", "no_cqe": "of RECV comes first",
          "bad_fcs": "wrong FCS", "counter": "counter err_stag is 1", "upload": "uploaded recv_msn"}


class Pads(wiring.Component):
    """The ports of a Nic, its outputs driven by inputs of their own."""

    def __init__(self, tlp_bytes=16):
        self.word = word = {8: 69, 16: 134}[tlp_bytes]
        cfg = {"id": 16, "bus_master": 1, "max_payload": 3, "max_read": 3, "ext_tag": 1, "msix_enable": 1, "msix_mask": 1}
        self.outputs = {"xgmii_tx__d": 64, "xgmii_tx__c": 8, "tx_tlp__payload": word, "tx_tlp__valid": 1, "rx_tlp__ready": 1}
        super().__init__({
            **{name: Out(width) for name, width in self.outputs.items()},
            **{f"model_{name}": In(width) for name, width in self.outputs.items()},
            "xgmii_rx__d": In(64), "xgmii_rx__c": In(8), "rx_tlp__payload": In(word), "rx_tlp__valid": In(1),
            "tx_tlp__ready": In(1), **{f"cfg__{name}": In(width) for name, width in cfg.items()}})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [getattr(self, name).eq(getattr(self, f"model_{name}")) for name in self.outputs]
        tick = Signal()                      # the simulation needs a clock
        m.d.sync += tick.eq(~tick)
        return m


class _Link(FastBus):
    """The card's end of the TLP streams: FastBus with the pins the other way round."""

    def __init__(self, dut, card, memory, **options):
        super().__init__(dut, memory, log=False, **options)
        self.card = card
        self._tx = [dut.rx_tlp__payload, dut.rx_tlp__valid, dut.model_rx_tlp__ready]
        self._rx = [dut.model_tx_tlp__payload, dut.model_tx_tlp__valid, dut.tx_tlp__ready]

    def _drive_cfg(self, bus_master):
        pass

    def receive(self, packet, err=False):
        return self.card.accessed(Tlp.parse(packet))

    def sent(self, tlp, purpose):
        return tlp.pack()


class _Posted:
    """Host memory as the card has it: reads at once, writes as TLPs."""

    def __init__(self, memory, link):
        self.memory, self.link, self.read = memory, link, memory.read

    def write(self, address, data):
        at = 0
        while at < len(data):
            size = min(len(data) - at, 128, 4096 - (address + at) % 4096)
            self.link._send(memory_request(address + at, 0, data=data[at:at + size], requester=CARD_ID), "card")
            at += size


class ModelCard(MockBus):
    def __init__(self, dut, config, memory, *, faults=(), seed=0):
        super().__init__(config)
        self.link = _Link(dut, self, memory, tlp_bytes=config.tlp_bytes, seed=seed).start()
        self.memory, self.faults = _Posted(memory, self.link), set(faults)
        self.wire = XgmiiDriver(dut, "model_xgmii_tx")
        self.monitor = XgmiiMonitor(dut, self.arrived, "xgmii_rx")
        self.streams, self.counters, self.frames = {}, dict.fromkeys((c.name for c in abi.COUNTERS), 0), 0

    def stop(self):
        self.link.stop()
        self.wire.task.cancel()
        self.monitor.task.cancel()

    def accessed(self, tlp):
        """A host's access to BAR0: what to send back."""
        offset = tlp.address - BAR0
        if tlp.kind == "MRd":
            value = self.registers.get(offset, 0)
            if abi.COUNTER_PAGE <= offset < abi.COUNTER_PAGE + 4 * len(abi.COUNTERS):
                value = self.counters[abi.COUNTERS[(offset - abi.COUNTER_PAGE) // 4].name]
            return [(5, completion(tlp, data=value.to_bytes(4, "little"), completer=CARD_ID), "mmio")]
        value = int.from_bytes(tlp.payload, "little")
        if offset < abi.DOORBELL_PAGE:
            self.registers[offset] = value
            if offset == abi.REGISTERS["ADMIN_DOORBELL"].offset:
                while self.done != value:
                    self.admin()
                    self.done += 1
        return []

    # Commands beyond the mock's

    def install_qp(self, c):
        status = super().install_qp(c)
        if status is None:
            key = (c["remote_ip"], c["remote_port"]), (c["local_ip"], c["local_port"])
            self.streams[key] = {"install": c, "next": c["rcv_nxt"], "held": [], "open": b"", "recent": c["ts_recent"],
                                 "sends": 0, "requests": 0, "reads": [], "dead": False, "late": [], "fin": None, "reason": 0}
        return status

    def expect_read(self, c):
        reads = self._stream(c["qpn"])["reads"]
        if len(reads) == self.config.orq:
            return Status.QUEUE_FULL
        reads.append(c | {"got": 0})
        return None

    def _stream(self, qpn):
        return next(stream for stream in self.streams.values() if stream["install"]["qpn"] == qpn)

    def upload_qp(self, c):
        s = self._stream(c["qpn"])
        self.memory.write(c["address"], pack(abi.Upload, {
            "qpn": c["qpn"], "reason": s["reason"], "rcv_nxt": s["next"],
            "state": QpState.ERROR if s["dead"] else QpState.CLOSING if s["reason"] else QpState.RTS,
            "recv_msn": 1 + s["sends"] + ("upload" in self.faults), "recv_read_msn": 1 + s["requests"],
            "rq_consumed": s["sends"], "snd_nxt": s["install"]["snd_nxt"]})
            + pack(abi.History, [{"kind": abi.HistoryKind.NONE}] * 15 + [{"kind": abi.HistoryKind.INSTALLED}]))

    # Receiving

    def arrived(self, raw, time_ns):
        frame = _dissect(0, 0, raw[:-4])
        stream = self.streams.get((frame.src, frame.dst))
        if stream is None or frame.flags & SYN or stream["dead"] or "deaf" in self.faults:
            return
        install = stream["install"]
        if frame.flags & RST:
            if frame.seq == stream["next"]:
                self.end(stream, EventType.RST_RECEIVED, Reason.PEER_RESET)
                stream["dead"] = True
            return
        if frame.flags & FIN and not stream["reason"]:
            stream["fin"] = relative(frame.seq + len(frame.payload), 0) & 0xFFFFFFFF
        self.frames += bool(frame.payload)
        if "lose" in self.faults and frame.payload and self.frames % 5 == 0:
            return
        tsval = frame.options.get("Timestamp", (0, 0))[0]
        if install["flags"] & QpFlags.TIMESTAMPS and relative(frame.seq, stream["next"]) <= 0:
            stream["recent"] = max(stream["recent"], tsval)
        if not frame.payload and not frame.flags & FIN:
            return
        stream["held"].append((frame.seq, frame.payload))
        self.counters["rx_fast_path"] += frame.seq == stream["next"]
        moved = True
        while moved:
            moved = False
            for item in sorted(stream["held"], key=lambda item: relative(item[0], stream["next"])):
                skip = relative(stream["next"], item[0])
                if skip >= 0:
                    stream["held"].remove(item)
                    stream["open"] += item[1][skip:]
                    stream["next"] = stream["next"] + len(item[1][skip:]) & 0xFFFFFFFF
                    moved = True
                    break
        fpdus, rest = parse_fpdus(stream["open"])
        for fpdu in fpdus:
            if not stream["dead"]:
                self.counters["rx_fpdus"] += 1
                self.deliver(stream, fpdu)
        stream["open"] = stream["open"][len(stream["open"]) - rest:]
        if stream["next"] == stream["fin"] and not stream["dead"]:
            stream["next"], stream["fin"] = stream["next"] + 1 & 0xFFFFFFFF, None
            self.end(stream, EventType.FIN_RECEIVED, Reason.PEER_FIN)
        if not stream["dead"]:
            self.wire.send(ack_frame(install, relative(stream["next"], install["rcv_nxt"]), install["ts_offset"],
                                     stream["recent"], fcs_error=int("bad_fcs" in self.faults)))

    def place(self, stag, to, data):
        where = self.translate(stag, to, len(data))
        if "spill" in self.faults:
            self.memory.write(where[-1] + 1, b"!")
        start = 0
        for n in range(1, len(data) + 1):
            if n == len(data) or where[n] != where[n - 1] + 1:
                self.memory.write(where[start], data[start:n])
                start = n

    def end(self, stream, kind, reason):
        """The peer ends the stream."""
        stream["reason"] = reason
        self.counters[f"err_{reason.name.lower()}"] += 1
        self.event(type=kind, reason=reason, qpn=stream["install"]["qpn"])

    def die(self, stream, kind, reason, fpdu):
        stream["dead"] = True
        self.event(type=kind, reason=reason, terminate=abi.TERMINATE[reason] or 0, qpn=stream["install"]["qpn"],
                   data=fpdu.header.ljust(48, b"\0"))

    def deliver(self, stream, fpdu):
        install, data, opcode = stream["install"], fpdu.payload, fpdu.opcode
        qpn = install["qpn"]
        if install["flags"] & QpFlags.CRC and not fpdu.crc_good:
            self.die(stream, EventType.QP_ERROR, Reason.FPDU_CRC, fpdu)
        elif opcode == 7:
            self.die(stream, EventType.TERMINATE_RECEIVED, Reason.TERMINATED, fpdu)
        elif opcode == 0 and data:
            mr = self.mrs.get(fpdu.stag >> 8 & self.config.regions - 1)
            if mr is None or mr["stag"] != fpdu.stag:
                self.die(stream, EventType.QP_ERROR, Reason.STAG, fpdu)
                return
            if "flip" in self.faults and fpdu.last:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if "late" in self.faults:
                stream["late"].append((fpdu.stag, fpdu.offset, data))
                return
            for _ in range(1 + ("twice" in self.faults)):
                self.place(fpdu.stag, fpdu.offset, data)
            self.counters["err_stag"] = int("counter" in self.faults)
        elif opcode == 1:
            stream["requests"] += 1
            self.event(type=EventType.READ_REQUEST, qpn=qpn, data=fpdu.header)
        elif opcode == 2:
            read = stream["reads"][0]
            if data:
                self.place(fpdu.stag, fpdu.offset, data)
            read["got"] += len(data)
            if fpdu.last:
                assert read["got"] == read["length"]
                self.complete(install["send_cq"], qpn=qpn, opcode=WcOpcode.RDMA_READ, wqe_index=read["wr_id"],
                              byte_len=read["length"])
                stream["reads"].pop(0)
        elif opcode in (3, 4, 5, 6):
            index = stream["sends"]
            base = install["rq_base"] + index % (1 << install["rq_log2"]) * 64
            mo = fpdu.mo
            for sge in unpack(abi.RecvWqe, self.memory.read(base, 64)):
                part = data[:max(0, sge["length"] - mo)]
                if part:
                    self.place(sge["lkey"], sge["addr"] + mo, part)
                    data = data[len(part):]
                mo = max(0, mo - sge["length"])
            if fpdu.last:
                stream["sends"] += 1
                if "no_cqe" not in self.faults or index != 1:
                    self.complete(install["recv_cq"], qpn=qpn, opcode=WcOpcode.RECV, wqe_index=index,
                                  byte_len=fpdu.mo + len(fpdu.payload), solicited=opcode in (5, 6))
                for item in stream["late"]:
                    self.place(*item)
                stream["late"] = []

