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
from typing import TypeAlias

from aspen.errors import Compacted, InvariantBroken, Overloaded, UsageError
from aspen.kv.intervals import Intervals
from aspen.kv.types import FROM_KEY, Event
from aspen.kv.watch_streams import (
    ALL,
    LAGGED,
    NO_LEADER,
    REFUSED,
    Cancelled,
    Channel,
    Created,
    Delivery,
    Events,
    HubWatch,
    Options,
    Progress,
    Stream,
    size_of,
)
from aspen.limits import (
    WATCH_CATCH_UP_RANGES,
    WATCH_CATCH_UP_WATCHES,
    WATCH_FRAGMENT_BYTES,
    WATCHES_PER_STREAM_MAX,
)
from aspen.traits import RandomStream

__all__ = (
    "ALL",
    "LAGGED",
    "NO_LEADER",
    "REFUSED",
    "Cancelled",
    "Channel",
    "Created",
    "Delivery",
    "Events",
    "Options",
    "Progress",
    "Revisions",
    "Stream",
    "WatchHub",
)

Revisions: TypeAlias = "Sequence[tuple[int, Sequence[Event]]]"
"""Whole revisions in order, each with its events."""


class _Cohort:
    """Watches of one channel that are behind by as much: what they are to be given is the same."""

    __slots__ = ("channel", "full", "next", "watches")

    def __init__(self, channel: Channel, start: int) -> None:
        self.channel = channel
        self.next = start
        self.watches: list[HubWatch] = []
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
        watch = HubWatch(watch_id, self._channel(stream, key, stop, options), start or self._revision + 1)
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
                told, size = shared.get(told) or shared.setdefault(told, (told, size_of(told)))
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
                    found = told[options] = None if wanted is None else ((wanted,), size_of((wanted,)))
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
                stream.add(part, size_of(part.events))

    def _fall_behind(self, channel: Channel, ids: tuple[int, ...], revision: int) -> None:
        for watch_id in ids:
            watch = channel.watches[watch_id]
            watch.next = revision
            self._queue(watch)
            self._level -= 1
        channel.changed()

    def _queue(self, watch: HubWatch) -> None:
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
                self._give(channel, ids, revision, told, size_of(told))
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

    def _end(self, watch: HubWatch, compact_revision: int) -> None:
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
        more = size_of((event,))
        size += more
        if part and size > WATCH_FRAGMENT_BYTES:
            yield Events(ids, revision, tuple(part), more=True)
            part, size = [], more
        part.append(event)
    yield Events(ids, revision, tuple(part))
