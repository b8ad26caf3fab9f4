"""The admin queue: order, phase, tokens, each status."""

import random

import pytest
from tests.control.harness import ADMIN_SQ, LOG2, OP, STATUS, Host, command, install_fields
from tests.queues.bench import run
from tests.queues.harness import CONFIG, idle

from emplace import abi
from emplace.control.records import TokenOp
from emplace.control.sequencer import Sequencer
from emplace.ip.records import HoldOp

RTS, ERROR = abi.QpState.RTS, abi.QpState.ERROR
REASON = abi.Reason


def session(script, seed=1, stall=0.3, cycles=20_000, **attributes):
    """Run ``script(ctx, host)`` after the rings are set up."""
    host = Host(seed, stall)
    for name, value in attributes.items():
        setattr(host, name, value)

    async def user(ctx):
        await host.start(ctx)
        await script(ctx, host)
        await idle(ctx, 20)

    host.run(user, cycles=cycles)
    statuses = [STATUS(c["status"]) for c in host.completions]
    assert host.counted == {"commands": len(statuses),
                            "commands_refused": sum(s is not STATUS.OK for s in statuses)}
    return host


def test_commands_run_in_order_over_three_laps():
    """Phase and address of each completion are checked by the host; commands come in bursts up to a full ring."""
    rng = random.Random(1)
    cookies = []

    async def script(ctx, host):
        while len(cookies) < 14:
            burst = [command(OP.NOP, cookie=rng.getrandbits(32)) for _ in range(rng.randint(1, 1 << LOG2))]
            cookies.extend(int.from_bytes(c[4:8], "little") for c in burst)
            await host.submit(ctx, *burst)
            while len(host.completions) < host.sent:
                await ctx.tick()

    host = session(script)
    assert [c["cookie"] for c in host.completions] == cookies
    assert [a for a, n in host.memory.reads] == [ADMIN_SQ + 128 * (n % (1 << LOG2)) for n in range(len(cookies))]
    assert all(n == 128 for _, n in host.memory.reads)


def test_nothing_is_read_while_the_doorbell_claims_too_much():
    async def script(ctx, host):
        await host.write32(ctx, "ADMIN_DOORBELL", (1 << LOG2) + 1)
        await idle(ctx, 30)
        assert host.memory.reads == []
        assert await host.do(ctx, OP.NOP) is STATUS.OK

    session(script)


def test_restart():
    """ADMIN_LOG2 written again: both rings begin at 0, first lap."""
    async def script(ctx, host):
        for _ in range(6):
            await host.do(ctx, OP.NOP)
        commands = list(host.completions)
        host.completions.clear()
        host.sent = 0
        await host.write32(ctx, "ADMIN_LOG2", LOG2)
        for _ in range(5):
            assert await host.do(ctx, OP.NOP) is STATUS.OK
        host.completions[:0] = commands

    session(script)


def test_install_then_remove():
    """Token first, lookup after it, then alive; the other way round when it goes."""
    async def script(ctx, host):
        assert await host.install(ctx, 0xABCDE3, flags=1 | abi.QpFlags.VLAN, vlan_tci=0xE123) is STATUS.OK
        assert ctx.get(host.dut.alive) == 1 << 3
        key, = host.lookup
        assert (key >> 96 + 0) & 0xFFF == 0x123 and key >> 108 == 1          # VLAN id without priority, tagged
        assert key & 0xFFFF_FFFF == 0x0A000001
        assert await host.state(ctx, 0xABCDE3) == (RTS, REASON.NONE)
        assert await host.do(ctx, OP.REMOVE_QP, qpn=0xABCDE3) is STATUS.OK
        assert ctx.get(host.dut.alive) == 0 and not host.lookup
        assert await host.state(ctx, 0xABCDE3) is None
        assert await host.install(ctx, 0x000003) is STATUS.OK                # the slot is free again
        key, = host.lookup
        assert key >> 96 == 0                                                # no tag

    host = session(script)
    assert host.log[:2] == [("token", TokenOp.INSTALL, 3), ("insert", 3)]
    remove = host.log.index(("delete", 3))
    assert host.log[remove:remove + 3] == [("delete", 3), ("token", TokenOp.KILL, 3), ("token", TokenOp.REMOVE, 3)]


