"""The house rules that no other tool checks: who may touch the world, no `assert` where `-O` would drop it, docstrings,
the size of a module, and tests that do not sleep. Every rule is shown to fail on a planted violation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES_MAX = 600
TABLES = ("aspen/limits.py",)
"""Modules that are one table, as long as it takes."""

BANNED_MODULES = {
    "time",
    "random",
    "secrets",
    "uuid",
    "socket",
    "select",
    "selectors",
    "threading",
    "multiprocessing",
    "subprocess",
    "concurrent",
    "signal",
    "zmq",
    "lmdb",
    "ssl",
    "shutil",
    "tempfile",
    "pathlib",
}
"""Clocks, randomness, sockets, threads, processes and files: `aspen.io` alone imports these."""

BANNED_CALLS = {
    "open",
    "input",
    "os.urandom",
    "os.open",
    "os.fork",
    "os.kill",
    "os.system",
    "os.remove",
    "os.listdir",
    "asyncio.to_thread",
    "asyncio.open_connection",
    "asyncio.start_server",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
}
"""Called by these names, or by names that end in them."""

BANNED_METHODS = {"run_in_executor", "read_text", "read_bytes", "write_text", "write_bytes", "add_signal_handler"}

EDGE = ("aspen/io/",)
"""What implements the world."""

ALLOWED: dict[str, tuple[set[str], str]] = {
    "aspen/sim/clock.py": ({"random"}, "the virtual world's seeded streams are made of it"),
    "aspen/sim/tripwire.py": (
        {"multiprocessing", "random", "secrets", "signal", "socket", "subprocess", "threading", "time", "uuid"},
        "puts an error in the place of each function of these that simulated code must not call",
    ),
    "aspen/sim/spin.py": ({"signal", "threading"}, "ends a simulated step that never ends, by the machine's timer"),
    "aspen/campaign/": (
        {"pathlib", "read_bytes", "write_text", "subprocess"},
        "runs seeds in processes of their own, and keeps what failed in files, for a person at a terminal",
    ),
    "aspen/bench/kv.py": (
        {"pathlib", "polling"},
        "starts a cluster of real processes, and asks until it is there",
    ),
    "aspen/bench/watch.py": ({"pathlib"}, "is told the folder of keys of a cluster that runs"),
    "aspen/bench/coordination.py": ({"pathlib"}, "is told the folder of keys of a cluster that runs"),
    "aspen/bench/sim.py": ({"time"}, "measures the simulator by the processor's time, which is not simulated"),
    "aspen/sim/program.py": ({"pathlib"}, "names the source file of a simulated test, in whose failures it stands"),
    "aspen/boot.py": ({"pathlib"}, "boots a node in the real world; names the files of keys, which aspen.io reads"),
    "aspen/reach.py": ({"pathlib"}, "finds nodes for programs and commands; names the files, which aspen.io reads"),
    "aspen/outside.py": (
        {"pathlib"},
        "takes the store's clients out of the real world; names a folder, and opens none",
    ),
    "aspen/kv/tuples.py": ({"uuid"}, "packs UUIDs that it is given; makes none"),
    "aspen/shell/evaluate.py": ({"pathlib"}, "compares the file names of code with its own; opens none"),
    "aspen/cli/": (
        {"pathlib", "polling", "write_text"},
        "the edge: it takes paths as arguments and writes to them, and a remote node can only be asked over and over",
    ),
}
"""Exceptions: a file or folder, what it may use, and why."""


def violations(path: str, source: str) -> Iterator[str]:
    """What in a module touches the world without leave, as `path:line: what`."""
    if path.startswith(EDGE):
        return
    allowed = {name for prefix, (names, _) in ALLOWED.items() if path.startswith(prefix) for name in names}
    for node in ast.walk(ast.parse(source)):
        for what in _touches(node):
            if what not in allowed:
                yield f"{path}:{getattr(node, 'lineno', 0)}: {what}"


def _touches(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _banned_module(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from _banned_module(node.module)
        for alias in node.names:
            if f"{node.module}.{alias.name}" in BANNED_CALLS:
                yield f"{node.module}.{alias.name}"
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        for banned in BANNED_CALLS:
            if called == banned or (called.endswith(f".{banned}") and "." in banned):
                yield banned
        if isinstance(node.func, ast.Attribute) and node.func.attr in BANNED_METHODS:
            yield node.func.attr
        if called in ("__import__", "importlib.import_module") and node.args and isinstance(node.args[0], ast.Constant):
            yield from _banned_module(str(node.args[0].value))
    elif isinstance(node, ast.While):
        yield from _polling(node)


def _banned_module(name: str) -> Iterator[str]:
    top = name.partition(".")[0]
    if top in BANNED_MODULES:
        yield top


def _polling(loop: ast.While) -> Iterator[str]:
    """A loop that sleeps until something is so, instead of being told."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.sleep", "time.sleep", "sleep"):
            yield "polling"


