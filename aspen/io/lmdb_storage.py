"""`aspen.traits.Storage` on LMDB.

How it is opened, and why:

- `metasync=False`: a commit syncs data, and leaves the page that names it to the next sync; a loss of power undoes at
  most the last commit. Never `sync=False`, which corrupts, and never `writemap`, through which a stray write does.
- `lock=True`: without it LMDB forgets its readers, and reuses the pages that they look at.
- One environment a process and path, none used after a fork: LMDB's own rules, which it does not check.

A reader keeps every page that it may look at from being used again, so its age is bounded: whoever begins a transaction
ends those that are older than `STORAGE_READ_S`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import lmdb

from aspen import limits
from aspen.errors import DiskFull, MapFull, ReadTooOld, StorageCorrupt, StorageError, StorageFailed, UsageError
from aspen.io.real_files import device_errors, make_durable, sync_folder

_PAGE_TOO_MANY: Final = (lmdb.MapFullError, lmdb.TxnFullError)
_CORRUPT: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
)
_CHUNK_MAX: Final = 64
"""Entries that a scan reads at once, at most."""

_open_lock = threading.Lock()
_opened: weakref.WeakValueDictionary[str, LmdbStorage] = weakref.WeakValueDictionary()
"""What is open in this process, by real path."""


def _after_fork() -> None:
    for storage in list(_opened.values()):
        storage.forked = True


os.register_at_fork(after_in_child=_after_fork)


def translated(error: lmdb.Error, path: Path) -> Exception:
    """The error of Aspen's that one of LMDB's means."""
    if isinstance(error, _PAGE_TOO_MANY):
        return MapFull(f"{path}: {error}; raise the size of the map, or delete and compact")
    if isinstance(error, _CORRUPT):
        return StorageCorrupt(f"{path}: {error}; rebuild it from a snapshot or from peers")
    if isinstance(error, lmdb.VersionMismatchError):
        return StorageCorrupt(f"{path}: {error}; another version of LMDB wrote it, or it has rotted")
    if isinstance(error, lmdb.DiskError):
        return DiskFull(f"{path}: {error}; make room on that disk")
    if isinstance(error, lmdb.MemoryError):
        return MemoryError(f"{path}: {error}")
    if isinstance(error, lmdb.ReadersFullError):
        return UsageError(f"{path}: {error}; more than {limits.STORAGE_READERS_MAX} transactions read at once")
    if isinstance(error, lmdb.BadTxnError | lmdb.InvalidParameterError | lmdb.BadValsizeError):
        return UsageError(f"{path}: {error}")
    return StorageFailed(f"{path}: {error}")


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise translated(error, path) from error


class LmdbStorage:
    """An environment with its tables. `clock_ns` tells the age of readers."""

    def __init__(
        self, path: Path, tables: Sequence[str], *, map_bytes: int, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.path = path
        self.forked = False
        self._clock_ns = clock_ns
        self._readers: dict[int, LmdbTransaction] = {}
        """Those that are open, the oldest first."""
        self._writer: LmdbTransaction | None = None
        self._lock = threading.Lock()
        with device_errors(path, "make the folder"):
            make_durable(path)
        self._key = str(path.resolve())
        with _open_lock:
            if self._key in _opened:
                raise UsageError(f"{path} is open in this process already; close it, or share it")
            with _translating(path):
                self._env = lmdb.open(
                    str(path),
                    map_size=map_bytes,
                    max_dbs=len(tables),
                    max_readers=limits.STORAGE_READERS_MAX,
                    max_spare_txns=limits.STORAGE_READERS_SPARE,
                    metasync=False,
                )
            _opened[self._key] = self
        try:
            with _translating(path):
                self._env.reader_check()
                self.tables: dict[str, Any] = {name: self._env.open_db(name.encode()) for name in tables}
                self._page_bytes = int(self._env.stat()["psize"])
                self._env.sync(True)
            with device_errors(path, "sync names"):
                sync_folder(path)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return _opened.get(self._key) is not self

    def begin(self, *, write: bool = False) -> LmdbTransaction:
        """Begins a transaction. One writes at a time, in one thread; readers never wait."""
        self._check()
        self.end_old_readers()
        with _translating(self.path):
            raw = self._env.begin(write=write)
        transaction = LmdbTransaction(self, raw, write=write)
        if write:
            self._writer = transaction
        else:
            transaction.began_ns = self._clock_ns()
            with self._lock:
                self._readers[id(transaction)] = transaction
        return transaction

    def end_old_readers(self) -> int:
        """Ends readers that are older than `STORAGE_READ_S`; returns how many."""
        ended = 0
        if not self._readers:
            return ended
        bound_ns = self._clock_ns() - int(limits.STORAGE_READ_S * 1e9)
        while True:
            with self._lock:
                oldest = next(iter(self._readers.values()), None)
            if oldest is None or oldest.began_ns >= bound_ns:
                return ended
            oldest.expire()
            ended += 1

    def sync(self) -> None:
        """Returns when every commit is on the device."""
        self._check()
        with _translating(self.path):
            self._env.sync(True)

    def used_bytes(self) -> int:
        """The pages of the tables, in bytes: not what is free inside the file."""
        self._check()
        with _translating(self.path), self._env.begin() as raw:
            stats = [self._env.stat(), *(raw.stat(db) for db in self.tables.values())]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int(pages) * self._page_bytes

    def close(self) -> None:
        """Ends its use. Open transactions are aborted. From the thread of the writer, if there is one."""
        with _open_lock:
            if self.closed:
                return
            del _opened[self._key]
        for transaction in [*self._readers.values(), *([self._writer] if self._writer else [])]:
            transaction.abort()
        if not self.forked:
            self._env.close()

    def done(self, transaction: LmdbTransaction) -> None:
        """A transaction has ended."""
        if self._writer is transaction:
            self._writer = None
        else:
            with self._lock:
                self._readers.pop(id(transaction), None)

    def _check(self) -> None:
        if self.forked:
            raise UsageError(f"{self.path} was open when this process was forked; open stores after a fork, not before")
        if self.closed:
            raise UsageError(f"{self.path} is closed")


class LmdbTransaction:
    """`aspen.traits.StorageTransaction`."""

    __slots__ = (
        "__weakref__",
        "_cursors",
        "_lock",
        "_open",
        "_raw",
        "_storage",
        "_tables",
        "_too_old",
        "_write",
        "began_ns",
    )

    def __init__(self, storage: LmdbStorage, raw: Any, *, write: bool) -> None:
        self._storage = storage
        self._raw = raw
        self._tables = storage.tables
        self._write = write
        self._open = True
        self._too_old = False
        self._cursors: dict[str, Any] = {}
        self._lock = threading.RLock()
        """Between its user and whoever ends it for its age."""
        self.began_ns = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None."""
        with self._lock:
            self._check(key)
            try:
                value: bytes | None = self._raw.get(key, db=self._table(table))
            except lmdb.Error as error:
                raise translated(error, self._storage.path) from error
        return value

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Sets the value."""
        self._check(key, write=True)
        try:
            self._raw.put(key, value, db=self._table(table))
        except lmdb.Error as error:
            raise translated(error, self._storage.path) from error

    def put_many(self, table: str, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Sets many values, of keys in any order."""
        for key, _ in items:
            self._check(key, write=True)
        try:
            with self._raw.cursor(self._table(table)) as cursor:
                cursor.putmulti(items)
        except lmdb.Error as error:
            raise translated(error, self._storage.path) from error

    def delete(self, table: str, key: bytes) -> bool:
        """Removes the key; False when it was not there."""
        self._check(key, write=True)
        try:
            return bool(self._raw.delete(key, db=self._table(table)))
        except lmdb.Error as error:
            raise translated(error, self._storage.path) from error

    def first(self, table: str, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """What the first step of a `scan` gives, or None: for those who look for one row, in less time.

        Of a transaction that only reads.
        """
        with self._lock:
            self._check(start)
            try:
                cursor = self._cursors.get(table)
                if cursor is None:
                    cursor = self._cursors[table] = self._raw.cursor(self._table(table))
                if not cursor.set_range(start):
                    return None
                key, value = cursor.item()
            except lmdb.Error as error:
                raise translated(error, self._storage.path) from error
        return (key, value) if key < stop else None

    def chunk(self, table: str, start: bytes, stop: bytes, size: int) -> list[tuple[bytes, bytes]]:
        """The first `size` steps of a `scan`, in less time. Of a transaction that only reads."""
        with self._lock:
            self._check(start)
            try:
                cursor = self._cursors.get(table)
                if cursor is None:
                    cursor = self._cursors[table] = self._raw.cursor(self._table(table))
                if not cursor.set_range(start):
                    return []
                rows: list[tuple[bytes, bytes]] = list(islice(cursor.iternext(), size))
            except lmdb.Error as error:
                raise translated(error, self._storage.path) from error
        if rows and rows[-1][0] >= stop:
            del rows[bisect_left(rows, (stop,)) :]
        return rows

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of `[start, stop)`, read in chunks that grow: the first step reads one."""
        with self._lock:
            self._check(b"x")
            db = self._table(table)
            with _translating(self._storage.path):
                cursor = self._raw.cursor(db)
                there = _place_last(cursor, stop) if reverse else _place_first(cursor, start)
                entries = (cursor.iterprev() if reverse else cursor.iternext()) if there else iter(())
        size = 1
        try:
            while True:
                with self._lock:
                    self._check(b"x")
                    with _translating(self._storage.path):
                        chunk: list[tuple[bytes, bytes]] = list(islice(entries, size))
                if not chunk:
                    return
                last = chunk[-1][0]
                if reverse and last < start:
                    yield from (entry for entry in chunk if entry[0] >= start)
                    return
                if not reverse and stop is not None and last >= stop:
                    yield from chunk[: bisect_left(chunk, (stop,))]
                    return
                yield from chunk
                size = min(size * 4, _CHUNK_MAX)
        finally:
            with self._lock:
                if self._open:
                    cursor.close()

    def commit(self) -> None:
        """Makes its changes visible."""
        with self._lock:
            self._check(b"x")
            self._open = False
            self._storage.done(self)
            if not self._write:
                self._raw.abort()
                return
        with _translating(self._storage.path):
            self._raw.commit()

    def abort(self) -> None:
        """Ends it without a trace."""
        with self._lock:
            if self._open:
                self._open = False
                self._storage.done(self)
                self._raw.abort()

    def expire(self) -> None:
        """Ends it for its age."""
        with self._lock:
            self._too_old = self._open
            self.abort()

    def _table(self, table: str) -> Any:
        try:
            return self._tables[table]
        except KeyError:
            raise UsageError(
                f"{self._storage.path} has no table {table!r}; it was opened with {', '.join(self._tables)}"
            ) from None

    def _check(self, key: bytes, *, write: bool = False) -> None:
        if not self._open:
            if self._too_old:
                raise ReadTooOld(
                    f"{self._storage.path}: this transaction has read for more than {limits.STORAGE_READ_S:g} s and "
                    "was ended; begin another, and go on from where it was"
                )
            raise UsageError("this transaction has ended; begin another")
        if not 1 <= len(key) <= limits.STORAGE_KEY_BYTES_MAX:
            raise UsageError(f"a key of {len(key)} bytes: a key has 1 to {limits.STORAGE_KEY_BYTES_MAX}")
        if write and not self._write:
            raise UsageError("this transaction only reads; begin(write=True)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()

    def __del__(self) -> None:
        self.abort()


def _place_first(cursor: Any, start: bytes) -> bool:
    return bool(cursor.set_range(start) if start else cursor.first())


def _place_last(cursor: Any, stop: bytes | None) -> bool:
    """Places it on the last entry below `stop`."""
    if stop is None:
        return bool(cursor.last())
    if not stop:
        return False
    return bool(cursor.prev() if cursor.set_range(stop) else cursor.last())


def verify_store(path: str) -> int:
    """Reads every page of a store; returns how many entries it has. For a process of its own: LMDB aborts the one in
    which it meets some kinds of corruption.

    Raises:
        StorageCorrupt: says what is wrong, where LMDB says so.
    """
    folder = Path(path)
    if not (folder / "data.mdb").exists():
        return 0
    try:
        entries = 0
        with lmdb.open(path, readonly=True, lock=False, max_dbs=limits.STORAGE_TABLES_MAX) as env:
            with env.begin() as raw:
                for name in list(raw.cursor().iternext(keys=True, values=False)):
                    entries += _walk(raw, env.open_db(name, txn=raw, create=False), f"{path}, table {name!r}")
            # Walks the pages as such, and counts those that are free: all must be one or the other.
            with open(os.devnull, "wb") as nowhere:
                env.copyfd(nowhere.fileno(), compact=True)
        return entries
    except StorageError:
        raise
    except lmdb.Error as error:
        raise StorageCorrupt(f"{path}: {error}") from None


def _walk(raw: Any, db: Any, where: str) -> int:
    count, before = 0, b""
    for key, _ in raw.cursor(db).iternext():
        if key <= before:
            raise StorageCorrupt(f"{where}: keys are out of order")
        before = key
        count += 1
    if count != raw.stat(db)["entries"]:
        raise StorageCorrupt(f"{where}: {count} entries, and it says {raw.stat(db)['entries']}")
    return count