def test_sizes_of_the_queues():
    """0 is none, whose base does not matter; a send queue has the entries of one bus read at least."""
    assert CONFIG.send_group_bits == 3

    async def script(ctx, host):
        for sizes in ({"sq_log2": 0, "sq_base": 0x123}, {"sq_log2": 3}, {"sq_log2": 15}, {"rq_log2": 0, "rq_base": 0x123},
                      {"rq_log2": 1}, {"rq_log2": 15}):
            assert await host.install(ctx, 3, **sizes) is STATUS.OK
            assert await host.do(ctx, OP.REMOVE_QP, qpn=3) is STATUS.OK

    session(script)


@pytest.mark.parametrize("status", [STATUS.EXISTS, STATUS.TABLE_FULL])
def test_install_refused_by_the_lookup(status):
    """What the token loaded is taken back; the slot is still free, others are untouched."""
    async def script(ctx, host):
        assert await host.install(ctx, 1) is STATUS.OK
        if status is STATUS.TABLE_FULL:
            host.lookup_status = status
        tuple_of_1 = {"local_port": 4001}
        assert await host.install(ctx, 2, **tuple_of_1) is status
        assert ctx.get(host.dut.alive) == 1 << 1 and list(host.lookup.values()) == [1]
        assert await host.state(ctx, 2) is None
        assert await host.state(ctx, 1) == (RTS, REASON.NONE)
        host.lookup_status = None
        assert await host.install(ctx, 2) is STATUS.OK

    host = session(script)
    at = host.log.index(("insert", 2))
    assert host.log[at - 1:at + 3] == [("token", TokenOp.INSTALL, 2), ("insert", 2), ("token", TokenOp.REMOVE, 2),
                                       ("completion", status)]


def test_flush_of_a_living_qp_stops_it_first():
    async def script(ctx, host):
        await host.install(ctx, 5)
        host.log.clear()
        assert await host.do(ctx, OP.FLUSH_QP, qpn=5) is STATUS.OK
        assert host.log == [("delete", 5), ("token", TokenOp.KILL, 5), ("token", TokenOp.FLUSH, 5),
                            ("completion", STATUS.OK)]
        assert await host.state(ctx, 5) == (ERROR, REASON.NONE)
        host.log.clear()
        assert await host.do(ctx, OP.FLUSH_QP, qpn=5) is STATUS.OK
        assert host.log == [("token", TokenOp.FLUSH, 5), ("completion", STATUS.OK)]
        host.log.clear()
        assert await host.do(ctx, OP.REMOVE_QP, qpn=5) is STATUS.OK
        assert host.log == [("token", TokenOp.REMOVE, 5), ("completion", STATUS.OK)]

    session(script)


def test_upload():
    """Owners' parts, and control's own; written before the completion, at any state."""
    async def script(ctx, host):
        await host.install(ctx, 0xFFFFF6)
        parts = {"snd_una": 0x11111111, "rcv_nxt": 0x22222222, "rq_consumed": 0x3333, "open_fpdu": 1}
        ctx.set(host.dut.upload, parts)
        host.history.update({(6, n): host.rng.getrandbits(128) for n in range(16)})
        assert await host.do(ctx, OP.UPLOAD_QP, qpn=0xFFFFF6, address=0x9000_0200) is STATUS.OK
        upload = host.uploads[0x9000_0200]
        assert {name: upload[name] for name in parts} == parts
        assert (upload["qpn"], upload["state"], upload["reason"], upload["snd_nxt"]) == (0xFFFFF6, RTS, 0, 0)
        assert host.log[-3:] == [("token", TokenOp.UPLOAD, 6), ("upload", 0x9000_0200), ("completion", STATUS.OK)]
        assert host.histories == {0x9000_0200: {64 + 16 * n: host.history[6, n].to_bytes(16, "little") for n in range(16)}}

    session(script)


