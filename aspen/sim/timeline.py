"""The timeline: what happened around a failure, as text with a column for each node.

        seconds  n1                   n2                   n3
      --------------------------------------------------------------------------
        1.204315  > n2 AppendEntries
        1.204815                       < n1 AppendEntries
        1.250000 =========== partition.symmetric began: n3 | n1, n2 ===========

Time runs down. A frame that is sent points to its receiver (`>`), one that comes names its sender (`<`), one that is
lost has an `x`. What belongs to no node, as a partition, goes across.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from aspen import limits
from aspen.sim.events import Event

COLUMN_CHARS_MIN: Final = 18
TIME_CHARS: Final = 12


def render(
    events: Sequence[Event],
    nodes: Sequence[str],
    *,
    around_ns: int | None = None,
    lines_max: int = limits.TIMELINE_LINES_MAX,
    width: int = 120,
    quiet: Iterable[str] = (),
) -> list[str]:
    """The lines of the timeline, at most `lines_max` with its head.

    Three quarters of the lines are for what came before `around_ns` (None: the end), since that holds the cause. Kinds
    in `quiet` are left out. Events stand in order of time.
    """
    skipped = frozenset(quiet)
    shown = [event for event in events if event.kind not in skipped]
    room = max(1, lines_max - 4)  # two lines of head, and two that say what is left out
    middle = len(shown) if around_ns is None else bisect_right(shown, around_ns, key=lambda event: event.at_ns)
    after = min(len(shown) - middle, max(room // 4, room - middle))
    first = max(0, middle - (room - after))
    last = min(len(shown), first + room)
    column = max(COLUMN_CHARS_MIN, (width - TIME_CHARS - 1) // max(1, len(nodes)))
    head = f"{'seconds':>{TIME_CHARS}} " + "".join(f"{node:<{column}}" for node in nodes)
    lines = [head.rstrip(), "-" * min(width, TIME_CHARS + 1 + column * max(1, len(nodes)))]
    if first:
        lines.append(f"{'...':>{TIME_CHARS}} {first} earlier events")
    places = {node: at for at, node in enumerate(nodes)}
    lines += [_line(event, places, column, width) for event in shown[first:last]]
    if last < len(shown):
        lines.append(f"{'...':>{TIME_CHARS}} {len(shown) - last} later events")
    return lines


def _line(event: Event, places: dict[str, int], column: int, width: int) -> str:
    time = f"{event.at_ns / 1e9:>{TIME_CHARS}.6f} "
    text = what(event)
    place = places.get(event.node)
    if place is None:
        where = f"{event.node}: " if event.node else ""
        line = f" {where}{text} "
        room = max(8, width - TIME_CHARS - 1)
        return time + (f"{line[: room - 4]:=^{room}}" if not event.node else line.strip())
    indent = " " * (column * place)
    room = max(COLUMN_CHARS_MIN, width - TIME_CHARS - 1 - len(indent))
    return time + indent + (text if len(text) <= room else f"{text[: room - 3]}...")


def what(event: Event) -> str:
    """The event in a few words."""
    text = event.text
    match event.kind:
        case "frame.sent":
            return f"> {text('to')} {text('what')}"
        case "frame.received":
            return f"< {text('from')} {text('what')}"
        case "frame.dropped":
            return f"x {text('from')} {text('what')} ({text('why')})"
        case "fault.began" | "fault.ended":
            return f"{text('fault')} {event.kind.removeprefix('fault.')}: {text('what')}"
        case "actor.started":
            return f"+ {text('path') or text('pid')}"
        case "actor.exited":
            return f"- {text('pid')} {text('reason')}"
        case "node.crashed" | "node.started" | "node.stopped":
            return f"## {event.kind.removeprefix('node.')} (boot {text('boot')})"
        case "message":
            return f". {text('path')} {text('what')}"
        case "note":
            return text("text")
        case _:
            return event.describe()
