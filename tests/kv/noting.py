"""A client of the store that notes every command of its callers in a history: what was asked, and what came of it.

It stands where commands leave the client, so it sees what all its operations are made of: each try of a transaction,
each page of a scan. A command is known by its session and number when it turns up in the log.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aspen.errors import AnswerLost, CallTimeout, KvError, Overloaded, SessionWindow, Unknown
from aspen.kv.client import Kv
from aspen.kv.codec import HEADER, decode_command, decode_result
from aspen.kv.courier import Courier, SessionOver
from aspen.kv.door import SERIALIZABLE
from aspen.kv.inside import InsideFinder
from aspen.kv.types import ErrorCode, Kind
from aspen.sim.history import Recorder

KINDS = {Kind.PUT: "put", Kind.DELETE: "delete", Kind.TXN: "txn", Kind.COMPACT: "compact", Kind.RANGE: "range"}


def plain(command: bytes) -> bytes:
    """A command without its session and number."""
    return command[:2] + bytes(HEADER.size - 2) + command[HEADER.size :]


def keys_of(command: bytes) -> tuple[bytes, ...]:
    """The keys that a command names, for people."""
    request: Any = decode_command(command).request
    if hasattr(request, "key"):
        return (request.key, request.end) if getattr(request, "end", b"") else (request.key,)
    if hasattr(request, "success"):
        return tuple(dict.fromkeys(getattr(op, "key", b"") for op in (*request.compares, *request.success)))
    return ()


class Notes:
    """What the clients of one run asked. The world's; nodes that crash do not forget it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.names: dict[tuple[int, int], tuple[str, int]] = {}
        """(session, number) to the client, and its own number for the command."""
        self.revision = 1
        """The highest that anybody was told of."""

    def asked(self, client: str, lane: int, command: bytes) -> int | None:
        """A command leaves a client; None when it is none that anybody asked for."""
        kind = KINDS.get(command[0])  # type: ignore[call-overload]
        if kind is None:
            return None
        token = self.recorder.invoke(client, kind, keys_of(command), plain(command), serializable=lane == SERIALIZABLE)
        _, _, session, sequence, _ = HEADER.unpack_from(command)
        if session:
            self.names[session, sequence] = (client, self.recorder.id_of(token))
        return token

    def came(self, token: int, future: asyncio.Future[bytes]) -> None:
        """Its result has come, or will not."""
        recorder = self.recorder
        if future.cancelled():
            recorder.unknown(token, "cancelled")
            return
        error = future.exception()
        if isinstance(error, (SessionOver, CallTimeout, Overloaded)):
            recorder.failed(token, type(error).__name__)
        elif error is not None:
            recorder.unknown(token, type(error).__name__)
        else:
            try:
                result: Any = decode_result(future.result())
            except SessionWindow as refused:
                recorder.failed(token, type(refused).__name__)
            except (Unknown, AnswerLost) as lost:
                recorder.unknown(token, type(lost).__name__)
            except KvError as refused:
                recorder.ok(token, ErrorCode(refused.code))
            else:
                self.revision = max(self.revision, result.revision)
                recorder.ok(token, result, result.revision)


class NotedCourier(Courier):
    """See the module."""

    def noted(self, client: str, notes: Notes) -> NotedCourier:
        """Has it write into these notes."""
        self._client, self._notes = client, notes
        return self

    def submit(self, kind: int, body: bytes, deadline_s: float, *, repeatable: bool) -> asyncio.Future[bytes]:
        """Takes a command, and notes it."""
        future = super().submit(kind, body, deadline_s, repeatable=repeatable)
        token = self._notes.asked(self._client, kind, body)
        if token is not None:
            future.add_done_callback(lambda done: self._notes.came(token, done))
        return future


def noted_kv(system: Any, client: str, notes: Notes, *, exactly_once: bool = True) -> Kv:
    """The client of that name on a node."""
    table: dict[Any, Kv] = system.tables.setdefault("tests.kv.noting", {})
    if (client, exactly_once) not in table:
        draw = system.ports.random.rng(f"kv.client/{client}").random
        kv = Kv(InsideFinder(system), system.loop, draw, exactly_once=exactly_once)
        kv._courier = NotedCourier(InsideFinder(system), system.loop, draw).noted(client, notes)
        table[client, exactly_once] = kv
    return table[client, exactly_once]
