"""What a store has told its clients, held against its committed log, and against no log at all.

`replay` applies the committed commands one by one to the dumb model of `tests.kv.model`, sessions included: a command
that stands in the log twice is executed once. `StoreModel` answers for `check_revisions` what each command should have
been told. `by_key` makes of the same history one that `check_linearizable` searches key by key, trusting no revision.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from aspen.errors import KvError
from aspen.kv.codec import HEADER, decode_batch, decode_command
from aspen.kv.mutations import mutate_all
from aspen.kv.types import (
    Alarm,
    AlarmRequest,
    CompactRequest,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    ErrorCode,
    Kind,
    PutRequest,
    RangeRequest,
    SessionClose,
    SessionExpire,
    SessionKeep,
    SessionOpen,
    TxnRequest,
    UpdateRequest,
)
from aspen.limits import KV_SESSION_WINDOW
from aspen.raft import EntryKind
from aspen.sim.checks import Violation
from aspen.sim.history import Committed, Operation
from tests.kv import model as dumb
from tests.kv.noting import KINDS, keys_of, plain

CHECK: Final = "store"


class Model(dumb.Model):
    """The dumb model, with changes of values that nobody has read."""

    def execute(self, request: TxnRequest, before: Any, state: Any, events: Any) -> Any:
        holds, operations = self.taken(request, before)
        responses: list[Any] = []
        for operation in operations:
            if isinstance(operation, TxnRequest):
                responses.append(self.execute(operation, before, state, events))
            elif isinstance(operation, RangeRequest):
                responses.append(self.range(operation, state, self.revision + bool(events)))
            elif isinstance(operation, PutRequest):
                responses.append(self.put(operation, state, events))
            elif isinstance(operation, UpdateRequest):
                there = state.get(operation.key)
                value = mutate_all(operation.steps, None if there is None else there.value)
                if value is None:
                    responses.append(self.delete(DeleteRequest(operation.key), state, events))
                else:
                    responses.append(self.put(PutRequest(operation.key, value), state, events))
            else:
                responses.append(self.delete(operation, state, events))
        return dumb.TxnResult(self.revision + bool(events), holds, tuple(responses))

    def may_put(self, request: TxnRequest) -> bool:
        return super().may_put(request) or any(isinstance(op, UpdateRequest) for op in request.success)

    def outcome(self, request: Any) -> Any:
        """A result, or the code of an error."""
        try:
            return self.perform(request)
        except dumb.Refused as refused:
            return refused.code

    def read(self, request: RangeRequest) -> Any:
        """What a range shows, whatever is compacted: that is another check's."""
        result = self.range(request, self.states[-1], self.revision)
        return result._replace(count=len(result.kvs)) if request.uncounted else result


class StoreModel:
    """The store for `check_revisions`: requests are commands without their session."""

    first_revision = 1

    def initial(self) -> Model:
        """An empty store."""
        return Model()

    def apply(self, state: Model, request: Any) -> tuple[object, bool]:
        """Does a command. The alarm is the store's own doing."""
        if request.kind == "alarm":
            state.no_space = request.argument
            return None, False
        command = decode_command(request.argument)
        if request.kind == "range":
            return state.read(command.request), False  # type: ignore[arg-type]
        before = state.revision
        return state.outcome(command.request), state.revision != before

    def only_reads(self, request: Any) -> bool:
        """Ranges."""
        return bool(request.kind == "range")

    def is_read(self, request: Any, result: object) -> bool:
        """Ranges, and what was refused."""
        return request.kind == "range" or isinstance(result, ErrorCode)

    def freeze(self, state: Model) -> Hashable:
        """Not for searches."""
        raise NotImplementedError

    def thaw(self, frozen: Hashable) -> Model:
        """Not for searches."""
        raise NotImplementedError


class Replay:
    """The committed log, executed."""

    def __init__(self, names: Mapping[tuple[int, int], tuple[str, int]]) -> None:
        self.model = Model()
        self.log: list[Committed] = []
        """What was executed, for `check_revisions`."""
        self.repeated = 0
        """Commands that stood in the log again."""
        self.strange = 0
        """Commands of sessions that were over."""
        self._names = names
        self._sessions = dumb.Sessions()

    def run(self, payloads: Mapping[int, tuple[int, bytes]]) -> Violation | None:
        """Executes the log from its first entry on."""
        last = max(payloads, default=0)
        missing = [index for index in range(1, last + 1) if index not in payloads]
        if missing:
            return Violation(CHECK, "log_gap", f"nobody ever had entry {missing[0]} of {last} committed")
        for index in range(1, last + 1):
            kind, data = payloads[index]
            if kind == EntryKind.NORMAL and data:
                for command in decode_batch(data):
                    self._command(index, command)
        return None

    def _command(self, index: int, data: bytes) -> None:
        kind, keyspace, session, sequence, acked = HEADER.unpack_from(data)
        try:
            request: Any = decode_command(data).request
        except KvError:
            return
        sessions = self._sessions
        if kind >= Kind.SESSION_OPEN:
            self._administer(index, request, session, acked)
        elif keyspace == 1 and not session:
            self._execute(None, data, request)
        elif session not in sessions.floors:
            self.strange += 1
        else:
            sessions.active[session] = index
            floor = sessions.floors[session] = max(acked, sessions.floors[session])
            if sequence < floor or (session, sequence) in sessions.results:
                self.repeated += 1
            elif sequence - floor < KV_SESSION_WINDOW:
                sessions.results[session, sequence] = True
                self._execute(self._names.get((session, sequence), ("nobody", len(self.log))), data, request)

    def _administer(self, index: int, request: Any, session: int, acked: int) -> None:
        sessions = self._sessions
        if isinstance(request, SessionOpen):
            sessions.opened += 1
            sessions.floors[sessions.opened] = 1
            sessions.active[sessions.opened] = index
        elif isinstance(request, SessionExpire):
            for id, mark in request.sessions:
                if sessions.active.get(id, mark + 1) <= mark:
                    del sessions.floors[id], sessions.active[id]
        elif isinstance(request, SessionClose):
            sessions.floors.pop(session, None)
            sessions.active.pop(session, None)
        elif isinstance(request, SessionKeep) and session in sessions.floors:
            sessions.active[session] = index
            sessions.floors[session] = max(acked, sessions.floors[session])
        elif isinstance(request, AlarmRequest) and request.alarm == Alarm.NO_SPACE:
            self.model.no_space = request.armed
            self.log.append(Committed(self.model.revision, None, 0, "alarm", (), request.armed))

    def _execute(self, name: tuple[str, int] | None, data: bytes, request: Any) -> None:
        self.model.outcome(request)
        client, id = name or (None, 0)
        kind = KINDS[data[0]]  # type: ignore[index]
        self.log.append(Committed(self.model.revision, client, id, kind, keys_of(data), plain(data)))


