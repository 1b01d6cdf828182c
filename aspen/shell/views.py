"""How the shell's helpers show what they bring: objects with a repr for people, and values for code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Generic, TypeVar

from aspen.otp.tree import TreeNode

T = TypeVar("T")

_CELL_CHARS_MAX = 60


class Action(Generic[T]):
    """Something that was asked for; await it for the outcome. The prompt awaits it by itself when it is the
    value of what was typed."""

    def __init__(self, outcome: Callable[[], Coroutine[Any, Any, T]], what: str) -> None:
        self._outcome = outcome
        self._what = what

    def __await__(self) -> Generator[Any, Any, T]:
        return self._outcome().__await__()

    def __repr__(self) -> str:
        return f"<{self._what}: await it for the outcome>"


class Table(list[dict[str, Any]]):
    """A list of dicts that shows itself as a table."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Iterable[str], note: str = "") -> None:
        super().__init__(dict(row) for row in rows)
        self._columns = tuple(columns)
        self._note = note

    def __repr__(self) -> str:
        rows = [[_cell(row.get(column, "")) for column in self._columns] for row in self]
        lines = [list(self._columns), *rows] if rows else []
        widths = [max(len(line[n]) for line in lines) for n in range(len(self._columns))] if lines else []
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        if not text:
            text = ["(none)"]
        if self._note:
            text.append(self._note)
        return "\n".join(text)


class Fields(dict[str, Any]):
    """A dict that shows itself as one line a key."""

    def __init__(self, title: str, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self._title = title

    def __repr__(self) -> str:
        width = max((len(str(name)) for name in self), default=0)
        lines = [self._title] if self._title else []
        for name, value in self.items():
            text = value if isinstance(value, str) else repr(value)
            lines.append(f"  {name!s:<{width}}  {text}")
        return "\n".join(lines) or "(empty)"


class Reports(list[dict[str, Any]]):
    """Crash reports, newest last, with their tracebacks."""

    def __repr__(self) -> str:
        if not self:
            return "(no crashes)"
        blocks = []
        for number, crash in enumerate(self):
            head = f"[{number}] {crash['path']} {crash['pid']} ({crash['kind']}): {crash['reason']}"
            lines = [head, f"    message  {_cell(crash['message'])}", f"    state    {_cell(crash['state'])}"]
            trace = crash["traceback"].rstrip().splitlines()
            lines += [f"    {line}" for line in trace[-6:]]
            blocks.append("\n".join(lines))
        return "\n".join(blocks) + "\n(whole tracebacks: crashes()[n]['traceback'])"


class TreeView:
    """The supervision tree, drawn. `node` is the data."""

    def __init__(self, node: TreeNode) -> None:
        self.node = node

    def __repr__(self) -> str:
        lines: list[str] = []
        self._draw(self.node, self.node.path, "", "", lines)
        return "\n".join(lines)

    def _draw(self, node: TreeNode, name: str, first: str, rest: str, lines: list[str]) -> None:
        lines.append(first + _place(node, name))
        last = len(node.children) - 1
        for position, child in enumerate(node.children):
            is_last = position == last and not node.hidden
            first, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            self._draw(child, child.id, rest + first, rest + below, lines)
        if node.hidden:
            lines.append(f"{rest}└─ ... {node.hidden} more")


def _place(node: TreeNode, name: str) -> str:
    parts = [name, node.kind.rpartition(":")[2], node.status]
    if node.handler:
        parts.append(f"in {node.handler}" + (f", waits for {node.waits_for}" if node.waits_for else ""))
    if node.queue:
        parts.append(f"queue {node.queue}")
    if node.restarts:
        parts.append(f"restarts {node.restarts}")
    return "  ".join(parts)


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _CELL_CHARS_MAX else f"{text[: _CELL_CHARS_MAX - 3]}..."
