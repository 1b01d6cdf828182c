"""`Journal`: the log itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from aspen.journal.types import Batch, Damage, Identity, JournalOptions, Recovered
from aspen.traits import Files

if TYPE_CHECKING:
    from aspen.raft.types import Entry, SnapshotMeta


def is_empty(files: Files) -> bool:
    """Whether the directory holds no journal, not even a broken one."""
    raise NotImplementedError


def mark_suspect(files: Files, why: str) -> None:
    """Marks the directory as one whose device has failed, as well as that still can be done; never raises."""
    raise NotImplementedError


class Journal:
    """A write-ahead log in segment files. One thread at a time."""

    @classmethod
    def create(
        cls,
        files: Files,
        identity: Identity,
        snapshot: SnapshotMeta,
        members: bytes = b"",
        *,
        options: JournalOptions | None = None,
    ) -> None:
        """Makes the journal of a new member in an empty directory, durably; open it next.

        Raises:
            DirectoryRefused: the directory has one already, or is marked suspect.
        """
        raise NotImplementedError

    @classmethod
    def open(
        cls, files: Files, *, node_key: str, cluster_id: int | None = None, options: JournalOptions | None = None
    ) -> tuple[Self, Recovered]:
        """Opens it: cuts an unfinished batch off its end and counts the boot, durably.

        Raises:
            DirectoryRefused: it is another node's or cluster's, or marked suspect; says what to do.
            StorageCorrupt: vote, term, identity or members have rotted. The disk is lost: empty the directory, and
                come back as a new member.
            StorageFailed: the device fails.
        """
        raise NotImplementedError

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Entries that are still to be refilled, in order."""
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """Bytes of the segments that are in use."""
        raise NotImplementedError

    def write(self, batch: Batch) -> None:
        """Appends a batch and syncs.

        Raises:
            DiskFull: there is no room for another segment; nothing was written, it may be tried again.
            StorageFailed: the device failed; the directory is marked suspect. End the node.
        """
        raise NotImplementedError

    def refill(self, entries: Sequence[Entry]) -> None:
        """Puts entries, fetched from a peer, in the place of rotten ones, durably.

        Raises:
            UsageError: an entry is not among `damage`, or has another term.
        """
        raise NotImplementedError

    def truncate_below(self, index: int) -> int:
        """Drops whole segments of which all entries are at or below `index`, which the latest snapshot mark must cover.

        Returns how many bytes were given back.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Notes the ordered end, durably, and closes. Idempotent."""
        raise NotImplementedError
