"""The Wing-Gong-Lowe search, beside a dumb search that tries every order."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aspen.sim.checks import check_linearizable
from aspen.sim.checks.linearizable import groups_by_key
from aspen.sim.history import Operation
from tests.sim.histories import VISIBLE, brute_force, generate


@pytest.mark.parametrize("seed", range(100))
def test_a_valid_history_passes(seed: int) -> None:
    history = generate(seed, operations=60, clients=1 + seed % 6, keys=1 + seed % 4, unknown=0.03 * (seed % 5))
    assert check_linearizable(history.operations).verdict == "OK"


@pytest.mark.parametrize("name", VISIBLE)
def test_each_mutation_that_clients_can_see_is_caught(name: str) -> None:
    applied = 0
    for seed in range(80):
        history = generate(seed, operations=60, unknown=0.0, kinds=("get", "get", "put"), keys=2)
        mutated = VISIBLE[name](history, random.Random(seed))
        if mutated is None:
            continue
        applied += 1
        outcome = check_linearizable(mutated.operations)
        assert outcome.verdict == "VIOLATION", f"seed {seed}"
    assert applied >= 20


REQUESTS: list[tuple[str, Any, list[Any]]] = [
    ("get", None, [None, 1, 2]),
    ("put", 1, [None]),
    ("put", 2, [None]),
    ("delete", None, [True, False]),
    ("cas", (None, 1), [True, False]),
    ("cas", (1, 2), [True, False]),
    ("add", 1, [1, 2, 3]),
]


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    """Any answers at all, right or wrong, of up to seven operations on two keys."""
    count = draw(st.integers(1, 7))
    stamps = draw(st.permutations(range(2 * count)))
    operations = []
    for number in range(count):
        kind, argument, results = draw(st.sampled_from(REQUESTS))
        key = draw(st.sampled_from(("x", "x", "x", "y")))
        invoke, back = sorted(stamps[2 * number : 2 * number + 2])
        status = draw(st.sampled_from(("ok", "ok", "ok", "ok", "unknown", "failed")))
        keys: tuple[str, ...] = (key,)
        result = draw(st.sampled_from(results))
        if draw(st.integers(0, 9)) == 0:
            kind, keys = "txn", ("x", "y")
            argument = ((("x", draw(st.sampled_from((None, 1)))),), (("put", "y", 1),), (("get", "y", None),))
            result = draw(st.sampled_from(((True, (None,)), (False, (None,)), (False, (1,)))))
        if status != "ok":
            result = None
        end = None if status == "unknown" else back
        operations.append(Operation("c", number, kind, keys, argument, invoke, end, status, result))  # type: ignore[arg-type]
    return sorted(operations, key=lambda one: one.invoke_ns)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_histories())
def test_it_agrees_with_trying_every_order(operations: list[Operation]) -> None:
    expected = "OK" if brute_force(operations) else "VIOLATION"
    assert check_linearizable(operations).verdict == expected


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), place=st.integers(0, 6), change=st.sampled_from((None, 1, 2, 3, 1001, True, False)))
def test_it_agrees_on_valid_histories_with_one_answer_changed(seed: int, place: int, change: object) -> None:
    operations = list(generate(seed, operations=7, clients=3, keys=2, unknown=0.2).operations)
    if operations[place].status == "ok":
        operations[place] = replace(operations[place], result=change)
    expected = "OK" if brute_force(operations) else "VIOLATION"
    assert check_linearizable(operations).verdict == expected


def op(id: int, kind: str, argument: object, result: object, span: tuple[int, int | None], key: str = "k") -> Operation:
    status = "unknown" if span[1] is None else "ok"
    return Operation("c", id, kind, (key,), argument, span[0], span[1], status, result)  # type: ignore[arg-type]


def test_an_unknown_write_may_take_effect_late_or_never() -> None:
    unknown = op(0, "put", 1, None, (0, None))
    empty = op(1, "get", None, None, (10, 20))
    full = op(2, "get", None, 1, (30, 40))
    assert check_linearizable([unknown, empty]).verdict == "OK"
    assert check_linearizable([unknown, empty, full]).verdict == "OK"
    assert check_linearizable([unknown, full, replace(empty, invoke_ns=50, return_ns=60)]).verdict == "VIOLATION"


def test_an_unknown_write_takes_effect_at_most_once() -> None:
    once = op(0, "add", 1, None, (0, None))
    assert check_linearizable([once, op(1, "get", None, 1, (5, 6))]).verdict == "OK"
    assert check_linearizable([once, op(1, "get", None, 2, (5, 6))]).verdict == "VIOLATION"
    twin = op(2, "add", 1, None, (1, None))
    assert check_linearizable([once, twin, op(1, "get", None, 2, (5, 6))]).verdict == "OK"


def test_the_explanation_is_the_shortest_prefix_and_the_stuck_operations() -> None:
    puts = [op(n, "put", n, None, (10 * n, 10 * n + 5)) for n in range(1, 30)]
    stale = op(100, "get", None, 11, (151, 152))
    later = [op(200 + n, "get", None, 29, (1000 + 10 * n, 1005 + 10 * n)) for n in range(5)]
    outcome = check_linearizable([*puts[:15], stale, *puts[15:], *later])
    assert outcome.verdict == "VIOLATION"
    (violation,) = outcome.violations
    assert "c#100 get" in violation.message
    assert violation.at_ns == 152
    assert violation.evidence[0] == "... 6 operations that can be put in order, then"
    assert violation.evidence[-1].endswith("but would be told 14")
    assert violation.signature().invariant == "linearizable.no_order"


def test_a_small_budget_is_unknown_and_never_a_pass() -> None:
    operations = [op(n, "put", n, None, (n, 1_000 + n)) for n in range(16)]
    operations += [op(100, "get", None, 99, (2_000, 2_001))]
    outcome = check_linearizable(operations, steps_max=500)
    assert outcome.verdict == "UNKNOWN"
    assert outcome.unknown_keys == (("k",),)
    assert not outcome.violations


def test_an_unknown_key_does_not_hide_the_violation_of_another() -> None:
    hard = [op(n, "put", n, None, (n, 1_000 + n)) for n in range(16)] + [op(100, "get", None, 99, (2_000, 2_001))]
    wrong = op(200, "get", None, 5, (0, 1), key="other")
    outcome = check_linearizable([*hard, wrong], steps_max=500)
    assert outcome.verdict == "VIOLATION"
    assert outcome.unknown_keys == (("k",),)


def test_keys_that_a_transaction_names_are_searched_together() -> None:
    both = Operation("c", 0, "txn", ("x", "y"), ((), (), ()), 0, 1, "ok", (True, ()))
    groups = groups_by_key([both, op(1, "get", None, None, (2, 3), "y"), op(2, "get", None, None, (2, 3), "z")])
    assert sorted(sorted(map(str, keys)) for keys, _ in groups) == [["x", "y"], ["z"]]
    write = Operation(
        "c", 0, "txn", ("x", "y"), ((), (("put", "x", 1), ("put", "y", 1)), ()), 0, 9, "ok", (True, (None, None))
    )
    x = op(1, "get", None, 1, (1, 2), "x")
    y = op(2, "get", None, None, (3, 4), "y")
    assert check_linearizable([write, x, y]).verdict == "VIOLATION"
    assert check_linearizable([write, x, replace(y, result=1)]).verdict == "OK"


def test_serializable_reads_are_left_out() -> None:
    write, stale = op(0, "put", 1, None, (0, 1)), op(1, "get", None, None, (5, 6))
    assert check_linearizable([write, stale]).verdict == "VIOLATION"
    assert check_linearizable([write, replace(stale, serializable=True)]).verdict == "OK"


@pytest.mark.parametrize("unknown", [0.0, 0.01])
def test_a_thousand_operations_on_one_key_by_five_clients(unknown: float) -> None:
    kinds = ("get", "get", "put", "put", "cas", "delete")
    history = generate(11, operations=1_000, clients=5, keys=1, unknown=unknown, kinds=kinds)
    started = time.process_time()
    assert check_linearizable(history.operations).verdict == "OK"
    reads = [one for one in history.operations if one.kind == "get" and one.status == "ok"]
    late = reads[-5]
    wrong = [replace(one, result=-1) if one is late else one for one in history.operations]
    assert check_linearizable(wrong).verdict == "VIOLATION"
    assert time.process_time() - started < 10.0
