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
from typing import TYPE_CHECKING, Self

from aspen.errors import AspenError, CallTimeout, UsageError
from aspen.kv.feeding import Reading, Told, beginning
from aspen.kv.types import Event
from aspen.limits import WATCH_CREATED_S, WATCH_PULL_S

if TYPE_CHECKING:
    from aspen.kv.watch_client import WatchClient
    from aspen.kv.watching import Options


class Revisions:
    """Iterates over whole revisions: see `Watch.revisions`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, tuple[Event, ...]]:
        return await self._watch.next_revision()


class Watch(Reading):
    """See the module."""

    __slots__ = (
        "_began",
        "_client",
        "_closed",
        "_entered",
        "_error",
        "_given",
        "_marked_s",
        "_marks",
        "_part",
        "_skip",
        "created_in",
        "end",
        "id",
        "key",
        "options",
        "paused",
        "progress_wanted",
        "require_leader",
        "timeout_s",
        "unsaid",
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
        super().__init__(start)
        self._client = client
        self.key, self.end, self.options = key, end, options
        self.progress_wanted, self.require_leader = progress, require_leader
        self.timeout_s = WATCH_CREATED_S if timeout_s is None else timeout_s
        self.id = 0
        """At the member; 0: it is not there."""
        self.created_in = 0
        """The number of the answer that said that it has begun; 0: none has."""
        self.paused = False
        """Whether it waits to be read before more is asked for."""
        self.unsaid = False
        """Whether nobody waits to hear that it has begun."""
        self._entered = self._closed = False
        self._began: asyncio.Future[None] | None = None
        self._part: list[Event] = []
        """Of a revision that has not come as a whole."""
        self._given = 0
        """Events of a revision that was not whole yet that were handed on."""
        self._skip = 0
        """Of these, those that come again."""
        self._error: AspenError | None = None
        self._marks: list[asyncio.Future[int]] = []
        self._marked_s = 0.0

    # -- for the reader --------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Up to where the reader has seen everything that the watch is of. A watch that starts there + 1 misses and
        repeats nothing."""
        told = self._told
        if not self._closed and self._at >= len(told.events):
            if told.whole:
                self._handed = told.revision
            if not self.waits and not self._part and not self._given:
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

    def begin(self) -> None:
        """Begins it without waiting for a member to say so: for one with a `start`, which misses nothing. What would
        have been raised comes to the reader. `close` it. Raises Overloaded: the client has too many."""
        if self._entered or not self.next:
            raise UsageError("only a watch with a start begins unseen, and once; enter it: async with kv.watch(...)")
        self._entered = self.unsaid = True
        self._client.add(self)

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, here and at the member. Idempotent. `revision` stays what it is."""
        if not self._closed:
            self._handed = self.revision
            self._closed = True
        self._client.remove(self)
        self.fail(UsageError("the watch is closed; make another with kv.watch(...)"))
        feed = self.alone()
        feed.watches.clear()
        self._read = feed.bytes
        self._told, self._at, self._hops = beginning(), 0, None

    def __aiter__(self) -> Self:
        """The events, one by one."""
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises Compacted."""
        # Written out, with `step` and `_wait`, as thousands of watches may be told of the same event.
        while True:
            told, at = self._told, self._at
            events = told.events
            if at < len(events):
                self._at = at + 1
                return events[at]
            following = told.next
            if self._hops:
                if not self.step():
                    await self._wait()
                continue
            if following is None:
                if self._error is not None or self._waiter is not None or self.paused:
                    self._about_to_wait()
                self._waiter = waiter = self._client.loop.create_future()
                self.feed.waiting[self] = None
                try:
                    await waiter
                finally:
                    self._waiter = None
                continue
            if told.whole:
                self._handed = told.revision
            self._read += following.cost
            self._told = following
            events = following.events
            if events:
                self._at = 1
                return events[0]
            self._at = 0

    def revisions(self) -> Revisions:
        """Whole revisions: their number, and the events in their order. With `progress` now and then one without
        events: everything up to there has been told. With `fragment` a large revision comes in several.

        Raises Compacted, as it goes.
        """
        return Revisions(self)

    async def next_revision(self) -> tuple[int, tuple[Event, ...]]:
        """The next of `revisions`; of one of which events were read one by one, the others."""
        while True:
            told, at = self._told, self._at
            if at < len(told.events):
                self._at = len(told.events)
                return told.revision, told.events[at:]
            if not self.step():
                await self._wait()
            elif self._told.revision:
                told = self._told
                self._at = len(told.events)
                return told.revision, told.events

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

    async def _wait(self) -> None:
        """Returns when something may have come; nothing has that is not read. Raises what has ended the watch."""
        self._about_to_wait()
        self._waiter = waiter = self._client.loop.create_future()
        self.feed.waiting[self] = None
        try:
            await waiter
        finally:
            self._waiter = None

    def _about_to_wait(self) -> None:
        if self._error is not None:
            raise _again(self._error)
        if self._waiter is not None:
            raise UsageError("somebody reads this watch already; one reads, or make another watch")
        if self.paused:
            self.paused = False
            self._client.resume(self)

    # -- for the client --------------------------------------------------------------------------------------------

    def began(self, revision: int) -> None:
        """A member has begun it as of that revision."""
        if not self.next:
            self.next = revision + 1
            self._handed = revision
        if self._began is not None and not self._began.done():
            self._began.set_result(None)

    def is_plain(self, revision: int) -> bool:
        """Whether a whole revision is new to it, and all of it."""
        return revision >= self.next and not self._skip and not self._part and not self._given

    def take(self, told: Told) -> None:
        """Takes what has happened, for itself alone."""
        revision, events, whole = told.revision, told.events, told.whole
        feed = self.alone()  # Before anything of it waits in parts: a feed is of watches without.
        if revision < self.next:
            return  # It has been seen: a member began earlier than it was asked to.
        if self._skip:
            skipped = min(self._skip, len(events))
            self._skip -= skipped
            events = events[skipped:]
        if not whole and not self.options.fragment:
            self._part += events
            return
        if self._part:
            events = (*self._part, *events)
            self._part = []
        if whole:
            self._given = 0
            self._next = revision + 1
        else:
            self._given += len(events)
        feed.tell(Told(revision, events, whole))

    def detached(self) -> None:
        """No member has it any more: of a revision that has come in part the rest is asked for again, with its
        beginning."""
        self.alone()
        self.id = self.created_in = 0
        self._skip = self._given
        self._part = []

    def mark(self, revision: int, now_s: float) -> None:
        """Everything up to `revision` has come: told to a reader that wants to know, now and then."""
        last = max(self._handed, self._told.revision)
        if self.waits or self._part or now_s - self._marked_s < WATCH_PULL_S / 2 or revision <= last:
            return
        self._marked_s = now_s
        self.alone().tell(Told(revision, (), True))

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


def _again(error: AspenError) -> AspenError:
    """An exception of its own for each who gets it."""
    again: AspenError = type(error).__new__(type(error), *error.args)
    BaseException.__init__(again, *error.args)
    again.__dict__.update(error.__dict__)
    return again
