"""`Keyspace`: keys with all their versions, one revision counter.

A write is two rows: the version in `mvcc`, and in `revs` what was done at that revision. The newest version of a key,
its *head*, is remembered for keys in use: always for those whose rows are not in the storage yet, so that a head that
is not remembered is looked up there alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple, Protocol, TypeAlias

from aspen.errors import StorageCorrupt
from aspen.kv.failures import make_error
from aspen.kv.layout import (
    AFTER_VERSIONS,
    DEAD,
    DEAD_RECORD,
    DIRECTORY,
    DIRECTORY_END,
    LIVE,
    MVCC,
    RECORD,
    REVS,
    STEM_END,
    SUFFIX,
    SUFFIX_BYTES,
    U32_MAX,
    U64_MAX,
    after_prefix,
    directories,
    escape,
    newest_at,
    node_of,
    node_prefix,
    node_value,
    revision_of,
    revs_key,
    suffix,
    unescape,
)
from aspen.kv.types import FROM_KEY, Alarm, ErrorCode, KeyValue
from aspen.kv.write_behind import Row, WriteBehind
from aspen.limits import KV_HEADS_CACHED, KV_KEY_CHUNK_BYTES, KV_QUOTA_BYTES, KV_QUOTA_CLEARED

_ROWS_FIRST: Final = 4
_ROWS_MAX: Final = 256
"""Rows that a scan reads at a time: four times as many each time, and fewer where most are versions that it passes."""

_STATE = Struct("<BQQQIQQQI")


Head: TypeAlias = tuple[int, int, int, int, int]
"""The newest version of a key: revision, sub-revision, create revision, version, lease. Version 0: it is deleted."""


class Version(NamedTuple):
    """A version of a key as a scan finds it."""

    key: bytes
    revision: int
    sub: int
    record: bytes

    def key_value(self, *, keys_only: bool = False) -> KeyValue:
        """As results have it."""
        _, create, version, lease = RECORD.unpack_from(self.record)
        value = b"" if keys_only else self.record[RECORD.size :]
        return KeyValue(self.key, value, create, self.revision, version, lease)


class Attaching(Protocol):
    """Who keeps the keys of leases: `aspen.kv.leases.Leases`."""

    def move(self, keyspace: int, key: bytes, before: int, after: int, /) -> None:
        """A key that was attached to one lease is now to another; 0: none."""
        ...


class Keyspace:
    """See the module."""

    __slots__ = (
        "_mvcc",
        "_old",
        "_revs",
        "_tables",
        "_young",
        "alarms",
        "compact_revision",
        "id",
        "leases",
        "next_node",
        "prefix",
        "quota_bytes",
        "revision",
        "scrub_at",
        "size_bytes",
    )

    def __init__(self, tables: WriteBehind, id: int) -> None:
        self._tables = tables
        self.id = id
        self.prefix = bytes([id])
        self.revision = 1
        self.compact_revision = 0
        self.scrub_at = (0, 0)
        """Revision and sub-revision in `revs` before which a compaction has done its work."""
        self.size_bytes = 0
        self.quota_bytes = KV_QUOTA_BYTES
        self.next_node = 1
        self.alarms: set[int] = set()
        self.leases: Attaching | None = None
        """Told when a key comes to have another lease."""
        self._young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}
        self._mvcc = tables.changes(MVCC)
        self._revs = tables.changes(REVS)

    # -- its own state ------------------------------------------------------------------------

    def state(self) -> bytes:
        """What it must remember beside its rows."""
        alarms = sum(1 << alarm for alarm in self.alarms)
        return _STATE.pack(
            self.id,
            self.revision,
            self.compact_revision,
            *self.scrub_at,
            self.size_bytes,
            self.quota_bytes,
            self.next_node,
            alarms,
        )

    def restore(self, state: bytes) -> None:
        """Takes over such a state."""
        _, self.revision, self.compact_revision, at, sub, self.size_bytes, self.quota_bytes, self.next_node, alarms = (
            _STATE.unpack(state)
        )
        self.scrub_at = (at, sub)
        self.alarms = {alarm for alarm in range(alarms.bit_length()) if alarms >> alarm & 1}

    # -- heads --------------------------------------------------------------------------------

    def newest(self, key: bytes) -> Head | None:
        """The newest version, be it a deletion; None: none is known."""
        head = self._young.get(key)
        if head is None:
            head = self._old.get(key)
            if head is None:
                head = self._load(key)
                if head is None:
                    return None
            if len(self._young) < KV_HEADS_CACHED:
                self._young[key] = head
        return head

    def head(self, key: bytes) -> Head | None:
        """The newest version; None: the key is not there."""
        head = self.newest(key)
        return head if head is not None and head[3] else None

    def frozen(self) -> None:
        """The changes so far were frozen, and those before them are in the storage: forgets heads not used for long."""
        self._mvcc = self._tables.changes(MVCC)
        self._revs = self._tables.changes(REVS)
        if len(self._young) >= KV_HEADS_CACHED:
            self._old = self._young
            self._young = {}

    def _load(self, key: bytes) -> Head | None:
        """The head that the storage has."""
        stem = self.stem(key)
        if stem is None:
            return None
        found = self._tables.first_stored(MVCC, stem, stem + AFTER_VERSIONS)
        if found is None:
            return None
        row, record = found
        revision, sub = revision_of(row)
        if record[0] == DEAD:
            return revision, sub, 0, 0, 0
        _, create, version, lease = RECORD.unpack_from(record)
        return revision, sub, create, version, lease

    # -- where keys are -----------------------------------------------------------------------

    def stem(self, key: bytes) -> bytes | None:
        """What the rows of a key begin with; None: a long key whose directories are not there."""
        if len(key) <= KV_KEY_CHUNK_BYTES:
            return self.prefix + key.replace(b"\0", b"\0\xff") + STEM_END
        prefix = self.prefix
        chunks = directories(key)
        for chunk in chunks:
            found = self._tables.get(MVCC, prefix + escape(chunk) + DIRECTORY_END)
            if found is None:
                return None
            prefix = node_prefix(self.id, node_of(found))
        return prefix + escape(key[len(chunks) * KV_KEY_CHUNK_BYTES :]) + STEM_END

    def make_stem(self, key: bytes) -> bytes:
        """The same; the directories are made."""
        prefix = self.prefix
        chunks = directories(key)
        for chunk in chunks:
            row = prefix + escape(chunk) + DIRECTORY_END
            found = self._tables.get(MVCC, row)
            if found is None:
                found = node_value(self.next_node)
                self.next_node += 1
                self._tables.changes(MVCC)[row] = found
                self.size_bytes += len(row) + len(found)
            prefix = node_prefix(self.id, node_of(found))
        return prefix + escape(key[len(chunks) * KV_KEY_CHUNK_BYTES :]) + STEM_END

    def prune(self, key: bytes) -> None:
        """Takes out the directories of a long key that have become empty."""
        rows = []
        prefix = self.prefix
        for chunk in directories(key):
            row = prefix + escape(chunk) + DIRECTORY_END
            found = self._tables.get(MVCC, row)
            if found is None:
                break
            prefix = node_prefix(self.id, node_of(found))
            rows.append((row, found, prefix))
        for row, found, under in reversed(rows):
            if next(self._tables.scan(MVCC, under, after_prefix(under)), None) is not None:
                break
            self._tables.changes(MVCC)[row] = None
            self.size_bytes -= len(row) + len(found)

    # -- writing ------------------------------------------------------------------------------

    def check_space(self) -> None:
        """Raises NoSpace: the alarm is armed."""
        if Alarm.NO_SPACE in self.alarms:
            raise make_error(ErrorCode.NO_SPACE)

    def alarm_due(self) -> bool | None:
        """Whether the alarm should be armed or taken back, by the size here; None: neither."""
        armed = Alarm.NO_SPACE in self.alarms
        if not armed and self.size_bytes > self.quota_bytes:
            return True
        return False if armed and self.size_bytes <= self.quota_bytes * KV_QUOTA_CLEARED else None

    def put(self, key: bytes, value: bytes, lease: int, revision: int, sub: int) -> Head:
        """Writes a version."""
        before = self.newest(key)
        if before is not None and before[3]:
            head = (revision, sub, before[2], before[3] + 1, lease)
            if before[4] != lease and self.leases is not None:
                self.leases.move(self.id, key, before[4], lease)
        else:
            head = (revision, sub, revision, 1, lease)
            if lease and self.leases is not None:
                self.leases.move(self.id, key, 0, lease)
        record = RECORD.pack(LIVE, head[2], head[3], lease) + value
        self._write(key, head, record, b"\1" + key)
        return head

    def delete(self, key: bytes, revision: int, sub: int) -> None:
        """Writes that a key, which is there, is not any more."""
        before = self.newest(key)
        if before is not None and before[4] and self.leases is not None:
            self.leases.move(self.id, key, before[4], 0)
        self._write(key, (revision, sub, 0, 0, 0), DEAD_RECORD, b"\0" + key)

    def _write(self, key: bytes, head: Head, record: bytes, done: bytes) -> None:
        if len(key) <= KV_KEY_CHUNK_BYTES:
            stem = self.prefix + key.replace(b"\0", b"\0\xff") + STEM_END
        else:
            stem = self.make_stem(key)
        revision, sub = head[0], head[1]
        row = stem + SUFFIX.pack(U64_MAX - revision, U32_MAX - sub)
        self._mvcc[row] = record
        self._revs[revs_key(self.id, revision, sub)] = done
        self._young[key] = head
        self.size_bytes += len(row) + len(record) + len(done) + 13

    # -- reading ------------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        """A key as it is now."""
        head = self.head(key)
        if head is None:
            return None
        revision, sub, create, version, lease = head
        stem = self.stem(key)
        record = None if stem is None else self._tables.get(MVCC, stem + suffix(revision, sub))
        if record is None:
            raise StorageCorrupt(f"the version {revision} of a key is gone; rebuild the store from peers")
        return KeyValue(key, record[RECORD.size :], create, revision, version, lease)

    def get_at(self, key: bytes, revision: int) -> Version | None:
        """The newest version of a key at or below a revision; None: there is none, or it is a deletion."""
        stem = self.stem(key)
        if stem is None:
            return None
        for row, record in self._tables.scan(MVCC, stem + newest_at(revision), stem + AFTER_VERSIONS):
            return Version(key, *revision_of(row), record) if record[0] == LIVE else None
        return None

    def rows(self, table: str, start: bytes, stop: bytes, size: int) -> tuple[list[Row], bytes | None]:
        """Some rows as they are; see `WriteBehind.rows`."""
        return self._tables.rows(table, start, stop, size)

    def scan(self, key: bytes, end: bytes, revision: int, *, deleted: bool = False) -> Iterator[Version]:
        """The keys of a range as they were at a revision, in order; `deleted`: those deleted by then too.

        Change nothing between its steps.
        """
        if not end:
            version = self.get_at(key, revision)
            return iter(()) if version is None else iter((version,))
        if end == FROM_KEY:
            return self._scan(self.prefix, b"", key, None, revision, deleted)
        if end <= key:
            return iter(())
        return self._scan(self.prefix, b"", key, end, revision, deleted)

    def _scan(
        self, prefix: bytes, base: bytes, low: bytes, high: bytes | None, revision: int, deleted: bool
    ) -> Iterator[Version]:
        """Of the keys that begin with `base` and lie under `prefix`, those whose rest is in `[low, high)`."""
        chunk_bytes = KV_KEY_CHUNK_BYTES
        low_chunk, high_chunk = low[:chunk_bytes], b"" if high is None else high[:chunk_bytes]
        low_inside, high_inside = len(low) > chunk_bytes, high is not None and len(high) > chunk_bytes
        start: bytes | None = prefix + escape(low_chunk) + (DIRECTORY_END if low_inside else b"")
        if high is None:
            stop = after_prefix(prefix)
        else:
            stop = prefix + escape(high_chunk) + (DIRECTORY_END + b"\0" if high_inside else b"")
        newest = newest_at(revision)
        begins = len(prefix)
        unpack = SUFFIX.unpack_from
        stem, found, size = b"", False, _ROWS_FIRST
        while start is not None:
            rows, start = self._tables.rows(MVCC, start, stop, size)
            stems = 1
            for row, record in rows:
                tag = record[0]
                if tag == DIRECTORY:
                    chunk = unescape(row[begins:-2])
                    yield from self._scan(
                        node_prefix(self.id, node_of(record)),
                        base + chunk,
                        low[chunk_bytes:] if low_inside and chunk == low_chunk else b"",
                        high[chunk_bytes:] if high is not None and high_inside and chunk == high_chunk else None,
                        revision,
                        deleted,
                    )
                    stem = b""
                    continue
                if row[:-SUFFIX_BYTES] != stem:
                    stem, found = row[:-SUFFIX_BYTES], False
                    stems += 1
                if found or row[-SUFFIX_BYTES:] < newest:
                    continue
                found = True
                if tag == LIVE or deleted:
                    at_revision, sub = unpack(row, len(row) - SUFFIX_BYTES)
                    key = base + stem[begins:-2].replace(b"\0\xff", b"\0")
                    yield Version(key, U64_MAX - at_revision, U32_MAX - sub, record)
            if start is not None and stem:  # Other versions of the last key are passed.
                start = max(start, stem + (AFTER_VERSIONS if found else newest))
            size = max(size // 4, _ROWS_FIRST) if len(rows) > 4 * stems else min(size * 4, _ROWS_MAX)