def test_notes_for_the_history():
    """Installing, a stream's end and the host's own doing are told apart."""
    async def script(ctx, host):
        await host.install(ctx, 2)
        await host.die(ctx, 1, 2, REASON.CQ_OVERFLOW)
        await host.state(ctx, 2)
        await host.do(ctx, OP.REMOVE_QP, qpn=2)
        await host.install(ctx, 5)
        await host.do(ctx, OP.FLUSH_QP, qpn=5)
        await idle(ctx, 30)
        kind, state = abi.HistoryKind, abi.QpState
        assert host.notes == [
            (kind.INSTALLED, 2, state.RTS), (kind.FAILED, 2, REASON.CQ_OVERFLOW), (kind.STATE, 2, state.EMPTY),
            (kind.INSTALLED, 5, state.RTS), (kind.STATE, 5, state.ERROR)]

    session(script)


def test_registering_and_invalidating():
    """REG_MR as the table says; INVALIDATE completes only behind a fence, and only if the table did it."""
    async def script(ctx, host):
        assert await host.do(ctx, OP.REG_MR, stag=0x1234, length=77) is STATUS.OK
        assert await host.do(ctx, OP.INVALIDATE, stag=0x1234) is STATUS.OK
        assert host.log == [("table", 0, 0x1234, 77), ("completion", STATUS.OK), ("table", 1, 0x1234, 0),
                            ("token", TokenOp.FENCE, 0), ("completion", STATUS.OK)]
        host.log.clear()
        for status in (STATUS.BAD_STAG, STATUS.BAD_LENGTH, STATUS.BAD_PAGES, STATUS.BAD_SIZE):
            host.table_status = status
            assert await host.do(ctx, OP.REG_MR, stag=1) is status
        assert await host.do(ctx, OP.INVALIDATE, stag=1) is STATUS.BAD_SIZE
        assert [entry[0] for entry in host.log] == ["table", "completion"] * 5

    session(script)


def test_fence():
    async def script(ctx, host):
        host.tokens_out = host.marks_out = False
        await host.submit(ctx, command(OP.FENCE, cookie=9))
        await idle(ctx, 150)
        assert host.log == [] and host.marks                          # frames that came before are not written yet
        host.marks_out = True
        await idle(ctx, 150)
        assert host.log == [("token", TokenOp.FENCE, 0)]              # not before it came out
        host.tokens_out = True
        while not host.completions:
            await ctx.tick()
        assert host.completions[0]["cookie"] == 9

    session(script)


@pytest.mark.parametrize("first, count", [(0, 1), (5, 13), (51, 13), (63, 1)])
def test_pages_are_written(first, count):
    addresses = [0x1_0000_0000 * n + 0x1000 for n in range(13)]

    async def script(ctx, host):
        assert await host.do(ctx, OP.WRITE_PAGES, first=first, count=count, address=addresses) is STATUS.OK

    host = session(script)
    assert host.log == [*(("page", first + n, addresses[n]) for n in range(count)), ("completion", STATUS.OK)]


def test_expect_read():
    fields = {"stag": 0xCAFE01, "to": 0x1122334455667788, "length": 0x80000001, "wr_id": 0xBEEF}

    async def script(ctx, host):
        await host.install(ctx, 2)
        assert await host.do(ctx, OP.EXPECT_READ, qpn=2, **fields) is STATUS.OK
        assert host.log[-2] == ("expect", {"qp": 2, **fields})
        host.expect_status = STATUS.QUEUE_FULL
        assert await host.do(ctx, OP.EXPECT_READ, qpn=2, **fields) is STATUS.QUEUE_FULL

    session(script)


# Each refusal changes nothing

