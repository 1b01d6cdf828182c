"""Commands against a node whose actors are flooded, stuck, suspended and crashing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aspen.io.keys import Identity
from tests.cli.conftest import Machine

SOMEBODY = Identity.from_seed(b"s" * 32).node_id


def ask(machine: Machine, *words: str) -> Any:
    done = machine.aspen(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def at(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """The node of a tree at a path."""
    if tree["path"] == path:
        return tree
    found = [inner for child in tree["children"] if (inner := at(child, path))]
    return found[0] if found else {}


def test_the_tree_shows_every_actor_and_what_it_does(sick: Machine) -> None:
    tree = ask(sick, "tree", "sick")
    assert [child["id"] for child in tree["children"]] == ["shell", "apps"]
    assert at(tree, "/sick/stuck")["status"] == "waiting"
    assert at(tree, "/sick/stuck")["handler"] == "wait"
    assert at(tree, "/sick/flooded")["queue"] > 10_000
    done = sick.aspen("tree", "sick", "/sick")
    assert done.returncode == 0
    assert "flooded" in done.stdout
    assert "queue" in done.stdout


@pytest.mark.parametrize("path", ["/sick/counter", "/sick/flooded", "/sick/stuck", "/sick", "/", "/apps", "/shell"])
def test_state_works_on_any_actor(sick: Machine, path: str) -> None:
    assert ask(sick, "state", "sick", path)["path"] == path
    assert sick.aspen("state", "sick", path).returncode == 0


def test_state_keeps_secrets(sick: Machine) -> None:
    done = sick.aspen("state", "sick", "/sick/counter")
    assert "***" in done.stdout
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize("path", ["/sick/flooded", "/sick/stuck", "/sick/counter"])
def test_any_actor_can_be_restarted(sick: Machine, path: str) -> None:
    before = at(ask(sick, "tree", "sick"), path)
    assert ask(sick, "restart", "sick", path)["restart"] == [path]
    after = at(ask(sick, "tree", "sick"), path)
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1


def test_an_actor_can_be_named_in_the_place_of_its_path(sick: Machine) -> None:
    assert ask(sick, "restart", "sick", "counter")["restart"] == ["/sick/counter"]
    assert ask(sick, "state", "sick", "counter")["path"] == "/sick/counter"


def test_a_trace_of_nothing_says_so(sick: Machine) -> None:
    done = sick.aspen("trace", "sick", "/sick/counter", "--seconds", "0.1")
    assert (done.returncode, done.stdout) == (0, "")
    assert "neither received nor answered anything within 0.1 s" in done.stderr


def test_the_times_of_a_trace_begin_at_zero(sick: Machine) -> None:
    first = sick.aspen("trace", "sick", "/sick/flooded", "--limit", "2").stdout.splitlines()[0]
    assert first.split()[:2] == ["0.000000", "receive"]


def test_a_subtree_can_be_restarted(sick: Machine) -> None:
    before = at(ask(sick, "tree", "sick"), "/sick/counter")
    done = sick.aspen("restart", "sick", "/sick")
    assert done.returncode == 0, done.stderr
    assert "restarted: /sick" in done.stdout
    assert at(ask(sick, "tree", "sick"), "/sick/counter")["pid"] != before["pid"]


def test_suspend_and_resume(sick: Machine) -> None:
    ask(sick, "suspend", "sick", "/sick/flooded")
    assert at(ask(sick, "tree", "sick"), "/sick/flooded")["status"] == "suspended"
    first, second = (ask(sick, "state", "sick", "/sick/flooded")["state"]["_handled"] for _ in range(2))
    assert first == second
    ask(sick, "resume", "sick", "/sick/flooded")
    assert at(ask(sick, "tree", "sick"), "/sick/flooded")["status"] == "running"


def test_kill_is_seen_by_the_supervisor(sick: Machine) -> None:
    before = at(ask(sick, "tree", "sick"), "/sick/stuck")
    ask(sick, "kill", "sick", "/sick/stuck")
    after = at(ask(sick, "tree", "sick"), "/sick/stuck")
    assert after["pid"] not in ("", before["pid"])


def test_trace_of_a_flooded_actor_is_bounded(sick: Machine) -> None:
    done = sick.aspen("trace", "sick", "/sick/flooded", "--limit", "5", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["receive"] * 5
    assert {event["handler"] for event in events} == {"work"}


def test_top_names_the_flooded_actor_first(sick: Machine) -> None:
    found = ask(sick, "top", "sick", "--limit", "3")
    assert len(found) == 3
    assert found[0]["path"] == "/sick/flooded"
    assert "/sick/flooded" in sick.aspen("top", "sick").stdout


def test_crashes_are_told(sick: Machine) -> None:
    done = sick.aspen("attach", "sick", input='whereis("counter").crash()\n')
    assert done.returncode == 0, done.stderr
    reports = ask(sick, "crashes", "sick")
    assert reports[-1]["path"] == "/sick/counter"
    assert "asked to crash" in reports[-1]["traceback"]
    assert "asked to crash" in sick.aspen("crashes", "sick").stdout


def test_nodes_are_listed(sick: Machine) -> None:
    (node,) = ask(sick, "nodes")
    assert node["name"] == "sick"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("tree", "nobody"), 3, "no node named 'nobody'"),
        (("tree", "sick", "/sick/nothing"), 1, "no 'nothing' below /sick"),
        (("state", "sick", "/nothing"), 1, "no 'nothing'"),
        (("restart", "sick", "/"), 2, "the root has no supervisor"),
        (("trace", "sick", "/sick/counter", "--limit", "0"), 2, "--limit"),
        (("tree",), 2, "NODE"),
        (("tre", "sick"), 2, "No such command"),
        (("tree", "rubbish@tcp://127.0.0.1:1"), 2, "a node id has"),
        (("tree", f"{'a' * 52}@tcp://127.0.0.1:1"), 2, "is a character wrong?"),
        (("tree", f"{SOMEBODY}@tcp://127.0.0.1:1"), 3, "nothing listens"),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(sick: Machine, words: tuple[str, ...], code: int, text: str) -> None:
    done = sick.aspen(*words)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert text in done.stderr


def test_a_stranger_is_turned_away(sick: Machine, machine: Machine) -> None:
    (node,) = ask(sick, "nodes")
    done = machine.aspen("tree", f"{node['node_id']}@{node['address']}")
    assert done.returncode == 4
    assert "does not trust this key" in done.stderr


def test_an_operator_may_look_but_not_evaluate(sick: Machine, machine: Machine) -> None:
    (node,) = ask(sick, "nodes")
    key = ask(machine, "keys", "show")["key"]
    ask(sick, "keys", "trust", key, "operator", "Ana")
    target = f"{node['node_id']}@{node['address']}"
    assert ask(machine, "tree", target)["path"] == "/"
    done = machine.aspen("attach", target, input="1 + 1\n")
    assert "2" not in done.stdout
    assert done.returncode == 4
    ask(sick, "keys", "revoke", key)
    assert machine.aspen("tree", target).returncode == 4


def test_the_wrong_key_for_a_node_is_told(sick: Machine, machine: Machine) -> None:
    (node,) = ask(sick, "nodes")
    other = ask(machine, "keys", "show")["key"]
    done = sick.aspen("tree", f"{other}@{node['address']}")
    assert done.returncode == 4
    assert "not the node with the key" in done.stderr
