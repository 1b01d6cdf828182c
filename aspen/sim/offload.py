"""`VirtualOffload`: offloaded work takes a while, and blocks nobody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aspen import limits
from aspen.errors import Overloaded
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

    def thread(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """Runs `fn(*args)`; goes on when its awaiter is cancelled, as a thread does."""
        return self._start(fn, args, limits.OFFLOAD_THREADS_MAX, interruptible=False)

    def process(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """Runs `fn(*args)`, unless its awaiter is cancelled first."""
        return self._start(fn, args, limits.OFFLOAD_PROCESSES_MAX, interruptible=True)

    def close(self) -> None:
        """Nothing to do."""

    def _start(self, fn: Callable[..., R], args: tuple[Any, ...], places: int, *, interruptible: bool) -> Awaitable[R]:
        if self._pending >= places + limits.OFFLOAD_QUEUE_MAX:
            raise Overloaded(f"{self._pending} offloaded calls are in progress or waiting; this one was not executed")
        future: Any = self._loop.create_future()
        self._pending += 1
        takes_s = self._rng.uniform(0.0, OFFLOAD_S_MAX) + self._stall_ns() / 1e9
        split = self._rng.random()

        def work() -> None:
            if interruptible and future.done():
                self._pending -= 1
                return
            try:
                result, error = fn(*args), None
            except Exception as raised:
                result, error = None, raised
            self._loop.call_later(takes_s * (1.0 - split), finish, result, error)

        def finish(result: object, error: Exception | None) -> None:
            self._pending -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._loop.call_later(takes_s * split, work)
        return future  # type: ignore[no-any-return]  # a future of whatever `fn` returns
