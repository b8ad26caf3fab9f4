"""Per-QP histories against lists."""

import random
from collections import defaultdict, deque

import pytest
from tests.queues.bench import run

from emplace import abi
from emplace.abi import HistoryKind
from emplace.config import PROFILES
from emplace.stats.history import History

CONFIG = PROFILES["tiny"]


def note(rng, qp=None, kind=None):
    return {"qp": rng.randrange(3) if qp is None else qp, "kind": kind or rng.randint(2, 9), "detail": rng.getrandbits(16),
            "flags": rng.getrandbits(8), "seq": rng.getrandbits(32), "ack": rng.getrandbits(32)}


@pytest.mark.parametrize("rate", [0.2, 0.9, 1.0])
def test_every_note_is_kept(rate):
    """tcp's notes come in any cycle, also for one QP in every cycle; control's wait for them; INSTALLED begins anew."""
    dut, rng = History(CONFIG), random.Random(f"{rate}")
    golden = defaultdict(lambda: deque(maxlen=16))

    async def entries(ctx, qp):
        found = []
        ctx.set(dut.qp, qp)
        await ctx.tick()
        for at in range(16):
            ctx.set(dut.at, at)
            await ctx.tick()
            entry = ctx.get(dut.entry)
            found.append({name: getattr(entry, name) for name in ("kind", "detail", "flags", "seq", "ack", "now")})
        return found

    async def user(ctx):
        for qp in range(3):
            ctx.set(dut.control.p, note(rng, qp, HistoryKind.INSTALLED))
            ctx.set(dut.control.valid, 1)
            assert ctx.get(dut.control.ready)
            golden[qp].append({"kind": 1, **{k: ctx.get(getattr(dut.control.p, k)) for k in ("detail", "flags", "seq", "ack")}})
            golden[qp][-1]["now"] = 0
            await ctx.tick()
        ctx.set(dut.control.valid, 0)
        for count in (3, 40, 200, 7):
            pending = None
            for cycle in range(count):
                ctx.set(dut.note, 0)
                if rng.random() < rate:
                    record = note(rng, rng.choice([0, 0, 1, 2]))
                    ctx.set(dut.note, 1)
                    ctx.set(dut.note_record, record)
                else:
                    record = None
                if pending is None and rng.random() < 0.3:
                    pending = note(rng, kind=rng.choice([HistoryKind.STATE, HistoryKind.FAILED, HistoryKind.INSTALLED]))
                ctx.set(dut.control.valid, pending is not None)
                if pending:
                    ctx.set(dut.control.p, pending)
                await ctx.delay(1e-9)
                taken = pending is not None and ctx.get(dut.control.ready)
                await ctx.tick()
                ctx.set(dut.now, cycle)            # written a cycle later
                if record:
                    golden[record.pop("qp")].append({**record, "now": cycle})
                if taken:
                    assert record is None
                    qp = pending.pop("qp")
                    if pending["kind"] == HistoryKind.INSTALLED:
                        golden[qp].clear()
                    golden[qp].append({**pending, "kind": int(pending["kind"]), "now": cycle})
                    pending = None
            ctx.set(dut.note, 0)
            ctx.set(dut.control.valid, 0)
            await ctx.tick()
            for qp in (2, 0, 1):
                found = await entries(ctx, qp)
                known = list(golden[qp])
                assert found[16 - len(known):] == known, qp
                assert not any(any(entry.values()) for entry in found[:16 - len(known)])

    run(dut, user, cycles=2000)
    assert abi.HISTORY_DEPTH == 16


def test_held_while_it_is_read():
    """Notes of the QP that is read get lost, others' don't."""
    dut, rng = History(CONFIG), random.Random(5)

    async def user(ctx):
        for hold in (0, 1, 0):
            ctx.set(dut.hold, hold)
            for qp in (4, 7):
                ctx.set(dut.qp, 4)
                ctx.set(dut.note_record, note(rng, qp, HistoryKind.ACK_SENT if hold else HistoryKind.RST))
                ctx.set(dut.note, 1)
                await ctx.tick()
        ctx.set(dut.note, 0)
        await ctx.tick()
        for qp, expected in ((4, [7, 7]), (7, [7, 5, 7])):
            ctx.set(dut.qp, qp)
            await ctx.tick()
            kinds = []
            for at in range(16):
                ctx.set(dut.at, at)
                await ctx.tick()
                kinds.append(ctx.get(dut.entry.kind))
            assert [kind for kind in kinds if kind] == expected

    run(dut, user)