REFUSALS = {
    "no such opcode": (STATUS.BAD_OPCODE, 13, {}),
    "no such opcode, highest": (STATUS.BAD_OPCODE, 255, {}),
    "install: slot taken": (STATUS.BAD_QPN, OP.INSTALL_QP, install_fields(0x000001, local_port=99)),
    "install: same QP again": (STATUS.BAD_QPN, OP.INSTALL_QP, install_fields(0x40A1, local_port=99)),
    "install: rq_log2": (STATUS.BAD_SIZE, OP.INSTALL_QP, install_fields(2, rq_log2=16)),
    "install: sq_log2": (STATUS.BAD_SIZE, OP.INSTALL_QP, install_fields(2, sq_log2=16)),
    "install: less than one bus read of send WQEs": (
        STATUS.BAD_SIZE, OP.INSTALL_QP, install_fields(2, sq_log2=CONFIG.send_group_bits - 1)),
    "install: a single send WQE": (STATUS.BAD_SIZE, OP.INSTALL_QP, install_fields(2, sq_log2=1)),
    "install: window scale": (STATUS.BAD_SIZE, OP.INSTALL_QP, install_fields(2, rcv_wscale=15)),
    "install: rq_base": (STATUS.BAD_ADDRESS, OP.INSTALL_QP, install_fields(2, rq_base=0x7800)),
    "install: sq_base": (STATUS.BAD_ADDRESS, OP.INSTALL_QP, install_fields(2, sq_log2=3, sq_base=1)),
    "install: context": (STATUS.BAD_CONTEXT, OP.INSTALL_QP, install_fields(2, context=4)),
    "install: recv_cq beyond the table": (STATUS.BAD_CQ, OP.INSTALL_QP, install_fields(2, recv_cq=5)),
    "install: recv_cq isn't there": (STATUS.BAD_CQ, OP.INSTALL_QP, install_fields(2, recv_cq=3)),
    "install: send_cq isn't there": (STATUS.BAD_CQ, OP.INSTALL_QP, install_fields(2, send_cq=0)),
    "remove: other number in the slot": (STATUS.BAD_QPN, OP.REMOVE_QP, {"qpn": 0x0001}),
    "remove: more than 24 bits": (STATUS.BAD_QPN, OP.REMOVE_QP, {"qpn": 0x0100_40A1}),
    "remove: empty slot": (STATUS.BAD_QPN, OP.REMOVE_QP, {"qpn": 2}),
    "remove: empty slot 0, number 0": (STATUS.BAD_QPN, OP.REMOVE_QP, {"qpn": 0}),
    "flush: no such": (STATUS.BAD_QPN, OP.FLUSH_QP, {"qpn": 0x40A9}),
    "upload: no such": (STATUS.BAD_QPN, OP.UPLOAD_QP, {"qpn": 0x40A2, "address": 0x200}),
    "upload: address": (STATUS.BAD_ADDRESS, OP.UPLOAD_QP, {"qpn": 0x40A1, "address": 0x100}),
    "expect: no such": (STATUS.BAD_QPN, OP.EXPECT_READ, {"qpn": 0x40A3}),
    "expect: stream has ended": (STATUS.BAD_STATE, OP.EXPECT_READ, {"qpn": 0x4446}),
    "create: exists": (STATUS.BAD_CQ, OP.CREATE_CQ, {"cq": 1, "log2": 3}),
    "create: beyond the table": (STATUS.BAD_CQ, OP.CREATE_CQ, {"cq": 4, "log2": 3}),
    "create: too small": (STATUS.BAD_SIZE, OP.CREATE_CQ, {"cq": 3, "log2": 1}),
    "create: too large": (STATUS.BAD_SIZE, OP.CREATE_CQ, {"cq": 3, "log2": 16}),
    "create: address": (STATUS.BAD_ADDRESS, OP.CREATE_CQ, {"cq": 3, "log2": 3, "base": 0x800}),
    "create: context": (STATUS.BAD_CONTEXT, OP.CREATE_CQ, {"cq": 3, "log2": 3, "context": 4}),
    "create: vector": (STATUS.BAD_VECTOR, OP.CREATE_CQ, {"cq": 3, "log2": 3, "vector": CONFIG.vectors}),
    "destroy: no such": (STATUS.BAD_CQ, OP.DESTROY_CQ, {"cq": 3}),
    "destroy: beyond the table": (STATUS.BAD_CQ, OP.DESTROY_CQ, {"cq": 4}),
    "destroy: a QP receives into it": (STATUS.BAD_CQ, OP.DESTROY_CQ, {"cq": 1}),
    "destroy: a QP sends into it": (STATUS.BAD_CQ, OP.DESTROY_CQ, {"cq": 2}),
    "pages: none": (STATUS.BAD_LENGTH, OP.WRITE_PAGES, {"first": 0, "count": 0}),
    "pages: too many": (STATUS.BAD_LENGTH, OP.WRITE_PAGES, {"first": 0, "count": 14}),
    "pages: end beyond card memory": (STATUS.BAD_PAGES, OP.WRITE_PAGES, {"first": 62, "count": 3}),
    "pages: first beyond card memory": (STATUS.BAD_PAGES, OP.WRITE_PAGES, {"first": 0xFFFF_FFFF, "count": 2}),
    "pages: the third misaligned": (STATUS.BAD_ADDRESS, OP.WRITE_PAGES,
                                    {"first": 1, "count": 3, "address": [0x1000, 0x2000, 0x3001]}),
}


