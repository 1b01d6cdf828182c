"""Threads and processes for work that would block the loop: a pool, lanes that keep their order, fresh processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import multiprocessing.connection
import multiprocessing.reduction
import queue
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aspen import limits
from aspen.errors import ActorFailed, Overloaded, UsageError
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
        self._lanes: list[RealLane] = []

    def lane(self, name: str) -> RealLane:
        """A new thread that does one thing after the other."""
        if sys.getswitchinterval() > limits.LANE_SWITCH_S:
            # Else a thread that returns from a system call waits 5 ms for a busy loop to give up the GIL.
            sys.setswitchinterval(limits.LANE_SWITCH_S)
        lane = RealLane(self._loop, name)
        self._lanes = [there for there in self._lanes if not there.closed]
        self._lanes.append(lane)
        return lane

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
        for lane in self._lanes:
            lane.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


_Job = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]


class RealLane:
    """`aspen.traits.Lane`: a thread that waits for work on a queue, and tells the loop when it is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.closed = False
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        # A daemon: a device that hangs must not keep the process of a node that ends.
        self._thread = threading.Thread(target=self._work, name=f"aspen-{name}", daemon=True)
        self._thread.start()

    def run(self, fn: Callable[..., R], /, *args: Any) -> Awaitable[R]:
        """Begins when what was given before has ended."""
        if self.closed:
            raise UsageError(f"the lane {self._thread.name} is closed; nothing was executed")
        if self._waiting >= limits.OFFLOAD_QUEUE_MAX:
            raise Overloaded(f"{self._waiting} calls wait in the lane {self._thread.name}, the bound; not executed")
        future: asyncio.Future[R] = self._loop.create_future()
        self._waiting += 1
        self._jobs.put((fn, args, future))
        return future

    def close(self) -> None:
        """Takes no more work; what was given is still done."""
        if not self.closed:
            self.closed = True
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            fn, args, future = job
            try:
                result, error = fn(*args), None
            except BaseException as raised:
                result, error = None, raised
            try:
                self._loop.call_soon_threadsafe(self._done, future, result, error)
            except RuntimeError:  # The loop has been closed: nobody waits any more.
                continue
            del job, fn, args, future, result, error

    def _done(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._waiting -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


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
