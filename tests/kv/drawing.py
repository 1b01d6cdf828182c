"""Random requests, drawn so that they meet: few keys, revisions near the current ones."""

from __future__ import annotations

from random import Random
from typing import Any

from aspen.kv.types import (
    CompactRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    PutRequest,
    RangeRequest,
    SortOrder,
    SortTarget,
    TxnRequest,
)

STEM = b"k" * 240
"""As long as a chunk of a long key."""

KEYS = [
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\0\x01",
    b"a\0\xff",
    b"a\x01",
    b"ab",
    b"b",
    b"b\xff",
    b"b\xff\xff",
    b"c",
    STEM[:-1],
    STEM,
    STEM + b"\0",
    STEM + b"\0\0",
    STEM + b"a",
    STEM + STEM,
    STEM + STEM + b"x" * 100,
    STEM[:-1] + b"\0" + STEM,
    b"\0" * 239 + b"\1tail",
    b"\xff",
    b"\xff\xff",
]
VALUES = [b"", b"0", b"1", b"two", b"\xff\0", b"v" * 50]
ENDS = [*KEYS, b"\0", b"z", b"\0\0"]


class Drawing:
    """`revision` and `compacted` are what the caller knows of the store."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.revision = 1
        self.compacted = 0

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def key(self) -> bytes:
        return self.rng.choice(KEYS) if not self.chance(0.01) else b""

    def end(self) -> bytes:
        return self.rng.choice(ENDS) if self.chance(0.7) else b""

    def at(self) -> int:
        """A revision: now, some that are there, and some that are not."""
        if self.chance(0.5):
            return 0
        low = max(0, self.compacted - 2)
        return self.rng.randint(low, self.revision + 2)

    def put(self) -> PutRequest:
        ignore_value, ignore_lease = self.chance(0.1), self.chance(0.1)
        value = b"" if ignore_value and self.chance(0.8) else self.rng.choice(VALUES)
        lease = 77 if self.chance(0.03) else 0
        return PutRequest(self.key(), value, lease, self.chance(0.3), ignore_value, ignore_lease)

    def delete(self) -> DeleteRequest:
        return DeleteRequest(self.key(), self.end() if self.chance(0.4) else b"", self.chance(0.3))

    def range(self) -> RangeRequest:
        return RangeRequest(
            self.key() if self.chance(0.8) else b"\0",
            self.end() if self.chance(0.8) else b"\0",
            self.at(),
            self.rng.choice([0, 0, 1, 2, 3, 100]),
            self.rng.choice([SortOrder.NONE, SortOrder.NONE, SortOrder.ASCEND, SortOrder.DESCEND]),
            self.rng.choice(list(SortTarget)),
            self.chance(0.2),
            self.chance(0.1),
            *(self.at() if self.chance(0.1) else 0 for _ in range(4)),
        )

    def compare(self) -> Compare:
        target = self.rng.choice([t for t in CompareTarget if t is not CompareTarget.UNMODIFIED])
        if self.chance(0.15):
            return Compare(self.key(), CompareTarget.VALUE, self.rng.choice(list(CompareResult)), b"")
        operand: Any = self.rng.choice(VALUES)
        if target in (CompareTarget.CREATE, CompareTarget.MOD):
            operand = self.at()
        elif target is not CompareTarget.VALUE:
            operand = self.rng.choice([0, 1, 2, 3])
        end = self.end() if self.chance(0.3) else b""
        return Compare(self.key(), target, self.rng.choice(list(CompareResult)), operand, end)

    def operation(self, depth: int) -> Any:
        draw = self.rng.random()
        if draw < 0.45:
            return self.put()
        if draw < 0.6:
            return self.delete()
        if draw < 0.85 or depth >= 3:
            return self.range()
        return self.txn(depth + 1)

    def txn(self, depth: int = 0) -> TxnRequest:
        compares = tuple(self.compare() for _ in range(self.rng.choice([0, 1, 1, 2])))
        success = tuple(self.operation(depth) for _ in range(self.rng.choice([0, 1, 2, 3, 4])))
        failure = tuple(self.operation(depth) for _ in range(self.rng.choice([0, 0, 1, 2])))
        if self.chance(0.1):
            # A nested one that looks at what was just done.
            done = self.put() if self.chance(0.5) else self.delete()
            look = Compare(done.key, CompareTarget.CREATE, CompareResult.EQUAL, 0)
            success = (*success, done, TxnRequest((look,), (self.range(),), ()))
        if self.chance(0.01):
            success *= 70
        return TxnRequest(compares, success, failure)

    def compact(self) -> CompactRequest:
        return CompactRequest(self.rng.randint(max(1, min(self.compacted - 1, self.revision)), self.revision + 1))

    def request(self) -> Any:
        draw = self.rng.random()
        if draw < 0.35:
            return self.put()
        if draw < 0.5:
            return self.delete()
        if draw < 0.75:
            return self.range()
        return self.txn() if draw < 0.97 else self.compact()
