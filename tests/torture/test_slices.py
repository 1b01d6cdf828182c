"""The judgement over locks, leases and watches: a right history passes, and every lie in it is caught."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from aspen.kv.types import KeyValue
from tests.torture.slices import (
    LOCK_KEYS,
    Change,
    Slice,
    Told,
    check_leases,
    check_lock,
    check_protected,
    check_same_order,
    check_stream,
)
from tests.torture.workers import CHANGED, LEASED, NUMBER, TTL_S

SECOND_NS = 1_000_000_000


@dataclass
class Run:
    """What is judged."""

    log: Slice
    notes: list[dict[str, Any]]
    streams: dict[str, list[Told]]
    resource: dict[str, Any]
    seen_at: dict[int, int]

    def problems(self) -> list[str]:
        found: list[str] = []
        for role, told in self.streams.items():
            found += check_stream(self.log, told, role)
        found += check_same_order(self.streams)
        found += check_leases(self.log, self.notes, self.seen_at)
        found += check_lock(self.log, self.notes)
        found += check_protected(self.log, self.resource)
        return found


def right() -> Run:
    """Two hold the lock, one after the other, and a lease of two keys ends by itself."""
    log: Slice = {}

    def put(revision: int, key: bytes, value: bytes = b"", lease: int = 0) -> None:
        change = log.setdefault(revision, Change())
        change.put[key] = KeyValue(key, value, revision, revision, 1, lease)

    def delete(revision: int, key: bytes) -> None:
        before = next(change.put[key] for _, change in sorted(log.items(), reverse=True) if key in change.put)
        log.setdefault(revision, Change()).deleted[key] = before

    put(2, LOCK_KEYS + b"a", lease=1)
    put(3, LOCK_KEYS + b"b", lease=2)
    put(4, NUMBER, b"1")
    put(4, CHANGED + b"2")
    put(5, LEASED + b"x", lease=7)
    put(6, LEASED + b"y", lease=7)
    delete(7, LOCK_KEYS + b"a")
    put(8, NUMBER, b"2")
    put(8, CHANGED + b"3")
    delete(9, LEASED + b"x")
    delete(9, LEASED + b"y")
    delete(10, LOCK_KEYS + b"b")

    def at(second: float) -> int:
        return round(second * SECOND_NS)

    notes = [
        {"what": "granted", "token": 2, "lease": 1, "at": at(2), "until": at(2 + TTL_S)},
        {"what": "kept", "lease": 7, "at": at(5), "until": at(5 + TTL_S)},
        {"what": "ends", "lease": 1, "at": at(6.5)},
        {"what": "granted", "token": 3, "lease": 2, "at": at(7), "until": at(7 + TTL_S)},
        {"what": "sure", "token": 3, "lease": 2, "at": at(8), "until": at(8 + TTL_S)},
        {"what": "ends", "lease": 2, "at": at(9.5)},
    ]
    events: list[Told] = []
    for revision, change in log.items():
        puts = [[False, kv.key.decode("latin-1"), kv.value.decode("latin-1"), *kv[2:]] for kv in change.put.values()]
        gone = [[True, key.decode("latin-1"), "", 0, revision, 0, 0] for key in change.deleted]
        events.append((revision, puts + gone))
    streams = {
        "watch": events,
        "watch-lease": [told for told in events if told[1][0][1].startswith(LEASED.decode())],
        "watch-gone": [told for told in events if told[1][0][0]],
    }
    resource = {"token": 3, "number": 2, "lost": 0, "writers": [2, 3]}
    streams = {role: copy.deepcopy(told) for role, told in streams.items()}
    return Run(log, notes, streams, resource, {revision: at(revision) for revision in log})


def test_a_right_history_passes() -> None:
    assert right().problems() == []


def _early(run: Run) -> None:
    run.seen_at[9] = round(5.5 * SECOND_NS)


def _early_by_a_late_end(run: Run) -> None:
    """Its holder has ended the lease, and it was gone before that."""
    _early(run)
    run.notes.append({"what": "ends", "lease": 7, "at": 6 * SECOND_NS})


def _in_two_revisions(run: Run) -> None:
    run.log[10].deleted[LEASED + b"y"] = run.log[9].deleted.pop(LEASED + b"y")


def _left(run: Run) -> None:
    del run.log[10].deleted[LOCK_KEYS + b"b"]


def _twice_held(run: Run) -> None:
    run.notes = [note for note in run.notes if (note["what"], note["lease"]) != ("ends", 1)]
    run.notes[0]["until"] = round(7.5 * SECOND_NS)


def _sure_for_too_long(run: Run) -> None:
    run.notes.append(
        {"what": "sure", "token": 2, "lease": 1, "at": round(7.1 * SECOND_NS), "until": round(7.2 * SECOND_NS)}
    )


def _turned_away(run: Run) -> None:
    run.notes.append({**run.notes[3], "what": "turned_away"})


def _granted_twice(run: Run) -> None:
    run.notes.append(dict(run.notes[3]))


def _out_of_line(run: Run) -> None:
    run.log[6].put |= run.log.pop(8).put


def _no_place(run: Run) -> None:
    run.notes[3]["token"] = run.notes[4]["token"] = 5


LIES: dict[str, tuple[Callable[[Run], object], str]] = {
    "an event is left out": (lambda run: run.streams["watch"][2][1].pop(), "watch: revision 4 was told as"),
    "a revision is left out": (lambda run: run.streams["watch-lease"].pop(0), "watch-lease: revision 5 was never told"),
    "the last one is left out": (lambda run: run.streams["watch-gone"].pop(), "watch-gone: revision 10 was never"),
    "a revision comes twice": (
        lambda run: run.streams["watch"].append(run.streams["watch"][-1]),
        "10 was told after 10",
    ),
    "revisions are swapped": (lambda run: run.streams["watch"].reverse(), "revision 9 was told after 10"),
    "an event comes twice": (
        lambda run: run.streams["watch"][0][1].extend(run.streams["watch"][0][1]),
        "2 was told as",
    ),
    "a value is another": (lambda run: run.streams["watch"][2][1][0].__setitem__(2, "9"), "revision 4 was told as"),
    "a lease is another": (lambda run: run.streams["watch"][3][1][0].__setitem__(6, 9), "revision 5 was told as"),
    "what did not happen is told": (lambda run: run.streams["watch"].append((11, [[True, "k", ""]])), "11 was told as"),
    "two are told in other orders": (lambda run: run.streams["watch-lease"][2][1].reverse(), "and watch has seen"),
    "a lease ends early": (_early, "lease 7 ended 1.500 s before its time, at revision 9"),
    "a lease ends before it is ended": (_early_by_a_late_end, "lease 7 ended 1.500 s before its time"),
    "keys go at two revisions": (_in_two_revisions, "lease 7: 1 keys went at revision 9, and 1 did not"),
    "a key is left": (_left, "lease 2: its keys are there when all is over"),
    "two hold the lock": (_twice_held, "token 3 was held 0.500 s before the time of token 2 was over"),
    "one is sure for too long": (_sure_for_too_long, "token 3 was held 0.100 s before the time of token 2"),
    "the holder is turned away": (_turned_away, "token 3 was turned away"),
    "a token comes twice": (_granted_twice, "a token was granted twice"),
    "one changes out of its turn": (_out_of_line, "token 3 changed the store at revision 6, and in line were"),
    "a token of nowhere": (_no_place, "tokens [5] are of no place in line"),
    "a change outside is lost": (lambda run: run.resource.update(lost=1), "1 changes of the resource outside"),
    "changes outside do not add up": (lambda run: run.resource.update(number=1), "2 changes outside have made 1"),
    "tokens outside are out of order": (lambda run: run.resource.update(writers=[3, 2]), "out of their order"),
    "a change inside is lost": (
        lambda run: run.log[8].put.__setitem__(NUMBER, KeyValue(NUMBER, b"1", 4, 8, 2)),
        "2 transactions with the condition of the lock have made the number [1]",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_caught(lie: str) -> None:
    tell, caught = LIES[lie]
    run = right()
    tell(run)
    assert re.search(re.escape(caught), "\n".join(run.problems())), run.problems()
