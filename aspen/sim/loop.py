"""`VirtualLoop`: an asyncio event loop without a world outside.

Ready callbacks run in the order in which they were scheduled; when there are none, time jumps to the next timer, and
timers of one time run in the order made. Sockets, threads, subprocesses and signals do not exist
here: asking for one raises `EscapedSimulation`, which names what was asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from aspen.errors import AspenError, EscapedSimulation
from aspen.sim.clock import VirtualClock

T = TypeVar("T")

STEPS_MAX: Final = 50_000_000
"""Callbacks of one `run_until_complete`: a program that never ends is an error here, not a hang."""


class Deadlock(AspenError):
    """Nothing is ready, no timer is pending, and what is awaited has not happened: it never will."""


class LoopPort:
    """`aspen.traits.Loop` on a virtual loop, at nanosecond precision."""

    __slots__ = ("_loop", "call_at", "call_soon")

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.call_soon: Callable[[Callable[[], object]], object] = loop.call_soon
        self.call_at = loop.call_at_ns

    @property
    def asyncio(self) -> asyncio.AbstractEventLoop:
        """The virtual loop."""
        return self._loop


class VirtualLoop(asyncio.AbstractEventLoop):
    """An event loop on a `VirtualClock`."""

    def __init__(self, clock: VirtualClock, steps_max: int = STEPS_MAX) -> None:
        self.clock = clock
        self.steps_max = steps_max
        self.steps = 0
        """Callbacks run so far."""
        self.unhandled: list[dict[str, Any]] = []
        """What asyncio reported that nobody handled: an exception of a task that was never awaited."""
        self._ready: deque[asyncio.Handle] = deque()
        self._heap: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._sequence = 0
        self._running = False
        self._stopping = False
        self._closed = False
        self._task_factory: Any = None
        self._asyncgens: set[Any] = set()

    # -- time and callbacks ---------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self.clock.now_ns / 1e9

    def call_soon(  # type: ignore[override]  # typeshed's variadic form
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Runs `callback` after those that are ready already."""
        self._check_open()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # typeshed's variadic form

    def call_later(  # type: ignore[override]  # typeshed's variadic form
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Runs `callback` after `delay` virtual seconds."""
        return self.call_at_ns(self.clock.now_ns + max(0, round(delay * 1e9)), callback, *args, context=context)

    def call_at(  # type: ignore[override]  # typeshed's variadic form
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Runs `callback` at `when` virtual seconds."""
        return self.call_at_ns(round(when * 1e9), callback, *args, context=context)

    def call_at_ns(
        self, when_ns: int, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Runs `callback` at `when_ns` of the virtual clock."""
        self._check_open()
        handle = asyncio.TimerHandle(when_ns / 1e9, callback, args, self, context)
        self._sequence += 1
        heapq.heappush(self._heap, (when_ns, self._sequence, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio tells of each cancelled timer; ours are skipped when their time comes."""

    # -- running -----------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Runs until `future` is done, and returns its result.

        Raises:
            Deadlock: nothing will ever make it done.
            EscapedSimulation: more than `steps_max` callbacks ran.
        """
        awaited: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
        self._run(lambda: not awaited.done())
        if not awaited.done():
            awaited.cancel()
            raise Deadlock("nothing is ready and no timer is pending, but the awaited result is not there")
        return awaited.result()

    def run_forever(self) -> None:
        """Runs until `stop()`, or until nothing is left to do."""
        self._run(lambda: not self._stopping)
        self._stopping = False

    def run_for(self, seconds: float) -> None:
        """Runs everything that happens within so many virtual seconds."""
        end_ns = self.clock.now_ns + round(seconds * 1e9)
        self._run(lambda: bool(self._ready) or bool(self._heap and self._heap[0][0] <= end_ns))
        self.clock.advance_to(end_ns)

    def _run(self, wanted: Callable[[], bool]) -> None:
        self._check_open()
        if self._running:
            raise RuntimeError("this loop is running already")
        steps_end = self.steps + self.steps_max
        self._running = True
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while wanted():
                if self._heap and self._heap[0][0] <= self.clock.now_ns:
                    self._next_timers()
                elif not self._ready and not self._next_timers():
                    return
                for _ in range(len(self._ready)):
                    handle = self._ready.popleft()
                    if not handle.cancelled():
                        self.steps += 1
                        handle._run()
                if self.steps > steps_end:
                    raise EscapedSimulation(
                        f"{self.steps_max} callbacks ran and it is not done; does something spin, or is "
                        f"steps_max too small?"
                    )
        finally:
            self._running = False
            events._set_running_loop(before)

    def _next_timers(self) -> bool:
        """Moves time to the next timer, and makes ready all that are due then."""
        heap = self._heap
        while heap and heap[0][2].cancelled():
            heapq.heappop(heap)
        if not heap:
            return False
        self.clock.advance_to(heap[0][0])
        now_ns = self.clock.now_ns
        while heap and heap[0][0] <= now_ns:
            handle = heapq.heappop(heap)[2]
            if not handle.cancelled():
                self._ready.append(handle)
        return True

    def stop(self) -> None:
        """Ends `run_forever`."""
        self._stopping = True

    def is_running(self) -> bool:
        """Whether it runs now."""
        return self._running

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Drops what is pending. Idempotent."""
        self._closed = True
        self._ready.clear()
        self._heap.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this virtual loop is closed")

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: the world ends with its process."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: there are no threads."""

    # -- tasks and futures ------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        """Runs a coroutine as a task."""
        if self._task_factory is not None:
            task: asyncio.Task[T] = self._task_factory(self, coro, **options)
            return task
        return asyncio.Task(coro, loop=self, **options)

    def set_task_factory(self, factory: Any) -> None:
        """As asyncio's."""
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        """As asyncio's."""
        return self._task_factory

    # -- errors and debugging ----------------------------------------------------------------------------

    def get_debug(self) -> bool:
        """False."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Has no effect."""

    def get_exception_handler(self) -> None:
        """None: `unhandled` keeps what is reported."""
        return

    def set_exception_handler(self, handler: Any) -> None:
        """Has no effect: `unhandled` keeps what is reported."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps the report."""
        self.unhandled.append(context)

    call_exception_handler = default_exception_handler


def _escape(name: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *args: object, **kwargs: object) -> NoReturn:
        raise EscapedSimulation(
            f"loop.{name}() reaches for the real world, which is not there in simulation; go through an actor's "
            f"ctx.offload(), or put a fake in its place"
        )

    refuse.__name__ = name
    refuse.__doc__ = "Raises EscapedSimulation."
    return refuse


for _name, _value in vars(asyncio.AbstractEventLoop).items():
    if not _name.startswith("_") and callable(_value) and _name not in vars(VirtualLoop):
        setattr(VirtualLoop, _name, _escape(_name))
