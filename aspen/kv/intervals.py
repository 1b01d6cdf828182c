"""`Intervals`: which of many half-open ranges of keys hold a key. A treap: a tree that chance keeps balanced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from aspen.traits import RandomStream

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("end", "last", "left", "priority", "right", "start", "value")

    def __init__(self, start: bytes, end: bytes | None, value: T, priority: int) -> None:
        self.start = start
        self.end = end
        """None: no end."""
        self.value = value
        self.priority = priority
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None
        self.last: bytes | None = end
        """The latest end in this subtree."""


class Intervals(Generic[T]):
    """Values by range `[start, end)`, one for each. O(log n) to add and to remove, O(log n + found) to ask."""

    __slots__ = ("_count", "_points", "_rng", "_root")

    def __init__(self, rng: RandomStream) -> None:
        self._rng = rng
        """Of the node's own, so that nobody can choose ranges that make the tree deep."""
        self._root: _Node[T] | None = None
        self._points: dict[bytes, T] = {}
        """Ranges of one key, which are most."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, start: bytes, end: bytes | None, value: T) -> None:
        """Adds a range that is not there; `end` None is no end."""
        self._count += 1
        if end == start + b"\0":
            self._points[start] = value
        else:
            self._root = _add(self._root, _Node(start, end, value, self._rng.getrandbits(32)))

    def remove(self, start: bytes, end: bytes | None) -> None:
        """Removes a range that is there."""
        self._count -= 1
        if end == start + b"\0":
            del self._points[start]
        else:
            self._root = _remove(self._root, start, end)

    def holding(self, key: bytes) -> Iterator[T]:
        """The values of all ranges that hold `key`. Change nothing between its steps."""
        point = self._points.get(key)
        if point is not None:
            yield point
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node is None or (node.last is not None and node.last <= key):
                continue
            stack.append(node.left)
            if node.start <= key:
                if node.end is None or key < node.end:
                    yield node.value
                stack.append(node.right)


def _sort_key(start: bytes, end: bytes | None) -> tuple[bytes, bool, bytes]:
    return start, end is None, end or b""


def _mend(node: _Node[T]) -> _Node[T]:
    last = node.end
    for child in (node.left, node.right):
        if child is not None and last is not None:
            last = None if child.last is None else max(last, child.last)
    node.last = last
    return node


def _add(root: _Node[T] | None, new: _Node[T]) -> _Node[T]:
    if root is None:
        return new
    if new.priority > root.priority:
        new.left, new.right = _split(root, _sort_key(new.start, new.end))
        return _mend(new)
    if _sort_key(new.start, new.end) < _sort_key(root.start, root.end):
        root.left = _add(root.left, new)
    else:
        root.right = _add(root.right, new)
    return _mend(root)


def _split(root: _Node[T] | None, at: tuple[bytes, bool, bytes]) -> tuple[_Node[T] | None, _Node[T] | None]:
    """What sorts before `at`, and the rest."""
    if root is None:
        return None, None
    if _sort_key(root.start, root.end) < at:
        root.right, rest = _split(root.right, at)
        return _mend(root), rest
    before, root.left = _split(root.left, at)
    return before, _mend(root)


def _remove(root: _Node[T] | None, start: bytes, end: bytes | None) -> _Node[T] | None:
    if root is None:
        raise KeyError((start, end))
    if (root.start, root.end) == (start, end):
        return _join(root.left, root.right)
    if _sort_key(start, end) < _sort_key(root.start, root.end):
        root.left = _remove(root.left, start, end)
    else:
        root.right = _remove(root.right, start, end)
    return _mend(root)


def _join(left: _Node[T] | None, right: _Node[T] | None) -> _Node[T] | None:
    if left is None or right is None:
        return left or right
    if left.priority > right.priority:
        left.right = _join(left.right, right)
        return _mend(left)
    right.left = _join(left, right.left)
    return _mend(right)
