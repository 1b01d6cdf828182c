"""Traces: hashes of content, checkpoints, and where two runs part."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

import hypothesis.strategies as st
import pytest
from hypothesis import given

from aspen.errors import UsageError
from aspen.sim import Trace, TraceData, diff
from aspen.sim.trace import content


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: object


class Opaque:
    pass


def test_content_tells_values_apart_and_nothing_else() -> None:
    values = [
        None,
        0,
        1,
        True,
        1.0,
        "1",
        b"1",
        (1,),
        {1: 2},
        {2: 1},
        {1},
        Point(1, 2),
        Point(2, 1),
        Colour.RED,
        Colour.BLUE,
    ]
    assert len({content(value) for value in values}) == len(values)
    assert content(Point(1, Opaque())) == content(Point(1, Opaque()))
    assert content(ValueError("at 0x7f01")) == content(ValueError("at 0x7f02"))
    assert content(ValueError("x")) != content(KeyError("x"))
    assert content({"a", "b", "c", Point(1, 2)}) == content({"c", Point(1, 2), "b", "a"})
    assert content([lambda: 1]) == content([lambda: 2])
    deep: list[object] = []
    deep.append(deep)
    assert content([Opaque(), deep])


def trace_of(items: list[int], *, record: bool = True, every: int = 4) -> TraceData:
    trace = Trace(record=record, every=every)
    for n, item in enumerate(items):
        trace.add(n, "a", 1, "receive", "put", item)
    return trace.snapshot()


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40), st.integers(1, 9))
def test_diff_finds_the_first_difference(one: list[int], other: list[int], every: int) -> None:
    found = diff(trace_of(one, every=every), trace_of(other, every=every))
    bare = diff(trace_of(one, every=every, record=False), trace_of(other, every=every, record=False))
    if one == other:
        assert found is None
        assert bare is None
        return
    expected = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert found
    assert bare
    if one and other:
        assert found.first == expected
    assert bare.first <= expected <= bare.last


def test_a_difference_is_shown_with_what_came_before() -> None:
    found = diff(trace_of(list(range(20))), trace_of([*range(10), 99, *range(11, 20)]))
    text = str(found)
    assert "part at event 10" in text
    assert "  - 0.000000010 a.1 receive put 10" in text
    assert "  + 0.000000010 a.1 receive put 99" in text
    assert "    0.000000009 a.1 receive put 9" in text


def test_the_hash_covers_every_part_of_an_event() -> None:
    base = (1, "a", 1, "receive", "put", 1)
    changed = [(2, "a", 1, "receive", "put", 1), (1, "b", 1, "receive", "put", 1), (1, "a", 2, "receive", "put", 1)]
    changed += [(1, "a", 1, "reply", "put", 1), (1, "a", 1, "receive", "get", 1), (1, "a", 1, "receive", "put", 2)]
    digests = set()
    for event in (base, *changed):
        trace = Trace()
        trace.add(*event)
        digests.add(trace.digest())
    assert len(digests) == 7


def test_payloads_are_hashed_as_they_are_at_the_time() -> None:
    trace, items = Trace(), [1]
    trace.add(1, "a", 1, "receive", "put", items)
    before = trace.digest()
    items.append(2)
    assert trace.digest() == before


def test_traces_travel_as_json() -> None:
    data = trace_of([1, 2, 3])
    assert TraceData.from_json(json.loads(json.dumps(data.to_json()))) == data
    with pytest.raises(UsageError, match="no trace"):
        TraceData.from_json({"every": 1})


def test_traces_with_other_distances_are_not_compared() -> None:
    with pytest.raises(UsageError, match="use one value"):
        diff(trace_of([1], every=2), trace_of([1], every=3))
