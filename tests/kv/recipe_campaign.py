"""Locks, offices and queues under drawn faults.

    aspen sim run tests.kv.recipe_campaign:locks --seeds 100
    aspen sim run tests.kv.recipe_campaign:queues --seeds 100
    aspen sim run 'tests.kv.recipe_campaign:locks?bug=no_fencing'

Clocks are off by at most LEASE_DRIFT. Planted bugs, by the option `bug`, are in `recipe_bugs`.

What is protected by the lock is checked twice: `Protected` stands outside of the store and looks at tokens, and a
number in the store is changed by transactions with the condition of the lock. Holders pay no heed to the loss of the
lock, as one does that is suspended: what they do then must have no effect.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aspen.sim
from aspen.actor import system_of_loop
from aspen.errors import AspenError, ClaimLost
from aspen.kv import Kv, put
from aspen.kv.inside import kv_of
from aspen.kv.recipes import Held
from aspen.kv.recipes.keys import base, span_of
from aspen.kv.types import Keyspace
from aspen.limits import LEASE_DRIFT
from aspen.sim import Phases, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES
from tests.kv.stores import Stores

FAULTS = tuple(name for name in FAULT_CLASSES if name not in ("disk", "clocks"))
"""Without `disk`: members whose disks are lost are put in by an operator, of which there is none here. Without
`clocks`: their rates would be further off than is permitted; `drift` episodes are bounded below."""
DRIFT_PPB = round(LEASE_DRIFT * 1e9)
SECOND_NS = 1_000_000_000
PHASES = Phases(15 * SECOND_NS, 10 * SECOND_NS, 30 * SECOND_NS)
TTL_S = 2
HANDOVER_S = 10.0
"""After everything is healed: in which a lock goes through all hands, generous."""


class Protected:
    """A resource outside of the store: what is read and written back by one holder, nobody else has written between."""

    def __init__(self) -> None:
        self.token = 0
        self.number = 0
        self.lost = 0

    def admit(self, token: int) -> bool:
        """Whether somebody with that token may; from then on nobody with a smaller one."""
        if token < self.token:
            return False
        self.token = token
        return True

    def read(self, token: int) -> int | None:
        return self.number if self.admit(token) else None

    def write(self, token: int, read: int) -> None:
        """Adds one to what was read."""
        if self.admit(token):
            self.lost += self.number != read
            self.number = read + 1


@dataclass
class Holder:
    node: Any
    boot: int
    held: Held

    @property
    def is_sure(self) -> bool:
        """Whether somebody lives who is sure to hold it."""
        return self.node.is_up and self.node.boot == self.boot and self.held.is_held


class Judge:
    """Who holds the lock, as the holders see it."""

    def __init__(self) -> None:
        self.protected = Protected()
        self.holders: list[Holder] = []
        self.granted = 0
        self.count = 0
        self.added = 0
        self.leaders: dict[int, bytes] = {}

    def grant(self, sim: Simulation, node: Any, held: Held) -> None:
        sim.check(held.token > self.granted, "lock.order", f"token {held.token} comes after {self.granted}")
        self.granted = held.token
        self.count += 1
        self.holders = [holder for holder in self.holders if holder.is_sure]
        self.holders.append(Holder(node, node.boot, held))

    def look(self) -> str | None:
        sure = [holder for holder in self.holders if holder.is_sure]
        if len(sure) > 1:
            return f"tokens {[holder.held.token for holder in sure]} are held at once"
        return None


async def hold(sim: Simulation, judge: Judge, node: str, rng: Any, timeout: float) -> None:
    """Takes the lock, changes what it protects, and gives it up, or forgets to."""
    pause_s, forgets = rng.random() * 3, rng.randrange(4) == 0

    async def work() -> None:
        kv = kv_of(system_of_loop())
        held = await kv.lock("x", ttl=TTL_S, timeout=timeout, who=node, cancel=False).acquire()
        judge.grant(sim, sim.node(node), held)
        read = judge.protected.read(held.token)
        there = await kv.get(b"number")
        number = int(there.value) if there is not None else 0
        await asyncio.sleep(pause_s / 2)
        if forgets:
            kv._keeping.drop(held.lease)
            sim.branch("lock.abandoned")
            await asyncio.sleep(TTL_S + 1)
        await asyncio.sleep(pause_s / 2)
        if read is not None:
            judge.protected.write(held.token, read)
        done = await held.txn().then(put(b"number", b"%d" % (number + 1)), put(b"by/%d" % held.token)).commit()
        sim.branch("lock.changed" if done.succeeded else "lock.refused")
        await held.release()

    try:
        await sim.call(node, work)
    except (AspenError, TimeoutError) as error:
        sim.branch(f"lock.{type(error).__name__}")


@aspen.sim.test(
    nodes=3,
    seeds=2,
    faults=FAULTS,
    amounts={"clock.drift": DRIFT_PPB},
    options={"bug": ""},
    phases=PHASES,
    workload=Workload(6, 30, 3),
    steps_max=4_000_000,
)
async def locks(sim: Simulation) -> None:
    from tests.kv.recipe_bugs import planted

    with planted(sim.options.get("bug", "")):
        await locked(sim)


async def locked(sim: Simulation) -> None:
    judge = Judge()
    stores = Stores(sim.cluster, sim.nodes)
    sim.watch(judge.look, invariant="lock.exclusive")
    await sim.start(stores.main)

    async def once(client: str, number: int, rng: Any) -> None:
        # One lock, and each holder keeps it for seconds: they end in time for what is asked of the healed cluster.
        if sim.cluster.loop.time() * SECOND_NS < PHASES.safety_ns + PHASES.settle_ns:
            await hold(sim, judge, rng.choice(sim.nodes), rng, 8.0)

    await sim.clients(once)
    await sim.healed()

    async def pass_on(kv: Kv, name: str, pauses: list[float]) -> None:
        """The lock, in a healthy cluster, from hand to hand: each comes when another is about to go."""
        for pause_s in pauses:
            async with kv.lock("x", ttl=10, timeout=HANDOVER_S * 3, who=name):
                await asyncio.sleep(pause_s)

    started = sim.cluster.loop.time()
    drawn = sim.rng("hands")
    hands = []
    for node in (sim.core * 3)[:3]:
        pauses = [drawn.random() * 0.02 for _ in range(10)]
        passing = sim.call(node, lambda n=node, p=pauses: pass_on(kv_of(system_of_loop()), n, p))
        hands.append(asyncio.ensure_future(passing))
    done, late = await asyncio.wait(hands, timeout=HANDOVER_S)
    took = sim.cluster.loop.time() - started
    sim.check(not late, "lock.progress", f"{len(late)} of {len(hands)} wait still for the lock after {took:.1f} s")
    for hand in done:
        error = hand.exception()
        sim.check(error is None, "lock.progress", f"the lock was not to be had in a healthy cluster: {error!r}")
    sim.check(judge.protected.lost == 0, "lock.fenced", f"{judge.protected.lost} changes of the resource were lost")

    async def numbers() -> tuple[int, int]:
        kv = kv_of(system_of_loop())
        there = await kv.get(b"number")
        changed = await kv.range(prefix=b"by/", count_only=True)
        return int(there.value) if there is not None else 0, changed.count

    number, changed = await sim.call(sim.core[0], numbers)
    sim.check(number == changed, "lock.condition", f"{changed} transactions have added {number}")
    sim.note(f"{judge.count} times held, {judge.protected.number} changes outside, {changed} in the store")


# -- queues ----------------------------------------------------------------------------------------------------


class Ledger:
    """What was put in and what came out."""

    def __init__(self) -> None:
        self.pushed: set[bytes] = set()
        self.tried: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.delivered: list[tuple[int, Any, bytes]] = []
        """(token, id, body)."""


async def produce(sim: Simulation, ledger: Ledger, node: str, name: bytes) -> None:
    async def work() -> None:
        kv = kv_of(system_of_loop())
        bodies = [name + b"/%d" % number for number in range(2)]
        ledger.tried.update(bodies)
        await kv.queue("q", visibility=3, tries=0, ordered=bool(sim.options.get("ordered"))).push(*bodies)
        ledger.pushed.update(bodies)

    try:
        await sim.call(node, work)
    except (AspenError, TimeoutError):
        sim.branch("queue.push.failed")


async def consume(sim: Simulation, ledger: Ledger, node: str, rng: Any, wait: float) -> bool:
    pause_s, end = rng.random() * 2, rng.randrange(4)

    async def work() -> bool:
        kv = kv_of(system_of_loop())
        taken = await kv.queue("q", visibility=3, tries=0, ordered=bool(sim.options.get("ordered"))).take(2, wait=wait)
        ledger.delivered += [(item.token, item.id, item.body) for item in taken]
        for item in taken:
            await asyncio.sleep(pause_s)
            if end == 0:
                sim.branch("queue.forgotten")
            elif end == 1:
                await item.give_back()
                sim.branch("queue.given_back")
            else:
                # What has been worked on is done, whether the queue learns of it or not.
                ledger.acked.add(item.body)
                await item.ack()
                sim.branch("queue.acked")
        return bool(taken)

    try:
        return bool(await sim.call(node, work))
    except ClaimLost:
        sim.branch("queue.late")
    except (AspenError, TimeoutError):
        sim.branch("queue.failed")
    return True


def check_claims(sim: Simulation, stores: Stores) -> None:
    """Nobody takes what somebody has: a claim is made where none is, and ends before the next."""
    machine = stores.member(sim.core[0]).machine
    start, claims = 2, span_of(base("queue", "q"), "claim")
    while found := machine.events(Keyspace.USER, start):
        for revision, events in found:
            for event in events:
                if claims[0] <= event.kv.key < claims[1] and not event.is_delete:
                    sim.check(event.kv.version == 1, "queue.claim", f"a claim was claimed at revision {revision}")
        start = found[-1][0] + 1


@aspen.sim.test(
    nodes=3,
    seeds=2,
    faults=FAULTS,
    amounts={"clock.drift": DRIFT_PPB},
    options={"bug": "", "ordered": ""},
    phases=PHASES,
    workload=Workload(6, 40, 3),
    steps_max=4_000_000,
)
async def queues(sim: Simulation) -> None:
    from tests.kv.recipe_bugs import planted

    with planted(sim.options.get("bug", "")):
        await queued(sim)


async def queued(sim: Simulation) -> None:
    ledger = Ledger()
    stores = Stores(sim.cluster, sim.nodes)
    await sim.start(stores.main)

    async def once(client: str, number: int, rng: Any) -> None:
        node = rng.choice(sim.nodes)
        if rng.randrange(2):
            await produce(sim, ledger, node, b"%s/%d" % (client.encode(), number))
        else:
            await consume(sim, ledger, node, rng, 2.0)

    await sim.clients(once)
    await sim.healed()

    async def drain() -> int:
        """Takes all that is left, and says how much is left then."""
        kv = kv_of(system_of_loop())
        queue = kv.queue("q", visibility=3, tries=0, ordered=bool(sim.options.get("ordered")))
        while taken := await queue.take(8, wait=6.0):
            for item in taken:
                ledger.delivered.append((item.token, item.id, item.body))
                ledger.acked.add(item.body)
                await item.ack()
        return await queue.size()

    left = await sim.call(sim.core[0], drain)
    sim.check(left == 0, "queue.empty", f"{left} items are in the queue, and nobody gets them")
    lost = ledger.pushed - ledger.acked
    sim.check(not lost, "queue.lost", f"put in and never done: {sorted(lost)[:4]}")
    made = {body for _, _, body in ledger.delivered} - ledger.tried
    sim.check(not made, "queue.made_up", f"delivered and never put in: {sorted(made)[:4]}")
    check_claims(sim, stores)
    if sim.options.get("ordered"):
        ids = [id for _, id, _ in sorted(ledger.delivered, key=lambda one: one[0])]
        sim.check(ids == sorted(ids), "queue.order", "items came out of order")
    sim.note(f"{len(ledger.pushed)} put in, {len(ledger.delivered)} deliveries")
