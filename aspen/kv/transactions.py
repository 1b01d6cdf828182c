"""Writes of one keyspace: every check comes before any effect, and an operation that has begun cannot fail.

A transaction, nested ones included, is looked at three times, each against the state before it: its shape
(`check_shape`), which way its comparisons go (`choose`), and what the operations on that way need (`check_operations`).
Then it is executed, and operations see what earlier ones did.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from aspen.kv.codec import make_error
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import REVS, revs_key
from aspen.kv.mutations import mutate_all
from aspen.kv.ranges import check_key, check_range, read_range
from aspen.kv.stamps import STAMP_BYTES, stamp_of
from aspen.kv.types import (
    FROM_KEY,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    ErrorCode,
    KeyValue,
    Operation,
    PutRequest,
    PutResult,
    RangeRequest,
    RangeResult,
    StampedPutRequest,
    TxnRequest,
    TxnResult,
    UpdateRequest,
)
from aspen.kv.write_behind import WriteBehind
from aspen.limits import KV_CONFLICT_WINDOW_REVISIONS, KV_TXN_OPERATIONS_MAX

_LOOKED_AT_MAX: Final = 1_000
"""Revisions since then up to which `unmodified_since` looks at what was done, not at what is there."""

Way = tuple[bool, tuple["Way | None", ...]]
"""Whether the comparisons hold, and for each operation on that way, if it is a transaction, its own."""


# -- the shape --------------------------------------------------------------------------------


def check_put(request: PutRequest) -> None:
    """Raises BadRequest: a put that has no meaning."""
    check_key(request.key)
    if request.ignore_value and request.value:
        raise make_error(ErrorCode.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise make_error(ErrorCode.LEASE_PROVIDED)


def check_shape(request: TxnRequest) -> None:
    """Raises BadRequest: too many operations, an impossible one, or a key written twice."""
    _check_operations(request, KV_TXN_OPERATIONS_MAX)
    _writes(request.success)
    _writes(request.failure)


def _check_operations(request: TxnRequest, most: int) -> None:
    widest = max(map(len, request))
    if widest > most:
        raise make_error(ErrorCode.TOO_MANY_OPERATIONS, KV_TXN_OPERATIONS_MAX)
    for compare in request.compares:
        check_key(compare.key)
    for operation in (*request.success, *request.failure):
        if isinstance(operation, TxnRequest):
            _check_operations(operation, most - widest)
        elif isinstance(operation, StampedPutRequest):
            _check_stamped(operation)
        elif isinstance(operation, PutRequest):
            check_put(operation)
        else:
            check_key(operation.key)


def _check_stamped(request: StampedPutRequest) -> None:
    """Raises BadRequest: a stamp has no place, or is not whole in it."""
    check_key(request.key)
    places = ((request.key, request.key_at), (request.value, request.value_at))
    if request.key_at < 0 > request.value_at or any(at > len(raw) - STAMP_BYTES for raw, at in places if at >= 0):
        raise make_error(ErrorCode.BAD_COMMAND)


def stamped(request: StampedPutRequest, revision: int) -> tuple[bytes, bytes]:
    """The key and the value with the stamp of a transaction in them."""
    stamp = stamp_of(revision)
    return _with(request.key, request.key_at, stamp), _with(request.value, request.value_at, stamp)


def _with(raw: bytes, at: int, stamp: bytes) -> bytes:
    return raw if at < 0 else raw[:at] + stamp + raw[at + STAMP_BYTES :]


_Ranges = list[tuple[bytes, bytes]]


def _writes(operations: tuple[Operation, ...]) -> tuple[set[bytes], _Ranges]:
    """The keys put and the ranges deleted. Raises BadRequest: one is put twice, or put where something is deleted.

    Deletes count whatever their place among the operations, but those of a nested transaction only for what comes
    after it. Both ways of a nested one may put the same key.
    """
    deleted: _Ranges = [(op.key, op.end) for op in operations if isinstance(op, DeleteRequest)]
    put: set[bytes] = set()
    for op in operations:
        if isinstance(op, TxnRequest):
            put_then, deleted_then = _writes(op.success)
            put_else, deleted_else = _writes(op.failure)
            inner = put_then | put_else
            if inner & put or any(_hits(deleted, key) for key in inner):
                raise make_error(ErrorCode.DUPLICATE_KEY)
            put |= inner
            deleted += deleted_then
            deleted += deleted_else
    for op in operations:
        if isinstance(op, PutRequest | UpdateRequest | StampedPutRequest):
            if op.key in put or _hits(deleted, op.key):
                raise make_error(ErrorCode.DUPLICATE_KEY)
            put.add(op.key)
    return put, deleted


def _hits(ranges: _Ranges, key: bytes) -> bool:
    return any(key >= begin and (end == FROM_KEY or key < end) if end else key == begin for begin, end in ranges)


def puts(request: TxnRequest) -> bool:
    """Whether a transaction may put anything."""
    return any(
        isinstance(op, PutRequest | UpdateRequest | StampedPutRequest) or (isinstance(op, TxnRequest) and puts(op))
        for op in (*request.success, *request.failure)
    )


# -- comparisons ------------------------------------------------------------------------------


class Choosing:
    """Evaluates comparisons against a keyspace as it is."""

    def __init__(self, keyspace: Keyspace, tables: WriteBehind) -> None:
        self._keyspace = keyspace
        self._tables = tables

    def choose(self, request: TxnRequest) -> Way:
        """The way that a transaction takes, and those on it. Raises TransactionTooOld or FutureRevision."""
        for compare in request.compares:
            if compare.target is CompareTarget.UNMODIFIED:
                self._check_window(compare)
        holds = all(map(self._holds, request.compares))
        taken = request.success if holds else request.failure
        return holds, tuple(self.choose(op) if isinstance(op, TxnRequest) else None for op in taken)

    def _check_window(self, compare: Compare) -> None:
        keyspace = self._keyspace
        oldest = max(keyspace.compact_revision, keyspace.revision - KV_CONFLICT_WINDOW_REVISIONS)
        if int(compare.operand) < oldest:
            raise make_error(ErrorCode.TRANSACTION_TOO_OLD, oldest)
        if int(compare.operand) > keyspace.revision:
            # Nobody can have read there: as if it held, a guard from another history would pass.
            raise make_error(ErrorCode.FUTURE_REVISION, keyspace.revision)

    def _holds(self, compare: Compare) -> bool:
        if compare.target is CompareTarget.UNMODIFIED:
            return self.unmodified_since(compare.key, compare.end, int(compare.operand))
        empty = True
        for kv in self._keys(compare):
            if not _relates(compare, kv):
                return False
            empty = False
        if not empty:
            return True
        return compare.target is not CompareTarget.VALUE and _relates(compare, _ABSENT)

    def _keys(self, compare: Compare) -> Iterator[KeyValue]:
        keyspace = self._keyspace
        if not compare.end:
            kv = keyspace.get(compare.key)
            if kv is not None:
                yield kv
            return
        keys_only = compare.target is not CompareTarget.VALUE
        for version in keyspace.scan(compare.key, compare.end, keyspace.revision):
            yield version.key_value(keys_only=keys_only)

    def unmodified_since(self, begin: bytes, end: bytes, revision: int) -> bool:
        """Whether nothing was put or deleted in a range after a revision, which is within the window."""
        keyspace = self._keyspace
        if revision >= keyspace.revision:
            return True
        if not end:
            head = keyspace.newest(begin)
            return head is None or head[0] <= revision
        if keyspace.revision - revision > _LOOKED_AT_MAX:
            # What was deleted since is still there, as deleted: a compaction leaves it until its revision is compacted.
            versions = keyspace.scan(begin, end, keyspace.revision, deleted=True)
            return all(version.revision <= revision for version in versions)
        rows = self._tables.scan(REVS, revs_key(keyspace.id, revision + 1, 0), revs_key(keyspace.id + 1, 0, 0))
        return not any(_hits([(begin, end)], done[1:]) for _, done in rows)


_ABSENT: Final = KeyValue(b"", b"", 0, 0, 0, 0)


def _relates(compare: Compare, kv: KeyValue) -> bool:
    stored = _STORED[compare.target](kv)
    result, operand = compare.result, compare.operand
    if result is CompareResult.EQUAL:
        return bool(stored == operand)
    if result is CompareResult.NOT_EQUAL:
        return bool(stored != operand)
    return bool(stored > operand) if result is CompareResult.GREATER else bool(stored < operand)


_STORED: Final = {
    CompareTarget.VERSION: lambda kv: kv.version,
    CompareTarget.CREATE: lambda kv: kv.create_revision,
    CompareTarget.MOD: lambda kv: kv.mod_revision,
    CompareTarget.VALUE: lambda kv: kv.value,
    CompareTarget.LEASE: lambda kv: kv.lease,
}


# -- what the operations need ------------------------------------------------------------------


def check_put_now(keyspace: Keyspace, request: PutRequest, leases: Container[int]) -> None:
    """Raises LeaseNotFound or KeyNotFound."""
    if request.lease and request.lease not in leases:
        raise make_error(ErrorCode.LEASE_NOT_FOUND, request.lease)
    _check_kept(keyspace, request)


def _check_kept(keyspace: Keyspace, request: PutRequest) -> None:
    if (request.ignore_value or request.ignore_lease) and keyspace.head(request.key) is None:
        raise make_error(ErrorCode.KEY_NOT_FOUND)


def check_operations(keyspace: Keyspace, request: TxnRequest, way: Way, leases: Container[int]) -> None:
    """Raises KvError: an operation on the way that was chosen cannot be executed. Puts are looked at first."""
    _check_puts(keyspace, request, way, leases)
    _check_ranges(keyspace, request, way)


def _check_puts(keyspace: Keyspace, request: TxnRequest, way: Way, leases: Container[int]) -> None:
    holds, inner = way
    for op, its_way in zip(request.success if holds else request.failure, inner, strict=True):
        if isinstance(op, PutRequest):
            # Here etcd looks at the key first, and at the lease first where a put stands alone.
            _check_kept(keyspace, op)
            check_put_now(keyspace, op, leases)
        elif isinstance(op, TxnRequest) and its_way is not None:
            _check_puts(keyspace, op, its_way, leases)


def _check_ranges(keyspace: Keyspace, request: TxnRequest, way: Way) -> None:
    holds, inner = way
    for op, its_way in zip(request.success if holds else request.failure, inner, strict=True):
        if isinstance(op, RangeRequest):
            check_range(keyspace, op)
        elif isinstance(op, TxnRequest) and its_way is not None:
            _check_ranges(keyspace, op, its_way)


# -- execution --------------------------------------------------------------------------------


class Writing:
    """Executes checked operations of one command, at one revision."""

    __slots__ = ("_keyspace", "_revision", "_sub")

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._revision = keyspace.revision + 1
        self._sub = 0

    def finish(self) -> int:
        """Ends the command: the keyspace's revision, which is a new one if anything was written."""
        if self._sub:
            self._keyspace.revision = self._revision
        return self._keyspace.revision

    @property
    def now(self) -> int:
        """The revision at which a read sees what was done so far."""
        return self._revision if self._sub else self._revision - 1

    def put(self, request: PutRequest) -> PutResult:
        """Sets a key."""
        key, value, lease, prev_kv, ignore_value, ignore_lease = request
        keyspace = self._keyspace
        previous = keyspace.get(key) if prev_kv or ignore_value or ignore_lease else None
        if previous is not None:
            value = previous.value if ignore_value else value
            lease = previous.lease if ignore_lease else lease
        keyspace.put(key, value, lease, self._revision, self._sub)
        self._sub += 1
        return PutResult(self._revision, previous if prev_kv else None)

    def update(self, request: UpdateRequest) -> PutResult | DeleteResult:
        """Changes a value."""
        key, steps = request
        there = self._keyspace.get(key)
        value = mutate_all(steps, None if there is None else there.value)
        if value is not None:
            return self.put(PutRequest(key, value, 0 if there is None else there.lease))
        return self.delete(DeleteRequest(key))

    def put_stamped(self, request: StampedPutRequest) -> PutResult:
        """Sets a key with a stamp."""
        return self.put(PutRequest(*stamped(request, self._revision)))

    def delete(self, request: DeleteRequest) -> DeleteResult:
        """Deletes a range."""
        key, end, prev_kv = request
        keyspace = self._keyspace
        previous: list[KeyValue] = []
        if not end:
            there = [key] if keyspace.head(key) is not None else []
            if prev_kv and there:
                kv = keyspace.get(key)
                previous = [] if kv is None else [kv]
        else:
            there = []
            for version in keyspace.scan(key, end, self.now):
                there.append(version.key)
                if prev_kv:
                    previous.append(version.key_value())
        for gone in there:
            self.delete_key(gone)
        return DeleteResult(self.now, len(there), tuple(previous))

    def delete_key(self, key: bytes) -> None:
        """Deletes a key that is there."""
        self._keyspace.delete(key, self._revision, self._sub)
        self._sub += 1

    def transact(self, request: TxnRequest, way: Way) -> TxnResult:
        """Executes the way that was chosen."""
        holds, inner = way
        responses: list[RangeResult | PutResult | DeleteResult | TxnResult] = []
        for op, its_way in zip(request.success if holds else request.failure, inner, strict=True):
            if isinstance(op, PutRequest):
                responses.append(self.put(op))
            elif isinstance(op, DeleteRequest):
                responses.append(self.delete(op))
            elif isinstance(op, UpdateRequest):
                responses.append(self.update(op))
            elif isinstance(op, StampedPutRequest):
                responses.append(self.put_stamped(op))
            elif isinstance(op, RangeRequest):
                responses.append(read_range(self._keyspace, op, self.now))
            elif its_way is not None:
                responses.append(self.transact(op, its_way))
        return TxnResult(self.now, holds, tuple(responses))
