"""`LogWriter`: brings to the journal what the core wants written, one write at a time.

While a write is on its way, what comes makes the next one: group commit. What must wait for a write, messages and the
core's own knowledge of it, is released when it is done, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aspen.errors import DiskFull, Overloaded
from aspen.journal import Batch, Journal
from aspen.raft import Entry, Message, Ready, SnapshotMeta
from aspen.traits import Lane


class _Pending:
    """What the next write takes."""

    __slots__ = ("batch", "entries", "messages", "number", "refill", "seen", "urgent")

    def __init__(self) -> None:
        self.batch = Batch()
        self.entries: list[Entry] = []
        self.refill: list[Entry] = []
        self.messages: list[Message] = []
        self.number = 0
        self.seen: Any = None
        self.urgent = False


class Written:
    """What a write has made durable."""

    __slots__ = ("messages", "number", "seen")

    def __init__(self, pending: _Pending) -> None:
        self.number = pending.number
        """The last Ready of which all is durable."""
        self.messages: Sequence[Message] = pending.messages
        """They may leave now."""
        self.seen: Any = pending.seen
        """What came with the table of members; None when that was not written."""
        self.mark = pending.batch.snapshot.index if pending.batch.snapshot is not None else 0
        """The log is needed above this only; 0 when nothing is known of that."""


class LogWriter:
    """See the module. `wake` is called, on the loop, when there is something to `collect`."""

    def __init__(self, lane: Lane, journal: Journal, wake: Callable[[], object], now_ns: Callable[[], int]) -> None:
        self._lane = lane
        self._journal = journal
        self._wake = wake
        self._now_ns = now_ns
        self._pending = _Pending()
        self._writing: _Pending | None = None
        self._future: asyncio.Future[None] | None = None
        self._done = False
        self._truncate_below = 0
        self._truncating = 0
        self.began_ns = 0
        """When the write that is under way began."""
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
        return self._writing is None and not self._pending.urgent

    # -- what is to be written --------------------------------------------------------------------------------

    def add(self, ready: Ready, log_last: int) -> Sequence[Message]:
        """Takes what a Ready wants written; returns the messages that need not wait, when there is nothing to wait for.

        What may be lost is not written for its own sake. `log_last` is the last index of the core's log.
        """
        pending, batch = self._pending, self._pending.batch
        if ready.hard_state is not None:
            batch.hard_state = ready.hard_state
        if ready.snapshot is not None:
            batch.snapshot = ready.snapshot
            # What the log keeps above the snapshot stays; when it was emptied, so is what waits here.
            stays = log_last > ready.snapshot.index
            pending.entries = [one for one in pending.entries if stays and one.index > ready.snapshot.index]
        if ready.entries:
            first = ready.entries[0].index
            while pending.entries and pending.entries[-1].index >= first:
                pending.entries.pop()
            pending.entries.extend(ready.entries)
        pending.refill.extend(ready.refill)
        pending.number = ready.number
        if ready.must_sync or ready.entries or ready.refill or ready.snapshot is not None:
            pending.urgent = True
        if pending.urgent:
            pending.messages.extend(ready.messages_after_sync)
        elif self._writing is not None:
            self._writing.messages.extend(ready.messages_after_sync)
            self._writing.number = ready.number
        else:
            return ready.messages_after_sync
        return ()

    @property
    def settled(self) -> int:
        """The number of the last Ready that waits for nothing, when there is no write: 0 otherwise."""
        return self._pending.number if self.is_idle else 0

    def add_members(self, data: bytes, seen: Any) -> None:
        """Writes the table of members. `seen` comes back when it is durable."""
        self._pending.batch.members = data
        self._pending.seen = seen
        self._pending.urgent = True

    def add_mark(self, snapshot: SnapshotMeta) -> None:
        """Writes that the state up to there is kept by the machine; then drops the segments below."""
        mark = self._pending.batch.snapshot
        if mark is None or mark.index < snapshot.index:
            self._pending.batch.snapshot = snapshot
            self._truncate_below = snapshot.index
            self._pending.urgent = True

    # -- writing -----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Begins a write, if there is something that needs one and none is under way."""
        if self._writing is None and self._pending.urgent:
            self._begin()

    def force(self) -> None:
        """The same, hints included: before an ordered end."""
        batch = self._pending.batch
        if self._writing is None and (self._pending.urgent or batch.hard_state is not None):
            self._begin()

    def _begin(self) -> None:
        pending = self._writing = self._pending
        self._pending = _Pending()
        self._pending.number = pending.number
        pending.batch.entries = pending.entries
        self._truncating, self._truncate_below = self._truncate_below, 0
        self._start(pending)

    def _start(self, pending: _Pending) -> None:
        self.began_ns = self._now_ns()
        self._done = False
        self.writes += 1
        try:
            work = self._lane.run(_write, self._journal, pending.batch, pending.refill, self._truncating)
        except Overloaded:
            self.is_full = True  # Tried again, as for a full disk.
            return
        self._future = asyncio.ensure_future(work)
        self._future.add_done_callback(self._finished)

    def _finished(self, future: asyncio.Future[None]) -> None:
        if future is self._future:
            self._done = True
            self._wake()

    def collect(self) -> Written | None:
        """What a write that has ended made durable, once; None when none has.

        Raises:
            StorageFailed: the device has failed. Nothing may be said or written any more.
        """
        future, writing = self._future, self._writing
        if not self._done or future is None or writing is None:
            return None
        self._done = False
        self._future = None
        error = future.exception()
        if isinstance(error, DiskFull | Overloaded):
            self.is_full = True
            return None
        if error is not None:
            raise error
        self.is_full = False
        self._writing = None
        self.flush()
        return Written(writing)

    def retry(self) -> None:
        """Tries again what a full disk has refused."""
        if self._writing is not None and self._future is None:
            self._start(self._writing)


def _write(journal: Journal, batch: Batch, refill: list[Entry], truncate_below: int) -> None:
    """In the lane: one append, one sync."""
    if refill:
        damaged = {damage.index for damage in journal.damage}  # What was mended before a disk was full is so no more.
        journal.refill([entry for entry in refill if entry.index in damaged])
    if (
        batch.hard_state is not None
        or batch.entries
        or batch.snapshot is not None
        or batch.members is not None
    ):
        journal.write(batch)
    if truncate_below:
        journal.truncate_below(truncate_below)


