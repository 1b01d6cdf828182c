"""`WatchHub`: who is told of which change, in order, each once, none left out. Sans-IO; one for each keyspace.

    hub = WatchHub(read, revision, rng)         `read` is `Machine.events` of one keyspace
    stream = hub.open_stream()                  a client's connection, with room for so many bytes
    hub.watch(stream, id, key, end, ...)
    hub.applied(revision)                       after entries were applied
    hub.catch_up()                              a bounded step for those behind; True: there is more to do
    stream.take()                               what is to be sent, in order
    stream.sent(size)                           it arrived, and there is room again
    hub.jumped(revision)                        another state, of later, has taken the place of the one it read

Watches of a stream with the same range and options form a `Channel`, and get each event once, together: a thousand
watchers on one connection cost the sender as much as one; and channels of several streams that see the same have the
very same events, measured and encoded once. A watch is *level* when it has been given everything up to the hub's
revision; level ones share one reading of each revision. Others are *behind*: they began in the past, or their stream
had no room. They catch up from the history in bounded steps, streams in turn and watches of a stream in turn, so that
nobody starves (etcd 17529); nothing waits for them, and nothing is kept for them, for the history has it. Who falls
behind what is compacted is cancelled, and told so.

A progress mark stands in the stream behind the events it speaks of (etcd 15220). Source of the rules: etcd's `mvcc`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from aspen.errors import Compacted, InvariantBroken, Overloaded, UsageError
from aspen.kv.intervals import Intervals
from aspen.kv.types import FROM_KEY, Event
from aspen.limits import (
    WATCH_CATCH_UP_RANGES,
    WATCH_CATCH_UP_WATCHES,
    WATCH_EVENT_OVERHEAD_BYTES,
    WATCH_FRAGMENT_BYTES,
    WATCH_HUB_BYTES_MAX,
    WATCH_MARK_EXCEPTIONS_MAX,
    WATCH_STREAM_BYTES_MAX,
    WATCH_STREAM_BYTES_MIN,
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


class Created(NamedTuple):
    """A watch has begun: as of `revision` it begins, and start 0 means after that."""

    watch: int
    revision: int


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
    reason: int = 0
    """Otherwise: LAGGED, NO_LEADER or REFUSED."""


LAGGED: Final = 0
"""The client has taken nothing for too long."""
NO_LEADER: Final = 1
"""The member knows no leader, and the watch asked for one."""
REFUSED: Final = 2
"""It was not begun: what was asked for makes no sense, or the connection has too many."""

Delivery: TypeAlias = Events | Created | Progress | Cancelled


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

    __slots__ = ("_bytes", "_flying_bytes", "_hub", "_out", "asked", "behind", "channels", "in_turn", "watches")

    def __init__(self, hub: WatchHub) -> None:
        self._hub = hub
        self.channels: dict[tuple[bytes, bytes | None, Options], Channel] = {}
        self.watches: dict[int, _Watch] = {}
        self.behind: dict[_Watch, None] = {}
        """In turn."""
        self.in_turn = False
        """Whether the hub has it among those whose watches catch up."""
        self.asked: set[int] = set()
        """Watches that get a progress mark as soon as they are level."""
        self._out: deque[tuple[Delivery, int]] = deque()
        self._bytes = 0
        """Of what waits in `_out`."""
        self._flying_bytes = 0
        """Of what was taken and has not arrived."""

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be added. One may be larger than the room left: a revision is whole."""
        room = WATCH_STREAM_BYTES_MAX if self._hub.held_bytes < WATCH_HUB_BYTES_MAX else WATCH_STREAM_BYTES_MIN
        return self._bytes + self._flying_bytes < room

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._out)

    def add(self, delivery: Delivery, size: int = WATCH_EVENT_OVERHEAD_BYTES) -> None:
        """Puts a delivery behind the others."""
        if not self._out:
            self._hub.ready[self] = None
        self._out.append((delivery, size))
        self._bytes += size
        self._hub.held_bytes += size

    def take(self, size_max: int = WATCH_STREAM_BYTES_MAX * 2) -> tuple[list[Delivery], int]:
        """What waits, in order, one delivery at least and else no more than `size_max` bytes; and its size, which is
        on its way until `sent` is called with it."""
        deliveries: list[Delivery] = []
        size, out = 0, self._out
        while out and (not deliveries or size + out[0][1] <= size_max):
            delivery, bytes_ = out.popleft()
            deliveries.append(delivery)
            size += bytes_
        if not out:
            self._hub.ready.pop(self, None)
        self._bytes -= size
        self._flying_bytes += size
        return deliveries, size

    def sent(self, size: int) -> None:
        """So many bytes have arrived."""
        self._flying_bytes -= size
        self._hub.held_bytes -= size
        if self._flying_bytes < 0:
            raise InvariantBroken("more of a watch stream arrived than was sent")

    def drop(self) -> None:
        """Forgets what waits and what is on its way: the client is gone."""
        self._out.clear()
        self._hub.ready.pop(self, None)
        self._hub.held_bytes -= self._bytes + self._flying_bytes
        self._bytes = self._flying_bytes = 0

    def mark(self) -> tuple[int, tuple[int, ...]] | None:
        """Up to where all watches have been given everything, but those named: a progress mark of the stream as a
        whole. None: something waits to be taken, or too many are behind."""
        if self._out or len(self.behind) > WATCH_MARK_EXCEPTIONS_MAX:
            return None
        return self._hub.revision, tuple(watch.id for watch in self.behind)


