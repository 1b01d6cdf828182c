"""Commands that reach a node through another: real nodes, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.io.keys import load_or_create_identity, update_trusted
from aspen.io.nodes import find_node
from aspen.reach import names_like
from aspen.trust import Role, TrustEntry
from tests.cli.conftest import LIMIT_S, ROOT, Machine, until

PATH = "/sick/counter"


def knows(machine: Machine, name: str, count: int) -> bool:
    done = machine.aspen("nodes", name, "--json")
    return done.returncode == 0 and len(json.loads(done.stdout)) == count


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which `one` and `two` are a cluster."""
    machine = Machine(tmp_path_factory.mktemp("pair") / "config")
    for name in ("one", "two"):
        machine.start("tests.cli.sick:Sick", "--cluster", "pair", name=name)
    until(machine, lambda: knows(machine, "one", 2) and knows(machine, "two", 2), "they found each other")
    yield machine
    machine.close()


@pytest.mark.parametrize(
    "words",
    [
        ("tree", "NODE", "/sick/counter"),
        ("state", "NODE", PATH),
        ("state", "NODE", "/nowhere"),
        ("restart", "NODE", PATH),
        ("suspend", "NODE", PATH),
        ("resume", "NODE", PATH),
        ("kill", "NODE", PATH),
        ("trace", "NODE", PATH, "--seconds", "0.2"),
        ("dead-letters", "NODE"),
        ("nodes", "NODE"),
    ],
    ids=" ".join,
)
def test_a_command_through_a_relay_does_what_it_does_directly(pair: Machine, words: tuple[str, ...]) -> None:
    done = {}
    for way in ("two", "one/two"):
        done[way] = pair.aspen(*(way if word == "NODE" else word for word in words))
    if words[0] != "state":  # It shows pids and times.
        assert done["one/two"].stdout == done["two"].stdout
    assert done["one/two"].stderr == done["two"].stderr
    assert done["one/two"].returncode == done["two"].returncode


def test_top_and_crashes_come_from_the_target(pair: Machine) -> None:
    top = json.loads(pair.aspen("top", "one/two", "--json").stdout)
    assert "/sick/flooded" in [row["path"] for row in top]
    assert pair.aspen("crashes", "one/two", "--json").returncode == 0


def test_a_prompt_through_a_relay(pair: Machine) -> None:
    lines = "node.name\nfor i in range(3):\n    print(i)\n\n[n for n in (1, 2)]\n1 / 0\n"
    relayed, direct = (pair.aspen("attach", way, input=lines) for way in ("one/two", "two"))
    assert relayed.returncode == direct.returncode == 1
    assert relayed.stdout.splitlines()[:5] == direct.stdout.splitlines()[:5] == ["'two'", "0", "1", "2", "[1, 2]"]


def test_a_name_that_is_not_of_this_machine_is_found_in_a_cluster(pair: Machine, tmp_path: Path) -> None:
    record = pair.directory / "run" / "two.json"
    text = record.read_text()
    record.unlink()
    try:
        assert find_node(pair.directory, "two") is None
        assert pair.aspen("attach", "two", input="node.name\n").stdout == "'two'\n"
        assert "two" in names_like(pair.directory, "t")
    finally:
        record.write_text(text)
    one = find_node(pair.directory, "one")
    assert one is not None
    assert pair.aspen("tree", f"{one.node_id}@{one.address}/two", "/sick/counter").returncode == 0
    assert names_like(pair.directory, "one/") == ["one/one", "one/two"]


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("one/three", 3, "no node 'three' is in the cluster now; there are: one, two"),
        ("three", 3, "none of them has it in its cluster"),
        ("one/two/one", 2, "one relay, which reaches its whole cluster"),
        ("/two", 2, "is RELAY/NODE"),
    ],
)
def test_what_cannot_be_reached_is_said(pair: Machine, where: str, code: int, message: str) -> None:
    done = pair.aspen("tree", where)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_key_that_the_target_does_not_trust_is_refused_by_it(tmp_path: Path) -> None:
    near, far = Machine(tmp_path / "near"), Machine(tmp_path / "far")
    try:
        for machine, name, other in ((near, "one", far), (far, "two", near)):
            machine.directory.mkdir(mode=0o700, exist_ok=True)
            entry = TrustEntry(load_or_create_identity(machine.directory, name).node_id, Role.NODE, name)
            other.directory.mkdir(mode=0o700, exist_ok=True)
            update_trusted(other.directory, lambda keys, entry=entry: keys.with_entry(entry))  # type: ignore[misc]
        (near.directory / "run").mkdir(mode=0o700)
        (far.directory / "run").symlink_to(near.directory / "run")  # each finds the other, and trusts others
        near.start("tests.cli.sick:CalmApp", "--cluster", "pair", name="one")
        far.start("tests.cli.sick:CalmApp", "--cluster", "pair", name="two")
        until(near, lambda: knows(near, "one", 2), "they found each other")
        for words in (("tree",), ("stop",), ("attach",)):
            done = near.aspen(*words, "one/two")
            assert done.returncode == 4, done.stderr
            assert "node two does not trust this key" in done.stderr
        assert far.aspen("tree", "two").returncode == 0
        assert far.aspen("tree", "two/one").returncode == 4, "nor is theirs trusted here"
    finally:
        near.close()
        far.close()


def test_a_relay_that_is_killed_ends_the_session_on_both_sides(machine: Machine) -> None:
    relay = machine.start("tests.cli.sick:CalmApp", "--cluster", "pair", name="one")
    machine.start("tests.cli.sick:CalmApp", "--cluster", "pair", name="two")
    until(machine, lambda: knows(machine, "one", 2), "they found each other")
    client = subprocess.Popen(
        [sys.executable, "-m", "aspen", "attach", "one/two"],
        env=machine.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    machine.running.append(client)
    assert client.stdin is not None
    client.stdin.write("await asyncio.sleep(1000)\n")
    client.stdin.flush()
    until(machine, lambda: "eval-" in machine.aspen("tree", "two").stdout, "it is evaluated")
    relay.kill()
    _, err = client.communicate(timeout=LIMIT_S)
    assert client.returncode == 3, err
    until(machine, lambda: "eval-" not in machine.aspen("tree", "two").stdout, "the target gave it up")


def test_stop_through_a_relay(machine: Machine) -> None:
    machine.start("tests.cli.sick:CalmApp", "--cluster", "pair", name="one")
    target = machine.start("tests.cli.sick:CalmApp", "--cluster", "pair", name="two")
    until(machine, lambda: knows(machine, "one", 2), "they found each other")
    assert machine.aspen("stop", "one/two").stdout == "stopped: two\n"
    assert target.wait(LIMIT_S) == 0
