"""`Actor`, the behaviour that most programs are made of, and the decorators for its handlers.

    class Counter(Actor):
        def __init__(self) -> None:
            self._n = 0

        @call
        def add(self, by: int) -> int:
            self._n += by
            return self._n

    counter = await start(Counter)
    assert await counter.add(2) == 2

A handler is `@call` (the caller gets an answer), `@cast` (it does not) or `@info(Type)` (messages of a type, such
as `Down`). Handlers run one at a time; an `async def` handler that awaits holds the next message back.
An exception ends the actor, after `terminate`, and its supervisor starts a new one: do not catch what you
cannot mend. Not for plain data or pure functions: a module is simpler.

A type checker sees `Ref[Counter]` as the class itself, so `counter.add("x")` is flagged; at run time
a ref has the handlers only. Keep state in `_names`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)
from typing import (
    cast as typed,
)

from aspen.actor import Behaviour, HandlerSpec, Reply, make_ref
from aspen.errors import UsageError
from aspen.limits import CALL_TIMEOUT_S

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
M = TypeVar("M")
A = TypeVar("A")


class _RefMark:
    """Marks `Ref[T]` as a reference."""


Ref = Annotated[T, _RefMark()]
"""The type of a reference to an actor of class T."""


class Actor(Behaviour):
    """The base of actors. Subclasses define `__init__`, handlers, and perhaps `init`, `terminate`,
    `handle_info`, `handle_continue`, `format_status`."""


class BoundCall(Generic[P, R]):
    """A call handler as seen on a ref."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Reply[R]:
        """Sends the call; await the reply."""
        return typed("Reply[R]", self._send(*args, **kwargs))


class BoundCast(Generic[P]):
    """A cast handler as seen on a ref."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Sends the cast."""
        self._send(*args, **kwargs)


class Call(Generic[P, R]):
    """What `@call` makes of a method. On the class it is itself; on an instance it sends, as on a ref."""

    def __init__(self, spec: HandlerSpec) -> None:
        self.aspen_handler = spec
        self.__doc__ = spec.fn.__doc__
        self.__wrapped__ = spec.fn

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> BoundCall[P, R]: ...
    def __get__(self, instance: object, owner: type[Any]) -> Self | BoundCall[P, R]:
        if instance is None:
            return self
        return BoundCall(getattr(_own_ref(instance), self.aspen_handler.name))


class Cast(Generic[P]):
    """What `@cast` makes of a method."""

    def __init__(self, spec: HandlerSpec) -> None:
        self.aspen_handler = spec
        self.__doc__ = spec.fn.__doc__
        self.__wrapped__ = spec.fn

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> BoundCast[P]: ...
    def __get__(self, instance: object, owner: type[Any]) -> Self | BoundCast[P]:
        if instance is None:
            return self
        return BoundCast(getattr(_own_ref(instance), self.aspen_handler.name))


def _own_ref(instance: object) -> Any:
    if not isinstance(instance, Behaviour):
        raise UsageError("@call and @cast belong on methods of an Actor")
    return make_ref(instance._process)


class _CallDecorator:
    """`@call(...)` with options."""

    def __init__(self, timeout: float | None, raises: tuple[type[BaseException], ...], urgent: bool) -> None:
        self._options: dict[str, Any] = {"timeout_s": timeout, "raises": raises, "urgent": urgent}

    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Call[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], R], /) -> Call[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Call[Any, Any]:
        return Call(HandlerSpec(fn.__name__, fn, is_call=True, **self._options))


@overload
def call(fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Call[P, R]: ...
@overload
def call(fn: Callable[Concatenate[Any, P], R], /) -> Call[P, R]: ...
@overload
def call(
    *, timeout: float | None = ..., raises: tuple[type[BaseException], ...] = ..., urgent: bool = ...
) -> _CallDecorator: ...
def call(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float | None = CALL_TIMEOUT_S,
    raises: tuple[type[BaseException], ...] = (),
    urgent: bool = False,
) -> Any:
    """Makes a method a call handler: others call it and await its result.

    Args:
        timeout: seconds after which the caller gets `CallTimeout`; None waits for ever. A caller that is itself
            under an earlier deadline passes that one on.
        raises: exceptions that are part of the interface: they reach the caller as they are and leave the
            actor running. Any other exception ends the actor, and the caller gets `ActorFailed`.
        urgent: the call goes before waiting mail and is not bounded by the mailbox.
    """
    decorator = _CallDecorator(_positive(timeout), raises, urgent)
    return decorator if fn is None else decorator(fn)


def cast(fn: Callable[Concatenate[Any, P], Any], /) -> Cast[P]:
    """Makes a method a cast handler: others send to it and go on; nothing comes back, not even an error."""
    return Cast(HandlerSpec(fn.__name__, fn, is_call=False))


def info(*types: type[M]) -> Callable[[Callable[[A, M], Any]], Callable[[A, M], Any]]:
    """Makes a method the handler for untyped messages of these types, their subclasses included."""
    if not types or not all(isinstance(t, type) for t in types):
        raise UsageError("@info needs the message types it handles: @info(Down)")

    def decorate(fn: Callable[[A, M], Any]) -> Callable[[A, M], Any]:
        typed(Any, fn).aspen_info = (*getattr(fn, "aspen_info", ()), *types)
        return fn

    return decorate


def _positive(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise UsageError(f"@call(timeout={timeout}): the timeout must be > 0 seconds, or None")
    return timeout


if TYPE_CHECKING:
    _: type[Awaitable[Any]] = Reply
