"""Interactive transactions, after FoundationDB: read, think, write; all at one point in time, or not at all.

    async for tr in kv.transactions():                # again, until it commits
        balance = int(await tr.get(b"ana") or b"0")
        tr.set(b"ana", b"%d" % (balance - 5))

    @transactional
    async def pay(tr: Transaction, who: bytes, amount: int) -> int: ...
    left = await pay(kv, b"ana", 5)                   # with a client: a transaction of its own
    left = await pay(tr, b"ana", 5)                   # with a transaction: a part of it

Everything is read as of one revision, that of the first read; what the transaction itself wrote is seen too. What was
read is remembered as ranges of keys, phantoms included. At the commit the store checks, in one step with the writes,
that nothing in them has changed since. If something has, the body runs again on newer data, so it must have no effects
but those on `tr`. Transactions are strictly serializable; one that only reads has nothing to check.

`tr.snapshot` reads without remembering. Changes as `tr.add(key, 1)` are made of the value that is there at the commit,
and conflict with nobody's. Source: FoundationDB's developer guide; what differs stands in the guide to the store.
"""

from __future__ import annotations

import asyncio
import functools
from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from aspen.errors import (
    AspenError,
    Compacted,
    FutureRevision,
    Overloaded,
    TransactionConflict,
    TransactionTooOld,
    UsageError,
)
from aspen.kv.key_watch import KeyWatch
from aspen.kv.mutations import mutate, mutate_all
from aspen.kv.prefixes import span_of_prefix
from aspen.kv.spans import Span, Spans
from aspen.kv.stamps import STAMP_BYTES, stamp_of
from aspen.kv.types import (
    FROM_KEY,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    ErrorCode,
    KeyValue,
    Mutation,
    Operation,
    PutRequest,
    RangeRequest,
    RangeResult,
    SortOrder,
    StampedPutRequest,
    TxnRequest,
    UpdateRequest,
)
from aspen.limits import (
    KV_PAGE_KEYS,
    KV_TRANSACTION_BACKOFF_MAX_S,
    KV_TRANSACTION_BACKOFF_MIN_S,
    KV_TRANSACTION_TRIES_MAX,
    KV_TRANSACTION_WATCHES_MAX,
    KV_TXN_OPERATIONS_MAX,
)

if TYPE_CHECKING:
    from aspen.kv.client import Kv

P = ParamSpec("P")
R = TypeVar("R")


