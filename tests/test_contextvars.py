"""Actors do not see the context variables of whoever happened to wake the node's loop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from aspen.actor import System
from aspen.errors import ActorFailed
from aspen.otp import Actor, call, kill, start
from aspen.sim import World

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Reader(Actor):
    def __init__(self) -> None:
        self._timed = ""

    @call
    def read(self) -> str:
        return WHO.get()

    @call(timeout=None)
    async def set_until_the_end(self) -> None:
        token = WHO.set("me")
        try:
            await asyncio.Event().wait()
        finally:
            WHO.reset(token)

    @call
    async def read_later(self) -> str:
        await asyncio.sleep(0.1)
        return WHO.get()

    @call
    def read_by_timer(self, after_s: float) -> None:
        def fire() -> None:
            self._timed = WHO.get()

        self.ctx.call_after(after_s, fire)

    @call
    def timed(self) -> str:
        return self._timed


def test_context_variables_of_a_caller_stay_with_the_caller(system: System, world: World) -> None:
    async def main() -> None:
        reader = await start(Reader)

        async def ask() -> list[str]:
            WHO.set("caller")
            await reader.read_by_timer(0.05)
            # Started by the caller: its first handler copies the context that the kernel runs it in.
            fresh = await start(Reader)
            answers = [await reader.read(), await reader.read_later(), await fresh.read(), await fresh.read_later()]
            return [*answers, await reader.timed()]

        assert await asyncio.create_task(ask()) == ["nobody"] * 5

    world.run(main())


def test_a_killed_handler_cleans_up_in_its_own_context(system: System, world: World) -> None:
    async def main() -> None:
        reader = await start(Reader)
        waiting = reader.set_until_the_end()
        await asyncio.sleep(0.1)
        kill(reader)
        with pytest.raises(ActorFailed, match="killed"):
            await waiting
        assert not system.crashes

    world.run(main())
