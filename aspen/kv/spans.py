"""`Spans`: a set of keys as half-open ranges, merged and in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TypeAlias

Span: TypeAlias = "tuple[bytes, bytes | None]"
"""A half-open range `[start, end)`; None: no end."""


class Spans:
    """See the module."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        """In the same order; only the last can be None. No two ranges touch."""

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Span]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __contains__(self, key: bytes) -> bool:
        at = bisect_right(self._starts, key) - 1
        if at < 0:
            return False
        end = self._ends[at]
        return end is None or key < end

    def add(self, start: bytes, end: bytes | None) -> None:
        """Adds a range; an empty one adds nothing."""
        if end is not None and end <= start:
            return
        low = bisect_right(self._starts, start)
        if low:
            before = self._ends[low - 1]
            if before is None or before >= start:
                low -= 1
                start = self._starts[low]
        high = len(self._starts) if end is None else bisect_right(self._starts, end)
        if high > low and end is not None:
            last = self._ends[high - 1]
            end = None if last is None else max(end, last)
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def without(self, keys: list[bytes]) -> Iterator[Span]:
        """The ranges without these keys, which are in order."""
        for first, end in self:
            start = first
            for key in keys[bisect_left(keys, first) :]:
                if end is not None and key >= end:
                    break
                if start < key:
                    yield start, key
                start = key + b"\0"
            if end is None or start < end:
                yield start, end

    def coarsened(self, most: int) -> Iterator[Span]:
        """At most so many ranges that hold all keys of these, and may hold others: neighbours are joined."""
        group = -(-len(self) // most)
        for at in range(0, len(self), group or 1):
            last = min(at + group, len(self)) - 1
            yield self._starts[at], self._ends[last]
