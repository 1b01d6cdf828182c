"""`PartitionSupervisor`: several copies of one child, each responsible for its share of the keys.

    child(PartitionSupervisor, child(Cache), partitions=8).opts(name="caches")
    ...
    cache = whereis(Cache, PartitionSupervisor.via("caches", user_id))     # the same copy for the same key

Use it when one actor is a bottleneck and its state falls into parts by key. An integer key is its own hash, `key %
partitions`; any other is hashed by its encoding, the same in every run and on every node. The number of partitions is
fixed: changing it moves keys.

The copies are `one_for_one` children with the ids `0` to `partitions - 1`; a restarted copy keeps its share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aspen import limits, wire
from aspen.actor import Process, System, Via
from aspen.errors import AlreadyRegistered, UsageError
from aspen.otp.actor import call
from aspen.otp.starting import Child
from aspen.otp.supervisor import Supervisor


def partition_of(key: object, partitions: int) -> int:
    """Which of so many partitions a key belongs to, from 0.

    Raises:
        NotEncodable: the key has no encoding to be hashed by.
    """
    if isinstance(key, int):
        return int(key) % partitions
    digest = hashlib.blake2b(wire.encode(key), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


@dataclass(frozen=True, slots=True)
class PartitionName(Via):
    """A key of a partition supervisor in the place of a name."""

    supervisor: Any
    key: Any

    def register(self, system: System, process: Process) -> None:
        """Refused: partitions have their names by their place."""
        raise AlreadyRegistered(f"{self!r} belongs to a partition; only a PartitionSupervisor starts one")

    def unregister(self, system: System, process: Process) -> None:
        """Does nothing: see `register`."""

    def whereis(self, system: System) -> Process | None:
        """The copy that is responsible for the key; None while it, or the supervisor, does not run."""
        supervisor = system.whereis(self.supervisor)
        actor = supervisor.actor if supervisor is not None else None
        return actor.partition(self.key) if isinstance(actor, PartitionSupervisor) else None


class PartitionSupervisor(Supervisor):
    """Supervises `partitions` copies of a child; `child` may be a function from the partition's number to its child."""

    def __init__(
        self, child: Child[Any] | Callable[[int], Child[Any]], *, partitions: int = limits.PARTITIONS_DEFAULT
    ) -> None:
        if not 1 <= partitions <= limits.PARTITIONS_MAX:
            raise UsageError(f"partitions={partitions}: use 1 to {limits.PARTITIONS_MAX}")
        self._child = child
        self._partitions = partitions

    @staticmethod
    def via(supervisor: object, key: object) -> PartitionName:
        """The copy for a key, as a name: `whereis(Cache, PartitionSupervisor.via("caches", key))`. `supervisor` is the
        name under which the supervisor is registered."""
        return PartitionName(supervisor, key)

    def children(self) -> Iterable[Child[Any]]:
        """The copies."""
        for number in range(self._partitions):
            spec = self._child if isinstance(self._child, Child) else self._child(number)
            if not isinstance(spec, Child):
                raise UsageError(f"partition {number}: {spec!r} is not a child; make one with child(Class, ...)")
            if isinstance(self._child, Child) and spec.name is not None:
                raise UsageError(f"{spec.id!r}: copies cannot share the name {spec.name!r}; leave it out")
            yield spec.opts(id=str(number))

    def partition(self, key: object) -> Process | None:
        """The process responsible for a key, while it runs. Read only, from the node's own loop."""
        kid = self._kids.get(str(partition_of(key, self._partitions)))
        process = kid.process if kid is not None else None
        return process if process is not None and process.alive else None

    @call(timeout=None, urgent=True)
    def partitions(self) -> int:
        """How many copies there are."""
        return self._partitions
