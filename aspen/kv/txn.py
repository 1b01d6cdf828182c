"""What transactions are written with: conditions, operations, and the builder that `Kv.txn()` returns.

    done = await (
        kv.txn()
        .when(value(b"lock") == b"", version(b"config") > 3)
        .then(put(b"lock", b"me"), get(b"config"))
        .otherwise(get(b"lock"))
        .commit()
    )
    done.succeeded, done.responses

Conditions and checks see the store before the transaction; operations what earlier ones of it did. All of it is at one
revision, or nothing of it is.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

from aspen.errors import UsageError
from aspen.kv.prefixes import end_of_prefix
from aspen.kv.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    Operation,
    PutRequest,
    RangeRequest,
    TxnRequest,
    TxnResult,
)

N = TypeVar("N", int, bytes)
Then: TypeAlias = "Operation | TxnBuilder"


class _Target(Generic[N]):
    """One side of a condition: compare it with `==`, `!=`, `<` or `>`."""

    __slots__ = ("_end", "_key", "_kind", "_target")

    def __init__(self, key: bytes, end: bytes, target: CompareTarget, kind: type[N]) -> None:
        self._key, self._end, self._target = key, end, target
        self._kind: type[N] = kind

    def _compare(self, result: CompareResult, operand: N) -> Compare:
        if type(operand) is not self._kind:
            raise UsageError(
                f"a condition on the {self._target.name.lower()} is with {self._kind.__name__}, "
                f"not {type(operand).__name__}"
            )
        return Compare(self._key, self._target, result, operand, self._end)

    def __hash__(self) -> int:
        return hash((self._key, self._end, self._target))

    def __eq__(self, operand: N) -> Compare:  # type: ignore[override]  # it makes a condition
        return self._compare(CompareResult.EQUAL, operand)

    def __ne__(self, operand: N) -> Compare:  # type: ignore[override]  # it makes a condition
        return self._compare(CompareResult.NOT_EQUAL, operand)

    def __lt__(self, operand: N) -> Compare:
        return self._compare(CompareResult.LESS, operand)

    def __gt__(self, operand: N) -> Compare:
        return self._compare(CompareResult.GREATER, operand)


class Number(_Target[int]):
    """A number of a key: its version, or a revision."""

    __slots__ = ()


class Value(_Target[bytes]):
    """The value of a key."""

    __slots__ = ()


def value(key: bytes, end: bytes = b"") -> Value:
    """The value of a key, or of each key of a range. On a key that is not there no condition on it holds."""
    return Value(key, end, CompareTarget.VALUE, bytes)


def version(key: bytes, end: bytes = b"") -> Number:
    """How often a key was put since it was made; 0 when it is not there."""
    return Number(key, end, CompareTarget.VERSION, int)


def create_revision(key: bytes, end: bytes = b"") -> Number:
    """The revision that made a key; 0 when it is not there."""
    return Number(key, end, CompareTarget.CREATE, int)


def mod_revision(key: bytes, end: bytes = b"") -> Number:
    """The revision that last put a key; 0 when it is not there."""
    return Number(key, end, CompareTarget.MOD, int)


def lease(key: bytes, end: bytes = b"") -> Number:
    """The lease of a key; 0 without one."""
    return Number(key, end, CompareTarget.LEASE, int)


def exists(key: bytes) -> Compare:
    """The key is there."""
    return version(key) > 0


def missing(key: bytes) -> Compare:
    """The key is not there."""
    return version(key) == 0


def unmodified_since(key: bytes, end: bytes, revision: int) -> Compare:
    """Nothing in `[key, end)` was put, deleted or cleared after that revision: what has come and gone counts too."""
    return Compare(key, CompareTarget.UNMODIFIED, CompareResult.EQUAL, revision, end)


def put(key: bytes, value: bytes = b"", *, lease: int = 0, prev_kv: bool = False) -> PutRequest:
    """Sets a key."""
    return PutRequest(key, value, lease, prev_kv)


def get(key: bytes, end: bytes = b"", *, prefix: bytes | None = None, limit: int = 0) -> RangeRequest:
    """Reads a key, or a range."""
    if prefix is not None:
        key, end = prefix, end_of_prefix(prefix)
    return RangeRequest(key, end, limit=limit)


def delete(key: bytes, end: bytes = b"", *, prev_kv: bool = False) -> DeleteRequest:
    """Deletes a key, or a range."""
    return DeleteRequest(key, end, prev_kv)


class _Execute(Protocol):
    def __call__(self, request: TxnRequest, /, *, timeout: float | None = ...) -> Awaitable[TxnResult]: ...


class TxnBuilder:
    """A transaction that is being written. Each method adds to it and returns it."""

    def __init__(self, execute: _Execute | None = None) -> None:
        """Without `execute` it is for a place within another transaction."""
        self._execute = execute
        self._compares: list[Compare] = []
        self._success: list[Operation] = []
        self._failure: list[Operation] = []

    def when(self, *conditions: Compare) -> Self:
        """What has to hold, all of it."""
        for condition in conditions:
            if not isinstance(condition, Compare):
                raise UsageError(f"when({condition!r}): a condition is like value(b'key') == b'value'")
        self._compares += conditions
        return self

    def then(self, *operations: Then) -> Self:
        """What is done when the conditions hold."""
        self._success += map(_operation, operations)
        return self

    def otherwise(self, *operations: Then) -> Self:
        """What is done when one of them does not."""
        self._failure += map(_operation, operations)
        return self

    def request(self) -> TxnRequest:
        """The transaction as it is."""
        return TxnRequest(tuple(self._compares), tuple(self._success), tuple(self._failure))

    async def commit(self, *, timeout: float | None = None) -> TxnResult:
        """Executes it. Raises as `Kv.put`."""
        if self._execute is None:
            raise UsageError("this transaction is of no client; use kv.txn(), or put it within another")
        return await self._execute(self.request(), timeout=timeout)


def is_read_only(request: TxnRequest) -> bool:
    """Whether nothing in it could change anything."""
    for operation in (*request.success, *request.failure):
        if isinstance(operation, TxnRequest):
            if not is_read_only(operation):
                return False
        elif not isinstance(operation, RangeRequest):
            return False
    return True


def _operation(one: Then) -> Operation:
    if isinstance(one, TxnBuilder):
        return one.request()
    if isinstance(one, (PutRequest, DeleteRequest, RangeRequest, TxnRequest)):
        return one
    raise UsageError(f"{one!r} is no operation of a transaction; use put(), get(), delete(), or another transaction")
