"""Starting, finding and ending actors: `child`, `start`, `whereis`, `stop` and their kin."""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar, cast

from aspen.actor import (
    Behaviour,
    Process,
    Reply,
    System,
    caller_of,
    current_process,
    make_named_ref,
    make_ref,
    process_of,
    system_of_loop,
)
from aspen.actor.sending import put_stop
from aspen.errors import CallTimeout, UsageError
from aspen.limits import SHUTDOWN_S
from aspen.types import KILL, NORMAL

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")

Restart = Literal["permanent", "transient", "temporary"]
"""`permanent`: always restarted. `transient`: after an abnormal exit only. `temporary`: never."""

BRUTAL_KILL: Final = "brutal_kill"
"""As `shutdown`: killed at once, without `terminate`."""
INFINITY: Final = "infinity"
"""As `shutdown`: waited for without a bound; right for supervisors."""


@dataclass(frozen=True, slots=True)
class Child(Generic[A]):
    """A child specification: what to start, and how a supervisor treats it. Made by `child()`."""

    cls: type[Any]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    id: str = ""
    """Its name within its supervisor, and its part of the path; the class name unless given."""
    name: object = None
    """Registered on the node, for `whereis`; in the cluster when it begins with `global:`, see `aspen.names`."""
    restart: Restart = "permanent"
    shutdown: float | Literal["brutal_kill", "infinity"] | None = None
    """Seconds between `shutdown` and `kill`; None is 5 for workers and `infinity` for supervisors."""
    significant: bool = False
    """Its own end may end the supervisor: see `auto_shutdown`."""

    def opts(
        self,
        *,
        id: str | None = None,
        name: object = None,
        restart: Restart | None = None,
        shutdown: float | Literal["brutal_kill", "infinity"] | None = None,
        significant: bool | None = None,
    ) -> Child[A]:
        """The same child with some of its options set. `name` is also its id, unless one is given.

        Raises:
            UsageError: an option has no meaning; says which values have.
        """
        spec = self
        if name is not None:
            spec = replace(spec, name=name, id=_checked_id(str(name)) if id is None else id)
        if id is not None:
            spec = replace(spec, id=_checked_id(id))
        if restart is not None:
            if restart not in ("permanent", "transient", "temporary"):
                raise UsageError(f"restart={restart!r}: use 'permanent', 'transient' or 'temporary'")
            spec = replace(spec, restart=restart)
        if shutdown is not None:
            seconds = isinstance(shutdown, int | float) and 0 <= shutdown < math.inf
            if not seconds and shutdown not in (BRUTAL_KILL, INFINITY):
                raise UsageError(f"shutdown={shutdown!r}: use seconds >= 0, 'brutal_kill' or 'infinity'")
            spec = replace(spec, shutdown=shutdown)
        if significant is not None:
            spec = replace(spec, significant=significant)
        if spec.significant and spec.restart == "permanent":
            raise UsageError(f"child {spec.id!r}: a significant child must be transient or temporary")
        return spec

    @property
    def kind(self) -> str:
        """`module:QualName` of its class."""
        return f"{self.cls.__module__}:{self.cls.__qualname__}"


