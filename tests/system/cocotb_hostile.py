"""Peers that break every rule: nobody else notices. Runs inside the simulator.

EMPLACE_FRAMES: how many; EMPLACE_SEED: of what. Each test has as many.
"""

import os
import random
from collections import Counter

import cocotb

from emplace.abi import Access, EventType
from emplace.config import PROFILES
from emplace_sim import sender
from emplace_sim.bystander import Bystander, wire_octets
from emplace_sim.mangle import mangled
from emplace_sim.system import Bench

CONFIG = PROFILES[os.environ.get("EMPLACE_PROFILE", "default")]
FRAMES = int(os.environ.get("EMPLACE_FRAMES", "600"))
SEED = int(os.environ.get("EMPLACE_SEED", "1"))
BATCH = 10


@cocotb.test()
async def mutated_frames(dut):
    """After every batch of spoiled frames the bystander's next Write lands within 2,000 cycles, whole, and
    what the attacker may not write to is as it was."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    b = await Bench(dut, CONFIG, seed=SEED).start(events=1024)
    friend = await b.connect()
    home = await b.region(friend, 8192)
    image = bytearray(home.buffer.read())
    kinds = Counter()
    for batch in range(FRAMES // BATCH):
        foe = await b.connect(seq=rng.getrandbits(32), cq=friend.cq)
        prey = await b.region(foe, 4096, Access.REMOTE_WRITE | Access.LOCAL_WRITE)
        readonly = await b.region(foe, 4096, Access.REMOTE_READ)
        await b.device.post_recv(foe.qp, [[prey.sge(0, 256)]] * 4)
        for _ in range(BATCH):
            target = prey if rng.random() < 0.8 else readonly
            kind, frame = mangled(rng, foe.flow, target.rkey, target.base, 4096)
            kinds[kind] += 1
            b.put(frame)
        data = rng.randbytes(rng.choice([8, 64, 500, 1400]))
        at = rng.randrange(8192 - len(data))
        image[at:at + len(data)] = data
        sent = []
        b.wire.sent, before = (lambda frame, time_ns, sent=sent: sent.append(b.cycle())), b.wire.sent
        friend.send(friend.fpdu(sender.write(home.rkey, home.base + at, data)))
        assert await friend.acknowledged(8000), f"batch {batch}: the bystander's Write is not acknowledged"
        took = b.cycle() - sent[-1]
        assert took < 2000, f"batch {batch}: {took} cycles"
        b.wire.sent = before
        await b.device.fence()
        assert home.buffer.read() == bytes(image), f"batch {batch}"
        assert readonly.buffer.read() == bytes([0xCC]) * 4096, f"batch {batch}"
        while (event := await b.device.get_async_event()) is not None:
            assert event["qpn"] != friend.qp.number and event["type"] != EventType.CQ_ERROR, event
        await b.device.poll_cq(friend.cq, 64)
        b.check()
        await b.device.destroy_qp(foe.qp)
        for region in (prey, readonly):
            await b.device.dereg_mr(region)
            b.memory.free(region.buffer)
    print(dict(kinds))
    assert sum(kinds.values()) == FRAMES // BATCH * BATCH
    b.check()
    await b.stop()


#: `tiny` is a card for Gigabit Ethernet.
PACE = 0.1 if CONFIG.name == "tiny" else 1.0
FOES = 6


@cocotb.test()
@cocotb.parametrize(share=[0.1, 0.5])
async def a_bystander_keeps_its_rate(dut, share):
    """Of the wire, ``share`` is hostile: what is left, the bystander uses to 95 % and more, measured in cycles. Foes
    that have lost their connection go on, and are given a new one now and then."""
    rng = random.Random(f"{SEED} {share}")
    b = await Bench(dut, CONFIG, seed=SEED, log=False).start(events=1024)
    friend = await b.connect(max_recv_wr=0)
    by = Bystander(b, friend, await b.region(friend, 1 << 16), share=share, pace=PACE, seed=SEED)
    pd, cq, foes = b.device.alloc_pd(), await b.device.create_cq(256), []
    prey = await b.device.reg_mr(pd, 4096, Access.REMOTE_WRITE | Access.LOCAL_WRITE)
    readonly = await b.device.reg_mr(pd, 4096, Access.REMOTE_READ)

    async def foe():
        made = await b.connect(pd=pd, cq=cq, seq=rng.getrandbits(32))
        await b.device.post_recv(made.qp, [[prey.sge(0, 256)]] * 4)
        return made
    for _ in range(FOES):
        foes.append(await foe())
    by.mark()
    sent, octets, count = 0, 0, FRAMES
    while sent < count:
        while len(by.hostile) < 80 and sent < count:
            target = prey if rng.random() < 0.8 else readonly
            _, frame = mangled(rng, rng.choice(foes).flow, target.rkey, target.base, 4096)
            by.put(frame)
            sent, octets = sent + 1, octets + wire_octets(frame)
        dead = set()
        while (event := await b.device.get_async_event()) is not None:
            assert event["qpn"] != friend.qp.number and event["type"] != EventType.CQ_ERROR, event
            dead.add(event["qpn"])
        await b.device.poll_cq(cq, 64)
        for n, old in enumerate(foes):
            if old.qp.number in dead and rng.random() < 0.7:
                await b.device.destroy_qp(old.qp)
                foes[n] = await foe()
        await b.cycles(300)
    assert await b.until(lambda: not by.hostile, 400_000)
    cycles = b.cycle() - by.start
    fair = by.fairness()
    print(f"{count} hostile frames, {octets / 8 / cycles / PACE:.2f} of the wire; the bystander: {fair:.3f} of the rest, "
          f"{by.again} frames sent again")
    assert fair >= 0.95, fair
    assert await by.finish(), "the bystander's data"
    assert readonly.buffer.read() == bytes([0xCC]) * 4096
    b.check()
    await b.stop()
