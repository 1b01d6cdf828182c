"""Interactive transactions on the store's machine: many at once, interleaved, as if one came after the other."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Generator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from aspen.errors import TransactionConflict, TransactionTooOld, UsageError
from aspen.kv import tuples
from aspen.kv.codec import decode_result, encode_batch, encode_command
from aspen.kv.interactive import Transaction, Transactions, transactional
from aspen.kv.machine import TABLES, Machine
from aspen.kv.mutations import mutate
from aspen.kv.spans import Spans
from aspen.kv.types import FROM_KEY, CompactRequest, Mutation, PutRequest, RangeRequest, RangeResult, TxnRequest
from aspen.limits import KV_APPEND_BYTES_MAX, KV_TXN_OPERATIONS_MAX
from aspen.sim import SimDisk, VirtualRandom

KEYS = [b"a", b"b", b"b\0", b"c", b"d"]


class Turn:
    """Awaiting it lets another transaction run."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Store:
    """A client of one machine without a network, which gives way to others at each call."""

    def __init__(self) -> None:
        disk = SimDisk("a", VirtualRandom(1))
        self.machine = Machine(disk.mount(lambda what: None).storage("kv", TABLES, map_bytes=1 << 24))
        self.index = 0

    def do(self, request: Any) -> Any:
        self.index += 1
        results = self.machine.apply(self.index, 1, encode_batch([encode_command(request)]))
        assert results is not None
        return decode_result(results[0])

    async def read(self, request: RangeRequest, *, consistency: str = "", timeout: float | None = None) -> RangeResult:
        await Turn()
        result = decode_result(self.machine.read(encode_command(request)))
        assert isinstance(result, RangeResult)
        return result

    async def execute(self, request: TxnRequest, *, timeout: float | None = None) -> Any:
        await Turn()
        return self.do(request)

    def draw(self) -> float:
        return 0.0

    def state(self, revision: int = 0) -> dict[bytes, bytes]:
        found = self.machine.range(RangeRequest(b"\0", FROM_KEY, revision))
        return {kv.key: kv.value for kv in found.kvs}


