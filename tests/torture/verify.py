"""The judgement over a run: the log read back from the store itself, and both checks over the history.

A store with revisions keeps its past: what stood at each revision is read, one after the other, from every member in
turn, and the difference between two neighbours is the entry that stood between them. An acknowledged write says its
revision, one in doubt is known by the value it wrote, which no other operation has; a delete in doubt by its key. What
is at a revision and nobody asked for is a phantom.

`check_revisions` then replays that log against every answer and against real time: an acknowledged write that is not
there is lost. `check_linearizable` looks at the answers alone and trusts neither log nor revisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aspen.sim.checks import KvModel, check_linearizable, check_revisions
from aspen.sim.history import Committed, History, Operation, Recorder
from tests.torture.rounds import PREFIX, pause
from tests.torture.seam import Cluster, OutcomeUnknown, Refused, Value

READERS = 8
CATCH_UP_S = 20.0
RETRY_S = 0.1
STEPS_MAX = 2_000_000

State = dict[bytes, Value]


class StateUnreadable(Exception):
    """A member did not show what stood at a revision in good time."""


@dataclass
class Verdict:
    """What was found; good when nothing was."""

    history: History
    problems: list[str] = field(default_factory=list)
    operations: int = 0
    acknowledged: int = 0
    unknown: int = 0
    executed_unknown: int = 0
    """Of those in doubt, the ones that the log has."""
    revisions: int = 0

    def __str__(self) -> str:
        counts = (
            f"{self.operations} operations, {self.acknowledged} acknowledged, {self.unknown} in doubt "
            f"({self.executed_unknown} of them executed), {self.revisions} revisions"
        )
        return counts + "".join(f"\n{problem}" for problem in self.problems)


async def judge(cluster: Cluster, recorder: Recorder, keep: Callable[[str], None] | None = None) -> Verdict:
    """Reads the store back and checks. `keep` is given the history as text when anything is wrong."""
    states, problems = await read_back(cluster)
    history, found = with_log(recorder.history().operations, states)
    verdict = check(history)
    verdict.problems[:0] = problems + found
    if verdict.problems and keep is not None:
        keep(history.to_json_lines())
    return verdict


def check(history: History) -> Verdict:
    """Both checks over a history with its log."""
    verdict = Verdict(history)
    log = history.log or ()
    model = KvModel()
    verdict.problems += [str(one) for one in check_revisions(history, model)]
    found = check_linearizable(history.operations, model, steps_max=STEPS_MAX)
    verdict.problems += [str(one) for one in found.violations]
    verdict.problems += [f"the search for an order of {keys} gave up: no pass" for keys in found.unknown_keys]
    doubtful = {(one.client, one.id) for one in history.operations if one.status == "unknown"}
    verdict.operations = len(history.operations)
    verdict.acknowledged = sum(one.status == "ok" for one in history.operations)
    verdict.unknown = len(doubtful)
    verdict.executed_unknown = sum((one.client, one.id) in doubtful for one in log)
    verdict.revisions = len(log)
    return verdict


# -- reading back ----------------------------------------------------------------------------------------------


async def read_back(cluster: Cluster) -> tuple[list[State], list[str]]:
    """What stood at each revision from 1 on; and where two members differ.

    Every member shows the last state, and every revision is shown by one member, each by another than the one before.
    """
    anyone = await cluster.client(0)
    members = {name: await cluster.client(0, name) for name in cluster.names}
    try:
        last, final = await _until_read(anyone, 0)
        ends = {name: (await _until_read(client, final))[0] for name, client in members.items()}
        problems = [f"{name} has another state at revision {final}" for name, end in ends.items() if end != last]
        states: list[State] = [{}] * (final + 1)
        waiting = iter(range(1, final + 1))
        names = cluster.names

        async def reader() -> None:
            for revision in waiting:
                states[revision] = (await _until_read(members[names[revision % len(names)]], revision))[0]

        await asyncio.gather(*(reader() for _ in range(READERS)))
        if states[final] != last:
            problems.append(f"revision {final} reads differently the second time")
        return states, problems
    finally:
        for client in (anyone, *members.values()):
            await client.close()


async def _until_read(client: Any, revision: int) -> tuple[State, int]:
    loop = asyncio.get_running_loop()
    end = loop.time() + CATCH_UP_S
    while True:
        try:
            state, now = await client.state(PREFIX, revision)
        except (Refused, OutcomeUnknown) as error:
            if loop.time() > end:
                raise StateUnreadable(f"revision {revision}: {error}") from error
            await pause(RETRY_S)
        else:
            return state, now


# -- the log ---------------------------------------------------------------------------------------------------


def with_log(operations: Iterable[Operation], states: list[State]) -> tuple[History, list[str]]:
    """The history with the log that the states tell of, and what of them no operation explains.

    The states begin with an empty one at revision 1; index 0 is not used.
    """
    operations = tuple(operations)
    by_revision: dict[int, list[Operation]] = {}
    by_value: dict[bytes, Operation] = {}
    deletes: dict[bytes, list[Operation]] = {}
    model = KvModel()
    for one in operations:
        if one.status == "ok" and one.revision is not None and not model.is_read(one, one.result):
            by_revision.setdefault(one.revision, []).append(one)
        for kind, key, value in _writes(one):
            if kind == "put":
                by_value[value] = one
            elif one.status == "unknown":
                deletes.setdefault(key, []).append(one)
    problems: list[str] = []
    log: list[Committed] = []
    live: dict[object, object] = {}
    taken: set[tuple[str, int]] = set()
    for revision in range(2, len(states)):
        before, after = states[revision - 1], states[revision]
        put = {key: value.value for key, value in after.items() if value.mod_revision == revision}
        gone = [key for key in before if key not in after]
        claims = by_revision.get(revision, [])
        if len(claims) > 1:
            problems.append(
                f"revision {revision} was told to two writers: " + "; ".join(one.describe() for one in claims)
            )
        writers = {id(by_value[value]): by_value[value] for value in put.values() if value in by_value}
        if len(writers) > 1:
            problems.append(f"revision {revision} has values of {len(writers)} operations: {put}")
        writer = next(iter(writers.values()), None) or next(iter(claims), None)
        if writer is None:
            # The one that was asked for first is the one that anything is possible for.
            candidates = [one for key in gone for one in deletes.get(key, ()) if (one.client, one.id) not in taken]
            writer = min(candidates, key=lambda one: one.invoke_ns, default=None)
        if writer is None:
            log.append(Committed(revision, "nobody", revision, "put", tuple(put) or tuple(gone), tuple(put.values())))
            problems.append(f"nobody asked for revision {revision}: put {put}, deleted {gone}")
            live = {key: value.value for key, value in after.items()}
            continue
        taken.add((writer.client, writer.id))
        log.append(Committed(revision, writer.client, writer.id, writer.kind, writer.keys, writer.argument))
        model.apply(live, writer)
        told = {key: value.value for key, value in after.items()}
        if live != told:
            problems.append(
                f"revision {revision} should have come of {writer.describe()}: it makes {_difference(live, told)}"
            )
            live = dict(told)
    return History(operations, tuple(log)), problems


def _writes(operation: Operation) -> list[tuple[str, bytes, bytes]]:
    """What it may put and delete."""
    key: Any = operation.keys[0]
    argument: Any = operation.argument
    if operation.kind == "put":
        return [("put", key, argument)]
    if operation.kind == "cas":
        return [("put", key, argument[1])]
    if operation.kind == "delete":
        return [("delete", key, b"")]
    if operation.kind == "txn":
        return [one for branch in argument[1:] for one in branch if one[0] != "get"]
    return []


def _difference(right: dict[Any, Any], told: dict[Any, Any]) -> str:
    keys = [key for key in {**right, **told} if right.get(key) != told.get(key)]
    return "; ".join(f"{key!r} {right.get(key)!r}, and the store has {told.get(key)!r}" for key in keys)
