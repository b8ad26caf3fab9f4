"""The golden peer against what Linux siw sent: it takes every frame of a capture, and says the same, byte for byte."""

from pathlib import Path

import pytest

from emplace_sim import ddp
from emplace_sim.capture import ACK, SYN, messages, read_capture, relative
from emplace_sim.fpdu import build_fpdu
from emplace_sim.peer import Access, Opcode, Peer, QpSettings, QpState, Sge, TcpSettings
from emplace_sim.segment import Ends, parse

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
ENDED = ("08_", "30_", "31_", "32_", "42_")
NAMES = [path.stem for path in sorted(CAPTURES.glob("*.pcap")) if not path.stem.startswith(ENDED)]
ROLES = ("client", "server")


class Reenactment:
    """A peer in the place of one side of a captured connection: it gets the other side's frames as captured, and its own
    messages as work requests, each posted before the first frame that acknowledges it, or asks for what comes after it."""

    def __init__(self, connection, role):
        self.me, self.other = connection.sides(role)
        me, other = self.me, self.other
        self.peer = Peer(me.mac, me.address[0])
        scaled = me.wscale is not None and other.wscale is not None
        tcp = TcpSettings(mss=min(other.mss, 1460), timestamps=me.timestamps and other.timestamps, sack=me.sack and other.sack,
                          snd_wscale=other.wscale if scaled else 0, rcv_wscale=me.wscale if scaled else 0, rcv_wnd=1 << 22,
                          initial_window=1000)
        longest = max((f.length for f in me.fpdus), default=0)
        multi = [m for m in messages(me.fpdus) if len(m.fpdus) > 1]
        settings = QpSettings(crc=connection.crc, ird=64, ord=64,
                              mulpdu=multi[0].fpdus[0].length if multi else max(longest, 128))
        look = next(f for f in other.frames if f.flags & (SYN | ACK) == ACK)
        ends = Ends(me.mac, other.mac, me.address[0], other.address[0], me.address[1], other.address[1], look.vlan_tci)
        self.qp = self.peer.establish(ends, snd_nxt=me.start, rcv_nxt=other.start, initiator=True, tcp=tcp, qp=settings,
                                      snd_wnd=1 << 20)
        self.pd = self.qp.pd
        self.frames = []
        self.messages = messages(me.fpdus)
        self.requests = {}                   # k: start of my answer to the k-th Read Request
        self.inbound = [m for m in messages(other.fpdus)]
        self._memory()
        self._receives()

    def _memory(self):
        """Regions under the captured STags, as far as they are touched; filled, where this side is read from."""
        spans = {}

        def reach(stag, start, size):
            if size:
                low, high = spans.get(stag, (start, start + size))
                spans[stag] = min(low, start), max(high, start + size)
        for fpdu in self.other.fpdus:
            if fpdu.tagged:
                reach(fpdu.stag, fpdu.offset, len(fpdu.payload))
        for side, at in ((self.other, 16), (self.me, 0)):
            for fpdu in side.fpdus:
                if fpdu.opcode == ddp.READ_REQUEST:
                    p = fpdu.payload
                    reach(int.from_bytes(p[at:at + 4], "big"), int.from_bytes(p[at + 4:at + 12], "big"),
                          int.from_bytes(p[12:16], "big"))
        self.regions = {stag: self.peer.reg_mr(self.pd, high - low, Access.ALL, base=low, stag=stag)
                        for stag, (low, high) in spans.items()}

    def _receives(self):
        self.got = []
        for n, message in enumerate(m for m in self.inbound if m.opcode in ddp.SENDS):
            region = self.peer.reg_mr(self.pd, len(message.data) or 1)
            self.got.append((region, message.data))
            self.qp.post_recv([region.sge(0, len(message.data))], wr_id=n)

    def _post(self, message):
        first = message.fpdus[0]
        if message.opcode == ddp.WRITE:
            self.qp.post_send(Opcode.RDMA_WRITE, inline=message.data, rkey=first.stag, remote_addr=first.offset)
        elif message.opcode in ddp.SENDS:
            invalidate = message.opcode in (ddp.SEND_INV, ddp.SEND_SE_INV)
            self.qp.post_send(Opcode.SEND_WITH_INV if invalidate else Opcode.SEND, inline=message.data,
                              solicited=message.opcode in (ddp.SEND_SE, ddp.SEND_SE_INV), invalidate_rkey=first.stag)
        elif message.opcode == ddp.READ_REQUEST:
            p = first.payload
            number = {name: int.from_bytes(p[at:at + size], "big")
                      for name, at, size in (("stag", 0, 4), ("to", 4, 8), ("size", 12, 4), ("source", 16, 4), ("at", 20, 8))}
            self.qp.post_send(Opcode.RDMA_READ, [Sge(number["to"], number["size"], number["stag"])], rkey=number["source"],
                              remote_addr=number["at"])
        else:
            raise AssertionError(f"opcode {message.opcode}")

    def _poll(self, now):
        """Congestion is none of this test's business: the captured ACKs tell of other losses."""
        self.qp.tcp.tx.cwnd = 1 << 28
        self.frames += self.peer.poll(now)

    def carry_out(self):
        """Feed all; the stream that the peer sent."""
        answers = [m for m in self.messages if m.opcode == ddp.READ_RESPONSE]
        asks = [m.fpdus[-1].end for m in self.inbound if m.opcode == ddp.READ_REQUEST]
        waiting, asked = list(self.messages), 0
        self.placed = {}
        for frame in self.other.frames:
            if frame.flags & SYN:
                continue
            limit = relative(frame.ack, self.me.start)
            end = relative(frame.seq, self.other.start) + len(frame.payload)
            while asked < len(asks) and end >= asks[asked]:      # this frame may complete a Read Request
                answer = answers[asked]
                limit = max(limit, answer.fpdus[0].start)
                source = self.inbound[[n for n, m in enumerate(self.inbound) if m.opcode == ddp.READ_REQUEST][asked]].fpdus[0]
                key, at = int.from_bytes(source.payload[16:20], "big"), int.from_bytes(source.payload[20:28], "big")
                if answer.data:
                    self.peer.stags.write(key, at, answer.data)
                asked += 1
            while waiting and waiting[0].fpdus[0].start < limit:
                message = waiting.pop(0)
                if message.opcode != ddp.READ_RESPONSE:
                    self._post(message)
                self._poll(frame.time_ns)
            if relative(frame.end, self.other.start) > 0 or frame.number > self.other.mpa_frame.number:
                self.peer.receive(frame.raw, frame.time_ns)
                self._poll(frame.time_ns)
        for message in waiting:
            if message.opcode != ddp.READ_RESPONSE:
                self._post(message)
        self._poll(self.other.frames[-1].time_ns + 1)
        stream = {}
        for raw in self.frames:
            _, tcp = parse(raw)
            for n, octet in enumerate(tcp.payload, relative(tcp.seq, self.me.start)):
                assert stream.setdefault(n, octet) == octet, "a retransmission differs"
        return bytes(stream[n] for n in range(len(stream)))


