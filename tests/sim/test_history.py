"""Histories: recorded, written, read; and refused when they are not what was written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspen.errors import HistoryError
from aspen.sim.checks import check_linearizable, check_revisions
from aspen.sim.history import Committed, History, Operation, Recorder, read_history
from tests.sim.histories import generate


def test_a_recorder_notes_what_clients_ask_and_are_told() -> None:
    now = [100]
    recorder = Recorder(lambda: now[0])
    first = recorder.invoke("a", "put", [b"k"], [1, 2])
    second = recorder.invoke("b", "get", [b"k"], serializable=True)
    now[0] = 200
    recorder.ok(first, None, revision=2)
    third = recorder.invoke("a", "put", [b"k"], 5)
    recorder.unknown(third, "CallTimeout")
    recorder.failed(second, "Overloaded")
    fourth = recorder.invoke("a", "get", [b"k"])
    assert recorder.id_of(fourth) == 2
    history = recorder.history(log=[Committed(2, "a", 0, "put", (b"k",), (1, 2))])
    assert history.operations == (
        Operation("a", 0, "put", (b"k",), (1, 2), 100, 200, "ok", None, None, 2),
        Operation("b", 0, "get", (b"k",), None, 101, 202, "failed", None, "Overloaded", None, True),
        Operation("a", 1, "put", (b"k",), 5, 201, None, "unknown", None, "CallTimeout"),
        Operation("a", 2, "get", (b"k",), None, 203, None, "unknown"),
    )
    assert check_revisions(history) == []
    assert read_history(history.to_json_lines()) == history


def test_an_operation_ends_once() -> None:
    recorder = Recorder(lambda: 0)
    token = recorder.invoke("a", "get", ["k"])
    recorder.unknown(token, "CallTimeout")
    with pytest.raises(HistoryError, match="has ended already"):
        recorder.ok(token, 1)


@pytest.mark.parametrize("seed", range(20))
def test_histories_come_back_and_check_the_same(seed: int) -> None:
    history = generate(seed, logged=seed % 2 == 0)
    again = read_history(history.to_json_lines())
    assert again == history
    assert check_linearizable(again.operations) == check_linearizable(history.operations)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=3).map(tuple), values, values)
def test_any_plain_value_comes_back(keys: tuple[object, ...], argument: object, result: object) -> None:
    history = History(
        (Operation("a", 0, "put", keys, argument, 0, 1, "ok", result),), (Committed(2, None, 0, "x", keys, argument),)
    )
    assert read_history(history.to_json_lines()) == history


GOOD = History(
    (Operation("a", 0, "put", ("k",), b"v", 5, 9, "ok", None, None, 2),), (Committed(2, "a", 0, "put", ("k",), b"v"),)
).to_json_lines()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        (GOOD.replace('"version": 1', '"version": 3'), "header.version is 3"),
        (GOOD.replace("aspen.sim.history", "aspen.sim.plan"), "Is this the right file"),
        (GOOD.replace('"status": "ok"', '"status": "fine"'), "line 2.op.status is .*ok, failed, unknown"),
        (GOOD.replace('"return_ns": 9', '"return_ns": null'), "line 2.op.return_ns is null"),
        (GOOD.replace('"return_ns": 9', '"return_ns": 4'), "line 2.op.return_ns is 4"),
        (GOOD.replace('"client": "a"', '"client": 5', 1), "line 2.op.client is 5; it should be text"),
        (GOOD.replace('"kind": "put"', '"kind": "put", "hint": 1', 1), "line 2.op.hint is not a field"),
        (GOOD.replace("dg==", "d"), "not base64"),
        (GOOD[: GOOD.rindex("{\"entry")], "should have 1 entries and has 0"),
        (GOOD[:-5], "line 4 is not JSON"),
        (GOOD + "{}\n", "line 5 should hold an op"),
    ],
)  # fmt: skip
def test_a_corrupted_history_is_refused_by_line_and_field(text: str, complaint: str) -> None:
    with pytest.raises(HistoryError, match=complaint):
        read_history(text)


def test_what_cannot_be_written_is_refused() -> None:
    for value in (object(), {"$bytes": 1}, {1: 2}):
        with pytest.raises(HistoryError):
            History((Operation("a", 0, "put", ("k",), value, 0),)).to_json_lines()