def test_every_status_is_produced():
    named = {status for status, _, _ in REFUSALS.values()}
    named |= {STATUS.OK, STATUS.EXISTS, STATUS.TABLE_FULL, STATUS.BUS_ERROR, STATUS.QUEUE_FULL, STATUS.BAD_STAG, STATUS.AGAIN}
    assert named == set(STATUS)


@pytest.mark.parametrize("why", REFUSALS)
def test_refused_and_nothing_changed(why):
    """With QP 0x40A1 in RTS, 0x4446 in ERROR: no neighbour is told to change anything, and both are as before."""
    status, opcode, fields = REFUSALS[why]

    async def script(ctx, host):
        assert await host.install(ctx, 0x40A1) is STATUS.OK
        assert await host.install(ctx, 0x4446) is STATUS.OK
        await host.die(ctx, 0, 6, REASON.MSN)
        while ("token", TokenOp.KILL, 6) not in host.log:
            await ctx.tick()
        host.log.clear()
        cqs, lookup = dict(host.cqs), dict(host.lookup)
        assert await host.do(ctx, opcode, **fields) is status
        assert host.log == [("completion", status)]
        assert (host.cqs, host.lookup) == (cqs, lookup) and ctx.get(host.dut.alive) == 1 << 1
        assert await host.state(ctx, 0x40A1) == (RTS, REASON.NONE)
        assert await host.state(ctx, 0x4446) == (ERROR, REASON.MSN)

    session(script, stall=0.1)


def test_cqs_come_and_go():
    """Free to go once no QP uses them; what CREATE_CQ says reaches queues."""
    async def script(ctx, host):
        assert await host.do(ctx, OP.CREATE_CQ, cq=3, log2=15, context=3, base=0xABCD_EF01_2345_6000) is STATUS.OK
        update = host.cqs[3]
        assert (update["log2"], update["context"], update["base"]) == (15, 3, 0xABCD_EF01_2345_6)
        await host.install(ctx, 7, recv_cq=3)
        assert await host.do(ctx, OP.DESTROY_CQ, cq=3) is STATUS.BAD_CQ
        assert await host.do(ctx, OP.REMOVE_QP, qpn=7) is STATUS.OK
        assert await host.do(ctx, OP.DESTROY_CQ, cq=3) is STATUS.OK
        assert 3 not in host.cqs

    session(script)


@pytest.mark.parametrize("seed", range(3))
def test_a_command_that_cannot_be_read(seed):
    """BUS_ERROR with cookie 0, and the next one runs."""
    async def script(ctx, host):
        host.memory.bad.add(ADMIN_SQ + 128)
        await host.submit(ctx, command(OP.NOP, cookie=1), command(OP.REMOVE_QP, cookie=2, qpn=1),
                          command(OP.NOP, cookie=3))
        while len(host.completions) < 3:
            await ctx.tick()
        assert [(c["cookie"], c["status"]) for c in host.completions] == [
            (1, STATUS.OK), (0, STATUS.BUS_ERROR), (3, STATUS.OK)]

    session(script, seed=seed)


# Deaths

@pytest.mark.parametrize("port", range(3))
def test_a_stream_that_ends(port):
    async def script(ctx, host):
        await host.install(ctx, 0x33)
        await host.install(ctx, 0x34)
        host.log.clear()
        await host.die(ctx, port, 3, REASON.CQ_OVERFLOW)
        while len(host.log) < 2:
            await ctx.tick()
        assert ctx.get(host.dut.alive) == 1 << 4
        assert await host.state(ctx, 0x33) == (ERROR, REASON.CQ_OVERFLOW)
        assert host.log[:2] == [("delete", 3), ("token", TokenOp.KILL, 3)]
        # Again, and for a slot that is empty: nothing
        host.log.clear()
        await host.die(ctx, 0, 3, REASON.MSN)
        await host.die(ctx, 0, 5, REASON.MSN)
        await idle(ctx, 60)
        assert host.log == []
        assert await host.state(ctx, 0x33) == (ERROR, REASON.CQ_OVERFLOW)

    session(script)


