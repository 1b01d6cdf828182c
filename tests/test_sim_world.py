"""The virtual world: time, order, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from aspen import Actor, call, start
from aspen.actor import System
from aspen.errors import EscapedSimulation
from aspen.sim import Deadlock, World


class Sleeper(Actor):
    @call(timeout=None)
    async def nap(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.ctx.now_ns()


def test_an_hour_passes_at_once(world: World, system: System) -> None:
    async def main() -> int:
        sleeper = await start(Sleeper)
        return await sleeper.nap(3600.0)

    assert world.run(main()) == 3_600_000_000_000


def test_asyncio_tools_work_in_virtual_time(world: World, system: System) -> None:
    async def main() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(n, n)) for n in (3, 1, 2)]
        return "".join(str(task.result()) for task in tasks)

    assert world.run(main()) == "312"
    assert world.clock.now_ns == 8_000_000_000


def test_the_real_world_is_refused_by_name(world: World) -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(EscapedSimulation, match="run_in_executor"):
        world.run(main())


def test_waiting_for_what_never_comes_is_a_deadlock(world: World) -> None:
    async def main() -> None:
        await world.loop.create_future()

    with pytest.raises(Deadlock):
        world.run(main())


def test_a_spinning_program_is_ended() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 -- it spins on purpose
            await asyncio.sleep(0)

    with World(steps_max=1000) as world, pytest.raises(EscapedSimulation, match="1000 callbacks"):
        world.run(main())


def test_one_seed_one_order() -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []

        class Noter(Actor):
            @call
            def note(self, n: int) -> None:
                seen.append(n)

        async def main() -> None:
            noters = [await start(Noter) for _ in range(20)]
            await asyncio.gather(*(noter.note(n) for n, noter in enumerate(noters)))

        with World(seed) as world:
            system = System("a", world.ports("a"), choose=world.choose)
            world.run(main())
            system.close()
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)
