"""`VirtualOffload` and `VirtualLane`: offloaded work takes a while, and blocks nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aspen import limits
from aspen.errors import Overloaded, UsageError
from aspen.sim.clock import VirtualRandom
from aspen.sim.loop import VirtualLoop

R = TypeVar("R")

OFFLOAD_S_MAX: Final = 0.01
"""Virtual seconds that offloaded work takes at most, drawn from the seed; a stalling disk adds to it."""


class VirtualOffload:
    """`aspen.traits.Offload`: the work runs at one moment, and its result is known at a later one.

    A crash may come between the two, as it may in production.
    """

    def __init__(self, loop: VirtualLoop, random: VirtualRandom, stall_ns: Callable[[], int] = lambda: 0) -> None:
        self._loop = loop
        self._rng = random.rng("sim.offload")
        self._stall_ns = stall_ns
        self._pending = 0

    def lane(self, name: str) -> VirtualLane:
        """Work that is done one thing after the other."""
        return VirtualLane(self._loop, self.draw_times)

    def thread(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """Runs `fn(*args)`; goes on when its awaiter is cancelled, as a thread does."""
        return self._start(fn, args, limits.OFFLOAD_THREADS_MAX, interruptible=False)

    def process(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """Runs `fn(*args)`, unless its awaiter is cancelled first."""
        return self._start(fn, args, limits.OFFLOAD_PROCESSES_MAX, interruptible=True)

    def close(self) -> None:
        """Nothing to do."""

    def draw_times(self) -> tuple[float, float]:
        """How long one piece of work takes: seconds before what it does, and after."""
        takes_s = self._rng.uniform(0.0, OFFLOAD_S_MAX) + self._stall_ns() / 1e9
        split = self._rng.random()
        return takes_s * split, takes_s * (1.0 - split)

    def _start(self, fn: Callable[..., R], args: tuple[Any, ...], places: int, *, interruptible: bool) -> Awaitable[R]:
        if self._pending >= places + limits.OFFLOAD_QUEUE_MAX:
            raise Overloaded(f"{self._pending} offloaded calls are in progress or waiting; this one was not executed")
        future: Any = self._loop.create_future()
        self._pending += 1
        before_s, after_s = self.draw_times()

        def work() -> None:
            if interruptible and future.done():
                self._pending -= 1
                return
            try:
                result, error = fn(*args), None
            except Exception as raised:
                result, error = None, raised
            self._loop.call_later(after_s, finish, result, error)

        def finish(result: object, error: Exception | None) -> None:
            self._pending -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._loop.call_later(before_s, work)
        return future  # type: ignore[no-any-return]  # a future of whatever `fn` returns


class VirtualLane:
    """`aspen.traits.Lane`: one piece of work begins when the one before has ended."""

    def __init__(self, loop: VirtualLoop, draw_times: Callable[[], tuple[float, float]]) -> None:
        self._loop = loop
        self._draw_times = draw_times
        self._jobs: deque[tuple[Callable[..., Any], tuple[Any, ...], Any]] = deque()
        self._busy = False
        self._closed = False

    def run(self, fn: Callable[..., R], /, *args: Any) -> Awaitable[R]:
        """Begins when what was given before has ended; goes on when its awaiter is cancelled, as a thread does."""
        if self._closed:
            raise UsageError("the lane is closed; nothing was executed")
        if len(self._jobs) >= limits.OFFLOAD_QUEUE_MAX:
            raise Overloaded(f"{len(self._jobs)} calls wait in the lane, the bound; not executed")
        future: Any = self._loop.create_future()
        self._jobs.append((fn, args, future))
        if not self._busy:
            self._begin()
        return future  # type: ignore[no-any-return]  # a future of whatever `fn` returns

    def close(self) -> None:
        """Takes no more work; what was given is still done."""
        self._closed = True

    def _begin(self) -> None:
        self._busy = True
        before_s, after_s = self._draw_times()
        self._loop.call_later(before_s, self._work, after_s)

    def _work(self, after_s: float) -> None:
        fn, args, _ = self._jobs[0]
        try:
            result, error = fn(*args), None
        except Exception as raised:
            result, error = None, raised
        self._loop.call_later(after_s, self._finish, result, error)

    def _finish(self, result: object, error: Exception | None) -> None:
        _, _, future = self._jobs.popleft()
        self._busy = False
        if self._jobs:
            self._begin()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
