"""The whole state in checksummed chunks, and a new store from them.

    reader = SnapshotReader(storage)                     one read transaction: one moment, at `reader.index`
    reader.chunk(0), reader.chunk(1), ...                None after the last; an earlier one may be asked for again
    restore = Restore(new_storage)                       resumes at `restore.next_chunk`
    restore.add(number, data) ... restore.finish()       then a `Machine` may open the new store
    adopt(new_storage, index, term)                      instead, when it is to begin a new cluster

    chunk    magic · number u32 · last u8 · rows u32 · index u64 · term u64 · digest of the chunk before · rows · digest
    row      table u8 · key length u16 · value length u32 · key · value with its own checksum

Each chunk names the digest of the one before, so that chunks of different snapshots, or in another order, do not pass
for one; the last says that it is, so that a cut one does not pass for whole. A received chunk is parsed and checked,
and its rows are put: nothing received is ever opened as a database.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from struct import Struct
from struct import error as struct_error
from typing import Final

from aspen.errors import StorageCorrupt, UsageError
from aspen.kv.layout import META, TABLES
from aspen.kv.machine import RESTORING_KEY, STATE_KEY, Machine, applied_of
from aspen.kv.write_behind import seal, unseal
from aspen.limits import KV_RESTORE_JUMP_REVISIONS, KV_SNAPSHOT_CHUNK_BYTES, STORAGE_KEY_BYTES_MAX
from aspen.traits import Storage

MAGIC: Final = b"AspenKV1"
DIGEST_BYTES: Final = 16
_HEADER: Final = Struct("<8sIBIQQ16s")
_ROW: Final = Struct("<BHI")
_PROGRESS: Final = Struct("<IBQQ16sB")
"""Next chunk, whether the last was there, index, term, digest of the chunk before, table of the last row; its key."""


class SnapshotReader:
    """The state that the storage has at this moment, as chunks. What a machine has not written yet is not in it."""

    def __init__(self, storage: Storage, chunk_bytes: int = KV_SNAPSHOT_CHUNK_BYTES) -> None:
        self._transaction = storage.begin()
        self._chunk_bytes = chunk_bytes
        state = self._transaction.get(META, STATE_KEY)
        self.index, self.term = (0, 0) if state is None else applied_of(unseal(META, STATE_KEY, state))
        self._starts = [(0, b"")]
        """Where each chunk begins that is known: table and key."""
        self._digests = [bytes(DIGEST_BYTES)]
        """Of the chunk before each."""
        self._count: int | None = None

    def chunk(self, number: int) -> bytes | None:
        """The bytes of a chunk, from 0 on; None after the last. The next one, or any that was given before.

        Raises:
            ReadTooOld: the storage has ended the transaction; begin a new snapshot.
            StorageCorrupt: a row has rotted.
            UsageError: one was left out.
        """
        if number == self._count:
            return None
        if number >= len(self._starts):
            raise UsageError(
                f"chunk {number} of a snapshot of which {len(self._starts)} are known; ask for the next one"
            )
        table, key = self._starts[number]
        parts: list[bytes] = []
        size = rows = 0
        after: tuple[int, bytes] | None = None
        while table < len(TABLES) and after is None:
            name = TABLES[table]
            for row, sealed in self._transaction.scan(name, key, None):
                if size >= self._chunk_bytes:
                    after = (table, row)
                    break
                unseal(name, row, sealed)
                if name == META and row == RESTORING_KEY:
                    continue
                parts += (_ROW.pack(table, len(row), len(sealed)), row, sealed)
                size += _ROW.size + len(row) + len(sealed)
                rows += 1
            else:
                table, key = table + 1, b""
        header = _HEADER.pack(MAGIC, number, after is None, rows, self.index, self.term, self._digests[number])
        body = header + b"".join(parts)
        digest = blake2b(body, digest_size=DIGEST_BYTES).digest()
        if after is None:
            self._count = number + 1
        elif number + 1 == len(self._starts):
            self._starts.append(after)
            self._digests.append(digest)
        return body + digest

    def close(self) -> None:
        """Lets go of the moment. Idempotent."""
        self._transaction.abort()


class Restore:
    """Fills a new store with the chunks of one snapshot, in order. Interrupted, it goes on from `next_chunk`."""

    def __init__(self, storage: Storage) -> None:
        """`storage` is new, or that of a restore that was not finished.

        Raises:
            UsageError: something else is in it.
        """
        self._storage = storage
        self.next_chunk = 0
        self.is_whole = False
        """Whether the last chunk was there."""
        self.index = self.term = 0
        self._before = bytes(DIGEST_BYTES)
        self._last = (0, b"")
        with storage.begin() as reader:
            sealed = reader.get(META, RESTORING_KEY)
            if sealed is None:
                if any(list(islice(reader.scan(table), 1)) for table in TABLES):
                    raise UsageError("a snapshot is restored into a new store, and this one holds something; remove it")
                return
        progress = unseal(META, RESTORING_KEY, sealed)
        number, whole, self.index, self.term, self._before, table = _PROGRESS.unpack_from(progress)
        self.next_chunk, self.is_whole = number, bool(whole)
        self._last = (table, progress[_PROGRESS.size :])

    def add(self, number: int, data: bytes) -> None:
        """Checks a chunk and writes its rows: all or none of them. One that is there already is passed over.

        Raises:
            StorageCorrupt: it is damaged, or of another snapshot, or one before it is missing. The store is as before.
        """
        if number < self.next_chunk:
            return
        if number > self.next_chunk or self.is_whole:
            raise StorageCorrupt(f"chunk {number} of a snapshot came, and {self.next_chunk} is the next")
        whole, index, term, digest, rows = self._parse(number, data)
        last = rows[-1][:2] if rows else self._last
        progress = _PROGRESS.pack(number + 1, whole, index, term, digest, last[0]) + last[1]
        with self._storage.begin(write=True) as writer:
            for table, key, sealed in rows:
                writer.put(TABLES[table], key, sealed)
            writer.put(META, RESTORING_KEY, seal(RESTORING_KEY, progress))
            writer.commit()
        self.next_chunk, self.is_whole, self.index, self.term = number + 1, whole, index, term
        self._before, self._last = digest, last

    def finish(self) -> tuple[int, int]:
        """Ends the restore, durably; index and term of the last entry that the state holds.

        Raises:
            StorageCorrupt: chunks are missing, or the state is not in them. The store cannot be opened.
        """
        if not self.is_whole:
            raise StorageCorrupt(f"the snapshot is not whole: chunk {self.next_chunk} and later ones are missing")
        with self._storage.begin(write=True) as writer:
            sealed = writer.get(META, STATE_KEY)
            found = (0, 0) if sealed is None else applied_of(unseal(META, STATE_KEY, sealed))
            if found != (self.index, self.term):
                raise StorageCorrupt(f"the snapshot says entry {self.index}, and its state {found[0]}; get another one")
            writer.delete(META, RESTORING_KEY)
            writer.commit()
        self._storage.sync()
        return found

    def _parse(self, number: int, data: bytes) -> tuple[bool, int, int, bytes, list[tuple[int, bytes, bytes]]]:
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        try:
            magic, its_number, whole, count, index, term, before = _HEADER.unpack_from(body)
        except struct_error:
            raise _damaged(number, "it is cut short") from None
        if blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
            raise _damaged(number, "its digest differs")
        if magic != MAGIC or its_number != number or before != self._before:
            raise _damaged(number, "it is of another snapshot, or of another place in this one")
        if number and (index, term) != (self.index, self.term):
            raise _damaged(number, "it is of another moment")
        rows = []
        at = _HEADER.size
        last = self._last
        for _ in range(count):
            try:
                table, key_length, value_length = _ROW.unpack_from(body, at)
            except struct_error:
                raise _damaged(number, "a row is cut short") from None
            at += _ROW.size
            key, sealed = body[at : at + key_length], body[at + key_length : at + key_length + value_length]
            at += key_length + value_length
            if at > len(body) or table >= len(TABLES) or not 1 <= key_length <= STORAGE_KEY_BYTES_MAX:
                raise _damaged(number, "a row is malformed")
            if (table, key) <= last or (TABLES[table] == META and key != STATE_KEY):
                raise _damaged(number, "a row is out of place")
            unseal(TABLES[table], key, sealed)
            last = (table, key)
            rows.append((table, key, sealed))
        if at != len(body):
            raise _damaged(number, "it has bytes to spare")
        return bool(whole), index, term, digest, rows


def adopt(storage: Storage, index: int, term: int, jump: int = KV_RESTORE_JUMP_REVISIONS) -> None:
    """Makes a restored store, which no machine uses, the beginning of a new cluster whose log starts after `index`.

    Revisions jump, so that none that the old cluster may have given out after the snapshot is given out again, and
    older ones are compacted: whoever still knows one learns that what it read is gone. No session survives.
    """
    machine = Machine(storage)
    machine.begin_anew(index, term, jump)
    while machine.compact_step():
        _write(machine)
    _write(machine)
    machine.release()


def _write(machine: Machine) -> None:
    flush = machine.freeze()
    if flush is not None:
        flush.write(sync=True)
        machine.flushed(flush)


def _damaged(number: int, what: str) -> StorageCorrupt:
    return StorageCorrupt(f"chunk {number} of the snapshot cannot be used: {what}; get it again")
