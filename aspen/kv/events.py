"""What happened, revision by revision, as watches will tell it."""

from __future__ import annotations

from aspen.errors import StorageCorrupt
from aspen.kv.codec import make_error
from aspen.kv.keyspace import Keyspace, Version
from aspen.kv.layout import LIVE, MVCC, REVS, revs_key, revs_of, suffix
from aspen.kv.types import ErrorCode, Event, KeyValue
from aspen.kv.write_behind import WriteBehind
from aspen.limits import KV_EVENTS_MAX


def read_events(
    keyspace: Keyspace, tables: WriteBehind, start: int, *, prev_kv: bool = False, most: int = KV_EVENTS_MAX
) -> list[tuple[int, list[Event]]]:
    """Whole revisions from `start` on, in order, about `most` events at most; within one as they were written.

    Raises Compacted: `start` is below the compacted revision.
    """
    if start < keyspace.compact_revision:
        raise make_error(ErrorCode.COMPACTED, keyspace.compact_revision)
    found: list[tuple[int, list[Event]]] = []
    rows = tables.scan(REVS, revs_key(keyspace.id, max(start, 0), 0), revs_key(keyspace.id + 1, 0, 0))
    for count, (row, done) in enumerate(rows):
        revision, sub = revs_of(row)
        if not found or found[-1][0] != revision:
            if count >= most:
                break
            found.append((revision, []))
        found[-1][1].append(_event(keyspace, tables, revision, sub, done, prev_kv=prev_kv))
    return found


def _event(keyspace: Keyspace, tables: WriteBehind, revision: int, sub: int, done: bytes, *, prev_kv: bool) -> Event:
    key = done[1:]
    previous = None
    if prev_kv:
        before = keyspace.get_at(key, revision - 1)
        previous = None if before is None else before.key_value()
    if done[0] != LIVE:
        return Event(True, KeyValue(key, b"", 0, revision, 0), previous)
    stem = keyspace.stem(key)
    record = None if stem is None else tables.get(MVCC, stem + suffix(revision, sub))
    if record is None:
        raise StorageCorrupt(f"what was put at revision {revision} is gone; rebuild the store from peers")
    return Event(False, Version(key, revision, sub, record).key_value(), previous)
