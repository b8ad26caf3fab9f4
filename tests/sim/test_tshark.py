"""Wireshark's dissectors on what golden peers say, and on taps that begin with a made-up start-up."""

from collections import Counter

import pytest

from emplace_sim import ddp
from emplace_sim.fpdu import build_fpdu
from emplace_sim.mpa import MpaFrame
from emplace_sim.pcapng import PcapngWriter
from emplace_sim.peer import CUTS, MS, Faults, QpSettings, TcpSettings
from emplace_sim.prelude import prelude
from emplace_sim.segment import SYN, parse
from emplace_sim.sender import Flow
from emplace_sim.tshark import MISSING, read
from emplace_sim.wire import Impairments

from .peers import Pair
from .test_peer_soak import soak

needs_tshark = pytest.mark.skipif(bool(MISSING), reason=str(MISSING))


@needs_tshark
@pytest.mark.parametrize("bad", [Impairments(delay=20_000), Impairments(loss=.03, reorder=.03, duplicate=.03, delay=20_000)],
                         ids=["clean", "impaired"])
@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut != "random"])      # tshark loses a ULPDU_Length cut in two
def test_peers(cut, bad, tmp_path):
    """The tap has the frames as they were sent: all FPDUs of both sides, every CRC and checksum right."""
    with PcapngWriter(tmp_path / "wire.pcapng", ("a to b", "b to a")) as tap:
        pair = Pair(bad, seed=cut, start=True, tcp=TcpSettings(rto_initial=20 * MS, cut=cut), tap=tap.write,
                    settings=(QpSettings(rtr="write"), None))
        soak(pair, 25, cut)
    seen = read(tmp_path / "wire.pcapng")
    sent = [qp.counts["fpdus_sent"] for qp in pair.qps]
    assert sent == [pair.qb.counts["fpdus"], pair.qa.counts["fpdus"]]
    assert (seen.good, seen.bad, seen.wrong) == (seen.fpdus, 0, [])
    if bad.loss:                             # tshark gives up on a few behind a loss
        assert 0.9 * sum(sent) <= seen.fpdus <= sum(sent)
    else:
        assert seen.fpdus == sum(sent) and seen.frames == sum(wire.counts["sent"] for wire in pair.wires)
        assert {ddp.WRITE, ddp.SEND, ddp.READ_REQUEST, ddp.READ_RESPONSE} < set(Counter(seen.opcodes))


@needs_tshark
def test_a_bad_crc_is_seen(tmp_path):
    """So that no bad ones means something."""
    with PcapngWriter(tmp_path / "wire.pcapng", ("a to b", "b to a")) as tap:
        pair = Pair(start=True, tap=tap.write, faults=(Faults(), None))
        pair.run(lambda: pair.qa.state.name == "RTS")
        pair.qa.faults.bad_crc = 1
        pair.qa.post_send("SEND", inline=b"text")
        pair.run(lambda: pair.qa.state.name == "ERROR")
    assert pair.events(1)[-1:] != [] and ("terminate sent", 0x2002) in pair.events(1)
    seen = read(tmp_path / "wire.pcapng")
    assert (seen.opcodes, seen.good, seen.bad) == ([ddp.SEND, ddp.TERMINATE], 1, 1)


@pytest.mark.parametrize("initiator", [False, True])
@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize("vlan, timestamps", [(None, True), (0x6005, False)])
def test_prelude(initiator, crc, vlan, timestamps, tmp_path):
    flow = Flow(seq=5, ack=0xFFFFFFFF, vlan=vlan, timestamps=timestamps)
    frames = prelude(flow.ends, initiator=initiator, seq=flow.seq, ack=flow.ack, crc=crc, timestamps=timestamps)
    segments = [parse(frame) for _, frame in frames]
    assert [mine for mine, _ in frames] == [n == initiator for n in (1, 0, 1, 1, 0, 1)]
    for (mine, _), (ends, _) in zip(frames, segments):
        assert ends == (flow.ends if mine else flow.ends.turned)
    nxt = {}
    for mine, (_, tcp) in zip((mine for mine, _ in frames), segments):     # each begins where the one before ended
        assert nxt.setdefault(mine, tcp.seq) == tcp.seq
        nxt[mine] = (tcp.seq + tcp.length) & 0xFFFFFFFF
        assert tcp.ack == nxt.get(not mine, 0) and (tcp.timestamps is not None) == timestamps
    assert nxt == {True: 5, False: 0xFFFFFFFF}
    assert [bool(tcp.flags & SYN) for _, tcp in segments] == [True, True, False, False, False, False]
    found = [MpaFrame.parse(tcp.payload) for _, tcp in segments[3:5]]
    assert [(frame.reply, frame.crc) for frame in found] == [(False, crc), (True, crc)]
    if MISSING:
        return
    with PcapngWriter(tmp_path / "wire.pcapng") as tap:
        for n, (mine, frame) in enumerate(frames):
            tap.write(not mine, n, frame)
        for n in range(3):
            tap.write(0, 100 + n, flow.push(build_fpdu(ddp.write(1, 2, bytes(n)), crc)))
    seen = read(tmp_path / "wire.pcapng")
    assert (seen.opcodes, seen.good, seen.bad, seen.wrong) == ([0, 0, 0], 3 * crc, 0, [])
