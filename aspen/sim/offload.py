"""`VirtualOffload` and `VirtualLane`: offloaded work takes a while, and blocks nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

from aspen import limits
from aspen.errors import Overloaded, UsageError
from aspen.sim.clock import VirtualRandom
from aspen.sim.loop import VirtualLoop
from aspen.traits import RandomStream

R = TypeVar("R")

OFFLOAD_S_MAX: Final = 0.01
"""Virtual seconds that offloaded work takes at most, drawn from the seed; a stalling disk adds to it."""


class _Takes(NamedTuple):
    """How long one piece of work takes."""

    own_s: float
    stall_s: float
    """Of that of a disk that stalls: for so long at most, and no longer than it stalls."""
    split: float
    """How much of it passes before what is done, and is known only after the rest."""
    eased: int
    """How often a stalling disk had gone on when this was drawn."""


class Pace:
    """How long offloaded work takes: drawn from the seed, and longer on a disk that stalls, until that goes on."""

    def __init__(self, loop: VirtualLoop, draw: RandomStream, delays_ns: Callable[[], tuple[int, int]]) -> None:
        """`delays_ns` are for one piece of work: what a stall and what a slow device add."""
        self._loop = loop
        self._rng = draw
        self._delays_ns = delays_ns
        self._eased = self._number = 0
        self._stalled: dict[int, tuple[Any, float, Callable[..., object], tuple[Any, ...]]] = {}

    def draw(self) -> _Takes:
        """For the next piece of work."""
        own_s = self._rng.uniform(0.0, OFFLOAD_S_MAX)
        stall_ns, latency_ns = self._delays_ns()
        return _Takes(own_s + latency_ns / 1e9, stall_ns / 1e9, self._rng.random(), self._eased)

    def before(self, takes: _Takes, fn: Callable[..., object], *args: Any) -> None:
        """Calls `fn` when the work is to be done."""
        self._later(takes, takes.split, fn, args)

    def after(self, takes: _Takes, fn: Callable[..., object], *args: Any) -> None:
        """Calls `fn` when it is known that it was."""
        self._later(takes, 1.0 - takes.split, fn, args)

    def _later(self, takes: _Takes, share: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        own_s = takes.own_s * share
        stall_s = takes.stall_s * share if takes.eased == self._eased else 0.0
        if not stall_s:
            self._loop.call_later(own_s, fn, *args)
            return
        self._number = number = self._number + 1
        self._stalled[number] = (self._loop.call_later(own_s + stall_s, self._over, number), own_s, fn, args)

    def _over(self, number: int) -> None:
        _, _, fn, args = self._stalled.pop(number)
        fn(*args)

    def ease(self) -> None:
        """The disk stalls no more: what waits for it goes on."""
        self._eased += 1
        stalled, self._stalled = self._stalled, {}
        for timer, own_s, fn, args in stalled.values():
            timer.cancel()
            self._loop.call_later(own_s, fn, *args)


class VirtualOffload:
    """`aspen.traits.Offload`: the work runs at one moment, and its result is known at a later one.

    A crash may come between the two, as it may in production.
    """

    def __init__(
        self, loop: VirtualLoop, random: VirtualRandom, delays_ns: Callable[[], tuple[int, int]] = lambda: (0, 0)
    ) -> None:
        """`delays_ns` as `Pace` has it."""
        self._loop = loop
        self.pace = Pace(loop, random.rng("sim.offload"), delays_ns)
        self._pending = 0

    def lane(self, name: str) -> VirtualLane:
        """Work that is done one thing after the other."""
        return VirtualLane(self._loop, self.pace)

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
        takes = self.pace.draw()

        def work() -> None:
            if interruptible and future.done():
                self._pending -= 1
                return
            try:
                result, error = fn(*args), None
            except Exception as raised:
                result, error = None, raised
            self.pace.after(takes, finish, result, error)

        def finish(result: object, error: Exception | None) -> None:
            self._pending -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.pace.before(takes, work)
        return future  # type: ignore[no-any-return]  # a future of whatever `fn` returns


class VirtualLane:
    """`aspen.traits.Lane`: one piece of work begins when the one before has ended."""

    def __init__(self, loop: VirtualLoop, pace: Pace) -> None:
        self._loop = loop
        self._pace = pace
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
        takes = self._pace.draw()
        self._pace.before(takes, self._work, takes)

    def _work(self, takes: _Takes) -> None:
        fn, args, _ = self._jobs[0]
        try:
            result, error = fn(*args), None
        except Exception as raised:
            result, error = None, raised
        self._pace.after(takes, self._finish, result, error)

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
