"""Every way in which a peer can break the rules of MPA, DDP and RDMAP, on the whole card. Runs inside the simulator.

One row after the other gets a connection of its own, next to a bystander that keeps the wire full.
"""

import os
from collections import Counter

import cocotb
from tests.system.error_rows import ACCEPTED, ROWS, Room, Whole

from emplace import abi
from emplace.abi import Access, EventType, QpFlags, QpState, Reason, WcStatus
from emplace.config import PROFILES
from emplace_sim import ddp, sender
from emplace_sim.bystander import Bystander
from emplace_sim.driver import Sge
from emplace_sim.fpdu import build_fpdu
from emplace_sim.system import Bench
from emplace_sim.terminate import decode, terminate_fpdu

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
#: `tiny` is a card for Gigabit Ethernet.
PACE = 0.1 if CONFIG.name == "tiny" else 1.0
CANARY = bytes([0xCC]) * 4096
BOTH = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
RIGHTS = QpFlags.REMOTE_WRITE | QpFlags.REMOTE_READ


class Stage:
    """A card, a bystander, and a room with regions for whoever comes next."""

    async def open(self, dut):
        self.b = b = await Bench(dut, CONFIG, seed=3, log=False).start(events=256)
        friend = await b.connect(max_recv_wr=0)
        self.by = Bystander(b, friend, await b.region(friend, 1 << 16), pace=PACE)
        b.keep_frames = True
        device = b.device
        self.pd, stranger = device.alloc_pd(), device.alloc_pd()
        self.cq = await device.create_cq(256)

        async def region(access, pd=self.pd, **more):
            return await device.reg_mr(pd, 4096, access, **more)
        gone = await region(BOTH)
        await device.dereg_mr(gone)
        self.room = Room(
            mine=await region(BOTH), also=await region(BOTH), readonly=await region(Access.REMOTE_READ),
            foreign=await region(BOTH, stranger), gone=gone, top=await region(BOTH, base=2**64 - 4096),
            revocable=await region(BOTH | Access.REMOTE_INVALIDATE),
            revocable_foreign=await region(BOTH | Access.REMOTE_INVALIDATE, stranger),
            inbox=await region(Access.LOCAL_WRITE))
        self.errors = Counter()              # streams that have ended, by counter
        self.by.mark()
        return self

    def regions(self):
        return vars(self.room).values()

    def image(self, *placed):
        """Regions are as they were, but for ``placed``: (region, at, bytes)."""
        for region in self.regions():
            want = bytearray(CANARY)
            for where, at, data in placed:
                if where is region:
                    want[at:at + len(data)] = data
            assert region.buffer.read() == bytes(want), (region, placed)

    async def connect(self, row):
        """A connection as the row wants it."""
        room, device = self.room, self.b.device
        link = await self.b.connect(pd=self.pd, cq=self.cq, **{"flags": RIGHTS, **row.install})
        sges = row.sges(room) if row.sges else None
        if row.receives:
            await device.post_recv(link.qp, [
                ([Sge(*sge) for sge in sges] if sges else [room.inbox.sge(64 * n, 64)], n) for n in range(row.receives)])
        for stag, to, length in row.reads(room) if row.reads else ():
            await device.expect_read(link.qp, stag, to, length, wr_id=7)
        return link

    def send(self, link, fpdus, mss=None):
        for frame in link.flow.cut(b"".join(fpdus), mss):
            self.by.put(frame)

    def fpdus(self, link, ulpdus):
        return [bytes(ulpdu) if isinstance(ulpdu, Whole) else link.fpdu(ulpdu) for ulpdu in ulpdus]

    async def sent(self):
        """All is on the wire (two more frames may be in front), and what came of it has left the card."""
        assert await self.b.until(lambda: not self.by.hostile, 20000)
        await self.b.cycles(700)
        await self.b.device.fence()

    def no_data_from(self, link):
        """The card has sent ACKs alone on this connection, no Terminate of its own."""
        port = link.flow.src_port.to_bytes(2, "big")
        for frame in self.b.frames:
            if frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[36:38] == port:
                assert int.from_bytes(frame[16:18], "big") == 20 + 4 * (frame[46] >> 4), frame.hex()

    async def quiet(self):
        """No event has come."""
        event = await self.b.device.get_async_event()
        assert event is None, event

    async def leave(self, link):
        device, room = self.b.device, self.room
        found = await device.poll_cq(self.cq, 64)
        await device.destroy_qp(link.qp)
        if any(c["with_inv"] for c in found):
            await device.dereg_mr(room.revocable)
            room.revocable = await device.reg_mr(self.pd, room.revocable.buffer, BOTH | Access.REMOTE_INVALIDATE)
        for region in self.regions():
            region.buffer.write(0, CANARY)
        self.b.frames.clear()
        return found

    async def close(self):
        fair, long = self.by.fairness(), self.b.cycle() - self.by.start > 300_000
        print(f"bystander: {fair:.3f} of its share, {self.by.again} frames sent again")
        assert await self.by.finish(), "the bystander's data"
        # Not more than the slots may be on its way at the end, and not at the beginning: much of a short test.
        assert fair >= (0.99 if long else 0.95) and self.by.again == 0, fair
        self.b.check()
        await self.b.stop()


