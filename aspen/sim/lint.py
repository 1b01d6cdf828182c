"""A lint for programs that are to run in simulation: what a reader of the source can see at once.

`lint(source, path)` finds calls of what `aspen.sim.tripwire` forbids, order taken from sets, from `id()` and from
`hash()`, and globals that functions change. It sees less than a run does, but sees it before anything runs; a line with
`# sim: ok` is passed over, and should say why.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aspen.sim.tripwire import FORBIDDEN

MARK: Final = "# sim: ok"

_CALLS: Final = {f"{label}.{name}": instead for _, label, names, instead in FORBIDDEN for name in names}
_CLASSES: Final = {label: instead for _, label, names, instead in FORBIDDEN if {"__init__", "start"} & set(names)}
_DATES: Final = {
    f"{prefix}{name}": "ctx.wall_ns()"
    for prefix in ("datetime.datetime.", "datetime.date.")
    for name in ("now", "utcnow", "today")
}
_ADDRESSES: Final = {
    "id": "a number of your own: the order of addresses differs from run to run",
    "hash": "hashlib or zlib.crc32: hash() of strings differs from process to process",
}
_MUTATORS: Final = frozenset(
    {"append", "add", "update", "extend", "insert", "pop", "popitem", "remove", "discard", "clear", "setdefault"}
)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that does not belong in a simulated program."""

    path: str
    line: int
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}; use {self.instead}"


def lint(source: str, path: str = "<program>") -> list[Finding]:
    """What is wrong with a program, in the order of its lines.

    Raises:
        SyntaxError: it is no Python.
    """
    lines = source.splitlines()
    linter = _Linter(path, ast.parse(source, path))
    return sorted({finding for finding in linter.findings() if MARK not in lines[finding.line - 1]})


class _Linter:
    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self.tree = tree
        self.names = dict(_imports(tree))
        self.globals = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and _is_mutable(node.value)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }

    def findings(self) -> Iterator[Finding]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield from self._call(node)
            elif isinstance(node, ast.For | ast.comprehension) and _is_set(node.iter):
                yield self._found(node.iter, "a loop over a set", "sorted(...): sets of strings differ in order")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._function(node)
            elif isinstance(node, ast.Subscript | ast.Attribute) and self._dotted(node) == "os.environ":
                yield self._found(node, "os.environ", _CALLS["os.getenv"])

    def _found(self, node: ast.expr | ast.stmt, what: str, instead: str) -> Finding:
        return Finding(self.path, node.lineno, what, instead)

    def _dotted(self, node: ast.expr) -> str:
        """The full name of what an expression refers to, as far as imports tell."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        return ""

    def _call(self, node: ast.Call) -> Iterator[Finding]:
        name = self._dotted(node.func)
        for table in (_CALLS, _CLASSES, _DATES):
            if name in table and "." in name:
                yield self._found(node, f"{name}()", table[name])
                return
        if name in _ADDRESSES and name not in self.names:
            yield self._found(node, f"{name}()", _ADDRESSES[name])
        elif name in ("list", "tuple", "enumerate", "iter", "next") and node.args and _is_set(node.args[0]):
            yield self._found(node, f"{name}() of a set", "sorted(...): sets of strings differ in order")
        for keyword in node.keywords:
            if keyword.arg == "key" and isinstance(keyword.value, ast.Name) and keyword.value.id in _ADDRESSES:
                yield self._found(node, f"key={keyword.value.id}", _ADDRESSES[keyword.value.id])

    def _function(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Finding]:
        instead = "the actor's own state, or its disk: globals outlive a simulated crash"
        local = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
        local |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield self._found(node, f"global {', '.join(node.names)}", instead)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                holder = node.func.value
                if isinstance(holder, ast.Name) and holder.id in self.globals - local and node.func.attr in _MUTATORS:
                    yield self._found(node, f"{holder.id}.{node.func.attr}() on a global", instead)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                if isinstance(node.value, ast.Name) and node.value.id in self.globals - local:
                    yield self._found(node, f"{node.value.id}[...] = on a global", instead)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    alias.name if alias.asname else alias.name.partition(".")[0],
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _is_mutable(node: ast.expr | None) -> bool:
    if isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (
        "list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray",
    )  # fmt: skip


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
