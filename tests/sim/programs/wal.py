"""A write-ahead log of JSON records with checksums, on a node's disk."""

from __future__ import annotations

import json
import zlib
from typing import Any

from aspen.traits import Disk


class Wal:
    """Records in one file. A torn tail is cut off when it is opened."""

    def __init__(self, disk: Disk, name: str) -> None:
        files = disk.files("wal")
        self._file = files.open(name)
        files.sync()
        self.records: list[Any] = []
        data = self._file.read(0, self._file.size())
        at = 0
        while at + 8 <= len(data):
            length, check = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
            body = data[at + 8 : at + 8 + length]
            if not length or len(body) < length or zlib.crc32(body) != check:
                break
            self.records.append(json.loads(body))
            at += 8 + length
        self._file.truncate(at)
        self._file.sync()

    def append(self, record: Any, *, sync: bool = True) -> None:
        body = json.dumps(record).encode()
        self._file.append(len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body)
        if sync:
            self._file.sync()

    def sync(self) -> None:
        self._file.sync()
