"""Handlers use asyncio and anyio as any task does, on asyncio's loop, on uvloop and in the virtual world."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from types import coroutine
from typing import Any

import anyio
import pytest
import uvloop
from puppets import Boom, ended

from aspen import Actor, ActorFailed, CallTimeout, call, cast, kill, start
from aspen.actor import System
from aspen.io import real_ports
from aspen.sim import World

SOON = 0.02
LATE = 30.0
"""Never waited for: what it delays is cancelled."""

Main = Callable[[System], Awaitable[Any]]


def _real(main: Main, loop: asyncio.AbstractEventLoop) -> Any:
    unhandled: list[Any] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    system = System("real", real_ports(loop))
    try:
        result = loop.run_until_complete(asyncio.wait_for(main(system), LATE))
    finally:
        system.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert unhandled == []
    return result


def _virtual(main: Main) -> Any:
    with World(0) as world:
        system = System("virtual", world.ports("virtual"), choose=world.choose)

        async def run() -> Any:
            return await main(system)

        result = world.run(run())
        system.close()
        assert world.loop.unhandled == []
        return result


LOOPS = {
    "virtual": _virtual,
    "asyncio": lambda main: _real(main, asyncio.new_event_loop()),
    "uvloop": lambda main: _real(main, uvloop.new_event_loop()),
}


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    return LOOPS[request.param]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@coroutine
def _yielding() -> Any:
    """A generator-based awaitable that lets the loop turn."""
    yield
    return "yielded"


class Worker(Actor):
    """One handler for each of asyncio's tools."""

    def __init__(self) -> None:
        self._log: list[str] = []

    @call(timeout=None)
    async def echo(self, seconds: float, value: Any) -> Any:
        await asyncio.sleep(seconds)
        return value

    @call
    def log(self) -> list[str]:
        return list(self._log)

    @call
    async def timeout(self, other: Any) -> list[str]:
        seen = []
        for waiting in (asyncio.sleep(LATE), other.echo(LATE, 1), asyncio.get_running_loop().create_future()):
            try:
                async with asyncio.timeout(SOON):
                    await waiting
            except TimeoutError:
                seen.append("timeout")
        async with asyncio.timeout(LATE):
            await asyncio.sleep(0)
            seen.append("in time")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return seen

    @call
    async def group(self, other: Any) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._child(other, n)) for n in range(3)]
        return [task.result() for task in tasks]

    async def _child(self, other: Any, n: int) -> int:
        await asyncio.sleep(0)
        return await other.quick(n)

    @call
    def quick(self, n: int) -> int:
        return n * n

    @call
    async def group_fails(self) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forever())
                group.create_task(self._fail())
                await asyncio.sleep(LATE)
        except* Boom:
            pass
        return "caught"

    async def _forever(self) -> None:
        try:
            await asyncio.sleep(LATE)
        finally:
            self._log.append("cancelled")

    async def _fail(self) -> None:
        await asyncio.sleep(0)
        raise Boom

    @call
    async def waits(self, other: Any) -> list[Any]:
        gathered = await asyncio.gather(other.quick(2), asyncio.sleep(0, 5), other.quick(3))
        waited = await asyncio.wait_for(other.quick(4), LATE)
        shielded = await asyncio.shield(other.quick(5))
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(other.quick(6)), asyncio.ensure_future(other.echo(LATE, 0))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait_for(other.quick_late(), SOON)
        except (TimeoutError, CallTimeout):
            gathered.append("late")
        return [*gathered, waited, shielded, *(task.result() for task in done)]

    @call(timeout=None)
    async def quick_late(self) -> None:
        await asyncio.sleep(LATE)

    @call
    async def with_anyio(self, other: Any) -> list[Any]:
        seen: list[Any] = []
        with anyio.move_on_after(SOON) as scope:
            await other.echo(LATE, 1)
        seen.append(scope.cancelled_caught)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await asyncio.sleep(LATE)
        seen.append(scope.cancelled_caught)
        send, receive = anyio.create_memory_object_stream[int](1)
        async with anyio.create_task_group() as group, receive:
            group.start_soon(self._send, send)
            async for item in receive:
                seen.append(item)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(SOON):
                await anyio.sleep(LATE)
        await anyio.lowlevel.checkpoint()
        return seen

    async def _send(self, send: Any) -> None:
        async with send:
            for n in range(3):
                await send.send(n)

    @call
    async def primitives(self) -> list[Any]:
        lock, event, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue[int](1)
        asyncio.get_running_loop().call_soon(event.set)
        async with lock:
            await event.wait()
        await queue.put(1)
        return [await queue.get(), await _yielding(), await asyncio.to_thread(int, "7") if self._real() else 7]

    def _real(self) -> bool:
        return self.ctx.system.name == "real"

    @call
    async def context(self, value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        return before, variable.get()

    @call(raises=(RuntimeError,))
    async def foreign(self, future: Any) -> None:
        await future

    @call
    async def cancels_itself(self) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("enough")
        try:
            await asyncio.sleep(LATE)
        except asyncio.CancelledError as error:
            task.uncancel()
            return str(error)
        return "not cancelled"

    @call
    async def cancelled_between_turns(self) -> str:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel, "between")
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(LATE)
        except asyncio.CancelledError as error:
            task.uncancel()
            return str(error)
        return "not cancelled"

    @call
    async def never_awaits(self) -> str:
        return "at once"

    @cast
    async def stuck_in_group(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._forever)
            group.start_soon(self._forever)


