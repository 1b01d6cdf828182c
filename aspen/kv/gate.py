"""`Gate`: a node's way to the store, for whoever is on the node; and who may ask for what.

    reply = gate_of(system).exchange(WRITE, body)          # await it, or add a callback: (here, answer)

A node that has a member asks that; any other node one of the members that it knows of, which are all in the process
group `aspen.kv`. The member in turn hands writes on to the leader. So whoever reaches one node of the cluster reaches
the store.
"""

from __future__ import annotations

from typing import Any, Final

from aspen.actor import Reply, System, make_named_ref
from aspen.distributed.pg import table_of
from aspen.errors import AccessDenied, AspenError, NotReachable
from aspen.kv.admin import OPERATIONS, operation_of
from aspen.kv.codec import command_kind, decode_batch
from aspen.kv.door import ADMIN, WATCH
from aspen.kv.options import NAME, WATCHES
from aspen.kv.state_machine import KvStateMachine
from aspen.kv.types import Keyspace, Kind
from aspen.kv.watch_actor import WatchActor
from aspen.kv.watch_wire import OPEN, decode_open
from aspen.kv.watch_wire import operation_of as watch_operation_of
from aspen.trust import Role

_RANK: Final = {Role.JOINER: 0, Role.CLIENT: 1, Role.OPERATOR: 2, Role.ADMIN: 3, Role.NODE: 3}

COMMAND_ROLES: Final[dict[int, Role]] = {
    Kind.PUT: Role.CLIENT,
    Kind.DELETE: Role.CLIENT,
    Kind.TXN: Role.CLIENT,
    Kind.RANGE: Role.CLIENT,
    Kind.SESSION_OPEN: Role.CLIENT,
    Kind.SESSION_KEEP: Role.CLIENT,
    Kind.SESSION_CLOSE: Role.CLIENT,
    Kind.LEASE_GRANT: Role.CLIENT,
    Kind.LEASE_REVOKE: Role.CLIENT,
    Kind.LEASE_KEEP: Role.CLIENT,
    Kind.LEASE_QUERY: Role.CLIENT,
    Kind.LEASE_LIST: Role.CLIENT,
    Kind.COMPACT: Role.OPERATOR,
    Kind.ALARM: Role.OPERATOR,
    Kind.QUOTA: Role.OPERATOR,
}
"""The least role for each kind of command from outside; what is not here, members alone propose."""


def check_role(role: Role, kind: int, body: bytes) -> None:
    """Checks what a key of this role asks from outside.

    Raises:
        AccessDenied: it may not.
        BadFrame, UsageError: the bytes ask for nothing.
    """
    rank = _RANK[role]
    if kind == ADMIN:
        name, _ = operation_of(body)
        least = OPERATIONS[name].role
        if rank < _RANK[least]:
            raise AccessDenied(f"{name} needs the role {least.value}, and this key has {role.value}")
        return
    if kind == WATCH:
        if rank < _RANK[Role.CLIENT]:
            raise AccessDenied(f"watching needs the role client, and this key has {role.value}")
        if watch_operation_of(body) == OPEN and decode_open(body) != Keyspace.USER:
            raise AccessDenied("watching: from outside only the user keyspace is reached")
        return
    for command in decode_batch(body):
        if rank < _COMMAND_RANKS.get(command[:2], _NOBODY):
            what = command_kind(command)
            raise AccessDenied(_denied(what, role, COMMAND_ROLES.get(what), command))


_USER: Final = bytes([Keyspace.USER])
_COMMAND_RANKS: Final = {bytes([kind]) + _USER: _RANK[role] for kind, role in COMMAND_ROLES.items()}
"""By the first two bytes of a command: its kind and the user keyspace. Looked at for every command from outside."""
_NOBODY: Final = 9


def _denied(what: int, role: Role, allowed: Role | None, command: bytes) -> str:
    name = Kind(what).name.lower() if what in Kind.__members__.values() else f"command {what}"
    if allowed is None:
        return f"{name} is for members of the store themselves"
    if command[1:2] != _USER:
        return f"{name}: from outside only the user keyspace is reached"
    return f"{name} needs the role {allowed.value}, and this key has {role.value}"


class Gate:
    """See the module. One a node; all on its loop."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._here: Any = make_named_ref(system, KvStateMachine.blueprint, NAME)
        self._watches_here: Any = make_named_ref(system, WatchActor.blueprint, WATCHES)
        self._watches_there: Any = None
        """Of another node, when this one has no member: the same as long as it is there, for streams are there."""
        self._turn = 0

    def exchange(self, kind: int, body: bytes) -> Reply[tuple[bool, bytes]]:
        """Exchanges with the store; see `KvStateMachine.exchange` for what the reply brings.

        Raises:
            NotReachable: no member is known here, now.
        """
        at = self._watcher() if kind == WATCH else self._member()
        reply: Reply[tuple[bool, bytes]] = at.exchange(kind, body, 0)
        return reply

    def _watcher(self) -> Any:
        if self._system.whereis(WATCHES) is not None:
            return self._watches_here
        others = table_of(self._system).refs(WATCHES)
        if not others:
            raise NotReachable(f"node {self._system.name} knows no member of the store that can be watched now")
        if self._watches_there not in others:
            self._turn += 1
            self._watches_there = others[self._turn % len(others)]
        return self._watches_there

    def _member(self) -> Any:
        if self._system.whereis(NAME) is not None:
            return self._here
        members = table_of(self._system).refs(NAME)
        if not members:
            raise NotReachable(
                f"node {self._system.name} has no member of the store and knows of none; see: aspen member list"
            )
        self._turn += 1
        return members[self._turn % len(members)]

    def check(self) -> None:
        """Raises NotReachable when no member is known here, now."""
        self._member()

    async def greeting(self) -> dict[str, Any]:
        """What a client from outside is told first: `node_id` and `name` of this node, and of the `leader`, its node id
        or None."""
        leader = None
        try:
            leader = await self._member().leader()
        except AspenError:
            leader = None
        return {"node_id": self._system.node, "name": self._system.name, "leader": leader}


_TABLE: Final = "aspen.kv.gate"


def gate_of(system: System) -> Gate:
    """The gate of a node."""
    found: Gate | None = system.tables.get(_TABLE)
    if found is None:
        found = system.tables[_TABLE] = Gate(system)
    return found