def _size(events: Sequence[Event]) -> int:
    size = WATCH_EVENT_OVERHEAD_BYTES
    for _, kv, prev in events:
        size += len(kv.key) + len(kv.value) + WATCH_EVENT_OVERHEAD_BYTES
        if prev is not None:
            size += len(prev.key) + len(prev.value) + WATCH_EVENT_OVERHEAD_BYTES
    return size


class _Cohort:
    """Watches of one channel that are behind by as much: what they are to be given is the same."""

    __slots__ = ("channel", "full", "next", "watches")

    def __init__(self, channel: Channel, start: int) -> None:
        self.channel = channel
        self.next = start
        self.watches: list[_Watch] = []
        self.full = False
        """Whether the stream had no room any more."""


class WatchHub:
    """See the module."""

    def __init__(self, read: Callable[[int, bool], Revisions], revision: int, rng: RandomStream) -> None:
        """`read(start, prev_kv)` gives whole revisions from `start` on, a bounded number; raises Compacted."""
        self._read = read
        self._revision = revision
        self._ranges: Intervals[dict[Channel, None]] = Intervals(rng)
        self._groups: dict[tuple[bytes, bytes | None], dict[Channel, None]] = {}
        """Channels by range, in the order in which they were made."""
        self._turns: deque[Stream] = deque()
        """Streams with watches that are behind."""
        self._level = self._count = 0
        self._prev_kv = 0
        """How many watches want what was replaced."""
        self.held_bytes = 0
        """Of all streams together."""
        self.ready: dict[Stream, None] = {}
        """Streams with something to take, in the order in which they got it."""

    @property
    def revision(self) -> int:
        """Up to where level watches have been told."""
        return self._revision

    def __len__(self) -> int:
        return self._count

    @property
    def behind(self) -> bool:
        """Whether watches are behind whose streams have room: `catch_up` has something to do."""
        return any(stream.behind and stream.has_room for stream in self._turns)

    @property
    def level(self) -> int:
        """How many watches have been given everything."""
        return self._level

    def open_stream(self) -> Stream:
        """A new stream."""
        return Stream(self)

    def close_stream(self, stream: Stream) -> None:
        """Ends all watches of a stream, without a word."""
        for watch_id in list(stream.watches):
            self.cancel(stream, watch_id)
        stream.drop()

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
        self._count += 1
        if watch.next <= self._revision:
            self._queue(watch)
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
        self._count -= 1
        if not watch.behind:
            self._level -= 1
        watch.behind = False
        stream.behind.pop(watch, None)
        stream.asked.discard(watch_id)
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
        cohorts = self._next_behind()
        if not cohorts:
            return False
        try:
            start = min(cohort.next for cohort in cohorts)
            self._replay(cohorts, self._read(start, any(cohort.channel.options.prev_kv for cohort in cohorts)))
        except Compacted as error:
            for cohort in cohorts:
                if cohort.next < error.compact_revision:
                    for watch in cohort.watches:
                        self._end(watch, error.compact_revision)
        return True

    def jumped(self, revision: int) -> None:
        """Another state has taken the place of the one that was read, and is at `revision`: what lies between is told
        from its history. Whose next revision that does not have any more is cancelled in `catch_up`."""
        if revision < self._revision:
            raise InvariantBroken(f"watches were told of revision {self._revision}, and the new state has {revision}")
        for group in list(self._groups.values()):
            for channel in group:
                for watch in channel.watches.values():
                    if not watch.behind and watch.next <= revision:
                        watch.next = max(watch.next, self._revision + 1)
                        if watch.next <= revision:
                            self._queue(watch)
                            self._level -= 1
                channel.changed()
        self._revision = revision

    def progress(self, stream: Stream) -> bool:
        """Puts a progress mark behind what waits in a stream, for its level watches. False: it has none."""
        ids = tuple(
            watch.id for watch in stream.watches.values() if not watch.behind and watch.next <= self._revision + 1
        )
        if ids:
            stream.add(Progress(ids, self._revision))
        return bool(ids)

    def ask_progress(self, stream: Stream, watch_id: int) -> None:
        """Has a progress mark come for a watch: behind what waits if it is level, else as soon as it is."""
        watch = stream.watches.get(watch_id)
        if watch is not None and watch.behind:
            stream.asked.add(watch_id)
        elif watch is not None:
            stream.add(Progress((watch_id,), self._revision))

    def give_up(self, stream: Stream) -> int:
        """Cancels the watches of a stream that are behind, each with the revision to resume from; returns how many.

        For a client that has taken nothing for too long.
        """
        behind = list(stream.behind)
        for watch in behind:
            self._end(watch, 0)
        return len(behind)

    def is_level(self, stream: Stream) -> bool:
        """Whether all watches of a stream have been given everything up to the hub's revision."""
        return not stream.behind

    # -- delivery ---------------------------------------------------------------------------

    def _tell(self, revision: int, events: Sequence[Event]) -> None:
        seen: dict[Channel, list[Event]] = {}
        if len(events) == 1:
            self._tell_one(revision, events[0])
            return
        for event in events:
            for group in self._ranges.holding(event.kv.key):
                for channel in group:
                    wanted = channel.wanted(event)
                    if wanted is not None:
                        seen.setdefault(channel, []).append(wanted)
        shared: dict[tuple[Event, ...], tuple[tuple[Event, ...], int]] = {}
        for channel, wanted_events in seen.items():
            ids = channel.level_ids(revision)
            if ids:
                told = tuple(wanted_events)
                told, size = shared.get(told) or shared.setdefault(told, (told, _size(told)))
                self._give(channel, ids, revision, told, size)

    def _tell_one(self, revision: int, event: Event) -> None:
        """The common case: a revision of one event."""
        told: dict[Options, tuple[tuple[Event, ...], int] | None] = {}
        for group in self._ranges.holding(event.kv.key):
            for channel in group:
                options = channel.options
                if options in told:
                    found = told[options]
                else:
                    wanted = channel.wanted(event)
                    found = told[options] = None if wanted is None else ((wanted,), _size((wanted,)))
                if found is not None:
                    ids = channel.level_ids(revision)
                    if ids:
                        self._give(channel, ids, revision, *found)

    def _give(
        self, channel: Channel, ids: tuple[int, ...], revision: int, events: tuple[Event, ...], size: int
    ) -> None:
        stream = channel.stream
        if not stream.has_room:
            self._fall_behind(channel, ids, revision)
        elif not channel.options.fragment or size <= WATCH_FRAGMENT_BYTES:
            stream.add(Events(ids, revision, events), size)
        else:
            for part in _cut(ids, revision, events):
                stream.add(part, _size(part.events))

    def _fall_behind(self, channel: Channel, ids: tuple[int, ...], revision: int) -> None:
        for watch_id in ids:
            watch = channel.watches[watch_id]
            watch.next = revision
            self._queue(watch)
            self._level -= 1
        channel.changed()

    def _queue(self, watch: _Watch) -> None:
        """Puts a watch behind those of its stream that are behind."""
        stream = watch.channel.stream
        watch.behind = True
        stream.behind[watch] = None
        if not stream.in_turn:
            stream.in_turn = True
            self._turns.append(stream)

    def _next_behind(self) -> list[_Cohort]:
        """Some that are behind and whose streams have room. Each stream is looked at once, and gets its turn again when
        all others have had theirs."""
        cohorts: dict[tuple[Channel, int], _Cohort] = {}
        ranges = taken = 0
        turns = self._turns
        for _ in range(len(turns)):
            stream = turns.popleft()
            if not stream.behind:
                stream.in_turn = False
                continue
            turns.append(stream)
            if not stream.has_room:
                continue
            chosen = []
            for watch in islice(stream.behind, WATCH_CATCH_UP_WATCHES - taken):
                channel = watch.channel
                cohort = cohorts.get((channel, watch.next))
                if cohort is None:
                    is_range = channel.end is None or channel.end != channel.key + b"\0"
                    if is_range and ranges >= WATCH_CATCH_UP_RANGES:
                        break
                    ranges += is_range
                    cohort = cohorts[channel, watch.next] = _Cohort(channel, watch.next)
                cohort.watches.append(watch)
                chosen.append(watch)
            taken += len(chosen)
            for watch in chosen:  # The others are before them next time.
                del stream.behind[watch]
                stream.behind[watch] = None
            if taken >= WATCH_CATCH_UP_WATCHES or ranges >= WATCH_CATCH_UP_RANGES:
                break
        return list(cohorts.values())

    def _replay(self, cohorts: list[_Cohort], page: Revisions) -> None:
        """Gives a page of the history to watches that are behind. It begins where the one farthest behind is."""
        points: dict[bytes, list[_Cohort]] = {}
        ranges: list[_Cohort] = []
        for cohort in cohorts:
            channel = cohort.channel
            if channel.end == channel.key + b"\0":
                points.setdefault(channel.key, []).append(cohort)
            else:
                ranges.append(cohort)
        last = page[-1][0] if page else self._revision
        for revision, events in page:
            if revision > self._revision:
                break
            seen: dict[_Cohort, list[Event]] = {}
            for event in events:
                key = event.kv.key
                for cohort in points.get(key, ()):
                    _see(seen, cohort, revision, event)
                for cohort in ranges:
                    if cohort.channel.holds(key):
                        _see(seen, cohort, revision, event)
            for cohort, wanted in seen.items():
                channel = cohort.channel
                if not channel.stream.has_room:
                    cohort.full = True
                    cohort.next = revision
                    continue
                ids, told = tuple(watch.id for watch in cohort.watches), tuple(wanted)
                self._give(channel, ids, revision, told, _size(told))
                cohort.next = revision + 1
        for cohort in cohorts:
            if not cohort.full:
                # The page has no more: it may begin after `next`, when revisions changed nothing that is kept.
                cohort.next = max(cohort.next, min(last, self._revision) + 1)
            self._moved(cohort)

    def _moved(self, cohort: _Cohort) -> None:
        """Watches that were behind have been given what lies before `next`."""
        stream, level = cohort.channel.stream, cohort.next > self._revision
        for watch in cohort.watches:
            watch.next = cohort.next
            if level:
                watch.behind = False
                del stream.behind[watch]
                if watch.id in stream.asked:
                    stream.asked.discard(watch.id)
                    stream.add(Progress((watch.id,), self._revision))
        if level:
            self._level += len(cohort.watches)
            cohort.channel.changed()

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


def _see(seen: dict[_Cohort, list[Event]], cohort: _Cohort, revision: int, event: Event) -> None:
    if revision >= cohort.next and not cohort.full:
        wanted = cohort.channel.wanted(event)
        if wanted is not None:
            seen.setdefault(cohort, []).append(wanted)


def _cut(ids: tuple[int, ...], revision: int, events: Sequence[Event]) -> Iterator[Events]:
    """One revision in several deliveries, as its events are many."""
    part: list[Event] = []
    size = 0
    for event in events:
        more = _size((event,))
        size += more
        if part and size > WATCH_FRAGMENT_BYTES:
            yield Events(ids, revision, tuple(part), more=True)
            part, size = [], more
        part.append(event)
    yield Events(ids, revision, tuple(part))
