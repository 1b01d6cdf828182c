"""`Feed`: what watches of one client that see the same are told, once for all of them.

A chain of `Told`, each with a pointer to the next. A feed has its end, and each watch the place up to which it has
read; what all have read is kept by nobody. So telling a thousand watches of an event is one step and a wake for each
that waits, however far the others are.

Which watches see the same, the member says: it tells of an event once, with the ids of all that see it. The first time
the client makes a feed of them (`gathered`), which they keep while nothing happens to one of them alone. Who leaves a
feed has a *hop* at the end of what it has in common with the others: from there its reader goes on in the next chain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from aspen.kv.types import Event
from aspen.limits import (
    WATCH_CLIENT_BYTES_MAX,
    WATCH_CLIENT_REVISIONS_MAX,
    WATCH_EVENT_OVERHEAD_BYTES,
    WATCH_GATHER_BYTES,
    WATCH_GATHER_EACH_S,
    WATCH_GATHER_S,
    WATCH_GATHER_WAITING,
)

if TYPE_CHECKING:
    import asyncio


class Told:
    """A revision, or a part of one: a link of a chain."""

    __slots__ = ("cost", "events", "next", "revision", "whole")

    def __init__(self, revision: int, events: tuple[Event, ...], whole: bool) -> None:
        self.revision, self.events, self.whole = revision, events, whole
        self.next: Told | None = None
        self.cost = 0
        """In bytes, as what waits to be read is counted."""
        if revision:
            size = size_of(events)
            least = WATCH_CLIENT_BYTES_MAX // WATCH_CLIENT_REVISIONS_MAX
            self.cost = max(size, least)


def size_of(events: tuple[Event, ...]) -> int:
    """Of events in memory, roughly, in bytes."""
    size = 0
    for _, kv, prev in events:
        size += len(kv.key) + len(kv.value) + WATCH_EVENT_OVERHEAD_BYTES
        if prev is not None:
            size += len(prev.key) + len(prev.value)
    return size


def beginning() -> Told:
    """Stands before the first link of a chain, and tells nothing."""
    return Told(0, (), False)


class Reading:
    """A reader's place in what it is told. `Watch` has the rest of it."""

    __slots__ = ("_at", "_handed", "_hops", "_next", "_read", "_told", "_waiter", "feed")

    def __init__(self, start: int) -> None:
        self.feed = Feed()
        self.feed.watches[self] = None
        self._told = self.feed.last
        """What the reader was given last, or is being given."""
        self._at = 0
        """The event of it that comes next."""
        self._hops: deque[tuple[Told, Told]] | None = None
        """Ends of what it has in common with others, in order, each with the beginning of the chain that follows."""
        self._read = 0
        """As `feed.bytes`: up to where the reader is."""
        self._next = start
        self._handed = max(start - 1, 0)
        """Up to where everything was given to the reader."""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def next(self) -> int:
        """The first revision that has not come; 0: it has not begun, and takes what comes after that."""
        return max(self._next, self.feed.next)

    @next.setter  # noqa: A003 -- the builtin is not used here, and a hub's watch calls it the same
    def next(self, revision: int) -> None:
        self._next = revision

    @property
    def waits(self) -> int:
        """Of how many bytes that have come nothing was read."""
        return self.feed.bytes - self._read

    def step(self) -> bool:
        """The reader goes on to what was told next. False: nothing was."""
        told, hops = self._told, self._hops
        following: Told | None
        if hops and hops[0][0] is told:
            following = hops.popleft()[1]
        else:
            following = told.next
            if following is None:
                return False
        if told.whole:
            self._handed = told.revision
        self._read += following.cost
        self._told, self._at = following, 0
        return True

    def alone(self) -> Feed:
        """Has the watch have a feed of its own, and returns it. What has come is still to be read."""
        feed = self.feed
        feed.forget()
        if len(feed.watches) > 1:
            own = Feed()
            own.watches[self] = None
            del feed.watches[self]
            self._move(own)
            own.look_at = self._read + WATCH_CLIENT_BYTES_MAX
            self._hop(feed.last, own.last)
        else:
            self._next = max(self._next, feed.next)
            feed.next = 0
        return self.feed

    def _move(self, feed: Feed) -> None:
        before = self.feed
        before.waiting.pop(self, None)
        if self._waiter is not None:
            if before.bytes == self._read:
                feed.waiting[self] = None
            else:
                self._wake()  # The feed it leaves has gathered what it was told, and not woken it yet.
        self._next = max(self._next, before.next)
        self._read += feed.bytes - before.bytes
        self.feed = feed

    def _hop(self, end: Told, following: Told) -> None:
        if self._hops is None:
            self._hops = deque()
        self._hops.append((end, following))
        if self._told is end and self._at >= len(end.events):
            self.step()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


