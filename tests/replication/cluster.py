"""Nodes with a member of a group on each, in the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from aspen import Child, Supervisor, child, whereis
from aspen.distributed import Distribution, Joining, Seed
from aspen.replication.options import PeerOptions
from aspen.replication.peer import RaftPeer
from aspen.replication.records import PeerReport
from aspen.sim import Cluster, SimNode
from tests.replication.ledger import Ledger, read, write


class Root(Supervisor):
    """Links, a member of the group, its machine."""

    strategy = "one_for_one"
    intensity = (10, 5.0)

    def __init__(self, joining: Joining, options: PeerOptions, ports: Any) -> None:
        self._joining, self._options, self._ports = joining, options, ports

    def children(self) -> Iterable[Child[Any]]:
        yield child(Distribution, self._joining).opts(name="distribution", shutdown=10)
        yield child(RaftPeer, self._options).opts(name="raft", shutdown=10)
        yield child(Ledger, self._ports).opts(name="ledger", shutdown=10)


def main_of(options: Callable[[SimNode], PeerOptions]) -> Callable[[SimNode], Child[Any]]:
    """What a node runs."""

    def main(node: SimNode) -> Child[Any]:
        ports = node.ports
        assert ports is not None
        others = [name for name in node.cluster.nodes if name != node.name]
        seeds = [Seed(other, f"sim://{other}") for other in others]
        joining = Joining(node.name, lambda: ports.peers, lambda: seeds)  # type: ignore[arg-type,return-value]
        return child(Root, joining, options(node), ports)

    return main


class Group:
    """A cluster that runs a group, for directed tests."""

    def __init__(self, cluster: Cluster, voters: Iterable[str] | None = None, **options: Any) -> None:
        self.cluster = cluster
        self.voters = tuple(voters or cluster.nodes)
        self.options = options
        self.main = main_of(lambda node: PeerOptions(voters=self.voters, **self.options))

    async def boot(self, nodes: Iterable[str] | None = None) -> None:
        names = list(nodes or self.cluster.nodes)
        for name in names:
            self.cluster.boot(name, self.main)
        for name in names:
            await self.cluster.node(name).ready()

    def peer(self, node: str) -> Any:
        """The actor itself."""
        return self._actor(node, "raft")

    def running(self, node: str) -> Any:
        peer = self.peer(node)
        return peer._running if peer is not None else None

    def ledger(self, node: str) -> Any:
        return self._actor(node, "ledger")

    def _actor(self, node: str, name: str) -> Any:
        machine = self.cluster.node(node)
        process = machine.system.whereis(name) if machine.is_up else None
        return process.actor if process is not None and process.starting is None else None

    def leaders(self) -> list[str]:
        found = []
        for name in self.cluster.nodes:
            peer = self.peer(name)
            if peer is not None and peer._running is not None and peer._running.is_leader:
                found.append((peer._running.leadership.term, name))
        return [name for _, name in sorted(found, reverse=True)]

    async def leader(self, within_s: float = 20.0, among: Iterable[str] | None = None) -> str:
        """The leader of the latest term, once there is one."""
        allowed = set(among or self.cluster.nodes)
        for _ in range(round(within_s / 0.05)):
            found = [name for name in self.leaders() if name in allowed]
            if found:
                return found[0]
            await asyncio.sleep(0.05)
        raise AssertionError(f"no leader within {within_s} s: {[self.describe(name) for name in self.cluster.nodes]}")

    def describe(self, node: str) -> Any:
        peer = self.peer(node)
        return (
            node,
            peer and peer._stage.value,
            peer and peer._why,
            peer and peer._running and peer._running.describe(),
        )

    async def until(self, true: Callable[[], object], within_s: float = 20.0) -> None:
        for _ in range(round(within_s / 0.05)):
            if true():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {within_s} s: {[self.describe(name) for name in self.cluster.nodes]}")

    async def put(self, key: str, value: Any, node: str | None = None) -> None:
        await self.cluster.node(node or await self.leader()).call(write, 0, "put", key, value)

    async def get(self, key: str, node: str) -> Any:
        return await self.cluster.node(node).call(read, key)

    async def ask(self, node: str, what: str, *arguments: Any, **named: Any) -> Any:
        """Calls a handler of the peer on a node."""

        async def call() -> Any:
            return await getattr(whereis(RaftPeer, "raft"), what)(*arguments, **named)

        return await self.cluster.node(node).call(call)

    async def status(self, node: str) -> PeerReport:
        found: PeerReport = await self.ask(node, "status")
        return found


def run(seed: int, nodes: int, scenario: Callable[[Group], Coroutine[Any, Any, Any]], **options: Any) -> None:
    """Runs a scenario on a group."""
    with Cluster(seed, nodes) as cluster:
        cluster.run(scenario(Group(cluster, **options)))
        assert cluster.ghosts == []
