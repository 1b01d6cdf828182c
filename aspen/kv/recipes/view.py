"""`View`: a range as it is, and as it goes on being: read at a revision, and watched from the next one on.

    async with View(kv, *span) as view:
        view.items                     # key -> KeyValue, exactly as of view.revision
        await view.changed()           # the next revision that changes something

Each revision that changes something is seen, one by one, except after a compaction that the view has missed: then it
reads the range again. Reading first and watching from the revision read is what makes it exact: a watch that begins
"now" at some member may begin before or after what was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aspen.errors import CallTimeout, Compacted
from aspen.kv.types import Event, KeyValue

if TYPE_CHECKING:
    from aspen.kv.client import Kv
    from aspen.kv.watch import Watch


class View:
    """See the module. Of one reader."""

    def __init__(self, kv: Kv, start: bytes, end: bytes) -> None:
        self._kv, self._start, self._end = kv, start, end
        self._watch: Watch | None = None
        self.items: dict[bytes, KeyValue] = {}
        self.revision = 0
        """The state is that of this revision."""

    async def __aenter__(self) -> Self:
        """Raises as `Kv.range`."""
        await self._read()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._unwatch()

    def by_age(self) -> list[KeyValue]:
        """What is there, what was made first in front."""
        return sorted(self.items.values(), key=lambda kv: (kv.create_revision, kv.key))

    async def changed(self) -> None:
        """Returns when `items` are those of the next revision that changed them, or of a later one."""
        while True:
            try:
                revision, events = await self._next()
            except Compacted:
                self._unwatch()
                await self._read()
                return
            except CallTimeout:
                continue  # No member began the watch in time: whoever waits has a deadline of their own.
            self.revision = revision
            for event in events:
                self._take(event)
            if events:
                return

    async def _next(self) -> tuple[int, tuple[Event, ...]]:
        if self._watch is None:
            watch = self._kv.watch(self._start, self._end, start=self.revision + 1)
            self._watch = await watch.__aenter__()
        return await self._watch.next_revision()

    async def _read(self) -> None:
        items: dict[bytes, KeyValue] = {}
        found = await self._kv.range(self._start, self._end, limit=1)
        self.revision = found.revision
        async for kv in self._kv.scan(self._start, self._end, revision=found.revision):
            items[kv.key] = kv
        self.items = items

    def _take(self, event: Event) -> None:
        if event.is_delete:
            self.items.pop(event.kv.key, None)
        else:
            self.items[event.kv.key] = event.kv

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
