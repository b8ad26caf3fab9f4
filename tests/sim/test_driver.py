"""The driver, against a card in Python."""

import errno

import pytest

from emplace import abi
from emplace.abi import Access, Opcode, Status, WcOpcode
from emplace.config import PROFILES
from emplace_sim.driver import AdminError, CardError, Device, Sge
from emplace_sim.driver_records import pack, unpack
from emplace_sim.host import PAGE

from .mock_card import MockBus, run

RW = Access.LOCAL_WRITE | Access.REMOTE_WRITE


@pytest.fixture
def bus():
    return MockBus()


@pytest.fixture
def device(bus):
    return run(Device(bus, seed=1).open(events=4, tick=1000))


def make_qp(device, **options):
    cq = run(device.create_cq(8))
    qp = device.create_qp(device.alloc_pd(), cq, cq, **options)
    run(device.install(qp, rcv_nxt=77, local_port=5, flags=abi.QpFlags.CRC))
    return qp


def test_records():
    assert pack(abi.DoorbellLayout, {"number": 1, "value": 0x10002}) == bytes.fromhex("0100000002000100")
    with pytest.raises(ValueError, match=r"number: .* does not fit 32"):
        pack(abi.DoorbellLayout, {"number": 1 << 32, "value": 0})
    with pytest.raises(ValueError, match="no such field: x"):
        pack(abi.DoorbellLayout, {"x": 1})
    event = unpack(abi.Event, pack(abi.Event, {"type": 3, "qpn": 9, "data": bytes(range(48)), "phase": 1}))
    assert event["data"] == bytes(range(48)) and event["qpn"] == 9 and event["phase"] == 1
    assert len({counter.name for counter in abi.COUNTERS}) == len(abi.COUNTERS)


def test_open(bus, device):
    tiny = PROFILES["tiny"]
    assert (device.qps, device.regions, device.pages, device.orq, device.fpdu_max, device.contexts) == (
        tiny.qps, tiny.regions, tiny.pages, tiny.orq, tiny.fpdu_max, tiny.user_contexts)
    assert bus.register("TICK") == 1000 and bus.register("EVENT_LOG2") == 2
    assert run(device.counters())["rx_undersize"] == 8


@pytest.mark.parametrize("register, value, why", [("ID", 0xFFFFFFFF, "no Emplace card"), ("ABI", 9, "host interface 9")])
def test_wrong_card(bus, register, value, why):
    bus.registers[abi.REGISTERS[register].offset] = value
    with pytest.raises(CardError, match=why):
        run(Device(bus).open())


def test_not_open(bus):
    with pytest.raises(CardError, match="not open"):
        run(Device(bus).fence())


def test_dead_card():
    bus = MockBus(dead=True)
    with pytest.raises(CardError, match=r"NOP: no completion"):
        run(run(Device(bus).open()).command(Opcode.NOP))


def test_completion_of_something_else(bus, device):
    bus.corrupt = ("cookie", 99)
    with pytest.raises(CardError, match="cookie 99"):
        run(device.fence())


def test_admin_ring_wraps(device):
    for _ in range(100):
        run(device.command(Opcode.NOP))


@pytest.mark.parametrize("options, page_log2", [({"contiguous": True}, 0), ({}, 12), ({"block": 4 * PAGE}, 14)])
@pytest.mark.parametrize("offset", [0, 123])
def test_regions(bus, device, options, page_log2, offset):
    pd = device.alloc_pd()
    run(device.reg_mr(pd, 3 * PAGE, RW))
    buffer = device.memory.alloc(20 * PAGE, offset=offset, **options)
    region = run(device.reg_mr(pd, buffer, RW))
    assert bus.mrs[region.stag >> 8 & 63]["page_log2"] == page_log2
    assert bus.mrs[region.stag >> 8 & 63]["access"] == RW | Access.LOCAL_READ
    where = bus.translate(region.stag, region.base + 1000, 9000)
    assert where == [buffer.physical(1000 + n) for n in range(9000)]
    run(device.dereg_mr(region))
    with pytest.raises(AdminError, match="INVALIDATE: BAD_STAG") as refused:
        run(device.dereg_mr(region))
    assert refused.value.status == Status.BAD_STAG and refused.value.command == Opcode.INVALIDATE


