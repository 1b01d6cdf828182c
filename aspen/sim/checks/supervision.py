"""Supervision invariants, as pure functions over an event record.

Each function takes the events of a run in order and returns what breaks its rule:

    restart_intensity   no more restarts within the period than allowed, else the supervisor ends, and only then
    restart_sets        the children restarted are those that the strategy names
    shutdown_order      children are asked to end in reverse start order, each once the one before is gone
    orphans             nothing outlives its supervisor, or starts under a dead one
    monitors            exactly one Down for each monitor, and none for the living
    names               at most one holder of a name, and of a name and fencing epoch ever

A rule about what must happen in the end allows for `grace_ns` before the record stops: what was under way then proves
nothing. `aspen.sim.events` says which events it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aspen.limits import EXIT_CLEANUP_S, SHUTDOWN_S
from aspen.sim.checks.violation import BaseChecker, Violation
from aspen.sim.events import Event

CHECK: Final = "supervision"
GRACE_NS: Final = round((SHUTDOWN_S + EXIT_CLEANUP_S) * 1e9)
"""The longest that one worker takes to end in order, and then by force."""

ACTORS: Final = frozenset({"actor.started", "actor.exited", "node.crashed", "node.stopped"})


def restart_set(strategy: str, children: Sequence[str], failed: str) -> list[str]:
    """Which children a supervisor restarts when `failed` has: the model in one line for each strategy."""
    if strategy == "one_for_all":
        return list(children)
    if strategy == "rest_for_one":
        return list(children[children.index(failed) :])
    return [failed]


def check_supervision(events: Iterable[Event], *, grace_ns: int = GRACE_NS) -> list[Violation]:
    """Everything that breaks any of the rules, rule by rule."""
    record = events if isinstance(events, list) else list(events)
    found = restart_intensity(record, grace_ns=grace_ns) + restart_sets(record) + shutdown_order(record)
    return found + orphans(record, grace_ns=grace_ns) + monitors(record, grace_ns=grace_ns) + names(record)


class SupervisionChecker(BaseChecker):
    """Checks all the rules when the run is over."""

    name = CHECK

    def __init__(self, *, grace_ns: int = GRACE_NS) -> None:
        self._grace_ns = grace_ns
        self._record: list[Event] = []

    def on_event(self, event: Event) -> Iterable[Violation]:
        """Keeps the events that the rules read."""
        if event.kind in READ:
            self._record.append(event)
        return ()

    def at_end(self, now_ns: int) -> Iterable[Violation]:
        """What breaks a rule."""
        return check_supervision([*self._record, Event(now_ns, "", "note")], grace_ns=self._grace_ns)


READ: Final = ACTORS | {
    "supervisor.started",
    "supervisor.restart",
    "supervisor.stops",
    "supervisor.ended",
    "monitor.made",
    "monitor.removed",
    "monitor.down",
    "name.held",
    "name.released",
}
"""The kinds of events that the rules read."""


def _violation(invariant: str, message: str, event: Event, *before: Event, details: str = "") -> Violation:
    lines = tuple(f"{one.at_ns / 1e9:.6f} {one.node} {one.describe()}" for one in (*before, event))
    return Violation(CHECK, invariant, message, event.at_ns, details, lines)


class _Lives:
    """Who runs, as a record tells it so far."""

    def __init__(self) -> None:
        self.running: dict[str, Event] = {}
        self.ended_ns: dict[str, int] = {}

    def see(self, event: Event) -> list[str]:
        """Takes in an event; returns the pids that ended by it."""
        match event.kind:
            case "actor.started":
                self.running[event.text("pid")] = event
                return []
            case "actor.exited":
                ended = [event.text("pid")]
            case "node.crashed" | "node.stopped":
                prefix = f"<{event.node}.{event.get('boot')}."
                ended = [pid for pid in self.running if pid.startswith(prefix)]
            case _:
                return []
        for pid in ended:
            self.running.pop(pid, None)
            self.ended_ns.setdefault(pid, event.at_ns)
        return ended


def _end_ns(events: Sequence[Event]) -> int:
    return events[-1].at_ns if events else 0


# -- restarts -----------------------------------------------------------------------------------------------


def restart_intensity(events: Sequence[Event], *, grace_ns: int = GRACE_NS) -> list[Violation]:
    """Restarts beyond the intensity that did not end the supervisor, and ends for no such reason."""
    found: list[Violation] = []
    allowed: dict[str, tuple[int, int]] = {}
    recent: dict[str, list[Event]] = {}
    exceeded: dict[str, Event] = {}
    lives = _Lives()
    for event in events:
        lives.see(event)
        pid = event.text("pid")
        match event.kind:
            case "supervisor.started":
                intensity, period_ns = event.get("intensity"), event.get("period_ns")
                if isinstance(intensity, int) and isinstance(period_ns, int):
                    allowed[pid] = (intensity, period_ns)
            case "supervisor.restart" if pid in allowed:
                intensity, period_ns = allowed[pid]
                if pid in exceeded:
                    message = f"{pid} restarts a child after it exceeded its intensity"
                    found.append(_violation("restart_after_escalation", message, event, exceeded[pid]))
                    continue
                within = [one for one in recent.get(pid, ()) if _own_ns(one) >= _own_ns(event) - period_ns]
                recent[pid] = [*within, event]
                if len(recent[pid]) > intensity:
                    exceeded[pid] = event
            case "actor.started" if event.text("parent") in exceeded:
                parent = event.text("parent")
                message = f"{parent} starts {pid} after it exceeded its intensity"
                found.append(_violation("restart_after_escalation", message, event, exceeded[parent]))
            case "supervisor.ended" if event.get("cause") == "intensity" and pid in allowed and pid not in exceeded:
                count, (intensity, period_ns) = len(recent.get(pid, ())), allowed[pid]
                message = (
                    f"{pid} gave up after {count} restarts within {period_ns / 1e9} s, and {intensity} are allowed"
                )
                found.append(_violation("early_escalation", message, event))
    end_ns = _end_ns(events)
    for pid, event in exceeded.items():
        if pid not in lives.ended_ns and event.at_ns + grace_ns < end_ns:
            intensity, period_ns = allowed[pid]
            message = f"{pid} restarted more than {intensity} times within {period_ns / 1e9} s and went on"
            found.append(_violation("no_escalation", message, event, *recent[pid][:-1]))
    return found


def _own_ns(event: Event) -> int:
    """The time of a restart on its node's clock, by which intensity goes; world time when the record has none."""
    own_ns = event.get("own_ns")
    return own_ns if isinstance(own_ns, int) else event.at_ns


