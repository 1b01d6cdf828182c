"""From a ticket to a member: two machines, each with a configuration directory of its own, and real nodes on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.distributed.ticket import read_ticket
from aspen.io.cluster_files import cluster_file, remembered_seeds
from aspen.io.interfaces import own_host
from aspen.io.keys import load_identity, load_trusted
from aspen.io.nodes import find_node
from aspen.trust import Role
from tests.cli.conftest import Machine, until

CONFIG = """
[node]
name = "shop-3"
application = "tests.cli.sick:CalmApp"
"""
CALL = 'await whereis_on({there!r}, Counter, "counter").add(1)\n'
IMPORT = "from tests.cli.sick import Counter\nfrom aspen.distributed import whereis_on, start_on\n"


def members(machine: Machine, name: str) -> list[str]:
    told = json.loads(machine.aspen("node", "status", name, "--json").stdout)
    return list(told.get("members", []))


def sees(machine: Machine, name: str, *wanted: str) -> None:
    until(machine, lambda: members(machine, name) == sorted(wanted), f"{name} sees {wanted}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which `shop-1` and `shop-2` are a cluster."""
    machine = Machine(tmp_path_factory.mktemp("cluster") / "config")
    for name in ("shop-1", "shop-2"):
        machine.start("tests.cli.sick:CalmApp", "--cluster", "shop", name=name)
    sees(machine, "shop-1", "shop-1", "shop-2")
    yield machine
    machine.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Machine]:
    """Another machine, on which nothing runs."""
    machine = Machine(tmp_path / "other")
    yield machine
    machine.close()


def test_a_ticket_and_a_start_make_a_member(cluster: Machine, other: Machine, tmp_path: Path) -> None:
    file = tmp_path / "aspen.toml"
    file.write_text(CONFIG)
    line = cluster.aspen("ticket", "shop-1").stdout
    joined = other.aspen("node", "join", "--config", str(file), input=line)
    assert joined.returncode == 0, joined.stderr
    assert "has joined shop: shop-1, shop-2" in joined.stdout
    try:
        started = other.aspen("node", "start", "--no-heart", "--config", str(file))
        assert started.returncode == 0, started.stderr
        for machine, name in ((other, "shop-3"), (cluster, "shop-1"), (cluster, "shop-2")):
            sees(machine, name, "shop-1", "shop-2", "shop-3")
        # Nobody has told shop-2 of the new key but shop-1, which took it in.
        for machine, here, there in (
            (other, "shop-3", "shop-1"),
            (other, "shop-3", "shop-2"),
            (cluster, "shop-1", "shop-3"),
            (cluster, "shop-2", "shop-3"),
        ):
            code = IMPORT + f"await (await start_on({there!r}, Counter)).add(5)\n"
            done = machine.aspen("attach", here, input=code)
            assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr
        # Each remembers where the others were.
        first = find_node(cluster.directory, "shop-1")
        assert first is not None
        assert (first.node_id, first.links_address) in remembered_seeds(other.directory, "shop-3", "shop")
        third = find_node(other.directory, "shop-3")
        assert third is not None
        assert remembered_seeds(cluster.directory, "shop-2", "shop") == [(third.node_id, third.links_address)]
    finally:
        other.aspen("node", "stop", "shop-3")
    sees(cluster, "shop-2", "shop-1", "shop-2")


def test_machines_that_do_not_share_their_trust_hear_of_each_other(
    cluster: Machine, other: Machine, tmp_path: Path
) -> None:
    """The second machine to join is trusted by the first one: who took it in has told it so."""
    third = Machine(tmp_path / "third")
    try:
        for machine, name, words in ((other, "shop-4", "shop-1"), (third, "shop-5", "shop-2")):
            line = cluster.aspen("ticket", words).stdout
            assert machine.aspen("node", "join", "--name", name, input=line).returncode == 0
            machine.start("tests.cli.sick:CalmApp", name=name)
            sees(machine, name, *{"shop-1", "shop-2", "shop-4", name})
        entry = load_trusted(other.directory).find(load_identity(third.directory, "shop-5").node_id)
        assert entry is not None
        assert (entry.role, entry.label) == (Role.NODE, "shop-5")
        sees(other, "shop-4", "shop-1", "shop-2", "shop-4", "shop-5")
        done = third.aspen("attach", "shop-5", input=IMPORT + 'await (await start_on("shop-4", Counter)).add(7)\n')
        assert done.stdout.strip() == "7", done.stderr
    finally:
        for machine, name in ((other, "shop-4"), (third, "shop-5")):
            machine.aspen("stop", name)
        third.close()


