"""`WatchHub`: who is told of which change, in order, each once, none left out. Sans-IO; one for each keyspace.

    hub = WatchHub(read, revision, rng)         `read` is `Machine.events` of one keyspace
    stream = hub.open_stream()                  a client's connection, with room for so many bytes
    hub.watch(stream, id, key, end, ...)
    hub.applied(revision)                       after entries were applied
    hub.catch_up()                              a bounded step for those behind; True: there is more to do
    stream.take()                               what is to be sent, in order
    stream.sent(size)                           it arrived, and there is room again

Watches of a stream with the same range and options form a `Channel`, and get each event once, together: a thousand
watchers on one connection cost the sender as much as one. A watch is *level* when it has been given everything up to
the hub's revision; level ones share one reading of each revision. Others are *behind*: they began in the past, or their
stream had no room. They catch up from the history in bounded steps, in turn, so that nobody starves (etcd 17529);
nothing waits for them, and nothing is kept for them, for the history has it. Who falls behind what is compacted is
cancelled, and told so.

A progress mark stands in the stream behind the events it speaks of (etcd 15220). Source of the rules: etcd's `mvcc`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from aspen.errors import Compacted, InvariantBroken, Overloaded, UsageError
from aspen.kv.intervals import Intervals
from aspen.kv.types import FROM_KEY, Event
from aspen.limits import (
    WATCH_CATCH_UP_WATCHES,
    WATCH_EVENT_OVERHEAD_BYTES,
    WATCH_FRAGMENT_BYTES,
    WATCH_STREAM_BYTES_MAX,
    WATCHES_PER_STREAM_MAX,
)
from aspen.traits import RandomStream

Revisions: TypeAlias = "Sequence[tuple[int, Sequence[Event]]]"
"""Whole revisions in order, each with its events."""


class Events(NamedTuple):
    """What happened at one revision in the range of these watches."""

    watches: tuple[int, ...]
    revision: int
    events: tuple[Event, ...]
    more: bool = False
    """More of the same revision follows: only to watches that asked for fragments."""


class Progress(NamedTuple):
    """These watches have been given everything up to `revision`."""

    watches: tuple[int, ...]
    revision: int


class Cancelled(NamedTuple):
    """A watch has ended. Start a new one from `resume` to miss nothing."""

    watch: int
    resume: int
    compact_revision: int = 0
    """Not 0: what `resume` asks for is compacted. Read the state at this revision or later and watch from there."""


Delivery: TypeAlias = Events | Progress | Cancelled


class Options(NamedTuple):
    """What a watch wants to see."""

    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    fragment: bool = False


ALL: Final = Options()
"""Puts and deletions, without what they replaced, each revision whole."""


class _Watch:
    __slots__ = ("behind", "channel", "id", "next")

    def __init__(self, watch_id: int, channel: Channel, start: int) -> None:
        self.id = watch_id
        self.channel = channel
        self.next = start
        """The first revision that it has not been given; of a level one, that it does not want before."""
        self.behind = False


class Channel:
    """The watches of one stream with one range and the same options."""

    __slots__ = ("_ids", "end", "key", "options", "stream", "watches")

    def __init__(self, stream: Stream, key: bytes, end: bytes | None, options: Options) -> None:
        self.stream = stream
        self.key = key
        self.end = end
        self.options = options
        self.watches: dict[int, _Watch] = {}
        self._ids: tuple[int, ...] | None = None

    def changed(self) -> None:
        """Watches came, went, or fell behind."""
        self._ids = None

    def level_ids(self, revision: int) -> tuple[int, ...]:
        """The level watches that want this revision."""
        if self._ids is None:
            level = [watch for watch in self.watches.values() if not watch.behind]
            ids = tuple(watch.id for watch in level if watch.next <= revision)
            if len(ids) < len(level):
                return ids
            self._ids = ids
        return self._ids

    def holds(self, key: bytes) -> bool:
        """Whether a key is in the range."""
        return self.key <= key and (self.end is None or key < self.end)

    def wanted(self, event: Event) -> Event | None:
        """The event as these watches see it; None: they do not."""
        if self.options.no_delete if event.is_delete else self.options.no_put:
            return None
        return event if self.options.prev_kv or event.prev_kv is None else event._replace(prev_kv=None)


class Stream:
    """What goes to one client, in order, and the room it has."""

    __slots__ = ("_bytes", "_flying_bytes", "_out", "channels", "watches")

    def __init__(self) -> None:
        self.channels: dict[tuple[bytes, bytes | None, Options], Channel] = {}
        self.watches: dict[int, _Watch] = {}
        self._out: deque[tuple[Delivery, int]] = deque()
        self._bytes = 0
        """Of what waits in `_out`."""
        self._flying_bytes = 0
        """Of what was taken and has not arrived."""

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be added. One may be larger than the room left: a revision is whole."""
        return self._bytes + self._flying_bytes < WATCH_STREAM_BYTES_MAX

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._out)

    def add(self, delivery: Delivery) -> None:
        """Puts a delivery behind the others."""
        size = _size(delivery)
        self._out.append((delivery, size))
        self._bytes += size

    def take(self) -> tuple[list[Delivery], int]:
        """All that waits, in order, and its size in bytes, which is on its way until `sent` is called with it."""
        deliveries = [delivery for delivery, _ in self._out]
        size, self._bytes = self._bytes, 0
        self._out.clear()
        self._flying_bytes += size
        return deliveries, size

    def sent(self, size: int) -> None:
        """So many bytes have arrived."""
        self._flying_bytes -= size
        if self._flying_bytes < 0:
            raise InvariantBroken("more of a watch stream arrived than was sent")


