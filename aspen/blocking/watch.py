"""`SyncWatch`: what happens to keys, waited for by threads.

with kv.watch(prefix=b"user/") as watch:
    for event in watch: ...                        # until somebody closes it, from whatever thread
    event = watch.next(timeout=1.0)                # None: nothing came in time
    revision, events = watch.next_revision()       # whole revisions
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, Self, TypeVar

from aspen.blocking.turning import Blocking, blocking
from aspen.errors import UsageError
from aspen.io.loop_thread import LoopThread
from aspen.kv.types import Event
from aspen.kv.watch import Watch

R = TypeVar("R")


class SyncWatch(Blocking[Watch]):
    """As `aspen.kv.Watch`; one thread reads it, and any may close it."""

    def __init__(self, of: Watch, thread: LoopThread) -> None:
        super().__init__(of, thread)
        self._closed = False

    @property
    def revision(self) -> int:
        """See `Watch.revision`."""
        return self.of.revision

    @property
    def closed(self) -> bool:
        """Whether somebody has closed it."""
        return self._closed

    def __enter__(self) -> Self:
        """See `Watch.__aenter__`."""
        self.thread.run(self.of.__aenter__())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, here and at the member: whoever iterates comes to the end, and whoever waits for `next` gets
        UsageError. Idempotent, and for any thread."""
        self._closed = True
        if not self.thread.closed:
            self.thread.run(_closed(self.of))

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None: none came in so many seconds. Without a timeout it waits for as long as it takes.

        Raises:
            Compacted: see `aspen.kv.watch`.
            UsageError: it is closed.
        """
        return self.thread.run(_within(self.of.__anext__(), timeout))

    def next_revision(self, timeout: float | None = None) -> tuple[int, tuple[Event, ...]] | None:
        """The next whole revision, as `Watch.revisions` has them. Otherwise as `next`."""
        return self.thread.run(_within(self.of.next_revision(), timeout))

    progress = blocking(Watch.progress)

    def __iter__(self) -> Iterator[Event]:
        """The events, one by one, until it is closed."""
        while (event := self._until_closed(self.of.__anext__)) is not None:
            yield event

    def revisions(self) -> Iterator[tuple[int, tuple[Event, ...]]]:
        """See `Watch.revisions`; until it is closed."""
        while (told := self._until_closed(self.of.next_revision)) is not None:
            yield told

    def _until_closed(self, what: Any) -> Any:
        try:
            return None if self._closed else self.thread.run(what())
        except UsageError:
            if self._closed:
                return None
            raise


async def _closed(watch: Watch) -> None:
    watch.close()


async def _within(what: Coroutine[Any, Any, R], timeout: float | None) -> R | None:
    try:
        async with asyncio.timeout(timeout):
            return await what
    except TimeoutError:
        return None
