"""Guards: an actor that may act no more handles nothing, and goes on with nothing. Names that are claimed before the
actor is made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from puppets import Boom, over_seeds

from aspen import Actor, ActorFailed, NoProc, StartFailed, call, cast, child, exit_reason, kill, start, start_child
from aspen.actor import Claimed, Guard, Process, System, process_of
from aspen.errors import AlreadyRegistered


class Until(Guard):
    """Lapses when it is told to."""

    def __init__(self) -> None:
        self.reason: object = None
        self.asked = 0

    def lapsed(self) -> object:
        self.asked += 1
        return self.reason

    def kv(self) -> Any:
        return None


class Worker(Actor):
    """Notes what it does."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.guard = Until()

    @cast
    def note(self, what: str) -> None:
        self.done.append(what)

    @cast
    def lapse(self) -> None:
        self.guard.reason = "over"

    @call(timeout=60.0)
    async def sleep(self, seconds: float) -> None:
        self.done.append("begun")
        await asyncio.sleep(seconds)
        self.done.append("gone on")

    async def terminate(self, reason: object) -> None:
        self.done.append(f"ended by {reason}")


async def guarded() -> tuple[Any, Until, list[str]]:
    worker = await start(Worker)
    process = process_of(worker)
    actor: Any = process.actor
    process.system.guard(process, actor.guard)
    return worker, actor.guard, actor.done


def test_what_comes_after_it_has_lapsed_is_refused() -> None:
    async def program(system: System) -> None:
        worker, _, done = await guarded()
        worker.note("before")
        await asyncio.sleep(0.1)
        worker.lapse()
        worker.note("after")
        refused = worker.sleep(1)
        with pytest.raises(NoProc):
            await refused
        assert done == ["before", "ended by over"]
        assert await exit_reason(worker) == "noproc"

    over_seeds(program)


def test_a_handler_goes_on_after_no_await() -> None:
    async def program(system: System) -> None:
        worker, guard, done = await guarded()
        asleep, ended = worker.sleep(5), exit_reason(worker)
        await asyncio.sleep(1)
        guard.reason = "over"
        with pytest.raises(ActorFailed, match="over"):
            await asleep
        assert await ended == "over"
        assert done == ["begun"]

    over_seeds(program)


def test_it_is_asked_at_once_when_somebody_says_so() -> None:
    async def program(system: System) -> None:
        worker, guard, done = await guarded()
        process = process_of(worker)
        asleep = worker.sleep(50)
        await asyncio.sleep(1)
        process.system.look_at(process)
        await asyncio.sleep(1)
        assert process.alive
        guard.reason = "over"
        process.system.look_at(process)
        await asyncio.sleep(0.1)
        assert not process.alive and done == ["begun"]
        with pytest.raises(ActorFailed):
            await asleep

    over_seeds(program)


@dataclass(frozen=True)
class Slow(Claimed):
    """A name that comes after a while, or not."""

    log: tuple[list[str], ...]
    error: str = ""

    async def claim(self, system: System, process: Process) -> None:
        (log,) = self.log
        log.append("asked")
        await asyncio.sleep(1)
        if self.error == "taken":
            raise AlreadyRegistered("taken")
        if self.error:
            raise Boom(self.error)
        log.append("had")
        process.more().names.append(lambda: log.append("given up"))

    def register(self, system: System, process: Process) -> None:
        raise NotImplementedError

    def unregister(self, system: System, process: Process) -> None:
        raise NotImplementedError

    def whereis(self, system: System) -> Process | None:
        return None

    def __hash__(self) -> int:
        return id(self)


class Made(Actor):
    """Says when it is made."""

    def __init__(self, log: list[str]) -> None:
        log.append("made")
        self._log = log

    async def init(self) -> None:
        self._log.append("ready")

    @call
    def ask(self) -> str:
        return "answer"


def test_an_actor_is_made_when_its_name_has_come() -> None:
    async def program(system: System) -> None:
        log: list[str] = []
        made = await start_child(child(Made, log).opts(name=Slow((log,)), id="made"))
        assert log == ["asked", "had", "made", "ready"]
        assert await made.ask() == "answer"
        kill(made)
        assert await exit_reason(made) in ("killed", "noproc")
        assert log[-1] == "given up"

    over_seeds(program)


def test_a_name_that_does_not_come_fails_the_start() -> None:
    async def program(system: System) -> None:
        log: list[str] = []
        with pytest.raises(AlreadyRegistered, match="taken"):
            await start_child(child(Made, log).opts(name=Slow((log,), "taken"), id="made"))
        with pytest.raises(StartFailed) as failed:
            await start_child(child(Made, log).opts(name=Slow((log,), "boom"), id="made"))
        assert isinstance(failed.value.__cause__, Boom)
        assert log == ["asked", "asked"]

    over_seeds(program)


def test_who_stops_waiting_ends_the_claim() -> None:
    async def program(system: System) -> None:
        log: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await start_child(child(Made, log).opts(name=Slow((log,)), id="made"))
        await asyncio.sleep(2)
        assert log == ["asked"]

    over_seeds(program)
