"""The stall watchdog names the actor, the handler and its stack. It watches real time from a thread of its own, so
its handlers really hold the loop: for a third of a second each, three times the limit."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from aspen import Actor, ActorFailed, call, start
from aspen.actor import System
from aspen.io import real_ports
from aspen.io.watchdog import Stall, Watchdog
from aspen.limits import STALL_MS

HOLD_S = 3 * STALL_MS / 1000 + 0.05


class Interrupted_(BaseException):
    """Raised in a handler that holds the loop."""


class Blocker(Actor):
    @call
    def hold(self) -> None:
        self._inner()

    @call
    async def hold_async(self) -> None:
        await asyncio.sleep(0)
        self._inner()

    @call
    def spin(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            pass

    @call
    def quick(self) -> None: ...

    def _inner(self) -> None:
        time.sleep(HOLD_S)


def _watched(main: Any, error: type[BaseException] | None = None) -> list[Stall]:
    stalls: list[Stall] = []

    def stalled(stall: Stall) -> type[BaseException] | None:
        stalls.append(stall)
        return error

    loop = asyncio.new_event_loop()
    system = System("real", real_ports(loop))
    watchdog = Watchdog(system.scheduler, stalled, beat=lambda: 0)
    try:
        loop.run_until_complete(main(stalls))
    finally:
        watchdog.close()
        system.close()
        loop.close()
    return stalls


@pytest.mark.parametrize("name", ["hold", "hold_async"])
def test_watchdog_names_actor_handler_and_stack_once(name: str) -> None:
    async def main(stalls: list[Stall]) -> None:
        blocker = await start(Blocker)
        await blocker.quick()
        await getattr(blocker, name)()
        await blocker.quick()

    (stall,) = _watched(main)
    assert "Blocker" in repr(stall.actor)
    assert stall.handler == f"Blocker.{name}"
    assert "_inner" in stall.stack
    assert STALL_MS <= stall.held_ms < 1000 * HOLD_S


def test_watchdog_can_interrupt_what_holds_the_loop() -> None:
    async def main(stalls: list[Stall]) -> None:
        blocker = await start(Blocker)
        with pytest.raises(ActorFailed, match="Interrupted_"):
            await blocker.spin()
        assert await (await start(Blocker)).quick() is None

    assert _watched(main, Interrupted_)


def test_watchdog_says_nothing_of_a_busy_loop_that_goes_round() -> None:
    async def main(stalls: list[Stall]) -> None:
        blocker = await start(Blocker)
        end = time.monotonic() + HOLD_S
        while time.monotonic() < end:
            await blocker.quick()

    assert _watched(main) == []
