"""`aspen lock` and `aspen elect` against a real node."""

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
from tests.cli.conftest import LIMIT_S, ROOT, Machine


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("store") / "config")
    process = started(machine, "up", "tests.cli.sick:CalmApp", "--nodes", "1", stdout=subprocess.DEVNULL)
    while find_node(machine.directory, "calm-1") is None:
        assert process.poll() is None
        os.sched_yield()
    yield machine
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT_S)
    machine.close()


def started(machine: Machine, *words: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "aspen", *words],
        env=machine.environ,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    machine.running.append(process)
    return process


def line_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_a_command_runs_while_the_lock_is_held(store: Machine, tmp_path: Path) -> None:
    script = 'echo "$ASPEN_LOCK_NAME $ASPEN_LOCK_TOKEN"; exit 7'
    first = store.aspen_process("lock", "x", "--", "sh", "-c", script)
    assert first.returncode == 7, first.stderr
    second = store.aspen_process("lock", "x", "--", "sh", "-c", script)
    tokens = [int(done.stdout.split()[1]) for done in (first, second)]
    assert tokens[0] < tokens[1]
    done = store.aspen("lock", "x", "--", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "cannot be run" in done.stderr
    done = store.aspen("lock", "x")
    assert done.returncode == 2
    assert "say what to run" in done.stderr


def test_a_lock_that_is_held_is_not_had_and_one_that_is_lost_ends_the_command(store: Machine) -> None:
    holding = started(store, "lock", "held", "--json", "--", "sleep", "1000")
    assert line_of(holding)["event"] == "held"
    done = store.aspen("lock", "held", "--wait", "0", "--", "true")
    assert done.returncode == 1
    assert "before it is" in done.stderr
    listed = json.loads(store.aspen("lock", "held", "--list", "--json").stdout)
    assert listed["holds"]

    async def lose() -> None:
        kv = await connect("calm", config_dir=store.directory)
        for lease in await kv.leases():
            await kv.revoke(lease)
        await kv.close()

    asyncio.run(lose())
    assert line_of(holding) == {"event": "lost", "lock": "held", "code": 6}
    assert holding.wait(LIMIT_S) == 6

    holding = started(store, "lock", "held", "--json", "--", "sleep", "1000")
    assert line_of(holding)["event"] == "held"
    holding.send_signal(signal.SIGTERM)
    assert holding.wait(LIMIT_S) == 128 + signal.SIGTERM
    assert store.aspen("lock", "held", "--list").stdout == ""


def test_who_is_elected_is_seen_by_who_listens(store: Machine) -> None:
    listening = started(store, "elect", "e", "--listen", "--json")
    assert line_of(listening)["leader"] is None
    leading = started(store, "elect", "e", "ana", "--json")
    leader = line_of(leading)
    assert leader["leader"] == "ana"
    assert line_of(listening) == leader
    done = store.aspen("elect", "e", "ben", "--wait", "0")
    assert done.returncode == 1
    leading.send_signal(signal.SIGTERM)
    assert leading.wait(LIMIT_S) == 0
    assert line_of(listening)["leader"] is None
    listening.send_signal(signal.SIGINT)
    assert listening.wait(LIMIT_S) == 0
    assert "--listen" in store.aspen("elect", "e").stderr
