"""`SimStorage`: ordered tables with transactions, as LMDB with `metasync` off gives them, on a simulated disk.

What a loss of power leaves, as LMDB promises it: every commit but perhaps the last, each wholly. When syncs lied, that
promise is void: several commits may be gone, or the store is corrupt and says so when it is opened.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from aspen.errors import MapFull, StorageCorrupt, UsageError
from aspen.limits import STORAGE_KEY_BYTES_MAX
from aspen.traits import RandomStream

PAGE_BYTES: Final = 4096
ENTRY_BYTES: Final = 16
"""What an entry takes in a page beside its key and value, about."""


class Device(Protocol):
    """What a store needs of the disk it is on."""

    def before_sync(self, path: str, on_error: Callable[[], object] | None = None) -> bool:
        """Whether the device really syncs."""
        ...

    def fail_read(self, path: str) -> None:
        """Fails if the device does."""
        ...

    def map_is_full(self) -> bool:
        """Whether a put finds no room, by fault."""
        ...


class Handles(Protocol):
    """Whether the incarnation that holds the store still counts."""

    def counts(self, what: str) -> bool:
        """Whether an operation reaches the device."""
        ...


class Table:
    """Keys in order, and their values. Shared by readers until it is changed: see `StoreImage.own`."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes] | None = None, values: dict[bytes, bytes] | None = None) -> None:
        self.keys = keys if keys is not None else []
        self.values = values if values is not None else {}

    def copy(self) -> Table:
        """The same in a new object."""
        return Table(list(self.keys), dict(self.values))

    def put(self, key: bytes, value: bytes) -> None:
        """Sets a value."""
        if key not in self.values:
            insort(self.keys, key)
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        """Takes a key out that is there."""
        del self.values[key]
        del self.keys[bisect_left(self.keys, key)]


Undo = list[tuple[str, bytes, bytes | None]]


class StoreImage:
    """One store on the device."""

    __slots__ = ("at_risk", "bytes_used", "corrupt", "path", "shared", "tables")

    def __init__(self, path: str) -> None:
        self.path = path
        self.tables: dict[str, Table] = {}
        self.shared: set[str] = set()
        """Tables that a reader may be looking at: copied before they change."""
        self.at_risk: list[Undo] = []
        """Commits that a loss of power may undo, oldest first, each as what to put back."""
        self.bytes_used = PAGE_BYTES * 2
        self.corrupt = False

    def copy(self) -> StoreImage:
        """The same in a new object."""
        copy = StoreImage(self.path)
        copy.tables = {name: table.copy() for name, table in self.tables.items()}
        copy.at_risk = [list(undo) for undo in self.at_risk]
        copy.bytes_used = self.bytes_used
        copy.corrupt = self.corrupt
        return copy

    def check(self) -> None:
        """Raises StorageCorrupt when it is."""
        if self.corrupt:
            raise StorageCorrupt(
                f"{self.path}: its pages do not fit together; rebuild it from a snapshot or from peers"
            )

    def rows(self) -> int:
        """Entries in all tables."""
        return sum(len(table.keys) for table in self.tables.values())

    def own(self, name: str) -> Table:
        """A table to change: a copy if readers hold it."""
        table = self.tables[name]
        if name in self.shared:
            self.shared.discard(name)
            table = self.tables[name] = table.copy()
        return table

    def apply(self, changes: dict[str, dict[bytes, bytes | None]]) -> Undo:
        """Makes changes; returns what puts them back."""
        undo: Undo = []
        for name, changed in changes.items():
            table = self.own(name)
            values = table.values
            for key, value in changed.items():
                old = values.get(key)
                undo.append((name, key, old))
                if value is not None:
                    self.bytes_used += len(value) - (len(old) if old is not None else -len(key) - ENTRY_BYTES)
                    table.put(key, value)
                elif old is not None:
                    self.bytes_used -= len(key) + len(old) + ENTRY_BYTES
                    table.delete(key)
        return undo

    def lose_power(self, rng: RandomStream) -> None:
        """At most the last commit is lost; more, or all, when syncs lied."""
        commits = len(self.at_risk)
        if not commits:
            return
        lost = rng.randrange(commits + 1)
        if commits > 1 and rng.random() < 0.5:
            self.corrupt = True
        for undo in reversed(self.at_risk[commits - lost :]):
            for name, key, old in reversed(undo):
                self.apply({name: {key: old}})
        self.at_risk = []

    def rot(self, rng: RandomStream) -> None:
        """Flips a bit of a value, or of a key where values are empty: whoever reads it must notice."""
        entries = [(name, key) for name, table in self.tables.items() for key in table.keys]
        name, key = rng.choice(entries)
        table = self.own(name)
        value = bytearray(table.values[key])
        if value:
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
            table.values[key] = bytes(value)
        else:
            self.corrupt = True