def restart_sets(events: Sequence[Event]) -> list[Violation]:
    """Restarts of other children than the strategy names, or in another order."""
    found: list[Violation] = []
    strategies: dict[str, str] = {}
    for event in events:
        if event.kind == "supervisor.started":
            strategies[event.text("pid")] = event.text("strategy")
        elif event.kind == "supervisor.restart" and event.text("pid") in strategies:
            children, restarted, failed = event.get("children"), event.get("restarted"), event.text("failed")
            if not isinstance(children, (list, tuple)) or not isinstance(restarted, (list, tuple)):
                continue
            strategy = strategies[event.text("pid")]
            if failed not in children:
                message = f"{event.text('pid')} restarts {failed}, which is no child of its"
                found.append(_violation("restart_set", message, event, details=strategy))
                continue
            right = restart_set(strategy, list(children), failed)
            if list(restarted) != right:
                message = (
                    f"{event.text('pid')} ({strategy}) restarts {', '.join(map(str, restarted)) or 'nothing'} "
                    f"when {failed} has failed; it should restart {', '.join(right)}"
                )
                found.append(_violation("restart_set", message, event, details=strategy))
    return found


# -- ends ---------------------------------------------------------------------------------------------------


def shutdown_order(events: Sequence[Event]) -> list[Violation]:
    """Children asked to end in another order than the reverse of their start, or before the one before was gone."""
    found: list[Violation] = []
    lives = _Lives()
    last: dict[str, tuple[Event, int]] = {}
    for event in events:
        slots = {"actor.started": event.text("parent"), "supervisor.restart": event.text("pid")}
        last.pop(slots.get(event.kind, ""), None)
        if event.kind == "supervisor.stops" and event.get("why") != "operator":
            pid, child = event.text("pid"), event.text("child")
            started = lives.running.get(child)
            slot = None if started is None else started.get("slot")
            if not isinstance(slot, int):
                continue
            before = last.get(pid)
            if before is not None and before[0].get("why") == event.get("why"):
                asked, asked_slot = before
                if slot >= asked_slot:
                    message = f"{pid} stops child {slot} after child {asked_slot}; the later ones go first"
                    found.append(_violation("shutdown_order", message, event, asked))
                elif asked.text("child") in lives.running:
                    message = f"{pid} stops {child} while {asked.text('child')}, which it asked before, still runs"
                    found.append(_violation("shutdown_overlap", message, event, asked))
            last[pid] = (event, slot)
        lives.see(event)
    return found


