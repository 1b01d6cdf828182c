"""A group under drawn faults: linearizable, nothing that was acknowledged lost, alive when healed.

    aspen sim run tests.replication.campaign:group --seeds 100
    aspen sim run 'tests.replication.campaign:group?chaos=1'         members killed, moved and replaced meanwhile

An operator puts new members in the place of those whose disks were lost, as somebody would.
"""

from __future__ import annotations

from typing import Any

import aspen.sim
from aspen import AspenError, kill, whereis
from aspen.errors import NotLeader, Overloaded
from aspen.journal import JournalOptions
from aspen.journal.directory import SUSPECT
from aspen.replication.options import PeerOptions
from aspen.replication.peer import RaftPeer
from aspen.sim import Phases, SimNode, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES, mode_of
from tests.replication.cluster import main_of
from tests.replication.ledger import Ledger, Lost, read, write
from tests.replication.watching import Watch

FAULTS = tuple(name for name in FAULT_CLASSES if name != "disk")
STRANGE_ROUNDS = 4
"""So often the operator sees a node that is not the member it should be, before it takes that for lost: an invitation
may be on its way."""
NOT_EXECUTED = (NotLeader, Overloaded, Lost)


def options_of(sim: Simulation) -> PeerOptions:
    """Small where the plan wants it small."""
    resources = sim.resources
    entries = min(resources.snapshot_entries or 40, 40)
    return PeerOptions(
        voters=sim.nodes,
        compact_entries=entries,
        keep_entries=entries // 4,
        inflight_messages_max=min(resources.window_messages_max or 64, 64),
        snapshot_window=2,
        journal=JournalOptions(segment_bytes=64 * 1024),
    )


def operation(rng: Any, keys: int, number: int) -> tuple[str, str, Any]:
    key = f"k{rng.randrange(keys)}"
    kind = ("get", "get", "put", "add", "cas")[rng.randrange(5)]
    argument = {"get": None, "put": number, "add": 1, "cas": (rng.randrange(number + 1), number)}[kind]
    return kind, key, argument


async def ask(sim: Simulation, client: str, number: int, kind: str, key: str, argument: Any, node: str) -> Any:
    async def do(id: int) -> Any:
        if kind == "get":
            return await sim.call(node, read, key)
        return await sim.call(node, write, id, kind, key, argument)

    return await sim.ask(client, kind, [key], argument, do=do, failed=NOT_EXECUTED)


def leaders(sim: Simulation, name: str = "raft") -> list[str]:
    """Nodes that think they lead, the latest term first."""
    found = []
    for node in sim.nodes:
        peer = sim.peek(node, name)
        if peer is not None and peer._running is not None and peer._running.is_leader:
            found.append((peer._running.leadership.term, node))
    return [node for _, node in sorted(found, reverse=True)]


async def on_peer(sim: Simulation, node: str, what: str, *arguments: Any, name: str = "raft") -> Any:
    async def do() -> Any:
        return await getattr(whereis(RaftPeer, name), what)(*arguments)

    return await sim.call(node, do)


async def kill_actor(sim: Simulation, node: str, cls: Any, name: str) -> None:
    async def do() -> None:
        kill(whereis(cls, name))

    await sim.call(node, do)


def renew_suspect_disks(sim: Simulation) -> None:
    """A node whose disk has failed does not start any more, until somebody gives it another.

    That is not put off for faults that are yet to come: for the plan the disk is repaired soon after the fault.
    """
    for name in sim.nodes:
        node = sim.node(name)
        raft = node.disk._directories.get("raft")
        working = not any(
            name in one.targets and one.start_ns <= sim.now_ns < one.end_ns
            for one in sim.plan.episodes
            if one.kind == "disk"
        )
        if raft is not None and SUSPECT in raft.names and working:
            sim.branch("operator.new_disk")
            was_up = node.is_up
            sim.crash(name)
            node.disk.wipe()
            if was_up:
                sim.restart(name)


async def operator(sim: Simulation, done: list[bool], name: str = "raft") -> None:
    """Puts new members in the place of refused ones, and promotes learners."""
    strange: dict[int, int] = {}
    while not done:
        await sim.sleep(0.5)
        renew_suspect_disks(sim)
        leading = leaders(sim, name)
        if not leading:
            continue
        try:
            for member in await on_peer(sim, leading[0], "members", name=name):
                peer = sim.peek(member.node, name)
                if peer is None:
                    continue
                stage = peer._stage.value
                # A disk that is lost once more speaks for the first member of its node, which was replaced long ago.
                former = stage in ("refused", "removed") and peer._seat is not None and peer._seat.me != member.member
                strange[member.member] = strange.get(member.member, 0) + 1 if former else 0
                if strange[member.member] > STRANGE_ROUNDS or (
                    stage == "refused" and (peer._seat is None or peer._seat.me == member.member)
                ):
                    await on_peer(sim, leading[0], "remove", member.member, name=name)
                    sim.branch("operator.removed")
                elif member.role == "learner" and stage == "running":
                    await on_peer(sim, leading[0], "promote", member.member, name=name)
                    sim.branch("operator.promoted")
            known = {member.node for member in await on_peer(sim, leading[0], "members", name=name)}
            for node in sim.nodes:
                peer = sim.peek(node, name)
                if node not in known and peer is not None and peer._stage.value in ("waiting", "refused", "removed"):
                    await on_peer(sim, leading[0], "add_learner", node, name=name)
                    sim.branch("operator.added")
        except AspenError:
            continue


