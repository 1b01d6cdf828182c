"""`VirtualLoop`: an asyncio event loop without a world outside; one for each node incarnation.

Ready callbacks of a loop run in the order in which they were scheduled, and timers of one time in the order made;
the `Engine` chooses between loops. Sockets, threads, subprocesses and signals do not exist here: asking for one raises
`EscapedSimulation`, which names what was asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol, TypeVar

from aspen.errors import AspenError
from aspen.sim.engine import Engine, SimTimer

T = TypeVar("T")


class Deadlock(AspenError):
    """Nothing is ready, no timer is pending, and what is awaited has not happened: it never will."""


class LoopClock(Protocol):
    """The clock that a loop goes by."""

    def mono_ns(self) -> int:
        """Its time."""
        ...

    def true_at(self, mono_ns: int) -> int:
        """The true time at which it shows `mono_ns`."""
        ...


class LoopPort:
    """`aspen.traits.Loop` on a virtual loop, at nanosecond precision."""

    __slots__ = ("_loop", "call_at", "call_soon")

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.call_soon: Callable[[Callable[[], object]], None] = loop.push_own
        self.call_at: Callable[[int, Callable[[], object]], SimTimer] = loop.timer_at

    @property
    def asyncio(self) -> asyncio.AbstractEventLoop:
        """The virtual loop."""
        return self._loop


class _Ready(asyncio.Handle):
    """A callback that is ready; calling it runs it, unless it was cancelled."""

    __slots__ = ()

    def __call__(self) -> None:
        if not self._cancelled:
            self._run()


class _Later(asyncio.TimerHandle):
    """A callback at a time, as asyncio knows it."""

    __slots__ = ("timer",)
    timer: SimTimer

    def __call__(self) -> None:
        if not self._cancelled:
            self._run()

    def cancel(self) -> None:
        self.timer.cancel()
        super().cancel()


class VirtualLoop(asyncio.AbstractEventLoop):
    """The event loop of one node incarnation, or of the world's own code, in an `Engine`.

    Life: `hold()` stops it until `release()`, while its callbacks and timers wait; `kill()` stops it for good and
    returns all that it still held, which the caller must keep: dropping a suspended coroutine would run its
    `finally`, and a crash does not.
    """

    def __init__(self, engine: Engine, name: str, clock: LoopClock | None = None, *, is_node: bool = False) -> None:
        self.engine = engine
        self.name = name
        self.clock: LoopClock = clock if clock is not None else engine.clock
        self.is_node = is_node
        self.queue: deque[Callable[[], object]] = deque()
        """What is ready, oldest first."""
        self.dead = False
        self.held = False
        self.last_slot: object = None
        """Whose slot ran last."""
        self.ghosts: list[str] = []
        """What code of this loop still tried after it was killed. There must be nothing."""
        self.unhandled: list[dict[str, Any]] = []
        """What asyncio reported that nobody handled: an exception of a task that was never awaited."""
        self._in_ready = False
        self._closed = False
        self._task_factory: Any = None

    # -- what the engine does with it -----------------------------------------------------------------

    def push(self, callback: Callable[[], object]) -> None:
        """Makes a callback ready."""
        self.queue.append(callback)
        if not self._in_ready and not self.held:
            self._in_ready = True
            self.engine.ready.append(self)

    def push_own(self, callback: Callable[[], object]) -> None:
        """Makes a callback ready that code of this node, or the world's, asked for."""
        if self.dead or self.engine.running is not self:
            if not self._may_push():
                return
        self.queue.append(callback)
        if not self._in_ready and not self.held:
            self._in_ready = True
            self.engine.ready.append(self)

    def _may_push(self) -> bool:
        if self.dead:
            self.note_ghost("scheduled a callback")
            return False
        running = self.engine.running
        if running is not None and running.is_node and self.is_node and running is not self:
            raise self.engine.escape(
                f"code of node {running.name} reached into node {self.name} without the network: a reference or a "
                f"global is shared between nodes; in production they are different processes"
            )
        return True

    def leave_ready(self) -> None:
        """Takes it out of the engine's list of loops that have something to run."""
        if self._in_ready:
            self._in_ready = False
            ready = self.engine.ready
            last = ready.pop()
            if last is not self:
                ready[ready.index(self)] = last

    def hold(self) -> None:
        """Runs nothing until `release`; what becomes ready waits."""
        self.held = True
        self.leave_ready()

    def release(self) -> None:
        """Goes on after `hold`."""
        if not self.dead:
            self.held = False
            if self.queue and not self._in_ready:
                self._in_ready = True
                self.engine.ready.append(self)

    def refile(self) -> None:
        """Its clock goes at another rate now."""
        self.engine.refile(self)

    def kill(self) -> list[object]:
        """Runs nothing more, ever. Returns all that was to run: keep it, or `finally` blocks would run."""
        kept: list[object] = [asyncio.all_tasks(self), self.queue, self.engine.take_timers(self), self]
        self.hold()
        self.dead = True
        self.queue = deque()
        return kept

    def note_ghost(self, what: str) -> None:
        """Code of a dead incarnation acted. It has no effect; within the very step that killed it that is in order."""
        if self.engine.running is not self:
            self.ghosts.append(what)

    # -- time and callbacks ---------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds on the node's monotonic clock."""
        return self.clock.mono_ns() / 1e9

    def call_soon(  # type: ignore[override]  # typeshed's variadic form
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Runs `callback` after those that are ready already."""
        self._check_open()
        handle = _Ready(callback, args, self, context)
        self.push_own(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # typeshed's variadic form

    def call_later(  # type: ignore[override]  # typeshed's variadic form
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Runs `callback` after `delay` virtual seconds."""
        return self.call_at_ns(self.clock.mono_ns() + max(0, round(delay * 1e9)), callback, *args, context=context)

    def call_at(  # type: ignore[override]  # typeshed's variadic form
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Runs `callback` at `when` virtual seconds."""
        return self.call_at_ns(round(when * 1e9), callback, *args, context=context)

    def call_at_ns(
        self, when_ns: int, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Runs `callback` when the loop's clock shows `when_ns`."""
        self._check_open()
        handle = _Later(when_ns / 1e9, callback, args, self, context)
        handle.timer = self.timer_at(when_ns, handle)
        return handle

    def timer_at(self, mono_ns: int, callback: Callable[[], object]) -> SimTimer:
        """Runs a bare callback when the loop's clock shows `mono_ns`."""
        if self.dead:
            self.note_ghost("set a timer")
            return SimTimer(self, None, mono_ns)
        return self.engine.call_at(self.clock.true_at(mono_ns), self, callback, mono_ns)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio tells of each cancelled timer; ours have told the engine."""

    # -- running -----------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Callbacks run so far, in the whole world."""
        return self.engine.steps

    def run_until_complete(self, future: Any) -> Any:
        """Runs the world until `future` is done, and returns its result.

        Raises:
            Deadlock: nothing will ever make it done.
            EscapedSimulation: more than `steps_max` callbacks ran.
        """
        self._check_open()
        awaited: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
        awaited.add_done_callback(self._stop_engine)
        self.engine.run()
        if not awaited.done():
            awaited.cancel()
            self.engine.raise_escapes()
            raise Deadlock("nothing is ready and no timer is pending, but the awaited result is not there")
        return awaited.result()

    def _stop_engine(self, _: object) -> None:
        self.engine.stopping = True

    def run_forever(self) -> None:
        """Runs the world until `stop()`, or until nothing is left to do."""
        self._check_open()
        self.engine.run()

    def run_for(self, seconds: float) -> None:
        """Runs everything that happens within so many true seconds."""
        self._check_open()
        end_ns = self.engine.clock.now_ns + round(seconds * 1e9)
        self.engine.run(end_ns)
        self.engine.clock.advance_to(end_ns)

    def stop(self) -> None:
        """Ends `run_forever`."""
        self.engine.stopping = True

    def is_running(self) -> bool:
        """Whether it runs now."""
        return self.engine.running is not None

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Drops what is pending. Idempotent."""
        self._closed = True
        self.hold()
        self.queue.clear()
        self.engine.take_timers(self)

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
        raise self.engine.escape(
            f"loop.{name}() reaches for the real world, which is not there in simulation; go through an actor's "
            f"ctx.offload(), or put a fake in its place"
        )

    refuse.__name__ = name
    refuse.__doc__ = "Raises EscapedSimulation."
    return refuse


for _name, _value in vars(asyncio.AbstractEventLoop).items():
    if not _name.startswith("_") and callable(_value) and _name not in vars(VirtualLoop):
        setattr(VirtualLoop, _name, _escape(_name))