def alone(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that nobody else runs beside."""
    try:
        while True:
            work.send(None)
    except StopIteration as end:
        return end.value


def begun(store: Store) -> Transaction:
    return Transaction(store)  # type: ignore[arg-type]  # a client as far as transactions use one


# -- what a transaction does, as data, and what it would do to a dict --------------------------------------------------

key = st.sampled_from(KEYS)
value = st.binary(max_size=3)
span = st.tuples(key, st.sampled_from([*KEYS, b"e", FROM_KEY])).filter(lambda s: s[1] == FROM_KEY or s[0] < s[1])
step = st.one_of(
    st.tuples(st.just("get"), key, st.booleans()),
    st.tuples(st.just("range"), span, st.integers(0, 3), st.booleans(), st.booleans()),
    st.tuples(st.just("set"), key, value),
    st.tuples(st.just("clear"), key),
    st.tuples(st.just("clear_range"), span),
    st.tuples(st.just("mutate"), st.sampled_from(list(Mutation)), key, value),
)
script = st.lists(step, min_size=1, max_size=8)


async def perform(tr: Transaction, steps: list[Any]) -> list[Any]:
    seen: list[Any] = []
    for what, *args in steps:
        if what == "get":
            seen.append(await tr.get(args[0], snapshot=args[1]))
        elif what == "range":
            (low, high), limit, reverse, snapshot = args
            seen.append(await tr.range(low, high, limit=limit, reverse=reverse, snapshot=snapshot))
        elif what == "clear_range":
            tr.clear_range(*args[0])
        else:
            getattr(tr, what)(*args)
    return seen


def holds(low: bytes, high: bytes, key: bytes) -> bool:
    return low <= key and (high == FROM_KEY or key < high)


def imagine(state: dict[bytes, bytes], steps: list[Any], *, snapshots: bool) -> list[Any]:
    """What the steps see on a dict, which they change. Without `snapshots` such reads are passed over."""
    seen: list[Any] = []
    for what, *args in steps:
        if what == "get":
            if snapshots or not args[1]:
                seen.append(state.get(args[0]))
        elif what == "range":
            (low, high), limit, reverse, snapshot = args
            if snapshots or not snapshot:
                items = sorted((k, v) for k, v in state.items() if holds(low, high, k))
                items = items[::-1] if reverse else items
                seen.append(items[:limit] if limit else items)
        elif what == "set":
            state[args[0]] = args[1]
        elif what == "clear":
            state.pop(args[0], None)
        elif what == "clear_range":
            for gone in [k for k in state if holds(*args[0], k)]:
                del state[gone]
        else:
            mutation, key, operand = args
            after = mutate(mutation, state.get(key), operand)
            state.pop(key, None)
            if after is not None:
                state[key] = after
    return seen


def without_snapshots(steps: list[Any], seen: list[Any]) -> list[Any]:
    reads = [args for what, *args in steps if what in ("get", "range")]
    return [found for args, found in zip(reads, seen, strict=True) if not args[-1]]


@settings(max_examples=300, deadline=None)
@given(st.lists(script, min_size=1, max_size=5), st.lists(value, max_size=5), st.integers(0, 1 << 32))
def test_strictly_serializable_in_any_interleaving(scripts: list[list[Any]], first: list[bytes], seed: int) -> None:
    run_and_judge(scripts, first, seed)


def run_and_judge(scripts: list[list[Any]], first: list[bytes], seed: int) -> None:
    store = Store()
    for key, value in zip(KEYS, first, strict=False):
        store.do(PutRequest(key, value))
    begin = store.state()
    chance = random.Random(seed)
    done: list[tuple[int, int, list[Any], list[Any]]] = []

    async def one(steps: list[Any]) -> None:
        while True:
            tr = begun(store)
            seen = await perform(tr, steps)
            try:
                revision = await tr.commit()
            except TransactionConflict:
                continue
            if tr._revision is not None:
                state = store.state(tr._revision)
                assert seen == imagine(state, steps, snapshots=True), "not as of its own revision"
            done.append((revision, len(done), steps, seen))
            return

    running = [one(steps) for steps in scripts]
    while running:
        work = chance.choice(running)
        try:
            work.send(None)
        except StopIteration:
            running.remove(work)
    # One after the other, in the order of revisions; those that wrote nothing saw the revision that they have.
    state, revisions = begin, sorted(done, key=lambda one: one[:2])
    for _, _, steps, seen in revisions:
        expected = imagine(dict(state) if not _writes(steps) else state, steps, snapshots=False)
        assert without_snapshots(steps, seen) == expected
    assert store.state() == state


def _writes(steps: list[Any]) -> bool:
    return any(what not in ("get", "range") for what, *_ in steps)


@pytest.mark.parametrize("bug", ["no_phantoms", "no_conflicts", "old_values", "clears_last"])
def test_planted_bugs_are_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "no_phantoms":
        add = Spans.add
        monkeypatch.setattr(Spans, "add", lambda self, low, high: add(self, low, high) if high == low + b"\0" else None)
    elif bug == "no_conflicts":
        monkeypatch.setattr(Spans, "coarsened", lambda self, most: iter(()))
    elif bug == "old_values":
        monkeypatch.setattr(Transaction, "_mine", lambda self, low, high: [])
    else:
        operations = Transaction._operations
        monkeypatch.setattr(Transaction, "_operations", lambda self: tuple(reversed(operations(self)))[:1])
    chance = random.Random(7)
    with pytest.raises((AssertionError, KeyError)):
        for seed in range(3000):
            scripts = [[draw(chance) for _ in range(chance.randrange(1, 7))] for _ in range(4)]
            run_and_judge(scripts, [b"1", b"2", b"3"], seed)


def draw(chance: random.Random) -> Any:
    what = chance.choice(["get", "range", "set", "clear", "clear_range", "mutate"])
    key, low, high = chance.choice(KEYS), chance.choice(KEYS[:3]), chance.choice([b"e", FROM_KEY])
    return {
        "get": (what, key, False),
        "range": (what, (low, high), chance.randrange(3), chance.random() < 0.5, False),
        "set": (what, key, bytes([chance.randrange(256)])),
        "clear": (what, key),
        "clear_range": (what, (low, high)),
        "mutate": (what, chance.choice(list(Mutation)), key, bytes([chance.randrange(4)])),
    }[what]


# -- anomalies by name -------------------------------------------------------------------------------------------------


def test_write_skew_is_a_conflict() -> None:
    store = Store()
    store.do(PutRequest(b"x", b"1"))
    store.do(PutRequest(b"y", b"1"))
    one, other = begun(store), begun(store)
    for tr, mine in ((one, b"x"), (other, b"y")):
        assert alone(tr.get(b"x")) == alone(tr.get(b"y")) == b"1"
        tr.clear(mine)
    alone(one.commit())
    with pytest.raises(TransactionConflict):
        alone(other.commit())
    assert store.state() == {b"y": b"1"}


def test_a_phantom_is_a_conflict_also_when_it_has_gone_again() -> None:
    store = Store()
    tr = begun(store)
    assert alone(tr.range(prefix=b"seat/")) == []
    tr.set(b"mine", b"")
    store.do(PutRequest(b"seat/1", b""))
    store.do(TxnRequest((), (Del(b"seat/1"),)))
    with pytest.raises(TransactionConflict):
        alone(tr.commit())


def Del(key: bytes) -> Any:
    from aspen.kv.types import DeleteRequest

    return DeleteRequest(key)


def test_snapshot_reads_and_blind_changes_conflict_with_nothing() -> None:
    store = Store()
    store.do(PutRequest(b"n", (5).to_bytes(8, "little")))
    one = begun(store)
    alone(one.snapshot.get(b"n"))
    one.add(b"n", 1)
    store.do(PutRequest(b"n", (10).to_bytes(8, "little")))
    alone(one.commit())
    assert store.state()[b"n"] == (11).to_bytes(8, "little")


def test_a_limited_range_remembers_only_what_was_looked_at() -> None:
    store = Store()
    for key in KEYS:
        store.do(PutRequest(key, b"1"))
    tr = begun(store)
    assert [key for key, _ in alone(tr.range(b"a", FROM_KEY, limit=2))] == [b"a", b"b"]
    tr.set(b"z", b"")
    store.do(PutRequest(b"d", b"2"))
    alone(tr.commit())


def test_a_revision_that_was_compacted_is_too_old() -> None:
    store = Store()
    store.do(PutRequest(b"a", b"1"))
    tr = begun(store)
    alone(tr.get(b"a"))
    for number in range(5):
        store.do(PutRequest(b"b", b"%d" % number))
    store.do(CompactRequest(store.machine.range(RangeRequest(b"a")).revision))
    with pytest.raises(TransactionTooOld):
        alone(tr.get(b"b"))


def test_versionstamps_are_filled_in_and_grow() -> None:
    store = Store()
    stamps = []
    for item in (b"first", b"second"):
        tr = begun(store)
        key, at = tuples.pack_with_versionstamp(("log", tuples.Versionstamp()))
        tr.set_stamped(key, item, key_at=at)
        tr.set_stamped(b"last", bytes(10) + item, value_at=0)
        with pytest.raises(UsageError, match="known only when"):
            alone(tr.get(b"last"))
        alone(tr.commit())
        stamps.append(tr.versionstamp)
    found = [tuples.unpack(key) for key in store.state() if key != b"last"]
    assert found == [("log", tuples.Versionstamp(stamp)) for stamp in stamps]
    assert stamps == sorted(stamps)
    assert store.state()[b"last"] == stamps[1] + b"second"


def test_the_loop_commits_retries_and_gives_up() -> None:
    store = Store()
    store.do(PutRequest(b"n", b"0"))

    async def transfer() -> int:
        tries = 0
        async for tr in Transactions(store):  # type: ignore[arg-type]
            tries += 1
            number = int(await tr.get(b"n") or b"0")
            if tries == 1:
                store.do(PutRequest(b"n", b"41"))
            tr.set(b"n", b"%d" % (number + 1))
        return tries

    async def hopeless() -> None:
        async for tr in Transactions(store, tries=3):  # type: ignore[arg-type]
            await tr.get(b"n")
            store.do(PutRequest(b"n", b"x"))
            tr.set(b"m", b"")

    assert asyncio.run(transfer()) == 2
    assert store.state()[b"n"] == b"42"
    with pytest.raises(TransactionConflict):
        asyncio.run(hopeless())


def test_leaving_the_loop_commits_nothing() -> None:
    store = Store()

    async def left() -> None:
        async for tr in Transactions(store):  # type: ignore[arg-type]
            tr.set(b"a", b"1")
            break

    asyncio.run(left())
    assert store.state() == {}


def test_a_function_is_run_in_a_transaction_or_joins_one() -> None:
    store = Store()

    @transactional
    async def count(tr: Transaction, key: bytes) -> int:
        number = int(await tr.get(key) or b"0") + 1
        tr.set(key, b"%d" % number)
        return number

    @transactional
    async def both(tr: Transaction) -> int:
        return await count(tr, b"a") + await count(tr, b"b")

    assert asyncio.run(count(store, b"a")) == 1  # type: ignore[arg-type]
    assert asyncio.run(both(store)) == 3  # type: ignore[arg-type]
    assert store.machine.range(RangeRequest(b"a")).revision == 3, "both at one revision"


def test_what_is_too_much_or_makes_no_sense_is_refused() -> None:
    store = Store()
    tr = begun(store)
    for number in range(KV_TXN_OPERATIONS_MAX + 1):
        tr.set(b"%d" % number, b"")
    with pytest.raises(UsageError, match="split it"):
        alone(tr.commit())
    tr = begun(store)
    for number in range(KV_TXN_OPERATIONS_MAX * 3):
        alone(tr.get(b"%06d" % number))
    tr.set(b"a", b"")
    alone(tr.commit())
    with pytest.raises(UsageError, match="has committed"):
        tr.set(b"a", b"")
    with pytest.raises(UsageError, match="room"):
        begun(store).set_stamped(b"short", b"", key_at=0)
    with pytest.raises(UsageError, match="say where"):
        begun(store).set_stamped(b"k" * 20, b"")


def test_reading_too_many_ranges_joins_them_and_errs_on_the_safe_side() -> None:
    store = Store()
    tr = begun(store)
    for number in range(0, KV_TXN_OPERATIONS_MAX * 4, 2):
        alone(tr.get(b"%06d" % number))
    tr.set(b"a", b"")
    store.do(PutRequest(b"%06d" % (KV_TXN_OPERATIONS_MAX * 4 - 2), b""))
    with pytest.raises(TransactionConflict):
        alone(tr.commit())


# -- the parts ---------------------------------------------------------------------------------------------------------

points = st.integers(0, 12).map(lambda n: b"%02d" % n)


@given(st.lists(st.tuples(points, points | st.none())), st.lists(points, unique=True), st.integers(1, 4))
def test_spans_are_the_set_that_they_say(
    ranges: list[tuple[bytes, bytes | None]], holes: list[bytes], most: int
) -> None:
    spans, keys = Spans(), set()
    universe = [b"%02d" % n for n in range(14)]
    for low, high in ranges:
        spans.add(low, high)
        keys |= {k for k in universe if low <= k and (high is None or k < high)}
    assert {k for k in universe if k in spans} == keys
    parts = list(spans)
    assert all(a[1] is not None and a[1] < b[0] for a, b in itertools.pairwise(parts))

    def inside(parts: list[tuple[bytes, bytes | None]]) -> set[bytes]:
        return {k for k in universe for low, high in parts if low <= k and (high is None or k < high)}

    assert inside(list(spans.without(sorted(holes)))) == keys - set(holes)
    coarse = list(spans.coarsened(most))
    assert len(coarse) <= most
    assert inside(coarse) >= keys


@pytest.mark.parametrize(
    ("what", "there", "operand", "after"),
    [
        (Mutation.ADD, None, b"\1\0", b"\1\0"),
        (Mutation.ADD, b"\xff\xff\xff", b"\1\0", b"\0\0"),
        (Mutation.ADD, b"\1", b"\1\0\0", b"\2\0\0"),
        (Mutation.BIT_AND, None, b"\6", b"\6"),
        (Mutation.BIT_AND, b"\3", b"\6", b"\2"),
        (Mutation.BIT_OR, None, b"\6", b"\6"),
        (Mutation.BIT_OR, b"\3", b"\6", b"\7"),
        (Mutation.BIT_XOR, b"\3", b"\6", b"\5"),
        (Mutation.MAX, None, b"\1", b"\1"),
        (Mutation.MAX, b"\0\1", b"\2\0", b"\0\1"),
        (Mutation.MIN, None, b"\1", b"\1"),
        (Mutation.MIN, b"\0\1", b"\2\0", b"\2\0"),
        (Mutation.MIN, b"\1", b"\2\0", b"\1\0"),
        (Mutation.BYTE_MAX, b"b", b"ab", b"b"),
        (Mutation.BYTE_MIN, b"b", b"ab", b"ab"),
        (Mutation.BYTE_MIN, None, b"ab", b"ab"),
        (Mutation.APPEND, None, b"x", b"x"),
        (Mutation.APPEND, b"x", b"y", b"xy"),
        (Mutation.APPEND, b"x" * KV_APPEND_BYTES_MAX, b"y", b"x" * KV_APPEND_BYTES_MAX),
        (Mutation.COMPARE_AND_CLEAR, b"x", b"x", None),
        (Mutation.COMPARE_AND_CLEAR, b"x", b"y", b"x"),
        (Mutation.COMPARE_AND_CLEAR, None, b"y", None),
    ],
)
def test_mutations(what: Mutation, there: bytes | None, operand: bytes, after: bytes | None) -> None:
    assert mutate(what, there, operand) == after
