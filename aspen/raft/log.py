"""The entries since the last compaction, in memory, and the marks in it.

    offset < applied <= given <= commit
    offset <= stable <= offered <= last

`offered` is the last entry that a Ready has named to be written, `stable` the last one that is durable; `given` is the
last one that was handed out to be applied. A truncation takes `stable` and `offered` back, and what is still on its way
to the disk counts only up to there when it arrives.

`holes` are the entries whose content the disk has lost. They keep their place, with the term if that is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from aspen.errors import InvariantBroken
from aspen.limits import RAFT_APPEND_ENTRIES_MAX
from aspen.raft.types import Entry, EntryKind, Restored

UNKNOWN: Final = -1
"""The term of an index that the log no longer has, or does not have yet."""


class Write:
    """What one Ready gave out to be written."""

    __slots__ = ("last", "number", "refilled", "term", "vote")

    def __init__(self, number: int, last: int, term: int, vote: int, refilled: tuple[int, ...]) -> None:
        self.number = number
        self.last = last
        """The log is durable up to here once this is; less after a truncation."""
        self.term = term
        self.vote = vote
        self.refilled = refilled


class Log:
    """See the module."""

    __slots__ = (
        "applied",
        "apply_bytes",
        "commit",
        "entries",
        "given",
        "given_sizes",
        "holes",
        "offered",
        "offset",
        "offset_term",
        "stable",
        "writes",
    )

    def __init__(self, restored: Restored) -> None:
        snapshot = restored.snapshot
        self.offset = snapshot.index
        self.offset_term = snapshot.term
        self.entries = _following(restored)
        self.stable = self.offered = self.last
        self.applied = self.given = max(restored.applied, self.offset)
        self.commit = max(restored.hard_state.commit, self.applied)
        if self.applied > self.last:
            raise InvariantBroken(
                f"the machine has applied entry {self.applied}, and the log ends at {self.last}: this disk has lost"
                " entries; give the machine's own index as the snapshot, or come back as a new member"
            )
        # the commit index is written without a sync, so it may be ahead of a log whose end was lost
        self.commit = min(self.commit, self.last)
        self.holes = {index for index in restored.damaged if self.offset < index <= self.last}
        self.writes: deque[Write] = deque()
        self.apply_bytes = 0
        self.given_sizes: deque[tuple[int, int]] = deque()

    @property
    def first(self) -> int:
        """Index of the first entry that is there, or would be."""
        return self.offset + 1

    @property
    def last(self) -> int:
        """Index of the last entry, or of the compaction when there is none."""
        return self.offset + len(self.entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self.entries[-1].term if self.entries else self.offset_term

    def term(self, index: int) -> int:
        """The term of an entry, or UNKNOWN. That of a hole may be 0."""
        place = index - self.offset - 1
        if place >= 0:
            return self.entries[place].term if place < len(self.entries) else UNKNOWN
        return self.offset_term if place == -1 else UNKNOWN

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends so has all that this one has. Source: Raft paper section 5.4.1."""
        last_term = self.last_term
        return term > last_term or (term == last_term and index >= self.last)

    def last_at_most(self, index: int, term: int) -> int:
        """The largest index, at most `index`, whose term is at most `term`; the compaction when all are greater.

        Terms never fall along a log, so that a whole term is skipped at a time. Source: Raft paper section 5.3.
        """
        index = min(index, self.last)
        entries, offset = self.entries, self.offset
        while index > offset and entries[index - offset - 1].term > term:
            index -= 1
        return index

    def slice(self, start: int, end: int, bytes_max: int) -> list[Entry]:
        """Entries of `[start, end]`, at least one, at most as many as have `bytes_max` together."""
        low = start - self.offset - 1
        found = self.entries[low : min(end - self.offset, low + RAFT_APPEND_ENTRIES_MAX)]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if size > bytes_max and count:
                return found[:count]
        return found

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries right after the last one."""
        if entries[0].index != self.last + 1 or entries[0].term < self.last_term:
            raise InvariantBroken(f"{entries[0][:2]} does not follow {self.last, self.last_term}")
        self.entries.extend(entries)

    def truncate(self, index: int) -> None:
        """Drops the entries from `index` on."""
        if index <= self.commit:
            raise InvariantBroken(f"entry {index} is committed, up to {self.commit}, and would be truncated")
        del self.entries[index - self.offset - 1 :]
        before = index - 1
        self.stable = min(self.stable, before)
        self.offered = min(self.offered, before)
        for write in self.writes:
            write.last = min(write.last, before)
        self.holes = {hole for hole in self.holes if hole < index}

    def commit_to(self, index: int) -> bool:
        """Moves the commit index forward; False when it was there already."""
        if index <= self.commit:
            return False
        if index > self.last:
            raise InvariantBroken(f"commit {index} is behind the end of the log, {self.last}")
        self.commit = index
        return True

    def applicable(self) -> int:
        """The last entry that may be applied: committed, durable here, and not behind a hole."""
        end = min(self.commit, self.stable)
        return min(end, min(self.holes) - 1) if self.holes else end

    def give(self, bytes_max: int) -> list[Entry]:
        """The next entries to be applied, as far as what was given before leaves room."""
        end = self.applicable()
        if self.given >= end or (self.apply_bytes >= bytes_max):
            return []
        found = self.slice(self.given + 1, end, bytes_max - self.apply_bytes)
        size = sum(len(entry.data) for entry in found)
        self.given = found[-1].index
        self.given_sizes.append((self.given, size))
        self.apply_bytes += size
        return found

    def applied_to(self, index: int) -> None:
        """Notes what the host has applied."""
        if index < self.applied or index > self.given:
            raise InvariantBroken(f"applied {index} is not within {self.applied} and {self.given}, which was given")
        self.applied = index
        while self.given_sizes and self.given_sizes[0][0] <= index:
            self.apply_bytes -= self.given_sizes.popleft()[1]

    def unapplied_changes(self) -> bool:
        """Whether a change of the configuration is committed and not applied."""
        low, high = self.applied - self.offset, self.commit - self.offset
        return any(entry.kind == EntryKind.CONFIGURATION for entry in self.entries[low:high])

    def compact(self, index: int) -> None:
        """Drops the entries up to and including `index`."""
        if index <= self.offset:
            return
        if index > self.applied:
            raise InvariantBroken(f"entry {index} is not applied yet, only {self.applied}; it cannot be compacted")
        self.offset_term = self.term(index)
        del self.entries[: index - self.offset]
        self.offset = index
        self.holes = {hole for hole in self.holes if hole > index}

    def install(self, index: int, term: int) -> None:
        """Begins after a snapshot. Entries behind it stay if its own last entry is here."""
        if self.term(index) == term and index > self.offset:
            del self.entries[: index - self.offset]
        else:
            self.entries.clear()
            for write in self.writes:
                write.last = min(write.last, index)
        self.offset, self.offset_term = index, term
        self.stable = max(min(self.stable, self.last), index)
        self.offered = max(min(self.offered, self.last), index)
        self.commit = max(self.commit, index)
        self.applied = self.given = index
        self.given_sizes.clear()
        self.apply_bytes = 0
        self.holes = {hole for hole in self.holes if index < hole <= self.last}

    def fill(self, entry: Entry) -> None:
        """Puts an entry in the place of a hole, which it stays until it is durable."""
        self.entries[entry.index - self.offset - 1] = entry


def _following(restored: Restored) -> list[Entry]:
    """The entries that follow the snapshot, which are all or none."""
    snapshot = restored.snapshot
    entries = [entry for entry in restored.entries if entry.index >= snapshot.index]
    damaged = set(restored.damaged)
    if entries and entries[0].index == snapshot.index:
        at = entries.pop(0)
        if at.term != snapshot.term and not (at.index in damaged and not at.term):
            return []
    elif entries and entries[0].index != snapshot.index + 1:
        raise InvariantBroken(f"the log begins at {entries[0].index}, and the snapshot ends at {snapshot.index}")
    term = snapshot.term
    for place, entry in enumerate(entries, snapshot.index + 1):
        unknown = place in damaged and not entry.term
        if entry.index != place or (entry.term < term and not unknown):
            raise InvariantBroken(f"the log has {entry[:2]} where index {place} and a term of {term} or more belong")
        term = max(term, entry.term)
    return entries
