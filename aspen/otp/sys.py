"""Looking into any actor and changing it while it runs: OTP's `sys`.

    await sys.get_state(ref)
    await sys.suspend(ref); await sys.replace_state(ref, lambda state: {**state, "_n": 0}); await sys.resume(ref)
    async for event in await sys.trace(ref, limit=20, seconds=5): ...

Every behaviour answers, whatever it is doing: requests go through the control lane, before all mail and even while
a handler awaits. Only an actor whose handler holds the loop cannot be reached; the stall watchdog
names that one.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Self, TypeVar

from aspen import limits
from aspen.actor import Behaviour, Notice, Process, Reply, abbreviate, process_of, state_of
from aspen.actor.process import DEAD, F_DEBUG, F_EXITING, F_SUSPENDED, NO_MAIL, Debug
from aspen.actor.sending import no_proc
from aspen.errors import UsageError
from aspen.types import describe_reason

T = TypeVar("T")


def get_state(ref: object, timeout: float = limits.CALL_TIMEOUT_S) -> Awaitable[dict[str, Any]]:
    """The instance attributes of the actor: the live objects, to look at and not to change."""
    return _ask(ref, "get_state", lambda process: state_of(process.actor), timeout)


def replace_state(
    ref: object,
    change: Callable[[dict[str, Any]], Mapping[str, Any]],
    timeout: float = limits.CALL_TIMEOUT_S,
) -> Awaitable[dict[str, Any]]:
    """Replaces instance attributes by what `change(state)` returns; brings the new state.

    Attributes that `change` leaves out are deleted. When it raises, nothing is changed and its exception
    is raised here.

    Raises:
        UsageError: a handler is in the middle of its work; suspend the actor and try again.
    """

    def replace(process: Process) -> dict[str, Any]:
        _between_handlers(process, "replace_state")
        actor = process.actor
        before = state_of(actor)
        after = dict(change(dict(before)))
        try:
            _put_state(actor, before, after)
        except BaseException:
            _put_state(actor, state_of(actor), before)
            raise
        return after

    return _ask(ref, "replace_state", replace, timeout)


@dataclass(frozen=True, slots=True)
class Status:
    """What an actor is doing, as `status` tells."""

    pid: str
    path: str
    kind: str
    status: str
    """`running`, `suspended`, `waiting` (its handler awaits), `starting` or `exiting`."""
    handler: str
    """The handler in progress, or empty."""
    waits_for: str
    """What that handler awaits, or empty."""
    queue: int
    """Messages waiting."""
    links: tuple[str, ...]
    monitors: tuple[str, ...]
    """Whom it watches."""
    parent: str
    trap_exit: bool
    state: str
    """As `format_status` gives it, abbreviated."""


def status(ref: object, timeout: float = limits.CALL_TIMEOUT_S) -> Awaitable[Status]:
    """What the actor is doing, its links and its formatted state."""
    return _ask(ref, "status", status_now, timeout)


def status_now(process: Process) -> Status:
    """`status`, read at once; from the node's own loop only."""
    task = process.task
    actor = process.actor
    return Status(
        pid=str(process.pid),
        path=process.path,
        kind=process.blueprint.kind,
        status=doing(process),
        handler=task.message[0] if task is not None else "",
        waits_for=waits_for(process),
        queue=queue_length(process),
        links=tuple(sorted(linked.path for linked in process.links or ())),
        monitors=tuple(sorted(target.path for target in (process.monitoring or {}).values())),
        parent=process.parent.path if process.parent is not None else "",
        trap_exit=process.trap_exit,
        state=_formatted(actor) if actor is not None else "",
    )


def _formatted(actor: Behaviour) -> str:
    try:
        return abbreviate(actor.format_status())
    except Exception as error:
        return f"<format_status raised {describe_reason(error)}>"


def doing(process: Process) -> str:
    """One word for what a process does."""
    if process.wake == DEAD:
        return "dead"
    if process.starting is not None:
        return "starting"
    if process.flags & F_EXITING:
        return "exiting"
    if process.flags & F_SUSPENDED:
        return "suspended"
    return "waiting" if process.task is not None else "running"


