"""Identities, exit reasons and the messages that the kernel itself sends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_STEERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and direction changes, and halves of characters, which cannot be written."""


def printable(text: str, keep: str = "") -> str:
    """The text with escapes for what could steer a terminal or pass for another line of a log; `keep` stays."""
    return _STEERS.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True, slots=True, order=True)
class Pid:
    """Names one actor for good: the node, the node's boot, and a serial number within that boot.

    A pid is never used again. `str(pid)` is `<node.boot.serial>`.
    """

    node: str
    boot: int
    serial: int

    def __str__(self) -> str:
        return f"<{self.node}.{self.boot}.{self.serial}>"


class Secret:
    """A text that no repr, report or log shows, as it goes through arguments and attributes."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text; call it where it is used, and keep the result nowhere."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"


# -- exit reasons ---------------------------------------------------------------------------
# An exit reason is any object. These strings have OTP's meanings; a crash has the exception
# itself as its reason.

NORMAL: Final = "normal"
SHUTDOWN: Final = "shutdown"
KILL: Final = "kill"
"""As a signal: end at once, no `terminate`, cannot be trapped. Peers then see `KILLED`."""
KILLED: Final = "killed"
NOPROC: Final = "noproc"
NOCONNECTION: Final = "noconnection"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A benign exit with a term that says why: OTP's `{shutdown, Term}`."""

    term: object = None

    def __str__(self) -> str:
        return f"shutdown({self.term!r})"


def is_benign(reason: object) -> bool:
    """Whether an exit for this reason is in order: no crash report, a transient child stays down."""
    if isinstance(reason, str):
        return reason in (NORMAL, SHUTDOWN)
    return reason is None or isinstance(reason, Shutdown)


def describe_reason(reason: object) -> str:
    """The reason in one line, for people; never raises, whatever its `__str__` does."""
    try:
        text = str(reason)
    except BaseException as error:
        text = f"<its __str__ raised {type(error).__name__}>"
    if isinstance(reason, BaseException):
        text = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
    return printable(text)


class Stop(BaseException):
    """Raise it in a handler to end the actor with `reason`: `raise Stop()` or `raise Stop(Shutdown("done"))`.

    A `BaseException`, so that an `except Exception` in between does not swallow it.
    """

    def __init__(self, reason: object = NORMAL) -> None:
        super().__init__(reason)
        self.reason = reason


class Ignore(BaseException):
    """Raise it in `__init__` or `init`: the actor shall not run, and that is no failure.

    A supervisor keeps the child's spec without a process.
    """


# -- messages from the kernel ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Down:
    """A monitored actor is gone. Exactly one comes for each monitor."""

    monitor: int
    """The number that `monitor()` returned."""
    pid: Pid
    reason: object
    """The exit reason, or `NOPROC` when it was gone before, or `NOCONNECTION`."""


@dataclass(frozen=True, slots=True)
class Exit:
    """A linked actor is gone, told to an actor that traps exits. `normal` is told too."""

    pid: Pid
    reason: object


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """No message came for the time given to `ctx.idle_timeout`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody took, as the node keeps it for a person to look at."""

    at_ns: int
    """Node's monotonic time."""
    to: str
    """Path or pid of the actor it was meant for."""
    reason: str
    """`noproc`, `overloaded` or `unhandled`."""
    message: str
    """The message, abbreviated."""


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What is known of a crash: one for each actor whose own code ended it for a reason that is not benign.

    An actor that an exit signal ended has none; the one that sent it, or was linked to it, has.
    """

    at_wall_ns: int
    pid: Pid
    path: str
    """The supervision path, `/bank/gateway`, or the pid of an actor that has none."""
    kind: str
    """The actor's class, as `module:QualName`."""
    reason: str
    message: str
    """The message it worked on, abbreviated; empty for a crash outside a handler."""
    state: str
    """The state as `format_status` gives it."""
    ancestors: tuple[str, ...]
    """Paths, nearest first."""
    traceback: str
    """Of the exception, its causes included."""


@dataclass(frozen=True, slots=True)
class SupervisorReport:
    """What a supervisor did about a child."""

    at_ns: int
    supervisor: str
    child: str
    event: str
    """`restarting`, `start_failed`, `intensity_exceeded`, `auto_shutdown`, `stopped`; `callback_failed` of an
    application; `handler_removed` from an event manager."""
    reason: str
