"""Aspen: OTP for Python.

Supervised actors with typed calls, live operations on a running node, and the same code in a deterministic
simulator. Start with `Actor`, `call`, `start` and `Supervisor`; `docs/ARCHITECTURE.md` has the map.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from aspen.actor import UNBOUNDED, Context, Reply, ReplyHandle, System, defer, pid_of
from aspen.errors import (
    ActorFailed,
    AlreadyRegistered,
    AspenError,
    CallCycle,
    CallError,
    CallTimeout,
    ChildrenMax,
    ConfigError,
    NoConnection,
    NoProc,
    NoSuchChild,
    NotEncodable,
    NotUnderstood,
    Overloaded,
    StartFailed,
    UnhandledEvent,
    UsageError,
)
from aspen.otp import *  # noqa: F403 -- the behaviours are the public surface; otp.__all__ lists them
from aspen.otp import __all__ as _behaviours
from aspen.types import (
    KILL,
    KILLED,
    NOCONNECTION,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    CrashReport,
    DeadLetter,
    Down,
    Exit,
    IdleTimeout,
    Ignore,
    Pid,
    Shutdown,
    Stop,
)
from aspen.wire import message

__version__ = "0.1.0"

R = TypeVar("R")


def run(main: Coroutine[Any, Any, R], *, strict_messages: bool = False) -> R:
    """Runs a coroutine in which actors can be started, and returns its result; what `asyncio.run` is to asyncio.

    The actors that are left at its end are dropped. For what stays, write an `Application` and use `aspen run`.
    """
    from aspen.boot import run as run_in_the_real_world  # the kernel does not load ZeroMQ

    return run_in_the_real_world(main, strict_messages=strict_messages)


__all__ = [  # noqa: PLE0604 -- the behaviours' names are strings
    "KILL",
    "KILLED",
    "NOCONNECTION",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "UNBOUNDED",
    "ActorFailed",
    "AlreadyRegistered",
    "AspenError",
    "CallCycle",
    "CallError",
    "CallTimeout",
    "ChildrenMax",
    "ConfigError",
    "Context",
    "CrashReport",
    "DeadLetter",
    "Down",
    "Exit",
    "IdleTimeout",
    "Ignore",
    "NoConnection",
    "NoProc",
    "NoSuchChild",
    "NotEncodable",
    "NotUnderstood",
    "Overloaded",
    "Pid",
    "Reply",
    "ReplyHandle",
    "Shutdown",
    "StartFailed",
    "Stop",
    "System",
    "UnhandledEvent",
    "UsageError",
    "defer",
    "message",
    "pid_of",
    "run",
    *_behaviours,
]
