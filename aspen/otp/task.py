"""`Task` and `TaskSupervisor`: one piece of work, done by an actor of its own. Elixir's `Task`.

    page = Task.async_(fetch, url)               # runs now, linked to the calling actor
    ...
    text = await page                            # its result; 5 s at most, or `await page.result(timeout=60)`

    async for outcome in async_stream(urls, fetch, max_concurrency=10):      # in the order of urls
        match outcome:
            case Ok(text): ...

A task that crashes takes its owner down through the link, and an owner that ends abnormally its tasks. When the work
may fail by itself, have it supervised and not linked: the owner goes on, and awaiting raises `ActorFailed`.

    tasks = whereis(TaskSupervisor, "tasks")
    page = await TaskSupervisor.async_nolink(tasks, fetch, url)
    await tasks.start_child(Task.child(send_mail, "ana"))    # nobody waits for it

The work is a function, plain or `async def`. A plain one that blocks holds the loop: `offload` it. As for a message,
its result must be encodable under strict messages; its arguments are passed by reference.

Not for state that lives on: that is an actor. To see tasks: their supervisor's `which_children`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from aspen import limits
from aspen.actor import Process, Reply, caller_of, make_ref
from aspen.actor.reply import NEVER_NS
from aspen.errors import ActorFailed, CallTimeout, UsageError
from aspen.otp.actor import Actor
from aspen.otp.dynamic import DynamicSupervisor
from aspen.otp.starting import BRUTAL_KILL, Child, Restart, here
from aspen.types import KILL, SHUTDOWN, Stop, describe_reason

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 -- the type of an item

OnTimeout = Literal["exit", "kill_task"]


@dataclass(frozen=True, slots=True)
class Ok(Generic[R]):
    """The result of a task that ended well."""

    value: R


@dataclass(frozen=True, slots=True)
class Failed:
    """A task ended without a result."""

    reason: object
    """Its exit reason; `timeout` when it was killed because its time was over."""
    item: object = None
    """What it worked on, in a stream."""


class _Outcome(Generic[R]):
    """What has become of a task, and who waits for it."""

    __slots__ = ("done", "error", "value", "waiting")

    def __init__(self) -> None:
        self.done = False
        self.error: ActorFailed | None = None
        self.value: R | None = None
        self.waiting: dict[Reply[Any], Callable[[], object]] = {}

    def finish(self, value: R) -> None:
        self.done = True
        self.value = value
        self._tell()

    def ended(self, process: Process) -> None:
        """The task's process is dead; whoever waits learns it before its links do."""
        if not self.done:
            reason = process.exit_reason
            self.done = True
            self.error = ActorFailed(f"task {process.path} ended: {describe_reason(reason)}", reason)
            self.error.__cause__ = reason if isinstance(reason, BaseException) else None
            self._tell()

    def _tell(self) -> None:
        waiting, self.waiting = self.waiting, {}
        for told in waiting.values():
            told()

    def wait(self, reply: Reply[R]) -> None:
        """Has `reply` bring the result."""
        if self.done:
            self._settle(reply)
            return
        for given_up in [known for known in self.waiting if known.done()]:
            del self.waiting[given_up]
        self.waiting[reply] = partial(self._settle, reply)

    def _settle(self, reply: Reply[R]) -> None:
        if self.error is not None:
            reply.fail(self.error)
        else:
            reply.resolve(self.value)


