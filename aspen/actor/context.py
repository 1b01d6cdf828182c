"""`Context`: what an actor holds of the kernel, as `self.ctx`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aspen.actor.behaviour import CONTINUE, INFO, Behaviour
from aspen.actor.process import DEAD, F_IDLE, Process
from aspen.actor.refs import make_ref, process_of
from aspen.actor.reply import Reply
from aspen.actor.scheduler import DEFERRED, TimerEntry
from aspen.actor.sending import put_urgent, send_slow
from aspen.errors import UsageError
from aspen.traits import RandomStream
from aspen.types import NORMAL, Pid, Stop

if TYPE_CHECKING:
    from aspen.actor.system import System

R = TypeVar("R")


class Context:
    """An actor's hold on the kernel. Made at each `self.ctx`; keep it as long as you like."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def system(self) -> System:
        """The node's actors."""
        return self._process.system

    @property
    def pid(self) -> Pid:
        """This actor's identity."""
        return self._process.pid

    @property
    def path(self) -> str:
        """This actor's place in the supervision tree."""
        return self._process.path

    @property
    def ref(self) -> Any:
        """A reference to this actor, to give to others."""
        return make_ref(self._process)

    @property
    def parent(self) -> Any:
        """A reference to the actor that started this one linked, or None."""
        parent = self._process.parent
        return make_ref(parent) if parent is not None else None

    @property
    def trap_exit(self) -> bool:
        """Whether exits of linked actors come as `Exit` messages."""
        return self._process.trap_exit

    @trap_exit.setter
    def trap_exit(self, value: bool) -> None:
        self._process.trap_exit = value

    @property
    def kv(self) -> Any:
        """The client of the cluster's store, an `aspen.kv.Kv`, which the node's actors share. What an actor with a name
        in the cluster writes with it happens only while it holds the name.

        Raises:
            UsageError: the node takes part in no cluster.
        """
        system = self._process.system
        if system.kv_for is None:
            raise UsageError(
                f"node {system.name} is in no cluster, so it has no store; use `aspen up`, or --cluster NAME"
            )
        return system.kv_for(self._process)

    # -- other actors ----------------------------------------------------------------------------------

    def link(self, ref: object) -> None:
        """Links this actor with another: each learns when the other ends."""
        self._process.system.link(self._process, process_of(ref))

    def unlink(self, ref: object) -> None:
        """Takes the link away."""
        self._process.system.unlink(self._process, process_of(ref))

    def monitor(self, ref: object) -> int:
        """Asks for one `Down` message when that actor ends; returns its number."""
        return self._process.system.monitor(self._process, process_of(ref))

    def demonitor(self, number: int, *, flush: bool = False) -> bool:
        """Takes a monitor back; with `flush` also a `Down` already queued. False when it had come."""
        return self._process.system.demonitor(self._process, number, flush=flush)

    def exit(self, ref: object, reason: object) -> None:
        """Sends an exit signal to another actor."""
        self._process.system.exit(self._process, process_of(ref), reason)

    def send(self, ref: object, message: object) -> None:
        """Sends an untyped message, taken by `@info` or `handle_info`."""
        send_slow(process_of(ref), INFO, (message,))

    def register(self, name: object) -> None:
        """Takes a name on this node, until this actor ends. Raises AlreadyRegistered."""
        self._process.system.register(name, self._process)

    # -- itself ----------------------------------------------------------------------------------------

    def stop(self, reason: object = NORMAL) -> None:
        """Ends this actor now: raises `Stop`, which a handler must let pass."""
        raise Stop(reason)

    def continue_(self, message: object) -> None:
        """Has `handle_continue(message)` run after this handler, before any other message; several run in order."""
        process = self._process
        put_urgent(process, CONTINUE, (message,))
        urgent = process.urgent
        if urgent is not None:
            entry = urgent.pop()
            place = next((index for index, other in enumerate(urgent) if other[0] != CONTINUE), len(urgent))
            urgent.insert(place, entry)

    def reply_handle(self) -> ReplyHandle:
        """The caller of the call being handled, to be answered later; return `defer()` with it.

        Raises:
            UsageError: no call is being handled.
        """
        reply = self._process.answering
        if reply is None:
            raise UsageError("reply_handle() has a meaning only while a @call handler runs")
        return ReplyHandle(self._process, reply)

    def idle_timeout(self, seconds: float | None) -> None:
        """Has an `IdleTimeout` message come whenever no message came for so long; None ends it."""
        process = self._process
        if process.wake == DEAD:
            return
        idle_ns = None if seconds is None else _ns(seconds, "an idle timeout", least=1)
        extra = process.more()
        extra.idle_ns = idle_ns
        if extra.idle_timer is not None:
            extra.idle_timer.cancel()
        process.flags |= F_IDLE
        process.system.arm_idle(process)

    def send_after(self, delay_s: float, message: object, to: object = None) -> TimerEntry:
        """Sends an untyped message later, to itself unless `to` names another. Ends with this actor."""
        target = self._process if to is None else process_of(to)
        return self.call_after(delay_s, lambda: send_slow(target, INFO, (message,)))

    def call_after(self, delay_s: float, callback: Callable[[], object]) -> TimerEntry:
        """Runs `callback` later, outside any handler: a bound ref method, `ref.tick`, is the usual one."""
        process = self._process
        at_ns = process.sched.mono_ns() + _ns(delay_s, "a delay", least=0)
        entry: TimerEntry = process.system.own_timer(process, at_ns, callback)
        return entry

    def every(self, period_s: float, message: object, to: object = None) -> Every:
        """Sends an untyped message again and again; ticks that were missed are left out."""
        target = self._process if to is None else process_of(to)
        return Every(self._process, _ns(period_s, "a period", least=1), target, message)

    def offload(self, fn: Callable[..., R], *args: Any, process: bool = False) -> Any:
        """Runs work that would block the loop in a thread, or in a process of its own that is killed when this
        handler is cancelled. Await it; raises what `fn` raises."""
        offload = self._process.system.ports.offload
        return offload.process(fn, args) if process else offload.thread(fn, args)

    def now_ns(self) -> int:
        """The node's monotonic time."""
        return self._process.sched.mono_ns()

    def wall_ns(self) -> int:
        """The node's wall clock, since the Unix epoch."""
        return self._process.system.ports.clock.wall_ns()

    def rng(self, name: str) -> RandomStream:
        """A stream of random numbers for one purpose."""
        return self._process.system.ports.random.rng(name)

    def buggify(self, site: str) -> bool:
        """Always False, but in simulation, where it is True now and then: a place to go wrong on purpose."""
        return self._process.system.ports.buggify(site)


