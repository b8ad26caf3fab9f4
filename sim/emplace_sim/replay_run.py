"""Carries replay plans out against the simulated card; runs inside the simulator.

``EMPLACE_REPLAY`` names a pickled :class:`Job`. The card is reset between plans; each plan leaves
wire.pcapng, bus.log, ledger.json and results.json in its folder. A plan that could not take everything
back from the card is the last one of its simulation.
"""

import functools
import json
import os
import pickle
import random
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cocotb

from emplace import abi
from emplace.abi import Access, QpState, Status
from emplace.config import NicConfig

from .bus import BusTimeout
from .driver import AdminError, CardError, Sge
from .driver_records import unpack
from .replay import Event, Plan
from .replay_check import FORBIDDEN, ConnectionCheck, untouched
from .system import PERIOD_NS, Bench

__all__ = ["Job", "PlanRun"]

#: Cycles without any progress after which the peer sends again what is not acknowledged.
RETRANSMIT_AFTER = 3000
#: Duplicate ACKs after which it sends one segment again; more than re-cutting's reordering makes.
DUPLICATES = 16
#: Times it does so, without progress between, before it gives up.
RETRANSMITS = 5
#: Cycles of a tick: short, since a real one (1 ms) is longer than most replays.
TICK = 2000


@dataclass
class Job:
    """Plans for one simulation of the card that ``config`` makes, and a folder for each."""

    config: NicConfig
    plans: list[Plan]
    folders: list[str] = field(default_factory=list)
    log: bool = True


