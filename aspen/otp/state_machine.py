"""`StateMachine`: an actor whose handlers depend on the state it is in. OTP's gen_statem.

    class Turnstile(StateMachine):
        initial = "locked"

        @state("locked")
        @call
        def coin(self, cents: int) -> int:          # declares the event, and handles it in "locked"
            self._cents += cents
            self.next_state("unlocked")
            return self._cents

        @on(coin, "unlocked")
        def _(self, cents: int) -> int:             # the same event in another state; checked against it
            return self._cents

        @enter("unlocked")
        def unlocked(self, previous: object) -> None:
            self.state_timeout(5.0)

        @state("unlocked")
        @info(StateTimeout)
        def lock(self, timeout: StateTimeout) -> None:
            self.next_state("locked")

Without `@state` a handler is for every state that has none of its own. A state is a string or any other hashable
value, an Enum member say; it is known when a decorator, `initial` or `states` names it. The machine's data are its
attributes. A subclass adds to an inherited event with `@on(Turnstile.coin, "broken")`, and replaces it, with all its
states, by declaring it again.

What a handler asks for (`next_state`, `postpone`, `next_event`, timeouts) is done when it has returned, and not at
all when it raises. Order, as in gen_statem:

1. The caller has its answer. A state change cancels the state timeout.
2. The state's `@enter` handler runs: after a change, after `repeat_state`, and at the start, when `init` has returned.
3. Events of `next_event`, in the order given.
4. Postponed events, oldest first, when the state has changed.
5. Timeouts of zero seconds. Then the mail, in which a timeout that has run out takes its place as it comes.

Any event cancels the event timeout. An event that the current state does not handle ends the machine with
`UnhandledEvent`, as in OTP, and its caller gets `ActorFailed`; `@call(raises=(UnhandledEvent,))` has the caller get
the error and the machine go on. Messages without an `@info` handler go to `handle_info`.

Not for a handful of flags in an actor: use it where the same message means different things at different times.
To debug: `sys.get_state` has the state as `_state`, `sys.status` also what is postponed and which timeouts run.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from types import CoroutineType
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

from aspen import limits
from aspen.actor import TimerEntry, defer, state_of
from aspen.actor.behaviour import APPLY, CONTINUE, IDLE_TIMEOUT, INFO, INIT
from aspen.actor.process import F_SUSPENDED, Message, Process
from aspen.actor.sending import put_urgent, send_unbounded
from aspen.errors import Overloaded, UnhandledEvent, UsageError
from aspen.otp.actor import Actor, Cast
from aspen.otp.states import ANY, TIMEOUTS, EventTimeout, Handler, Internal, NamedTimeout, StateTimeout, Table

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Fired:
    """In the mail: a timer has run out. Void when the timer has been replaced or cancelled since."""

    key: object
    serial: int


@dataclass(frozen=True, slots=True)
class _Enter:
    """Before all else: run the current state's enter handler."""

    previous: object


class _Timer:
    __slots__ = ("entry", "message", "serial")

    def __init__(self, serial: int, message: object) -> None:
        self.serial = serial
        self.message = message
        self.entry: TimerEntry | None = None


class _Work:
    """The machinery of one machine: what its handler in progress has asked for, and what waits."""

    __slots__ = (
        "again",
        "begun",
        "event",
        "inserted",
        "postponed",
        "postponing",
        "serial",
        "target",
        "timeouts",
        "timers",
    )

    def __init__(self) -> None:
        self.begun = False
        self.postponed: list[Message] = []
        self.timers: dict[object, _Timer] = {}
        self.serial = 0
        self.clear()

    def clear(self) -> None:
        """Forgets what was asked for."""
        self.event: Message | None = None
        self.target: object = ANY
        self.again = False
        self.postponing = False
        self.inserted: list[Message] = []
        self.timeouts: list[tuple[object, float | None, object]] = []

    def cancel(self, key: object) -> None:
        """Ends a timer, if it runs."""
        timer = self.timers.pop(key, None)
        if timer is not None and timer.entry is not None:
            timer.entry.cancel()


