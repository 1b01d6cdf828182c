"""Failure files, timelines and coverage: what a person gets to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from aspen.errors import FailureFileError
from aspen.sim.checks import Signature
from aspen.sim.coverage import EVERY_FAULT, Coverage
from aspen.sim.drawing import draw_plan
from aspen.sim.events import Event
from aspen.sim.failure import Failure, hash_code, read_failure
from aspen.sim.plans import Buggify, Environment, Episode, Fired, Network, Plan, Site
from aspen.sim.timeline import render

PLAN = Plan(
    7,
    episodes=(Episode(1, "crash", "power", 5_000_000, 10_000_000, ("n1",)),),
    buggify=Buggify((Site("raft.slow_vote"),)),
    only=(Fired("buggify:raft.slow_vote", "n1", 3),),
)
FAILURE = Failure(
    target="tests/test_bank.py::test_transfer",
    seed=7,
    plan=PLAN,
    original=draw_plan(7),
    signature=Signature("check", "revisions.stale_read", "get"),
    message="revisions.stale_read: c0#5 saw the past\n    c0#5 get(k) = 1",
    aspen_version="0.1",
    python_version="3.11.7",
    code_hash=hash_code({"bank.py": b"x = 1"}),
    command="aspen sim replay FAILURE.json",
    timeline=("one", "two"),
)


def test_a_failure_comes_back_from_its_file() -> None:
    assert read_failure(FAILURE.to_json()) == FAILURE


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(FAILURE.to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the failure is not JSON"),
        (FAILURE.to_json()[:-30], "not JSON, so it was cut or changed"),
        (PLAN.to_json(), "failure.format is .*it should be .aspen.sim.failure"),
        (edited(lambda d: d.update(version=9)), "failure.version is 9, and this Aspen reads version 1"),
        (edited(lambda d: d.pop("command")), "failure.command is missing"),
        (edited(lambda d: d.update(mood="bad")), "failure.mood is not a field"),
        (edited(lambda d: d["signature"].update(kind=5)), "failure.signature.kind is 5"),
        (edited(lambda d: d["ran_on"].update(os="x")), "failure.ran_on.os is not a field"),
        (edited(lambda d: d["message"].append(3)), r"failure.message\[2\] is 3; it should be text"),
        (edited(lambda d: d["plan"].update(version=2)), "failure.plan.version is 2"),
        (edited(lambda d: d["plan"]["episodes"][0].update(mode="x")), r"failure.plan.episodes\[0\].mode is .x."),
    ],
)
def test_a_corrupted_failure_is_refused_by_its_field(text: str, complaint: str) -> None:
    with pytest.raises(FailureFileError, match=complaint):
        read_failure(text)


def test_differences_are_told() -> None:
    same = {"aspen_version": "0.1", "python_version": "3.11.7", "code_hash": FAILURE.code_hash}
    assert FAILURE.differences(**same) == []
    assert len(FAILURE.differences(aspen_version="2", python_version="3.13.0", code_hash="")) == 3
    assert "code under test" in FAILURE.differences(**{**same, "code_hash": hash_code({"bank.py": b"x = 2"})})[0]


def test_the_hash_is_of_names_and_contents_in_any_order() -> None:
    assert hash_code({"a": b"1", "b": b"2"}) == hash_code({"b": b"2", "a": b"1"})
    assert len({hash_code({"a": b"1"}), hash_code({"b": b"1"}), hash_code({"a1": b""}), hash_code({"": b"a1"})}) == 4


def test_the_report_ends_with_the_command() -> None:
    report = FAILURE.report()
    assert (
        report.splitlines()[0]
        == "FAILED tests/test_bank.py::test_transfer with seed 7: check revisions.stale_read (get)"
    )
    assert "0.005-0.015 s crash.power n1 (#1)" in report
    assert "buggify:raft.slow_vote at n1, hit 3" in report
    assert report.rstrip().endswith("Replay it: aspen sim replay FAILURE.json")


# -- timelines ------------------------------------------------------------------------------------------------


def events(count: int) -> list[Event]:
    return [
        Event(n * 1_000_000, f"n{n % 3 + 1}", "frame.sent", {"to": "n1", "what": f"Ping {n}"}) for n in range(count)
    ]


def test_a_timeline_has_a_column_for_each_node() -> None:
    record = [
        Event(1_000_000, "n1", "frame.sent", {"to": "n2", "lane": "raft", "what": "Vote"}),
        Event(1_500_000, "n2", "frame.received", {"from": "n1", "lane": "raft", "what": "Vote"}),
        Event(2_000_000, "", "fault.began", {"fault": "partition.symmetric", "what": "n1 | n2"}),
        Event(2_100_000, "n2", "frame.dropped", {"from": "n1", "lane": "raft", "what": "Ping", "why": "partition"}),
        Event(3_000_000, "n2", "node.crashed", {"boot": 4}),
    ]
    assert render(record, ("n1", "n2"), width=73) == [
        "     seconds n1                            n2",
        "-------------------------------------------------------------------------",
        "    0.001000 > n2 Vote",
        "    0.001500                               < n1 Vote",
        "    0.002000 ============ partition.symmetric began: n1 | n2 ============",
        "    0.002100                               x n1 Ping (partition)",
        "    0.003000                               ## crashed (boot 4)",
    ]


@pytest.mark.parametrize("lines_max", [5, 20, 200])
@pytest.mark.parametrize("around", [None, 0, 500, 999, 5_000])
def test_a_timeline_is_bounded_and_holds_the_failure(lines_max: int, around: int | None) -> None:
    record = events(1_000)
    around_ns = None if around is None else around * 1_000_000
    lines = render(record, ("n1", "n2", "n3"), around_ns=around_ns, lines_max=lines_max)
    assert len(lines) <= lines_max
    assert all(len(line) <= 120 for line in lines)
    last = 999 if around is None else min(around, 999)
    assert any(line.endswith(f"Ping {last}") for line in lines)
    left = sum(int(line.split()[1]) for line in lines if line.lstrip().startswith("..."))
    shown = sum("Ping" in line for line in lines)
    assert left + shown == 1_000


def test_quiet_kinds_are_left_out() -> None:
    assert len(render(events(50), ("n1",), quiet=["frame.sent"])) == 2


# -- coverage -------------------------------------------------------------------------------------------------


def test_coverage_tells_what_was_never_hit() -> None:
    plan = Plan(1, Environment(network=Network(loss_ppm=5)), episodes=PLAN.episodes)
    began = [
        Event(1, "n1", "fault.began", {"fault": "crash.power"}),
        Event(2, "n1", "branch", {"name": "raft.truncate"}),
    ]
    one, other = Coverage(), Coverage()
    one.add_run(plan, began, {"a": 3, "b": 1}, {"a": 2})
    other.add_run(plan)
    one.merge(other)
    assert one.runs == 2
    # The plan of the second run held the crash, but it never came to that.
    assert one.faults == {"crash.power": 1, "network": 2}
    missing = one.missing(branches=["raft.truncate", "raft.snapshot"])
    assert "fault crash.power never happened" not in missing
    assert "fault disk.rot never happened" in missing
    assert "buggify site b was passed 1 times and never fired" in missing
    assert "branch raft.snapshot was never taken" in missing
    assert len(missing) == len(EVERY_FAULT) - 2 + 1 + 1
    assert one.missing(faults=["network"], sites=["a"], branches=["raft.truncate"]) == []
    assert one.missing(faults=[], sites=["c"]) == ["buggify site c was never passed and never fired"]
    assert json.loads(one.to_json())["site_fired"] == {"a": 2}
    assert one.summary()[0] == "2 runs"
