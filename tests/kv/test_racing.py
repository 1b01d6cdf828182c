"""Ways to the store that are tried beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aspen.errors import AccessDenied, AspenError, NotReachable
from aspen.kv.racing import first_open
from aspen.sim import World

AFTER_S = 0.25


class Opened:
    def __init__(self, way: str) -> None:
        self.way, self.closed = way, False

    def close(self) -> None:
        self.closed = True


class Node:
    """Answers after so long, or fails."""

    def __init__(self, takes_s: float, error: AspenError | None = None, *, stubborn: bool = False) -> None:
        self.takes_s, self.error, self.stubborn = takes_s, error, stubborn
        self.begun_s = -1.0
        self.opened: Opened | None = None
        self.given_up = False


def race(world: World, nodes: dict[str, Node]) -> tuple[str, float]:
    """Who won, and after how long."""
    loop_s: Callable[[], float] = lambda: asyncio.get_running_loop().time()  # noqa: E731 -- short

    async def main() -> tuple[str, float]:
        running: set[asyncio.Task[None]] = set()
        began_s = loop_s()

        async def open_way(way: str) -> Opened:
            node = nodes[way]
            node.begun_s = loop_s() - began_s
            try:
                await asyncio.sleep(node.takes_s)
            except asyncio.CancelledError:
                node.given_up = True
                if not node.stubborn:
                    raise
            if node.error is not None:
                raise node.error
            node.opened = Opened(way)
            return node.opened

        try:
            found = await first_open(list(nodes), open_way, AFTER_S, running)
            took_s = loop_s() - began_s
        finally:
            while running:
                await asyncio.wait(set(running))
        assert not found.closed
        return found.way, took_s

    return world.run(main())


def test_one_that_answers_in_time_is_taken_alone(world: World) -> None:
    nodes = {"a": Node(0.2), "b": Node(0.0)}
    assert race(world, nodes)[0] == "a"
    assert nodes["b"].begun_s == -1.0


def test_the_next_is_tried_beside_one_that_takes_its_time(world: World) -> None:
    nodes = {"a": Node(4.0), "b": Node(9.0), "c": Node(0.1)}
    way, took_s = race(world, nodes)
    assert way == "c"
    assert took_s == pytest.approx(2 * AFTER_S + 0.1)
    assert nodes["a"].given_up and nodes["b"].given_up


def test_the_next_is_tried_at_once_when_one_fails(world: World) -> None:
    nodes = {"a": Node(0.01, NotReachable("gone")), "b": Node(0.01, AccessDenied("no")), "c": Node(0.01)}
    way, took_s = race(world, nodes)
    assert way == "c"
    assert took_s == pytest.approx(0.03)


def test_a_slow_one_may_win_after_all(world: World) -> None:
    assert race(world, {"a": Node(1.0), "b": Node(0.1, NotReachable("gone"))})[0] == "a"


def test_what_opens_too_late_is_closed(world: World) -> None:
    nodes = {"a": Node(4.0, stubborn=True), "b": Node(0.0)}
    assert race(world, nodes)[0] == "b"
    assert nodes["a"].opened is not None and nodes["a"].opened.closed


def test_when_none_opens_a_refusal_is_told_before_what_came_first(world: World) -> None:
    with pytest.raises(NotReachable, match="first"):
        race(world, {"a": Node(0.5, NotReachable("first")), "b": Node(0.0, NotReachable("second"))})
    with pytest.raises(AccessDenied, match="no"):
        race(world, {"a": Node(0.5, NotReachable("first")), "b": Node(0.0, AccessDenied("no"))})