class Snapshot:
    """Reads of a transaction that are not remembered: they see the same revision, and no conflict comes of them."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def get(self, key: bytes) -> bytes | None:
        """As `Transaction.get`."""
        return await self._transaction.get(key, snapshot=True)

    async def range(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """As `Transaction.range`."""
        found = self._transaction.range(key, end, prefix=prefix, limit=limit, reverse=reverse, snapshot=True)
        return await found


class Transaction:
    """See the module. Made by `Kv.transactions` and `transactional`; for one task at a time."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv
        self._revision: int | None = None
        self._read = Spans()
        self._cleared = Spans()
        self._values: dict[bytes, bytes] = {}
        """What was set, also where it was cleared before."""
        self._steps: dict[bytes, list[tuple[Mutation, bytes]]] = {}
        """Changes of values that are not known here. A key is in at most one of these two, and not cleared if here."""
        self._keys: list[bytes] = []
        """Of both, in order."""
        self._stamped: list[StampedPutRequest] = []
        self._committed: int | None = None
        self._watches: list[KeyWatch] = []
        self.snapshot = Snapshot(self)
        """Reads that are not remembered."""
        self.draw = kv.draw
        """Random numbers in [0, 1)."""

    # -- reading --------------------------------------------------------------------------------

    async def read_revision(self) -> int:
        """The revision that this transaction sees: that of its first read, or now."""
        if self._revision is None:
            await self._page(b"\0", b"\1", 1, reverse=False)
        if self._revision is None:
            raise UsageError("this transaction has no revision")  # pragma: no cover - a page sets it
        return self._revision

    async def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        """The value of a key; None when it is not there.

        Raises:
            TransactionTooOld: the revision of this transaction was compacted.
            UsageError: the value has the stamp of this transaction, which is not known yet.
        """
        self._check_open()
        if any(stamped.key == key and stamped.key_at < 0 for stamped in self._stamped):
            raise UsageError(f"the value of {key!r} is known only when this transaction has committed")
        if key in self._values:
            return self._values[key]
        if key in self._cleared:
            return None
        found = await self._page(key, b"", 1, reverse=False)
        if not snapshot:
            self._read.add(key, key + b"\0")
        there = found.kvs[0].value if found.kvs else None
        steps = self._steps.get(key)
        return there if steps is None else mutate_all(tuple(steps), there)

    async def range(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values of `[key, end)`, or of those that begin with `prefix`, in order; `end` FROM_KEY is no end.

        With a limit only what was looked at is remembered. Raises as `get`.
        """
        self._check_open()
        low, high = _span(key, end, prefix)
        items: list[tuple[bytes, bytes]] = []
        while high is None or low < high:
            wanted = min(KV_PAGE_KEYS, limit - len(items)) if limit else KV_PAGE_KEYS
            found = await self._page(low, FROM_KEY if high is None else high, wanted, reverse=reverse)
            seen: Span = (low, high)
            if found.more and found.kvs:
                last = found.kvs[-1].key
                seen = (last, high) if reverse else (low, last + b"\0")
            if not snapshot:
                self._read.add(*seen)
            items += self._overlaid(found.kvs, seen, reverse=reverse)
            if not found.more or not found.kvs or (limit and len(items) >= limit):
                break
            low, high = (low, seen[0]) if reverse else (seen[1] or b"", high)
        return items[:limit] if limit else items

    def remember(self, key: bytes, end: bytes = b"") -> None:
        """Has the commit fail if anything in `[key, end)` changes meanwhile, as if it had been read."""
        self._read.add(*_span(key, end, None) if end else (key, key + b"\0"))

    # -- writing --------------------------------------------------------------------------------

    def set(self, key: bytes, value: bytes) -> None:
        """Sets a key."""
        self._check_open()
        self._forget(key)
        self._values[key] = value
        insort(self._keys, key)

    def clear(self, key: bytes) -> None:
        """Deletes a key, if it is there."""
        self._check_open()
        self._forget(key)
        self._cleared.add(key, key + b"\0")

    def clear_range(self, key: bytes = b"", end: bytes = b"", *, prefix: bytes | None = None) -> None:
        """Deletes what is in a range, as `range` names it."""
        self._check_open()
        low, high = _span(key, end, prefix)
        for mine in self._mine(low, high):
            self._forget(mine)
        self._cleared.add(low, high)

    def add(self, key: bytes, amount: int | bytes) -> None:
        """Adds to a number: little-endian, of 8 bytes, or as many as `amount` has; it wraps around."""
        self.mutate(Mutation.ADD, key, _number(amount))

    def max(self, key: bytes, number: int | bytes) -> None:
        """Sets a number, as `add` has it, if it is larger than what is there."""
        self.mutate(Mutation.MAX, key, _number(number))

    def min(self, key: bytes, number: int | bytes) -> None:
        """Sets a number, as `add` has it, if it is smaller than what is there, or there is none."""
        self.mutate(Mutation.MIN, key, _number(number))

    def append(self, key: bytes, more: bytes) -> None:
        """Puts bytes behind a value, unless the whole would have more than KV_APPEND_BYTES_MAX."""
        self.mutate(Mutation.APPEND, key, more)

    def compare_and_clear(self, key: bytes, value: bytes) -> None:
        """Deletes a key if its value is this one."""
        self.mutate(Mutation.COMPARE_AND_CLEAR, key, value)

    def mutate(self, what: Mutation, key: bytes, operand: bytes) -> None:
        """Changes a value without reading it."""
        self._check_open()
        if key in self._values or key in self._cleared:
            value = mutate(what, self._values.get(key), operand)
            self.clear(key) if value is None else self.set(key, value)
            return
        if key not in self._steps:
            self._steps[key] = []
            insort(self._keys, key)
        self._steps[key].append((what, operand))

    def set_stamped(self, key: bytes, value: bytes, *, key_at: int = -1, value_at: int = -1) -> None:
        """Sets a key with the versionstamp of this transaction in key or value, at an offset in bytes; what is there
        gives it room of ten. See `aspen.kv.tuples.pack_with_versionstamp`.

        Raises:
            UsageError: neither offset is given, or there is no room.
        """
        self._check_open()
        for raw, at in ((key, key_at), (value, value_at)):
            if at >= 0 and at + STAMP_BYTES > len(raw):
                raise UsageError(f"a versionstamp has ten bytes, and at {at} there is no room for them")
        if key_at < 0 and value_at < 0:
            raise UsageError("say where the versionstamp goes: key_at, value_at or both")
        if key_at < 0:
            self._forget(key)
        self._stamped.append(StampedPutRequest(key, value, key_at, value_at))

    # -- what comes after -----------------------------------------------------------------------

    def watch(self, key: bytes) -> KeyWatch:
        """Something to be awaited after the commit: returns when the key has changed since what this transaction has
        seen of it, or has made of it. See `aspen.kv.key_watch`. It adds nothing to what the commit checks.

        Raises:
            Overloaded: there are too many of this transaction.
        """
        self._check_open()
        if len(self._watches) >= KV_TRANSACTION_WATCHES_MAX:
            raise Overloaded(f"a transaction has at most {KV_TRANSACTION_WATCHES_MAX} watches; use kv.watch of a range")
        watch = KeyWatch(self._kv, key)
        self._watches.append(watch)
        return watch

    # -- the end --------------------------------------------------------------------------------

    @property
    def committed(self) -> bool:
        """Whether it has."""
        return self._committed is not None

    @property
    def committed_revision(self) -> int:
        """The revision of its writes; of one that only read, the one it read, or 0."""
        if self._committed is None:
            raise UsageError("this transaction has not committed")
        return self._committed

    @property
    def versionstamp(self) -> bytes:
        """The ten bytes that its stamped keys and values have."""
        return stamp_of(self.committed_revision)

    async def commit(self, *, timeout: float | None = None) -> int:
        """Commits, once; returns `committed_revision`. The loops that make transactions do it themselves.

        Raises:
            TransactionConflict: something that was read has changed. Nothing was written.
            TransactionTooOld: it read too long ago. Nothing was written.
            UsageError: it writes too much.
            Unknown, CallTimeout: as `Kv.put`.
        """
        self._check_open()
        try:
            await self._commit(timeout)
        except AspenError as error:
            for watch in self._watches:
                watch.fail(error)
            raise
        for watch in self._watches:
            # What it has not written itself may have been changed since it was read, also before the commit.
            seen = self._revision if self._revision is not None and not self._writes(watch.key) else self._committed
            watch.arm(seen or 0)
        return self.committed_revision

    async def _commit(self, timeout: float | None) -> None:
        operations = self._operations()
        if not operations:
            self._committed = await self.read_revision() if self._watches else self._revision or 0
            return
        if len(operations) > KV_TXN_OPERATIONS_MAX:
            raise UsageError(
                f"a transaction writes at most {KV_TXN_OPERATIONS_MAX} keys and ranges; this has {len(operations)}: "
                "split it"
            )
        compares = tuple(
            Compare(start, CompareTarget.UNMODIFIED, CompareResult.EQUAL, self._revision or 0, _end(start, end))
            for start, end in self._read.coarsened(KV_TXN_OPERATIONS_MAX)
        )
        result = await self._kv.execute(TxnRequest(compares, operations), timeout=timeout)
        if not result.succeeded:
            raise TransactionConflict("what this transaction read has changed meanwhile; it has written nothing")
        self._committed = result.revision

    def _writes(self, key: bytes) -> bool:
        return (
            key in self._values
            or key in self._steps
            or key in self._cleared
            or any(stamped.key == key and stamped.key_at < 0 for stamped in self._stamped)
        )

    def _operations(self) -> tuple[Operation, ...]:
        whole = sorted({*self._keys, *(stamped.key for stamped in self._stamped if stamped.key_at < 0)})
        operations: list[Operation] = [
            DeleteRequest(start, _end(start, end)) for start, end in self._cleared.without(whole)
        ]
        operations += [
            PutRequest(key, self._values[key]) if key in self._values else UpdateRequest(key, tuple(self._steps[key]))
            for key in self._keys
        ]
        return (*operations, *self._stamped)

    # -- within ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._committed is not None:
            raise UsageError("this transaction has committed; begin a new one")

    def _forget(self, key: bytes) -> None:
        """What was written to a key before."""
        if key in self._values or key in self._steps:
            self._values.pop(key, None)
            self._steps.pop(key, None)
            del self._keys[bisect_left(self._keys, key)]
        self._stamped = [one for one in self._stamped if one.key != key or one.key_at >= 0]

    def _mine(self, low: bytes, high: bytes | None) -> list[bytes]:
        return self._keys[bisect_left(self._keys, low) : None if high is None else bisect_left(self._keys, high)]

    def _overlaid(self, kvs: tuple[KeyValue, ...], seen: Span, *, reverse: bool) -> list[tuple[bytes, bytes]]:
        """What is in a range, given what the store has there."""
        there = {kv.key: kv.value for kv in kvs if kv.key not in self._cleared}
        for key in self._mine(*seen):
            steps = self._steps.get(key)
            value = self._values.get(key) if steps is None else mutate_all(tuple(steps), there.get(key))
            if value is None:
                there.pop(key, None)
            else:
                there[key] = value
        return sorted(there.items(), reverse=reverse)

    async def _page(self, key: bytes, end: bytes, limit: int, *, reverse: bool) -> RangeResult:
        order = SortOrder.DESCEND if reverse else SortOrder.NONE
        request = RangeRequest(key, end, self._revision or 0, limit, order, uncounted=not reverse)
        try:
            if self._revision is None:
                found = await self._kv.read(request)
                self._revision = found.revision
                return found
            try:
                # Any member that has the revision will do.
                return await self._kv.read(request, consistency="serializable")
            except FutureRevision:
                return await self._kv.read(request)
        except Compacted as error:
            raise TransactionTooOld(
                f"revision {self._revision}, which this transaction reads, was compacted; begin anew",
                ErrorCode.TRANSACTION_TOO_OLD,
                error.compact_revision,
            ) from None


class Transactions:
    """What `async for tr in kv.transactions()` goes through: commits when the body has ended, and gives the next one
    if there was a conflict. Leaving the loop by `break`, `return` or an exception commits nothing."""

    def __init__(self, kv: Kv, tries: int = KV_TRANSACTION_TRIES_MAX) -> None:
        self._kv = kv
        self._tries = tries
        self._tried = 0
        self._current: Transaction | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transaction:
        current = self._current
        if current is not None:
            if current.committed:
                raise StopAsyncIteration
            try:
                await current.commit()
            except (TransactionConflict, TransactionTooOld) as error:
                await self.again(error)
            else:
                raise StopAsyncIteration
        self._current = Transaction(self._kv)
        return self._current

    async def again(self, error: TransactionConflict | TransactionTooOld) -> None:
        """Waits before the next try; raises the error when there have been enough."""
        self._tried += 1
        if self._tried >= self._tries:
            raise error
        longest = min(KV_TRANSACTION_BACKOFF_MAX_S, KV_TRANSACTION_BACKOFF_MIN_S * 2.0 ** min(self._tried, 20))
        await asyncio.sleep(self._kv.draw() * longest)


def transactional(
    body: Callable[Concatenate[Transaction, P], Awaitable[R]],
) -> Callable[Concatenate[Kv | Transaction, P], Awaitable[R]]:
    """Makes a function whose first parameter is a transaction take a client as well: it is then run in a transaction
    of its own, again on a conflict, and its result returned when that has committed."""

    @functools.wraps(body)
    async def run(first: Kv | Transaction, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(first, Transaction):
            return await body(first, *args, **kwargs)
        tries = Transactions(first)
        while True:
            transaction = Transaction(first)
            try:
                result = await body(transaction, *args, **kwargs)
                if not transaction.committed:
                    await transaction.commit()
            except (TransactionConflict, TransactionTooOld) as error:
                await tries.again(error)
            else:
                return result

    return run


def _span(key: bytes, end: bytes, prefix: bytes | None) -> Span:
    if prefix is not None:
        key, end = span_of_prefix(key, end, prefix)
    if not end:
        raise UsageError("a range has an end; FROM_KEY is none")
    return (key or b"\0", None if end == FROM_KEY else end)


def _end(start: bytes, end: bytes | None) -> bytes:
    """The end as a request has it."""
    return FROM_KEY if end is None else b"" if end == start + b"\0" else end


def _number(amount: int | bytes) -> bytes:
    if isinstance(amount, bytes):
        return amount
    if not -(1 << 63) <= amount < 1 << 64:
        raise UsageError(f"{amount} does not fit eight bytes; give it as bytes, little-endian")
    return (amount & ((1 << 64) - 1)).to_bytes(8, "little")