class TaskActor(Actor):
    """Runs one function, and ends. Started by `Task` and by supervisors."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outcome: _Outcome[Any] | None = None,
        owner: Process | None = None,
    ) -> None:
        self._work = (fn, args, kwargs)
        self._outcome = outcome
        process = self._process
        if outcome is not None:
            process.more().names.append(partial(outcome.ended, process))
        if owner is not None:
            process.system.link(process, owner)
        self.ctx.continue_("run")

    async def handle_continue(self, message: object) -> None:
        """Does the work, tells the outcome, and ends with `normal`."""
        fn, args, kwargs = self._work
        result = fn(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if self._outcome is not None:
            system = self._process.system
            self._outcome.finish(system.checked(result) if system.strict_messages else result)
        raise Stop

    def format_status(self) -> object:
        """The function and its arguments."""
        fn, args, kwargs = self._work
        return {"fn": _name(fn), "args": args, "kwargs": kwargs}


class Task(Generic[R]):
    """A piece of work that runs, or has run. Await it for its result."""

    __slots__ = ("_outcome", "_process")

    def __init__(self, process: Process, outcome: _Outcome[R]) -> None:
        self._process = process
        self._outcome = outcome

    @overload
    @staticmethod
    def async_(fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...
    @overload
    @staticmethod
    def async_(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...
    @staticmethod
    def async_(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Starts `fn(*args)` in an actor of its own, linked to the calling actor (to none, outside of actors)."""
        system, owner = here()
        outcome: _Outcome[Any] = _Outcome()
        process = system.spawn(TaskActor, (_checked(fn), args, kwargs, outcome), parent=owner, link=owner is not None)
        return Task(process, outcome)

    @staticmethod
    def child(fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Child[TaskActor]:
        """The specification of a task for a supervisor: temporary, unless `opts(restart=...)` says otherwise."""
        return _spec(fn, args, kwargs)

    @property
    def ref(self) -> Any:
        """A ref to its actor, to monitor, link or look at it."""
        return make_ref(self._process)

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._outcome.done

    def __await__(self) -> Generator[Any, Any, R]:
        return self.result().__await__()

    def result(self, timeout: float | None = limits.TASK_AWAIT_S) -> Reply[R]:
        """Await it for the result. The task goes on after a timeout, unless that ends its owner. None waits for ever.

        Raises:
            ActorFailed: the task ended without a result; the cause is what it raised.
            CallTimeout: it goes on after `timeout` seconds.
        """
        reply = self._reply(timeout)
        self._outcome.wait(reply)
        return reply

    async def yield_(self, timeout: float = limits.TASK_AWAIT_S) -> Ok[R] | Failed | None:
        """What has become of it, or None when it goes on after `timeout` seconds. Raises nothing."""
        try:
            await self.result(timeout)
        except (CallTimeout, ActorFailed):
            if not self.done:
                return None
        return self._now()

    async def shutdown(
        self, timeout: float | Literal["brutal_kill"] | None = limits.SHUTDOWN_S
    ) -> Ok[R] | Failed | None:
        """Unlinks it from the calling actor, asks it to end, and kills it when it has not after `timeout` seconds.

        Brings its result when it was ready before, None when it was stopped, `Failed` when it had crashed.
        """
        process = self._process
        caller = caller_of(process)
        if caller is not None:
            process.system.unlink(caller, process)
        ended = process.system.exit_reason(process)
        process.system.exit(None, process, KILL if timeout == BRUTAL_KILL else SHUTDOWN)
        if isinstance(timeout, int | float):
            ended.deadline = process.sched.mono_ns() + int(timeout * 1e9)
        try:
            await ended
        except CallTimeout:
            ended = process.system.exit_reason(process)
            process.system.exit(None, process, KILL)
            await ended
        outcome = self._now()
        return None if isinstance(outcome, Failed) and outcome.reason in (SHUTDOWN, "killed") else outcome

    def _now(self, item: object = None) -> Ok[R] | Failed:
        outcome = self._outcome
        return Ok(cast(R, outcome.value)) if outcome.error is None else Failed(outcome.error.reason, item)

    def _reply(self, timeout: float | None) -> Reply[R]:
        process = self._process
        deadline = NEVER_NS if timeout is None else process.sched.mono_ns() + int(timeout * 1e9)
        caller = caller_of(process)
        if caller is not None and caller.answering is not None:
            deadline = min(deadline, caller.answering.deadline)
        return Reply(process, deadline)

    def __repr__(self) -> str:
        return f"<Task {self._process.path}{' done' if self.done else ''}>"


class TaskSupervisor(DynamicSupervisor):
    """Supervises tasks: a `DynamicSupervisor` whose children are not restarted unless their spec says so."""

    @overload
    @staticmethod
    def async_(
        tasks: TaskSupervisor, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Task[T]]: ...
    @overload
    @staticmethod
    def async_(
        tasks: TaskSupervisor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Task[T]]: ...
    @staticmethod
    def async_(tasks: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Task[Any]]:
        """Starts a task under the supervisor, linked to the calling actor as well. Raises ChildrenMax."""
        return _under(tasks, fn, args, kwargs, here()[1])

    @overload
    @staticmethod
    def async_nolink(
        tasks: TaskSupervisor, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Task[T]]: ...
    @overload
    @staticmethod
    def async_nolink(
        tasks: TaskSupervisor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Task[T]]: ...
    @staticmethod
    def async_nolink(
        tasks: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Task[Any]]:
        """Starts a task under the supervisor only: its crash is an error for who awaits it. Raises ChildrenMax."""
        return _under(tasks, fn, args, kwargs, None)

    @overload
    @staticmethod
    def async_stream_nolink(
        tasks: TaskSupervisor,
        items: Iterable[I],
        fn: Callable[[I], Coroutine[Any, Any, T]],
        /,
        *,
        max_concurrency: int = ...,
        ordered: bool = ...,
        timeout: float | None = ...,
        on_timeout: OnTimeout = ...,
    ) -> AsyncGenerator[Ok[T] | Failed, None]: ...
    @overload
    @staticmethod
    def async_stream_nolink(
        tasks: TaskSupervisor,
        items: Iterable[I],
        fn: Callable[[I], T],
        /,
        *,
        max_concurrency: int = ...,
        ordered: bool = ...,
        timeout: float | None = ...,
        on_timeout: OnTimeout = ...,
    ) -> AsyncGenerator[Ok[T] | Failed, None]: ...
    @staticmethod
    def async_stream_nolink(
        tasks: Any,
        items: Iterable[Any],
        fn: Callable[[Any], Any],
        /,
        *,
        max_concurrency: int = 8,
        ordered: bool = True,
        timeout: float | None = limits.TASK_AWAIT_S,
        on_timeout: OnTimeout = "exit",
    ) -> AsyncGenerator[Ok[Any] | Failed, None]:
        """As `async_stream`, under the supervisor and not linked: a crash is a `Failed` in the stream."""
        begin = partial(_begin_under, tasks, fn)
        return _stream(items, begin, _checked_width(max_concurrency), ordered, timeout, _checked_policy(on_timeout))


@overload
def async_stream(
    items: Iterable[I],
    fn: Callable[[I], Coroutine[Any, Any, T]],
    *,
    max_concurrency: int = ...,
    ordered: bool = ...,
    timeout: float | None = ...,
    on_timeout: OnTimeout = ...,
) -> AsyncGenerator[Ok[T] | Failed, None]: ...
@overload
def async_stream(
    items: Iterable[I],
    fn: Callable[[I], T],
    *,
    max_concurrency: int = ...,
    ordered: bool = ...,
    timeout: float | None = ...,
    on_timeout: OnTimeout = ...,
) -> AsyncGenerator[Ok[T] | Failed, None]: ...
def async_stream(
    items: Iterable[Any],
    fn: Callable[[Any], Any],
    *,
    max_concurrency: int = 8,
    ordered: bool = True,
    timeout: float | None = limits.TASK_AWAIT_S,
    on_timeout: OnTimeout = "exit",
) -> AsyncGenerator[Ok[Any] | Failed, None]:
    """Runs `fn(item)` for each item in a linked task of its own, and yields what becomes of each.

    Items are taken one by one, as places become free; results that wait for their turn keep their place. When the
    stream is closed early, the tasks that still run are killed.

    Args:
        max_concurrency: tasks at once.
        ordered: yield in the order of `items`; otherwise as they end.
        timeout: seconds for one item; None sets no bound.
        on_timeout: `exit` raises CallTimeout and kills the rest; `kill_task` kills that one and yields
            `Failed("timeout", item)`.
    """
    begin = partial(_begin_linked, fn)
    return _stream(items, begin, _checked_width(max_concurrency), ordered, timeout, _checked_policy(on_timeout))


async def _begin_linked(fn: Callable[[Any], Any], item: object) -> Task[Any]:
    return Task.async_(fn, item)


async def _begin_under(tasks: Any, fn: Callable[[Any], Any], item: object) -> Task[Any]:
    return await _under(tasks, fn, (item,), {}, None)


async def _under(
    tasks: Any, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], owner: Process | None
) -> Task[Any]:
    outcome: _Outcome[Any] = _Outcome()
    ref = await tasks.start_child(_spec(fn, args, kwargs, outcome, owner))
    return Task(ref._p, outcome)


