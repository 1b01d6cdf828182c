"""`scrub`: takes out what a compaction has given up, in bounded steps.

A compaction is a number, `compact_revision`, applied and kept with the rest of the state; from then on older reads are
refused. What lies below is then looked for along `revs`, from where the last step ended: the work is that of what was
written, not of what is there. How far it is goes to the disk together with what was taken out, so that a crash repeats
nothing and leaves nothing behind.

What stays: of each key the newest version at or below the compacted revision, unless it is a deletion below it; and all
that was done at the compacted revision itself, deletions included: a watcher may still begin there.
"""

from __future__ import annotations

from itertools import islice

from aspen.kv.codec import make_error
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import AFTER_VERSIONS, DEAD, MVCC, REVS, U32_MAX, newest_at, revision_of, revs_key, revs_of
from aspen.kv.types import ErrorCode
from aspen.kv.write_behind import WriteBehind
from aspen.limits import KV_COMPACT_STEP_ROWS, KV_KEY_CHUNK_BYTES


def is_scrubbed(keyspace: Keyspace) -> bool:
    """Whether nothing is left to take out."""
    return keyspace.scrub_at >= (keyspace.compact_revision, U32_MAX) or not keyspace.compact_revision


def compact(keyspace: Keyspace, revision: int) -> None:
    """Gives up what was superseded before a revision. Raises KvError: it cannot be."""
    if revision <= keyspace.compact_revision:
        raise make_error(ErrorCode.COMPACTED, keyspace.compact_revision)
    if revision > keyspace.revision:
        raise make_error(ErrorCode.FUTURE_REVISION, keyspace.revision)
    # What was done at the revision compacted before has stayed: it is looked at again.
    keyspace.scrub_at = (min(keyspace.scrub_at[0], keyspace.compact_revision), 0)
    keyspace.compact_revision = revision


def scrub(keyspace: Keyspace, tables: WriteBehind, rows_max: int = KV_COMPACT_STEP_ROWS) -> bool:
    """One step; whether there is more to do."""
    if is_scrubbed(keyspace):
        return False
    compacted = keyspace.compact_revision
    start = revs_key(keyspace.id, *keyspace.scrub_at)
    stop = revs_key(keyspace.id, compacted + 1, 0)
    rows = list(islice(tables.scan(REVS, start, stop), rows_max))
    budget = rows_max
    gone = tables.changes(REVS)
    for row, done in rows:
        at, sub = revs_of(row)
        budget -= _take_out_versions(keyspace, tables, done[1:], budget)
        if budget <= 0:
            keyspace.scrub_at = (at, sub)
            return True
        if at < compacted:
            gone[row] = None
            keyspace.size_bytes -= len(row) + len(done)
    if len(rows) == rows_max:
        at, sub = revs_of(rows[-1][0])
        keyspace.scrub_at = (at, sub + 1)
        return True
    keyspace.scrub_at = (compacted, U32_MAX)
    return False


def _take_out_versions(keyspace: Keyspace, tables: WriteBehind, key: bytes, most: int) -> int:
    """Takes out the versions of a key that are given up, at most so many; how many it were."""
    stem = keyspace.stem(key)
    if stem is None:
        return 0
    compacted = keyspace.compact_revision
    versions = list(islice(tables.scan(MVCC, stem + newest_at(compacted), stem + AFTER_VERSIONS), most + 1))
    if not versions:
        return 0
    newest, record = versions[0]
    given_up = [version for version in versions[1:] if revision_of(version[0])[0] < compacted]
    whole = len(versions) <= most
    if whole and record[0] == DEAD and revision_of(newest)[0] < compacted:
        given_up = versions
    changes = tables.changes(MVCC)
    for row, old in given_up:
        changes[row] = None
        keyspace.size_bytes -= len(row) + len(old)
    if given_up is versions and len(key) > KV_KEY_CHUNK_BYTES:
        if next(tables.scan(MVCC, stem, stem + AFTER_VERSIONS), None) is None:
            keyspace.prune(key)
    return len(given_up)
