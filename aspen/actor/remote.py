"""`RemoteProcess`: stands on this node for an actor of another one.

Refs, links and monitors hold it as they hold a `Process`. It has no mail and never runs: its `wake` is `REMOTE` and its
`limit` 0, so that every send takes the long way, which hands it to the `Far` side. Links and watchers are kept on it
as on any process, and are told when the far actor has ended or its node is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aspen.actor.process import REMOTE, Process
from aspen.types import Pid

if TYPE_CHECKING:
    from aspen.actor.behaviour import Blueprint
    from aspen.actor.reply import Reply
    from aspen.actor.system import System


class Far(Protocol):
    """The way to the actors of other nodes; `aspen.distributed` has it. Messages to one actor arrive in order."""

    def cast(self, target: RemoteProcess, name: str, args: tuple[Any, ...], /) -> None:
        """Sends a cast. What is not taken becomes a dead letter. Raises NotEncodable."""
        ...

    def call(self, target: RemoteProcess, name: str, args: tuple[Any, ...], reply: Reply[Any], urgent: bool, /) -> None:
        """Sends a call; `reply` is answered, or fails. Raises NotEncodable."""
        ...

    def stop(self, target: RemoteProcess, reason: object, /) -> None:
        """Asks an actor to end in order."""
        ...

    def exit(self, sender: Process | None, target: RemoteProcess, reason: object, linked: bool, /) -> None:
        """Sends an exit signal, by a link or by hand."""
        ...

    def link(self, one: Process, target: RemoteProcess, /) -> None:
        """Has the far actor know of the link."""
        ...

    def unlink(self, one: Process, target: RemoteProcess, /) -> None:
        """Has the far actor forget the link."""
        ...

    def monitor(self, target: RemoteProcess, number: int, /) -> None:
        """Has the end of the far actor told to watcher `number` of `target`."""
        ...

    def demonitor(self, target: RemoteProcess, number: int, /) -> None:
        """Takes `monitor` back."""
        ...

    def resolve(self, pid: Pid, kind: str, name: object, /) -> RemoteProcess:
        """The stand-in for the actor of that pid, or for the holder of that name on the pid's node."""
        ...


class RemoteProcess(Process):
    """An actor of another node, or whoever holds a name there."""

    __slots__ = ("__weakref__", "far", "far_name", "far_pid", "heads")

    def __init__(self, system: System, blueprint: Blueprint, pid: Pid, name: object, far: Far) -> None:
        super().__init__(system, pid.serial, blueprint, None)
        self.wake = REMOTE
        self.far_pid = pid
        self.far_name = name
        """None, or the name under which it is looked up there at each message."""
        self.far = far
        self.heads: dict[object, bytes] = {}
        """For `far`: what it has encoded of casts, by handler, and of calls, by handler and urgency."""

    @property
    def pid(self) -> Pid:
        """Its identity; for a name, that of the node with serial 0."""
        return self.far_pid

    @property
    def path(self) -> str:
        """The name or the pid: a path has a meaning on its own node only."""
        if self.far_name is not None:
            return f"<{self.blueprint.name} {self.far_name!r} on {self.far_pid.node}>"
        return f"<{self.blueprint.name} {self.far_pid}>"
