"""The event record of a run: what happened, where and when, as data for checks and for people.

Kinds are dotted names, and a kind's fields are always the same. A subsystem adds kinds of its own. These are known to
the checks and the timeline here; pids are text, as `str(pid)` gives it.

    actor.started       pid, parent (a pid or None), path, slot (place among its supervisor's children; None when
                        they have no order)
    actor.exited        pid, reason
    supervisor.started  pid, strategy, intensity, period_ns
    supervisor.restart  pid, failed, children (ids of its children in start order), restarted (ids of those that it
                        starts again, in start order), own_ns (on its node's clock; None when that is not known); one
                        for each restart that counts
    supervisor.stops    pid, child (a pid that it asks to end), why (`shutdown`, `restart`, `operator`)
    supervisor.ended    pid, cause (`intensity`, `shutdown`, `auto_shutdown`, `crash`)
    monitor.made        monitor (its own in the whole record), watcher, target
    monitor.removed     monitor
    monitor.down        monitor, reason
    name.held           name, pid, epoch (None for a name of one node, else the fencing epoch)
    name.released       name, pid, epoch
    node.started        boot
    node.crashed        boot (nothing of that boot runs any more, and nothing of it says so)
    node.stopped        boot
    frame.sent          to, lane, what
    frame.received      from, lane, what
    frame.dropped       from, lane, what, why
    fault.began         fault, what
    fault.ended         fault, what
    branch              name (of a recovery branch that was taken)
    message             pid, path, what (an actor takes a message)
    note                text
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    at_ns: int
    """World time."""
    node: str
    """Where; empty when it is nobody's, as a partition."""
    kind: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def get(self, name: str) -> object:
        """A field, None when the event has none of that name."""
        return self.fields.get(name)

    def text(self, name: str) -> str:
        """A field as text, empty when the event has none of that name."""
        value = self.fields.get(name)
        return "" if value is None else str(value)

    def describe(self) -> str:
        """The event without its time and place, in one line."""
        parts = ", ".join(f"{name} {value}" for name, value in self.fields.items())
        return f"{self.kind} {parts}" if parts else self.kind