def test_a_peer_that_closes_its_side():
    """A FIN between FPDUs: still looked up and alive, no receive; RST, a dirty FIN or REMOVE_QP then end it."""
    CLOSING = abi.QpState.CLOSING

    async def script(ctx, host):
        for qp in (3, 4, 5, 6):
            await host.install(ctx, 0x30 + qp)
        host.log.clear()
        for qp in (3, 4, 5):
            await host.die(ctx, 0, qp, REASON.PEER_FIN)
        await host.die(ctx, 0, 6, REASON.PEER_FIN_DIRTY)
        while ("token", TokenOp.KILL, 6) not in host.log:
            await ctx.tick()
        assert host.log == [("delete", 6), ("token", TokenOp.KILL, 6)]
        assert ctx.get(host.dut.alive) == 0b111000
        assert await host.state(ctx, 0x33) == (CLOSING, REASON.PEER_FIN)
        assert await host.state(ctx, 0x36) == (ERROR, REASON.PEER_FIN_DIRTY)
        assert await host.do(ctx, OP.EXPECT_READ, qpn=0x33) is STATUS.BAD_STATE
        host.log.clear()
        await host.die(ctx, 0, 3, REASON.PEER_RESET)
        while ("token", TokenOp.KILL, 3) not in host.log:
            await ctx.tick()
        assert await host.state(ctx, 0x33) == (ERROR, REASON.PEER_RESET)
        assert ctx.get(host.dut.alive) == 0b110000
        host.log.clear()
        assert await host.do(ctx, OP.REMOVE_QP, qpn=0x34) is STATUS.OK
        assert host.log[:3] == [("delete", 4), ("token", TokenOp.KILL, 4), ("token", TokenOp.REMOVE, 4)]
        await host.die(ctx, 1, 5, REASON.PEER_FIN)           # again: it is as it was
        await idle(ctx, 60)
        assert await host.state(ctx, 0x35) == (CLOSING, REASON.PEER_FIN) and ctx.get(host.dut.alive) == 0b100000

    session(script)


def test_deaths_never_wait():
    """While a token is stuck and everybody dies, repeatedly, on all ports: a report is taken every cycle, in turns."""
    async def script(ctx, host):
        for qp in range(8):
            assert await host.install(ctx, qp) is STATUS.OK
        host.tokens_out = False
        await host.submit(ctx, command(OP.FENCE), command(OP.NOP))
        while ("token", TokenOp.FENCE, 0) not in host.log:
            await ctx.tick()
        ports = list(host.dut.died)
        assert len(ports) == 3
        told, waited = [0] * 3, [0] * 3
        for _ in range(48):
            for port, n in zip(ports, told):
                ctx.set(port.payload, {"qp": n % 8, "reason": 1 + n % 8})
                ctx.set(port.valid, 1)
            _, _, *ready = await ctx.tick().sample(*(port.ready for port in ports))
            assert sum(ready) == 1
            for n in range(3):
                told[n] += ready[n]
                waited[n] = 0 if ready[n] else waited[n] + 1
            assert max(waited) < 3
        assert told == [16] * 3
        for port in ports:
            ctx.set(port.valid, 0)
        assert len(host.completions) == 8
        host.tokens_out = True
        while len(host.completions) < 10:
            await ctx.tick()
        # The fence was done, then all deaths, then the next command
        kinds = [entry[:2] for entry in host.log if entry[0] != "insert"]
        fence = kinds.index(("completion", STATUS.OK), kinds.index(("token", TokenOp.FENCE)))
        assert kinds[fence + 1:-1].count(("token", TokenOp.KILL)) == 8
        assert kinds[-1] == ("completion", STATUS.OK)
        assert ctx.get(host.dut.alive) == 0 and not host.lookup
        for qp in range(8):
            assert await host.state(ctx, qp) == (ERROR, REASON(1 + qp))

    session(script)