def asserts(path: str, source: str) -> Iterator[str]:
    """`assert` statements, which `python -O` leaves out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            yield f"{path}:{node.lineno}: assert; raise InvariantBroken instead"


def undocumented(path: str, source: str) -> Iterator[str]:
    """Public modules, classes and functions without a docstring."""
    tree = ast.parse(source)
    if source.strip() and not ast.get_docstring(tree):
        yield f"{path}:1: the module has no docstring"
    yield from _undocumented_in(path, tree)


def _undocumented_in(path: str, parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        overloaded = any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)
        setter = any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)
        if not overloaded and not setter and not ast.get_docstring(node):
            yield f"{path}:{node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_in(path, node)


UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK:")


def unfinished(path: str, source: str) -> Iterator[str]:
    """Marks of work that is left."""
    for number, line in enumerate(source.splitlines(), 1):
        if any(mark in line for mark in UNFINISHED):
            yield f"{path}:{number}: unfinished: {line.strip()}"


def too_long(path: str, source: str) -> Iterator[str]:
    """Modules that have outgrown one idea."""
    lines = len(source.splitlines())
    if lines > LINES_MAX and path not in TABLES:
        yield f"{path}: {lines} lines; a module has at most {LINES_MAX}, split it by ideas"


SLEEPS_ALLOWED: dict[str, str] = {
    "tests/actor/test_asyncio.py": "runs on real loops too; what it sleeps for is cancelled within 20 ms",
    "tests/shell/test_shell_over_zmq.py": "a node behind real sockets that starts or stops can only be asked again",
    "tests/actor/test_watchdog.py": "its handler must hold a real loop, for a third of a second",
    "tests/actor/test_offload.py": "real threads and processes are kept busy; nothing waits for them to finish",
    "tests/sim/leaks.py": "the sleep is a planted leak, which a tripwire must catch before it happens",
    "tests/cli/sick.py": "an application with a handler that blocks, for the watchdog of a real node to name",
}
"""Tests that may block for real, and why."""


def sleeps(path: str, source: str) -> Iterator[str]:
    """Tests that sleep by the machine's clock: `time.sleep`, or `asyncio.sleep` in a module that makes a real loop."""
    if path in SLEEPS_ALLOWED:
        return
    tree = ast.parse(source)
    called = [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    real = any(
        name in ("asyncio.run", "asyncio.new_event_loop", "new_event_loop", "asyncio.Runner") for name, _ in called
    )
    for name, node in called:
        slept = name == "time.sleep" or (real and name == "asyncio.sleep" and not _is_zero(node))
        if slept:
            yield f"{path}:{node.lineno}: sleeps for real; wait for an event, or use the virtual world"


def _is_zero(node: ast.Call) -> bool:
    return len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0


def _modules(*folders: str) -> list[tuple[str, str]]:
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.append((path.relative_to(ROOT).as_posix(), path.read_text()))
    assert found
    return found


@pytest.mark.parametrize(
    ("rule", "folders"),
    [
        (violations, ("aspen", "supervisors")),
        (asserts, ("aspen", "supervisors")),
        (undocumented, ("aspen", "supervisors")),
        (unfinished, ("aspen", "supervisors", "tests", "examples")),
        (too_long, ("aspen", "supervisors")),
        (sleeps, ("tests",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_house_rule(rule, folders: tuple[str, ...]) -> None:
    found = [problem for path, source in _modules(*folders) for problem in rule(path, source)]
    assert not found, "\n" + "\n".join(found)


PLANTED = [
    (violations, "import time"),
    (violations, "import concurrent.futures"),
    (violations, "from random import choice"),
    (violations, "def f():\n    import zmq.asyncio"),
    (violations, "from os import urandom"),
    (violations, "import os\nos.urandom(3)"),
    (violations, "open('x')"),
    (violations, "__import__('socket')"),
    (violations, "import importlib\nimportlib.import_module('threading')"),
    (violations, "async def f():\n    await asyncio.to_thread(print)"),
    (violations, "loop.run_in_executor(None, print)"),
    (violations, "import datetime\ndatetime.datetime.now()"),
    (violations, "x = path.read_text()"),
    (violations, "async def f():\n    while not ready:\n        await asyncio.sleep(1)"),
    (asserts, "assert x"),
    (undocumented, "x = 1"),
    (undocumented, '"""Doc."""\ndef f(): ...'),
    (undocumented, '"""Doc."""\nclass C:\n    """Doc."""\n    async def f(self): ...'),
    (unfinished, "# " + "TO" + "DO: all"),
    (too_long, "x = 1\n" * (LINES_MAX + 1)),
    (sleeps, "import time\ntime.sleep(1)"),
    (sleeps, "async def f():\n    await asyncio.sleep(1)\nasyncio.run(f())"),
]


@pytest.mark.parametrize(("rule", "source"), PLANTED)
def test_house_rule_finds_a_planted_violation(rule, source: str) -> None:
    assert len(list(rule("aspen/planted.py", source))) == 1


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (violations, "aspen/io/clock.py", "import time"),
        (violations, "aspen/sim/clock.py", "import random"),
        (
            violations,
            "aspen/actor/x.py",
            "from aspen.actor import refs\nself.open(3)\nx.random()\ntimer = asyncio.sleep(3)",
        ),
        (undocumented, "aspen/x.py", '"""Doc."""\ndef _f(): ...\nclass _C: ...'),
        (sleeps, "tests/x.py", "async def f():\n    await asyncio.sleep(1)"),
    ],
)
def test_house_rule_lets_the_rest_be(rule, path: str, source: str) -> None:
    assert list(rule(path, source)) == []


def test_house_exceptions_are_needed_and_explained() -> None:
    for prefix, (names, reason) in ALLOWED.items():
        assert reason
        sources = [(path, source) for path, source in _modules("aspen", "supervisors") if path.startswith(prefix)]
        used = {what for path, source in sources for node in ast.walk(ast.parse(source)) for what in _touches(node)}
        assert names <= used, f"{prefix} no longer needs {names - used}"
    assert list(violations("aspen/other.py", "import random")), "an exception is for its own file only"
