"""What is in the segments, worked out again: which batches count, what they add up to, what has rotted.

How an end that was cut by a crash is told from rot. A batch is written when the one before is on the device, and a
segment is zeros before. So

- an intact batch after a wrong one proves that the wrong one was whole: it has rotted;
- a wrong batch at the very end has been torn if a sector of it is still zeros, and has rotted if none is.

The second is a guess in one case: rot in the last batch, which also holds a whole sector of zeros, is taken for a
torn end. An ordered end closes that gap, as it writes a batch more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aspen.errors import DirectoryRefused, StorageCorrupt
from aspen.journal import format
from aspen.journal.format import ALIGN, Header, Record
from aspen.journal.types import Damage, Identity
from aspen.raft import Entry, EntryKind, SnapshotMeta, decode_configuration

_HEADER_BYTES_MIN = 8
"""What a header has of bytes that are not zero, at least: magic, sequence, length, term, checksum."""


@dataclass(slots=True)
class Segment:
    """One segment file, and the highest index that an entry in it may have."""

    number: int
    size: int
    max_index: int = 0


@dataclass(slots=True)
class Tail:
    """Where the next batch goes, and what is to be wiped there first."""

    segment: int = 0
    offset: int = 0
    dirty_bytes: int = 0
    cut_bytes: int = 0


@dataclass(slots=True)
class Replay:
    """What the batches add up to."""

    header: Header | None = None
    """Of the latest batch."""
    identity: Identity | None = None
    snapshot: SnapshotMeta | None = None
    members: bytes = b""
    state_sequence: int = 0
    """`Header.state_sequence` of the latest state records that are intact."""
    clean: bool = False
    log: dict[int, Record] = field(default_factory=dict)
    """By index; what is missing has rotted with its term."""
    last: int = 0
    tail: Tail = field(default_factory=Tail)

    # -- reading one segment -----------------------------------------------------------------------

    def read_segment(self, segment: Segment, data: bytes, *, is_last: bool) -> None:
        """Takes a segment's batches in. In order of their numbers.

        Raises:
            StorageCorrupt: the header of the very last batch has rotted.
        """
        offset = 0
        while True:
            header = self._next_header(data, segment.number, offset)
            if header is None:
                salt = self.header.salt if self.header else None
                found = format.find_header(data, segment.number, offset, self._expected(), salt)
                if found is None:
                    break
                offset = found
                continue
            end = offset + header.whole_bytes
            records = format.decode_records(data, offset, header)
            wrong = records is None or any(record.payload is None for record in records)
            if wrong and is_last and format.looks_torn(data, offset, header.length):
                salt = header.salt
                if format.find_header(data, segment.number, end, header.sequence + 1, salt) is None:
                    break
            self._take(header, records)
            segment.max_index = max(segment.max_index, header.before, header.last)
            self.tail = Tail(segment.number, end)
            offset = end
        if is_last:
            self._end_at(data, offset, segment)

    def _expected(self) -> int:
        return self.header.sequence + 1 if self.header is not None else 1

    def _next_header(self, data: bytes, number: int, offset: int) -> Header | None:
        header = format.decode_header(data, number, offset)
        if header is None or header.sequence < self._expected():
            return None
        if self.header is not None and header.salt != self.header.salt:
            return None
        return header

    def _end_at(self, data: bytes, offset: int, segment: Segment) -> None:
        """What comes after the last batch of the last segment: zeros, a torn batch, or one that has rotted."""
        rest = data[offset:].rstrip(b"\0")
        if not rest:
            return
        if format.decode_header(data, segment.number, offset) is None:
            written = ALIGN - data[offset : offset + ALIGN].count(0)
            if written >= _HEADER_BYTES_MIN:
                raise StorageCorrupt(
                    f"segment {segment.number:x} of the journal, offset {offset}: the newest batch has rotted, and "
                    "with it perhaps a vote. This disk is lost: empty the directory, and add the node as a new member"
                )
        if self.tail.segment == segment.number:
            self.tail.dirty_bytes = len(rest)
        self.tail.cut_bytes = len(rest)

    # -- taking batches in ---------------------------------------------------------------------------

    def _take(self, header: Header, records: list[Record] | None) -> None:
        if self.header is None:
            self.last = header.before
        elif header.sequence > self.header.sequence + 1:
            self._pass_lost(self.header, header)
        if header.flags:
            self._cut(header.truncated_at)
        self.header = header
        self.clean = False
        for record in records or ():
            kind = record.kind
            if kind == format.ENTRY:
                self.log[record.entry_index] = record
            elif kind == format.REFILL:
                if record.payload is not None:
                    self.log[record.entry_index] = record
            elif kind == format.CLOSED:
                self.clean = True
        if records is not None:
            self._take_state(header, records)
        self.last = header.last

    def _take_state(self, header: Header, records: list[Record]) -> None:
        """The three state records, which always come together."""
        state = {record.kind: record for record in records}
        identity, snapshot, members = (state.get(k) for k in (format.IDENTITY, format.SNAPSHOT, format.MEMBERS))
        if identity is None or snapshot is None or members is None:
            return
        if identity.payload is None or snapshot.payload is None or members.payload is None:
            return
        self.identity = format.decode_identity(identity.payload)
        if self.identity is None:
            raise DirectoryRefused("the journal was written by a later version of Aspen; use that, or a newer one")
        self.snapshot = SnapshotMeta(snapshot.entry_index, snapshot.term, decode_configuration(snapshot.payload))
        self.members = members.payload
        self.state_sequence = header.state_sequence

    def _pass_lost(self, before: Header, after: Header) -> None:
        """Batches between two intact ones have rotted, headers and all: works out what they did."""
        cuts = after.truncations_before - before.truncations
        if cuts == 1 and not after.flags:
            self._cut(after.truncated_at)
        elif cuts:
            # Where they cut is not known: nothing that came before them can be relied on.
            self.log.clear()
        self.last = after.before

    def _cut(self, first: int) -> None:
        for index in range(first, self.last + 1):
            self.log.pop(index, None)

    # -- the sum -----------------------------------------------------------------------------------

    def finish(self) -> tuple[list[Entry], tuple[Damage, ...]]:
        """The entries after the snapshot, and which of them have rotted.

        Raises:
            StorageCorrupt: identity, snapshot or members have rotted.
        """
        header, snapshot = self.header, self.snapshot
        if header is None or snapshot is None or self.identity is None or self.state_sequence != header.state_sequence:
            raise StorageCorrupt(
                "the identity, the members or the place of the snapshot have rotted in the journal. This disk is lost: "
                "empty the directory, and add the node as a new member"
            )
        entries, damage = [], []
        for index in range(snapshot.index + 1, self.last + 1):
            record = self.log.get(index)
            if record is None or record.payload is None:
                term = 0 if record is None else record.term
                damage.append(Damage(index, term))
                entries.append(Entry(index, term))
            else:
                entries.append(Entry(index, record.term, EntryKind(record.entry_kind), record.payload))
        return entries, tuple(damage)