def named(operations: Iterable[Operation]) -> list[Operation]:
    """All but those of clients without a session: of their writes the log cannot tell who asked for them."""
    return [one for one in operations if not one.client.endswith("/once")]


def compacted_reads(operations: Iterable[Operation]) -> Violation | None:
    """A read below what somebody had been told was compacted before it began."""
    done = [one for one in operations if one.kind == "compact" and one.status == "ok" and one.revision is not None]
    for read in operations:
        if read.kind != "range" or read.status != "ok" or read.serializable or read.revision is None:
            continue
        asked: Any = decode_command(read.argument).request  # type: ignore[arg-type]
        for one in done:
            request: Any = decode_command(one.argument).request  # type: ignore[arg-type]
            before = one.return_ns is not None and one.return_ns < read.invoke_ns
            if before and isinstance(request, CompactRequest) and 0 < asked.revision < request.revision:
                message = f"revision {asked.revision} was read after {request.revision} had been compacted"
                lines = (one.describe(), read.describe())
                return Violation(CHECK, "compacted_read", message, read.return_ns, "range", lines)
    return None


# -- key by key ---------------------------------------------------------------------------------------------


def by_key(operations: Iterable[Operation], keys: Iterable[bytes]) -> list[Operation]:
    """What the history says of each of these keys alone, for `aspen.sim.checks.KvModel`.

    A history that has an order has one for each key, so what is found wrong with a key is wrong. Reads of the past are
    left out, and what a transaction without an answer has read.
    """
    found = []
    for one in operations:
        request: Any = decode_command(one.argument).request  # type: ignore[arg-type]
        if one.serializable or one.kind == "compact" or isinstance(one.result, ErrorCode):
            continue
        if isinstance(request, RangeRequest) and (request.revision or request.limit or request.count_only):
            continue
        for key in keys:
            step = _on_key(one, request, key)
            if step is not None:
                kind, argument, result = step
                found.append(replace(one, kind=kind, keys=(key,), argument=argument, result=result, revision=None))
    return found


def _on_key(one: Operation, request: Any, key: bytes) -> tuple[str, Any, Any] | None:
    ok, told = one.status == "ok", one.result
    if isinstance(request, PutRequest):
        return ("put", request.value, None) if request.key == key else None
    if isinstance(request, RangeRequest):
        if not ok or not dumb.inside(key, request.key, request.end):
            return None
        return "get", None, _value(told[1], key)  # type: ignore[index]
    if isinstance(request, DeleteRequest):
        if not dumb.inside(key, request.key, request.end):
            return None
        return "delete", None, _value(told[2], key) is not None if ok else None  # type: ignore[index]
    return _transaction(ok, told, request, key)


def _transaction(ok: bool, told: Any, request: TxnRequest, key: bytes) -> tuple[str, Any, Any] | None:
    compares = [
        (key, compare.operand)
        for compare in request.compares
        if compare.key == key
        and not compare.end
        and (compare.target, compare.result) == (CompareTarget.VALUE, CompareResult.EQUAL)
    ]
    succeeded = told[1] if ok else True
    steps: list[tuple[str, bytes, Any]] = []
    results: list[Any] = []
    for at, operation in enumerate(request.success if succeeded else request.failure):
        answer = told[2][at] if ok else None
        if isinstance(operation, PutRequest) and operation.key == key:
            steps.append(("put", key, operation.value))
            results.append(None)
        elif isinstance(operation, DeleteRequest) and dumb.inside(key, operation.key, operation.end):
            steps.append(("delete", key, None))
            results.append(_value(answer[2], key) is not None if ok else None)
        elif isinstance(operation, RangeRequest) and ok and dumb.inside(key, operation.key, operation.end):
            steps.append(("get", key, None))
            results.append(_value(answer[1], key))
    if not steps and not (compares and succeeded and ok):
        return None
    # Which compare has failed, a transaction does not tell; nor what it would have compared, one that was not answered.
    argument = (tuple(compares if succeeded else ()), tuple(steps), ())
    return "txn", argument, (True, tuple(results)) if ok else None


def _value(kvs: Any, key: bytes) -> bytes | None:
    return next((kv[1] for kv in kvs if kv[0] == key), None)