def child(cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> Child[A]:
    """A specification of an actor to be started: its class and the arguments of its `__init__`."""
    if not (isinstance(cls, type) and issubclass(cls, Behaviour)):
        raise UsageError(f"child({cls!r}): the first argument is an actor class, derived from aspen.Actor")
    return Child(cls, args, tuple(kwargs.items()), id=cls.__qualname__.rpartition(".")[2])


async def start(cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
    """Starts an actor and returns a ref to it, once `__init__` and `init` have returned. Linked to nobody. When the
    caller is cancelled first, by a timeout perhaps, the actor is ended.

    Raises:
        StartFailed: `__init__` or `init` raised; that is the cause.
        Ignore: it asked not to run.
    """
    process = system_of_loop().spawn(cast(type[Behaviour], cls), args, kwargs or None)
    return cast(A, make_ref(process) if process.starting is None else await _ready(process))


async def start_link(cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
    """As `start`, linked to the calling actor, which becomes its parent."""
    return cast(A, await start_child(child(cls, *args, **kwargs), link=True))


def spawn(cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
    """Starts an actor and returns a ref at once; it constructs itself in its own first slot.

    What it raises there is a crash report and the end of the actor; messages sent meanwhile wait.
    """
    process = system_of_loop().spawn(cast(type[Behaviour], cls), args, kwargs or None, at_once=False)
    return cast(A, make_ref(process))


async def start_child(spec: Child[A], *, link: bool = False) -> A:
    """Starts what a specification says and returns a ref to it."""
    system, parent = here()
    if link and parent is None:
        raise UsageError("start_link() links to the calling actor, and no actor is calling; use start()")
    return cast(A, await start_in(system, spec, parent if link else None))


async def start_in(system: System, spec: Child[Any], parent: Process | None, label: str | None = None) -> Any:
    """Starts `spec` in `system`, linked to `parent` if there is one, and waits until it is ready. Who stops
    waiting ends it."""
    process = spawn_in(system, spec, parent, label)
    return make_ref(process) if process.starting is None else await _ready(process)


async def _ready(process: Process) -> Any:
    """Waits until a process that starts is ready. Who stops waiting ends it: nobody else knows of it."""
    try:
        return await cast("Reply[Any]", process.starting)
    except (CancelledError, GeneratorExit):
        process.system.exit(None, process, KILL)
        raise


def spawn_in(system: System, spec: Child[Any], parent: Process | None, label: str | None = None) -> Process:
    """Makes the process of `spec`, linked to `parent` if there is one. It is ready when `starting`, if any, is done."""
    return system.spawn(
        spec.cls, spec.args, dict(spec.kwargs), parent=parent, link=parent is not None, label=label, name=spec.name
    )


def whereis(cls: type[A], name: object) -> A:
    """A ref to whoever holds `name` on this node, or in the cluster when it begins with `global:`; looked up again at
    each send.

    Calls through it raise `NoProc` while nobody does. `cls` is for the type checker and gives the methods.
    """
    system, _ = here()
    if not (isinstance(cls, type) and issubclass(cls, Behaviour)):
        raise UsageError(f"whereis({cls!r}, ...): the first argument is the actor's class")
    return cast(A, make_named_ref(system, cls.blueprint, name))


def link(ref: object) -> None:
    """Links the calling actor with another."""
    caller = _caller("link")
    caller.system.link(caller, process_of(ref))


def unlink(ref: object) -> None:
    """Takes the link between the calling actor and another away."""
    caller = _caller("unlink")
    caller.system.unlink(caller, process_of(ref))


def monitor(ref: object) -> int:
    """Asks for one `Down` message to the calling actor when that one ends; returns its number."""
    caller = _caller("monitor")
    return caller.system.monitor(caller, process_of(ref))


def demonitor(number: int, *, flush: bool = False) -> bool:
    """Takes a monitor of the calling actor back."""
    caller = _caller("demonitor")
    return caller.system.demonitor(caller, number, flush=flush)


def exit(ref: object, reason: object) -> None:
    """Sends an exit signal: ends an actor that does not trap exits; `kill` ends any."""
    target = process_of(ref)
    target.system.exit(caller_of(target), target, reason)


def kill(ref: object) -> None:
    """Ends an actor at once: no `terminate`, cannot be trapped."""
    exit(ref, KILL)


def is_alive(ref: object) -> bool:
    """Whether the actor runs now."""
    return process_of(ref).alive


def exit_reason(ref: object) -> Reply[object]:
    """Await it for the reason for which the actor ends; `noproc` when it had ended before."""
    target = process_of(ref)
    return target.system.exit_reason(target)


async def stop(ref: object, reason: object = NORMAL, timeout: float | None = SHUTDOWN_S) -> None:
    """Asks an actor to end in order, `terminate` included, and waits until it has.

    Raises:
        CallTimeout: it has not ended in time, and goes on; `kill` it or wait longer.
    """
    target = process_of(ref)
    ended = target.system.exit_reason(target)
    if ended.done():
        return
    put_stop(target, reason)
    if timeout is not None:
        ended.deadline = target.sched.mono_ns() + int(timeout * 1e9)
    try:
        await ended
    except CallTimeout:
        target.system.forget(target, ended)
        raise CallTimeout(f"{target.path} did not stop within {timeout} s; it goes on") from None


async def offload(fn: Callable[..., R], *args: Any, process: bool = False) -> R:
    """Runs blocking or CPU-bound work off the loop: in a thread, or in a process of its own that is killed
    when the awaiting handler is cancelled. `fn` must be importable for that."""
    system, _ = here()
    offloaded = system.ports.offload
    return await (offloaded.process(fn, args) if process else offloaded.thread(fn, args))


def here() -> tuple[System, Process | None]:
    """The system that code runs on, and the actor on whose behalf, if any."""
    system = system_of_loop()
    return system, system.scheduler.current or _inherited(system)


def _inherited(system: System) -> Process | None:
    process = current_process.get()
    return process if process is not None and process.system is system and process.alive else None


def _caller(operation: str) -> Process:
    _, caller = here()
    if caller is None:
        raise UsageError(f"{operation}() acts for the calling actor, and no actor is calling")
    return caller


def _checked_id(id: str) -> str:
    if not isinstance(id, str) or not id or "/" in id:
        raise UsageError(f"child id {id!r}: it is part of a path, so it must be a string, not empty, without '/'")
    return id