def test_those_who_joined_find_each_other_after_a_restart_elsewhere(machine: Machine, other: Machine) -> None:
    """The first one comes back with another port: it remembers where the second one was, which could not find it."""
    first = machine.start("tests.cli.sick:CalmApp", "--cluster", "duo", name="duo-1")
    line = machine.aspen("ticket", "duo-1").stdout
    assert other.aspen("node", "join", "--name", "duo-2", input=line).returncode == 0
    other.start("tests.cli.sick:CalmApp", name="duo-2")
    sees(machine, "duo-1", "duo-1", "duo-2")
    before = find_node(machine.directory, "duo-1")
    first.kill()
    first.communicate()
    machine.start("tests.cli.sick:CalmApp", "--cluster", "duo", name="duo-1")
    sees(machine, "duo-1", "duo-1", "duo-2")
    sees(other, "duo-2", "duo-1", "duo-2")
    after = find_node(machine.directory, "duo-1")
    assert before is not None
    assert after is not None
    assert before.links_address != after.links_address


def test_a_ticket_is_good_once_and_for_one_cluster(cluster: Machine, other: Machine, tmp_path: Path) -> None:
    line = cluster.aspen("ticket", "shop-1").stdout
    assert read_ticket(line).cluster == "shop"
    file = tmp_path / "aspen.toml"
    file.write_text('[node]\nname = "till"\n[cluster]\nname = "bank"\n')
    wrong = other.aspen("node", "join", "--config", str(file), input=line)
    assert wrong.returncode == 2
    assert "puts the node into the cluster 'bank', and this ticket is for 'shop'" in wrong.stderr
    assert other.aspen("node", "join", "--name", "till", input=line).returncode == 0  # it was not used up
    again = other.aspen("node", "join", "--name", "till-2", input=line)
    assert again.returncode == 4
    assert "it was used, or has expired; ask for another" in again.stderr
    assert not cluster_file(other.directory, "till-2").exists()


def test_who_joins_is_said(cluster: Machine, other: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = cluster.aspen("ticket", "shop-1").stdout
    nobody = other.aspen("node", "join", input=line)
    assert (nobody.returncode, "say which node joins: --name NAME" in nobody.stderr) == (2, True)
    (tmp_path / "aspen.toml").write_text('[node]\napplication = "tests.cli.sick:CalmApp"\n')
    joined = other.aspen("node", "join", "--json", input=line)
    assert joined.returncode == 0, joined.stderr
    told = json.loads(joined.stdout)
    assert (told["name"], told["cluster"], told["members"]) == ("calm", "shop", ["shop-1", "shop-2"])


def test_a_ticket_that_leads_nowhere_is_not_given_out(cluster: Machine) -> None:
    done = cluster.aspen("ticket", "shop-1", "--address", "tcp://10.1.2.3:4571")
    assert done.returncode == 2
    assert "where other machines do not reach them" in done.stderr
    assert "under [cluster]" in done.stderr
    done = cluster.aspen("ticket", "shop-1", "--address", "tcp://0.0.0.0:4571")
    assert "stands for every address" in done.stderr


def test_a_node_that_is_bound_everywhere_says_where_it_is_reached(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "wide.toml"
    file.write_text(
        '[node]\naddress = "tcp://0.0.0.0:0"\nadvertise = "tcp://127.0.0.2:0"\n'
        '[cluster]\nname = "wide"\naddress = "tcp://0.0.0.0:0"\nadvertise = "tcp://127.0.0.3:0"\n'
    )
    machine.start("tests.cli.sick:CalmApp", "--config", str(file), name="wide")
    record = find_node(machine.directory, "wide")
    assert record is not None
    port = record.address.rpartition(":")[2]
    assert (record.address, record.advertised) == (f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.2:{port}")
    until(machine, lambda: members(machine, "wide") == ["wide"], "it is up")
    found = json.loads(machine.aspen("nodes", "wide", "--json").stdout)
    assert found[0]["address"].startswith("tcp://127.0.0.3:")
    assert read_ticket(machine.aspen("ticket", "wide").stdout).nodes[0].address == record.advertised


def test_a_node_that_is_bound_everywhere_is_reached_by_the_default_route(machine: Machine) -> None:
    own = own_host() or "127.0.0.1"
    words = () if own != "127.0.0.1" else ("--address", "tcp://127.0.0.1:0")
    machine.start("tests.cli.sick:CalmApp", *(words or ("--address", "tcp://0.0.0.0:0")), name="wide")
    record = find_node(machine.directory, "wide")
    assert record is not None
    until(machine, lambda: machine.aspen("tree", "wide").returncode == 0, "it is up")
    record = find_node(machine.directory, "wide")
    assert record is not None
    assert record.advertised.startswith(f"tcp://{own}:")
