"""The client's side of a session, step by step."""

from __future__ import annotations

import asyncio
from typing import Any

from aspen.kv.session import Session
from aspen.sim import World


def test_a_caller_may_come_between_the_end_of_an_opening_and_its_callback(world: World) -> None:
    """It spun for ever: what it waited for was done, so that it never let the callback run."""
    ready: list[bool] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def come() -> None:
            waiting: Any = session.ready()
            waits = 0
            while waits < 3:
                try:
                    waiting.send(None)
                except StopIteration:
                    break
                waits += 1
            ready.append(waits == 0)

        async def open_one() -> int:
            loop.call_soon(come)
            return 7

        session = Session(loop, open_one)
        await session.ready()
        assert session.id == 7
        assert session.number() == (7, 1, 1)
        await asyncio.sleep(1)
        assert session.number() == (7, 2, 1)

    world.run(main())
    assert ready == [True]
