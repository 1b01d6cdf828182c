"""Reads of ranges, with every option, as etcd 3.4 orders its steps.

What the limit leaves is decided before sorting only where etcd does so: with a target other than the key, and no order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

from aspen.kv.codec import make_error
from aspen.kv.keyspace import Keyspace, Version
from aspen.kv.types import ErrorCode, KeyValue, RangeRequest, RangeResult, SortOrder, SortTarget
from aspen.limits import KV_KEY_BYTES_MAX

_SORTED_BY: Final[dict[SortTarget, Callable[[KeyValue], Any]]] = {
    SortTarget.KEY: lambda kv: kv.key,
    SortTarget.VERSION: lambda kv: kv.version,
    SortTarget.CREATE: lambda kv: kv.create_revision,
    SortTarget.MOD: lambda kv: kv.mod_revision,
    SortTarget.VALUE: lambda kv: kv.value,
}


def check_key(key: bytes) -> None:
    """Raises BadRequest: it is empty, or too long."""
    if not key:
        raise make_error(ErrorCode.EMPTY_KEY)
    if len(key) > KV_KEY_BYTES_MAX:
        raise make_error(ErrorCode.KEY_TOO_LONG, KV_KEY_BYTES_MAX)


def check_range(keyspace: Keyspace, request: RangeRequest) -> None:
    """Raises KvError: the range cannot be read."""
    check_key(request.key)
    check_revision(keyspace, request.revision, keyspace.revision)


def check_revision(keyspace: Keyspace, revision: int, now: int) -> None:
    """Raises FutureRevision or Compacted. 0 or less is now."""
    if revision > now:
        raise make_error(ErrorCode.FUTURE_REVISION, now)
    if 0 < revision < keyspace.compact_revision:
        raise make_error(ErrorCode.COMPACTED, keyspace.compact_revision)


def read_range(keyspace: Keyspace, request: RangeRequest, now: int) -> RangeResult:
    """The result of a range that was checked, when the revision is `now`."""
    reading = read_in_steps(keyspace, request, now, 0)
    while True:
        try:
            next(reading)
        except StopIteration as done:
            result: RangeResult = done.value
            return result


def read_in_steps(
    keyspace: Keyspace, request: RangeRequest, now: int, step_keys: int, bytes_max: int = 0
) -> Generator[None, None, RangeResult]:
    """The same in steps of so many keys (0: at once). All of it shows one moment; between steps, apply and freeze.

    Raises Compacted: that moment was compacted meanwhile. Raises BadRequest: the result has more than `bytes_max`.
    """
    key, end, revision, limit, order, target, keys_only, count_only = request[:8]
    if not end and revision <= 0 and not count_only:
        kv = keyspace.get(key)
        kvs = [] if kv is None else [kv]
        return _result(request, kvs, len(kvs), now)
    at = revision if revision > 0 else now
    filtered = any(request[8:12])
    wanted = limit if limit > 0 and order == SortOrder.NONE and not filtered else 0
    keep_value = not keys_only or target == SortTarget.VALUE
    is_kept = bytes_max > 0 and not filtered and (limit <= 0 or wanted > 0)
    """Whether all that is found stays in the result, so that its size shows early."""
    size = 0
    found: list[KeyValue] = []
    count = seen = 0
    position: bytes | None = key
    while position is not None:
        start, position = position, None
        for version in _from(keyspace, start, key, end, at):
            count += 1
            if count_only:
                pass
            elif not wanted or len(found) <= wanted:
                kv = version.key_value(keys_only=not keep_value)
                found.append(kv)
                if is_kept and (not wanted or len(found) <= wanted):
                    size += len(kv.key) + (0 if keys_only else len(kv.value))
                    if size > bytes_max:
                        raise make_error(ErrorCode.RESULT_TOO_LARGE, bytes_max)
            elif request.uncounted:
                count -= 1
                break
            seen += 1
            if seen == step_keys:
                seen = 0
                position = version.key + b"\0"
                break
        if position is not None:
            yield
            check_revision(keyspace, at, keyspace.revision)
    return _result(request, found, count, now)


def _from(keyspace: Keyspace, start: bytes, key: bytes, end: bytes, at: int) -> Iterable[Version]:
    if not end and start != key:
        return ()
    return keyspace.scan(start, end, at)


def _result(request: RangeRequest, kvs: list[KeyValue], count: int, now: int) -> RangeResult:
    if request.count_only:
        return RangeResult(now, (), count, False)
    _, _, _, limit, order, target, keys_only, _, min_mod, max_mod, min_create, max_create, uncounted = request
    if max_mod:
        kvs = [kv for kv in kvs if kv.mod_revision <= max_mod]
    if min_mod:
        kvs = [kv for kv in kvs if kv.mod_revision >= min_mod]
    if max_create:
        kvs = [kv for kv in kvs if kv.create_revision <= max_create]
    if min_create:
        kvs = [kv for kv in kvs if kv.create_revision >= min_create]
    if order != SortOrder.NONE or target != SortTarget.KEY:
        kvs.sort(key=_SORTED_BY[target], reverse=order == SortOrder.DESCEND)
    more = 0 < limit < len(kvs)
    if more:
        kvs = kvs[:limit]
    if keys_only:
        kvs = [kv if not kv.value else kv._replace(value=b"") for kv in kvs]
    return RangeResult(now, tuple(kvs), len(kvs) if uncounted else count, more)
