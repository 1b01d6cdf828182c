"""`System`: the actors of one node incarnation, and what happens between them.

It owns the process table, the scheduler, the local names, and the record of crashes and dead letters. Links,
monitors and exit signals live here:

- A *signal* (`exit`, `down`, a sys request) goes into the control lane of its target and is acted on at
  the start of the target's next slot, before any message and even while a handler awaits.
- A process *ends* in one place, `_die`: names are given up first, then links and monitors are told, then
  waiting mail is refused. Whoever learns of the end finds the name free.
"""

from __future__ import annotations

import asyncio
import traceback
import weakref
from collections import Counter, deque
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from aspen import limits, wire
from aspen.actor.behaviour import IDLE_TIMEOUT, INFO, INIT, STOP, Behaviour
from aspen.actor.process import (
    DEAD,
    F_CONTROL,
    F_DEAD,
    F_EXITING,
    F_IDLE,
    F_OBSERVED,
    F_STRICT,
    NO_MAIL,
    QUEUED,
    Debug,
    Message,
    Process,
)
from aspen.actor.refs import make_ref
from aspen.actor.reply import NEVER_NS, Reply
from aspen.actor.scheduler import Scheduler
from aspen.actor.sending import no_proc, put_urgent
from aspen.actor.task import HandlerTask
from aspen.errors import ActorFailed, AlreadyRegistered, StartFailed, UsageError
from aspen.traits import Ports
from aspen.types import (
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    CrashReport,
    DeadLetter,
    Down,
    Exit,
    IdleTimeout,
    Ignore,
    Pid,
    Stop,
    SupervisorReport,
    describe_reason,
    is_benign,
)

_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, System] = weakref.WeakKeyDictionary()
_by_identity: weakref.WeakValueDictionary[tuple[str, int], System] = weakref.WeakValueDictionary()

TERMINATE = "terminate"

Observer = Callable[[Process, str, str, object], object]
"""`(process, event, name, payload)`; events: `receive`, `reply`, `start`, `end`. The payload may change later."""


class Tombstone(Behaviour):
    """Stands where a name has no holder."""