def expected_terminate(row, fpdu):
    """Built here by the table's columns."""
    if row.code is None:
        return None
    copied = b""
    if row.flags:
        copied = fpdu[:16 if fpdu[2] & 0x80 else 20]
    if row.flags & 0x20:
        copied = fpdu[:48]
    return build_fpdu(sender.terminate(row.code, flags=row.flags, copied=copied))


async def breaks(stage, row):
    """One row: its event, Terminate, counter, completions; what is placed; and that it is the stream's last word."""
    b, counter = stage.b, f"err_{row.reason.name.lower()}"
    link = await stage.connect(row)
    fpdus = stage.fpdus(link, row.sends(stage.room))
    offender = fpdus[-1]
    # Behind it, in the same burst: another error, and a good Write. Neither may have any effect.
    other = ddp.untagged(3, 1, b"more", qn=9) if row.reason is Reason.STAG else \
        sender.write(stage.room.gone.stag, 0, b"more")
    stage.send(link, [*fpdus, *stage.fpdus(link, [other, sender.write(stage.room.also.rkey, stage.room.also.base, b"late")])])
    event = await b.event()
    assert event is not None, "no event"
    kind = EventType.TERMINATE_RECEIVED if row.reason is Reason.TERMINATED else EventType.QP_ERROR
    assert (event["type"], Reason(event["reason"]), event["qpn"]) == (kind, row.reason, link.qp.number)
    assert event["terminate"] == (row.code or 0) == (abi.TERMINATE[row.reason] or 0)
    whole = 2 if row.reason is Reason.FPDU_LENGTH else min(48, 2 + int.from_bytes(offender[:2], "big"))
    assert event["data"][:whole] == offender[:whole]
    assert terminate_fpdu(event) == expected_terminate(row, offender)
    await stage.sent()
    await stage.quiet()
    upload = await b.device.upload(link.qp)
    stage.image(*(row.placed(stage.room) if row.placed else ()))
    assert (QpState(upload["state"]), Reason(upload["reason"])) == (QpState.ERROR, row.reason)
    stage.errors[counter] += 1
    assert await b.device.counters([counter]) == {counter: stage.errors[counter]}
    stage.no_data_from(link)
    found = await stage.leave(link)
    statuses = [WcStatus(c["status"]) for c in found]
    assert statuses == [WcStatus.SUCCESS] * row.completions + ([row.status] if row.status else [])
    if row.status:
        assert not found[-1]["with_inv"] and not found[-1]["byte_len"]


@cocotb.test()
async def every_row_ends_its_stream_alone(dut):
    stage = await Stage().open(dut)
    for row in ROWS:
        try:
            await breaks(stage, row)
        except AssertionError as error:
            raise AssertionError(f"{row.name}: {error}") from error
    counters = await stage.b.counters()
    assert {name: value for name, value in counters.items() if name.startswith("err_") and value} == stage.errors
    assert counters["rx_after_error"] > 20
    await stage.close()


@cocotb.test()
async def what_is_allowed_is_carried_out(dut):
    """The other side of the table's limits: none of these ends a stream."""
    stage = await Stage().open(dut)
    for row in ACCEPTED:
        link = await stage.connect(row)
        stage.send(link, stage.fpdus(link, row.sends(stage.room)))
        assert await link.acknowledged(), row.name
        await stage.sent()
        if row.name.startswith("Q"):
            event = await stage.b.event()
            assert event["type"] == EventType.READ_REQUEST and event["terminate"] == 0, row.name
        await stage.quiet()
        stage.image(*(row.placed(stage.room) if row.placed else ()))
        upload = await stage.b.device.upload(link.qp)
        assert QpState(upload["state"]) is QpState.RTS, row.name
        found = await stage.leave(link)
        assert [c["status"] for c in found] == [WcStatus.SUCCESS] * row.completions, row.name
    assert not any(v for name, v in (await stage.b.counters()).items() if name.startswith("err_"))
    await stage.close()


@cocotb.test()
async def case_24_region_invalidated_between_segments(dut):
    """A Write's first segment is placed, the host invalidates the STag, the second one ends the stream; behind the
    INVALIDATE's completion not a byte is written."""
    stage = await Stage().open(dut)
    b, room = stage.b, stage.room
    link = await b.connect(pd=stage.pd, cq=stage.cq)
    data = bytes(range(256)) * 4
    stage.send(link, [link.fpdu(sender.write(room.also.rkey, room.also.base, data, last=False))])
    assert await link.acknowledged()
    await b.device.dereg_mr(room.also)
    late = []
    room.also.buffer.written = lambda at, data: late.append((at, data))
    stage.send(link, [link.fpdu(sender.write(room.also.rkey, room.also.base + len(data), data))])
    event = await b.event()
    assert (event["reason"], event["terminate"]) == (Reason.STAG, 0x1100)
    await stage.sent()
    assert room.also.buffer.read(0, len(data)) == data and late == []
    room.also = await b.device.reg_mr(stage.pd, room.also.buffer, BOTH)
    await stage.leave(link)
    await stage.close()


