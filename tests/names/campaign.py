"""A singleton under drawn faults.

    aspen sim run tests.names.campaign:singletons --seeds 100
    aspen sim run 'tests.names.campaign:singletons?bug=no_fence'

Clocks are off by at most LEASE_DRIFT. Planted bugs, by the option `bug`, are in `bugs`.

The actor works slowly, so that it is often in the middle of something when its node is cut off, suspended or stopped.
The judge holds: nobody begins or goes on with anything after a later holder has started; what holders write to the
store is in the order of their tokens; what was sent to one token is handled by that; a name is given up by the dead
alone; and when everything is healed, one runs and the others stand by. In a third of the runs holders pay no heed to
any clock: then they overlap, and what they write must not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import aspen.sim
from aspen import Actor, Child, call, child, whereis
from aspen.actor import process_of, system_of_loop
from aspen.errors import AspenError
from aspen.kv import put
from aspen.kv.inside import kv_of
from aspen.kv.types import Keyspace
from aspen.limits import LEASE_DRIFT
from aspen.names import ClusterName, Held, Holder, Singleton, held, lines, locate, singleton
from aspen.sim import Phases, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES
from tests.names.rig import Named

FAULTS = tuple(name for name in FAULT_CLASSES if name not in ("disk", "clocks"))
"""As in `tests.kv.recipe_campaign`."""
DRIFT_PPB = round(LEASE_DRIFT * 1e9)
SECOND_NS = 1_000_000_000
PHASES = Phases(20 * SECOND_NS, 10 * SECOND_NS, 20 * SECOND_NS)
TTL_S = 2
NAME = "global:office"
TOP = "top"


@dataclass
class Incarnation:
    node: Any
    boot: int
    process: Any
    held: Held

    @property
    def is_sure(self) -> bool:
        """Whether it lives, and its lease runs as far as it knows, given up or not."""
        return self.node.is_up and self.node.boot == self.boot and self.process.alive and self.held.lease.is_valid


class Judge:
    """What the actors do."""

    def __init__(self) -> None:
        self.sim: Any = None
        self.latest = 0
        self.started = 0
        self.handled = 0
        self.wrong: list[str] = []
        self.living: list[Incarnation] = []

    def begins(self, actor: Office) -> None:
        mine = held(actor.ctx)
        if mine.token <= self.latest:
            self.wrong.append(f"token {mine.token} comes after {self.latest}")
        self.latest = max(self.latest, mine.token)
        self.started += 1
        node = self.sim.node(actor.ctx.pid.node)
        self.living = [one for one in self.living if one.is_sure]
        self.living.append(Incarnation(node, node.boot, process_of(actor.ctx.ref), mine))

    def acts(self, actor: Office, what: str) -> int:
        token = held(actor.ctx).token
        self.handled += 1
        if token < self.latest:
            self.wrong.append(f"{what} under token {token}, when {self.latest} has started")
        return token

    def look(self) -> str | None:
        if self.wrong:
            return self.wrong[0]
        sure = [one.held.token for one in self.living if one.is_sure]
        return f"tokens {sure} are held at once" if len(sure) > 1 else None


class Office(Actor):
    """Works slowly, and minds nothing: the checks are not its own."""

    trap_exit = True

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        judge.begins(self)

    async def init(self) -> None:
        await self._write(b"starts")

    async def terminate(self, reason: object) -> None:
        await asyncio.sleep(0.5)

    async def _write(self, what: bytes) -> None:
        token = held(self.ctx).token
        await self.ctx.kv.put(b"office", b"%d %s" % (token, what))

    @call(timeout=20.0)
    def ask(self) -> int:
        return self._judge.acts(self, "a message is handled")

    @call(timeout=20.0)
    async def note(self) -> None:
        self._judge.acts(self, "a note is taken")
        await self._write(b"notes")

    @call(timeout=20.0)
    async def work(self, pause_s: float) -> int:
        token = self._judge.acts(self, "work begins")
        kv = self.ctx.kv
        there = await kv.get(b"number")
        number = int(there.value) if there is not None else 0
        await asyncio.sleep(pause_s)
        self._judge.acts(self, "work goes on")
        await kv.txn().then(put(b"number", b"%d" % (number + 1)), put(b"by/%d/%d" % (token, number))).commit()
        await self._write(b"works")
        return token


async def restart() -> None:
    """Has the singleton of this node begin anew, as an operator would."""
    if system_of_loop().whereis(TOP) is not None:
        await whereis(Singleton, TOP).restart_subtree("office")


async def pinned(sim: Simulation, node: str, rng: Any) -> None:
    """Asks one holder, after a while in which it may have begun anew."""
    again, pause_s = rng.randrange(3) > 0, rng.random() * 2

    async def find() -> Holder:
        return await locate(NAME)

    async def ask(holder: Holder) -> int:
        ref = holder.ref
        await asyncio.sleep(pause_s)
        return await ref.ask()

    holder = await sim.call(node, find)
    asked = asyncio.ensure_future(sim.call(node, ask, holder))
    if again:
        await sim.call(holder.node, restart)
    answered = await asked
    sim.check(answered == holder.token, "name.epoch", f"what was for token {holder.token} was handled under {answered}")


async def suspend(sim: Simulation, judge: Judge, rng: Any) -> None:
    """Stops the holder's process in the middle of something for so long that another takes over; perhaps its node is
    cut off before, so that what it writes is on its way."""
    sure = [one.node.name for one in judge.living if one.is_sure]
    if not sure:
        return
    node, others = sure[-1], [other for other in sim.nodes if other != sure[-1]]
    heal = sim.partition([node], others) if rng.randrange(2) else None

    async def ask(what: str, *args: Any) -> None:
        await getattr(whereis(Office, NAME), what)(*args)

    asked = [
        asyncio.ensure_future(sim.call(node, ask, what, *args))
        for what, *args in (("note",), ("work", 1.0), ("ask",), ("note",))[rng.randrange(2) :]
    ]
    await sim.sleep(rng.random() * 0.4)
    sim.pause(node)
    await sim.sleep(TTL_S + 1 + rng.random() * 4)
    sim.unpause(node)
    if heal is not None:
        heal()
    await asyncio.gather(*asked, return_exceptions=True)


async def once(sim: Simulation, judge: Judge, node: str, rng: Any) -> None:
    """Something that somebody wants of it, or does to it."""
    what = rng.choice(("ask", "ask", "work", "work", "work", "pinned", "pinned", "restart", "suspend"))
    pause_s = rng.random() * 2

    async def ask(what: str, *args: Any) -> None:
        await getattr(whereis(Office, NAME), what)(*args)

    try:
        if what == "suspend":
            await suspend(sim, judge, rng)
        elif what == "pinned":
            await pinned(sim, node, rng)
        elif what == "restart":
            await sim.call(node, restart)
        else:
            await sim.call(node, ask, what, *((pause_s,) if what == "work" else ()))
        sim.branch(f"office.{what}")
    except (AspenError, TimeoutError) as error:
        sim.branch(f"office.{type(error).__name__}")


def runs(judge: Judge, nodes: Iterable[str]) -> Any:
    """What a node runs beside the store: the singleton on some nodes."""
    some = tuple(nodes)

    def apps(node: str) -> tuple[Child[Any], ...]:
        name = ClusterName("office", ttl=TTL_S)
        spec = singleton(child(Office, judge).opts(name=name, shutdown=2.0)).opts(name=TOP)
        return (spec,) if node in some else ()

    return apps


def check_order(sim: Simulation, named: Named) -> None:
    """What holders wrote is in the order of their tokens."""
    machine = named.member(sim.core[0]).machine
    start, latest = 2, 0
    while found := machine.events(Keyspace.USER, start):
        for revision, events in found:
            for event in events:
                if event.kv.key == b"office":
                    token = int(event.kv.value.split()[0])
                    sim.check(token >= latest, "name.fenced", f"token {token} wrote after {latest}, at {revision}")
                    latest = token
        start = found[-1][0] + 1


@aspen.sim.test(
    nodes=3,
    seeds=2,
    faults=FAULTS,
    amounts={"clock.drift": DRIFT_PPB},
    options={"bug": ""},
    phases=PHASES,
    workload=Workload(6, 60, 3),
    steps_max=4_000_000,
)
async def singletons(sim: Simulation) -> None:
    from tests.names.bugs import planted

    heed = sim.rng("heed").randrange(3) > 0
    with planted(sim.options.get("bug", ""), heed):
        await judged(sim, heed)


async def judged(sim: Simulation, heed: bool) -> None:
    judge = Judge()
    judge.sim = sim
    where = sim.nodes[: 1 + sim.rng("standbys").randrange(len(sim.nodes))]
    named = Named(sim.cluster, apps=runs(judge, where))
    if heed:
        sim.watch(judge.look, invariant="name.exclusive")
    await sim.start(named.main)

    async def client(client: str, number: int, rng: Any) -> None:
        await sim.sleep(rng.random() * 2)
        if sim.cluster.loop.time() * SECOND_NS < PHASES.safety_ns:
            await once(sim, judge, rng.choice(sim.nodes), rng)

    await sim.clients(client)
    await sim.healed()

    if heed:
        await in_order(sim, where)

    async def numbers() -> tuple[int, int]:
        kv = kv_of(system_of_loop())
        there = await kv.get(b"number")
        return int(there.value) if there is not None else 0, (await kv.range(prefix=b"by/", count_only=True)).count

    number, changed = await sim.call(sim.core[0], numbers)
    sim.check(number == changed, "name.fenced", f"{changed} pieces of work have added {number}")
    check_order(sim, named)
    sim.note(f"{judge.started} holders, {judge.handled} messages, {number} pieces of work")


async def in_order(sim: Simulation, where: Iterable[str]) -> None:
    """When everything is healed, one runs and is found from everywhere, and the others stand by."""

    async def ask() -> int:
        return await whereis(Office, NAME).ask()

    async def line() -> dict[str, Any]:
        return await lines(kv_of(system_of_loop()))

    for node in sim.core:
        await sim.call(node, ask)
    found = await sim.call(sim.core[0], line)
    nodes = sorted(holder.node for holder in found["office"])
    sim.check(nodes == sorted(where), "name.line", f"{nodes} stand in line, and {where} run it")