def without_padding(side, crc):
    """The captured stream; FPDUs that siw padded with leftovers (perftest's two-octet message) as RFC 5044 has it: zeros."""
    stream = b""
    for fpdu in side.fpdus:
        pad = fpdu.raw[2 + fpdu.length:-4]
        if any(pad):
            assert fpdu.length == 20 and pad == b"\x00\x40"
            stream += build_fpdu(fpdu.raw[2:2 + fpdu.length], crc)
        else:
            stream += fpdu.raw
    return stream


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", NAMES)
def test_reenacted(name, role):
    for connection in read_capture(CAPTURES / f"{name}.pcap"):
        run = Reenactment(connection, role)
        stream = run.carry_out()
        # What it says
        wanted = without_padding(run.me, connection.crc)
        same = next((n for n, (a, b) in enumerate(zip(stream, wanted)) if a != b), min(len(stream), len(wanted)))
        assert stream == wanted, f"differs from octet {same} on, of {len(stream)} and {len(wanted)}"
        # What it understood
        assert run.qp.counts["fpdus"] == len(run.other.fpdus) and not run.peer.counts
        assert all(region.data[:len(data)] == data for region, data in run.got)
        last = {}
        for fpdu in run.other.fpdus:                       # the last copy of each octet
            if fpdu.tagged:
                last.update({(fpdu.stag, fpdu.offset + n): octet for n, octet in enumerate(fpdu.payload)})
        for (stag, at), octet in last.items():
            region = run.regions[stag]
            assert region.data[at - region.base] == octet
        done = run.peer.poll_cq()
        receives = [c for c in done if c.opcode is Opcode.RECV and c.status.name == "SUCCESS"]
        assert [c.wr_id for c in receives] == list(range(len(run.got)))
        assert [c.byte_len for c in receives] == [len(data) for _, data in run.got]
        assert not [e for e in run.peer.events if e.kind.startswith("terminate") or e.kind == "timeout"]


@pytest.mark.parametrize("name, role, events", [
    ("42_py_badcrc", "server", [("terminate sent", 0x2002)]),
    ("42_py_badstag", "server", [("terminate sent", 0x1100)]),
    ("42_py_badread", "server", [("terminate sent", 0x0100)]),
])
def test_bad_ones(name, role, events):
    """What pypeer.py did wrong is found; siw's answer to it is understood."""
    connection, = read_capture(CAPTURES / f"{name}.pcap")
    run = Reenactment(connection, role)
    if name != "42_py_badcrc":
        run.peer.stags.regions.clear()
    for frame in run.other.frames:
        if relative(frame.end, run.other.start) > 0:
            run.peer.receive(frame.raw, frame.time_ns)
            run.frames += run.peer.poll(frame.time_ns)
    assert [(e.kind, e.code) for e in run.peer.events][:1] == events
    terminate = parse(next(raw for raw in run.frames if parse(raw)[1].payload))[1].payload
    theirs = run.me.fpdus[-1].raw                         # siw's, its nibbles swapped
    assert terminate[:20] == theirs[:2].replace(theirs[:2], terminate[:2]) + theirs[2:20]
    assert (terminate[20] >> 4 | (terminate[20] & 15) << 4, terminate[21]) == (theirs[20], theirs[21])
    # The other way round
    run = Reenactment(connection, "client")
    run.qp.tcp.tx.nxt = run.qp.tcp.tx.una = run.qp.tcp.tx.end = 1 + len(run.me.stream)
    for frame in run.other.frames:
        if relative(frame.end, run.other.start) > 0:
            run.peer.receive(frame.raw, frame.time_ns)
    event = next(e for e in run.peer.events if e.kind == "terminate received")
    assert event.detail.startswith(f"{events[0][1]:#06x}") and run.qp.state is QpState.ERROR
