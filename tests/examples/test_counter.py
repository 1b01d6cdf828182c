"""The counter, started as an application."""

from __future__ import annotations

from aspen import Applications, System, kill, start, whereis
from aspen.sim import World
from examples.counter import Counter, Tally


def test_it_counts_and_heals(world: World, system: System) -> None:
    async def main() -> None:
        applications = await start(Applications)
        assert await applications.start_application(Counter) == ["counter"]
        tally = whereis(Tally, "tally")
        assert [await tally.add(2), await tally.add(3)] == [2, 5]
        kill(tally)

    async def after() -> None:
        assert await whereis(Tally, "tally").add(1) == 1

    world.run(main())
    world.run_for(1.0)
    world.run(after())


def test_it_is_twenty_lines() -> None:
    import ast
    import inspect

    import examples.counter

    source = inspect.getsource(examples.counter)
    code = [line for line in source.splitlines() if line.strip() and not line.startswith(('"""', "then"))]
    assert ast.parse(source)
    assert len(code) <= 20
