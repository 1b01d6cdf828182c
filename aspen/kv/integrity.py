"""Whether contents are what they should be: a hash that members compare, and a look at every row.

hash_steps      of what a keyspace holds at a revision, whatever was compacted below: equal on all members
verify          of a store that no machine uses: rows, versions, directories and `revs` against each other
"""

from __future__ import annotations

from collections.abc import Generator
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from aspen.errors import StorageCorrupt
from aspen.kv.compaction import is_scrubbed
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import (
    DEAD,
    DIRECTORY,
    LIVE,
    MVCC,
    RECORD,
    REVS,
    SESSIONS,
    SUFFIX_BYTES,
    TABLES,
    node_of,
    revision_of,
    revs_of,
    suffix,
)
from aspen.kv.machine import Machine
from aspen.kv.ranges import check_revision
from aspen.kv.sessions import unpack_session
from aspen.kv.write_behind import WriteBehind
from aspen.limits import KV_PROBLEMS_MAX, KV_SCAN_STEP_ROWS
from aspen.traits import Storage

HASH_BYTES = 16
_KEY = Struct("<IIQQQq")
_LEASE = Struct("<qBQQQI")
_LENGTH = Struct("<I")


def hash_steps(
    machine: Machine, keyspace: int, revision: int = 0, step_keys: int = KV_SCAN_STEP_ROWS
) -> Generator[None, None, bytes]:
    """The hash of a keyspace's keys as they are at a revision (0: the current one), in steps between which the machine
    may go on: drive it to its end, whose value is the hash.

    Raises:
        FutureRevision, Compacted: that revision is not there, or was compacted meanwhile.
    """
    space = machine.keyspace(keyspace)
    at = revision or space.revision
    digest = blake2b(digest_size=HASH_BYTES)
    position: bytes | None = b"\0"
    while position is not None:
        check_revision(space, at, space.revision)
        start, position = position, None
        for count, version in enumerate(space.scan(start, b"\0", at), 1):
            key = version.key
            kv = version.key_value()
            digest.update(_KEY.pack(len(key), len(kv.value), kv.create_revision, kv.mod_revision, kv.version, kv.lease))
            digest.update(key)
            digest.update(kv.value)
            if count == step_keys:
                position = key + b"\0"
                break
        if position is not None:
            yield
    return digest.digest()


def hash_at(machine: Machine, keyspace: int, revision: int = 0) -> bytes:
    """The same at once."""
    steps = hash_steps(machine, keyspace, revision, 0)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: bytes = done.value
            return result


def hash_leases(machine: Machine) -> bytes:
    """The hash of the leases and of what is attached to them, at the applied state: equal on all members there."""
    digest = blake2b(digest_size=HASH_BYTES)
    for id, lease in sorted(machine.leases.all().items()):
        keys = machine.leases.keys(id)
        digest.update(_LEASE.pack(id, lease.keyspace, lease.ttl_s, lease.remaining_s, lease.granted, len(keys)))
        for key in keys:
            digest.update(_LENGTH.pack(len(key)) + key)
    return digest.digest()


class Report(NamedTuple):
    """What `verify` found."""

    applied: int
    """Index of the last entry that the store has applied."""
    rows: int
    keys: dict[int, int]
    """Keys by keyspace, deleted ones that are still remembered included."""
    problems: list[str]
    """At most KV_PROBLEMS_MAX; empty: the store is sound."""


def verify(storage: Storage) -> Report:
    """Looks at every row of a store that no machine uses. Closes nothing, changes nothing."""
    verifying = _Verifying()
    tables = WriteBehind(storage, TABLES)
    try:
        machine = Machine(storage)
    except Exception as error:
        verifying.report(f"it cannot be opened: {error}")
        tables.release()
        return Report(0, 0, {}, verifying.problems)
    for table in TABLES:
        try:
            for _, value in tables.scan_stored(table, b"", None):
                verifying.rows += 1
                if table == SESSIONS:
                    unpack_session(value)
        except Exception as error:
            verifying.report(f"table {table}: {error}")
    keys = {}
    if not verifying.problems:
        for status in machine.status().keyspaces:
            space = machine.keyspace(status)
            keys[status] = verifying.versions(space, tables)
            verifying.done(space, tables)
            verifying.attached(space, machine)
    machine.release()
    tables.release()
    return Report(machine.applied[0], verifying.rows, keys, verifying.problems)


