"""The revision-order check: a store that numbers its states must have been in them.

The committed log is replayed once against the model, and every answer is held against the model at the revision that
it speaks of. Then real time is held against that order: what began after something had ended comes after it. The
cost is that of sorting, and transactions over many keys are nothing special, so it runs after every simulation.

It trusts the revisions that the store told; `linearizable` does not.

Invariants, as violations name them:

    log_disorder     an entry's revision does not follow from the one before
    phantom          an entry that no client asked for, or not so
    applied_twice    one operation stands in the log twice
    failed_applied   an operation that was said to have failed stands in the log
    lost_write       an operation that was acknowledged does not stand in the log
    wrong_revision   an answer speaks of a revision at which it was not executed, or of none that there was
    wrong_result     an answer differs from the model's at its revision
    stale_read       a read was served at a revision older than what had been seen before it began
    real_time        a write stands in the log before something that had been seen before it began
    seen_before      an answer speaks of a write that was invoked only afterwards
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from aspen.errors import HistoryError
from aspen.sim.checks.model import KvModel, Model
from aspen.sim.checks.violation import Violation
from aspen.sim.history import Committed, History, Operation

CHECK = "revisions"


def check_revisions(history: History, model: Model[Any] | None = None, *, violations_max: int = 10) -> list[Violation]:
    """What contradicts the committed log, at most `violations_max`; an empty list when nothing does.

    An operation whose outcome was unknown was executed if, and only if, it stands in the log. The log holds at least
    every entry that changed something. An operation with neither a place in the log nor a revision is held to
    nothing: record the revisions.

    Raises:
        HistoryError: the history has no log, or an operation makes no sense to the model.
    """
    return _Replay(history, model or KvModel(), violations_max).run()


class _Replay:
    def __init__(self, history: History, model: Model[Any], violations_max: int) -> None:
        if history.log is None:
            raise HistoryError(
                "the history has no committed log; give the recorder's history() one, or check_linearizable"
            )
        self.log: Sequence[Committed] = history.log
        self.operations = history.operations
        self.model = model
        self.violations_max = violations_max
        self.found: list[Violation] = []
        self.places: dict[tuple[str, int], int] = {}
        """Client and id to the place in the log."""
        self.revisions: list[int] = [model.first_revision]
        """The store's revision after each entry, with that of the empty store in front."""

    def report(self, invariant: str, message: str, *evidence: Operation | Committed, at_ns: int | None = None) -> None:
        if len(self.found) < self.violations_max:
            lines = tuple(item.describe() if isinstance(item, Operation) else _entry(item) for item in evidence)
            kinds = " ".join(sorted({item.kind for item in evidence if isinstance(item, Operation)}))
            self.found.append(Violation(CHECK, invariant, message, at_ns, kinds, lines))

    def run(self) -> list[Violation]:
        known: dict[tuple[str, int], Operation] = {}
        for operation in self.operations:
            name = (operation.client, operation.id)
            if name in known:
                raise HistoryError(f"two operations are named {operation.client}#{operation.id}; ids are never reused")
            known[name] = operation
        self.place(known)
        self.replay(known)
        self.real_time()
        return self.found

    def place(self, known: dict[tuple[str, int], Operation]) -> None:
        """Finds each operation's place in the log, and whether each entry has an operation."""
        for at, entry in enumerate(self.log):
            if entry.client is None:
                continue
            name = (entry.client, entry.id)
            operation = known.get(name)
            if operation is None:
                self.report("phantom", f"nobody asked for entry {at} of the log", entry)
                continue
            if (entry.kind, entry.keys, entry.argument) != (operation.kind, operation.keys, operation.argument):
                self.report("phantom", f"entry {at} of the log is not what {name[0]} asked for", operation, entry)
            first = self.places.setdefault(name, at)
            if first != at:
                self.report(
                    "applied_twice", f"{name[0]}#{name[1]} was applied twice", operation, self.log[first], entry
                )
            elif operation.status == "failed":
                self.report("failed_applied", f"{name[0]}#{name[1]} failed, and was applied", operation, entry)

    def replay(self, known: dict[tuple[str, int], Operation]) -> None:
        """Replays the log, and holds each answer against the model at its revision."""
        reads: dict[int, list[Operation]] = {}
        for operation in self.operations:
            if operation.status != "ok" or (operation.client, operation.id) in self.places:
                continue
            if operation.revision is not None:
                reads.setdefault(operation.revision, []).append(operation)
            elif not self.model.is_read(operation, operation.result):
                self.report(
                    "lost_write",
                    f"{operation.client}#{operation.id} was acknowledged, and the log does not have it",
                    operation,
                    at_ns=operation.return_ns,
                )
        model, state = self.model, self.model.initial()
        revision = model.first_revision
        self.answers(state, reads.pop(revision, ()))
        for at, entry in enumerate(self.log):
            result, changed = model.apply(state, entry)
            right = revision + changed
            if entry.revision != right:
                self.report(
                    "log_disorder",
                    f"entry {at} of the log has revision {entry.revision}; it should have {right}, "
                    f"since it {'changed the store' if changed else 'changed nothing'} at {revision}",
                    entry,
                )
            revision = max(entry.revision, revision)
            self.revisions.append(revision)
            asked = None if entry.client is None else known.get((entry.client, entry.id))
            if asked is not None and asked.status == "ok" and self.places[asked.client, asked.id] == at:
                if asked.revision is not None and asked.revision != entry.revision:
                    self.report(
                        "wrong_revision",
                        f"{asked.client}#{asked.id} was told revision {asked.revision}; it made {entry.revision}",
                        asked,
                        entry,
                    )
                if asked.result != result:
                    self.wrong_result(asked, result, revision)
            if revision in reads:
                # Entries that change nothing keep the revision, so this is the state at it for good.
                self.answers(state, reads.pop(revision))
        for late in (one for left in reads.values() for one in left):
            name = f"{late.client}#{late.id}"
            if model.is_read(late, late.result):
                message = f"{name} speaks of revision {late.revision}, which the log never had"
                self.report("wrong_revision", message, late, at_ns=late.return_ns)
            else:
                message = f"{name} was acknowledged at revision {late.revision}, which the log never had"
                self.report("lost_write", message, late, at_ns=late.return_ns)

    def answers(self, state: Any, operations: Iterable[Operation]) -> None:
        """Holds answers that have no place in the log against the state at their revision."""
        model = self.model
        copy: Any = None
        for operation in operations:
            if model.only_reads(operation):
                result, changed = model.apply(state, operation)
            else:
                # It should change nothing; if it does, that must not last.
                copy = model.thaw(model.freeze(state)) if copy is None else copy
                result, changed = model.apply(copy, operation)
                copy = None if changed else copy
            if changed:
                self.report(
                    "lost_write",
                    f"{operation.client}#{operation.id} was acknowledged at revision {operation.revision}, and the log "
                    f"does not have it",
                    operation,
                    at_ns=operation.return_ns,
                )
            elif result != operation.result:
                self.wrong_result(operation, result, operation.revision)

    def wrong_result(self, operation: Operation, right: object, revision: int | None) -> None:
        self.report(
            "wrong_result",
            f"{operation.client}#{operation.id} was told {operation.result!r}; at revision {revision} it is {right!r}",
            operation,
            at_ns=operation.return_ns,
        )

    # -- real time --------------------------------------------------------------------------------------------

    def real_time(self) -> None:
        """Sweeps over the stamps: what began after something ended must not come before it.

        Places are doubled: entry i is at 2i + 2, and what is served after it, but before the next entry, at 2i + 3;
        what an empty store serves is at 1. A read may be served anywhere while its revision lasts, and takes the
        earliest place that the operations before it allow.
        """
        begins: list[tuple[int, int, Operation]] = []
        for number, operation in enumerate(self.operations):
            placed = (operation.client, operation.id) in self.places
            if operation.serializable or operation.status == "failed":
                continue
            if placed or (operation.status == "ok" and operation.revision is not None):
                begins.append((operation.invoke_ns, number, operation))
        begins.sort(key=lambda one: one[:2])
        ends = sorted(
            (operation.return_ns, number) for _, number, operation in begins if operation.return_ns is not None
        )
        assigned: dict[int, int] = {}
        floor, floor_by, at = 0, None, 0
        for invoke_ns, number, operation in begins:
            while at < len(ends) and ends[at][0] < invoke_ns:
                ended = ends[at][1]
                if assigned[ended] > floor:
                    floor, floor_by = assigned[ended], self.operations[ended]
                at += 1
            place = self.places.get((operation.client, operation.id))
            if place is not None:
                assigned[number] = 2 * place + 2
                if floor >= assigned[number]:
                    self.too_early(operation, floor, floor_by)
                continue
            lowest, highest = self.span(operation.revision or 0)
            if highest < lowest:
                assigned[number] = 0  # there was no such revision, which is reported already
                continue
            earliest = max(lowest, floor | 1)
            assigned[number] = min(earliest, highest)
            if earliest > highest:
                self.report(
                    "stale_read",
                    f"{operation.client}#{operation.id} was served at revision {operation.revision}, and what ended "
                    f"before it began had seen {self.revision_at(floor)}",
                    *((operation,) if floor_by is None else (floor_by, operation)),
                    at_ns=operation.return_ns,
                )

    def too_early(self, operation: Operation, floor: int, floor_by: Operation | None) -> None:
        # An odd place is that of a read: it saw what was not asked for yet.
        self.report(
            "seen_before" if floor % 2 else "real_time",
            f"{operation.client}#{operation.id} stands in the log before what had ended when it was invoked",
            *((operation,) if floor_by is None else (floor_by, operation)),
            at_ns=operation.invoke_ns,
        )

    def span(self, revision: int) -> tuple[int, int]:
        """The first and last place at which the store had that revision; the last below the first if it never had."""
        revisions = self.revisions
        last = bisect_right(revisions, revision) - 1
        first = bisect_right(revisions, revision - 1)
        return 2 * first + 1, 2 * last + 1

    def revision_at(self, place: int) -> int:
        return self.revisions[place // 2]


def _entry(entry: Committed) -> str:
    who = "the store itself" if entry.client is None else f"{entry.client}#{entry.id}"
    return f"log @{entry.revision}: {who} {entry.kind}{entry.keys} {entry.argument!r}"
