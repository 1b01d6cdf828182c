"""Histories: what clients asked of a store, when, and what they were told.

A `Recorder` notes each operation when it is invoked and when it ends. An operation ends in one of three ways: `ok`
with a result; `failed`, when it certainly was not executed and never will be; `unknown`, when it may have been, or may
yet be. One that has not ended when the recording does is unknown too.

Stamps are nanoseconds of one clock that all clients of the history share, and the recorder makes them all distinct
(an instant that repeats counts on by one), so that one operation either ended before another began or did not. The
recorder works the same in a simulation and beside a real cluster; the checks do not know which it was.

A history is written as JSON lines: a header, then one operation a line, then, when there is one, the committed log.
Keys and values are whatever JSON has, and bytes; lists come back as tuples.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from aspen import limits
from aspen.errors import HistoryError
from aspen.sim.reading import Fields, check_format, parse

FORMAT: Final = "aspen.sim.history"
VERSION: Final = 1
BYTES_FIELD: Final = "$bytes"
STAMP_MAX: Final = (1 << 63) - 1

Status = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client asked for."""

    client: str
    id: int
    """The client's number for it. Client and id name the operation, in the log too."""
    kind: str
    """What the model knows it as: `get`, `put`, `txn`."""
    keys: tuple[object, ...]
    """Every key that it reads or writes."""
    argument: object
    invoke_ns: int
    return_ns: int | None = None
    """None when it never returned."""
    status: Status = "unknown"
    result: object = None
    error: str | None = None
    revision: int | None = None
    """The store's revision that the answer speaks of: that of the write, or at which the read was served."""
    serializable: bool = False
    """It may be stale: only the model at its revision binds it, real time does not."""

    def describe(self) -> str:
        """The operation in one line, for people."""
        keys = ",".join(_short(key) for key in self.keys)
        argument = "" if self.argument is None else f", {_short(self.argument)}"
        match self.status:
            case "ok":
                outcome = f"= {_short(self.result)}"
            case "failed":
                outcome = f"failed ({self.error})"
            case "unknown":
                outcome = "= ?" if self.error is None else f"= ? ({self.error})"
        revision = "" if self.revision is None else f" @{self.revision}"
        end = "..." if self.return_ns is None else str(self.return_ns)
        return f"{self.client}#{self.id} {self.kind}({keys}{argument}) {outcome}{revision} [{self.invoke_ns}, {end}]"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class Committed:
    """One entry of the committed log, in the order in which the store applied it."""

    revision: int
    """The store's revision once it is applied; the one before when it changed nothing."""
    client: str | None
    """None for an entry of the store's own making, as the expiry of a lease."""
    id: int
    kind: str
    keys: tuple[object, ...]
    argument: object


@dataclass(frozen=True, slots=True)
class History:
    """What was recorded. `log` is None when the store does not show its log."""

    operations: tuple[Operation, ...]
    """By invocation."""
    log: tuple[Committed, ...] | None = None

    def to_json_lines(self) -> str:
        """The history as text for a file; `read_history` reads it back."""
        return "".join(f"{line}\n" for line in _lines(self))


class Recorder:
    """Records operations as they happen. `now_ns` is the clock that all its clients share."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._last_ns = -1
        self._operations: list[Operation] = []
        self._ids: dict[str, int] = {}

    def _stamp(self) -> int:
        self._last_ns = max(self._now_ns(), self._last_ns + 1)
        return self._last_ns

    def invoke(
        self,
        client: str,
        kind: str,
        keys: Iterable[object],
        argument: object = None,
        *,
        id: int | None = None,
        serializable: bool = False,
    ) -> int:
        """Notes that the client asks now; returns the token for its end. Without `id` the client's are counted."""
        number = self._ids.get(client, 0) if id is None else id
        self._ids[client] = number + 1
        operation = Operation(
            client, number, kind, tuple(keys), frozen(argument), self._stamp(), serializable=serializable
        )
        self._operations.append(operation)
        return len(self._operations) - 1

    def id_of(self, token: int) -> int:
        """The id of the operation, for the request that carries it."""
        return self._operations[token].id

    def _end(self, token: int, status: Status, result: object, error: str | None, revision: int | None) -> None:
        operation = self._operations[token]
        if operation.return_ns is not None or operation.error is not None:
            raise HistoryError(f"{operation.describe()} has ended already; each invocation ends once")
        self._operations[token] = replace(
            operation,
            return_ns=None if status == "unknown" else self._stamp(),
            status=status,
            result=frozen(result),
            error=error,
            revision=revision,
        )

    def ok(self, token: int, result: object = None, revision: int | None = None) -> None:
        """It was executed, with this result."""
        self._end(token, "ok", result, None, revision)

    def failed(self, token: int, error: str) -> None:
        """It was certainly not executed, and never will be."""
        self._end(token, "failed", None, error, None)

    def unknown(self, token: int, error: str) -> None:
        """It may have been executed, or may yet be."""
        self._end(token, "unknown", None, error, None)

    def history(self, log: Iterable[Committed] | None = None) -> History:
        """What was recorded so far."""
        return History(tuple(self._operations), None if log is None else tuple(log))


