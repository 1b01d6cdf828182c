"""Coverage of a campaign: which faults, buggify sites and branches its runs met, and which none of them did.

A fault class that never happened tested nothing, and a recovery branch that was never taken may as well be broken: a
campaign that should be complete fails for what it never hit. Counts of runs are merged in any order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aspen.sim.events import Event
from aspen.sim.faults import ENVIRONMENT_CLASSES, KINDS
from aspen.sim.plans import Plan

EVERY_FAULT: Final = tuple(f"{kind}.{mode}" for kind, modes in KINDS.items() for mode in modes) + ENVIRONMENT_CLASSES
"""All that a plan can make go wrong, buggify sites apart."""


@dataclass(slots=True)
class Coverage:
    """What was met, with counts."""

    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Runs whose plan held the fault and in which it began, by name."""
    site_hits: Counter[str] = field(default_factory=Counter)
    """How often execution passed a buggify site."""
    site_fired: Counter[str] = field(default_factory=Counter)
    branches: Counter[str] = field(default_factory=Counter)
    """How often a named branch was taken."""

    def add_run(
        self,
        plan: Plan,
        events: Iterable[Event] = (),
        site_hits: Mapping[str, int] | None = None,
        site_fired: Mapping[str, int] | None = None,
    ) -> None:
        """Counts one run: what its environment was, which episodes began by its record, which branches it took.

        `site_hits` and `site_fired` are those of its `Dice`.
        """
        self.runs += 1
        began = plan.classes() & frozenset(ENVIRONMENT_CLASSES)
        for event in events:
            if event.kind == "fault.began":
                began |= {event.text("fault")}
            elif event.kind == "branch":
                self.branches[event.text("name")] += 1
        self.faults.update(began)
        self.site_hits.update(site_hits or {})
        self.site_fired.update(site_fired or {})

    def merge(self, other: Coverage) -> None:
        """Adds the counts of other runs."""
        self.runs += other.runs
        for mine, theirs in zip(self._counters(), other._counters(), strict=True):
            mine.update(theirs)

    def _counters(self) -> tuple[Counter[str], ...]:
        return (self.faults, self.site_hits, self.site_fired, self.branches)

    def missing(
        self,
        *,
        faults: Iterable[str] = EVERY_FAULT,
        sites: Iterable[str] | None = None,
        branches: Iterable[str] = (),
    ) -> list[str]:
        """What was expected and never met, in words. `sites` None: every site that was passed should have fired."""
        found = [f"fault {name} never happened" for name in sorted(faults) if not self.faults[name]]
        for name in sorted(self.site_hits if sites is None else sites):
            if not self.site_fired[name]:
                passed = (
                    f"was passed {self.site_hits[name]} times and" if self.site_hits[name] else "was never passed and"
                )
                found.append(f"buggify site {name} {passed} never fired")
        found += [f"branch {name} was never taken" for name in sorted(branches) if not self.branches[name]]
        return found

    def to_data(self) -> dict[str, object]:
        """The counts as plain data, keys sorted."""
        parts = zip(("faults", "site_hits", "site_fired", "branches"), self._counters(), strict=True)
        return {"runs": self.runs, **{name: dict(sorted(counter.items())) for name, counter in parts}}

    def to_json(self) -> str:
        """The counts as JSON."""
        return json.dumps(self.to_data(), indent=1) + "\n"

    def summary(self) -> list[str]:
        """The counts in a few lines, rarest first: those are the ones to look at."""
        lines = [f"{self.runs} runs"]
        for title, counter in zip(("faults", "sites passed", "sites fired", "branches"), self._counters(), strict=True):
            rarest = sorted(counter.items(), key=lambda one: (one[1], one[0]))
            if rarest:
                lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in rarest))
        return lines
