"""The judge of replays: it must accept a card that does all right, and find each thing done wrong."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from emplace import abi
from emplace.abi import EventType, Reason
from emplace_sim.capture import read_capture
from emplace_sim.driver_records import pack, unpack
from emplace_sim.host import HostMemory
from emplace_sim.replay import Completion, Event, Place, make_plan
from emplace_sim.replay_check import ConnectionCheck, untouched

from .mock_card import ack_frame

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
QPN = 0x123456


class PerfectCard:
    """Does what the plan says, but for what a test breaks (``lie``: step -> step or None)."""

    def __init__(self, name, role, lie=lambda step: step):
        plan, = make_plan(read_capture(CAPTURES / f"{name}.pcap"), role).connections
        self.plan, self.lie, self.tsval = plan, lie, plan.install["ts_offset"]
        self.check = check = ConnectionCheck(plan, 0)
        check.qpn = QPN
        memory = HostMemory(seed=1)
        for region in plan.regions:
            check.regions[region.stag] = SimpleNamespace(buffer=memory.alloc(region.length), base=region.base)
        for receive in plan.receives:
            spans = []
            for size in receive.sizes:
                spans.append((memory.alloc(size + 4), 2, size))
            check.receives.append(spans)

    def run(self):
        check = self.check
        check.sent = len(self.plan.peer.stream) + self.plan.fin
        for step in self.plan.steps:
            step = self.lie(step)
            if isinstance(step, Place):
                self.place(step)
            elif isinstance(step, Completion):
                check.completed(pack(abi.Cqe, {
                    "qpn": QPN, "opcode": step.opcode, "wqe_index": step.index, "byte_len": step.byte_len, "phase": 1,
                    "solicited": step.solicited, "invalidated": step.invalidated or 0,
                    "with_inv": step.invalidated is not None}))
            elif isinstance(step, Event):
                check.happened(unpack(abi.Event, pack(abi.Event, {
                    "type": step.type, "reason": step.reason or 0, "qpn": QPN, "data": step.data.ljust(48, b"\x5a"),
                    "terminate": abi.TERMINATE[step.reason] or 0 if step.reason else 0})))
        return self

    def place(self, step):
        if step.stag is not None:
            region = self.check.regions[step.stag]
            region.buffer.write(step.at - region.base, step.data)
            return
        at, data = step.at, step.data
        for buffer, offset, size in self.check.receives[step.receive]:
            part = data[:max(0, size - at)]
            if at < size:
                buffer.write(offset + at, part)
                data = data[len(part):]
            at = max(0, at - size)

    def ack(self, offset, **change):
        """A pure ACK as the card should send it, or with ``change``."""
        install = self.plan.install
        self.check.answered(ack_frame(install, offset, change.pop("tsval", self.tsval),
                                      change.pop("tsecr", install["ts_recent"]), **change))


CASES = [("05_rping_4096_crc", "client"), ("05_rping_4096_crc", "server"), ("41_pyserver_rping_3000_crc", "client"),
         ("42_py_badcrc", "server"), ("42_py_badcrc", "client")]


@pytest.mark.parametrize("name, role", CASES)
def test_all_right(name, role):
    card = PerfectCard(name, role).run()
    if not card.plan.fails:
        assert not card.check.done
        card.ack(100)
        card.ack(len(card.plan.peer.stream) + card.plan.fin)
    assert card.check.done and card.check.finish() == 0 and card.check.problems == []
    assert card.check.crc_errors == ((name, role) == ("42_py_badcrc", "server"))


def once(kind, change):
    """Change the second step of ``kind``, once."""
    seen = []

    def lie(step):
        if isinstance(step, kind):
            seen.append(step)
            if len(seen) == 2:
                return change(step)
        return step
    return lie


def altered(**fields):
    return lambda step: type(step)(**{**step.__dict__, **fields})


@pytest.mark.parametrize("role, lie, why", [
    ("client", once(Place, lambda step: None), "bytes are wrong"),
    ("client", once(Place, lambda step: altered(data=step.data[:-1] + b"?")(step)), "1 bytes are wrong"),
    ("server", once(Place, lambda step: altered(at=step.at + 1)(step)), "bytes are wrong"),
    ("client", once(Completion, lambda step: None), "did not come"),
    ("client", once(Completion, altered(byte_len=15)), "byte_len is 0xf"),
    ("client", once(Completion, altered(index=0)), "wqe_index"),
    ("client", once(Completion, altered(solicited=1)), "solicited"),
    ("client", once(Completion, altered(invalidated=7)), "with_inv"),
    ("server", once(Completion, lambda step: altered(opcode=step.opcode ^ 2)(step)), "opcode"),
    ("client", once(Event, lambda step: None), "comes first"),
    ("client", once(Event, lambda step: altered(data=bytes(48))(step)), "has data"),
    ("client", once(Event, altered(type=EventType.QP_ERROR, reason=Reason.STAG)), "is <EventType.QP_ERROR"),
])
def test_wrong_outcome(role, lie, why):
    card = PerfectCard("05_rping_4096_crc", role, lie).run()
    card.ack(len(card.plan.peer.stream))
    card.check.finish()
    assert any(why in problem for problem in card.check.problems), card.check.problems


def test_payload_after_its_completion():
    """RFC 5040 5.5: what comes before a Send is there when the Send completes."""
    card = PerfectCard("05_rping_4096_crc", "client")
    steps = card.plan.steps
    at = next(n for n, step in enumerate(steps) if isinstance(step, Place) and step.kind == "write")
    late = steps[at]
    card.lie = lambda step: None if step is late else step
    card.run()
    card.place(late)
    card.check.finish()
    assert "wrong when completion" in card.check.problems[0]


def test_one_too_many():
    card = PerfectCard("42_py_badcrc", "server").run()
    card.check.completed(pack(abi.Cqe, {"qpn": QPN}))
    assert "nothing in the capture explains" in card.check.problems[0]


@pytest.mark.parametrize("change, why", [
    ({"fcs_error": 1}, "wrong FCS"), ({"ip_error": 1}, "IP checksum"), ({"tcp_error": 1}, "TCP checksum"),
    ({"snd_nxt": 5}, "SEQ 0x5"), ({"remote_mac": 5}, "MAC"), ({"tcp_flags": 17}, "flags 0x11"), ({"payload": b"x"}, "payload"),
    ({"ttl": 3}, "TTL 3"), ({"flags": 0}, "timestamps, or none"), ({"tsecr": 77}, "TSecr 77"),
    ({"options": b"\1\1\5\x0a" + bytes(8)}, "SACK block"), ({"window": 1}, "right edge"),
])
def test_wrong_acks(change, why):
    card = PerfectCard("05_rping_4096_crc", "client").run()
    card.ack(10)
    assert card.check.problems == []
    card.ack(20, **change)
    assert any(why in problem for problem in card.check.problems), card.check.problems


def test_acks_of_the_wrong_bytes():
    card = PerfectCard("05_rping_4096_crc", "client").run()
    card.check.sent = 50
    card.ack(51)
    assert "never sent" in card.check.problems[-1] and card.check.acked_offset == 0
    card.ack(50)
    card.ack(49)
    assert "goes back" in card.check.problems[1]
    card.check.finish()
    assert "offset 50 of" in card.check.problems[-1]


def test_untouched():
    buffer = HostMemory().alloc(100)
    buffer.write(10, b"12345")
    assert untouched(buffer, [(10, 5)]) == 0 and untouched(buffer, [(10, 4)]) == 1
