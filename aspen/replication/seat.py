"""`Seat`: a member's place in its group: who it is, whom it believes, what it sends, and where it writes.

A first voter whose disk is new is not let in at once. It registers: more than half of the others write down that this
disk speaks for it, unless they know another one. So two lives of one voter can never both make promises: their two sets
of witnesses share a node, which knew the first. Until then it neither votes nor acknowledges. It follows that three
nodes must all be up, once, for their group to come about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from aspen.actor import System
from aspen.actor.context import Context
from aspen.distributed import distribution_of
from aspen.limits import LINK_CHUNK_BYTES_MAX
from aspen.raft import Message, MessageKind, encode_message
from aspen.replication.gate import ADMITTED, BOOT, DISK, FORMER, PAST, Gate
from aspen.replication.opening import Lodging, Opened
from aspen.replication.packets import Packet, PacketKind, pack_head
from aspen.replication.writing import LogWriter

log = logging.getLogger("aspen.replication")

LOSSY_BYTES_MAX: Final = LINK_CHUNK_BYTES_MAX - 16
"""A larger packet takes the reliable lane."""


class Seat:
    """See the module."""

    def __init__(self, ctx: Context, group: int, lodging: Lodging, opened: Opened, wake: Callable[[], object]) -> None:
        identity = opened.recovered.identity
        self._system: System = ctx.system
        self.group = group
        self.cluster = identity.cluster_id
        self.me = identity.member_id
        self.boot = identity.boots
        self.nonce = opened.members.boots[self.boot]
        self.opened = opened
        self.members = opened.members
        self.disk = opened.members.disk
        self.gate = Gate(self.cluster, self.me, self.members)
        self.writer = LogWriter(lodging.lane, opened.journal, wake, ctx.now_ns)
        self.heard_ns: dict[int, int] = {}
        """When each of the others was last heard, and believed."""
        self._now_ns = ctx.now_ns
        self._welcomed: set[int] = set()
        self._members_changed = False
        self.is_stranger = False
        """Whether somebody knows another disk for this member: this one's predecessor, which is lost."""
        self.is_of_the_past = False
        """Whether somebody knows a later life of this disk than it has itself: it is a copy that was put back."""

    # -- sending ----------------------------------------------------------------------------------------------

    def send(self, member: int, kind: PacketKind, body: bytes = b"", *, large: bool = False) -> bool:
        """Sends a packet to a member. False: certainly not sent."""
        node = self.gate.node_of(member)
        return node is not None and self.send_to_node(node, member, kind, body, large=large)

    def send_to_node(self, node: str, member: int, kind: PacketKind, body: bytes = b"", *, large: bool = False) -> bool:
        """The same, to a node."""
        distribution = distribution_of(self._system)
        if distribution is None or node == self._system.node:
            return False
        seen = self.members.seen.get(member)
        heard = (seen.disk, seen.boot, seen.nonce) if seen is not None else (0, 0, 0)
        head = pack_head(kind, self.group, self.cluster, member, self.me, self.disk, self.boot, self.nonce, *heard)
        frame = head + body
        info = self.members.table.get(member)
        address = info.address if info is not None else ""
        return distribution.send_replicated(node, frame, large=large or len(frame) > LOSSY_BYTES_MAX, address=address)

    def send_messages(self, messages: Iterable[Message]) -> list[int]:
        """Sends messages of the core; returns the members whose appends were certainly not sent."""
        lost: list[int] = []
        for message in messages:
            sent = self.send(message.to, PacketKind.RAFT, encode_message(message))
            if not sent and message.kind == MessageKind.APPEND:
                lost.append(message.to)
        return lost

    def push(self) -> None:
        """Has what was sent leave at once."""
        distribution = distribution_of(self._system)
        if distribution is not None:
            distribution.flush_replicated()

    # -- hearing -----------------------------------------------------------------------------------------------

    def admit(self, peer: str, packet: Packet) -> bool:
        """Whether the packet is to be acted upon. A sender that is refused for good is told."""
        verdict = self.gate.admit(peer, packet)
        if self.gate.has_news:
            self._members_changed = True
        if verdict == FORMER and packet.kind is not PacketKind.GONE:
            self.send_to_node(peer, packet.sender, PacketKind.GONE)
        elif verdict == DISK and packet.kind is PacketKind.REGISTER:
            self.send_to_node(peer, packet.sender, PacketKind.STRANGER)
        elif verdict == BOOT and packet.kind is not PacketKind.LATER:
            # If it was only an old packet, its sender finds that it knows that boot.
            self.send_to_node(peer, packet.sender, PacketKind.LATER)
        elif verdict == PAST:
            self.is_of_the_past = True
        if verdict != ADMITTED:
            return False
        self.heard_ns[packet.sender] = self._now_ns()
        return True

    # -- writing -----------------------------------------------------------------------------------------------

    def members_changed(self) -> None:
        """The table is to be written with the next write."""
        self._members_changed = True

    def flush(self) -> None:
        """Begins a write, if one is needed."""
        if self._members_changed:
            self._members_changed = False
            self.writer.add_members(self.members.to_bytes(), (dict(self.members.seen), self.members.registered))
        self.writer.flush()

    # -- registering --------------------------------------------------------------------------------------------

    @property
    def others(self) -> list[int]:
        """The other members of the table, by id."""
        return sorted(member for member in self.members.table if member != self.me)

    def register(self) -> None:
        """Asks the others to know this disk and boot; those that have not answered. A member that is let in goes on
        with it: a boot that only the leader has heard of is forgotten with the leader, should the disk be put back."""
        for member in self.others:
            if member not in self._welcomed:
                self.send(member, PacketKind.REGISTER)
        self._count()

    def ask_whether_known(self) -> None:
        """Asks the others whether this member is one still: who knows that it is not says so."""
        for member in self.others:
            self.send(member, PacketKind.REGISTER)

    def welcomed(self, member: int) -> None:
        """One of them does."""
        self._welcomed.add(member)
        self._count()

    def _count(self) -> None:
        others = self.others
        enough = not others or len(self._welcomed.intersection(others)) * 2 > len(others)
        if enough and not self.members.registered:
            log.info("member %d is known by %d of %d others, and may vote", self.me, len(self._welcomed), len(others))
            self.members.registered = True
            self.members_changed()
