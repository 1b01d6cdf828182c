"""`aspen ticket` and `aspen node join`, against a real node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aspen.distributed.ticket import TicketNode, make_ticket, read_ticket, write_ticket
from aspen.io.keys import Identity, load_identity, load_trusted
from aspen.io.nodes import find_node
from aspen.trust import Role
from tests.cli.conftest import Machine


@pytest.fixture
def other(tmp_path: Path) -> Machine:
    """Another machine, on which nothing runs."""
    return Machine(tmp_path / "other")


def test_a_ticket_lets_one_node_join_once(sick: Machine, other: Machine) -> None:
    given = sick.aspen("ticket", "sick", "--json")
    assert given.returncode == 0, given.stderr
    line = json.loads(given.stdout)["ticket"]
    node = find_node(sick.directory, "sick")
    assert node is not None
    assert [(n.node_id, n.address) for n in read_ticket(line).nodes] == [(node.node_id, node.address)]

    joined = other.aspen("node", "join", line, "--name", "shop2", "--json")
    assert joined.returncode == 0, joined.stderr
    told = json.loads(joined.stdout)
    mine = load_identity(other.directory, "shop2").node_id
    assert (told["node_id"], told["joined"]) == (mine, "sick")

    here = load_trusted(sick.directory).find(mine)
    assert here is not None
    assert (here.role, here.label) == (Role.NODE, "shop2")
    there = load_trusted(other.directory).find(node.node_id)
    assert there is not None
    assert there.role is Role.NODE

    again = other.aspen("node", "join", line, "--name", "shop3")
    assert again.returncode == 4
    assert "does not take this ticket: it was used, or has expired" in again.stderr
    assert load_trusted(sick.directory).find(load_identity(other.directory, "shop3").node_id) is None


def test_a_ticket_comes_as_one_line_and_can_be_piped(sick: Machine, other: Machine) -> None:
    line = sick.aspen("ticket", "new", "sick", "--minutes", "5", "--address", "tcp://10.1.2.3:99").stdout
    assert line.count("\n") == 1
    shown = other.aspen("ticket", "show", input=line)
    assert shown.returncode == 0, shown.stderr
    assert "tcp://10.1.2.3:99" in shown.stdout
    assert "lets a node join, once; expires in 0:0" in shown.stdout
    secret = read_ticket(line).secret
    assert secret is not None
    assert secret.reveal() not in shown.stdout


def test_what_cannot_be_used_is_said(sick: Machine, other: Machine) -> None:
    old = write_ticket(make_ticket([TicketNode(Identity.from_seed(b"x" * 32).node_id, "", "tcp://127.0.0.1:1")], 5))
    for words, code, text in (
        (("ticket", "show", "hello"), 2, "this is no ticket"),
        (("node", "join", old), 2, "expired"),
        (("ticket", "sick", "--address", "here"), 2, "is no address of a node"),
        (("ticket", "nobody"), 3, "no node named"),
    ):
        machine = sick if words[0] == "ticket" and words[1] == "sick" else other
        done = machine.aspen(*words)
        assert (done.returncode, text in done.stderr) == (code, True), (words, done.stderr)
        assert old not in done.stderr
    shown = json.loads(other.aspen("ticket", "show", old, "--json").stdout)
    assert (shown["expired"], shown["joins"]) == (True, False)


def test_an_operator_gives_no_tickets_out(sick: Machine, other: Machine) -> None:
    ole = json.loads(other.aspen("keys", "show", "--json").stdout)["key"]
    sick.aspen("keys", "trust", ole, "operator", "Ole")
    node = find_node(sick.directory, "sick")
    assert node is not None
    refused = other.aspen("ticket", f"{node.node_id}@{node.address}")
    assert refused.returncode == 4
    assert "ticket needs the role admin" in refused.stderr
