"""Plans of replays: what is fed to the card, and what is expected of it."""

import random
import zlib
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from emplace.abi import Access, EventType, QpFlags, Reason, WcOpcode
from emplace_sim.capture import FIN, RST, SYN, CaptureError, _dissect, read_capture, relative
from emplace_sim.replay import Completion, Event, Image, Place, _sizes, make_plan
from emplace_sim.replay_wire import REORDER, Sender, recut_feed

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
FILES = sorted(path.stem for path in CAPTURES.glob("*.pcap") if not path.stem.startswith("3") or "32_" in path.stem)
#: Peers' TCP streams of some kilobytes, with loss, timestamps or without.
SHORT = ["05_rping_4096_crc", "07_rping_64_p2p_crc", "13_read_bw_4096_crc", "20_rping_4096_drop",
         "41_pyserver_rping_3000_crc", "42_py_badcrc"]


def load(name, role, **options):
    return make_plan(read_capture(CAPTURES / f"{name}.pcap"), role, name=name, **options)


def check_frame(frame):
    """By zlib and scapy: FCS, size, both checksums."""
    assert len(frame) >= 64 and zlib.crc32(frame) == 0x2144DF1C
    packet = Ether(frame[:-4])
    ip = bytes(packet[IP])[:packet[IP].len]
    fresh = IP(ip)
    del fresh.chksum, fresh[TCP].chksum
    assert bytes(fresh) == ip
    return packet


class Receiver:
    """TCP's receive side as RFC 9293 and 7323 have it; what a card must at least do."""

    def __init__(self, plan, number, slots=22):
        self.connection, self.slots = plan.connections[number], slots
        install = self.connection.install
        self.next, self.recent, self.stream = install["rcv_nxt"], install["ts_recent"], b""
        self.acked, self.window = self.next, install["rcv_wnd"]
        self.timestamps, self.held, self.deepest = install["flags"] & QpFlags.TIMESTAMPS, [], 0

    def take(self, frame):
        tsval = frame.options.get("Timestamp", (None,))[0]
        if self.timestamps:
            if tsval is None or relative(tsval, self.recent) < 0:
                return                       # PAWS
            if relative(frame.seq, self.acked) <= 0:
                self.recent = tsval
        assert relative(frame.end, self.next) <= self.window
        if relative(frame.seq + len(frame.payload), self.next) > 0:
            self.held.append((frame.seq, frame.payload))
        again = True
        while again:
            again = False
            for item in self.held:
                skip = relative(self.next, item[0])
                if skip >= 0:
                    self.stream += item[1][skip:]
                    self.next = self.next + len(item[1][skip:]) & 0xFFFFFFFF
                    self.held.remove(item)
                    again = True
                    break
        self.acked = self.next
        self.deepest = max(self.deepest, len(self.held))
        assert self.deepest <= self.slots


def receive(plan):
    receivers = [Receiver(plan, n) for n in range(len(plan.connections))]
    for feed in plan.feeds:
        check_frame(feed.frame)
        frame = _dissect(feed.number, 0, feed.frame)
        peer = plan.connections[feed.connection].peer
        assert frame.src == peer.address
        assert frame.payload == b"" or feed.end == relative(frame.end - bool(frame.flags & FIN), peer.start)
        if not frame.flags & (FIN | RST | SYN):
            receivers[feed.connection].take(frame)
        else:
            assert feed.closing or frame.flags & FIN     # what is a RST would end everything
    for receiver in receivers:
        assert receiver.stream == receiver.connection.peer.stream
    return receivers


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("name", FILES)
def test_as_captured(name, role):
    plan = load(name, role)
    receive(plan)
    for connection in plan.connections:
        if not connection.fails:
            fpdus = connection.peer.fpdus
            assert connection.fpdus == len(fpdus)
            assert sum(connection.placed(kind) for kind in ("write", "send", "read")) == sum(
                len(f.payload) for f in fpdus if f.opcode not in (1, 7))
            assert connection.fin                        # as perftest, rping and the script all do
            assert connection.last_ack == relative(connection.peer.start + len(connection.peer.stream) + 1, 0) & 0xFFFFFFFF
        assert len(connection.expected(Completion)) <= len(connection.receives) + len(connection.reads)
        image = Image(connection)
        for step in connection.expected(Place):
            image.place(step)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("name", SHORT)
def test_recut(name, role):
    for seed in range(8):
        plan = load(name, role, recut=seed)
        receivers = receive(plan)
        assert max(receiver.deepest for receiver in receivers) <= 2 * REORDER


@pytest.mark.parametrize("name", ["17_write_bw_20000_x3_crc", "23_read_bw_8192_netem5_crc"])
def test_recut_long(name):
    role = "server" if "write" in name else "client"
    plan = load(name, role, recut=3)
    receive(plan)
    notes = {feed.note for feed in plan.feeds}
    assert notes >= {"overlap", "duplicate", "again", "pure ACK"}
    sizes = [feed.end - feed.start for feed in plan.feeds if feed.has_data]
    assert min(sizes) == 1 and max(sizes) == 1448 and sum(size < 9 for size in sizes) > 5
    assert [feed.start for feed in plan.feeds] != sorted(feed.start for feed in plan.feeds)


def test_recut_seeds_differ():
    side = read_capture(CAPTURES / "05_rping_4096_crc.pcap")[0].client
    one, same, other = ([feed.frame for feed in recut_feed(side, 0, seed)] for seed in (1, 1, 2))
    assert one == same != other


