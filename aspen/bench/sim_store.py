"""What `aspen bench sim` runs: a leader that copies every write to all members and answers when a majority has it.

It elects nobody, so it is no consensus; it makes the messages, timers and syncs that one makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aspen.actor import defer, make_ref
from aspen.errors import AspenError
from aspen.otp import Actor, Child, Supervisor, call, cast, child, info, whereis
from aspen.sim import Phases, SimNode, Simulation, Workload, test
from aspen.sim.faults import FAULT_CLASSES, SECOND_NS

HEARTBEAT_S = 0.1


class Member(Actor):
    """One member; the first leads."""

    def __init__(self, ports: Any, name: str, names: list[str]) -> None:
        self._peers = ports.peers
        self._others = [other for other in names if other != name]
        self._leads = name == names[0]
        self._log = ports.disk.files("store").open("log")
        self._place = 0
        self._acks: dict[int, tuple[set[str], Any]] = {}
        self._state: dict[str, int] = {}
        self._majority = len(names) // 2
        me: Any = make_ref(self._process)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                me.heard(peer, frame)

            def on_peer_up(self, peer: str) -> None: ...

            def on_peer_down(self, peer: str) -> None: ...

        self._peers.listen(Handler())
        for other in self._others:
            self._peers.connect(other, f"sim://{other}")
        self.ctx.every(HEARTBEAT_S, "tick")

    @info(str)
    def tick(self, message: str) -> None:
        """Heartbeats, and what was not acknowledged once more."""
        if self._leads:
            for other in self._others:
                self._peers.send(other, 0, b"heartbeat")

    @cast
    def heard(self, peer: str, frame: bytes) -> None:
        """A heartbeat, a write or an acknowledgement."""
        if frame == b"heartbeat":
            self._peers.send(peer, 0, b"alive")
        elif frame[:1] == b"w":
            self._log.append(frame)
            self._log.sync()
            self._peers.send(peer, 0, b"a" + frame[1:9])
        elif frame[:1] == b"a" and frame != b"alive":
            self._acknowledged(int.from_bytes(frame[1:9], "big"), peer)

    def _acknowledged(self, place: int, peer: str) -> None:
        waiting = self._acks.get(place)
        if waiting is not None:
            waiting[0].add(peer)
            if len(waiting[0]) >= self._majority:
                del self._acks[place]
                waiting[1].reply(place)

    @call(timeout=2.0)
    def put(self, key: str, value: int) -> int:
        """Writes; answers with the place in the log."""
        self._place += 1
        frame = b"w" + self._place.to_bytes(8, "big") + f"{key}={value}".encode()
        self._log.append(frame)
        self._log.sync()
        self._state[key] = value
        if not self._others:
            return self._place
        self._acks[self._place] = (set(), self.ctx.reply_handle())
        for other in self._others:
            self._peers.send(other, 0, frame)
        answer: int = defer()
        return answer

    @call
    def get(self, key: str) -> int | None:
        """Reads from the leader's state."""
        return self._state.get(key)


class Root(Supervisor):
    """The tree of a member."""

    def __init__(self, ports: Any, name: str, names: list[str]) -> None:
        self._arguments = (ports, name, names)

    def children(self) -> Iterable[Child[Any]]:
        """One member."""
        yield child(Member, *self._arguments).opts(name="member")


async def put(key: str, value: int) -> int:
    """A client's write."""
    return await whereis(Member, "member").put(key, value)


async def get(key: str) -> int | None:
    """A client's read."""
    return await whereis(Member, "member").get(key)


def boot(node: SimNode) -> Child[Any]:
    """What each node runs."""
    return child(Root, node.ports, node.name, list(node.cluster.nodes))


async def load(sim: Simulation) -> None:
    """The plan's operations, half of them reads; recorded, not searched: this store promises less than it should."""
    await sim.start(boot)
    leader = sim.nodes[0]

    async def once(client: str, number: int, rng: Any) -> None:
        key = f"k{rng.randrange(sim.plan.workload.keys)}"
        if rng.random() < 0.5:
            await sim.ask(client, "get", [key], do=lambda _: sim.call(leader, get, key))
        else:
            await sim.ask(client, "put", [key], number, do=lambda _: sim.call(leader, put, key, number))

    await sim.clients(once)
    await sim.healed()
    try:
        await sim.call(leader, put, "k0", 0)
    except AspenError:
        sim.branch("no_majority")


NO_DISK = tuple(name for name in FAULT_CLASSES if name != "disk")

idle = test(nodes=5, faults=(), phases=Phases(60 * SECOND_NS, 0, SECOND_NS), workload=Workload(1, 0, 1))(load)
loaded = test(nodes=5, faults=(), phases=Phases(20 * SECOND_NS, 0, SECOND_NS), workload=Workload(10, 2_000, 5))(load)
lite = test(nodes=3, faults=NO_DISK, workload=Workload(3, 300, 3))(load)
full = test(
    nodes=5,
    faults=NO_DISK,
    phases=Phases(40 * SECOND_NS, 10 * SECOND_NS, 10 * SECOND_NS),
    workload=Workload(5, 2_000, 5),
)(load)
