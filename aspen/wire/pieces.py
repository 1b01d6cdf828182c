"""Bytes that lie in several places, so that a large message need not be copied to be in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload


class Pieces:
    """Bytes in several pieces, in order. Indices and slices are those of the whole; `bytes(pieces)` is the whole."""

    __slots__ = ("_parts", "_size")

    def __init__(self, parts: Iterable[bytes | memoryview]) -> None:
        """What lies in `parts` must not change any more."""
        self._parts = tuple(parts)
        self._size = sum(map(len, self._parts))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    @overload
    def __getitem__(self, where: int, /) -> int: ...
    @overload
    def __getitem__(self, where: slice, /) -> bytes: ...
    def __getitem__(self, where: int | slice, /) -> int | bytes:
        if isinstance(where, slice):
            begin, end, step = where.indices(self._size)
            whole = b"".join(self.between(begin, end))
            return whole if step == 1 else bytes(self)[where]
        if where < 0:
            where += self._size
        for part in self._parts:
            if 0 <= where < len(part):
                return part[where]
            where -= len(part)
        raise IndexError("beyond the last byte")

    def between(self, begin: int, end: int) -> list[memoryview]:
        """What lies from `begin` up to `end`, where it lies."""
        found: list[memoryview] = []
        for part in self._parts:
            if end <= 0:
                break
            size = len(part)
            if begin < size:
                found.append(memoryview(part)[max(begin, 0) : end])
            begin -= size
            end -= size
        return found