def _spec(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outcome: _Outcome[Any] | None = None,
    owner: Process | None = None,
    restart: Restart = "temporary",
) -> Child[TaskActor]:
    arguments = (_checked(fn), args, kwargs, outcome, owner)
    return Child(TaskActor, arguments, id=_name(fn).replace("/", "."), restart=restart)


class _Running:
    __slots__ = ("due_ns", "item", "task")

    def __init__(self, item: object, task: Task[Any], due_ns: int) -> None:
        self.item = item
        self.task = task
        self.due_ns = due_ns


async def _stream(
    items: Iterable[Any],
    begin: Callable[[Any], Awaitable[Task[Any]]],
    width: int,
    ordered: bool,
    timeout: float | None,
    on_timeout: OnTimeout,
) -> AsyncGenerator[Ok[Any] | Failed, None]:
    left = enumerate(items)
    more = True
    running: dict[int, _Running] = {}
    ready: dict[int, Ok[Any] | Failed] = {}
    turn = 0
    try:
        while True:
            while more and len(running) + len(ready) < width:
                index, item = next(left, (-1, None))
                if index < 0:
                    more = False
                    break
                task = await begin(item)
                now_ns = task._process.sched.mono_ns()
                due_ns = NEVER_NS if timeout is None else now_ns + int(timeout * 1e9)
                running[index] = _Running(item, task, due_ns)
            for index in [index for index, one in running.items() if one.task.done]:
                one = running.pop(index)
                ready[index] = one.task._now(one.item)
            if ready and (not ordered or turn in ready):
                yield ready.pop(turn if ordered else next(iter(ready)))
                turn += 1
            elif running:
                for index in await _first_done(running):
                    one = running[index]
                    if on_timeout == "exit":
                        raise CallTimeout(f"{one.task!r} took longer than {timeout} s for {one.item!r:.200}")
                    del running[index]
                    outcome = await one.task.shutdown(BRUTAL_KILL)
                    ready[index] = outcome if outcome is not None else Failed("timeout", one.item)
            else:
                return
    finally:
        for one in running.values():
            process = one.task._process
            caller = caller_of(process)
            if caller is not None:
                process.system.unlink(caller, process)
            process.system.exit(None, process, KILL)