class System:
    """The actors of one node incarnation. All methods run on the thread of its loop."""

    def __init__(
        self,
        name: str,
        ports: Ports,
        *,
        boot: int = 1,
        strict_messages: bool = False,
        choose: Callable[[deque[Process]], bool | None] | None = None,
    ) -> None:
        """`choose` is simulation's: see `Scheduler`. In simulation `ports.steering` gives it, and an observer that
        is told of every message that an actor takes, every reply, and every start and end."""
        steering = ports.steering
        if steering is not None:
            choose = choose or steering.choose
            strict_messages = strict_messages or steering.strict_messages
        observer: Observer | None = steering.observer if steering is not None else None
        self.name = name
        self.boot = boot
        self.ports = ports
        self.strict_messages = strict_messages
        self.observer = observer
        self._flags = (F_STRICT if strict_messages else 0) | (F_OBSERVED if observer is not None else 0)
        """What every process begins with."""
        self.scheduler = Scheduler(self, choose)
        self.table: dict[int, Process] = {}
        self.names: dict[object, Process] = {}
        self.tables: dict[str, Any] = {}
        """Tables that behaviours share within the node, as `Registry` does; by name."""
        self.root: Process | None = None
        """The top supervisor, where paths begin."""
        self.dead_letter_counts: Counter[str] = Counter()
        self.dead_letters: deque[DeadLetter] = deque(maxlen=limits.DEAD_LETTERS_KEPT_MAX)
        self.crashes: deque[CrashReport] = deque(maxlen=limits.CRASH_REPORTS_KEPT_MAX)
        self.on_crash: list[Callable[[CrashReport], object]] = []
        self.on_dead_letter: list[Callable[[DeadLetter], object]] = []
        self.on_supervision: list[Callable[[SupervisorReport], object]] = []
        self.on_exit: list[Callable[[Process, object], object]] = []
        """Called with each process that ended and its reason, after everyone was told."""
        self.signals: dict[str, Callable[..., None]] = {
            "exit": self._on_exit,
            "down": self._on_down,
            "run": self._on_run,
        }
        self._serial = 0
        self._monitor = 0
        _of_loop[ports.loop.asyncio] = self
        _by_identity[(name, boot)] = self

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
        otherwise in the process's own first slot.

        Raises:
            UsageError: `cls` is no actor class.
            AlreadyRegistered: `name` is taken.
            StartFailed, Ignore: the constructor raised, with `at_once`.
        """
        if not (isinstance(cls, type) and issubclass(cls, Behaviour)):
            raise UsageError(f"{cls!r} is not an actor class; derive it from aspen.Actor")
        self._serial = serial = self._serial + 1
        process = Process(self, serial, cls.blueprint, label)
        process.parent = parent
        process.flags = self._flags
        if self.observer is not None:
            self.observer(process, "start", process.blueprint.kind, args)
        if name is not None:
            self.register(name, process)
        self.table[serial] = process
        if link and parent is not None:
            self.link(parent, process)
        if not at_once:
            process.starting = Reply(process, NEVER_NS)
            put_urgent(process, INIT, ())
            process.handlers = {**process.handlers, INIT: _construct_later(self, process, cls, args, kwargs)}
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
            raise StartFailed(_why_not_started(process, reason), reason) from _cause(error)
        if process.blueprint.has_init:
            process.starting = Reply(process, NEVER_NS)
            put_urgent(process, INIT, ())
        return process

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
        if isinstance(error, Ignore):
            failure: BaseException = error
            reason = NORMAL
        else:
            self._report(process, reason, (INIT, (), None))
            failure = StartFailed(_why_not_started(process, reason), reason)
            failure.__cause__ = _cause(error)
        self._unstarted(process, reason)
        starting.fail(failure)

    # -- links, monitors, exits ------------------------------------------------------------------------------

    def link(self, one: Process, other: Process) -> None:
        """Links two processes, once. A dead `other` sends `one` an exit with `NOPROC`."""
        if one is other:
            return
        if other.wake == DEAD:
            self._add_link(one, other)
            self.signal(one, "exit", (other, NOPROC, True))
            return
        self._add_link(one, other)
        self._add_link(other, one)

    @staticmethod
    def _add_link(one: Process, other: Process) -> None:
        if one.links is None:
            one.links = set()
        one.links.add(other)

    def unlink(self, one: Process, other: Process) -> None:
        """Takes the link away; an exit signal that is on its way has no effect any more."""
        for a, b in ((one, other), (other, one)):
            if a.links is not None:
                a.links.discard(b)

    def monitor(self, watcher: Process | Reply[Any], target: Process) -> int:
        """Watches `target`. A process gets one `Down`; a reply is resolved with the exit reason."""
        self._monitor = number = self._monitor + 1
        if target.wake == DEAD:
            reason = NOPROC
            if isinstance(watcher, Reply):
                watcher.resolve(reason)
            else:
                self._note_monitoring(watcher, number, target)
                self.signal(watcher, "down", (number, target.pid, reason))
            return number
        if target.watchers is None:
            target.watchers = {}
        target.watchers[number] = watcher
        if isinstance(watcher, Process):
            self._note_monitoring(watcher, number, target)
        return number

    @staticmethod
    def _note_monitoring(watcher: Process, number: int, target: Process) -> None:
        if watcher.monitoring is None:
            watcher.monitoring = {}
        watcher.monitoring[number] = target

    def demonitor(self, watcher: Process, number: int, *, flush: bool = False) -> bool:
        """Stops watching. With `flush`, a `Down` that is already queued is taken out. False when it was not
        watching any more."""
        target = (watcher.monitoring or {}).pop(number, None)
        if target is not None and target.watchers is not None:
            target.watchers.pop(number, None)
        if flush and watcher.urgent is not None:
            kept = [m for m in watcher.urgent if not (m[0] == INFO and _is_down(m[1][0], number))]
            watcher.urgent.clear()
            watcher.urgent.extend(kept)
        return target is not None

    def exit_reason(self, target: Process) -> Reply[object]:
        """A reply that brings the exit reason of `target` when it ends; `NOPROC` when it had ended before."""
        reply: Reply[object] = Reply(target, NEVER_NS)
        self.monitor(reply, target)
        return reply

    def forget(self, target: Process, reply: Reply[Any]) -> None:
        """Takes back an `exit_reason` that nobody awaits any more."""
        if target.watchers is not None:
            target.watchers = {n: w for n, w in target.watchers.items() if w is not reply}

    def exit(self, sender: Process | None, target: Process, reason: object) -> None:
        """Sends an exit signal: OTP's `exit(Pid, Reason)`."""
        self.signal(target, "exit", (sender, reason, False))

    def signal(self, target: Process, name: str, args: tuple[Any, ...]) -> None:
        """Queues a signal in the control lane; dropped when the target is dead."""
        if target.wake == DEAD:
            return
        if target.control is None:
            target.control = []
        target.control.append((name, args))
        target.flags |= F_CONTROL
        if target.wake != QUEUED:
            self.scheduler.enqueue(target)

    def _on_exit(self, process: Process, sender: Process | None, reason: object, linked: bool) -> None:
        if linked:
            if process.links is None or sender not in process.links:
                return
            process.links.discard(sender)
        elif isinstance(reason, str) and reason == KILL:
            self._die(process, KILLED)
            return
        if process.trap_exit and process.starting is None:
            if sender is not None and sender is process.parent:
                put_urgent(process, STOP, (reason,))
                if linked:
                    self._bound_orphan(process)
            else:
                pid = sender.pid if sender is not None else Pid(self.name, self.boot, 0)
                put_urgent(process, INFO, (Exit(pid, reason),))
            return
        if isinstance(reason, str) and reason == NORMAL and sender is not process:
            return
        if not process.flags & F_EXITING:
            self.end(process, reason, terminate=False)

    def _bound_orphan(self, process: Process) -> None:
        """The parent is dead, and nobody else would end a child whose handler never does."""

        def check() -> None:
            if not process.flags & F_EXITING:
                self._die(process, KILLED)

        self.own_timer(process, self.scheduler.mono_ns() + int(limits.EXIT_CLEANUP_S * 1e9), check)

    def _on_down(self, process: Process, number: int, pid: Pid, reason: object) -> None:
        if process.monitoring is not None and process.monitoring.pop(number, None) is not None:
            put_urgent(process, INFO, (Down(number, pid, reason),))

    def _on_run(self, process: Process, fn: Callable[[Process], object], reply: Reply[Any]) -> None:
        try:
            reply.resolve(fn(process))
        except Exception as error:
            reply.fail(error)

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
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, Stop):
            return error.reason
        self._report(process, error, message)
        return error

    # -- what the scheduler tells ---------------------------------------------------------------------------

    def handler_raised(self, process: Process, error: BaseException, message: Message) -> None:
        """A handler ended by an exception: answers the caller, reports, and ends the process."""
        name, _, reply = message
        if name == INIT:
            self._start_ended(process, error)
            return
        if isinstance(error, Stop):
            if reply is not None:
                reply.fail(ActorFailed(f"{process.path} stopped: {describe_reason(error.reason)}", error.reason))
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

    def observe(self, process: Process, debug: Debug, event: str, message: Message, detail: object) -> None:
        """Counts and traces one event of a process for `sys`."""
        name, args, reply = message
        if event == "receive":
            if name == INFO:
                debug.infos += 1
            elif reply is None:
                debug.casts += 1
            else:
                debug.calls += 1
        for tracer in tuple(debug.tracers):
            tracer(event, name, args, detail)

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
        process.control = None
        process.exit_reason = reason
        process.answering = None
        if task is not None:
            self._drop_task(process, task)
        extra, process.extra = process.extra, None
        if extra is not None:
            for give_up in extra.names:
                give_up()
            for timer in tuple(extra.timers):
                timer.cancel()
            for deferred in extra.deferred:
                deferred.fail(self._failed(process, reason))
        self.table.pop(process.serial, None)
        starting, process.starting = process.starting, None
        if starting is not None and not starting.done_:
            starting.fail(StartFailed(_why_not_started(process, reason), reason))
        links, process.links = process.links, None
        for linked in sorted(links or (), key=_serial):
            self.signal(linked, "exit", (process, reason, True))
        watchers, process.watchers = process.watchers, None
        for number, watcher in (watchers or {}).items():
            if isinstance(watcher, Reply):
                watcher.resolve(reason)
            else:
                self.signal(watcher, "down", (number, process.pid, reason))
        monitoring, process.monitoring = process.monitoring, None
        for number, target in (monitoring or {}).items():
            if target.watchers is not None:
                target.watchers.pop(number, None)
        for name, args, reply in (*(urgent or ()), *mailbox):
            if reply is not None:
                reply.fail(no_proc(process, name) if name != STOP else self._failed(process, reason))
            elif name not in (INFO, STOP, IDLE_TIMEOUT):
                self.dead_letter(process, "noproc", (name, *args))
        process.actor = None
        process.context = None
        if process.label is not None:
            process.label = process.path
        process.parent = None
        for listener in self.on_exit:
            listener(process, reason)

    def _failed(self, process: Process, reason: object) -> ActorFailed:
        failure = ActorFailed(f"{process.path} ended: {describe_reason(reason)}", reason)
        if isinstance(reason, BaseException):
            failure.__cause__ = reason
        return failure

    def _drop_task(self, process: Process, task: HandlerTask) -> None:
        waiting_on, process.waiting_on = process.waiting_on, None
        if isinstance(waiting_on, Reply):
            waiting_on.waiter = None
        elif waiting_on is not None and waiting_on is not task:
            waiting_on.cancel()  # type: ignore[attr-defined]  # a foreign future, by duck type
        if task.reply is not None:
            task.reply.fail(self._failed(process, process.exit_reason))
        task.finish()
        try:
            task.coro.close()
        except BaseException as error:
            self._report(process, error, task.message)

    # -- names, timers -----------------------------------------------------------------------------------------

    def register(self, name: object, process: Process) -> None:
        """Gives a live process a name on this node; given up when it ends.

        Raises:
            AlreadyRegistered: another live process has it.
        """
        holder = self.names.get(name)
        if holder is not None:
            raise AlreadyRegistered(f"the name {name!r} is held by {holder.path} {holder.pid}", holder.pid)
        self.names[name] = process
        process.more().names.append(lambda: self.unregister(name, process))

    def unregister(self, name: object, process: Process) -> None:
        """Gives a name up, if this process holds it."""
        if self.names.get(name) is process:
            del self.names[name]

    def whereis(self, name: object) -> Process | None:
        """The holder of a name."""
        return self.names.get(name)

    def tombstone(self, name: object) -> Process:
        """A dead process that stands for a name nobody holds."""
        process = Process(self, 0, Tombstone.blueprint, f"{name!r}")
        process.wake, process.flags = DEAD, F_DEAD
        return process

    def find(self, pid: Pid) -> Process | None:
        """The live process with this pid."""
        if (pid.node, pid.boot) != (self.name, self.boot):
            return None
        return self.table.get(pid.serial)

    def own_timer(self, process: Process, at_ns: int, callback: Callable[[], object]) -> Any:
        """A timer that is cancelled when `process` ends."""
        timers = process.more().timers
        entry = self.scheduler.timer_at(at_ns, callback)
        entry.on_done = timers.discard
        timers.add(entry)
        return entry

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
        due = extra.last_ns + extra.idle_ns
        if process.task is not None or process.mailbox or self.scheduler.mono_ns() < due:
            due = max(due, self.scheduler.mono_ns() + 1)
            extra.idle_timer = self.own_timer(process, due, lambda: self._idle_check(process))
            return
        put_urgent(process, IDLE_TIMEOUT, (IdleTimeout(),))

    # -- what is kept for a person -----------------------------------------------------------------------------

    def checked(self, value: Any) -> Any:
        """The value as it arrives after encoding and decoding; `NotEncodable` when it cannot."""
        return wire.copy(value)

    def dead_letter(self, process: Process, reason: str, message: object) -> None:
        """Counts and keeps a message that nobody took."""
        self.dead_letter_counts[reason] += 1
        letter = DeadLetter(self.scheduler.mono_ns(), process.path, reason, abbreviate(message))
        self.dead_letters.append(letter)
        for listener in self.on_dead_letter:
            listener(letter)

    def _report(self, process: Process, reason: object, message: Message) -> None:
        if is_benign(reason):
            return
        actor = process.actor
        try:
            state = abbreviate(actor.format_status()) if actor is not None else ""
        except Exception as error:
            state = f"<format_status raised {describe_reason(error)}>"
        ancestors = []
        parent = process.parent
        while parent is not None:
            ancestors.append(parent.path)
            parent = parent.parent
        report = CrashReport(
            at_wall_ns=self.ports.clock.wall_ns(),
            pid=process.pid,
            path=process.path,
            kind=process.blueprint.kind,
            reason=describe_reason(reason),
            message=abbreviate((message[0], *message[1])),
            state=state,
            ancestors=tuple(ancestors),
            traceback="".join(traceback.format_exception(reason)) if isinstance(reason, BaseException) else "",
        )
        self.crashes.append(report)
        if process.debug is not None:
            self.observe(process, process.debug, "crash", message, reason)
        for listener in self.on_crash:
            listener(report)

    def close(self) -> None:
        """Runs nothing more on this system."""
        self.scheduler.stop()
        _by_identity.pop((self.name, self.boot), None)


