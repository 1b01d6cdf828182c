"""The machine against the dumb model: late flushes, crashes, replays, snapshots, compaction; and bugs it must find."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from aspen.errors import InvariantBroken, StorageCorrupt
from aspen.kv import compaction, machine
from aspen.kv.keyspace import Head, Keyspace
from aspen.kv.machine import Machine
from aspen.kv.sessions import Session, Sessions
from aspen.kv.transactions import Choosing, Writing
from aspen.kv.write_behind import Flush, Layer, WriteBehind
from tests.kv.model import Checked

SOAK = bool(os.environ.get("ASPEN_SOAK"))
SEEDS = 200 if SOAK else 8
STEPS = 400 if SOAK else 120


class AgainstModel(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.checked = Checked(seed)

    @rule(count=st.integers(1, 6))
    def commands(self, count: int) -> None:
        self.checked.commands(count)
        self.checked.compare()

    @rule()
    def flush(self) -> None:
        self.checked.flush()
        self.checked.compare()

    @rule(count=st.integers(1, 3))
    def flush_late(self, count: int) -> None:
        self.checked.flush_late(count)
        self.checked.compare()

    @rule()
    def scrub(self) -> None:
        self.checked.scrub()
        self.checked.compare()

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        self.checked.rig.crash(power=power)
        self.checked.compare()

    @rule(power=st.booleans())
    def crash_in_flush(self, power: bool) -> None:
        self.checked.crash_in_flush(power=power)
        self.checked.compare()

    @rule()
    def replay(self) -> None:
        self.checked.replay()

    @rule()
    def move(self) -> None:
        self.checked.move()
        self.checked.compare()

    @rule()
    def verify(self) -> None:
        self.checked.verify()


AgainstModel.TestCase.settings = settings(
    max_examples=500 if SOAK else 12,
    stateful_step_count=50,
    deadline=None,
    derandomize=not SOAK,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAgainstModel = AgainstModel.TestCase


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_machine_does_as_the_model(seed: int) -> None:
    checked = Checked(seed)
    for _ in range(STEPS):
        checked.step()


# -- planted bugs -----------------------------------------------------------------------------


def version_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put after a delete goes on counting versions."""
    original = Keyspace.put

    def put(self: Keyspace, key: bytes, value: bytes, lease: int, revision: int, sub: int) -> Head:
        head = self.newest(key)
        if head is not None and not head[3]:
            self._young[key] = (head[0], head[1], head[0], 1, 0)
        return original(self, key, value, lease, revision, sub)

    monkeypatch.setattr(Keyspace, "put", put)


def delete_without_effect_makes_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(self: Writing) -> int:
        self._keyspace.revision = self._revision
        return self._revision

    monkeypatch.setattr(Writing, "finish", finish)


def compaction_loses_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was written last before the compacted revision, what is newer already counts as newer."""
    monkeypatch.setattr(compaction, "newest_at", lambda revision: compaction_newest(revision + 1))


def compaction_loses_deletions_at_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "revs_of", lambda row: (compaction_revs(row)[0] - 1, compaction_revs(row)[1]))


def compaction_forgets_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept at the compacted revision is not looked at by the next compaction."""
    original = compaction.compact

    def compact(keyspace: Keyspace, revision: int) -> None:
        at = keyspace.scrub_at
        original(keyspace, revision)
        keyspace.scrub_at = (max(at[0] + 1, keyspace.scrub_at[0]), 0)

    monkeypatch.setattr(machine, "compact", compact)


def applied_is_not_in_the_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is written one flush late: data and applied index apart."""
    original = Machine._state

    def state(self: Machine) -> bytes:
        late = getattr(self._tables, "late", None) or original(self)
        self._tables.late = original(self)  # type: ignore[attr-defined]
        return late

    monkeypatch.setattr(Machine, "_state", state)


def visible_counts_as_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Machine.flushed

    def flushed(self: Machine, flush: Flush) -> None:
        original(self, flush)
        self._synced = self._visible

    monkeypatch.setattr(Machine, "flushed", flushed)


def replay_applies_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Machine.apply

    def apply(self: Machine, index: int, term: int, payload: bytes) -> Any:
        if index <= self.applied[0] and payload:
            self._apply_batch(index, term, payload)
            return None
        return original(self, index, term, payload)

    monkeypatch.setattr(Machine, "apply", apply)


def retry_is_executed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "keep", lambda self, sequence, result, revision: None)


def errors_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Session.keep

    def keep(self: Session, sequence: int, result: bytes, revision: int) -> None:
        if result[0] != 0x7F:
            original(self, sequence, result, revision)

    monkeypatch.setattr(Session, "keep", keep)


def snapshot_without_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sessions, "save", lambda self: None)


def expired_session_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Sessions.enter

    def enter(self: Sessions, id: int, sequence: int, acked: int, index: int) -> Any:
        self._open.setdefault(id, Session(index))
        return original(self, id, sequence, acked, index)

    monkeypatch.setattr(Sessions, "enter", enter)


def session_in_use_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Sessions.close
    monkeypatch.setattr(Sessions, "close", lambda self, name, since=None: original(self, name))


def overlay_hides_what_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a flush is under way, only what came after it is seen over the storage."""
    original = WriteBehind.get

    def get(self: WriteBehind, table: str, key: bytes) -> bytes | None:
        flush, self._flush = self._flush, None
        try:
            return original(self, table, key)
        finally:
            self._flush = flush

    monkeypatch.setattr(WriteBehind, "get", get)


