"""`Recording`: the event record of a run, made of what the kernels and the world tell.

A sweep needs few events: those that checks read. A replay wants all of them, messages and frames too, for its
timeline. Either way the run is the same: recording draws nothing and changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from aspen import limits
from aspen.actor import Process
from aspen.otp.supervisor import Supervisor
from aspen.sim.checks.violation import Checkers, Violation
from aspen.sim.cluster import Cluster
from aspen.sim.events import Event
from aspen.types import describe_reason

FrameText = Callable[[bytes], str]

_MESSAGES: Final = frozenset({"receive", "reply"})
_FRAMES: Final = frozenset({"send", "frame", "lost", "full"})
_ENDS: Final = {"crash": "node.crashed", "end": "node.stopped", "stop": "node.stopped"}


class Recording:
    """Makes events, keeps the latest of them, and shows each to the checkers. It is the cluster's `Tap`."""

    def __init__(self, cluster: Cluster, *, everything: bool, frame_text: FrameText | None = None) -> None:
        self.cluster = cluster
        self.everything = everything
        self.quiet = frozenset({"reply"}) if everything else _MESSAGES
        self.events: deque[Event] = deque(maxlen=limits.SIM_EVENTS_KEPT_MAX)
        self.branches: list[Event] = []
        """Faults that began and branches that were taken: what coverage counts."""
        self.violations: list[Violation] = []
        self._checkers = Checkers(())
        self._frame_text = frame_text or frame_text_default
        self._pids: dict[int, str] = {}

    def watch(self, checkers: Checkers) -> None:
        """Has these checkers see every event from now on, and every instant if they look at those."""
        self._checkers = checkers
        self.cluster.engine.between = self._at_step if checkers.looks_at_steps else None

    def add(self, node: str, kind: str, **fields: object) -> None:
        """Records an event. At the first violation the run ends."""
        event = Event(self.cluster.clock.now_ns, node, kind, fields)
        self.events.append(event)
        if kind in {"fault.began", "branch"}:
            self.branches.append(event)
        self.report(self._checkers.on_event(event))

    def report(self, found: Iterable[Violation]) -> None:
        """Takes violations, and ends the run if there are any."""
        before = len(self.violations)
        self.violations.extend(found)
        if len(self.violations) > before:
            self.cluster.engine.stopping = True

    def _at_step(self) -> None:
        self.report(self._checkers.at_step(self.cluster.clock.now_ns))

    # -- what the world tells ---------------------------------------------------------------------------

    def of_world(self, kind: str, node: str, detail: Any) -> None:
        """An event of the network, of a disk or of a machine."""
        if kind in _FRAMES:
            if self.everything:
                self._frame(kind, node, detail)
        elif kind == "boot":
            self.add(node, "node.started", boot=detail)
        elif kind in _ENDS:
            boot = self.cluster.nodes[node].boot
            self.add(node, _ENDS[kind], boot=boot, reason=describe_reason(detail))
        elif self.everything and kind in {"up", "down"}:
            self.add(node, "note", text=f"link to {detail} is {kind}")
        elif self.everything and kind in {"buggify", "pause", "unpause", "clock_rate", "clock_step"}:
            self.add(node, "note", text=f"{kind.replace('_', ' ')} {'' if detail is None else detail}".rstrip())

    def of_disk(self, node: str, kind: str, path: str) -> None:
        """A fault of a disk that happened."""
        if self.everything and kind != "sync":
            self.add(node, "note", text=f"disk: {kind} {path}")

    def _frame(self, kind: str, node: str, detail: tuple[str, int, bytes]) -> None:
        other, lane, frame = detail
        what = self._frame_text(frame)
        if kind == "send":
            self.add(node, "frame.sent", to=other, lane=lane, what=what)
        elif kind == "frame":
            self.add(node, "frame.received", **{"from": other}, lane=lane, what=what)
        else:
            self.add(other, "frame.dropped", **{"from": node}, lane=lane, what=what, why=kind)

    # -- what kernels tell --------------------------------------------------------------------------------

    def of_actor(self, process: Process, event: str, name: str, payload: Any) -> None:
        """An event of an actor; see `aspen.actor.system.Observer`."""
        node, pid = process.system.name, str(process.pid)
        place = f"{node}.{process.system.boot}"
        match event:
            case "receive":
                self.add(node, "message", pid=pid, path=process.path, what=name)
            case "start":
                parent = process.parent
                slot = None if parent is None else slot_of(parent, process)
                above = None if parent is None else str(parent.pid)
                self.add(node, "actor.started", pid=pid, parent=above, path=process.path, slot=slot)
            case "end":
                self.add(node, "actor.exited", pid=pid, reason=describe_reason(payload))
            case "monitor":
                self.add(node, "monitor.made", monitor=f"{place}.{payload[0]}", watcher=pid, target=str(payload[1]))
            case "demonitor":
                self.add(node, "monitor.removed", monitor=f"{place}.{payload}")
            case "down":
                reason = describe_reason(payload[1])
                self.add(node, "monitor.down", monitor=f"{place}.{payload[0]}", reason=reason)
            case "name" | "unname":
                self.add(node, "name.held" if event == "name" else "name.released", name=name, pid=pid, epoch=None)
            case "supervise":
                strategy, intensity, period_ns = payload
                fields = {"strategy": strategy, "intensity": intensity, "period_ns": period_ns}
                self.add(node, "supervisor.started", pid=pid, **fields)
            case "restart":
                failed, children, restarted, own_ns = payload
                sets = {"children": tuple(children), "restarted": tuple(restarted)}
                self.add(node, "supervisor.restart", pid=pid, failed=failed, **sets, own_ns=own_ns)
            case "stops":
                self.add(node, "supervisor.stops", pid=pid, child=str(payload[0]), why=payload[1])
            case "gives_up":
                self.add(node, "supervisor.ended", pid=pid, cause=payload)


def slot_of(parent: Process, process: Process) -> int | None:
    """The place of a child that starts now among its supervisor's; None when they have no order."""
    supervisor = parent.actor
    if not isinstance(supervisor, Supervisor):
        return None
    for place, kid in enumerate(supervisor.kids_now()):
        if kid.status == "starting" and kid.spec.id == process.label:
            return place
    return None


def frame_text_default(frame: bytes) -> str:
    """The beginning of a frame, as far as it can be read."""
    text = frame[:48].decode("latin-1")
    return text if text.isprintable() else f"{len(frame)} bytes"
