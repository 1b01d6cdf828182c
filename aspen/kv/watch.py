"""`Watch`: what happens to a key, a prefix or a range, as a program sees it. Made by `Kv.watch`.

    async with kv.watch(prefix=b"user/") as watch:
        async for event in watch: ...                            # or:
        async for revision, events in watch.revisions(): ...     # whole revisions

It begins when the block is entered, and sees what happens after `watch.revision` then; with `start` it begins at that
revision, in the past or to come. Each event comes once, in order, and none is left out, whatever happens to members,
leaders and connections meanwhile. `Compacted` ends it: what it would have to see next is gone. That happens to a watch
that begins too far in the past, and to one that is not read for too long.

What waits here for a watch that nobody reads is bounded: beyond that it is taken back from the member, and goes on from
where it was when all that waits has been read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self, TypeAlias

from aspen.errors import AspenError, CallTimeout, UsageError
from aspen.kv.types import Event
from aspen.limits import (
    WATCH_CLIENT_BYTES_MAX,
    WATCH_CLIENT_REVISIONS_MAX,
    WATCH_CREATED_S,
    WATCH_EVENT_OVERHEAD_BYTES,
    WATCH_PULL_S,
)

if TYPE_CHECKING:
    from aspen.kv.watch_client import WatchClient
    from aspen.kv.watching import Options

Told: TypeAlias = "tuple[int, tuple[Event, ...], int, bool]"
"""A revision, its events, their size in bytes, and whether that is all of it."""


class Revisions:
    """Iterates over whole revisions: see `Watch.revisions`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, tuple[Event, ...]]:
        return await self._watch.next_revision()


