"""What a member of a group tells of itself and of the others."""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from aspen.wire import message, register


@register
class Stage(Enum):
    """How far a member has come."""

    OPENING = "opening"
    """Its directory is being opened, or the nodes named as voters are not all known yet."""
    WAITING = "waiting"
    """Its directory is empty, and it is no first voter: it waits to be added."""
    REGISTERING = "registering"
    """A first voter on a new disk: it waits until the others know it."""
    RUNNING = "running"
    REFUSED = "refused"
    """Its disk was lost: it must be removed, and added as a new member."""
    REMOVED = "removed"
    """It is a member no longer, and waits to be added again."""


@message(type_id="aspen.replication.member_status")
class MemberStatus:
    """One member, as the one that was asked knows it."""

    member: int
    node: str
    name: str
    address: str
    role: str
    """`voter`, `learner`, or `leaving`."""
    is_leader: bool = False
    match: int = 0
    """What it surely has of the log. This, and what follows, only a leader knows."""
    progress: str = ""
    """`probe`, `replicate`, `snapshot`, or empty."""
    active: bool = False
    """Whether it was heard within the last election timeout."""
    refilling: bool = False
    """Whether entries of its log have rotted, and it is being sent them anew. It does not vote until it has them."""


@message(type_id="aspen.replication.peer_status")
class PeerReport:
    """The state of a member."""

    stage: Stage
    cluster: int = 0
    member: int = 0
    role: str = ""
    """`leader`, `follower`, `candidate`, `pre_candidate`, or empty."""
    term: int = 0
    leader: str | None = None
    """The node that leads, if it is known."""
    commit: int = 0
    applied: int = 0
    """By the machine."""
    synced: int = 0
    first: int = 0
    last: int = 0
    """The log."""
    stable: int = 0
    boot: int = 0
    damaged: int = 0
    """Entries that wait to be refilled."""
    disk_full: bool = False
    has_machine: bool = False
    machine_lost: bool = False
    """Whether its machine's state is lost and a snapshot is awaited."""
    refused: dict[str, int] = field(default_factory=dict)
    """Packets that were not believed, by reason."""
    dropped: int = 0
    """Packets for which there was no room."""
    late_ticks: int = 0
    """How often the node stood still for longer than a heartbeat."""
    members: tuple[MemberStatus, ...] = ()
    why: str = ""
    """What is to be done, when something is."""
