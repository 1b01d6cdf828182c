"""`Gate`: whose packets are believed. Sans-IO.

A packet is refused, and counted, when it is of another cluster, for another member, from a node that is not the
sender's, from a former member, from another disk than the sender's, from an earlier boot than one that was heard, or
from another boot of the same count. It is refused, too, when it shows that this member's own disk is of the past.

The first packet of a disk or a boot waits, with those behind it, until that disk and boot are written down: what this
member does because of it may be a promise, which must not outlive the knowledge of whom it was given to.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from aspen.limits import REPLICATION_GUESTS_MAX, REPLICATION_HELD_MESSAGES_MAX
from aspen.replication.members import Members, Seen
from aspen.replication.packets import Packet

ADMITTED: Final = ""
HELD: Final = "held"
CLUSTER: Final = "cluster"
RECEIVER: Final = "receiver"
FORMER: Final = "former"
NODE: Final = "node"
DISK: Final = "disk"
BOOT: Final = "boot"
PAST: Final = "past"
"""The sender knows of a boot of this member that its directory does not: this is a copy of the past."""


class Gate:
    """The gate of one member."""

    def __init__(self, cluster: int, me: int, members: Members) -> None:
        self._cluster = cluster
        self._me = me
        self._members = members
        self._written = dict(members.seen)
        self._held: dict[int, list[tuple[str, Packet]]] = {}
        self.guests: dict[int, str] = {}
        """Nodes of senders that are not in the table yet, as the log is behind."""
        self.refused: Counter[str] = Counter()
        """How many packets were refused, by reason."""

    @property
    def has_news(self) -> bool:
        """Whether something was heard that must be written down: `Members.seen`, and then `written`."""
        return bool(self._held)

    def node_of(self, member: int) -> str | None:
        """Where a member is."""
        info = self._members.table.get(member)
        return info.node if info is not None else self.guests.get(member)

    def admit(self, peer: str, packet: Packet) -> str:
        """ADMITTED, HELD for later, or why it is refused."""
        verdict = self._judge(peer, packet)
        if verdict == HELD:
            waiting = self._held.setdefault(packet.sender, [])
            if len(waiting) < REPLICATION_HELD_MESSAGES_MAX:
                waiting.append((peer, packet))
        elif verdict:
            self.refused[verdict] += 1
        return verdict

    def _judge(self, peer: str, packet: Packet) -> str:
        if packet.cluster != self._cluster:
            return CLUSTER
        if packet.to != self._me:
            return RECEIVER
        members, sender = self._members, packet.sender
        if sender in members.removed:
            return FORMER
        info = members.table.get(sender)
        node = info.node if info is not None else self.guests.get(sender)
        if node is None:
            if len(self.guests) >= REPLICATION_GUESTS_MAX:
                del self.guests[next(iter(self.guests))]
            self.guests[sender] = peer
        elif node != peer:
            return NODE
        if info is not None and info.disk and info.disk != packet.disk:
            return DISK
        seen = members.seen.get(sender)
        if seen is not None:
            if seen.disk != packet.disk:
                return DISK
            if packet.boot < seen.boot or (packet.boot == seen.boot and seen.nonce not in (0, packet.nonce)):
                return BOOT
        if members.is_of_the_past(packet.to_disk, packet.to_boot, packet.to_nonce):
            return PAST
        if seen is None or packet.boot > seen.boot:
            members.seen[sender] = seen = Seen(packet.disk, packet.boot, packet.nonce)
        return ADMITTED if self._written.get(sender) == seen else HELD

    def written(self, seen: dict[int, Seen]) -> list[tuple[str, Packet]]:
        """What was heard is durable: returns the packets that waited for it, in order, to be admitted again."""
        self._written = dict(seen)
        released: list[tuple[str, Packet]] = []
        for sender in list(self._held):
            if self._written.get(sender) == self._members.seen.get(sender):
                released += self._held.pop(sender)
        return released

    def settle(self) -> None:
        """Forgets guests that the table has by now."""
        for member in [one for one in self.guests if one in self._members.table or one in self._members.removed]:
            del self.guests[member]
