"""A node stops as soon as its foreground part has ended or it is asked to, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from aspen import Actor, Application, Applications, Child, Supervisor, child
from aspen.node import Node, Planned, read_config
from aspen.sim import World

ended: list[object] = []


class Careful(Actor):
    trap_exit = True

    def terminate(self, reason: object) -> None:
        ended.append(reason)


class Top(Supervisor):
    def children(self) -> Iterable[Child[Any]]:
        yield child(Careful)


class Quiet(Application):
    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Top)


class Hangs(Actor):
    async def init(self) -> None:
        await asyncio.sleep(3_600.0)


class HalfStarted(Supervisor):
    def children(self) -> Iterable[Child[Any]]:
        yield child(Careful)
        yield child(Hangs)


class NeverStarts(Application):
    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(HalfStarted)


class Brief(Quiet):
    async def main(self, env: Mapping[str, Any]) -> int:
        await asyncio.sleep(1.0)
        return 3


class Exits(Quiet):
    end: BaseException = SystemExit(4)

    async def main(self, env: Mapping[str, Any]) -> int:
        await asyncio.sleep(1.0)
        raise self.end


class Interrupted(Exits):
    end = KeyboardInterrupt()


class SaysWhy(Exits):
    end = SystemExit("no eels today")


class Root(Supervisor):
    def __init__(self, node: Node) -> None:
        self._node = node

    def children(self) -> Iterable[Child[Any]]:
        node = self._node
        yield child(Applications, node.application_ended, node.plan_with_settings()).opts(
            id="apps", shutdown="infinity"
        )


def lived(app: type[Application], stop_after_s: float | None = None) -> tuple[int, float]:
    """The exit code of a node that runs `app`, and how long it lived in virtual seconds."""
    ended.clear()
    with World() as world:

        async def main() -> int:
            config = read_config(flags={"node.root": f"{__name__}:Root"})
            node = Node(config, world.ports("a"), [Planned(app)])
            if stop_after_s is not None:
                world.loop.call_later(stop_after_s, node.request_stop)
            return await node.run()

        code = world.run(main())
        return code, world.clock.now_ns / 1e9


def test_the_end_of_the_foreground_part_stops_the_tree_in_order() -> None:
    assert lived(Brief) == (3, 1.0)
    assert ended == ["shutdown"]


@pytest.mark.parametrize(("app", "code"), [(Exits, 4), (Interrupted, 130), (SaysWhy, 1)])
def test_a_foreground_part_that_would_end_python_ends_the_node_in_order(app: type[Application], code: int) -> None:
    assert lived(app) == (code, 1.0)
    assert ended == ["shutdown"]


def test_a_request_to_stop_does_too() -> None:
    assert lived(Quiet, stop_after_s=2.0) == (0, 2.0)
    assert ended == ["shutdown"]


def test_a_request_to_stop_ends_a_start_that_hangs() -> None:
    assert lived(NeverStarts, stop_after_s=2.0) == (0, 2.0)
    assert ended == ["shutdown"]