def waits_for(process: Process) -> str:
    """What the handler in progress awaits, for people."""
    waiting_on = process.waiting_on
    if isinstance(waiting_on, Reply):
        return waiting_on.callee.path
    return type(waiting_on).__name__ if waiting_on is not None else ""


def queue_length(process: Process) -> int:
    """Messages that wait for it."""
    return len(process.mailbox) + len(process.urgent or ())


def suspend(ref: object, timeout: float = limits.CALL_TIMEOUT_S) -> Awaitable[None]:
    """Has the actor take no message until `resume`; its mail waits, within its bound. A handler in
    progress goes on to its end."""

    def suspended(process: Process) -> None:
        process.flags |= F_SUSPENDED

    return _ask(ref, "suspend", suspended, timeout)


def resume(ref: object, timeout: float = limits.CALL_TIMEOUT_S) -> Awaitable[None]:
    """Has a suspended actor go on, with the mail that came meanwhile, in order."""

    def resumed(process: Process) -> None:
        process.flags &= ~F_SUSPENDED

    return _ask(ref, "resume", resumed, timeout)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since `statistics(ref, on=True)`."""

    since_ns: int
    calls: int
    casts: int
    infos: int
    queue: int


def statistics(
    ref: object, *, on: bool | None = None, timeout: float = limits.CALL_TIMEOUT_S
) -> Awaitable[Statistics | None]:
    """Switches the counting of handled messages on or off, and brings the counts; None while it is off."""

    def counted(process: Process) -> Statistics | None:
        debug = process.debug
        if on:
            debug = process.debug = debug or Debug(process.sched.mono_ns())
            if not debug.statistics:
                debug.statistics = True
                debug.started_ns = process.sched.mono_ns()
                debug.calls = debug.casts = debug.infos = 0
        elif on is False and debug is not None:
            debug.statistics = False
        _settle_debug(process)
        if debug is None or not debug.statistics:
            return None
        return Statistics(debug.started_ns, debug.calls, debug.casts, debug.infos, queue_length(process))

    return _ask(ref, "statistics", counted, timeout)


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event of a traced actor."""

    at_ns: int
    event: str
    """`receive`, `reply`, `crash` or `exit`."""
    handler: str
    args: str
    detail: str
    """The result of a reply, the error of a crash, the reason of an exit."""


class _Tap:
    """What a traced actor holds of its trace. It does not know the reader, so that the reader can go away."""

    def __init__(self, process: Process, limit: int, seconds: float) -> None:
        self.process = process
        self.left = limit
        self.events: asyncio.Queue[TraceEvent | None] = asyncio.Queue(limit + 1)
        self.open = True
        debug = process.debug = process.debug or Debug(process.sched.mono_ns())
        debug.tracers.append(self.observe)
        _settle_debug(process)
        self.timer = process.sched.timer_at(process.sched.mono_ns() + int(seconds * 1e9), self.close)
        process.system.on_exit.append(self.exited)

    def observe(self, event: str, handler: str, args: tuple[Any, ...], detail: object) -> None:
        text = "" if detail is None and event != "reply" else abbreviate(detail, 400)
        now_ns = self.process.sched.mono_ns()
        self.events.put_nowait(TraceEvent(now_ns, event, handler, abbreviate(args, 400), text))
        self.left -= 1
        if self.left <= 0:
            self.close()

    def exited(self, process: Process, reason: object) -> None:
        if process is self.process:
            if self.open:
                self.observe("exit", "", (), reason)
            self.close()

    def close(self) -> None:
        if self.open:
            self.open = False
            self.timer.cancel()
            self.process.system.on_exit.remove(self.exited)
            debug = self.process.debug
            if debug is not None:
                debug.tracers.remove(self.observe)
                _settle_debug(self.process)
            self.events.put_nowait(None)


class Trace:
    """The events of one actor, at most `limit` and for at most `seconds`: iterate it, once. It ends by itself, by
    `close()`, or when nobody holds it any more."""

    def __init__(self, process: Process, limit: int, seconds: float) -> None:
        self._tap = _Tap(process, limit, seconds)
        weakref.finalize(self, self._tap.close).atexit = False  # type: ignore[misc]  # typeshed has no such slot

    def close(self) -> None:
        """Ends it; what was seen can still be read."""
        self._tap.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TraceEvent:
        event = await self._tap.events.get()
        if event is None:
            self._tap.events.put_nowait(None)
            raise StopAsyncIteration
        return event


