"""`Trace`: what happened in a run, as one hash, with checkpoints, so that two runs can be compared and their first
difference found.

An event is `(time, node, actor, kind, name, payload)`. Payloads are hashed by content: exceptions by their type,
references by pid, functions by name, anything else without a content of its own by its type. Nothing that differs
between two processes gets in: no address, no message of an error, no traceback.
"""

from __future__ import annotations

import hashlib
import marshal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

from aspen.errors import UsageError

EVENTS_PER_CHECKPOINT: Final = 256
RECORDED_EVENTS_MAX: Final = 5_000_000
"""Events of one trace that can be kept whole."""
_DEPTH_MAX: Final = 32
_MARSHAL: Final = 2
"""The last version of the format without back references, whose output follows from the value alone."""

Event = tuple[int, str, int, str, str, bytes]
"""`(t_ns, node, actor, kind, name, payload)`; the payload as `content` gives it."""

plain_forms: dict[type, Callable[[Any], Any]] = {}
"""For types with an identity of their own, as references have: what stands for a value, made of plain values."""


def content(value: Any) -> bytes:
    """The content of a value, the same in every process. Sets are put in order; order that came from a set is not."""
    try:
        return marshal.dumps(value, _MARSHAL)
    except ValueError:
        return marshal.dumps(_plain(value, 0), _MARSHAL)


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return value
    if depth >= _DEPTH_MAX:
        return "..."
    if kind in (tuple, list, deque):
        return [_plain(item, depth + 1) for item in value]
    if kind is dict:
        return ["{}", *([_plain(key, depth + 1), _plain(item, depth + 1)] for key, item in value.items())]
    if kind in (set, frozenset):
        return sorted(marshal.dumps(_plain(item, depth + 1), _MARSHAL) for item in value)
    for base in kind.__mro__:
        form = plain_forms.get(base)
        if form is not None:
            return _plain(form(value), depth + 1)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if isinstance(value, BaseException):
        return name
    if isinstance(value, Enum):
        return [name, value.name]
    if is_dataclass(value) and not isinstance(value, type):
        return [name, *(_plain(getattr(value, field.name, None), depth + 1) for field in fields(value))]
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    if callable(value):
        return f"{name} {getattr(value, '__qualname__', '')}"
    return name


class Trace:
    """The rolling hash of a run. With `record`, the events too."""

    __slots__ = ("_batch", "_every", "_hash", "checkpoints", "count", "events", "record")

    def __init__(self, *, record: bool = False, every: int = EVENTS_PER_CHECKPOINT) -> None:
        if every < 1:
            raise UsageError(f"a checkpoint every {every} events: use at least 1")
        self.record = record
        self.events: list[Event] = []
        self.checkpoints: list[str] = []
        """The hash after each `every` events."""
        self.count = 0
        """Events so far."""
        self._every = every
        self._batch: list[Event] = []
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def every(self) -> int:
        """Events between two checkpoints."""
        return self._every

    def add(self, t_ns: int, node: str, actor: int, kind: str, name: str, payload: Any) -> None:
        """Adds an event."""
        try:
            data = marshal.dumps(payload, _MARSHAL)
        except ValueError:
            data = content(payload)
        batch = self._batch
        batch.append((t_ns, node, actor, kind, name, data))
        if len(batch) == self._every:
            self._close_batch()

    def _close_batch(self) -> None:
        batch = self._batch
        self._hash.update(marshal.dumps(batch, _MARSHAL))
        self.count += len(batch)
        self.checkpoints.append(self._hash.copy().hexdigest())
        if self.record:
            if len(self.events) + len(batch) > RECORDED_EVENTS_MAX:
                raise UsageError(f"more than {RECORDED_EVENTS_MAX} events to record; run without record=True")
            self.events.extend(batch)
        self._batch = []

    def digest(self) -> str:
        """The hash of everything so far."""
        total = self._hash.copy()
        total.update(marshal.dumps(self._batch, _MARSHAL))
        return total.hexdigest()

    def snapshot(self) -> TraceData:
        """What is needed to compare it, as plain data."""
        events = (*self.events, *self._batch) if self.record else ()
        return TraceData(self._every, self.count + len(self._batch), (*self.checkpoints, self.digest()), events)


@dataclass(frozen=True, slots=True)
class TraceData:
    """A trace as data: travels between processes, and into files."""

    every: int
    count: int
    checkpoints: tuple[str, ...]
    """The last one is of the end."""
    events: tuple[Event, ...] = ()

    @property
    def digest(self) -> str:
        """The hash of the whole."""
        return self.checkpoints[-1]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "every": self.every,
            "count": self.count,
            "checkpoints": list(self.checkpoints),
            "events": [[*event[:5], event[5].hex()] for event in self.events],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TraceData:
        """Back from JSON.

        Raises:
            UsageError: it is no trace.
        """
        try:
            events = tuple(
                (int(t), str(n), int(a), str(k), str(m), bytes.fromhex(p)) for t, n, a, k, m, p in data["events"]
            )
            return cls(int(data["every"]), int(data["count"]), tuple(map(str, data["checkpoints"])), events)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is no trace: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two traces part."""

    first: int
    """The first event, from 0, that may differ; exactly that one when events were recorded."""
    last: int
    """The last event that may be the first to differ."""
    text: str
    """For people."""

    def __str__(self) -> str:
        return self.text


def diff(a: TraceData, b: TraceData, context: int = 5) -> Divergence | None:
    """The first difference of two traces; None when they are the same. Found by bisecting their checkpoints.

    Raises:
        UsageError: they have their checkpoints at different distances.
    """
    if a.every != b.every:
        raise UsageError(f"one trace has a checkpoint every {a.every} events, the other every {b.every}; use one value")
    if a.checkpoints == b.checkpoints and a.count == b.count:
        return None
    low, high = 0, min(len(a.checkpoints), len(b.checkpoints)) - 1
    while low < high:
        middle = (low + high) // 2
        if a.checkpoints[middle] == b.checkpoints[middle]:
            low = middle + 1
        else:
            high = middle
    first = low * a.every
    last = min(first + a.every, max(a.count, b.count)) - 1
    if not (a.events and b.events):
        text = f"the traces part within events {first} to {last}; run both with record=True to see which"
        return Divergence(first, last, text)
    while first < min(len(a.events), len(b.events)) and a.events[first] == b.events[first]:
        first += 1
    lines = [f"the traces part at event {first}:"]
    lines.extend(f"    {show_event(event)}" for event in a.events[max(0, first - context) : first])
    for sign, trace in (("-", a), ("+", b)):
        shown = trace.events[first : first + context] or None
        lines.extend(f"  {sign} {show_event(event)}" for event in shown or ())
        if shown is None:
            lines.append(f"  {sign} (ends here)")
    return Divergence(first, first, "\n".join(lines))


def show_event(event: Event) -> str:
    """An event in one line."""
    t_ns, node, actor, kind, name, payload = event
    who = f"{node}.{actor}" if actor else node
    text = repr(marshal.loads(payload))  # noqa: S302 -- written by this module
    return f"{t_ns / 1e9:.9f} {who} {kind} {name} {text if len(text) <= 200 else text[:200] + '...'}".rstrip()
