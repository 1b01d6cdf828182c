"""The machine in numbers."""

from __future__ import annotations

from typing import NamedTuple


class KeyspaceStatus(NamedTuple):
    """One keyspace in numbers."""

    revision: int
    compact_revision: int
    is_scrubbed: bool
    """Whether what was compacted is out of the storage."""
    size_bytes: int
    """Of keys, values and their history, as stored by this member; members differ while they compact."""
    quota_bytes: int
    alarms: tuple[int, ...]


class Status(NamedTuple):
    """The machine in numbers."""

    applied: tuple[int, int]
    visible: tuple[int, int]
    synced: tuple[int, int]
    cluster_version: int
    sessions: int
    leases: int
    running_hash: bytes
    """Of all entries applied and their results: the same on every member at the same `applied`."""
    keyspaces: dict[int, KeyspaceStatus]
    unflushed_rows: int
