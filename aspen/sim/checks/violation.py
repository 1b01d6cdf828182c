"""Violations, the signatures by which two failures are known to be the same, and the protocol of checkers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from aspen import limits
from aspen.sim.events import Event


@dataclass(frozen=True, slots=True)
class Signature:
    """What makes a failure the one it is: the same bug has the same signature under other plans and seeds."""

    kind: str
    """`check` for a violated invariant, `exception` for an error that nobody expected, or the harness's own."""
    invariant: str
    """The check and the invariant, as `revisions.stale_read`; the type of an exception."""
    details: str = ""
    """What else tells it apart, without the names and numbers of one run."""

    def __str__(self) -> str:
        return f"{self.kind} {self.invariant}" + (f" ({self.details})" if self.details else "")


_PLACEHOLDERS: Final = (
    (re.compile(r"<\w+\.\d+\.\d+>"), "<pid>"),
    (re.compile(r"0x[0-9a-fA-F]+"), "<hex>"),
    (re.compile(r"\b[0-9a-f]{16,}\b"), "<hex>"),
    (re.compile(r"\b([A-Za-z_]*[A-Za-z])\d+\b"), r"\1#"),
    (re.compile(r"-?\b\d+(?:\.\d+)?\b"), "#"),
    (re.compile(r"(\w*#)(?:, ?\1)+"), r"\1"),
    (re.compile(r"\s+"), " "),
)


def normalized(text: str) -> str:
    """The text without what differs from run to run: pids, addresses, numbers, and the numbers in names."""
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return text.strip()[: limits.SIM_TEXT_CHARS_MAX]


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold."""

    check: str
    """The checker: `revisions`, `linearizable`, `supervision`, a subsystem's own."""
    invariant: str
    """Which of its invariants, in snake_case."""
    message: str
    """What was seen and what was right, for people; starts with whom it concerns."""
    at_ns: int | None = None
    """When it became true, if that is known."""
    details: str = ""
    """What tells two violations of one invariant apart for good, as the name of an actor class. It is normalized."""
    evidence: tuple[str, ...] = field(default=(), compare=False)
    """Lines that show it: the operations or events that contradict each other."""

    def signature(self) -> Signature:
        """The signature of the failure that it makes."""
        return Signature("check", f"{self.check}.{self.invariant}", normalized(self.details))

    def __str__(self) -> str:
        return "\n".join((f"{self.check}.{self.invariant}: {self.message}", *(f"    {line}" for line in self.evidence)))


def exception_signature(error: BaseException) -> Signature:
    """The signature of an error that ended a run: by type and normalized message."""
    return Signature("exception", type(error).__name__, normalized(str(error)))


class Checker(Protocol):
    """Watches a run and says what is wrong with it. Subsystems add theirs: Raft its log matching, leases their clock.

    A checker sees every event of the record in order. It only looks: it never changes the run, draws no random
    numbers, and keeps no reference into live state. It may report at any hook; a run ends at the first report.
    """

    name: str

    def on_event(self, event: Event) -> Iterable[Violation]:
        """Called with each event, right after it was recorded."""
        ...

    def at_step(self, now_ns: int) -> Iterable[Violation]:
        """Called between steps of the scheduler, when no actor runs: the place to compare states of nodes."""
        ...

    def at_end(self, now_ns: int) -> Iterable[Violation]:
        """Called once, when the run is over and nothing more will happen."""
        ...


class BaseChecker:
    """A checker that finds nothing: override the hooks you need."""

    name = "base"

    def on_event(self, event: Event) -> Iterable[Violation]:
        """Finds nothing."""
        return ()

    def at_step(self, now_ns: int) -> Iterable[Violation]:
        """Finds nothing."""
        return ()

    def at_end(self, now_ns: int) -> Iterable[Violation]:
        """Finds nothing."""
        return ()


class Checkers:
    """Several checkers as one. Which hooks are overridden is looked up once, so that the others cost nothing."""

    name = "all"

    def __init__(self, checkers: Sequence[Checker]) -> None:
        self.checkers = tuple(checkers)
        self._on_event = self._with("on_event")
        self._at_step = self._with("at_step")

    @property
    def looks_at_steps(self) -> bool:
        """Whether any of them overrides `at_step`."""
        return bool(self._at_step)

    def _with(self, hook: str) -> tuple[Checker, ...]:
        idle = getattr(BaseChecker, hook)
        return tuple(checker for checker in self.checkers if getattr(type(checker), hook) is not idle)

    def on_event(self, event: Event) -> list[Violation]:
        """What any of them finds."""
        return [violation for checker in self._on_event for violation in checker.on_event(event)]

    def at_step(self, now_ns: int) -> list[Violation]:
        """What any of them finds."""
        return [violation for checker in self._at_step for violation in checker.at_step(now_ns)]

    def at_end(self, now_ns: int) -> list[Violation]:
        """What any of them finds."""
        return [violation for checker in self.checkers for violation in checker.at_end(now_ns)]


def run_over(events: Iterable[Event], checker: Checker) -> list[Violation]:
    """Lets a checker see a whole record, as one that was read from a file; `at_step` comes after each instant."""
    found: list[Violation] = []
    last_ns: int | None = None
    for event in events:
        if last_ns is not None and event.at_ns > last_ns:
            found += checker.at_step(last_ns)
        last_ns = event.at_ns
        found += checker.on_event(event)
    if last_ns is not None:
        found += checker.at_step(last_ns)
    found += checker.at_end(last_ns or 0)
    return found
