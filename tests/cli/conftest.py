"""Real nodes in processes of their own, and commands against them, with a configuration directory of the test's."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aspen.cli.app import run_command
from aspen.io.nodes import find_node

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0


@dataclass
class Machine:
    """A configuration directory, and the processes started with it."""

    directory: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "ASPEN_CONFIG_DIR": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "160",
            "TERM": "xterm",
        }

    def aspen(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, in this process: it takes a fiftieth of the time of one of its own."""
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            tempfile.TemporaryFile("w+") as typed,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            for name, value in self.environ.items():
                patch.setenv(name, value)
            typed.write(input)
            typed.seek(0)
            patch.setattr(sys, "stdin", typed)
            code = run_command(words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def aspen_process(self, *words: str, input: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "aspen", *words],
            env=self.environ,
            input=input,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            cwd=cwd,
            check=False,
        )

    def start(self, application: str, *words: str, name: str, announced: bool = True) -> subprocess.Popen[str]:
        """Starts a node and, unless told otherwise, waits until it has announced itself."""
        # A shell has what runs in its background ignore Ctrl-C: the tests themselves, and then their nodes.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [sys.executable, "-m", "aspen", "run", application, "--name", name, *words],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        signal.signal(signal.SIGINT, before)
        self.running.append(process)
        while announced and find_node(self.directory, name) is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                out, err = process.communicate()
                raise AssertionError(f"the node ended with {process.returncode}: {out}{err}")
        return process

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "config")
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which a node named `sick` runs."""
    machine = Machine(tmp_path_factory.mktemp("sick") / "config")
    machine.start("tests.cli.sick:Sick", name="sick")
    yield machine
    machine.close()


def until(machine: Machine, met: Callable[[], bool], what: str) -> None:
    """Waits for something that takes its time."""
    limit = time.monotonic() + LIMIT_S
    while not met():
        assert time.monotonic() < limit, f"it did not come about that {what}"
        select.select([], [], [], 0.05)  # processes of others: there is nothing to wait for


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Asks a node to stop; its exit code, output and log."""
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err