async def _first_done(running: dict[int, _Running]) -> list[int]:
    """Waits until one of these tasks has ended, or the time of some is over; returns those."""
    tasks = [one.task for one in running.values()]
    process = tasks[0]._process
    first: Reply[None] = Reply(process, min(one.due_ns for one in running.values()))
    caller = caller_of(process)
    # Whoever calls back into the waiting actor is told of the cycle, from any of the tasks.
    waits = [Reply[Any](task._process, NEVER_NS) for task in tasks]
    handler = caller.task if caller is not None else None
    if handler is not None:
        handler.pending = {**(handler.pending or {}), **dict.fromkeys(waits)}
    for task in tasks:
        task._outcome.waiting[first] = partial(first.resolve, None)
    try:
        await first
        return []
    except CallTimeout:
        now_ns = process.sched.mono_ns()
        return [index for index, one in running.items() if one.due_ns <= now_ns and not one.task.done]
    finally:
        for task in tasks:
            task._outcome.waiting.pop(first, None)
        if handler is not None and handler.pending is not None:
            for wait in waits:
                handler.pending.pop(wait, None)


def _name(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__))


def _checked(fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(fn):
        raise UsageError(f"a task runs a function, and {fn!r} is none; give it the arguments too: Task.async_(fn, 1)")
    return fn


def _checked_width(max_concurrency: int) -> int:
    if not 1 <= max_concurrency <= limits.TASK_STREAM_CONCURRENCY_MAX:
        raise UsageError(f"max_concurrency={max_concurrency}: use 1 to {limits.TASK_STREAM_CONCURRENCY_MAX}")
    return max_concurrency


def _checked_policy(on_timeout: OnTimeout) -> OnTimeout:
    if on_timeout not in ("exit", "kill_task"):
        raise UsageError(f"on_timeout={on_timeout!r}: use 'exit' or 'kill_task'")
    return on_timeout
