"""Leases under drawn faults: never ended early, ended in time, each one's keys at one revision.

    aspen sim run tests.kv.lease_campaign:leases --seeds 100
    aspen sim run 'tests.kv.lease_campaign:leases?bug=no_extension'

Holders count on their own clocks, whose rates are off by at most LEASE_DRIFT. While a holder says that its lease is
valid, no member may have applied its end. Planted bugs, by the option `bug`, are in `lease_bugs`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aspen.sim
from aspen.actor import system_of_loop
from aspen.errors import AspenError
from aspen.kv import Kv
from aspen.kv.holding import Lease
from aspen.kv.inside import kv_of
from aspen.kv.integrity import hash_leases
from aspen.kv.types import Keyspace
from aspen.limits import LEASE_DRIFT
from aspen.sim import Phases, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES
from tests.kv.lease_bugs import planted
from tests.kv.rig import ALL
from tests.kv.stores import Stores

FAULTS = tuple(name for name in FAULT_CLASSES if name not in ("disk", "clocks"))
"""Without `disk`: members whose disks are lost are put in by an operator, of which there is none here. Without
`clocks`: their rates would be further off than is permitted; `drift` episodes are bounded below."""
DRIFT_PPB = round(LEASE_DRIFT * 1e9)
TTLS = (2, 3, 4, 6)
CHECKPOINT_S = 1.0
KEYS = 3
END_S = max(TTLS) * (1 + 2 * LEASE_DRIFT) + 3.0
"""After everything is healed: until an abandoned lease has ended, with an election and some ticks."""
SECOND_NS = 1_000_000_000


@dataclass
class Held:
    node: Any
    boot: int
    lease: Lease

    @property
    def is_valid(self) -> bool:
        """Whether somebody lives who takes the lease for valid."""
        return self.node.is_up and self.node.boot == self.boot and self.lease.is_valid


class Watched:
    """What the members say of leases, against what the holders say."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.held: dict[int, Held] = {}
        self.known: set[int] = set()
        self.applied = 0
        self.ended = 0

    def look(self) -> str | None:
        for name in self.stores.cluster.nodes:
            machine = machine_of(self.stores, name)
            if machine is None or machine.applied[0] <= self.applied:
                continue
            self.applied = machine.applied[0]
            leases = machine.leases.all()
            self.known.update(leases)
            for id in [id for id in self.held if id not in leases and id in self.known]:
                held = self.held.pop(id)
                self.ended += 1
                if held.is_valid:
                    left_s = held.lease.valid_until - held.lease.now
                    return f"{name} has ended lease {id} (TTL {held.lease.ttl} s) {left_s:.3f} s early"
        return None


def machine_of(stores: Stores, name: str) -> Any:
    member = stores.member(name)
    keeper = getattr(member, "_keeper", None)
    return getattr(keeper, "machine", None)


async def attach(kv: Kv, lease: int, number: int) -> None:
    for place in range(KEYS):
        await kv.put(b"%d/%d" % (number, place), b"", lease=lease)


async def hold(watched: Watched, sim: Simulation, node: str, number: int, rng: Any) -> None:
    """Takes a lease, holds it for a while, and gives it up in one way or another."""
    ttl, held_s, end = rng.choice(TTLS), rng.random() * 3, rng.randrange(3)

    async def work() -> None:
        kv = kv_of(system_of_loop())
        lease = await kv.lease(ttl)
        machine = sim.node(node)
        watched.held[lease.id] = Held(machine, machine.boot, lease)
        # The keys come first: a lease that has ended has all of them, or is refused.
        await attach(kv, lease.id, number)
        await kv.put(b"kept/%d" % number, b"", lease=lease.id)
        await kv.put(b"kept/%d" % number, b"mine")
        sim.branch("lease.attached")
        if end == 0:
            kv._keeping.drop(lease)  # Nobody keeps it alive any more.
            await asyncio.sleep(held_s)
            if watched.held.get(lease.id) is not None:
                asked_ns = kv._keeping.now_ns()
                lease.renewed(await kv.keep_alive(lease.id), asked_ns)
                sim.branch("lease.kept_alive_once")
            return
        await asyncio.sleep(held_s)
        if lease.is_lost:
            sim.branch("lease.lost")
        if end == 1:
            watched.held.pop(lease.id, None)
            await lease.revoke()
            sim.branch("lease.revoked")
        else:
            kv._keeping.drop(lease)
            sim.branch("lease.abandoned")

    try:
        await sim.call(node, work)
    except (AspenError, TimeoutError):
        sim.branch("lease.failed")


