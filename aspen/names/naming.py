"""`ClusterName`: a name of which the cluster has one holder; `Office`: the same, held under one token; `Holder`: who
has it. What they do is the business of the node's `Names`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from aspen import wire
from aspen.actor import CLUSTER_WIDE, Claimed, Process, System, Via, make_ref, system_of_loop
from aspen.errors import BadFrame, CallError, NoProc, StaleEpoch, UsageError
from aspen.kv import tuples
from aspen.kv.recipes.keys import ROOT, base, items_of
from aspen.kv.types import KeyValue
from aspen.limits import NAME_TTL_S
from aspen.types import Pid

if TYPE_CHECKING:
    from aspen.names.holding import Names

TABLE: Final = "aspen.names"
SPACE: Final = tuples.pack((ROOT, "name"))
"""What the keys of all names begin with."""


@wire.message(type_id="aspen.name")
class ClusterName(Claimed):
    """A name of an actor in the cluster, with what is to be different: the text `"global:orders"` stands for
    `ClusterName("orders")`.

    The checks are on, and a name is looked up whatever they are. Without `guarded` an actor goes on with its messages
    when its lease has run out, until that is noticed; without `fenced` its `ctx.kv` writes whether the name is held or
    not. Either lets effects of two holders overlap: for an actor whose effects are harmless twice, and no other.
    """

    name: str
    ttl: int = NAME_TTL_S
    """Of the lease, in seconds: how long the name is not free when its node has died."""
    waits: bool = False
    """Stands in line while another holds it, instead of failing to start."""
    guarded: bool = True
    fenced: bool = True

    def __post_init__(self) -> None:
        base("name", self.name)
        if type(self.ttl) is not int or self.ttl < 1:
            raise UsageError(f"ClusterName({self.name!r}, ttl={self.ttl!r}): a lease has whole seconds, at least 1")

    async def claim(self, system: System, process: Process) -> None:
        """Returns when the process holds the name."""
        await names_of(system).claim(self, process)

    def register(self, system: System, process: Process) -> None:
        """Raises UsageError: it is too late for that."""
        raise UsageError(
            f"{process.path} runs already, and takes no name in the cluster any more; give it at the start: "
            f"child(...).opts(name={str(self)!r})"
        )

    def unregister(self, system: System, process: Process) -> None:
        """Raises UsageError: an actor keeps its name."""
        raise UsageError(f"{process.path} keeps the name {str(self)!r} until it ends; stop it")

    def whereis(self, system: System) -> Process | None:
        """The holder, if it is of this node; else what finds it."""
        return names_of(system).whereis(self.name)

    def __str__(self) -> str:
        return CLUSTER_WIDE + self.name


@wire.message(type_id="aspen.name.office")
class Office(Via):
    """A name as long as it is held under one token. What is sent to it reaches that holder or nobody."""

    name: str
    token: int

    def register(self, system: System, process: Process) -> None:
        """Raises UsageError."""
        raise UsageError(f"a token comes with a name, and cannot be chosen; use {CLUSTER_WIDE + self.name!r}")

    def unregister(self, system: System, process: Process) -> None:
        """Raises UsageError."""
        raise UsageError(f"{process.path} keeps its name until it ends; stop it")

    def whereis(self, system: System) -> Process | None:
        """The holder under this token, on this node."""
        names: Names | None = system.tables.get(TABLE)
        return None if names is None else names.holder_here(self.name, self.token)

    def absent(self, system: System, handler: str) -> CallError:
        """Who sent it knows an earlier holder."""
        return StaleEpoch(
            f"{CLUSTER_WIDE}{self.name} is not held on node {system.name} under token {self.token} any more; "
            f"{handler} was not executed: call again through whereis()"
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a name in the cluster, or stands in line for it."""

    name: str
    pid: Pid
    node: str
    """The name of its node; `pid.node` is the id."""
    kind: str
    """`module:QualName` of its class."""
    path: str
    token: int
    """Grows from holder to holder: its epoch."""
    lease: int
    """Under which it holds the name."""

    @property
    def ref(self) -> Any:
        """A ref to it: what is sent to it comes to this holder or to nobody. Raises NoProc: it has ended."""
        return make_ref(names_of(system_of_loop()).process_of(self))

    def __str__(self) -> str:
        return f"{self.path} {self.pid} on node {self.node} (token {self.token})"


def names_of(system: System) -> Names:
    """The names as this node knows them. Raises NoProc: they are not kept here."""
    names: Names | None = system.tables.get(TABLE)
    if names is None:
        raise NoProc(f"node {system.name} does not keep names of the cluster: its registrar has not started")
    return names


def parse(name: str) -> ClusterName:
    """The name that a text stands for: with or without `global:`."""
    return ClusterName(name.removeprefix(CLUSTER_WIDE))


def value_of(system: System, process: Process) -> bytes:
    """What the store has of a holder."""
    pid = process.pid
    return wire.encode((pid.node, pid.boot, pid.serial, system.name, process.blueprint.kind, process.path))


def holder_of(kv: KeyValue) -> Holder:
    """Whom an entry is of. Raises UsageError: it is no entry of a name."""
    try:
        name, _, _ = items_of(SPACE, kv.key)
        node, boot, serial, called, kind, path = cast("tuple[Any, ...]", wire.decode(kv.value))
        pid = Pid(str(node), int(boot), int(serial))
    except (BadFrame, UsageError, ValueError, TypeError):
        raise UsageError(f"there is an entry among the names that no actor has made: {kv.key!r}; delete it") from None
    return Holder(str(name), pid, str(called), str(kind), str(path), kv.create_revision, kv.lease)
