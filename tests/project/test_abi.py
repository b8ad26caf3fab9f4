"""Records of the host interface have the sizes that hosts rely on, and every reason its code and counter."""

from emplace import abi
from emplace.control.layer import OFTEN


def test_sizes():
    sizes = {"AdminCompletion": 16, "Upload": 64, "Sge": 16, "RecvWqe": 64, "Cqe": 32, "CqeBody": 24, "Event": 64,
             "EventBody": 56, "FrameRxDescriptor": 16, "FrameRxCompletion": 32, "FrameTxDescriptor": 16, "FrameTxHead": 8,
             "History": 256, "SendWqe": 128, "MSIX_ENTRY": 16}
    assert {name: abi.nbytes(getattr(abi, name)) for name in sizes} == sizes
    assert all(abi.nbytes(layout) == abi.COMMAND_BYTES for layout in abi.COMMANDS.values())
    assert set(abi.COMMANDS) == set(abi.Opcode)


def test_phase_is_the_last_bit_of_what_the_card_writes():
    for layout in (abi.AdminCompletion, abi.Cqe, abi.Event, abi.FrameRxCompletion):
        assert layout["phase"].offset == layout.size - 1


def test_bodies_begin_the_entries():
    for body, entry in ((abi.CqeBody, abi.Cqe), (abi.EventBody, abi.Event)):
        fields = {name: (field.offset, field.width) for name, field in body if name not in ("pad", "reserved")}
        assert fields.items() <= {name: (field.offset, field.width) for name, field in entry}.items()


def test_every_reason_has_a_code_and_a_counter():
    assert set(abi.TERMINATE) == set(abi.Reason)
    names = {counter.name for counter in abi.COUNTERS}
    assert {f"err_{r.name.lower()}" for r in abi.Reason if r is not abi.Reason.NONE} <= names


def test_counters_are_named_once():
    names = [(counter.layer, counter.name) for counter in abi.COUNTERS]
    assert len(set(names)) == len(names)
    assert len({name for _, name in names}) == len(names)


def test_registers_do_not_overlap():
    offsets = [r.offset for r in abi.REGISTERS.values()]
    assert len(set(offsets)) == len(offsets)
    assert all(offset % 4 == 0 and offset < abi.GUARD_RANGE for offset in offsets)
    assert abi.COUNTER_PAGE + 4 * len(abi.COUNTERS) <= abi.DOORBELL_PAGE


def test_counters_that_come_often_are_there():
    assert {(counter.layer, counter.name) for counter in abi.COUNTERS} >= OFTEN