class ReplyHandle:
    """A caller who waits for an answer. It gets `ActorFailed` when the actor ends without one."""

    __slots__ = ("_process", "_reply")

    def __init__(self, process: Process, reply: Reply[Any]) -> None:
        self._process = process
        self._reply = reply
        process.more().defer(reply)

    @property
    def waiting(self) -> bool:
        """Whether there is still somebody to answer."""
        return not self._reply.done()

    def reply(self, value: object) -> None:
        """Answers. A second answer, or one after the deadline, is dropped."""
        system = self._process.system
        value = system.checked(value) if system.strict_messages else value
        self._take().resolve(value)

    def fail(self, error: Exception) -> None:
        """Answers with an exception, raised at the caller as it is."""
        self._take().fail(error)

    def _take(self) -> Reply[Any]:
        if self._process.extra is not None:
            self._process.extra.deferred.pop(self._reply, None)
        return self._reply


class Every:
    """A repeating timer."""

    __slots__ = ("_entry", "_message", "_next_ns", "_period_ns", "_process", "_target")

    def __init__(self, process: Process, period_ns: int, target: Process, message: object) -> None:
        self._process = process
        self._period_ns = period_ns
        self._target = target
        self._message = message
        self._next_ns = process.sched.mono_ns() + period_ns
        self._entry: TimerEntry | None = process.system.own_timer(process, self._next_ns, self._tick)

    def _tick(self) -> None:
        process = self._process
        if not self._target.alive:
            self._entry = None
            return
        send_slow(self._target, INFO, (self._message,))
        now = process.sched.mono_ns()
        missed = max(0, now - self._next_ns) // self._period_ns
        self._next_ns += (missed + 1) * self._period_ns
        self._entry = process.system.own_timer(process, self._next_ns, self._tick)

    @property
    def pending(self) -> bool:
        """Whether it goes on."""
        return self._entry is not None

    def cancel(self) -> None:
        """Ends it."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


def _ns(seconds: float, what: str, least: int) -> int:
    """The seconds in nanoseconds. Raises UsageError when that is no time to wait."""
    ns = int(seconds * 1e9) if math.isfinite(seconds) else -1
    if ns < least:
        raise UsageError(f"{what} of {seconds} s has no meaning; use {'> 0' if least else '>= 0'} seconds")
    return ns


def defer() -> R:  # type: ignore[type-var]  # stands for a result of whatever type the handler declares
    """Return it from a `@call` handler that answers later, through `ctx.reply_handle()`."""
    return cast(R, DEFERRED)


Behaviour._context_class = Context