class SimStorage:
    """`aspen.traits.Storage` on a simulated disk, as one incarnation of a node has it open."""

    __slots__ = ("_closed", "_device", "_handles", "_image", "_map_bytes", "_names", "_writer")

    def __init__(
        self, device: Device, handles: Handles, image: StoreImage, tables: Sequence[str], map_bytes: int
    ) -> None:
        image.check()
        device.fail_read(image.path)
        self._device = device
        self._handles = handles
        self._image = image
        self._map_bytes = map_bytes
        self._names = tuple(tables)
        self._closed = False
        self._writer: SimTransaction | None = None
        for name in tables:
            image.tables.setdefault(name, Table())

    def begin(self, *, write: bool = False) -> SimTransaction:
        """Begins a transaction; one writes at a time."""
        if self._closed:
            raise UsageError(f"{self._image.path} is closed")
        if write and self._writer is not None:
            raise UsageError(
                f"{self._image.path}: another transaction is writing; in production this would wait for it for good"
            )
        transaction = SimTransaction(self, self._image, write=write)
        if write:
            self._writer = transaction
        return transaction

    def sync(self) -> None:
        """Returns when every commit is on the device."""
        if self._handles.counts("synced a store") and self._device.before_sync(self._image.path):
            self._image.at_risk = []

    def used_bytes(self) -> int:
        """How much of the map is taken, about."""
        return self._image.bytes_used

    def close(self) -> None:
        """Ends its use."""
        self._closed = True
        if self._writer is not None:
            self._writer.abort()

    # -- what transactions do with it ---------------------------------------------------------------

    def table(self, name: str) -> None:
        """Checks that there is a table of that name."""
        if name not in self._names:
            raise UsageError(f"{self._image.path} has no table {name!r}; it was opened with {', '.join(self._names)}")

    def check_room(self, more_bytes: int) -> None:
        """Raises MapFull when so much more does not fit."""
        if self._image.bytes_used + more_bytes > self._map_bytes or self._device.map_is_full():
            raise MapFull(f"{self._image.path}: the map of {self._map_bytes} bytes is full")

    def commit(self, changes: dict[str, dict[bytes, bytes | None]]) -> None:
        """Makes the changes of the writer; all or none."""
        if not any(changes.values()):
            return
        image = self._image
        honest = True
        if self._handles.counts("committed to a store"):
            honest = self._device.before_sync(image.path)
        undo = image.apply(changes)
        if honest:
            image.at_risk = []
        image.at_risk.append(undo)

    def done(self, transaction: SimTransaction) -> None:
        """A transaction has ended."""
        if self._writer is transaction:
            self._writer = None


class SimTransaction:
    """`aspen.traits.StorageTransaction`: a view of the moment it began, and changes on top of it."""

    __slots__ = ("_changes", "_more_bytes", "_open", "_storage", "_tables", "_write")

    def __init__(self, storage: SimStorage, image: StoreImage, *, write: bool) -> None:
        self._storage = storage
        self._write = write
        self._open = True
        self._more_bytes = 0
        self._changes: dict[str, dict[bytes, bytes | None]] = {}
        self._tables = image.tables if write else dict(image.tables)
        if not write:
            image.shared.update(image.tables)

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None."""
        self._check(table, key)
        changed = self._changes.get(table)
        if changed is not None and key in changed:
            return changed[key]
        return self._tables[table].values.get(key)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Sets the value."""
        self._check(table, key, write=True)
        changed = self._changes.setdefault(table, {})
        replaced = changed.get(key)
        more = len(value) - len(replaced) if replaced is not None else len(key) + len(value) + ENTRY_BYTES
        self._storage.check_room(self._more_bytes + more)
        self._more_bytes += more
        changed[bytes(key)] = bytes(value)

    def delete(self, table: str, key: bytes) -> bool:
        """Removes the key; False when it was not there."""
        if self.get(table, key) is None:
            self._check(table, key, write=True)
            return False
        self._check(table, key, write=True)
        self._changes.setdefault(table, {})[bytes(key)] = None
        return True

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of `[start, stop)`."""
        self._check(table, b"x")
        base = self._tables[table]
        low = bisect_left(base.keys, start)
        high = len(base.keys) if stop is None else bisect_left(base.keys, stop)
        keys: list[bytes] = base.keys[low:high]
        changed = self._changes.get(table)
        if changed:
            inside = {key for key in changed if key >= start and (stop is None or key < stop)}
            if inside:
                keys = sorted(inside.union(keys))
        values = base.values
        for key in reversed(keys) if reverse else keys:
            value = changed[key] if changed and key in changed else values[key]
            if value is not None:
                yield key, value

    def commit(self) -> None:
        """Makes its changes visible."""
        self._check_open()
        self._end()
        if self._write:
            self._storage.commit(self._changes)

    def abort(self) -> None:
        """Ends it without a trace."""
        if self._open:
            self._end()

    def _end(self) -> None:
        self._open = False
        self._storage.done(self)

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError("this transaction has ended; begin another")

    def _check(self, table: str, key: bytes, *, write: bool = False) -> None:
        self._check_open()
        if table not in self._tables:
            self._storage.table(table)
        if not 1 <= len(key) <= STORAGE_KEY_BYTES_MAX:
            raise UsageError(f"a key of {len(key)} bytes: a key has 1 to {STORAGE_KEY_BYTES_MAX}")
        if write and not self._write:
            raise UsageError("this transaction only reads; begin(write=True)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()