def check_revisions(sim: Simulation, machine: Any) -> None:
    """The keys of a lease go at one revision, and what was put again without it stays."""
    gone: dict[bytes, set[int]] = {}
    start = 2
    while found := machine.events(Keyspace.USER, start, prev_kv=True):
        for revision, events in found:
            for event in events:
                owner = event.kv.key.partition(b"/")[0]
                if event.is_delete:
                    if owner == b"kept":
                        mine = event.prev_kv is not None and event.prev_kv.value == b"mine"
                        sim.check(not mine, "lease.detached", f"{event.kv.key!r} was deleted with its old lease")
                        continue
                    gone.setdefault(owner, set()).add(revision)
        start = found[-1][0] + 1
    for owner, revisions in gone.items():
        sim.check(len(revisions) == 1, "lease.one_revision", f"the keys of {owner!r} went at {sorted(revisions)}")


def check_attached(sim: Simulation, machine: Any) -> None:
    named = {(kv.lease, kv.key) for kv in machine.range(ALL).kvs if kv.lease}
    kept = {(id, key) for id in machine.leases.all() for key in machine.leases.keys(id)}
    sim.check(named == kept, "lease.keys", f"keys and leases differ: {sorted(named ^ kept)[:3]}")


@aspen.sim.test(
    nodes=3,
    seeds=4,
    faults=FAULTS,
    amounts={"clock.drift": DRIFT_PPB},
    options={"bug": ""},
    phases=Phases(15 * SECOND_NS, 10 * SECOND_NS, 25 * SECOND_NS),
    workload=Workload(8, 40, 3),
    steps_max=4_000_000,
)
async def leases(sim: Simulation) -> None:
    with planted(sim.options.get("bug", "")):
        await scenario(sim)


async def scenario(sim: Simulation) -> None:
    stores = Stores(sim.cluster, sim.nodes, lease_checkpoint_s=CHECKPOINT_S)
    watched = Watched(stores)
    sim.watch(watched.look, invariant="lease.early")
    await sim.start(stores.main)

    async def once(client: str, number: int, rng: Any) -> None:
        await hold(watched, sim, rng.choice(sim.nodes), number, rng)

    await sim.clients(once)
    await sim.healed()
    node = sim.core[0]

    async def live() -> str:
        """What is kept alive in a healthy cluster lives."""
        kv = kv_of(system_of_loop())
        async with await kv.lease(2) as lease:
            await kv.put(b"live", b"", lease=lease.id)
            for _ in range(round(END_S)):
                await asyncio.sleep(1)
                if not lease.is_valid or await kv.get(b"live") is None:
                    return f"lost with {lease.valid_until - lease.now:.3f} s left"
        return ""

    lost = await sim.call(node, live)
    sim.check(not lost, "lease.alive", f"a lease that is kept alive in a healthy cluster was {lost}")
    left = await sim.call(node, lambda: kv_of(system_of_loop()).leases())
    sim.check(not left, "lease.ended", f"abandoned leases live on: {left}")
    machines = {name: machine_of(stores, name) for name in sim.core}
    for machine in machines.values():
        check_attached(sim, machine)
    first = max(machines.values(), key=lambda machine: machine.applied[0])
    check_revisions(sim, first)
    for name, machine in machines.items():
        if machine.applied == first.applied:
            sim.check(hash_leases(machine) == hash_leases(first), "lease.same", f"{name} has other leases")
    sim.note(f"{len(watched.known)} leases, {watched.ended} of them watched to their end")