def trace(
    ref: object, *, limit: int = 20, seconds: float = 5.0, timeout: float = limits.CALL_TIMEOUT_S
) -> Awaitable[Trace]:
    """Watches what the actor receives and answers; always bounded. Await it, then iterate it."""
    if not 1 <= limit <= limits.TRACE_EVENTS_MAX:
        raise UsageError(f"trace(limit={limit}): use 1 to {limits.TRACE_EVENTS_MAX} events")
    if not 0 < seconds <= limits.TRACE_S_MAX:
        raise UsageError(f"trace(seconds={seconds}): use more than 0 and at most {limits.TRACE_S_MAX:.0f}")
    return _ask(ref, "trace", lambda process: Trace(process, limit, seconds), timeout)


def change_code(
    ref: object,
    cls: type[Behaviour],
    *,
    old_version: object = None,
    extra: object = None,
    timeout: float = limits.CALL_TIMEOUT_S,
) -> Awaitable[None]:
    """Puts a suspended actor on the code of `cls`, keeping its state, which `cls.upgrade(old_version, extra)` may
    adapt. On an exception the old class and attributes are put back, and it is raised here; objects that `upgrade`
    changed in place stay changed, so let it make new ones.

    A class whose `trap_exit` differs from the old one's changes the actor's.

    Raises:
        UsageError: the actor is not suspended, or its handler is in progress, or the class does not fit.
    """

    def change(process: Process) -> None:
        if not process.flags & F_SUSPENDED:
            raise UsageError(f"suspend {process.path} before change_code, and resume it after")
        _between_handlers(process, "change_code")
        actor = process.actor
        if actor is None or not (isinstance(cls, type) and issubclass(cls, Behaviour)):
            raise UsageError(f"change_code: {cls!r} is not an actor class")
        old_class, old_blueprint, old_state = type(actor), process.blueprint, state_of(actor)
        try:
            actor.__class__ = cls
        except TypeError as error:
            raise UsageError(
                f"{cls.__qualname__} does not fit a {old_class.__qualname__}: {error}; both need the same slots"
            ) from error
        try:
            process.blueprint, process.handlers = cls.blueprint, cls.blueprint.handlers
            result = actor.upgrade(old_version, extra)
            if isinstance(result, CoroutineType):
                result.close()
                raise UsageError(f"{cls.__qualname__}.upgrade must be a plain def: the actor is suspended")
        except BaseException:
            actor.__class__ = old_class
            process.blueprint, process.handlers = old_blueprint, old_blueprint.handlers
            _put_state(actor, state_of(actor), old_state)
            raise
        if process.trap_exit == old_blueprint.trap_exit:
            process.trap_exit = cls.blueprint.trap_exit
        if process.mailbox is not NO_MAIL and process.limit != -1:
            process.limit = cls.blueprint.mailbox_max

    return _ask(ref, "change_code", change, timeout)


# -- how a request travels ------------------------------------------------------------------------------


def _ask(ref: object, operation: str, fn: Callable[[Process], T], timeout_s: float) -> Reply[T]:
    process = process_of(ref)
    reply: Reply[T] = Notice(process, process.sched.mono_ns() + int(timeout_s * 1e9))
    if process.wake == DEAD:
        reply.fail(no_proc(process, operation))
    elif process is process.sched.current:
        process.system.signals["run"](process, fn, reply)
    else:
        process.system.signal(process, "run", (fn, reply))
    return reply


def _between_handlers(process: Process, operation: str) -> None:
    if process.task is not None:
        raise UsageError(
            f"{process.path} is in the middle of {process.task.message[0]}; suspend() it, wait until "
            f"its status is suspended with no handler, then {operation}"
        )


def _put_state(actor: object, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name in before.keys() - after.keys():
        delattr(actor, name)
    for name, value in after.items():
        setattr(actor, name, value)


def _settle_debug(process: Process) -> None:
    debug = process.debug
    if debug is not None and (debug.tracers or debug.statistics):
        process.flags |= F_DEBUG
    else:
        process.flags &= ~F_DEBUG
        process.debug = None
