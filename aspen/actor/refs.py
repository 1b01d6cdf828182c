"""References to actors, and the methods generated on them: one send is a few dozen bytecodes.

A class of refs is made for each actor class, with one method for each handler and the handler's own
parameters, so that a wrong argument is a `TypeError` at the caller. Sends take the short way when nothing is
special, and `send_slow` or `call_slow` otherwise: the mailbox is not there yet, is full, is checked for
encodability (`strict_messages`), or its actor is dead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from aspen.actor.behaviour import APPLY, Behaviour, Blueprint, HandlerSpec, signature_of
from aspen.actor.process import Process
from aspen.actor.reply import FOREVER_NS, Answer
from aspen.errors import UsageError
from aspen.types import Pid

if TYPE_CHECKING:
    from aspen.actor.system import System

R = TypeVar("R", bound="ActorRef")

SHORT_TIMEOUT_NS = 1_000_000_000
"""A default timeout below this reads the clock at each call; above, the turn's time is near enough."""


class ActorRef:
    """A reference to an actor, alive or dead. Made by `start()`, `whereis()` and `ctx.ref`."""

    __slots__ = ()
    _p: Process

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorRef) or isinstance(other, NamedRef):
            return NotImplemented
        mine, theirs = self._p, other._p
        return mine is theirs or (mine.serial == theirs.serial and mine.pid == theirs.pid)

    def __hash__(self) -> int:
        return hash(self._p.serial)

    def __repr__(self) -> str:
        process = self._p
        return f"<{process.blueprint.name} {process.path} {process.pid}{'' if process.alive else ' dead'}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        cls = self._p.blueprint.cls
        if hasattr(cls, name):
            raise AttributeError(
                f"{cls.__qualname__}.{name} is not a handler, so other actors cannot reach it; "
                f"decorate it with @call or @cast"
            )
        known = ", ".join(sorted(self._p.blueprint.specs)) or "none"
        raise AttributeError(f"{cls.__qualname__} has no handler {name!r}; it has: {known}")


class DirectRef(ActorRef):
    """Refers to one incarnation."""

    __slots__ = ("_p",)

    def __init__(self, process: Process) -> None:
        self._p = process


class NamedRef(ActorRef):
    """Refers to whoever holds a registered name, looked up at each send."""

    __slots__ = ("_name", "_system")
    aspen_kind: ClassVar[str]
    _name: object
    _system: System

    def __init__(self, system: System, name: object) -> None:
        self._system = system
        self._name = name

    @property
    def _p(self) -> Process:  # type: ignore[override]  # a lookup where a DirectRef has a slot
        return self._system.whereis(self._name) or self._system.tombstone(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedRef) and self._name == other._name and self._system is other._system

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"<{self.aspen_kind.rpartition(':')[2]} named {self._name!r}>"


def ref_class(blueprint: Blueprint) -> type[DirectRef]:
    """The class of refs to actors of this blueprint, made on first use."""
    if blueprint.ref_class is None:
        blueprint.ref_class = _make_ref_class(blueprint, DirectRef, "Ref")
    return blueprint.ref_class


def make_ref(process: Process) -> ActorRef:
    """A ref to this process."""
    return (process.blueprint.ref_class or ref_class(process.blueprint))(process)


def make_named_ref(system: System, blueprint: Blueprint, name: object) -> ActorRef:
    """A ref that looks `name` up at each send."""
    if blueprint.named_ref_class is None:
        blueprint.named_ref_class = _make_ref_class(blueprint, NamedRef, "NamedRef")
    return blueprint.named_ref_class(system, name)


def process_of(ref: object) -> Process:
    """The process behind a ref, an actor (`self`) or a process itself.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(ref, ActorRef):
        return ref._p
    if isinstance(ref, Behaviour):
        return ref._process
    if isinstance(ref, Process):
        return ref
    raise UsageError(f"{ref!r} is not a reference to an actor; start(), whereis() and ctx.ref give one")


def pid_of(ref: object) -> Pid:
    """The pid of the actor behind a ref; for a name, of its holder now."""
    return process_of(ref).pid


# -- generated methods ------------------------------------------------------------------------------------

_CAST = """\
def {name}(self{params}):
    p = self._p
    mailbox = p.mailbox
    if len(mailbox) >= p.limit:
        return send_slow(p, {handler!r}, {args})
    mailbox.append(({handler!r}, {args}, None))
    if not p.wake:
        p.wake = 1
        s = p.sched
        s.queue.append(p)
        if not s.armed:
            s.arm()
