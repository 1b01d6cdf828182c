"""The dumb model of the store: every state there ever was, as a dictionary; and the machine held against it."""

from __future__ import annotations

from random import Random
from typing import Any

from aspen.errors import InvariantBroken, KvError
from aspen.kv.codec import encode_batch, encode_command
from aspen.kv.integrity import hash_at, verify
from aspen.kv.machine import TABLES, Machine
from aspen.kv.snapshot import Restore, SnapshotReader
from aspen.kv.types import (
    AlarmRequest,
    CompactRequest,
    CompactResult,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    Done,
    ErrorCode,
    Event,
    KeyValue,
    PutRequest,
    PutResult,
    RangeRequest,
    RangeResult,
    SessionClose,
    SessionExpire,
    SessionKeep,
    SessionOpen,
    SessionResult,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResult,
)
from aspen.limits import KV_SESSION_WINDOW
from tests.kv.drawing import Drawing
from tests.kv.rig import ALL, Rig, outcome

State = dict[bytes, KeyValue]


class Refused(Exception):
    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def inside(key: bytes, begin: bytes, end: bytes) -> bool:
    if not end:
        return key == begin
    return key >= begin and (end == b"\0" or key < end)


class Model:
    """One keyspace."""

    def __init__(self) -> None:
        self.states: list[State] = [{}, {}]
        """By revision; nothing was ever at 0."""
        self.events: list[list[Event]] = [[], []]
        self.compacted = 0
        self.no_space = False

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    # -- requests ---------------------------------------------------------------------------

    def perform(self, request: Any) -> Any:
        if isinstance(request, CompactRequest):
            if request.revision <= self.compacted:
                raise Refused(ErrorCode.COMPACTED)
            if request.revision > self.revision:
                raise Refused(ErrorCode.FUTURE_REVISION)
            self.compacted = request.revision
            return CompactResult(self.revision)
        alone = not isinstance(request, TxnRequest)
        transaction = TxnRequest((), (request,)) if alone else request
        self.check_shape(transaction, 128)
        if self.no_space and self.may_put(transaction):
            raise Refused(ErrorCode.NO_SPACE)
        before = self.states[-1]
        self.check_needs(transaction, before, alone=alone)
        self.check_reads(transaction, before)
        state, events = dict(before), []
        result = self.execute(transaction, before, state, events)
        if events:
            self.states.append(state)
            self.events.append(events)
        return result.responses[0] if alone else result

    def check_key(self, key: bytes) -> None:
        if key == b"":
            raise Refused(ErrorCode.EMPTY_KEY)
        if len(key) > 32768:
            raise Refused(ErrorCode.KEY_TOO_LONG)

    def check_shape(self, request: TxnRequest, most: int) -> None:
        self.check_operations(request, most)
        for branch in (request.success, request.failure):
            self.check_twice(branch)

    def check_operations(self, request: TxnRequest, most: int) -> None:
        widest = max(len(request.compares), len(request.success), len(request.failure))
        if widest > most:
            raise Refused(ErrorCode.TOO_MANY_OPERATIONS)
        for compare in request.compares:
            self.check_key(compare.key)
        for operation in request.success + request.failure:
            if isinstance(operation, TxnRequest):
                self.check_operations(operation, most - widest)
                continue
            self.check_key(operation.key)
            if isinstance(operation, PutRequest) and operation.ignore_value and operation.value != b"":
                raise Refused(ErrorCode.VALUE_PROVIDED)
            if isinstance(operation, PutRequest) and operation.ignore_lease and operation.lease != 0:
                raise Refused(ErrorCode.LEASE_PROVIDED)

    def check_twice(self, branch: tuple[Any, ...]) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        deletes = [(op.key, op.end) for op in branch if isinstance(op, DeleteRequest)]
        puts: list[bytes] = []
        for op in branch:
            if isinstance(op, TxnRequest):
                puts_1, deletes_1 = self.check_twice(op.success)
                puts_2, deletes_2 = self.check_twice(op.failure)
                for key in set(puts_1 + puts_2):
                    if key in puts or any(inside(key, *d) for d in deletes):
                        raise Refused(ErrorCode.DUPLICATE_KEY)
                    puts.append(key)
                deletes = deletes + deletes_1 + deletes_2
        for op in branch:
            if isinstance(op, PutRequest):
                if op.key in puts or any(inside(op.key, *d) for d in deletes):
                    raise Refused(ErrorCode.DUPLICATE_KEY)
                puts.append(op.key)
        return puts, deletes

    def may_put(self, request: TxnRequest) -> bool:
        for operation in request.success + request.failure:
            if isinstance(operation, PutRequest) or (isinstance(operation, TxnRequest) and self.may_put(operation)):
                return True
        return False

    def taken(self, request: TxnRequest, before: State) -> tuple[bool, tuple[Any, ...]]:
        evaluated = [self.holds(compare, before) for compare in request.compares]
        holds = all(evaluated)
        return holds, request.success if holds else request.failure

    def holds(self, compare: Compare, before: State) -> bool:
        if compare.target is CompareTarget.UNMODIFIED:
            assert isinstance(compare.operand, int)
            if compare.operand < self.compacted:
                raise Refused(ErrorCode.TRANSACTION_TOO_OLD)
            if compare.operand > self.revision:
                raise Refused(ErrorCode.FUTURE_REVISION)
            since = [event for events in self.events[compare.operand + 1 :] for event in events]
            return not any(inside(event.kv.key, compare.key, compare.end) for event in since)
        kvs = [kv for key, kv in before.items() if inside(key, compare.key, compare.end)]
        if not kvs:
            if compare.target is CompareTarget.VALUE:
                return False
            kvs = [KeyValue(b"", b"", 0, 0, 0, 0)]
        field = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision"}
        name = field.get(compare.target.name, compare.target.name.lower())
        results = []
        for kv in kvs:
            stored = getattr(kv, name)
            results.append(
                {
                    CompareResult.EQUAL: stored == compare.operand,
                    CompareResult.NOT_EQUAL: stored != compare.operand,
                    CompareResult.GREATER: stored > compare.operand,
                    CompareResult.LESS: stored < compare.operand,
                }[compare.result]
            )
        return all(results)

    def check_needs(self, request: TxnRequest, before: State, *, alone: bool = False) -> None:
        for operation in self.taken(request, before)[1]:
            if isinstance(operation, TxnRequest):
                self.check_needs(operation, before)
            elif isinstance(operation, PutRequest):
                needs = [
                    (operation.lease != 0, ErrorCode.LEASE_NOT_FOUND),
                    (
                        (operation.ignore_value or operation.ignore_lease) and operation.key not in before,
                        ErrorCode.KEY_NOT_FOUND,
                    ),
                ]
                for missing, code in needs if alone else reversed(needs):
                    if missing:
                        raise Refused(code)

    def check_reads(self, request: TxnRequest, before: State) -> None:
        for operation in self.taken(request, before)[1]:
            if isinstance(operation, TxnRequest):
                self.check_reads(operation, before)
            elif isinstance(operation, RangeRequest) and operation.revision > 0:
                if operation.revision > self.revision:
                    raise Refused(ErrorCode.FUTURE_REVISION)
                if operation.revision < self.compacted:
                    raise Refused(ErrorCode.COMPACTED)

    def execute(self, request: TxnRequest, before: State, state: State, events: list[Event]) -> TxnResult:
        holds, operations = self.taken(request, before)
        responses: list[Any] = []
        for operation in operations:
            if isinstance(operation, TxnRequest):
                responses.append(self.execute(operation, before, state, events))
            elif isinstance(operation, RangeRequest):
                responses.append(self.range(operation, state, self.revision + bool(events)))
            elif isinstance(operation, PutRequest):
                responses.append(self.put(operation, state, events))
            else:
                responses.append(self.delete(operation, state, events))
        return TxnResult(self.revision + bool(events), holds, tuple(responses))

    def put(self, request: PutRequest, state: State, events: list[Event]) -> PutResult:
        revision = self.revision + 1
        old = state.get(request.key)
        value = old.value if request.ignore_value and old else request.value
        if old is None:
            new = KeyValue(request.key, value, revision, revision, 1, 0)
        else:
            new = KeyValue(request.key, value, old.create_revision, revision, old.version + 1, 0)
        state[request.key] = new
        events.append(Event(False, new))
        return PutResult(revision, old if request.prev_kv else None)

    def delete(self, request: DeleteRequest, state: State, events: list[Event]) -> DeleteResult:
        gone = sorted(key for key in state if inside(key, request.key, request.end))
        kvs = tuple(state.pop(key) for key in gone)
        events += [Event(True, KeyValue(key, b"", 0, self.revision + 1, 0)) for key in gone]
        return DeleteResult(self.revision + bool(events), len(gone), kvs if request.prev_kv else ())

    def range(self, request: RangeRequest, state: State, now: int) -> RangeResult:
        if request.revision > 0 and not (request.revision == now and now > self.revision):
            state = self.states[request.revision]
        kvs = [state[key] for key in sorted(state) if inside(key, request.key, request.end)]
        count = len(kvs)
        if request.count_only:
            return RangeResult(now, (), count, False)
        filters = (
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
        if request.limit > 0 and request.sort_order is SortOrder.NONE and not any(filters):
            kvs = kvs[: request.limit + 1]
        kvs = [kv for kv in kvs if not filters[0] or kv.mod_revision >= filters[0]]
        kvs = [kv for kv in kvs if not filters[1] or kv.mod_revision <= filters[1]]
        kvs = [kv for kv in kvs if not filters[2] or kv.create_revision >= filters[2]]
        kvs = [kv for kv in kvs if not filters[3] or kv.create_revision <= filters[3]]
        column = {"KEY": 0, "VERSION": 4, "CREATE": 2, "MOD": 3, "VALUE": 1}[request.sort_target.name]
        if request.sort_order is not SortOrder.NONE or request.sort_target is not SortTarget.KEY:
            kvs = sorted(kvs, key=lambda kv: kv[column], reverse=request.sort_order is SortOrder.DESCEND)
        more = request.limit > 0 and len(kvs) > request.limit
        if more:
            kvs = kvs[: request.limit]
        if request.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return RangeResult(now, tuple(kvs), count, more)


class Sessions:
    """Sessions of the model: everything there ever was is kept."""

    def __init__(self) -> None:
        self.opened = 0
        self.floors: dict[int, int] = {}
        self.active: dict[int, int] = {}
        self.results: dict[tuple[int, int], Any] = {}


class Checked:
    """The machine and the model, step by step; what differs is an AssertionError."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.rig = Rig(seed)
        self.models = {1: Model(), 2: Model()}
        self.sessions = Sessions()
        self.drawing = Drawing(self.rng)
        self.next_sequence: dict[int, int] = {}
        self.kinds: dict[str, int] = {}

    # -- commands ---------------------------------------------------------------------------

    def draw(self) -> Any:
        draw = self.rng.random()
        if draw < 0.9:
            request = self.drawing.request()
            if isinstance(request, TxnRequest) and self.rng.random() < 0.3:
                back = self.rng.choice([-1, 0, 1, 1, 2, 3, 10, self.drawing.revision])
                guard = Compare(
                    self.drawing.key() if self.rng.random() < 0.7 else b"\0",
                    CompareTarget.UNMODIFIED,
                    CompareResult.EQUAL,
                    self.drawing.revision - back,
                    self.drawing.end(),
                )
                request = request._replace(compares=(*request.compares, guard))
            return request
        if draw < 0.93:
            return SessionOpen()
        if draw < 0.95:
            ids = range(1, self.sessions.opened + 2)
            marks = tuple((id, self.sessions.active.get(id, 0) - self.rng.choice([0, 0, 1])) for id in ids)
            return SessionExpire(tuple((id, max(0, mark)) for id, mark in marks if self.rng.random() < 0.2))
        if draw < 0.96:
            return SessionClose()
        if draw < 0.98:
            return SessionKeep()
        return AlarmRequest(1, self.rng.random() < 0.2)  # type: ignore[arg-type]

    def commands(self, count: int) -> None:
        """One entry of so many commands."""
        index = self.rig.machine.applied[0] + 1
        commands, expected = [], []
        for _ in range(count):
            keyspace = 1 if self.rng.random() < 0.9 else 2
            model = self.models[keyspace]
            self.drawing.revision, self.drawing.compacted = model.revision, model.compacted
            request = self.draw()
            session = self.rng.randint(1, self.sessions.opened + 1) if self.rng.random() < 0.5 else 0
            sequence, acked = self.numbers(session) if session else (0, 0)
            commands.append(
                encode_command(request, keyspace=keyspace, session=session, sequence=sequence, acked_below=acked)
            )
            expected.append((request, self.expect(index, request, model, session, sequence, acked)))
        results = self.rig.apply(encode_batch(commands))
        assert len(results) == len(expected)
        for (request, wanted), result in zip(expected, results, strict=True):
            got: Any = outcome(result)
            if isinstance(got, KvError):
                got = ErrorCode(got.code)
            self.kinds[getattr(got, "name", type(got).__name__)] = 1
            assert got == wanted, f"{request}"[:2_000] + f"\nwanted {wanted}"[:1_000] + f"\ngot {got}"[:1_000]

    def numbers(self, session: int) -> tuple[int, int]:
        """A sequence number, most often the next one, and what is acknowledged."""
        following = self.next_sequence.get(session, 1)
        draw = self.rng.random()
        floor = self.sessions.floors.get(session, 1)
        acked = floor if self.rng.random() < 0.7 else self.rng.randint(max(1, floor - 1), max(following, floor))
        if draw < 0.7:
            self.next_sequence[session] = following + 1
            return following, min(acked, following)
        if draw < 0.95:
            sequence = self.rng.randint(max(1, following - 5), max(1, following))
            return sequence, min(acked, sequence)
        return self.rng.choice([(0, 0), (3, 9), (following + KV_SESSION_WINDOW, 1)])

    def expect(self, index: int, request: Any, model: Model, session: int, sequence: int, acked: int) -> Any:
        sessions = self.sessions
        if isinstance(request, SessionOpen):
            sessions.opened += 1
            sessions.floors[sessions.opened] = 1
            sessions.active[sessions.opened] = index
            return SessionResult(sessions.opened)
        if isinstance(request, SessionExpire):
            ended = [id for id, mark in request.sessions if sessions.active.get(id, mark + 1) <= mark]
            for id in ended:
                del sessions.floors[id], sessions.active[id]
            return Done(len(ended))
        if isinstance(request, SessionClose):
            there = sessions.floors.pop(session, None) is not None
            sessions.active.pop(session, None)
            return Done(int(there))
        if isinstance(request, SessionKeep):
            if session not in sessions.floors:
                return ErrorCode.UNKNOWN
            sessions.active[session] = index
            sessions.floors[session] = max(acked, sessions.floors[session])
            return Done(index)
        if isinstance(request, AlarmRequest):
            model.no_space = request.armed
            return Done(1)
        if not session:
            return self.perform(model, request)
        if session not in sessions.floors:
            return ErrorCode.UNKNOWN
        if sequence == 0 or acked > sequence:
            return ErrorCode.BAD_COMMAND
        sessions.active[session] = index
        floor = sessions.floors[session] = max(acked, sessions.floors[session])
        if sequence < floor:
            return ErrorCode.UNKNOWN
        if (session, sequence) in sessions.results:
            return sessions.results[session, sequence]
        if sequence - floor >= KV_SESSION_WINDOW:
            return ErrorCode.SESSION_WINDOW
        result = sessions.results[session, sequence] = self.perform(model, request)
        return result

    def perform(self, model: Model, request: Any) -> Any:
        try:
            return model.perform(request)
        except Refused as refused:
            return refused.code

    # -- what happens beside ------------------------------------------------------------------

    def flush(self) -> None:
        self.rig.flush(sync=self.rng.random() < 0.3)

    def flush_late(self, count: int) -> None:
        """Commands are applied, and read, while a flush is under way."""
        flush = self.rig.machine.freeze()
        self.commands(count)
        self.compare()
        if flush is not None:
            flush.write()
            self.commands(1)
            self.rig.machine.flushed(flush)

    def crash_in_flush(self, *, power: bool) -> None:
        """The flush was written, or not; nobody was told."""
        flush = self.rig.machine.freeze()
        self.commands(1)
        if flush is not None and self.rng.random() < 0.5:
            flush.write()
        self.rig.crash(power=power)

    def scrub(self) -> None:
        self.rig.machine.compact_step(self.rng.choice([1, 2, 7, 500]))

    def replay(self) -> None:
        """Entries that are applied already come again."""
        for index, term, payload in self.rng.sample(self.rig.log, min(3, len(self.rig.log))):
            assert self.rig.machine.apply(index, term, payload) is None

    def gap(self) -> None:
        applied = self.rig.machine.applied[0]
        for index in (applied + 2, applied + 1):
            try:
                self.rig.machine.apply(index, self.rig.term if index > applied + 1 else -1, b"")
            except InvariantBroken:
                continue
            raise AssertionError("an entry out of place was applied")

    def move(self) -> None:
        """A snapshot becomes the store of another node, which goes on from there."""
        self.rig.flush()
        machine, rig = self.rig.machine, self.rig
        before = {id: hash_at(machine, id) for id in self.models}
        reader = SnapshotReader(rig.store(), self.rng.choice([200, 5_000, 1 << 20]))
        chunks: list[bytes] = []
        while (chunk := reader.chunk(len(chunks))) is not None:
            chunks.append(chunk)
        other = Rig(self.rng.randrange(1 << 30))
        restore = Restore(other.store("new"))
        for number, chunk in enumerate(chunks):
            restore.add(number, chunk)
            if self.rng.random() < 0.2:
                restore = Restore(other.store("new"))
        assert restore.finish() == machine.applied
        assert verify(other.store("new")).problems == []
        other.machine = Machine(other.store("new"))
        assert other.machine.status().running_hash == machine.status().running_hash
        assert {id: hash_at(other.machine, id) for id in self.models} == before
        other.store, other.log = lambda name="new": other.port.storage(name, TABLES, map_bytes=1 << 30), rig.log  # type: ignore[method-assign]
        self.rig = other

    def compare(self) -> None:
        """All that can be read, against the model."""
        machine = self.rig.machine
        for id, model in self.models.items():
            status = machine.status().keyspaces[id]
            assert (status.revision, status.compact_revision) == (model.revision, model.compacted)
            for revision in {model.revision, self.rng.randint(max(1, model.compacted), model.revision)}:
                wanted = tuple(model.states[revision][key] for key in sorted(model.states[revision]))
                got = machine.range(ALL._replace(revision=revision), id)
                assert got.kvs == wanted, f"at {revision}: {got.kvs}\nwanted {wanted}"
            for key in self.rng.sample(sorted(model.states[-1]), min(3, len(model.states[-1]))):
                assert machine.range(RangeRequest(key), id).kvs == (model.states[-1][key],)
            start = max(1, model.compacted)
            events = [(at, model.events[at]) for at in range(start, model.revision + 1) if model.events[at]]
            got_events = machine.events(id, start)
            assert got_events == events, f"events from {start}: {got_events}\nwanted {events}"

    def verify(self) -> None:
        if self.rng.random() < 0.7:
            self.rig.scrub(self.rng.choice([3, 500]))
        self.rig.flush()
        report = verify(self.rig.store())
        assert report.problems == [], report.problems

    def step(self) -> None:
        """Something, at random."""
        draw = self.rng.random()
        if draw < 0.55:
            self.commands(self.rng.choice([1, 2, 5]))
        elif draw < 0.65:
            self.flush()
        elif draw < 0.7:
            self.flush_late(2)
        elif draw < 0.8:
            self.scrub()
        elif draw < 0.84:
            self.rig.crash(power=self.rng.random() < 0.5)
        elif draw < 0.88:
            self.crash_in_flush(power=self.rng.random() < 0.5)
        elif draw < 0.92:
            self.replay()
        elif draw < 0.93:
            self.gap()
        elif draw < 0.95:
            self.move()
        elif draw < 0.98:
            self.verify()
        self.compare()
