"""`WriteBehind`: tables whose changes are seen at once and reach the storage in batches.

    changes(table)[key] = value         None deletes
    get, scan                           the changes over what the storage has
    flush = freeze()                    takes the changes so far aside; they are still seen
    flush.write()                       blocking, in a thread: one transaction of the storage
    flushed(flush)                      they are in the storage now

One flush at a time. Everything but `write` is called from one thread. Values are kept in the storage with a checksum
over key and value, which is held against each row that is read back: rot is noticed where it is met.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import Any, Final
from zlib import crc32

from aspen.errors import InvariantBroken, ReadTooOld, StorageCorrupt
from aspen.traits import Storage, StorageTransaction

_CHECKSUM: Final = Struct("<I")
CHECKSUM_BYTES: Final = 4
_RESIDUE: Final = 0x2144DF1C
"""The CRC of any bytes with their own CRC behind them."""
_INSERTED_MAX: Final = 16
"""New keys up to which a layer puts each in its place instead of sorting."""

Row = tuple[bytes, bytes]
Change = tuple[bytes, bytes | None]


def seal(key: bytes, value: bytes) -> bytes:
    """A value as the storage has it."""
    return value + _CHECKSUM.pack(crc32(value, crc32(key)))


def unseal(table: str, key: bytes, sealed: bytes) -> bytes:
    """The value that was sealed. Raises StorageCorrupt."""
    value = sealed[:-CHECKSUM_BYTES]
    if sealed[-CHECKSUM_BYTES:] != _CHECKSUM.pack(crc32(value, crc32(key))):
        raise StorageCorrupt(
            f"a row of {table} ({key[:32].hex()}) does not have its checksum; rebuild it from a snapshot or from peers"
        )
    return value


class Layer:
    """Changes of one table, in order when that is asked for."""

    __slots__ = ("_order", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._order: list[bytes] = []

    def order(self) -> list[bytes]:
        """The keys, sorted. None is ever taken out, so those that were put since are the last in the dictionary."""
        order, values = self._order, self.values
        more = len(values) - len(order)
        if 0 < more <= _INSERTED_MAX:
            # Writes and scans that alternate, as in a compaction: sorting would look at all keys each time.
            for key in list(islice(reversed(values), more)):
                insort(order, key)
        elif more:
            order.extend(islice(values, len(order), None))
            order.sort()
        return order

    def bounds(self, start: bytes, stop: bytes | None) -> tuple[int, int]:
        """Where in `order` the keys of `[start, stop)` are."""
        if not self.values:
            return 0, 0
        order = self.order()
        low = bisect_left(order, start)
        return low, len(order) if stop is None else bisect_left(order, stop, low)


class Flush:
    """Changes on their way to the storage."""

    __slots__ = ("_storage", "layers", "mark", "synced", "written")

    def __init__(self, storage: Storage, layers: dict[str, Layer], mark: Any) -> None:
        self._storage = storage
        self.layers = layers
        self.mark = mark
        """What the owner wants to remember with it."""
        self.written = False
        self.synced = False

    def write(self, *, sync: bool = False) -> None:
        """Commits the changes, and syncs them if asked to. Blocking; once.

        Without `sync` a loss of power may undo it until the next one is written.
        Raises what the storage raises: nothing of it was committed, and the machine must end.
        """
        with self._storage.begin(write=True) as transaction:
            put_many = getattr(transaction, "put_many", None)
            for table, layer in self.layers.items():
                if not layer.values:
                    continue
                items = sorted(layer.values.items())
                puts = [(key, seal(key, value)) for key, value in items if value is not None]
                if put_many is not None:
                    put_many(table, puts)
                else:
                    for key, sealed in puts:
                        transaction.put(table, key, sealed)
                if len(puts) != len(items):
                    for key, value in items:
                        if value is None:
                            transaction.delete(table, key)
            transaction.commit()
        self.written = True
        if sync:
            self._storage.sync()
            self.synced = True


class WriteBehind:
    """See the module. Owns the storage."""

    def __init__(self, storage: Storage, tables: Sequence[str]) -> None:
        self._storage = storage
        self._names = tuple(tables)
        self._active = {name: Layer() for name in self._names}
        self._flush: Flush | None = None
        self._reader: StorageTransaction | None = None

    def changes(self, table: str) -> dict[bytes, bytes | None]:
        """Where changes of a table go, until the next `freeze`."""
        return self._active[table].values

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None."""
        values = self._active[table].values
        if key in values:
            return values[key]
        if self._flush is not None:
            values = self._flush.layers[table].values
            if key in values:
                return values[key]
        try:
            sealed = (self._reader or self._read()).get(table, key)
        except ReadTooOld:
            sealed = self._read().get(table, key)
        return None if sealed is None else unseal(table, key, sealed)

    def scan(self, table: str, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[Row]:
        """Keys and values of `[start, stop)` in order. Change nothing of the table between its steps, nor freeze."""
        stored = self.scan_stored(table, start, stop, reverse=reverse)
        rows: Iterator[Change] = stored
        layers = [self._active[table]]
        if self._flush is not None:
            layers.append(self._flush.layers[table])
        for layer in reversed(layers):
            low, high = layer.bounds(start, stop)
            if low < high:
                rows = _merge(_changes(layer, low, high, reverse=reverse), rows, reverse=reverse)
        return stored if rows is stored else _present(rows)

    def scan_stored(self, table: str, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[Row]:
        """The same of what the storage has alone."""
        pack = _CHECKSUM.pack
        while True:
            last = None
            try:
                for key, sealed in (self._reader or self._read()).scan(table, start, stop, reverse=reverse):
                    value = sealed[:-CHECKSUM_BYTES]
                    if sealed[-CHECKSUM_BYTES:] != pack(crc32(value, crc32(key))):
                        unseal(table, key, sealed)
                    yield key, value
                    last = key
                return
            except ReadTooOld:
                self._read()
            if last is not None and reverse:
                stop = last
            elif last is not None:
                start = last + b"\0"

    def rows(self, table: str, start: bytes, stop: bytes, size: int) -> tuple[list[Row], bytes | None]:
        """Some keys and values of `[start, stop)` in order, about `size`; and where to go on, None at the end.

        Those who want many take less time for them than by `scan`, and may leave some out on the way.
        """
        stored = self._stored(table, start, stop, size)
        after = stored[-1][0] + b"\0" if len(stored) == size else None
        layers = [self._active[table]] if self._flush is None else [self._flush.layers[table], self._active[table]]
        over: list[tuple[Layer, int, int]] = []
        for layer in layers:
            low, high = layer.bounds(start, stop if after is None else after)
            if high - low > size:
                high = low + size
                after = layer.order()[high - 1] + b"\0"
            if low < high:
                over.append((layer, low, high))
        if not over:
            return stored, after
        merged: dict[bytes, bytes | None] = dict(stored)
        for layer, low, high in over:
            values = layer.values
            merged.update([(key, values[key]) for key in layer.order()[low:high]])
        keys = sorted(merged)
        if after is not None:
            del keys[bisect_left(keys, after) :]
        return [(key, value) for key in keys if (value := merged[key]) is not None], after

    def _stored(self, table: str, start: bytes, stop: bytes, size: int) -> list[Row]:
        """The first rows of `[start, stop)` of what the storage has alone."""
        reader = self._reader or self._read()
        chunk = getattr(reader, "chunk", None)
        if chunk is None:
            return list(islice(self.scan_stored(table, start, stop), size))
        try:
            rows: list[Row] = chunk(table, start, stop, size)
        except ReadTooOld:
            return list(islice(self.scan_stored(table, start, stop), size))
        for key, sealed in rows:
            if crc32(sealed, crc32(key)) != _RESIDUE:
                unseal(table, key, sealed)
        return [(key, sealed[:-CHECKSUM_BYTES]) for key, sealed in rows]

    def first_stored(self, table: str, start: bytes, stop: bytes) -> Row | None:
        """The first row of `[start, stop)` of what the storage has alone."""
        reader = self._reader or self._read()
        first = getattr(reader, "first", None)
        if first is None:
            return next(self.scan_stored(table, start, stop), None)
        try:
            row: Row | None = first(table, start, stop)
        except ReadTooOld:
            return next(self.scan_stored(table, start, stop), None)
        return None if row is None else (row[0], unseal(table, *row))

    def freeze(self, mark: Any = None) -> Flush | None:
        """Takes the changes aside; None: there are none. Raises InvariantBroken: one flush is under way."""
        self.check_free()
        if not self.unfrozen():
            return None
        self._flush = Flush(self._storage, self._active, mark)
        self._active = {name: Layer() for name in self._names}
        return self._flush

    def check_free(self) -> None:
        """Raises InvariantBroken: a flush is under way."""
        if self._flush is not None:
            raise InvariantBroken("a flush is under way; freeze when it is flushed")

    def flushed(self, flush: Flush) -> None:
        """The flush is in the storage."""
        if flush is not self._flush or not flush.written:
            raise InvariantBroken("only the flush under way is flushed, and when it is written")
        self._flush = None
        self.release()

    def release(self) -> None:
        """Lets go of what the storage keeps for its reader. Harmless; the next read begins anew."""
        if self._reader is not None:
            self._reader.abort()
            self._reader = None

    def unfrozen(self) -> bool:
        """Whether there are changes since the last `freeze`."""
        return any(layer.values for layer in self._active.values())

    def unflushed(self) -> int:
        """Changes that are in memory alone, about."""
        layers = list(self._active.values())
        if self._flush is not None:
            layers += self._flush.layers.values()
        return sum(len(layer.values) for layer in layers)

    def close(self) -> None:
        """Closes the storage. What is not written is lost."""
        self.release()
        self._storage.close()

    def _read(self) -> StorageTransaction:
        self.release()
        self._reader = self._storage.begin()
        return self._reader


def _changes(layer: Layer, low: int, high: int, *, reverse: bool) -> Iterator[Change]:
    order, values = layer.order(), layer.values
    for at in range(high - 1, low - 1, -1) if reverse else range(low, high):
        key = order[at]
        yield key, values[key]


def _present(changes: Iterator[Change]) -> Iterator[Row]:
    for key, value in changes:
        if value is not None:
            yield key, value


def _merge(newer: Iterator[Change], older: Iterator[Change], *, reverse: bool) -> Iterator[Change]:
    """Both in order; of the same key, the newer one's."""
    above = next(newer, None)
    below = next(older, None)
    while above is not None and below is not None:
        if above[0] == below[0]:
            yield above
            above, below = next(newer, None), next(older, None)
        elif (above[0] < below[0]) is not reverse:
            yield above
            above = next(newer, None)
        else:
            yield below
            below = next(older, None)
    if above is not None:
        yield above
        yield from newer
    if below is not None:
        yield below
        yield from older
