"""What is under way with one peer: calls and monitors, each way.

The kernel answers a `FarCaller`, and tells a `FarWatcher`, as it does those of this node; they pass it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from aspen.actor import Process, Reply
from aspen.actor.remote import RemoteProcess
from aspen.actor.reply import NEVER_NS, Notice
from aspen.limits import REMOTE_CALLS_KEPT_MIN
from aspen.wire import Pieces

if TYPE_CHECKING:
    from aspen.distributed.heads import Head
    from aspen.distributed.remote import Remote

Handlers: TypeAlias = dict[int, Callable[..., None]]
"""Who takes a message, by what it is about."""
Data: TypeAlias = bytes | Pieces
"""A message as it arrives."""
Take: TypeAlias = Callable[["Peer", Data, int, Iterator[Data]], Data | None]
"""Takes a message, whose form stands at that index, and some of those left; returns the first that it has not taken."""
Forms: TypeAlias = dict[bytes, Take]
"""Who takes a message that is no tuple, by its form."""


class Carrier(Protocol):
    """What carries messages to peers: the links of this node."""

    prefix: bytes
    """What a message to another node's actors begins with on this carrier."""

    def send(self, peer: str, message: bytes | Pieces, /) -> bool:
        """Queues a message with the prefix, connecting on demand. False: not sent, too much waits for this peer."""
        ...

    def fail(self, peer: str, reason: str, /) -> None:
        """Ends the session with a peer that sends what makes no sense."""
        ...


class FarCaller(Reply[Any]):
    """The callee's end of a call from another node: answering it sends the answer."""

    __slots__ = ("_id", "_peer", "_remote")

    def __init__(self, remote: Remote, peer: Peer, id: int, callee: Process, deadline: int) -> None:
        super().__init__(callee, deadline)
        self._remote, self._peer, self._id = remote, peer, id

    def _finish(self) -> None:
        super()._finish()
        self._remote.answer(self._peer, self._id, self.error, None if self.error is not None else self.value)


class FarWatcher(Notice[Any]):
    """A monitor that an actor of another node has on one of this: the end is told to that node."""

    __slots__ = ("_number", "_peer", "_remote")

    def __init__(self, remote: Remote, peer: Peer, number: int, target: Process) -> None:
        super().__init__(target, NEVER_NS)
        self._remote, self._peer, self._number = remote, peer, number

    def _finish(self) -> None:
        super()._finish()
        self._remote.tell_down(self._peer, self._number, self.value)


class Peer:
    """What is under way with one peer, for as long as a session lasts."""

    __slots__ = ("calls", "calls_kept", "forms", "handlers", "heads", "monitors", "name", "reads_heads", "watchers")

    def __init__(self, name: str, handlers: Handlers, forms: Forms) -> None:
        self.name = name
        self.handlers = handlers
        self.forms = forms
        """What it may send, and who takes it."""
        self.reads_heads = False
        """Whether casts, calls and answers go to it as `heads` has them."""
        self.heads: dict[bytes, Head] = {}
        """Those that came from it, as they were read."""
        self.calls: dict[int, Reply[Any]] = {}
        """Calls of this node's actors that the peer has not answered."""
        self.calls_kept = REMOTE_CALLS_KEPT_MIN
        self.monitors: dict[int, RemoteProcess] = {}
        """Actors of the peer that are watched here, by the number of the monitor."""
        self.watchers: dict[int, tuple[FarWatcher, Process]] = {}
        """Actors of this node that the peer watches, by the peer's number."""
