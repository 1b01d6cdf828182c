"""`PeerOptions`: how a member of a replicated group behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aspen import limits
from aspen.journal import JournalOptions


def _nothing(error: BaseException) -> None:
    """No one else is told."""


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """The defaults are for production; simulation makes things small."""

    voters: tuple[str, ...] = ()
    """The nodes that are the first voters, by id or by name: the same on every one of them. Empty: this node alone.
    Only looked at when the directory is empty; a node that is not among them then waits to be added."""
    waits: bool = False
    """With an empty directory, wait to be added, whatever `voters` says."""
    token: str = ""
    """Tells apart clusters that the same nodes have one after the other."""
    group: int = 1
    """Number of the group, the same on all nodes."""
    name: object = "raft"
    """Under which the peer is registered on its node; far nodes ask it by that."""
    directory: str = "raft"
    """Of the journal, on the node's disk."""
    tick_s: float = limits.REPLICATION_TICK_S
    election_ticks: int = limits.REPLICATION_ELECTION_TICKS
    heartbeat_ticks: int = limits.REPLICATION_HEARTBEAT_TICKS
    append_bytes_max: int = limits.REPLICATION_APPEND_BYTES_MAX
    inflight_messages_max: int = limits.REPLICATION_INFLIGHT_MESSAGES_MAX
    inflight_bytes_max: int = limits.REPLICATION_INFLIGHT_BYTES_MAX
    uncommitted_bytes_max: int = limits.REPLICATION_UNCOMMITTED_BYTES_MAX
    apply_batch_bytes_max: int = limits.REPLICATION_APPLY_BATCH_BYTES_MAX
    apply_inflight_bytes_max: int = limits.REPLICATION_APPLY_INFLIGHT_BYTES_MAX
    apply_lag_bytes_max: int = limits.REPLICATION_APPLY_LAG_BYTES_MAX
    compact_entries: int = limits.REPLICATION_COMPACT_ENTRIES
    """Entries below the machine's `synced`, beyond those kept, before the log is compacted..."""
    compact_bytes: int = limits.REPLICATION_COMPACT_BYTES
    """... or bytes."""
    keep_entries: int = limits.REPLICATION_KEEP_ENTRIES
    """Entries below `synced` that stay for members that are a little behind."""
    snapshot_window: int = limits.REPLICATION_SNAPSHOT_WINDOW
    """Chunks of a snapshot on their way to one member."""
    journal: JournalOptions = field(default_factory=JournalOptions)
    on_fatal: Callable[[BaseException], object] = _nothing
    """Told when the device has failed, before the peer ends itself: the node is to end with an exit code of its own,
    and not to be started again before somebody has looked."""

    @property
    def election_s(self) -> float:
        """The election timeout."""
        return self.tick_s * self.election_ticks
