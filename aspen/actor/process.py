"""`Process`: the kernel's record of one actor. Plain data; `scheduler` and `system` act on it.

Life: `wake` says whether the run queue holds the process.

    IDLE ──send──> QUEUED ──slot──> IDLE | QUEUED (mail left) | PARKED (awaits, or is suspended) | DEAD
    PARKED ──answer, signal──> QUEUED

A process has three places for what comes in, taken in this order:

- `control`: signals (exits, downs, sys requests); acted on even while a handler awaits;
- `urgent`: messages that go before the mail (a trapped exit, a Down, `continue_`); not bounded by the mailbox;
- `mailbox`: user messages `(name, args, reply)`, bounded by `limit`; the deque is made on first use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from aspen.actor.reply import NEVER_NS, Reply
from aspen.errors import CallError, NoProc
from aspen.types import Pid

if TYPE_CHECKING:
    from aspen.actor.behaviour import Behaviour, Blueprint
    from aspen.actor.scheduler import Scheduler, TimerEntry
    from aspen.actor.system import System
    from aspen.actor.task import HandlerTask

Message = tuple[str, tuple[Any, ...], "Reply[Any] | None"]
Signal = tuple[str, tuple[Any, ...]]

IDLE: Final = 0
QUEUED: Final = 1
PARKED: Final = 2
DEAD: Final = 3
REMOTE: Final = 4
"""It stands for an actor of another node: see `remote`."""

# `flags`: any of them sends the process down the slow slot.
F_CONTROL: Final = 1
F_URGENT: Final = 2
F_SUSPENDED: Final = 4
F_DEBUG: Final = 8
F_IDLE: Final = 16
F_EXITING: Final = 32
F_DEAD: Final = 64
F_STRICT: Final = 128
F_STOPPING: Final = 256
"""A stop is queued: a suspended process takes it all the same."""
F_UNBORN: Final = 512
"""It constructs itself in its first slot, from `birth`."""
F_OBSERVED: Final = 1024
"""Simulation is told what it does."""
F_GUARDED: Final = 2048
"""Its guard is asked before each message, and at each step of a handler, whether it may act still."""

CLUSTER_WIDE: Final = "global:"
"""What a name begins with that has one holder in the whole cluster."""

DEFERRED_KEPT_MIN: Final = 64

NO_MAIL: Final[deque[Message]] = deque(maxlen=0)
"""Stands for the mailbox of an actor that has had no mail, or is dead. Never appended to: `limit` is 0."""


class Process:
    """One actor, as the kernel sees it. Owned by its `System`; refs point at it, dead or alive."""

    __slots__ = (
        "actor",
        "answering",
        "birth",
        "blueprint",
        "context",
        "control",
        "debug",
        "exit_reason",
        "extra",
        "flags",
        "handlers",
        "label",
        "limit",
        "links",
        "mailbox",
        "monitoring",
        "parent",
        "sched",
        "serial",
        "starting",
        "sweep_at",
        "system",
        "task",
        "trap_exit",
        "urgent",
        "waiting_on",
        "wake",
        "watchers",
    )

    def __init__(self, system: System, serial: int, blueprint: Blueprint, label: str | None) -> None:
        self.system = system
        self.sched: Scheduler = system.scheduler
        self.serial = serial
        self.blueprint = blueprint
        self.handlers = blueprint.handlers
        self.label = label
        """Its id within its parent; `/` for the root; the whole path once it is dead."""
        self.actor: Behaviour | None = None
        self.birth: tuple[tuple[Any, ...], dict[str, Any] | None] | None = None
        """Arguments of an actor that is to construct itself."""
        self.parent: Process | None = None
        self.mailbox: deque[Message] = NO_MAIL
        self.limit = 0
        self.wake = IDLE
        self.flags = 0
        self.control: list[Signal] | None = None
        self.urgent: deque[Message] | None = None
        self.task: HandlerTask | None = None
        self.waiting_on: object = None
        self.answering: Reply[Any] | None = None
        self.sweep_at = NEVER_NS
        self.trap_exit = blueprint.trap_exit
        self.links: set[Process] | None = None
        self.watchers: dict[int, Process | Reply[Any]] | None = None
        self.monitoring: dict[int, Process] | None = None
        self.starting: Reply[Any] | None = None
        self.exit_reason: object = None
        self.debug: Debug | None = None
        self.context: Context | None = None
        self.extra: Extra | None = None

    @property
    def pid(self) -> Pid:
        """Its identity."""
        return Pid(self.system.node, self.system.boot, self.serial)

    @property
    def path(self) -> str:
        """The supervision path, as `/bank/gateway`; `<Class pid>` for an actor outside any tree."""
        tail = ""
        process: Process | None = self
        while process is not None and process.label is not None:
            if process.label.startswith("/"):
                return process.label.rstrip("/") + tail or "/"
            tail = f"/{process.label}{tail}"
            process = process.parent
        return f"<{self.blueprint.name} {self.serial}>"

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.wake != DEAD

    def more(self) -> Extra:
        """The rarely used fields, made on first use."""
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.path}>"


class Via(ABC):
    """A name that is kept elsewhere than in the node's own table of names: by a registry, or worked out from a key.

    Hashable. Use it where a name is asked for.
    """

    __slots__ = ()

    @abstractmethod
    def register(self, system: System, process: Process) -> None:
        """Gives the name to a live process, until it ends. Raises AlreadyRegistered."""

    @abstractmethod
    def unregister(self, system: System, process: Process) -> None:
        """Takes the name from this process, if it has it."""

    @abstractmethod
    def whereis(self, system: System) -> Process | None:
        """The holder of the name now."""

    def absent(self, system: System, handler: str) -> CallError:
        """What a call from another node fails with while nobody holds the name."""
        return NoProc(f"nobody is called {self!r} on node {system.name}; {handler} was not executed")


class Claimed(Via):
    """A name that has to be asked for before its actor is made, which may take long."""

    __slots__ = ()

    @abstractmethod
    async def claim(self, system: System, process: Process) -> None:
        """Returns when the process, whose actor is not made yet, holds the name. Raises AlreadyRegistered."""


def is_cluster_wide(name: object) -> bool:
    """Whether a name has one holder in the whole cluster, and so means the same on every node."""
    return isinstance(name, Claimed) or (type(name) is str and name.startswith(CLUSTER_WIDE))


class Guard(ABC):
    """Says whether an actor may act still. Kept in `Extra.guard`; asked while F_GUARDED is set."""

    __slots__ = ()

    @abstractmethod
    def lapsed(self) -> object | None:
        """The reason to end its actor for, at once and before it takes another step; None: it may act."""

    @abstractmethod
    def kv(self) -> Any:
        """The client of the store that its actor has as `ctx.kv`."""


class Extra:
    """Fields that few actors use, kept apart so that an idle actor stays small."""

    __slots__ = ("deferred", "deferred_kept", "guard", "idle_ns", "idle_timer", "last_ns", "names", "timers")

    def __init__(self) -> None:
        self.timers: set[TimerEntry] = set()
        self.names: list[Callable[[], object]] = []
        """Run once at its death, to take it out of registries."""
        self.deferred: dict[Reply[Any], None] = {}
        """Calls it took and has not answered yet, oldest first."""
        self.deferred_kept = DEFERRED_KEPT_MIN
        self.idle_ns: int | None = None
        self.idle_timer: TimerEntry | None = None
        self.last_ns = 0
        self.guard: Guard | None = None

    def defer(self, reply: Reply[Any]) -> None:
        """Notes a call that is to be answered later; those whose callers have given up are dropped in time."""
        if not reply.done_:
            self.deferred[reply] = None
            if len(self.deferred) > self.deferred_kept:
                self.deferred = {waiting: None for waiting in self.deferred if not waiting.done_}
                self.deferred_kept = max(DEFERRED_KEPT_MIN, 2 * len(self.deferred))


class Debug:
    """What `sys` has switched on for one actor."""

    __slots__ = ("calls", "casts", "infos", "started_ns", "statistics", "tracers")

    def __init__(self, now_ns: int) -> None:
        self.statistics = False
        self.started_ns = now_ns
        self.calls = 0
        self.casts = 0
        self.infos = 0
        self.tracers: list[Callable[[str, str, tuple[Any, ...], object], None]] = []
        """Called with (event, handler name, arguments, detail); events: `receive`, `reply`, `crash`, `exit`."""
