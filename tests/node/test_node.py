"""A node with the whole tree of `supervisors`, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from aspen import Actor, Application, Child, Supervisor, call, child
from aspen.errors import ConfigError, StartFailed
from aspen.node import Node, NodeConfig, Planned
from aspen.node.node import root_cause
from aspen.otp.tree import resolve, tree
from aspen.sim import World
from aspen.sim.transport import VirtualTransport
from aspen.types import Secret

DEFAULTS = NodeConfig()
KEY = "k3y-that-must-not-leak"


class Till(Actor):
    @call
    def take(self, cents: int) -> int:
        return cents


class Shop(Supervisor):
    def children(self) -> Iterable[Child[Any]]:
        yield child(Till).opts(name="till")


class ShopApp(Application):
    name = "shop"
    env: Mapping[str, Any] = {"currency": "EUR"}

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Shop)


class NoPort(VirtualTransport):
    def bind_control(self, address: str, *rest: Any) -> Any:
        raise ConfigError(f"{address} is in use; choose another")


def node_of(world: World, transport: Any = None, config: NodeConfig = DEFAULTS) -> Node:
    ports = replace(world.ports("shop"), transport=transport)
    return Node(config, ports, [Planned(ShopApp)], curve_secret_z85=Secret(KEY))


def paths(node: Any) -> list[str]:
    return [node.path, *(path for inner in node.children for path in paths(inner))]


def test_the_tree_of_a_node(world: World) -> None:
    node = node_of(world, VirtualTransport(world.loop))

    async def main() -> int:
        running = world.loop.create_task(node.run())
        while not node.address or node.system.whereis("till") is None:
            await world.loop.create_task(_tick())
        assert paths(tree(node.system)) == [
            "/", "/shell", "/shell/sessions", "/shell/server", "/apps", "/shop", "/shop/till",
        ]  # fmt: skip
        assert resolve(node.system, "/shop/till").path == "/shop/till"
        node.request_stop(4)
        return await running

    assert world.run(main()) == 4
    assert not node.system.table


async def _tick() -> None:
    """Lets others run."""


def test_without_an_address_there_is_no_shell(world: World) -> None:
    node = node_of(world, VirtualTransport(world.loop), NodeConfig(address=""))

    async def main() -> None:
        await node.start()
        assert [inner.path for inner in tree(node.system).children] == ["/apps"]

    world.run(main())


def test_a_start_that_fails_says_why_and_leaks_no_key(world: World) -> None:
    node = node_of(world, NoPort(world.loop))

    async def main() -> None:
        with pytest.raises(StartFailed) as caught:
            await node.run()
        assert str(root_cause(caught.value)) == "tcp://127.0.0.1:0 is in use; choose another"

    world.run(main())
    assert node.system.crashes
    assert KEY not in repr(node.system.crashes)
    assert not node.system.table
