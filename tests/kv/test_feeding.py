"""What watches that see the same are told, once for all of them: `aspen.kv.feeding` by itself."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from aspen.kv.feeding import Feeds, Reading, Told, gathered
from aspen.kv.types import Event, KeyValue
from aspen.limits import WATCH_CLIENT_BYTES_MAX


def told(revision: int, *, size: int = 1, events: int = 1, whole: bool = True) -> Told:
    kv = KeyValue(b"k", bytes(size), 1, revision, 1, 0)
    return Told(revision, (Event(False, kv),) * events, whole)


def read(reading: Reading) -> int | None:
    """The revision that its reader is given next, if any, with all its events."""
    while reading.step():
        now = reading._told
        reading._at = len(now.events)
        if now.revision:
            return now.revision
    return None


def drained(reading: Reading) -> list[int]:
    found = []
    while (revision := read(reading)) is not None:
        found.append(revision)
    return found


def test_what_is_told_once_is_read_by_each_in_its_own_time() -> None:
    readings = [Reading(1) for _ in range(3)]
    kept: Feeds = {}
    feed = gathered(kept, (1, 2, 3), readings)
    feed.tell(told(2))
    assert drained(readings[0]) == [2]
    feed.tell(told(3))
    assert [drained(reading) for reading in readings] == [[3], [2, 3], [2, 3]]
    assert kept == {(1, 2, 3): feed}
    assert all(reading.next == 4 and reading.waits == 0 for reading in readings)


def test_who_leaves_has_what_had_come_and_then_what_it_is_told_alone() -> None:
    readings = [Reading(1) for _ in range(2)]
    kept: Feeds = {}
    feed = gathered(kept, (1, 2), readings)
    feed.tell(told(2))
    leaver, other = readings
    alone = leaver.alone()
    assert kept == {}  # What its ids stood for is not so any more.
    feed.tell(told(3))
    alone.tell(told(4))
    assert leaver.next == 5
    assert drained(leaver) == [2, 4]
    assert drained(other) == [2, 3]


def test_who_comes_together_reads_first_what_each_had_been_told_alone() -> None:
    readings = [Reading(1) for _ in range(3)]
    kept: Feeds = {}
    for revision, reading in enumerate(readings, 2):
        reading.alone().tell(told(revision))
    pair = gathered(kept, (1, 2), readings[:2])
    pair.tell(told(5))
    gathered(kept, (1, 2, 3), readings).tell(told(6))
    assert list(kept) == [(1, 2, 3)]
    assert [drained(reading) for reading in readings] == [[2, 5, 6], [3, 5, 6], [4, 6]]


def test_a_part_of_a_revision_does_not_move_what_comes_next() -> None:
    reading = Reading(2)
    reading.feed.tell(told(2, whole=False))
    assert reading.next == 2
    reading.feed.tell(told(2))
    assert reading.next == 3
    assert drained(reading) == [2, 2]
    assert reading._handed == 1  # The reader has been given the last part, and has not asked for more.
    reading.feed.tell(told(3))
    assert (read(reading), reading._handed) == (3, 2)


def test_only_those_for_whom_too_much_waits_are_named() -> None:
    readings = [Reading(1) for _ in range(3)]
    feed = gathered({}, (1, 2, 3), readings)
    half = WATCH_CLIENT_BYTES_MAX // 2
    for revision in (2, 3):
        feed.tell(told(revision, size=half))
        assert drained(readings[0]) == [revision]
    assert read(readings[1]) == 2
    assert feed.overfull() == [readings[2]]
    assert drained(readings[2]) == [2, 3]
    assert feed.overfull() == []
    assert feed.look_at > feed.bytes
    feed.tell(told(4, size=half))
    assert feed.overfull() == [readings[1]]


def test_who_has_left_is_not_slow_for_the_others() -> None:
    slow, quick = readings = [Reading(1) for _ in range(2)]
    feed = gathered({}, (1, 2), readings)
    feed.tell(told(2, size=WATCH_CLIENT_BYTES_MAX))
    assert drained(quick) == [2]
    alone = slow.alone()
    assert feed.overfull() == []
    assert alone.overfull() == [slow]


def test_what_all_have_read_is_kept_by_nobody() -> None:
    readings = [Reading(1) for _ in range(2)]
    feed = gathered({}, (1, 2), readings)
    for revision in range(2, 1_002):
        feed.tell(told(revision))
        assert read(readings[0]) == revision
    ahead, behind = readings
    assert len(links(feed.last)) > 1_000
    assert len(drained(behind)) == 1_000
    assert drained(ahead) == []
    assert links(feed.last) == [feed.last]


def links(last: Told) -> list[Told]:
    """Those of its chain that are still in memory: they lead there."""
    gc.collect()
    found, reached = [], {id(last)}
    everywhere = [one for one in gc.get_objects() if isinstance(one, Told)]
    before = {id(one.next): one for one in everywhere if one.next is not None}
    one: Told | None = last
    while one is not None and id(one) in reached:
        found.append(one)
        one = before.get(id(one))
        if one is not None:
            reached.add(id(one))
    return found


COUNT = 4
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.sets(st.integers(0, COUNT - 1), min_size=1)),
        st.tuples(st.just("alone"), st.integers(0, COUNT - 1)),
        st.tuples(st.just("read"), st.integers(0, COUNT - 1)),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_reads_what_it_was_told_in_order_and_once(steps: list[tuple[str, set[int] | int]]) -> None:
    readings = [Reading(1) for _ in range(COUNT)]
    kept: Feeds = {}
    due: list[list[int]] = [[] for _ in range(COUNT)]
    seen: list[list[int]] = [[] for _ in range(COUNT)]
    for revision, (what, whom) in enumerate(steps, 2):
        if isinstance(whom, set):
            ids = tuple(sorted(whom))
            feed = kept.get(ids) or gathered(kept, ids, [readings[id] for id in ids])
            feed.tell(told(revision))
            for id in ids:
                due[id].append(revision)
        elif what == "alone":
            readings[whom].alone().tell(told(revision))
            due[whom].append(revision)
        elif (next_one := read(readings[whom])) is not None:
            seen[whom].append(next_one)
        for reading, told_so_far, read_so_far in zip(readings, due, seen, strict=True):
            size = (told_so_far[len(read_so_far) :] and reading.waits) or 0
            assert (reading.waits > 0) == (len(told_so_far) > len(read_so_far)), size
            assert reading.next == max([1, *(number + 1 for number in told_so_far)])
    for reading, was_told, was_read in zip(readings, due, seen, strict=True):
        assert was_read + drained(reading) == was_told
        assert reading.waits == 0
