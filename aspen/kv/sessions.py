"""`Sessions`: results that are kept, so that a command which comes twice is executed once.

A client opens a session, numbers its commands from 1, and says with each below which number it has all results
(`acked_below`): those are forgotten. A number that is known answers with the first result; one below what was
acknowledged, or of a session that is not known, is `Unknown` and never executed. Numbers may come in any order within
KV_SESSION_WINDOW. Results that are too large are kept as `AnswerLost`, with the revision.

A session's id is the number of sessions opened before it, so that it is never used again.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from aspen.errors import StorageCorrupt
from aspen.kv.codec import encode_error
from aspen.kv.layout import SESSIONS
from aspen.kv.types import ErrorCode
from aspen.kv.write_behind import WriteBehind
from aspen.limits import KV_RESULT_KEPT_BYTES_MAX, KV_SESSION_BYTES_MAX, KV_SESSION_WINDOW, KV_SESSIONS_MAX

_ID = Struct(">Q")
_SESSION = Struct("<QQI")
_KEPT = Struct("<QI")
_SMALL_BYTES: Final = 32
"""A result of this size is always kept: it takes no more than what would stand for it."""


class Session:
    """One session. `floor`: all lower numbers are acknowledged; `active`: log index of its last command."""

    __slots__ = ("active", "floor", "results", "size")

    def __init__(self, active: int, floor: int = 1) -> None:
        self.active = active
        self.floor = floor
        self.results: dict[int, bytes] = {}
        self.size = 0

    def acknowledge(self, below: int) -> None:
        """Forgets results below a number."""
        results = self.results
        if below - self.floor <= len(results):
            for sequence in range(self.floor, below):
                gone = results.pop(sequence, None)
                if gone is not None:
                    self.size -= len(gone)
        else:
            self.results = {sequence: kept for sequence, kept in results.items() if sequence >= below}
            self.size = sum(map(len, self.results.values()))
        self.floor = below

    def keep(self, sequence: int, result: bytes, revision: int) -> None:
        """Remembers a result, or, when it is too large, that there was one."""
        size = len(result)
        if size > _SMALL_BYTES and (size > KV_RESULT_KEPT_BYTES_MAX or self.size + size > KV_SESSION_BYTES_MAX):
            result = encode_error(ErrorCode.ANSWER_LOST, revision)
            size = len(result)
        self.results[sequence] = result
        self.size += size

    def pack(self) -> bytes:
        """As the storage has it. In order of numbers, so that it is the same on every member."""
        parts = [_SESSION.pack(self.floor, self.active, len(self.results))]
        for sequence, result in sorted(self.results.items()):
            parts += (_KEPT.pack(sequence, len(result)), result)
        return b"".join(parts)


class Sessions:
    """All sessions. See the module."""

    __slots__ = ("_open", "_tables", "_touched", "next_id")

    def __init__(self, tables: WriteBehind, next_id: int = 1) -> None:
        self._tables = tables
        self.next_id = next_id
        self._open: dict[int, Session] = {}
        self._touched: set[int] = set()
        for key, value in tables.scan(SESSIONS, b"", None):
            self._open[_ID.unpack(key)[0]] = unpack_session(value)

    def __len__(self) -> int:
        return len(self._open)

    def open(self, index: int) -> int:
        """Opens one; returns its id, or 0: there are too many."""
        if len(self._open) >= KV_SESSIONS_MAX:
            return 0
        id = self.next_id
        self.next_id += 1
        self._open[id] = Session(index)
        self._touched.add(id)
        return id

    def close(self, id: int, unless_used_since: int | None = None) -> bool:
        """Ends one; False: there is none, or it was used since that log index."""
        session = self._open.get(id)
        if session is None or (unless_used_since is not None and session.active > unless_used_since):
            return False
        del self._open[id]
        self._touched.add(id)
        return True

    def enter(self, id: int, sequence: int, acked_below: int, index: int) -> Session | bytes:
        """The session in which a command is to be executed, or its result: it was before, or is refused."""
        session = self._open.get(id)
        if session is None:
            return encode_error(ErrorCode.UNKNOWN, min(id, _NUMBER_MAX))
        if not sequence > 0 or acked_below > sequence:
            return encode_error(ErrorCode.BAD_COMMAND)
        self._touched.add(id)
        session.active = index
        if acked_below > session.floor:
            session.acknowledge(acked_below)
        offset = sequence - session.floor
        if offset < 0:
            return encode_error(ErrorCode.UNKNOWN, id)
        kept = session.results.get(sequence)
        if kept is not None:
            return kept
        if offset >= KV_SESSION_WINDOW:
            return encode_error(ErrorCode.SESSION_WINDOW, KV_SESSION_WINDOW)
        return session

    def touch(self, id: int, acked_below: int, index: int) -> bool:
        """Marks one as used; False: there is none."""
        session = self._open.get(id)
        if session is None:
            return False
        self._touched.add(id)
        session.active = index
        if acked_below > session.floor:
            session.acknowledge(acked_below)
        return True

    def clear(self, jump: int) -> None:
        """Ends all, and leaves out so many ids."""
        self._touched.update(self._open)
        self._open.clear()
        self.next_id += jump

    def save(self) -> None:
        """Writes those that have changed since the last time to the tables."""
        rows = self._tables.changes(SESSIONS)
        for id in self._touched:
            session = self._open.get(id)
            rows[_ID.pack(id)] = None if session is None else session.pack()
        self._touched.clear()

    def list(self) -> list[tuple[int, int]]:
        """(id, log index of the last command) of each."""
        return [(id, session.active) for id, session in self._open.items()]


_NUMBER_MAX: Final = (1 << 63) - 1


def unpack_session(data: bytes) -> Session:
    """A session from a row of the storage. Raises StorageCorrupt."""
    floor, active, count = _SESSION.unpack_from(data)
    session = Session(active, floor)
    at = _SESSION.size
    for _ in range(count):
        sequence, length = _KEPT.unpack_from(data, at)
        at += _KEPT.size
        session.results[sequence] = data[at : at + length]
        session.size += length
        at += length
    if at != len(data):
        raise StorageCorrupt("a session's row is malformed; rebuild the store from a snapshot or from peers")
    return session
