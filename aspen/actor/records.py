"""`Records`: what a node keeps of crashes and dead letters for a person to look at, and whom it tells."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from aspen import limits, wire
from aspen.actor.behaviour import INFO
from aspen.actor.process import Debug, Message, Process
from aspen.traits import Ports
from aspen.types import CrashReport, DeadLetter, SupervisorReport, describe_reason, is_benign

if TYPE_CHECKING:
    from aspen.actor.scheduler import Scheduler


class Records:
    """The part of a `System` that remembers."""

    scheduler: Scheduler

    def __init__(self, name: str, boot: int, ports: Ports, node: str = "") -> None:
        self.name = name
        self.node = node or name
        """Its id within a cluster, which pids carry."""
        self.boot = boot
        self.ports = ports
        self.dead_letter_counts: Counter[str] = Counter()
        self.dead_letters: deque[DeadLetter] = deque(maxlen=limits.DEAD_LETTERS_KEPT_MAX)
        self.crashes: deque[CrashReport] = deque(maxlen=limits.CRASH_REPORTS_KEPT_MAX)
        self.on_crash: list[Callable[[CrashReport], object]] = []
        self.on_dead_letter: list[Callable[[DeadLetter], object]] = []
        self.on_supervision: list[Callable[[SupervisorReport], object]] = []
        self.on_exit: list[Callable[[Process, object], object]] = []
        """Called with each process that ended and its reason, after everyone was told."""

    def checked(self, value: Any) -> Any:
        """The value as it arrives after encoding and decoding; `NotEncodable` when it cannot."""
        return wire.copy(value)

    def dead_letter(self, process: Process, reason: str, message: object) -> None:
        """Counts and keeps a message that nobody took."""
        self.dead_letter_counts[reason] += 1
        letter = DeadLetter(self.scheduler.mono_ns(), process.path, reason, abbreviate(message))
        self.dead_letters.append(letter)
        self._tell(self.on_dead_letter, letter)

    def _tell(self, listeners: Iterable[Callable[..., object]], *what: object) -> None:
        """Calls each listener. One that raises is reported to the event loop, and harms nobody else."""
        for listener in tuple(listeners):
            try:
                listener(*what)
            except Exception as error:
                self.ports.loop.asyncio.call_exception_handler(
                    {"message": f"a listener of node {self.name} raised: {listener!r}", "exception": error}
                )

    def _report(self, process: Process, reason: object, message: Message) -> None:
        if is_benign(reason):
            return
        actor = process.actor
        try:
            state = abbreviate(actor.format_status()) if actor is not None else ""
        except BaseException as error:
            state = f"<format_status raised {describe_reason(error)}>"
        ancestors = []
        parent = process.parent
        while parent is not None:
            ancestors.append(parent.path)
            parent = parent.parent
        report = CrashReport(
            at_wall_ns=self.ports.clock.wall_ns(),
            pid=process.pid,
            path=process.path,
            kind=process.blueprint.kind,
            reason=describe_reason(reason),
            message=abbreviate((message[0], *message[1])) if message[0] else "",
            state=state,
            ancestors=tuple(ancestors),
            traceback="".join(traceback.format_exception(reason)) if isinstance(reason, BaseException) else "",
        )
        self.crashes.append(report)
        if process.debug is not None:
            self.observe(process, process.debug, "crash", message, reason)
        self._tell(self.on_crash, report)

    def observe(self, process: Process, debug: Debug, event: str, message: Message, detail: object) -> None:
        """Counts and traces one event of a process for `sys`."""
        name, args, reply = message
        if event == "receive":
            if name == INFO:
                debug.infos += 1
            elif reply is None:
                debug.casts += 1
            else:
                debug.calls += 1
        self._tell(debug.tracers, event, name, args, detail)


def abbreviate(value: object, chars_max: int = limits.REPORT_TEXT_CHARS_MAX) -> str:
    """`repr(value)`, cut to a bound; never raises."""
    try:
        text = repr(value)
    except BaseException as error:
        return f"<repr of {type(value).__name__} raised {describe_reason(error)}>"
    return text if len(text) <= chars_max else f"{text[:chars_max]}... ({len(text)} characters)"
