"""`Journal`: the log itself."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn, Self

from aspen import limits
from aspen.errors import DirectoryRefused, DiskFull, StorageCorrupt, StorageError, StorageFailed, UsageError
from aspen.journal import format
from aspen.journal.directory import (
    SPARE_PREFIX,
    is_empty,
    mark_suspect,
    refuse_suspect,
    segment_name,
    segment_numbers,
)
from aspen.journal.format import Header, ToWrite
from aspen.journal.recovery import Replay, Segment
from aspen.journal.types import Batch, Damage, Identity, JournalOptions, Recovered
from aspen.raft import HardState, SnapshotMeta, encode_configuration
from aspen.traits import Files, LogFile

_NO_HEADER = Header(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Journal:
    """A write-ahead log in segment files. One thread at a time, but for `prepare`."""

    def __init__(self, files: Files, options: JournalOptions, identity: Identity) -> None:
        self._files = files
        self._options = options
        self._identity = identity
        self._snapshot = SnapshotMeta()
        self._members = b""
        self._header = _NO_HEADER
        """Of the latest batch."""
        self._terms: list[int] = []
        """Of the entries after the snapshot."""
        self._damage: dict[int, int] = {}
        """Index to term of entries that are to be refilled."""
        self._segments: list[Segment] = []
        """Oldest first; batches go into the last."""
        self._file: LogFile | None = None
        self._offset = 0
        self._spare: tuple[str, LogFile, int] | None = None
        self._spares = 0
        self._preparing = False
        self._broken = ""

    # -- beginning -----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        files: Files,
        identity: Identity,
        snapshot: SnapshotMeta,
        members: bytes = b"",
        *,
        options: JournalOptions | None = None,
    ) -> None:
        """Makes the journal of a new member in an empty directory, durably; open it next.

        A crash leaves all of it or nothing.

        Raises:
            DirectoryRefused: the directory has one already, or is marked suspect.
        """
        refuse_suspect(files)
        if not is_empty(files):
            raise DirectoryRefused("there is a journal in this directory already; open it, or take an empty directory")
        if not (0 < identity.cluster_id < 1 << 63 and 0 < identity.member_id < 1 << 63 and identity.boots == 0):
            raise UsageError(
                "a cluster id and a member id have 63 bits and are not 0, and a new directory has no boots"
            )
        if not 0 < len(identity.node_key) <= limits.JOURNAL_NODE_KEY_CHARS_MAX or not 0 <= identity.salt < 1 << 64:
            raise UsageError(f"a node key has 1 to {limits.JOURNAL_NODE_KEY_CHARS_MAX} characters, a salt has 64 bits")
        journal = cls(files, options or JournalOptions(), identity)
        journal._remove_spares()
        journal._header = _NO_HEADER._replace(last=snapshot.index)
        journal._snapshot = SnapshotMeta(snapshot.index)
        journal.write(Batch(snapshot=snapshot, members=members))
        journal.close()

    @classmethod
    def open(
        cls, files: Files, *, node_key: str, cluster_id: int | None = None, options: JournalOptions | None = None
    ) -> tuple[Self, Recovered]:
        """Opens it: cuts an unfinished batch off its end and counts the boot, durably.

        Raises:
            DirectoryRefused: it is another node's or cluster's, or marked suspect; says what to do.
            StorageCorrupt: vote, term, identity or members have rotted. The disk is lost: empty the directory, and
                come back as a new member.
            StorageFailed: the device fails.
        """
        refuse_suspect(files)
        numbers = segment_numbers(files)
        if not numbers:
            raise DirectoryRefused("there is no journal in this directory; create one, or look for the right directory")
        replay = Replay()
        segments = []
        for number in numbers:
            file = files.open(segment_name(number))
            segment = Segment(number, file.size())
            replay.read_segment(segment, file.read(0, segment.size), is_last=number == numbers[-1])
            file.close()
            segments.append(segment)
        entries, damage = replay.finish()
        identity, header, snapshot = replay.identity, replay.header, replay.snapshot
        if identity is None or header is None or snapshot is None:
            raise StorageCorrupt("the journal holds no whole batch; this disk is lost")
        _refuse_foreign(identity, node_key, cluster_id)
        journal = cls(files, options or JournalOptions(), replace(identity, boots=identity.boots + 1))
        journal._snapshot, journal._members, journal._header = snapshot, replay.members, header
        journal._terms = [entry.term for entry in entries]
        journal._damage = {rotten.index: rotten.term for rotten in damage}
        journal._segments = segments
        journal._begin(replay)
        return journal, Recovered(
            journal._identity,
            HardState(header.term, header.vote, header.commit),
            snapshot,
            replay.members,
            entries,
            damage,
            replay.clean,
            replay.tail.cut_bytes,
        )

    def _begin(self, replay: Replay) -> None:
        """Wipes what is left of an unfinished batch, and notes the boot."""
        tail = replay.tail
        try:
            while self._segments[-1].number > tail.segment:
                self._files.remove(segment_name(self._segments.pop().number))
            self._remove_spares()
            self._file = self._files.open(segment_name(tail.segment))
            self._offset = tail.offset
            if tail.dirty_bytes:
                self._file.write_synced(tail.offset, bytes(tail.dirty_bytes))
            self._files.sync()
        except StorageFailed as error:
            self._fail(error)
        self.write(Batch(members=self._members))

    def _remove_spares(self) -> None:
        for name in self._files.names():
            if name.startswith(SPARE_PREFIX):
                self._files.remove(name)

    # -- what there is -------------------------------------------------------------------------------

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Entries that are still to be refilled, in order."""
        return tuple(Damage(index, term) for index, term in sorted(self._damage.items()))

    @property
    def size_bytes(self) -> int:
        """Bytes of the segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self._header.last

    @property
    def wants_spare(self) -> bool:
        """Whether the segment is more than half full and the next one is not prepared."""
        half = bool(self._segments) and self._offset * 2 > self._segments[-1].size
        return half and self._spare is None and not self._preparing and not self._broken

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """Appends a batch and syncs.

        Raises:
            DiskFull: there is no room for another segment, or the log is at its bound and must be compacted first;
                nothing was written, it may be tried again.
            StorageFailed: the device failed; the directory is marked suspect. End the node.
            UsageError: the batch does not fit what there is.
        """
        self._check(batch)
        before = self._header
        snapshot, entries, refill = batch.snapshot, batch.entries, batch.refill
        discards = snapshot is not None and not self._keeps_log(snapshot)
        base = snapshot.index if snapshot is not None and discards else before.last
        overwrites = bool(entries) and entries[0].index <= base
        first = entries[0].index if overwrites else base + 1
        flags = (format.OVERWRITES if overwrites else 0) | (format.DISCARDS if discards else 0)
        hard = batch.hard_state
        header = Header(
            before.sequence + 1,
            self._identity.salt,
            0,
            0,
            0,
            flags,
            hard.term if hard is not None else before.term,
            hard.vote if hard is not None else before.vote,
            hard.commit if hard is not None else before.commit,
            before.last,
            entries[-1].index if entries else base,
            before.truncations + bool(flags),
            first if flags else before.truncated_at,
            before.state_sequence,
        )
        records = [ToWrite(format.ENTRY, kind, index, term, data) for index, term, kind, data in entries]
        if refill:
            records += [ToWrite(format.REFILL, kind, index, term, data) for index, term, kind, data in refill]
        mark = self._snapshot if snapshot is None or snapshot.index < self._snapshot.index else snapshot
        members = self._members if batch.members is None else batch.members
        with_state = snapshot is not None or batch.members is not None
        header = self._put(header, records, mark, members, with_state=with_state)
        self._took(header, batch, mark, members, discards=discards)

    def _took(self, header: Header, batch: Batch, mark: SnapshotMeta, members: bytes, *, discards: bool) -> None:
        """Remembers what a batch that is durable has changed."""
        terms, damage = self._terms, self._damage
        if mark is not self._snapshot:
            if discards:
                terms.clear()
                damage.clear()
            else:
                del terms[: mark.index - self._snapshot.index]
            self._snapshot = mark
            if damage:
                self._damage = damage = {index: term for index, term in damage.items() if index > mark.index}
        self._members = members
        if batch.entries:
            first = batch.entries[0].index
            if damage and first <= self._header.last:
                self._damage = damage = {index: term for index, term in damage.items() if index < first}
            del terms[first - mark.index - 1 :]
            terms.extend([entry.term for entry in batch.entries])
        for entry in batch.refill:
            damage.pop(entry.index, None)
            terms[entry.index - mark.index - 1] = entry.term
        self._header = header

    def _keeps_log(self, snapshot: SnapshotMeta) -> bool:
        """Whether a mark leaves the entries after it: the log has one of its index and term."""
        at = snapshot.index - self._snapshot.index - 1
        if at < 0:
            return snapshot.index < self._snapshot.index or snapshot.term == self._snapshot.term
        return at < len(self._terms) and self._terms[at] == snapshot.term

    def _check(self, batch: Batch) -> None:
        if self._broken:
            raise StorageFailed(f"the journal takes nothing more: {self._broken}. End the node")
        entries, snapshot = batch.entries, batch.snapshot
        if entries:
            start = self._snapshot.index if snapshot is None else max(snapshot.index, self._snapshot.index)
            last = self._header.last if snapshot is None or self._keeps_log(snapshot) else snapshot.index
            first = entries[0].index
            if not start < first <= last + 1:
                raise UsageError(f"entries from {first} do not follow: the log goes from {start + 1} to {last}")
            if any(entry.index != first + n for n, entry in enumerate(entries)):
                raise UsageError(f"the entries from {first} are not consecutive")
            if len(entries) > limits.JOURNAL_BATCH_ENTRIES_MAX:
                raise UsageError(f"{len(entries)} entries in a batch; at most {limits.JOURNAL_BATCH_ENTRIES_MAX}")
        if batch.members is not None and len(batch.members) > limits.JOURNAL_MEMBERS_BYTES_MAX:
            raise UsageError(f"a table of {len(batch.members)} bytes; at most {limits.JOURNAL_MEMBERS_BYTES_MAX}")
        for entry in batch.refill:
            term = self._damage.get(entry.index)
            if term is None:
                raise UsageError(f"entry {entry.index} is not damaged; only what is can be refilled")
            if term not in (0, entry.term):
                raise UsageError(f"entry {entry.index} is of term {term}, and is refilled with one of {entry.term}")

    def _put(
        self, header: Header, records: list[ToWrite], mark: SnapshotMeta, members: bytes, *, with_state: bool
    ) -> Header:
        """Writes the batch where there is room, and syncs. Returns its header."""
        if with_state or not self._segments:
            records = [*self._state(mark, members), *records]
            header = header._replace(state_sequence=header.sequence)
        needs = format.batch_bytes(records)
        if needs > limits.JOURNAL_BATCH_BYTES_MAX:
            raise UsageError(f"a batch of {needs} bytes; at most {limits.JOURNAL_BATCH_BYTES_MAX}")
        file = self._file
        if file is None or self._offset + needs > self._segments[-1].size:
            if header.state_sequence != header.sequence:
                records = [*self._state(mark, members), *records]
            self._rotate(header, records)
            return header
        segment = self._segments[-1]
        data = format.encode_batch(segment.number, self._offset, header, records)
        try:
            file.write_synced(self._offset, data)
        except StorageError as error:
            self._fail(error)
        self._offset += len(data)
        segment.max_index = max(segment.max_index, header.before, header.last)
        return header

    def _state(self, mark: SnapshotMeta, members: bytes) -> list[ToWrite]:
        """What every segment begins with, and every change of it: always these three together."""
        return [
            ToWrite(format.IDENTITY, 0, 0, 0, format.encode_identity(self._identity)),
            ToWrite(format.SNAPSHOT, 0, mark.index, mark.term, encode_configuration(mark.configuration)),
            ToWrite(format.MEMBERS, 0, 0, 0, members),
        ]

    # -- segments -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the next segment ready, so that the write that needs it does not wait for it. Safe in another thread;
        call it when `wants_spare`.

        Raises:
            DiskFull: there is no room. Nothing else has happened.
            StorageFailed: the device failed. End the node.
        """
        if self._spare is None and not self._preparing:
            self._preparing = True
            try:
                self._spare = self._make_spare(self._options.segment_bytes)
            except StorageFailed as error:
                self._fail(error)
            finally:
                self._preparing = False

    def _make_spare(self, size: int) -> tuple[str, LogFile, int]:
        self._spares += 1
        name = f"{SPARE_PREFIX}{self._spares:x}"
        file = self._files.open(name)
        try:
            file.reserve(size)
            file.sync()
        except DiskFull:
            file.close()
            self._files.remove(name)
            raise
        return name, file, size

    def _rotate(self, header: Header, records: list[ToWrite]) -> None:
        """Writes a batch as the first of a new segment. The segment gets its name when that is on the device: one that
        has a name always begins with a whole batch."""
        needs = format.batch_bytes(records)
        size = max(self._options.segment_bytes, needs)
        grows = any(record.kind == format.ENTRY for record in records)
        if grows and self.size_bytes + size > max(self._options.log_bytes_max, size):
            raise DiskFull(
                f"the journal holds {self.size_bytes} bytes, and its bound is {self._options.log_bytes_max}: nothing "
                "was written; compact the log"
            )
        number = self._segments[-1].number + 1 if self._segments else 1
        try:
            spare, self._spare = self._spare, None
            if spare is not None and spare[2] < needs:
                spare[1].close()
                self._files.remove(spare[0])
                spare = None
            name, file, size = spare or self._make_spare(size)
        except DiskFull:
            raise
        except StorageError as error:
            self._fail(error)
        data = format.encode_batch(number, 0, header, records)
        try:
            file.write_synced(0, data)
            self._files.rename(name, segment_name(number))
            self._files.sync()
        except StorageError as error:
            self._fail(error)
        if self._file is not None:
            self._file.close()
        self._file, self._offset = file, len(data)
        self._segments.append(Segment(number, size, max(header.before, header.last)))

    def truncate_below(self, index: int) -> int:
        """Drops whole segments of which all entries are at or below `index`, which the latest snapshot mark must cover.

        Returns how many bytes were given back.

        Raises:
            UsageError: the mark is lower; write it first.
            StorageFailed: the device failed. End the node.
        """
        if index > self._snapshot.index:
            raise UsageError(f"entries up to {index} are not covered: the mark is at {self._snapshot.index}")
        if self._broken:
            raise StorageFailed(f"the journal takes nothing more: {self._broken}. End the node")
        given_back = 0
        try:
            while len(self._segments) > 1 and self._segments[0].max_index <= index:
                self._files.remove(segment_name(self._segments[0].number))
                given_back += self._segments.pop(0).size
            if given_back:
                self._files.sync()
        except StorageError as error:
            self._fail(error)
        return given_back

    # -- the end ---------------------------------------------------------------------------------------

    def _fail(self, error: StorageError) -> NoReturn:
        """What was written is there or not, and no later sync tells: the journal ends."""
        self._broken = str(error)
        mark_suspect(self._files, self._broken)
        if isinstance(error, StorageFailed):
            raise error
        raise StorageFailed(self._broken) from error

    def close(self) -> None:
        """Notes the ordered end, durably, and closes. Idempotent."""
        if self._file is None:
            return
        try:
            if not self._broken:
                header = self._header._replace(sequence=self._header.sequence + 1, flags=0, before=self._header.last)
                closed = [ToWrite(format.CLOSED, 0, 0, 0, b"")]
                self._header = self._put(header, closed, self._snapshot, self._members, with_state=False)
        except DiskFull:
            return  # Then it does not look like an ordered end, which costs a verification.
        finally:
            self._end()

    def _end(self) -> None:
        self._broken = self._broken or "it is closed"
        for file in (self._file, self._spare[1] if self._spare else None):
            if file is not None:
                file.close()
        self._file = None
        self._spare = None


def _refuse_foreign(identity: Identity, node_key: str, cluster_id: int | None) -> None:
    if identity.node_key != node_key:
        raise DirectoryRefused(
            f"this data directory belongs to the node with key {identity.node_key}, and this node's key is {node_key}: "
            "give each node its own directory, or bring the node's key back"
        )
    if cluster_id is not None and identity.cluster_id != cluster_id:
        raise DirectoryRefused(
            f"this data directory belongs to cluster {identity.cluster_id:016x}, not to {cluster_id:016x}: take "
            "another directory, or join the right cluster"
        )
