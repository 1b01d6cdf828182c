"""What the kernel runs: `Behaviour`, the base of every actor class, and `Blueprint`, its compiled form.

A class's handlers are found once, when the class is made: `@call`, `@cast` and `@info` (in `aspen.otp`) leave
a `HandlerSpec` on the attribute, and the blueprint gathers them along the MRO into one table from name
to function. Messages carry the name, so that a class can be replaced while mail is waiting.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aspen import limits
from aspen.errors import UsageError
from aspen.types import Stop
from aspen.wire import register

if TYPE_CHECKING:
    from aspen.actor.context import Context
    from aspen.actor.process import Process
    from aspen.actor.refs import DirectRef, NamedRef

UNBOUNDED: Final = (1 << 62) - 1
"""As `mailbox_max`: no bound. The node's memory is then the bound; prefer a number."""

# Handlers that every behaviour has, by names that no method can have.
INFO: Final = "$info"
CONTINUE: Final = "$continue"
IDLE_TIMEOUT: Final = "$idle"
STOP: Final = "$stop"
INIT: Final = "$init"
RAISE: Final = "$raise"
APPLY: Final = "$apply"


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """How one handler is called from outside."""

    name: str
    fn: Callable[..., Any]
    is_call: bool
    timeout_s: float | None = limits.CALL_TIMEOUT_S
    """Default deadline of a call; None waits for ever."""
    raises: tuple[type[BaseException], ...] = ()
    """Exceptions that answer the caller as they are, and leave the actor running."""
    urgent: bool = False
    """Goes before the mail and is not bounded by it; for supervisors' own operations."""


class Blueprint:
    """A behaviour class as the kernel uses it."""

    __slots__ = (
        "by_type",
        "cls",
        "handlers",
        "has_init",
        "mailbox_max",
        "name",
        "named_ref_class",
        "positional",
        "ref_class",
        "specs",
        "trap_exit",
    )

    def __init__(self, cls: type[Behaviour]) -> None:
        self.cls = cls
        self.name = cls.__qualname__
        self.trap_exit = bool(cls.trap_exit)
        self.mailbox_max = cls.mailbox_max
        self.has_init = cls.init is not Behaviour.init
        self.specs: dict[str, HandlerSpec] = {}
        self.by_type: dict[type, Callable[..., Any]] = {}
        takers: dict[type, str] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                spec = getattr(value, "aspen_handler", None)
                if isinstance(spec, HandlerSpec):
                    # The attribute's name, which an alias does not share with its function.
                    self.specs[name] = spec if spec.name == name else replace(spec, name=name)
                    continue
                self.specs.pop(name, None)
                for message_type in getattr(value, "aspen_info", ()):
                    takers[message_type] = name
        for message_type, name in takers.items():
            # By name, so that a subclass that overrides the method is the one that is called.
            taker = getattr(cls, name, None)
            if callable(taker):
                self.by_type[message_type] = taker
        self.handlers: dict[str, Callable[..., Any]] = {name: spec.fn for name, spec in self.specs.items()}
        self.handlers.update(_SYSTEM_HANDLERS)
        self.positional: dict[str, tuple[int, int]] = {}
        """By handler, once it was asked: the least and the most arguments by position, when there are no others."""
        self.ref_class: type[DirectRef] | None = None
        self.named_ref_class: type[NamedRef] | None = None

    @property
    def kind(self) -> str:
        """`module:QualName`."""
        return f"{self.cls.__module__}:{self.cls.__qualname__}"


classes: weakref.WeakValueDictionary[str, type[Behaviour]] = weakref.WeakValueDictionary()
"""Every actor class that is defined, by `module:QualName`: how a reference from outside finds its class."""


class Behaviour:
    """The least that the kernel needs of an actor. Write actors with `aspen.Actor`, not with this."""

    __slots__ = ("_process",)

    trap_exit: ClassVar[bool] = False
    """Exits of linked actors come as `Exit` messages instead of ending this one."""
    mailbox_max: ClassVar[int] = limits.MAILBOX_MESSAGES_MAX
    """Messages that may wait; a call beyond fails with `Overloaded`, a cast becomes a dead letter."""
    blueprint: ClassVar[Blueprint]
    _context_class: ClassVar[type[Context]]
    """Put here by `aspen.actor.context`, which needs this module; an import at each `self.ctx` would be slow."""
    _process: Process

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.mailbox_max < 1:
            raise UsageError(f"{cls.__qualname__}.mailbox_max is {cls.mailbox_max}; it must be at least 1")
        cls.blueprint = Blueprint(cls)
        classes[cls.blueprint.kind] = cls
        # Whoever can make the call knows this class, so what the call declares to raise arrives as what it is.
        for spec in cls.blueprint.specs.values():
            for error in spec.raises:
                if issubclass(error, Exception):
                    register(error)

    @property
    def ctx(self) -> Context:
        """The actor's hold on the kernel: its pid, links, monitors, timers. Not for other actors."""
        return self._context_class(self._process)

    async def init(self) -> None:
        """The second, asynchronous half of the start; `start()` returns when it has. For subclasses."""

    def terminate(self, reason: object) -> Any:
        """Runs last, on a stop, after a crash of a handler, and on the parent's exit when trapping; never on
        kill. May be `async def`. For subclasses."""

    def handle_info(self, message: object) -> Any:
        """Takes a message that no `@info` handler takes. The default makes it a dead letter."""
        process = self._process
        process.system.dead_letter(process, "unhandled", message)

    def handle_continue(self, message: object) -> Any:
        """Takes what `ctx.continue_` was given, before any other message. For subclasses."""
        return self.handle_info(message)

    def format_status(self) -> object:
        """The state as reports and `sys.status` show it; override to keep secrets out."""
        return state_of(self)

    def upgrade(self, old_version: object, extra: object) -> Any:
        """Adapts the state to this class's code, when `sys.change_code` has put it in place. For subclasses."""


def state_of(actor: object) -> dict[str, Any]:
    """The instance attributes of an actor, slots included."""
    state: dict[str, Any] = dict(getattr(actor, "__dict__", {}))
    for base in type(actor).__mro__:
        for name in getattr(base, "__slots__", ()):
            if name != "_process" and not name.startswith("__") and hasattr(actor, name):
                state[name] = getattr(actor, name)
    return state


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """A handler's signature without `self`."""
    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())
    if not parameters:
        raise UsageError(f"handler {fn.__qualname__} must take self")
    return signature.replace(parameters=parameters[1:])


def _info(actor: Behaviour, message: object) -> Any:
    by_type: Mapping[type, Callable[..., Any]] = actor._process.blueprint.by_type
    if by_type:
        for cls in type(message).__mro__:
            handler = by_type.get(cls)
            if handler is not None:
                return handler(actor, message)
    return actor.handle_info(message)


def _continue(actor: Behaviour, message: object) -> Any:
    return actor.handle_continue(message)


def _stop(actor: Behaviour, reason: object) -> Any:
    raise Stop(reason)


def _raise(actor: Behaviour, error: BaseException) -> Any:
    raise error


async def _init(actor: Behaviour, birth: Callable[[], Awaitable[Behaviour]] | None = None) -> None:
    """`birth` makes an actor that was not there when this message was queued."""
    if birth is not None:
        actor = await birth()
    await actor.init()


def _apply(actor: Behaviour, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return actor._process.handlers[name](actor, *args, **kwargs)


_SYSTEM_HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    INFO: _info,
    CONTINUE: _continue,
    IDLE_TIMEOUT: _info,
    STOP: _stop,
    INIT: _init,
    RAISE: _raise,
    APPLY: _apply,
}
