"""How results look on a terminal.

What comes from a node is any text at all: actors' states, messages, reasons. `_plain` takes from it what could steer
the terminal, and `aspen.cli.app.console` reads no markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from aspen.io.nodes import NodeRecord
from aspen.types import printable

_STATUS_STYLE: Final = {
    "running": "green",
    "waiting": "cyan",
    "starting": "yellow",
    "suspended": "magenta",
    "restarting": "yellow",
    "exiting": "yellow",
    "stopped": "red",
    "dead": "red",
    "ignored": "dim",
}


def nodes(records: Iterable[NodeRecord]) -> Table:
    """Nodes of this machine."""
    table = Table("node", "process", "boot", "address", "key", box=None)
    for record in records:
        table.add_row(
            record.name, str(record.process_id), str(record.boot), record.advertised or record.address, record.node_id
        )
    return table


def cluster(found: Iterable[Mapping[str, Any]]) -> Table:
    """Nodes of a cluster."""
    table = Table("node", "boot", "address", "key", box=None)
    for one in found:
        table.add_row(one["name"], str(one["boot"]), one["address"], one["node_id"])
    return table


def tree(node: Mapping[str, Any]) -> Tree:
    """A supervision tree."""
    node = _plain(node)
    root = Tree(_tree_line(node), guide_style="dim")
    _add_children(root, node)
    return root


def _add_children(branch: Tree, node: Mapping[str, Any]) -> None:
    for child in node["children"]:
        _add_children(branch.add(_tree_line(child)), child)


def _tree_line(node: Mapping[str, Any]) -> Text:
    line = Text(node["id"], style="bold" if node["type"] == "supervisor" else "")
    line.append(f"  {node['kind'].rpartition(':')[2]}", style="dim")
    line.append(f"  {node['status']}", style=_STATUS_STYLE.get(node["status"], ""))
    if node["handler"]:
        line.append(f" in {node['handler']}", style="cyan")
    if node["waits_for"]:
        line.append(f" for {node['waits_for']}", style="cyan")
    if node["queue"]:
        line.append(f"  queue {node['queue']:,}", style="yellow" if node["queue"] > 1000 else "")
    if node["restarts"]:
        line.append(f"  restarts {node['restarts']:,}", style="yellow")
    return line


def top(found: Sequence[Mapping[str, Any]]) -> Table:
    """The busiest actors."""
    table = Table("queue", "actor", "status", "handler", "waits for", box=None)
    table.columns[0].justify = "right"
    for actor in _plain(found):
        style = _STATUS_STYLE.get(actor["status"], "")
        status = Text(actor["status"], style=style)
        table.add_row(f"{actor['queue']:,}", actor["path"], status, actor["handler"], actor["waits_for"])
    return table


def state(found: Mapping[str, Any]) -> Group:
    """An actor's status and its state."""
    found = dict(_plain(found))
    status = Table.grid(padding=(0, 2))
    size = found.get("size")
    if isinstance(size, Mapping):
        least = "" if size["complete"] else "more than "
        found["size"] = f"{least}{size['size_bytes']:,} bytes in {size['objects']:,} objects"
    for key, value in found.items():
        if key != "state" and value not in ("", [], (), None):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            status.add_row(Text(key, style="dim"), Text(shown))
    attributes = Table.grid(padding=(0, 2))
    inner = found.get("state")
    if isinstance(inner, Mapping):
        for key, value in inner.items():
            attributes.add_row(Text(str(key), style="bold"), Text(str(value)))
    else:
        attributes.add_row(Text(str(inner)))
    return Group(status, Text("state", style="dim"), attributes)


def trace_event(console: Console, kind: str, data: Any, first_ns: int, *, as_json: bool) -> None:
    """One event of a trace, as it comes, with the seconds since the first."""
    if as_json:
        console.file.write(json.dumps(data if kind == "trace" else {kind: data}, default=str) + "\n")
        console.file.flush()
        return
    data = _plain(data)
    if kind == "trace":
        line = Text(f"{(data['at_ns'] - first_ns) / 1e9:>12.6f} ", style="dim")
        line.append(f"{data['event']:<8}", style="red" if data["event"] == "crash" else "cyan")
        line.append(f"{data['handler']}{data['args']}" if data["handler"] else "")
        if data["detail"]:
            line.append(f" -> {data['detail']}")
        console.print(line, soft_wrap=True)
    else:
        console.print(Text(f"{kind}: {data}", style="dim"))


def crashes(found: Sequence[Mapping[str, Any]]) -> Group | Text:
    """Crash reports."""
    if not found:
        return Text("nothing has crashed")
    parts: list[Text] = []
    for report in _plain(found):
        at = datetime.fromtimestamp(report["at_wall_ns"] / 1e9, UTC).astimezone()
        head = Text(f"{at:%H:%M:%S} ", style="dim")
        head.append(report["path"], style="bold")
        head.append(f"  {report['reason']}", style="red")
        parts.append(head)
        parts.extend(Text(f"    {key}: {report[key]}") for key in ("message", "state") if report[key])
        parts.extend(Text(f"    {line}", style="dim") for line in report["traceback"].rstrip().splitlines())
    return Group(*parts)


def dead_letters(found: Any) -> Table | Text:
    """Dead letters."""
    letters = found.get("letters", []) if isinstance(found, Mapping) else found
    if not letters:
        return Text("there are no dead letters")
    table = Table("reason", "to", "message", box=None)
    for letter in _plain(letters):
        table.add_row(letter["reason"], letter["to"], letter["message"])
    return table


def _plain(value: Any) -> Any:
    """The same with only printable characters, and line ends, in its texts."""
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
