"""Three real nodes, one of them killed by force: the singleton runs elsewhere, and nothing of the old comes late."""

from __future__ import annotations

import asyncio
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
from aspen.kv import connect
from tests.cli.conftest import LIMIT_S, ROOT, Machine, until


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "config")
    yield machine
    machine.close()


def shown(machine: Machine) -> dict[str, Any] | None:
    """What `aspen names` says of it."""
    done = machine.aspen("names", "beats", "--json")
    found = json.loads(done.stdout) if done.returncode == 0 else []
    return found[0] if found else None


async def tokens_from(machine: Machine, revision: int, until_token: int, count: int) -> list[int]:
    """The tokens of all writes from a revision on, until there are so many of one."""
    found: list[int] = []
    async with (
        asyncio.timeout(LIMIT_S),
        await connect("named-1,named-2,named-3", config_dir=machine.directory) as kv,
        kv.watch(b"beat", start=revision) as watch,
    ):
        async for event in watch:
            found.append(int(event.kv.value.split()[0]))
            if found.count(until_token) >= count:
                break
    return found


@pytest.mark.slow
def test_a_node_that_is_killed_by_force_loses_its_singleton_to_another(machine: Machine) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "aspen", "up", "tests.names.real_app:NamedApp", "--nodes", "3"],
        env=machine.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    machine.running.append(process)
    until(machine, lambda: find_node(machine.directory, "named-3") is not None, "the nodes are up")
    until(machine, lambda: len((shown(machine) or {}).get("standbys", ())) == 2, "one runs and two stand by")
    first = shown(machine)
    assert first is not None
    assert first["name"] == "global:beats"
    assert 0 <= first["lease_s"] <= 3
    record = find_node(machine.directory, first["node"])
    assert record is not None
    os.kill(record.process_id, signal.SIGKILL)
    until(machine, lambda: (shown(machine) or first)["token"] > first["token"], "another has the name")
    second = shown(machine)
    assert second is not None
    assert second["node"] != first["node"]
    tokens = asyncio.run(tokens_from(machine, first["token"], second["token"], 10))
    assert set(tokens) == {first["token"], second["token"]}
    assert tokens == sorted(tokens), "a write of the old holder came after one of the new"
    table = machine.aspen("names").stdout
    assert "global:beats" in table and second["node"] in table
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err


def test_nobody_holds_what_is_asked_for(machine: Machine) -> None:
    done = machine.aspen("names", "beats")
    assert done.returncode == 3  # No node runs here.
    assert done.stdout == ""
