"""Tasks: linked and supervised, awaited and streamed, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from aspen import (
    Actor,
    ActorFailed,
    CallCycle,
    CallTimeout,
    ChildrenMax,
    Exit,
    Failed,
    NoProc,
    Ok,
    Supervisor,
    Task,
    TaskSupervisor,
    UsageError,
    async_stream,
    call,
    child,
    exit_reason,
    info,
    is_alive,
    kill,
    start,
    stop,
    whereis,
)
from aspen.actor import System
from aspen.sim import World

SEEDS = range(5)


def run(main: Any, seed: int = 0) -> System:
    with World(seed=seed) as world:
        system = System("test", world.ports("test"), strict_messages=True, choose=world.choose)
        world.run(main())
        system.close()
    return system


async def double(n: int, after: float = 0.0) -> int:
    await asyncio.sleep(after)
    return 2 * n


async def fail(n: int = 0) -> int:
    raise ValueError(f"no {n}")


class Owner(Actor):
    """Does what a test wants in an actor."""

    def __init__(self, work: Callable[[Owner], Any]) -> None:
        self._work = work
        self.seen: list[Any] = []

    @call(timeout=None, raises=(CallTimeout, ChildrenMax, UsageError))
    async def work(self) -> Any:
        return await self._work(self)

    @call
    def ping(self) -> str:
        return "pong"

    @call
    def heard(self) -> list[str]:
        return self.seen


class Trapper(Owner):
    trap_exit = True

    @info(Exit)
    def exited(self, message: Exit) -> None:
        self.seen.append(str(message.reason))


def test_a_task_brings_its_result() -> None:
    async def work(_: Owner) -> Any:
        slow, fast = Task.async_(double, 1, after=2.0), Task.async_(lambda: "sync")
        return [await fast, await slow, slow.done]

    async def main() -> None:
        assert await (await start(Owner, work)).work() == ["sync", 2, True]
        assert await Task.async_(double, 4) == 8

    for seed in SEEDS:
        run(main, seed)


def test_a_crash_of_the_task_crashes_its_owner() -> None:
    async def work(_: Owner) -> Any:
        return await Task.async_(fail)

    async def main() -> None:
        owner = await start(Owner, work)
        ended = exit_reason(owner)
        with pytest.raises(ActorFailed):
            await owner.work()
        assert isinstance(await ended, ValueError)

    for seed in SEEDS:
        run(main, seed)


def test_an_owner_that_traps_exits_gets_the_error_and_the_exit() -> None:
    async def work(_: Owner) -> Any:
        try:
            return await Task.async_(fail)
        except ActorFailed as error:
            return repr(error.__cause__)

    async def main() -> None:
        owner = await start(Trapper, work)
        assert await owner.work() == "ValueError('no 0')"
        assert await owner.heard() == ["no 0"]

    run(main)


def test_an_owner_that_ends_abnormally_takes_its_tasks_with_it() -> None:
    tasks: list[Task[int]] = []

    async def work(_: Owner) -> None:
        tasks.append(Task.async_(double, 1, after=100))

    async def main() -> None:
        owner = await start(Owner, work)
        await owner.work()
        ended = exit_reason(tasks[-1].ref)
        kill(owner)
        assert await ended == "killed"

    for seed in SEEDS:
        run(main, seed)


def test_awaiting_has_a_timeout_and_the_task_goes_on_after_it() -> None:
    async def work(owner: Owner) -> Any:
        task = Task.async_(double, 1, after=8.0)
        with pytest.raises(CallTimeout):
            await task
        assert owner.ctx.now_ns() == 5_000_000_000
        assert await task.yield_(1.0) is None
        assert await task.yield_(10.0) == Ok(2)
        assert await task.result(timeout=None) == 2
        return owner.ctx.now_ns() / 1e9

    async def main() -> None:
        assert await (await start(Owner, work)).work() == 8.0

    run(main)


def test_shutdown_stops_a_task_and_spares_its_owner() -> None:
    async def work(owner: Owner) -> Any:
        stopped = await Task.async_(double, 1, after=100).shutdown()
        killed = await Task.async_(double, 1, after=100).shutdown("brutal_kill")
        ready = Task.async_(double, 1)
        await ready
        return [stopped, killed, await ready.shutdown()]

    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    async def wait_for_stubborn(owner: Owner) -> Any:
        task = Task.async_(stubborn)
        await asyncio.sleep(1)
        await task.shutdown(3.0)
        return owner.ctx.now_ns() / 1e9

    async def main() -> None:
        owner = await start(Owner, work)
        assert await owner.work() == [None, None, Ok(2)]
        assert is_alive(owner)
        assert await (await start(Owner, wait_for_stubborn)).work() == 4.0

    run(main)


def test_a_task_that_calls_its_waiting_owner_is_told_of_the_cycle() -> None:
    async def call_back(owner: Any) -> str:
        try:
            return str(await owner.ping())
        except CallCycle:
            return "cycle"

    async def work(owner: Owner) -> Any:
        return await Task.async_(call_back, owner.ctx.ref)

    async def stream(owner: Owner) -> Any:
        refs = [owner.ctx.ref] * 3
        return [outcome async for outcome in async_stream(refs, call_back, ordered=False)]

    async def main() -> None:
        assert await (await start(Owner, work)).work() == "cycle"
        assert await (await start(Owner, stream)).work() == [Ok("cycle")] * 3

    for seed in SEEDS:
        run(main, seed)


def test_async_nolink_spares_the_owner() -> None:
    async def work(owner: Owner) -> Any:
        tasks = whereis(TaskSupervisor, "tasks")
        good = await TaskSupervisor.async_nolink(tasks, double, 3)
        bad = await TaskSupervisor.async_nolink(tasks, fail, n=9)
        return [await good.yield_(), repr(await bad.yield_())]

    async def main() -> None:
        await start_tasks()
        owner = await start(Owner, work)
        assert await owner.work() == [Ok(6), "Failed(reason=ValueError('no 9'), item=None)"]
        assert is_alive(owner)

    for seed in SEEDS:
        run(main, seed)


def test_async_under_a_supervisor_is_linked_to_both() -> None:
    async def work(owner: Owner) -> Any:
        task = await TaskSupervisor.async_(whereis(TaskSupervisor, "tasks"), fail)
        await task

    async def main() -> None:
        tasks = await start_tasks()
        owner = await start(Owner, work)
        ended = exit_reason(owner)
        with pytest.raises(ActorFailed):
            await owner.work()
        assert isinstance(await ended, ValueError)
        assert is_alive(tasks)

    run(main)


class Top(Supervisor):
    def children(self) -> Any:
        yield child(TaskSupervisor, max_children=2).opts(name="tasks")


async def start_tasks() -> Any:
    await start(Top)
    return whereis(TaskSupervisor, "tasks")


def test_a_task_supervisor_is_bounded_and_shows_its_children() -> None:
    async def main() -> None:
        tasks = await start_tasks()
        first = await tasks.start_child(Task.child(double, 1, after=50))
        second = await TaskSupervisor.async_nolink(tasks, double, 2, after=60)
        assert [(kid.id, kid.status) for kid in await tasks.which_children()] == [
            ("double-1", "running"),
            ("double-2", "running"),
        ]
        with pytest.raises(ChildrenMax):
            await TaskSupervisor.async_nolink(tasks, double, 3)
        assert await exit_reason(first) == "normal"
        assert (await tasks.count_children())["active"] == 1
        await tasks.restart_subtree("double-2")
        with pytest.raises(ActorFailed):
            await second
        await asyncio.sleep(61)
        assert await tasks.which_children() == []

    run(main)


def test_start_child_is_fire_and_forget_and_restarted_only_when_asked() -> None:
    runs: list[str] = []

    def flaky(name: str) -> None:
        runs.append(name)
        if runs.count(name) < 3:
            raise OSError(name)

    async def main() -> None:
        runs.clear()
        tasks = await start_tasks()
        await tasks.start_child(Task.child(flaky, "once"))
        await tasks.start_child(Task.child(flaky, "again").opts(restart="transient"))
        await asyncio.sleep(1)
        assert sorted(runs) == ["again", "again", "again", "once"]
        assert await tasks.which_children() == []

    for seed in SEEDS:
        run(main, seed)


def test_a_stopping_supervisor_stops_its_tasks() -> None:
    async def main() -> None:
        tasks = await start(TaskSupervisor)
        task = await TaskSupervisor.async_nolink(tasks, double, 1, after=100)
        await stop(tasks)
        with pytest.raises(ActorFailed, match="shutdown"):
            await task
        with pytest.raises(NoProc):
            await TaskSupervisor.async_nolink(tasks, double, 1)

    run(main)


# -- streams ------------------------------------------------------------------------------------------------


class Gauge:
    now = 0
    most = 0

    async def work(self, n: int) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep((n * 7 % 5) + 1)
        self.now -= 1
        return n


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("width", [1, 3, 50])
def test_a_stream_is_bounded_and_complete(ordered: bool, width: int) -> None:
    gauge = Gauge()

    async def work(owner: Owner) -> Any:
        gauge.now = gauge.most = 0
        stream = async_stream(range(20), gauge.work, max_concurrency=width, ordered=ordered, timeout=None)
        return [outcome async for outcome in stream]

    async def main() -> None:
        outcomes = await (await start(Owner, work)).work()
        if ordered:
            assert outcomes == [Ok(n) for n in range(20)]
        else:
            assert sorted(outcome.value for outcome in outcomes) == list(range(20))
            assert width == 1 or outcomes != [Ok(n) for n in range(20)]
        assert gauge.most == min(width, 20)

    for seed in SEEDS:
        run(main, seed)


def test_a_stream_takes_items_only_as_places_become_free() -> None:
    taken: list[int] = []

    def items() -> Any:
        for n in range(100):
            taken.append(n)
            yield n

    async def work(owner: Owner) -> Any:
        async for outcome in async_stream(items(), double, max_concurrency=4):
            if outcome == Ok(4):
                break
        return len(taken)

    async def main() -> None:
        assert await (await start(Owner, work)).work() <= 3 + 4

    run(main)


def test_a_slow_item_ends_the_stream_or_only_itself() -> None:
    async def nap(n: int) -> int:
        await asyncio.sleep(n)
        return n

    async def killing(owner: Owner) -> Any:
        stream = async_stream([1, 30, 2], nap, timeout=5.0, on_timeout="kill_task")
        return [outcome async for outcome in stream]

    async def exiting(owner: Owner) -> Any:
        return [outcome async for outcome in async_stream([1, 30, 2], nap, timeout=5.0)]

    async def main() -> None:
        owner = await start(Owner, killing)
        assert await owner.work() == [Ok(1), Failed("timeout", 30), Ok(2)]
        with pytest.raises(CallTimeout, match=r"longer than 5\.0 s for 30"):
            await (await start(Owner, exiting)).work()

    run(main)


def test_a_stream_that_is_closed_early_kills_its_tasks() -> None:
    async def work(owner: Owner) -> Any:
        stream = async_stream(range(10), lambda n: double(n, after=n * 10.0), max_concurrency=5, timeout=None)
        async for _ in stream:
            break
        await stream.aclose()

    async def main() -> None:
        owner = await start(Owner, work)
        await owner.work()
        await asyncio.sleep(1)
        assert is_alive(owner)

    assert len(run(main).table) == 1


def test_an_unlinked_stream_yields_crashes() -> None:
    async def odd(n: int) -> int:
        return await fail(n) if n % 2 else n

    async def main() -> None:
        tasks = await start_tasks()
        stream = TaskSupervisor.async_stream_nolink(tasks, range(4), odd, max_concurrency=2)
        outcomes = [repr(outcome) async for outcome in stream]
        assert outcomes == [
            "Ok(value=0)",
            "Failed(reason=ValueError('no 1'), item=1)",
            "Ok(value=2)",
            "Failed(reason=ValueError('no 3'), item=3)",
        ]

    for seed in SEEDS:
        run(main, seed)


def test_a_linked_stream_ends_with_the_crash_of_a_task() -> None:
    async def work(owner: Owner) -> Any:
        return [outcome async for outcome in async_stream([1], fail)]

    async def main() -> None:
        owner = await start(Owner, work)
        with pytest.raises(ActorFailed):
            await owner.work()
        assert not is_alive(owner)

    run(main)


def test_what_has_no_meaning_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="max_concurrency=0"):
            async_stream([], double, max_concurrency=0)
        with pytest.raises(UsageError, match="on_timeout='explode'"):
            async_stream([], double, on_timeout="explode")  # type: ignore[call-overload]
        with pytest.raises(UsageError, match="is none"):
            Task.async_(3)  # type: ignore[call-overload]

    run(main)