def frozen(value: object) -> object:
    """The value with lists as tuples, so that it stays as it was when recorded, and can be a key."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, bytearray):
        return bytes(value)
    return value


# -- JSON lines -------------------------------------------------------------------------------------------


def _dump(value: object) -> object:
    if isinstance(value, bytes):
        return {BYTES_FIELD: base64.b64encode(value).decode()}
    if isinstance(value, (tuple, list)):
        return [_dump(item) for item in value]
    if isinstance(value, dict):
        if BYTES_FIELD in value or not all(isinstance(key, str) for key in value):
            raise HistoryError(
                f"a value with the keys {list(value)} cannot be written; use text, and not {BYTES_FIELD}"
            )
        return {key: _dump(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise HistoryError(f"a {type(value).__name__} cannot be written to a history; record plain data or bytes")


def _load(value: object, path: str) -> object:
    if isinstance(value, list):
        return tuple(_load(item, path) for item in value)
    if isinstance(value, dict):
        if BYTES_FIELD not in value:
            return {key: _load(item, path) for key, item in value.items()}
        encoded = value[BYTES_FIELD]
        try:
            if len(value) != 1 or not isinstance(encoded, str):
                raise ValueError("one field, of base64")
            return base64.b64decode(encoded, validate=True)
        except ValueError as problem:
            raise HistoryError(f"{path} holds bytes that are not base64: {problem}") from None
    return value


def _lines(history: History) -> Iterator[str]:
    yield json.dumps({"format": FORMAT, "version": VERSION})
    for operation in history.operations:
        record: dict[str, object] = {"client": operation.client, "id": operation.id, "kind": operation.kind}
        record["keys"] = _dump(operation.keys)
        record["argument"] = _dump(operation.argument)
        record["invoke_ns"] = operation.invoke_ns
        record["return_ns"] = operation.return_ns
        record["status"] = operation.status
        record["result"] = _dump(operation.result)
        record["error"] = operation.error
        record["revision"] = operation.revision
        record["serializable"] = operation.serializable
        yield json.dumps({"op": record})
    if history.log is not None:
        yield json.dumps({"log": len(history.log)})
        for entry in history.log:
            row = {"revision": entry.revision, "client": entry.client, "id": entry.id, "kind": entry.kind}
            yield json.dumps({"entry": {**row, "keys": _dump(entry.keys), "argument": _dump(entry.argument)}})


def read_history(text: str) -> History:
    """The history in a text of JSON lines.

    Raises:
        HistoryError: a line is corrupted or missing, or of another version; names the line and the field.
    """
    lines = text.splitlines()
    if not lines:
        raise HistoryError("the history is empty; its first line should be its header")
    head = parse(lines[0], "header", HistoryError, chars_max=limits.HISTORY_LINE_CHARS_MAX)
    check_format(head, FORMAT, VERSION, HistoryError)
    head.done()
    operations: list[Operation] = []
    log: list[Committed] | None = None
    log_length = 0
    for number, line in enumerate(lines[1:], start=2):
        fields = parse(line, f"line {number}", HistoryError, chars_max=limits.HISTORY_LINE_CHARS_MAX)
        if fields.has("op") and log is None:
            operations.append(_operation(fields.inner("op"), operations))
        elif fields.has("log") and log is None:
            log, log_length = [], fields.integer("log", 0, STAMP_MAX)
        elif fields.has("entry") and log is not None:
            log.append(_entry(fields.inner("entry")))
        else:
            raise HistoryError(f"line {number} should hold an op, then once the log's length, then its entries")
        fields.done()
    if log is not None and len(log) != log_length:
        raise HistoryError(f"the log should have {log_length} entries and has {len(log)}: the file was cut or changed")
    return History(tuple(operations), None if log is None else tuple(log))


def _keys(fields: Fields) -> tuple[object, ...]:
    return tuple(_load(key, f"{fields.path}.keys") for key in fields.items("keys", 1_000_000))


def _operation(fields: Fields, before: list[Operation]) -> Operation:
    client = fields.text("client")
    number = fields.integer("id", 0, STAMP_MAX)
    kind = fields.text("kind")
    keys = _keys(fields)
    argument = _load(fields.take("argument"), f"{fields.path}.argument")
    invoke_ns = fields.integer("invoke_ns", before[-1].invoke_ns if before else 0, STAMP_MAX)
    return_ns = fields.integer_or_none("return_ns", invoke_ns, STAMP_MAX)
    status = cast(Status, fields.text("status", ("ok", "failed", "unknown")))
    if (return_ns is None) != (status == "unknown"):
        fields.fail("return_ns", return_ns, "null if and only if the status is unknown")
    result = _load(fields.take("result"), f"{fields.path}.result")
    error = fields.text_or_none("error")
    revision = fields.integer_or_none("revision", 0, STAMP_MAX)
    serializable = fields.boolean("serializable")
    fields.done()
    return Operation(
        client, number, kind, keys, argument, invoke_ns, return_ns, status, result, error, revision, serializable
    )


def _entry(fields: Fields) -> Committed:
    revision = fields.integer("revision", 0, STAMP_MAX)
    client = fields.text_or_none("client")
    entry = Committed(
        revision,
        client,
        fields.integer("id", 0, STAMP_MAX),
        fields.text("kind"),
        _keys(fields),
        _load(fields.take("argument"), f"{fields.path}.argument"),
    )
    fields.done()
    return entry
