"""The checks on a toy replicated store that is right, and on the same store with a bug planted in it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

import pytest

from aspen.sim.checks import KvModel, check_linearizable, check_revisions
from aspen.sim.history import Committed, History, Recorder

SEEDS = 60


class Store:
    """A leader that appends, commits after a while and then answers; a failover drops what is not committed."""

    def __init__(self, seed: int, bug: str = "") -> None:
        self.rng = random.Random(seed)
        self.bug = bug
        self.now = 0
        self.heap: list[tuple[int, int, Callable[[], None]]] = []
        self.recorder = Recorder(lambda: self.now * 1_000)
        self.model = KvModel()
        self.state = self.model.initial()
        self.revision = 1
        self.states: list[tuple[int, dict[object, object]]] = [(1, {})]
        self.log: list[Committed] = []
        self.waiting: set[tuple[str, int]] = set()
        self.answers: dict[tuple[str, int], tuple[object, int]] = {}
        self.epoch = 0
        self.sequence = 0

    def later(self, most: int, do: Callable[[], None], *, least: int = 1) -> None:
        self.sequence += 1
        heapq.heappush(self.heap, (self.now + least + self.rng.randrange(most), self.sequence, do))

    def run(self) -> History:
        for client in ("a", "b", "c"):
            self.later(10, lambda client=client: self.ask(client, 12))  # type: ignore[misc]
        for _ in range(3):
            self.later(250, self.fail_over)
        while self.heap:
            self.now, _, do = heapq.heappop(self.heap)
            do()
        return self.recorder.history(self.log)

    # -- clients ----------------------------------------------------------------------------------------------

    def ask(self, client: str, left: int) -> None:
        if not left:
            return
        kind = self.rng.choice(("get", "get", "put", "add", "txn"))
        keys: tuple[str, ...] = (self.rng.choice(("x", "n")),)
        argument: Any = None
        if kind in {"put", "add"}:
            keys, argument = (("x",), self.rng.randrange(1_000)) if kind == "put" else (("n",), 1)
        if kind == "txn":
            keys, argument = ("p", "q"), ((), (("add", "p", 1), ("add", "q", 1)), ())
            if self.rng.random() < 0.6:
                argument = ((), (("get", "p", None), ("get", "q", None)), ())
        token = self.recorder.invoke(client, kind, keys, argument)
        name = (client, self.recorder.id_of(token))
        state = {"open": True}

        def answered(result: object, revision: int) -> None:
            if state["open"] and self.rng.random() > 0.1:
                state["open"] = False
                self.recorder.ok(token, result, revision)
                self.later(10, lambda: self.ask(client, left - 1))

        def given_up() -> None:
            if state["open"]:
                state["open"] = False
                self.recorder.unknown(token, "CallTimeout")
                self.later(10, lambda: self.ask(client, left - 1))

        entry = Committed(0, *name, kind, keys, argument)
        for _ in range(2 if self.rng.random() < 0.3 else 1):
            self.later(20, lambda: self.arrive(entry, answered))
        self.later(1, given_up, least=80)

    # -- the store ------------------------------------------------------------------------------------------------

    def arrive(self, entry: Committed, answer: Callable[[object, int], None]) -> None:
        assert entry.client is not None
        name = (entry.client, entry.id)
        if self.model.only_reads(entry):
            back = self.rng.randrange(3) if self.bug == "stale_reads" else 0
            revision, state = self.states[max(-len(self.states), -1 - back)]
            if self.bug == "split_reads" and entry.kind == "txn":
                older = self.states[max(-len(self.states), -2)][1]
                result: object = (True, (older.get("p"), state.get("q")))
            else:
                result, _ = self.model.apply(dict(state), entry)
            self.later(20, lambda: answer(result, revision))
            return
        if name in self.answers and self.bug != "applies_retries":
            self.later(20, lambda: answer(*self.answers[name]))
            return
        if name in self.waiting and self.bug != "applies_retries":
            return
        self.waiting.add(name)
        epoch = self.epoch
        if self.bug == "acks_early":
            after = dict(self.state)
            early, changed = self.model.apply(after, entry)
            at = self.revision + changed
            self.later(5, lambda: answer(early, at))
        self.later(30, lambda: self.commit(entry, epoch, answer))

    def commit(self, entry: Committed, epoch: int, answer: Callable[[object, int], None]) -> None:
        assert entry.client is not None
        if epoch != self.epoch:
            return
        result, changed = self.model.apply(self.state, entry)
        self.revision += changed
        done = Committed(self.revision, entry.client, entry.id, entry.kind, entry.keys, entry.argument)
        self.log.append(done)
        self.states.append((self.revision, dict(self.state)))
        revision = self.revision
        if self.bug == "wrong_revision" and self.rng.random() < 0.2:
            revision -= 1
        self.answers[entry.client, entry.id] = (result, revision)
        self.waiting.discard((entry.client, entry.id))
        self.later(20, lambda: answer(result, revision))

    def fail_over(self) -> None:
        self.epoch += 1
        self.waiting.clear()


def test_the_sound_store_passes_every_seed() -> None:
    for seed in range(SEEDS):
        history = Store(seed).run()
        assert check_revisions(history) == [], seed
        assert check_linearizable(history.operations).verdict == "OK", seed


@pytest.mark.parametrize(
    ("bug", "invariants"),
    [
        ("stale_reads", {"stale_read"}),
        ("split_reads", {"wrong_result"}),
        ("applies_retries", {"applied_twice"}),
        ("acks_early", {"lost_write"}),
        ("wrong_revision", {"wrong_revision"}),
    ],
)
def test_each_planted_bug_is_found_by_the_log(bug: str, invariants: set[str]) -> None:
    found: set[str] = set()
    for seed in range(SEEDS):
        found |= {violation.invariant for violation in check_revisions(Store(seed, bug).run(), violations_max=100)}
    assert invariants <= found, found


@pytest.mark.parametrize("bug", ["stale_reads", "split_reads", "applies_retries", "acks_early"])
def test_each_planted_bug_that_clients_can_see_is_found_without_the_log(bug: str) -> None:
    verdicts = [check_linearizable(Store(seed, bug).run().operations).verdict for seed in range(SEEDS)]
    assert "VIOLATION" in verdicts
