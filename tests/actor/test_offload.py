"""offload: threads and processes for what would block the loop; a process is killed with its handler; a bound."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from typing import Any

import pytest
from puppets import Boom

from aspen import Actor, ActorFailed, Overloaded, call, exit, kill, start
from aspen.actor import System
from aspen.io import RealOffload, real_ports
from aspen.io import offload as offload_module
from aspen.sim import World

DEADLINE_S = 30.0


def double(n: int) -> int:
    return 2 * n


def fail(text: str) -> None:
    raise Boom(text)


def die(code: int) -> None:
    os._exit(code)


def closure() -> Any:
    return lambda: 1


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("unpicklable")


def fail_unpicklable() -> None:
    raise Unpicklable(1, 2)


def for_ever() -> None:
    while True:
        time.sleep(60)


class Worker(Actor):
    @call(timeout=None, raises=(Boom, Overloaded))
    async def work(self, process: bool, fn: Any, *args: Any) -> Any:
        return await self.ctx.offload(fn, *args, process=process)


def _run(main: Any) -> None:
    loop = asyncio.new_event_loop()
    ports = real_ports(loop)
    system = System("real", ports)
    try:
        loop.run_until_complete(asyncio.wait_for(main(system), DEADLINE_S))
    finally:
        system.close()
        ports.offload.close()  # type: ignore[attr-defined]
        loop.close()


@pytest.mark.parametrize("process", [True, False])
def test_offload_brings_results_and_exceptions(process: bool) -> None:
    async def main(system: System) -> None:
        worker = await start(Worker)
        assert await worker.work(process, double, 21) == 42
        with pytest.raises(Boom, match="why"):
            await worker.work(process, fail, "why")
        assert await worker.work(process, double, 1) == 2

    _run(main)


def test_offload_of_a_process_that_dies_or_cannot_tell() -> None:
    async def main(system: System) -> None:
        for fn, args, text in (
            (die, (3,), "exit code 3"),
            (closure, (), "cannot travel"),
            (fail_unpicklable, (), "Unpick"),
        ):
            with pytest.raises(ActorFailed, match=text):
                await (await start(Worker)).work(True, fn, *args)
        with pytest.raises(ActorFailed):
            await (await start(Worker)).work(True, lambda: 1)
        assert multiprocessing.active_children() == []

    _run(main)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_offload_kills_the_process_with_its_handler(how: str) -> None:
    async def main(system: System) -> None:
        worker = await start(Worker)
        working = asyncio.ensure_future(worker.work(True, for_ever))
        while not multiprocessing.active_children():  # noqa: ASYNC110 -- it is started within a few turns
            await asyncio.sleep(0)
        (child,) = multiprocessing.active_children()
        assert child.is_alive()
        if how == "exit":
            exit(worker, "bad")
        else:
            kill(worker)
        with pytest.raises(ActorFailed):
            await working
        assert multiprocessing.active_children() == []

    _run(main)


def test_offload_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload_module.limits, "OFFLOAD_QUEUE_MAX", 2)
    release = threading.Event()

    async def main(system: System) -> None:
        offload = RealOffload(asyncio.get_running_loop())
        waiting = [asyncio.ensure_future(offload.thread(release.wait, ())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="not executed"):
            await offload.thread(double, (1,))
        release.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await offload.thread(double, (1,)) == 2
        offload.close()

    _run(main)


def test_offload_in_the_virtual_world() -> None:
    with World(0) as world:
        system = System("virtual", world.ports("virtual"))

        async def main() -> None:
            worker = await start(Worker)
            assert await worker.work(False, double, 21) == 42
            with pytest.raises(Boom):
                await worker.work(True, fail, "why")

        world.run(main())
        system.close()
