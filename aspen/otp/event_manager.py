"""`EventManager`: one place to tell events, any number of handlers that listen. OTP's gen_event.

    class Console(EventHandler):
        def __init__(self, prefix: str) -> None:
            self._prefix = prefix

        def handle_event(self, event: object) -> None:
            print(self._prefix, event)

    events = await start(EventManager)
    await events.add_handler(handler(Console, "shop:"))
    events.notify(Sold("tea"))                      # goes on at once
    await events.sync_notify(Sold("milk"))          # when every handler has seen it

Handlers run in the manager, one event at a time, the newest handler first; an `async def` handle_event holds the
next one back. A handler that raises is taken out, after its `terminate`, and the manager goes on. Who added it with
`add_sup_handler` is linked to the manager, gets one `HandlerGone` when the handler leaves for whatever reason, and its
own end takes the handler out.

`terminate(reason)` of a handler gets what `delete_handler` or `swap_handler` was given, `remove_handler` when it left
by itself, `HandlerStop(reason)` when its adder ended, `stop` with the manager, or the exception that it raised.

Not for work: a handler that blocks or crashes often belongs in an actor of its own, which the handler sends to. To
debug: `which_handlers()`; handlers that crashed are told to `System.on_supervision` as `handler_removed`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from aspen import limits, wire
from aspen.actor import Process, pid_of, process_of
from aspen.errors import ActorFailed, AlreadyRegistered, AspenError, Overloaded, StartFailed, UsageError
from aspen.otp.actor import Actor, call, cast, info
from aspen.types import NORMAL, SHUTDOWN, Exit, Pid, Stop, SupervisorReport, describe_reason

P = ParamSpec("P")
R = TypeVar("R")

REMOVE_HANDLER: Final = "remove_handler"
"""Return it from `handle_event`, `handle_info`, and the handler is taken out."""
STOP: Final = "stop"
"""What `terminate` gets when the manager ends."""

_classes: WeakValueDictionary[str, type[EventHandler]] = WeakValueDictionary()


class EventHandler:
    """The base of event handlers. The methods may be `async def`. It is no actor: `self.manager` runs it."""

    manager: Any
    """A ref to its manager, once `init` runs."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _classes[f"{cls.__module__}:{cls.__qualname__}"] = cls

    def init(self, left: object) -> Any:
        """Runs when it is put in, after `__init__`. `left` is what the handler that it replaces returned from
        `terminate`; None when there was none. For subclasses."""

    def handle_event(self, event: Any) -> Any:
        """Sees an event; returns None to stay, `REMOVE_HANDLER` to leave, or a `Swap`. For subclasses."""

    def handle_call(self, request: Any) -> Any:
        """Answers `call_handler`. The default raises UsageError, which ends the handler."""
        raise UsageError(f"{type(self).__qualname__} answers no calls; define handle_call")

    def handle_info(self, message: object) -> Any:
        """Sees a message that is no event; returns as `handle_event`. For subclasses."""

    def terminate(self, reason: object) -> Any:
        """Runs when it leaves; what it returns goes to who took it out, or to its successor. For subclasses."""


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """What to put into a manager. Made by `handler()`."""

    kind: str
    """`module:QualName` of its class."""
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    id: Any = ""
    """Its name within the manager; the class name unless given."""

    def opts(self, *, id: Any) -> HandlerSpec:
        """The same under another id: for several handlers of one class."""
        return replace(self, id=id)


