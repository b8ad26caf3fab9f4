"""What the card did in a replay, held against the plan. On bytes; used by ``replay_run``."""

from collections import Counter

from emplace import abi
from emplace.abi import EventType, QpFlags, Reason, WcStatus

from .capture import ACK, FIN, _dissect, relative
from .driver_records import unpack
from .host import CANARY
from .inet import ones_sum
from .replay import Completion, ConnectionPlan, Event, Image, Place
from .xgmii import fcs

__all__ = ["ConnectionCheck", "FORBIDDEN"]

#: Counters that must stay 0 in a replay of good frames, whatever the card's sizes.
FORBIDDEN = ("rx_fcs_errors", "rx_undersize", "rx_fragments", "rx_oversize", "rx_jabbers", "rx_ip_header", "rx_ip_checksum",
             "rx_tcp_header", "rx_tcp_checksum", "rx_bad_ack", "rx_completions_bad", "read_errors", "guard_writes",
             "guard_reads", "guard_other", "mmio_unsupported", "doorbell_refused", "cq_overflow",
             "event_overflow", "commands_refused")


class ConnectionCheck:
    """Watches one connection: completions and events as they land in memory, ACKs as they leave.

    ``receives`` maps a receive request to its scatter list of (Buffer, offset, length).
    ``problems`` collects, in words, what is not as the plan has it.
    """

    def __init__(self, plan: ConnectionPlan, number: int):
        self.plan, self.number = plan, number
        self.qpn, self.regions, self.receives = None, {}, []
        self.image, self._cursor = Image(plan), 0
        self.problems, self._dropped = [], 0
        self.completions = self.events = self.reads_done = self.acks = self.crc_errors = 0
        self.failed = False                  # the card has ended the stream
        install = plan.install
        self.acked = install["rcv_nxt"]      # highest ACK that the card sent
        self.duplicates = 0                  # ACKs since then that said the same
        self.edge = None                     # highest right edge of its window
        self.sent = 0                        # end of what was fed, as an offset in the stream
        self.tsvals = {install["ts_recent"]}
        self._last_tsval = None

    def problem(self, text):
        if len(self.problems) < 20:
            self.problems.append(text)
        else:
            self._dropped += 1

    # Progress

    @property
    def acked_offset(self):
        return relative(self.acked, self.plan.install["rcv_nxt"])

    def _left(self):
        """Completions and events of the plan that have not come."""
        return [step for step in self.plan.steps[self._cursor:] if not isinstance(step, Place)]

    @property
    def ready_to_close(self):
        """All but what the peer's FIN or RST means has come."""
        return len(self._left()) <= len(self.plan.ends) and (self.plan.fails or self.acked_offset >= len(self.plan.peer.stream))

    @property
    def done(self):
        return not self._left() and (self.plan.fails or self.acked == self.plan.last_ack)

    # What lands in memory

    def _next(self, kind):
        """The next step that the host sees; payload before it is due now."""
        steps = self.plan.steps
        while self._cursor < len(steps) and isinstance(steps[self._cursor], Place):
            self.image.place(steps[self._cursor])
            self._cursor += 1
        if self._cursor == len(steps):
            self.problem(f"{kind} that nothing in the capture explains")
            return None
        step = steps[self._cursor]
        self._cursor += 1
        return step

    def completed(self, record):
        """A CQE has been written: its bytes."""
        cqe = unpack(abi.Cqe, record)
        self.completions += 1
        step = self._next(f"completion {cqe}")
        if step is None:
            return
        if not isinstance(step, Completion):
            self.problem(f"a completion, but event {step.type.name} comes first")
            return
        self.reads_done += step.opcode == abi.WcOpcode.RDMA_READ
        want = {"qpn": self.qpn, "opcode": step.opcode, "status": WcStatus.SUCCESS, "wqe_index": step.index & 0xFFFF,
                "byte_len": step.byte_len, "solicited": step.solicited, "with_inv": int(step.invalidated is not None)}
        if step.invalidated is not None:
            want["invalidated"] = step.invalidated
        for name, value in want.items():
            if cqe[name] != value:
                self.problem(f"completion {self.completions - 1}: {name} is {cqe[name]:#x}, not {value:#x}")
        wrong = self.mismatched()
        if wrong:
            self.problem(f"{wrong} bytes are wrong when completion {self.completions - 1} lands")

    def happened(self, record):
        """An event has been written: its fields."""
        self.events += 1
        kind = EventType(record["type"]) if record["type"] in EventType.__members__.values() else record["type"]
        if kind == EventType.QP_ERROR:
            self.failed = True
            self.crc_errors += record["reason"] == Reason.FPDU_CRC
        self.failed |= kind in (EventType.TERMINATE_RECEIVED, EventType.RST_RECEIVED)
        reason = Reason(record["reason"]).name if record["reason"] in Reason.__members__.values() else record["reason"]
        step = self._next(f"event {kind!r}, reason {reason}, terminate {record['terminate']:#06x}")
        if step is None:
            return
        if not isinstance(step, Event):
            self.problem(f"event {kind!r}, reason {reason}, terminate {record['terminate']:#06x}, "
                         f"but completion {step.index} of {step.opcode.name} comes first")
            return
        if kind != step.type:
            self.problem(f"event {self.events - 1} is {kind!r}, not {step.type!r}")
        if step.reason is not None and record["reason"] != step.reason:
            self.problem(f"event {self.events - 1} has reason {reason}, not {step.reason.name}")
        terminate = 0 if step.reason is None else abi.TERMINATE[step.reason] or 0
        if step.reason is not None and record["terminate"] != terminate:
            self.problem(f"event {self.events - 1} has Terminate code {record['terminate']:#06x}, not {terminate:#06x}")
        if record["data"][:len(step.data)] != step.data:
            self.problem(f"event {self.events - 1} has data {record['data'].hex()}, not {step.data.hex()}")

    def mismatched(self):
        """Bytes of regions and receive buffers that are not as they must be by now."""
        wrong = 0
        for stag, (_, want) in self.image.regions.items():
            wrong += _differ(self.regions[stag].buffer.read(), want)
        for spans, want in zip(self.receives, self.image.receives):
            at = 0
            for buffer, offset, length in spans:
                if length:
                    wrong += _differ(buffer.read(offset, length), want[at:at + length])
                at += length
        return wrong

    def finish(self):
        """All that must have come by now; the number of wrong bytes."""
        for step in self.plan.steps[self._cursor:]:
            if isinstance(step, Place):
                self.image.place(step)
        counts = Counter(step.opcode.name + " completion" if isinstance(step, Completion) else step.type.name + " event"
                         for step in self._left())
        for what, count in counts.items():
            self.problem(f"{count} x {what} did not come")
        if not self.plan.fails and self.acked != self.plan.last_ack:
            last = len(self.plan.peer.stream) + self.plan.fin
            self.problem(f"acknowledged up to stream offset {self.acked_offset} of {last}")
        wrong = self.mismatched()
        if wrong:
            self.problem(f"{wrong} bytes are wrong at the end")
        if self._dropped:
            self.problems.append(f"... and {self._dropped} more")
        return wrong

    # What leaves on the wire

    def feeding(self, feed):
        """``feed`` is on its way to the card."""
        frame = _dissect(feed.number, 0, feed.frame)
        self.sent = max(self.sent, feed.end + bool(frame.flags & FIN))
        if "Timestamp" in frame.options:
            self.tsvals.add(frame.options["Timestamp"][0])

    def answered(self, raw):
        """The card has sent ``raw`` (with FCS) on this connection."""
        for text in self._inspect(raw):
            self.problem(f"frame {self.acks} from the card: {text}")
        self.acks += 1

    def _inspect(self, raw):
        install, frame = self.plan.install, _dissect(0, 0, raw[:-4])
        if fcs(raw[:-4]) != raw[-4:]:
            yield "wrong FCS"
        if len(raw) < 64:
            yield f"{len(raw)} bytes with FCS, less than 64"
        if (frame.dst_mac, frame.src_mac) != (install["remote_mac"], install["local_mac"]):
            yield f"MAC addresses {frame.src_mac:012x} to {frame.dst_mac:012x}"
        if ones_sum(raw[frame.ip_at:frame.tcp_at]) != 0xFFFF:
            yield "wrong IP checksum"
        segment = raw[frame.tcp_at:frame.payload_at] + frame.payload
        pseudo = raw[frame.ip_at + 12:frame.ip_at + 20] + b"\0\6" + len(segment).to_bytes(2, "big")
        if ones_sum(pseudo + segment) != 0xFFFF:
            yield "wrong TCP checksum"
        if frame.payload:
            yield f"{len(frame.payload)} bytes of payload in a receive-only card"
        if frame.flags != ACK:
            yield f"flags {frame.flags:#04x}"
        if frame.seq != install["snd_nxt"]:
            yield f"SEQ {frame.seq:#x}, not {install['snd_nxt']:#x}"
        if (frame.ttl, frame.tos & 0xFC) != (install["ttl"], install["tos"] & 0xFC):
            yield f"TTL {frame.ttl}, TOS {frame.tos:#x}"
        offset = relative(frame.ack, install["rcv_nxt"])
        if not 0 <= offset <= self.sent:
            yield f"ACK {frame.ack:#x} (stream offset {offset}) of what was never sent: {self.sent} bytes were"
        elif offset < self.acked_offset:
            yield f"ACK goes back from stream offset {self.acked_offset} to {offset}"
        else:
            self.duplicates = self.duplicates + 1 if frame.ack == self.acked else 0
            self.acked = frame.ack
        edge = offset + (frame.window << install["rcv_wscale"])
        if self.edge is not None and edge < self.edge and not self.failed:
            yield f"the window's right edge goes back from {self.edge} to {edge}"
        self.edge = max(edge, self.edge or 0)
        if ("Timestamp" in frame.options) != bool(install["flags"] & QpFlags.TIMESTAMPS):
            yield "timestamps, or none, against what was negotiated"
        elif "Timestamp" in frame.options:
            tsval, tsecr = frame.options["Timestamp"]
            if tsecr not in self.tsvals:
                yield f"TSecr {tsecr} was never sent"
            if self._last_tsval is not None and relative(tsval, self._last_tsval) < 0:
                yield f"TSval goes back from {self._last_tsval} to {tsval}"
            self._last_tsval = tsval
        if "SAck" in frame.options:
            edges = [relative(edge, install["rcv_nxt"]) for edge in frame.options["SAck"]]
            for left, right in zip(edges[::2], edges[1::2]):
                if not (0 <= left < right <= self.sent) or not install["flags"] & QpFlags.SACK:
                    yield f"SACK block {left}..{right} at ACK {offset}"


def _differ(have, want):
    return 0 if have == want else sum(a != b for a, b in zip(have, want))


def untouched(buffer, spans):
    """Bytes of ``buffer`` outside ``spans`` (offset, length) that are no canaries any more."""
    data = bytearray(buffer.read())
    for offset, length in spans:
        data[offset:offset + length] = bytes([CANARY]) * length
    return sum(byte != CANARY for byte in data)


__all__ += ["untouched"]
