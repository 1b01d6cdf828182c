"""The whole store under drawn faults: the tree that production runs, clients on its nodes, everything held to its log.

    aspen sim run tests.kv.campaign:store_lite --seeds 100           three members, ten seconds of faults
    aspen sim run tests.kv.campaign:store_lite_5 --seeds 100         five
    aspen sim run tests.kv.campaign:store_full --seeds 10            five, forty seconds of faults, 600 operations
    aspen sim run tests.kv.campaign:store_full_3 --seeds 10          three
    aspen sim run 'tests.kv.campaign:store_lite?bug=NAME'            with a bug of `tests.kv.planted`

Meanwhile members are killed, leadership is moved, members are removed and added, disks that failed are replaced.
"""

from __future__ import annotations

import contextlib
from typing import Any

import aspen.sim
from aspen import AspenError, Child, child, whereis, wire
from aspen.actor import system_of_loop
from aspen.distributed import Joining, Seed
from aspen.errors import NoSpace, StorageCorrupt, UsageError
from aspen.journal import JournalOptions
from aspen.kv import Kv, get, put, value
from aspen.kv.door import ADMIN
from aspen.kv.integrity import hash_at
from aspen.kv.options import NAME, PEER, StoreOptions
from aspen.kv.state_machine import KvStateMachine
from aspen.kv.types import Keyspace
from aspen.replication.options import PeerOptions
from aspen.sim import Phases, SimNode, Simulation, Workload
from aspen.sim.checks import check_linearizable, check_revisions
from aspen.sim.checks.violation import Violation
from aspen.sim.simulation import CheckFailed
from tests.kv.noting import Notes, noted_kv
from tests.kv.planted import BUGS, planted
from tests.kv.replaying import Replay, StoreModel, by_key, compacted_reads, named
from tests.kv.stores import Root
from tests.replication import campaign as group
from tests.replication.watching import Watch

__all__ = ("BUGS", "store_full", "store_full_3", "store_lite", "store_lite_5")

SECOND_NS = 1_000_000_000
ACCOUNTS = (b"a/0", b"a/1", b"a/2")
OPENING = 100
"""What an account holds that nobody has paid into."""
COUNTER = b"n/0"
TIMEOUT_S = 2.0


# -- the program --------------------------------------------------------------------------------------------


