"""Targets: from what the command line says to a simulated test."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from aspen.errors import UsageError
from aspen.sim.failure import hash_code
from aspen.sim.program import SimTest

USAGE = "give MODULE, or MODULE:TEST, or MODULE:TEST?OPTION=VALUE, of a test decorated with aspen.sim.test"


def load_targets(target: str) -> list[SimTest]:
    """The tests that `module`, `module:name` or `module:name?option=value` names.

    Raises:
        UsageError: the module cannot be imported, or has no such test; says which it has.
    """
    place, _, query = target.partition("?")
    module_name, _, name = place.partition(":")
    module = _import(module_name, target)
    tests = {key: value for key, value in vars(module).items() if isinstance(value, SimTest)}
    if name and name not in tests:
        known = ", ".join(tests) or "none"
        raise UsageError(f"{module_name} has no simulated test {name!r}; it has: {known}; {USAGE}")
    if not tests:
        raise UsageError(f"{module_name} has no simulated test; {USAGE}")
    chosen = [tests[name]] if name else list(tests.values())
    options = dict(_option(part, target) for part in query.split("&") if part)
    return [test.with_options(**options) for test in chosen]


def load_target(target: str) -> SimTest:
    """The one test that a target names. Raises UsageError when it names several."""
    tests = load_targets(target)
    if len(tests) != 1:
        names = ", ".join(test.target for test in tests)
        raise UsageError(f"{target} names several tests, and one is needed: {names}")
    return tests[0]


def _import(name: str, target: str) -> ModuleType:
    if not name or name.endswith(".py") or "/" in name:
        hint = name.removesuffix(".py").replace("/", ".")
        raise UsageError(f"{target!r} is no target; {USAGE}" + (f", as {hint}" if hint else ""))
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{target!r}: cannot import {name}: {error}; {USAGE}") from error


def _option(part: str, target: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals or not name:
        raise UsageError(f"{target!r}: the option {part!r} has no value; write ?name=value&other=value")
    return name, value


def code_hash(test: SimTest) -> str:
    """A hash of the code that a run depends on: Aspen's, and that of every program module beside it."""
    root = test.body.__module__.partition(".")[0]
    sources = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in {root, "aspen", "examples", "supervisors"} and file and file.endswith(".py"):
            if name.startswith(("aspen.cli", "aspen.io", "aspen.campaign", "aspen.bench")):
                continue
            sources[name] = Path(file).read_bytes()
    return hash_code(sources)
