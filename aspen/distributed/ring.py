"""`Ring`: the members that are up, in a circle by node id, and who is near whom on it. Pure.

Everyone who has the same members sees the same circle, so that nobody has to be told whom to probe or to gossip with.
"""

from __future__ import annotations

from bisect import bisect_left, insort


class Ring:
    """Node ids in order, as a circle, seen from `me`, which is always on it."""

    def __init__(self, me: str) -> None:
        self.me = me
        self._ids = [me]

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, node_id: str) -> bool:
        at = bisect_left(self._ids, node_id)
        return at < len(self._ids) and self._ids[at] == node_id

    def add(self, node_id: str) -> None:
        """Puts a node on it; harmless when it is."""
        if node_id not in self:
            insort(self._ids, node_id)

    def remove(self, node_id: str) -> None:
        """Takes a node off it; harmless when it is not on it, and for `me`."""
        if node_id in self and node_id != self.me:
            del self._ids[bisect_left(self._ids, node_id)]

    def successors(self, count: int, of: str | None = None) -> list[str]:
        """The next `count` nodes after one, nearest first, without it; fewer when there are not so many."""
        return self._steps(range(1, count + 1), self.me if of is None else of)

    def predecessors(self, count: int, of: str) -> list[str]:
        """The `count` nodes before one, nearest first, without it."""
        return self._steps(range(-1, -count - 1, -1), of)

    def fingers(self) -> list[str]:
        """The nodes at distances 1, 2, 4, 8, ... after `me`: along them a rumour reaches everyone in log2(n) steps,
        while each node has log2(n) partners, always the same."""
        return self._steps([1 << bit for bit in range(max(0, len(self._ids) - 1).bit_length())], self.me)

    def _steps(self, steps: range | list[int], of: str) -> list[str]:
        ids = self._ids
        count = len(ids)
        at = bisect_left(ids, of)
        beyond = 0 if at < count and ids[at] == of else 1  # a node off the circle stands before the one at its place
        found = dict.fromkeys(ids[(at + step - (beyond if step > 0 else 0)) % count] for step in steps)
        found.pop(of, None)
        return list(found)
