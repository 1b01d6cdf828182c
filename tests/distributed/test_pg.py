"""Process groups as actors use them, on one node and on three."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aspen import Actor, call, cast, info, start
from aspen.actor import System, pid_of
from aspen.distributed import pg
from aspen.distributed.pg import GroupChanged
from aspen.distributed.pg_port import PgPort
from aspen.errors import UsageError
from aspen.otp.starting import stop
from aspen.sim import Cluster, World
from aspen.sim.node import SimNode


class Worker(Actor):
    def __init__(self, *groups: str) -> None:
        self.seen: list[GroupChanged] = []
        for group in groups:
            pg.join(group)

    @cast
    def leave(self, group: str) -> None:
        pg.leave(group)

    @call
    def watch(self, group: str) -> tuple[int, int]:
        number, members = pg.monitor(group)
        return number, len(members)

    @cast
    def unwatch(self, number: int) -> None:
        pg.demonitor(number)

    @info(GroupChanged)
    def changed(self, message: GroupChanged) -> None:
        self.seen.append(message)

    @call
    def told(self) -> list[tuple[int, str, int, int]]:
        return [(m.monitor, m.group, len(m.joined), len(m.left)) for m in self.seen]

    @call
    def crash(self) -> None:
        raise RuntimeError("on purpose")


def test_an_actor_is_found_in_its_groups_as_often_as_it_joined(world: World, system: System) -> None:
    async def main() -> None:
        one, two = await start(Worker, "a", "b"), await start(Worker, "a", "a")
        assert pg.members("a") == pg.local_members("a") == [one, two, two]
        assert pg.members("b") == [one]
        assert pg.groups() == ["a", "b"]
        two.leave("a")
        await two.told()
        assert pg.members("a") == [one, two]
        two.leave("a")
        two.leave("a")
        await two.told()
        assert pg.members("a") == [one]
        assert await pg.members("b")[0].told() == []
        assert pg.members("nothing") == []

    world.run(main())


def test_an_actor_is_out_of_its_groups_before_anyone_learns_of_its_end(world: World, system: System) -> None:
    async def main() -> None:
        one, two = await start(Worker, "a", "b"), await start(Worker, "a")
        await stop(one)
        assert pg.members("a") == [two]
        assert pg.groups() == ["a"]
        with pytest.raises(Exception, match="on purpose"):
            await two.crash()
        assert pg.groups() == []
        pg.join("a", one)
        assert pg.members("a") == []

    world.run(main())


def test_a_monitor_is_told_of_each_change_until_it_is_taken_back(world: World, system: System) -> None:
    async def main() -> None:
        first = await start(Worker, "a")
        watcher = await start(Worker)
        number, members = await watcher.watch("a")
        assert members == 1
        second = await start(Worker, "a", "b")
        await stop(first)
        assert await watcher.told() == [(number, "a", 1, 0), (number, "a", 0, 1)]
        watcher.unwatch(number)
        await watcher.told()
        await stop(second)
        assert len(await watcher.told()) == 2
        await watcher.watch("b")
        await stop(watcher)
        table = pg.table_of(system)
        assert (table._monitors, table._watched, table._watchers, table._processes) == ({}, {}, set(), {})

    world.run(main())


def test_who_is_nobody_joins_nothing(world: World, system: System) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="no actor is calling"):
            pg.join("a")
        with pytest.raises(UsageError, match="1 to 200 characters"):
            pg.join("", await start(Worker))
        with pytest.raises(UsageError):
            pg.join("a", "somebody")

    world.run(main())


# -- three nodes --------------------------------------------------------------------------------------------------


class Three:
    """Three nodes that see each other, and whose groups are connected. Membership is the test's own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ports: dict[str, PgPort] = {}
        for name in cluster.nodes:
            cluster.boot(name, self.main)

    async def main(self, node: SimNode) -> None:
        assert node.ports is not None and node.ports.peers is not None
        peers, others = node.ports.peers, [name for name in self.cluster.nodes if name != node.name]
        table = pg.table_of(node.system)
        table.groups.name_self(node.name, node.boot)

        class Carrier:
            def send(self, peer: str, frame: bytes) -> None:
                peers.send(peer, 1, frame)

        port = self.ports[node.name] = PgPort(node.ports, table, Carrier(), lambda: others)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                port.on_frame(peer, frame)

            def on_peer_up(self, peer: str) -> None:
                pass

            def on_peer_down(self, peer: str) -> None:
                pass

        peers.listen(Handler())
        for other in others:
            peers.connect(other, f"sim://{other}")
            port.node_up(other, 1)
        port.begin()
        await asyncio.Event().wait()


@pytest.fixture
def three() -> Iterator[Three]:
    with Cluster(seed=5, nodes=3) as cluster:
        yield Three(cluster)


def ask(three: Three, name: str, group: str) -> Any:
    async def members() -> list[str]:
        return sorted(str(m) if not hasattr(m, "_p") else str(pid_of(m)) for m in pg.members(group))

    return three.cluster.node(name).call(members)


def test_members_are_seen_from_every_node_and_vanish_with_theirs(three: Three) -> None:
    async def begin(groups: tuple[str, ...]) -> None:
        await start(Worker, *groups)

    async def scenario() -> None:
        await asyncio.sleep(1)
        await three.cluster.node("n1").call(begin, ("g",))
        await three.cluster.node("n2").call(begin, ("g", "g"))
        await asyncio.sleep(1)
        views = [await ask(three, name, "g") for name in three.cluster.nodes]
        assert len(views[0]) == 3
        assert views[0] == views[1] == views[2]
        three.cluster.crash("n2")
        for name in ("n1", "n3"):
            three.ports[name].node_down("n2")
        await asyncio.sleep(1)
        views = [await ask(three, name, "g") for name in ("n1", "n3")]
        assert views[0] == views[1]
        assert len(views[0]) == 1

    three.cluster.run(scenario())


def test_what_was_lost_on_the_way_comes_with_the_next_comparison(three: Three) -> None:
    async def begin() -> None:
        await start(Worker, "g")

    async def scenario() -> None:
        await asyncio.sleep(1)
        heal = three.cluster.network.partition(["n1"], ["n2", "n3"])
        await three.cluster.node("n1").call(begin)
        await asyncio.sleep(30)
        assert await ask(three, "n3", "g") == []
        heal()
        await asyncio.sleep(15)
        assert len(await ask(three, "n3", "g")) == 1
        assert await ask(three, "n3", "g") == await ask(three, "n1", "g")

    three.cluster.run(scenario())