"""

_CALL = """\
def {name}(self{params}):
    p = self._p
    s = p.sched
    caller = s.current
    mailbox = p.mailbox
    if caller is None or p.waiting_on is not None or len(mailbox) >= p.limit or p is caller:
        return call_slow(p, {handler!r}, {args}, {timeout_ns})
    deadline = {now} + {timeout_ns}
    answering = caller.answering
    if answering is not None and answering.deadline < deadline:
        deadline = answering.deadline
    reply = Answer()
    reply.callee = p
    reply.deadline = deadline
    reply.done_ = False
    reply.waiter = reply.error = reply.callbacks = None
    mailbox.append(({handler!r}, {args}, reply))
    if not p.wake:
        p.wake = 1
        s.queue.append(p)
    return reply
"""

_URGENT = """\
def {name}(self{params}):
    return call_urgent(self._p, {handler!r}, {args}, {timeout_ns})
"""


_TEMPLATE_NAMES: Final = frozenset(
    [
        "self",
        "p",
        "s",
        "mailbox",
        "caller",
        "deadline",
        "reply",
        "answering",
        "len",
        "Answer",
        "send_slow",
        "call_slow",
        "call_urgent",
    ]
)
"""Names that a handler's parameters would shadow in the templates: such a handler's arguments are packed."""


def _make_ref_class(blueprint: Blueprint, base: type[R], suffix: str) -> type[R]:
    from aspen.actor import sending

    namespace: dict[str, Any] = {
        "__slots__": (),
        "__doc__": f"Refers to a {blueprint.name}.",
        "aspen_kind": blueprint.kind,
    }
    for spec in blueprint.specs.values():
        namespace[spec.name] = _method(spec, sending)
    return cast("type[R]", type(f"{blueprint.name}{suffix}", (base,), namespace))


def _method(spec: HandlerSpec, sending: Any) -> Callable[..., Any]:
    scope: dict[str, Any] = {
        "Answer": Answer,
        "call_slow": sending.call_slow,
        "call_urgent": sending.call_urgent,
        "send_slow": sending.send_slow,
    }
    params, args, handler = _parameters(spec, scope)
    timeout_ns = FOREVER_NS if spec.timeout_s is None else int(spec.timeout_s * 1e9)
    template = (_URGENT if spec.urgent else _CALL) if spec.is_call else _CAST
    source = template.format(
        name=spec.name,
        params=params,
        args=args,
        handler=handler,
        timeout_ns=timeout_ns,
        now="s.mono_ns()" if timeout_ns < SHORT_TIMEOUT_NS else "s.now_ns",
    )
    exec(compile(source, f"<aspen ref {spec.fn.__qualname__}>", "exec"), scope)  # noqa: S102 -- our own template
    method: Callable[..., Any] = scope[spec.name]
    method.__doc__ = spec.fn.__doc__
    method.__qualname__ = spec.fn.__qualname__
    return method


def _parameters(spec: HandlerSpec, scope: dict[str, Any]) -> tuple[str, str, str]:
    """The parameter list, the expression that packs the arguments, and the handler's name in the message."""
    parameters = list(signature_of(spec.fn).parameters.values())
    simple = all(p.kind is p.POSITIONAL_OR_KEYWORD or p.kind is p.POSITIONAL_ONLY for p in parameters)
    clash = _TEMPLATE_NAMES & {p.name for p in parameters}
    if not simple or clash:
        scope["bind"] = signature_of(spec.fn).bind
        scope["pack"] = _pack
        return ", /, *args, **kwargs", f"pack(bind, {spec.name!r}, args, kwargs)", APPLY
    declared = []
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty:
            declared.append(parameter.name)
        else:
            scope[f"default_{parameter.name}"] = parameter.default
            declared.append(f"{parameter.name}=default_{parameter.name}")
    names = ", ".join(parameter.name for parameter in parameters)
    return "".join(f", {text}" for text in declared), f"({names},)" if names else "()", spec.name


def _pack(
    bind: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    bind(*args, **kwargs)
    return (name, args, kwargs)
