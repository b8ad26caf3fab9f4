"""What the card tells of frames that it dropped and of connections that ended. Runs inside the simulator."""

import os

import cocotb

from emplace import abi
from emplace.abi import HistoryKind, QpState, Reason
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.system import Bench
from emplace_sim.xgmii import fcs, finish

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]


@cocotb.test()
async def samples_are_the_frames_that_were_counted(dut):
    """One bad frame for each of many counters, in one burst of good ones."""
    b = await Bench(dut, CONFIG).start()
    link = await b.connect()
    region = await b.region(link, 4096)
    assert await b.device.samples() == {}
    flow = link.flow

    def good():
        return finish(flow.push(link.fpdu(sender.write(region.rkey, region.base, bytes(100)))))

    def spoil(frame, at, value=None, mend=True):
        frame = bytearray(frame[:-4])
        frame[at] = frame[at] ^ 1 if value is None else value
        return bytes(frame) + (fcs(bytes(frame)) if mend else b"nope")
    base = finish(flow.frame(b"sample of a payload" * 4))
    stranger = sender.Flow(src_port=9).frame(b"unknown" * 9)
    bad = {
        "rx_fcs_errors": spoil(base, 0, mend=False), "rx_undersize": base[:40] + fcs(base[:40]), "rx_fragments": base[:40],
        "rx_oversize": bytes(range(250)) * 9 + fcs(bytes(range(250)) * 9), "rx_jabbers": bytes(range(249)) * 9,
        "rx_other_ethertype": spoil(base, 12, 0x86), "rx_ip_options": None, "rx_ip_checksum": spoil(base, 24),
        "rx_tcp_checksum": spoil(base, 90), "rx_no_connection": finish(stranger),
    }
    bad = {name: frame for name, frame in bad.items() if frame}
    for n, frame in enumerate(bad.values()):
        b.wire.send(frame)
        if n % 2:
            b.wire.send(good())
    assert await link.acknowledged()
    await b.cycles(500)
    counters, samples = await b.counters(), await b.device.samples()
    for name, frame in bad.items():
        assert counters[name] == 1, name
        assert samples[name] == (frame[:-4] if len(frame) < 200 else frame)[:64].ljust(64, b"\0"), name
    # The host takes no frames: those that were for it are counted once more.
    assert samples.pop("rx_frames_off") in [samples[name] for name in ("rx_other_ethertype", "rx_ip_checksum",
                                                                       "rx_tcp_checksum", "rx_no_connection")]
    assert set(samples) == set(bad)
    again = spoil(base, 95)
    b.wire.send(again)                   # the newest wins
    await b.cycles(500)
    assert (await b.device.samples())["rx_tcp_checksum"] == again[:64]
    b.check()
    await b.stop()


@cocotb.test()
async def a_history_tells_how_a_connection_ended(dut):
    b = await Bench(dut, CONFIG).start()
    link = await b.connect()
    history = (await b.device.upload(link.qp))["history"]
    assert [HistoryKind(entry["kind"]) for entry in history] == [HistoryKind.INSTALLED]
    link.send(link.fpdu(sender.write(0xBAD, 0, b"evil")))
    assert (await b.event())["reason"] == Reason.STAG
    await b.device.fence()
    history = (await b.device.upload(link.qp))["history"]
    kinds = [HistoryKind(entry["kind"]) for entry in history]
    assert kinds[0] is HistoryKind.INSTALLED and kinds.count(HistoryKind.FAILED) == 1
    failed = history[kinds.index(HistoryKind.FAILED)]
    assert Reason(failed["detail"]) is Reason.STAG
    # Installed anew, it begins anew.
    await b.device.destroy_qp(link.qp)
    second = await b.connect()
    await b.device.flush(second.qp)
    history = (await b.device.upload(second.qp))["history"]
    assert [(HistoryKind(entry["kind"]), entry["detail"]) for entry in history] == [
        (HistoryKind.INSTALLED, QpState.RTS), (HistoryKind.STATE, QpState.ERROR)]
    b.check()
    await b.stop()


@cocotb.test()
async def a_history_keeps_the_last_sixteen(dut):
    """Of a connection whose segments come in the wrong order: as many events as there is room for, in order of time."""
    b = await Bench(dut, CONFIG).start()
    await b.device.bus.write32(abi.REGISTERS["TICK"].offset, 50)
    link = await b.connect()
    region = await b.region(link, 16384)
    for _ in range(6):
        stream = b"".join(link.fpdu(sender.write(region.rkey, region.base + 100 * n, bytes(100))) for n in range(4))
        frames = link.flow.cut(stream, 200)
        for frame in frames[1:] + frames[:1]:
            b.put(frame)
        assert await link.acknowledged()
    await b.device.flush(link.qp)
    history = (await b.device.upload(link.qp))["history"]
    kinds = [HistoryKind(entry["kind"]) for entry in history]
    assert kinds[-1] is HistoryKind.STATE
    assert [entry["now"] for entry in history] == sorted(entry["now"] for entry in history)
    assert len(history) == abi.HISTORY_DEPTH and HistoryKind.INSTALLED not in kinds and HistoryKind.HELD in kinds
    b.check()
    await b.stop()
