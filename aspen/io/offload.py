"""Threads and processes for work that would block the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import multiprocessing.connection
import multiprocessing.reduction
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from aspen import limits
from aspen.errors import ActorFailed, Overloaded
from aspen.types import describe_reason

R = TypeVar("R")


class RealOffload:
    """`aspen.traits.Offload` on a bounded pool of threads, and on processes made for each piece of work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = concurrent.futures.ThreadPoolExecutor(
            limits.OFFLOAD_THREADS_MAX, thread_name_prefix="aspen-offload"
        )
        self._in_threads = 0
        self._processes = asyncio.Semaphore(limits.OFFLOAD_PROCESSES_MAX)
        self._in_processes = 0

    async def thread(self, fn: Callable[..., R], args: tuple[Any, ...]) -> R:
        """Runs `fn(*args)` in a thread. It cannot be interrupted; cancelling only stops the waiting."""
        if self._in_threads >= limits.OFFLOAD_QUEUE_MAX:
            raise Overloaded(f"{self._in_threads} offloaded calls are waiting, the bound; not executed")
        self._in_threads += 1
        future = self._loop.run_in_executor(self._threads, fn, *args)
        future.add_done_callback(self._thread_done)
        return await future

    def _thread_done(self, _: object) -> None:
        self._in_threads -= 1

    async def process(self, fn: Callable[..., R], args: tuple[Any, ...]) -> R:
        """Runs `fn(*args)` in a fresh process, which is killed when the awaiter is cancelled.

        Raises what `fn` raises, its traceback as text in the cause.
        """
        if self._in_processes >= limits.OFFLOAD_QUEUE_MAX:
            raise Overloaded(f"{self._in_processes} offloaded calls are waiting, the bound; not executed")
        self._in_processes += 1
        try:
            async with self._processes:
                return await self._run_process(fn, args)
        finally:
            self._in_processes -= 1

    async def _run_process(self, fn: Callable[..., R], args: tuple[Any, ...]) -> R:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe(duplex=False)
        worker = spawn.Process(target=_in_process, args=(theirs, fn, args), daemon=True)
        try:
            worker.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        readable = asyncio.Event()
        self._loop.add_reader(ours.fileno(), readable.set)
        try:
            await readable.wait()
            try:
                error, value = ours.recv()
            except EOFError:
                worker.join(1)
                raise ActorFailed(
                    f"the process of {fn.__qualname__} ended with exit code {worker.exitcode}", worker.exitcode
                ) from None
        finally:
            self._loop.remove_reader(ours.fileno())
            ours.close()
            worker.kill()
            worker.join()
            worker.close()
        if error is None:
            result: R = value
            return result
        raise error from ActorFailed(f"{fn.__qualname__} raised in its process:\n{value}", error)

    def close(self) -> None:
        """Takes no more work; threads that still run are left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _in_process(pipe: multiprocessing.connection.Connection, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    outcome: tuple[BaseException | None, Any]
    try:
        outcome = (None, fn(*args))
    except BaseException as error:
        outcome = (error, traceback.format_exc())
    try:
        message = multiprocessing.reduction.ForkingPickler.dumps(outcome)
        multiprocessing.reduction.ForkingPickler.loads(message)
    except Exception:
        # What cannot travel comes as its text.
        name = getattr(fn, "__qualname__", repr(fn))
        if outcome[0] is None:
            outcome = (TypeError(f"the result of {name} cannot travel between processes"), traceback.format_exc())
        else:
            outcome = (ActorFailed(f"{name} raised {describe_reason(outcome[0])}"), outcome[1])
    pipe.send(outcome)
    pipe.close()