class Watch:
    """See the module."""

    __slots__ = (
        "_at",
        "_began",
        "_bytes",
        "_client",
        "_current",
        "_entered",
        "_error",
        "_given",
        "_handed",
        "_last",
        "_marked_s",
        "_marks",
        "_part",
        "_part_bytes",
        "_queue",
        "_skip",
        "_waiter",
        "created_in",
        "end",
        "id",
        "key",
        "next",
        "options",
        "paused",
        "progress_wanted",
        "require_leader",
        "timeout_s",
    )

    def __init__(
        self,
        client: WatchClient,
        key: bytes,
        end: bytes,
        start: int,
        options: Options,
        *,
        progress: bool,
        require_leader: bool,
        timeout_s: float | None,
    ) -> None:
        self._client = client
        self.key, self.end, self.options = key, end, options
        self.progress_wanted, self.require_leader = progress, require_leader
        self.timeout_s = WATCH_CREATED_S if timeout_s is None else timeout_s
        self.next = start
        """The first revision that has not come; 0: it has not begun, and takes what comes after that."""
        self.id = 0
        """At the member; 0: it is not there."""
        self.created_in = 0
        """The number of the answer that said that it has begun; 0: none has."""
        self.paused = False
        """Whether it waits to be read before more is asked for."""
        self._entered = False
        self._began: asyncio.Future[None] | None = None
        self._queue: deque[Told] = deque()
        self._bytes = 0
        self._part: list[Event] = []
        """Of a revision that has not come as a whole."""
        self._part_bytes = 0
        self._given = 0
        """Events of a revision that was not whole yet that were handed on."""
        self._skip = 0
        """Of these, those that come again."""
        self._current: Told = (0, (), 0, True)
        self._at = 0
        """The event of it that the reader gets next."""
        self._handed = max(start - 1, 0)
        """Up to where everything was given to the reader."""
        self._last = max(start - 1, 0)
        """The revision that the reader was told of last, or is going to be."""
        self._waiter: asyncio.Future[None] | None = None
        self._error: AspenError | None = None
        self._marks: list[asyncio.Future[int]] = []
        self._marked_s = 0.0

    # -- for the reader --------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Up to where the reader has seen everything that the watch is of. A watch that starts there + 1 misses and
        repeats nothing."""
        if not self._queue and not self._part and not self._given and self._at >= len(self._current[1]):
            self._handed = max(self._handed, self._client.seen(self))
        return self._handed

    async def __aenter__(self) -> Self:
        """Begins it; returns when a member has said so.

        Raises:
            CallTimeout: none has, in time. `timeout=` gives it longer.
            Overloaded: the client has too many.
            AccessDenied: this key may not watch.
        """
        if self._entered:
            raise UsageError("a watch is entered once; make another with kv.watch(...)")
        self._entered = True
        self._began = asyncio.get_running_loop().create_future()
        self._client.add(self)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._began
        except TimeoutError:
            self._client.remove(self)
            raise CallTimeout(
                f"no member of the store began the watch in time (the last trouble: {self._client.why or 'none'})"
            ) from None
        except BaseException:
            self._client.remove(self)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, here and at the member. Idempotent."""
        self._client.remove(self)
        self.fail(UsageError("the watch is closed; make another with kv.watch(...)"))
        self._queue.clear()

    def __aiter__(self) -> Self:
        """The events, one by one."""
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises Compacted."""
        # One frame for each event, as thousands of watches may be told of the same one.
        while True:
            revision, events, _, whole = self._current
            at = self._at
            if at < len(events):
                self._at = at = at + 1
                if whole and at == len(events):
                    self._handed = revision
                return events[at - 1]
            if not self._queue:
                await self._wait()
                continue
            self._current, self._at = self._pop(), 0
            if not self._current[1]:
                self._handed = self._current[0]

    def revisions(self) -> Revisions:
        """Whole revisions: their number, and the events in their order. With `progress` now and then one without
        events: everything up to there has been told. With `fragment` a large revision comes in several.

        Raises Compacted, as it goes.
        """
        return Revisions(self)

    async def next_revision(self) -> tuple[int, tuple[Event, ...]]:
        """The next of `revisions`."""
        revision, events, _, whole = await self._next()
        if whole:
            self._handed = revision
        return revision, events

    async def progress(self, *, timeout: float = WATCH_CREATED_S) -> int:
        """Asks the member how far it is, and returns that revision when everything up to there has come.

        Raises:
            CallTimeout: no answer in time.
            Compacted: the watch has ended by it.
        """
        if self._error is not None:
            raise _again(self._error)
        mark: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._marks.append(mark)
        try:
            if len(self._marks) == 1:
                self._client.ask_progress(self)
            async with asyncio.timeout(timeout):
                return await mark
        except TimeoutError:
            raise CallTimeout(f"no member said in {timeout:g} s how far it is") from None
        finally:
            if mark in self._marks:
                self._marks.remove(mark)

    async def _next(self) -> Told:
        while not self._queue:
            await self._wait()
        return self._pop()

    async def _wait(self) -> None:
        """Returns when something may have come. Raises what has ended the watch."""
        if self._error is not None:
            raise _again(self._error)
        if self._waiter is not None:
            raise UsageError("somebody reads this watch already; one reads, or make another watch")
        self._waiter = waiter = self._client.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _pop(self) -> Told:
        told = self._queue.popleft()
        self._bytes -= told[2]
        if self.paused and not self._queue and self._error is None:
            self.paused = False
            self._client.resume(self)
        return told

    # -- for the client --------------------------------------------------------------------------------------------

    def began(self, revision: int) -> None:
        """A member has begun it as of that revision."""
        if not self.next:
            self.next = revision + 1
            self._handed = self._last = revision
        if self._began is not None and not self._began.done():
            self._began.set_result(None)

    def take(self, told: Told) -> bool:
        """Takes what has happened. True: so much waits that no more is wanted for now."""
        revision, events, size, whole = told
        if whole and revision >= self.next and not self._skip and not self._part:
            self.next = revision + 1
            self._given = 0
            self._put(told)
            return self._is_full()
        if revision < self.next:
            return False  # It has been seen: a member began earlier than it was asked to.
        if self._skip:
            skipped = min(self._skip, len(events))
            self._skip -= skipped
            events = events[skipped:]
        if not whole and not self.options.fragment:
            self._part += events
            self._part_bytes += size
            return False
        if self._part:
            events, size = (*self._part, *events), size + self._part_bytes
            self._part, self._part_bytes = [], 0
        if whole:
            self._given = 0
            self.next = revision + 1
        else:
            self._given += len(events)
        self._put((revision, events, size, whole))
        return self._is_full()

    def _is_full(self) -> bool:
        if self._bytes <= WATCH_CLIENT_BYTES_MAX and len(self._queue) <= WATCH_CLIENT_REVISIONS_MAX:
            return False
        self.paused = True
        return True

    def detached(self) -> None:
        """No member has it any more: of a revision that has come in part the rest is asked for again, with its
        beginning."""
        self.id = self.created_in = 0
        self._skip = self._given
        self._part, self._part_bytes = [], 0

    def mark(self, revision: int, now_s: float) -> None:
        """Everything up to `revision` has come: told to a reader that wants to know, now and then."""
        if self._queue or self._part or now_s - self._marked_s < WATCH_PULL_S / 2 or revision <= self._last:
            return
        self._marked_s = now_s
        self._put((revision, (), WATCH_EVENT_OVERHEAD_BYTES, True))

    def marked(self, revision: int) -> None:
        """What `progress` asked for has come."""
        self.next = max(self.next, revision + 1)
        marks, self._marks = self._marks, []
        for mark in marks:
            if not mark.done():
                mark.set_result(revision)

    @property
    def wants_mark(self) -> bool:
        """Whether `progress` waits."""
        return bool(self._marks)

    def fail(self, error: AspenError) -> None:
        """It is over; what has come can still be read."""
        if self._error is None:
            self._error = error
        if self._began is not None and not self._began.done():
            self._began.set_exception(_again(error))
            self._began.exception()
        marks, self._marks = self._marks, []
        for mark in marks:
            if not mark.done():
                mark.set_exception(_again(error))
        self._wake()

    def _put(self, told: Told) -> None:
        self._last = told[0]
        self._queue.append(told)
        self._bytes += told[2]
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _again(error: AspenError) -> AspenError:
    """An exception of its own for each who gets it."""
    again: AspenError = type(error).__new__(type(error), *error.args)
    BaseException.__init__(again, *error.args)
    again.__dict__.update(error.__dict__)
    return again
