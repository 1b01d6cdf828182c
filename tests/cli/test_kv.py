"""`aspen kv` and `aspen member` against three real nodes of `aspen up`; the loss of the leader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aspen.io.nodes import find_node
from aspen.kv import connect_sync
from tests.cli.conftest import LIMIT_S, ROOT, Machine

NAMES = ("calm-1", "calm-2", "calm-3")


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Machine]:
    process = subprocess.Popen(
        [sys.executable, "-m", "aspen", "up", "tests.cli.sick:CalmApp", "--nodes", "3"],
        env=machine.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    machine.running.append(process)  # type: ignore[arg-type]  # it has no pipes
    while not all(find_node(machine.directory, name) for name in NAMES):
        assert process.poll() is None
        os.sched_yield()
    yield machine
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S * 2) == 0


def asked(machine: Machine, *words: str, input: str = "", code: int = 0) -> Any:
    done = machine.aspen(*words, "--timeout", "30", input=input)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else done.stderr


@pytest.mark.slow
def test_the_commands_and_the_loss_of_a_leader(cluster: Machine, tmp_path: Path) -> None:
    kv = ("kv",)
    assert asked(cluster, *kv, "put", "colour", "green", "--json") == {"revision": 2, "prev_kv": None}
    for name in NAMES:
        found = asked(cluster, *kv, "get", "colour", "--node", name, "--json")
        assert (found["value"], found["version"]) == ("green", 1)
    document = {
        "compare": [{"key": "colour", "target": "value", "operand": "green"}],
        "success": [{"put": {"key": "colour", "value": {"hex": "ff00"}}}, {"range": {"key": "colour"}}],
    }
    done = asked(cluster, *kv, "txn", input=json.dumps(document))
    assert done["succeeded"]
    assert done["responses"][1]["range"]["kvs"][0]["value"] == {"hex": "ff00"}
    done = asked(cluster, *kv, "txn", input=json.dumps(document), code=1)
    assert not done["succeeded"]
    assert "not JSON" in asked(cluster, *kv, "txn", input="{", code=2)
    assert "revision is not there yet" in asked(cluster, *kv, "compact", "99", code=1)
    assert "no key" in asked(cluster, *kv, "get", "nothing", code=1)

    lease = ("lease",)
    assert asked(cluster, *lease, "grant", "600", "--id", "7", "--json") == {"id": 7, "ttl": 600}
    assert "there is a lease 7 already" in asked(cluster, *lease, "grant", "600", "--id", "7", code=1)
    asked(cluster, *kv, "put", "leased", "x", "--lease", "7", "--json")
    assert "no lease 8" in asked(cluster, *kv, "put", "leased", "x", "--lease", "8", code=1)
    told = asked(cluster, *lease, "ttl", "7", "--keys", "--json")
    assert (told["granted_ttl"], told["keys"]) == (600, ["leased"])
    assert 0 < told["ttl"] <= 600
    assert asked(cluster, *lease, "keep-alive", "7", "--once", "--json") == {"id": 7, "ttl": 600}
    assert asked(cluster, *lease, "list", "--json") == {"leases": [7]}
    assert asked(cluster, *lease, "revoke", "7", "--json")["deleted"] == 1
    assert "no lease 7" in asked(cluster, *lease, "revoke", "7", code=1)
    assert "no lease 7" in asked(cluster, *lease, "ttl", "7", code=1)
    assert asked(cluster, *lease, "keep-alive", "7", "--json", code=1) == {"id": 7, "ttl": 0}

    members = asked(cluster, "member", "list", "--json")
    assert [member["role"] for member in members] == ["voter"] * 3
    assert "no member is called 'nobody'" in asked(cluster, "member", "remove", "nobody", code=2)

    snapshot = tmp_path / "snapshot"
    asked(cluster, *kv, "put", "last", "one", "--json")
    leader = next(member for member in members if member["is_leader"])
    with connect_sync("calm", config_dir=cluster.directory, timeout=30.0) as client:
        record = find_node(cluster.directory, leader["name"])
        assert record is not None
        os.kill(record.process_id, signal.SIGKILL)
        for n in range(20):
            client.put(b"after", b"%d" % n)
        found = client.get(b"after")
        assert found is not None
        assert (found.value, found.version) == (b"19", 20)
        assert [item.key for item in client.scan(page=2)] == [b"after", b"colour", b"last"]
    assert asked(cluster, *kv, "snapshot", str(snapshot), "--json")["chunks"] >= 1

    assert cluster.aspen("kv", "restore", str(snapshot), "--name", "solo", "--json").returncode == 0
    assert json.loads(cluster.aspen("kv", "verify", "--name", "solo", "--json").stdout)["problems"] == []
    again = cluster.aspen("kv", "restore", str(snapshot), "--name", "solo")
    assert again.returncode != 0
    assert "has a member of a store already" in again.stderr


def test_without_a_node_it_says_so(machine: Machine) -> None:
    done = machine.aspen("kv", "get", "colour")
    assert done.returncode == 3
    assert "no node runs on this machine" in done.stderr
    done = machine.aspen("kv", "verify")
    assert done.returncode == 2
