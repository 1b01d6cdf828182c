"""Twelve kinds of leaks and more, planted: each is caught by a tripwire, by the second run, or by the lint."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from aspen import Actor, call, start
from aspen.errors import EscapedSimulation
from aspen.sim import Cluster, Tripwires, lint
from aspen.sim import node as node_module
from tests.sim import leaks

HERE = Path(__file__).parent
BY_SECOND_RUN = [
    "order_of_a_set",
    "dict_order_from_a_set",
    "hash_of_a_string",
    "order_of_addresses",
    "set_of_objects",
    "garbage_collection",
]
BY_TRIPWIRE = [name for name in leaks.LEAKS if name not in BY_SECOND_RUN]


@pytest.mark.parametrize("name", BY_TRIPWIRE)
def test_a_tripwire_catches(name: str) -> None:
    text = leaks.outcome(name)
    assert "use " in text or "keep it" in text or "ctx.offload" in text, f"not caught: {text}"
    if name == "module_state":
        assert "tests.sim.leaks.SURVIVOR" in text
    elif name != "executors":
        assert f"leaks.py:{line_of(name)}" in text, "the error names the line"


def line_of(name: str) -> int:
    code = leaks.LEAKS[name].__code__
    lines = (HERE / "leaks.py").read_text().splitlines()
    end = next((n for n in range(code.co_firstlineno + 1, len(lines)) if lines[n].startswith("@")), len(lines))
    for n in range(code.co_firstlineno, end):
        if any(word in lines[n] for word in ("time", "monotonic()", "random", "urandom", "uuid4", "token", ".start()",
                                             "socket()", "run(", "environ", "platform", "getpid")):  # fmt: skip
            if not lines[n].startswith(("def", "async def", "@")):
                return n + 1
    raise AssertionError(name)


def second_process(key: int) -> dict[str, str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(key), "PYTHONPATH": str(HERE.parent.parent)}
    command = [sys.executable, "-m", "tests.sim.leaks", str(key)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def runs() -> list[dict[str, str]]:
    return [second_process(1), second_process(2)]


@pytest.mark.parametrize("name", BY_SECOND_RUN)
def test_the_second_run_catches(name: str, runs: list[dict[str, str]]) -> None:
    one, other = (run[name] for run in runs)
    assert len(one) == len(other) == 32, (one, other)
    assert one != other


def test_there_are_at_least_twelve_kinds() -> None:
    assert len(leaks.LEAKS) >= 20


def test_the_lint_sees_most_of_them_in_the_source() -> None:
    found = lint((HERE / "leaks.py").read_text(), "leaks.py")
    seen = {finding.what for finding in found}
    for what in (
        "time.time()",
        "time.monotonic()",
        "random.random()",
        "os.urandom()",
        "uuid.uuid4()",
        "secrets.token_hex()",
        "threading.Thread()",
        "socket.socket()",
        "os.environ",
        "os.getpid()",
        "datetime.datetime.now()",
        "a loop over a set",
        "key=id",
        "hash()",
        "SURVIVOR[...] = on a global",
    ):
        assert what in seen, what


def test_the_lint_passes_what_is_in_order() -> None:
    source = (
        "import time\n"
        "LIMITS = {'a': 1}\n"
        "def f(self, LIMITS):\n"
        "    LIMITS['a'] = 2\n"
        "    for x in sorted({1, 2}): pass\n"
        "    self.ctx.rng('a').random()\n"
        "    return time.time()  # sim: ok -- shown to a person only\n"
    )
    assert lint(source) == []


def test_the_simulators_own_toy_has_no_leak() -> None:
    assert lint((HERE / "toy.py").read_text()) == []


# -- finally, and what the tripwires leave alone ----------------------------------------------------------


class Tidy(Actor):
    """Acts in a `finally`."""

    @call(timeout=None)
    async def work(self) -> None:
        try:
            await self.ctx.ref.never()
        finally:
            self.ctx.call_after(0.0, lambda: None)

    @call(timeout=None)
    async def hang(self) -> None:
        import asyncio

        try:
            await asyncio.sleep(1000)
        finally:
            self.ctx.system.ports.loop.call_soon(lambda: None)


def test_a_finally_that_runs_at_a_crash_is_noticed() -> None:
    async def main() -> None:
        tidy = await start(Tidy)
        await tidy.hang()

    with Cluster(1, ["a"]) as cluster:
        cluster.boot("a", lambda node: main())
        cluster.run_for(1)
        cluster.crash("a")
        gc.collect()
        assert cluster.ghosts == [], "the simulator runs none"
        system = next(part for part in node_module._graveyard[-1] if hasattr(part, "table"))
        process = next(process for process in system_table(system) if process.task is not None)
        process.task.coro.close()
        assert cluster.ghosts, "and were one to run, it would be noticed"


def system_table(system: Any) -> list[Any]:
    return list(system.table.values())


def test_tripwires_leave_no_trace_and_spare_the_library() -> None:
    real = time.time
    escapes: list[str] = []

    def escape(message: str) -> EscapedSimulation:
        escapes.append(message)
        return EscapedSimulation(message)

    with Tripwires(escape):
        assert time.time is not real
        logging.getLogger("x").makeRecord("x", 10, "f", 1, "m", (), None)
        with pytest.raises(EscapedSimulation, match=r"test_leaks.py:\d+ in .*: time.time is the real world's"):
            time.time()
    assert time.time is real
    assert len(escapes) == 1
    assert time.time() > 0


def test_names_imported_by_a_program_are_found_and_put_back() -> None:
    program = types.ModuleType("some_program")
    source = (
        "from time import time as now\n"
        "from datetime import datetime\n"
        "def f(): return now()\n"
        "def g(): return datetime.now()\n"
    )
    exec(source, program.__dict__)
    sys.modules["some_program"] = program
    real = program.now
    try:
        with Tripwires(EscapedSimulation):
            for name in ("f", "g"):
                with pytest.raises(EscapedSimulation):
                    getattr(program, name)()
            assert isinstance(program.datetime(2024, 1, 1), program.datetime)
        assert program.now is real
        assert program.g().year > 2000
    finally:
        del sys.modules["some_program"]
