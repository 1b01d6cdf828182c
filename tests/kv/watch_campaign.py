"""Watches under drawn faults: each stream is the slice of what was committed, across resumes; and alive when healed.

aspen sim run tests.kv.watch_campaign:watches --seeds 50
"""

from __future__ import annotations

import asyncio
from typing import Any

import aspen.sim
from aspen import AspenError, kill, whereis
from aspen.actor import system_of_loop
from aspen.errors import CallTimeout, KvError, Unknown
from aspen.journal import JournalOptions
from aspen.kv import FROM_KEY, Kv, delete, put
from aspen.kv.inside import kv_of
from aspen.kv.options import PEER, WATCHES, StoreOptions
from aspen.kv.watch_actor import WatchActor
from aspen.replication.options import PeerOptions
from aspen.sim import NodeDown, Phases, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES
from tests.kv.stores import main_of
from tests.kv.watched import Committed, Reader, Spec

FAULTS = tuple(name for name in FAULT_CLASSES if name != "disk")
SECOND_NS = 1_000_000_000

SPECS: tuple[Spec, ...] = (
    (b"\0", FROM_KEY, {}),
    (b"k0", b"", {}),
    (b"k", b"l", {"no_delete": True}),
    (b"k1", b"k3", {"prev_kv": True}),
    (b"\0", FROM_KEY, {"fragment": True, "no_put": True}),
    (b"k2", FROM_KEY, {"require_leader": False}),
)


def options_of(sim: Simulation) -> StoreOptions:
    peer = PeerOptions(
        voters=sim.nodes,
        name=PEER,
        compact_entries=20,
        keep_entries=5,
        snapshot_window=2,
        journal=JournalOptions(segment_bytes=64 * 1024),
    )
    return StoreOptions(peer=peer)


async def write(kv: Kv, rng: Any, keys: int, number: int) -> None:
    key = b"k%d" % rng.randrange(keys)
    value = b"%d:" % number + bytes(rng.choice((0, 10, 300)))
    match rng.randrange(8):
        case 0:
            await kv.delete(key, timeout=5.0)
        case 1:
            await kv.txn().then(put(b"k0", value), put(b"k2", value), delete(b"k1")).commit(timeout=5.0)
        case 2:
            await kv.delete(prefix=b"k", timeout=5.0)
        case 3:
            done = await kv.put(key, value, timeout=5.0)
            await kv.compact(max(1, done.revision - rng.randrange(12)), timeout=5.0)
        case _:
            await kv.put(key, value, timeout=5.0)


async def scenario(sim: Simulation, committed: Committed) -> None:
    await sim.start(main_of(sim.nodes, options_of(sim)))
    rng = sim.rng("readers")
    readers = [Reader(committed, spec, slow_s=rng.choice((0.0, 0.0, 0.3))) for spec in SPECS for _ in range(2)]

    async def place(work: Any) -> None:
        node = rng.choice([name for name in sim.nodes if sim.node(name).is_up] or list(sim.nodes))
        await sim.call(node, work)

    tasks = [sim.cluster.loop.create_task(reader.run(place)) for reader in readers]

    async def once(client: str, number: int, rng: Any) -> None:
        async def do() -> None:
            await write(kv_of(system_of_loop()), rng, sim.plan.workload.keys, number)

        try:
            await sim.call(rng.choice(sim.nodes), do)
        except (KvError, CallTimeout, Unknown, NodeDown):
            sim.branch("write.failed")

    async def killer() -> None:
        """Kills watch actors: nothing that a plan has."""
        while sim.now_ns < sim.plan.phases.safety_ns:
            await sim.sleep(1.0 + 2 * rng.random())

            async def do() -> None:
                kill(whereis(WatchActor, WATCHES))

            try:
                await sim.call(rng.choice(sim.nodes), do)
                sim.branch("watches.killed")
            except AspenError:
                continue

    killing = sim.cluster.loop.create_task(killer())
    await sim.clients(once)
    await killing
    await sim.healed()
    for reader in readers:
        reader.hurry = True

    async def last() -> int:
        return (await kv_of(system_of_loop()).put(b"k0", b"last", timeout=10.0)).revision

    while True:
        try:
            revision = await sim.call(sim.core[0], last)
            break
        except (AspenError, asyncio.CancelledError):
            await sim.sleep(0.2)
    for _ in range(200):  # The phase of liveness is shorter than that.
        if all(reader.revision >= revision for reader in readers):
            break
        await sim.sleep(0.1)
    for task in tasks:
        task.cancel()
    sim.check(not committed.differences, "members_agree", "; ".join(committed.differences[:3]))
    for number, reader in enumerate(readers):
        reader.check()
        sim.check(not reader.troubles, "watch_is_the_log", f"reader {number}: {'; '.join(reader.troubles[:3])}")
        sim.check(
            reader.revision >= revision,
            "watch_is_alive",
            f"reader {number} {reader.spec} is at {reader.revision}, and {revision} was committed",
        )
        sim.note(f"reader {number}: {reader.events} events, {reader.begun} watches, {reader.compactions} compactions")


@aspen.sim.test(
    nodes=3,
    seeds=3,
    faults=FAULTS,
    phases=Phases(10 * SECOND_NS, 10 * SECOND_NS, 25 * SECOND_NS),
    workload=Workload(3, 120, 4),
    module_state=False,
    steps_max=6_000_000,
)
async def watches(sim: Simulation) -> None:
    committed = Committed()
    with committed.watching():
        await scenario(sim, committed)