def overlay_misses_new_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(self: Layer) -> list[bytes]:
        if not self._order:
            self._order = sorted(self.values)
        return self._order

    monkeypatch.setattr(Layer, "order", order)


def flush_forgets_deletions(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Flush.write

    def write(self: Flush, *, sync: bool = False) -> None:
        for layer in self.layers.values():
            for key in [key for key, value in layer.values.items() if value is None]:
                del layer.values[key]
        original(self, sync=sync)

    monkeypatch.setattr(Flush, "write", write)


def phantoms_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard looks at the keys that are there, and not at those deleted since."""

    def unmodified_since(self: Choosing, begin: bytes, end: bytes, revision: int) -> bool:
        now = self._keyspace.revision
        return all(version.revision <= revision for version in self._keyspace.scan(begin, end, now))

    monkeypatch.setattr(Choosing, "unmodified_since", unmodified_since)


def comparisons_see_earlier_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested transaction is decided when its turn comes, not before the first effect."""
    original = Writing.transact

    def transact(self: Writing, request: Any, way: Any) -> Any:
        kept, self._keyspace.revision = self._keyspace.revision, self.now
        way = Choosing(self._keyspace, self._keyspace._tables).choose(request)
        self._keyspace.revision = kept
        return original(self, request, way)

    monkeypatch.setattr(Writing, "transact", transact)


def absent_value_compares_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Choosing._holds

    def holds(self: Choosing, compare: Any) -> bool:
        if not compare.end and self._keyspace.get(compare.key) is None and compare.operand == b"":
            return True
        return original(self, compare)

    monkeypatch.setattr(Choosing, "_holds", holds)


def puts_pass_without_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keyspace, "check_space", lambda keyspace: None)


def long_keys_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """All long keys with the same beginning are one."""
    original = Keyspace.make_stem
    monkeypatch.setattr(Keyspace, "make_stem", lambda self, key: original(self, key[:241]))
    stem = Keyspace.stem
    monkeypatch.setattr(Keyspace, "stem", lambda self, key: stem(self, key[:241]))


def heads_are_forgotten_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Keyspace.frozen

    def frozen(self: Keyspace) -> None:
        original(self)
        self._young, self._old = {}, {}

    monkeypatch.setattr(Keyspace, "frozen", frozen)


def keyspaces_share_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Writing.finish

    def finish(self: Writing) -> int:
        revision = original(self)
        other = getattr(Keyspace, "other", None)
        if other is not None and other._tables is self._keyspace._tables and self._sub:
            other.revision = max(other.revision, revision)
        Keyspace.other = self._keyspace  # type: ignore[attr-defined]
        return revision

    monkeypatch.setattr(Keyspace, "other", None, raising=False)
    monkeypatch.setattr(Writing, "finish", finish)


compaction_newest, compaction_revs = compaction.newest_at, compaction.revs_of

PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    version_forgets,
    delete_without_effect_makes_a_revision,
    compaction_loses_the_head,
    compaction_loses_deletions_at_its_revision,
    compaction_forgets_where_it_was,
    applied_is_not_in_the_flush,
    visible_counts_as_synced,
    replay_applies_twice,
    retry_is_executed_again,
    errors_are_not_kept,
    snapshot_without_sessions,
    expired_session_is_opened_again,
    session_in_use_expires,
    overlay_hides_what_is_being_written,
    overlay_misses_new_keys,
    flush_forgets_deletions,
    phantoms_are_not_seen,
    comparisons_see_earlier_writes,
    absent_value_compares_as_empty,
    puts_pass_without_space,
    long_keys_are_cut,
    heads_are_forgotten_too_early,
    keyspaces_share_revisions,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    # A difference, or a store that notices it itself; not a plant that is broken.
    with pytest.raises((AssertionError, StorageCorrupt, InvariantBroken)):
        for seed in range(12):
            checked = Checked(seed)
            for _ in range(150):
                checked.step()