@cocotb.test()
async def case_26_send_with_invalidate(dut):
    """A valid STag: the CQE names it, and a Write right behind, in the same segment, fails. (Those that may not be
    invalidated are rows of stage I; there are no memory windows.)"""
    stage = await Stage().open(dut)
    b, room = stage.b, stage.room
    for solicited in (False, True):
        link = await b.connect(pd=stage.pd, cq=stage.cq)
        await b.device.post_recv(link.qp, [[room.inbox.sge(0, 64)]])
        before, stag = room.revocable, room.revocable.rkey
        stage.send(link, stage.fpdus(link, [
            sender.write(stag, before.base, b"before"), sender.send(1, b"text", invalidate=stag, solicited=solicited),
            sender.write(stag, before.base, b"behind")]))
        event = await b.event()
        assert (event["reason"], event["terminate"]) == (Reason.STAG, 0x1100)
        await stage.sent()
        stage.image((before, 0, b"before"), (room.inbox, 0, b"text"))
        completion, = await stage.leave(link)
        assert (completion["status"], completion["with_inv"], completion["invalidated"], completion["byte_len"],
                completion["solicited"]) == (WcStatus.SUCCESS, 1, stag, 4, solicited)
    await stage.close()


@cocotb.test()
async def case_36_terminate_received(dut):
    """In the middle of a message; twice; with a wrong MSN; as siw lays it out; with D set and nothing behind it:
    the stream closes once, the event is decoded, nothing is answered."""
    stage = await Stage().open(dut)
    b, room = stage.b, stage.room
    hello = b"\0\x13" + sender.write(1, 2, b"HELLO")
    for ulpdus, reason, code, siw, truncated in (
            ([sender.write(room.mine.rkey, room.mine.base, b"abc", last=False), sender.terminate(0x1101)],
             Reason.TERMINATED, 0x1101, 0x1101, False),
            ([sender.send(1, b"abc", last=False), sender.terminate(0x2002)], Reason.TERMINATED, 0x2002, 0x0202, False),
            ([sender.terminate(0x0205), sender.terminate(0x0206)], Reason.TERMINATED, 0x0205, 0x2005, False),
            ([ddp.untagged(7, 2, b"\x11\1\0\0", qn=2)], Reason.MSN, 0x1101, 0x1101, False),
            ([sender.terminate(0x2103, flags=0x03, copied=hello)], Reason.TERMINATED, 0x2103, 0x1203, False),
            ([sender.terminate(0x1101, flags=0xC0)], Reason.TERMINATED, 0x1101, 0x1101, True),
            ([sender.terminate(0x1101, flags=0xC0, copied=hello[:7])], Reason.TERMINATED, 0x1101, 0x1101, True)):
        link = await b.connect(pd=stage.pd, cq=stage.cq)
        await b.device.post_recv(link.qp, [[room.inbox.sge(0, 64)]])
        stage.send(link, stage.fpdus(link, ulpdus))
        event = await b.event()
        assert Reason(event["reason"]) is reason
        said = decode(event["data"])
        assert (said.code, said.truncated) == (code, truncated) and (said.siw == siw or siw == code), said
        await stage.sent()
        await stage.quiet()
        stage.no_data_from(link)
        if reason is Reason.TERMINATED:
            assert event["type"] == EventType.TERMINATE_RECEIVED and terminate_fpdu(event) is None
        assert (await b.device.upload(link.qp))["state"] == QpState.ERROR
        assert await stage.leave(link) == []
    await stage.close()


@cocotb.test()
async def case_37_two_errors_in_one_burst(dut):
    """Of three FPDUs in one segment, and in segments back to back, the first error is reported; good ones behind are
    dropped."""
    stage = await Stage().open(dut)
    b, room = stage.b, stage.room
    for mss in (1448, 40):
        link = await b.connect(pd=stage.pd, cq=stage.cq)
        stage.send(link, stage.fpdus(link, [
            sender.write(room.mine.rkey, room.mine.base, b"good"), sender.write(room.mine.rkey, room.mine.base + 4095, b"evil"),
            ddp.untagged(3, 1, b"evil", qn=7), Whole(build_fpdu(b"evil" * 8, crc=False)),
            sender.write(room.mine.rkey, room.mine.base + 8, b"late")]), mss)
        event = await b.event()
        assert (event["reason"], event["qpn"]) == (Reason.BOUNDS, link.qp.number)
        await stage.sent()
        await stage.quiet()
        stage.image((room.mine, 0, b"good"))
        assert await stage.leave(link) == []
    bounds, qn, crc = await b.counters("err_bounds", "err_qn", "err_fpdu_crc")
    assert (bounds, qn, crc) == (2, 0, 0)
    await stage.close()