def test_stags(device):
    pd = device.alloc_pd()
    region = run(device.reg_mr(pd, 10, RW, stag=0xA6351C00, base=0x1234))
    assert region.stag == region.rkey == 0xA6351C00 and region.base == 0x1234
    assert region.sge(2, 3) == Sge(0x1236, 3, 0xA6351C00)
    with pytest.raises(ValueError, match="region slot 28"):
        run(device.reg_mr(pd, 10, RW, stag=0x00001C77))
    zero = run(device.reg_mr(pd, 10, RW | Access.ZERO_BASED))
    assert zero.base == 0
    stags = [run(device.reg_mr(pd, 10, RW)).stag for _ in range(62)]
    assert len({stag >> 8 & 63 for stag in stags}) == 62 and len({stag >> 14 for stag in stags}) > 40
    with pytest.raises(OSError, match=r"64 regions \(NicConfig.regions\)") as full:
        run(device.reg_mr(pd, 10, RW))
    assert full.value.errno == errno.ENOMEM


def test_page_list_space(device):
    pd = device.alloc_pd()
    regions = [run(device.reg_mr(pd, 256 * PAGE, RW)) for _ in range(4)]
    with pytest.raises(OSError, match=r"NicConfig\.pages"):
        run(device.reg_mr(pd, 2 * PAGE, RW))
    for n in (1, 3, 2):
        run(device.dereg_mr(regions[n]))
    assert run(device.reg_mr(pd, 768 * PAGE, RW)).pages == range(256, 1024)


def test_refused_region_leaves_nothing(bus, device):
    bus.reg_mr = lambda command: Status.BAD_PAGES
    with pytest.raises(AdminError, match="REG_MR: BAD_PAGES"):
        run(device.reg_mr(device.alloc_pd(), 5 * PAGE, RW, stag=0x100))
    del bus.reg_mr
    assert run(device.reg_mr(device.alloc_pd(), 5 * PAGE, RW, stag=0x100)).pages == range(5)


@pytest.mark.parametrize("arguments, why", [
    ({"buffer": 0}, "at least one byte"), ({"buffer": 9, "stag": 1 << 32}, "32-bit"),
    ({"buffer": 9, "base": (1 << 64) - 8}, "within"), ({"buffer": 9, "access": Access.ZERO_BASED, "base": 4}, "zero-based"),
])
def test_bad_regions(device, arguments, why):
    with pytest.raises(ValueError, match=why):
        run(device.reg_mr(device.alloc_pd(), **{"access": RW, **arguments}))


def test_receive(bus, device):
    qp = make_qp(device, max_recv_wr=3)
    assert bus.qps[qp.number]["rcv_nxt"] == 77 and bus.qps[qp.number]["rq_log2"] == 2
    run(device.post_recv(qp, [([Sge(1, 2, 3), Sge(4, 5, 6)], "first"), [Sge(7, 8, 9)]]))
    assert bus.doorbells == [(0, abi.Doorbell.RQ, qp.number, 2)]
    wqe = unpack(abi.RecvWqe, device.memory.read(bus.qps[qp.number]["rq_base"], 64))
    assert wqe[:2] == [{"addr": 1, "length": 2, "lkey": 3}, {"addr": 4, "length": 5, "lkey": 6}]
    assert wqe[2]["length"] == wqe[3]["length"] == 0
    assert run(device.poll_cq(qp.recv_cq)) == []
    bus.complete(0, qpn=qp.number, opcode=WcOpcode.RECV, byte_len=7, wqe_index=0)
    bus.complete(0, qpn=qp.number, opcode=WcOpcode.RDMA_READ, wqe_index=5)
    first, second = run(device.poll_cq(qp.recv_cq))
    assert (first["wr_id"], first["byte_len"], second["wr_id"]) == ("first", 7, 5)
    assert bus.doorbells[-1] == (0, abi.Doorbell.CQ, 0, 2)
    run(device.post_recv(qp, [[Sge(1, 1, 1)]] * 3))
    with pytest.raises(OSError, match="max_recv_wr"):
        run(device.post_recv(qp, [[Sge(1, 1, 1)]]))
    with pytest.raises(ValueError, match="at most 4"):
        run(device.post_recv(qp, [[Sge(1, 1, 1)] * 5]))


