"""A child of a `DynamicSupervisor` that asks not to run."""

from __future__ import annotations

import pytest

from aspen.actor import System
from aspen.otp import Actor, DynamicSupervisor, child, is_alive, start
from aspen.sim import World
from aspen.types import Ignore


class Unwilling(Actor):
    def __init__(self) -> None:
        raise Ignore


class UnwillingLater(Actor):
    async def init(self) -> None:
        raise Ignore


@pytest.mark.parametrize("cls", [Unwilling, UnwillingLater])
def test_a_child_that_asks_not_to_run_is_told_to_the_caller_and_forgotten(
    system: System, world: World, cls: type[Actor]
) -> None:
    async def main() -> None:
        supervisor = await start(DynamicSupervisor)
        with pytest.raises(Ignore):
            await supervisor.start_child(child(cls))
        assert is_alive(supervisor)
        assert (await supervisor.count_children())["specs"] == 0

    world.run(main())
