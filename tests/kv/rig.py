"""What tests of the state machine share: a machine on a simulated disk, driven as its actor drives it."""

from __future__ import annotations

from typing import Any

from aspen.errors import KvError
from aspen.kv.codec import decode_result, encode_batch, encode_command
from aspen.kv.machine import TABLES, Machine
from aspen.kv.types import (
    CompactRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    KeyValue,
    PutRequest,
    RangeRequest,
    SessionOpen,
    TxnRequest,
)
from aspen.sim import SimDisk, VirtualRandom
from aspen.traits import Storage

MAP_BYTES = 1 << 30
ALL = RangeRequest(b"\0", b"\0")


def outcome(result: bytes) -> Any:
    """A result, or its error as an exception."""
    try:
        return decode_result(result)
    except KvError as error:
        return error


class Rig:
    """A machine and the disk under it. What is applied is kept, as the log would."""

    def __init__(self, seed: int = 1) -> None:
        self.disk = SimDisk("a", VirtualRandom(seed))
        self.log: list[tuple[int, int, bytes]] = []
        self.term = 1
        self.machine = self.open()

    def open(self) -> Machine:
        self.port = self.disk.mount(lambda what: None)
        return Machine(self.store())

    def store(self, name: str = "kv") -> Storage:
        return self.port.storage(name, TABLES, map_bytes=MAP_BYTES)

    def apply(self, payload: bytes) -> list[bytes]:
        index = self.machine.applied[0] + 1
        self.log.append((index, self.term, payload))
        results = self.machine.apply(index, self.term, payload)
        assert results is not None
        return results

    def run(self, *requests: Any, **options: Any) -> list[Any]:
        """One entry with these; each one's result, or the error as an exception."""
        results = self.apply(encode_batch([encode_command(request, **options) for request in requests]))
        return [outcome(result) for result in results]

    def one(self, request: Any, **options: Any) -> Any:
        """One command; raises its error."""
        (result,) = self.run(request, **options)
        if isinstance(result, Exception):
            raise result
        return result

    def put(self, key: bytes, value: bytes = b"v", **options: Any) -> int:
        return self.one(PutRequest(key, value), **options).revision

    def delete(self, key: bytes, end: bytes = b"") -> int:
        return self.one(DeleteRequest(key, end)).deleted

    def compact(self, revision: int) -> None:
        self.one(CompactRequest(revision))

    def scrub(self, rows: int = 500) -> None:
        while self.machine.compact_step(rows):
            pass

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        kvs = self.machine.range(RangeRequest(key, revision=revision)).kvs
        return kvs[0] if kvs else None

    def all(self, revision: int = 0) -> tuple[KeyValue, ...]:
        return self.machine.range(ALL._replace(revision=revision)).kvs

    def session(self) -> int:
        return self.one(SessionOpen()).session

    def flush(self, *, sync: bool = False) -> None:
        flush = self.machine.freeze()
        if flush is not None:
            flush.write(sync=sync)
            self.machine.flushed(flush)

    def crash(self, *, power: bool = False) -> None:
        """What was not written is lost, and with the power perhaps the last commit; the log is applied again."""
        synced = self.machine.synced
        self.disk.cut_off()
        if power:
            self.disk.lose_power()
        self.machine = self.open()
        assert self.machine.applied >= synced, "what was synced is lost"
        self.replay()

    def replay(self) -> None:
        for index, term, payload in self.log:
            self.machine.apply(index, term, payload)

    @property
    def revision(self) -> int:
        return self.machine.status().keyspaces[1].revision


def when(key: bytes, target: CompareTarget, result: CompareResult, operand: int | bytes, end: bytes = b"") -> Compare:
    return Compare(key, target, result, operand, end)


def absent(key: bytes) -> Compare:
    return Compare(key, CompareTarget.CREATE, CompareResult.EQUAL, 0)


def txn(*success: Any, compares: tuple[Compare, ...] = (), failure: tuple[Any, ...] = ()) -> TxnRequest:
    return TxnRequest(compares, success, failure)
