"""What the kernel's tests share: an actor that does as it is told, and a way to run a program over many seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aspen import Actor, Stop, call, cast, exit_reason
from aspen.actor import System, process_of
from aspen.sim import World

SEEDS = 20
STEPS_MAX = 200_000


class Boom(Exception):
    """A crash on purpose."""


class Puppet(Actor):
    """Does as it is told, and notes what comes."""

    def __init__(self, trap: bool = False) -> None:
        self.ctx.trap_exit = trap
        self._seen: list[Any] = []
        self._ended: list[Any] = []

    # -- what it does --

    @call
    def link(self, ref: Any) -> None:
        self.ctx.link(ref)

    @call
    def unlink(self, ref: Any) -> None:
        self.ctx.unlink(ref)

    @call
    def monitor(self, ref: Any) -> int:
        return self.ctx.monitor(ref)

    @call
    def demonitor(self, number: int, flush: bool = False) -> bool:
        return self.ctx.demonitor(number, flush=flush)

    @call
    def trap(self, on: bool) -> None:
        self.ctx.trap_exit = on

    @call
    def exit_to(self, ref: Any, reason: Any) -> None:
        self.ctx.exit(ref, reason)

    @call
    def register(self, name: str) -> None:
        self.ctx.register(name)

    @call
    def seen(self) -> list[Any]:
        return list(self._seen)

    @call
    def pid_serial(self) -> int:
        return self.ctx.pid.serial

    @cast
    def note(self, what: Any) -> None:
        self._seen.append(what)

    @call
    def noted(self, what: Any) -> None:
        self._seen.append(what)

    @cast
    def stop(self, reason: Any = "normal") -> None:
        raise Stop(reason)

    @cast
    def crash(self, text: str = "boom") -> None:
        raise Boom(text)

    @call
    def crash_call(self, text: str = "boom") -> None:
        raise Boom(text)

    @call(timeout=None)
    async def nap(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        self._seen.append("woke")
        return "rested"

    @cast
    async def doze(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._seen.append("woke")

    @call(timeout=None)
    async def ask(self, ref: Any, seconds: float = 0.0) -> Any:
        """Calls `pid_serial` of another, after a while."""
        if seconds:
            await asyncio.sleep(seconds)
        return await ref.pid_serial()

    @call(timeout=None)
    async def ask_nap(self, ref: Any, seconds: float) -> Any:
        return await ref.nap(seconds)

    def handle_info(self, message: object) -> None:
        self._seen.append(message)

    def terminate(self, reason: object) -> None:
        TERMINATED.append((self.ctx.pid.serial, reason))


TERMINATED: list[tuple[int, object]] = []
"""Each `terminate` of a puppet, as (serial, reason); cleared for each run of `over_seeds`."""


def over_seeds(
    main: Callable[[System], Awaitable[Any]], seeds: int = SEEDS, *, unhandled: int = 0, messages: str = "both"
) -> list[Any]:
    """Runs `main(system)` in a new world for each seed, strict and not; checks that nothing was left behind.

    Afterwards every live actor is killed: the tables must be empty and no timer pending.
    """
    results = []
    for seed in range(seeds):
        for strict in (True, False):
            if messages == "loose" and strict:
                continue
            TERMINATED.clear()
            with World(seed=seed, steps_max=STEPS_MAX) as world:
                system = System("test", world.ports("test"), strict_messages=strict, choose=world.choose)
                results.append(world.run(_run(main, system)))
                world.run_for(1.0)
                assert len(world.loop.unhandled) == unhandled, world.loop.unhandled
                clean_up(world, system)
                system.close()
    return results


async def _run(main: Callable[[System], Awaitable[Any]], system: System) -> Any:
    return await main(system)


def clean_up(world: World, system: System) -> None:
    """Kills what still runs, and checks that the kernel keeps nothing of it."""
    for process in list(system.table.values()):
        system.exit(None, process, "kill")
    world.run_for(0.001)
    assert system.table == {}
    assert system.names == {}
    left = [entry for _, _, entry in system.scheduler._heap if entry.pending]
    # What is left are looks at deadlines, which end by themselves; none belongs to an actor's own timer.
    assert all(entry.on_done is None for entry in left)


async def ended(ref: Any) -> object:
    """The exit reason of an actor, which ends or has ended."""
    return await exit_reason(ref)


async def settle() -> None:
    """Lets everything happen that is going to, in a moment of virtual time."""
    await asyncio.sleep(0.001)


def reports(system: System) -> list[str]:
    """The reasons of the crash reports."""
    return [report.reason for report in system.crashes]


def state(ref: Any) -> Any:
    """The process behind a ref."""
    return process_of(ref)
