"""Short prefixes that are given out once each, to many at once, without their getting in each other's way.

After FoundationDB's high-contention allocator. There is a window of numbers; whoever wants one draws a number in it
and has it if nobody has drawn it before. So two transactions conflict only when they draw the same. When half of a
window has been drawn the next begins, and windows grow with the numbers in them, so that numbers stay short.
"""

from __future__ import annotations

from collections.abc import Callable

from aspen.errors import InvariantBroken
from aspen.kv import tuples
from aspen.kv.interactive import Transaction
from aspen.kv.subspace import Subspace
from aspen.limits import ALLOCATOR_DRAWS_MAX


class Allocator:
    """Gives out prefixes, whose state is in a subspace."""

    def __init__(self, space: Subspace) -> None:
        self._counters = space[0]
        self._recent = space[1]

    async def allocate(self, tr: Transaction, draw: Callable[[], float]) -> bytes:
        """A prefix that no other transaction gets, if this one commits. `draw` gives numbers in [0, 1)."""
        for _ in range(ALLOCATOR_DRAWS_MAX):
            start, size = await self._window(tr)
            for _ in range(ALLOCATOR_DRAWS_MAX):
                candidate = start + int(draw() * size)
                if await self._start(tr) > start:
                    break  # This very transaction has moved on.
                key = self._recent.pack((candidate,))
                taken = await tr.get(key)
                if taken is None:
                    tr.set(key, b"")
                    return tuples.pack((candidate,))
        raise InvariantBroken("an allocator found no free number in windows of which half is free")

    async def _start(self, tr: Transaction) -> int:
        newest = await tr.snapshot.range(*self._counters.span(), limit=1, reverse=True)
        if not newest:
            return 0
        start = self._counters.unpack(newest[0][0])[0]
        if not isinstance(start, int):
            raise InvariantBroken(f"an allocator has a window that begins at {start!r}")
        return start

    async def _window(self, tr: Transaction) -> tuple[int, int]:
        """The window to draw from, with one more counted in it."""
        start = await self._start(tr)
        advanced = False
        while True:
            if advanced:
                tr.clear_range(self._counters.key, self._counters.pack((start,)))
                tr.clear_range(self._recent.key, self._recent.pack((start,)))
            counter = self._counters.pack((start,))
            tr.add(counter, 1)
            count = await tr.snapshot.get(counter)
            size = _size(start)
            if int.from_bytes(count or b"", "little") * 2 < size:
                return start, size
            start += size
            advanced = True


def _size(start: int) -> int:
    return 64 if start < 255 else 1024 if start < 65535 else 8192