def orphans(events: Sequence[Event], *, grace_ns: int = GRACE_NS) -> list[Violation]:
    """Actors that run although their supervisor is gone."""
    found: list[Violation] = []
    lives = _Lives()
    for event in events:
        parent = event.text("parent")
        if event.kind == "actor.started" and parent in lives.ended_ns:
            message = f"{event.text('pid')} starts under {parent}, which is gone"
            found.append(_violation("orphan", message, event))
        lives.see(event)
    end_ns = _end_ns(events)
    for pid, event in lives.running.items():
        gone_ns = lives.ended_ns.get(event.text("parent"))
        if gone_ns is not None and gone_ns + grace_ns < end_ns and event.at_ns < gone_ns:
            message = f"{pid} still runs {(end_ns - gone_ns) / 1e9:.3f} s after {event.text('parent')} was gone"
            found.append(_violation("orphan", message, event))
    return found


# -- monitors and names ---------------------------------------------------------------------------------------


def monitors(events: Sequence[Event], *, grace_ns: int = GRACE_NS) -> list[Violation]:
    """Monitors that told of an end twice, or of none that there was, or that did not tell."""
    found: list[Violation] = []
    lives = _Lives()
    made: dict[str, Event] = {}
    told: dict[str, Event] = {}
    removed: set[str] = set()
    for event in events:
        lives.see(event)
        if not event.kind.startswith("monitor."):
            continue
        monitor = event.text("monitor")
        match event.kind:
            case "monitor.made":
                made[monitor] = event
            case "monitor.removed":
                removed.add(monitor)
            case "monitor.down" if monitor not in made:
                found.append(
                    _violation("down_unasked", f"a Down comes for monitor {monitor}, which nobody made", event)
                )
            case "monitor.down" if monitor in told:
                message = f"a second Down comes for monitor {monitor}"
                found.append(_violation("down_twice", message, event, made[monitor], told[monitor]))
            case "monitor.down":
                told[monitor] = event
                target = made[monitor].text("target")
                if target in lives.running and event.text("reason") != "noconnection":
                    message = f"a Down comes for monitor {monitor}, and {target} still runs"
                    found.append(_violation("down_early", message, event, made[monitor]))
    end_ns = _end_ns(events)
    for monitor, event in made.items():
        watcher, target = event.text("watcher"), event.text("target")
        gone_ns = lives.ended_ns.get(target)
        since_ns = None if gone_ns is None else max(gone_ns, event.at_ns)
        owed = since_ns is not None and since_ns + grace_ns < end_ns and watcher not in lives.ended_ns
        if owed and monitor not in told and monitor not in removed:
            message = f"no Down came for monitor {monitor} of {watcher}, and {target} is gone"
            found.append(_violation("down_missing", message, event))
    return found


def names(events: Sequence[Event]) -> list[Violation]:
    """Names with two holders: at one time for a node's own names, ever for a name and fencing epoch."""
    found: list[Violation] = []
    lives = _Lives()
    holders: dict[tuple[str, str], Event] = {}
    epochs: dict[tuple[str, int], Event] = {}
    latest: dict[str, Event] = {}
    for event in events:
        ended = lives.see(event)
        if ended:
            holders = {place: one for place, one in holders.items() if one.text("pid") not in ended}
        if event.kind not in {"name.held", "name.released"}:
            continue
        name, pid, epoch = event.text("name"), event.text("pid"), event.get("epoch")
        place = (event.node, name)
        if event.kind == "name.released":
            if place in holders and holders[place].text("pid") == pid:
                del holders[place]
        elif not isinstance(epoch, int):
            other = holders.setdefault(place, event)
            if other.text("pid") != pid:
                message = f"{pid} holds the name {name} on {event.node}, and {other.text('pid')} still does"
                found.append(_violation("two_holders", message, event, other))
        else:
            other = epochs.setdefault((name, epoch), event)
            if other.text("pid") != pid:
                message = f"{pid} holds the name {name} in epoch {epoch}, which is {other.text('pid')}'s"
                found.append(_violation("two_holders", message, event, other))
            before = latest.get(name)
            if before is not None and epoch < _epoch(before):
                message = f"{pid} comes to hold the name {name} in epoch {epoch}, after epoch {_epoch(before)} began"
                found.append(_violation("epoch_backwards", message, event, before))
            else:
                latest[name] = event
    return found


def _epoch(event: Event) -> int:
    epoch = event.get("epoch")
    return epoch if isinstance(epoch, int) else 0


RULES: Final[dict[str, Callable[[Sequence[Event]], list[Violation]]]] = {
    "restart_intensity": restart_intensity,
    "restart_sets": restart_sets,
    "shutdown_order": shutdown_order,
    "orphans": orphans,
    "monitors": monitors,
    "names": names,
}
"""Every rule by name."""
