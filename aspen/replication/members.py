"""`Members`: who is behind the member ids of a group, and which disks have spoken for them.

The table is replicated: each change of the configuration carries, as its context, what it does to the table. Applying
a change that is in the table already changes nothing, so it may be kept ahead of the log and replayed.

Beside it stands what this member alone knows: the disk and the latest boot of each member that it has heard. They are
written before anything that such a boot says is acted upon. A disk that differs, a boot that fell, or another boot of
the same count, is a disk that was lost, with the votes that were on it: whoever speaks from it is not believed.

A member also writes down the nonces of its own boots. When another has heard a boot that is not among them, then the
own disk is one of the past: put back from a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aspen import wire
from aspen.errors import BadFrame
from aspen.limits import REPLICATION_BOOTS_KEPT, REPLICATION_REMOVED_MAX

_ID_MASK: Final = (1 << 63) - 1


@wire.message(type_id="aspen.replication.member")
class MemberInfo:
    """A member of a group."""

    member: int
    """Its id."""
    node: str
    """The id of its node: the public key, or in the simulator the name."""
    name: str = ""
    """The node's name when it was added; for people."""
    address: str = ""
    """Where the links of its node are reached, as far as known."""
    disk: int = 0
    """The disk that speaks for it, once that is part of the table; else 0."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last heard of a member."""

    disk: int
    boot: int
    nonce: int = 0
    """Of that boot; 0: not known, and any will do."""


@dataclass(slots=True)
class Members:
    """The table, and what is known beside it."""

    table: dict[int, MemberInfo] = field(default_factory=dict)
    removed: dict[int, None] = field(default_factory=dict)
    """Ids that were members, the earliest first. They are never used again."""
    seen: dict[int, Seen] = field(default_factory=dict)
    disk: int = 0
    """Of this directory."""
    registered: bool = False
    """Whether enough others know this disk, so that this member may vote."""
    is_machine_stale: bool = False
    """Whether the machine's state is that of another member, until a snapshot has taken its place."""
    boots: dict[int, int] = field(default_factory=dict)
    """The nonces of the latest boots of this directory, the earliest first."""
    refused: str = ""
    """Why this directory is not to be used any more; empty: it may be."""

    # -- the replicated part ---------------------------------------------------------------------------------

    def put(self, info: MemberInfo) -> bool:
        """Adds a member or changes what is known of it; whether that changed anything."""
        if info.member in self.removed or self.table.get(info.member) == info:
            return False
        self.table[info.member] = info
        return True

    def remove(self, member: int) -> bool:
        """Removes a member for good; whether that changed anything."""
        if member in self.removed:
            return False
        self.table.pop(member, None)
        self.seen.pop(member, None)
        self.removed[member] = None
        while len(self.removed) > REPLICATION_REMOVED_MAX:
            del self.removed[next(iter(self.removed))]
        return True

    def apply(self, context: bytes) -> bool:
        """Does what the context of a configuration change says; whether that changed anything.

        Raises:
            BadFrame: it says nothing that makes sense.
        """
        if not context:
            return False
        changed = False
        operations = wire.decode(context)
        if not isinstance(operations, list):
            raise BadFrame("the context of a configuration change is no list")
        for operation in operations:
            if isinstance(operation, MemberInfo):
                changed |= self.put(operation)
            elif isinstance(operation, int):
                changed |= self.remove(operation)
            else:
                raise BadFrame("the context of a configuration change names neither a member nor an id")
        return changed

    def of_node(self, node: str) -> list[MemberInfo]:
        """The members that a node has, by id; normally one."""
        return sorted((info for info in self.table.values() if info.node == node), key=lambda info: info.member)

    def adopt(self, table: bytes) -> None:
        """Takes the replicated part of a snapshot in the place of the own one."""
        other = from_bytes(table)
        self.table, self.removed = other.table, other.removed
        self.seen = {member: seen for member, seen in self.seen.items() if member not in self.removed}

    # -- the own boots -------------------------------------------------------------------------------------

    def began(self, boot: int, nonce: int) -> None:
        """This directory was opened once more."""
        self.boots[boot] = nonce
        while len(self.boots) > REPLICATION_BOOTS_KEPT:
            del self.boots[next(iter(self.boots))]

    def is_of_the_past(self, disk: int, heard: int, nonce: int) -> bool:
        """Whether this directory lacks a boot of its own that another has heard. One of another disk is none."""
        if not heard or disk != self.disk or not self.boots:
            return False
        if heard > next(reversed(self.boots)):
            return True
        return bool(nonce) and self.boots.get(heard, nonce) != nonce

    # -- bytes ---------------------------------------------------------------------------------------------

    def shared_bytes(self) -> bytes:
        """The replicated part, for a snapshot."""
        return Members(self.table, self.removed).to_bytes()

    def to_bytes(self) -> bytes:
        """All of it, for the journal."""
        seen = [[member, seen.disk, seen.boot, seen.nonce] for member, seen in sorted(self.seen.items())]
        table = [self.table[member] for member in sorted(self.table)]
        boots = [[boot, nonce] for boot, nonce in self.boots.items()]
        own = [self.disk, self.registered, self.is_machine_stale, boots, self.refused]
        return wire.encode([table, list(self.removed), seen, *own])


def from_bytes(data: bytes) -> Members:
    """What `to_bytes` gave.

    Raises:
        BadFrame: it is something else.
    """
    try:
        fields: Any = wire.decode(data)
        table, removed, seen, disk, registered, is_machine_stale, boots, refused = fields
        return Members(
            {info.member: info for info in table},
            dict.fromkeys(removed),
            {member: Seen(disk, boot, nonce) for member, disk, boot, nonce in seen},
            disk,
            registered,
            is_machine_stale,
            dict(boots),
            refused,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise BadFrame("a table of members cannot be read") from error


def context_of(*operations: MemberInfo | int) -> bytes:
    """The context of a configuration change that puts these members, and removes these ids."""
    return wire.encode(list(operations))


# -- the first configuration -------------------------------------------------------------------------------------


def first_members(token: str, group: int, nodes: Iterable[MemberInfo]) -> tuple[int, dict[int, MemberInfo]]:
    """The id of the cluster, and its first voters: the same on every node that is given the same nodes.

    The ids of `nodes` are not looked at. `token` tells apart clusters that the same nodes have one after the other.
    """
    listed = sorted(nodes, key=lambda info: info.node)
    cluster = _id("cluster", token, group, *(info.node for info in listed))
    voters = [replace(info, member=_id("member", cluster, info.node)) for info in listed]
    return cluster, {info.member: info for info in voters}


def _id(*parts: Any) -> int:
    text = "\0".join(str(part) for part in ("aspen", *parts))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & _ID_MASK
    return number or 1
