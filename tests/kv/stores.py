"""Nodes with a member of the store on each, in the simulator: the tree that production runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from aspen import Child, Supervisor, child
from aspen.actor import system_of_loop
from aspen.distributed import Distribution, Joining, Seed
from aspen.journal import JournalOptions
from aspen.kv import Kv
from aspen.kv.inside import kv_of
from aspen.kv.options import NAME, PEER, StoreOptions
from aspen.replication.options import PeerOptions
from aspen.sim import Cluster, SimNode
from supervisors.kv import KvSupervisor

R = TypeVar("R")


class Root(Supervisor):
    """Links and the store, as `supervisors.node` has them."""

    strategy = "one_for_one"
    intensity = (10, 10.0)

    def __init__(self, joining: Joining, options: StoreOptions) -> None:
        self._joining, self._options = joining, options

    def children(self) -> Iterable[Child[Any]]:
        yield child(Distribution, self._joining).opts(name="distribution", shutdown=10)
        yield child(KvSupervisor, self._options).opts(id="kv")


def main_of(names: Iterable[str], options: StoreOptions) -> Callable[[SimNode], Child[Any]]:
    """What a node of a cluster runs."""

    def main(node: SimNode) -> Child[Any]:
        ports = node.ports
        assert ports is not None
        seeds = [Seed(other, f"sim://{other}") for other in names if other != node.name]
        joining = Joining(node.name, lambda: ports.peers, lambda: seeds)  # type: ignore[arg-type,return-value]
        return child(Root, joining, options)

    return main


class Stores:
    """A cluster that runs a store."""

    def __init__(self, cluster: Cluster, voters: Iterable[str] | None = None, **options: Any) -> None:
        self.cluster = cluster
        names = ("compact_entries", "keep_entries", "on_fatal")
        of_peer = {name: options.pop(name) for name in names if name in options}
        journal = JournalOptions(segment_bytes=64 * 1024)
        peer = PeerOptions(voters=tuple(voters or cluster.nodes), name=PEER, journal=journal, **of_peer)
        self.main = main_of(tuple(cluster.nodes), StoreOptions(peer=peer, **options))

    async def boot(self, *names: str) -> None:
        for name in names or self.cluster.nodes:
            self.cluster.boot(name, self.main)
        for name in names or self.cluster.nodes:
            await self.cluster.node(name).ready()

    async def on(self, node: str, work: Callable[[Kv], Awaitable[R]]) -> R:
        """Runs `work(kv)` on a node, with the client that its actors share."""

        async def run() -> R:
            return await work(kv_of(system_of_loop()))

        return await self.cluster.node(node).call(run)

    def member(self, node: str) -> Any:
        """The `KvStateMachine` itself."""
        machine = self.cluster.node(node)
        process = machine.system.whereis(NAME) if machine.is_up else None
        return process.actor if process is not None and process.starting is None else None

    def leader(self) -> str | None:
        """The node whose member leads, if exactly one says so."""
        found = [name for name in self.cluster.nodes if (member := self.member(name)) is not None and member.leads]
        return found[0] if len(found) == 1 else None


def run(scenario: Callable[[Stores], Coroutine[Any, Any, R]], nodes: int = 3, seed: int = 0, **options: Any) -> R:
    """Boots a store on that many nodes and runs a scenario in the world."""
    with Cluster(seed, nodes) as cluster:
        stores = Stores(cluster, **options)

        async def whole() -> R:
            await stores.boot()
            return await scenario(stores)

        return cluster.run(whole())
