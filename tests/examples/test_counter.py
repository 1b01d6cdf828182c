"""The counter, started as an application."""

from __future__ import annotations

import inspect

import examples.counter
from aspen import Applications, System, kill, start, whereis
from aspen.sim import World
from examples.counter import Counter, CounterApp


def test_it_counts_and_heals(world: World, system: System) -> None:
    async def before() -> None:
        applications = await start(Applications)
        assert await applications.start_application(CounterApp) == ["counter"]
        hits = whereis(Counter, "hits")
        assert [await hits.add(2), await hits.add(3)] == [2, 5]
        hits.reset()
        assert await hits.add(1) == 1
        assert await whereis(Counter, "misses").add(7) == 7
        kill(hits)

    async def after() -> None:
        assert await whereis(Counter, "hits").add(1) == 1
        assert await whereis(Counter, "misses").add(1) == 8

    world.run(before())
    world.run_for(1.0)
    world.run(after())


def test_it_is_twenty_lines() -> None:
    source = inspect.getsource(examples.counter)
    assert sum(1 for line in source.splitlines() if line.strip()) <= 20
