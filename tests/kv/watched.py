"""What watches of a whole cluster are to see: everything that was committed, in order, once. The oracle of tests.

`Committed` looks at each member as it applies, and holds members against each other; `Reader` is a program that watches
as users do, through crashes of its own node too, when it goes on from `watch.revision + 1`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from aspen.actor import system_of_loop
from aspen.errors import AspenError, CallTimeout, Compacted, NoConnection
from aspen.kv import feeding, watch_actor, watch_streams, watching
from aspen.kv.inside import kv_of
from aspen.kv.types import FROM_KEY, Event
from aspen.kv.window import Window
from aspen.sim import NodeDown

Spec = tuple[bytes, bytes, dict[str, Any]]
"""Key, end, options of a watch."""

SMALL = {
    feeding: {"WATCH_CLIENT_REVISIONS_MAX": 4, "WATCH_CLIENT_BYTES_MAX": 3_000},
    watch_actor: {"WATCH_ANSWER_BYTES": 600, "WATCH_PAGE_EVENTS": 5},
    watching: {
        "WATCH_FRAGMENT_BYTES": 400,
        "WATCH_CATCH_UP_WATCHES": 6,
        "WATCH_CATCH_UP_RANGES": 2,
    },
    watch_streams: {"WATCH_STREAM_BYTES_MAX": 2_500, "WATCH_MARK_EXCEPTIONS_MAX": 2},
}
"""Bounds so small that all of them are met."""


class Committed:
    """Revisions with their events, as members applied them."""

    def __init__(self) -> None:
        self.revisions: dict[int, list[Event]] = {}
        self.compacted: set[int] = set()
        self.differences: list[str] = []

    @contextlib.contextmanager
    def watching(self, *, small: bool = True) -> Iterator[None]:
        """Looks on while the context is open; with small bounds."""
        before = {module: {name: getattr(module, name) for name in names} for module, names in SMALL.items()}
        told, caught = Window.applied, Window._before_compaction
        committed = self

        def applied(window: Window) -> None:
            committed.look(window)
            told(window)

        def before_compaction(window: Window, keyspace: int) -> None:
            if keyspace == 1:
                committed.look(window)
            caught(window, keyspace)

        try:
            Window.applied, Window._before_compaction = applied, before_compaction  # type: ignore[method-assign]
            for module, names in SMALL.items() if small else ():
                for name, value in names.items():
                    setattr(module, name, value)
            yield
        finally:
            Window.applied, Window._before_compaction = told, caught  # type: ignore[method-assign]
            for module, names in before.items():
                for name, value in names.items():
                    setattr(module, name, value)

    def look(self, window: Window) -> None:
        machine = window.machine
        if machine is None:
            return
        space = machine.keyspace(1)
        last = getattr(machine, "looked_at", space.compact_revision - 1)
        self.compacted.add(space.compact_revision)
        start = max(last + 1, space.compact_revision, 2)
        while start <= space.revision:
            page = machine.events(1, start, prev_kv=False)
            for revision, events in page:
                known = self.revisions.setdefault(revision, list(events))
                # What a compaction left at its own revision is all that was done there.
                if known != list(events):
                    self.differences.append(f"members differ at revision {revision}: {known} and {list(events)}")
                start = revision + 1
            if not page:
                break
        machine.looked_at = space.revision  # type: ignore[attr-defined]

    @property
    def revision(self) -> int:
        return max(self.revisions, default=1)

    def of(self, spec: Spec, start: int, stop: int) -> list[tuple[int, Event]]:
        """What a watch of `spec` sees from `start` to `stop`, both included."""
        key, end, options = spec

        def holds(event: Event) -> bool:
            if options.get("no_delete" if event.is_delete else "no_put"):
                return False
            other = event.kv.key
            return other == key if not end else key <= other and (end == FROM_KEY or other < end)

        return [
            (revision, event)
            for revision in sorted(self.revisions)
            if start <= revision <= stop
            for event in self.revisions[revision]
            if holds(event)
        ]


class Reader:
    """A program that watches, and its record."""

    def __init__(self, committed: Committed, spec: Spec, *, slow_s: float = 0.0) -> None:
        self.committed, self.spec, self.slow_s = committed, spec, slow_s
        self.start = 1
        """Of this stretch; a compaction begins another."""
        self.revision = 0
        self.got: list[tuple[int, Event]] = []
        self.troubles: list[str] = []
        self.begun = self.compactions = self.events = 0
        self.hurry = False

    async def read(self) -> None:
        """In the node: watches until it is cancelled or the node ends."""
        key, end, options = self.spec
        kv = kv_of(system_of_loop())
        watch = kv.watch(key, end, start=max(self.revision + 1, 2), progress=True, timeout=60.0, **options)
        async with watch:
            self.begun += 1
            async for revision, events in watch.revisions():
                if revision <= self.revision and not options.get("fragment"):
                    self.troubles.append(f"revision {revision} came after {self.revision}")
                self.got += [(revision, event._replace(prev_kv=None)) for event in events]
                self.events += len(events)
                if watch.revision >= revision:
                    self.revision = max(self.revision, revision)
                if self.slow_s and not self.hurry:
                    await asyncio.sleep(self.slow_s)

    def compact(self, error: Compacted) -> None:
        """What it would see next is gone: it begins anew."""
        self.compactions += 1
        if error.compact_revision <= self.revision + 1:
            self.troubles.append(f"compacted {error.compact_revision} is no reason to end at {self.revision}")
        if error.compact_revision not in self.committed.compacted:
            self.troubles.append(f"nobody has compacted {error.compact_revision}")
        self.check()
        self.got = []
        self.start, self.revision = error.compact_revision, error.compact_revision - 1

    def check(self) -> None:
        """Holds what came against what was committed."""
        due = self.committed.of(self.spec, self.start, self.revision)
        got = [(revision, event) for revision, event in self.got if revision <= self.revision]
        if due != got:
            at = next((n for n, pair in enumerate(zip(due, got, strict=False)) if pair[0] != pair[1]), len(got))
            self.troubles.append(
                f"{self.spec} from {self.start} to {self.revision}: {len(due)} were due, {len(got)} came; "
                f"the first that differs, {at}: due {due[at : at + 1]}, got {got[at : at + 1]}"
            )

    async def run(self, place: Any) -> None:
        """Watches on some node until cancelled; `place()` names one, and `place.call(node, fn)` runs there."""
        while True:
            try:
                await place(self.read)
            except Compacted as error:
                self.compact(error)
            except (NodeDown, CallTimeout, NoConnection, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                # A node went down in the midst of a revision that came in parts: it comes again.
                self.got = [(revision, event) for revision, event in self.got if revision <= self.revision]
            except AspenError as error:
                self.troubles.append(f"a reader saw {error!r}")
            await asyncio.sleep(0.05)
