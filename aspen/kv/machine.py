"""`Machine`: the state of the store, as a function of the log. Deterministic: no clock, no randomness, no threads.

    machine = Machine(storage)                      recovers what the storage has; apply goes on from `machine.applied`
    results = machine.apply(index, term, payload)   a log entry: a batch of commands; one result for each
    flush = machine.freeze()                        what changed since the last one
    flush.write()                                   blocking, in a thread of its own: one transaction of the storage
    machine.flushed(flush)                          back on the loop

Three marks: `applied` is in memory, and what reads and results show; `visible` is committed to the storage, `synced` is on
the device. The log may be cut at or below `synced`.

Everything but `Flush.write` is called from one thread. An exception from `apply` (a device that fails, memory, another
version) leaves the machine broken: it refuses further work, and what was not frozen is lost. The log has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from aspen.kv.types import Event, RangeRequest, RangeResult, TxnRequest, TxnResult
from aspen.kv.types import Keyspace as KeyspaceName
from aspen.traits import Storage

TABLES: Final = ("mvcc", "revs", "leases", "lease_keys", "sessions", "meta")
"""What the storage is to be opened with."""

CLUSTER_VERSION_MIN: Final = 1
CLUSTER_VERSION_MAX: Final = 1
"""Versions of commands that this program knows."""


class KeyspaceStatus(NamedTuple):
    """One keyspace in numbers."""

    revision: int
    compact_revision: int
    scrubbed_revision: int
    """What is older is taken out of the storage; behind `compact_revision` while a compaction goes on."""
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
    running_hash: bytes
    """Of all entries applied and their results: the same on every member at the same `applied`."""
    keyspaces: dict[int, KeyspaceStatus]
    unflushed_bytes: int


class Machine:
    """See the module."""

    def __init__(self, storage: Storage) -> None:
        """Recovers the state. The machine owns the storage from now on.

        Raises:
            StorageCorrupt: what is there cannot be trusted, or a restore into it was not finished.
            ClusterVersionTooNew: see there.
        """
        raise NotImplementedError

    @property
    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry applied; (0, 0) of none."""
        raise NotImplementedError

    @property
    def visible(self) -> tuple[int, int]:
        """Index and term of the last entry that is committed to the storage."""
        raise NotImplementedError

    @property
    def synced(self) -> tuple[int, int]:
        """Index and term of the last entry that survives a loss of power."""
        raise NotImplementedError

    def apply(self, index: int, term: int, payload: bytes) -> list[bytes] | None:
        """Applies an entry: the result of each of its commands. None: it was applied before, and is passed over.

        `payload` is an `encode_batch` of commands; empty: an entry without. Bytes that are no batch have one result, an
        error. No bytes make it raise.

        Raises:
            InvariantBroken: `index` leaves a gap, or `term` falls, or the machine is broken.
            ClusterVersionTooNew, StorageFailed, StorageCorrupt: the machine is broken now.
        """
        raise NotImplementedError

    def check(self, command: bytes) -> bytes | None:
        """The leader's look at a command before it proposes it: an error result to refuse it with, or None.

        It refuses what would fail for certain, and puts into a keyspace that has reached its quota.
        """
        raise NotImplementedError

    def read(self, command: bytes) -> bytes:
        """The result of a RANGE command, or of a TXN without puts and deletes, at the applied state."""
        raise NotImplementedError

    def range(self, request: RangeRequest, keyspace: int = KeyspaceName.USER) -> RangeResult:
        """Reads a range at the applied state. Raises KvError."""
        raise NotImplementedError

    def query(self, request: TxnRequest, keyspace: int = KeyspaceName.USER) -> TxnResult:
        """Executes a transaction that only reads. Raises KvError."""
        raise NotImplementedError

    def events(self, keyspace: int, start: int, *, prev_kv: bool = False) -> list[tuple[int, list[Event]]]:
        """Events by revision, from revision `start` on, whole revisions, at most about KV_EVENTS_MAX events.

        Empty: `start` is after the current revision. Raises Compacted: `start` is below what is kept.
        """
        raise NotImplementedError

    def status(self) -> Status:
        """The machine in numbers."""
        raise NotImplementedError

    def sessions(self) -> list[tuple[int, int]]:
        """Sessions as (id, log index of their last command): what a `SessionExpire` names."""
        raise NotImplementedError

    def alarms_due(self) -> Sequence[tuple[int, bool]]:
        """Keyspaces whose NOSPACE alarm the leader should raise (True) or take back (False), by their size here."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends its use of the storage, which it closes. What was not frozen and written is lost."""
        raise NotImplementedError