def test_built_segment_is_the_captured_one():
    """What Sender builds for the span of a captured segment differs in the IP id and PSH alone."""
    side = read_capture(CAPTURES / "05_rping_4096_crc.pcap")[0].client
    for frame in [f for f in side.frames if f.payload and f.number > side.mpa_frame.number]:
        start = relative(frame.seq, side.start)
        built = check_frame(Sender(side, 0).segment(start, start + len(frame.payload)).frame)
        for layer, skip in ((IP, {"id", "chksum"}), (TCP, {"flags", "chksum"})):
            have, want = built[layer].fields, Ether(frame.raw)[layer].fields
            assert {k: v for k, v in have.items() if k not in skip} == {k: v for k, v in want.items() if k not in skip}


def test_rping_as_client():
    connection, = load("05_rping_4096_crc", "client").connections
    assert connection.placed("write") == 3 * 4096 and connection.placed("read") == 0
    assert connection.placed("send") == 6 * 16 and len(connection.receives) == 6 and not connection.reads
    kinds = [type(step).__name__ if not isinstance(step, Place) else step.kind for step in connection.steps]
    assert kinds.count("Event") == 4 and kinds.index("Event") < kinds.index("write")
    *requests, end = connection.expected(Event)
    assert all(event.type == EventType.READ_REQUEST and len(event.data) == 48 for event in requests)
    assert (end.type, end.reason) == (EventType.FIN_RECEIVED, Reason.PEER_FIN)
    image = Image(connection)
    for step in connection.expected(Place):
        image.place(step)
    assert b"rdma-ping-2: " in image.regions[0xEE74AA00][1]          # rping's own text
    region, = connection.regions
    assert region.access == Access.REMOTE_WRITE and region.length == 4096
    install = connection.install
    assert install["flags"] == (QpFlags.CRC | QpFlags.TIMESTAMPS | QpFlags.SACK | QpFlags.INITIATOR
                                | QpFlags.REMOTE_WRITE | QpFlags.REMOTE_READ)
    assert (install["local_ip"], install["remote_port"], install["remote_mac"]) == (0x0A000003, 7174, 0x525400000002)
    assert install["snd_wscale"] == 5 and install["mss"] == 1460 and install["rcv_wnd"] == 64256


def test_rping_as_server():
    connection, = load("05_rping_4096_crc", "server").connections
    assert connection.placed("read") == 3 * 4096 and len(connection.reads) == 3
    assert [read.length for read in connection.reads] == [4096] * 3
    region, = connection.regions
    assert region.stag == connection.reads[0].stag and region.access == Access.LOCAL_WRITE
    reads = [c for c in connection.expected(Completion) if c.opcode == WcOpcode.RDMA_READ]
    assert [(c.index, c.byte_len) for c in reads] == [(0, 4096), (1, 4096), (2, 4096)]
    assert connection.reads_needed(0) == 0 and connection.reads_needed(len(connection.peer.stream)) == 3
    assert not connection.install["flags"] & QpFlags.INITIATOR


@pytest.mark.parametrize("name, role, event, reason", [
    ("42_py_badcrc", "server", EventType.QP_ERROR, Reason.FPDU_CRC),
    ("42_py_badcrc", "client", EventType.TERMINATE_RECEIVED, None),
    ("42_py_badstag", "server", EventType.QP_ERROR, Reason.STAG),
    ("42_py_badstag", "client", EventType.TERMINATE_RECEIVED, None),
    ("42_py_badread", "server", EventType.READ_REQUEST, None),
    ("42_py_badread", "client", EventType.TERMINATE_RECEIVED, None),
])
def test_errors(name, role, event, reason):
    connection, = load(name, role).connections
    assert (connection.steps[0].type, connection.steps[0].reason) == (event, reason)
    assert len(connection.steps) == 1 + connection.fin
    assert connection.fails == (event != EventType.READ_REQUEST)
    assert connection.placed("write") == 0 and len(connection.regions) == len(connection.reads)


def test_two_connections():
    plan = load("17_write_bw_20000_x3_crc", "server")
    assert len(plan.connections) == 2 and {feed.connection for feed in plan.feeds} == {0, 1}
    assert plan.connections[1].placed("write") == 5 * 20000 and not plan.shared_pd
    numbers = [feed.number for feed in plan.feeds if not feed.closing]
    assert numbers == sorted(numbers)


def test_mss_and_windows_without_options():
    install = load("41_pyserver_rping_3000_crc", "client").connections[0].install
    assert install["snd_wscale"] == install["rcv_wscale"] == 0 and install["ts_recent"] == 0
    assert not install["flags"] & (QpFlags.TIMESTAMPS | QpFlags.SACK) and install["flags"] & QpFlags.CRC


def test_scatter():
    rng = random.Random(1)
    many = [(length, _sizes(length, rng)) for length in (0, 1, 16, 100, 8192) for _ in range(100)]
    assert all(1 <= len(sizes) <= 4 and 0 <= sum(sizes) - length <= 100 for length, sizes in many)
    assert {len(sizes) for _, sizes in many} == {1, 2, 3, 4}
    assert any(sum(sizes) == length for length, sizes in many) and any(0 in sizes[:-1] for _, sizes in many)


def test_bad_role():
    with pytest.raises(ValueError, match="role"):
        load("05_rping_4096_crc", "both")


def test_incomplete_capture():
    connection = read_capture(CAPTURES / "05_rping_4096_crc.pcap")[0]
    connection.server.fpdus = connection.server.fpdus[:1]
    with pytest.raises(CaptureError, match="without its Read Request"):
        make_plan([connection], "server")
