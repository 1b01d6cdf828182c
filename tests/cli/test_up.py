"""`aspen up`: nodes in processes of their own, kept alive."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aspen.io.nodes import NodeRecord, find_node
from tests.cli.conftest import LIMIT_S, ROOT, Machine


@pytest.fixture
def up(machine: Machine) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "aspen", "up", *words],
            env=machine.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        machine.running.append(process)
        return process

    return start


def wait_for(machine: Machine, name: str, boot: int) -> NodeRecord:
    """The record of a node's incarnation, as soon as it has announced itself."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        record = find_node(machine.directory, name)
        if record is not None and record.boot >= boot:
            return record
        machine.running[0].poll()
        select.select([], [], [], 0.02)
    raise AssertionError(f"{name} did not come up as boot {boot}")


def test_what_happens_comes_as_lines_of_json(machine: Machine, up: Callable[..., subprocess.Popen[str]]) -> None:
    process = up("tests.cli.sick:Foreground", "--nodes", "1", "--json")
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 7, err
    events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events] == ["starting", "alive", "ended"]
    assert {event["name"] for event in events} == {"foreground-1"}
    assert events[0]["process"] == events[1]["process"]
    assert events[-1]["code"] == 7
    assert "in the foreground\n" in out


def test_a_killed_node_comes_back_and_all_stop_in_order(
    machine: Machine, up: Callable[..., subprocess.Popen[str]]
) -> None:
    process = up("tests.cli.sick:CalmApp", "--nodes", "2")
    records = [wait_for(machine, f"calm-{n}", 1) for n in (1, 2)]
    os.kill(records[1].process_id, signal.SIGKILL)
    again = wait_for(machine, "calm-2", 2)
    assert again.process_id != records[1].process_id
    first = find_node(machine.directory, "calm-1")
    assert first is not None
    assert first.process_id == records[0].process_id
    assert machine.aspen("tree", "calm-2").returncode == 0
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert "calm-2: ended (signal 9)" in err
    assert "calm-2: starts anew" in err
    assert machine.aspen("nodes", "--json").stdout.strip() == "[]"


def test_a_stopped_process_is_silent_and_replaced(machine: Machine, up: Callable[..., subprocess.Popen[str]]) -> None:
    process = up("tests.cli.sick:CalmApp", "--nodes", "2", "--silence", "3")
    record = wait_for(machine, "calm-2", 1)
    wait_for(machine, "calm-1", 1)
    os.kill(record.process_id, signal.SIGSTOP)
    wait_for(machine, "calm-2", 2)
    process.terminate()
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert "calm-2: it was silent for 3 s; it is killed" in err


def test_the_foreground_part_of_the_first_ends_all(up: Callable[..., subprocess.Popen[str]]) -> None:
    process = up("tests.cli.sick:Foreground", "--nodes", "2")
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (7, "in the foreground\n"), err


def test_each_node_has_a_log_of_its_own(
    machine: Machine, up: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    logs = tmp_path / "new" / "logs"
    process = up("tests.cli.sick:CalmApp", "--nodes", "2", "--log-dir", str(logs))
    for n in (1, 2):
        wait_for(machine, f"calm-{n}", 1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=LIMIT_S) == ("", "")
    for n in (1, 2):
        assert f"node calm-{n} starts" in (logs / f"calm-{n}.log").read_text()


def test_a_folder_for_logs_that_cannot_be_is_said_once(machine: Machine) -> None:
    done = machine.aspen("up", "tests.cli.sick:CalmApp", "--log-dir", f"{__file__}/logs")
    assert done.returncode == 2
    assert "logs cannot be made: Not a directory; choose another" in done.stderr


def test_what_cannot_start_is_given_up_and_all_end(up: Callable[..., subprocess.Popen[str]]) -> None:
    process = up("tests.cli.sick:Sick", "--nodes", "2", "--set", "sick.sise=1")
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "did you mean 'size'?" in err
    assert "is given up" in err


def test_bad_usage_is_said_once(machine: Machine) -> None:
    done = machine.aspen("up", "nowhere:App")
    assert done.returncode == 2
    assert done.stderr.count("no module 'nowhere'") == 1


def test_nodes_without_their_parent_stop_in_order(machine: Machine, up: Callable[..., subprocess.Popen[str]]) -> None:
    process = up("tests.cli.sick:CalmApp", "--nodes", "2")
    for n in (1, 2):
        wait_for(machine, f"calm-{n}", 1)
    process.kill()
    end = time.monotonic() + LIMIT_S
    while machine.aspen("nodes", "--json").stdout.strip() != "[]":
        assert time.monotonic() < end, "the nodes go on without their parent"