def test_a_death_on_its_way_goes_before_the_next_command():
    dut = Sequencer(CONFIG)

    async def script(ctx):
        ctx.set(dut.valid, 1)
        ctx.set(dut.inline.ready, 0)
        await idle(ctx, 20)
        assert not ctx.get(dut.inline.valid)
        ctx.set(dut.deaths_empty, 1)
        await idle(ctx, 5)
        assert ctx.get(dut.inline.valid)                              # NOP: 5 cycles, as published

    run(dut, script)


@pytest.mark.parametrize("seed", range(2))
def test_random_life(seed):
    """Commands and deaths at random against a model of the QPs' states."""
    rng = random.Random(seed)
    model = {}

    async def script(ctx, host):
        for _ in range(45):
            qp = rng.randrange(4)
            qpn = qp | rng.randrange(2) << 20
            choice = rng.choice(["install", "install", "remove", "flush", "die", "state"])
            current = model.get(qp)
            known = current is not None and current[0] == qpn
            if choice == "install":
                port = 4000 + rng.randrange(4)
                status = await host.install(ctx, qpn, local_port=port)
                if current is not None:
                    assert status is STATUS.BAD_QPN
                elif any(m[1] is RTS and m[3] == port for m in model.values()):
                    assert status is STATUS.EXISTS
                else:
                    assert status is STATUS.OK
                    model[qp] = (qpn, RTS, REASON.NONE, port)
            elif choice == "remove":
                assert await host.do(ctx, OP.REMOVE_QP, qpn=qpn) is (STATUS.OK if known else STATUS.BAD_QPN)
                if known:
                    del model[qp]
            elif choice == "flush":
                assert await host.do(ctx, OP.FLUSH_QP, qpn=qpn) is (STATUS.OK if known else STATUS.BAD_QPN)
                if known and current[1] is RTS:
                    model[qp] = (qpn, ERROR, REASON.NONE, 0)
            elif choice == "die":
                reason = REASON(rng.randint(1, 38))
                await host.die(ctx, rng.randrange(3), qp, reason)
                if current is not None and current[1] is RTS:
                    model[qp] = (current[0], ERROR, reason, 0)
            else:
                assert await host.state(ctx, qpn) == (current[1:3] if known else None)
        await idle(ctx, 100)
        alive = ctx.get(host.dut.alive)
        assert alive == sum(1 << qp for qp, m in model.items() if m[1] is RTS)
        assert sorted(host.lookup.values()) == sorted(qp for qp, m in model.items() if m[1] is RTS)

    session(script, seed=seed, cycles=30_000)


HELD = abi.QpState.HELD


def test_held_until_activated():
    """Held before it can be found; alive, so that re-injected frames are TCP's; RTS only by ACTIVATE."""
    async def script(ctx, host):
        assert await host.install(ctx, 0x12345, flags=1 | abi.QpFlags.HELD) is STATUS.OK
        assert host.log[:3] == [("token", TokenOp.INSTALL, 5), ("hold", HoldOp.HOLD, 5), ("insert", 5)]
        assert host.holds == {5: 0x12345} and ctx.get(host.dut.alive) == 1 << 5
        assert await host.state(ctx, 0x12345) == (HELD, REASON.NONE)
        assert await host.do(ctx, OP.EXPECT_READ, qpn=0x12345, length=1) is STATUS.BAD_STATE
        assert await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=0) is STATUS.OK
        assert host.holds == {} and ctx.get(host.dut.alive) == 1 << 5
        assert await host.state(ctx, 0x12345) == (RTS, REASON.NONE)
        assert await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=0) is STATUS.BAD_STATE

    host = session(script)
    assert [entry for entry in host.log if entry[0] == "hold"] == [
        ("hold", op, 5) for op in (HoldOp.HOLD, HoldOp.WATCH, HoldOp.RELEASE)]


