"""What a client and a node say to each other on the control port.

A client sends `Request`s, each with a number of its own; the node answers each with any number of `Event`s and
then exactly one `Response` or `Failure` with that number. `Cancel` ends a request early: its answer is
then a `Failure` of kind `cancelled`. A client that leaves says `Goodbye`, so that the node need not find out. Frames
are `aspen.wire` messages, ordered within a connection; when the connection is lost, the node cancels what the client
had in progress, and nothing else happens.

The number 0 is about no request in particular. `Event(0, "ping")` comes every CONTROL_PING_S, so that a
client can tell a long request from a node that is stuck; `Event(0, "notice")` is for the person. `Failure(0)` says
that the node could not read a frame, or has ended the session: every request in progress has failed.

A `kv` request is a way to the store, and a `relay` request one to another node: each `Frame` of the client goes there,
and each `Event` of kind `frame` comes from there. What is in them is this protocol again, signed and sealed between the
client and that node: see `aspen.distributed.relay`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aspen.trust import Role
from aspen.wire import message

PROTOCOL: Final = 1
"""The version; a node answers another version with a `Failure` of kind `version`."""


@message
class Request:
    """Asks for an operation."""

    id: int
    op: str
    args: dict[str, Any]
    protocol: int = PROTOCOL


@message
class Cancel:
    """Ends a request of this client."""

    id: int


@message
class Goodbye:
    """The client leaves: what it has in progress is cancelled, and nothing is answered any more."""


@message
class Frame:
    """Goes to the node that a `relay` request of this client leads to."""

    id: int
    data: bytes


@message
class Event:
    """Something that a request brings before its answer: a piece of output, a trace event."""

    id: int
    kind: str
    """`output` (data is text), `trace` (data is a TraceEvent as a dict), `dropped` (data is a count of
    characters or events that were left out), `ping` (no data), `notice` (data is a sentence), `open` (a relay is
    ready), `frame` (data are bytes from the node that it leads to)."""
    data: Any


@message
class Response:
    """The result of a request."""

    id: int
    value: Any


@message
class Failure:
    """A request that failed."""

    id: int
    kind: str
    """`usage`, `not_found`, `denied`, `timeout`, `cancelled`, `version`, `overloaded`, `unreachable` or `failed`."""
    error: str
    """One sentence, with the remedy."""
    detail: str = ""
    """A traceback, for --debug and for the shell."""


REQUEST_ID_MAX: Final = 2**53
"""Requests are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the control port, and who may ask for it."""

    name: str
    role: Role
    """The least role; `admin` may do all that `operator` may, who may do all that a `client` may; only a `joiner` may
    join."""
    args: Mapping[str, type | tuple[type, ...]]
    """Its arguments and their types."""
    optional: frozenset[str] = field(default=frozenset())
    streams: bool = False
    """Whether events come before the answer."""
    changes: bool = True
    """Whether it does more than look; the audit log tells the two apart."""


_Types = type | tuple[type, ...]


def _op(name: str, role: Role, args: Mapping[str, _Types] | None = None, optional: str = "", **more: bool) -> Operation:
    return Operation(name, role, args or {}, frozenset(optional.split()), **more)


_NUMBER = (int, float)

OPERATIONS: Final[dict[str, Operation]] = {
    operation.name: operation
    for operation in (
        # as NodeControl.info
        _op("info", Role.OPERATOR, changes=False),
        # the tree below a path, as nested dicts with the fields of aspen.otp.tree.TreeNode; `hidden` counts the
        # children that were left out
        _op("tree", Role.OPERATOR, {"path": str}, "path", changes=False),
        # the actors with the longest queues: a list of dicts with path, pid, status, handler, waits_for, queue
        _op("top", Role.OPERATOR, {"limit": int}, "limit", changes=False),
        # aspen.otp.sys.Status as a dict
        _op("status", Role.OPERATOR, {"path": str}, changes=False),
        # the status fields, with `state` as {attribute: repr} of what format_status shows
        _op("state", Role.OPERATOR, {"path": str}, changes=False),
        # how large the actor's state is, about: aspen.shell.sizes.Size as a dict
        _op("size", Role.OPERATOR, {"path": str}, changes=False),
        # recent crash reports / dead letters, as lists of dicts, newest last
        _op("crashes", Role.OPERATOR, changes=False),
        _op("dead_letters", Role.OPERATOR, changes=False),
        # restarts the child at a path with its supervisor's strategy -> list of paths restarted, in start order
        _op("restart", Role.OPERATOR, {"path": str}),
        # -> the path of the actor
        _op("suspend", Role.OPERATOR, {"path": str}),
        _op("resume", Role.OPERATOR, {"path": str}),
        _op("kill", Role.OPERATOR, {"path": str}),
        # Event(kind="trace") per event -> their number
        _op("trace", Role.OPERATOR, {"path": str, "limit": int, "seconds": _NUMBER}, "limit seconds", streams=True),
        # evaluates code in the client's own namespace on the node: Event(kind="output") as it prints;
        # value is {"repr": str, "status": "ok"} or {"repr": "", "status": "incomplete"}; an exception is a Failure
        # of kind "failed" with the traceback in detail
        _op("eval", Role.ADMIN, {"code": str}, streams=True),
        # completion at the cursor -> {"start": int, "items": [{"text": str, "meta": str}]}
        _op("complete", Role.ADMIN, {"text": str, "cursor": int}, changes=False),
        # the nodes of the cluster that are up, this one included: a list of dicts with name, node_id, boot, address of
        # the links, and whether it is `here`
        _op("nodes", Role.OPERATOR, changes=False),
        # leads to another node of the cluster, given by name or id; Event(kind="open"), then Event(kind="frame") each
        # time that node has something to say. Ends with a Failure. What the client may do there, that node decides
        _op("relay", Role.OPERATOR, {"node": str}, streams=True),
        # leads to the store; Event(kind="open", data=how the store is), then each Frame is a part of an exchange and
        # each Event(kind="frame") one of an answer: see aspen.kv.door. What the key may do there, each exchange is
        # asked
        _op("kv", Role.CLIENT, streams=True),
        # stops the node; `confirm` is its name
        _op("stop", Role.ADMIN, {"confirm": str}),
        # gives out a ticket to join -> {"ticket": the line, "expires_s": wall-clock seconds}; `address` is where the
        # joiner reaches the node, if not where its port is bound
        _op("ticket", Role.ADMIN, {"seconds": _NUMBER, "address": str}, "seconds address"),
        # takes in the node of that id, whose key signed: see aspen.distributed.joining. Uses up the ticket whose
        # key is the client's -> {"node_id": str, "name": str} of this node, with what NodeControl.take_in brings
        _op("join", Role.JOINER, {"node_id": str, "name": str, "signature": bytes}),
    )
}


def allows(role: Role, operation: Operation) -> bool:
    """Whether a key of this role may ask for it. A peer node may do what an admin may: see `Role`."""
    if Role.JOINER in (role, operation.role):
        return role is operation.role
    if role in (Role.ADMIN, Role.NODE) or operation.role is Role.CLIENT:
        return True
    return role is Role.OPERATOR and operation.role is Role.OPERATOR