def _size(delivery: Delivery) -> int:
    size = WATCH_EVENT_OVERHEAD_BYTES
    if isinstance(delivery, Events):
        for _, kv, prev in delivery.events:
            size += len(kv.key) + len(kv.value) + WATCH_EVENT_OVERHEAD_BYTES
            if prev is not None:
                size += len(prev.key) + len(prev.value) + WATCH_EVENT_OVERHEAD_BYTES
    return size


class WatchHub:
    """See the module."""

    def __init__(self, read: Callable[[int, bool], Revisions], revision: int, rng: RandomStream) -> None:
        """`read(start, prev_kv)` gives whole revisions from `start` on, a bounded number; raises Compacted."""
        self._read = read
        self._revision = revision
        self._ranges: Intervals[dict[Channel, None]] = Intervals(rng)
        self._groups: dict[tuple[bytes, bytes | None], dict[Channel, None]] = {}
        """Channels by range, in the order in which they were made."""
        self._behind: deque[_Watch] = deque()
        """In turn. A watch that was cancelled stays until it comes up."""
        self._level = 0
        self._prev_kv = 0
        """How many watches want what was replaced."""

    @property
    def revision(self) -> int:
        """Up to where level watches have been told."""
        return self._revision

    @property
    def behind(self) -> bool:
        """Whether watches may have to catch up."""
        return bool(self._behind)

    @property
    def level(self) -> int:
        """How many watches have been given everything."""
        return self._level

    def open_stream(self) -> Stream:
        """A new stream."""
        return Stream()

    def close_stream(self, stream: Stream) -> None:
        """Ends all watches of a stream, without a word."""
        for watch_id in list(stream.watches):
            self.cancel(stream, watch_id)

    def watch(
        self, stream: Stream, watch_id: int, key: bytes, end: bytes = b"", start: int = 0, options: Options = ALL
    ) -> int:
        """Begins a watch on `[key, end)`, as in a range request, and returns the revision as of which it begins.

        `start` 0 is "after that revision": what happened before the watch was made is not seen. Else the first
        revision to be seen, in the past or to come. What is past may be compacted: the watch is cancelled then.

        Raises:
            UsageError: the id is in use in this stream, or the range is empty; says which.
            Overloaded: the stream has too many watches.
        """
        if watch_id in stream.watches:
            raise UsageError(f"watch {watch_id} is there already; choose another id")
        if not key:
            raise UsageError("a watch needs a key; all keys are key=b'\\0', end=b'\\0'")
        if end and end != FROM_KEY and end <= key:
            raise UsageError("the range of the watch is empty: its end is not after its key")
        if start < 0:
            raise UsageError(f"a watch cannot start at revision {start}")
        if len(stream.watches) >= WATCHES_PER_STREAM_MAX:
            raise Overloaded(f"a connection has at most {WATCHES_PER_STREAM_MAX} watches; open another")
        stop = key + b"\0" if not end else None if end == FROM_KEY else end
        watch = _Watch(watch_id, self._channel(stream, key, stop, options), start or self._revision + 1)
        stream.watches[watch_id] = watch
        watch.channel.watches[watch_id] = watch
        watch.channel.changed()
        self._prev_kv += options.prev_kv
        if watch.next <= self._revision:
            watch.behind = True
            self._behind.append(watch)
        else:
            self._level += 1
        return self._revision

    def cancel(self, stream: Stream, watch_id: int) -> int | None:
        """Ends a watch. Returns the first revision it has not been given; None: it was not there."""
        watch = stream.watches.pop(watch_id, None)
        if watch is None:
            return None
        resume = watch.next if watch.behind else max(watch.next, self._revision + 1)
        channel = watch.channel
        del channel.watches[watch_id]
        channel.changed()
        self._prev_kv -= channel.options.prev_kv
        if not watch.behind:
            self._level -= 1
        watch.behind = False
        if not channel.watches:
            self._drop(channel)
        return resume

    def applied(self, revision: int) -> None:
        """Tells level watches of all revisions up to this one, which the history has. Never raises Compacted:
        call it before a compaction is applied."""
        if revision < self._revision:
            raise InvariantBroken(f"watches were told of revision {self._revision}, and now of {revision}")
        if not self._level:
            self._revision = revision
        while self._revision < revision:
            page = self._read(self._revision + 1, self._prev_kv > 0)
            if not page:
                raise InvariantBroken(f"the history has no revision {self._revision + 1}, but {revision} was applied")
            for number, events in page:
                if number > revision:
                    break
                self._tell(number, events)
                self._revision = number

    def catch_up(self) -> bool:
        """One page of the history for some of those behind. True: there is more to do now; False: nobody is behind,
        or their streams have no room."""
        watches = self._next_behind()
        if not watches:
            return False
        try:
            start = min(watch.next for watch in watches)
            self._replay(watches, self._read(start, any(watch.channel.options.prev_kv for watch in watches)))
        except Compacted as error:
            for watch in watches:
                if watch.next < error.compact_revision:
                    self._end(watch, error.compact_revision)
                else:
                    self._behind.append(watch)
        return True

    def progress(self, stream: Stream) -> bool:
        """Puts a progress mark behind what waits in a stream, for its level watches. False: it has none."""
        ids = tuple(
            watch.id for watch in stream.watches.values() if not watch.behind and watch.next <= self._revision + 1
        )
        if ids:
            stream.add(Progress(ids, self._revision))
        return bool(ids)

    def give_up(self, stream: Stream) -> int:
        """Cancels the watches of a stream that are behind, each with the revision to resume from; returns how many.

        For a client that has taken nothing for too long.
        """
        behind = [watch for watch in stream.watches.values() if watch.behind]
        for watch in behind:
            self._end(watch, 0)
        return len(behind)

    def is_level(self, stream: Stream) -> bool:
        """Whether all watches of a stream have been given everything up to the hub's revision."""
        return not any(watch.behind for watch in stream.watches.values())

    # -- delivery ---------------------------------------------------------------------------

    def _tell(self, revision: int, events: Sequence[Event]) -> None:
        seen: dict[Channel, list[Event]] = {}
        for event in events:
            for group in self._ranges.holding(event.kv.key):
                for channel in group:
                    wanted = channel.wanted(event)
                    if wanted is not None:
                        seen.setdefault(channel, []).append(wanted)
        for channel, wanted_events in seen.items():
            ids = channel.level_ids(revision)
            if not ids:
                continue
            if channel.stream.has_room:
                for delivery in _cut(ids, revision, wanted_events, channel.options.fragment):
                    channel.stream.add(delivery)
            else:
                self._fall_behind(channel, ids, revision)

    def _fall_behind(self, channel: Channel, ids: tuple[int, ...], revision: int) -> None:
        for watch_id in ids:
            watch = channel.watches[watch_id]
            watch.next = revision
            watch.behind = True
            self._behind.append(watch)
            self._level -= 1
        channel.changed()

    def _next_behind(self) -> list[_Watch]:
        """Some that are behind and whose streams have room, taken out of the queue; each is looked at once."""
        chosen: list[_Watch] = []
        behind = self._behind
        for _ in range(len(behind)):
            watch = behind.popleft()
            if not watch.behind:
                continue  # cancelled meanwhile
            if watch.channel.stream.has_room:
                chosen.append(watch)
                if len(chosen) == WATCH_CATCH_UP_WATCHES:
                    break
            else:
                behind.append(watch)
        return chosen

    def _replay(self, watches: list[_Watch], page: Revisions) -> None:
        """Gives a page of the history to watches that are behind. It begins where the one farthest behind is."""
        last = page[-1][0] if page else self._revision
        for watch in watches:
            channel = watch.channel
            for revision, events in page:
                if revision < watch.next or revision > self._revision:
                    continue
                if not channel.stream.has_room:
                    break
                wanted = [seen for event in events if channel.holds(event.kv.key) and (seen := channel.wanted(event))]
                for delivery in _cut((watch.id,), revision, wanted, channel.options.fragment) if wanted else ():
                    channel.stream.add(delivery)
                watch.next = revision + 1
            else:
                # The page has no more: it may begin after `next`, when revisions changed nothing that is kept.
                watch.next = max(watch.next, min(last, self._revision) + 1)
            if watch.next > self._revision:
                watch.behind = False
                channel.changed()
                self._level += 1
            else:
                self._behind.append(watch)

    def _end(self, watch: _Watch, compact_revision: int) -> None:
        resume, stream = watch.next, watch.channel.stream
        self.cancel(stream, watch.id)
        stream.add(Cancelled(watch.id, resume, compact_revision))

    # -- channels -----------------------------------------------------------------------------

    def _channel(self, stream: Stream, key: bytes, end: bytes | None, options: Options) -> Channel:
        channel = stream.channels.get((key, end, options))
        if channel is None:
            channel = stream.channels[key, end, options] = Channel(stream, key, end, options)
            group = self._groups.get((key, end))
            if group is None:
                group = self._groups[key, end] = {}
                self._ranges.add(key, end, group)
            group[channel] = None
        return channel

    def _drop(self, channel: Channel) -> None:
        del channel.stream.channels[channel.key, channel.end, channel.options]
        group = self._groups[channel.key, channel.end]
        del group[channel]
        if not group:
            del self._groups[channel.key, channel.end]
            self._ranges.remove(channel.key, channel.end)


def _cut(ids: tuple[int, ...], revision: int, events: list[Event], fragment: bool) -> Iterator[Events]:
    """One delivery, or several when fragments were asked for and the events are many."""
    if not fragment:
        yield Events(ids, revision, tuple(events))
        return
    part: list[Event] = []
    size = 0
    for event in events:
        size += len(event.kv.key) + len(event.kv.value) + WATCH_EVENT_OVERHEAD_BYTES
        if part and size > WATCH_FRAGMENT_BYTES:
            yield Events(ids, revision, tuple(part), more=True)
            part, size = [], len(event.kv.key) + len(event.kv.value) + WATCH_EVENT_OVERHEAD_BYTES
        part.append(event)
    yield Events(ids, revision, tuple(part))
