"""`aspen node`: a node in the background, from a file."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aspen.io.nodes import find_node
from tests.cli.conftest import LIMIT_S, Machine

CONFIG = """
[node]
name = "calm"
application = "tests.cli.sick:CalmApp"

[cluster]
name = "calms"
"""


@pytest.fixture
def file(tmp_path: Path, machine: Machine) -> Iterator[str]:
    path = tmp_path / "calm.toml"
    path.write_text(CONFIG)
    yield str(path)
    machine.aspen("node", "stop", "calm")


def status(machine: Machine) -> Any:
    return json.loads(machine.aspen("node", "status", "calm", "--json").stdout)


@pytest.mark.slow
def test_a_node_lives_in_the_background_and_is_kept_alive(machine: Machine, file: str) -> None:
    down = machine.aspen("node", "status", "calm")
    assert (down.returncode, down.stdout) == (3, "calm: down, after 0 boots\n")
    done = machine.aspen("node", "start", "--config", file)
    assert done.returncode == 0, done.stderr
    assert "calm is up" in done.stdout
    record = find_node(machine.directory, "calm")
    assert record is not None
    assert os.getsid(record.process_id) != os.getsid(0)
    told = status(machine)
    assert (told["state"], told["boot"], told["cluster"], told["members"]) == ("up", 1, "calms", ["calm"])
    assert "calm: up, boot 1" in machine.aspen("node", "status").stdout
    again = machine.aspen("node", "start", "--config", file)
    assert (again.returncode, "runs already" in again.stderr) == (2, True)

    os.kill(record.process_id, signal.SIGKILL)
    end = time.monotonic() + LIMIT_S
    while (found := find_node(machine.directory, "calm")) is None or found.boot != 2:
        assert time.monotonic() < end, "its heart did not start it anew"
        select.select([], [], [], 0.02)
    assert machine.aspen("node", "stop", "calm").returncode == 0
    assert machine.aspen("node", "status", "calm").returncode == 3
    assert status(machine) == {"name": "calm", "state": "down", "boot": 2}


@pytest.mark.slow
def test_what_does_not_start_says_why(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[node]\napplication = "tests.cli.sick:NoStartApp"\n')
    done = machine.aspen("node", "start", "--no-heart", "--config", str(path))
    assert done.returncode == 1
    assert "the disk is full of eels" in done.stderr
    path.write_text("[node]\n")
    done = machine.aspen("node", "start", "--config", str(path))
    assert "it does not say what to run" in done.stderr
