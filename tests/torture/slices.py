"""The judgement over locks, leases and watches: what programs have noted, held against the log of the store.

The log is read back from the states that the store shows at each revision, from every member in turn, and not from its
events: what was put says its revision, and who is missing was deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

from aspen.errors import AspenError
from aspen.kv import FROM_KEY, Kv
from aspen.kv.recipes.keys import base
from aspen.kv.types import KeyValue
from tests.torture.rounds import pause
from tests.torture.verify import CATCH_UP_S, READERS, RETRY_S
from tests.torture.workers import CHANGED, LEASED, LOCK, NUMBER

LOCK_KEYS = base("lock", LOCK)

Note: TypeAlias = "Mapping[str, Any]"
Told: TypeAlias = "tuple[int, list[list[Any]]]"
"""A revision, and its events as [is a deletion, key, value, create revision, mod revision, version, lease]."""


@dataclass
class Change:
    """What one revision has done."""

    put: dict[bytes, KeyValue] = field(default_factory=dict)
    deleted: dict[bytes, KeyValue] = field(default_factory=dict)
    """What was there before."""


Slice: TypeAlias = "dict[int, Change]"
"""The log, by revision, from 2 on."""


# -- reading back ----------------------------------------------------------------------------------------------


async def read_slice(members: Sequence[Kv]) -> tuple[Slice, list[str]]:
    """The whole log; and where two members differ. `members` are clients of one member each."""
    last = await _read(members[0], 0)
    ends = [await _read(member, last.revision) for member in members]
    problems = [
        f"member {number} has another state at revision {last.revision}"
        for number, end in enumerate(ends)
        if end.kvs != last.kvs
    ]
    found: dict[int, Any] = {}
    waiting = iter(range(2, last.revision + 1))

    async def reader() -> None:
        for revision in waiting:
            found[revision] = await _read(members[revision % len(members)], revision, only=True)

    await asyncio.gather(*(reader() for _ in range(READERS)))
    log: Slice = {}
    state: dict[bytes, KeyValue] = {}
    for revision in range(2, last.revision + 1):
        change = log[revision] = Change({kv.key: kv for kv in found[revision].kvs})
        before = dict(state)
        state.update(change.put)
        if found[revision].count != len(state):
            there = await _read(members[revision % len(members)], revision, keys=True)
            kept = {kv.key for kv in there.kvs}
            change.deleted = {key: kv for key, kv in before.items() if key not in kept}
            state = {key: kv for key, kv in state.items() if key in kept}
        if not change.put and not change.deleted:
            problems.append(f"revision {revision} has changed nothing")
    if list(last.kvs) != sorted(state.values()):
        problems.append("the log, revision by revision, does not lead to the state at its end")
    return log, problems


async def _read(member: Kv, revision: int, *, only: bool = False, keys: bool = False) -> Any:
    """Everything at a revision, or `only` what was put at it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + CATCH_UP_S
    wanted = {"min_mod_revision": revision, "max_mod_revision": revision} if only else {}
    while True:
        try:
            return await member.range(
                b"\0",
                FROM_KEY,
                revision=revision,
                keys_only=keys,
                consistency="serializable" if revision else "linearizable",
                **wanted,
            )
        except AspenError:
            if loop.time() > end:
                raise
            await pause(RETRY_S)


# -- streams ---------------------------------------------------------------------------------------------------


def told_by(notes: Iterable[Note]) -> list[Told]:
    """What a watch has told, over all lives of its reader."""
    return [(note["revision"], note["events"]) for note in notes if note["what"] == "saw" and note["events"]]


def check_stream(log: Slice, told: Sequence[Told], role: str) -> Iterator[str]:
    """A stream is the slice of the log that its watch is of: whole, each event once, in order, without a gap."""
    before = 1
    for revision, events in told:
        if revision <= before:
            yield f"{role}: revision {revision} was told after {before}"
        before = max(before, revision)
        wanted = _events_of(log.get(revision, Change()), role)
        got = [_key_of(event) for event in events]
        if sorted(got) != sorted(wanted):
            yield f"{role}: revision {revision} was told as {got}, and it is {wanted}"
    seen = {revision for revision, _ in told}
    for revision, change in log.items():
        if revision not in seen and _events_of(change, role):
            yield f"{role}: revision {revision} was never told: {_events_of(change, role)}"


def check_same_order(streams: Mapping[str, Sequence[Told]], role: str = "watch") -> Iterator[str]:
    """Within a revision, too, all are told the same, in the same order."""
    whole = dict(streams[role])
    for name, told in streams.items():
        for revision, events in told:
            kept = [
                event for event in whole.get(revision, []) if _is_wanted(event[0], event[1].encode("latin-1"), name)
            ]
            if kept != events:
                yield f"{name}: revision {revision} was told as {events}, and {role} has seen {kept}"


def _is_wanted(is_delete: bool, key: bytes, role: str) -> bool:
    return {"watch": True, "watch-lease": key.startswith(LEASED), "watch-gone": is_delete}[role]


