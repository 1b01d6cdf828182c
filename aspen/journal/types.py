"""What goes into a journal, and what comes out of it when it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aspen import limits
from aspen.raft import Entry, HardState, SnapshotMeta


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose directory it is. Minted once, when the directory is made; `boots` counts on at each open."""

    cluster_id: int
    """63 random bits, not 0, of the cluster; a restored cluster has another."""
    member_id: int
    """The member's of the group, as `aspen.raft` has it."""
    node_key: str
    """The public key of the node that it belongs to."""
    boots: int = 0
    """How often the directory has been opened, this time included. Peers that have seen a larger one know that it lost
    its disk."""
    salt: int = 0
    """64 random bits that clients do not know: in every batch, so that nothing they store can pass for one."""


@dataclass(slots=True)
class Batch:
    """What is written at one stroke: all of it is there after a crash, or none.

    In this order: `snapshot` first, then `entries`, then `refill`: as `aspen.raft.Ready` has them. A batch is always
    synced; what needs no sync (`Ready.must_sync`) goes into the next one that does.
    """

    hard_state: HardState | None = None
    """None: as before."""
    entries: Sequence[Entry] = ()
    """Of consecutive indices. They take the place of those from the first one's index on."""
    snapshot: SnapshotMeta | None = None
    """The state up to this index is kept elsewhere, durably: entries at or below it are no longer needed. When the log
    has no entry of that index and term, all of it goes (an installed snapshot)."""
    members: bytes | None = None
    """The table of members: bytes that mean nothing here. None: as before."""
    refill: Sequence[Entry] = ()
    """Entries, fetched from a peer, that take the place of rotten ones of the same index and term."""


@dataclass(frozen=True, slots=True)
class Damage:
    """An entry whose bytes have rotted. It keeps its place in the log until it is refilled."""

    index: int
    term: int
    """0 when that has rotted too."""


@dataclass(slots=True)
class Recovered:
    """What a journal holds when it is opened."""

    identity: Identity
    """`boots` is that of this open."""
    hard_state: HardState
    snapshot: SnapshotMeta
    """The latest mark; index 0 with the initial configuration when there was none."""
    members: bytes
    entries: list[Entry]
    """All after `snapshot.index`, in order without a gap. Those in `damage` stand with empty data, and with term 0
    where that is unknown: before they are refilled they must not be applied or sent, and the member must not vote."""
    damage: tuple[Damage, ...] = ()
    clean: bool = True
    """Whether it was closed in order the time before. If not, verify the stores beside it."""
    cut_bytes: int = 0
    """Bytes of an unfinished batch that were cut off the end."""


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """How a journal lays out its files."""

    segment_bytes: int = limits.JOURNAL_SEGMENT_BYTES
    """Size of a segment file, unless one batch needs more. Simulations take a small one."""
    log_bytes_max: int = limits.JOURNAL_LOG_BYTES_MAX
    """What the segments may hold together before a batch is refused."""