def test_cq_laps(bus, device):
    qp = make_qp(device)
    for n in range(30):
        bus.complete(0, qpn=qp.number, opcode=WcOpcode.RDMA_READ, wqe_index=n)
        assert [c["wr_id"] for c in run(device.poll_cq(qp.recv_cq))] == [n]
    assert run(device.poll_cq(qp.recv_cq)) == []


def test_events(bus, device):
    assert run(device.get_async_event()) is None
    for n in range(9):
        bus.event(type=abi.EventType.READ_REQUEST, qpn=n)
        assert run(device.get_async_event())["qpn"] == n
    assert bus.register("EVENT_CONSUMER") == 9 and run(device.get_async_event()) is None


def test_qps(bus, device):
    qp = make_qp(device)
    upload = run(device.upload(qp))
    assert upload["rcv_nxt"] == 77
    assert [(entry["kind"], entry["detail"], entry["now"]) for entry in upload["history"]] == [
        (abi.HistoryKind.INSTALLED, 2, 0), (abi.HistoryKind.FAILED, 0, 9)]
    for n in range(4):
        run(device.expect_read(qp, 1, 2, 3, wr_id=n))
    with pytest.raises(AdminError, match="QUEUE_FULL"):
        run(device.expect_read(qp, 1, 2, 3))
    with pytest.raises(AdminError, match=r"DESTROY_CQ: BAD_CQ"):
        run(device.destroy_cq(qp.recv_cq))
    run(device.flush(qp))
    run(device.destroy_qp(qp))
    run(device.destroy_cq(qp.recv_cq))
    assert not bus.qps and not bus.cqs
    cq = run(device.create_cq(4))
    qps = [device.create_qp(device.alloc_pd(), cq, cq) for _ in range(16)]
    assert sorted(q.number & 15 for q in qps) == list(range(16))
    with pytest.raises(OSError, match=r"NicConfig\.qps"):
        device.create_qp(device.alloc_pd(), cq, cq)


def test_samples(bus, device):
    assert run(device.samples()) == {}
    n = abi.SAMPLED[2]
    frame = bytes(range(64))
    for word in range(16):
        bus.samples[abi.SAMPLE_PAGE + 64 * n + 4 * word] = int.from_bytes(frame[4 * word:4 * word + 4], "little")
    assert run(device.samples()) == {abi.COUNTERS[n].name: frame}


def test_dereg_of_what_the_peer_has_invalidated(bus, device):
    """INVALIDATE finds no such STag; the region is gone all the same, behind a fence. Not so one that the peer may not
    invalidate."""
    pd = device.alloc_pd()
    for access, gone in ((abi.Access.REMOTE_INVALIDATE, True), (abi.Access.REMOTE_WRITE, False)):
        region = run(device.reg_mr(pd, 100, access))
        bus.mrs.clear()
        if gone:
            run(device.dereg_mr(region))
            run(device.reg_mr(pd, 100, access, stag=region.stag))
        else:
            with pytest.raises(AdminError, match="BAD_STAG"):
                run(device.dereg_mr(region))


@pytest.mark.parametrize("call, why", [
    (lambda d: d.create_cq(0), "at least 1"), (lambda d: d.create_cq(1 << 16), "at most 32768"),
    (lambda d: d.create_cq(8, context=4), "user context 4"),
    (lambda d: d.install(make_qp(d), colour=1), "no field colour"),
    (lambda d: d.install(make_qp(d), mss=1 << 16), "mss: .* does not fit"),
    (lambda d: d.post_recv(make_qp(d, max_recv_wr=0), []), "no receive queue"),
])
def test_bad_arguments(device, call, why):
    with pytest.raises(ValueError, match=why):
        run(call(device))


def test_full_tables(device):
    for _ in range(16):
        run(device.create_cq(4))
    with pytest.raises(OSError, match=r"NicConfig\.cqs"):
        run(device.create_cq(4))