def abbreviate(value: object, chars_max: int = limits.REPORT_TEXT_CHARS_MAX) -> str:
    """`repr(value)`, cut to a bound; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<repr of {type(value).__name__} raised {describe_reason(error)}>"
    return text if len(text) <= chars_max else f"{text[:chars_max]}... ({len(text)} characters)"


def system_of_loop() -> System:
    """The system of the running event loop.

    Raises:
        UsageError: the loop runs no node.
    """
    try:
        system = _of_loop.get(asyncio.get_running_loop())
    except RuntimeError:
        system = None
    if system is None:
        raise UsageError("no Aspen node runs on this event loop; use `aspen run`, aspen.node.run() or aspen.sim")
    return system


def system_on(loop: asyncio.AbstractEventLoop) -> System | None:
    """The system of an event loop, if it runs a node."""
    return _of_loop.get(loop)


def system_of(pid: Pid) -> System | None:
    """The system of that node incarnation, when it is in this OS process."""
    return _by_identity.get((pid.node, pid.boot))


def _construct_later(
    system: System, process: Process, cls: type[Behaviour], args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> Callable[..., Any]:
    def construct(_: object) -> Any:
        process.handlers = process.blueprint.handlers
        system._construct(process, cls, args, kwargs)
        assert_started = process.actor
        if process.blueprint.has_init and assert_started is not None:
            return assert_started.init()
        system._start_ended(process, None)
        return None

    return construct


def _serial(process: Process) -> int:
    return process.serial


def _is_down(message: object, number: int) -> bool:
    return isinstance(message, Down) and message.monitor == number


def _why_not_started(process: Process, reason: object) -> str:
    return f"{process.blueprint.name} {process.path} did not start: {describe_reason(reason)}"


def _cause(error: BaseException) -> BaseException | None:
    return None if isinstance(error, Stop) else error
