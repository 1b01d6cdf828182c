"""The revision-order check: passes what is right, catches each way of being wrong."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from aspen.errors import HistoryError
from aspen.sim.checks import KvModel, check_revisions
from aspen.sim.history import Committed, History, Operation
from tests.sim.histories import MUTATIONS, generate


@pytest.mark.parametrize("seed", range(100))
def test_a_valid_history_passes(seed: int) -> None:
    history = generate(seed, operations=80, clients=1 + seed % 7, keys=1 + seed % 4, unknown=0.05 * (seed % 5))
    assert check_revisions(history) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_caught(name: str) -> None:
    mutate, invariants = MUTATIONS[name]
    applied = 0
    for seed in range(60):
        mutated = mutate(generate(seed, operations=80, failed=0.1), random.Random(seed))
        if mutated is None:
            continue
        applied += 1
        found = {violation.invariant for violation in check_revisions(mutated, violations_max=1_000)}
        assert found & invariants, f"seed {seed}: found {found}"
    assert applied >= 20


def op(client: str, id: int, kind: str, argument: object, span: tuple[int, int | None], **more: object) -> Operation:
    status = "unknown" if span[1] is None else "ok"
    base = Operation(client, id, kind, ("k",), argument, span[0], span[1], status)  # type: ignore[arg-type]
    return replace(base, **more)  # type: ignore[arg-type]


def put(revision: int, client: str | None, id: int, value: object) -> Committed:
    return Committed(revision, client, id, "put", ("k",), value)


def invariants(history: History) -> list[str]:
    return [violation.invariant for violation in check_revisions(history)]


def test_an_unknown_write_is_resolved_by_its_id() -> None:
    unknown = op("a", 0, "put", 1, (0, None))
    seen = op("b", 0, "get", None, (5, 9), result=1, revision=2)
    assert invariants(History((unknown, seen), (put(2, "a", 0, 1),))) == []
    unseen = op("b", 0, "get", None, (5, 9), result=None, revision=1)
    assert invariants(History((unknown, unseen), ())) == []
    assert invariants(History((unknown, seen), ())) == ["wrong_revision"]


def test_an_unknown_write_may_be_applied_late_but_not_early() -> None:
    before = op("b", 0, "get", None, (0, 9), result=1, revision=2)
    late = op("a", 0, "put", 1, (10, None))
    assert invariants(History((before, late), (put(2, "a", 0, 1),))) == ["seen_before"]


def test_two_reads_go_back_in_time() -> None:
    write = op("a", 0, "put", 1, (0, 100), revision=2)
    new = op("b", 0, "get", None, (10, 20), result=1, revision=2)
    old = op("c", 0, "get", None, (30, 40), result=None, revision=1)
    log = (put(2, "a", 0, 1),)
    assert invariants(History((write, new, old), log)) == ["stale_read"]
    assert invariants(History((write, new, replace(old, invoke_ns=15)), log)) == []
    assert invariants(History((write, new, replace(old, serializable=True)), log)) == []


def test_a_serializable_read_must_still_be_true() -> None:
    read = op("c", 0, "get", None, (30, 40), result=7, revision=1, serializable=True)
    assert invariants(History((read,), ())) == ["wrong_result"]


def test_what_changes_nothing_needs_no_place_in_the_log() -> None:
    missing = op("a", 0, "delete", None, (0, 1), result=False, revision=1)
    lost = op("a", 1, "cas", (None, 5), (2, 3), result=True, revision=2)
    assert invariants(History((missing,), ())) == []
    assert invariants(History((replace(missing, revision=None),), ())) == []
    # It claims to have set the key: were it so, the log would have it.
    assert invariants(History((missing, replace(lost, revision=1)), ())) == ["lost_write"]


def test_an_answer_that_should_have_changed_the_store_does_not_spoil_the_replay() -> None:
    lying = op("a", 0, "delete", None, (10, 11), result=False, revision=2)
    write = op("b", 0, "put", 1, (0, 5), revision=2)
    read = op("b", 1, "get", None, (12, 20), result=1, revision=2)
    assert invariants(History((write, lying, read), (put(2, "b", 0, 1),))) == ["lost_write"]


def test_entries_that_change_nothing_keep_the_revision() -> None:
    tried = op("a", 0, "cas", (9, 5), (0, 1), result=False, revision=1)
    entry = Committed(1, "a", 0, "cas", ("k",), (9, 5))
    assert invariants(History((tried,), (entry,))) == []
    assert "log_disorder" in invariants(History((tried,), (replace(entry, revision=2),)))


def test_entries_of_the_store_itself_need_no_client() -> None:
    read = op("a", 0, "get", None, (0, 1), result=1, revision=2)
    assert invariants(History((read,), (put(2, None, 0, 1),))) == []


def test_a_transaction_over_two_keys_is_one_step() -> None:
    argument = ((), (("put", "x", 1), ("put", "y", 1)), ())
    write = Operation("a", 0, "txn", ("x", "y"), argument, 0, 10, "ok", (True, (None, None)), None, 2)
    entry = Committed(2, "a", 0, "txn", ("x", "y"), argument)
    half = Operation(
        "b", 0, "txn", ("x", "y"), ((), (("get", "x", None), ("get", "y", None)), ()), 1, 9, "ok",
        (True, (1, None)), None, 2,
    )  # fmt: skip
    assert invariants(History((write, half), (entry,))) == ["wrong_result"]
    assert invariants(History((write, replace(half, result=(True, (1, 1)))), (entry,))) == []


def test_the_evidence_shows_both_sides() -> None:
    write = op("a", 0, "put", 1, (0, 5), revision=2)
    old = op("c", 0, "get", None, (30, 40), result=None, revision=1)
    (violation,) = check_revisions(History((write, old), (put(2, "a", 0, 1),)))
    assert violation.invariant == "stale_read"
    assert violation.at_ns == 40
    assert str(violation).count("\n") == 2
    assert "a#0 put(k, 1) = None @2 [0, 5]" in str(violation)
    assert violation.signature().invariant == "revisions.stale_read"


def test_a_history_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(HistoryError, match="no committed log"):
        check_revisions(History(()))
    twice = op("a", 0, "get", None, (0, 1))
    with pytest.raises(HistoryError, match="a#0"):
        check_revisions(History((twice, twice), ()))
    with pytest.raises(HistoryError, match="shout"):
        check_revisions(History((), (Committed(2, None, 0, "shout", ("k",), None),)), KvModel())


def test_ten_operations_cost_well_under_a_millisecond() -> None:
    history = generate(3, operations=5_000, clients=5, keys=100)
    took = min(_seconds(history) for _ in range(3))
    assert took / 500 < 0.001, f"{took * 1e3:.1f} ms for 5,000 operations"


def _seconds(history: History) -> float:
    started = time.process_time()
    assert check_revisions(history) == []
    return time.process_time() - started