Feeds: TypeAlias = "dict[tuple[int, ...], Feed]"
"""By the ids of the watches at the member."""


class Feed:
    """See the module."""

    __slots__ = ("_ids", "_kept", "bytes", "gathers_to", "last", "look_at", "next", "waiting", "watches")

    def __init__(self, kept: Feeds | None = None, ids: tuple[int, ...] = ()) -> None:
        """`kept` has the feed under `ids` until it is forgotten."""
        self._kept, self._ids = kept, ids
        self.last = beginning()
        self.watches: dict[Reading, None] = {}
        self.waiting: dict[Reading, None] = {}
        """Those whose readers wait, and perhaps some that do not any more."""
        self.bytes = 0
        """Of all that was told."""
        self.gathers_to = 0
        """Somebody wakes those who wait soon; at once, when `bytes` are so many. 0: nobody does."""
        self.look_at = WATCH_CLIENT_BYTES_MAX
        """With so many, too much may wait for the slowest."""
        self.next = 0
        """The first revision that has not come; 0: nothing has."""
        if kept is not None:
            kept[ids] = self

    def forget(self) -> None:
        """It is not that of those ids any more."""
        if self._kept is not None:
            del self._kept[self._ids]
            self._kept = None

    def tell(self, told: Told) -> float:
        """Tells all its watches. Returns in how many seconds those who wait are to be woken (`wake`); 0: they are, or
        somebody sees to it already.

        To wake a thousand takes as long as to hand each of them ten events. So what comes in the time that it takes is
        gathered, and told at one go.
        """
        self.last.next = told
        self.last = told
        self.bytes += told.cost
        if told.whole:
            self.next = told.revision + 1
        count = len(self.waiting)
        if count < WATCH_GATHER_WAITING or self.gathers_to:
            if count and self.bytes >= self.gathers_to:
                self.wake()
            return 0.0
        self.gathers_to = self.bytes + WATCH_GATHER_BYTES
        return min(count * WATCH_GATHER_EACH_S, WATCH_GATHER_S)

    def wake(self) -> None:
        """Wakes those who wait."""
        self.gathers_to = 0
        waiting, self.waiting = self.waiting, {}
        for reading in waiting:
            waiter = reading._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def overfull(self) -> list[Reading]:
        """Those for whom more waits than may."""
        if self.bytes <= self.look_at:
            return []
        slowest = self.bytes
        found = []
        for reading in self.watches:
            if self.bytes - reading._read > WATCH_CLIENT_BYTES_MAX:
                found.append(reading)
            elif reading._read < slowest:
                slowest = reading._read
        self.look_at = slowest + WATCH_CLIENT_BYTES_MAX
        return found


def gathered(kept: Feeds, ids: tuple[int, ...], watches: Iterable[Reading]) -> Feed:
    """A feed of these watches, which have those ids. What has come for each is still to be read."""
    feed = Feed(kept, ids)
    coming: dict[Feed, int] = {}
    for watch in watches:
        coming[watch.feed] = coming.get(watch.feed, 0) + 1
    # Nobody else reads these: their chains go on in the new one.
    whole = {before for before, count in coming.items() if count == len(before.watches)}
    for before in coming:
        before.forget()
        if before in whole:
            before.last.next = feed.last
    for watch in watches:
        before = watch.feed
        watch._move(feed)
        feed.watches[watch] = None
        if before not in whole:
            del before.watches[watch]
            watch._hop(before.last, feed.last)
    if feed.watches:
        feed.look_at = min(watch._read for watch in feed.watches) + WATCH_CLIENT_BYTES_MAX
    return feed