def options_of(sim: Simulation) -> StoreOptions:
    """Small where the plan wants it small; sessions that end early, compaction and quota in some seeds."""
    resources, rng = sim.resources, sim.rng("options")
    entries = min(resources.snapshot_entries or 40, 40)
    peer = PeerOptions(
        voters=sim.nodes,
        name=PEER,
        compact_entries=entries,
        keep_entries=entries // 4,
        inflight_messages_max=min(resources.window_messages_max or 64, 64),
        snapshot_window=2,
        journal=JournalOptions(segment_bytes=64 * 1024),
    )
    small = StoreOptions(peer=peer)
    quota = min(small.quota_bytes, (resources.map_bytes_max or small.quota_bytes) // 2)
    if rng.random() < 0.2:
        quota = 12_000
        sim.branch("options.small_quota")
    return StoreOptions(
        peer=peer,
        quota_bytes=quota,
        compact_revisions=20 if rng.random() < 0.3 else 0,
        session_s=3.0 if rng.random() < 0.3 else small.session_s,
        tick_s=0.2,
    )


def main_of(options: StoreOptions) -> Any:
    """What a node runs."""

    def main(node: SimNode) -> Child[Any]:
        ports = node.ports
        assert ports is not None
        seeds = [Seed(other, f"sim://{other}") for other in node.cluster.nodes if other != node.name]
        joining = Joining(node.name, lambda: ports.peers, lambda: seeds)  # type: ignore[arg-type,return-value]
        return child(Root, joining, options)

    return main


class StoreWatch(Watch):
    """As `Watch`; the state is what every member must have alike at one index."""

    def look_at_machine(self, name: str, member: Any) -> str | None:
        machine = getattr(member._keeper, "machine", None)
        if machine is None or not machine.applied[0] or self.seen.get(f"{name}/machine") == machine.applied:
            return None
        self.seen[f"{name}/machine"] = machine.applied
        status = machine.status()
        spaces = [
            (s.revision, s.compact_revision, [*map(int, s.alarms)], s.quota_bytes) for s in status.keyspaces.values()
        ]
        state = f"{machine.applied} {status.running_hash.hex()} {status.sessions} {spaces}"
        there = self.digests.setdefault(machine.applied[0], state)
        return None if there == state else f"{name} is at {state}, and others were at {there}"


# -- what clients do ----------------------------------------------------------------------------------------


class Clients:
    """The operations of a run's clients."""

    def __init__(self, sim: Simulation, notes: Notes, watch: StoreWatch) -> None:
        self.sim, self.notes, self.watch = sim, notes, watch
        self.keys = [b"k/%d" % number for number in range(sim.plan.workload.keys)]

    def is_stillborn(self) -> bool:
        """Whether a disk was lost before the group ever had a leader. All first voters must be up once for it to come
        about (`aspen.replication.seat`), so it will not."""
        peers = [self.sim.peek(node, PEER) for node in self.sim.nodes]
        return not self.watch.leaders and any(peer is not None and peer._stage.value == "refused" for peer in peers)

    def is_beyond_repair(self) -> bool:
        """Whether half of the voters or more have lost their disks, and were not replaced before the next one did.

        A plan takes a disk for repaired some time after its fault; but a new member has to be let in by a majority,
        which pauses and partitions may keep from meeting until then. Safe is what is left, and dead.
        """
        sim = self.sim
        peers = {node: peer for node in sim.nodes if (peer := sim.peek(node, PEER)) is not None}
        running = [peer._running for peer in peers.values() if peer._running is not None]
        if not running:
            return False
        voters = max(running, key=lambda one: one.feeder.committed).configuration.voters
        lost = [
            node
            for node, peer in peers.items()
            if peer._stage.value == "refused" and sim.node(node).disk.losses and peer._seat.me in voters
        ]
        return len(lost) * 2 >= len(voters)

    def is_hopeless(self) -> bool:
        """Whether nothing can be asked any more, as the plan took more than a group survives."""
        return self.is_stillborn() or self.is_beyond_repair()

    async def on(self, node: str, client: str, work: Any, *, exactly_once: bool = True) -> Any:
        """Runs `work(kv)` on a node, as a client of that node."""
        notes = self.notes

        async def run() -> Any:
            name = f"{node}/{client}" if exactly_once else f"{node}/{client}/once"
            return await work(noted_kv(system_of_loop(), name, notes, exactly_once=exactly_once))

        return await self.sim.call(node, run)

    async def once(self, client: str, number: int, rng: Any) -> None:
        """One operation."""
        leading = group.leaders(self.sim, PEER)
        node = rng.choice(leading) if leading and rng.random() < 0.5 else rng.choice(self.sim.nodes)
        # Now and then two clients share one session, and what they ask travels together.
        name = client if rng.random() < 0.7 else "shared"
        kind, work = self.draw(number, rng)
        if self.is_hopeless():
            return
        try:
            await self.on(node, name, work, exactly_once=rng.random() >= 0.03)
        except CheckFailed:
            raise
        except (AspenError, TimeoutError) as error:
            self.sim.branch(f"{kind}.{type(error).__name__}")

    def draw(self, number: int, rng: Any) -> tuple[str, Any]:
        """What to do, and its name."""
        key = rng.choice(self.keys)
        text = b"%d" % number if rng.random() < 0.8 else b"%d " % number + bytes(600)
        consistency = "linearizable" if rng.random() < 0.7 else "serializable"
        draw = rng.random()
        if draw < 0.22:
            return "put", lambda kv: kv.put(key, text, prev_kv=rng.random() < 0.2, timeout=TIMEOUT_S)
        if draw < 0.47:
            return "get", lambda kv: kv.get(key, consistency=consistency, timeout=TIMEOUT_S)
        if draw < 0.55:
            return "range", lambda kv: kv.range(prefix=b"k/", consistency=consistency, timeout=TIMEOUT_S)
        if draw < 0.60:
            revision = max(1, self.notes.revision - rng.randrange(12))
            return "past", lambda kv: kv.range(prefix=b"k/", revision=revision, timeout=TIMEOUT_S)
        if draw < 0.63:
            return "scan", self.scan
        if draw < 0.69:
            return "delete", lambda kv: kv.delete(key, prev_kv=True, timeout=TIMEOUT_S)
        if draw < 0.71:
            return "clear", lambda kv: kv.delete(prefix=b"k/", prev_kv=True, timeout=TIMEOUT_S)
        if draw < 0.77:
            return "cas", lambda kv: self.swap(kv, key, text)
        if draw < 0.82:
            return "txn", lambda kv: self.multi(kv, text)
        if draw < 0.89:
            return "pay", lambda kv: self.pay(kv, *rng.sample(ACCOUNTS, 2), rng.randrange(1, 20))
        if draw < 0.92:
            return "audit", self.audit
        if draw < 0.96:
            return "count", self.count
        revision = max(1, self.notes.revision - rng.randrange(8))
        return "compact", lambda kv: kv.compact(revision, timeout=TIMEOUT_S)

    async def scan(self, kv: Kv) -> None:
        """A range in pages."""
        async for _ in kv.scan(prefix=b"k/", page=1, timeout=TIMEOUT_S):
            pass

    async def swap(self, kv: Kv, key: bytes, text: bytes) -> None:
        """Compare and set."""
        there = await kv.get(key, timeout=TIMEOUT_S)
        condition = value(key) == (there.value if there is not None else b"none")
        await kv.txn().when(condition).then(put(key, text)).otherwise(get(key)).commit(timeout=TIMEOUT_S)

    async def multi(self, kv: Kv, text: bytes) -> None:
        """Two keys at once."""
        await kv.txn().then(put(self.keys[0], text), put(self.keys[-1], text)).commit(timeout=TIMEOUT_S)

    async def pay(self, kv: Kv, giver: bytes, taker: bytes, amount: int) -> None:
        """An interactive transaction; what the accounts hold in sum stays."""
        async for tr in kv.transactions(tries=5):
            have, has = [int(await tr.get(one) or OPENING) for one in (giver, taker)]
            tr.set(giver, b"%d" % (have - amount))
            tr.set(taker, b"%d" % (has + amount))

    async def audit(self, kv: Kv) -> None:
        """One that only reads, each key by itself."""
        async for tr in kv.transactions(tries=5):
            held = [int(await tr.get(one) or OPENING) for one in ACCOUNTS]
            self.sim.check(sum(held) == OPENING * len(ACCOUNTS), "accounts", f"a transaction saw {held}")

    async def count(self, kv: Kv) -> None:
        """One that only writes."""
        async for tr in kv.transactions(tries=5):
            tr.add(COUNTER, 1)


# -- the end ------------------------------------------------------------------------------------------------


async def alive(sim: Simulation, clients: Clients) -> None:
    """What is asked of the healed core is answered, on every node of it, however often it has to be asked."""
    for node in sim.core:
        for number, key in enumerate([*clients.keys, *ACCOUNTS, COUNTER]):
            await _until_answered(sim, clients, node, lambda kv, key=key: kv.get(key, timeout=TIMEOUT_S))
            if not number:
                await _until_answered(sim, clients, node, lambda kv: kv.put(b"z", b"z", timeout=TIMEOUT_S))


async def _until_answered(sim: Simulation, clients: Clients, node: str, work: Any) -> None:
    while True:
        try:
            await clients.on(node, "z", work)
            return
        except NoSpace:
            return
        except AspenError:
            await sim.sleep(0.1)


async def alike(sim: Simulation, clients: Clients) -> None:
    """The members of the core have the same contents, once they have applied the same."""
    while True:
        members = [sim.peek(node, NAME) for node in sim.core]
        machines = [getattr(member._keeper, "machine", None) if member is not None else None for member in members]
        if all(machines) and len({machine.applied for machine in machines}) == 1:
            found = [await _contents(sim, clients, *pair) for pair in zip(sim.core, machines, strict=True)]
            if None not in found:
                break
        await sim.sleep(0.02)
    sim.check(all(one == found[0] for one in found), "replicas_alike", f"at {machines[0].applied}: {found}")


async def _contents(sim: Simulation, clients: Clients, node: str, machine: Any) -> Any:
    """What a member has, sessions included; None when its disk has rotted: it is told so, as a scrub would."""
    try:
        sessions = [(id, one.pack()) for id, one in sorted(machine._sessions._open.items())]
        return hash_at(machine, Keyspace.USER), sessions
    except UsageError:
        # Closed meanwhile: the state that had rotted is set aside, and the member gets another.
        return None
    except StorageCorrupt:
        sim.branch("rot.found_last")

    async def look() -> None:
        with contextlib.suppress(AspenError):
            await whereis(KvStateMachine, NAME).exchange(ADMIN, wire.encode(("hash", {"revision": 0})))

    await sim.call(node, look)
    await sim.sleep(0.5)
    return None


def check_history(sim: Simulation, notes: Notes, watch: StoreWatch, clients: Clients) -> None:
    """Holds what clients were told against the log, and key by key against any order."""
    replay = Replay(notes.names)
    wrong = replay.run(watch.payloads)
    history = notes.recorder.history(replay.log)
    found = [wrong] if wrong else []
    found += check_revisions(type(history)(tuple(named(history.operations)), history.log), StoreModel())
    found += [one for one in [compacted_reads(history.operations)] if one is not None]
    keys = [*clients.keys, *ACCOUNTS]
    search = check_linearizable(by_key(history.operations, keys))
    sim.unknown_checks += [f"linearizable {', '.join(map(str, names))}" for names in search.unknown_keys]
    found += search.violations
    held = [int(kv.value) for key, kv in replay.model.states[-1].items() if key in ACCOUNTS]
    if sum(held) != OPENING * len(held) and len(held) == len(ACCOUNTS):
        found.append(Violation("store", "accounts", f"the accounts hold {held}", None, "pay"))
    if replay.repeated:
        sim.branch("log.repeated")
    if replay.strange:
        sim.branch("log.session_over")
    if found:
        raise CheckFailed(found)


async def scenario(sim: Simulation) -> None:
    with planted(sim.options["bug"]):
        watch = StoreWatch(sim, PEER, NAME)
        sim.watch(watch, invariant="raft")
        notes = Notes(sim.history)
        clients = Clients(sim, notes, watch)
        done: list[bool] = []
        await sim.start(main_of(options_of(sim)))
        aides = [sim.cluster.loop.create_task(group.operator(sim, done, PEER))]
        if sim.rng("chaos.on").random() < 0.5:
            aides.append(sim.cluster.loop.create_task(group.chaos(sim, done, PEER, KvStateMachine, NAME)))
        await sim.clients(clients.once)
        await sim.healed()
        if clients.is_stillborn():
            sim.branch("stillborn")
            done.append(True)
            told = [one for one in sim.history.history().operations if one.status == "ok" and one.kind != "range"]
            sim.check(not told, "stillborn", f"nobody led, and this was acknowledged: {told}")
            return
        if clients.is_beyond_repair():
            sim.branch("beyond_repair")
            done.append(True)
            check_history(sim, notes, watch, clients)
            return
        await alive(sim, clients)
        # The operator goes on: a member that was removed may yet have to be added.
        await alike(sim, clients)
        done.append(True)
        for aide in aides:
            await aide
        check_history(sim, notes, watch, clients)


# Little time to settle, as time costs: what is asked then is asked again until the end.
LITE = Phases(10 * SECOND_NS, 4 * SECOND_NS, 21 * SECOND_NS)
FULL = Phases(40 * SECOND_NS, 5 * SECOND_NS, 30 * SECOND_NS)
LITE_STEPS_MAX, FULL_STEPS_MAX = 4_000_000, 16_000_000
OPTIONS = {"bug": ""}


@aspen.sim.test(nodes=3, seeds=5, options=OPTIONS, phases=LITE, workload=Workload(3, 120, 3), steps_max=LITE_STEPS_MAX)
async def store_lite(sim: Simulation) -> None:
    await scenario(sim)


@aspen.sim.test(nodes=5, seeds=5, options=OPTIONS, phases=LITE, workload=Workload(4, 120, 3), steps_max=LITE_STEPS_MAX)
async def store_lite_5(sim: Simulation) -> None:
    await scenario(sim)


@aspen.sim.test(nodes=5, seeds=2, options=OPTIONS, phases=FULL, workload=Workload(5, 600, 4), steps_max=FULL_STEPS_MAX)
async def store_full(sim: Simulation) -> None:
    await scenario(sim)


@aspen.sim.test(nodes=3, seeds=2, options=OPTIONS, phases=FULL, workload=Workload(5, 600, 4), steps_max=FULL_STEPS_MAX)
async def store_full_3(sim: Simulation) -> None:
    await scenario(sim)