def test_asyncio_timeout(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        worker, other = await start(Worker), await start(Worker)
        assert await worker.timeout(other) == ["timeout"] * 3 + ["in time"]

    run(main)


def test_asyncio_task_groups(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        worker, other = await start(Worker), await start(Worker)
        assert await worker.group(other) == [0, 1, 4]
        assert await worker.group_fails() == "caught"
        assert await worker.log() == ["cancelled"]

    run(main)


def test_asyncio_gather_wait_for_shield_and_wait(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        worker, other = await start(Worker), await start(Worker)
        assert await worker.waits(other) == [4, 5, 9, "late", 16, 25, 36]

    run(main)


def test_asyncio_anyio_scopes_groups_and_streams(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        worker, other = await start(Worker), await start(Worker)
        assert await worker.with_anyio(other) == [True, True, 0, 1, 2]

    run(main)


def test_asyncio_primitives_generators_and_threads(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        assert await (await start(Worker)).primitives() == [1, "yielded", 7]

    run(main)


def test_asyncio_context_variables_stay_in_their_handler(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        variable.set("outside")
        worker = await start(Worker)
        assert await worker.context("one") == ("unset", "one"), "nor do a sender's come in"
        assert await worker.context("two") == ("unset", "two")
        assert variable.get() == "outside"

    contextvars.Context().run(run, main)


def test_asyncio_a_future_of_another_loop_is_refused(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        other = asyncio.new_event_loop()
        try:
            with pytest.raises(RuntimeError, match="another event loop"):
                await (await start(Worker)).foreign(other.create_future())
        finally:
            other.close()

    run(main)


def test_asyncio_a_handler_may_cancel_itself(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        worker = await start(Worker)
        assert await worker.cancels_itself() == "enough"
        assert await worker.cancelled_between_turns() == "between"
        assert await worker.never_awaits() == "at once"

    run(main)


def test_asyncio_a_kill_reaches_an_anyio_task_group(run: Callable[[Main], Any]) -> None:
    async def main(system: System) -> None:
        worker = await start(Worker)
        actor = worker._p.actor
        worker.stuck_in_group()
        for _ in range(10):
            await asyncio.sleep(0)
        kill(worker)
        assert await ended(worker) == "killed"
        for _ in range(10):
            await asyncio.sleep(0)
        assert actor._log == ["cancelled", "cancelled"], "no child goes on alone"
        assert not system.crashes

    run(main)


def test_asyncio_many_callers_and_a_crash(run: Callable[[Main], Any]) -> None:
    class Fragile(Actor):
        @call
        async def work(self, n: int) -> int:
            await asyncio.sleep(0)
            if n == 50:
                raise Boom
            return n

    async def main(system: System) -> None:
        fragile = await start(Fragile)
        outcomes = await asyncio.gather(*(fragile.work(n) for n in range(100)), return_exceptions=True)
        assert outcomes[:50] == list(range(50))
        assert isinstance(outcomes[50], ActorFailed)
        assert {type(outcome).__name__ for outcome in outcomes[51:]} == {"NoProc"}

    run(main)