class PlanRun(Bench):
    """One plan on a freshly reset card."""

    def __init__(self, dut, config, plan: Plan, folder, *, log=True):
        self.plan, self.folder = plan, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        stall = plan.stall
        super().__init__(dut, config, seed=plan.seed, pcapng=self.folder / "wire.pcapng", lane4=True, stall=stall,
                         gap=stall, jitter=20 + round(200 * stall), cut="random" if stall else "max", log=log)
        self.random = random.Random(f"run {plan.seed}")
        self.checks = [ConnectionCheck(connection, n) for n, connection in enumerate(plan.connections)]
        self.problems, self.clean = [], False        # clean: all was taken back from the card
        self.progress = self.last_progress = 0       # how often something came of it, and the last time's cycle
        self.retransmitted = [0] * len(self.checks)
        self.fast_path = [0] * len(self.checks)
        self._over = False
        self._senders = [connection.sender(n) for n, connection in enumerate(plan.connections)]
        self.pending_reads = [list(enumerate(connection.reads)) for connection in plan.connections]
        self.expected_reads = [0] * len(self.checks)
        self.events_seen = 0
        self.samples, self.histories = {}, {}

    def _progressed(self):
        self.progress += 1
        self.last_progress = self.cycle()

    # Wire

    def _received(self, frame, time_ns):
        if self.tap:
            self.tap.write(1, time_ns, frame[:-4])
        for check in self.checks:
            install = check.plan.install
            if frame[26:38] == b"".join(install[name].to_bytes(size, "big") for name, size in (
                    ("local_ip", 4), ("remote_ip", 4), ("local_port", 2), ("remote_port", 2))):
                before = check.acked
                check.answered(frame)
                if check.acked != before:
                    self._progressed()
                return
        self.problems.append(f"a frame of no connection left the card: {frame[:54].hex()}")

    # Host

    async def prepare(self):
        """Regions, queues, receive buffers, contexts; then the connections are the card's."""
        device, shared = self.device, self.device.alloc_pd()
        self._spans, self._receive_regions, self._mrs = {}, [], []
        for check in self.checks:
            connection, n = check.plan, check.number
            pd = shared if self.plan.shared_pd else device.alloc_pd()
            for region in connection.regions:
                if region.stag in check.regions:
                    continue
                other = next((c.regions[region.stag] for c in self.checks if region.stag in c.regions), None)
                kind = "write" if region.access & Access.REMOTE_WRITE else "read"
                if other is None:
                    buffer = self._buffer(region.length, f"payload.{kind}.{n}", region.base % 4096)
                    other = await device.reg_mr(pd, buffer, region.access, base=region.base, stag=region.stag)
                    self._mrs.append(other)
                check.regions[region.stag] = other
            requests = await self._receive_buffers(check, pd)
            entries = max(len(connection.receives), 16)
            check.recv_cq = await device.create_cq(entries, label="cqe")
            check.send_cq = await device.create_cq(max(len(connection.reads), 16), label="cqe")
            for cq in (check.recv_cq, check.send_cq):
                cq.ring.buffer.written = lambda at, data, check=check: self._cqe(check, data)
            check.qp = device.create_qp(pd, check.send_cq, check.recv_cq, max_recv_wr=max(len(requests), 2))
            check.qpn = check.qp.number
        device._events.buffer.written = lambda at, data: self._event(data)
        for check in self.checks:
            await device.install(check.qp, **check.plan.install)
        for check, requests in zip(self.checks, self._requests):
            await device.post_recv(check.qp, requests)
        await self._expect_reads()

    def _buffer(self, length, label, offset):
        """Scattered pages, larger blocks, or one run."""
        kind = self.random.choice(({}, {}, {"block": 4 * 4096}, {"contiguous": True}))
        return self.memory.alloc(length, label=label, offset=offset, **kind)

    async def _receive_buffers(self, check, pd):
        """Two regions that the receive requests of ``check`` scatter into, with canaries between."""
        self._requests = getattr(self, "_requests", [])
        places, ends = [], [self.random.randrange(64), self.random.randrange(64)]
        for receive in check.plan.receives:
            spans = []
            for size in receive.sizes:
                which = self.random.randrange(2)
                spans.append((which, ends[which], size))
                ends[which] += size + self.random.randrange(40)
            places.append(spans)
        regions = []
        for end in ends if places else ():
            buffer = self._buffer(end + 1, f"payload.send.{check.number}", self.random.randrange(4096))
            regions.append(await self.device.reg_mr(pd, buffer, Access.LOCAL_WRITE))
            self._spans[regions[-1]] = []
        self._mrs += regions
        requests = []
        for spans in places:
            check.receives.append([(regions[which].buffer, at, size) for which, at, size in spans])
            for which, at, size in spans:
                self._spans[regions[which]].append((at, size))
            # An element of no bytes has no key that could be checked.
            requests.append([regions[which].sge(at, size) if size else Sge(self.random.getrandbits(64), 0,
                                                                          self.random.getrandbits(32))
                             for which, at, size in spans])
        self._requests.append(requests)
        return requests

    def _cqe(self, check, data):
        self._progressed()
        if len(data) != 32:
            self.problems.append(f"a CQE came as {len(data)} bytes")
            return
        check.completed(data)

    def _event(self, data):
        self._progressed()
        if len(data) != 64:
            self.problems.append(f"an event came as {len(data)} bytes")
            return
        record = unpack(abi.Event, data)
        check = next((c for c in self.checks if c.qpn == record["qpn"]), None)
        if check is None:
            self.problems.append(f"an event of type {record['type']} names QP {record['qpn']:#x}, which is none")
        else:
            check.happened(record)

    async def _expect_reads(self):
        """Tell the card of the reads that its host has sent, as far as its queue has room."""
        for n, pending in enumerate(self.pending_reads):
            check = self.checks[n]
            while pending:
                index, read = pending[0]
                if self.expected_reads[n] - check.reads_done >= self.device.orq:
                    break
                try:
                    await self.device.expect_read(check.qp, read.stag, read.to, read.length, wr_id=index)
                except AdminError as error:
                    if error.status == Status.QUEUE_FULL:
                        break
                    raise
                pending.pop(0)
                self.expected_reads[n] += 1
                self._progressed()

    async def _host(self):
        """Poll, as a host would: completions, events; expect further reads as the earlier complete."""
        polled = dict.fromkeys(range(len(self.checks)), 0)
        while not self._over:
            busy = False
            for check in self.checks:
                for cq in (check.recv_cq, check.send_cq):
                    found = await self.device.poll_cq(cq)
                    polled[check.number] += len(found)
                    busy |= bool(found)
            while await self.device.get_async_event() is not None:
                self.events_seen += 1
                busy = True
            if any(self.pending_reads) and not any(check.failed for check in self.checks):
                await self._expect_reads()
            if not busy:
                await self.bus.wait_activity(200)
        for check in self.checks:
            if polled[check.number] != check.completions:
                self.problems.append(f"{polled[check.number]} completions were polled, {check.completions} written")
        self._host_done = True

    # Peer

    def _retransmit(self):
        """The peers send again what is not acknowledged, four segments each."""
        for check in self.checks:
            self._send_again(check, 4)

    def _send_again(self, check, segments):
        sender, at = self._senders[check.number], check.acked_offset
        look = sender.look(check.sent)
        while segments and at < check.sent and not check.failed:
            end = min(at + sender.limit, check.sent)
            feed = sender.segment(at, end, look=look, note="retransmitted")
            check.feeding(feed)
            self.wire.send(feed.frame)
            self.retransmitted[check.number] += 1
            at, segments = end, segments - 1

    async def _wait(self, condition, *, patience=None):
        """Until ``condition()`` holds (True). The peers retransmit; after that, or after ``patience`` cycles
        without progress, False."""
        seen, since, tries = self.progress, self.cycle(), 0
        while not condition():
            await self.cycles(32)
            if self.progress != seen:
                seen, since, tries = self.progress, self.cycle(), 0
            elif self.cycle() - since > (patience or RETRANSMIT_AFTER):
                if patience or tries == RETRANSMITS:
                    return False
                tries += 1
                self._retransmit()
                since = self.cycle()
        return True

    async def _settle(self, check):
        """Until the card has answered all that was fed to ``check``, then its share of the fast path."""
        await self._wait(lambda: check.failed or check.acked_offset >= check.sent, patience=3000)
        await self.cycles(100)
        total = await self.bus.read32(abi.COUNTER_PAGE + 4 * _FAST_PATH)
        self.fast_path[check.number] += total - sum(self.fast_path)

    def _may_come(self, feed, check):
        """A real peer could have sent ``feed`` by now: its read was asked for, the window has room."""
        return check.failed or (self.expected_reads[check.number] >= check.plan.reads_needed(feed.end)
                                and feed.end - check.acked_offset <= check.plan.install["rcv_wnd"])

    async def feed(self):
        """All frames, back to back but for what a real peer would wait for; False if the card got stuck."""
        current, separate = None, self.plan.recut is None and len(self.checks) > 1
        for feed in self.plan.feeds:
            check = self.checks[feed.connection]
            if separate and current is not None and current is not check:
                await self._settle(current)  # only to tell whose fast path it was
            current = check
            if feed.closing:
                await self._wait(functools.partial(_ready_to_close, check))  # or long enough: then FIN comes all the same
            elif feed.has_data and not await self._wait(functools.partial(self._may_come, feed, check)):
                return False
            if check.duplicates >= DUPLICATES:
                check.duplicates = 0
                self._send_again(check, 1)
            while len(self.wire.queue) > 1:
                await self.cycles(16)
            check.feeding(feed)
            self.wire.send(feed.frame)
        finished = await self._wait(lambda: all(check.done for check in self.checks))
        await self.cycles(1000)              # for what should not come
        if separate:
            await self._settle(current)
        return finished

    # All of it

    async def carry_out(self):
        """Run the plan; its results, ready for JSON."""
        wall, counters, cycles, begin = time.monotonic(), {}, 0, self.cycle()
        self._host_done = True
        try:
            await self.start(events=64, tick=TICK, delack=1)
            await self.prepare()
            self._host_done = False
            cocotb.start_soon(self._host())
            for check in self.checks:
                for from_peer, frame in check.plan.prelude:
                    self.tap.write(0 if from_peer else 1, PERIOD_NS * self.cycle(), frame, "as captured: before the hand-over")
            first = self.cycle()
            try:
                finished = await self.feed()
                if not finished:
                    self.problems.append("the card got stuck: see what did not come")
            finally:
                self._over = True
                while not self._host_done:
                    await self.cycles(100)
            cycles = max(self.last_progress - first, 0)
            counters = await self.device.counters()
            self.samples = {name: frame.hex() for name, frame in (await self.device.samples()).items()}
            await self._teardown()
            self.clean = True
        except (AdminError, CardError, BusTimeout, ValueError, OSError) as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        except Exception:
            self.problems.append(traceback.format_exc())
        results = self._results(counters, cycles, (self.cycle() - begin) / max(time.monotonic() - wall, 1e-6))
        await self.stop()
        self.bus.ledger.dump(self.folder / "ledger.json", name=self.plan.name, role=self.plan.role)
        (self.folder / "bus.log").write_text("".join(line + "\n" for line in self.bus.log))
        (self.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        return results

    async def _teardown(self):
        """Upload and compare each context, then take everything back."""
        for check in self.checks:
            upload = await self.device.upload(check.qp)
            self.histories[check.number] = upload["history"]
            sends = len(check.plan.receives)
            requests = sum(event.type == abi.EventType.READ_REQUEST for event in check.plan.expected(Event))
            state = QpState.ERROR if check.plan.reset else QpState.CLOSING if check.plan.fin else QpState.RTS
            want = {"state": QpState.ERROR} if check.plan.fails else {
                "state": state, "rcv_nxt": check.plan.last_ack, "recv_msn": 1 + sends,
                "recv_read_msn": 1 + requests, "rq_consumed": sends, "snd_nxt": check.plan.install["snd_nxt"],
                "reason": check.plan.ends[-1] if check.plan.ends else 0}
            for name, value in want.items():
                if upload[name] != value:
                    check.problem(f"uploaded {name} is {upload[name]:#x}, not {value:#x}")
            await self.device.destroy_qp(check.qp)
        for region in self._mrs:
            await self.device.dereg_mr(region)
        for check in self.checks:
            await self.device.destroy_cq(check.recv_cq)
            await self.device.destroy_cq(check.send_cq)

    def _results(self, counters, cycles, speed):
        ledger, rows = self.bus.ledger, []
        for region, spans in getattr(self, "_spans", {}).items():
            wrong = untouched(region.buffer, spans)
            if wrong:
                self.problems.append(f"{wrong} bytes between receive buffers were written")
        self.problems += [f"outside of any buffer ({label}): {address:#x}"
                          for address, label in self.memory.check_canaries()[:10]]
        self.problems += self.bus.problems + self.monitor.decoder.problems
        self.problems += [f"counter {name} is {counters[name]}" for name in FORBIDDEN if counters.get(name)]
        good = counters and not any(check.plan.fails for check in self.checks)
        if good:
            ends = Counter(f"err_{reason.name.lower()}" for check in self.checks for reason in check.plan.ends)
            self.problems += [f"counter {name} is {value}, not {ends[name]}" for name, value in counters.items()
                              if name.startswith("err_") and value != ends[name]]
            fpdus = sum(check.plan.fpdus for check in self.checks)
            if counters["rx_fpdus"] != fpdus:
                self.problems.append(f"counter rx_fpdus is {counters['rx_fpdus']}, not {fpdus}")
        if len(self.checks) == 1 and counters:
            self.fast_path = [counters["rx_fast_path"]]
        per_connection = self.plan.recut is None or len(self.checks) == 1
        for check in self.checks:
            plan, n = check.plan, check.number
            # Without a QP nothing was placed: all of it is missing.
            wrong = check.finish() if check.qpn is not None else sum(map(plan.placed, ("write", "send", "read")))
            placed = {kind: ledger.bytes("write", f"payload.{kind}.{n}") for kind in ("write", "send", "read")}
            both = any(r.access & Access.REMOTE_WRITE and r.access & Access.LOCAL_WRITE for r in plan.regions)
            if both:                         # one region is both a Write's target and a Read's sink
                placed["write"] -= plan.placed("read")
                placed["read"] += plan.placed("read")
            for kind, what in (("write", "Writes"), ("send", "Sends"), ("read", "Read Responses")):
                if placed[kind] != plan.placed(kind):
                    check.problem(f"{placed[kind]} bytes of {what} were placed, {plan.placed(kind)} are in the capture")
            feeds = [feed for feed in self.plan.feeds if feed.connection == n]
            rows.append({
                "connection": plan.name, "role": self.plan.role, "capture": self.plan.name, "recut": self.plan.recut,
                "frames": len(feeds), "segments": sum(feed.has_data for feed in feeds), "fpdus": plan.fpdus,
                "fast_path_segments": self.fast_path[n] if per_connection else None,
                "placed_bytes": placed["write"], "send_bytes": placed["send"], "read_response_bytes": placed["read"],
                "mismatched_bytes": wrong, "completions": check.completions, "events": check.events,
                "crc_errors": check.crc_errors, "acks_sent": check.acks,
                "retransmitted_segments": self.retransmitted[n], "counters": counters, "bus": ledger.as_dict(),
                "history": self.histories.get(n, []), "samples": self.samples, "cycles": cycles,
                "cycles_per_second": round(speed),
                "ok": not check.problems and not self.problems, "problems": check.problems + self.problems})
        return rows


def _ready_to_close(check):
    return check.ready_to_close


_FAST_PATH = [counter.name for counter in abi.COUNTERS].index("rx_fast_path")


@cocotb.test()
async def replay(dut):
    """Every plan of the job."""
    with open(os.environ["EMPLACE_REPLAY"], "rb") as file:
        job = pickle.load(file)
    for plan, folder in zip(job.plans, job.folders):
        run = PlanRun(dut, job.config, plan, folder, log=job.log)
        await run.carry_out()
        if not run.clean:                    # what it left in the card's tables would be held against the next plan
            break
