"""What the watches of one client are: what they are told, `Channel`s of those that see the same, and their `Stream`.

`aspen.kv.watching` decides what they are told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from aspen.errors import InvariantBroken
from aspen.kv.types import Event
from aspen.limits import (
    WATCH_EVENT_OVERHEAD_BYTES,
    WATCH_HUB_BYTES_MAX,
    WATCH_MARK_EXCEPTIONS_MAX,
    WATCH_STREAM_BYTES_MAX,
    WATCH_STREAM_BYTES_MIN,
)


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


class HubWatch:
    """A watch as the hub has it."""

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
        self.watches: dict[int, HubWatch] = {}
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

    def __init__(self, hub: Any) -> None:
        """`hub` is the `WatchHub`."""
        self._hub = hub
        self.channels: dict[tuple[bytes, bytes | None, Options], Channel] = {}
        self.watches: dict[int, HubWatch] = {}
        self.behind: dict[HubWatch, None] = {}
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


def size_of(events: Sequence[Event]) -> int:
    """What events count, in bytes."""
    size = WATCH_EVENT_OVERHEAD_BYTES
    for _, kv, prev in events:
        size += len(kv.key) + len(kv.value) + WATCH_EVENT_OVERHEAD_BYTES
        if prev is not None:
            size += len(prev.key) + len(prev.value) + WATCH_EVENT_OVERHEAD_BYTES
    return size
