"""`Line`: the node's end of one client's connection, and how an exception becomes an answer."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from typing import Any

from aspen import wire
from aspen.actor import System
from aspen.errors import (
    AccessDenied,
    CallTimeout,
    ChildrenMax,
    NoConnection,
    NoProc,
    NoSuchChild,
    NotEncodable,
    NotReachable,
    Overloaded,
    RemoteFailure,
    UsageError,
)
from aspen.limits import CONTROL_DELIVER_EVERY_S, CONTROL_LOST_S, SHELL_TRACEBACK_CHARS_MAX
from aspen.shell.protocol import Event, Failure, Response
from aspen.traits import ControlPort
from aspen.types import describe_reason

_DELIVERIES_MAX = int(CONTROL_LOST_S / CONTROL_DELIVER_EVERY_S)


@dataclass(frozen=True, slots=True)
class Through:
    """The node that relays for a client."""

    name: str
    node_id: str


class Line:
    """Sends to one client. Owned by the server, used by the client's session and its requests."""

    def __init__(
        self, system: System, port: ControlPort, client: bytes, key: str, through: Through | None = None
    ) -> None:
        self.client = client
        self.key = key
        """The client's public CURVE key in z85."""
        self.through = through
        """The node by which it is relayed; None: it is connected to this one."""
        self.closed = False
        """Whether the server has given it up."""
        self.gone = False
        """Whether the client was not there any more when something was sent to it."""
        self._system = system
        self._port = port
        self._taken_ns = system.scheduler.mono_ns()

    def send(self, message: Event | Response | Failure) -> bool:
        """Queues a message; False when the client is gone or too slow, and it is dropped.

        Raises:
            NotEncodable: the message cannot leave the process, or is larger than a frame.
        """
        try:
            if not self._port.send(self.client, wire.encode(message)):
                return False
        except NotReachable:
            self.gone = True
            return False
        self._taken_ns = self._system.scheduler.mono_ns()
        return True

    async def deliver(self, message: Event | Response | Failure) -> bool:
        """As `send`, but waits for a client that is slow, as long as it may not be lost. False: it is."""
        for _ in range(_DELIVERIES_MAX):
            if self.send(message):
                return True
            if self.gone:
                return False
            await asyncio.sleep(CONTROL_DELIVER_EVERY_S)
        return False

    def fail(self, id: int, kind: str, error: str) -> bool:
        """Queues a `Failure`."""
        return self.send(Failure(id, kind, error))

    @property
    def lost(self) -> bool:
        """Whether the client is gone, or has taken nothing for CONTROL_LOST_S."""
        return self.gone or self._system.scheduler.mono_ns() - self._taken_ns > CONTROL_LOST_S * 1e9


_KINDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((NoSuchChild, NoProc), "not_found"),
    ((AccessDenied,), "denied"),
    ((UsageError,), "usage"),
    ((CallTimeout, TimeoutError), "timeout"),
    ((Overloaded, ChildrenMax), "overloaded"),
    ((NotReachable, NoConnection), "unreachable"),
)


def failure_of(id: int, error: BaseException) -> Failure:
    """How an exception that an operation raised is told to its client."""
    if isinstance(error, RemoteFailure):
        return Failure(id, error.kind, _cut(str(error)), error.detail)
    if isinstance(error, NotEncodable):
        return Failure(id, "failed", _cut(f"the answer cannot be sent: {error}"))
    for types, kind in _KINDS:
        if isinstance(error, types):
            return Failure(id, kind, _cut(str(error) or describe_reason(error)))
    detail = "".join(traceback.format_exception(error))
    return Failure(id, "failed", _cut(describe_reason(error)), detail[-SHELL_TRACEBACK_CHARS_MAX:])


def _cut(text: Any, chars_max: int = SHELL_TRACEBACK_CHARS_MAX) -> str:
    return text if len(text) <= chars_max else f"{text[:chars_max]}..."
