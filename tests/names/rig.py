"""Nodes with a store and names in the simulator, and an actor to be named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from aspen import Actor, Child, DynamicSupervisor, Supervisor, call, cast, child, whereis
from aspen.distributed import Distribution, Joining, Seed
from aspen.journal import JournalOptions
from aspen.kv.options import PEER, StoreOptions
from aspen.names import Registrar, held, singleton
from aspen.replication.options import PeerOptions
from aspen.sim import Cluster, SimNode
from supervisors.kv import KvSupervisor
from tests.kv.stores import Stores

R = TypeVar("R")
NAME = "global:orders"
TTL_S = 4


class Orders(Actor):
    """Counts, in its own memory and in the store."""

    trap_exit = True

    def __init__(self, log: list[Any] | None = None) -> None:
        self._count = 0
        self._log = log if log is not None else []
        self._log.append(("start", self.ctx.pid.node, held(self.ctx).token))

    def terminate(self, reason: object) -> None:
        self._log.append(("end", self.ctx.pid.node, held(self.ctx).token))

    @call
    def add(self) -> int:
        self._count += 1
        return self._count

    @cast
    def bump(self) -> None:
        self._count += 1

    @call
    def where(self) -> tuple[str, int]:
        return self.ctx.pid.node, held(self.ctx).token

    @call
    def fail(self) -> None:
        raise RuntimeError("asked to")

    @call(timeout=30.0)
    async def write(self, key: bytes, value: bytes) -> int:
        revision: int = (await self.ctx.kv.put(key, value)).revision
        return revision

    @call(timeout=30.0)
    async def sleep(self, seconds: float) -> str:
        import asyncio

        await asyncio.sleep(seconds)
        return "slept"


class Plain(Actor):
    """Has no name."""

    @call
    async def write(self, key: bytes) -> None:
        await self.ctx.kv.put(key, b"plain")


class Root(Supervisor):
    """As `supervisors.node` has it: links, names, applications."""

    strategy = "one_for_one"
    intensity = (10, 10.0)

    def __init__(self, joining: Joining, options: StoreOptions, apps: tuple[Child[Any], ...]) -> None:
        self._joining, self._options, self._apps = joining, options, apps

    def children(self) -> Iterable[Child[Any]]:
        yield child(Distribution, self._joining).opts(name="distribution", shutdown=10)
        yield child(Registrar).opts(id="names", name="names", shutdown=5)
        yield child(KvSupervisor, self._options).opts(id="kv")
        yield child(DynamicSupervisor).opts(id="apps", name="apps", shutdown="infinity")
        yield from self._apps


class Named(Stores):
    """A cluster with a store and names; `apps` gives further children of a node's root."""

    def __init__(
        self, cluster: Cluster, apps: Callable[[str], tuple[Child[Any], ...]] = lambda node: (), **options: Any
    ) -> None:
        self.cluster = cluster
        names = tuple(cluster.nodes)
        peer = PeerOptions(voters=names, name=PEER, journal=JournalOptions(segment_bytes=64 * 1024))
        store = StoreOptions(peer=peer, **options)

        def main(node: SimNode) -> Child[Any]:
            ports = node.ports
            assert ports is not None
            seeds = [Seed(other, f"sim://{other}") for other in names if other != node.name]
            joining = Joining(node.name, lambda: ports.peers, lambda: seeds)  # type: ignore[arg-type,return-value]
            return child(Root, joining, store, apps(node.name))

        self.main = main

    async def at(self, node: str, work: Callable[[], Awaitable[R]]) -> R:
        """Runs something on a node."""

        async def there() -> R:
            return await work()

        return await self.cluster.node(node).call(there)

    async def start(self, node: str, spec: Child[Any]) -> Any:
        """Starts a supervised actor on a node."""

        async def work() -> Any:
            return await whereis(DynamicSupervisor, "apps").start_child(spec)

        return await self.at(node, work)

    async def ask(self, node: str, what: str, *args: Any) -> Any:
        """Calls the holder of the name from a node."""

        async def work() -> Any:
            return await getattr(whereis(Orders, NAME), what)(*args)

        return await self.at(node, work)


def orders(log: list[Any] | None = None, **options: Any) -> Child[Any]:
    """An actor with a name."""
    from aspen.names import ClusterName

    return child(Orders, log).opts(name=ClusterName("orders", ttl=TTL_S, **options), id="orders", restart="temporary")


def single(log: list[Any] | None = None, **options: Any) -> Child[Any]:
    """A singleton."""
    return singleton(replace(orders(log, **options), restart="permanent"))


def run(scenario: Callable[[Named], Awaitable[R]], *apps: Child[Any], nodes: int = 3, seed: int = 0) -> R:
    """Boots nodes and runs a scenario in the world."""
    with Cluster(seed, nodes) as cluster:
        named = Named(cluster, lambda node: apps)

        async def whole() -> R:
            await named.boot()
            return await scenario(named)

        return cluster.run(whole())