def handler(cls: Callable[P, EventHandler], /, *args: P.args, **kwargs: P.kwargs) -> HandlerSpec:
    """A specification of an event handler: its class and the arguments of its `__init__`."""
    if not (isinstance(cls, type) and issubclass(cls, EventHandler)):
        raise UsageError(f"handler({cls!r}): the first argument is a class derived from aspen.EventHandler")
    kind = f"{cls.__module__}:{cls.__qualname__}"
    _classes[kind] = cls
    return HandlerSpec(kind, args, tuple(kwargs.items()), cls.__qualname__.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class Swap:
    """Returned from `handle_event`: put another handler in this one's place. `reason` is for its `terminate`."""

    new: HandlerSpec
    reason: object = "swapped"


@dataclass(frozen=True, slots=True)
class HandlerStop:
    """What `terminate` gets when the actor that added the handler has ended."""

    reason: object


@dataclass(frozen=True, slots=True)
class HandlerGone:
    """Told to the actor that added a supervised handler: it is not in the manager any more."""

    manager: Pid
    handler: Any
    """Its id."""
    reason: object
    """`normal` when it was deleted or left by itself, `Swapped`, `shutdown` with the manager, or what it raised."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """The reason in a `HandlerGone` after a swap."""

    new: Any
    """The successor's id."""


for _type in (HandlerSpec, Swap, HandlerStop, HandlerGone, Swapped):
    wire.register(_type)


class _Seat:
    """A handler in its manager."""

    __slots__ = ("adder", "handler", "id")

    def __init__(self, id: object, handler: EventHandler, adder: Process | None) -> None:
        self.id = id
        self.handler = handler
        self.adder = adder


class EventManager(Actor):
    """Tells events to its handlers."""

    trap_exit = True

    def __init__(self) -> None:
        self._seats: list[_Seat] = []

    # -- events --------------------------------------------------------------------------------------------

    @cast
    async def notify(self, event: object) -> None:
        """Tells an event; the caller goes on at once."""
        await self._tell("handle_event", event)

    @call
    async def sync_notify(self, event: object) -> None:
        """Tells an event, and answers when every handler has seen it."""
        await self._tell("handle_event", event)

    async def handle_info(self, message: object) -> None:
        """Shows the handlers a message that is no event."""
        await self._tell("handle_info", message)

    @call(raises=(AspenError,))
    async def call_handler(self, id: Any, request: object) -> Any:
        """Asks one handler, and brings its answer.

        Raises:
            UsageError: there is no such handler.
            ActorFailed: it raised, and was taken out; that is the cause.
        """
        seat = self._seat(id)
        try:
            return await _run(seat.handler.handle_call, request)
        except Exception as error:
            await self._crashed(seat, error)
            raise ActorFailed(f"handler {id!r} of {self.ctx.path} raised {describe_reason(error)}", error) from error

    # -- handlers ------------------------------------------------------------------------------------------

    @call(raises=(AspenError,))
    async def add_handler(self, spec: HandlerSpec) -> None:
        """Puts a handler in, before the others.

        Raises:
            AlreadyRegistered: there is one of that id; give it another: `.opts(id=...)`.
            StartFailed: its `__init__` or `init` raised; it was not put in.
            Overloaded: there are too many.
        """
        await self._add(spec, None, None)

    @call(raises=(AspenError,))
    async def add_sup_handler(self, spec: HandlerSpec, adder: Any) -> None:
        """As `add_handler`, and links `adder` (`self.ctx.ref`) to the manager: see the module. Raises alike."""
        await self._add(spec, process_of(adder), None)

    @call(raises=(AspenError,))
    async def delete_handler(self, id: Any, reason: object = None) -> Any:
        """Takes a handler out, and brings what its `terminate(reason)` returns. Raises UsageError when there is
        none of that id."""
        return await self._remove(self._seat(id), reason, NORMAL)

    @call(raises=(AspenError,))
    async def swap_handler(self, id: Any, new: HandlerSpec, reason: object = "swapped", adder: Any = None) -> None:
        """Takes a handler out, if it is there, and puts a new one in, whose `init` gets what the old one's
        `terminate(reason)` returned. With `adder` the new one is supervised; else it keeps the old one's adder.
        Raises as `add_handler`."""
        seat = next((seat for seat in self._seats if seat.id == id), None)
        supervised = process_of(adder) if adder is not None else seat.adder if seat is not None else None
        await self._swap(seat, new, reason, supervised)

    @call
    def which_handlers(self) -> list[Any]:
        """The ids of the handlers, newest first: the order in which they see an event."""
        return [seat.id for seat in self._seats]

    # -- inside --------------------------------------------------------------------------------------------

    async def _tell(self, method: str, event: object) -> None:
        for seat in tuple(self._seats):
            try:
                asked = await _run(getattr(seat.handler, method), event)
            except Exception as error:
                await self._crashed(seat, error)
                continue
            if asked is None:
                continue
            if isinstance(asked, Swap):
                try:
                    await self._swap(seat, asked.new, asked.reason, seat.adder)
                except AspenError as error:
                    self._report(asked.new.id, error)
            elif asked == REMOVE_HANDLER:
                await self._remove(seat, REMOVE_HANDLER, NORMAL)
            else:
                wrong = UsageError(
                    f"{type(seat.handler).__qualname__}.{method} returned {asked!r:.200}; "
                    f"it returns None, REMOVE_HANDLER or a Swap"
                )
                await self._crashed(seat, wrong)

    async def _add(self, spec: HandlerSpec, adder: Process | None, left: object) -> None:
        cls = _classes.get(spec.kind)
        if cls is None:
            raise UsageError(f"there is no event handler class {spec.kind} here; import its module first")
        if any(seat.id == spec.id for seat in self._seats):
            raise AlreadyRegistered(
                f"{self.ctx.path} has a handler {spec.id!r} already; give it another id with opts()"
            )
        if len(self._seats) >= limits.EVENT_HANDLERS_MAX:
            raise Overloaded(f"{self.ctx.path} has {len(self._seats)} handlers, its bound; not added")
        try:
            made = cls(*spec.args, **dict(spec.kwargs))
            made.manager = self.ctx.ref
            await _run(made.init, left)
        except Exception as error:
            raise StartFailed(f"handler {spec.id!r} was not added: {describe_reason(error)}", error) from error
        self._seats.insert(0, _Seat(spec.id, made, adder))
        if adder is not None:
            self._process.system.link(self._process, adder)

    async def _swap(self, seat: _Seat | None, new: HandlerSpec, reason: object, adder: Process | None) -> None:
        left = None
        if seat is not None:
            left = await self._remove(seat, reason, Swapped(new.id))
        try:
            await self._add(new, adder, left)
        except AspenError as error:
            if adder is not None:
                self._tell_adder(adder, new.id, error)
            raise

    async def _crashed(self, seat: _Seat, error: Exception) -> None:
        self._report(seat.id, error)
        await self._remove(seat, error, error)

    async def _remove(self, seat: _Seat, reason: object, told: object) -> Any:
        """Takes a handler out; a `terminate` that raises is reported, and returns its exception."""
        if seat not in self._seats:
            return None
        self._seats.remove(seat)
        adder = seat.adder
        try:
            left = await _run(seat.handler.terminate, reason)
        except Exception as error:
            self._report(seat.id, error)
            left = error
        if adder is not None:
            self._tell_adder(adder, seat.id, told)
            if not any(other.adder is adder for other in self._seats) and adder is not self._process.parent:
                self._process.system.unlink(self._process, adder)
        return left

    def _tell_adder(self, adder: Process, id: object, reason: object) -> None:
        if adder.alive:
            self.ctx.send(adder, HandlerGone(pid_of(self), id, reason))

    @info(Exit)
    async def _adder_ended(self, message: Exit) -> None:
        added = [seat for seat in self._seats if seat.adder is not None and seat.adder.pid == message.pid]
        for seat in added:
            await self._remove(seat, HandlerStop(message.reason), message.reason)
        if not added:
            await self._tell("handle_info", message)

    async def terminate(self, reason: object) -> None:
        """Takes all handlers out, newest first."""
        for seat in tuple(self._seats):
            await self._remove(seat, STOP, SHUTDOWN)

    def _seat(self, id: object) -> _Seat:
        for seat in self._seats:
            if seat.id == id:
                return seat
        known = ", ".join(repr(seat.id) for seat in self._seats) or "none"
        raise UsageError(f"{self.ctx.path} has no handler {id!r}; it has: {known}")

    def _report(self, id: object, error: BaseException) -> None:
        process = self._process
        report = SupervisorReport(
            process.sched.mono_ns(), process.path, str(id), "handler_removed", describe_reason(error)
        )
        for listener in process.system.on_supervision:
            listener(report)

    def format_status(self) -> object:
        """Its handlers, newest first."""
        return {"handlers": [seat.id for seat in self._seats]}


async def _run(method: Callable[..., Any], *args: object) -> Any:
    try:
        result = method(*args)
        return await result if inspect.isawaitable(result) else result
    except Stop as stop:
        raise UsageError(
            f"an event handler cannot stop its manager (reason {describe_reason(stop.reason)}); return REMOVE_HANDLER"
        ) from stop