class _Verifying:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.rows = 0
        self.versions_since = 0
        """Versions from the compacted revision on."""

    def report(self, problem: str) -> None:
        if len(self.problems) < KV_PROBLEMS_MAX:
            self.problems.append(problem)

    def versions(self, space: Keyspace, tables: WriteBehind) -> int:
        """Holds each version of each key against the one before it; returns how many keys there are."""
        self.versions_since = 0
        nodes: set[int] = set()
        under: set[int] = set()
        keys = 0
        stem, newer = b"", (0, 0, b"")
        own, inner = space.prefix[0], space.prefix[0] | 0x80
        for prefix in (own, inner):
            for row, record in tables.scan_stored(MVCC, bytes([prefix]), bytes([prefix + 1])):
                if prefix == inner:
                    under.add(int.from_bytes(row[1:9], "big"))
                if record[0] == DIRECTORY:
                    nodes.add(node_of(record))
                    continue
                revision, sub = revision_of(row)
                if row[:-SUFFIX_BYTES] != stem:
                    self._oldest(space, newer)
                    stem = row[:-SUFFIX_BYTES]
                    keys += 1
                elif newer[0] > space.compact_revision:
                    self._follows(newer, (revision, sub, record))
                elif is_scrubbed(space) and revision < space.compact_revision:
                    self.report(f"keyspace {space.id}: a version of revision {revision} was left behind")
                if record[0] == DEAD and revision < space.compact_revision and is_scrubbed(space):
                    self.report(f"keyspace {space.id}: a deletion of revision {revision} was left behind")
                newer = (revision, sub, record)
                self.versions_since += revision >= space.compact_revision
                if revision > space.revision:
                    self.report(f"keyspace {space.id}: a version of revision {revision}, beyond {space.revision}")
        self._oldest(space, newer)
        if nodes != under:
            self.report(
                f"keyspace {space.id}: directories and what lies under them differ: {sorted(nodes ^ under)[:5]}"
            )
        if nodes and max(nodes) >= space.next_node:
            self.report(f"keyspace {space.id}: directory {max(nodes)} was never given out")
        return keys

    def _follows(self, newer: tuple[int, int, bytes], older: tuple[int, int, bytes]) -> None:
        if newer[2][0] == DEAD:
            sound = older[2][0] == LIVE
        else:
            _, create, version, _ = RECORD.unpack_from(newer[2])
            if older[2][0] == DEAD:
                sound = version == 1 and create == newer[0]
            else:
                _, older_create, older_version, _ = RECORD.unpack_from(older[2])
                sound = version == older_version + 1 and create == older_create
        if not sound or newer[:2] <= older[:2]:
            self.report(f"the version of revision {newer[0]} does not follow from that of {older[0]}")

    def _oldest(self, space: Keyspace, oldest: tuple[int, int, bytes]) -> None:
        revision, _, record = oldest
        if not record:
            return
        first = record[0] == LIVE and RECORD.unpack_from(record)[2] == 1
        if not first and revision > space.compact_revision:
            self.report(f"keyspace {space.id}: what was before revision {revision} is gone and was not compacted")

    def attached(self, space: Keyspace, machine: Machine) -> None:
        """Holds the keys of leases against the leases of keys."""
        named = {
            (version.key, lease)
            for version in space.scan(b"\0", b"\0", space.revision)
            if (lease := version.key_value(keys_only=True).lease)
        }
        leases = machine.leases.all()
        kept = {(key, id) for id, lease in leases.items() if lease.keyspace == space.id for key in lease.keys or ()}
        for key, lease in sorted(named ^ kept):
            where = (
                "is of a lease that does not have it" if (key, lease) in named else "is not of the lease that has it"
            )
            self.report(f"keyspace {space.id}: the key {key[:32].hex()} {where}: {lease}")

    def done(self, space: Keyspace, tables: WriteBehind) -> None:
        """Holds `revs` against the versions."""
        count = 0
        for row, done in tables.scan_stored(REVS, bytes([space.id]), bytes([space.id + 1])):
            revision, sub = revs_of(row)
            if revision < space.compact_revision:
                if is_scrubbed(space):
                    self.report(f"keyspace {space.id}: what was done at revision {revision} was left behind")
                continue
            count += 1
            stem = space.stem(done[1:])
            record = None if stem is None else tables.get(MVCC, stem + suffix(revision, sub))
            if record is None or record[0] != done[0]:
                self.report(
                    f"keyspace {space.id}: what was done at revision {revision}.{sub} is not among the versions"
                )
        if count != self.versions_since:
            self.report(f"keyspace {space.id}: {self.versions_since} versions, {count} of them accounted for")


def check_sound(report: Report) -> None:
    """Raises StorageCorrupt: a verification found something."""
    if report.problems:
        raise StorageCorrupt(
            f"{len(report.problems)} problems, the first: {report.problems[0]}; rebuild it from a snapshot or peers"
        )