def _events_of(change: Change, role: str) -> list[tuple[Any, ...]]:
    put = [(False, *kv) for kv in change.put.values() if _is_wanted(False, kv.key, role)]
    return put + [(True, key) for key in change.deleted if _is_wanted(True, key, role)]


def _key_of(event: list[Any]) -> tuple[Any, ...]:
    """An event as `_events_of` has it: of a deletion the key alone."""
    key, value = (text.encode("latin-1") for text in event[1:3])
    return (True, key) if event[0] else (False, key, value, *event[3:])


# -- leases ----------------------------------------------------------------------------------------------------


def check_leases(log: Slice, notes: Sequence[Note], seen_at: Mapping[int, int]) -> Iterator[str]:
    """All keys of a lease go at one revision, and no lease ends before its holder's time is over, unless its holder has
    ended it. `seen_at` has when a watcher was told of a revision: it was there by then."""
    until: dict[int, int] = {}
    ends: dict[int, int] = {}
    for note in notes:
        if "until" in note:
            until[note["lease"]] = max(note["until"], until.get(note["lease"], 0))
        elif note["what"] == "ends":
            ends[note["lease"]] = min(note["at"], ends.get(note["lease"], note["at"]))
    attached: dict[int, set[bytes]] = {}
    for revision, change in log.items():
        gone: dict[int, set[bytes]] = {}
        for kv in change.deleted.values():
            if kv.lease:
                gone.setdefault(kv.lease, set()).add(kv.key)
        for lease, keys in gone.items():
            left = attached[lease] - keys
            if left:
                yield f"lease {lease}: {len(keys)} keys went at revision {revision}, and {len(left)} did not: {left}"
            seen = seen_at.get(revision)
            if seen is not None and seen < until.get(lease, 0) and seen < ends.get(lease, seen + 1):
                early_s = (until[lease] - seen) / 1e9
                yield f"lease {lease} ended {early_s:.3f} s before its time, at revision {revision}"
            attached[lease] = left
        for kv in change.put.values():
            if kv.lease:
                attached.setdefault(kv.lease, set()).add(kv.key)
    for lease, keys in attached.items():
        if keys:
            yield f"lease {lease}: its keys are there when all is over: {keys}"


# -- the lock --------------------------------------------------------------------------------------------------


def check_lock(log: Slice, notes: Sequence[Note]) -> Iterator[str]:
    """Nobody is sure to hold the lock while another is; whoever is sure of it is not turned away; and every change in
    the store was made by the first in line."""
    spans: dict[int, tuple[int, int]] = {}
    ends: dict[int, int] = {}
    for note in notes:
        if note["what"] == "ends":
            ends[note["lease"]] = note["at"]
    for note in notes:
        if note["what"] not in ("granted", "sure", "turned_away"):
            continue
        # Sure of it until its time is over, whatever becomes of the process; or until it gives it up.
        end = max(note["at"], min(note["until"], ends.get(note["lease"], note["until"])))
        first, last = spans.get(note["token"], (note["at"], end))
        spans[note["token"]] = (min(first, note["at"]), max(last, end))
        if note["what"] == "turned_away":
            yield f"token {note['token']} was turned away by what it protects, and it was held for certain"
    ordered = sorted(spans.items())
    for (token, (_, last)), (after, (first, _)) in pairwise(ordered):
        if first < last:
            yield f"token {after} was held {(last - first) / 1e9:.3f} s before the time of token {token} was over"
    granted = [note["token"] for note in notes if note["what"] == "granted"]
    if len(set(granted)) != len(granted):
        yield "a token was granted twice"
    yield from _check_line(log, set(spans))


def _check_line(log: Slice, tokens: set[int]) -> Iterator[str]:
    line: set[int] = set()
    places: set[int] = set()
    for revision, change in log.items():
        for key in change.put:
            if key.startswith(CHANGED):
                token = int(key.removeprefix(CHANGED))
                if not line or min(line) != token:
                    yield f"token {token} changed the store at revision {revision}, and in line were {sorted(line)}"
        line -= {kv.create_revision for key, kv in change.deleted.items() if key.startswith(LOCK_KEYS)}
        line |= {kv.create_revision for key, kv in change.put.items() if key.startswith(LOCK_KEYS)}
        places |= line
    if not tokens <= places:
        yield f"tokens {sorted(tokens - places)} are of no place in line"


def check_protected(log: Slice, resource: Mapping[str, Any]) -> Iterator[str]:
    """No change of what the lock protects was lost, outside of the store and in it."""
    if resource["lost"]:
        yield f"{resource['lost']} changes of the resource outside were lost"
    if resource["number"] != len(resource["writers"]):
        yield f"{len(resource['writers'])} changes outside have made {resource['number']}"
    if resource["writers"] != sorted(set(resource["writers"])):
        yield "the resource outside was changed twice with a token, or by tokens out of their order"
    changes = sum(key.startswith(CHANGED) for change in log.values() for key in change.put)
    numbers = [int(change.put[NUMBER].value) for change in log.values() if NUMBER in change.put]
    if numbers != list(range(1, changes + 1)):
        yield f"{changes} transactions with the condition of the lock have made the number {numbers[-1:]}"
