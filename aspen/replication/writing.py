"""`LogWriter`: brings to the journal what the core wants written, one write at a time.

While a write is on its way, what comes makes the next one: group commit. What must wait for a write, messages and the
core's own knowledge of it, is released when it is done, never before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aspen.errors import DiskFull, Overloaded
from aspen.journal import Batch, Journal
from aspen.limits import REPLICATION_WRITE_BYTES_MAX, REPLICATION_WRITE_ENTRIES_MAX
from aspen.raft import Entry, Message, Ready, SnapshotMeta
from aspen.traits import Lane


class _Write:
    """What is written at one stroke."""

    __slots__ = ("batch", "bytes", "entries", "messages", "number", "refill", "seen", "urgent")

    def __init__(self, number: int) -> None:
        self.batch = Batch()
        self.entries: list[Entry] = []
        self.refill: list[Entry] = []
        self.bytes = 0
        self.messages: list[Message] = []
        self.number = number
        self.seen: Any = None
        self.urgent = False

    @property
    def is_full(self) -> bool:
        """Whether the next Ready should begin another."""
        return self.bytes >= REPLICATION_WRITE_BYTES_MAX or len(self.entries) >= REPLICATION_WRITE_ENTRIES_MAX


class Written:
    """What a write has made durable."""

    __slots__ = ("messages", "number", "seen")

    def __init__(self, write: _Write) -> None:
        self.number = write.number
        """The last Ready of which all is durable."""
        self.messages: Sequence[Message] = write.messages
        """They may leave now."""
        self.seen: Any = write.seen
        """What came with the table of members; None when that was not written."""


class LogWriter:
    """See the module. `wake` is called, on the loop, when there is something to `collect`."""

    def __init__(self, lane: Lane, journal: Journal, wake: Callable[[], object], now_ns: Callable[[], int]) -> None:
        self._lane = lane
        self._journal = journal
        self._wake = wake
        self._now_ns = now_ns
        self._waiting: deque[_Write] = deque([_Write(0)])
        """What is to be written; the last one takes what comes."""
        self._writing: _Write | None = None
        self._future: asyncio.Future[int] | None = None
        self._mark: SnapshotMeta | None = None
        self._preparing = False
        self.marked = 0
        """The log is needed above this only: a mark says so, durably."""
        self.began_ns = 0
        """When the write that is under way was begun."""
        self.is_full = False
        """Whether the disk had no room at the last try."""
        self.writes = 0

    @property
    def is_writing(self) -> bool:
        """Whether a write is on its way."""
        return self._writing is not None

    @property
    def is_idle(self) -> bool:
        """Whether all that was given is durable, hints aside."""
        return self._writing is None and not self._waiting[0].urgent and self._mark is None

    @property
    def settled(self) -> int:
        """The number of the last Ready given, if nothing of it is to be waited for; else 0."""
        idle = self._writing is None and not self._waiting[0].urgent
        return self._waiting[0].number if idle else 0

    # -- what is to be written --------------------------------------------------------------------------------

    def add(self, ready: Ready, log_last: int) -> Sequence[Message]:
        """Takes what a Ready wants written; returns the messages that need not wait, when there is nothing to wait for.

        What may be lost is not written for its own sake. `log_last` is the last index of the core's log.
        """
        write = self._waiting[-1]
        if write.is_full or (ready.snapshot is not None and write.urgent):
            write = _Write(write.number)
            self._waiting.append(write)
        batch, entries = write.batch, write.entries
        if ready.hard_state is not None:
            batch.hard_state = ready.hard_state
        if ready.snapshot is not None:
            batch.snapshot = ready.snapshot
            if log_last <= ready.snapshot.index:
                entries.clear()
        if ready.entries:
            first = ready.entries[0].index
            while entries and entries[-1].index >= first:
                entries.pop()
            entries.extend(ready.entries)
            write.bytes += sum([len(entry.data) for entry in ready.entries])
        if ready.refill:
            write.refill.extend(ready.refill)
        write.number = ready.number
        if ready.must_sync:
            write.urgent = True
        if write.urgent:
            write.messages.extend(ready.messages_after_sync)
        elif self._writing is not None:
            self._writing.messages.extend(ready.messages_after_sync)
            self._writing.number = ready.number
        else:
            return ready.messages_after_sync
        return ()

    def add_members(self, data: bytes, seen: Any) -> None:
        """Writes the table of members. `seen` comes back when it is durable."""
        write = self._waiting[-1]
        write.batch.members = data
        write.seen = seen
        write.urgent = True

    def add_mark(self, snapshot: SnapshotMeta) -> None:
        """Writes that the state up to there is kept by the machine; then drops the segments below."""
        if self._mark is None or self._mark.index < snapshot.index:
            self._mark = snapshot

    # -- writing -----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Begins a write, if there is something that needs one and none is under way."""
        if self._writing is None and (self._waiting[0].urgent or self._mark is not None):
            self._begin()

    def force(self) -> None:
        """The same, hints included: before an ordered end."""
        if self._writing is None and self._waiting[0].batch.hard_state is not None:
            self._waiting[0].urgent = True
        self.flush()

    def _begin(self) -> None:
        write = self._writing = self._waiting.popleft()
        if not self._waiting:
            self._waiting.append(_Write(write.number))
        write.batch.entries = write.entries
        write.batch.refill = write.refill
        self._start(write)

    def _start(self, write: _Write) -> None:
        self.began_ns = self._now_ns()
        self.writes += 1
        try:
            work = self._lane.run(_write, self._journal, write.batch, self._mark)
        except Overloaded:
            self.is_full = True  # Tried again, as for a full disk.
            return
        self._future = asyncio.ensure_future(work)
        self._future.add_done_callback(self._finished)

    def _finished(self, future: asyncio.Future[int]) -> None:
        if future is self._future:
            self._wake()

    def collect(self) -> Written | None:
        """What a write that has ended made durable, once; None when none has. Then `flush`, for what waits, when what
        it has released is on its way.

        Raises:
            StorageFailed: the device has failed. Nothing may be said or written any more.
        """
        future, writing = self._future, self._writing
        if future is None or writing is None or not future.done():
            return None
        self._future = None
        error = future.exception()
        if isinstance(error, DiskFull | Overloaded):
            self.is_full = True
            return None
        if error is not None:
            raise error
        self.is_full = False
        self.marked = max(self.marked, future.result())
        if self._mark is not None and self._mark.index <= self.marked:
            self._mark = None
        self._writing = None
        self._prepare()
        return Written(writing)

    def _prepare(self) -> None:
        """Has the next segment made ready, between two writes."""
        if self._journal.wants_spare and self._writing is None:
            work = asyncio.ensure_future(self._lane.run(_prepare, self._journal))
            work.add_done_callback(lambda done: done.exception())  # A failure shows at the next write.

    def retry(self) -> None:
        """Tries again what a full disk has refused."""
        if self._writing is not None and self._future is None:
            self._start(self._writing)


def _write(journal: Journal, batch: Batch, mark: SnapshotMeta | None) -> int:
    """In the lane: one append, one sync. Returns up to where the log is not needed any more.

    A mark goes before, on its own, so that it can make room for the rest.
    """
    if mark is not None:
        journal.write(Batch(snapshot=mark))
        journal.truncate_below(mark.index)
    if (
        batch.hard_state is not None
        or batch.entries
        or batch.snapshot is not None
        or batch.members is not None
        or batch.refill
    ):
        journal.write(batch)
    marks = [one.index for one in (mark, batch.snapshot) if one is not None]
    return max(marks, default=0)


def _prepare(journal: Journal) -> None:
    """In the lane. No room is no failure yet."""
    try:
        journal.prepare()
    except DiskFull:
        return
