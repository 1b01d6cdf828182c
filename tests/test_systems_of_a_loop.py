"""One loop may run one node after another."""

from __future__ import annotations

import pytest

import aspen
from aspen.actor import System, system_of_loop
from aspen.errors import UsageError
from aspen.sim import World


def test_the_latest_system_of_a_loop_is_its_system(world: World) -> None:
    async def main() -> None:
        first = System("first", world.ports("first"))
        assert system_of_loop() is first
        first.close()
        second = System("second", world.ports("second"))
        assert system_of_loop() is second

    world.run(main())


def test_run_within_a_running_loop_says_what_to_do(world: World) -> None:
    async def inner() -> None: ...

    async def main() -> None:
        with pytest.raises(UsageError, match="await the coroutine"):
            aspen.run(inner())

    world.run(main())
