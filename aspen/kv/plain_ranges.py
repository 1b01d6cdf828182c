"""Ranges in the order of their keys, without filters, from the rows to the bytes of a result: what most reads are.

`aspen.kv.ranges` has all the options; what is here gives the same bytes as that and the codec, without a tuple a key.
"""

from __future__ import annotations

from typing import Final

from aspen.kv.codec import RANGED_KV, encode_result, ranged
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import (
    AFTER_VERSIONS,
    DIRECTORY,
    LIVE,
    MVCC,
    RECORD,
    SUFFIX_BYTES,
    U64_MAX,
    after_prefix,
    escape,
    newest_at,
)
from aspen.kv.ranges import check_range, read_range
from aspen.kv.types import FROM_KEY, RangeRequest, SortOrder, SortTarget
from aspen.limits import KV_KEY_CHUNK_BYTES

_ROWS_FIRST: Final = 16
_ROWS_MIN: Final = 4
_ROWS_MAX: Final = 128
"""Rows that are read at once: more as a range goes on, few while most of them are old versions."""


def range_bytes(keyspace: Keyspace, request: RangeRequest) -> bytes:
    """The result of a range as it is now. Raises as `check_range`."""
    check_range(keyspace, request)
    now = keyspace.revision
    plain = read_plain(keyspace, request, now)
    return encode_result(read_range(keyspace, request, now)) if plain is None else plain


def read_plain(keyspace: Keyspace, request: RangeRequest, now: int) -> bytes | None:
    """The result of a range that was checked, when the revision is `now`; None: it is not plain, or meets long keys."""
    key, end, revision, limit, order, target, keys_only, count_only = request[:8]
    if not end or order == SortOrder.DESCEND or target != SortTarget.KEY or any(request[8:12]):
        return None
    if len(key) > KV_KEY_CHUNK_BYTES or len(end) > KV_KEY_CHUNK_BYTES:
        return None
    if end != FROM_KEY and end <= key:
        return ranged(now, 0, more=False, keys=0, parts=[])
    prefix = keyspace.prefix
    begins = len(prefix)
    start: bytes | None = prefix + escape(key)
    stop = after_prefix(prefix) if end == FROM_KEY else prefix + escape(end)
    newest = newest_at(revision) if 0 < revision < now else b""
    bound = U64_MAX if limit <= 0 else limit
    wanted = 0 if count_only else bound
    uncounted = request.uncounted and not count_only
    parts: list[bytes] = []
    add = parts.append
    pack, unpack, head_bytes = RANGED_KV.pack, RECORD.unpack_from, RECORD.size
    count, done, size = 0, b"", min(_ROWS_FIRST, bound + 1)
    while start is not None:
        before = count
        rows, start = keyspace.rows(MVCC, start, stop, size)
        for row, record in rows:
            tag = record[0]
            if tag == DIRECTORY:
                return None
            stem = row[:-SUFFIX_BYTES]
            if stem == done or row[-SUFFIX_BYTES:] < newest:
                continue
            done = stem
            if tag != LIVE:
                continue
            if count < wanted:
                found = stem[begins:-2]
                if b"\0" in found:
                    found = found.replace(b"\0\xff", b"\0")
                value = b"" if keys_only else record[head_bytes:]
                _, create, version, lease = unpack(record)
                mod = U64_MAX - int.from_bytes(row[-SUFFIX_BYTES:-4])
                add(pack(create, mod, version, lease, len(found), len(value)))
                add(found)
                add(value)
            elif uncounted:
                return ranged(now, count, more=True, keys=count, parts=parts)
            count += 1
        if start is None or not rows:
            continue
        last = rows[-1][0][:-SUFFIX_BYTES]
        if last == done:
            start = done + AFTER_VERSIONS
        elif newest:
            # All its versions so far are later ones.
            start = max(start, last + newest)
        size = min(size * 4, _ROWS_MAX) if (count - before) * 4 > len(rows) else _ROWS_MIN
    kept = 0 if count_only else min(count, bound)
    return ranged(now, count, more=kept < count and not count_only, keys=kept, parts=parts)
