"""A store in this process that can lie in known ways: what the harness must catch, whether etcd is installed or not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aspen.sim.checks import KvModel
from aspen.sim.history import Operation
from tests.torture.seam import Answer, OutcomeUnknown, Refused, Value

LIES = {
    "forget": "lost_write",
    "stale": "stale_read",
    "stale, revision denied": "wrong_result",
    "twice": "nobody asked for|it makes|applied_twice|two writers|values of",
    "refuse what was done": "failed_applied",
    "diverge": "has another state",
    "wrong value": "it makes",
    "phantom": "nobody asked for",
}
"""The lies, and what a judgement says of each."""

RARELY = 0.2
CRASH_FORGETS = 3


class FakeStore:
    """The states of all revisions; both cluster and, by `client`, what clients speak to."""

    names = ["a", "b", "c"]

    def __init__(self, lie: str | None = None) -> None:
        self.lie = lie
        self.states: list[dict[bytes, Value]] = [{}, {}]
        self.rng = random.Random(7)

    @property
    def revision(self) -> int:
        """The current one."""
        return len(self.states) - 1

    def crash(self) -> None:
        """A crash of all members."""
        if self.lie == "forget":
            del self.states[max(2, len(self.states) - CRASH_FORGETS) :]

    def apply(self, kind: str, keys: tuple[bytes, ...], argument: Any) -> Answer:
        """Does it."""
        before = self.states[-1]
        live: dict[object, object] = {key: value.value for key, value in before.items()}
        result, changed = KvModel().apply(live, Operation("", 0, kind, keys, argument, 0))
        if changed:
            now = self.revision + 1
            after = {}
            for key, value in live.items():
                put = before.get(key) is None or before[key].value != value  # type: ignore[call-overload]
                after[key] = Value(value, now) if put else before[key]  # type: ignore[arg-type, index]
            self.states.append(after)  # type: ignore[arg-type]
        return Answer(result, self.revision)

    async def client(self, number: int, member: str | None = None) -> FakeClient:
        """A client."""
        return FakeClient(self, member)


class FakeClient:
    """Answers after a moment, before and after which others come in between."""

    def __init__(self, store: FakeStore, member: str | None) -> None:
        self.store, self.member = store, member

    async def execute(self, kind: str, keys: tuple[bytes, ...], argument: Any, *, serializable: bool = False) -> Answer:
        """Does it, or lies."""
        store, lie = self.store, self.store.lie
        await asyncio.sleep(0)
        lies = store.rng.random() < RARELY
        if lies and kind == "get" and lie in ("stale", "stale, revision denied"):
            old = max(1, store.revision - 20)
            value = store.states[old].get(keys[0])
            return Answer(value and value.value, old if lie == "stale" else store.revision)
        if lies and kind == "put" and lie == "wrong value":
            store.apply(kind, keys, argument)
            store.states[-1][keys[0]] = Value(argument + b"!", store.revision)
            return Answer(None, store.revision)
        answer = store.apply(kind, keys, argument)
        if lies and kind == "put" and lie == "twice":
            store.states.append({**store.states[-1], keys[0]: Value(argument, store.revision + 1)})
        if lies and kind == "put" and lie == "phantom":
            store.states.append({**store.states[-1], keys[0]: Value(b"of nobody", store.revision + 1)})
        if lies and kind == "put" and lie == "refuse what was done":
            raise Refused("not now")
        if not lies and store.rng.random() < RARELY / 4:
            raise OutcomeUnknown("the answer was lost")
        await asyncio.sleep(0)
        return answer

    async def state(self, prefix: bytes, revision: int = 0) -> tuple[dict[bytes, Value], int]:
        """What stands."""
        found = self.store.states[revision or self.store.revision]
        if self.store.lie == "diverge" and self.member == "c":
            found = {key: Value(b"else", value.mod_revision) for key, value in found.items()}
        return found, self.store.revision

    async def close(self) -> None:
        """Has nothing to end."""
