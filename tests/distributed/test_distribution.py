"""Nodes that find each other and run one program: links, membership, groups and far actors, in the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aspen import Actor, Supervisor, call, child, exit_reason, info, kill, start, start_child
from aspen.distributed import (
    Distribution,
    Joining,
    NodeDown,
    NodeUp,
    Seed,
    monitor_nodes,
    nodes,
    pg,
    start_on,
    whereis_on,
)
from aspen.errors import NoConnection, UsageError
from aspen.limits import MEMBER_RECONNECT_EVERY_S, TRUST_CHECK_S
from aspen.sim import Cluster, SimNode
from aspen.wire.remote import exceptions

SEEDS = range(5)
CONVERGED_S = 20.0
untrusted: set[str] = set()
"""Nodes that no node trusts."""


class Root(Supervisor):
    strategy = "rest_for_one"

    def __init__(self, joining: Joining) -> None:
        self._joining = joining

    def children(self) -> Any:
        yield child(Distribution, self._joining).opts(name="distribution", shutdown=10)
        yield child(Till).opts(name="till")


class Till(Actor):
    def __init__(self) -> None:
        self._n = 0
        self._seen: list[Any] = []

    @call
    def add(self, by: int) -> int:
        self._n += by
        return self._n

    @call
    def watch_nodes(self) -> list[str]:
        return [node.name for node in monitor_nodes()]

    @call
    def watch(self, other: Any) -> None:
        self.ctx.monitor(other)

    @call
    def join(self, group: str) -> None:
        pg.join(group)

    @call
    def seen(self) -> list[Any]:
        return self._seen

    @info(NodeUp, NodeDown)
    def node_changed(self, message: Any) -> None:
        self._seen.append((type(message).__name__, message.node_id))

    def handle_info(self, message: Any) -> None:
        self._seen.append((type(message).__name__, message.reason))


def main(node: SimNode) -> Any:
    others = [name for name in node.cluster.nodes if name != node.name]
    peers = node.ports.peers

    return child(
        Root,
        Joining(
            node.name,
            lambda: peers,
            lambda: [Seed(other, f"sim://{other}") for other in others[:1]],
            lambda node_id: node_id not in untrusted,
        ),
    )


def run(seed: int, scenario: Callable[[Cluster], Coroutine[Any, Any, Any]], count: int = 3) -> None:
    with Cluster(seed, count, strict_messages=False) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, main)

        async def all_of_it() -> None:
            for node in cluster.nodes.values():
                await node.ready()
            await asyncio.sleep(CONVERGED_S)
            await scenario(cluster)

        cluster.run(all_of_it())


async def names() -> list[str]:
    return [node.name for node in nodes()]


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_find_each_other_and_their_actors_talk(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        for node in cluster.nodes.values():
            assert await node.call(names) == ["n1", "n2", "n3"]

        async def on_n1() -> None:
            assert await whereis_on("n3", Till, "till").add(5) == 5
            till = await start_on("n2", Till)
            assert await till.add(1) == 1
            gone = exit_reason(till)
            kill(till)
            assert await gone == "killed"
            with pytest.raises(NoConnection, match="there are: n1, n2, n3"):
                await start_on("n7", Till)

        await cluster.node("n1").call(on_n1)

    run(seed, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_asked_as_soon_as_it_is_connected(seed: int) -> None:
    with Cluster(seed, 3, strict_messages=False) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, main)

        async def scenario() -> None:
            for node in cluster.nodes.values():
                await node.ready()
            await asyncio.sleep(MEMBER_RECONNECT_EVERY_S * 0.75)
            for node in cluster.nodes.values():
                assert await node.call(names) == ["n1", "n2", "n3"]

        cluster.run(scenario())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_is_seen_by_all_and_the_node_comes_back(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        async def watch() -> Any:
            till = whereis_on("n1", Till, "till")
            assert await till.watch_nodes() == ["n1", "n2", "n3"]
            far = await start_on("n3", Till)
            await till.watch(far)
            return far

        far = await cluster.node("n1").call(watch)
        cluster.crash("n3")
        await asyncio.sleep(CONVERGED_S * 2)

        async def after() -> list[Any]:
            assert await names() == ["n1", "n2"]
            with pytest.raises(NoConnection):
                await far.add(1)
            return await whereis_on("n1", Till, "till").seen()

        seen = await cluster.node("n1").call(after)
        assert sorted(seen) == [("Down", "noconnection"), ("NodeDown", "n3")]
        cluster.restart("n3")
        await asyncio.sleep(CONVERGED_S * 2)

        async def back() -> list[Any]:
            assert await names() == ["n1", "n2", "n3"]
            assert await whereis_on("n3", Till, "till").add(2) == 2, "a new incarnation"
            return await whereis_on("n1", Till, "till").seen()

        assert (await cluster.node("n1").call(back))[2:] == [("NodeUp", "n3")]

    run(seed, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_span_nodes_and_lose_what_is_lost(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        async def join_own(name: str) -> None:
            await whereis_on(name, Till, "till").join("tills")

        for name, node in cluster.nodes.items():
            await node.call(join_own, name)
        await asyncio.sleep(CONVERGED_S)

        async def use() -> int:
            return sum([await member.add(1) for member in pg.members("tills")])

        assert await cluster.node("n2").call(use) == 3
        cluster.crash("n1")
        await asyncio.sleep(CONVERGED_S * 2)
        assert await cluster.node("n2").call(use) == 4

    run(seed, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_is_trusted_no_longer_is_cut_off(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        async def watch() -> None:
            till = whereis_on("n1", Till, "till")
            await till.watch_nodes()
            await till.watch(await start_on("n3", Till))

        await cluster.node("n1").call(watch)
        untrusted.add("n3")
        await asyncio.sleep(TRUST_CHECK_S * 2)

        async def after() -> list[Any]:
            with pytest.raises(NoConnection):
                await start_on("n3", Till)
            return await whereis_on("n1", Till, "till").seen()

        assert sorted(await cluster.node("n1").call(after)) == [("Down", "noconnection"), ("NodeDown", "n3")]
        await asyncio.sleep(CONVERGED_S * 2)
        assert await cluster.node("n1").call(names) == ["n1", "n2"]

    untrusted.clear()
    try:
        run(seed, scenario)
    finally:
        untrusted.clear()


def test_what_a_call_declares_to_raise_arrives_as_itself() -> None:
    class Odd(Exception):
        pass

    class Declares(Actor):
        @call(raises=(Odd,))
        def refuse(self) -> None:
            raise Odd

    assert Declares.blueprint.specs["refuse"].raises == (Odd,)
    assert exceptions[f"{Odd.__module__}:{Odd.__qualname__}"] is Odd


def test_without_a_cluster_there_is_one_node(world: Any, system: Any) -> None:
    async def alone() -> None:
        assert [node.name for node in nodes()] == ["test"]
        with pytest.raises(UsageError, match="in no cluster"):
            await start_on("other", Till)
        till = await start_on("test", Till)
        assert await till.add(1) == 1
        here = await start_child(child(Till).opts(name="here"))
        assert await whereis_on("test", Till, "here").add(1) == 1
        assert await start(Till) != here

    world.run(alone())
