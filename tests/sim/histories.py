"""Histories to test checks with: valid ones of a store that is linearizable by construction, and ways to break them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from aspen.sim.checks.model import KvModel, Model
from aspen.sim.history import Committed, History, Operation


def generate(
    seed: int,
    *,
    operations: int = 60,
    clients: int = 4,
    keys: int = 3,
    unknown: float = 0.1,
    failed: float = 0.05,
    kinds: Sequence[str] = ("get", "get", "put", "put", "delete", "cas", "add", "txn"),
    logged: bool = True,
) -> History:
    """Clients with random delays on a store that applies each operation at one instant between its invocation and
    its return. Some answers are lost: of these operations some were applied, perhaps long after, and some never."""
    rng = random.Random(seed)
    numbers = itertools.count(1)
    names = [f"k{n}" for n in range(keys)]
    free = {f"c{n}": 0 for n in range(clients)}
    pending: list[tuple[int, int, Operation, str]] = []
    for order in range(operations):
        client = min(free, key=lambda name: (free[name], name))
        invoke = free[client] + rng.randrange(1, 20)
        operation = _request(rng, numbers, names, kinds, client, order, invoke)
        fate = rng.random()
        effect = invoke + rng.randrange(1, 40)
        back = effect + rng.randrange(1, 40)
        if fate < unknown:
            effect += rng.randrange(0, 200)
            pending.append((effect, order, operation, rng.choice(("applied", "never"))))
        elif fate < unknown + failed:
            pending.append((effect, order, replace(operation, return_ns=back * 1000 + order), "failed"))
        else:
            pending.append((effect, order, replace(operation, return_ns=back * 1000 + order), "ok"))
        free[client] = back
    model = KvModel()
    state = model.initial()
    revision = model.first_revision
    log: list[Committed] = []
    done: list[Operation] = []
    for _, _, operation, fate in sorted(pending, key=lambda one: one[:2]):
        if fate == "failed":
            done.append(replace(operation, status="failed", error="Overloaded"))
            continue
        if fate == "never":
            done.append(operation)
            continue
        result, changed = model.apply(state, operation)
        revision += changed
        if not model.only_reads(operation):
            log.append(
                Committed(revision, operation.client, operation.id, operation.kind, operation.keys, operation.argument)
            )
        if fate == "ok":
            operation = replace(operation, status="ok", result=result, revision=revision)
        done.append(operation)
    done.sort(key=lambda one: one.invoke_ns)
    return History(tuple(done), tuple(log) if logged else None)


def _request(
    rng: random.Random,
    numbers: Any,
    names: Sequence[str],
    kinds: Sequence[str],
    client: str,
    order: int,
    invoke: int,
) -> Operation:
    kind = rng.choice(kinds)
    key = rng.choice(names)
    keys: tuple[str, ...] = (key,)
    argument: Any = None
    if kind == "put":
        argument = next(numbers)
    elif kind == "cas":
        argument = (rng.choice((None, rng.randrange(1, 30))), next(numbers))
    elif kind == "add":
        argument = 1000
    elif kind == "txn":
        other = rng.choice(names)
        keys = (key, other) if other != key else (key,)
        compares = ((key, None),) if rng.random() < 0.5 else ()
        argument = (compares, (("put", key, next(numbers)), ("get", other, None)), (("get", key, None),))
    return Operation(client, order, kind, keys, argument, invoke * 1000 + order)


# -- ways to break a history: each returns None when this history has no place for it -------------------------


def _with(history: History, old: Operation, new: Operation) -> History:
    operations = sorted((new if one is old else one for one in history.operations), key=lambda one: one.invoke_ns)
    return replace(history, operations=tuple(operations))


def _relog(entries: Sequence[Committed]) -> tuple[Committed, ...]:
    """The entries with the revisions that they would have: a store that is wrong, but consistently so."""
    model = KvModel()
    state, revision, log = model.initial(), model.first_revision, []
    for entry in entries:
        revision += model.apply(state, entry)[1]
        log.append(replace(entry, revision=revision))
    return tuple(log)


def stale_read(history: History, rng: random.Random) -> History | None:
    """A read answers from an older revision, honestly named, though a newer one had been acknowledged."""
    assert history.log is not None
    states = _states(history)
    places = [
        (read, write)
        for read in history.operations
        if read.kind == "get" and read.status == "ok"
        for write in history.operations
        if write.kind == "put"
        and write.status == "ok"
        and write.keys == read.keys
        and write.return_ns is not None
        and write.return_ns < read.invoke_ns
        and write.revision is not None
        and states[write.revision - 1].get(read.keys[0]) != read.result
    ]
    if not places:
        return None
    read, write = rng.choice(places)
    assert write.revision is not None
    old = write.revision - 1
    return _with(history, read, replace(read, result=states[old].get(read.keys[0]), revision=old))


def _states(history: History) -> dict[int, dict[object, object]]:
    assert history.log is not None
    model = KvModel()
    state = model.initial()
    states = {model.first_revision: dict(state)}
    for entry in history.log:
        model.apply(state, entry)
        states[entry.revision] = dict(state)
    return states


def lost_write(history: History, rng: random.Random) -> History | None:
    """An acknowledged write vanishes from the log; everything after it is renumbered."""
    acknowledged = {(one.client, one.id) for one in history.operations if one.status == "ok" and one.kind == "put"}
    assert history.log is not None
    places = [at for at, entry in enumerate(history.log) if (entry.client, entry.id) in acknowledged]
    if not places:
        return None
    at = rng.choice(places)
    return replace(history, log=_relog([*history.log[:at], *history.log[at + 1 :]]))


def duplicated_apply(history: History, rng: random.Random) -> History | None:
    """A retry is applied a second time."""
    assert history.log is not None
    places = [at for at, entry in enumerate(history.log) if entry.kind in {"add", "put"}]
    if not places:
        return None
    at = rng.choice(places)
    later = rng.randrange(at + 1, len(history.log) + 1)
    return replace(history, log=_relog([*history.log[:later], history.log[at], *history.log[later:]]))


def swapped_order(history: History, rng: random.Random) -> History | None:
    """Two neighbouring writes of the log change places, and with them their revisions."""
    assert history.log is not None
    ends = {(one.client, one.id): one for one in history.operations}
    places = []
    for at, (first, second) in enumerate(itertools.pairwise(history.log)):
        if first.kind == second.kind == "put" and first.client is not None and second.client is not None:
            one, other = ends[first.client, first.id], ends[second.client, second.id]
            if one.return_ns is not None and one.return_ns < other.invoke_ns:
                places.append(at)
    if not places:
        return None
    at = rng.choice(places)
    first, second = history.log[at : at + 2]
    return replace(history, log=_relog([*history.log[:at], second, first, *history.log[at + 2 :]]))


def wrong_revision(history: History, rng: random.Random) -> History | None:
    """An acknowledgement names another revision."""
    places = [one for one in history.operations if one.status == "ok" and one.kind in {"put", "add"}]
    if not places:
        return None
    one = rng.choice(places)
    assert one.revision is not None
    return _with(history, one, replace(one, revision=one.revision + rng.choice((-1, 1))))


def phantom_read(history: History, rng: random.Random) -> History | None:
    """A read answers with a value that nobody ever wrote."""
    places = [one for one in history.operations if one.status == "ok" and one.kind == "get"]
    if not places:
        return None
    one = rng.choice(places)
    return _with(history, one, replace(one, result=-1))


def phantom_entry(history: History, rng: random.Random) -> History | None:
    """The log holds a write that nobody asked for."""
    assert history.log is not None
    at = rng.randrange(len(history.log) + 1)
    entry = Committed(0, "c0", 10_000, "put", ("k0",), -1)
    return replace(history, log=_relog([*history.log[:at], entry, *history.log[at:]]))


def failed_applied(history: History, rng: random.Random) -> History | None:
    """An operation that was said to have failed was applied."""
    assert history.log is not None
    places = [one for one in history.operations if one.status == "failed" and one.kind == "put"]
    if not places:
        return None
    one = rng.choice(places)
    entry = Committed(0, one.client, one.id, one.kind, one.keys, one.argument)
    return replace(history, log=_relog([*history.log, entry]))


def real_time_reordered(history: History, rng: random.Random) -> History | None:
    """A write turns out to have been invoked only after a read that saw it had ended."""
    places = []
    for write in history.operations:
        if write.kind == "put" and write.status == "ok" and write.return_ns is not None:
            for read in history.operations:
                if read.kind == "get" and read.status == "ok" and read.return_ns is not None:
                    if read.keys == write.keys and read.result == write.argument:
                        places.append((write, read))
    if not places:
        return None
    write, read = rng.choice(places)
    assert write.return_ns is not None and read.return_ns is not None
    invoke = max(write.invoke_ns, read.return_ns) + 1
    return _with(history, write, replace(write, invoke_ns=invoke, return_ns=max(write.return_ns, invoke + 1)))


Mutation = Callable[[History, random.Random], History | None]
MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "stale_read": (stale_read, {"stale_read"}),
    "lost_write": (lost_write, {"lost_write"}),
    "duplicated_apply": (duplicated_apply, {"applied_twice"}),
    "swapped_order": (swapped_order, {"real_time"}),
    "wrong_revision": (wrong_revision, {"wrong_revision"}),
    "phantom_read": (phantom_read, {"wrong_result"}),
    "phantom_entry": (phantom_entry, {"phantom"}),
    "failed_applied": (failed_applied, {"failed_applied"}),
    "real_time_reordered": (real_time_reordered, {"seen_before", "real_time"}),
}
"""Each mutation, and the invariant that it must break, among others that it may."""


def plainly_stale_read(history: History, rng: random.Random) -> History | None:
    """A read answers with a value whose write had ended before another began that ended before the read began."""
    puts = [one for one in history.operations if one.kind == "put" and one.status == "ok"]
    places = [
        (read, old)
        for read in history.operations
        if read.kind == "get" and read.status == "ok"
        for new in puts
        if new.keys == read.keys and new.return_ns is not None and new.return_ns < read.invoke_ns
        for old in puts
        if old.keys == read.keys and old.return_ns is not None and old.return_ns < new.invoke_ns
    ]
    if not places:
        return None
    read, old = rng.choice(places)
    return _with(history, read, replace(read, result=old.argument))


VISIBLE: dict[str, Mutation] = {
    "plainly_stale_read": plainly_stale_read,
    "phantom_read": phantom_read,
    "real_time_reordered": real_time_reordered,
}
"""Mutations of what clients see. In histories of gets and puts of distinct values, a check finds them without a log."""


def brute_force(operations: Sequence[Operation], model: Model[Any] | None = None) -> bool:
    """Whether any order of the operations, all keys together, explains the answers: every order is tried."""
    used: Model[Any] = model or KvModel()
    relevant = [one for one in operations if one.status != "failed" and not one.serializable]

    def explains(rest: list[Operation], state: Any) -> bool:
        if all(one.status == "unknown" for one in rest):
            return True
        for one in rest:
            if any(other.return_ns is not None and other.return_ns < one.invoke_ns for other in rest):
                continue
            after = used.thaw(used.freeze(state))
            result, _ = used.apply(after, one)
            if one.status == "unknown" or result == one.result:
                if explains([other for other in rest if other is not one], after):
                    return True
        return False

    return explains(relevant, used.initial())