async def chaos(
    sim: Simulation, done: list[bool], name: str = "raft", machine: type[Any] = Ledger, machine_name: str = "ledger"
) -> None:
    """Kills members and machines, moves leadership, removes members: nothing that a plan has.

    No member is removed where the plan takes disks: the rest would have to survive more than it can.
    """
    rng = sim.rng("chaos")
    takes_disks = any(mode_of(one.kind, one.mode).damage == "disk" for one in sim.plan.episodes)
    while not done and sim.now_ns < sim.plan.phases.safety_ns:
        await sim.sleep(0.3 + rng.random())
        node = rng.choice(sim.nodes)
        if not sim.node(node).is_up:
            continue
        try:
            match rng.randrange(3 if takes_disks else 4):
                case 0:
                    await kill_actor(sim, node, RaftPeer, name)
                    sim.branch("chaos.peer_killed")
                case 1:
                    await kill_actor(sim, node, machine, machine_name)
                    sim.branch("chaos.machine_killed")
                case 2:
                    for leader in leaders(sim, name)[:1]:
                        await on_peer(sim, leader, "transfer", name=name)
                        sim.branch("chaos.transferred")
                case _:
                    for leader in leaders(sim, name)[:1]:
                        if leader != node:
                            await on_peer(sim, leader, "remove", node, name=name)
                            sim.branch("chaos.removed")
        except AspenError:
            continue


async def scenario(sim: Simulation) -> None:
    options = options_of(sim)
    watch = Watch(sim)
    sim.watch(watch, invariant="raft")
    done: list[bool] = []

    def options_for(node: SimNode) -> PeerOptions:
        return options

    await sim.start(main_of(options_for))
    aides = [sim.cluster.loop.create_task(operator(sim, done))]
    if sim.options.get("chaos"):
        aides.append(sim.cluster.loop.create_task(chaos(sim, done)))

    async def once(client: str, number: int, rng: Any) -> None:
        kind, key, argument = operation(rng, sim.plan.workload.keys, number)
        leading = leaders(sim)
        node = rng.choice(leading) if leading and rng.random() < 0.8 else rng.choice(sim.nodes)
        await ask(sim, client, number, kind, key, argument, node)

    await sim.clients(once)
    await sim.healed()
    # What is asked of the healed core succeeds, however often a leader has to be found for it.
    while not (await ask(sim, "z", 0, "add", "z", 1, (leaders(sim) or sim.core)[0])).ok:
        await sim.sleep(0.1)
    for number in range(sim.plan.workload.keys):
        key = f"k{number}"
        while not (await ask(sim, "z", number, "get", key, None, sim.core[number % len(sim.core)])).ok:
            await sim.sleep(0.1)
    done.append(True)
    for aide in aides:
        await aide
    sim.check_linearizable()


SECOND_NS = 1_000_000_000


@aspen.sim.test(
    nodes=3,
    seeds=5,
    faults=FAULTS,
    options={"chaos": ""},
    phases=Phases(10 * SECOND_NS, 10 * SECOND_NS, 15 * SECOND_NS),
    workload=Workload(3, 100, 3),
)
async def group(sim: Simulation) -> None:
    await scenario(sim)


@aspen.sim.test(
    nodes=None,
    seeds=3,
    options={"chaos": "1"},
    phases=Phases(15 * SECOND_NS, 15 * SECOND_NS, 20 * SECOND_NS),
    workload=Workload(3, 150, 3),
    steps_max=4_000_000,
)
async def group_with_disks(sim: Simulation) -> None:
    await scenario(sim)


@aspen.sim.test(
    nodes=3,
    seeds=3,
    faults=("disk", "crash", "storage", "resources", "pause"),
    options={"chaos": ""},
    phases=Phases(15 * SECOND_NS, 15 * SECOND_NS, 20 * SECOND_NS),
    workload=Workload(3, 150, 3),
    steps_max=4_000_000,
)
async def group_on_bad_disks(sim: Simulation) -> None:
    await scenario(sim)
