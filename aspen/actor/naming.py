"""`Naming`: the names of processes on one node, and the way to those that are kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from aspen.actor.behaviour import Behaviour
from aspen.actor.bonds import Bonds
from aspen.actor.process import CLUSTER_WIDE, DEAD, F_DEAD, Process, Via
from aspen.errors import AlreadyRegistered, UsageError
from aspen.traits import Ports

if TYPE_CHECKING:
    from aspen.actor.system import System


class Tombstone(Behaviour):
    """Stands where a name has no holder."""


class Naming(Bonds):
    """The part of a `System` that knows names."""

    def __init__(self, name: str, boot: int, ports: Ports, node: str = "") -> None:
        super().__init__(name, boot, ports, node)
        self.names: dict[object, Process] = {}
        self.cluster_name: Callable[[str], Via] | None = None
        """What keeps a name that begins with CLUSTER_WIDE, when there is a cluster."""

    def register(self, name: object, process: Process) -> None:
        """Gives a live process a name on this node; given up when it ends.

        Raises:
            AlreadyRegistered: a live process has it, perhaps this one.
            UsageError: the process has ended.
        """
        if process.wake == DEAD:
            raise UsageError(f"{process.path} has ended and cannot take the name {name!r}")
        via = self.via_of(name)
        if via is not None:
            via.register(cast("System", self), process)
            return
        holder = self.names.get(name)
        if holder is not None:
            raise AlreadyRegistered(f"the name {name!r} is held by {holder.path} {holder.pid}", holder.pid)
        self.names[name] = process
        if self.observer is not None:
            self.observer(process, "name", str(name), None)
        process.more().names.append(lambda: self.unregister(name, process))

    def unregister(self, name: object, process: Process) -> None:
        """Gives a name up, if this process holds it."""
        via = self.via_of(name)
        if via is not None:
            via.unregister(cast("System", self), process)
        elif self.names.get(name) is process:
            del self.names[name]
            if self.observer is not None:
                self.observer(process, "unname", str(name), None)

    def whereis(self, name: object) -> Process | None:
        """The holder of a name."""
        process = self.names.get(name)
        if process is None:
            via = self.via_of(name)
            return None if via is None else via.whereis(cast("System", self))
        return process

    def via_of(self, name: object) -> Via | None:
        """What keeps a name that is not in the node's own table; None for one that is.

        Raises:
            UsageError: it is a name for the whole cluster, and this node takes part in none.
        """
        if isinstance(name, Via):
            return name
        if type(name) is not str or not name.startswith(CLUSTER_WIDE):
            return None
        if self.cluster_name is None:
            raise UsageError(
                f"{name!r} is a name in a cluster, and node {self.name} is in none; "
                f"use `aspen up`, or --cluster NAME, or a name without {CLUSTER_WIDE!r}"
            )
        return self.cluster_name(name)

    def tombstone(self, name: object) -> Process:
        """A dead process that stands for a name nobody holds."""
        process = Process(cast("System", self), 0, Tombstone.blueprint, f"{name!r}")
        process.wake, process.flags = DEAD, F_DEAD
        return process