def test_activate_again():
    """Refused with the index behind the QP's last completion, at any distance modulo 2**32, until the host has read it."""
    async def script(ctx, host):
        assert await host.install(ctx, 0x12345, flags=1 | abi.QpFlags.HELD) is STATUS.OK
        for last in (0, 7, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF):
            host.lasts[5] = last
            for behind in (0, 1, 5000):
                index = last - behind & 0xFFFF_FFFF
                answer = await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=index)
                assert answer == (STATUS.AGAIN, last + 1 & 0xFFFF_FFFF)
            assert await host.state(ctx, 0x12345) == (HELD, REASON.NONE) and host.holds == {5: 0x12345}
        for ahead in (1, 5000):
            assert await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=0xFFFF_FFFF + ahead & 0xFFFF_FFFF) is STATUS.OK
            assert await host.do(ctx, OP.REMOVE_QP, qpn=0x12345) is STATUS.OK
            assert await host.install(ctx, 0x12345, flags=1 | abi.QpFlags.HELD) is STATUS.OK
            host.lasts[5] = 0xFFFF_FFFF
        assert await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=0) is STATUS.OK
        assert await host.do(ctx, OP.NOP) is STATUS.OK               # `value` is 0 again

    session(script)


@pytest.mark.parametrize("number", [None, 3, 4, 9])
def test_activate_loses_the_race(number):
    """A frame goes to the host between mark and release: again, with its number; or with the host's own index where it
    found no buffer."""
    async def script(ctx, host):
        assert await host.install(ctx, 0x12345, flags=1 | abi.QpFlags.HELD) is STATUS.OK

        def refuse(qp):
            if number is not None:
                host.lasts[qp] = number
            return False
        host.release = refuse
        want = 4 if number in (None, 3) else number + 1
        assert await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=4) == (STATUS.AGAIN, want)
        assert await host.state(ctx, 0x12345) == (HELD, REASON.NONE) and host.holds == {5: 0x12345}
        host.release = lambda qp: True
        assert await host.do(ctx, OP.ACTIVATE_QP, qpn=0x12345, index=want) is STATUS.OK

    host = session(script)
    ops = [entry[1] for entry in host.log if entry[0] == "hold"]
    assert ops == [HoldOp.HOLD, HoldOp.WATCH, HoldOp.RELEASE, HoldOp.WATCH, HoldOp.WATCH, HoldOp.RELEASE]


def test_activate_refused():
    """Not for a QP that is not there, runs already, has failed, or has another number."""
    async def script(ctx, host):
        activate = OP.ACTIVATE_QP
        assert await host.do(ctx, activate, qpn=5) is STATUS.BAD_QPN
        assert await host.install(ctx, 0x12345) is STATUS.OK
        assert await host.do(ctx, activate, qpn=0x12345) is STATUS.BAD_STATE
        assert await host.do(ctx, activate, qpn=0x02345) is STATUS.BAD_QPN
        assert await host.do(ctx, activate, qpn=0x1012345) is STATUS.BAD_QPN
        assert await host.install(ctx, 0x6, flags=1 | abi.QpFlags.HELD, remote_port=1) is STATUS.OK
        await host.die(ctx, 0, 6, REASON.STAG)
        while ctx.get(host.dut.alive) >> 6 & 1:
            await ctx.tick()
        assert await host.do(ctx, activate, qpn=6) is STATUS.BAD_STATE
        assert await host.state(ctx, 6) == (ERROR, REASON.STAG)

    host = session(script)
    assert ("token", TokenOp.KILL, 6) in host.log and ("delete", 6) in host.log


@pytest.mark.parametrize("opcode", [OP.REMOVE_QP, OP.FLUSH_QP])
def test_held_can_go(opcode):
    """Stopped like one in RTS; its slot's next owner is not held."""
    async def script(ctx, host):
        assert await host.install(ctx, 0x12345, flags=1 | abi.QpFlags.HELD) is STATUS.OK
        assert await host.do(ctx, opcode, qpn=0x12345) is STATUS.OK
        assert ctx.get(host.dut.alive) == 0 and not host.lookup
        if opcode is OP.FLUSH_QP:
            assert await host.do(ctx, OP.REMOVE_QP, qpn=0x12345) is STATUS.OK
        assert await host.install(ctx, 0x5) is STATUS.OK
        assert host.holds == {} and await host.state(ctx, 5) == (RTS, REASON.NONE)

    host = session(script)
    assert ("token", TokenOp.KILL, 5) in host.log
