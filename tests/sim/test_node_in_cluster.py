"""A whole `aspen.node.Node` runs in a cluster, as it does in production: the application does not know."""

from __future__ import annotations

import asyncio
from typing import Any

from aspen import Actor, Application, Supervisor, call, child, whereis
from aspen.node import Node, NodeConfig, Planned
from aspen.sim import Cluster, SimNode


class Counter(Actor):
    def __init__(self) -> None:
        self.n = 0

    @call
    def add(self, by: int) -> int:
        self.n += by
        return self.n


class Top(Supervisor):
    def children(self) -> Any:
        yield child(Counter).opts(name="counter")


class Shop(Application):
    name = "shop"

    def start(self, env: Any) -> Any:
        return child(Top)


def boot(node: SimNode) -> Any:
    assert node.ports
    real = Node(NodeConfig(name=node.name), node.ports, [Planned(Shop)], boot=node.boot)
    return real.run()


async def add(by: int) -> int:
    return await whereis(Counter, "counter").add(by)


def test_a_node_boots_crashes_restarts_and_stops() -> None:
    with Cluster(1, 2) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, boot)
        node = cluster.node("n1")

        async def scenario() -> list[int]:
            await asyncio.sleep(1)
            counts = [await node.call(add, 1), await node.call(add, 1)]
            cluster.crash("n1")
            cluster.restart("n1")
            await asyncio.sleep(1)
            counts.append(await node.call(add, 1))
            assert node.system.find(node.system.root.pid) is node.system.root
            await cluster.stop("n1")
            return counts

        assert cluster.run(scenario()) == [1, 2, 1]
        assert cluster.node("n1").state == "down"
        assert cluster.node("n2").state == "up"
        assert cluster.ghosts == []
