"""`aspen.traits.Storage` on real LMDB, as plainly as can be: what the simulated one is compared with.

Not with `lock=False`: LMDB then forgets its readers, and reuses the pages that they look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from aspen.errors import MapFull, UsageError


class LmdbStorage:
    def __init__(self, path: Path, tables: Sequence[str], *, map_bytes: int) -> None:
        self.env = lmdb.open(str(path), map_size=map_bytes, max_dbs=len(tables), metasync=False, max_spare_txns=0)
        self.tables = {name: self.env.open_db(name.encode()) for name in tables}

    def begin(self, *, write: bool = False) -> LmdbTransaction:
        return LmdbTransaction(self, write=write)

    def sync(self) -> None:
        self.env.sync(True)

    def used_bytes(self) -> int:
        return int(self.env.info()["last_pgno"]) * 4096

    def close(self) -> None:
        self.env.close()


class LmdbTransaction:
    def __init__(self, storage: LmdbStorage, *, write: bool) -> None:
        self.tables = storage.tables
        self.txn = storage.env.begin(write=write)
        self.write = write
        self.open = True

    def check(self, key: bytes, *, write: bool = False) -> None:
        if not self.open:
            raise UsageError("this transaction has ended")
        if not 1 <= len(key) <= 511:
            raise UsageError("a key has 1 to 511 bytes")
        if write and not self.write:
            raise UsageError("this transaction only reads")

    def get(self, table: str, key: bytes) -> bytes | None:
        self.check(key)
        value = self.txn.get(key, db=self.tables[table])
        return None if value is None else bytes(value)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.check(key, write=True)
        try:
            self.txn.put(key, value, db=self.tables[table])
        except lmdb.MapFullError as error:
            raise MapFull(str(error)) from None

    def delete(self, table: str, key: bytes) -> bool:
        self.check(key, write=True)
        return bool(self.txn.delete(key, db=self.tables[table]))

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self.check(b"x")
        with self.txn.cursor(db=self.tables[table]) as cursor:
            if not reverse:
                found = cursor.set_range(start) if start else cursor.first()
                while found and (stop is None or cursor.key() < stop):
                    yield bytes(cursor.key()), bytes(cursor.value())
                    found = cursor.next()
                return
            if stop is None:
                found = cursor.last()
            elif stop and cursor.set_range(stop):
                found = cursor.prev()
            else:
                found = bool(stop) and cursor.last()
            while found and cursor.key() >= start:
                yield bytes(cursor.key()), bytes(cursor.value())
                found = cursor.prev()

    def commit(self) -> None:
        self.check(b"x")
        self.open = False
        self.txn.commit()

    def abort(self) -> None:
        if self.open:
            self.open = False
            self.txn.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()
