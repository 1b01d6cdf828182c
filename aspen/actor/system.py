"""`System`: the actors of one node incarnation, and what happens between them.

It owns the process table, the scheduler and the local names: how processes start, run handlers to their end, and end.
`naming` has the names, `bonds` links, monitors and signals; `records` what is kept of crashes and dead letters.

A process *ends* in one place, `_die`: names are given up first, then links and monitors are told, then
waiting mail is refused. Whoever learns of the end finds the name free.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from types import CoroutineType
from typing import Any, cast

from aspen import limits
from aspen.actor.behaviour import APPLY, CONTINUE, IDLE_TIMEOUT, INFO, INIT, RAISE, STOP, Behaviour
from aspen.actor.bonds import order_of
from aspen.actor.naming import Naming
from aspen.actor.process import (
    DEAD,
    F_DEAD,
    F_EXITING,
    F_GUARDED,
    F_IDLE,
    F_OBSERVED,
    F_STRICT,
    F_UNBORN,
    F_URGENT,
    NO_MAIL,
    Claimed,
    Guard,
    Message,
    Process,
)
from aspen.actor.refs import make_ref
from aspen.actor.remote import Far
from aspen.actor.reply import NEVER_NS, UNAWAITED, Reply
from aspen.actor.scheduler import Scheduler, TimerEntry
from aspen.actor.sending import no_proc, put_urgent
from aspen.actor.task import HandlerTask
from aspen.errors import ActorFailed, AlreadyRegistered, StartFailed, UsageError
from aspen.traits import Ports
from aspen.types import (
    NORMAL,
    IdleTimeout,
    Ignore,
    Pid,
    Shutdown,
    Stop,
    describe_reason,
)

_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, System] = weakref.WeakKeyDictionary()
_by_identity: weakref.WeakValueDictionary[tuple[str, int], System] = weakref.WeakValueDictionary()
_latest: Callable[[], System | None] = lambda: None  # noqa: E731 -- a weak reference to nothing

TERMINATE = "terminate"

Observer = Callable[[Process, str, str, object], object]
"""`(process, event, name, payload)`. The payload may change later. Events:

    receive, reply         a message that the process takes, and what its handler returned
    start, end             of the process: its kind and arguments; its exit reason
    monitor, demonitor     (number, pid of the target); the number
    down                   (number, reason), when it is put among the mail
    name, unname           the process comes to hold the name, or gives it up
    supervise              (strategy, restarts allowed, period in ns)
    restart                (id that failed, ids of the children, ids of those restarted, the node's time in ns)
    stops                  (pid of a child, why)
    gives_up               why a supervisor ends itself
"""

_KERNEL_MESSAGES = (INFO, STOP, IDLE_TIMEOUT, INIT, CONTINUE, RAISE)
"""What is in the urgent lane for the process's own sake; no dead letter when it ends first."""


class System(Naming):
    """The actors of one node incarnation. All methods run on the thread of its loop."""

    def __init__(
        self,
        name: str,
        ports: Ports,
        *,
        boot: int = 1,
        node: str = "",
        strict_messages: bool = False,
        choose: Callable[[deque[Process]], bool | None] | None = None,
    ) -> None:
        """`node` is its id within a cluster, its name unless given. `choose` is simulation's: see `Scheduler`. In
        simulation `ports.steering` gives it, and an observer that is told of every message that an actor takes, every
        reply, and every start and end."""
        steering = ports.steering
        if steering is not None:
            choose = choose or steering.choose
            strict_messages = strict_messages or steering.strict_messages
        observer: Observer | None = steering.observer if steering is not None else None
        super().__init__(name, boot, ports, node)
        self.strict_messages = strict_messages
        self.observer = observer
        self._flags = (F_STRICT if strict_messages else 0) | (F_OBSERVED if observer is not None else 0)
        """What every process begins with."""
        self.scheduler = Scheduler(self, choose)
        self.table: dict[int, Process] = {}
        self.tables: dict[str, Any] = {}
        """Tables that behaviours share within the node, as `Registry` does; by name."""
        self.far: Far | None = None
        """The way to other nodes, when there is one."""
        self.kv_for: Callable[[Process], Any] | None = None
        """The client of the store that an actor has, when there is a way to one."""
        self.root: Process | None = None
        """The top supervisor, where paths begin."""
        self._serial = 0
        self.loop = ports.loop.asyncio
        _of_loop[self.loop] = self
        _forget_latest()  # It may be an earlier system of this loop.
        _by_identity[(self.node, boot)] = self

    # -- starting ---------------------------------------------------------------------------------------

    def spawn(
        self,
        cls: type[Behaviour],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        parent: Process | None = None,
        link: bool = False,
        label: str | None = None,
        name: object = None,
        at_once: bool = True,
    ) -> Process:
        """Makes a process. `process.starting` is the reply that brings its ref, or `StartFailed`, once
        `__init__` and `init` have returned; None when that has already happened.

        With `at_once` the constructor runs now, in the name of the new process, while its creator is held;
        otherwise in the process's own first slot, and what comes of it is told to nobody.

        Raises:
            UsageError: `cls` is no actor class, or the parent to link to has ended.
            AlreadyRegistered: `name` is taken.
            StartFailed, Ignore: the constructor raised, with `at_once`.
        """
        if not (isinstance(cls, type) and issubclass(cls, Behaviour)):
            raise UsageError(f"{cls!r} is not an actor class; derive it from aspen.Actor")
        if link and parent is not None and parent.wake == DEAD:
            raise UsageError(f"{parent.path} has ended, so nothing can be linked to it; start() links to nobody")
        self._serial = serial = self._serial + 1
        process = Process(self, serial, cls.blueprint, label)
        process.parent = parent
        process.flags = self._flags
        if self.observer is not None:
            self.observer(process, "start", process.blueprint.kind, args)
        claimed: Claimed | None = None
        if name is not None:
            via = self.via_of(name)
            if isinstance(via, Claimed):
                claimed = via
            else:
                self.register(name, process)
        self.table[serial] = process
        if link and parent is not None:
            self.link(parent, process)
        if claimed is not None:
            # The name comes first, as with others; until it has come, the start is under way.
            process.starting = Reply(process, NEVER_NS)
            put_urgent(process, INIT, (lambda: self._claim(process, claimed, cls, args, kwargs),))
            return process
        if not at_once:
            process.starting = UNAWAITED
            process.birth = (args, kwargs)
            process.flags |= F_UNBORN
            self.scheduler.enqueue(process)
            return process
        try:
            self._construct(process, cls, args, kwargs)
        except Ignore:
            self._unstarted(process, NORMAL)
            raise
        except BaseException as error:
            reason = error.reason if isinstance(error, Stop) else error
            self._report(process, reason, ("__init__", args, None))
            self._unstarted(process, reason)
            if isinstance(error, KeyboardInterrupt):
                raise
            raise StartFailed(_why_not_started(process, reason), reason) from _cause(error)
        if process.blueprint.has_init:
            process.starting = Reply(process, NEVER_NS)
            put_urgent(process, INIT, ())
            if process.urgent is not None:
                process.urgent.rotate(1)  # before what the constructor put there with `continue_`
        return process

    async def _claim(
        self,
        process: Process,
        name: Claimed,
        cls: type[Behaviour],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
    ) -> Behaviour:
        """Makes an actor once it has its name."""
        await name.claim(self, process)
        self._construct(process, cls, args, kwargs)
        return cast("Behaviour", process.actor)

    def guard(self, process: Process, guard: Guard) -> None:
        """Has a guard asked from now on whether a process may act still."""
        process.more().guard = guard
        process.flags |= F_GUARDED

    def look_at(self, process: Process) -> None:
        """Has the guard of a process asked soon, also while a handler awaits."""
        self.signal(process, "look", ())

    def construct_itself(self, process: Process) -> None:
        """The first thing that a process does which was made with `at_once=False`."""
        process.flags &= ~F_UNBORN
        (args, kwargs), process.birth = process.birth or ((), None), None
        try:
            self._construct(process, process.blueprint.cls, args, kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._start_ended(process, error)
            return
        if process.blueprint.has_init:
            if process.urgent is None:
                process.urgent = deque()
            process.urgent.appendleft((INIT, (), None))
            process.flags |= F_URGENT
        else:
            process.starting = None

    def _construct(
        self, process: Process, cls: type[Behaviour], args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> None:
        new = cls.__new__
        actor = new(cls) if new is object.__new__ else new(cls, *args, **(kwargs or {}))
        actor._process = process
        process.actor = actor
        scheduler = self.scheduler
        creator, scheduler.current = scheduler.current, process
        try:
            if kwargs:
                cls.__init__(actor, *args, **kwargs)
            else:
                cls.__init__(actor, *args)
        finally:
            scheduler.current = creator

    def _unstarted(self, process: Process, reason: object) -> None:
        """Ends a process that never ran. Its creator learns of it by the error, not by an exit signal."""
        parent = process.parent
        if parent is not None:
            self.unlink(parent, process)
        self._die(process, reason)

    def broken(self, process: Process, error: Exception) -> None:
        """Ends a process in whose slot the kernel itself failed; the node goes on."""
        self._report(process, error, ("", (), None))
        self._die(process, error)

    def _start_ended(self, process: Process, error: BaseException | None) -> None:
        starting, process.starting = process.starting, None
        if starting is None:
            return
        if error is None:
            if isinstance(starting.error, Ignore):
                return
            starting.resolve(make_ref(process))
            return
        reason = error.reason if isinstance(error, Stop) else error
        if starting is UNAWAITED:
            if isinstance(error, Ignore):
                reason = NORMAL
            self._report(process, reason, (INIT, (), None))
            self._unstarted(process, reason)
            return
        if isinstance(error, Ignore) or (isinstance(error, AlreadyRegistered) and process.actor is None):
            failure: BaseException = error
            reason = NORMAL
        else:
            self._report(process, reason, (INIT, (), None))
            failure = StartFailed(_why_not_started(process, reason), reason)
            failure.__cause__ = _cause(error)
        self._unstarted(process, reason)
        starting.fail(failure)

    def end(self, process: Process, reason: object, *, terminate: bool) -> None:
        """Ends a process in order: a handler in progress is cancelled, `terminate` runs if asked for."""
        process.flags |= F_EXITING
        process.exit_reason = reason
        task = process.task
        if task is not None:
            task.cancel(f"exit: {describe_reason(reason)}")
            bound_ns = self.scheduler.mono_ns() + int(limits.EXIT_CLEANUP_S * 1e9)
            self.own_timer(process, bound_ns, lambda: self._die(process, reason))
            return
        actor = process.actor
        if terminate and actor is not None and type(actor).terminate is not Behaviour.terminate:
            message: Message = (TERMINATE, (reason,), None)
            try:
                result = actor.terminate(reason)
            except BaseException as error:
                reason = self._terminate_raised(process, error, message)
            else:
                if type(result) is CoroutineType:
                    self.scheduler._begin(process, result, message)
                    return
        self._die(process, reason)

    def _terminate_raised(self, process: Process, error: BaseException, message: Message) -> object:
        if isinstance(error, Stop):
            self._report(process, error.reason, message)
            return error.reason
        self._report(process, error, message)
        return error

    # -- what the scheduler tells ---------------------------------------------------------------------------

    def handler_raised(self, process: Process, error: BaseException, message: Message) -> None:
        """A handler ended by an exception: answers the caller, reports, and ends the process."""
        name, args, reply = message
        if name == APPLY:
            name = args[0]
        if name == INIT:
            self._start_ended(process, error)
            return
        if isinstance(error, Stop):
            if reply is not None:
                reply.fail(ActorFailed(f"{process.path} stopped: {describe_reason(error.reason)}", error.reason))
            if name != STOP:  # which others ask for: no fault of its own
                self._report(process, error.reason, message)
            self.end(process, error.reason, terminate=True)
            return
        if reply is not None:
            spec = process.blueprint.specs.get(name)
            if spec is not None and spec.raises and isinstance(error, spec.raises):
                reply.fail(error)
                return
            failure = ActorFailed(f"{process.path}.{name} raised {describe_reason(error)}", error)
            failure.__cause__ = error
            reply.fail(failure)
        self._report(process, error, message)
        self.end(process, error, terminate=True)

    def stopped(self, process: Process, message: Message) -> None:
        """Ends a process as `message` orders, a stop without a reply. Others ask for it: no crash, so no report."""
        self.end(process, message[1][0], terminate=True)

    def handler_ended(self, process: Process, task: HandlerTask, error: BaseException | None) -> None:
        """An async handler has ended, by `error` or in order."""
        if process.wake == DEAD:
            return
        message = task.message
        if process.flags & F_EXITING:
            reason = process.exit_reason
            if message[0] == TERMINATE:
                if error is not None:
                    reason = self._terminate_raised(process, error, message)
            elif message[2] is not None:
                message[2].fail(ActorFailed(f"{process.path} ended: {describe_reason(reason)}", reason))
            self._die(process, reason)
        elif error is not None:
            self.handler_raised(process, error, message)
        elif message[0] == INIT:
            self._start_ended(process, None)
        elif process.flags & F_IDLE:
            self.arm_idle(process)

    # -- the end -----------------------------------------------------------------------------------------------

    def _die(self, process: Process, reason: object) -> None:
        if process.wake == DEAD:
            return
        task, process.task = process.task, None
        mailbox, process.mailbox = process.mailbox, NO_MAIL
        urgent, process.urgent = process.urgent, None
        process.limit = 0
        process.wake = DEAD
        process.flags = F_DEAD
        if self.observer is not None:
            self.observer(process, "end", "", reason)
        control, process.control = process.control, None
        process.exit_reason = reason
        process.answering = None
        if task is not None:
            self._drop_task(process, task)
        extra = process.extra
        if extra is not None:
            process.extra = None
            self._tell(extra.names)
            for timer in tuple(extra.timers):
                timer.cancel()
            for deferred in extra.deferred:
                deferred.fail(self._failed(process, reason))
        self.table.pop(process.serial, None)
        starting = process.starting
        if starting is not None:
            process.starting = process.birth = None
            if not starting.done_:
                failure = StartFailed(_why_not_started(process, reason), reason)
                failure.__cause__ = reason if isinstance(reason, BaseException) else None
                starting.fail(failure)
        links = process.links
        if links is not None:
            process.links = None
            for linked in sorted(links, key=order_of):
                self.signal(linked, "exit", (process, reason, True))
        watchers = process.watchers
        if watchers is not None:
            process.watchers = None
            for number, watcher in watchers.items():
                self.tell_watcher(watcher, number, process, reason)
        monitoring = process.monitoring
        if monitoring is not None:
            process.monitoring = None
            for number, target in monitoring.items():
                self._unwatch(target, number)
        for name, args, reply in urgent or ():
            if reply is not None:
                reply.fail(no_proc(process, name))
            elif name not in _KERNEL_MESSAGES:
                self.dead_letter(process, "noproc", (name, *args))
        for name, args, reply in mailbox:
            if reply is not None:
                reply.fail(no_proc(process, name))
            else:
                self.dead_letter(process, "noproc", (name, *args))
        for signal, signal_args in control or ():
            if signal == "run":
                signal_args[1].fail(no_proc(process, "sys"))
        process.actor = None
        process.context = None
        if process.label is not None:
            process.label = process.path
        process.parent = None
        self._tell(self.on_exit, process, reason)

    def _failed(self, process: Process, reason: object) -> ActorFailed:
        failure = ActorFailed(f"{process.path} ended: {describe_reason(reason)}", reason)
        if isinstance(reason, BaseException):
            failure.__cause__ = reason
        return failure

    def _drop_task(self, process: Process, task: HandlerTask) -> None:
        waiting_on, process.waiting_on = process.waiting_on, None
        if isinstance(waiting_on, Reply):
            if waiting_on.waiter is process:
                waiting_on.waiter = None
        elif waiting_on is not None and waiting_on is not task:
            waiting_on.cancel()  # type: ignore[attr-defined]  # a foreign future, by duck type
        if task.reply is not None:
            task.reply.fail(self._failed(process, process.exit_reason))
        task.finish()
        task.pending = None
        try:
            task.close()
        except BaseException as error:
            self._report(process, error, task.message)

    # -- pids, timers -----------------------------------------------------------------------------------------

    def find(self, pid: Pid) -> Process | None:
        """The live process with this pid."""
        if (pid.node, pid.boot) != (self.node, self.boot):
            return None
        return self.table.get(pid.serial)

    def own_timer(self, process: Process, at_ns: int, callback: Callable[[], object]) -> Any:
        """A timer that is cancelled when `process` ends. What its callback raises is a crash of that process."""
        if process.wake == DEAD:
            return TimerEntry(None)
        timers = process.more().timers
        entry = self.scheduler.timer_at(at_ns, lambda: self._own_timer_fired(process, callback))
        entry.on_done = timers.discard
        timers.add(entry)
        return entry

    @staticmethod
    def _own_timer_fired(process: Process, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception as error:
            put_urgent(process, RAISE, (error,))

    def arm_idle(self, process: Process) -> None:
        """Starts the wait of `ctx.idle_timeout` again, after the process handled something."""
        extra = process.more()
        extra.last_ns = self.scheduler.mono_ns()
        if extra.idle_ns is None:
            process.flags &= ~F_IDLE
        elif extra.idle_timer is None or not extra.idle_timer.pending:
            extra.idle_timer = self.own_timer(process, extra.last_ns + extra.idle_ns, lambda: self._idle_check(process))

    def _idle_check(self, process: Process) -> None:
        extra = process.extra
        if process.wake == DEAD or extra is None or extra.idle_ns is None:
            return
        if process.task is not None or process.mailbox or process.urgent:
            return  # the wait starts again when that has been handled
        due = extra.last_ns + extra.idle_ns
        if self.scheduler.mono_ns() < due:
            extra.idle_timer = self.own_timer(process, due, lambda: self._idle_check(process))
            return
        put_urgent(process, IDLE_TIMEOUT, (IdleTimeout(),))

    def close(self) -> None:
        """Runs nothing more on this system."""
        self.scheduler.stop()
        _by_identity.pop((self.node, self.boot), None)


def _forget_latest() -> None:
    global _latest  # noqa: PLW0603 -- the cache of system_of_loop
    _latest = lambda: None  # noqa: E731 -- a dead weak reference


def system_of_loop() -> System:
    """The system of the running event loop.

    Raises:
        UsageError: the loop runs no node.
    """
    global _latest  # noqa: PLW0603 -- a cache of one: a process seldom runs more than one node
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        system = None
    else:
        system = _latest()
        if system is not None and system.loop is loop:
            return system
        system = _of_loop.get(loop)
    if system is None:
        raise UsageError("no Aspen node runs on this event loop; use `aspen run`, aspen.run(main()) or aspen.sim")
    _latest = weakref.ref(system)
    return system


def system_on(loop: asyncio.AbstractEventLoop) -> System | None:
    """The system of an event loop, if it runs a node."""
    return _of_loop.get(loop)


def system_of(pid: Pid) -> System | None:
    """The system of that node incarnation, when it is in this OS process."""
    return _by_identity.get((pid.node, pid.boot))


def _why_not_started(process: Process, reason: object) -> str:
    why = reason.term if isinstance(reason, Shutdown) else None
    return f"{process.blueprint.name} {process.path} did not start: {why or describe_reason(reason)}"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ if isinstance(error, Stop) else error