class StateMachine(Actor):
    """The base of state machines. Subclasses set `initial`, or call `next_state` in `__init__` or `init`."""

    __slots__ = ("__work", "_state")

    initial: ClassVar[object] = None
    """The state in which it starts."""
    states: ClassVar[tuple[object, ...]] = ()
    """States that no decorator names."""
    postponed_max: ClassVar[int] = limits.POSTPONED_EVENTS_MAX
    """Events that may be postponed; a call beyond fails with `Overloaded`, another event becomes a dead letter."""
    table: ClassVar[Table]
    _state: object
    __work: _Work

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        machine = super().__new__(cls)
        machine.__work = _Work()
        return machine

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.table = Table(cls)
        handlers = cls.blueprint.handlers
        for name in cls.table.events:
            handlers[name] = _dispatcher(name)
        handlers.update(
            {INFO: StateMachine.__info, IDLE_TIMEOUT: StateMachine.__info, CONTINUE: StateMachine.__continue}
        )
        handlers[INIT] = StateMachine.__begin
        cls.blueprint.has_init = True

    # -- what handlers ask for ---------------------------------------------------------------------------

    @property
    def state(self) -> object:
        """The current state; while a handler runs, the one in which it was called."""
        return getattr(self, "_state", self.initial)

    def next_state(self, state: object) -> None:
        """Changes the state when this handler has returned; to the current state is no change. In `__init__` and
        `init` it sets the first state, in `upgrade` the state under the new code.

        Raises:
            UsageError: no handler, `initial` or `states` names that state.
        """
        if state not in self.table.known:
            known = ", ".join(sorted(map(repr, self.table.known)))
            raise UsageError(f"{type(self).__qualname__} has no state {state!r}; it has: {known}")
        work = self.__work
        if not work.begun or (work.event is None and self._process.flags & F_SUSPENDED):
            self._state = state
        else:
            self.__asking("next_state").target = state

    def repeat_state(self) -> None:
        """Has the state's enter handler run again when this handler has returned. Nothing else changes."""
        self.__asking("repeat_state").again = True

    def postpone(self) -> R:  # type: ignore[type-var]  # stands for a result of whatever type the handler declares
        """Has this event come again after the next change of state, before newer mail. What the handler returns
        then has no effect: `return self.postpone()` is the usual way."""
        self.__asking("postpone").postponing = True
        deferred: R = defer()
        return deferred

    def next_event(self, event: Cast[P] | Internal[P], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Raises an event of the machine's own, `self.next_event(Door.lock, 3)`: it comes before any mail."""
        work = self.__asking("next_event")
        self.__insert(work, _message(event.__wrapped__.__name__, args, kwargs, None))

    def state_timeout(self, seconds: float | None, content: object = None) -> None:
        """Has `StateTimeout(content)` come after so long in the state to come. Replaces an earlier one; None ends it.
        A change of state cancels it."""
        self.__time_out(StateTimeout, seconds, StateTimeout(content))

    def event_timeout(self, seconds: float | None, content: object = None) -> None:
        """Has `EventTimeout(content)` come unless another event comes first. Replaces an earlier one; None ends it."""
        self.__time_out(EventTimeout, seconds, EventTimeout(content))

    def named_timeout(self, name: object, seconds: float | None, content: object = None) -> None:
        """Has `NamedTimeout(name, content)` come after so long, whatever happens meanwhile. Replaces the one of that
        name; None ends it."""
        self.__time_out((NamedTimeout, name), seconds, NamedTimeout(name, content))

    def __asking(self, what: str) -> _Work:
        work = self.__work
        if work.event is None:
            raise UsageError(f"{what}() has a meaning only while a handler of {type(self).__qualname__} runs")
        if isinstance(work.event[1][0] if work.event[1] else None, _Enter):
            raise UsageError(f"{what}() is not for an @enter handler; use a state_timeout(0), which comes as an event")
        return work

    def __insert(self, work: _Work, message: Message) -> None:
        if len(work.inserted) >= limits.INSERTED_EVENTS_MAX:
            raise UsageError(f"one handler raised {len(work.inserted)} events, the bound; split the work")
        work.inserted.append(message)

    def __time_out(self, key: object, seconds: float | None, message: object) -> None:
        work = self.__work
        if work.begun and work.event is None:
            raise UsageError("a timeout is set by a handler, or in __init__ or init; elsewhere use ctx.send_after()")
        if seconds is not None and not seconds >= 0:
            raise UsageError(f"a timeout of {seconds} s has no meaning; use seconds >= 0, or None to end it")
        work.timeouts.append((key, seconds, message))

    # -- how an event is handled -----------------------------------------------------------------------------

    async def __begin(self) -> None:
        await self.init()
        if self.state is None:
            raise UsageError(
                f"{type(self).__qualname__} has no first state: set `initial`, or next_state() in __init__"
            )
        self._state = self.state
        work = self.__work
        work.begun = True
        self.__start_timeouts(work)
        self.__queue_enter([], self._state)

    def __handle(self, fn: Handler, message: Message, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        work = self.__work
        work.event = message
        work.cancel(EventTimeout)
        try:
            result = fn(self, *args, **kwargs)
        except BaseException:
            work.clear()
            raise
        if type(result) is CoroutineType:
            return self.__handle_async(result, message)
        return self.__settle(work, message, result)

    async def __handle_async(self, running: Coroutine[Any, Any, Any], message: Message) -> Any:
        work = self.__work
        try:
            result = await running
        except BaseException:
            work.clear()
            raise
        return self.__settle(work, message, result)

    def __settle(self, work: _Work, message: Message, result: object) -> object:
        """Does what the handler asked for, in the order that the module describes."""
        process = self._process
        if work.postponing:
            result = self.__keep(work, message)
        coming, previous = work.inserted, self._state
        changed = work.target is not ANY and work.target != previous
        if changed:
            self._state = work.target
            work.cancel(StateTimeout)
            replayed, work.postponed = work.postponed, []
            for _, _, reply in replayed:
                if reply is not None:
                    process.more().deferred.pop(reply, None)
            coming += replayed
        if changed or work.again:
            self.__queue_enter(coming, previous)
        elif coming:
            _put_first(process, coming)
        self.__start_timeouts(work)
        work.clear()
        return result

    def __queue_enter(self, coming: list[Message], previous: object) -> None:
        enter_handlers = self.table.enter
        if self._state in enter_handlers or ANY in enter_handlers:
            coming.insert(0, (INFO, (_Enter(previous),), None))
        if coming:
            _put_first(self._process, coming)

    def __keep(self, work: _Work, message: Message) -> object:
        reply = message[2]
        process = self._process
        if len(work.postponed) >= self.postponed_max:
            if reply is None:
                process.system.dead_letter(process, "overloaded", message[:2])
            else:
                reply.fail(
                    Overloaded(f"{process.path} has {len(work.postponed)} events postponed, its bound; not executed")
                )
        else:
            work.postponed.append(message)
            if reply is not None:
                process.more().defer(reply)
        return defer()

    def __start_timeouts(self, work: _Work) -> None:
        process = self._process
        timeouts, work.timeouts = work.timeouts, []
        for key, seconds, message in timeouts:
            work.cancel(key)
            if seconds is None:
                continue
            if len(work.timers) >= limits.MACHINE_TIMEOUTS_MAX:
                raise UsageError(
                    f"{process.path} has {len(work.timers)} timeouts, the bound; end some, or name them alike"
                )
            work.serial += 1
            timer = work.timers[key] = _Timer(work.serial, message)
            fired = (_Fired(key, work.serial),)
            if seconds == 0:
                put_urgent(process, INFO, fired)
            else:
                timer.entry = process.system.own_timer(
                    process,
                    process.sched.mono_ns() + int(seconds * 1e9),
                    partial(send_unbounded, process, INFO, fired),
                )

    def __info(self, message: object) -> Any:
        if isinstance(message, _Enter):
            handler = self.table.enter.get(self._state) or self.table.enter.get(ANY)
            if handler is None:
                return None
            return self.__enter(handler, message)
        if isinstance(message, _Fired):
            timer = self.__work.timers.get(message.key)
            if timer is None or timer.serial != message.serial:
                return None
            del self.__work.timers[message.key]
            message = timer.message
        event: Message = (INFO, (message,), None)
        handler = self.table.info_handler(message, self._state)
        if handler is None:
            if isinstance(message, TIMEOUTS):
                raise self.__unhandled(repr(message))
            handler = type(self).handle_info
        return self.__handle(handler, event, (message,), {})

    def __enter(self, handler: Handler, message: _Enter) -> Any:
        work = self.__work
        work.event = (INFO, (message,), None)
        result = handler(self, message.previous)
        if type(result) is CoroutineType:
            return self.__enter_async(result)
        self.__start_timeouts(work)
        work.clear()
        return None

    async def __enter_async(self, running: Coroutine[Any, Any, Any]) -> None:
        await running
        self.__start_timeouts(self.__work)
        self.__work.clear()

    def __continue(self, message: object) -> Any:
        return self.__handle(type(self).handle_continue, (CONTINUE, (message,), None), (message,), {})

    def _event(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Handles a declared event in the current state."""
        message = _message(name, args, kwargs, self._process.answering)
        handler = self.table.event_handler(name, self._state)
        if handler is None:
            self.__work.cancel(EventTimeout)
            raise self.__unhandled(name)
        return self.__handle(handler, message, args, kwargs)

    def __unhandled(self, what: str) -> UnhandledEvent:
        process = self._process
        return UnhandledEvent(
            f"{process.path} does not handle {what} in state {self._state!r}; give it an @on(..., {self._state!r}) "
            f"handler, or one for any state"
        )

    # -- operations -----------------------------------------------------------------------------------------

    def upgrade(self, old_version: object, extra: object) -> Any:
        """Checks that this class's code knows the current state; an override calls `next_state` when it does not."""
        if self.state not in self.table.known:
            raise UsageError(
                f"{type(self).__qualname__} has no state {self.state!r}, in which the machine is; "
                f"move it in upgrade(): self.next_state(...)"
            )

    def format_status(self) -> object:
        """The state, what waits for another one, the timeouts that run, and the data; override to keep secrets out."""
        data = state_of(self)
        data.pop("_state", None)
        work = self.__work
        return {
            "state": self.state,
            "postponed": [message[0] for message in work.postponed[:10]],
            "postponed_count": len(work.postponed),
            "timeouts": [timer.message for timer in work.timers.values()],
            "data": data,
        }


def _message(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], reply: Any) -> Message:
    return (APPLY, (name, args, kwargs), reply) if kwargs else (name, args, reply)


def _dispatcher(name: str) -> Handler:
    def dispatch(machine: StateMachine, /, *args: Any, **kwargs: Any) -> Any:
        return machine._event(name, args, kwargs)

    return dispatch


def _put_first(process: Process, messages: list[Message]) -> None:
    """Queues events before everything else that the process is to handle."""
    name, args, reply = messages[-1]
    put_urgent(process, name, args, reply)
    urgent = process.urgent
    if urgent is not None:
        urgent.rotate(1)
        urgent.extendleft(reversed(messages[:-1]))
