"""How a state machine declares its handlers, and the table that its class makes of them.

Handlers for one event in several states are found through the event, so that they need no names: `@on(coin, "open")`
leaves its method with `coin`, and the class that is made next with that event takes what was left.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

from aspen.errors import UsageError
from aspen.otp.actor import BoundCast, Call, Cast

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")

Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class StateTimeout:
    """The machine has been in its state for the time given to `state_timeout`."""

    content: object = None


@dataclass(frozen=True, slots=True)
class EventTimeout:
    """No event came for the time given to `event_timeout`."""

    content: object = None


@dataclass(frozen=True, slots=True)
class NamedTimeout:
    """The time given to `named_timeout` is over."""

    name: object
    content: object = None


TIMEOUTS: Final = (StateTimeout, EventTimeout, NamedTimeout)


class Internal(Generic[P]):
    """What `@internal` makes of a method: an event that only the machine itself can raise. Not on refs."""

    def __init__(self, fn: Handler) -> None:
        self.aspen_internal = fn
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> BoundCast[P]: ...
    def __get__(self, instance: object, owner: type[Any]) -> Self | BoundCast[P]:
        if instance is None:
            return self
        return BoundCast(partial(cast(Any, instance).next_event, self))


def internal(fn: Callable[Concatenate[Any, P], Any], /) -> Internal[P]:
    """Makes a method an internal event's handler: `self.settle(3)` has it run next, before any mail."""
    return Internal(fn)


def state(*names: object) -> Callable[[T], T]:
    """Has a `@call`, `@cast`, `@internal` or `@info` handler hold in these states only. Stands above them.

    Raises:
        UsageError: no state is named, or two `@info` handlers would have the name `_`.
    """
    if not names:
        raise UsageError("@state needs the states in which the handler holds: @state('locked')")

    def decorate(handler: T) -> T:
        _check_named(handler, "state")
        cast(Any, handler).aspen_states = names
        return handler

    return decorate


@overload
def on(
    event: Call[P, R], /, *states: object
) -> Callable[
    [Callable[Concatenate[A, P], R | Coroutine[Any, Any, R]]],
    Callable[Concatenate[A, P], R | Coroutine[Any, Any, R]],
]: ...
@overload
def on(
    event: Cast[P] | Internal[P], /, *states: object
) -> Callable[[Callable[Concatenate[A, P], Any]], Callable[Concatenate[A, P], Any]]: ...
def on(event: Any, /, *states: object) -> Any:
    """Makes a method the handler of a declared event in these states. The method may be called `_`.

    Raises:
        UsageError: no state is named, `event` is no event, or the method has the event's own name.
    """
    if not states or not isinstance(event, Call | Cast | Internal):
        raise UsageError("@on needs a declared event and the states: @on(coin, 'unlocked')")

    def decorate(fn: Handler) -> Handler:
        if fn.__name__ == event.__wrapped__.__name__:
            raise UsageError(f"{fn.__qualname__} would replace the event that it handles; call the method `_`")
        cast(Any, event).aspen_pending = (*getattr(event, "aspen_pending", ()), (states, fn))
        return fn

    return decorate


def enter(*states: object) -> Callable[[Callable[[A, Any], T]], Callable[[A, Any], T]]:
    """Makes a method the one that runs when the machine enters these states; without any, every other state.

    It gets the previous state, which is the state itself at the start and after `repeat_state`. It may set timeouts
    and answer callers, but not change the state, postpone, or raise events.
    """

    def decorate(fn: Callable[[A, Any], T]) -> Callable[[A, Any], T]:
        _check_named(fn, "enter")
        cast(Any, fn).aspen_enter = states or (ANY,)
        return fn

    return decorate


def _check_named(handler: object, decorator: str) -> None:
    if getattr(handler, "__name__", "") == "_":
        raise UsageError(f"@{decorator} on a method called `_`: the next `_` would replace it; give it a name")


class AnyState:
    """Stands for every state that has no handler of its own."""

    def __repr__(self) -> str:
        return "any state"


ANY: Final = AnyState()
ByState = dict[object, Handler]


class Table:
    """Which handler of a class runs for which event in which state. Made once for each class."""

    def __init__(self, cls: type[Any]) -> None:
        self.events: dict[str, tuple[object, ByState]] = {}
        self.enter: ByState = {}
        self.infos: dict[object, dict[type, Handler]] = {}
        attributes: dict[str, object] = {}
        for base in reversed(cls.__mro__):
            attributes.update(vars(base))
        for name, value in attributes.items():
            if isinstance(value, Call | Cast | Internal):
                self.events[name] = (value, self._event(cls, name, value))
            for entered in getattr(value, "aspen_enter", ()):
                self._add(cls, self.enter, entered, cast(Handler, value), f"entering {entered!r}")
            for message_type in getattr(value, "aspen_info", ()):
                for in_state in getattr(value, "aspen_states", (ANY,)):
                    handlers = self.infos.setdefault(in_state, {})
                    self._add(cls, handlers, message_type, cast(Handler, value), f"{message_type} in {in_state!r}")
        self.known = {cls.initial, *cls.states, *self.enter, *self.infos}
        for _, by_state in self.events.values():
            self.known.update(by_state)
        self.known -= {None, ANY}

    def _event(self, cls: type[Any], name: str, event: Any) -> ByState:
        by_state: ByState = {}
        for base in cls.__mro__[1:]:
            inherited = base.__dict__["table"].events.get(name) if "table" in base.__dict__ else None
            if inherited is not None and inherited[0] is event:
                by_state = dict(inherited[1])
                break
        else:
            fn = event.__wrapped__
            for in_state in getattr(event, "aspen_states", getattr(fn, "aspen_states", (ANY,))):
                by_state[in_state] = fn
        own: ByState = {} if name not in vars(cls) else dict(by_state)
        for states, fn in event.__dict__.pop("aspen_pending", ()):
            for in_state in states:
                self._add(cls, own, in_state, fn, f"{name} in {in_state!r}")
        return {**by_state, **own}

    @staticmethod
    def _add(owner: type, handlers: dict[Any, Handler], key: object, fn: Handler, what: str) -> None:
        if key in handlers:
            raise UsageError(f"{owner.__qualname__} has two handlers for {what}: {handlers[key].__qualname__} and {fn}")
        handlers[key] = fn

    def event_handler(self, name: str, in_state: object) -> Handler | None:
        """The handler of a declared event."""
        by_state = self.events[name][1]
        return by_state.get(in_state) or by_state.get(ANY)

    def info_handler(self, message: object, in_state: object) -> Handler | None:
        """The handler of a message: the state's own for its nearest class, else the one for any state."""
        for handlers in (self.infos.get(in_state), self.infos.get(ANY)):
            if handlers:
                for cls in type(message).__mro__:
                    if cls in handlers:
                        return handlers[cls]
        return None
